//! The API server away, without our kinds, or with objects that cannot be read: the hosts are asked as ever, and what
//! must be written is written when it can be.

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, WriteCounter, apply, condition, count, events,
    eventually, get, holds_for, http, metric_value, metrics,
    objects::{self, fleet_metrics, has_condition, server_with},
    plugin, server, status_of,
};
use k8s_openapi::{
    api::core::v1::Namespace as NamespaceObject,
    apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition,
};
use kube::{
    Api, Client,
    api::{ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams},
    core::GroupVersionKind,
};
use ollama_fleet_operator::api::{GROUP, OllamaServer, VERSION};
use serde_json::{Value, json};
use std::{
    env,
    time::{Duration, Instant},
};

/// 10 s, three times over for a busy machine.
const CATCH_UP: Duration = Duration::from_secs(30);
/// Longest time between two polls of a host that is asked every second, in milliseconds.
const GAP: i64 = 2500;

/// While the API server is away, every host is asked on schedule; when it is back, the statuses catch up, and each
/// thing that happened meanwhile is told once. `OUTAGE_SECONDS` makes it longer than 10 s.
#[tokio::test]
async fn polls_go_on_while_the_api_server_is_away_and_statuses_catch_up() {
    let outage = env::var("OUTAGE_SECONDS").ok().and_then(|text| text.parse().ok()).unwrap_or(10);
    let outage = Duration::from_secs(outage);
    let fleet = Fleet::start(20).await;
    let control_plane = ControlPlane::start();
    let client = control_plane.client().await;
    let namespace = Namespace::new(&control_plane).await;
    for host in 0..20 {
        let spec = json!({"poll": {"modelsInterval": "1s"}});
        apply(&client, &namespace, &server_with(&name(host), fleet.host(host), spec)).await;
    }
    let operator = Operator::builder(&control_plane).namespace(&namespace).start().await;
    for host in 0..20 {
        ready(&client, &namespace, &name(host), PATIENCE).await;
    }

    control_plane.stop();
    fleet.reset_stats().await;
    fleet.action("0", "die").await;
    fleet.action("1", json!({"action": "pull", "model": "new:latest", "sizeBytes": 1 << 20})).await;
    fleet.action("1", json!({"action": "load", "model": "new:latest", "expires": "forever"})).await;
    holds_for(outage, "the operator lives", async || {
        assert_eq!(operator.livez().await, Ok(200));
        operator.readyz().await.map(drop)
    })
    .await;
    for (host, arrivals) in fleet.arrivals("1-19", "/api/version").await {
        let gap = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(i64::MAX);
        let expected = usize::try_from(outage.as_secs()).unwrap() - 2;
        assert!(arrivals.len() >= expected && gap <= GAP, "{host}: {} polls, {gap} ms", arrivals.len());
    }

    control_plane.start_again();
    let back = Instant::now();
    let client = control_plane.client().await;
    eventually(CATCH_UP, "the statuses have caught up", async || {
        let dead: OllamaServer = get(&client, &namespace, &name(0)).await;
        has_condition(&dead, "Ready", "False", "ConnectionRefused")?;
        let status = status_of(&get::<OllamaServer>(&client, &namespace, &name(1)).await);
        let loaded = status.loaded_models.iter().flatten().any(|model| model.name == "new:latest");
        let pulled =
            status.models.iter().flat_map(|models| models.iter()).any(|model| model.name == "new:latest");
        (loaded && pulled).then_some(()).ok_or_else(|| format!("loaded: {loaded}, pulled: {pulled}"))
    })
    .await;
    let caught_up = back.elapsed();
    eventually(CATCH_UP, "both are told", async || {
        let offline = count(&events(&client, &namespace, &name(0)).await, "ServerOffline");
        let loaded = count(&events(&client, &namespace, &name(1)).await, "ModelLoaded");
        if (offline, loaded) == (1, 1) { Ok(()) } else { Err(format!("{offline} and {loaded} times")) }
    })
    .await;
    // The watch is back too: a new object is polled.
    apply(&client, &namespace, &server("new", fleet.host(2))).await;
    ready(&client, &namespace, "new", CATCH_UP).await;
    let counter = WriteCounter::start(&client, &namespace).await;
    holds_for(Duration::from_secs(3), "nothing is written twice", async || counter.total().await == 0).await;
    eprintln!("away for {outage:?}: caught up {caught_up:.1?} after it was back");
}

