//! Rules of a plugin, compiled once when it is accepted. Pure. Whether one holds now is decided by the assessment of
//! a server, which knows what held before.

use super::{
    expression::{Expression, ExpressionError, Inputs, RunError, Scope, Wanted},
    values::CompiledValues,
};
use crate::api::{
    duration,
    fleet_plugin::{PluginRule, RuleOutcome, Severity},
};
use std::time::Duration;

/// What stands between a plugin's name and that of a rule in the type of a condition.
pub const CONDITION_INFIX: &str = ".plugins.ollama-fleet.io/";

/// Reasons of the operator's own Events, which nobody else's rule may take.
const RESERVED: [&str; 14] = [
    "ServerOnline",
    "ServerOffline",
    "ServerRebooted",
    "ModelLoaded",
    "ModelUnloaded",
    "ModelAdded",
    "ModelRemoved",
    "VersionChanged",
    "PluginFailed",
    "PluginRecovered",
    "CPUOverheating",
    "GPUOverheating",
    "DiskNearlyFull",
    "LowMemory",
];

/// Why a rule cannot be compiled; the text names the rule and says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RuleError {
    #[error("rule {rule}: `when` is invalid: {error}")]
    When { rule: String, error: ExpressionError },
    #[error("rule {rule}: `for` must be a duration, for example 5m")]
    For { rule: String },
    #[error("rule {rule}: this is a reason of the operator's own Events; choose another name")]
    Reserved { rule: String },
    #[error("rule {rule}: names ending in Resolved are those of Events that end; choose another name")]
    Resolved { rule: String },
    #[error("two rules have the name {rule}")]
    NameTwice { rule: String },
}

/// A rule of a plugin, ready to be judged.
#[derive(Debug)]
pub struct CompiledRule {
    pub name: String,
    /// Type of the condition that it makes on a server.
    pub condition_type: String,
    pub lasting: Duration,
    pub outcome: RuleOutcome,
    pub severity: Severity,
    pub message: String,
    when: Expression,
}

impl CompiledRule {
    /// Whether it holds; `None` if it needs a value that is absent.
    pub fn holds(&self, inputs: &Inputs<'_>) -> Result<Option<bool>, RunError> {
        self.when.boolean(inputs)
    }
}

/// The type of the condition that a rule of a plugin makes.
pub fn condition_type(plugin: &str, rule: &str) -> String {
    format!("{plugin}{CONDITION_INFIX}{rule}")
}

pub fn compile(
    plugin: &str,
    rules: &[PluginRule],
    values: &CompiledValues,
) -> Result<Vec<CompiledRule>, RuleError> {
    let types = values.types();
    let scope = Scope { values: &types, open: types.is_empty(), rule: true };
    let mut compiled: Vec<CompiledRule> = Vec::with_capacity(rules.len());
    for spec in rules {
        let rule = spec.name.clone();
        if compiled.iter().any(|other| other.name == rule) {
            return Err(RuleError::NameTwice { rule });
        }
        if RESERVED.contains(&rule.as_str()) {
            return Err(RuleError::Reserved { rule });
        }
        if rule.ends_with("Resolved") {
            return Err(RuleError::Resolved { rule });
        }
        let when = Expression::compile(&spec.when, &scope, Wanted::Boolean)
            .map_err(|error| RuleError::When { rule: rule.clone(), error })?;
        let lasting = match &spec.for_ {
            None => Duration::ZERO,
            Some(text) => duration::parse(text).ok_or_else(|| RuleError::For { rule: rule.clone() })?,
        };
        compiled.push(CompiledRule {
            condition_type: condition_type(plugin, &rule),
            name: rule,
            lasting,
            outcome: spec.as_,
            severity: spec.severity,
            message: spec.message.clone(),
            when,
        });
    }
    Ok(compiled)
}
