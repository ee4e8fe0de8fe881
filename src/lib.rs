//! Ollama Fleet Operator.

pub mod api;
pub mod args;
pub mod controller;
pub mod metrics;
pub mod plugins;
pub mod probe;
