//! Plugins' own rules on one server: which hold, since when, and what of that is told.
//!
//! A rule is judged at each answer of its agent and never in between: an old reading is not a second one. A rule whose
//! values are gone is unknown, and goes without a word, as a pressure does; one that cannot be computed says so in the
//! report of its plugin and never in the server's Ready.

use super::{Subject, agents::AgentPlan, memory::Memory};
use crate::{
    api::{
        OllamaServerStatus,
        condition::{Builder, Truth},
        fleet_plugin::{RuleOutcome, Severity},
        quantity::Quantity,
        server_status::PluginReport,
    },
    controller::server::transition::Transition,
    plugins::{
        expression::{Inputs, ServerFacts},
        rules::{CONDITION_INFIX, CompiledRule},
    },
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::SignedDuration,
};
use std::collections::{BTreeMap, BTreeSet};

/// Conditions of rules that one server has room for; the largest take some 600 bytes each.
pub const CONDITIONS_MAX: usize = 16;
/// Bytes of a condition but for its type and message.
const CONDITION_BYTES: usize = 150;
/// Message of a condition whose rule does not hold.
const QUIET: &str = "the rule does not hold";

/// What is known of one rule on one server.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RuleMemory {
    /// `None`: unknown.
    pub active: Option<bool>,
    /// When it was last found to hold, and for how long it then had been seen to do so without a break.
    held: Option<(Time, SignedDuration)>,
    /// It began to hold while nobody could be told, because the host was failing.
    untold: bool,
    /// Its last Event said that it holds.
    announced: bool,
}

impl RuleMemory {
    /// The rule was edited: what holds, still does until the next answer, but not since then.
    pub fn begin_anew(&mut self) {
        self.held = None;
    }

    /// Whether it held at the last answer.
    pub fn is_held(&self) -> bool {
        self.held.is_some()
    }

    /// What one more answer makes of it. `first`: there is no answer to compare with, so that what needs one is not
    /// unknown but as it was.
    fn step(
        &self,
        holds: Option<bool>,
        first: bool,
        plan: &AgentPlan,
        rule: &CompiledRule,
        now: &Time,
    ) -> Self {
        let mut next = Self { held: None, ..self.clone() };
        match holds {
            None if first => {}
            // What was told stays told: it is news again when it was seen not to hold.
            None => next.active = None,
            Some(false) => next.active = Some(false),
            Some(true) => {
                // Time that nobody looked at (a suspension, a clock that was set) does not count as held.
                let most = plan.interval.saturating_add(plan.interval);
                let most = SignedDuration::try_from(most).unwrap_or(SignedDuration::MAX);
                let held = self.held.as_ref().map_or(SignedDuration::ZERO, |(last, held)| {
                    let gap = now.0.duration_since(last.0).clamp(SignedDuration::ZERO, most);
                    held.saturating_add(gap)
                });
                let lasting = SignedDuration::try_from(rule.lasting).unwrap_or(SignedDuration::MAX);
                next.active = Some(self.active == Some(true) || held >= lasting);
                next.held = Some((now.clone(), held));
            }
        }
        let begins = next.active == Some(true) && self.active != Some(true) && !self.announced;
        next.untold |= begins && rule.outcome == RuleOutcome::Event;
        next
    }

    /// The Events that are due, now that somebody may be told.
    fn tell(&mut self, plan: &AgentPlan, rule: &CompiledRule, transitions: &mut Vec<Transition>) {
        let event = |active: bool| Transition::Rule {
            plugin: plan.name.clone(),
            rule: rule.name.clone(),
            active,
            warning: active && rule.severity != Severity::Info,
            message: rule.message.clone(),
        };
        if std::mem::take(&mut self.untold) {
            self.announced = true;
            transitions.push(event(true));
        }
        if self.announced && self.active == Some(false) {
            self.announced = false;
            transitions.push(event(false));
        }
    }
}

/// What an earlier process knew of the rules of one plugin, from what it wrote.
pub fn from_status(status: &OllamaServerStatus, report: &PluginReport) -> BTreeMap<String, RuleMemory> {
    let known = |active| RuleMemory { active: Some(active), announced: active, ..RuleMemory::default() };
    let prefix = format!("{}{CONDITION_INFIX}", report.name);
    let conditions = status.conditions.iter().filter_map(|condition| {
        Some((condition.type_.strip_prefix(&prefix)?.to_owned(), known(condition.status == "True")))
    });
    let active = report.active_rules.iter().map(|rule| (rule.clone(), known(true)));
    conditions.chain(active).collect()
}