/// SIGTERM while the API server is away does not hang: the operator gives up its writes within its time, and says so.
#[tokio::test]
async fn a_stop_without_an_api_server_ends_in_time() {
    let fleet = Fleet::start(1).await;
    let control_plane = ControlPlane::start();
    let client = control_plane.client().await;
    let namespace = Namespace::new(&control_plane).await;
    apply(&client, &namespace, &server("s", fleet.host(0))).await;
    let operator = Operator::builder(&control_plane).namespace(&namespace).start().await;
    ready(&client, &namespace, "s", PATIENCE).await;
    control_plane.kill();
    fleet.action("0", "die").await;
    let messages = || operator.log_lines().into_iter().filter(|line| line["message"] == "transition").count();
    eventually(PATIENCE, "the operator has seen it", async || messages() == 1).await;
    let (status, took) = operator.terminate();
    assert!(status.success() && took < Duration::from_secs(10), "{status} after {took:?}");
    let log = operator.log();
    assert!(log.contains("stopping with statuses unwritten"), "{log}");
    eprintln!("stopped without an API server in {took:.1?}");
}

/// One server that cannot be read, let in by a loosened schema, is told so and counted; the others are polled and
/// written as ever, and healing it makes it polled. The same for a plugin.
#[tokio::test]
async fn an_object_that_cannot_be_read_stops_nothing() {
    const GOOD: usize = 20;
    let fleet = Fleet::start(GOOD + 1).await;
    let control_plane = ControlPlane::start();
    let client = control_plane.client().await;
    let namespace = Namespace::new(&control_plane).await;
    let anything = json!({"x-kubernetes-preserve-unknown-fields": true});
    loosen(&client, "ollamaservers", "/properties/spec/properties/host", &anything).await;
    loosen(&client, "fleetplugins", "/properties/spec/properties/agent", &anything).await;
    let broken: Api<DynamicObject> = dynamic(&client, &namespace, "OllamaServer");
    let broken_plugin: Api<DynamicObject> = dynamic(&client, &namespace, "FleetPlugin");
    let object = eventually(PATIENCE, "the loosened schema is in force", async || {
        let object = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "OllamaServer",
            "metadata": {"name": "broken"}, "spec": {"host": 7}});
        broken.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
    })
    .await;
    assert_eq!(object.data["spec"]["host"], 7);
    eventually(PATIENCE, "the loosened schema is in force", async || {
        let object = json!({"apiVersion": format!("{GROUP}/{VERSION}"), "kind": "FleetPlugin",
            "metadata": {"name": "broken"}, "spec": {"type": "Agent", "version": "1.0.0", "agent": "all of it"}});
        broken_plugin.create(&PostParams::default(), &serde_json::from_value(object).unwrap()).await
    })
    .await;
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    for host in 0..GOOD {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
    }
    let operator = Operator::builder(&control_plane).namespace(&namespace).start().await;
    for host in 0..GOOD {
        ready(&client, &namespace, &name(host), PATIENCE).await;
    }
    for (api, kind) in [(&broken, "OllamaServer"), (&broken_plugin, "FleetPlugin")] {
        eventually(PATIENCE, "the broken object is told so", async || {
            let object = api.get("broken").await.map_err(|error| error.to_string())?;
            let conditions = object.data["status"]["conditions"].as_array().cloned().unwrap_or_default();
            let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted").cloned();
            let accepted = accepted.ok_or("no Accepted")?;
            (accepted["status"] == "False" && accepted["reason"] == "InvalidSpec")
                .then_some(())
                .ok_or_else(|| accepted.to_string())
        })
        .await;
        let metrics = operator.metrics().await;
        assert_eq!(
            metric_value(&metrics, "ollama_fleet_undecodable_objects", &[("kind", kind)]),
            Some(1.0),
            "{kind}"
        );
    }

    // The others go on: polls, plugin, and a transition.
    fleet.reset_stats().await;
    fleet.action("0", "die").await;
    eventually(PATIENCE, "a good one is written", async || {
        has_condition(
            &get::<OllamaServer>(&client, &namespace, &name(0)).await,
            "Ready",
            "False",
            "ConnectionRefused",
        )
    })
    .await;
    let stats = fleet.stats().await;
    for host in 1..GOOD {
        assert!(stats.host(host).count("/api/version") >= 2, "host {host} is not polled");
        assert!(stats.host(host).count("agent:/metrics") >= 2, "agent {host} is not polled");
    }
    // A list of the typed kind would fail on it, so its version is the witness.
    let version = broken.get("broken").await.unwrap().metadata.resource_version;
    holds_for(Duration::from_secs(2), "the broken one is answered once", async || {
        broken.get("broken").await.is_ok_and(|object| object.metadata.resource_version == version)
    })
    .await;

    let heal = Patch::Merge(json!({"spec": {"host": fleet.host(GOOD)}}));
    broken.patch("broken", &PatchParams::default(), &heal).await.unwrap();
    ready(&client, &namespace, "broken", PATIENCE).await;
    let object: OllamaServer = get(&client, &namespace, "broken").await;
    has_condition(&object, "Accepted", "True", "Valid").unwrap();
    assert_eq!(condition(&object, "Stalled"), None);
    broken_plugin.delete("broken", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "nothing is counted as broken", async || {
        let metrics = operator.metrics().await;
        ["OllamaServer", "FleetPlugin"].into_iter().all(|kind| {
            metric_value(&metrics, "ollama_fleet_undecodable_objects", &[("kind", kind)]) == Some(0.0)
        })
    })
    .await;
}

