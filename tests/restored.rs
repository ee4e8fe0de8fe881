//! What somebody puts back: a status out of a backup, and an API server that comes back in the state of one.

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, Scene, apply, eventually, get, holds_for,
    metric_value,
    objects::{self, Object, fleet_metrics, has_condition, patch_spec, server, status_of},
};
use kube::{
    ResourceExt as _,
    api::{DeleteParams, DynamicObject, PostParams},
    core::{ApiResource, GroupVersionKind},
};
use ollama_fleet_operator::api::{FleetPlugin, GROUP, OllamaServer, VERSION};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// The operator of these tests polls every second, and what is wrong stands for one interval and half a second at most;
/// three times that on a busy machine.
const PUT_RIGHT: Duration = Duration::from_millis(3 * 1500);
/// Longer than an operator waits between two tries to reach the API server, and lists then.
const NOTICED: Duration = Duration::from_secs(30);

/// Writes a whole status as Velero 1.16 does with `--status-include-resources`, and `kubectl edit --subresource=status`.
async fn put(scene: &Scene, kind: &str, name: &str, status: Value) {
    let resource = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind));
    let api = kube::Api::<DynamicObject>::namespaced_with(scene.client.clone(), &scene.namespace, &resource);
    let params = PostParams { field_manager: Some("velero-server".to_owned()), ..PostParams::default() };
    eventually(PATIENCE, "the status is put back", async || {
        let mut object = api.get(name).await?;
        object.data["status"] = status.clone();
        object.metadata.managed_fields = None;
        api.replace_status(name, &params, &object).await
    })
    .await;
}

/// A status without what is another at every write: times, and the numbers that an agent reads.
fn meaning(object: &impl serde::Serialize) -> Value {
    let mut status = serde_json::to_value(object).unwrap()["status"].clone();
    for time in ["lastHeartbeatTime", "lastOnlineTime"] {
        status.as_object_mut().map(|status| status.remove(time));
    }
    for plugin in status["plugins"].as_array_mut().into_iter().flatten() {
        plugin
            .as_object_mut()
            .map(|plugin| plugin.retain(|key, _| !["lastSuccessTime", "values"].contains(&&**key)));
    }
    for model in status["loadedModels"].as_array_mut().into_iter().flatten() {
        model.as_object_mut().map(|model| model.remove("expirationTime"));
    }
    for (key, value) in status["machine"].as_object_mut().into_iter().flatten() {
        *value = if key == "hostname" { value.take() } else { "known".into() };
    }
    status.as_object_mut().map(|status| status.retain(|_, value| !value.is_null()));
    status
}

async fn put_right<T: Object>(scene: &Scene, name: &str, expected: &Value) -> Duration {
    let start = Instant::now();
    eventually(PUT_RIGHT, "the status is put right", async || {
        let now = meaning(&get::<T>(&scene.client, &scene.namespace, name).await);
        if now == *expected { Ok(()) } else { Err(format!("{now:#}, not {expected:#}")) }
    })
    .await;
    start.elapsed()
}

async fn written(operator: &Operator) -> f64 {
    let metrics = operator.metrics().await;
    ["OllamaServer", "FleetPlugin"]
        .map(|kind| {
            let labels = [("kind", kind), ("outcome", "written")];
            metric_value(&metrics, "ollama_fleet_status_writes_total", &labels).unwrap_or_default()
        })
        .iter()
        .sum()
}

