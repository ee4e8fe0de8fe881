//! Specs that are refused are told where people look: one Event and one line of the log each, and all that a Secret lacks at
//! once.

use crate::support::{
    ControlPlane, Operator, PATIENCE, Scene, condition, eventually, holds_for,
    objects::{self, plugin},
    operator::Builder,
};
use k8s_openapi::{
    ByteString,
    api::{core::v1::Secret, events::v1::Event},
};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer};
use serde_json::json;
use std::time::Duration;

const QUIET: Duration = Duration::from_secs(4);

fn lines(operator: &Operator, reason: &str) -> usize {
    let is_told = |line: &&serde_json::Value| line["message"] == "transition" && line["reason"] == reason;
    operator.log_lines().iter().filter(is_told).count()
}

async fn accepted<T: objects::Object + objects::Conditioned>(scene: &Scene, name: &str) -> (String, String) {
    eventually(PATIENCE, "the spec is refused", async || {
        let object: T = objects::get(&scene.client, &scene.namespace, name).await;
        condition(&object, "Accepted")
            .filter(|(status, ..)| status == "False")
            .map(|(_, reason, note)| (reason, note))
    })
    .await
}

/// Found at once or by a poll, of a server or a plugin, a refusal is one Warning with the words of Accepted, and one line of
/// the log; a restart adds none, and another reason one.
#[tokio::test]
async fn a_refused_spec_is_one_event_and_one_line() {
    let scene = Scene::new(1).await;
    scene.apply(&objects::server("address", "169.254.169.254")).await;
    scene.server("secret", 0, json!({"secretRef": {"name": "absent"}})).await;
    scene.server("provider", 0, json!({"backendType": "Plugin", "providerRef": {"name": "none"}})).await;
    let refused = plugin(
        "rule",
        9100,
        json!({"values": [{"name": "a", "jsonPaths": ["$.a"]}],
        "rules": [{"name": "High", "when": "values.nothing > 1", "severity": "Warning", "as": "Event", "message": "m"}]}),
    );
    scene.apply(&refused).await;
    let expected = [
        ("address", "AddressNotAllowed", accepted::<OllamaServer>(&scene, "address").await),
        ("secret", "SecretNotFound", accepted::<OllamaServer>(&scene, "secret").await),
        ("provider", "ProviderNotFound", accepted::<OllamaServer>(&scene, "provider").await),
        ("rule", "InvalidSpec", accepted::<FleetPlugin>(&scene, "rule").await),
    ];
    let told = async |name: &str| {
        let events: Vec<Event> = scene.events(name).await;
        let one = |event: &Event| {
            let times = event.series.as_ref().map_or(1, |series| series.count);
            let text = |text: &Option<String>| text.clone().unwrap_or_default();
            (text(&event.reason), text(&event.note), text(&event.type_), times)
        };
        events.iter().map(one).collect::<Vec<_>>()
    };
    for (name, reason, (why, message)) in &expected {
        assert_eq!(why, reason);
        let event = ((*reason).to_owned(), message.chars().take(256).collect(), "Warning".to_owned(), 1);
        eventually(PATIENCE, "the refusal is told", async || {
            let told = told(name).await;
            if told == [event.clone()] { Ok(()) } else { Err(format!("{name}: {told:?}")) }
        })
        .await;
        assert_eq!(lines(&scene.operator, reason), 1, "{name}");
    }
    let all = async || {
        let mut count = 0;
        for (name, ..) in &expected {
            count += told(name).await.len();
        }
        count
    };
    holds_for(QUIET, "nothing is told twice", async || all().await == 4).await;
    scene.operator.kill();
    let again = Operator::builder(ControlPlane::shared()).namespace(&scene.namespace).start().await;
    holds_for(QUIET, "nor after a restart", async || all().await == 4).await;
    assert!(expected.iter().all(|(_, reason, _)| lines(&again, reason) == 0));
    scene.patch_spec("secret", json!({"host": "169.254.169.254"})).await;
    eventually(PATIENCE, "another reason is another Event", async || all().await == 5).await;
}

/// Everything that a Secret lacks is in one message, by its name, also where there is none or nobody may read it; whoever does
/// all that it says is polled. Nothing in it is a value of the Secret.
#[tokio::test]
async fn all_that_a_secret_lacks_is_said_at_once() {
    let scene = Scene::new(1).await;
    scene.fleet.patch("all", json!({"authorization": "Bearer s3cret"})).await;
    let mut secret = Secret::default();
    secret.metadata.name = Some("gpu-token".to_owned());
    secret.data = Some([("Token".to_owned(), ByteString(b"s3cret".to_vec()))].into());
    scene.server("a", 0, json!({"secretRef": {"name": "gpu-token"}})).await;
    let lacks = [
        "token, or username and password",
        "ollama-fleet.io/hosts that names this host",
        "ollama-fleet.io/plain-http: \"true\" (no TLS)",
    ];
    let said = async |reason: &str, begins: &str| {
        scene.until("a", "Accepted", "False", reason).await;
        let (_, _, message) = condition(&scene.get("a").await, "Accepted").unwrap();
        assert!(message.starts_with(begins), "{message}");
        assert!(lacks.iter().all(|word| message.contains(word)), "{message}");
        assert!(!message.contains("s3cret"), "{message}");
    };
    said("SecretNotFound", "secretRef: Secret gpu-token is not in this namespace; create it with ").await;
    scene.apply(&secret).await;
    said("SecretNotAllowed", "secretRef: Secret gpu-token lacks the key token").await;
    // All of it, in one edit.
    let address = scene.fleet.address(0).to_string();
    secret.metadata.annotations = Some(
        [("ollama-fleet.io/hosts", address.as_str()), ("ollama-fleet.io/plain-http", "true")]
            .map(|(key, value)| (key.to_owned(), value.to_owned()))
            .into(),
    );
    secret.data = Some([("token".to_owned(), ByteString(b"s3cret".to_vec()))].into());
    scene.apply(&secret).await;
    scene.until_online("a").await;
}

/// Where the operator may not read Secrets the message says so, and what the Secret will need after that.
#[tokio::test]
async fn a_missing_right_is_said_with_what_comes_after_it() {
    let scene = Scene::with(1, &json!({}), Builder::without_secrets).await;
    scene.server("a", 0, json!({"secretRef": {"name": "gpu-token"}})).await;
    let (reason, message) = accepted::<OllamaServer>(&scene, "a").await;
    assert_eq!(reason, "SecretForbidden");
    for word in [
        "Secret gpu-token may not be read",
        "secretNamespaces",
        "RoleBinding",
        "token, or username and password",
        "ollama-fleet.io/hosts",
        "ollama-fleet.io/plain-http",
    ] {
        assert!(message.contains(word), "{word}: {message}");
    }
}
