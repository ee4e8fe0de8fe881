//! Plugins whose status is due when a replica comes to lead: it has judged them long before, and had nobody to tell.

use super::{World, leader, leads, times};
use crate::support::{
    PATIENCE, apply, eventually, get,
    objects::{fleet_metrics, patch_spec},
};
use ollama_fleet_operator::api::FleetPlugin;
use serde_json::json;

/// Waits until the plugin's status is about its newest generation, and `right`.
async fn until(world: &World, what: &str, right: impl Fn(&FleetPlugin) -> bool) {
    eventually(PATIENCE, what, async || {
        let plugin: FleetPlugin = get(&world.client, &world.namespace, "fleet-metrics").await;
        let observed = plugin.status.as_ref().and_then(|status| status.observed_generation);
        if observed == plugin.metadata.generation && right(&plugin) {
            Ok(plugin.metadata.generation)
        } else {
            Err(format!("generation {:?}: {:?}", plugin.metadata.generation, plugin.status))
        }
    })
    .await;
}

/// A plugin that was there before anybody led gets its status from the first leader, though there is no server, and so
/// nothing else that would ask for it.
#[tokio::test]
async fn a_plugin_that_waited_for_a_leader_is_answered() {
    let world = World::without_servers(1).await;
    apply(&world.client, &world.namespace, &fleet_metrics(world.fleet.agent_port())).await;
    let replica = world.replica(times()).start().await;
    leader(PATIENCE, &[&replica]).await;
    until(&world, "the plugin is answered", |plugin| {
        plugin.status.as_ref().is_some_and(|status| status.state.as_deref() == Some("Active"))
    })
    .await;
}

/// A plugin that was edited after the leader's death is answered by the next one, though that knew of the edit before it
/// led.
#[tokio::test]
async fn a_plugin_that_was_edited_between_two_leaders_is_answered() {
    let world = World::new(1).await;
    apply(&world.client, &world.namespace, &fleet_metrics(world.fleet.agent_port())).await;
    let first = world.replica(times()).start().await;
    until(&world, "the plugin is settled", |plugin| {
        let servers = plugin.status.as_ref().and_then(|status| status.servers.as_ref());
        servers.is_some_and(|servers| servers.summary == "1/1")
    })
    .await;
    let second = world.replica(times()).start().await;
    first.kill();
    let description = json!({ "description": "edited between two leaders" });
    let edited: FleetPlugin = patch_spec(&world.client, &world.namespace, "fleet-metrics", description).await;
    assert_eq!(edited.metadata.generation, Some(2));
    assert!(!leads(&second).await, "the edit came too late");
    leader(PATIENCE, &[&second]).await;
    until(&world, "the edit is answered", |plugin| plugin.metadata.generation == Some(2)).await;
}