/// Judges the rules of every agent that has just answered. While the host fails there are no Events about its machine;
/// what begins then is told when the host is back.
pub fn observe(
    memory: &mut Memory,
    subject: Subject<'_>,
    in_maintenance: bool,
    now: &Time,
    transitions: &mut Vec<Transition>,
) {
    let host_is_up = memory.reach.is_up();
    let mut facts = None;
    for plan in subject.plugins.iter().filter(|plan| !plan.rules.is_empty()) {
        let Some(mut agent) = memory.agents.remove(&plan.name) else { continue };
        if agent.is_fresh() {
            let facts = facts.get_or_insert_with(|| facts_of(memory, subject, in_maintenance));
            let (values, previous) = agent.last_two();
            let inputs = Inputs { values, previous, server: Some(facts) };
            let mut rules = BTreeMap::new();
            let mut fault = None;
            for rule in plan.rules.iter() {
                let known = agent.rules().get(&rule.name).cloned().unwrap_or_default();
                let holds = rule.holds(&inputs).unwrap_or_else(|error| {
                    fault.get_or_insert_with(|| format!("rule {}: {error}", rule.name));
                    None
                });
                let mut next = known.step(holds, previous.is_none(), plan, rule, now);
                if host_is_up && rule.outcome == RuleOutcome::Event {
                    next.tell(plan, rule, transitions);
                }
                rules.insert(rule.name.clone(), next);
            }
            agent.judged(rules, fault);
        }
        memory.agents.insert(plan.name.clone(), agent);
    }
}

/// What an expression may know of the server.
fn facts_of(memory: &Memory, subject: Subject<'_>, in_maintenance: bool) -> ServerFacts {
    let status = &memory.status;
    let bytes = |quantity: Option<&Quantity>| i64::try_from(quantity?.bytes()?).ok();
    let capacity = subject.spec.capacity.as_ref();
    ServerFacts {
        name: subject.name.to_owned(),
        namespace: subject.namespace.to_owned(),
        labels: subject.labels.clone(),
        backend_type: subject.spec.backend_type.as_str().to_owned(),
        reachable: memory.reach.is_up(),
        in_maintenance,
        model_count: status.model_count.map(i64::from),
        loaded_count: status.loaded_count.map(i64::from),
        vram_used: bytes(status.vram_used.as_ref()),
        memory_capacity: bytes(capacity.and_then(|capacity| capacity.memory.as_ref())),
        vram_capacity: bytes(capacity.and_then(|capacity| capacity.vram.as_ref())),
    }
}

/// The conditions of rules, as many as a server has room for: those of the oldest plugins first.
pub fn conditions(builder: &mut Builder<'_>, memory: &Memory, plans: &[AgentPlan]) {
    for (_, rule, active) in shown(memory, plans).take(CONDITIONS_MAX) {
        let message = if active { &rule.message } else { QUIET };
        builder.set(&rule.condition_type, Truth::from(active), rule.severity.as_str(), message);
    }
}

/// Bytes that the conditions of rules take in the object.
pub fn bytes(memory: &Memory, plans: &[AgentPlan]) -> usize {
    let bytes = |rule: &CompiledRule| CONDITION_BYTES + rule.condition_type.len() + rule.message.len();
    shown(memory, plans).take(CONDITIONS_MAX).map(|(_, rule, _)| bytes(rule)).sum()
}

/// The plugins with a rule whose condition finds no room.
pub fn without_room<'a>(memory: &'a Memory, plans: &'a [AgentPlan]) -> BTreeSet<&'a str> {
    shown(memory, plans).skip(CONDITIONS_MAX).map(|(plugin, ..)| plugin).collect()
}

/// The rules that make conditions and are known, with their plugins, oldest plugin first.
fn shown<'a>(
    memory: &'a Memory,
    plans: &'a [AgentPlan],
) -> impl Iterator<Item = (&'a str, &'a CompiledRule, bool)> {
    plans.iter().flat_map(move |plan| {
        let known = memory.agents.get(&plan.name);
        let conditions = plan.rules.iter().filter(|rule| rule.outcome == RuleOutcome::Condition);
        conditions
            .filter_map(move |rule| Some((plan.name.as_str(), rule, known?.rules().get(&rule.name)?.active?)))
    })
}

/// Whether a condition was made by a rule of a plugin.
pub fn is_rule(condition: &Condition) -> bool {
    condition.type_.contains(CONDITION_INFIX)
}

/// The names of the rules of a plugin that hold, sorted.
pub fn active(rules: &BTreeMap<String, RuleMemory>) -> Vec<String> {
    rules.iter().filter(|(_, rule)| rule.active == Some(true)).map(|(name, _)| name.clone()).collect()
}
