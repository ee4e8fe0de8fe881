//! Defects of the fleet manager that this operator replaces, each with the test that keeps it from coming back. Tests
//! that stand here carry the number of their row.
//!
//! | row | what was wrong | kept away by |
//! |---|---|---|
//! | 1 | numbers with a fraction ended the poll | `old_defects::row_01_numbers_with_a_fraction_end_no_poll`, `models::loaded_models_read_as_the_cli_prints_them` |
//! | 2 | the sensors of the own agent were looked for under other names | `pressure::agents_of_both_generations_are_read` |
//! | 3 | endpoint and port of a plugin were ignored, a second plugin never asked, a manifest hardly checked | `old_defects::row_03_the_endpoint_of_a_plugin_is_what_is_asked`, `plugins::a_second_plugin_on_another_port_is_read_too`, `bad_objects::a_bad_object_is_refused_with_a_message_that_says_what_to_write`, `plugin_ports::a_config_key_belongs_to_the_older_plugin_until_it_takes_another` |
//! | 4 | another exporter at the agent's port was passed over without a word | `old_defects::row_04_another_exporter_at_the_agents_port_is_told` |
//! | 5 | IPv6 addresses and URLs were cut at the first colon | `old_defects::row_05_an_ipv6_host_and_its_agent_are_read`, `bad_objects::the_rule_of_host_and_the_operator_agree` |
//! | 6 | one failed answer emptied the list of models, and a restart told of all of them | `models::a_failing_endpoint_never_empties_a_list`, `quiet::a_restart_is_no_news` |
//! | 7 | one failed poll took a server out of use | `server_lifecycle::a_single_failure_is_no_verdict` |
//! | 8 | edits and removals were not followed | `server_lifecycle::nothing_of_the_old_host_stands_under_the_new_one`, `server_lifecycle::a_deleted_server_vanishes`, `server_lifecycle::a_shorter_interval_applies_at_once`; what an old configuration becomes: tests/import.rs |
//! | 9 | a body that stalled held the poll while others piled up; bodies had no limit | `old_defects::row_09_a_body_that_stalls_piles_nothing_up`, `hostile_hosts::fleet::every_fault_of_a_host_becomes_its_reason_and_delays_no_other_host`, `hostile_agents::whatever_an_agent_answers_is_its_plugins_own_affair` |
//! | 10 | the greeting alone decided who is online | `old_defects::row_10_the_api_decides_and_not_the_greeting`, `hostile_hosts::fleet::a_host_that_was_never_well_gets_its_verdict_too` |
//! | 11 | vLLM's models were news at each poll | `old_defects::row_11_a_vllm_server_is_quiet` |
//! | 12 | a model that will not stop was tracked in one process and cleared in another | `models::loaded_models_read_as_the_cli_prints_them`; the proxy that tracked it is out of scope: what is shown comes from the host's last answer |
//! | 13 | no state without the chat's settings, thresholds compiled in, a reboot told twice | `pressure::thresholds_are_the_servers_own`, `pressure::a_reboot_is_told_when_the_machine_is_back`; sending chat messages is out of scope: Events and alerts are for that |
//! | 14 | boot times without a zone, and causes under a key that was never asked for | `old_defects::row_14_boot_times_have_a_zone_or_are_not_believed` |
//! | 15 | pulls of more than five minutes broke off | out of scope: the operator pulls no models |
//! | 16 | scheduled jobs never ran, and settings were not passed on | out of scope: the cluster runs jobs; `outside::help_lists_every_flag_with_its_environment_twin` |
//! | 17 | models with a namespace were looked up elsewhere | out of scope: no model is looked up anywhere; tests/import.rs has no catalog either |
//! | 18 | no authentication, no TLS, no metrics, state in memory only | `outside::metrics_are_for_holders_of_a_token_with_the_right_to_read_them`, `odd_http::tls_that_cannot_be_trusted_is_told_and_never_gone_around`, `quiet::what_happened_during_a_restart_is_told`; the proxy is out of scope |

