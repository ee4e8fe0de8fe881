//! Specs that are refused are told where people look: one Event and one line of the log each, and all that a Secret lacks at
//! once.

use crate::support::{
    ControlPlane, Operator, PATIENCE, Scene, condition, eventually, holds_for,
    objects::{self, plugin},
};
use k8s_openapi::api::events::v1::Event;
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
