//! What a task does about what is not its object: the operator's address policy.

use super::*;
use crate::{
    api::condition,
    args::PollArgs,
    controller::{
        api_client::Hold,
        credentials::Secrets,
        event_queue::EventQueue,
        plugin::installed::Installed,
        server::{live::Live, publish::snapshot},
        status_writer::{Kind, StatusWriter, Target},
    },
    metrics::Metrics,
    probe::{
        NameServers, Prober,
        address::{AddressPolicy, SharedPolicy},
    },
    runtime::Leadership,
};
use axum::http::{Request, Response};
use clap::Parser;
use kube::{Client, client::Body};
use serde_json::json;
use std::{convert::Infallible, future::pending};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    poll: PollArgs,
}

/// A task of one server on loopback, and where its status shows. The API server never answers.
fn start(policy: &Arc<SharedPolicy>) -> (watch::Sender<Arc<OllamaServer>>, Live) {
    let _ = rustls::crypto::ring::default_provider().install_default();
    let service = tower::service_fn(|_: Request<Body>| pending::<Result<Response<Body>, Infallible>>());
    let client = Client::new(service, "default");
    let live = Live::default();
    let leadership = Leadership::always();
    let metrics = Metrics::new(&live, 0, &leadership);
    let context = Arc::new(Context {
        client: client.clone(),
        prober: Prober::new(Arc::clone(policy), NameServers::System, Arc::clone(&metrics)).unwrap(),
        secrets: Secrets::new(client.clone(), Arc::clone(&metrics)),
        poll: Flags::parse_from(["x"]).poll,
        writer: StatusWriter::new(client.clone(), Hold::default(), leadership.clone(), Arc::clone(&metrics)),
        events: EventQueue::new(client, Hold::default(), leadership.clone(), Arc::clone(&metrics)),
        leadership,
        metrics,
        live: live.clone(),
        installed: Installed::default(),
        plugins: watch::Sender::new(Arc::default()),
    });
    let object = json!({"apiVersion": "ollama-fleet.io/v1alpha1", "kind": "OllamaServer",
        "metadata": {"namespace": "n", "name": "s", "uid": "u", "generation": 1},
        "spec": {"host": "127.0.0.1:1025"}});
    let object: Arc<OllamaServer> = Arc::new(serde_json::from_value(object).unwrap());
    let target = Target {
        kind: Kind::OllamaServer,
        namespace: "n".into(),
        name: "s".into(),
        uid: "u".into(),
        newest: Arc::default(),
    };
    let (sender, receiver) = watch::channel(Arc::clone(&object));
    let (memory, place) = (Memory::default(), live.enter("u"));
    place.show(snapshot(&object, &memory, true, None));
    let publisher = Publisher::new(object.status.clone().unwrap_or_default(), target, Arc::default());
    tokio::spawn(ServerTask::new(context, receiver, place, publisher, memory).run());
    (sender, live)
}

async fn accepted_becomes(live: &Live, status: &str) {
    let found = || {
        let servers = live.snapshots();
        condition::find(&servers[0].status.conditions, condition::ACCEPTED).map(|found| found.status.clone())
    };
    let deadline = Instant::now() + Duration::from_secs(30);
    while found().as_deref() != Some(status) {
        assert!(Instant::now() < deadline, "Accepted is {:?}, not {status}", found());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn another_address_policy_is_followed_without_an_edit() {
    let open = AddressPolicy { allowed: vec!["127.0.0.0/8".parse().unwrap()], ..AddressPolicy::default() };
    let policy = SharedPolicy::new(AddressPolicy::default());
    let (_object, live) = start(&policy);
    for _ in 0..2 {
        accepted_becomes(&live, "False").await;
        policy.set(open.clone());
        accepted_becomes(&live, "True").await;
        policy.set(AddressPolicy::default());
    }
}
