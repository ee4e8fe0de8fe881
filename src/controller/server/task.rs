//! One server's life: waits for its slot, polls, assesses, publishes, over and over. One task a server, so that
//! nothing that happens to one is noticed by another.

use super::{
    accept::{Accepted, Rejected, accept, maintenance},
    agents::{self, AgentRound, Asking},
    assess::{Assessment, Memory, Observation, Subject, assess},
    live::Place,
    observe::{Asked, Round, Turn, host_target},
    publish::Publisher,
    schedule::{Phase, Timing},
};
use crate::{
    api::{OllamaServer, OllamaServerStatus, REQUESTED_AT, REQUESTED_AT_MAX},
    controller::{
        context::Context,
        plugin::index::{ActivePlugin, PluginIndex},
    },
    probe::{HostOutcome, Owner, report::Part, text::clean},
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::watch,
    time::{Instant, sleep_until},
};

/// How long a finished poll waits for agents that are still talking.
const AGENT_GRACE: Duration = Duration::from_millis(500);
/// Requested polls of one server: no more than one in this time.
const REQUESTED_LEAST: Duration = Duration::from_secs(1);
/// A host that lacks credentials is tried again after this, however long its interval: somebody may have mended its Secret.
const MENDING: Duration = Duration::from_mins(1);
/// Longest sleep; everything that matters has a time of its own.
const SLEEP_MOST: Duration = Duration::from_hours(1);

/// The task of one server.
pub struct ServerTask {
    context: Arc<Context>,
    object: watch::Receiver<Arc<OllamaServer>>,
    plugins: watch::Receiver<Arc<PluginIndex>>,
    policy_changes: watch::Receiver<()>,
    phase: Phase,
    /// Whose turn it is where several objects name one address.
    owner: Owner,
    memory: Memory,
    publisher: Publisher,
    place: Place,
    current: Arc<OllamaServer>,
    acceptance: Result<Accepted, Rejected>,
    selected: Vec<Arc<ActivePlugin>>,
    /// Keys of pluginPorts and pluginHosts that belong to no plugin of the namespace.
    unknown_keys: Vec<String>,
    round: Round,
    agents: AgentRound,
    timing: Timing,
}

impl ServerTask {
    pub fn new(
        context: Arc<Context>,
        object: watch::Receiver<Arc<OllamaServer>>,
        place: Place,
        publisher: Publisher,
        memory: Memory,
    ) -> Self {
        let current = Arc::clone(&object.borrow());
        // Subscribed first: a change in between is judged twice rather than not at all.
        let policy_changes = context.prober.policy_changes();
        let acceptance = accept(&current.spec, &context.poll, &context.prober.policy());
        let plugins = context.plugins.subscribe();
        let uid = current.uid().unwrap_or_default();
        let phase = Phase::of(&uid);
        let namespace = current.namespace().unwrap_or_default();
        let owner = Owner { namespace: namespace.into(), uid: uid.into() };
        Self {
            object,
            plugins,
            policy_changes,
            phase,
            memory,
            publisher,
            place,
            acceptance,
            selected: Vec::new(),
            unknown_keys: Vec::new(),
            round: Round::default(),
            agents: AgentRound::new(owner.clone()),
            owner,
            timing: Timing::default(),
            current,
            context,
        }
    }

