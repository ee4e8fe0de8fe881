//! The custom resources: their types, the values inside them, and the conditions written about them.
//!
//! Nothing here does IO or reads a clock. What a user may write is said once, in the schema and its CEL rules;
//! what the schema cannot see is parsed at the edge into types that cannot hold anything invalid.

// Doc comments here are what `kubectl explain` prints, and columns have types of the same name.
#![allow(clippy::doc_markdown, clippy::duplicated_attributes)]

pub mod condition;
pub mod crd;
pub mod duration;
pub mod endpoint;
pub mod fleet_plugin;
pub mod ollama_server;
pub mod quantity;
pub mod rules;
pub mod server_status;

pub use fleet_plugin::{FleetPlugin, FleetPluginSpec, FleetPluginStatus};
pub use ollama_server::{OllamaServer, OllamaServerSpec};
pub use server_status::OllamaServerStatus;

/// API group of every kind.
pub const GROUP: &str = "ollama-fleet.io";
/// The only served version.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of every object.
pub const API_VERSION: &str = "ollama-fleet.io/v1alpha1";
/// Field manager of every server-side apply, and reporting controller of every Event.
pub const MANAGER: &str = "ollama-fleet-operator";
/// Asks for a poll now: any value other than the one echoed in `status.lastHandledRequestedAt`.
pub const REQUESTED_AT: &str = "ollama-fleet.io/requestedAt";
/// Longest value of [`REQUESTED_AT`] that is honoured, in characters; it is copied into status.
pub const REQUESTED_AT_MAX: usize = 64;
