//! What is shown of a server: what people and dashboards look for, under the names that the fields have in the object.
//! Pure. Of the spec only what says where the server is and what it has; never anything of a Secret.

use crate::{
    api::{
        condition::{self, Truth},
        ollama_server::Capacity,
        quantity::Quantity,
        server_status::{LoadedModel, Machine, Model, PluginReport},
    },
    controller::server::live::Snapshot,
};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use serde::Serialize;

/// A server in a list. Without the names of the models on disk: of 10,000 servers they would be most of the answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Server<'a> {
    namespace: &'a str,
    name: &'a str,
    /// The object's name if it has no other.
    display_name: &'a str,
    host: &'a str,
    backend_type: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    capacity: Option<&'a Capacity>,
    /// The condition of that name; null: nobody knows.
    ready: Option<bool>,
    reachable: Option<bool>,
    /// Of the condition Ready.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_count: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    model_size: Option<&'a Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loaded_count: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    loaded_models: Option<&'a [LoadedModel]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    vram_used: Option<&'a Quantity>,
    #[serde(skip_serializing_if = "Option::is_none")]
    machine: Option<&'a Machine>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugin_summary: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    plugins: Option<Plugins<'a>>,
    consecutive_failures: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_online_time: Option<&'a Time>,
    #[serde(skip_serializing_if = "Option::is_none")]
    last_heartbeat_time: Option<&'a Time>,
}

/// A server by itself.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Details<'a> {
    #[serde(flatten)]
    server: Server<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models: Option<&'a [Model]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    models_omitted: Option<i32>,
    conditions: &'a [Condition],
}

/// The plugins of a server: in a list how they fare, by itself also what they said.
#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Plugins<'a> {
    Brief(Vec<Plugin<'a>>),
    Whole(&'a [PluginReport]),
}

#[derive(Debug, Serialize)]
struct Plugin<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    state: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
}

pub fn brief(server: &Snapshot) -> Server<'_> {
    let plugins = server.status.plugins.as_deref().map(|reports| {
        let brief = reports.iter().map(|report| Plugin {
            name: &report.name,
            state: report.state.as_deref(),
            reason: report.reason.as_deref(),
        });
        Plugins::Brief(brief.collect())
    });
    shown(server, plugins)
}

pub fn details(server: &Snapshot) -> Details<'_> {
    let status = &*server.status;
    Details {
        server: shown(server, status.plugins.as_deref().map(Plugins::Whole)),
        models: status.models.as_deref(),
        models_omitted: status.models_omitted,
        conditions: &status.conditions,
    }
}

fn shown<'a>(server: &'a Snapshot, plugins: Option<Plugins<'a>>) -> Server<'a> {
    let spec = &server.object.spec;
    let status = &*server.status;
    let ready = condition::find(&status.conditions, condition::READY);
    let known = |type_| match condition::truth(&status.conditions, type_) {
        Truth::True => Some(true),
        Truth::False => Some(false),
        Truth::Unknown => None,
    };
    Server {
        namespace: &server.namespace,
        name: &server.name,
        display_name: spec.display_name.as_deref().unwrap_or(&server.name),
        host: &spec.host,
        backend_type: server.backend,
        capacity: spec.capacity.as_ref(),
        ready: known(condition::READY),
        reachable: known(condition::REACHABLE),
        reason: ready.map(|ready| ready.reason.as_str()),
        message: ready.map(|ready| ready.message.as_str()),
        version: status.version.as_deref(),
        model_count: status.model_count,
        model_size: status.model_size.as_ref(),
        loaded_count: status.loaded_count,
        loaded_models: status.loaded_models.as_deref(),
        vram_used: status.vram_used.as_ref(),
        machine: status.machine.as_ref(),
        plugin_summary: status.plugin_summary.as_deref(),
        plugins,
        consecutive_failures: server.failures,
        last_online_time: status.last_online_time.as_ref(),
        last_heartbeat_time: status.last_heartbeat_time.as_ref(),
    }
}
