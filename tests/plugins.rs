//! Agent plugins from the first object to the last: what a plugin says of itself, whom it is read on, and what is left
//! when it goes.

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, Scene, apply, condition, eventually, get, holds_for,
    metric_value, metrics,
    objects::{self, fleet_metrics, has_condition, server_with},
    patch_spec, plugin, server, status_of,
};
use kube::{
    Client,
    api::{DeleteParams, Patch, PatchParams},
};
use ollama_fleet_operator::api::{
    FleetPlugin, OllamaServer,
    fleet_plugin::ServerCounts,
    server_status::{PluginReport, Scalar},
};
use serde_json::json;
use std::time::Duration;

/// Counts are written at most every 5 s; three times over for a busy machine.
const COUNTS: Duration = Duration::from_secs(15);

/// A plugin counts the servers that it matches, where it works, fails and is turned off, and is Ready as long as it
/// works on one.
#[tokio::test]
async fn a_plugin_tells_how_it_fares_on_its_servers() {
    let (fleet, namespace, client, operator) = set_up(4).await;
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    eventually(PATIENCE, "without a server it is Ready", async || {
        let plugin: FleetPlugin = get(&client, &namespace, "fleet-metrics").await;
        has_condition(&plugin, "Accepted", "True", "Valid")
            .and_then(|()| has_condition(&plugin, "Ready", "True", "NoServers"))
    })
    .await;
    fleet.patch("2", json!({"agent": {"mode": "refuse"}})).await;
    for host in 0..4 {
        let spec = if host == 3 { json!({"pluginPorts": {"metricsPort": 0}}) } else { json!({}) };
        apply(&client, &namespace, &server_with(&name(host), fleet.host(host), spec)).await;
    }
    let expected = |matched, healthy, failing, disabled, summary: &str| ServerCounts {
        matched,
        healthy,
        failing,
        disabled,
        summary: summary.to_owned(),
    };
    counts(&client, &namespace, "fleet-metrics", &expected(4, 2, 1, 1, "2/3")).await;
    let plugin: FleetPlugin = get(&client, &namespace, "fleet-metrics").await;
    has_condition(&plugin, "Ready", "True", "Healthy").unwrap();
    let status = plugin.status.clone().unwrap();
    assert_eq!(
        (status.state.as_deref(), status.installed_version.as_deref()),
        (Some("Active"), Some("1.0.0"))
    );
    assert_eq!(status.observed_generation, plugin.metadata.generation);

    let wanted = ["Active", "Active", "Error", "Disabled"];
    for (host, state) in wanted.into_iter().enumerate() {
        let server: OllamaServer = get(&client, &namespace, &name(host)).await;
        assert_eq!(reports(&server)[0].state.as_deref(), Some(state), "{}", name(host));
        has_condition(&server, "Ready", "True", "Online").unwrap();
    }
    assert_eq!(fleet.host_stats(3).await.count("agent:/metrics"), 0, "an agent that is turned off was asked");
    let off: OllamaServer = get(&client, &namespace, &name(3)).await;
    assert_eq!(condition(&off, "PluginsHealthy"), None);

    fleet.patch("all", json!({"agent": {"mode": "refuse"}})).await;
    counts(&client, &namespace, "fleet-metrics", &expected(4, 0, 3, 1, "0/3")).await;
    let plugin: FleetPlugin = get(&client, &namespace, "fleet-metrics").await;
    has_condition(&plugin, "Ready", "False", "Failing").unwrap();
    has_condition(&plugin, "Accepted", "True", "Valid").unwrap();
    drop(operator);
}

/// Readings of an agent reach `status.machine` and the metrics at full rate.
#[tokio::test]
async fn readings_of_the_shipped_plugin_reach_status_and_metrics() {
    let (fleet, namespace, client, operator) = set_up(1).await;
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    apply(&client, &namespace, &server("s00", fleet.host(0))).await;
    let server = working(&client, &namespace, "s00").await;
    let machine = status_of(&server).machine.unwrap();
    assert_eq!(machine.hostname.as_deref(), Some("sim-00000"));
    assert_eq!((machine.cpu_temperature_celsius, machine.gpu_temperature_celsius), (Some(53), Some(61)));
    assert_eq!(machine.disk_used_percent, Some(40));
    assert!(machine.boot_time.is_some() && machine.memory_total.is_some());
    assert_eq!(status_of(&server).plugin_summary.as_deref(), Some("1/1"));
    fleet.patch("0", json!({"machine": {"gpuTemperature": 61.6}})).await;
    eventually(PATIENCE, "a change too small for a write is in the metrics", async || {
        let labels = [("server", "s00"), ("sensor", "gpu")];
        let text = operator.metrics().await;
        let value = metric_value(&text, "ollama_fleet_server_temperature_celsius", &labels);
        if value == Some(62.0) { Ok(()) } else { Err(format!("{value:?}")) }
    })
    .await;
}

