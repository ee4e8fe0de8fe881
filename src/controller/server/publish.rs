//! IO out: the status to the writer if it says something new or a heartbeat is due, the transitions to the Event
//! queue and the log, the snapshot to whoever reads.

use super::{
    assess::{Memory, Significance, significance},
    live::Snapshot,
    schedule::{HEARTBEAT, Phase},
    transition::Transition,
};
use crate::{
    api::{API_VERSION, OllamaServer, OllamaServerStatus},
    controller::{
        context::Context,
        status_writer::{Target, Urgency, standing::Standing},
    },
};
use k8s_openapi::{api::core::v1::ObjectReference, jiff::Timestamp};
use kube::ResourceExt;
use std::{
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
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

/// The newest status that the watch has brought of a server, for whoever publishes it. Not a part of the object that a
/// task follows: a status is looked at once and then let go.
pub type Mailbox = Arc<Mutex<Option<Seen>>>;

/// A status as it stands in an object.
#[derive(Clone, Debug)]
pub struct Seen {
    /// Empty: somebody has removed it.
    pub status: OllamaServerStatus,
    pub version: u64,
    /// The API server has gone back to an older state.
    pub rewound: bool,
}

impl Seen {
    /// Puts it where the publisher finds it.
    pub fn post(mut self, mailbox: &Mailbox) {
        let mut mailbox = mailbox.lock().unwrap_or_else(PoisonError::into_inner);
        self.rewound |= mailbox.as_ref().is_some_and(|before| before.rewound);
        *mailbox = Some(self);
    }
}

/// Publishes for one server.
pub struct Publisher {
    mailbox: Mailbox,
    standing: Standing<OllamaServerStatus>,
    /// The server's own, as of the last time that it was published.
    interval: Duration,
    target: Target,
    regarding: ObjectReference,
    phase: Phase,
    /// What was last handed to the writer, or what the object said when this process began.
    published: Arc<OllamaServerStatus>,
    /// When the last status that is known to stand in the object was written; `None`: never. Not by the wall clock,
    /// which may jump.
    written: Arc<Mutex<Option<Instant>>>,
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
    /// `published` is what the object says as this begins; what it says later comes through the mailbox.
    pub fn new(published: OllamaServerStatus, target: Target, mailbox: Mailbox) -> Self {
        let written = written_at(&published);
        let regarding = ObjectReference {
            api_version: Some(API_VERSION.to_owned()),
            kind: Some("OllamaServer".to_owned()),
            name: Some(target.name.clone()),
            namespace: Some(target.namespace.clone()),
            uid: Some(target.uid.clone()),
            ..ObjectReference::default()
        };
        Self {
            mailbox,
            standing: Standing::new(target.newest.load(Ordering::Relaxed)),
            interval: HEARTBEAT,
            phase: Phase::of(&target.uid),
            target,
            regarding,
            published: Arc::new(published),
            written: Arc::new(Mutex::new(written)),
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
        let written = *self.written.lock().unwrap_or_else(PoisonError::into_inner);
        written.map(|written| written + self.phase.heartbeat_after())
    }

    /// Looks at what the watch has brought. A status that was confirmed later than anything that is known here was written
    /// by another process, if this one has not written yet: it may have begun with a list that was out of date. That one
    /// is given back, to go on from. Whatever else somebody wrote is put right, also if it claims to be newer.
    pub fn take_notice(&mut self, memory: &Memory) -> Option<OllamaServerStatus> {
        let seen = self.mailbox.lock().unwrap_or_else(PoisonError::into_inner).take()?;
        let Seen { status, version, rewound } = seen;
        if !self.standing.is_ours() && !rewound && is_later(&status, &memory.status) {
            self.standing.adopt(version);
            return Some(status);
        }
        self.standing.see(version, rewound, &status, &*self.published, Instant::now());
        None
    }

    /// When a status that somebody else wrote is to be put right.
    pub fn correction_at(&self) -> Option<Instant> {
        self.standing.due(self.interval)
    }

    pub fn correction_is_due(&self) -> bool {
        self.standing.is_due(self.interval, Instant::now())
    }

    /// Goes on from a status that another process wrote.
    pub fn resume(&mut self, context: &Context, published: OllamaServerStatus) {
        context.writer.forget(&self.target.uid);
        *self.written.lock().unwrap_or_else(PoisonError::into_inner) = written_at(&published);
        self.published = Arc::new(published);
    }

    pub fn publish(
        &mut self,
        context: &Context,
        object: &OllamaServer,
        memory: &Memory,
        transitions: Vec<Transition>,
        interval: Duration,
    ) {
        self.interval = interval;
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
            _ if self.heartbeat_is_due() || self.correction_is_due() => Urgency::Heartbeat,
            _ => return,
        };
        // A status is made of numbers, strings and lists of them: it always has a JSON form.
        let Ok(status) = serde_json::to_value(&*memory.status) else { return };
        let strays = self.standing.correct(interval, &status, Instant::now());
        self.published = Arc::clone(&memory.status);
        let written = Arc::clone(&self.written);
        let note = move || *written.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
        // Counted as written from now on; a failed write is tried again by the writer, not by a second one from here.
        note();
        let stands = self.standing.on_written(Arc::clone(&memory.status));
        let done = Box::new(move |version| {
            note();
            stands(version);
        });
        let generation = object.metadata.generation;
        context.writer.submit(self.target.clone(), generation, &status, urgency, strays, done);
    }
}

/// Whether a status was confirmed later than another.
fn is_later(status: &OllamaServerStatus, than: &OllamaServerStatus) -> bool {
    let confirmed =
        |status: &OllamaServerStatus| status.last_heartbeat_time.as_ref().map(|time| time.0.as_second());
    confirmed(status).is_some_and(|theirs| confirmed(than).is_none_or(|ours| ours < theirs))
}

/// When a status that stands in the object was written, as this process's clock counts.
fn written_at(status: &OllamaServerStatus) -> Option<Instant> {
    let written = status.last_heartbeat_time.as_ref()?.0;
    let age = Duration::try_from(Timestamp::now().duration_since(written)).unwrap_or_default();
    // The clock counts from the start of the machine; what is older than that is due anyway.
    let now = Instant::now();
    Some(now.checked_sub(age.min(HEARTBEAT * 2)).unwrap_or(now))
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
