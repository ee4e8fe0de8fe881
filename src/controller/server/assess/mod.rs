//! From what was known and what was seen to what is now known, and what happened. Pure: no client, no clock, no
//! randomness. Everything about thresholds, hysteresis, staleness and reasons is decided under this folder.

mod agents;
mod conditions;
mod inventory;
mod memory;
mod pressure;
mod reach;
mod reboot;
mod rules;
mod significance;
mod size;

#[cfg(test)]
mod tests;

pub use agents::{AgentObservation, AgentPlan, EVALUATION_FAILED, IMPLAUSIBLE_READING, TOO_MANY_CONDITIONS};
pub use memory::Memory;
pub use significance::{Significance, significance};

use super::{
    accept::{Accepted, Rejected, maintenance},
    transition::Transition,
};
use crate::{
    api::{REQUESTED_AT_MAX, condition, endpoint::Endpoint, ollama_server::OllamaServerSpec},
    probe::{
        HostOutcome,
        report::{HostReport, Part},
        text::clean,
    },
};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::Time,
    jiff::{SignedDuration, Timestamp},
};
use std::collections::BTreeMap;

/// What is wanted of a server, as it stands now.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    pub namespace: &'a str,
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
    pub spec: &'a OllamaServerSpec,
    pub generation: Option<i64>,
    pub acceptance: &'a Result<Accepted, Rejected>,
    /// The plugins that select this server, oldest first: the first source of a reading wins.
    pub plugins: &'a [AgentPlan],
    /// Keys of pluginPorts and pluginHosts that no plugin of the namespace has.
    pub unknown_keys: &'a [String],
    /// The annotation that asks for a poll now.
    pub requested_at: Option<&'a str>,
}

/// What was seen.
#[derive(Debug)]
pub enum Observation {
    /// Nothing new: the spec changed, or a maintenance ended, or a heartbeat is due.
    None,
    Poll {
        host: HostOutcome,
        agents: Vec<AgentObservation>,
        /// Somebody asked for this poll; it does not count towards the failure threshold.
        requested: bool,
    },
}

/// What is now known, and what happened.
pub struct Assessment {
    pub memory: Memory,
    pub transitions: Vec<Transition>,
}

/// A clock that is set back by less than this is waited for: summer time, or a machine that was ahead. Longer, and
/// durations that are measured meanwhile would be too wrong.
const SET_BACK_MOST: SignedDuration = SignedDuration::from_mins(90);

/// The one decision about a server.
pub fn assess(
    mut memory: Memory,
    subject: Subject<'_>,
    observation: Observation,
    now: Timestamp,
) -> Assessment {
    let clock = now;
    let now = Time(not_before(memory.status.last_heartbeat_time.as_ref(), now));
    let mut transitions = Vec::new();
    let was_in_maintenance = condition::find(&memory.status.conditions, condition::READY)
        .is_some_and(|ready| ready.reason == "Maintenance");
    let in_maintenance = maintenance(subject.spec, clock).is_some();

    adopt(&mut memory, subject);
    if let (Observation::Poll { host, agents, requested }, Ok(accepted)) = (observation, subject.acceptance) {
        note_refusal(&mut memory, &host);
        memory.skipped = host == HostOutcome::Skipped;
        observe_host(&mut memory, accepted, host, requested, &now, &mut transitions);
        agents::observe(
            &mut memory,
            subject.plugins,
            agents,
            accepted.failure_threshold,
            &now,
            &mut transitions,
        );
        pressure::observe(&mut memory, subject.plugins, subject.spec, &now, &mut transitions);
        rules::observe(&mut memory, subject, in_maintenance, &now, &mut transitions);
    }
    agents::summarise(&mut memory, subject.plugins);
    pressure::forget_unknown(&mut memory, subject.spec);
    // Models in memory, agents and rules may need more room than when the models on disk were listed.
    let more = rules::bytes(&memory, subject.plugins);
    inventory::make_room(&mut memory, more);
    let refusal = memory
        .refused
        .map(|refused| Err(Rejected { reason: refused.reason(), message: refused.text().to_owned() }));
    let subject = match &refusal {
        Some(refusal) if subject.acceptance.is_ok() => Subject { acceptance: refusal, ..subject },
        _ => subject,
    };
    if was_in_maintenance && !in_maintenance && memory.reach.is_down() {
        transitions.retain(|transition| !matches!(transition, Transition::ServerOffline(_)));
        transitions.push(Transition::ServerOffline(memory.reach.failure()));
    }
    memory.status_mut().observed_generation = subject.generation;
    // Where the host's turn never came nothing is confirmed, and the status grows stale as it should.
    if !memory.skipped || memory.status.last_heartbeat_time.is_none() {
        memory.status_mut().last_heartbeat_time = Some(now.clone());
    }
    memory.status_mut().consecutive_failures = i32::try_from(memory.reach.failures()).ok();
    memory.status_mut().last_handled_requested_at =
        subject.requested_at.map(|value| clean(value, REQUESTED_AT_MAX));
    let conditions = conditions::build(&memory, subject, in_maintenance, &now);
    // Compared with what status said, so that a restart tells nothing again.
    let refused = condition::newly_false(&memory.status.conditions, &conditions, condition::ACCEPTED);
    transitions.extend(refused.map(Transition::refused));
    memory.status_mut().conditions = conditions;
    if in_maintenance {
        transitions.retain(|transition| !transition.event().warning);
    }
    Assessment { memory, transitions }
}