use crate::support::{
    ControlPlane, Fleet, NamedTests, Namespace, Operator, PATIENCE, Scene, apply, binaries, condition,
    events, eventually, get, holds_for, metric_value,
    objects::{fleet_metrics, has_condition, plugin, server_with, status_of},
};
use axum::{Router, routing};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer};
use serde_json::json;
use std::{collections::BTreeSet, fs, time::Duration};
use tokio::net::TcpListener;

const ROWS: usize = 18;

/// The table above has all rows, and every test that it names exists.
#[test]
fn every_row_has_its_test_or_a_reason() {
    let tests = NamedTests::read();
    let own = fs::read_to_string(binaries::repository().join("tests/old_defects.rs")).unwrap();
    let rows = own.lines().filter_map(|line| line.strip_prefix("//! | ")?.split_once(" | "));
    let mut numbers = BTreeSet::new();
    for (number, rest) in rows {
        let Ok(number) = number.parse::<usize>() else { continue };
        numbers.insert(number);
        let named = tests.check(&format!("row {number}"), rest);
        assert!(named > 0 || rest.contains("out of scope: "), "row {number} has no test and no reason");
    }
    assert_eq!(numbers, (1..=ROWS).collect());
    let of_rows = own.lines().filter_map(|line| line.strip_prefix("async fn row_")?.split('(').next());
    for test in of_rows {
        assert!(own.contains(&format!("`old_defects::row_{test}`")), "row_{test} is not in the table");
    }
}

/// Numbers with a fraction, from the host or its agent, are rounded, and the polls go on.
#[tokio::test]
async fn row_01_numbers_with_a_fraction_end_no_poll() {
    let scenario = json!({"defaults": {
        "quirks": {"floatSizes": true},
        "models": [{"name": "a:1", "sizeBytes": 5_225_388_164_u64}],
        "machine": {"cpuPercent": 12.5, "gpuTemperature": 61.49, "memoryTotalMb": 65536.75},
    }});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.agents().await;
    scene.server("a", 0, json!({"poll": {"modelsInterval": "1s"}})).await;
    scene.until_read("a").await;
    let status = scene.status("a").await;
    assert_eq!(status.model_count, Some(1));
    let machine = status.machine.unwrap();
    assert_eq!((machine.cpu_percent, machine.gpu_temperature_celsius), (Some(13), Some(61)));
    scene.polls(0, 3).await;
    scene.until_online("a").await;
    let text = scene.operator.metrics().await;
    assert_eq!(metric_value(&text, "ollama_fleet_server_cpu_percent", &[("server", "a")]), Some(13.0));
}

/// What is asked is the path that the plugin names, and no other.
#[tokio::test]
async fn row_03_the_endpoint_of_a_plugin_is_what_is_asked() {
    let answers = json!({"agentBody": "{\"n\": 1}", "agentContentType": "application/json"});
    let scene = Scene::with(1, &json!({ "defaults": answers }), |builder| builder).await;
    let port = scene.fleet.agent_port();
    scene.apply(&plugin("first", port, json!({"endpoint": "/status/v2"}))).await;
    scene.apply(&plugin("second", port, json!({"endpoint": "/other"}))).await;
    scene.server("a", 0, json!({})).await;
    scene.until_read("a").await;
    assert_eq!(scene.status("a").await.plugin_summary.as_deref(), Some("2/2"));
    let stats = scene.fleet.host_stats(0).await;
    assert!(stats.count("agent:/status/v2") > 0 && stats.count("agent:/other") > 0, "{stats:?}");
    assert_eq!(stats.count("agent:/metrics"), 0);
}

