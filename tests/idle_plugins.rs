//! Plugins that could wake a model or keep it awake (`agent.onlyWhileLoaded`): asked only while one is awake, and ever
//! more rarely while nothing moves.

use crate::support::{PATIENCE, Scene, agent::Agent, eventually, objects::plugin};
use serde_json::{Value, json};

fn in_memory(names: &[&str]) -> Value {
    let loaded: Vec<Value> =
        names.iter().map(|name| json!({"name": name, "sizeBytes": 1 << 30, "vramBytes": 1 << 30})).collect();
    json!({"models": [{"name": "a"}, {"name": "b"}], "loaded": loaded})
}

fn counting(agent: Value) -> Value {
    let mut full = json!({
        "endpoint": "/metrics",
        "onlyWhileLoaded": true,
        "values": [{"name": "tokens", "metric": {"name": "tokens_total"}, "rate": true}],
    });
    full.as_object_mut().unwrap().extend(agent.as_object().unwrap().clone());
    full
}

async fn until_state(scene: &Scene, state: &str) {
    eventually(PATIENCE, &format!("the plugin is {state}"), async || {
        let reports = scene.status("a").await.plugins.unwrap_or_default();
        let is: Vec<_> = reports.iter().filter_map(|report| report.state.as_deref()).collect();
        if is == [state] { Ok(()) } else { Err(format!("{is:?}")) }
    })
    .await;
}

/// llama-server b10434 with --sleep-idle-seconds: `/metrics` loads the model of a server that sleeps.
#[tokio::test]
async fn nobody_is_asked_while_no_model_is_awake() {
    let scene = Scene::with(1, &json!({"defaults": in_memory(&[])}), |builder| builder).await;
    let agent = Agent::counting(scene.fleet.address(0), "tokens_total", 5.0, 10.0).await;
    scene.apply(&plugin("p", agent.port, counting(json!({})))).await;
    scene.server("a", 0, json!({})).await;
    scene.until("a", "PluginsHealthy", "True", "AllHealthy").await;
    until_state(&scene, "Idle").await;
    scene.polls(0, 3).await;
    assert_eq!(agent.asked(), 0, "asked while nothing was in memory");

    scene.fleet.patch("all", in_memory(&["a"])).await;
    until_state(&scene, "Active").await;
    scene.fleet.patch("all", in_memory(&[])).await;
    until_state(&scene, "Idle").await;
    let before = agent.asked();
    scene.polls(0, 3).await;
    assert_eq!(agent.asked(), before, "asked after the model was gone");
    assert_eq!(scene.told("a").await, ["ModelLoaded", "ModelUnloaded"], "idle is no news");
}

/// An endpoint about one model is not asked because another one is awake.
#[tokio::test]
async fn a_path_about_one_model_is_asked_while_that_one_is_awake() {
    let scene = Scene::with(1, &json!({"defaults": in_memory(&["b"])}), |builder| builder).await;
    let agent = Agent::counting(scene.fleet.address(0), "tokens_total", 5.0, 10.0).await;
    let about = json!({"endpoint": "/metrics?model=a&autoload=false"});
    scene.apply(&plugin("p", agent.port, counting(about))).await;
    scene.server("a", 0, json!({})).await;
    until_state(&scene, "Idle").await;
    scene.polls(0, 2).await;
    assert_eq!(agent.asked(), 0);
    scene.fleet.patch("all", in_memory(&["a", "b"])).await;
    until_state(&scene, "Active").await;
}

/// A server that nobody uses is asked at growing pauses, so that it can fall asleep; one that works, at every poll.
#[tokio::test]
async fn an_awake_server_that_does_nothing_is_asked_ever_more_rarely() {
    let scene = Scene::with(1, &json!({"defaults": in_memory(&["a"])}), |builder| builder).await;
    let agent = Agent::start(scene.fleet.address(0), "tokens_total 5\n").await;
    scene.apply(&plugin("p", agent.port, counting(json!({})))).await;
    scene.server("a", 0, json!({})).await;
    until_state(&scene, "Active").await;
    scene.polls(0, 12).await;
    let resting = agent.asked();
    // At 0, 1, 3, 7 and 15 intervals; each poll of a second.
    assert!((2..=5).contains(&resting), "asked {resting} times in 12 polls");

    scene.fleet.patch("all", in_memory(&["a", "b"])).await;
    eventually(PATIENCE, "a model that is loaded anew ends the pause", async || agent.asked() > resting)
        .await;
}

/// A host that was away has loaded its model anew, as far as anybody knows; one that fails once has not.
#[tokio::test]
async fn a_plugin_that_rested_is_read_when_its_host_comes_back() {
    let scene = Scene::with(1, &json!({"defaults": in_memory(&["a"])}), |builder| builder).await;
    let agent = Agent::start(scene.fleet.address(0), "tokens_total 5\n").await;
    scene.apply(&plugin("p", agent.port, counting(json!({})))).await;
    scene.server("a", 0, json!({})).await;
    until_state(&scene, "Active").await;
    // By now its pause is of eight intervals or more.
    eventually(PATIENCE, "its pause has grown", async || agent.asked() >= 4).await;
    scene.fleet.action("0", "die").await;
    until_state(&scene, "Idle").await;
    let before = agent.asked();
    scene.fleet.action("0", "revive").await;
    scene.until_online("a").await;
    until_state(&scene, "Active").await;
    assert!(agent.asked() > before);
}
