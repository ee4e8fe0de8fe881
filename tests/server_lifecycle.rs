//! One server from its creation to its end: verdicts, Events, maintenance, suspension, requested polls, other hosts.

use crate::support::{
    ControlPlane, PATIENCE, Scene, condition, eventually, holds_for, metric_value,
    objects::{self, has_condition},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, Preconditions},
};
use ollama_fleet_operator::api::OllamaServer;
use serde_json::{Value, json};
use std::time::Duration;

const INTERVAL: Duration = Duration::from_secs(1);
/// At most 0.8 × interval.
const TIMEOUT: Duration = Duration::from_millis(800);
const THRESHOLD: u32 = 3;
/// Long enough for several polls, and for an Event or a write that must not come.
const QUIET: Duration = Duration::from_secs(4);

fn offline_bound() -> Duration {
    INTERVAL * THRESHOLD + TIMEOUT + Duration::from_secs(1)
}

fn after(seconds: i64) -> String {
    let now = jiff::Timestamp::now();
    (now + jiff::SignedDuration::from_secs(seconds)).strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

/// A new object for a healthy host is Ready within two seconds, tells nothing, and its columns show what the host and
/// its agent say.
#[tokio::test]
async fn a_new_server_is_ready_within_two_seconds() {
    let model = json!({"name": "qwen3:8b", "sizeBytes": 5_225_388_164_u64});
    let loaded = json!({"name": "qwen3:8b", "sizeBytes": 6_442_450_944_u64, "vramBytes": 6_442_450_944_u64});
    let scenario = json!({"defaults": {"models": [model], "loaded": [loaded]}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.agents().await;
    let created = scene.server("a", 0, json!({})).await;
    has_condition(&created, "Ready", "Unknown", "Pending").unwrap();
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    scene.until_read("a").await;
    let args = ["get", "ollamaserver", "a", "-o", "wide", "-n", scene.namespace.name()];
    let table = ControlPlane::shared().kubectl(&args, None).ok();
    let row: Vec<&str> = table.lines().nth(1).unwrap().split_whitespace().collect();
    let host = scene.fleet.host(0);
    for cell in ["a", "True", "Online", "0.24.0", "1", "6144Mi", "61", &host, "Ollama", "1/1", "0"] {
        assert!(row.contains(&cell), "{cell} is missing in\n{table}");
    }
    let status = scene.status("a").await;
    assert_eq!(status.observed_endpoint.as_deref(), Some(format!("http://{host}").as_str()));
    assert_eq!(status.model_count, Some(1));
    assert_eq!(status.loaded_models.unwrap()[0].processor.as_deref(), Some("100% GPU"));
    assert!(status.last_heartbeat_time.is_some() && status.last_online_time.is_some());
    assert_eq!(scene.told("a").await, [""; 0]);
}

/// The death of a host, its agent included, is a verdict within failureThreshold × interval + timeout + 1 s; it costs
/// two writes and one Event, and then nothing more. Its return is a verdict within interval + 1 s and one Event.
#[tokio::test]
async fn a_host_that_dies_and_returns_is_told_once_each() {
    let scene = Scene::new(1).await;
    scene.agents().await;
    scene.server("a", 0, json!({})).await;
    scene.until_read("a").await;
    let writes = scene.writes().await;

    scene.fleet.action("0", "die").await;
    scene.within(offline_bound(), "a", "Ready", "False", "ConnectionRefused").await;
    scene.until_told("a", &["ServerOffline"]).await;
    holds_for(QUIET, "two writes and one Event", async || {
        let (ready, told) = (
            writes.writes("a").await.into_iter().map(|write| write.ready).collect::<Vec<_>>(),
            scene.told("a").await,
        );
        if ready == ["True/ProbeFailing", "False/ConnectionRefused"] && told == ["ServerOffline"] {
            Ok(())
        } else {
            Err(format!("{ready:?}, {told:?}"))
        }
    })
    .await;
    let offline = scene.get("a").await;
    has_condition(&offline, "Reachable", "False", "ConnectionRefused").unwrap();
    has_condition(&offline, "Accepted", "True", "Valid").unwrap();

    scene.fleet.action("0", "revive").await;
    scene.within(INTERVAL + Duration::from_secs(1), "a", "Ready", "True", "Online").await;
    scene.until_told("a", &["ServerOffline", "ServerOnline"]).await;
    scene.until_read("a").await;
    holds_for(QUIET, "nothing else is told", async || {
        scene.told("a").await == ["ServerOffline", "ServerOnline"]
    })
    .await;
}

/// One bad poll is a doubt: the verdict stays, the reason says what failed, and nothing is told.
#[tokio::test]
async fn a_single_failure_is_no_verdict() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"failureThreshold": 100}})).await;
    scene.until_online("a").await;
    scene.fleet.patch("0", json!({"ollama": {"mode": "status", "code": 503}})).await;
    scene.until("a", "Ready", "True", "ProbeFailing").await;
    let (_, _, message) = condition(&scene.get("a").await, "Ready").unwrap();
    assert!(message.contains("ServerBusy"), "{message}");
    scene.fleet.patch("0", json!({"ollama": null})).await;
    scene.until_online("a").await;
    assert_eq!(scene.told("a").await, [""; 0]);
}