/// Started before its kinds are installed, the operator waits, says for what, and begins when they are there. When they
/// are deleted under it, it lives on, and takes up its work when they are back.
#[tokio::test]
async fn missing_kinds_are_waited_for_and_deleted_ones_survived() {
    let fleet = Fleet::start(1).await;
    let control_plane = ControlPlane::start_bare();
    let client = control_plane.client().await;
    let operator = Operator::builder(&control_plane).without_waiting_for_ready().start().await;
    let url = format!("http://{}/readyz", operator.health_address());
    let waiting = eventually(PATIENCE, "/readyz says what it waits for", async || {
        let (status, body) = http::get(&url).await?;
        let answer: Value = serde_json::from_str(&body).map_err(|error| format!("{error}: {body}"))?;
        let text = answer["waitingFor"].to_string();
        if text.contains("is not installed") { Ok((status, answer)) } else { Err(text) }
    })
    .await;
    assert_eq!((waiting.0.as_u16(), &waiting.1["ready"]), (503, &json!(false)));
    assert!(waiting.1["waitingFor"][0]["detail"].as_str().unwrap().contains("ollamaservers.ollama-fleet.io"));
    assert_eq!(operator.livez().await, Ok(200));

    control_plane.install_crds();
    let namespace = Namespace::new(&control_plane).await;
    eventually(PATIENCE, "ready", async || operator.readyz().await).await;
    apply(&client, &namespace, &server("s", fleet.host(0))).await;
    ready(&client, &namespace, "s", PATIENCE).await;

    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    for kind in ["ollamaservers", "fleetplugins"] {
        crds.delete(&format!("{kind}.{GROUP}"), &DeleteParams::default()).await.unwrap();
    }
    eventually(PATIENCE, "the host is no longer asked", async || {
        let metrics = operator.metrics().await;
        metric_value(&metrics, "ollama_fleet_servers", &[]) == Some(0.0)
    })
    .await;
    fleet.reset_stats().await;
    holds_for(Duration::from_secs(3), "the operator lives and asks nobody", async || {
        assert_eq!(operator.livez().await, Ok(200));
        operator.status().is_none() && fleet.stats().await.total == 0
    })
    .await;
    eventually(PATIENCE, "the kinds are gone", async || {
        crds.list(&ListParams::default()).await.is_ok_and(|list| list.items.is_empty())
    })
    .await;
    control_plane.install_crds();
    apply(&client, &namespace, &server("s", fleet.host(0))).await;
    // The watch tries again at most 30 s after its last failure.
    ready(&client, &namespace, "s", 2 * PATIENCE).await;
    let panics = metric_value(&operator.metrics().await, "ollama_fleet_panics_total", &[]);
    assert_eq!(panics, Some(0.0));
}

