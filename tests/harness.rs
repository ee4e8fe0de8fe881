//! The harness keeps its own promises, so that a red test is about the operator.

use crate::support::{
    Answer, ApiProxy, ControlPlane, Cut, Fault, Fleet, Match, Namespace, PATIENCE, WriteCounter, apply,
    control_plane, eventually, get, objects, server,
};
use futures::{StreamExt as _, TryStreamExt as _};
use kube::{
    Api, Client,
    api::{ListParams, Patch, PatchParams, WatchEvent, WatchParams},
};
use ollama_fleet_operator::api::OllamaServer;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

/// A control plane that was stopped, or crashed, comes back with its objects on the same port.
#[tokio::test]
async fn a_control_plane_survives_a_stop_and_a_crash() {
    let control_plane = ControlPlane::start();
    let kubeconfig = std::fs::read_to_string(control_plane.kubeconfig()).unwrap();
    let server_of = |text: &str| text.lines().find(|line| line.contains("server:")).map(str::to_owned);
    let namespace = Namespace::new(&control_plane).await;
    apply(&control_plane.client().await, &namespace, &server("a", "gpu1.lab")).await;
    control_plane.stop();
    control_plane.start_again();
    control_plane.kill();
    control_plane.start_again();
    let again = std::fs::read_to_string(control_plane.kubeconfig()).unwrap();
    assert_eq!(server_of(&kubeconfig), server_of(&again));
    let server: OllamaServer = get(&control_plane.client().await, &namespace, "a").await;
    assert_eq!(server.spec.host, "gpu1.lab");
}

/// Writes of status are counted once each, whoever else changes the object; writes that change nothing are none.
#[tokio::test]
async fn writes_are_counted_from_outside() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let client = control_plane.client().await;
    let counter = WriteCounter::start(&client, &namespace).await;
    apply(&client, &namespace, &server("a", "gpu1.lab")).await;
    apply(&client, &namespace, &server("a", "gpu2.lab")).await;
    assert_eq!(counter.total().await, 0);

    let servers = objects::api::<OllamaServer>(&client, &namespace);
    let params = PatchParams::apply("ollama-fleet-operator").force();
    for version in ["1", "1", "2"] {
        let status = json!({"apiVersion": "ollama-fleet.io/v1alpha1", "kind": "OllamaServer",
            "metadata": {"name": "a"}, "status": {"version": version, "conditions": []}});
        servers.patch_status("a", &params, &Patch::Apply(status)).await.unwrap();
    }
    let writes = counter.writes("a").await;
    assert_eq!(writes.len(), 2, "{writes:?}");
    assert_eq!(writes[1].changed, ["version"]);
    counter.reset().await;
    assert_eq!(counter.total().await, 0);
}

/// The simulated hosts answer at the addresses that the harness says, agents too, and what they count can be read.
#[tokio::test]
async fn simulated_hosts_answer_where_the_harness_says() {
    let fleet = Fleet::start(300).await;
    for index in [0, 253, 254, 299] {
        let url = format!("http://{}/api/version", fleet.host(index));
        let (status, _) = crate::support::http::get(&url).await.unwrap();
        assert_eq!((status.as_u16(), fleet.host_stats(index).await.count("/api/version")), (200, 1));
    }
    let agent = format!("http://{}:{}/metrics", fleet.address(1), fleet.agent_port());
    assert_eq!(crate::support::http::get(&agent).await.unwrap().0, 200);
    assert_eq!(fleet.stats().await.requests["agent:/metrics"], 1);
    assert_eq!(fleet.arrivals("0", "/api/version").await["sim-00000"].len(), 1);
    fleet.action("0", "die").await;
    let url = format!("http://{}/api/version", fleet.host(0));
    eventually(PATIENCE, "a dead host refuses", async || crate::support::http::get(&url).await.is_err())
        .await;
    assert!(crate::support::http::get(&format!("http://{}/", fleet.nobody())).await.is_err());
    fleet.reset_stats().await;
    assert_eq!(fleet.stats().await.total, 0);
}