/// The first verdict about a host is told only if it is a bad one, and what it has on the first poll is no news.
#[tokio::test]
async fn the_first_verdict_is_told_only_if_it_is_bad() {
    let model = json!({"name": "llama3.2:latest"});
    let loaded = json!({"name": "llama3.2:latest", "sizeBytes": 1 << 30, "vramBytes": 1 << 30});
    let scenario = json!({"defaults": {"models": [model], "loaded": [loaded]}});
    let scene = Scene::with(2, &scenario, |builder| builder).await;
    scene.fleet.action("1", "die").await;
    scene.server("healthy", 0, json!({})).await;
    scene.server("dead", 1, json!({})).await;
    scene.within(Duration::from_secs(2), "healthy", "Ready", "True", "Online").await;
    // A first poll at once, so the verdict comes no later than that of a host that dies.
    scene.within(offline_bound(), "dead", "Ready", "False", "ConnectionRefused").await;
    scene.until_told("dead", &["ServerOffline"]).await;
    holds_for(QUIET, "nothing else is told", async || {
        scene.told("dead").await == ["ServerOffline"] && scene.told("healthy").await.is_empty()
    })
    .await;
}

/// What no retry mends is the verdict at the first poll of a new object, not after three.
#[tokio::test]
async fn permanent_failures_are_first_verdicts_at_once() {
    let scenario = json!({"hosts": {
        "0": {"ollama": {"mode": "status", "code": 401}},
        "1": {"ollama": {"mode": "status", "code": 403}},
        "2": {"ollama": {"mode": "notOllama"}},
    }});
    let scene = Scene::with(3, &scenario, |builder| builder).await;
    // With such an interval a second poll would come long after the test.
    let spec = json!({"poll": {"interval": "10m"}});
    for (host, reason) in [(0, "Unauthorized"), (1, "HostRejected"), (2, "NotOllama")] {
        let name = format!("s{host}");
        scene.server(&name, host, spec.clone()).await;
        scene.within(Duration::from_secs(2), &name, "Ready", "False", reason).await;
        has_condition(&scene.get(&name).await, "Reachable", "False", reason).unwrap();
        scene.until_told(&name, &["ServerOffline"]).await;
    }
}