/// Of two plugins with one configKey the older keeps it; the other says whose it is, is asked nowhere, and works by
/// itself as soon as the older one goes.
#[tokio::test]
async fn a_config_key_conflict_heals_when_the_older_plugin_goes() {
    let (fleet, namespace, client, operator) = set_up(1).await;
    let key = json!({"configKey": "metricsPort"});
    let other = fleet.agent_port();
    // The creation times of Kubernetes are whole seconds; within one of them the name decides.
    apply(&client, &namespace, &plugin("a-older", other, key.clone())).await;
    apply(
        &client,
        &namespace,
        &plugin("b-younger", other, json!({"configKey": "metricsPort", "endpoint": "/younger"})),
    )
    .await;
    apply(&client, &namespace, &server("s00", fleet.host(0))).await;
    working(&client, &namespace, "s00").await;
    eventually(PATIENCE, "the younger says whose the key is", async || {
        let plugin: FleetPlugin = get(&client, &namespace, "b-younger").await;
        has_condition(&plugin, "Accepted", "False", "ConfigKeyConflict")?;
        has_condition(&plugin, "Ready", "False", "ConfigKeyConflict")?;
        let (.., message) = condition(&plugin, "Accepted").unwrap();
        let state = plugin.status.and_then(|status| status.state);
        if message.contains("a-older") && state.as_deref() == Some("Error") { Ok(()) } else { Err(message) }
    })
    .await;
    let stats = fleet.host_stats(0).await;
    assert_eq!(stats.count("agent:/younger"), 0, "a plugin that is not accepted was asked");

    let api = objects::api::<FleetPlugin>(&client, &namespace);
    api.delete("a-older", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "the younger works", async || {
        let plugin: FleetPlugin = get(&client, &namespace, "b-younger").await;
        has_condition(&plugin, "Accepted", "True", "Valid")?;
        let server: OllamaServer = get(&client, &namespace, "s00").await;
        let names: Vec<_> = reports(&server).into_iter().map(|report| report.name).collect();
        if names == ["b-younger"] { Ok(()) } else { Err(format!("{names:?}")) }
    })
    .await;
    eventually(PATIENCE, "the younger is asked", async || {
        fleet.host_stats(0).await.count("agent:/younger") > 0
    })
    .await;
    drop(operator);
}

/// A suspended plugin is asked nowhere, leaves no reading behind, and goes on where it was.
#[tokio::test]
async fn a_suspended_plugin_is_asked_nowhere_and_its_readings_go() {
    let (fleet, namespace, client, operator) = set_up(1).await;
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    apply(&client, &namespace, &server("s00", fleet.host(0))).await;
    working(&client, &namespace, "s00").await;
    patch_spec::<FleetPlugin>(&client, &namespace, "fleet-metrics", json!({"suspend": true})).await;
    eventually(PATIENCE, "it says so", async || {
        let plugin: FleetPlugin = get(&client, &namespace, "fleet-metrics").await;
        has_condition(&plugin, "Ready", "False", "Suspended")?;
        has_condition(&plugin, "Accepted", "True", "Valid")?;
        let state = plugin.status.and_then(|status| status.state);
        if state.as_deref() == Some("Inactive") { Ok(()) } else { Err(format!("{state:?}")) }
    })
    .await;
    nothing_left(&client, &namespace, "s00", &operator).await;
    fleet.reset_stats().await;
    holds_for(Duration::from_secs(3), "nobody asks", async || {
        fleet.host_stats(0).await.count("agent:/metrics") == 0
    })
    .await;
    assert!(fleet.host_stats(0).await.count("/api/version") > 0, "the host itself is polled on");
    patch_spec::<FleetPlugin>(&client, &namespace, "fleet-metrics", json!({"suspend": false})).await;
    working(&client, &namespace, "s00").await;
}

