//! Ollama Fleet Operator.

pub mod api;
pub mod args;
pub mod plugins;
pub mod probe;