/// In maintenance a server is not Ready, Reachable goes on telling the truth, and warnings are not sent. It ends by
/// itself at its time, without an edit; a host that is still down then is told once.
#[tokio::test]
async fn a_maintenance_ends_by_itself() {
    let scene = Scene::new(2).await;
    for (name, host) in [("back", 0), ("dead", 1)] {
        scene.server(name, host, json!({})).await;
        scene.until_online(name).await;
        let end = after(12);
        let maintenance = json!({"maintenance": {"reason": "new PSU", "endTime": end}});
        scene.patch_spec(name, maintenance).await;
        scene.within(Duration::from_secs(1), name, "Ready", "False", "Maintenance").await;
        let server = scene.get(name).await;
        has_condition(&server, "Reachable", "True", "Online").unwrap();
        assert!(condition(&server, "Ready").unwrap().2.contains("new PSU"));
    }
    scene.fleet.action("1", "die").await;
    scene.until("dead", "Reachable", "False", "ConnectionRefused").await;
    has_condition(&scene.get("dead").await, "Ready", "False", "Maintenance").unwrap();
    assert_eq!(scene.told("dead").await, [""; 0], "warnings are dropped during a maintenance");
    let generation = scene.get("dead").await.metadata.generation;

    scene.until("back", "Ready", "True", "Online").await;
    scene.until("dead", "Ready", "False", "ConnectionRefused").await;
    scene.until_told("dead", &["ServerOffline"]).await;
    holds_for(QUIET, "it is told once", async || {
        scene.told("dead").await == ["ServerOffline"] && scene.told("back").await.is_empty()
    })
    .await;
    assert_eq!(scene.get("dead").await.metadata.generation, generation, "nobody edited it");
}

/// A maintenance ends at its time although the next poll is far away.
#[tokio::test]
async fn the_end_of_a_maintenance_waits_for_no_poll() {
    let scene = Scene::new(1).await;
    let spec = json!({"poll": {"interval": "1h"}, "maintenance": {"endTime": after(6)}});
    scene.server("a", 0, spec).await;
    scene.until("a", "Ready", "False", "Maintenance").await;
    scene.until_online("a").await;
}

/// A suspended server is not asked for anything and keeps what was known of it; resumed, it is asked at once.
#[tokio::test]
async fn a_suspended_server_is_left_alone() {
    let scenario = json!({"defaults": {"models": [{"name": "qwen3:8b"}]}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.agents().await;
    let slow = json!({"poll": {"interval": "1h"}});
    scene.server("a", 0, json!({})).await;
    scene.until_read("a").await;
    scene.patch_spec("a", json!({"suspend": true})).await;
    scene.within(Duration::from_secs(1), "a", "Ready", "False", "Suspended").await;
    let suspended = scene.get("a").await;
    has_condition(&suspended, "Reachable", "Unknown", "Suspended").unwrap();
    scene.fleet.reset_stats().await;
    holds_for(QUIET, "no request reaches the host", async || {
        let stats = scene.fleet.host_stats(0).await;
        if stats.total == 0 { Ok(()) } else { Err(format!("{:?}", stats.requests)) }
    })
    .await;
    let status = scene.status("a").await;
    assert_eq!((status.version.as_deref(), status.model_count), (Some("0.24.0"), Some(1)));
    assert_eq!(status.models.unwrap()[0].name, "qwen3:8b");
    assert_eq!(status.machine.unwrap().hostname.as_deref(), Some("sim-00000"));

    // Even with the next slot an hour away.
    scene.patch_spec("a", slow).await;
    scene.patch_spec("a", json!({"suspend": false})).await;
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    assert_eq!(scene.told("a").await, [""; 0]);
}

fn request(value: &str) -> Value {
    json!({"annotations": {"ollama-fleet.io/requestedAt": value}})
}

async fn until_handled(scene: &Scene, value: &str) {
    eventually(PATIENCE, "the request is echoed", async || {
        let handled = scene.status("a").await.last_handled_requested_at;
        if handled.as_deref() == Some(value) { Ok(()) } else { Err(format!("{handled:?}")) }
    })
    .await;
}

/// The annotation asks for a poll now, with the list of models, and is echoed when that poll is over.
#[tokio::test]
async fn a_requested_poll_happens_now_and_is_echoed() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "1h"}})).await;
    scene.until_online("a").await;
    scene.fleet.reset_stats().await;
    scene.fleet.action("0", json!({"action": "pull", "model": "new:latest"})).await;
    scene.patch_metadata("a", request("one")).await;
    until_handled(&scene, "one").await;
    let models = scene.status("a").await.models.unwrap_or_default();
    assert!(models.iter().any(|model| model.name == "new:latest"), "{models:?}");
    scene.until_told("a", &["ModelAdded"]).await;
    holds_for(QUIET, "one request is one poll", async || {
        let stats = scene.fleet.host_stats(0).await;
        let counts = ["/api/version", "/api/ps", "/api/tags"].map(|path| stats.count(path));
        if counts == [1, 1, 1] { Ok(()) } else { Err(format!("{counts:?}")) }
    })
    .await;
}