/// The proxy before the API server passes everything on as it is, writes it down, and does to requests what its rules say.
#[tokio::test]
async fn the_proxy_passes_on_and_does_what_its_rules_say() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let proxy = ApiProxy::start(control_plane);
    let mut config = control_plane::config(&proxy.kubeconfig()).await;
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    apply(&client, &namespace, &server("a", "gpu1.lab")).await;
    let servers = objects::api::<OllamaServer>(&client, &namespace);
    assert_eq!(servers.get("a").await.unwrap().spec.host, "gpu1.lab");
    let told: Vec<_> =
        proxy.requests().into_iter().map(|request| (request.verb, request.name, request.code)).collect();
    assert_eq!(told, [("patch", "a".to_owned(), Some(201)), ("get", "a".to_owned(), Some(200))]);

    let reads = || Match::verb("get").of("ollamaservers").named("a");
    proxy.fault_nth(reads(), 2, Answer::status(429, "slow down").retry_after("3").into());
    assert!(servers.get("a").await.is_ok() && servers.get("b").await.is_err());
    assert!(matches!(servers.get("a").await, Err(kube::Error::Api(status)) if status.code == 429));
    assert!(servers.get("a").await.is_ok(), "used up");
    proxy.fault(reads(), Fault::Drop);
    assert!(matches!(servers.get("a").await, Err(kube::Error::Service(_) | kube::Error::HyperError(_))));
    proxy.heal();
    proxy.fault_times(reads(), 1, Fault::Delay(Duration::from_millis(300)));
    let start = Instant::now();
    servers.get("a").await.unwrap();
    assert!(start.elapsed() >= Duration::from_millis(300));
    proxy.fault_times(reads(), 1, Fault::Hang);
    assert!(tokio::time::timeout(Duration::from_millis(300), servers.get("a")).await.is_err());

    // Done, though nobody says so.
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let call: Arc<dyn Fn() + Send + Sync> = Arc::new(move || {
        counted.fetch_add(1, Ordering::Relaxed);
    });
    let edit = async |host: &str| {
        let patch = Patch::Merge(json!({"spec": {"host": host}}));
        let params = PatchParams::default();
        let answer = servers.patch("a", &params, &patch);
        let answered =
            tokio::time::timeout(Duration::from_secs(1), answer).await.is_ok_and(|answer| answer.is_ok());
        (answered, servers.get("a").await.unwrap().spec.host)
    };
    for (fault, done) in [
        (Fault::DropAnswer, "b.lab"),
        (Fault::HangAnswer, "c.lab"),
        (Fault::CallAfterwards(Arc::clone(&call)), "d.lab"),
        (Fault::CallThenDrop(call), "d.lab"),
    ] {
        proxy.fault_times(Match::writes(), 1, fault.clone());
        let host = if matches!(fault, Fault::CallThenDrop(_)) { "e.lab" } else { done };
        assert_eq!(edit(host).await, (false, done.to_owned()), "{fault:?}");
    }
    assert_eq!(calls.load(Ordering::Relaxed), 2);
    assert_eq!(proxy.seen(&Match::writes()).iter().filter(|request| request.applied).count(), 4);
}

/// Watches come through, and can be edited, added to, muted and cut.
#[tokio::test]
async fn the_proxy_has_watches_in_its_hand() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let proxy = ApiProxy::start(control_plane);
    let (direct, client) = (control_plane.client().await, control_plane::client(&proxy.kubeconfig()).await);
    let servers: Api<OllamaServer> = objects::api(&client, &namespace);
    let begin = servers.list(&ListParams::default()).await.unwrap().metadata.resource_version.unwrap();
    let open = async || servers.watch(&WatchParams::default(), &begin).await.unwrap().boxed();
    let name = |event: WatchEvent<OllamaServer>| match event {
        WatchEvent::Added(server) | WatchEvent::Modified(server) => server.metadata.name.unwrap(),
        other => format!("{other:?}"),
    };
    let mut watch = open().await;
    apply(&direct, &namespace, &server("a", "gpu1.lab")).await;
    assert_eq!(name(watch.next().await.unwrap().unwrap()), "a");
    assert_eq!(proxy.open_watches("ollamaservers"), 1);

    proxy.edit_events(|resource, event: Value| {
        assert_eq!(resource, "ollamaservers");
        match event["object"]["metadata"]["name"].as_str() {
            Some("gone") => vec![],
            _ => vec![event.clone(), event],
        }
    });
    apply(&direct, &namespace, &server("gone", "gpu1.lab")).await;
    let twice = apply(&direct, &namespace, &server("twice", "gpu1.lab")).await;
    for _ in 0..2 {
        assert_eq!(name(watch.next().await.unwrap().unwrap()), "twice");
    }
    proxy.heal();
    proxy.inject("ollamaservers", &json!({"type": "MODIFIED", "object": twice}));
    assert_eq!(name(watch.next().await.unwrap().unwrap()), "twice");
    proxy.cut("ollamaservers", Cut::Ended);
    assert!(watch.try_next().await.unwrap().is_none());

    for event in ["a", "gone", "twice"] {
        watch = if event == "a" { open().await } else { watch };
        assert_eq!(name(watch.next().await.unwrap().unwrap()), event);
    }
    proxy.cut("ollamaservers", Cut::MidEvent);
    assert!(matches!(watch.next().await, None | Some(Err(_))), "neither whole nor an event");

    let mut muted = open().await;
    for _ in 0..3 {
        muted.next().await.unwrap().unwrap();
    }
    proxy.mute("ollamaservers");
    apply(&direct, &namespace, &server("unheard", "gpu1.lab")).await;
    assert!(tokio::time::timeout(Duration::from_millis(500), muted.next()).await.is_err());
}
