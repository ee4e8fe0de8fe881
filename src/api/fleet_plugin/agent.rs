//! What a plugin of type Agent says: the endpoint, the values that are taken from its answer, and the rules over them.

use crate::api::{ollama_server::LocalRef, quantity::Quantity, rules};
use kube::KubeSchema;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// An HTTP endpoint on each selected server, and what of its answer is kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Port that the agent listens on, 1 to 65535, where the server does not say otherwise in pluginPorts. Example: `9100`.
    #[x_kube(validation = rules::default_port())]
    pub default_port: i32,

    /// Path that is read, starting with `/`. `{host}` in it is replaced by the server's host, percent-encoded, for
    /// exporters that are asked about another machine. Examples: `/metrics`, `/ipmi?target={host}`.
    #[schemars(length(max = 256))]
    #[x_kube(validation = rules::path("endpoint", "/metrics"))]
    pub endpoint: String,

    /// Name under which a server overrides the port, in its pluginPorts; unique in the namespace. Example: `metricsPort`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    #[x_kube(validation = rules::camel_case("configKey", "metricsPort"))]
    pub config_key: Option<String>,

    /// `http` or `https`. Default: `http`.
    #[serde(default)]
    pub scheme: AgentScheme,

    /// How the answer is read: `JSON`, or `Prometheus`, its text exposition format. `Auto` goes by the answer's
    /// Content-Type, and by its first character where that does not tell. Default: `Auto`.
    #[serde(default)]
    pub format: AgentFormat,

    /// Time between two readings, rounded up to a multiple of the server's own interval; absent: every poll.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::duration("interval", "1s", "24h", "30s"))]
    pub interval: Option<String>,

    /// Time that one reading may take in all. Default: `3s`. At most 80% of the server's interval is used.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::duration("timeout", "100ms", "1m", "3s"))]
    pub timeout: Option<String>,

    /// `true`: it is asked only while the host is known to have a model in memory that does not sleep, and ever more
    /// rarely, up to once an hour, while none of its counters moves; otherwise the plugin is Idle, which is healthy. For
    /// endpoints that wake a model or keep it awake, such as llama-server's /metrics. Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub only_while_loaded: bool,

    /// A Secret of this namespace with credentials for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret_ref: Option<LocalRef>,

    /// A Secret of this namespace with certificates for the agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cert_secret_ref: Option<LocalRef>,

    /// What of the answer is kept; absent or empty: its numbers and booleans, at most 32, in stable order.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = rules::unique_value_names())]
    pub values: Vec<Value>,

    /// What is worth a condition or an Event on the server, judged at each answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = rules::unique_rule_names())]
    pub rules: Vec<PluginRule>,
}

/// The transport of an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum AgentScheme {
    #[default]
    Http,
    Https,
}

/// How an agent's answer is read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AgentFormat {
    #[default]
    Auto,
    #[serde(rename = "JSON")]
    Json,
    Prometheus,
}

/// One value taken from an agent's answer: by exactly one of jsonPaths, metric and expression.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::one_source(), validation = rules::rate_needs_numbers(), validation = rules::label_is_for_hostnames())]
pub struct Value {
    /// Name of the value in status and metrics, lowerCamelCase. Example: `gpuTemperature`.
    #[schemars(length(max = 63))]
    #[x_kube(validation = rules::camel_case("the name of a value", "gpuTemperature"))]
    pub name: String,

    /// `Integer` (numbers are multiplied, then rounded half away from zero), `Boolean`, `Time` (RFC 3339, or seconds
    /// since 1970) or `Hostname`. Default: `Integer`.
    #[serde(default, rename = "type")]
    pub type_: ValueType,

    /// RFC 9535 JSONPath expressions; the first that matches anything counts. At most two of `..`, `*`, slices and
    /// filters in one, eight such paths in a plugin, 32 selectors, no functions. Examples: `["$.temperatures.gpu"]`, `["$.gpus[*].power"]`, `["$.sensors[?@.name == 'gpu'].value"]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(min = 1, max = 8), inner(length(max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    #[x_kube(validation = rules::json_path())]
    pub json_paths: Vec<String>,

    /// A metric of an answer in Prometheus' text format.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub metric: Option<Metric>,

    /// A CEL expression over the values before this one, as they are published. Absent if one that it needs is absent.
    /// Example: `values.diskTotal - values.diskFree`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 1024))]
    pub expression: Option<String>,

    /// `true`: by how much the number grows a second, for counters. A counter that fell since the last answer, because
    /// its program started anew, gives no value this time. Default: `false`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub rate: bool,

    /// What becomes of several matches of one path, or several series of one metric: `First`, `Sum`, `Max` or `Min`;
    /// of their rates, if it is a rate. A sum with a member that is not known is absent. Default: `First`.
    #[serde(default)]
    pub reduce: Reduce,