/// A request that comes while a poll is under way is answered by a poll that began after it.
#[tokio::test]
async fn a_request_during_a_poll_is_answered_by_the_next() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "1h", "timeout": "20s"}})).await;
    scene.until_online("a").await;
    scene.fleet.patch("0", json!({"paths": {"/api/ps": {"mode": "healthy", "latencyMs": 3000}}})).await;
    scene.fleet.reset_stats().await;
    scene.patch_metadata("a", request("one")).await;
    eventually(PATIENCE, "the poll is under way", async || {
        scene.fleet.host_stats(0).await.count("/api/ps") == 1
    })
    .await;
    scene.patch_metadata("a", request("two")).await;
    until_handled(&scene, "two").await;
    assert_eq!(scene.fleet.host_stats(0).await.count("/api/version"), 2);
}

/// Requests are answered at most once a second, and their failures bring no verdict closer.
#[tokio::test]
async fn requested_polls_are_paced_and_do_not_count_as_failures() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "1h"}})).await;
    scene.until_online("a").await;
    scene.fleet.reset_stats().await;
    for number in 0..30 {
        scene.patch_metadata("a", request(&format!("r{number}"))).await;
    }
    until_handled(&scene, "r29").await;
    let arrivals = scene.fleet.arrivals("0", "/api/version").await["sim-00000"].clone();
    let closest = arrivals.windows(2).map(|pair| pair[1] - pair[0]).min().unwrap_or(i64::MAX);
    assert!(closest >= 950, "{arrivals:?}");

    scene.fleet.patch("0", json!({"ollama": {"mode": "status", "code": 503}})).await;
    for number in 0..6 {
        let value = format!("bad{number}");
        scene.patch_metadata("a", request(&value)).await;
        until_handled(&scene, &value).await;
    }
    let server = scene.get("a").await;
    has_condition(&server, "Ready", "True", "ProbeFailing").unwrap();
    assert_eq!(server.status.unwrap().consecutive_failures, Some(0));
    assert_eq!(scene.told("a").await, [""; 0]);
}

/// Whoever asks again and again does not keep a dead host from its verdict.
#[tokio::test]
async fn requests_do_not_hold_up_a_verdict() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "2s"}})).await;
    scene.until_online("a").await;
    scene.fleet.action("0", "die").await;
    let mut number = 0;
    let bound = Duration::from_secs(2) * THRESHOLD + Duration::from_millis(2600);
    eventually(bound * 3, "the verdict", async || {
        number += 1;
        scene.patch_metadata("a", request(&number.to_string())).await;
        has_condition(&scene.get("a").await, "Ready", "False", "ConnectionRefused")
    })
    .await;
}

/// Edits of other fields do not move the slots: a server that is edited all the time is polled as often as others.
#[tokio::test]
async fn edits_do_not_postpone_polls() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "2s"}})).await;
    scene.until_online("a").await;
    scene.fleet.reset_stats().await;
    let mut number = 0;
    holds_for(Duration::from_secs(11), "edits are taken", async || {
        number += 1;
        scene.patch_spec("a", json!({"displayName": number.to_string()})).await;
        true
    })
    .await;
    let polls = scene.fleet.host_stats(0).await.count("/api/version");
    assert!((4..=7).contains(&polls), "{polls} polls in 11 s at an interval of 2 s");
}

