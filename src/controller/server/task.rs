//! One server's life: waits for its slot, polls, assesses, publishes, over and over. One task a server, so that
//! nothing that happens to one is noticed by another.

use super::{
    accept::{Accepted, Rejected, accept, maintenance},
    assess::{Assessment, Memory, Observation, Subject, assess},
    live::Place,
    observe::{AgentRound, Round, host_target},
    publish::Publisher,
    schedule::Phase,
};
use crate::{
    api::{OllamaServer, REQUESTED_AT, REQUESTED_AT_MAX},
    controller::{
        context::Context,
        plugin::index::{ActivePlugin, PluginIndex},
    },
    probe::{HostOutcome, text::clean},
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
/// Longest sleep; everything that matters has a time of its own.
const SLEEP_MOST: Duration = Duration::from_hours(1);

/// The task of one server.
pub struct ServerTask {
    context: Arc<Context>,
    object: watch::Receiver<Arc<OllamaServer>>,
    plugins: watch::Receiver<Arc<PluginIndex>>,
    phase: Phase,
    memory: Memory,
    publisher: Publisher,
    place: Place,
    current: Arc<OllamaServer>,
    acceptance: Result<Accepted, Rejected>,
    selected: Vec<Arc<ActivePlugin>>,
    round: Round,
    agents: AgentRound,
    timing: Timing,
}

/// When what is due.
struct Timing {
    /// `None`: not polled at all.
    next_poll: Option<Instant>,
    last_slot_ms: Option<u64>,
    last_models: Option<Instant>,
    last_requested: Option<Instant>,
    last_poll: Option<Timestamp>,
    polls: u64,
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
        let acceptance = accept(&current.spec, &context.poll, context.prober.policy());
        let plugins = context.plugins.subscribe();
        let phase = Phase::of(&current.uid().unwrap_or_default());
        Self {
            object,
            plugins,
            phase,
            memory,
            publisher,
            place,
            acceptance,
            selected: Vec::new(),
            round: Round::default(),
            agents: AgentRound::default(),
            timing: Timing {
                next_poll: None,
                last_slot_ms: None,
                last_models: None,
                last_requested: None,
                last_poll: None,
                polls: 0,
            },
            current,
            context,
        }
    }

    /// Runs until the object is gone: until the sender of its versions is dropped.
    pub async fn run(mut self) {
        self.select_plugins();
        let known = self.memory.status.observed_generation;
        let changed = known.is_some() && known != self.current.metadata.generation;
        if changed || !self.is_polled() {
            // A new generation is written at once. A new object already shows Pending, by the schema's default.
            self.assess(Observation::None);
        }
        self.plan_next(self.memory.is_new() || self.is_requested());
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
                outcome = self.round.finished() => self.on_host(outcome),
                observation = self.agents.next() => {
                    self.round.agent_answered(observation);
                    self.finish_round_if_complete();
                }
                () = sleep_until(wake) => self.on_timer(),
            }
        }
    }

    fn is_polled(&self) -> bool {
        self.acceptance.is_ok() && !self.current.spec.suspend
    }

    fn requested_at(&self) -> Option<&str> {
        self.current.annotations().get(REQUESTED_AT).map(String::as_str)
    }

    fn is_requested(&self) -> bool {
        let wanted = self.requested_at().map(|value| clean(value, REQUESTED_AT_MAX));
        wanted.is_some() && wanted != self.memory.status.last_handled_requested_at
    }

    fn on_object(&mut self) {
        let object = Arc::clone(&self.object.borrow_and_update());
        let spec_changed = object.spec != self.current.spec;
        let new_generation = object.metadata.generation != self.current.metadata.generation;
        let labels_changed = object.labels() != self.current.labels();
        let was_polled = self.is_polled();
        let old_target =
            self.acceptance.as_ref().ok().map(|accepted| (accepted.endpoint.clone(), accepted.backend));
        self.current = object;
        if spec_changed || new_generation {
            self.acceptance = accept(&self.current.spec, &self.context.poll, self.context.prober.policy());
        }
        let new_target =
            self.acceptance.as_ref().ok().map(|accepted| (accepted.endpoint.clone(), accepted.backend));
        let moved = old_target != new_target;
        if moved || !self.is_polled() {
            // What is still under way was asked of another host, or must not be asked any more.
            self.round = Round::default();
            self.agents.abandon();
            self.timing.last_models = None;
        }
        if spec_changed || labels_changed {
            self.select_plugins();
        }
        if new_generation {
            self.assess(Observation::None);
        }
        let requested = self.is_requested();
        if requested && !self.is_polled() {
            self.assess(Observation::None);
        }
        if new_generation || requested {
            let now = self.is_polled() && (moved || !was_polled || requested);
            self.plan_next(now);
        }
    }

    fn on_plugins(&mut self) {
        let before = std::mem::take(&mut self.selected);
        self.select_plugins();
        let same = before.len() == self.selected.len()
            && before.iter().zip(&self.selected).all(|(old, new)| Arc::ptr_eq(old, new));
        if !same {
            self.agents.abandon();
            // A reading by the old rules is not shown under the new ones.
            self.timing.polls = 0;
        }
    }

    fn select_plugins(&mut self) {
        let index = Arc::clone(&self.plugins.borrow_and_update());
        let namespace = self.current.namespace().unwrap_or_default();
        self.selected = index.selecting(&namespace, self.current.labels());
    }

    fn on_timer(&mut self) {
        let now = Instant::now();
        if self.round.grace_is_over(now) {
            self.finish_round();
        }
        if self.timing.next_poll.is_some_and(|at| at <= now) {
            self.start_poll(now);
        } else if self.publisher.heartbeat_is_due() || self.maintenance_ended() {
            self.assess(Observation::None);
        }
    }

    fn start_poll(&mut self, now: Instant) {
        let scheduled = self.timing.next_poll;
        let requested = self.is_requested();
        if self.round.is_running() {
            // A late poll is skipped, never queued.
            self.context.metrics.poll_skipped();
            self.plan_next(false);
            return;
        }
        let Ok(accepted) = &self.acceptance else { return };
        if let (Some(at), false) = (scheduled, requested) {
            self.context.metrics.poll_lagged(now.saturating_duration_since(at));
        }
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
        let target = host_target(accepted, &self.memory, with_models);
        self.round.start(&self.context, target, requested);
        self.agents.start(
            &self.context,
            accepted,
            &self.current.spec,
            &self.selected,
            &self.memory,
            self.timing.polls,
        );
        self.timing.polls += 1;
        self.plan_next(false);
    }

    fn on_host(&mut self, outcome: HostOutcome) {
        match &outcome {
            HostOutcome::Failed(failure) => self.context.metrics.poll_failed(*failure),
            HostOutcome::Skipped => self.context.metrics.poll_skipped(),
            HostOutcome::Online(_) => {}
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
        if let Some(observation) = self.round.take() {
            self.timing.last_poll = Some(Timestamp::now());
            self.assess(observation);
        }
    }

    fn assess(&mut self, observation: Observation) {
        let plans = super::observe::plans(&self.selected, &self.current.spec);
        let acceptance = &self.acceptance;
        // A request is answered by the poll that it asked for, and by nothing else.
        let answered = matches!(observation, Observation::Poll { requested: true, .. }) || !self.is_polled();
        let requested_at = if answered {
            self.requested_at().map(str::to_owned)
        } else {
            self.memory.status.last_handled_requested_at.clone()
        };
        let subject = Subject {
            spec: &self.current.spec,
            generation: self.current.metadata.generation,
            acceptance,
            plugins: &plans,
            requested_at: requested_at.as_deref(),
        };
        let memory = std::mem::take(&mut self.memory);
        let Assessment { memory, transitions } = assess(memory, subject, observation, Timestamp::now());
        self.memory = memory;
        self.publisher.publish(&self.context, &self.current, &self.memory, transitions);
        self.show();
    }

    fn show(&self) {
        self.place.show(super::publish::snapshot(&self.current, &self.memory, self.timing.last_poll));
    }

    /// When the host is asked next: now, or at its slot.
    fn plan_next(&mut self, at_once: bool) {
        if !self.is_polled() {
            self.timing.next_poll = None;
            return;
        }
        let Ok(accepted) = &self.acceptance else { return };
        let now = Instant::now();
        if at_once {
            let earliest = self.timing.last_requested.map_or(now, |last| last + REQUESTED_LEAST);
            self.timing.next_poll = Some(earliest.max(now));
            return;
        }
        let now_ms = u64::try_from(Timestamp::now().as_millisecond()).unwrap_or_default();
        let slot = self.phase.next_slot(now_ms, self.timing.last_slot_ms, accepted.interval);
        self.timing.last_slot_ms = Some(slot);
        self.timing.next_poll = Some(now + Duration::from_millis(slot.saturating_sub(now_ms)));
    }

    fn maintenance_ended(&self) -> bool {
        crate::api::condition::find(&self.memory.status.conditions, crate::api::condition::READY)
            .is_some_and(|ready| ready.reason == "Maintenance")
            && maintenance(&self.current.spec, Timestamp::now()).is_none()
    }

    fn next_wake(&self) -> Instant {
        let now = Instant::now();
        let mut wake = now + SLEEP_MOST;
        for time in [self.timing.next_poll, self.round.grace_until(), self.publisher.heartbeat_at()]
            .into_iter()
            .flatten()
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
