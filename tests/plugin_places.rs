//! Agents that measure a machine and are not on it: `pluginHosts`, and the server's host in a plugin's path.

use crate::support::{
    PATIENCE, Scene, eventually,
    objects::{has_condition, plugin},
    raw_host,
};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    api::{Patch, PatchParams},
};
use ollama_fleet_operator::api::OllamaServer;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, Mutex},
};
use tokio::net::TcpListener;

const KEY: &str = "plugPort";

/// A path, and the token that came with it.
type Asked = (String, Option<String>);

/// An exporter somewhere: where it is, and the paths and tokens that it was asked with.
struct Exporter {
    at: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Exporter {
    async fn start() -> Self {
        let listener = TcpListener::bind((raw_host::free_address(), 0)).await.unwrap();
        let at = listener.local_addr().unwrap();
        let asked: Arc<Mutex<Vec<Asked>>> = Arc::default();
        let told = Arc::clone(&asked);
        let router = axum::Router::new().fallback(async move |request: axum::extract::Request| {
            let token =
                request.headers().get("authorization").map(|value| value.to_str().unwrap().to_owned());
            told.lock().unwrap().push((request.uri().to_string(), token));
            r#"{"watts": 120}"#
        });
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { at, asked }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }
}

fn plug(agent: Value) -> Value {
    let mut full = json!({
        "configKey": KEY,
        "endpoint": "/probe?target={host}",
        "values": [{"name": "watts", "jsonPaths": ["$.watts"]}],
    });
    full.as_object_mut().unwrap().extend(agent.as_object().unwrap().clone());
    full
}

/// Waits until the plugin of a server is in this state, with this reason.
async fn until(scene: &Scene, name: &str, state: &str, reason: Option<&str>) {
    eventually(PATIENCE, &format!("the plugin of {name} is {state}"), async || {
        let reports = scene.status(name).await.plugins.unwrap_or_default();
        let is: Vec<_> =
            reports.iter().map(|report| (report.state.as_deref(), report.reason.as_deref())).collect();
        if is == [(Some(state), reason)] { Ok(()) } else { Err(format!("{is:?}")) }
    })
    .await;
}

/// A smart plug or a central exporter is asked where the server says, about the server; not at the server's host. Without
/// the entry it is asked there again.
#[tokio::test]
async fn an_agent_elsewhere_is_asked_there_about_the_server() {
    let scene = Scene::new(2).await;
    let exporter = Exporter::start().await;
    scene.apply(&plugin("plug", scene.fleet.agent_port(), plug(json!({})))).await;
    let at = exporter.at.to_string();
    for host in [0, 1] {
        scene.server(&format!("s{host}"), host, json!({"pluginHosts": { KEY: at }})).await;
        until(&scene, &format!("s{host}"), "Active", None).await;
        assert_eq!(scene.fleet.host_stats(host).await.count("agent:/probe"), 0, "host {host}");
    }
    let targets: std::collections::BTreeSet<String> =
        exporter.asked().into_iter().map(|(path, _)| path).collect();
    let expected = [0, 1].map(|host| format!("/probe?target={}", scene.fleet.address(host)));
    assert_eq!(targets, expected.into());

    // An address that no flag allows is not dialled for an agent either.
    scene.patch_spec("s1", json!({"pluginHosts": { KEY: "169.254.169.254:80" }})).await;
    until(&scene, "s1", "Error", Some("AddressNotAllowed")).await;
    has_condition(&scene.get("s1").await, "Ready", "True", "Online")
        .expect("an agent never makes its server unready");
    // What is no place is refused by the API server, or by the operator where only that can tell.
    for (place, word) in [("http://192.168.1.60", "without a scheme"), ("a b", "without a scheme")] {
        let patch = Patch::Merge(json!({"spec": {"pluginHosts": { KEY: place }}}));
        let servers: Api<OllamaServer> = Api::namespaced(scene.client.clone(), &scene.namespace);
        let refused = servers.patch("s1", &PatchParams::default(), &patch).await;
        let error = refused.unwrap_err().to_string();
        assert!(error.contains(word), "{error}");
    }
    scene.patch_spec("s1", json!({"pluginHosts": { KEY: "127.1:80" }})).await;
    eventually(PATIENCE, "a numeric name is refused", async || {
        has_condition(&scene.get("s1").await, "Accepted", "False", "InvalidSpec")
    })
    .await;
}

/// A Secret is for the hosts that its owner names: whoever may edit a server cannot have it sent elsewhere.
#[tokio::test]
async fn a_secret_is_not_sent_to_a_place_that_it_is_not_for() {
    let scene = Scene::new(1).await;
    let (mine, other) = (Exporter::start().await, Exporter::start().await);
    let annotations = [
        ("ollama-fleet.io/hosts", mine.at.ip().to_string()),
        ("ollama-fleet.io/plain-http", "true".to_owned()),
    ];
    let mut secret = Secret::default();
    secret.metadata.name = Some("plug-token".into());
    secret.metadata.annotations =
        Some(annotations.map(|(name, value)| (name.to_owned(), value)).into_iter().collect());
    secret.string_data = Some(BTreeMap::from([("token".to_owned(), "s3cr3t".to_owned())]));
    scene.apply(&secret).await;
    scene.apply(&plugin("plug", 80, plug(json!({"secretRef": {"name": "plug-token"}})))).await;

    scene.server("a", 0, json!({"pluginHosts": { KEY: mine.at.to_string() }})).await;
    until(&scene, "a", "Active", None).await;
    assert!(mine.asked().iter().all(|(_, token)| token.as_deref() == Some("Bearer s3cr3t")));
    scene.patch_spec("a", json!({"pluginHosts": { KEY: other.at.to_string() }})).await;
    until(&scene, "a", "Error", Some("SecretNotAllowed")).await;
    assert_eq!(other.asked(), []);
}
