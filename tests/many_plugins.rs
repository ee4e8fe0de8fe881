//! Many plugins on many servers: polls stay on schedule, and a plugin that hangs costs only its own timeout.

use crate::support::{
    PATIENCE, Scene, eventually, fleet, holds_for, metric_value,
    objects::{self, has_condition, plugin, server_with, status_of},
};
use futures::{StreamExt as _, stream};
use kube::api::ListParams;
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer};
use serde_json::{Value, json};
use std::{
    env,
    time::{Duration, Instant},
};

const PLUGINS: usize = 50;
/// The one that hangs on every server.
const HANGING: usize = 25;
const INTERVAL: Duration = Duration::from_secs(10);
/// Intervals that are watched.
const ROUNDS: u64 = 3;

/// Two hundred, or what `TEST_PLUGIN_SERVERS` says.
fn servers() -> usize {
    env::var("TEST_PLUGIN_SERVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(200)
}

fn path(plugin: usize) -> String {
    format!("/p{plugin:02}")
}

/// The answer of every agent: one number.
fn answer(number: i64) -> Value {
    json!({"agentBody": format!("{{\"n\":{number}}}"), "agentContentType": "application/json"})
}

/// Fifty plugins are read on every server at every poll, all from the same port of each machine. Hosts and agents are
/// asked as often as the interval says, no poll and no reading is left out, and a change on the machines is in the
/// metrics with the next reading, or at the latest with the poll after it; while one of the plugins hangs everywhere, and is the only one in Error.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn fifty_plugins_stay_on_schedule_while_one_of_them_hangs() {
    let number = servers();
    let mut agents = answer(1);
    agents["paths"] = json!({ format!("agent:{}", path(HANGING)): {"mode": "hang"} });
    let scene =
        Scene::with(number, &json!({ "defaults": agents }), |builder| builder.arg("--poll-interval=10s"))
            .await;
    for index in 0..PLUGINS {
        let agent = json!({"endpoint": path(index), "values": [{"name": "n", "jsonPaths": ["$.n"]}]});
        scene.apply(&plugin(&format!("p{index:02}"), scene.fleet.agent_port(), agent)).await;
    }
    eventually(PATIENCE, "every plugin is accepted", async || {
        let plugins = objects::api::<FleetPlugin>(&scene.client, &scene.namespace);
        let list = plugins.list(&ListParams::default()).await.unwrap().items;
        let accepted = list.iter().filter(|one| has_condition(*one, "Accepted", "True", "Valid").is_ok());
        accepted.count() == PLUGINS
    })
    .await;
    stream::iter(0..number)
        .for_each_concurrent(16, async |index| {
            let server = server_with(&format!("s{index:04}"), scene.fleet.host(index), json!({}));
            objects::create(&scene.client, &scene.namespace, &server).await.unwrap();
        })
        .await;
    fresh(&scene, number, 1).await;

    let (before, start, cpu) = (scene.operator.metrics().await, Instant::now(), scene.operator.cpu_seconds());
    scene.fleet.reset_stats().await;
    let (mut changed, mut freshness) = (None, None);
    let watched = INTERVAL * u32::try_from(ROUNDS).unwrap();
    eventually(watched * 3, "the time that is watched is over", async || {
        // The machines change in the middle of it.
        if changed.is_none() && start.elapsed() > INTERVAL {
            scene.fleet.patch("all", answer(2)).await;
            changed = Some(Instant::now());
        }
        if let Some(changed) = changed.filter(|_| freshness.is_none()) {
            fresh(&scene, number, 2).await;
            freshness = Some(changed.elapsed());
        }
        start.elapsed() >= watched
    })
    .await;
    let stats = scene.fleet.stats().await;
    let elapsed = start.elapsed();
    let after = scene.operator.metrics().await;
    let used = (scene.operator.cpu_seconds() - cpu) / elapsed.as_secs_f64();

    let delta = |name: &str, labels: &[(&str, &str)]| {
        metric_value(&after, name, labels).unwrap_or_default()
            - metric_value(&before, name, labels).unwrap_or_default()
    };
    let expected = elapsed.as_secs() / INTERVAL.as_secs();
    let on_time = expected - 1..=expected + 1;
    let lag = |bound: &str| delta("ollama_fleet_schedule_lag_seconds_bucket", &[("le", bound)]);
    let polls = delta("ollama_fleet_schedule_lag_seconds_count", &[]);
    let freshness = freshness.unwrap();
    eprintln!(
        "figure: {PLUGINS} plugins on {number} servers: {} requests in {elapsed:.1?}, {used:.2} cores, RSS {} MiB; \
         of {polls} polls {} began within 10 ms of their slot, {} within 250 ms, {} within 1 s; all values fresh after \
         {freshness:.1?}, {} readings left out",
        stats.total,
        scene.operator.rss_bytes() >> 20,
        lag("0.01"),
        lag("0.25"),
        lag("1.0"),
        delta("ollama_fleet_plugin_scrapes_skipped_total", &[]),
    );
    for index in 0..number {
        let host = stats.host(index);
        let polls = host.count("/api/version");
        assert!(on_time.contains(&polls), "host {index} was polled {polls} times in {elapsed:?}");
        for plugin in 0..PLUGINS {
            let reads = host.count(&format!("agent:{}", path(plugin)));
            assert!(on_time.contains(&reads), "host {index}: {} was read {reads} times", path(plugin));
        }
    }
    assert_eq!(stats.max_in_flight, 1);
    assert!(delta("ollama_fleet_server_polls_skipped_total", &[]) < 1.0, "polls were left out");
    // A server's first poll is at once, and its second may come while the plugin that hangs is still being read.
    let skipped = delta("ollama_fleet_plugin_scrapes_skipped_total", &[]);
    assert!(skipped <= f64::from(u32::try_from(number).unwrap()), "{skipped} readings were left out");
    assert!(lag("5.0") >= polls && lag("1.0") >= polls * 0.9, "polls begin late");
    // An answer that comes after its poll was assessed is told with the next poll, and a busy machine is late with that.
    assert!(freshness < INTERVAL * 3, "values were {freshness:?} old");
    assert_eq!(metric_value(&after, "ollama_fleet_panics_total", &[]), Some(0.0));
    let failures = after.lines().filter(|line| line.starts_with("ollama_fleet_plugin_scrape_failures_total"));
    let failures: Vec<_> = failures.filter(|line| !line.contains("reason=\"Timeout\"")).collect();
    assert!(failures.is_empty(), "{failures:?}");

    eventually(PATIENCE, "only the one that hangs is in Error", async || {
        let servers = objects::api::<OllamaServer>(&scene.client, &scene.namespace);
        servers.list(&ListParams::default()).await.unwrap().items.iter().try_for_each(only_one_fails)
    })
    .await;
}

