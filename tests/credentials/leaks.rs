//! Nothing of a Secret is told anywhere: canaries in every value, every state that a Secret can be in, every output searched.

use super::{Data, secret, secret_with, with_secret};
use crate::support::{
    PATIENCE, Scene, all_events, condition, eventually, http,
    objects::{api, fleet_metrics, server_with},
};
use base64::{Engine, prelude::BASE64_STANDARD};
use kube::api::ListParams;
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer};
use serde_json::json;

const TOKEN: &str = "canary-token-5kJ2";
const USER: &str = "canary-user-8Qz1";
const PASSWORD: &str = "canary-word-3Vd7";
const KEY: &str = "canary-key-9Xw4";

/// Every form in which a value may turn up: as it is, base64 at each of the three offsets in a longer text, hex.
fn forms() -> Vec<String> {
    let basic = format!("{USER}:{PASSWORD}");
    let mut forms = vec!["canary-".to_owned(), "Bearer canary".to_owned()];
    for value in [TOKEN, USER, PASSWORD, KEY, basic.as_str()] {
        forms.push(BASE64_STANDARD.encode(value).trim_end_matches('=').to_owned());
        for offset in 0..3 {
            // Without the characters that depend on what stands before and behind.
            let encoded = BASE64_STANDARD.encode(format!("{}{value}", "x".repeat(offset)));
            let begin = [0, 2, 3][offset];
            forms.push(encoded[begin..].trim_end_matches('=').chars().take(14).collect());
        }
        let hex = |byte: u8| format!("{byte:02x}");
        forms.push(value.bytes().map(hex).collect());
    }
    forms
}

fn assert_clean(what: &str, text: &str) {
    for form in forms() {
        if let Some(at) = text.find(&form) {
            let begin = text[..at].char_indices().rev().nth(200).map_or(0, |(begin, _)| begin);
            panic!("{what} has {form}: {}", &text[begin..(at + form.len())]);
        }
    }
}