/// A shorter interval counts from its edit on, not from the next slot of the longer one.
#[tokio::test]
async fn a_shorter_interval_applies_at_once() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "24h"}})).await;
    scene.until_online("a").await;
    scene.fleet.reset_stats().await;
    scene.patch_spec("a", json!({"poll": {"interval": "1s"}})).await;
    eventually(Duration::from_secs(4) * 3, "three polls", async || {
        scene.fleet.host_stats(0).await.count("/api/version") >= 3
    })
    .await;
}

/// An edit right after a change of the host does not make the new host wait for its slot.
#[tokio::test]
async fn an_edit_after_a_move_does_not_postpone_the_first_poll() {
    let scene = Scene::new(2).await;
    scene.server("a", 0, json!({"poll": {"interval": "1h"}})).await;
    scene.until_online("a").await;
    for number in 1..=20 {
        scene.patch_spec("a", json!({"host": scene.fleet.host(number % 2)})).await;
        scene.patch_spec("a", json!({"displayName": number.to_string()})).await;
    }
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
}

/// While a server is suspended a request is echoed and nobody is asked.
#[tokio::test]
async fn a_request_to_a_suspended_server_is_only_echoed() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"suspend": true})).await;
    scene.until("a", "Ready", "False", "Suspended").await;
    scene.patch_metadata("a", request("now")).await;
    until_handled(&scene, "now").await;
    assert_eq!(scene.fleet.host_stats(0).await.total, 0);
}

/// When `spec.host` changes while the old host keeps a poll hanging, nothing of the old host stands under the new one
/// and nothing is told about the difference between the two.
#[tokio::test]
async fn nothing_of_the_old_host_stands_under_the_new_one() {
    let scenario = json!({"hosts": {
        "0": {"version": "0.1.0", "models": [{"name": "old:1"}, {"name": "old:2"}],
              "loaded": [{"name": "old:1", "sizeBytes": 1 << 30, "vramBytes": 0}],
              "machine": {"hostname": "old-machine", "gpuTemperature": 99.0, "bootTime": "2026-01-01T00:00:00Z"}},
        "1": {"version": "0.2.0", "models": [{"name": "new:1"}], "loaded": [],
              "machine": {"hostname": "new-machine"}},
    }});
    let scene = Scene::with(2, &scenario, |builder| builder).await;
    scene.agents().await;
    scene.server("a", 0, json!({"poll": {"interval": "5s", "timeout": "4s"}})).await;
    scene.until_read("a").await;
    scene.fleet.patch("0", json!({"ollama": {"mode": "hang", "stage": "body"}})).await;
    eventually(PATIENCE, "a poll of the old host hangs", async || {
        scene.fleet.host_stats(0).await.in_flight == 1
    })
    .await;
    let told = scene.told("a").await;
    let writes = scene.writes().await;
    scene.patch_spec("a", json!({"host": scene.fleet.host(1)})).await;
    // Until the operator has seen the edit, Ready still speaks of the old host.
    eventually(PATIENCE, "the new host is seen", async || {
        scene.status("a").await.version.as_deref() == Some("0.2.0")
    })
    .await;
    eventually(PATIENCE, "the old host is let go", async || scene.fleet.host_stats(0).await.in_flight == 0)
        .await;
    scene.until("a", "PluginsHealthy", "True", "AllHealthy").await;
    let first = writes.writes("a").await.remove(0);
    assert_eq!(first.ready, "Unknown/Pending", "{first:?}");
    holds_for(Duration::from_secs(6), "only the new host is seen", async || {
        let status = scene.status("a").await;
        let text = serde_json::to_string(&status).unwrap();
        let right = status.version.as_deref() == Some("0.2.0")
            && status.model_count == Some(1)
            && status.machine.as_ref().and_then(|machine| machine.hostname.as_deref()) == Some("new-machine")
            && status.loaded_count == Some(0)
            && !text.contains("old:")
            && !text.contains("old-")
            && scene.told("a").await == told;
        if right { Ok(()) } else { Err(format!("{text}, {:?}", scene.told("a").await)) }
    })
    .await;
}

