//! What is known about a server between two polls: the status as it should stand in the object, and the counters that
//! do not belong there.

use super::{
    agents::AgentMemory,
    inventory::{LoadedBefore, Misses},
    pressure::Pressures,
    reach::Reach,
    reboot::Boot,
};
use crate::{
    api::{OllamaServerStatus, condition},
    controller::server::live::AgentSnapshot,
    plugins::readings::Readings,
    probe::Failure,
};
use std::{collections::BTreeMap, sync::Arc};

/// What is known about one server. Made from the object's own status, so that a restart of the operator forgets
/// nothing that was written and announces nothing twice.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    /// The status as it should stand in the object now.
    ///
    /// Shared with those who only read; a change copies it once.
    pub status: Arc<OllamaServerStatus>,
    pub(super) reach: Reach,
    pub(super) misses: Misses,
    pub(super) pressures: Pressures,
    pub(super) agents: BTreeMap<String, AgentMemory>,
    /// The host's last turn never came: no slot was free, or others kept asking the same address.
    pub(super) skipped: bool,
    /// The last poll could not be made: the host's name led to a refused address, or its credentials could not be had.
    pub(super) refused: Option<Failure>,
    /// What was in the memory of the host before it went down; what is there now, nobody knows.
    pub(super) loaded_before: Option<LoadedBefore>,
    /// When the machine started, as of the last time that the host was up; it outlives the readings.
    pub(super) boot: Option<Boot>,
    /// All readings at full precision, for metrics.
    pub(super) readings: Readings,
    /// Readings from the status that this process started with, until every plugin has spoken for itself.
    pub(super) seed: Option<Readings>,
}

impl Memory {
    /// What the object's status tells, if it has one.
    pub fn from_status(status: Option<OllamaServerStatus>) -> Self {
        // Without observedGeneration it is the schema's default and tells nothing.
        let Some(status) = status.filter(|status| status.observed_generation.is_some()) else {
            return Self::default();
        };
        let mut seed = status.machine.as_ref().map(super::agents::readings_of);
        if let Some(seed) = &mut seed {
            seed.drop_implausible();
        }
        Self {
            reach: Reach::from_status(&status),
            misses: condition::find(&status.conditions, condition::REACHABLE)
                .map(|reachable| Misses::from_message(&reachable.message))
                .unwrap_or_default(),
            pressures: Pressures::from_conditions(&status.conditions),
            agents: AgentMemory::from_status(&status),
            refused: condition::find(&status.conditions, condition::ACCEPTED)
                .and_then(|accepted| Failure::refusal_of(&accepted.reason, &accepted.message)),
            skipped: false,
            loaded_before: None,
            boot: seed.as_ref().and_then(|seed| seed.boot_time).and_then(|_| Boot::from_status(&status)),
            readings: seed.clone().unwrap_or_default(),
            seed,
            status: Arc::new(status),
        }
    }

    pub(super) fn status_mut(&mut self) -> &mut OllamaServerStatus {
        Arc::make_mut(&mut self.status)
    }

    /// Whether the last poll failed, or the host is known to be down.
    pub fn is_failing(&self) -> bool {
        self.reach.is_failing()
    }

    /// The names of the models in the host's memory; `None` while that is not known for sure.
    pub fn loaded(&self) -> Option<impl Iterator<Item = &str>> {
        // A doubt about the host is no verdict, and what is known stands as long.
        let known = self.reach.has_verdict() && !self.reach.is_down();
        let models = self.status.loaded_models.as_ref().filter(|_| known)?;
        Some(models.iter().map(|model| model.name.as_str()))
    }

    /// Whether the host is not asked for want of credentials.
    pub fn lacks_credentials(&self) -> bool {
        matches!(self.refused, Some(Failure::NoCredential(_)))
    }

    /// Whether the host must not be asked before its spec is edited: asking costs money.
    pub fn is_barred(&self) -> bool {
        self.refused.is_some_and(Failure::bars)
    }

    /// Whether the host has shown a list of models, so that it is known to speak its backend's API.
    pub fn has_lists(&self) -> bool {
        self.status.models.is_some() || self.status.loaded_models.is_some()
    }

    /// The host is about to be asked in another way: what was refused was the old one.
    pub fn forget_refusal(&mut self) {
        self.refused = None;
    }

    /// Polls that failed in a row.
    pub fn failures(&self) -> u32 {
        self.reach.failures()
    }

    pub fn readings(&self) -> &Readings {
        &self.readings
    }

    /// Whether nothing was ever heard of the host, so that there is nothing to wait a slot for.
    pub fn is_new(&self) -> bool {
        self.status.observed_generation.is_none() || self.reach.is_pending()
    }

    /// What metrics show of the agents, in the order of their names.
    pub fn agents_shown(&self) -> Vec<AgentSnapshot> {
        self.agents.iter().map(|(plugin, agent)| agent.shown(plugin)).collect()
    }

    /// Whether a rule of a plugin holds, if only for less time than it has to: somebody waits for what comes of it.
    pub fn agent_has_news(&self, plugin: &str) -> bool {
        self.agents.get(plugin).is_some_and(AgentMemory::has_news)
    }

    /// Whether a plugin's last reading failed.
    pub fn agent_is_failing(&self, plugin: &str) -> bool {
        self.agents.get(plugin).is_some_and(AgentMemory::is_failing)
    }

    /// Another host stands behind the object now: what was known was about the old one.
    pub(super) fn forget_host(&mut self) {
        *self = Self {
            status: Arc::new(OllamaServerStatus {
                // The conditions keep their types' times; build() rewrites every one of them.
                conditions: self.status.conditions.clone(),
                last_handled_requested_at: self.status.last_handled_requested_at.clone(),
                ..OllamaServerStatus::default()
            }),
            ..Self::default()
        };
    }
}
