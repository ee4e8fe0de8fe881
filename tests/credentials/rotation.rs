//! A credential that is changed while it is in use.

use super::{Data, secret, with_secret};
use crate::support::{PATIENCE, Scene, eventually, metric_value};
use serde_json::json;
use std::time::Duration;

async fn refused_by_the_host(scene: &Scene) -> u64 {
    scene.fleet.host_stats(0).await.unauthorized
}

/// A counter of the operator, as a whole number.
async fn counter(scene: &Scene, name: &str, label: (&str, &str)) -> String {
    let metrics = scene.operator.metrics().await;
    metric_value(&metrics, name, &[label]).unwrap_or_default().to_string()
}

async fn readings(scene: &Scene) -> String {
    counter(scene, "ollama_fleet_secret_reads_total", ("result", "read")).await
}

/// A token that is rotated costs one request and no poll: the host's 401 makes the operator read the Secret again and ask
/// with the new one, before anybody hears of it. A second 401 soon after does not make it read again; the rotation behind it
/// is noticed all the same, ten seconds after the last reading.
#[tokio::test]
async fn a_rotation_costs_no_poll() {
    let scene = Scene::new(1).await;
    let address = scene.fleet.address(0).to_string();
    let token = |text: &'static str| -> Data<'static> {
        match text {
            "one" => &[("token", b"one")],
            "two" => &[("token", b"two")],
            _ => &[("token", b"three")],
        }
    };
    scene.fleet.patch("0", json!({"authorization": "Bearer one"})).await;
    scene.apply(&secret("s", &address, token("one"))).await;
    let mut server = with_secret("a", scene.fleet.host(0), "s");
    server.spec.poll = serde_json::from_value(json!({"failureThreshold": 1})).unwrap();
    scene.apply(&server).await;
    scene.until_online("a").await;
    scene.polls(0, 1).await;
    assert_eq!((refused_by_the_host(&scene).await, readings(&scene).await.as_str()), (0, "1"));

    scene.apply(&secret("s", &address, token("two"))).await;
    scene.fleet.patch("0", json!({"authorization": "Bearer two"})).await;
    scene.polls(0, 2).await;
    assert_eq!((refused_by_the_host(&scene).await, readings(&scene).await.as_str()), (1, "2"));
    // With a threshold of one, a failed poll would have been a verdict.
    assert_eq!(scene.told("a").await, [""; 0]);
    let failures =
        counter(&scene, "ollama_fleet_server_poll_failures_total", ("reason", "Unauthorized")).await;
    assert_eq!(failures, "0");

    scene.apply(&secret("s", &address, token("three"))).await;
    scene.fleet.patch("0", json!({"authorization": "Bearer three"})).await;
    scene.until("a", "Ready", "False", "Unauthorized").await;
    scene.within(Duration::from_secs(12), "a", "Ready", "True", "Online").await;
    assert_eq!(readings(&scene).await, "3", "read once more, and not before its time");
}

/// The API server's absence does not stop polls: they go on with the last copy, also after a refusal made the operator want
/// to read it again.
#[tokio::test]
async fn polls_go_on_while_the_api_server_is_away() {
    let control_plane = crate::support::ControlPlane::start();
    let client = control_plane.client().await;
    let fleet = crate::support::Fleet::start(1).await;
    fleet.patch("0", json!({"authorization": "Bearer one"})).await;
    let token: Data<'_> = &[("token", b"one")];
    crate::support::apply(&client, "default", &secret("s", &fleet.address(0).to_string(), token)).await;
    crate::support::apply(&client, "default", &with_secret("a", fleet.host(0), "s")).await;
    let operator = crate::support::Operator::builder(&control_plane).namespace("default").start().await;
    let answered = async || {
        let host = fleet.host_stats(0).await;
        host.total - host.unauthorized
    };
    eventually(PATIENCE, "it is polled", async || answered().await > 3).await;
    control_plane.stop();
    // The host refuses for a while: now the operator wants to read the Secret, and cannot.
    let before = answered().await;
    fleet.patch("0", json!({"authorization": "Bearer other"})).await;
    let tried = || async {
        let metrics = operator.metrics().await;
        metric_value(&metrics, "ollama_fleet_secret_reads_total", &[("result", "unavailable")])
    };
    eventually(PATIENCE, "it tried to read the Secret", async || tried().await.is_some_and(|n| n > 0.0))
        .await;
    fleet.patch("0", json!({"authorization": "Bearer one"})).await;
    eventually(PATIENCE, "polls go on with the last copy", async || answered().await >= before + 10).await;
    assert!(tried().await.is_some_and(|tries| tries <= 3.0), "it hammers at the API server");
}