/// With everything logged that the operator and the libraries under it can log, and Secrets right, wrong, refused and not taken,
/// of hosts and agents: no value is in the log, an Event, a status, metrics or the API, in any form.
#[tokio::test]
async fn no_value_of_a_secret_is_told_anywhere() {
    let everything = "trace,kube=trace,kube_client=trace,kube_client::client::builder=trace,kube_runtime=trace,hyper=trace,hyper_util=trace,rustls=trace,h2=trace,tower=trace,tower_http=trace";
    let scene = Scene::with(9, &json!({}), |builder| builder.env("RUST_LOG", everything)).await;
    let address = |host| scene.fleet.address(host).to_string();
    let token: Data<'_> = &[("token", TOKEN.as_bytes())];
    let basic: Data<'_> = &[("username", USER.as_bytes()), ("password", PASSWORD.as_bytes())];
    let newline = format!("{TOKEN}\n");
    let bytes = [TOKEN.as_bytes(), b"\xff"].concat();
    let colon = format!("{USER}:x");
    let key =
        format!("-----BEGIN PRIVATE KEY-----\n{}\n-----END PRIVATE KEY-----\n", BASE64_STANDARD.encode(KEY));
    let certificates: Data<'_> =
        &[("tls.crt", KEY.as_bytes()), ("tls.key", key.as_bytes()), ("ca.crt", KEY.as_bytes())];
    // The host takes no credential of these two, and the last speaks no TLS.
    scene.fleet.patch("2", json!({"authorization": "Bearer other"})).await;
    for (host, secret, reason) in [
        (0, secret("right", &address(0), token), "Online"),
        (1, secret("basic", &address(1), basic), "Online"),
        (2, secret("not-taken", &address(2), basic), "Unauthorized"),
        (3, secret("newline", &address(3), &[("token", newline.as_bytes())]), "InvalidSpec"),
        (4, secret("not-utf8", &address(4), &[("token", &bytes)]), "InvalidSpec"),
        (5, secret_with("bare", &[], token), "SecretNotAllowed"),
        (6, secret("wrong-key", &address(6), &[("Token", TOKEN.as_bytes())]), "SecretNotFound"),
        (
            7,
            secret(
                "colon",
                &address(7),
                &[("username", colon.as_bytes()), ("password", PASSWORD.as_bytes())],
            ),
            "InvalidSpec",
        ),
    ] {
        let name = secret.metadata.name.clone().unwrap();
        scene.apply(&secret).await;
        scene.apply(&with_secret(&name, scene.fleet.host(host), &name)).await;
        eventually(PATIENCE, &name, async || {
            let ready = condition(&scene.get(&name).await, "Ready");
            if ready.as_ref().is_some_and(|(_, why, _)| why == reason) {
                Ok(())
            } else {
                Err(format!("{ready:?}"))
            }
        })
        .await;
    }
    let tls = format!("https://{}", scene.fleet.host(8));
    scene.apply(&secret("certificates", &address(8), certificates)).await;
    scene.apply(&server_with("bad-key", &tls, json!({"certSecretRef": {"name": "certificates"}}))).await;
    scene.until("bad-key", "Ready", "False", "InvalidSpec").await;
    scene.apply(&server_with("tls", &tls, json!({"secretRef": {"name": "not-taken-by-tls"}}))).await;
    scene.apply(&secret("not-taken-by-tls", &address(8), token)).await;
    eventually(PATIENCE, "TLS fails", async || {
        let ready = condition(&scene.get("tls").await, "Ready");
        let fails = |why: &str| why.starts_with("TLS") || why == "ProbeFailing" || why == "InvalidResponse";
        if ready.as_ref().is_some_and(|(_, why, _)| fails(why)) { Ok(()) } else { Err(format!("{ready:?}")) }
    })
    .await;
    for (name, secret) in [("agent-right", "right"), ("agent-refused", "bare")] {
        let mut plugin = fleet_metrics(scene.fleet.agent_port());
        plugin.metadata.name = Some(name.to_owned());
        let agent = plugin.spec.agent.as_mut().unwrap();
        agent.config_key = None;
        agent.secret_ref = Some(serde_json::from_value(json!({"name": secret})).unwrap());
        scene.apply(&plugin).await;
    }
    scene.until("right", "PluginsHealthy", "False", "PluginFailed").await;

    let log = scene.operator.log();
    // Silence proves nothing, unless the log has what may be told: the libraries', and the way of each request.
    for word in ["hyper", "kube_client", "rustls", "secrets/right"] {
        assert!(log.contains(word), "the log has nothing of {word}");
    }
    assert_clean("the log", &log);
    let list = ListParams::default();
    let servers = api::<OllamaServer>(&scene.client, &scene.namespace).list(&list).await.unwrap().items;
    assert_eq!(servers.len(), 10);
    assert_clean("a server", &serde_json::to_string(&servers).unwrap());
    let plugins = api::<FleetPlugin>(&scene.client, &scene.namespace).list(&list).await.unwrap().items;
    assert_clean("a plugin", &serde_json::to_string(&plugins).unwrap());
    let events = all_events(&scene.client, &scene.namespace).await;
    assert!(events.iter().any(|event| event.reason.as_deref() == Some("PluginFailed")));
    assert_clean("an Event", &serde_json::to_string(&events).unwrap());
    assert_clean("the metrics", &scene.operator.metrics().await);
    for path in ["/api/servers", "/api/plugins"] {
        let (status, body) =
            http::get(&format!("http://{}{path}", scene.operator.api_address())).await.unwrap();
        assert!(status.is_success() && body.contains("right"), "{path}: {status}");
        assert_clean(path, &body);
    }
}

/// The search finds what it searches for.
#[test]
fn a_canary_is_found_in_every_form() {
    for text in [
        TOKEN.to_owned(),
        format!("Authorization: Bearer {TOKEN}"),
        format!("Basic {}", BASE64_STANDARD.encode(format!("{USER}:{PASSWORD}"))),
        BASE64_STANDARD.encode(format!(r#"{{"token":"{TOKEN}"}}"#)),
        BASE64_STANDARD.encode(KEY),
    ] {
        assert!(std::panic::catch_unwind(|| assert_clean("it", &text)).is_err(), "{text}");
    }
    assert_clean("it", "nothing to see here");
}
