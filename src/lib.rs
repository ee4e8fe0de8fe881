//! Ollama Fleet Operator.

pub mod api;
pub mod args;
pub mod runtime;
pub mod serve;
pub mod telemetry;
