//! Credentials of agents: `agent.secretRef` of a plugin, under the same rules as those of hosts.

use super::{Data, secret};
use crate::support::{
    PATIENCE, Scene, eventually, holds_for,
    objects::{fleet_metrics, has_condition},
};
use ollama_fleet_operator::api::{FleetPlugin, server_status::PluginReport};
use serde_json::json;
use std::time::Duration;

async fn report(scene: &Scene) -> Result<PluginReport, String> {
    let reports = scene.status("a").await.plugins.unwrap_or_default();
    reports.into_iter().next().ok_or_else(|| "no report".to_owned())
}

fn plugin(port: u16) -> FleetPlugin {
    let mut plugin = fleet_metrics(port);
    plugin.spec.agent.as_mut().unwrap().secret_ref =
        Some(serde_json::from_value(json!({"name": "s"})).unwrap());
    plugin
}

/// An agent whose Secret is missing, or not for this host, is in Error at once, with that reason, and is not asked; the
/// server itself is Ready all the while. With the right Secret it is read. It gets its own credential and not the host's.
#[tokio::test]
async fn an_agent_is_asked_with_its_own_secret_or_not_at_all() {
    let scene = Scene::new(1).await;
    let address = scene.fleet.address(0).to_string();
    scene
        .fleet
        .patch("0", json!({"authorization": "Bearer host", "agentAuthorization": "Bearer agent"}))
        .await;
    let (host, agent): (Data<'_>, Data<'_>) = (&[("token", b"host")], &[("token", b"agent")]);
    scene.apply(&secret("host", &address, host)).await;
    scene.apply(&plugin(scene.fleet.agent_port())).await;
    scene.server("a", 0, json!({"secretRef": {"name": "host"}})).await;
    for (written, reason) in
        [(None, "SecretNotFound"), (Some(secret("s", "192.0.2.1", agent)), "SecretNotAllowed")]
    {
        if let Some(secret) = &written {
            scene.apply(secret).await;
        }
        eventually(PATIENCE, reason, async || {
            let report = report(&scene).await?;
            let right = report.state.as_deref() == Some("Error") && report.reason.as_deref() == Some(reason);
            if right { Ok(()) } else { Err(format!("{report:?}")) }
        })
        .await;
        let message = report(&scene).await.unwrap().message.unwrap();
        assert!(message.starts_with("agent.secretRef: "), "{message}");
    }
    has_condition(&scene.get("a").await, "Ready", "True", "Online").unwrap();
    has_condition(&scene.get("a").await, "PluginsHealthy", "False", "PluginFailed").unwrap();
    holds_for(Duration::from_secs(2), "the agent is not asked", async || {
        scene.fleet.host_stats(0).await.agent_connections == 0
    })
    .await;
    scene.until_told("a", &["PluginFailed"]).await;

    scene.apply(&secret("s", &address, agent)).await;
    scene.within(Duration::from_secs(12), "a", "PluginsHealthy", "True", "AllHealthy").await;
    scene.until_told("a", &["PluginFailed", "PluginRecovered"]).await;
    let stats = scene.fleet.host_stats(0).await;
    assert!(stats.unauthorized == 0 && stats.with_authorization == stats.total, "{stats:?}");
}