/// A deleted plugin leaves no value, reading, condition or series on any server: also not on one that is not polled.
#[tokio::test]
async fn a_deleted_plugin_leaves_nothing_behind() {
    let (fleet, namespace, client, operator) = set_up(2).await;
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    fleet.action("0", "hot").await;
    for host in 0..2 {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
        working(&client, &namespace, &name(host)).await;
    }
    eventually(PATIENCE, "the hot machine is under pressure", async || {
        let server: OllamaServer = get(&client, &namespace, "s00").await;
        condition(&server, "ThermalPressure").filter(|(status, ..)| status == "True")
    })
    .await;
    patch_spec::<OllamaServer>(&client, &namespace, "s01", json!({"suspend": true})).await;
    eventually(PATIENCE, "suspended", async || {
        let server: OllamaServer = get(&client, &namespace, "s01").await;
        has_condition(&server, "Ready", "False", "Suspended")
    })
    .await;
    let api = objects::api::<FleetPlugin>(&client, &namespace);
    api.delete("fleet-metrics", &DeleteParams::default()).await.unwrap();
    for host in 0..2 {
        nothing_left(&client, &namespace, &name(host), &operator).await;
    }
    let hot: OllamaServer = get(&client, &namespace, "s00").await;
    assert_eq!(condition(&hot, "ThermalPressure"), None);
    let told = crate::support::events(&client, &namespace, "s00").await;
    let resolved =
        told.iter().filter(|event| event.reason.as_deref() == Some("GPUOverheatingResolved")).count();
    assert_eq!(resolved, 0, "nobody knows that it cooled down");
}

/// A selector is followed as labels come and go, without a restart; and only servers of the plugin's own namespace
/// are meant.
#[tokio::test]
async fn a_selector_follows_the_labels_of_servers() {
    let fleet = Fleet::start(2).await;
    let control_plane = ControlPlane::shared();
    let client = control_plane.client().await;
    let (namespace, other) = (Namespace::new(control_plane).await, Namespace::new(control_plane).await);
    let operator = Operator::builder(control_plane).namespace(&namespace).namespace(&other).start().await;
    let mut agent = fleet_metrics(fleet.agent_port());
    agent.spec.server_selector = serde_json::from_value(json!({"matchLabels": {"gpu": "big"}})).unwrap();
    apply(&client, &namespace, &agent).await;
    apply(&client, &namespace, &server("s00", fleet.host(0))).await;
    let mut stranger = server("s01", fleet.host(1));
    stranger.metadata.labels = Some([("gpu".to_owned(), "big".to_owned())].into());
    apply(&client, &other, &stranger).await;
    for (namespace, name) in [(&namespace, "s00"), (&other, "s01")] {
        eventually(PATIENCE, "Ready", async || {
            has_condition(&get::<OllamaServer>(&client, namespace, name).await, "Ready", "True", "Online")
        })
        .await;
    }
    let label = async |value: serde_json::Value| {
        let api = objects::api::<OllamaServer>(&client, &namespace);
        let patch = Patch::Merge(json!({"metadata": {"labels": {"gpu": value}}}));
        api.patch("s00", &PatchParams::default(), &patch).await.unwrap();
    };
    nothing_left(&client, &namespace, "s00", &operator).await;
    label(json!("big")).await;
    working(&client, &namespace, "s00").await;
    label(json!("small")).await;
    nothing_left(&client, &namespace, "s00", &operator).await;
    label(json!("big")).await;
    working(&client, &namespace, "s00").await;
    let selector = json!({"serverSelector": {"matchLabels": {"gpu": "huge"}}});
    patch_spec::<FleetPlugin>(&client, &namespace, "fleet-metrics", selector).await;
    nothing_left(&client, &namespace, "s00", &operator).await;
    assert_eq!(
        fleet.host_stats(1).await.count("agent:/metrics"),
        0,
        "a plugin reached into another namespace"
    );
}

