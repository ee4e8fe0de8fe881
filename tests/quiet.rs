//! What does not change costs nothing: no write, no Event, no request.

use crate::support::{
    ControlPlane, Operator, PATIENCE, Scene, WriteCounter, all_events, condition, eventually, get, holds_for,
    metric_value, objects::has_condition, resource_version,
};
use jiff::{SignedDuration, Timestamp};
use ollama_fleet_operator::api::FleetPlugin;
use serde_json::{Value, json};
use std::{env, time::Duration};

/// Twenty seconds, or what `TEST_QUIET_SECONDS` says.
fn quiet() -> Duration {
    let seconds = env::var("TEST_QUIET_SECONDS").ok().and_then(|text| text.parse().ok());
    Duration::from_secs(seconds.unwrap_or(20))
}

/// A machine whose load, uptime, CPU and temperatures differ at every reading, but not by much.
fn lively() -> Value {
    let models: Vec<Value> = ["a:1", "b:1", "c:1", "d:1"].map(|name| json!({"name": name})).into();
    let loaded: Vec<Value> = ["a:1", "b:1"]
        .map(|name| json!({"name": name, "sizeBytes": 6_442_450_944_u64, "vramBytes": 6_442_450_944_u64}))
        .into();
    json!({"models": models, "loaded": loaded, "machine": {"noise": 0.9, "jitter": true}})
}

async fn until_settled(scene: &Scene) {
    for (name, status, reason) in [
        ("online", "True", "Online"),
        ("loaded", "True", "Online"),
        ("offline", "False", "ConnectionRefused"),
        ("hot", "True", "Online"),
        ("maintained", "False", "Maintenance"),
        ("suspended", "False", "Suspended"),
        ("busy", "False", "ServerBusy"),
        ("halved", "True", "Online"),
    ] {
        scene.until(name, "Ready", status, reason).await;
    }
    for name in ["online", "loaded", "maintained"] {
        scene.until(name, "PluginsHealthy", "True", "AllHealthy").await;
    }
    scene.until("hot", "ThermalPressure", "True", "GPUOverheating").await;
    scene.until("busy", "PluginsHealthy", "True", "AllHealthy").await;
    scene.until("halved", "PluginsHealthy", "False", "PluginFailed").await;
    // What was said of one endpoint only is complete when it has failed for as long as it takes.
    eventually(PATIENCE, "the failing endpoint is told of", async || {
        let ready = condition(&scene.get("halved").await, "Ready");
        ready.is_some_and(|(_, _, message)| message.contains("loadedModels"))
    })
    .await;
    // The last verdict may still wait for its Event.
    scene.until_told("offline", &["ServerOffline"]).await;
    scene.until_told("busy", &["ServerOffline"]).await;
    scene.until_told("hot", &["GPUOverheating"]).await;
    scene.until_told("halved", &["PluginFailed"]).await;
}

/// One server of every kind that people have.
async fn every_kind() -> Scene {
    let scenario = json!({"defaults": lively(), "hosts": {
        "1": {"loaded": []},
        "3": {"machine": {"gpuTemperature": 97.0}},
        "6": {"ollama": {"mode": "status", "code": 503}},
        "7": {"paths": {"/api/ps": {"mode": "status", "code": 500}}, "agent": {"mode": "refuse"}},
    }});
    let scene = Scene::with(8, &scenario, |builder| builder).await;
    scene.agents().await;
    scene.fleet.action("2", "die").await;
    for (host, (name, spec)) in [
        ("loaded", json!({})),
        ("online", json!({})),
        ("offline", json!({})),
        ("hot", json!({})),
        ("maintained", json!({"maintenance": {"reason": "new PSU"}})),
        ("suspended", json!({"suspend": true})),
        ("busy", json!({})),
        ("halved", json!({})),
    ]
    .into_iter()
    .enumerate()
    {
        let mut spec = spec;
        spec["poll"] = json!({"interval": "1s", "modelsInterval": "1s"});
        scene.server(name, host, spec).await;
    }
    until_settled(&scene).await;
    scene
}

async fn holds_still(scene: &Scene, writes: &WriteCounter, told: usize, duration: Duration) {
    holds_for(duration, "no write and no Event", async || {
        let all = writes.all().await;
        let events = all_events(&scene.client, &scene.namespace).await.len();
        if all.is_empty() && events == told { Ok(()) } else { Err(format!("{events} Events, {all:?}")) }
    })
    .await;
}

/// While nothing changes nothing is written and nothing is told, however lively the readings are; polls go on.
#[tokio::test]
async fn nothing_new_is_never_written() {
    let scene = every_kind().await;
    let writes = scene.writes().await;
    let told = all_events(&scene.client, &scene.namespace).await.len();
    scene.fleet.reset_stats().await;
    holds_still(&scene, &writes, told, quiet()).await;
    let polls = scene.fleet.host_stats(0).await.count("/api/version");
    assert!(polls + 2 >= quiet().as_secs(), "{polls} polls");
    assert!(scene.fleet.host_stats(0).await.count("/api/tags") + 2 >= quiet().as_secs());
    assert!(scene.fleet.host_stats(0).await.count("agent:/metrics") + 2 >= quiet().as_secs());
}

