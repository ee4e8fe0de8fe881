//! A host whose certificate is not checked may be anybody: it gets a credential only if the Secret says that it may.

use super::{Data, secret, secret_with, until_refused};
use crate::support::{
    Leaf, PATIENCE, Scene, Secured, TlsHost, Way, eventually, holds_for,
    objects::{plugin, server_with},
};
use serde_json::json;
use std::time::Duration;

/// With `insecureSkipVerify` and a Secret that names the host and no more, neither the host nor an agent on it gets as much
/// as a connection; with the word that allows it, both are asked.
#[tokio::test]
async fn a_host_that_is_not_checked_needs_the_word_of_the_secret() {
    let scene = Scene::new(1).await;
    let leaf = Leaf::self_signed(&["127.0.0.1"]);
    let (host, agent) = (TlsHost::start(Secured::by(&leaf)).await, TlsHost::start(Way::Closes).await);
    let token: Data<'_> = &[("token", b"abc")];
    scene.apply(&plugin("agent", agent.address.port(), json!({}))).await;
    scene.apply(&secret_with("s", &[("ollama-fleet.io/hosts", "127.0.0.1")], token)).await;
    let spec = json!({"secretRef": {"name": "s"}, "insecureSkipVerify": true});
    scene.apply(&server_with("a", host.https(), spec)).await;
    let message = until_refused(&scene.client, &scene.namespace, "a", "SecretNotAllowed").await;
    assert!(message.contains("insecureSkipVerify") && message.contains("plain-http"), "{message}");
    holds_for(Duration::from_secs(3), "neither is dialled", async || {
        host.seen().connections == 0 && agent.seen().connections == 0
    })
    .await;

    scene.apply(&secret("s", "127.0.0.1", token)).await;
    scene.until("a", "Ready", "True", "Online").await;
    eventually(PATIENCE, "the agent is asked", async || agent.seen().connections > 0).await;
}