    /// Factor for numbers, as a quantity, applied before rounding: `1Mi` turns MiB into bytes, `100m` is 0.1.
    /// Default: `1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = rules::quantity("multiplier", "1Mi, 1000 or 100m"))]
    pub multiplier: Option<Quantity>,

    /// The field of status.machine that this value fills. Example: `gpuTemperatureCelsius`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reading: Option<Reading>,
}

/// The series of one metric.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Metric {
    /// Name of the metric. Example: `node_memory_MemAvailable_bytes`.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::metric_name())]
    pub name: String,
    /// Labels that a series must have, with exactly these values; an empty one is the same as none.
    /// Example: `{mountpoint: /}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels_schema")]
    pub labels: BTreeMap<String, String>,
    /// Labels that tell one measured thing from another: of series that agree in all of these only the one with the
    /// largest number counts, before `reduce`. Example: `[UUID]`, where an exporter shows one GPU once for each job.
    #[serde(default, rename = "distinctBy", skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(min = 1, max = 256)), extend("x-kubernetes-list-type" = "atomic"))]
    pub distinct_by: Vec<String>,
    /// The label whose text is the value; only for type Hostname. Example: `nodename`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256))]
    pub label: Option<String>,
}

/// What is worth telling about a server.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[serde(rename_all = "camelCase")]
pub struct PluginRule {
    /// Name of the rule, UpperCamelCase; the reason of its Events, and the end of its condition's type. Example: `QueueLong`.
    #[schemars(length(max = 63))]
    #[x_kube(validation = rules::rule_name())]
    pub name: String,
    /// A CEL expression that is true while the rule holds, over `values`, `previous` (the values of the answer before)
    /// and `server`. Example: `values.queueDepth > 10 && server.loadedCount > 0`.
    #[schemars(length(min = 1, max = 1024))]
    pub when: String,
    /// How long it must hold before it counts. Example: `5m`. Default: it counts at once.
    #[serde(default, rename = "for", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 24))]
    #[x_kube(validation = rules::duration("for", "1s", "24h", "5m"))]
    pub for_: Option<String>,
    /// `Condition`: a condition `<plugin>.plugins.ollama-fleet.io/<name>` on the server. `Event`: an Event when it
    /// begins, and `<name>Resolved` when it ends. Default: `Condition`.
    #[serde(default, rename = "as")]
    pub as_: RuleOutcome,
    /// `Info`, `Warning` or `Critical`; the reason of the condition. Events are of type Normal for `Info`, else Warning.
    /// Default: `Warning`.
    #[serde(default)]
    pub severity: Severity,
    /// What it means, in a sentence that says what to do.
    #[schemars(length(min = 1, max = 256))]
    #[x_kube(validation = rules::plain_text("message"))]
    pub message: String,
}

/// What a rule makes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RuleOutcome {
    #[default]
    Condition,
    Event,
}

/// How bad it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Severity {
    Info,
    #[default]
    Warning,
    Critical,
}

impl Severity {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Info => "Info",
            Self::Warning => "Warning",
            Self::Critical => "Critical",
        }
    }
}

/// The type of a value.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ValueType {
    #[default]
    Integer,
    Boolean,
    Time,
    Hostname,
}

/// What becomes of several matches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Reduce {
    #[default]
    First,
    Sum,
    Max,
    Min,
}

/// A field of `status.machine`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Reading {
    Hostname,
    BootTime,
    /// Seconds since the machine started; boot time is when the answer came, less that.
    UptimeSeconds,
    CpuPercent,
    GpuPercent,
    CpuTemperatureCelsius,
    GpuTemperatureCelsius,
    MemoryTotal,
    MemoryAvailable,
    DiskTotal,
    DiskUsed,
    DiskUsedPercent,
}

impl Reading {
    /// The name of the field.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Hostname => "hostname",
            Self::BootTime => "bootTime",
            Self::UptimeSeconds => "uptimeSeconds",
            Self::CpuPercent => "cpuPercent",
            Self::GpuPercent => "gpuPercent",
            Self::CpuTemperatureCelsius => "cpuTemperatureCelsius",
            Self::GpuTemperatureCelsius => "gpuTemperatureCelsius",
            Self::MemoryTotal => "memoryTotal",
            Self::MemoryAvailable => "memoryAvailable",
            Self::DiskTotal => "diskTotal",
            Self::DiskUsed => "diskUsed",
            Self::DiskUsedPercent => "diskUsedPercent",
        }
    }
}

/// Label values by their names.
fn labels_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "maxProperties": 8,
        "additionalProperties": { "type": "string", "maxLength": 256 }
    })
}