/// Any number of plugins are read beside each other, each at its own port and path, and only numbers, booleans, times
/// and host names of their answers are kept.
#[tokio::test]
async fn a_second_plugin_on_another_port_is_read_too() {
    const ANSWER: &str = r#"{"queue": {"depth": 3, "limit": 2.5}, "healthy": true, "token": "secret",
        "startedAt": "2026-11-22T01:02:03Z"}"#;
    let (fleet, namespace, client, operator) = set_up(1).await;
    // The other agent of the same machine: another program, on another port of the same address.
    let listener = tokio::net::TcpListener::bind((fleet.address(0), 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let agent = axum::Router::new().fallback(async || ANSWER);
    tokio::spawn(async move { axum::serve(listener, agent).await });
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    let values = json!({"endpoint": "/queue", "values": [
        {"name": "depth", "jsonPaths": ["$.missing", "$.queue.depth"]},
        {"name": "limitPercent", "jsonPaths": ["$.queue.limit"], "multiplier": "100"},
        {"name": "healthy", "type": "Boolean", "jsonPaths": ["$.healthy"]},
        {"name": "started", "type": "Time", "jsonPaths": ["$.startedAt"]},
        {"name": "token", "type": "Integer", "jsonPaths": ["$.token"]}
    ]});
    apply(&client, &namespace, &plugin("queue", port, values)).await;
    apply(&client, &namespace, &plugin("whatever", port, json!({"endpoint": "/raw"}))).await;
    apply(&client, &namespace, &server("s00", fleet.host(0))).await;
    let server = working(&client, &namespace, "s00").await;
    let all = reports(&server);
    let names: Vec<_> = all.iter().map(|report| report.name.as_str()).collect();
    assert_eq!(names, ["fleet-metrics", "queue", "whatever"]);
    let queue: Vec<_> = all[1].values.iter().map(|(name, value)| (name.as_str(), value.clone())).collect();
    let expected = [
        ("depth", Scalar::Integer(3)),
        ("healthy", Scalar::Boolean(true)),
        ("limitPercent", Scalar::Integer(250)),
        ("started", Scalar::Text("2026-11-22T01:02:03Z".to_owned())),
    ];
    assert_eq!(queue, expected);
    let raw: Vec<_> = all[2].values.keys().map(String::as_str).collect();
    assert_eq!(raw, ["healthy", "queueDepth", "queueLimit"]);
    assert!(!serde_json::to_string(&server).unwrap().contains("secret"));
    assert_eq!(status_of(&server).plugin_summary.as_deref(), Some("3/3"));
    assert_eq!(metrics::series(&operator.metrics().await, "ollama_fleet_plugin_up"), 3);
}

/// What the schema cannot see of a plugin is refused with a message that says where it is wrong, heals by an edit, and
/// takes effect nowhere meanwhile.
#[tokio::test]
async fn a_bad_path_is_refused_with_its_position() {
    let (fleet, namespace, client, operator) = set_up(1).await;
    let bad = json!({"values": [{"name": "load", "jsonPaths": ["$.load["]}]});
    apply(&client, &namespace, &plugin("p", fleet.agent_port(), bad)).await;
    apply(&client, &namespace, &server("s00", fleet.host(0))).await;
    let plugin_object = eventually(PATIENCE, "it is refused", async || {
        let plugin: FleetPlugin = get(&client, &namespace, "p").await;
        has_condition(&plugin, "Accepted", "False", "InvalidSpec").map(|()| plugin)
    })
    .await;
    let (.., message) = condition(&plugin_object, "Accepted").unwrap();
    assert!(message.starts_with("value load: the JSON path $.load[ is invalid at position"), "{message}");
    eventually(PATIENCE, "the server is Ready without it", async || {
        let server: OllamaServer = get(&client, &namespace, "s00").await;
        has_condition(&server, "Ready", "True", "Online").map(|()| assert!(reports(&server).is_empty()))
    })
    .await;
    assert_eq!(fleet.host_stats(0).await.count("agent:/metrics"), 0);
    apply(&client, &namespace, &plugin("p", fleet.agent_port(), json!({}))).await;
    working(&client, &namespace, "s00").await;

    // A change of what is read is followed too, and the old values do not stand beside the new.
    let values = json!({"values": [{"name": "cpu", "jsonPaths": ["$.cpu_percent"]}]});
    apply(&client, &namespace, &plugin("p", fleet.agent_port(), values)).await;
    patch_spec::<FleetPlugin>(&client, &namespace, "p", json!({"version": "1.1.0"})).await;
    eventually(PATIENCE, "only the new value is left", async || {
        let plugin: FleetPlugin = get(&client, &namespace, "p").await;
        let version = plugin.status.and_then(|status| status.installed_version);
        // Values alone are no reason to write; a poll that somebody asks for writes them.
        let now = Patch::Merge(json!({"metadata": {"annotations": {"ollama-fleet.io/requestedAt":
            format!("{:?}", std::time::Instant::now())}}}));
        let api = objects::api::<OllamaServer>(&client, &namespace);
        api.patch("s00", &PatchParams::default(), &now).await.unwrap();
        let server: OllamaServer = get(&client, &namespace, "s00").await;
        let names: Vec<_> = reports(&server)
            .into_iter()
            .flat_map(|report| report.values.keys().cloned().collect::<Vec<_>>())
            .collect();
        if names == ["cpu"] && version.as_deref() == Some("1.1.0") {
            Ok(())
        } else {
            Err(format!("{names:?} {version:?}"))
        }
    })
    .await;
    drop(operator);
}

async fn set_up(hosts: usize) -> (Fleet, Namespace, Client, Operator) {
    let fleet = Fleet::start(hosts).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    (fleet, namespace, client, operator)
}

fn name(host: usize) -> String {
    format!("s{host:02}")
}

fn reports(server: &OllamaServer) -> Vec<PluginReport> {
    status_of(server).plugins.unwrap_or_default()
}

/// Waits until every plugin of a server works there.
async fn working(client: &Client, namespace: &str, name: &str) -> OllamaServer {
    eventually(PATIENCE, "every plugin works", async || {
        let server: OllamaServer = get(client, namespace, name).await;
        has_condition(&server, "Ready", "True", "Online")?;
        has_condition(&server, "PluginsHealthy", "True", "AllHealthy").map(|()| server)
    })
    .await
}

/// Waits until a server shows nothing of any plugin.
async fn nothing_left(client: &Client, namespace: &str, name: &str, operator: &Operator) {
    eventually(COUNTS, "nothing of the plugin is left", async || {
        let server: OllamaServer = get(client, namespace, name).await;
        let status = status_of(&server);
        if let Some(condition) = condition(&server, "PluginsHealthy") {
            return Err(format!("{condition:?}"));
        }
        if status.plugins.is_some() || status.machine.is_some() || status.plugin_summary.is_some() {
            return Err(format!("{:?} {:?} {:?}", status.plugins, status.machine, status.plugin_summary));
        }
        let text = operator.metrics().await;
        for series in ["ollama_fleet_plugin_up", "ollama_fleet_server_cpu_percent"] {
            if metric_value(&text, series, &[("namespace", namespace), ("server", name)]).is_some() {
                return Err(format!("{series} is left"));
            }
        }
        Ok(())
    })
    .await;
}

async fn counts(client: &Client, namespace: &str, name: &str, expected: &ServerCounts) {
    eventually(COUNTS, "the counts are right", async || {
        let plugin: FleetPlugin = get(client, namespace, name).await;
        let counts = plugin.status.and_then(|status| status.servers).unwrap_or_default();
        if counts == *expected { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
}

/// A plugin that no server has been asked for yet is `Pending`, with the servers that it selects, and not Ready with 0/0;
/// one that selects none is Ready.
#[tokio::test]
async fn a_plugin_that_has_not_counted_yet_is_pending() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "1h"}})).await;
    scene.until_online("a").await;
    scene.agents().await;
    let plugin = async || get::<FleetPlugin>(&scene.client, &scene.namespace, "fleet-metrics").await;
    let counts = async || {
        let servers = plugin().await.status.and_then(|status| status.servers);
        servers.map(|servers| servers.summary).unwrap_or_default()
    };
    eventually(PATIENCE, "it waits for the server", async || {
        has_condition(&plugin().await, "Accepted", "True", "Valid")?;
        has_condition(&plugin().await, "Ready", "Unknown", "Pending")
    })
    .await;
    assert_eq!(counts().await, "0/1");
    scene.patch_metadata("a", json!({"annotations": {"ollama-fleet.io/requestedAt": "now"}})).await;
    eventually(PATIENCE, "it has answered", async || {
        has_condition(&plugin().await, "Ready", "True", "Healthy")
    })
    .await;
    assert_eq!(counts().await, "1/1");
    let nowhere = json!({"serverSelector": {"matchLabels": {"none": "such"}}});
    patch_spec::<FleetPlugin>(&scene.client, &scene.namespace, "fleet-metrics", nowhere).await;
    eventually(PATIENCE, "it selects none", async || {
        has_condition(&plugin().await, "Ready", "True", "NoServers")
    })
    .await;
}