/// A new object of an old name is another server: it has its own UID, none of the old status, and the Events about
/// the old one are not told of it.
#[tokio::test]
async fn a_recreated_server_starts_afresh() {
    let scenario = json!({"hosts": {"0": {"version": "0.1.0", "models": [{"name": "old:1"}]}}});
    let scene = Scene::with(2, &scenario, |builder| builder).await;
    let old = scene.server("a", 0, json!({})).await;
    scene.until_online("a").await;
    scene.fleet.action("0", "die").await;
    scene.until("a", "Ready", "False", "ConnectionRefused").await;
    scene.until_told("a", &["ServerOffline"]).await;
    let servers = objects::api::<OllamaServer>(&scene.client, &scene.namespace);
    let same = Preconditions { uid: old.uid(), resource_version: None };
    servers
        .delete("a", &DeleteParams { preconditions: Some(same), ..DeleteParams::default() })
        .await
        .unwrap();
    let new = objects::server("a", scene.fleet.host(1));
    let new = objects::create(&scene.client, &scene.namespace, &new).await.unwrap();
    assert_ne!(new.uid(), old.uid());
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    holds_for(QUIET, "nothing of the old one is left", async || {
        let server = scene.get("a").await;
        let status = server.status.clone().unwrap_or_default();
        let events = scene.events("a").await;
        let about_new = events
            .iter()
            .filter(|event| event.regarding.as_ref().and_then(|object| object.uid.clone()) == new.uid());
        let right = server.uid() == new.uid()
            && status.version.as_deref() == Some("0.24.0")
            && status.models.iter().flat_map(|models| models.iter()).all(|model| model.name != "old:1")
            && status.recent_transition_times.is_empty()
            && about_new.count() == 0;
        if right { Ok(()) } else { Err(format!("{status:?}")) }
    })
    .await;
    let metrics = scene.operator.metrics().await;
    assert_eq!(metric_value(&metrics, "ollama_fleet_server_up", &[("server", "a")]), Some(1.0));
}

/// A new generation is answered at once, before the host is asked about it: a host that hangs delays no
/// `observedGeneration`.
#[tokio::test]
async fn a_new_generation_is_answered_before_its_poll() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "20s", "timeout": "15s"}})).await;
    scene.until_online("a").await;
    scene.fleet.patch("0", json!({"ollama": {"mode": "hang", "stage": "headers"}})).await;
    scene.patch_metadata("a", request("hang")).await;
    eventually(PATIENCE, "the poll hangs", async || scene.fleet.host_stats(0).await.in_flight == 1).await;
    let generation = scene.patch_spec("a", json!({"displayName": "Another"})).await.metadata.generation;
    eventually(Duration::from_secs(3), "the generation is observed", async || {
        scene.status("a").await.observed_generation == generation
    })
    .await;
    assert_eq!(scene.fleet.host_stats(0).await.in_flight, 1, "the poll is still under way");
    has_condition(&scene.get("a").await, "Ready", "True", "Online").unwrap();
}

