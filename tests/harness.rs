//! The harness keeps its own promises, so that a red test is about the operator.

use crate::support::{
    ControlPlane, Fleet, Namespace, PATIENCE, WriteCounter, apply, eventually, get, objects, server,
};
use kube::api::{Patch, PatchParams};
use ollama_fleet_operator::api::OllamaServer;
use serde_json::json;

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