/// Waits until the metrics have this number of every plugin on every server, but for the one that hangs.
async fn fresh(scene: &Scene, servers: usize, number: i64) {
    let wanted = servers * (PLUGINS - 1);
    eventually(PATIENCE, "every value is fresh", async || {
        let text = scene.operator.metrics().await;
        let ending = format!("}} {number}");
        let values = text.lines().filter(|line| line.starts_with("ollama_fleet_plugin_value{"));
        let fresh = values.filter(|line| line.ends_with(&ending)).count();
        if fresh == wanted { Ok(()) } else { Err(format!("{fresh} of {wanted}")) }
    })
    .await;
}

fn only_one_fails(server: &OllamaServer) -> Result<(), String> {
    has_condition(server, "Ready", "True", "Online")?;
    has_condition(server, "PluginsHealthy", "False", "PluginFailed")?;
    let reports = status_of(server).plugins.unwrap_or_default();
    assert_eq!(reports.len(), PLUGINS);
    for (index, report) in reports.iter().enumerate() {
        let wanted = if index == HANGING { ("Error", Some("Timeout")) } else { ("Active", None) };
        let is = (report.state.as_deref().unwrap_or_default(), report.reason.as_deref());
        if is != wanted {
            return Err(format!("{}: {is:?}", report.name));
        }
    }
    let size = serde_json::to_string(server).unwrap().len();
    assert!(size < 32 << 10, "{size} bytes");
    Ok(())
}