/// The time, or the last one that was told if the clock has been set back since: times of a status do not run
/// backwards. A last time that lies far ahead was itself wrong.
fn not_before(told: Option<&Time>, now: Timestamp) -> Timestamp {
    match told {
        Some(Time(told)) if *told > now && *told <= now + SET_BACK_MOST => *told,
        _ => now,
    }
}

/// Takes note of what the spec now says: another host is another server, of which nothing is known yet.
fn adopt(memory: &mut Memory, subject: Subject<'_>) {
    let endpoint = match subject.acceptance {
        Ok(accepted) => accepted.endpoint.to_string(),
        Err(_) => Endpoint::parse(&subject.spec.host)
            .map_or_else(|_| clean(&subject.spec.host, 320), |endpoint| endpoint.to_string()),
    };
    let backend = match &subject.spec.provider_ref {
        Some(provider) => format!("{}/{}", subject.spec.backend_type.as_str(), provider.name),
        None => subject.spec.backend_type.as_str().to_owned(),
    };
    let same = |known: &Option<String>, now: &str| known.as_deref().is_none_or(|known| known == now);
    if !same(&memory.status.observed_endpoint, &endpoint) || !same(&memory.status.observed_backend, &backend)
    {
        memory.forget_host();
    }
    memory.status_mut().observed_endpoint = Some(endpoint);
    memory.status_mut().observed_backend = Some(backend);
    if subject.spec.suspend || subject.acceptance.is_err() {
        memory.reach.forget();
    }
    for plan in subject.plugins {
        if let Some(agent) = memory.agents.get_mut(&plan.name) {
            agent.adopt(plan);
        }
    }
    memory
        .agents
        .retain(|name, _| subject.plugins.iter().any(|plan| plan.name == *name && !plan.is_disabled()));
}

/// A name that leads to a refused address, and credentials that may not be used, are a spec that cannot be accepted, found
/// out late.
fn note_refusal(memory: &mut Memory, host: &HostOutcome) {
    memory.refused = match host {
        HostOutcome::Failed(failure) => Some(*failure).filter(|failure| failure.is_refusal()),
        HostOutcome::Online(_) => None,
        HostOutcome::Skipped => memory.refused,
    };
    if memory.refused.is_some() {
        memory.reach.forget();
    }
}

fn observe_host(
    memory: &mut Memory,
    accepted: &Accepted,
    host: HostOutcome,
    requested: bool,
    now: &Time,
    transitions: &mut Vec<Transition>,
) {
    match host {
        HostOutcome::Skipped => {}
        HostOutcome::Failed(failure) if failure.is_refusal() => {}
        HostOutcome::Online(report) => {
            memory.status_mut().last_online_time = Some(now.clone());
            let change = memory.reach.succeeded(accepted.success_threshold);
            // Until it counts as online again, what is in its memory is no news.
            let loaded = if memory.reach.is_down() { Part::NotAsked } else { report.loaded };
            inventory::observe(memory, HostReport { loaded, ..report }, transitions);
            reach::record(memory, change, now, transitions);
        }
        HostOutcome::Failed(failure) => {
            let change = memory.reach.failed(failure, accepted.failure_threshold, requested, now);
            reach::record(memory, change, now, transitions);
            if memory.reach.is_down() {
                inventory::forget_loaded(memory);
            }
        }
    }
}
