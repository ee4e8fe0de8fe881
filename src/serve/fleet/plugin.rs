//! What is shown of a plugin: the manifest under the field names of the old `plugin.json`, so that programs written
//! for it read this one, and what has come since. Pure.

use crate::{
    api::{
        FleetPlugin,
        fleet_plugin::{Author, Dependencies, PluginType, ServerCounts},
    },
    controller::server::live::Snapshot,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use serde::Serialize;
use std::cmp::Reverse;

/// Most servers of which one plugin tells; about 200 KiB. Those where it fails come first.
pub const SERVER_STATES_MAX: usize = 1000;

/// A plugin in a list.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest<'a> {
    // The old fields, in the old order. The first four were always there, as text.
    name: &'a str,
    version: &'a str,
    description: &'a str,
    r#type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    default_port: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    endpoint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    config_key: Option<&'a str>,
    // What has come since.
    namespace: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    servers: Option<&'a ServerCounts>,
}

/// A plugin by itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details<'a> {
    #[serde(flatten)]
    manifest: Manifest<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<&'a Author>,
    keywords: &'a [String],
    provides: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    dependencies: Option<&'a Dependencies>,
    suspend: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    installed_version: Option<&'a str>,
    conditions: &'a [Condition],
    /// Absent for callers who may not list servers here.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_states: Option<Vec<ServerState<'a>>>,
    /// How many the list leaves out; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    server_states_omitted: Option<usize>,
}

/// How the plugin fares on one server.
#[derive(Debug, Serialize)]
struct ServerState<'a> {
    server: &'a str,
    /// As in the server's status; null: not asked yet.
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

pub fn manifest(plugin: &FleetPlugin) -> Manifest<'_> {
    let spec = &plugin.spec;
    let status = plugin.status.as_ref();
    let agent = spec.agent.as_ref();
    let installed = status.and_then(|status| status.installed_version.as_deref());
    Manifest {
        name: plugin.metadata.name.as_deref().unwrap_or_default(),
        version: spec.version.as_deref().or(installed).unwrap_or_default(),
        description: spec.description.as_deref().unwrap_or_default(),
        r#type: match spec.type_ {
            PluginType::Agent => "agent",
        },
        default_port: agent.map(|agent| agent.default_port),
        endpoint: agent.map(|agent| agent.endpoint.as_str()),
        config_key: agent.and_then(|agent| agent.config_key.as_deref()),
        namespace: plugin.metadata.namespace.as_deref().unwrap_or_default(),
        state: status.and_then(|status| status.state.as_deref()),
        servers: status.and_then(|status| status.servers.as_ref()),
    }
}

/// `servers`: those of the plugin's namespace, if the caller may know them.
pub fn details<'a>(plugin: &'a FleetPlugin, servers: Option<&'a [Snapshot]>) -> Details<'a> {
    let spec = &plugin.spec;
    let status = plugin.status.as_ref();
    let manifest = manifest(plugin);
    let mut fares = servers.map(|servers| server_states(manifest.name, servers));
    let omitted = fares.as_ref().map_or(0, |fares| fares.len().saturating_sub(SERVER_STATES_MAX));
    if let Some(fares) = &mut fares {
        fares.truncate(SERVER_STATES_MAX);
    }
    Details {
        manifest,
        author: spec.author.as_ref(),
        keywords: &spec.keywords,
        provides: &spec.provides,
        dependencies: spec.dependencies.as_ref(),
        suspend: spec.suspend,
        installed_version: status.and_then(|status| status.installed_version.as_deref()),
        conditions: status.map_or(&[], |status| &status.conditions),
        server_states: fares,
        server_states_omitted: Some(omitted).filter(|omitted| *omitted > 0),
    }
}

fn server_states<'a>(plugin: &str, servers: &'a [Snapshot]) -> Vec<ServerState<'a>> {
    let mut fares: Vec<_> = servers
        .iter()
        .filter_map(|server| {
            let reports = server.status.plugins.as_deref().unwrap_or_default();
            let report = reports.iter().find(|report| report.name == plugin)?;
            let (state, reason) = (report.state.as_deref(), report.reason.as_deref());
            Some(ServerState { server: &server.name, state, reason })
        })
        .collect();
    fares.sort_by_key(|fare| (Reverse(fare.state == Some("Error")), fare.server));
    fares
}
