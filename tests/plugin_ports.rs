//! Ports of plugins: what a server may say about them in pluginPorts, and whose a configKey is.

use crate::support::{
    ControlPlane, PATIENCE, Scene, condition, eventually, holds_for, metric_value,
    objects::{self, has_condition, patch_spec, plugin, status_of},
};
use kube::api::DeleteParams;
use ollama_fleet_operator::api::FleetPlugin;
use serde_json::{Value, json};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use std::time::Duration;
use tokio::net::TcpListener;

const KEY: &str = "metricsPort";

/// An agent at a port of its own beside a simulated host: its port, and how often it was asked.
async fn agent(scene: &Scene, host: usize) -> (u16, Arc<AtomicU64>) {
    let listener = TcpListener::bind((scene.fleet.address(host), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let asked = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&asked);
    let router = axum::Router::new().fallback(move || {
        count.fetch_add(1, Ordering::Relaxed);
        async { r#"{"n": 2}"# }
    });
    tokio::spawn(async move { axum::serve(listener, router).await });
    (port, asked)
}

/// Waits until the plugin of a server is in this state.
async fn until_state(scene: &Scene, name: &str, state: &str) {
    eventually(PATIENCE, &format!("{name} is {state}"), async || {
        let reports = scene.status(name).await.plugins.unwrap_or_default();
        let is: Vec<_> = reports.iter().filter_map(|report| report.state.as_deref()).collect();
        if is == [state] { Ok(()) } else { Err(format!("{is:?}")) }
    })
    .await;
}

/// Waits until the agent at the simulated host's usual port is asked.
async fn until_asked(scene: &Scene, host: usize) {
    let before = scene.fleet.host_stats(host).await.count("agent:/metrics");
    eventually(PATIENCE, "the agent at the default port is asked", async || {
        scene.fleet.host_stats(host).await.count("agent:/metrics") > before + 1
    })
    .await;
}

/// Without an override the default port is asked, with a number that port and no other, with 0 none; and each becomes
/// the other by an edit, without a restart.
#[tokio::test]
async fn a_port_override_moves_a_plugin_turns_it_off_or_leaves_it() {
    let answers = json!({"agentBody": "{\"n\": 1}", "agentContentType": "application/json"});
    let scene = Scene::with(3, &json!({ "defaults": answers }), |builder| builder).await;
    let values = json!({"configKey": KEY, "values": [{"name": "n", "jsonPaths": ["$.n"]}]});
    scene.apply(&plugin("p", scene.fleet.agent_port(), values)).await;
    let (port, asked) = agent(&scene, 1).await;
    for (host, ports) in [json!({}), json!({ KEY: port }), json!({ KEY: 0 })].into_iter().enumerate() {
        scene.server(&format!("s{host}"), host, json!({ "pluginPorts": ports })).await;
    }
    for (name, state) in [("s0", "Active"), ("s1", "Active"), ("s2", "Disabled")] {
        until_state(&scene, name, state).await;
        scene.until_online(name).await;
    }
    let value = async |name: &str| {
        let text = scene.operator.metrics().await;
        metric_value(&text, "ollama_fleet_plugin_value", &[("server", name), ("name", "n")])
    };
    assert_eq!((value("s0").await, value("s1").await, value("s2").await), (Some(1.0), Some(2.0), None));
    assert_eq!(condition(&scene.get("s2").await, "PluginsHealthy"), None);
    for host in [1, 2] {
        assert_eq!(scene.fleet.host_stats(host).await.count("agent:/metrics"), 0, "host {host}");
    }

    // 0 turns it off where it was on, a number turns it on where it was off, and an override that goes leaves the default.
    scene.patch_spec("s1", json!({"pluginPorts": { KEY: 0 }})).await;
    until_state(&scene, "s1", "Disabled").await;
    let before = asked.load(Ordering::Relaxed);
    scene.polls(1, 2).await;
    assert!(asked.load(Ordering::Relaxed) <= before + 1, "an agent that is turned off was asked");
    assert_eq!(value("s1").await, None, "a value of a plugin that is turned off");
    scene.patch_spec("s1", json!({"pluginPorts": { KEY: port }})).await;
    until_state(&scene, "s1", "Active").await;
    for name in ["s1", "s2"] {
        // In a merge patch null takes the key away.
        scene.patch_spec(name, json!({"pluginPorts": { KEY: null }})).await;
        until_state(&scene, name, "Active").await;
    }
    until_asked(&scene, 1).await;
    until_asked(&scene, 2).await;
}

fn manifest(scene: &Scene, ports: Value) -> String {
    let spec = json!({"host": scene.fleet.host(0), "pluginPorts": ports});
    json!({"apiVersion": "ollama-fleet.io/v1alpha1", "kind": "OllamaServer", "metadata": {"name": "s0"}, "spec": spec})
        .to_string()
}

/// null is no port. Server-side apply refuses it and names the field; client-side apply cannot: there it means that
/// the key is not there, so that the default port is asked. A port out of range is refused with what to write.
#[tokio::test]
async fn a_null_port_is_refused_or_means_the_default_and_never_zero() {
    let answers = json!({"agentBody": "{\"n\": 1}", "agentContentType": "application/json"});
    let scene = Scene::with(1, &json!({ "defaults": answers }), |builder| builder).await;
    scene.apply(&plugin("p", scene.fleet.agent_port(), json!({ "configKey": KEY }))).await;
    let kubectl = |server_side: bool, ports: Value| {
        let mut args = vec!["apply", "-n", &*scene.namespace, "-f", "-"];
        if server_side {
            args.push("--server-side");
        }
        ControlPlane::shared().kubectl(&args, Some(&manifest(&scene, ports)))
    };
    let said = kubectl(true, json!({ KEY: null })).refused();
    assert!(said.contains("spec.pluginPorts.metricsPort"), "{said}");
    eprintln!("figure: server-side apply says {said:?}");
    for port in [json!(65536), json!(-1)] {
        for server_side in [true, false] {
            let said = kubectl(server_side, json!({ KEY: port })).refused();
            assert!(said.contains("spec.pluginPorts") && said.contains("0 to turn the plugin off"), "{said}");
        }
    }

    // It was off, and the null takes that away.
    kubectl(false, json!({ KEY: 0 })).ok();
    until_state(&scene, "s0", "Disabled").await;
    let said = kubectl(false, json!({ KEY: null })).ok();
    eprintln!("figure: client-side apply says {said:?}");
    let stored = scene.get("s0").await;
    assert!(stored.spec.plugin_ports.is_empty(), "{:?}", stored.spec.plugin_ports);
    until_state(&scene, "s0", "Active").await;
    until_asked(&scene, 0).await;
}

/// A key of pluginPorts that no plugin has is told in Accepted's message, which stays True, and no longer as soon as a
/// plugin with that key is there; and again when it goes.
#[tokio::test]
async fn an_unknown_config_key_is_told_until_its_plugin_appears() {
    let scene = Scene::new(1).await;
    scene.server("s0", 0, json!({"pluginPorts": {"queuePort": scene.fleet.agent_port()}})).await;
    let told = async |is_told: bool| {
        eventually(PATIENCE, "Accepted tells of the key, or not", async || {
            let server = scene.get("s0").await;
            let (status, _, message) = condition(&server, "Accepted").ok_or("no condition yet")?;
            let right = status == "True" && message.contains("queuePort") == is_told;
            if right { Ok(()) } else { Err(format!("{status}: {message}")) }
        })
        .await;
        scene.until_online("s0").await;
    };
    told(true).await;
    scene.apply(&plugin("queue", 1, json!({"configKey": "queuePort"}))).await;
    told(false).await;
    until_asked(&scene, 0).await;
    let plugins = objects::api::<FleetPlugin>(&scene.client, &scene.namespace);
    plugins.delete("queue", &DeleteParams::default()).await.unwrap();
    told(true).await;
}

/// Of two plugins with one configKey the older has it, and a server's override means its port only. The other is not
/// accepted, says whose the key is, and heals by itself when the older one takes another key.
#[tokio::test]
async fn a_config_key_belongs_to_the_older_plugin_until_it_takes_another() {
    let answers = json!({"agentBody": "{\"n\": 1}", "agentContentType": "application/json"});
    let scene = Scene::with(1, &json!({ "defaults": answers }), |builder| builder).await;
    let (port, asked) = agent(&scene, 0).await;
    let usual = scene.fleet.agent_port();
    // The creation times of Kubernetes are whole seconds; within one of them the name decides.
    scene.apply(&plugin("a-older", usual, json!({"configKey": KEY, "endpoint": "/older"}))).await;
    scene.apply(&plugin("b-younger", usual, json!({"configKey": KEY, "endpoint": "/younger"}))).await;
    scene.server("s0", 0, json!({"pluginPorts": { KEY: port }})).await;
    let plugin_of =
        async |name: &str| objects::get::<FleetPlugin>(&scene.client, &scene.namespace, name).await;
    eventually(PATIENCE, "the younger says whose the key is", async || {
        let younger = plugin_of("b-younger").await;
        has_condition(&younger, "Accepted", "False", "ConfigKeyConflict")?;
        has_condition(&plugin_of("a-older").await, "Accepted", "True", "Valid")?;
        let (.., message) = condition(&younger, "Accepted").unwrap();
        let told = message.contains(KEY) && message.contains("a-older") && message.contains("choose another");
        if told { Ok(()) } else { Err(message) }
    })
    .await;
    until_state(&scene, "s0", "Active").await;
    let before = asked.load(Ordering::Relaxed);
    eventually(PATIENCE, "the older is asked at its port", async || asked.load(Ordering::Relaxed) > before)
        .await;
    holds_for(Duration::from_secs(3), "nobody is asked at the usual port", async || {
        let stats = scene.fleet.host_stats(0).await;
        stats.count("agent:/older") + stats.count("agent:/younger") == 0
    })
    .await;

    let other = json!({"agent": {"configKey": "otherPort"}});
    patch_spec::<FleetPlugin>(&scene.client, &scene.namespace, "a-older", other).await;
    eventually(PATIENCE, "both work, each at its own port", async || {
        for name in ["a-older", "b-younger"] {
            has_condition(&plugin_of(name).await, "Accepted", "True", "Valid")?;
        }
        let stats = scene.fleet.host_stats(0).await;
        let reports = status_of(&scene.get("s0").await).plugins.unwrap_or_default();
        let active = reports.iter().filter(|report| report.state.as_deref() == Some("Active")).count();
        if active == 2 && stats.count("agent:/older") > 0 { Ok(()) } else { Err(format!("{reports:?}")) }
    })
    .await;
    let before = asked.load(Ordering::Relaxed);
    eventually(PATIENCE, "the younger is asked at the port of the key", async || {
        asked.load(Ordering::Relaxed) > before
    })
    .await;
    assert_eq!(scene.fleet.host_stats(0).await.count("agent:/younger"), 0);
}
