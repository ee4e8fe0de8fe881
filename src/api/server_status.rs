//! `OllamaServer.status`: what the operator saw. Written by the operator only.

use super::quantity::Quantity;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::{collections::BTreeMap, sync::Arc};

/// Most loaded models that status lists; a host holds a handful.
pub const LOADED_MODELS_MAX: usize = 32;
/// Most changes of Reachable that status remembers; four within ten minutes make a server Flapping.
pub const TRANSITION_TIMES_MAX: usize = 8;
/// Bytes of JSON that the lists of models, on disk and in memory, may take, so that the whole object stays under 32 KiB.
pub const MODELS_BYTES_MAX: usize = 24 * 1024;
/// Most values that status keeps of one plugin.
pub const PLUGIN_VALUES_MAX: usize = 32;
/// Most plugins that status lists for one server.
pub const PLUGINS_MAX: usize = 64;

/// What the operator last saw of the host. Absent fields are unknown; an empty list is known to be empty.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OllamaServerStatus {
    /// The generation of the spec that this status is about; absent: never polled.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The base URL that was asked. Example: `http://192.168.1.100:11434`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub observed_endpoint: Option<String>,
    /// The backendType that was asked, so that a change of it is noticed across a restart of the operator.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub observed_backend: Option<String>,
    /// When the operator last confirmed this status. Older than 10 minutes: the status is stale.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_heartbeat_time: Option<Time>,
    /// When the host last answered as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_online_time: Option<Time>,
    /// The value of the annotation ollama-fleet.io/requestedAt that was last acted on.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub last_handled_requested_at: Option<String>,
    /// Polls that failed in a row, as of the last write.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub consecutive_failures: Option<i32>,
    /// Plugins that work, of those that are asked on this server. Example: `2/3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub plugin_summary: Option<String>,
    /// Version that the host reports. Example: `0.24.0`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub version: Option<String>,
    /// Models on disk, sorted by name; as many as fit into 24 KiB.
    // By far the longest list and the one that changes least: every copy of a status shares it.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 500), extend("x-kubernetes-list-type" = "atomic"))]
    pub models: Option<Arc<[Model]>>,
    /// Number of models on disk, those that models leaves out included.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_count: Option<i32>,
    /// Disk space of all models. Example: `9216Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_size: Option<Quantity>,
    /// Models that the list leaves out because it would not fit; absent: none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub models_omitted: Option<i32>,
    /// Models in memory, sorted by name; at most 32.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    pub loaded_models: Option<Vec<LoadedModel>>,
    /// Number of models in memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub loaded_count: Option<i32>,
    /// GPU memory that the loaded models take. Example: `7936Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vram_used: Option<Quantity>,
    /// Readings of the machine, from agent plugins.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub machine: Option<Machine>,
    /// The agent plugins that are asked on this server, sorted by name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64), extend("x-kubernetes-list-type" = "atomic"))]
    pub plugins: Option<Vec<PluginReport>>,
    /// The last changes of Reachable, oldest first; at most 8.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend("x-kubernetes-list-type" = "atomic"))]
    pub recent_transition_times: Vec<Time>,
    /// Ready, Reachable, Accepted; PluginsHealthy where plugins are asked; Stalled only while Accepted is False;
    /// ThermalPressure, MemoryPressure, DiskPressure and Flapping once known.
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// A model on the host's disk.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Model {
    /// Name with tag. Example: `qwen3:8b`.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of the manifest, 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Disk space. Example: `4983Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// Architecture family. Example: `qwen3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub family: Option<String>,
    /// Number of parameters as the host puts it. Example: `8.2B`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub parameter_size: Option<String>,
    /// Quantization. Example: `Q4_K_M`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub quantization: Option<String>,
    /// Longest context that the model was made for, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<i64>,
    /// What the model can do. Example: `[completion, tools]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16), inner(length(max = 32)), extend("x-kubernetes-list-type" = "atomic"))]
    pub capabilities: Option<Vec<String>>,
    /// When the model last changed on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub modified_time: Option<Time>,
    /// Where the model really runs, if it is a stub of a cloud model.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub remote_host: Option<String>,
}

/// A model in the host's memory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct LoadedModel {
    /// Name with tag. Example: `qwen3:8b`.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Digest of the manifest, 64 hexadecimal digits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub digest: Option<String>,
    /// Memory in all, main and GPU, the context included. Example: `9216Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub size: Option<Quantity>,
    /// GPU memory of that. Example: `9216Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vram: Option<Quantity>,
    /// Context that it was loaded with, in tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub context_length: Option<i64>,
    /// Where it runs, as `ollama ps` puts it. Examples: `100% GPU`, `25%/75% CPU/GPU`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub processor: Option<String>,
    /// `Loaded`, or `Stopping` when its time is over and it is still there.
    #[schemars(length(max = 16))]
    pub state: String,
    /// When it will be unloaded if nobody uses it; absent: never, or unknown.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expiration_time: Option<Time>,
}

/// Readings of the machine. Each comes from the agent plugin that declares it; what none reports is absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Machine {
    /// The machine's own name.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    pub hostname: Option<String>,
    /// When it started.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub boot_time: Option<Time>,
    /// CPU in use, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_percent: Option<i64>,
    /// GPU in use, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_percent: Option<i64>,
    /// Temperature of the CPU, in degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_temperature_celsius: Option<i64>,
    /// Temperature of the hottest GPU, in degrees Celsius.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_temperature_celsius: Option<i64>,
    /// Main memory. Example: `64265Mi`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_total: Option<Quantity>,
    /// Main memory that programs could still take.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub memory_available: Option<Quantity>,
    /// Size of the disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_total: Option<Quantity>,
    /// Disk space in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_used: Option<Quantity>,
    /// Disk space in use, in percent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_used_percent: Option<i64>,
}

/// What one agent plugin said on this server.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct PluginReport {
    /// Name of the FleetPlugin.
    #[schemars(length(max = 253))]
    pub name: String,
    /// `Active`, `Idle` (it is asked only while a model is in memory, and none is), `Disabled` (its port is 0 here) or
    /// `Error`; absent: not asked yet.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub state: Option<String>,
    /// Why it is in Error; in Active, `EvaluationFailed`, `ImplausibleReading` or `TooManyConditions`. Example: `ConnectionRefused`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// The reason in words.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub message: Option<String>,
    /// When it last answered as it should.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_success_time: Option<Time>,
    /// What it reported, at most 32 scalars, as of the last write; metrics have them at full rate.
    // Shared with whoever else knows them, as they are many and come anew with each answer.
    #[serde(skip_serializing_if = "values_are_none")]
    #[schemars(schema_with = "values_schema")]
    pub values: Arc<BTreeMap<String, Scalar>>,
    /// The rules that hold, by name.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 63)), extend("x-kubernetes-list-type" = "atomic"))]
    pub active_rules: Vec<String>,
}

/// A value of a plugin as it stands in status: never free text.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Scalar {
    Integer(i64),
    Boolean(bool),
    /// An RFC 3339 time or a host name.
    Text(String),
}

fn values_are_none(values: &Arc<BTreeMap<String, Scalar>>) -> bool {
    values.is_empty()
}

fn values_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "x-kubernetes-map-type": "atomic",
        "additionalProperties": { "x-kubernetes-preserve-unknown-fields": true }
    })
}