/// The `FleetPlugin` as it stands, when its counts are complete.
async fn settled_plugin(scene: &Scene) -> FleetPlugin {
    eventually(PATIENCE, "the plugin counts all servers", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "fleet-metrics").await;
        let counts = plugin.status.clone().and_then(|status| status.servers).unwrap_or_default();
        // The agents of `offline` and `halved` fail, that of `suspended` was never asked.
        if counts.summary == "5/7" && counts.failing == 2 { Ok(plugin) } else { Err(format!("{counts:?}")) }
    })
    .await
}

/// An operator that was killed and comes back finds everything as it was: it writes nothing and tells nothing.
#[tokio::test]
async fn a_restart_is_no_news() {
    let mut scene = every_kind().await;
    let plugin = settled_plugin(&scene).await;
    let told = all_events(&scene.client, &scene.namespace).await.len();
    let writes = scene.writes().await;
    for _ in 0..3 {
        scene.operator.kill();
        let control_plane = ControlPlane::shared();
        scene.operator = Operator::builder(control_plane).namespace(&scene.namespace).start().await;
        // Longer than it takes for any verdict anew.
        holds_still(&scene, &writes, told, Duration::from_secs(7)).await;
    }
    until_settled(&scene).await;
    let after = settled_plugin(&scene).await;
    assert_eq!(resource_version(&plugin), resource_version(&after), "{:?} {:?}", plugin.status, after.status);
}

/// A change while the operator was away is told when it is back.
#[tokio::test]
async fn what_happened_during_a_restart_is_told() {
    let mut scene = every_kind().await;
    scene.operator.kill();
    scene.fleet.action("0", json!({"action": "unload", "model": "a:1"})).await;
    scene.fleet.action("1", "die").await;
    scene.fleet.action("2", "revive").await;
    let control_plane = ControlPlane::shared();
    scene.operator = Operator::builder(control_plane).namespace(&scene.namespace).start().await;
    scene.until_told("loaded", &["ModelUnloaded"]).await;
    scene.until_told("online", &["ServerOffline"]).await;
    scene.until_told("offline", &["ServerOffline", "ServerOnline"]).await;
}

/// Labels and annotations that do not concern the operator cause no write and no poll; neither do those that ask for
/// a poll which has already been answered.
#[tokio::test]
async fn labels_and_foreign_annotations_are_no_reason() {
    let scene = Scene::new(1).await;
    scene.agents().await;
    scene.server("a", 0, json!({"poll": {"interval": "1h"}})).await;
    scene.until_online("a").await;
    scene.patch_metadata("a", json!({"annotations": {"ollama-fleet.io/requestedAt": "once"}})).await;
    scene.until_read("a").await;
    let handled = async || scene.status("a").await.last_handled_requested_at.as_deref() == Some("once");
    eventually(PATIENCE, "the request is handled", handled).await;
    let writes = scene.writes().await;
    scene.fleet.reset_stats().await;
    for number in 0..5 {
        let text = number.to_string();
        scene.patch_metadata("a", json!({"labels": {"rack": text}, "annotations": {"note": text}})).await;
    }
    scene.patch_metadata("a", json!({"annotations": {"ollama-fleet.io/requestedAt": "once"}})).await;
    holds_for(Duration::from_secs(4), "nothing happens", async || {
        let (all, stats) = (writes.all().await, scene.fleet.host_stats(0).await);
        if all.is_empty() && stats.total == 0 { Ok(()) } else { Err(format!("{all:?}, {stats:?}")) }
    })
    .await;
}

/// An edit that changes nothing about the host is one write, for its generation, and no poll.
#[tokio::test]
async fn an_edit_of_a_description_is_one_write_and_no_poll() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "1h"}})).await;
    scene.until_online("a").await;
    let writes = scene.writes().await;
    scene.fleet.reset_stats().await;
    let generation = scene.patch_spec("a", json!({"displayName": "Server 1"})).await.metadata.generation;
    eventually(PATIENCE, "it is observed", async || {
        scene.status("a").await.observed_generation == generation
    })
    .await;
    holds_for(Duration::from_secs(3), "nothing else happens", async || {
        writes.total().await == 1 && scene.fleet.host_stats(0).await.total == 0
    })
    .await;
    has_condition(&scene.get("a").await, "Ready", "True", "Online").unwrap();
}

/// The status of a server says how fresh it is without a write for each poll: metrics have the last poll.
#[tokio::test]
async fn metrics_know_the_last_poll_at_full_rate() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({})).await;
    scene.until_online("a").await;
    let last = async || {
        let metrics = scene.operator.metrics().await;
        let name = "ollama_fleet_server_last_poll_timestamp_seconds";
        metric_value(&metrics, name, &[("server", "a")])
    };
    let fresh = |at: f64| {
        // Whole seconds.
        #[allow(clippy::cast_possible_truncation)]
        let age = Timestamp::now().duration_since(Timestamp::from_second(at as i64).unwrap());
        age < SignedDuration::from_secs(6)
    };
    holds_for(Duration::from_secs(8), "the last poll is recent", async || last().await.is_some_and(fresh))
        .await;
}