/// Whoever edits labels and annotations all the time makes no write of status get lost: a conflict is resolved at once.
#[tokio::test]
async fn no_write_is_lost_to_somebody_who_edits_labels() {
    const SERVERS: usize = 10;
    let fleet = Fleet::start(SERVERS).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    for host in 0..SERVERS {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
    }
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    for host in 0..SERVERS {
        ready(&client, &namespace, &name(host), PATIENCE).await;
    }
    let api = objects::api::<OllamaServer>(&client, &namespace);
    let editing = async {
        // Ten edits of each object a second: far more than any controller makes, and room for two cores to breathe.
        let mut pace = tokio::time::interval(Duration::from_millis(100));
        for number in 0.. {
            pace.tick().await;
            let label = Patch::Merge(json!({"metadata": {"labels": {"edit": number.to_string()}}}));
            let edits = (0..SERVERS).map(|host| {
                let (api, label) = (api.clone(), label.clone());
                async move { api.patch(&name(host), &PatchParams::default(), &label).await.unwrap() }
            });
            futures::future::join_all(edits).await;
        }
    };
    let judging = async {
        for round in 0..4 {
            let model = format!("model-{round}:latest");
            fleet.action("all", json!({"action": "pull", "model": model, "sizeBytes": 1 << 20})).await;
            fleet.action("all", json!({"action": "load", "model": model, "expires": "forever"})).await;
            eventually(PATIENCE, "every status has the new model", async || {
                let list = api.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
                let has = |server: &&OllamaServer| {
                    let models = status_of(server).loaded_models.unwrap_or_default();
                    models.iter().any(|loaded| loaded.name == model)
                };
                let behind = list.items.iter().filter(|server| !has(server)).count();
                if behind == 0 { Ok(()) } else { Err(format!("{behind} statuses behind")) }
            })
            .await;
        }
    };
    tokio::select! {
        () = judging => {}
        () = editing => {}
    }
    let metrics = operator.metrics().await;
    let writes = |outcome| {
        let labels = [("kind", "OllamaServer"), ("outcome", outcome)];
        metric_value(&metrics, "ollama_fleet_status_writes_total", &labels).unwrap_or_default()
    };
    eprintln!("{} writes, {} conflicts resolved", writes("written"), writes("conflict"));
    assert!(writes("refused") < 1.0);
}

/// A server that is deleted while its host is being asked is gone at once: no write for it, no error, no series; one of
/// the same name afterwards begins afresh.
#[tokio::test]
async fn an_object_deleted_while_its_host_is_asked_leaves_nothing() {
    let fleet = Fleet::start(2).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    let api = objects::api::<OllamaServer>(&client, &namespace);
    let slow = json!({"poll": {"interval": "10s", "timeout": "8s"}});
    apply(&client, &namespace, &server_with("s", fleet.host(0), json!({"poll": {"interval": "1s"}}))).await;
    ready(&client, &namespace, "s", PATIENCE).await;
    let first: OllamaServer = get(&client, &namespace, "s").await;
    for _ in 0..3 {
        fleet.patch("0", json!({"ollama": {"mode": "healthy", "latencyMs": 3000}})).await;
        api.delete("s", &DeleteParams::default()).await.unwrap();
        eventually(PATIENCE, "gone", async || fleet.host_stats(0).await.in_flight == 0).await;
        apply(&client, &namespace, &server_with("s", fleet.host(0), slow.clone())).await;
        eventually(PATIENCE, "the host is being asked", async || fleet.host_stats(0).await.in_flight == 1)
            .await;
        api.delete("s", &DeleteParams::default()).await.unwrap();
        eventually(PATIENCE, "the poll is given up", async || fleet.host_stats(0).await.in_flight == 0).await;
        // The twin stands for another host.
        fleet.patch("all", json!({"ollama": null})).await;
        apply(&client, &namespace, &server("s", fleet.host(1))).await;
        ready(&client, &namespace, "s", PATIENCE).await;
    }
    let last: OllamaServer = get(&client, &namespace, "s").await;
    assert_ne!(first.metadata.uid, last.metadata.uid);
    assert_eq!(status_of(&last).observed_endpoint, Some(format!("http://{}", fleet.host(1))));
    api.delete("s", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "no series of it is left", async || {
        let text = operator.metrics().await;
        metrics::series(&text, "ollama_fleet_server_up") == 0
    })
    .await;
    no_errors(&operator);
    let told = events(&client, &namespace, "s").await;
    assert!(told.is_empty(), "{told:?}");
}