/// Two objects of one machine, each with a plugin that hangs and one that does not, on one port: no more than one
/// object's readings are under way at a time, and each plugin of each object is read at every poll.
#[tokio::test]
async fn agents_of_two_objects_for_one_machine_take_turns() {
    let agents = json!({"agentBody": "{\"n\":1}", "paths": {"agent:/hangs": {"mode": "hang"}}});
    let scene = Scene::with(1, &json!({ "defaults": agents }), |builder| builder).await;
    let port = scene.fleet.agent_port();
    scene.apply(&plugin("hangs", port, json!({"endpoint": "/hangs", "timeout": "500ms"}))).await;
    scene.apply(&plugin("works", port, json!({"endpoint": "/works", "timeout": "500ms"}))).await;
    for name in ["a", "b"] {
        scene.server(name, 0, json!({"poll": {"interval": "3s"}})).await;
    }
    for name in ["a", "b"] {
        eventually(PATIENCE, "one fails and the other works", async || {
            let server = scene.get(name).await;
            has_condition(&server, "Ready", "True", "Online")?;
            has_condition(&server, "PluginsHealthy", "False", "PluginFailed")?;
            let status = status_of(&server);
            if status.plugin_summary.as_deref() == Some("1/2") { Ok(()) } else { Err(format!("{status:?}")) }
        })
        .await;
    }
    let skipped = async || {
        let text = scene.operator.metrics().await;
        metric_value(&text, "ollama_fleet_plugin_scrapes_skipped_total", &[]).unwrap()
    };
    let before = skipped().await;
    scene.fleet.reset_stats().await;
    scene.polls(0, 10).await;
    let stats = scene.fleet.host_stats(0).await;
    let polls = stats.count("/api/version");
    for path in ["agent:/hangs", "agent:/works"] {
        let reads = stats.count(path);
        assert!(reads.abs_diff(polls) <= 2, "{path} was read {reads} times in {polls} polls");
    }
    assert!(stats.agent_max_in_flight <= 2, "{} readings at once", stats.agent_max_in_flight);
    assert_eq!(stats.max_in_flight, 1);
    assert!(skipped().await - before < 1.0, "readings were left out");
}

/// A plugin at the port of an Ollama host is never read beside the host's own requests, is read at every poll all the
/// same, and, if it hangs there, leaves the host's polls on schedule.
#[tokio::test]
async fn a_plugin_at_the_hosts_own_port_waits_for_the_host_and_does_not_starve() {
    const INTERVAL_MS: i64 = 2000;
    let scenario = json!({"defaults": {"paths": {"/hangs": {"mode": "hang"}}}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    let agent = json!({"endpoint": "/hangs", "timeout": "1s"});
    scene.apply(&plugin("hangs", scene.fleet.ollama_port(), agent)).await;
    scene.server("a", 0, json!({"poll": {"interval": "2s"}})).await;
    scene.until_online("a").await;
    eventually(PATIENCE, "the plugin is in Error", async || {
        let server = scene.get("a").await;
        has_condition(&server, "PluginsHealthy", "False", "PluginFailed")
    })
    .await;
    scene.fleet.reset_stats().await;
    scene.polls(0, 6).await;
    let stats = scene.fleet.host_stats(0).await;
    let (polls, reads) = (stats.count("/api/version"), stats.count("/hangs"));
    assert!(reads.abs_diff(polls) <= 1, "read {reads} times in {polls} polls");
    assert_eq!((stats.max_in_flight, stats.max_connections), (1, 1));
    let arrivals = &scene.fleet.arrivals("0", "/api/version").await[&fleet::name(0)];
    let gap = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(gap < INTERVAL_MS * 2, "the host was not asked for {gap} ms");
    scene.until_online("a").await;
    eprintln!("figure: widest gap {gap} ms of an interval of {INTERVAL_MS} ms");

    // Another backend may be read beside its agent, as llama-server's /metrics is.
    scene.fleet.patch("0", json!({"backend": "generic"})).await;
    scene.patch_spec("a", json!({"backendType": "Generic"})).await;
    eventually(PATIENCE, "it is asked in the other way", async || {
        scene.fleet.host_stats(0).await.count("/health") >= 2
    })
    .await;
    scene.until("a", "PluginsHealthy", "False", "PluginFailed").await;
    scene.fleet.reset_stats().await;
    holds_for(Duration::from_secs(5), "the host stays online", async || {
        has_condition(&scene.get("a").await, "Ready", "True", "Online")
    })
    .await;
    let stats = scene.fleet.host_stats(0).await;
    assert!(stats.count("/health") >= 2 && stats.count("/hangs") >= 2, "{:?}", stats.requests);
}
