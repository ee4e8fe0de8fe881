//! Ollama Fleet Operator.

pub mod api;
pub mod args;