/// An old status, one that claims to be newer, and none at all are put right within an interval, with all that was added;
/// after that nothing is written.
#[tokio::test]
async fn a_status_that_somebody_changed_is_put_right() {
    let scene = Scene::new(1).await;
    scene.agents().await;
    scene.server("s", 0, json!({})).await;
    scene.server("idle", 0, json!({"suspend": true})).await;
    scene.until_read("s").await;
    scene.until("idle", "Ready", "False", "Suspended").await;
    eventually(PATIENCE, "the plugin is counted", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "fleet-metrics").await;
        has_condition(&plugin, "Ready", "True", "Healthy")
    })
    .await;
    let condition = |type_: &str, status: &str| {
        json!({"type": type_, "status": status, "reason": "Restored", "message": "",
            "lastTransitionTime": "2026-01-01T00:00:00Z"})
    };
    let conditions = json!([condition("Ready", "False"), condition("Stalled", "True")]);
    let restored = |heartbeat: &str| {
        json!({"version": "0.6.5", "observedGeneration": 1, "lastHeartbeatTime": heartbeat, "modelsOmitted": 7,
            "machine": {"hostname": "old"}, "conditions": conditions})
    };
    for (what, status) in [
        ("of yesterday", restored("2026-01-01T00:00:00Z")),
        ("of another cluster, whose clock is ahead", restored("2099-01-01T00:00:00Z")),
        ("none", json!({})),
    ] {
        for name in ["s", "idle"] {
            let expected = meaning(&scene.get(name).await);
            put(&scene, "OllamaServer", name, status.clone()).await;
            let took = put_right::<OllamaServer>(&scene, name, &expected).await;
            eprintln!("figure: a status ({what}) of {name} was put right after {took:.1?}");
        }
    }
    let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "fleet-metrics").await;
    let expected = meaning(&plugin);
    let status = json!({"state": "Error", "observedGeneration": 1, "installedVersion": "0.0.1",
        "servers": {"matched": 9, "healthy": 0, "failing": 9, "disabled": 0, "summary": "0/9"}, "conditions": conditions});
    put(&scene, "FleetPlugin", "fleet-metrics", status).await;
    put_right::<FleetPlugin>(&scene, "fleet-metrics", &expected).await;

    let before = written(&scene.operator).await;
    let versions = async || {
        let server = scene.get("s").await.resource_version();
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "fleet-metrics").await;
        (server, plugin.resource_version())
    };
    let stands = versions().await;
    holds_for(Duration::from_secs(4), "nothing is written about what is right", async || {
        versions().await == stands && written(&scene.operator).await == before
    })
    .await;
    assert!(scene.told("s").await.is_empty(), "nothing has happened to the server");
}

/// Another writer that never gives up costs one write in an interval, and the others' statuses none.
#[tokio::test]
async fn a_fight_about_a_status_is_bounded() {
    let scene = Scene::new(2).await;
    scene.server("s", 0, json!({})).await;
    scene.server("other", 1, json!({})).await;
    scene.until_online("s").await;
    scene.until_online("other").await;
    let other = scene.get("other").await.resource_version();
    let before = written(&scene.operator).await;
    let start = Instant::now();
    let mut puts = 0;
    while start.elapsed() < Duration::from_secs(6) {
        put(&scene, "OllamaServer", "s", json!({"version": format!("0.0.{puts}"), "conditions": []})).await;
        puts += 1;
    }
    let ours = written(&scene.operator).await - before;
    eprintln!("figure: {puts} foreign writes were answered by {ours} in {:.1?}", start.elapsed());
    assert!((1.0..=8.0).contains(&ours), "{ours} writes against {puts}");
    assert_eq!(scene.get("other").await.resource_version(), other);
    scene.until_online("s").await;
}

