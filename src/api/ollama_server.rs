//! `OllamaServer`: what a user says about one Ollama host outside the cluster.

use super::{quantity::Quantity, server_status::OllamaServerStatus};
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
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status", description = "Whether the server can be used now"),
    printcolumn(name = "Status", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason", description = "Why it is ready or not"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version", description = "Version that the server reports"),
    printcolumn(name = "Loaded", type_ = "integer", json_path = ".status.loadedCount", description = "Models in memory"),
    printcolumn(name = "Models", type_ = "integer", json_path = ".status.modelCount", description = "Models on disk"),
    printcolumn(name = "VRAM", type_ = "string", json_path = ".status.vramUsed", description = "GPU memory that the loaded models take"),
    printcolumn(name = "GPU-Temp", type_ = "integer", json_path = ".status.machine.gpuTemperatureCelsius", description = "Degrees Celsius, from an agent plugin"),
    printcolumn(name = "Heartbeat", type_ = "date", json_path = ".status.lastHeartbeatTime", description = "When the operator last confirmed this status"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(name = "Host", type_ = "string", json_path = ".spec.host", priority = 1),
    printcolumn(name = "Backend", type_ = "string", json_path = ".spec.backendType", priority = 1),
    printcolumn(name = "CPU%", type_ = "integer", json_path = ".status.machine.cpuPercent", priority = 1),
    printcolumn(name = "Mem-Free", type_ = "string", json_path = ".status.machine.memoryAvailable", priority = 1),
    printcolumn(name = "Disk%", type_ = "integer", json_path = ".status.machine.diskUsedPercent", priority = 1),
    printcolumn(name = "Plugins", type_ = "string", json_path = ".status.pluginSummary", priority = 1),
    printcolumn(name = "Failures", type_ = "integer", json_path = ".status.consecutiveFailures", priority = 1),
    printcolumn(name = "Message", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].message", priority = 1),
)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("(self.backendType == 'Plugin') == has(self.providerRef)").message("providerRef is required if and only if backendType is Plugin: write providerRef: {name: <FleetPlugin>} with backendType: Plugin, or remove it"),
)]
pub struct OllamaServerSpec {
    /// Free text for people; default: the object's name. Example: `Server 1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("!self.matches('[\\\\x00-\\\\x1f\\\\x7f]')").message("displayName must not contain control characters"))]
    pub display_name: Option<String>,

    /// Where the server is: a name, an IPv4 address or an IPv6 address in brackets, each with an optional :port, or
    /// http(s)://host[:port][/prefix]. Without a scheme: plain HTTP, port 11434. With one: the scheme's default port.
    /// Examples: `192.168.1.100:11434`, `[fd00::1]`, `https://gpu1.lab/ollama`.
    #[schemars(length(min = 1, max = 320))]
    #[x_kube(
        validation = Rule::new("!self.contains('@')").message("host must not contain user information (user:password@); put credentials into a Secret and name it in secretRef"),
        validation = Rule::new("!self.contains('?') && !self.contains('#')").message("host must not contain a query or a fragment; write host[:port] or http(s)://host[:port][/prefix]"),
        validation = Rule::new("!self.contains('://') || self.startsWith('http://') || self.startsWith('https://')").message("the scheme must be http:// or https://"),
        validation = Rule::new("self.contains('://') || !self.contains('/')").message("a path prefix needs a scheme; write for example http://gpu1.lab:11434/ollama"),
        validation = Rule::new("!self.matches('^(https?://)?[0-9A-Fa-f]*:[0-9A-Fa-f]*:[0-9A-Fa-f:.]*(/.*)?$')").message("an IPv6 address must be in brackets; write for example [fd00::1]:11434"),
        validation = Rule::new("!self.matches('^(https?://)?([^/:@]+|\\\\[[^\\\\]]*\\\\]):[0-9]+(/.*)?$') || self.matches('^(https?://)?([^/:@]+|\\\\[[^\\\\]]*\\\\]):([1-9][0-9]{0,3}|[1-5][0-9]{4}|6[0-4][0-9]{3}|65[0-4][0-9]{2}|655[0-2][0-9]|6553[0-5])(/.*)?$')").message("the port must be between 1 and 65535"),
        validation = Rule::new("self.matches('^(https?://)?([^@/]*@)?([A-Za-z0-9_]([A-Za-z0-9._-]*[A-Za-z0-9_])?[.]?|\\\\[[0-9A-Fa-f:.]+\\\\]|[0-9A-Fa-f:.]+)(:[0-9]+)?([/?#][^ ]*)?$') || (self.contains('://') && !self.startsWith('http'))").message("host must be a name, an IPv4 address or an IPv6 address in brackets, each with an optional :port, or http(s)://host[:port][/prefix]"),
    )]
    pub host: String,

    /// What answers there. Default: `Ollama`. `VLLM` asks /health and /v1/models, `Generic` only /health;
    /// `Plugin` leaves the talking to the hook plugin named in providerRef.
    #[serde(default)]
    pub backend_type: BackendType,

    /// The FleetPlugin of this namespace that talks to the host; required if and only if backendType is `Plugin`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub provider_ref: Option<LocalRef>,

    /// What the machine has, for people and for capacity metrics. Nothing is enforced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,

    /// The port of an agent plugin on this host, by the plugin's configKey; 0 turns that plugin off here. Absent: the
    /// plugin's defaultPort. Example: `{metricsPort: 9100}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(extend("maxProperties" = 32, "x-kubernetes-map-type" = "atomic"), schema_with = "plugin_ports_schema")]
    #[x_kube(
        validation = Rule::new("self.all(key, key.matches('^[a-z][A-Za-z0-9]{0,62}$'))").message("a key of pluginPorts is the configKey of a plugin: lowerCamelCase, at most 63 letters and digits, for example metricsPort"),
        validation = Rule::new("self.all(key, self[key] >= 0 && self[key] <= 65535)").message("a port in pluginPorts must be between 1 and 65535, or 0 to turn the plugin off on this server"),
    )]
    pub plugin_ports: BTreeMap<String, i32>,

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
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[A-Za-z0-9]([A-Za-z0-9.-]*[A-Za-z0-9])?$')").message("tlsServerName must be a DNS name, for example gpu1.lab"))]
    pub tls_server_name: Option<String>,

    /// Sent as the Host header; an Ollama that is bound to loopback behind a proxy answers 403 to names it does not
    /// know. Example: `localhost`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 260))]
    #[x_kube(validation = Rule::new("self.matches('^([A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?|\\\\[[0-9A-Fa-f:.]+\\\\])(:[0-9]{1,5})?$')").message("hostHeader must be a host name or address with an optional :port, for example localhost or localhost:11434"))]
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
    #[schemars(length(min = 1, max = 253))]
    #[x_kube(validation = Rule::new("self.matches('^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$')").message("name must be the name of an object in this namespace: lower case letters, digits, dots and dashes"))]
    pub name: String,
}