/// A way of asking that the host refuses is mended by an edit, and the edit is answered at once, whatever the interval.
#[tokio::test]
async fn another_way_of_asking_is_tried_at_once() {
    let scenario = json!({"defaults": {"ollama": {"mode": "status", "code": 403}}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.server("a", 0, json!({"poll": {"interval": "1h"}})).await;
    scene.until("a", "Ready", "False", "HostRejected").await;
    scene.fleet.patch("0", json!({"ollama": null})).await;
    scene.patch_spec("a", json!({"hostHeader": "localhost"})).await;
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    let headers = scene.fleet.host_stats(0).await.last_headers.unwrap().to_string().to_lowercase();
    assert!(headers.contains("localhost"), "{headers}");
    scene.until_told("a", &["ServerOffline", "ServerOnline"]).await;
}

/// A spec that cannot be acted on is said so for kstatus to fail at once, asks nobody, and is mended by an edit.
#[tokio::test]
async fn a_spec_that_is_not_accepted_asks_nobody() {
    let scene = Scene::new(1).await;
    let spec = json!({"certSecretRef": {"name": "no-tls"}, "poll": {"interval": "1h"}});
    scene.server("a", 0, spec).await;
    scene.within(Duration::from_secs(1), "a", "Ready", "False", "InvalidSpec").await;
    let server = scene.get("a").await;
    has_condition(&server, "Accepted", "False", "InvalidSpec").unwrap();
    has_condition(&server, "Stalled", "True", "InvalidSpec").unwrap();
    has_condition(&server, "Reachable", "Unknown", "InvalidSpec").unwrap();
    assert_eq!(server.status.unwrap().observed_generation, server.metadata.generation);
    holds_for(Duration::from_secs(2), "nobody is asked", async || scene.fleet.host_stats(0).await.total == 0)
        .await;
    scene.patch_spec("a", json!({"certSecretRef": null})).await;
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    assert!(condition(&scene.get("a").await, "Stalled").is_none());
    scene.until_told("a", &["InvalidSpec"]).await;
}

/// A host that comes and goes is Flapping; each change is told all the same.
#[tokio::test]
async fn a_host_that_comes_and_goes_is_flapping() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"failureThreshold": 1}})).await;
    scene.until_online("a").await;
    scene.until("a", "Flapping", "False", "Stable").await;
    for _ in 0..2 {
        scene.fleet.action("0", "die").await;
        scene.until("a", "Ready", "False", "ConnectionRefused").await;
        scene.fleet.action("0", "revive").await;
        scene.until_online("a").await;
    }
    scene.until("a", "Flapping", "True", "ReachableChangesOften").await;
    assert_eq!(scene.status("a").await.recent_transition_times.len(), 4);
    scene.until_told("a", &["ServerOffline", "ServerOffline", "ServerOnline", "ServerOnline"]).await;
}

/// With a successThreshold a host that was offline must answer that often before it is Ready.
#[tokio::test]
async fn a_success_threshold_is_kept() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"failureThreshold": 1, "successThreshold": 4}})).await;
    // The first verdict waits for nothing.
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    scene.fleet.action("0", "die").await;
    scene.until("a", "Ready", "False", "ConnectionRefused").await;
    scene.fleet.reset_stats().await;
    scene.fleet.action("0", "revive").await;
    scene.until_online("a").await;
    let polls = scene.fleet.host_stats(0).await.count("/api/version");
    assert!((4..=5).contains(&polls), "Ready after {polls} polls");
}

/// Suspension ends the poll that is under way.
#[tokio::test]
async fn a_suspension_lets_go_of_the_host() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({"poll": {"interval": "20s", "timeout": "16s"}})).await;
    scene.until_online("a").await;
    scene.fleet.patch("0", json!({"ollama": {"mode": "hang", "stage": "headers"}})).await;
    scene.patch_metadata("a", request("hang")).await;
    eventually(PATIENCE, "the poll hangs", async || scene.fleet.host_stats(0).await.in_flight == 1).await;
    scene.patch_spec("a", json!({"suspend": true})).await;
    eventually(Duration::from_secs(3), "the host is let go", async || {
        scene.fleet.host_stats(0).await.in_flight == 0
    })
    .await;
    scene.until("a", "Ready", "False", "Suspended").await;
    assert_eq!(scene.told("a").await, [""; 0]);
}

/// A deleted server is polled no more and leaves no series behind.
#[tokio::test]
async fn a_deleted_server_vanishes() {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({})).await;
    scene.until_online("a").await;
    let servers = objects::api::<OllamaServer>(&scene.client, &scene.namespace);
    servers.delete("a", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "its series are gone", async || {
        !scene.operator.metrics().await.contains("server=\"a\"")
    })
    .await;
    scene.fleet.reset_stats().await;
    holds_for(QUIET, "nobody asks the host", async || scene.fleet.host_stats(0).await.total == 0).await;
}
