//! IO out: the status to the writer if it says something new or a heartbeat is due, the transitions to the Event
//! queue and the log, the snapshot to whoever reads.

use super::{
    assess::{Memory, Significance, significance},
    live::Snapshot,
    schedule::Phase,
    transition::Transition,
};
use crate::{
    api::{API_VERSION, OllamaServer, OllamaServerStatus},
    controller::{
        context::Context,
        status_writer::{Target, Urgency},
    },
};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::ResourceExt;
use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// Writes that only bring newer readings: three at once and then one in two minutes. A busy CPU moves more than its
/// dead band at every poll; 10,000 such machines are 83 writes a second, within the budget, and metrics have every
/// reading anyway.
const READINGS_BURST: u32 = 3;
const READINGS_REFILL: Duration = Duration::from_mins(2);

/// Writes that only bring what plugins' rules and expressions made of a poll: six at once and then one in half a
/// minute. One that flips at every poll must not keep others from telling that their host is gone.
const RULES_BURST: u32 = 6;
const RULES_REFILL: Duration = Duration::from_secs(30);

/// Publishes for one server.
pub struct Publisher {
    target: Target,
    regarding: ObjectReference,
    phase: Phase,
    /// What was last handed to the writer, or what the object said when this process began.
    published: Arc<OllamaServerStatus>,
    /// Seconds since the Unix epoch of the last status that is known to stand in the object.
    written_second: Arc<AtomicU64>,
    readings: Budget,
    rules: Budget,
}

/// Writes of one kind that one object may cause: some at once, and then one in a while.
struct Budget {
    burst: u32,
    refill: Duration,
    whole_at: Instant,
}

impl Budget {
    fn new(burst: u32, refill: Duration) -> Self {
        Self { burst, refill, whole_at: Instant::now() }
    }

    /// Takes one of the writes, if there is one left.
    fn take(&mut self) -> bool {
        let now = Instant::now();
        let ahead = self.whole_at.saturating_duration_since(now);
        if ahead > self.refill * (self.burst - 1) {
            return false;
        }
        self.whole_at = self.whole_at.max(now) + self.refill;
        true
    }
}

impl Publisher {
    /// `published` is what the object says as this begins.
    pub fn new(published: OllamaServerStatus, target: Target) -> Self {
        let written =
            published.last_heartbeat_time.as_ref().and_then(|time| u64::try_from(time.0.as_second()).ok());
        let regarding = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some("OllamaServer".to_owned()),
            name: Some(target.name.clone()),
            namespace: Some(target.namespace.clone()),
            uid: Some(target.uid.clone()),
            ..ObjectReference::default()
        };
        Self {
            phase: Phase::of(&target.uid),
            target,
            regarding,
            published: Arc::new(published),
            written_second: Arc::new(AtomicU64::new(written.unwrap_or_default())),
            readings: Budget::new(READINGS_BURST, READINGS_REFILL),
            rules: Budget::new(RULES_BURST, RULES_REFILL),
        }
    }

    /// Whether the status should be confirmed although nothing has changed.
    pub fn heartbeat_is_due(&self) -> bool {
        self.heartbeat_at().is_some_and(|at| at <= Instant::now())
    }

    /// When the next heartbeat is due; `None` while nothing was ever written.
    pub fn heartbeat_at(&self) -> Option<Instant> {
        let written = self.written_second.load(Ordering::Relaxed);
        if written == 0 {
            return None;
        }
        let due = Duration::from_secs(written) + self.phase.heartbeat_after();
        let now =
            Duration::try_from(Timestamp::now().duration_since(Timestamp::UNIX_EPOCH)).unwrap_or_default();
        Some(Instant::now() + due.saturating_sub(now))
    }

    pub fn publish(
        &mut self,
        context: &Context,
        object: &OllamaServer,
        memory: &Memory,
        transitions: Vec<Transition>,
    ) {
        for transition in transitions {
            let text = transition.event();
            tracing::info!(
                namespace = self.target.namespace,
                server = self.target.name,
                reason = &*text.reason,
                note = text.note,
                "transition"
            );
            context.events.submit(self.regarding.clone(), text, transition.is_urgent());
        }
        let urgency = match significance(&self.published, &memory.status) {
            Significance::Meaning => Urgency::Transition,
            Significance::Rules if self.rules.take() => Urgency::Heartbeat,
            Significance::Readings if self.readings.take() => Urgency::Heartbeat,
            _ if self.heartbeat_is_due() => Urgency::Heartbeat,
            _ => return,
        };
        // A status is made of numbers, strings and lists of them: it always has a JSON form.
        let Ok(status) = serde_json::to_value(&*memory.status) else { return };
        self.published = Arc::clone(&memory.status);
        let second = Timestamp::now().as_second();
        // Counted as written from now on; a failed write is tried again by the writer, not by a second one from here.
        self.written_second.store(u64::try_from(second).unwrap_or_default(), Ordering::Relaxed);
        let written = Arc::clone(&self.written_second);
        let done = Box::new(move || {
            let second = Timestamp::now().as_second();
            written.store(u64::try_from(second).unwrap_or_default(), Ordering::Relaxed);
        });
        context.writer.submit(self.target.clone(), object.metadata.generation, status, urgency, done);
    }
}

/// What everybody who only reads gets to see. Of agents that are not asked there is nothing that is true now.
pub fn snapshot(
    object: &Arc<OllamaServer>,
    memory: &Memory,
    polled: bool,
    last_poll: Option<Timestamp>,
) -> Snapshot {
    let capacity = object.spec.capacity.clone().unwrap_or_default();
    Snapshot {
        namespace: object.namespace().unwrap_or_default().into(),
        name: object.name_any().into(),
        object: Arc::clone(object),
        backend: object.spec.backend_type.as_str(),
        capacity_memory: capacity.memory,
        capacity_vram: capacity.vram,
        status: Arc::clone(&memory.status),
        readings: memory.readings().clone(),
        agents: if polled { memory.agents_shown().into() } else { Arc::default() },
        failures: memory.failures(),
        last_poll: last_poll.or_else(|| memory.status.last_heartbeat_time.as_ref().map(|time| time.0)),
    }
}