/// What the machine has.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Capacity {
    /// Main memory, as a quantity above 0. Example: `16Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) == int ? self > 0 : (isQuantity(self) && quantity(self).isGreaterThan(quantity('0')))").message("memory must be a quantity above 0, for example 16Gi"))]
    pub memory: Option<Quantity>,
    /// GPU memory, as a quantity above 0. Example: `12Gi`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = Rule::new("type(self) == int ? self > 0 : (isQuantity(self) && quantity(self).isGreaterThan(quantity('0')))").message("vram must be a quantity above 0, for example 12Gi"))]
    pub vram: Option<Quantity>,
}

/// How often and how patiently a host is asked. Durations are numbers with ms, s, m or h: `10s`, `1m30s`.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = Rule::new("!has(self.interval) || !has(self.timeout) || !self.interval.matches('^([0-9]{1,5}(ms|s|m|h)){1,3}$') || !self.timeout.matches('^([0-9]{1,5}(ms|s|m|h)){1,3}$') || duration(self.timeout) <= duration(self.interval)").message("timeout must not be longer than interval"))]
pub struct Poll {
    /// Time between two polls, 1s to 24h; default: the operator's --poll-interval (10s). An interval below its
    /// --min-poll-interval is raised to that, and the Accepted condition says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,5}(ms|s|m|h)){1,3}$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("interval must be a duration between 1s and 24h, for example 10s or 1m30s"))]
    pub interval: Option<String>,
    /// Time that one poll may take in all: name lookup, connection, headers and bodies; default: --poll-timeout (5s).
    /// At most 80% of the interval is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 2, max = 24))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,5}(ms|s|m|h)){1,3}$') && duration(self) >= duration('100ms') && duration(self) <= duration('5m')").message("timeout must be a duration between 100ms and 5m, for example 5s"))]
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
    #[schemars(length(min = 2, max = 24))]
    #[x_kube(validation = Rule::new("self.matches('^([0-9]{1,5}(ms|s|m|h)){1,3}$') && duration(self) >= duration('1s') && duration(self) <= duration('24h')").message("modelsInterval must be a duration between 1s and 24h, for example 60s"))]
    pub models_interval: Option<String>,
}

/// A maintenance: announced downtime.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Maintenance {
    /// Why, for people; shown in the Ready condition. Example: `new PSU`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    #[x_kube(validation = Rule::new("!self.matches('[\\\\x00-\\\\x1f\\\\x7f]')").message("reason must not contain control characters"))]
    pub reason: Option<String>,
    /// When it ends, as an RFC 3339 time; absent: until this field `maintenance` is removed. Example:
    /// `2026-12-01T18:00:00Z`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 40))]
    #[x_kube(validation = Rule::new("self.matches('^[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])T([01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9]([.][0-9]{1,9})?(Z|[+-][0-9]{2}:[0-9]{2})$')").message("endTime must be an RFC 3339 time with a zone, for example 2026-12-01T18:00:00Z"))]
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
