//! `OllamaServer`: what a user says about one Ollama host outside the cluster.

use super::{quantity::Quantity, rules, server_status::OllamaServerStatus};
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// One host outside the cluster that serves models: where it is, how it is asked, and what is too hot or too full.
///
/// The operator polls it and writes what it saw to status. A status whose lastHeartbeatTime is older than 10 minutes
/// is stale: the operator has not been running, or could not write.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ollama-fleet.io",
    version = "v1alpha1",
    kind = "OllamaServer",
    plural = "ollamaservers",
    shortname = "osrv",
    category = "ollama-fleet",
    namespaced,
    status = "OllamaServerStatus",
    doc = "One host outside the cluster that serves models. The operator polls it and writes what it saw to status. A status whose lastHeartbeatTime is older than 10 minutes is stale: the operator has not been running, or could not write.",
    selectable = ".spec.host",
    selectable = ".spec.backendType",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status",
        description = "Whether the server can be used now"
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason",
        description = "Why it is ready or not"
    ),
    printcolumn(
        name = "Version",
        type_ = "string",
        json_path = ".status.version",
        description = "Version that the server reports"
    ),
    printcolumn(
        name = "Loaded",
        type_ = "integer",
        json_path = ".status.loadedCount",
        description = "Models in memory"
    ),
    printcolumn(
        name = "Models",
        type_ = "integer",
        json_path = ".status.modelCount",
        description = "Models on disk"
    ),
    printcolumn(
        name = "VRAM",
        type_ = "string",
        json_path = ".status.vramUsed",
        description = "GPU memory that the loaded models take"
    ),
    printcolumn(
        name = "GPU-Temp",
        type_ = "integer",
        json_path = ".status.machine.gpuTemperatureCelsius",
        description = "Degrees Celsius, from an agent plugin"
    ),
    printcolumn(
        name = "Heartbeat",
        type_ = "date",
        json_path = ".status.lastHeartbeatTime",
        description = "When the operator last confirmed this status"
    ),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host", priority = 1),
    printcolumn(name = "Backend", type_ = "string", json_path = ".spec.backendType", priority = 1),
    printcolumn(name = "CPU%", type_ = "integer", json_path = ".status.machine.cpuPercent", priority = 1),
    printcolumn(
        name = "Mem-Free",
        type_ = "string",
        json_path = ".status.machine.memoryAvailable",
        priority = 1
    ),
    printcolumn(
        name = "Disk%",
        type_ = "integer",
        json_path = ".status.machine.diskUsedPercent",
        priority = 1
    ),
    printcolumn(name = "Plugins", type_ = "string", json_path = ".status.pluginSummary", priority = 1),
    printcolumn(
        name = "Failures",
        type_ = "integer",
        json_path = ".status.consecutiveFailures",
        priority = 1
    ),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::provider_ref(), validation = rules::health_path_backends())]
pub struct OllamaServerSpec {
    /// Free text for people; default: the object's name. Example: `Server 1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = rules::plain_text("displayName"))]
    pub display_name: Option<String>,

    /// Where the server is: a name, an IPv4 address or an IPv6 address in brackets, each with an optional :port, or
    /// http(s)://host[:port][/prefix]. Without a scheme: plain HTTP, port 11434. With one: the scheme's default port.
    /// Examples: `192.168.1.100:11434`, `[fd00::1]`, `https://gpu1.lab/ollama`.
    #[schemars(length(max = 320))]
    #[x_kube(validation = rules::host())]
    pub host: String,

    /// What answers there. Default: `Ollama`. `VLLM` asks /v1/models, and its health endpoint where that is known to be
    /// free; `Generic` asks the health endpoint only; `Plugin` leaves the talking to the hook plugin named in providerRef.
    #[serde(default)]
    pub backend_type: BackendType,

    /// The FleetPlugin of this namespace that talks to the host; required if and only if backendType is `Plugin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_ref: Option<LocalRef>,

    /// The path that tells whether the server is well, for backendType `VLLM` and `Generic`. Default: `/health`. A 2xx is
    /// well. It must not run a model: LiteLLM's /health does, and wants `/health/liveliness` here. With `VLLM` it is
    /// asked at every poll once it is set. Example: `/health/liveliness`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::path("healthPath", "/health"))]
    pub health_path: Option<String>,

    /// What the machine has, for people and for capacity metrics. Nothing is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,

    /// The port of an agent plugin on this host, by the plugin's configKey; 0 turns that plugin off here. Absent: the
    /// plugin's defaultPort. Example: `{metricsPort: 9100}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-map-type" = "atomic"), schema_with = "plugin_ports_schema")]
    #[x_kube(validation = rules::config_keys("pluginPorts", "metricsPort"), validation = rules::plugin_port_numbers())]
    pub plugin_ports: BTreeMap<String, i32>,

    /// Where an agent plugin is asked that measures this machine but is not on it, by the plugin's configKey: a name or
    /// an address, with an optional :port. Example: `{plugPort: "192.168.1.60:80"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "plugin_hosts_schema")]
    #[x_kube(validation = rules::config_keys("pluginHosts", "plugPort"), validation = rules::plugin_host_values())]
    pub plugin_hosts: BTreeMap<String, String>,

