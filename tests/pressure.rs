//! What agents say about the machine: readings, pressures, and what happens when an agent says nothing.

use crate::support::{
    PATIENCE, Scene, condition, eventually, get, holds_for, metric_value,
    objects::{self, has_condition},
    server,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use ollama_fleet_operator::api::FleetPlugin;
use serde_json::{Value, json};
use std::time::Duration;

const QUIET: Duration = Duration::from_secs(4);
/// Two readings at an interval of one second, and a second for the rest.
const TWO_READINGS: Duration = Duration::from_secs(3);

async fn read_server(scenario: &Value) -> Scene {
    let scene = Scene::with(1, scenario, |builder| builder).await;
    scene.agents().await;
    scene.server("a", 0, json!({})).await;
    scene.until_read("a").await;
    scene
}

async fn machine(scene: &Scene, change: Value) {
    scene.fleet.patch("0", json!({ "machine": change })).await;
}

/// Two hot readings make the pressure and one Event; it ends 3 °C below the threshold, not before, with one Event.
#[tokio::test]
async fn a_hot_gpu_is_told_once_and_resolved_once() {
    let scene = read_server(&json!({})).await;
    scene.until("a", "ThermalPressure", "False", "TemperatureNormal").await;
    scene.fleet.action("0", "hot").await;
    scene.within(TWO_READINGS, "a", "ThermalPressure", "True", "GPUOverheating").await;
    scene.until_told("a", &["GPUOverheating"]).await;
    // The threshold is 90.
    machine(&scene, json!({"gpuTemperature": 88.0})).await;
    holds_for(QUIET, "it is not cool enough", async || {
        has_condition(&scene.get("a").await, "ThermalPressure", "True", "GPUOverheating")
    })
    .await;
    machine(&scene, json!({"gpuTemperature": 87.0})).await;
    scene.within(TWO_READINGS, "a", "ThermalPressure", "False", "TemperatureNormal").await;
    scene.until_told("a", &["GPUOverheating", "GPUOverheatingResolved"]).await;
    holds_for(QUIET, "nothing else is told", async || scene.told("a").await.len() == 2).await;
    has_condition(&scene.get("a").await, "Ready", "True", "Online").unwrap();
}

/// One hot reading is no news, even if the agent says nothing for a while after it.
#[tokio::test]
async fn one_hot_reading_is_no_news() {
    let scene = read_server(&json!({})).await;
    scene.patch_spec("a", json!({"poll": {"failureThreshold": 100}})).await;
    let reading = async || {
        let metrics = scene.operator.metrics().await;
        metric_value(&metrics, "ollama_fleet_server_temperature_celsius", &[("sensor", "gpu")])
    };
    // The agent is slow, so that there is time to silence it after the first hot reading.
    scene.fleet.patch("0", json!({"agent": {"mode": "healthy", "latencyMs": 400}})).await;
    machine(&scene, json!({"gpuTemperature": 95.0})).await;
    eventually(PATIENCE, "a hot reading", async || reading().await == Some(95.0)).await;
    scene.fleet.patch("0", json!({"agent": {"mode": "refuse"}})).await;
    holds_for(QUIET, "one reading is not counted twice", async || {
        has_condition(&scene.get("a").await, "ThermalPressure", "False", "TemperatureNormal")?;
        let told = scene.told("a").await;
        if told.is_empty() { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

/// CPU, disk and memory have a condition and Events of their own, each with its threshold and its way back.
#[tokio::test]
async fn every_pressure_has_its_condition_and_events() {
    let scene = read_server(&json!({})).await;
    let memory_total = 65_536.0;
    for (type_, event, good, bad, between, change) in [
        ("DiskPressure", "DiskNearlyFull", 400.0, 900.0, 890.0, "diskUsedGb"),
        (
            "MemoryPressure",
            "LowMemory",
            40_000.0,
            memory_total * 0.09,
            memory_total * 0.11,
            "memoryAvailableMb",
        ),
        ("ThermalPressure", "CPUOverheating", 52.5, 85.0, 83.0, "cpuTemperature"),
    ] {
        let before = scene.told("a").await.len();
        machine(&scene, json!({ change: bad })).await;
        scene.within(TWO_READINGS, "a", type_, "True", event).await;
        machine(&scene, json!({ change: between })).await;
        holds_for(Duration::from_secs(3), "between the marks it stays", async || {
            has_condition(&scene.get("a").await, type_, "True", event)
        })
        .await;
        machine(&scene, json!({ change: good })).await;
        eventually(TWO_READINGS * 3, "it is resolved", async || {
            condition(&scene.get("a").await, type_).is_some_and(|(status, _, _)| status == "False")
        })
        .await;
        let resolved = format!("{event}Resolved");
        eventually(PATIENCE, "both are told", async || {
            let told = scene.told("a").await;
            let right =
                told.len() == before + 2 && told.contains(&event.to_owned()) && told.contains(&resolved);
            if right { Ok(()) } else { Err(format!("{told:?}")) }
        })
        .await;
    }
}

/// CPU and GPU share a condition, whose reason says which; a second one that gets hot is told as well.
#[tokio::test]
async fn cpu_and_gpu_share_a_condition() {
    let scene = read_server(&json!({})).await;
    machine(&scene, json!({"gpuTemperature": 95.0})).await;
    scene.until("a", "ThermalPressure", "True", "GPUOverheating").await;
    machine(&scene, json!({"cpuTemperature": 95.0})).await;
    scene.until("a", "ThermalPressure", "True", "CPUAndGPUOverheating").await;
    machine(&scene, json!({"gpuTemperature": 50.0})).await;
    scene.until("a", "ThermalPressure", "True", "CPUOverheating").await;
    scene.until_told("a", &["CPUOverheating", "GPUOverheating", "GPUOverheatingResolved"]).await;
}

/// A server's own thresholds count.
#[tokio::test]
async fn thresholds_are_the_servers_own() {
    let scene = Scene::new(1).await;
    scene.agents().await;
    scene.server("a", 0, json!({"thresholds": {"gpuTemperatureCelsius": 60}})).await;
    scene.until("a", "ThermalPressure", "True", "GPUOverheating").await;
    scene.patch_spec("a", json!({"thresholds": {"gpuTemperatureCelsius": 90}})).await;
    scene.until("a", "ThermalPressure", "False", "TemperatureNormal").await;
}

/// An agent that fails never makes its server not Ready. It is told once, what it said goes, and a pressure goes with
/// it without being called resolved: nobody knows.
#[tokio::test]
async fn a_failing_agent_takes_its_readings_along_and_nothing_else() {
    let scene = read_server(&json!({"defaults": {"machine": {"gpuTemperature": 95.0}}})).await;
    scene.until("a", "ThermalPressure", "True", "GPUOverheating").await;
    scene.until_told("a", &["GPUOverheating"]).await;
    scene.fleet.patch("0", json!({"agent": {"mode": "refuse"}})).await;
    scene.within(Duration::from_secs(5), "a", "PluginsHealthy", "False", "PluginFailed").await;
    scene.until_told("a", &["GPUOverheating", "PluginFailed"]).await;
    holds_for(QUIET, "the server is Ready, the pressure unknown", async || {
        let server = scene.get("a").await;
        has_condition(&server, "Ready", "True", "Online")?;
        let status = server.status.clone().unwrap_or_default();
        let report = &status.plugins.as_deref().unwrap_or_default()[0];
        let right = condition(&server, "ThermalPressure").is_none()
            && status.machine.is_none()
            && status.plugin_summary.as_deref() == Some("0/1")
            && (report.state.as_deref(), report.reason.as_deref())
                == (Some("Error"), Some("ConnectionRefused"))
            && report.values.is_empty()
            && scene.told("a").await == ["GPUOverheating", "PluginFailed"];
        if right { Ok(()) } else { Err(format!("{status:?}, {:?}", scene.told("a").await)) }
    })
    .await;
    let events = scene.events("a").await;
    let failed = events.iter().find(|event| event.reason.as_deref() == Some("PluginFailed")).unwrap();
    let path = failed.related.as_ref().and_then(|related| related.field_path.clone());
    assert_eq!(path.as_deref(), Some("status.plugins{fleet-metrics}"));
    eventually(PATIENCE, "the plugin counts it", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "fleet-metrics").await;
        let servers = plugin.status.and_then(|status| status.servers).unwrap_or_default();
        servers.summary == "0/1"
    })
    .await;

    scene.fleet.patch("0", json!({"agent": null, "machine": {"gpuTemperature": 60.0}})).await;
    scene.until_read("a").await;
    scene.until("a", "ThermalPressure", "False", "TemperatureNormal").await;
    scene.until_told("a", &["GPUOverheating", "PluginFailed", "PluginRecovered"]).await;
}

/// A port that takes connections and never answers neither delays Ready nor ends it.
#[tokio::test]
async fn a_silent_agent_delays_nothing() {
    let scenario = json!({"defaults": {"agent": {"mode": "hang", "stage": "connect"}}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.agents().await;
    scene.server("a", 0, json!({})).await;
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    scene.until("a", "PluginsHealthy", "False", "PluginFailed").await;
    scene.fleet.reset_stats().await;
    holds_for(QUIET, "it stays Ready", async || {
        has_condition(&scene.get("a").await, "Ready", "True", "Online")
    })
    .await;
    let stats = scene.fleet.host_stats(0).await;
    assert!(stats.count("/api/version") >= 3, "{stats:?}");
    assert!(stats.agent_max_connections <= 1, "{stats:?}");
}

/// An agent that takes longer than a poll waits for it counts in the next one.
#[tokio::test]
async fn a_late_agent_counts_in_the_next_poll() {
    let scenario = json!({"defaults": {"agent": {"mode": "healthy", "latencyMs": 700}}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.agents().await;
    scene.server("a", 0, json!({})).await;
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    scene.until_read("a").await;
    let writes = scene.writes().await;
    holds_for(QUIET, "it stays healthy", async || writes.total().await == 0).await;
    assert_eq!(scene.fleet.host_stats(0).await.agent_max_in_flight, 1);
    assert_eq!(scene.told("a").await, [""; 0]);
}

/// A plugin with an interval of its own is asked that often, rounded up to whole polls.
#[tokio::test]
async fn a_plugin_keeps_its_own_interval() {
    let scene = Scene::new(1).await;
    let mut plugin = objects::fleet_metrics(scene.fleet.agent_port());
    plugin.spec.agent.as_mut().unwrap().interval = Some("2500ms".into());
    scene.apply(&plugin).await;
    scene.server("a", 0, json!({})).await;
    scene.until_read("a").await;
    scene.fleet.reset_stats().await;
    scene.polls(0, 11).await;
    let stats = scene.fleet.host_stats(0).await;
    let (polls, readings) = (stats.count("/api/version"), stats.count("agent:/metrics"));
    assert!((polls / 3..=polls / 3 + 1).contains(&readings), "{readings} readings in {polls} polls");
}

/// A poll that somebody asks for reads the agents too, however long the interval is.
#[tokio::test]
async fn a_requested_poll_reads_the_agents_too() {
    let scene = Scene::new(1).await;
    scene.agents().await;
    // A plugin that comes after the only poll of half a day is read by none.
    eventually(PATIENCE, "the plugin is accepted", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "fleet-metrics").await;
        has_condition(&plugin, "Accepted", "True", "Valid")
    })
    .await;
    scene.server("a", 0, json!({"poll": {"interval": "12h"}})).await;
    scene.until_online("a").await;
    let read = async || scene.fleet.host_stats(0).await.count("agent:/metrics");
    for request in ["first", "second"] {
        let before = read().await;
        scene.patch_metadata("a", json!({"annotations": {"ollama-fleet.io/requestedAt": request}})).await;
        eventually(PATIENCE, "the agent is read again", async || read().await > before).await;
    }
}

/// What the agent says stands in `status.machine`, in the units of Kubernetes, and in metrics.
#[tokio::test]
async fn readings_reach_the_status_and_metrics() {
    let machine = json!({"bootTime": "2026-01-02T03:04:05Z", "jitter": false, "hostname": "gpu-box"});
    let scene = read_server(&json!({"defaults": {"machine": machine}})).await;
    let status = scene.status("a").await;
    let machine = serde_json::to_value(status.machine.unwrap()).unwrap();
    let expected = json!({
        "hostname": "gpu-box", "bootTime": "2026-01-02T03:04:05Z",
        "cpuPercent": 13, "gpuPercent": 35, "cpuTemperatureCelsius": 53, "gpuTemperatureCelsius": 61,
        "memoryTotal": "65536Mi", "memoryAvailable": "40000Mi",
        "diskTotal": "1024000Mi", "diskUsed": "409600Mi", "diskUsedPercent": 40,
    });
    assert_eq!(machine, expected);
    let metrics = scene.operator.metrics().await;
    let value = |name: &str, labels: &[(&str, &str)]| {
        metric_value(&metrics, &format!("ollama_fleet_server_{name}"), labels)
    };
    assert_eq!(value("temperature_celsius", &[("sensor", "gpu"), ("server", "a")]), Some(61.0));
    assert_eq!(value("memory_size_bytes", &[]), Some(65_536.0 * 1_048_576.0));
    assert_eq!(value("boot_timestamp_seconds", &[]), Some(1_767_323_045.0));
    let up = metric_value(&metrics, "ollama_fleet_plugin_up", &[("plugin", "fleet-metrics")]);
    assert_eq!(up, Some(1.0));
}

/// A machine without a GPU has no GPU readings, and no zeros in their place.
#[tokio::test]
async fn what_an_agent_does_not_say_is_absent() {
    let scene =
        read_server(&json!({"defaults": {"machine": {"gpus": 0, "omit": ["disk", "cpu_percent"]}}})).await;
    let machine = scene.status("a").await.machine.unwrap();
    assert_eq!(
        (machine.gpu_percent, machine.gpu_temperature_celsius, machine.cpu_percent),
        (None, None, None)
    );
    assert_eq!((machine.disk_total, machine.disk_used_percent), (None, None));
    assert_eq!(machine.cpu_temperature_celsius, Some(53));
    assert!(condition(&scene.get("a").await, "DiskPressure").is_none());
}

/// Agents that are already out there name their sensors in another way; both are read alike.
#[tokio::test]
async fn agents_of_both_generations_are_read() {
    let scenario = json!({"hosts": {
        "0": {"machine": {"sensorNames": "zones"}},
        "1": {"machine": {"sensorNames": "plain"}},
    }});
    let scene = Scene::with(2, &scenario, |builder| builder).await;
    scene.agents().await;
    for (name, host) in [("zones", 0), ("plain", 1)] {
        scene.server(name, host, json!({})).await;
        scene.until_read(name).await;
        let machine = scene.status(name).await.machine.unwrap();
        let temperatures = (machine.cpu_temperature_celsius, machine.gpu_temperature_celsius);
        assert_eq!(temperatures, (Some(53), Some(61)), "{name}");
    }
}

/// Port 0 turns a plugin off on one server: its agent is not asked, and nothing is said about its health. What it
/// said before goes without a word.
#[tokio::test]
async fn a_plugin_is_turned_off_by_port_zero() {
    let scenario = json!({"defaults": {"machine": {"gpuTemperature": 95.0}}});
    let scene = read_server(&scenario).await;
    scene.until("a", "ThermalPressure", "True", "GPUOverheating").await;
    scene.until_told("a", &["GPUOverheating"]).await;
    scene.patch_spec("a", json!({"pluginPorts": {"metricsPort": 0}})).await;
    eventually(PATIENCE, "the plugin is off", async || {
        let server = scene.get("a").await;
        let status = server.status.clone().unwrap_or_default();
        let state = status.plugins.as_deref().unwrap_or_default()[0].state.clone();
        let right = state.as_deref() == Some("Disabled")
            && status.machine.is_none()
            && status.plugin_summary.is_none()
            && condition(&server, "PluginsHealthy").is_none()
            && condition(&server, "ThermalPressure").is_none();
        if right { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    scene.polls(0, 1).await;
    scene.fleet.reset_stats().await;
    holds_for(QUIET, "the agent is left alone", async || {
        scene.fleet.host_stats(0).await.count("agent:/metrics") == 0
            && scene.told("a").await == ["GPUOverheating"]
    })
    .await;
    eventually(PATIENCE, "the plugin counts it", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "fleet-metrics").await;
        let servers = plugin.status.and_then(|status| status.servers).unwrap_or_default();
        servers.disabled == 1
    })
    .await;
    scene.patch_spec("a", json!({"pluginPorts": {"metricsPort": scene.fleet.agent_port()}})).await;
    scene.until_read("a").await;
}

/// A plugin reads the servers that its selector chooses, and a label is enough to choose one.
#[tokio::test]
async fn a_label_chooses_the_plugin() {
    let scene = Scene::new(1).await;
    let mut plugin = objects::fleet_metrics(scene.fleet.agent_port());
    let selector = json!({"matchLabels": {"gpu": "big"}});
    plugin.spec.server_selector = serde_json::from_value(selector).unwrap();
    scene.apply(&plugin).await;
    let mut object = server("a", scene.fleet.host(0));
    scene.apply(&object).await;
    scene.until_online("a").await;
    scene.polls(0, 1).await;
    assert!(condition(&scene.get("a").await, "PluginsHealthy").is_none());
    assert_eq!(scene.fleet.host_stats(0).await.count("agent:/metrics"), 0);
    object.labels_mut().insert("gpu".into(), "big".into());
    scene.apply(&object).await;
    scene.until_read("a").await;
    scene.patch_metadata("a", json!({"labels": {"gpu": "small"}})).await;
    eventually(PATIENCE, "it is not chosen any more", async || {
        let server = scene.get("a").await;
        condition(&server, "PluginsHealthy").is_none() && server.status.unwrap_or_default().machine.is_none()
    })
    .await;
}

/// A machine that boots is away for longer than anything that it said stands; that it has booted is told when it is
/// back, once, even if its agent is back before Ollama is.
#[tokio::test]
async fn a_reboot_is_told_when_the_machine_is_back() {
    let scene = read_server(&json!({"defaults": {"machine": {"bootTime": "2026-01-01T00:00:00Z"}}})).await;
    scene.fleet.action("0", "die").await;
    scene.until("a", "Ready", "False", "ConnectionRefused").await;
    // Until the agent has been missed as often as the host.
    let metrics = async || {
        let labels = [("server", "a"), ("plugin", "fleet-metrics")];
        metric_value(&scene.operator.metrics().await, "ollama_fleet_plugin_up", &labels)
    };
    eventually(PATIENCE, "the agent is in Error", async || metrics().await == Some(0.0)).await;
    // By a clock that is a minute ahead.
    let boot = Timestamp::now() + SignedDuration::from_mins(1);
    let boot = json!({"agent": null, "machine": {"bootTime": boot.to_string()}});
    scene.fleet.patch("0", boot).await;
    eventually(PATIENCE, "the agent is back", async || metrics().await == Some(1.0)).await;
    assert_eq!(scene.told("a").await, ["ServerOffline"]);
    scene.fleet.action("0", "revive").await;
    scene.until_told("a", &["ServerOffline", "ServerOnline", "ServerRebooted"]).await;
    holds_for(QUIET, "it is told once", async || scene.told("a").await.len() == 3).await;
}

/// A host that dies with its hot machine is told of as dead, not as cool.
#[tokio::test]
async fn a_dead_host_is_not_called_cool() {
    let scene = read_server(&json!({"defaults": {"machine": {"gpuTemperature": 95.0}}})).await;
    scene.until_told("a", &["GPUOverheating"]).await;
    scene.fleet.action("0", "die").await;
    scene.until("a", "Ready", "False", "ConnectionRefused").await;
    scene.until_told("a", &["GPUOverheating", "ServerOffline"]).await;
    holds_for(QUIET, "nothing else is told", async || scene.told("a").await.len() == 2).await;
}