/// etcd comes back from an older backup while the operator runs: what was edited since is as it was, what was deleted is
/// polled again, what was new is not polled any more, edits are followed, and statuses are written. Kubernetes 1.36 takes a
/// watch from a version that is yet to come and says nothing until then.
#[tokio::test]
async fn an_api_server_from_an_older_backup_is_the_truth() {
    let fleet = Fleet::start(7).await;
    let control_plane = ControlPlane::start();
    let client = control_plane.client().await;
    let namespace = Namespace::new(&control_plane).await;
    for host in 0..4 {
        apply(&client, &namespace, &server(&format!("s{host}"), fleet.host(host))).await;
    }
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    let operator = Operator::builder(&control_plane).namespace(&namespace).start().await;
    let read = async |name: &str, host: usize| {
        eventually(NOTICED, &format!("{name} is read at host {host}"), async || {
            let api = objects::api::<OllamaServer>(&client, &namespace);
            let server = api.get(name).await.map_err(|error| error.to_string())?;
            has_condition(&server, "Ready", "True", "Online")?;
            has_condition(&server, "PluginsHealthy", "True", "AllHealthy")?;
            let endpoint = status_of(&server).observed_endpoint;
            (endpoint == Some(format!("http://{}", fleet.host(host))))
                .then_some(())
                .ok_or(format!("{endpoint:?}"))
        })
        .await;
    };
    for host in 0..4 {
        read(&format!("s{host}"), host).await;
    }
    control_plane.back_up();
    let client = control_plane.client().await;
    let servers = objects::api::<OllamaServer>(&client, &namespace);
    let edit =
        async |name: &str, spec: Value| patch_spec::<OllamaServer>(&client, &namespace, name, spec).await;
    edit("s0", json!({"host": fleet.host(4)})).await;
    read("s0", 4).await;
    servers.delete("s1", &DeleteParams::default()).await.unwrap();
    apply(&client, &namespace, &server("s5", fleet.host(5))).await;
    read("s5", 5).await;
    let plugins = objects::api::<FleetPlugin>(&client, &namespace);
    plugins.delete("fleet-metrics", &DeleteParams::default()).await.unwrap();
    // So that versions are far behind for the rest of the test.
    for number in 0..100 {
        edit("s2", json!({"displayName": format!("{number}")})).await;
    }
    let last = edit("s2", json!({"displayName": "last"})).await.resource_version();

    control_plane.restore();
    let back = Instant::now();
    let client = control_plane.client().await;
    let servers = objects::api::<OllamaServer>(&client, &namespace);
    let edit =
        async |name: &str, spec: Value| patch_spec::<OllamaServer>(&client, &namespace, name, spec).await;
    eventually(NOTICED, "the hosts of then are asked, and no others", async || {
        let stats = fleet.stats().await;
        if (4..7).any(|host| stats.host(host).total > 0) {
            fleet.reset_stats().await;
            return Err("a host of later is asked".to_owned());
        }
        // Three polls of each later, and none of the others.
        let asked = |host: &usize| stats.host(*host).count("/api/version") >= 3;
        if (0..4).all(|host| asked(&host)) { Ok(()) } else { Err(format!("{:?}", stats.requests)) }
    })
    .await;
    eprintln!("figure: a restored API server was noticed after {:.1?}", back.elapsed());
    let version = |server: &OllamaServer| server.resource_version().unwrap().parse::<u64>().unwrap();
    for host in 0..4 {
        let name = format!("s{host}");
        eventually(NOTICED, "the status is as it was", async || {
            let server = servers.get(&name).await.map_err(|error| error.to_string())?;
            assert!(version(&server) < last.as_ref().unwrap().parse().unwrap(), "versions went back");
            has_condition(&server, "Ready", "True", "Online")?;
            has_condition(&server, "PluginsHealthy", "True", "AllHealthy")?;
            let endpoint = status_of(&server).observed_endpoint;
            (endpoint == Some(format!("http://{}", fleet.host(host))))
                .then_some(())
                .ok_or(format!("{endpoint:?}"))
        })
        .await;
    }
    // Edits, new objects and verdicts, all in versions that were seen before.
    edit("s2", json!({"suspend": true})).await;
    apply(&client, &namespace, &server("s6", fleet.host(6))).await;
    fleet.action("3", "die").await;
    for (name, truth, reason) in
        [("s2", "False", "Suspended"), ("s6", "True", "Online"), ("s3", "False", "ConnectionRefused")]
    {
        eventually(PATIENCE, name, async || {
            let server = servers.get(name).await.map_err(|error| error.to_string())?;
            assert!(version(&server) < last.as_ref().unwrap().parse().unwrap());
            has_condition(&server, "Ready", truth, reason)
        })
        .await;
    }
    eventually(PATIENCE, "the plugin is back, and counted", async || {
        let plugins = objects::api::<FleetPlugin>(&client, &namespace);
        let plugin = plugins.get("fleet-metrics").await.map_err(|error| error.to_string())?;
        has_condition(&plugin, "Ready", "True", "Healthy")
    })
    .await;
    crate::support::is_well(&operator).await;
}
