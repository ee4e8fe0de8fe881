//! What plugins of one namespace have to do with each other: what they depend on, and what they feed together.

use crate::support::{
    Agent, ControlPlane, Fleet, Namespace, Operator, PATIENCE, apply, condition, eventually, get,
    objects::{self, has_condition},
    patch_spec, plugin, server, status_of,
};
use kube::{Client, api::DeleteParams};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer, fleet_plugin::Dependencies};
use serde_json::json;
use std::{collections::BTreeMap, time::Duration};
use tokio::time::sleep;

/// A plugin that needs a newer version of another waits for it, says both sides, is asked as soon as it is there,
/// and is asked no more when it goes: all without a restart.
#[tokio::test]
async fn dependants_follow_what_they_depend_on() {
    let scene = Scene::new().await;
    scene.apply(&scene.plugin("metrics-core", "1.4.0", &[])).await;
    scene.apply(&scene.plugin("dependant", "1.0.0", &[("metrics-core", ">=2")])).await;
    scene.until("dependant", "Inactive", "DependencyNotMet", "needs metrics-core >=2, installed 1.4.0").await;
    scene.until("metrics-core", "Active", "Healthy", "").await;
    scene.until_plugins(&["metrics-core"]).await;

    scene.patch("metrics-core", json!({"version": "2.0.1"})).await;
    scene.until("dependant", "Active", "Healthy", "").await;
    scene.until_plugins(&["dependant", "metrics-core"]).await;

    scene.patch("metrics-core", json!({"suspend": true})).await;
    scene.until("metrics-core", "Inactive", "Suspended", "suspend").await;
    scene.until("dependant", "Inactive", "DependencyNotMet", "installed 2.0.1 but suspended").await;
    scene.until_plugins(&[]).await;
    scene.patch("metrics-core", json!({"suspend": false})).await;
    scene.until("dependant", "Active", "Healthy", "").await;

    scene.delete("metrics-core").await;
    scene.until("dependant", "Inactive", "DependencyNotMet", "needs metrics-core >=2, not installed").await;
    scene.until_plugins(&[]).await;
}

/// Plugins that depend on each other in a circle are asked nowhere, and each names the circle; opening it at one place
/// heals them all.
#[tokio::test]
async fn a_circle_of_dependencies_is_named() {
    let scene = Scene::new().await;
    scene.apply(&scene.plugin("a", "1.0.0", &[("b", "1")])).await;
    scene.apply(&scene.plugin("b", "1.0.0", &[("c", "^1.0")])).await;
    scene.apply(&scene.plugin("c", "1.0.0", &[("a", "*")])).await;
    scene.apply(&scene.plugin("free", "1.0.0", &[])).await;
    scene.until("a", "Inactive", "DependencyCycle", "a -> b -> c -> a").await;
    scene.until("b", "Inactive", "DependencyCycle", "b -> c -> a -> b").await;
    scene.until_plugins(&["free"]).await;
    scene.patch("c", json!({"dependencies": null})).await;
    for name in ["a", "b", "c"] {
        scene.until(name, "Active", "Healthy", "").await;
    }
    scene.until_plugins(&["a", "b", "c", "free"]).await;
}

/// A plugin for another version of the operator waits, and names the version that this one has; a range that nobody
/// can read is an error at the field.
#[tokio::test]
async fn the_operators_own_version_is_a_dependency_too() {
    let scene = Scene::new().await;
    let with_platform = |name: &str, range: &str| {
        let mut plugin = scene.plugin(name, "1.0.0", &[]);
        plugin.spec.dependencies =
            Some(Dependencies { platform: Some(range.to_owned()), ..Dependencies::default() });
        plugin
    };
    scene.apply(&with_platform("newer", ">=99")).await;
    scene.apply(&with_platform("same", ">=0.1 <1")).await;
    scene.apply(&with_platform("unreadable", "1.x.3")).await;
    let message = concat!("needs platform >=99, this operator is ", env!("CARGO_PKG_VERSION"));
    scene.until("newer", "Inactive", "PlatformNotMet", message).await;
    scene.until("same", "Active", "Healthy", "").await;
    scene.until("unreadable", "Error", "InvalidSpec", "dependencies.platform").await;
}

