//! The Events that wait: which goes next, and which there is no room for. Knows no client.

use crate::controller::{event_series::Attempt, fair_queue::FairQueue, server::transition::EventText};
use k8s_openapi::api::core::v1::ObjectReference;
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};
use tokio::time::Instant;

/// Events of one namespace that wait: one for every server of the largest fleet that was measured. As many again, if
/// they are urgent.
pub const OF_A_NAMESPACE_MAX: usize = 10_000;
/// As with slots for polls: a namespace may have seven times what it leaves free, so that there is always room for one
/// that has nothing yet. Whoever has hosts that invent models could otherwise keep the death of others' hosts untold.
const SHARE: usize = 7;
/// Events that wait in all, so that one namespace alone gets all that it may have.
const IN_ALL_MAX: usize = OF_A_NAMESPACE_MAX + OF_A_NAMESPACE_MAX.div_ceil(SHARE);
/// Events of one object at once; a host with more news than this has a problem of its own.
const BURST: u32 = 25;
/// Then one in this time.
pub const REFILL: Duration = Duration::from_secs(10);
/// Events of one object that wait for their turn. A host that invents hundreds of models a second would otherwise take
/// all that its namespace may have.
const HELD_MAX: u32 = 100;
/// How often an Event that was forbidden is sent again, each time after twice the wait: half a minute in all. An API
/// server that has just started refuses everybody but administrators until it has read the roles.
const FORBIDDEN_TRIES: u32 = 4;
const FORBIDDEN_WAIT: Duration = Duration::from_secs(2);
/// Pause of an Event that fails while those of other namespaces are sent, doubled up to the second number.
const FAILED_LEAST: Duration = Duration::from_secs(1);
const FAILED_MOST: Duration = Duration::from_secs(30);

pub struct Queued {
    pub regarding: ObjectReference,
    pub text: EventText,
    pub urgent: bool,
    /// The request that was sent and not answered: the next try is the same.
    pub attempt: Option<Attempt>,
    /// How often it was forbidden.
    forbidden: u32,
    /// How often it failed while others did not.
    failed: u32,
}

impl Queued {
    pub fn new(regarding: ObjectReference, text: EventText, urgent: bool) -> Self {
        Self { regarding, text, urgent, attempt: None, forbidden: 0, failed: 0 }
    }

    pub fn namespace(&self) -> &str {
        self.regarding.namespace.as_deref().unwrap_or_default()
    }
}

#[derive(Default)]
pub struct Waiting {
    urgent: Lines,
    routine: Lines,
    /// Events of objects that have used up their burst, by when their turn comes.
    held: BTreeMap<(Instant, u64), Queued>,
    /// When each object's burst is whole again (generic cell rate algorithm).
    whole_at: HashMap<String, Instant>,
    sequence: u64,
}

/// Events of one urgency.
#[derive(Default)]
struct Lines {
    ready: FairQueue<Queued>,
    /// Of each namespace, what is held included.
    count: HashMap<String, usize>,
    all: usize,
}

impl Lines {
    fn has_room(&self, namespace: &str) -> bool {
        let own = self.count.get(namespace).copied().unwrap_or_default();
        own < OF_A_NAMESPACE_MAX && own < SHARE * IN_ALL_MAX.saturating_sub(self.all)
    }

    fn enter(&mut self, namespace: &str) {
        self.all += 1;
        match self.count.get_mut(namespace) {
            Some(count) => *count += 1,
            None => drop(self.count.insert(namespace.to_owned(), 1)),
        }
    }

    fn next(&mut self) -> Option<Queued> {
        let queued = self.ready.pop_front()?;
        self.all -= 1;
        if let Some(count) = self.count.get_mut(queued.namespace()) {
            *count -= 1;
            if *count == 0 {
                self.count.remove(queued.namespace());
            }
        }
        Some(queued)
    }
}

impl Waiting {
    pub fn depth(&self) -> usize {
        self.urgent.all + self.routine.all
    }

    fn lines(&mut self, urgent: bool) -> &mut Lines {
        if urgent { &mut self.urgent } else { &mut self.routine }
    }

    /// Whether there was room. The object's own pace decides when it may go.
    pub fn accept(&mut self, queued: Queued, now: Instant) -> bool {
        if !self.lines(queued.urgent).has_room(queued.namespace()) {
            return false;
        }
        if self.whole_at.len() > 2 * IN_ALL_MAX {
            self.whole_at.retain(|_, whole_at| *whole_at > now);
        }
        let mut uid = queued.regarding.uid.clone().unwrap_or_default();
        if queued.urgent {
            // A pace of its own: that a host is gone does not wait behind what was told of its models.
            uid.push('!');
        }
        let whole_at = self.whole_at.entry(uid).or_insert(now);
        if whole_at.saturating_duration_since(now) > REFILL * (BURST + HELD_MAX - 1) {
            return false;
        }
        let ready = now + whole_at.saturating_duration_since(now).saturating_sub(REFILL * (BURST - 1));
        *whole_at = (*whole_at).max(now) + REFILL;
        self.lines(queued.urgent).enter(queued.namespace());
        if ready > now {
            self.hold(queued, ready);
        } else {
            self.ready(queued);
        }
        true
    }

    /// Keeps what was forbidden for another try, which holds nobody up; gives it back if it has had them all.
    pub fn forbidden(&mut self, mut queued: Queued, now: Instant) -> Option<Queued> {
        if queued.forbidden >= FORBIDDEN_TRIES || !self.lines(queued.urgent).has_room(queued.namespace()) {
            return Some(queued);
        }
        let ready = now + FORBIDDEN_WAIT * (1 << queued.forbidden);
        queued.forbidden += 1;
        self.lines(queued.urgent).enter(queued.namespace());
        self.hold(queued, ready);
        None
    }

    /// Keeps what could not be sent for another try, ever later, which holds nobody up.
    pub fn later(&mut self, mut queued: Queued, now: Instant) {
        let ready = now + FAILED_LEAST.saturating_mul(1 << queued.failed.min(16)).min(FAILED_MOST);
        queued.failed += 1;
        self.lines(queued.urgent).enter(queued.namespace());
        self.hold(queued, ready);
    }

    /// Whether anything of another namespace could be sent now.
    pub fn has_others(&self, namespace: &str) -> bool {
        self.urgent.ready.has_others(namespace) || self.routine.ready.has_others(namespace)
    }

    /// Puts back what could not be sent: it is the next.
    pub fn put_back(&mut self, queued: Queued) {
        let namespace = queued.namespace().to_owned();
        let lines = self.lines(queued.urgent);
        lines.enter(&namespace);
        lines.ready.push_front(&namespace, queued);
    }

    fn hold(&mut self, queued: Queued, ready: Instant) {
        self.sequence += 1;
        self.held.insert((ready, self.sequence), queued);
    }

    fn ready(&mut self, queued: Queued) {
        let namespace = queued.namespace().to_owned();
        self.lines(queued.urgent).ready.push_back(&namespace, queued);
    }

    fn release(&mut self, now: Instant) {
        while let Some(entry) = self.held.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let queued = entry.remove();
            self.ready(queued);
        }
    }

    pub fn next(&mut self, now: Instant) -> Option<Queued> {
        self.release(now);
        self.urgent.next().or_else(|| self.routine.next())
    }

    pub fn is_idle(&mut self, now: Instant) -> bool {
        self.release(now);
        self.urgent.ready.is_empty() && self.routine.ready.is_empty()
    }

    pub fn next_held(&self) -> Option<Instant> {
        self.held.keys().next().map(|(at, _)| *at)
    }
}
