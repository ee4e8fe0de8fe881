//! `FleetPlugin`: one more thing that the operator reads on every selected server.

mod agent;
mod status;

pub use agent::{
    Agent, AgentFormat, AgentScheme, Metric, PluginRule, Reading, Reduce, RuleOutcome, Severity, Value,
    ValueType,
};
pub use status::{FleetPluginStatus, ServerCounts};

use super::rules;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// What extends the operator: an HTTP endpoint that is read on every selected server of the same namespace.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "ollama-fleet.io",
    version = "v1alpha1",
    kind = "FleetPlugin",
    plural = "fleetplugins",
    shortname = "fplug",
    category = "ollama-fleet",
    namespaced,
    status = "FleetPluginStatus",
    validation = rules::plugin_name(),
    doc = "Extends the fleet: an Agent plugin is an HTTP endpoint that the operator reads on every selected server of the same namespace, beside its own poll.",
    printcolumn(name = "Type", type_ = "string", json_path = ".spec.type"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.installedVersion"),
    printcolumn(name = "State", type_ = "string", json_path = ".status.state"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Servers",
        type_ = "string",
        json_path = ".status.servers.summary",
        description = "Servers where it works, of those where it is asked"
    ),
    printcolumn(name = "Endpoint", type_ = "string", json_path = ".spec.agent.endpoint"),
    printcolumn(name = "Port", type_ = "integer", json_path = ".spec.agent.defaultPort"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message",
        priority = 1
    )
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = rules::needs_agent(), validation = rules::needs_version())]
pub struct FleetPluginSpec {
    /// `Agent`: an HTTP endpoint on each server. Cannot be changed later.
    #[serde(rename = "type")]
    #[x_kube(validation = rules::type_is_fixed())]
    pub type_: PluginType,

    /// Version of the plugin, a semantic version. Example: `1.0.0`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    #[x_kube(validation = rules::semantic_version())]
    pub version: Option<String>,

    /// What it does, in a sentence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub description: Option<String>,

    /// Who wrote it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<Author>,

    /// Words to find it by. Example: `[gpu, temperature]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub keywords: Vec<String>,

    /// What it offers, as free words. Example: `[machine-readings]`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(min = 1, max = 64)), extend("x-kubernetes-list-type" = "atomic"))]
    pub provides: Vec<String>,

    /// The servers of this namespace that it is for, by their labels; absent or empty: all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(schema_with = "selector_schema")]
    #[x_kube(validation = rules::selector_operators())]
    pub server_selector: Option<LabelSelector>,

    /// `true`: it is asked nowhere. Default: `false`.
    #[serde(default)]
    pub suspend: bool,

    /// What must be there for it to work; while it is not, the plugin is Inactive.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dependencies: Option<Dependencies>,

    /// How to read the endpoint; required for type Agent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub agent: Option<Agent>,
}

/// What kind of plugin.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum PluginType {
    Agent,
}

/// Who wrote a plugin.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Author {
    /// Name of the person or group.
    #[schemars(length(min = 1, max = 128))]
    pub name: String,
    /// Where to write to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 254))]
    pub email: Option<String>,
    /// Where to read more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub url: Option<String>,
}

/// What a plugin needs. Ranges are those of npm: `^1.2`, `~1.2`, `>=1 <3`, `1.x`, `1 || 2`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
pub struct Dependencies {
    /// Versions of the operator that it works with. Example: `>=0.1 <1`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    #[x_kube(validation = rules::version_range("platform"))]
    pub platform: Option<String>,
    /// Other plugins of this namespace that must be Active, with the versions that will do. Example: `{metrics-core: ">=2"}`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "plugin_ranges_schema")]
    #[x_kube(validation = rules::plugin_range_names(), validation = rules::plugin_ranges())]
    pub plugins: BTreeMap<String, String>,
}

/// Ranges of versions by the names of plugins.
fn plugin_ranges_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "maxProperties": 16,
        "additionalProperties": { "type": "string", "maxLength": 128 }
    })
}

/// That of a Kubernetes label selector, with bounds; without them its rules would count as too expensive.
fn selector_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
    schemars::json_schema!({
        "type": "object",
        "x-kubernetes-map-type": "atomic",
        "properties": {
            "matchLabels": {
                "description": "Labels that a server must have, with these values. Example: `{gpu: big}`.",
                "type": "object",
                "maxProperties": 16,
                "additionalProperties": { "type": "string", "maxLength": 63 }
            },
            "matchExpressions": {
                "description": "Conditions on labels, all of which must hold.",
                "type": "array",
                "maxItems": 16,
                "x-kubernetes-list-type": "atomic",
                "items": {
                    "description": "A condition on one label.",
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "Key of the label. Example: `gpu`.",
                            "type": "string",
                            "maxLength": 317
                        },
                        "operator": {
                            "description": "`In` or `NotIn` with values, `Exists` or `DoesNotExist` without.",
                            "type": "string",
                            "maxLength": 16
                        },
                        "values": {
                            "description": "Values for `In` and `NotIn`. Example: `[big, huge]`.",
                            "type": "array",
                            "maxItems": 32,
                            "x-kubernetes-list-type": "atomic",
                            "items": { "type": "string", "maxLength": 63 }
                        }
                    }
                }
            }
        }
    })
}