/// A namespace with 50 servers and a plugin goes away when it is deleted, and nothing of it is left in the metrics.
#[tokio::test]
async fn a_deleted_namespace_goes_away_with_all_its_servers() {
    const SERVERS: usize = 50;
    let fleet = Fleet::start(SERVERS).await;
    let control_plane = ControlPlane::shared();
    let client = control_plane.client().await;
    let (doomed, kept) = (Namespace::new(control_plane).await, Namespace::new(control_plane).await);
    apply(&client, &doomed, &plugin("agent", fleet.agent_port(), json!({}))).await;
    apply(&client, &kept, &server("kept", fleet.host(0))).await;
    for host in 0..SERVERS {
        apply(&client, &doomed, &server(&name(host), fleet.host(host))).await;
    }
    let operator = Operator::builder(control_plane).namespace(&doomed).namespace(&kept).start().await;
    ready(&client, &kept, "kept", PATIENCE).await;
    for host in 0..SERVERS {
        ready(&client, &doomed, &name(host), PATIENCE).await;
    }
    let namespaces: Api<NamespaceObject> = Api::all(client.clone());
    let start = Instant::now();
    namespaces.delete(&doomed, &DeleteParams::default()).await.unwrap();
    eventually(2 * PATIENCE, "the namespace is gone", async || {
        namespaces.get_opt(&doomed).await.is_ok_and(|namespace| namespace.is_none())
    })
    .await;
    let gone = start.elapsed();
    let text = eventually(PATIENCE, "its metrics are gone", async || {
        let text = operator.metrics().await;
        let lines = text.lines().filter(|line| line.contains(doomed.name())).count();
        if lines == 0 { Ok(text) } else { Err(format!("{lines} series")) }
    })
    .await;
    assert_eq!(metric_value(&text, "ollama_fleet_servers", &[]), Some(1.0));
    assert_eq!(metric_value(&text, "ollama_fleet_status_write_queue", &[]), Some(0.0));
    fleet.reset_stats().await;
    eventually(PATIENCE, "the other server is polled on", async || fleet.host_stats(0).await.total > 0).await;
    assert_eq!(fleet.stats().await.requests.keys().filter(|path| path.starts_with("agent:")).count(), 0);
    no_errors(&operator);
    eprintln!("a namespace of {SERVERS} servers was gone after {gone:.1?}");
}

