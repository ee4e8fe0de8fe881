//! The series of fleets that are larger or worse than usual.

use super::*;
use crate::{
    api::{OllamaServer, OllamaServerStatus, server_status::Scalar},
    controller::server::live::{AgentSnapshot, Place, Snapshot},
    plugins::readings::Readings,
};
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// A plugin with as much as one may have: 32 values and 16 rules, and two series of its own.
const FULL: usize = 2 + 32 + 16;
/// For the usual limit of 2,000 servers.
const MOST: usize = 128_000;

fn server(namespace: &str, name: &str, spec: &Value, agents: Vec<AgentSnapshot>) -> Snapshot {
    Snapshot {
        namespace: namespace.into(),
        name: name.into(),
        object: Arc::new(OllamaServer::new(name, serde_json::from_value(spec.clone()).unwrap())),
        backend: "Ollama",
        capacity_memory: None,
        capacity_vram: None,
        status: Arc::new(OllamaServerStatus::default()),
        readings: Readings::default(),
        agents: agents.into(),
        failures: 0,
        last_poll: None,
    }
}

fn agent(plugin: usize) -> AgentSnapshot {
    AgentSnapshot {
        plugin: format!("p{plugin:02}"),
        up: Some(true),
        values: Arc::new((0..32).map(|value| (format!("v{value:02}"), Scalar::Integer(1))).collect()),
        took: Some(Duration::from_millis(5)),
        rules: (0..16).map(|rule| (format!("r{rule:02}"), false)).collect(),
    }
}

/// So many servers with so many full plugins each.
fn fill(live: &Live, namespace: &str, servers: usize, plugins: usize) -> Vec<Place> {
    let spec = json!({"host": "192.0.2.1"});
    let names = (0..servers).map(|number| format!("s{number:04}"));
    names
        .map(|name| {
            let place = live.enter(&format!("{namespace}/{name}"));
            place.show(server(namespace, &name, &spec, (0..plugins).map(agent).collect()));
            place
        })
        .collect()
}

fn exposed(live: &Live, server_limit: usize) -> String {
    Metrics::new(live, server_limit, &Leadership::always()).expose()
}

/// The series of plugins, without what they stand at.
fn series(text: &str) -> BTreeSet<&str> {
    let lines = text.lines().filter(|line| line.contains("plugin=\""));
    lines.map(|line| line.rsplit_once(' ').unwrap().0).collect()
}

fn single(text: &str, name: &str) -> usize {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    line.unwrap().parse().unwrap()
}

/// However many plugins a namespace has on however many servers: the series of all plugins together are bounded, the
/// others have theirs, and what is left out is counted.
#[test]
fn series_of_plugins_are_bounded_in_all_and_shared_by_namespace() {
    let live = Live::default();
    let greedy = fill(&live, "greedy", 80, 64);
    let modest = fill(&live, "modest", 20, 2);
    let text = exposed(&live, 2000);
    let all = series(&text);
    let of = |name: &str| all.iter().filter(|series| series.contains(name)).count();
    assert_eq!(of("namespace=\"modest\""), 20 * 2 * FULL);
    // There is no half of what one agent says.
    assert!(all.len() <= MOST && all.len() > MOST - FULL, "{} series", all.len());
    assert_eq!(all.len() + single(&text, "ollama_fleet_plugin_series_dropped"), (80 * 64 + 20 * 2) * FULL);
    assert_eq!(
        of("ollama_fleet_plugin_up{"),
        80 * 64 + 20 * 2,
        "whether they answer goes before what they say"
    );
    drop((greedy, modest));
}

/// Which series there is no room for does not change with what an agent answers.
#[test]
fn an_agent_that_falls_silent_moves_no_other_series() {
    let live = Live::default();
    let places = fill(&live, "greedy", 80, 64);
    let before = exposed(&live, 2000);
    let silent =
        AgentSnapshot { up: Some(false), values: Arc::new(BTreeMap::new()), rules: Vec::new(), ..agent(3) };
    let agents = (0..64).map(|plugin| if plugin == 3 { silent.clone() } else { agent(plugin) }).collect();
    places[7].show(server("greedy", "s0007", &json!({"host": "192.0.2.1"}), agents));
    let after = exposed(&live, 2000);
    let (before, after) = (series(&before), series(&after));
    let gone: Vec<_> = before.difference(&after).collect();
    assert_eq!(gone.len(), 32 + 16);
    assert!(gone.iter().all(|series| series.contains("s0007") && series.contains("p03")), "{gone:?}");
    assert_eq!(after.difference(&before).count(), 0);
}

/// A fleet of the size that was measured has all its series, where the limit of servers allows for it.
#[test]
fn a_large_fleet_with_a_full_plugin_has_all_its_series() {
    for servers in [2000, 3000] {
        let live = Live::default();
        let places = fill(&live, "fleet", servers, 1);
        let text = exposed(&live, servers);
        assert_eq!(single(&text, "ollama_fleet_plugin_series_dropped"), 0);
        assert_eq!(series(&text).len(), servers * FULL);
        drop(places);
    }
}

/// Who is not checked is told of every fleet, also of one that is too large for the other details.
#[test]
fn an_unchecked_certificate_is_shown_above_the_limit_of_servers() {
    let live = Live::default();
    let places: Vec<_> = [("checked", false), ("unchecked", true)]
        .map(|(name, skip)| {
            let place = live.enter(name);
            let spec = json!({"host": "https://192.0.2.1", "insecureSkipVerify": skip});
            place.show(server("n", name, &spec, Vec::new()));
            place
        })
        .into();
    let text = exposed(&live, 1);
    assert_eq!(single(&text, "ollama_fleet_metrics_servers_dropped"), places.len());
    let shown: Vec<_> =
        text.lines().filter(|line| line.starts_with("ollama_fleet_server_tls_insecure{")).collect();
    assert_eq!(shown, ["ollama_fleet_server_tls_insecure{namespace=\"n\",server=\"unchecked\"} 1"]);
}