/// The agent's usual port is also that of Prometheus' node exporter. What stands there is told in the server's status,
/// by an Event, in the plugin's own status and in the metrics; and the server stays Ready.
#[tokio::test]
async fn row_04_another_exporter_at_the_agents_port_is_told() {
    let text = "# HELP node_load1 1m load average.\n# TYPE node_load1 gauge\nnode_load1 0.21\n";
    let answers = json!({"agentBody": text, "agentContentType": "text/plain; version=0.0.4; charset=utf-8"});
    let scene = Scene::with(1, &json!({ "defaults": answers }), |builder| builder).await;
    scene.agents().await;
    scene.server("a", 0, json!({})).await;
    scene.until("a", "PluginsHealthy", "False", "PluginFailed").await;
    let server = scene.get("a").await;
    has_condition(&server, "Ready", "True", "Online").unwrap();
    let report = status_of(&server).plugins.unwrap().remove(0);
    assert_eq!((report.state.as_deref(), report.reason.as_deref()), (Some("Error"), Some("InvalidResponse")));
    assert!(report.message.is_some());
    scene.until_told("a", &["PluginFailed"]).await;
    eventually(PATIENCE, "the plugin says so itself", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "fleet-metrics").await;
        has_condition(&plugin, "Ready", "False", "Failing")
    })
    .await;
    let text = scene.operator.metrics().await;
    let labels = [("server", "a"), ("plugin", "fleet-metrics")];
    assert_eq!(metric_value(&text, "ollama_fleet_plugin_up", &labels), Some(0.0));
}