/// Rights that are taken away stop writes and nothing else; the log says so once a minute, not once an object; given
/// back, every status catches up without a restart.
#[tokio::test]
async fn rights_that_were_taken_away_and_given_back_need_no_restart() {
    const SERVERS: usize = 10;
    let fleet = Fleet::start(SERVERS).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let kubectl =
        |args: &[&str]| control_plane.kubectl(&[args, &["-n", namespace.name()]].concat(), None).ok();
    kubectl(&["create", "serviceaccount", "operator"]);
    let reads = "--resource=ollamaservers.ollama-fleet.io,fleetplugins.ollama-fleet.io";
    let writes = "--resource=ollamaservers.ollama-fleet.io/status,fleetplugins.ollama-fleet.io/status";
    kubectl(&["create", "role", "reads", "--verb=get,list,watch", reads]);
    kubectl(&["create", "role", "writes", "--verb=patch", writes]);
    let account = format!("--serviceaccount={}:operator", namespace.name());
    let bind = |role: &str| kubectl(&["create", "rolebinding", role, &format!("--role={role}"), &account]);
    bind("reads");
    bind("writes");
    let text = std::fs::read_to_string(control_plane.kubeconfig()).unwrap();
    let mut kubeconfig: Value = serde_saphyr::from_str(&text).unwrap();
    let token = kubectl(&["create", "token", "operator"]);
    kubeconfig["users"][0]["user"] = json!({ "token": token.trim() });
    let file = control_plane.folder().join(format!("{}.kubeconfig", namespace.name()));
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    for host in 0..SERVERS {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
    }
    let operator = Operator::builder(control_plane).namespace(&namespace).kubeconfig(&file).start().await;
    for host in 0..SERVERS {
        ready(&client, &namespace, &name(host), PATIENCE).await;
    }

    kubectl(&["delete", "rolebinding", "writes"]);
    fleet.action("0-4", "die").await;
    let refused = || async {
        let labels = [("kind", "OllamaServer"), ("outcome", "forbidden")];
        metric_value(&operator.metrics().await, "ollama_fleet_status_writes_total", &labels)
            .unwrap_or_default()
    };
    eventually(PATIENCE, "writes are refused", async || refused().await >= 5.0).await;
    fleet.reset_stats().await;
    eventually(PATIENCE, "polls go on", async || fleet.stats().await.host(SERVERS - 1).total >= 6).await;
    let lines = operator.log_lines().iter().filter(|line| line["level"] == "ERROR").count();
    assert_eq!(lines, 1, "one line tells of a missing right");

    bind("writes");
    let back = Instant::now();
    eventually(2 * CATCH_UP, "every status has caught up", async || {
        for host in 0..5 {
            let server: OllamaServer = get(&client, &namespace, &name(host)).await;
            has_condition(&server, "Ready", "False", "ConnectionRefused")?;
        }
        Ok::<_, String>(())
    })
    .await;
    eprintln!("caught up {:.1?} after the right was back", back.elapsed());
}

fn name(host: usize) -> String {
    format!("s{host:02}")
}

async fn ready(client: &Client, namespace: &str, name: &str, limit: Duration) {
    eventually(limit, "the server is Ready", async || {
        let api = objects::api::<OllamaServer>(client, namespace);
        let server = api.get(name).await.map_err(|error| error.to_string())?;
        has_condition(&server, "Ready", "True", "Online").map_err(|error| format!("{name}: {error}"))
    })
    .await;
}

#[track_caller]
fn no_errors(operator: &Operator) {
    let lines = operator.log_lines();
    let errors: Vec<_> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(errors.is_empty(), "{errors:#?}");
}

fn dynamic(client: &Client, namespace: &str, kind: &str) -> Api<DynamicObject> {
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, kind));
    Api::namespaced_with(client.clone(), namespace, &kind)
}

/// Replaces one piece of a kind's schema, and takes away the rules of the whole spec.
async fn loosen(client: &Client, plural: &str, pointer: &str, schema: &Value) {
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let name = format!("{plural}.{GROUP}");
    let crd = crds.get(&name).await.unwrap();
    let mut crd = serde_json::to_value(crd).unwrap();
    crd["metadata"]["managedFields"] = Value::Null;
    let version = &mut crd["spec"]["versions"][0];
    version["selectableFields"] = Value::Null;
    let root = &mut version["schema"]["openAPIV3Schema"];
    *root.pointer_mut(pointer).unwrap() = schema.clone();
    root["properties"]["spec"]["x-kubernetes-validations"] = Value::Null;
    let crd: CustomResourceDefinition = serde_json::from_value(crd).unwrap();
    crds.replace(&name, &PostParams::default(), &crd).await.unwrap();
}