/// Of two plugins that feed one reading of one server the older wins; the other says so, and takes over when the
/// older one goes.
#[tokio::test]
async fn of_two_sources_of_one_reading_the_older_wins() {
    let scene = Scene::new().await;
    let reading = |name: &str, path: &str| {
        let values = json!([{"name": "load", "jsonPaths": [path], "reading": "cpuPercent"}]);
        plugin(name, scene.agent.port, json!({"values": values}))
    };
    scene.apply(&reading("b-older", "$.value")).await;
    // The creation times of Kubernetes are whole seconds, and within one of them the name would decide.
    sleep(Duration::from_millis(1100)).await;
    scene.apply(&reading("a-younger", "$.other")).await;
    let cpu = async |percent: i64| {
        eventually(PATIENCE, "the machine shows the reading", async || {
            let server: OllamaServer = get(&scene.client, &scene.namespace, "s00").await;
            let seen = status_of(&server).machine.and_then(|machine| machine.cpu_percent);
            if seen == Some(percent) { Ok(()) } else { Err(format!("{seen:?}")) }
        })
        .await;
    };
    cpu(7).await;
    eventually(PATIENCE, "the younger one says who wins", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "a-younger").await;
        has_condition(&plugin, "Accepted", "True", "Valid")?;
        let (.., message) = condition(&plugin, "Accepted").unwrap();
        let told = message.contains("b-older") && message.contains("cpuPercent");
        if told { Ok(()) } else { Err(message) }
    })
    .await;
    scene.delete("b-older").await;
    cpu(70).await;
    eventually(PATIENCE, "nothing is left to say", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "a-younger").await;
        let (.., message) = condition(&plugin, "Accepted").unwrap();
        if message.contains("b-older") { Err(message) } else { Ok(()) }
    })
    .await;
}

/// One server and one agent, which every plugin of the test reads.
struct Scene {
    client: Client,
    namespace: Namespace,
    agent: Agent,
    _fleet: Fleet,
    _operator: Operator,
}

impl Scene {
    async fn new() -> Self {
        let fleet = Fleet::start(1).await;
        let control_plane = ControlPlane::shared();
        let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
        let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
        let agent = Agent::start(fleet.address(0), r#"{"value": 7, "other": 70}"#).await;
        apply(&client, &namespace, &server("s00", fleet.host(0))).await;
        Self { client, namespace, agent, _fleet: fleet, _operator: operator }
    }

    fn plugin(&self, name: &str, version: &str, needs: &[(&str, &str)]) -> FleetPlugin {
        let mut plugin = plugin(name, self.agent.port, json!({"endpoint": format!("/{name}")}));
        plugin.spec.version = Some(version.to_owned());
        let plugins: BTreeMap<String, String> =
            needs.iter().map(|(name, range)| ((*name).to_owned(), (*range).to_owned())).collect();
        plugin.spec.dependencies =
            (!plugins.is_empty()).then(|| Dependencies { plugins, ..Dependencies::default() });
        plugin
    }

    async fn apply(&self, plugin: &FleetPlugin) {
        apply(&self.client, &self.namespace, plugin).await;
    }

    async fn patch(&self, name: &str, spec: serde_json::Value) {
        patch_spec::<FleetPlugin>(&self.client, &self.namespace, name, spec).await;
    }

    async fn delete(&self, name: &str) {
        let api = objects::api::<FleetPlugin>(&self.client, &self.namespace);
        api.delete(name, &DeleteParams::default()).await.unwrap();
    }

    /// Waits until a plugin has this state, and Ready this reason and a message with these words.
    async fn until(&self, name: &str, state: &str, reason: &str, words: &str) {
        eventually(PATIENCE, &format!("{name} is {state} with {reason}"), async || {
            let plugin: FleetPlugin = get(&self.client, &self.namespace, name).await;
            let seen = plugin.status.as_ref().and_then(|status| status.state.clone());
            let ready = condition(&plugin, "Ready");
            let right = seen.as_deref() == Some(state)
                && ready.as_ref().is_some_and(|(_, is, message)| is == reason && message.contains(words));
            if right { Ok(()) } else { Err(format!("{seen:?} {ready:?}")) }
        })
        .await;
    }

    /// Waits until the server lists exactly these plugins, all of them working.
    async fn until_plugins(&self, expected: &[&str]) {
        eventually(PATIENCE, "the server lists the plugins", async || {
            let server: OllamaServer = get(&self.client, &self.namespace, "s00").await;
            let reports = status_of(&server).plugins.unwrap_or_default();
            let working: Vec<&str> = reports
                .iter()
                .filter(|report| report.state.as_deref() == Some("Active"))
                .map(|report| report.name.as_str())
                .collect();
            let right = working == expected && reports.len() == expected.len();
            if right { Ok(()) } else { Err(format!("{reports:?}")) }
        })
        .await;
    }
}
