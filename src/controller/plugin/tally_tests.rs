use super::*;
use crate::{
    api::{FleetPlugin, OllamaServer},
    controller::plugin::validate::validate,
    plugins::readings::Readings,
};
use serde_json::{Value, json};

/// An active plugin with one value for a reading, for servers with this label.
fn plugin(name: &str, label: &str) -> Arc<ActivePlugin> {
    let object: FleetPlugin = serde_json::from_value(json!({
        "apiVersion": "ollama-fleet.io/v1alpha1", "kind": "FleetPlugin",
        "metadata": {"name": name, "namespace": "x"},
        "spec": {"type": "Agent", "version": "1.0.0", "serverSelector": {"matchLabels": {"for": label}},
            "agent": {"defaultPort": 9100, "endpoint": "/m",
                "values": [{"name": "cpu", "reading": "cpuPercent", "jsonPaths": ["$.cpu"]}]}}
    }))
    .unwrap();
    validate(&object).unwrap().active
}

fn index(plugins: Vec<Arc<ActivePlugin>>) -> PluginIndex {
    let mut index = PluginIndex::default();
    index.set("x".to_owned(), plugins, [].into());
    index
}

fn server(name: &str, label: &str, reports: Value) -> Snapshot {
    let mut object = OllamaServer::new(name, serde_json::from_value(json!({"host": "192.0.2.1"})).unwrap());
    object.metadata.labels = Some([("for".to_owned(), label.to_owned())].into());
    Snapshot {
        namespace: "x".into(),
        name: name.into(),
        object: Arc::new(object),
        backend: "Ollama",
        capacity_memory: None,
        capacity_vram: None,
        status: Arc::new(
            serde_json::from_value(json!({"plugins": reports, "modelCount": 0, "conditions": []})).unwrap(),
        ),
        agents: Arc::default(),
        readings: Readings::default(),
        failures: 0,
        last_poll: None,
    }
}

#[test]
fn the_older_source_wins_whatever_the_names() {
    // Oldest first, as the index has them; by name it would be a, b, c.
    let index = index(["b", "c", "a"].map(|name| plugin(name, "all")).to_vec());
    let reports = json!([{"name": "a", "state": "Active"}, {"name": "b", "state": "Active"}, {"name": "c", "state": "Active"}]);
    let mut tallies = tally(&[server("s", "all", reports)], &index);
    let mut owner = |name| tallies.take("x", name).shadowed.into_values().next();
    assert_eq!([owner("a"), owner("b"), owner("c")], [Some("b".to_owned()), None, Some("b".to_owned())]);
}

#[test]
fn what_a_full_server_is_not_asked_for_is_counted() {
    let named = |n: usize| format!("p{n:03}");
    let mut plugins: Vec<_> = (0..=PLUGINS_MAX).map(|n| plugin(&named(n), "all")).collect();
    plugins.push(plugin("other", "none"));
    let full: Vec<Value> = (0..PLUGINS_MAX).map(|n| json!({"name": named(n), "state": "Active"})).collect();
    let servers = [
        server("full", "all", json!(full)),
        server("other", "none", json!([{"name": "other", "state": "Active"}])),
    ];
    let mut tallies = tally(&servers, &index(plugins));
    let late = tallies.take("x", &named(PLUGINS_MAX));
    assert_eq!((late.left_out, late.counts.matched), (1, 0));
    assert_eq!(tallies.take("x", &named(0)).left_out, 0);
    assert_eq!(tallies.take("x", "other").left_out, 0, "it does not select the full one");
}

#[test]
fn a_suspended_server_is_neither_healthy_nor_failing() {
    let report = |state: &str| json!([{"name": "p", "state": state, "reason": "EvaluationFailed"}]);
    let mut servers = ["Active", "Error"].map(|state| server(state, "all", report(state)));
    for server in &mut servers {
        Arc::make_mut(&mut server.object).spec.suspend = true;
    }
    let tally = tally(&servers, &index(vec![plugin("p", "all")])).take("x", "p");
    let ServerCounts { matched, healthy, failing, disabled, summary } = tally.counts;
    assert_eq!((matched, healthy, failing, disabled, &*summary), (2, 0, 0, 2, "0/0"));
    assert_eq!(tally.fault, None);
}

#[test]
fn a_rule_that_cannot_be_judged_is_worse_than_one_that_is_not_shown() {
    let report =
        |reason: &str| json!([{"name": "p", "state": "Active", "reason": reason, "message": reason}]);
    let of = |reasons: &[&str]| {
        let servers: Vec<_> = reasons.iter().map(|reason| server(reason, "all", report(reason))).collect();
        tally(&servers, &index(vec![plugin("p", "all")])).take("x", "p").fault.map(|fault| fault.message)
    };
    assert_eq!(of(&["TooManyConditions"]).as_deref(), Some("TooManyConditions"));
    assert_eq!(of(&["TooManyConditions", "EvaluationFailed"]).as_deref(), Some("EvaluationFailed"));
    assert_eq!(of(&["EvaluationFailed", "TooManyConditions"]).as_deref(), Some("EvaluationFailed"));
    assert_eq!(of(&["Timeout"]), None);
}

/// A plugin that was just made was Ready=True with 0/0, which reads as if it had nothing to do.
#[test]
fn a_server_that_has_no_word_of_a_plugin_yet_is_counted_as_waiting_for_it() {
    let servers =
        [server("a", "all", json!([])), server("b", "all", json!(null)), server("c", "none", json!([]))];
    let index = index(vec![plugin("p", "all"), plugin("q", "nobody")]);
    let mut tallies = tally(&servers, &index);
    let ServerCounts { matched, healthy, failing, disabled, summary } = tallies.take("x", "p").counts;
    assert_eq!((matched, healthy, failing, disabled, &*summary), (2, 0, 0, 0, "0/2"));
    assert_eq!(tallies.take("x", "q").counts.matched, 0, "it selects none");
    let answers =
        [server("a", "all", json!([{"name": "p", "state": "Active"}])), server("b", "all", json!([]))];
    assert_eq!(tally(&answers, &index).take("x", "p").counts.summary, "1/1");
}
