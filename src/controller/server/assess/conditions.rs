//! The conditions of a server, from everything that is known. Precedence of Ready: not accepted, suspended, in
//! maintenance, then what Reachable says.

use super::{Subject, agents::AgentMemory, inventory::STALE_PARTS, memory::Memory, rules};
use crate::{
    api::{
        condition::{ACCEPTED, Builder, FLAPPING, PLUGINS_HEALTHY, REACHABLE, READY, STALLED, Truth},
        server_status::OllamaServerStatus,
    },
    probe::text::clean,
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::SignedDuration,
};
use std::borrow::Borrow;

/// Changes of Reachable within [`FLAPPING_WINDOW`] that make a server Flapping.
const FLAPPING_CHANGES: usize = 4;
const FLAPPING_WINDOW: SignedDuration = SignedDuration::from_mins(10);
/// Plugins that a message names; the rest is counted by looking at `status.plugins`.
const NAMED_MAX: usize = 5;
/// Characters of the user's own words about a maintenance.
const MAINTENANCE_REASON_MAX: usize = 256;

/// All conditions anew; what is not set here is gone.
pub fn build(memory: &Memory, subject: Subject<'_>, in_maintenance: bool, now: &Time) -> Vec<Condition> {
    let mut builder = Builder::new(&memory.status.conditions, subject.generation, now);
    let (reachable, reason, message) = memory.reach.condition();
    let message = match subject.acceptance {
        Ok(accepted) => with_stale_parts(message, memory, accepted.failure_threshold),
        Err(_) => message,
    };
    match subject.acceptance {
        Err(rejected) => {
            builder
                .set(ACCEPTED, Truth::False, rejected.reason, &rejected.message)
                .set(STALLED, Truth::True, rejected.reason, &rejected.message)
                .set(REACHABLE, Truth::Unknown, rejected.reason, "not polled: the spec is not accepted")
                .set(READY, Truth::False, rejected.reason, &rejected.message);
        }
        Ok(accepted) => {
            let mut notes: Vec<String> = accepted.notes.iter().map(|note| (*note).to_owned()).collect();
            notes.extend(unknown_keys(subject.unknown_keys));
            let notes = if notes.is_empty() { "the spec is valid".to_owned() } else { notes.join("; ") };
            builder.set(ACCEPTED, Truth::True, "Valid", notes);
            if subject.spec.suspend {
                builder.set(REACHABLE, Truth::Unknown, "Suspended", "not polled: spec.suspend is true").set(
                    READY,
                    Truth::False,
                    "Suspended",
                    "not polled: spec.suspend is true",
                );
            } else {
                builder.set(REACHABLE, reachable, reason, &message);
                if in_maintenance {
                    builder.set(READY, Truth::False, "Maintenance", maintenance_message(subject));
                } else {
                    builder.set(READY, reachable, reason, &message);
                }
            }
        }
    }
    plugins_healthy(&mut builder, memory, subject);
    for (type_, truth, reason, message) in memory.pressures.conditions() {
        builder.set(type_, truth, reason, message);
    }
    rules::conditions(&mut builder, memory, subject.plugins);
    if memory.reach.has_verdict() {
        let (truth, reason, message) = if is_flapping(&memory.status, now) {
            (Truth::True, "ReachableChangesOften", "Reachable changed four times or more within ten minutes")
        } else {
            (Truth::False, "Stable", "not flapping: Reachable is stable")
        };
        builder.set(FLAPPING, truth, reason, message);
    }
    builder.build()
}

/// The host answers, but some of what stands in status is not fresh: said once it has lasted.
fn with_stale_parts(message: String, memory: &Memory, threshold: u32) -> String {
    let stale = if memory.reach.is_up() { memory.misses.persistent(threshold) } else { Vec::new() };
    if stale.is_empty() {
        return message;
    }
    format!("{message}{STALE_PARTS}{}: the last known stands", stale.join(" and "))
}

fn maintenance_message(subject: Subject<'_>) -> String {
    let reason = subject.spec.maintenance.as_ref().and_then(|maintenance| maintenance.reason.as_deref());
    match reason.map(|reason| clean(reason, MAINTENANCE_REASON_MAX)).filter(|reason| !reason.is_empty()) {
        Some(reason) => format!("in maintenance: {reason}"),
        None => "in maintenance".to_owned(),
    }
}

/// A mistyped key would leave a plugin at a place that its owner meant to change.
fn unknown_keys(keys: &[String]) -> Option<String> {
    (!keys.is_empty())
        .then(|| format!("no FleetPlugin of this namespace has the configKey of {}", named(keys)))
}

/// The first of the names, and whether there are more.
fn named(names: &[impl Borrow<str>]) -> String {
    let more = if names.len() > NAMED_MAX { " and more" } else { "" };
    format!("{}{more}", names[..names.len().min(NAMED_MAX)].join(", "))
}

fn plugins_healthy(builder: &mut Builder<'_>, memory: &Memory, subject: Subject<'_>) {
    let asked: Vec<_> = subject.plugins.iter().filter(|plan| !plan.is_disabled()).collect();
    if asked.is_empty() {
        return;
    }
    let known = |name: &str| memory.agents.get(name);
    let mut failing: Vec<&str> = asked
        .iter()
        .filter(|plan| known(&plan.name).is_some_and(AgentMemory::is_error))
        .map(|plan| plan.name.as_str())
        .collect();
    failing.sort_unstable();
    let all_healthy = asked.iter().all(|plan| known(&plan.name).is_some_and(AgentMemory::is_healthy));
    if !failing.is_empty() {
        builder.set(
            PLUGINS_HEALTHY,
            Truth::False,
            "PluginFailed",
            format!("not working: {}", named(&failing)),
        );
    } else if all_healthy {
        builder.set(PLUGINS_HEALTHY, Truth::True, "AllHealthy", "every plugin answers, or is idle");
    } else {
        builder.set(PLUGINS_HEALTHY, Truth::Unknown, "Pending", "not every plugin has answered yet");
    }
}

fn is_flapping(status: &OllamaServerStatus, now: &Time) -> bool {
    let recent =
        status.recent_transition_times.iter().filter(|time| now.0.duration_since(time.0) <= FLAPPING_WINDOW);
    recent.count() >= FLAPPING_CHANGES
}
