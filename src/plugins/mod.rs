//! Plugins: what a manifest means, and what an agent's answer says by it. Pure; nothing here talks to anybody.

pub mod answer;
pub mod bounded_json;
pub mod counters;
pub mod exposition;
pub mod expression;
pub mod filter;
pub mod model_need;
mod number;
mod path_cost;
pub mod readings;
pub mod rules;
pub mod values;
pub mod version_range;
