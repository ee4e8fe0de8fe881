//! What a host has and runs: lists, sizes, processors, and the Events about their changes.

use crate::support::{
    PATIENCE, Scene, condition, events, eventually, holds_for, metric_value, objects::has_condition,
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::{
    Api,
    api::DynamicObject,
    core::{ApiResource, GroupVersionKind},
};
use serde_json::{Value, json};
use std::time::Duration;

const QUIET: Duration = Duration::from_secs(4);
const GIB: u64 = 1 << 30;

fn model(name: &str) -> Value {
    json!({ "name": name })
}

fn loaded(name: &str) -> Value {
    json!({"name": name, "sizeBytes": 6 * GIB, "vramBytes": 6 * GIB})
}

/// Models are listed at every poll.
fn eager() -> Value {
    json!({"poll": {"modelsInterval": "1s"}})
}

async fn listed(models: Value, in_memory: Value) -> Scene {
    let scenario = json!({"defaults": {"models": models, "loaded": in_memory}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.agents().await;
    scene.server("a", 0, eager()).await;
    scene.until_read("a").await;
    scene
}

/// Reason and `related.fieldPath` of all Events about a server, sorted.
async fn paths(scene: &Scene) -> Vec<(String, String)> {
    let events = events(&scene.client, &scene.namespace, "a").await;
    let mut paths: Vec<_> = events
        .into_iter()
        .map(|event| {
            let path = event.related.and_then(|related| related.field_path).unwrap_or_default();
            (event.reason.unwrap_or_default(), path)
        })
        .collect();
    paths.sort();
    paths
}

async fn until_paths(scene: &Scene, expected: &[(&str, &str)]) {
    let expected: Vec<_> =
        expected.iter().map(|(reason, path)| ((*reason).to_owned(), (*path).to_owned())).collect();
    eventually(PATIENCE, "the Events name what changed", async || {
        let paths = paths(scene).await;
        if paths == expected { Ok(()) } else { Err(format!("{paths:?}")) }
    })
    .await;
}

/// Two models loaded within a minute are two Events, each with the name of its model.
#[tokio::test]
async fn two_loaded_models_are_two_events() {
    let scene = listed(json!([model("a:1"), model("b:1")]), json!([])).await;
    assert_eq!(scene.status("a").await.loaded_models, Some(vec![]));
    scene.fleet.action("0", json!({"action": "load", "model": "a:1"})).await;
    until_paths(&scene, &[("ModelLoaded", "status.loadedModels{a:1}")]).await;
    scene.fleet.action("0", json!({"action": "load", "model": "b:1"})).await;
    until_paths(
        &scene,
        &[("ModelLoaded", "status.loadedModels{a:1}"), ("ModelLoaded", "status.loadedModels{b:1}")],
    )
    .await;
    let notes: Vec<_> = scene.events("a").await.into_iter().filter_map(|event| event.note).collect();
    assert!(notes.iter().any(|note| note.contains("a:1")) && notes.iter().any(|note| note.contains("b:1")));
}

/// Unload, pull, removal, another version and a reboot are one Event each.
#[tokio::test]
async fn every_change_of_a_host_is_one_event() {
    let scene = listed(json!([model("a:1"), model("b:1")]), json!([loaded("a:1"), loaded("b:1")])).await;
    let mut expected = Vec::new();
    for (action, event) in [
        (json!({"action": "unload", "model": "a:1"}), ("ModelUnloaded", "status.loadedModels{a:1}")),
        (json!({"action": "pull", "model": "c:1"}), ("ModelAdded", "status.models{c:1}")),
        (json!({"action": "remove", "model": "a:1"}), ("ModelRemoved", "status.models{a:1}")),
        (json!({"action": "upgrade", "version": "0.99.0"}), ("VersionChanged", "")),
    ] {
        scene.fleet.action("0", action).await;
        expected.push(event);
        expected.sort_unstable();
        until_paths(&scene, &expected).await;
    }
    assert_eq!(scene.status("a").await.version.as_deref(), Some("0.99.0"));
    scene.fleet.action("0", "reboot").await;
    holds_for(QUIET, "a boot time that moved by seconds is no reboot", async || {
        !scene.told("a").await.contains(&"ServerRebooted".to_owned())
    })
    .await;
    // By a clock that is a minute ahead.
    let boot = Timestamp::now() + SignedDuration::from_mins(1);
    scene.fleet.patch("0", json!({"machine": {"bootTime": boot.to_string()}})).await;
    expected.extend([("ModelUnloaded", "status.loadedModels{b:1}"), ("ServerRebooted", "")]);
    expected.sort_unstable();
    until_paths(&scene, &expected).await;
    holds_for(QUIET, "nothing is told twice", async || paths(&scene).await.len() == expected.len()).await;
}

/// A model that is replaced by a newer one of the same name is no Event, but its digest is written.
#[tokio::test]
async fn a_model_that_is_pulled_again_is_not_new() {
    let scene = listed(json!([model("a:1")]), json!([])).await;
    let digest = "ab".repeat(32);
    scene.fleet.action("0", json!({"action": "pull", "model": "a:1", "digest": digest})).await;
    eventually(PATIENCE, "the digest is written", async || {
        scene.status("a").await.models.unwrap_or_default()[0].digest.as_ref() == Some(&digest)
    })
    .await;
    holds_for(Duration::from_secs(2), "nothing is told", async || scene.told("a").await.is_empty()).await;
}

async fn object_bytes(scene: &Scene) -> usize {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("ollama-fleet.io", "v1alpha1", "OllamaServer"));
    let api: Api<DynamicObject> = Api::namespaced_with(scene.client.clone(), &scene.namespace, &kind);
    serde_json::to_vec(&api.get("a").await.unwrap()).unwrap().len()
}

/// Three hundred models, and as many in memory as a host ever holds: the object stays under 32 KiB and says how many
/// models it leaves out; that the list ends before the models do is no Event, and neither is what moves at its end.
#[tokio::test]
async fn three_hundred_models_fit_the_object() {
    let name = |index: usize| format!("registry.example.com/a-team/model-{index:03}:70b-instruct-q4_K_M");
    let models: Vec<Value> = (0..300).map(|index| model(&name(index))).collect();
    let in_memory: Vec<Value> = (0..40).map(|index| loaded(&name(index))).collect();
    let scene = listed(models.into(), in_memory.into()).await;
    let fits = async |count: i32| {
        let what = format!("{count} models are counted");
        let status = eventually(PATIENCE, &what, async || {
            Some(scene.status("a").await).filter(|status| status.model_count == Some(count))
        })
        .await;
        let listed = i32::try_from(status.models.unwrap_or_default().len()).unwrap();
        assert_eq!(status.models_omitted, Some(count - listed));
        assert!(listed > 40, "{listed} models are listed");
        let bytes = object_bytes(&scene).await;
        eprintln!("figure: {count} models, {listed} listed, {bytes} bytes");
        assert!(bytes < 32 * 1024, "{bytes} bytes");
        status.loaded_count
    };
    assert_eq!(fits(300).await, Some(40));
    scene.fleet.patch("0", json!({"loaded": []})).await;
    eventually(PATIENCE, "memory is empty", async || scene.status("a").await.loaded_count == Some(0)).await;
    let unloaded = scene.told("a").await.len();
    assert!(unloaded <= 25, "{unloaded} Events at once");
    let news = async || {
        let mut told = scene.told("a").await;
        told.retain(|reason| reason != "ModelUnloaded");
        told
    };
    // Room for more of the list: what was omitted before is not new.
    holds_for(QUIET, "no model came or went", async || news().await.is_empty()).await;
    // Behind the end of the list.
    scene.fleet.action("0", json!({"action": "remove", "model": name(299)})).await;
    fits(299).await;
    holds_for(QUIET, "nobody was told of it", async || news().await.is_empty()).await;
    // Within the list: another one moves up, and is not new.
    scene.fleet.action("0", json!({"action": "remove", "model": name(0)})).await;
    fits(298).await;
    let metrics = scene.operator.metrics().await;
    assert_eq!(metric_value(&metrics, "ollama_fleet_server_models", &[("server", "a")]), Some(298.0));
}

/// One endpoint that fails, or is not there, empties no list and tells nothing; the server stays online, and says
/// after a while what it does not know.
#[tokio::test]
async fn a_failing_endpoint_never_empties_a_list() {
    let faults = [
        json!({"mode": "status", "code": 500}),
        json!({"mode": "status", "code": 404}),
        json!({"mode": "garbage"}),
        json!({"mode": "empty"}),
        json!({"mode": "truncated"}),
        json!({"mode": "wrongTypes"}),
        json!({"mode": "html"}),
    ];
    let paths = ["/api/ps", "/api/tags", "/api/version"];
    let hosts = faults.len() * paths.len();
    let healthy = json!({"models": [model("a:1"), model("b:1")], "loaded": [loaded("a:1")]});
    let scene = Scene::with(hosts, &json!({"defaults": healthy}), |builder| builder).await;
    let names: Vec<String> = (0..hosts).map(|host| format!("s{host}")).collect();
    for (host, name) in names.iter().enumerate() {
        scene.server(name, host, eager()).await;
    }
    for name in &names {
        scene.until_online(name).await;
    }
    for (host, fault) in faults.iter().flat_map(|fault| paths.map(|path| (path, fault))).enumerate() {
        let (path, fault) = fault;
        scene.fleet.patch(&host.to_string(), json!({"paths": {path: fault}})).await;
    }
    for host in 0..hosts {
        eventually(PATIENCE, "every host is asked", async || {
            let stats = scene.fleet.host_stats(host).await;
            paths.iter().all(|path| stats.count(path) >= 4)
        })
        .await;
    }
    // More polls than it takes for any verdict.
    holds_for(Duration::from_secs(5), "everything stands", async || {
        for name in &names {
            let server = scene.get(name).await;
            has_condition(&server, "Ready", "True", "Online").map_err(|error| format!("{name}: {error}"))?;
            let status = server.status.unwrap_or_default();
            let counts = (
                status.models.as_ref().map(|models| models.len()),
                status.model_count,
                status.loaded_models.as_ref().map(Vec::len),
                status.loaded_count,
                status.version.as_deref(),
            );
            if counts != (Some(2), Some(2), Some(1), Some(1), Some("0.24.0")) {
                return Err(format!("{name}: {counts:?}"));
            }
        }
        let told = crate::support::all_events(&scene.client, &scene.namespace).await;
        if told.is_empty() { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
    let (_, _, message) = condition(&scene.get("s0").await, "Ready").unwrap();
    assert!(message.contains("loadedModels"), "{message}");
    let (_, _, message) = condition(&scene.get("s1").await, "Ready").unwrap();
    assert!(message.contains("models"), "{message}");
    scene.fleet.patch("all", json!({"paths": null})).await;
    eventually(PATIENCE, "the message is as before", async || {
        condition(&scene.get("s0").await, "Ready")
            .is_some_and(|(_, _, message)| message == "the host answers")
    })
    .await;
}

/// Empty lists that are written as null are empty lists, not unknown ones.
#[tokio::test]
async fn null_lists_are_empty() {
    let scenario = json!({"defaults": {"models": [], "loaded": [], "quirks": {"nullModels": true}}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.server("a", 0, eager()).await;
    scene.until_online("a").await;
    let status = scene.status("a").await;
    assert_eq!((status.models.as_deref(), status.model_count), (Some(&[][..]), Some(0)));
    assert_eq!((status.loaded_models, status.loaded_count), (Some(vec![]), Some(0)));
    assert_eq!(status.vram_used.map(|size| size.0), Some("0Mi".to_owned()));
}

/// Hosts list their models in whatever order, with times and families that come and go: the lists are sorted, and
/// nothing is written.
#[tokio::test]
async fn the_order_of_a_list_is_no_news() {
    let names = ["d:1", "a:1", "c:1", "b:1", "e:1"];
    let models: Vec<Value> = names.iter().map(|name| model(name)).collect();
    let in_memory: Vec<Value> = names.iter().map(|name| loaded(name)).collect();
    let scene = listed(models.into(), in_memory.into()).await;
    let writes = scene.writes().await;
    scene.fleet.reset_stats().await;
    holds_for(Duration::from_secs(8), "nothing is written", async || writes.total().await == 0).await;
    let seen = scene.fleet.host_stats(0).await;
    assert!(seen.count("/api/tags") >= 5 && seen.count("/api/ps") >= 5, "{seen:?}");
    let status = scene.status("a").await;
    let sorted = ["a:1", "b:1", "c:1", "d:1", "e:1"];
    assert!(status.models.unwrap().iter().map(|model| model.name.as_str()).eq(sorted));
    assert!(status.loaded_models.unwrap().iter().map(|model| model.name.as_str()).eq(sorted));
}

/// State, expiry and processor of a loaded model are what `ollama ps` would say, in whatever zone the host is and
/// however wrong its clock.
#[tokio::test]
async fn loaded_models_read_as_the_cli_prints_them() {
    let model = |name: &str, size: u64, vram: u64, expires: &str| json!({"name": name, "sizeBytes": size, "vramBytes": vram, "contextLength": 8192, "expires": expires});
    let in_memory = json!([
        model("cpu:1", 4 * GIB, 0, "near"),
        model("forever:1", 4 * GIB, 4 * GIB, "forever"),
        model("part:1", 4 * GIB, 3 * GIB, "near"),
        model("stopping:1", 4 * GIB, 4 * GIB, "past"),
    ]);
    // A skewed Date is the host's clock, in which expires_at is written too.
    let quirks = json!({"zoneOffset": "+05:30", "floatSizes": true});
    let scenario = json!({"defaults": {"loaded": in_memory, "quirks": quirks}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.server("a", 0, json!({})).await;
    scene.until_online("a").await;
    let status = scene.status("a").await;
    let rows: Vec<_> = status
        .loaded_models
        .unwrap()
        .into_iter()
        .map(|model| {
            let expires = model.expiration_time.is_some();
            (model.name, model.processor.unwrap_or_default(), model.state, expires, model.context_length)
        })
        .collect();
    let row = |name: &str, processor: &str, state: &str, expires| {
        (name.to_owned(), processor.to_owned(), state.to_owned(), expires, Some(8192))
    };
    assert_eq!(
        rows,
        [
            row("cpu:1", "100% CPU", "Loaded", true),
            row("forever:1", "100% GPU", "Loaded", false),
            row("part:1", "25%/75% CPU/GPU", "Loaded", true),
            row("stopping:1", "100% GPU", "Stopping", true),
        ]
    );
    assert_eq!(status.vram_used.map(|size| size.0), Some("11264Mi".to_owned()));
}

/// A vLLM server has the models that it serves, on disk and in memory, with unknown sizes rather than zeros; it is
/// asked nothing of Ollama's.
#[tokio::test]
async fn a_vllm_server_serves_its_models() {
    let scenario = json!({"defaults": {"backend": "vllm", "models": [model("meta-llama/Llama-3.1-8B")]}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.server("a", 0, json!({"backendType": "VLLM"})).await;
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    let status = scene.status("a").await;
    let models = status.models.unwrap();
    assert_eq!((models[0].name.as_str(), &models[0].size), ("meta-llama/Llama-3.1-8B", &None));
    let in_memory = status.loaded_models.unwrap();
    assert_eq!(in_memory[0].name, "meta-llama/Llama-3.1-8B");
    assert_eq!((&in_memory[0].vram, &in_memory[0].processor), (&None, &None));
    assert_eq!((status.model_size, status.vram_used), (None, None));
    let requests = scene.fleet.host_stats(0).await.requests;
    assert_eq!(requests.keys().collect::<Vec<_>>(), ["/health", "/v1/models", "/version"], "{requests:?}");
    assert_eq!(status.version.as_deref(), Some("0.24.0"), "its own, of /version");
    scene.fleet.action("0", "die").await;
    scene.until("a", "Ready", "False", "ConnectionRefused").await;
    scene.until_told("a", &["ServerOffline"]).await;
}

/// A generic server is online while `/health` is well, and nothing is known of its models.
#[tokio::test]
async fn a_generic_server_is_online_while_its_health_is() {
    let scenario = json!({"defaults": {"backend": "generic"}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.server("a", 0, json!({"backendType": "Generic"})).await;
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
    let status = scene.status("a").await;
    assert_eq!(
        (status.models, status.model_count, status.loaded_models, status.version),
        (None, None, None, None)
    );
    let requests = scene.fleet.host_stats(0).await.requests;
    assert!(requests.keys().all(|path| path == "/health"), "{requests:?}");
    scene.fleet.patch("0", json!({"paths": {"/health": {"mode": "status", "code": 500}}})).await;
    scene.until("a", "Ready", "False", "InvalidResponse").await;
    scene.until_told("a", &["ServerOffline"]).await;
}

/// A change of the backend is a change of the server: what was known of the other kind goes without an Event.
#[tokio::test]
async fn another_backend_is_another_server() {
    let scenario = json!({"defaults": {"backend": "vllm", "models": [model("served:1")]}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    scene.server("a", 0, json!({"backendType": "VLLM"})).await;
    scene.until_online("a").await;
    scene.patch_spec("a", json!({"backendType": "Generic"})).await;
    eventually(PATIENCE, "no models are known", async || {
        let server = scene.get("a").await;
        has_condition(&server, "Ready", "True", "Online").is_ok()
            && server.status.unwrap_or_default().models.is_none()
    })
    .await;
    holds_for(Duration::from_secs(2), "nothing is told", async || scene.told("a").await.is_empty()).await;
}