/// A host with an IPv6 address is polled there, and so is its agent; as a URL too.
#[tokio::test]
async fn row_05_an_ipv6_host_and_its_agent_are_read() {
    let Ok(listener) = TcpListener::bind("[::1]:0").await else {
        eprintln!("this machine has no IPv6");
        return;
    };
    let host = listener.local_addr().unwrap();
    let router = Router::new()
        .route("/api/version", routing::get(async || r#"{"version":"0.24.0"}"#))
        .route("/api/ps", routing::get(async || r#"{"models":[]}"#))
        .route("/api/tags", routing::get(async || r#"{"models":[]}"#));
    tokio::spawn(async move { axum::serve(listener, router).await });
    let listener = TcpListener::bind("[::1]:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let router = Router::new().route("/metrics", routing::get(async || r#"{"n":6}"#));
    tokio::spawn(async move { axum::serve(listener, router).await });

    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane)
        .namespace(&namespace)
        .arg("--allowed-cidrs=127.0.0.0/8,::1/128")
        .start()
        .await;
    apply(&client, &namespace, &plugin("p", port, json!({}))).await;
    apply(&client, &namespace, &server_with("plain", host.to_string(), json!({}))).await;
    apply(&client, &namespace, &server_with("url", format!("http://{host}"), json!({}))).await;
    for name in ["plain", "url"] {
        eventually(PATIENCE, name, async || {
            let server: OllamaServer = get(&client, &namespace, name).await;
            has_condition(&server, "Ready", "True", "Online")?;
            has_condition(&server, "PluginsHealthy", "True", "AllHealthy")
        })
        .await;
        let labels = [("server", name), ("plugin", "p")];
        let value = metric_value(&operator.metrics().await, "ollama_fleet_plugin_value", &labels);
        assert_eq!(value, Some(6.0));
    }
}

/// A body that stalls, of the host or of its agent, is a Timeout within the interval: the next poll begins when it
/// should, and there is never a second request or connection beside the one that waits.
#[tokio::test]
async fn row_09_a_body_that_stalls_piles_nothing_up() {
    let stalled = json!({"mode": "hang", "stage": "body"});
    let scenario = json!({"hosts": {"0": {"ollama": stalled}, "1": {"agent": stalled}}});
    let scene = Scene::with(2, &scenario, |builder| builder).await;
    scene.agents().await;
    scene.server("host", 0, json!({})).await;
    scene.server("agent", 1, json!({})).await;
    scene.until("host", "Ready", "False", "Timeout").await;
    scene.until("agent", "PluginsHealthy", "False", "PluginFailed").await;
    scene.until_online("agent").await;
    let report = scene.status("agent").await.plugins.unwrap().remove(0);
    assert_eq!(report.reason.as_deref(), Some("Timeout"));
    // The first poll is at once, and may still be under way when the second is due.
    let skipped = async || {
        let text = scene.operator.metrics().await;
        metric_value(&text, "ollama_fleet_server_polls_skipped_total", &[]).unwrap()
    };
    let before = skipped().await;
    scene.fleet.reset_stats().await;
    scene.polls(0, 5).await;
    let stats = scene.fleet.stats().await;
    assert_eq!((stats.max_in_flight, stats.max_connections, stats.agent_max_in_flight), (1, 1, 1));
    assert!(skipped().await - before < 1.0, "polls were left out");
}

/// A proxy that lets only the API through is Online; a host with the right greeting and a broken API is not, and says
/// that it is the API.
#[tokio::test]
async fn row_10_the_api_decides_and_not_the_greeting() {
    let broken = json!({"mode": "status", "code": 500});
    let scenario = json!({"hosts": {
        "0": {"paths": {"/": {"mode": "status", "code": 404}}},
        "1": {"paths": {"/api/version": broken, "/api/ps": broken, "/api/tags": broken}},
    }});
    let scene = Scene::with(2, &scenario, |builder| builder).await;
    scene.server("proxied", 0, json!({})).await;
    scene.server("broken", 1, json!({})).await;
    scene.until_online("proxied").await;
    scene.until("broken", "Ready", "False", "InvalidResponse").await;
    assert_eq!(scene.status("broken").await.loaded_models, None, "unknown is not empty");
    holds_for(Duration::from_secs(3), "the proxied host stays online", async || {
        has_condition(&scene.get("proxied").await, "Ready", "True", "Online")
    })
    .await;
}

/// vLLM tells another creation time of its models at each request; nothing of that is news or a reason to write.
#[tokio::test]
async fn row_11_a_vllm_server_is_quiet() {
    let scenario = json!({"defaults": {"backend": "vllm", "models": [{"name": "meta-llama/Llama-3.1-8B"}]}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.server("a", 0, json!({"backendType": "VLLM", "poll": {"modelsInterval": "1s"}})).await;
    scene.until_online("a").await;
    let asked = async || scene.fleet.host_stats(0).await.count("/v1/models");
    eventually(PATIENCE, "its models are known", async || scene.status("a").await.model_count == Some(1))
        .await;
    let writes = scene.writes().await;
    let before = asked().await;
    eventually(PATIENCE, "it is asked some more times", async || asked().await >= before + 5).await;
    assert_eq!(writes.total().await, 0, "{:?}", writes.all().await);
    assert!(scene.told("a").await.is_empty());
}

/// The boot time is the agent's `boot_time`, in any zone, told in UTC. Strings without a zone are no source of it, and
/// causes that nobody can tell are not told.
#[tokio::test]
async fn row_14_boot_times_have_a_zone_or_are_not_believed() {
    let rest = json!({"hostname": "gpu1", "recent_boots": ["Mon Sep 23 10:11:12 2024"],
        "reboot_causes": {"last": {"cause": "unknown", "detail": ""}}});
    let mut with_zone = rest.clone();
    with_zone["boot_time"] = "2024-09-23T10:11:12.5+02:00".into();
    let hosts = json!({"0": {"agentBody": with_zone.to_string()}, "1": {"agentBody": rest.to_string()}});
    let fleet = Fleet::with(2, &json!({ "hosts": hosts }), &[]).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    let expected = [("zone", Some("2024-09-23T08:11:12Z")), ("none", None)];
    for (host, (name, boot)) in expected.into_iter().enumerate() {
        apply(&client, &namespace, &server_with(name, fleet.host(host), json!({}))).await;
        let server = eventually(PATIENCE, name, async || {
            let server: OllamaServer = get(&client, &namespace, name).await;
            has_condition(&server, "PluginsHealthy", "True", "AllHealthy").map(|()| server)
        })
        .await;
        let machine = status_of(&server).machine.unwrap();
        assert_eq!(machine.hostname.as_deref(), Some("gpu1"));
        assert_eq!(machine.boot_time.map(|time| time.0), boot.map(|text| text.parse().unwrap()));
        assert!(events(&client, &namespace, name).await.is_empty());
        assert!(condition(&server, "Ready").unwrap().2.find("unknown").is_none());
    }
    drop(operator);
}