    /// How often and how patiently the host is asked. Every field is optional; what is absent follows the operator's flags.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub poll: Option<Poll>,

    /// Present: the server is in maintenance, until endTime if there is one. It is polled on, Ready is False, and
    /// Events of type Warning are dropped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,

    /// `true`: the host is not asked at all and the last data stays. Default: `false`.
    #[serde(default)]
    pub suspend: bool,

    /// A Secret of this namespace with the key `token`, or `username` and `password`, sent to the host.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,

    /// A Secret of this namespace with `ca.crt`, and `tls.crt` + `tls.key` for mutual TLS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<LocalRef>,

    /// The name that the host's certificate must carry; default: the name in host. Example: `gpu1.lab`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::tls_server_name())]
    pub tls_server_name: Option<String>,

    /// Sent as the Host header; an Ollama that is bound to loopback behind a proxy answers 403 to names it does not
    /// know. Example: `localhost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 260))]
    #[x_kube(validation = rules::host_header())]
    pub host_header: Option<String>,

    /// `true`: the host's certificate is not checked. Default: `false`. Shown in Accepted's message.
    #[serde(default)]
    pub insecure_skip_verify: bool,

    /// When a reading of an agent becomes a pressure condition and an Event.
    #[serde(default)]
    pub thresholds: Thresholds,
}

/// What answers at a host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
pub enum BackendType {
    #[default]
    Ollama,
    #[serde(rename = "VLLM")]
    Vllm,
    Generic,
    Plugin,
}

impl BackendType {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ollama => "Ollama",
            Self::Vllm => "VLLM",
            Self::Generic => "Generic",
            Self::Plugin => "Plugin",
        }
    }
}

/// A reference to an object of the same namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct LocalRef {
    /// Name of the object, in this object's namespace.
    #[schemars(length(max = 253))]
    #[x_kube(validation = rules::object_name())]
    pub name: String,
}

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Main memory, as a quantity above 0. Example: `16Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::quantity("memory", "16Gi"))]
    pub memory: Option<Quantity>,
    /// GPU memory, as a quantity above 0. Example: `12Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::quantity("vram", "12Gi"))]
    pub vram: Option<Quantity>,
}

/// How often and how patiently a host is asked. Durations are numbers with ms, s, m or h: `10s`, `1m30s`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::timeout_within_interval())]
pub struct Poll {
    /// Time between two polls, 1s to 24h; default: the operator's --poll-interval (10s). An interval below its
    /// --min-poll-interval is raised to that, and the Accepted condition says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::duration("interval", "1s", "24h", "10s or 1m30s"))]
    pub interval: Option<String>,
    /// Time that one poll may take in all: name lookup, connection, headers and bodies; default: --poll-timeout (5s).
    /// At most 80% of the interval is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::duration("timeout", "100ms", "5m", "5s"))]
    pub timeout: Option<String>,
    /// Polls that must fail in a row before the server counts as offline; default: --failure-threshold (3).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub failure_threshold: Option<i32>,
    /// Polls that must succeed in a row before an offline server counts as online again; default: 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub success_threshold: Option<i32>,
    /// Time between two readings of the list of models on disk, which is dearer than the rest; default: 60s.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::duration("modelsInterval", "1s", "24h", "60s"))]
    pub models_interval: Option<String>,
}

/// A maintenance: announced downtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Why, for people; shown in the Ready condition. Example: `new PSU`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::plain_text("reason"))]
    pub reason: Option<String>,
    /// When it ends, as an RFC 3339 time; absent: until this field `maintenance` is removed. Example:
    /// `2026-12-01T18:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[x_kube(validation = rules::end_time())]
    pub end_time: Option<String>,
}

/// When a reading becomes a pressure condition: when two polls running are at or past the number.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Thresholds {
    /// Degrees Celsius of the CPU from which ThermalPressure holds. Default: 85.
    #[schemars(range(min = 1, max = 200))]
    pub cpu_temperature_celsius: i32,
    /// Degrees Celsius of the hottest GPU from which ThermalPressure holds. Default: 90.
    #[schemars(range(min = 1, max = 200))]
    pub gpu_temperature_celsius: i32,
    /// Percent of the disk in use from which DiskPressure holds. Default: 90.
    #[schemars(range(min = 1, max = 100))]
    pub disk_used_percent: i32,
    /// Percent of memory still available at or below which MemoryPressure holds. Default: 10.
    #[schemars(range(min = 0, max = 99))]
    pub memory_available_percent: i32,
}

impl Default for Thresholds {
    fn default() -> Self {
        Self {
            cpu_temperature_celsius: 85,
            gpu_temperature_celsius: 90,
            disk_used_percent: 90,
            memory_available_percent: 10,
        }
    }
}

fn plugin_ports_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "x-kubernetes-map-type": "atomic",
        "additionalProperties": { "type": "integer" }
    })
}

/// Hosts by configKeys.
fn plugin_hosts_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "maxProperties": 32,
        "x-kubernetes-map-type": "atomic",
        "additionalProperties": { "type": "string", "minLength": 1, "maxLength": 260 }
    })
}
