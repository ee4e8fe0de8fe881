//! What the operator says about a plugin.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What the operator made of the plugin.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct FleetPluginStatus {
    /// `Active`; `Inactive`: suspended, or something that it depends on is missing; `Error`: not accepted.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 16))]
    pub state: Option<String>,
    /// The generation of the spec that this status is about.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// The version that is in use.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub installed_version: Option<String>,
    /// How it fares on the servers.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub servers: Option<ServerCounts>,
    /// `Accepted`: the spec is usable. `Ready`: accepted, and no server matched or at least one healthy.
    /// `RulesHealthy`, where it has rules: they can be judged on every server.
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
}

/// On how many servers a plugin works.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServerCounts {
    /// Servers that the selector matches.
    pub matched: i32,
    /// Of those, where it answers as it should.
    pub healthy: i32,
    /// Of those, where it does not.
    pub failing: i32,
    /// Of those, where it is not asked: its port is 0 there, or the server is suspended.
    pub disabled: i32,
    /// Healthy of those that are asked. Example: `3/4`.
    #[schemars(length(max = 24))]
    pub summary: String,
}