    /// Runs until the object is gone: until the sender of its versions is dropped.
    pub async fn run(mut self) {
        self.select_plugins();
        let known = self.memory.status.observed_generation;
        let changed = known.is_some() && known != self.current.metadata.generation;
        self.forget_older_refusal();
        if changed || !self.is_polled() {
            // A new generation is written at once. A new object already shows Pending, by the schema's default.
            self.assess(Observation::None, None);
        }
        self.timing.unasked = self.memory.is_new();
        self.plan_slot();
        if self.timing.unasked || self.request().is_some() {
            self.ask_at_once();
        }
        self.show();
        loop {
            let wake = self.next_wake();
            tokio::select! {
                biased;
                changed = self.object.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.on_object();
                }
                Ok(()) = self.plugins.changed() => self.on_plugins(),
                Ok(()) = self.policy_changes.changed() => self.on_policy(),
                outcome = self.round.finished(&self.context.metrics) => self.on_host(outcome),
                observation = self.agents.next(&self.context.metrics) => {
                    self.round.agent_answered(observation);
                    self.finish_round_if_complete();
                }
                () = sleep_until(wake) => self.on_timer(),
            }
        }
    }

    fn is_polled(&self) -> bool {
        self.acceptance.is_ok() && !self.current.spec.suspend && !self.memory.is_barred()
    }

    /// A host that must not be asked before its spec is edited may be asked of a spec that nobody has judged yet.
    fn forget_older_refusal(&mut self) {
        if self.memory.is_barred()
            && self.memory.status.observed_generation != self.current.metadata.generation
        {
            self.memory.forget_refusal();
        }
    }

    /// The value of the annotation that asks for a poll, as status echoes it.
    fn requested_at(&self) -> Option<String> {
        self.current.annotations().get(REQUESTED_AT).map(|value| clean(value, REQUESTED_AT_MAX))
    }

    /// A request that has not been answered yet.
    fn request(&self) -> Option<String> {
        self.requested_at()
            .filter(|value| self.memory.status.last_handled_requested_at.as_ref() != Some(value))
    }

    fn on_object(&mut self) {
        let object = Arc::clone(&self.object.borrow_and_update());
        if let Some(status) = self.publisher.take_notice(&self.memory) {
            self.resume(status);
        }
        let spec_changed = object.spec != self.current.spec;
        let new_generation = object.metadata.generation != self.current.metadata.generation;
        let labels_changed = object.labels() != self.current.labels();
        let was_polled = self.is_polled();
        if spec_changed {
            for plugin in &self.selected {
                if plugin.place(&object.spec) != plugin.place(&self.current.spec) {
                    // At another place another program answers.
                    self.agents.forget(&plugin.name);
                    self.round.forget(&plugin.name);
                }
            }
        }
        let old_way = self.acceptance.as_ref().ok().map(Accepted::way);
        self.current = object;
        if spec_changed || new_generation {
            self.acceptance = self.accept();
        }
        self.forget_older_refusal();
        let moved = old_way != self.acceptance.as_ref().ok().map(Accepted::way);
        if moved || !self.is_polled() {
            // What is still under way was asked of another host or in another way, or must not be asked any more.
            self.round = Round::default();
            self.agents.abandon();
            self.timing.last_models = None;
            // What bars a host outlives everything but an edit of the spec.
            if !self.memory.is_barred() {
                self.memory.forget_refusal();
            }
        }
        let selected = (spec_changed || labels_changed) && self.select_plugins();
        // Without a poll to come, nothing else would bring the status up to date.
        if new_generation || (!self.is_polled() && (selected || self.request().is_some())) {
            self.assess(Observation::None, None);
        }
        if new_generation {
            self.plan_slot();
        }
        if moved || !was_polled {
            self.timing.unasked = true;
            self.ask_at_once();
        }
        // A poll that is under way began before this request, so the next one answers it.
        if self.request().is_some() && !self.round.is_running() {
            self.ask_at_once();
        }
    }

    /// Goes on from what another process wrote meanwhile: what is known here is older, and what waits to be written is
    /// not about it.
    fn resume(&mut self, status: OllamaServerStatus) {
        self.memory = Memory::from_status(Some(status.clone()));
        self.publisher.resume(&self.context, status);
        self.round = Round::default();
        self.agents.abandon();
        self.show();
    }

    fn on_plugins(&mut self) {
        let before = self.selected.len();
        let changed = self.select_plugins();
        // What a plugin said goes with it, and does not wait for the next poll, which may be a day away.
        if changed && (!self.is_polled() || self.selected.len() < before) {
            self.assess(Observation::None, None);
        }
    }

    fn accept(&self) -> Result<Accepted, Rejected> {
        accept(&self.current.spec, &self.context.poll, &self.context.prober.policy())
    }

    /// The operator's address policy is another, and what was accepted may be refused now, or the other way round.
    fn on_policy(&mut self) {
        let acceptance = self.accept();
        if acceptance == self.acceptance {
            return;
        }
        self.acceptance = acceptance;
        self.round = Round::default();
        self.agents.abandon();
        self.timing.last_models = None;
        self.assess(Observation::None, None);
        self.plan_slot();
        self.timing.unasked = true;
        self.ask_at_once();
    }

    /// Whether other plugins, or other rules of theirs, apply than before.
    fn select_plugins(&mut self) -> bool {
        let index = Arc::clone(&self.plugins.borrow_and_update());
        let namespace = self.current.namespace().unwrap_or_default();
        let selected = index.selecting(&namespace, self.current.labels());
        let same = selected.len() == self.selected.len()
            && selected.iter().zip(&self.selected).all(|(new, old)| Arc::ptr_eq(new, old));
        let before = std::mem::replace(&mut self.selected, selected);
        for old in &before {
            // A reading by the old rules is not shown under the new ones; an edited plugin is asked at the next poll.
            if !self.selected.iter().any(|new| Arc::ptr_eq(new, old)) {
                self.agents.forget(&old.name);
            }
        }
        let unknown_keys = index.unknown_keys(&namespace, &self.current.spec);
        let same_keys = unknown_keys == self.unknown_keys;
        self.unknown_keys = unknown_keys;
        !same || !same_keys
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        if self.round.grace_is_over(now) {
            self.finish_round();
        }
        let slot = self.timing.slot.filter(|(_, at)| *at <= now);
        if slot.is_some() || self.timing.at_once.is_some_and(|at| at <= now) {
            self.start_poll(now, slot);
        } else if self.publisher.heartbeat_is_due()
            || self.publisher.correction_is_due()
            || self.maintenance_ended()
        {
            self.assess(Observation::None, None);
        }
    }

    /// Begins a poll, in its slot if there is one.
    fn start_poll(&mut self, now: Instant, slot: Option<(u64, Instant)>) {
        self.timing.at_once = None;
        if !self.context.leadership.holds() {
            // The process is about to end, and another replica polls.
            self.timing.slot = None;
            return;
        }
        if let Some((slot, at)) = slot {
            self.timing.used_slot = Some(slot);
            self.plan_slot();
            if self.round.is_running() {
                // A late poll is skipped, never queued.
                self.context.metrics.poll_skipped();
                return;
            }
            self.context.metrics.poll_lagged(now.saturating_duration_since(at));
        }
        if self.round.is_running() {
            return;
        }
        if !self.is_polled() {
            return;
        }
        let Ok(accepted) = &self.acceptance else { return };
        let request = self.request();
        let requested = request.is_some();
        let extra = requested && slot.is_none() && !self.timing.unasked;
        self.timing.unasked = false;
        let models_due = self
            .timing
            .last_models
            .is_none_or(|last| now.duration_since(last) + accepted.interval / 2 >= accepted.models_interval);
        let with_models = requested || models_due;
        if with_models {
            self.timing.last_models = Some(now);
        }
        if requested {
            self.timing.last_requested = Some(now);
        }
        let models_first = with_models && self.timing.models_missed;
        self.timing.turn = Turn { with_models, models_first };
        let target = host_target(&self.owner, accepted, &self.memory, self.timing.turn);
        let credentials = accepted.credentials.clone();
        self.agents.start(Asking {
            context: &self.context,
            accepted,
            spec: &self.current.spec,
            plugins: &self.selected,
            memory: &self.memory,
        });
        self.round.start(&self.context, credentials, target, Asked { request, extra });
    }

    fn on_host(&mut self, outcome: HostOutcome) {
        match &outcome {
            HostOutcome::Failed(failure) => self.context.metrics.poll_failed(*failure),
            HostOutcome::Skipped => self.context.metrics.poll_skipped(),
            HostOutcome::Online(_) => {}
        }
        self.timing.models_missed = self.timing.turn.was_missed(&outcome);
        if !matches!(outcome, HostOutcome::Online(_)) || self.timing.models_missed {
            // It was not asked for its models, so it is at the next poll, or when it is back.
            self.timing.last_models = None;
        }
        if let (HostOutcome::Online(report), Ok(accepted)) = (&outcome, &self.acceptance)
            && let Part::Known(loaded) = &report.loaded
        {
            // Only now it is known whether asking these would wake a model.
            let asking = Asking {
                context: &self.context,
                accepted,
                spec: &self.current.spec,
                plugins: &self.selected,
                memory: &self.memory,
            };
            self.agents.start_of_loaded(asking, loaded);
        }
        self.round.host_answered(outcome, Instant::now() + AGENT_GRACE);
        self.finish_round_if_complete();
    }

    fn finish_round_if_complete(&mut self) {
        if self.round.has_host() && !self.agents.is_running() {
            self.finish_round();
        }
    }

    fn finish_round(&mut self) {
        if let Some((observation, answered)) = self.round.take() {
            if !matches!(observation, Observation::Poll { host: HostOutcome::Skipped, .. }) {
                self.timing.last_poll = Some(Timestamp::now());
            }
            self.assess(observation, answered);
            if self.memory.loaded().is_none() {
                self.agents.forget_loaded();
            }
            if !self.is_polled() {
                // The answer has shown that asking costs money.
                self.agents.abandon();
                self.plan_slot();
            }
            if self.request().is_some() {
                self.ask_at_once();
            } else if self.memory.lacks_credentials() {
                self.timing.at_once.get_or_insert(Instant::now() + MENDING);
            }
        }
    }

    /// Brings everything up to date. A request is answered by a poll that began after it, or, where nobody is asked,
    /// by the echo alone.
    fn assess(&mut self, observation: Observation, answered: Option<String>) {
        let acceptance = &self.acceptance;
        let interval =
            acceptance.as_ref().map_or(self.context.poll.poll_interval, |accepted| accepted.interval);
        let plans = agents::plans(&self.selected, &self.current.spec, interval);
        let echoed = if self.is_polled() { None } else { self.requested_at() };
        let requested_at =
            answered.or(echoed).or_else(|| self.memory.status.last_handled_requested_at.clone());
        let namespace = self.current.namespace().unwrap_or_default();
        let name = self.current.name_any();
        let subject = Subject {
            namespace: &namespace,
            name: &name,
            labels: self.current.labels(),
            spec: &self.current.spec,
            generation: self.current.metadata.generation,
            acceptance,
            plugins: &plans,
            unknown_keys: &self.unknown_keys,
            requested_at: requested_at.as_deref(),
        };
        let memory = std::mem::take(&mut self.memory);
        let Assessment { memory, transitions } = assess(memory, subject, observation, Timestamp::now());
        self.memory = memory;
        self.publisher.publish(&self.context, &self.current, &self.memory, transitions, interval);
        self.show();
    }

    fn show(&self) {
        let (polled, last_poll) = (self.is_polled(), self.timing.last_poll);
        self.place.show(super::publish::snapshot(&self.current, &self.memory, polled, last_poll));
    }

    /// When the host is asked next: at its slot, which no edit of other things moves.
    fn plan_slot(&mut self) {
        let Some(accepted) = self.acceptance.as_ref().ok().filter(|_| self.is_polled()) else {
            (self.timing.slot, self.timing.at_once) = (None, None);
            return;
        };
        let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let slot = self.phase.next_slot(now_ms, self.timing.used_slot, accepted.interval);
        self.timing.slot = Some((slot, Instant::now() + Duration::from_millis(slot.saturating_sub(now_ms))));
    }

    /// Asks the host before its slot, if it may be asked at all.
    fn ask_at_once(&mut self) {
        if self.is_polled() {
            let now = Instant::now();
            let earliest = self.timing.last_requested.map_or(now, |last| last + REQUESTED_LEAST);
            self.timing.at_once = Some(earliest.max(now));
        }
    }

    fn maintenance_ended(&self) -> bool {
        crate::api::condition::find(&self.memory.status.conditions, crate::api::condition::READY)
            .is_some_and(|ready| ready.reason == "Maintenance")
            && maintenance(&self.current.spec, Timestamp::now()).is_none()
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + SLEEP_MOST;
        let slot = self.timing.slot.map(|(_, at)| at);
        let publisher = [self.publisher.heartbeat_at(), self.publisher.correction_at()];
        for time in
            [slot, self.timing.at_once, self.round.grace_until()].into_iter().chain(publisher).flatten()
        {
            wake = wake.min(time);
        }
        if let Some(Some(end)) = maintenance(&self.current.spec, Timestamp::now()) {
            let left = end.duration_since(Timestamp::now());
            // One more millisecond, so that the end is really past.
            let left = Duration::try_from(left).unwrap_or_default() + Duration::from_millis(1);
            wake = wake.min(now + left.min(SLEEP_MOST));
        }
        wake
    }
}

#[cfg(test)]
#[path = "task_tests.rs"]
mod tests;
