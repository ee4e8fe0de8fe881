//! The one sender of Events: a bounded queue, urgent ones first, namespace by namespace in turn, at a rate that the API
//! server and its readers can bear, and no object louder than the rest. Only overflow drops, and it is counted.

use super::{
    api_client::Hold,
    api_failure::ApiFailure,
    event_series::{Attempt, Series},
    fair_queue::FairQueue,
    server::transition::EventText,
};
use crate::{
    metrics::Metrics,
    runtime::leader::{Leadership, Unwritten},
};
use governor::{Quota, RateLimiter};
use k8s_openapi::{
    api::{core::v1::ObjectReference, events::v1::Event},
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{PartialObjectMeta, Patch, PatchParams, PostParams},
};
use serde_json::json;
use std::{
    collections::{BTreeMap, HashMap},
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// Events that wait: one for every server of the largest fleet that was measured.
const QUEUE_MAX: usize = 10_000;
/// Events a second; 1,000 machines that die at once are told of within 20 s.
const EVENTS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(49);
/// Events of one object at once; a host with more news than this has a problem of its own.
const BURST: u32 = 25;
/// Then one in this time.
const REFILL: Duration = Duration::from_secs(10);
/// Events of one object that wait for their turn. A host that invents hundreds of models a second would otherwise fill
/// the queue alone, and the news of all others would be dropped.
const HELD_MAX: u32 = 100;
const IN_FLIGHT_MAX: usize = 8;
/// Deadline of one call; kube's client has none of its own.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// How often an Event that was forbidden is sent again, each time after twice the wait: half a minute in all. An API
/// server that has just started refuses everybody but administrators until it has read the roles.
const FORBIDDEN_TRIES: u32 = 4;
const FORBIDDEN_WAIT: Duration = Duration::from_secs(2);
/// Pause after a failure of the API server.
const PAUSE: Duration = Duration::from_secs(1);
/// What a stop waits for the Events that are under way or waiting.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

struct Queued {
    regarding: ObjectReference,
    text: EventText,
    urgent: bool,
    /// The request that was sent and not answered: the next try is the same.
    attempt: Option<Attempt>,
    /// How often it was forbidden.
    forbidden: u32,
}

impl Queued {
    fn namespace(&self) -> String {
        self.regarding.namespace.clone().unwrap_or_default()
    }
}

#[derive(Default)]
struct State {
    urgent: FairQueue<Queued>,
    routine: FairQueue<Queued>,
    /// Events of objects that have used up their burst, by when their turn comes.
    held: BTreeMap<(Instant, u64), Queued>,
    /// When each object's burst is whole again (generic cell rate algorithm).
    whole_at: HashMap<String, Instant>,
    sequence: u64,
}

/// Takes Events and sends them. Cheap to clone.
#[derive(Clone)]
pub struct EventQueue {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    hold: Hold,
    leadership: Leadership,
    series: Mutex<Series>,
    metrics: Arc<Metrics>,
    state: Mutex<State>,
    changed: Notify,
}

impl EventQueue {
    pub fn new(client: Client, hold: Hold, leadership: Leadership, metrics: Arc<Metrics>) -> Self {
        let shared = Shared {
            client,
            hold,
            leadership,
            series: Mutex::default(),
            metrics,
            state: Mutex::default(),
            changed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Asks for an Event about an object.
    pub fn submit(&self, regarding: ObjectReference, text: EventText, urgent: bool) {
        let accepted = self
            .shared
            .lock()
            .accept(Queued { regarding, text, urgent, attempt: None, forbidden: 0 }, Instant::now());
        if accepted {
            self.shared.changed.notify_one();
        } else {
            self.shared.metrics.event("dropped");
        }
    }

    /// Events that wait to be sent.
    pub fn depth(&self) -> usize {
        self.shared.lock().depth()
    }

    /// Sends until the token is cancelled, and then what is waiting, for at most 2 s.
    pub async fn run(self, shutdown: CancellationToken) {
        let limiter = RateLimiter::direct(Quota::per_second(EVENTS_PER_SECOND));
        let mut running: JoinSet<bool> = JoinSet::new();
        let sending = async {
            loop {
                while running.len() >= IN_FLIGHT_MAX || self.shared.lock().is_idle(Instant::now()) {
                    let wake = self.shared.lock().next_held();
                    tokio::select! {
                        Some(ended) = running.join_next() => pause_after(ended.unwrap_or(false)).await,
                        () = self.shared.changed.notified() => {}
                        () = sleep_until(wake.unwrap_or_else(|| Instant::now() + Duration::from_hours(1))) => {}
                    }
                }
                if let Some(until) = self.shared.hold.until() {
                    sleep_until(until).await;
                }
                limiter.until_ready().await;
                let next = self.shared.lock().next(Instant::now());
                if let Some(queued) = next {
                    let shared = Arc::clone(&self.shared);
                    running.spawn(async move { shared.send(queued).await });
                }
                while let Some(ended) = running.try_join_next() {
                    pause_after(ended.unwrap_or(false)).await;
                }
            }
        };
        tokio::select! {
            () = sending => {}
            () = shutdown.cancelled() => {}
        }
        let drain = async {
            loop {
                let next = self.shared.lock().next(Instant::now());
                match next {
                    Some(queued) if running.len() < IN_FLIGHT_MAX => {
                        let shared = Arc::clone(&self.shared);
                        running.spawn(async move { shared.send(queued).await });
                        continue;
                    }
                    Some(queued) => self.shared.lock().push_front(queued),
                    None => {}
                }
                match running.join_next().await {
                    Some(Ok(true)) => {}
                    // All is sent, or the API server does not take any now.
                    Some(_) | None => break,
                }
            }
            while running.join_next().await.is_some() {}
        };
        let _ = timeout(DRAIN_TIMEOUT, drain).await;
        let left = self.shared.lock().depth();
        if left > 0 {
            tracing::warn!(left, "stopping with Events unsent; the statuses say what they would have told");
            for _ in 0..left {
                self.shared.metrics.event("dropped");
            }
        }
    }
}

async fn pause_after(sent: bool) {
    if !sent {
        sleep(PAUSE).await;
    }
}

impl State {
    fn depth(&self) -> usize {
        self.urgent.len() + self.routine.len() + self.held.len()
    }

    /// Whether there was room. The object's own pace decides when it may go.
    fn accept(&mut self, queued: Queued, now: Instant) -> bool {
        if self.depth() >= QUEUE_MAX {
            return false;
        }
        if self.whole_at.len() > 2 * QUEUE_MAX {
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
        if ready > now {
            self.sequence += 1;
            self.held.insert((ready, self.sequence), queued);
        } else {
            self.push(queued);
        }
        true
    }

    /// Keeps what was forbidden for another try, which holds nobody up; gives it back if it has had them all.
    fn forbidden(&mut self, mut queued: Queued, now: Instant) -> Option<Queued> {
        if queued.forbidden >= FORBIDDEN_TRIES || self.depth() >= QUEUE_MAX {
            return Some(queued);
        }
        self.sequence += 1;
        let ready = now + FORBIDDEN_WAIT * (1 << queued.forbidden);
        queued.forbidden += 1;
        self.held.insert((ready, self.sequence), queued);
        None
    }

    fn push(&mut self, queued: Queued) {
        let namespace = queued.namespace();
        self.queue_of(&queued).push_back(&namespace, queued);
    }

    fn push_front(&mut self, queued: Queued) {
        let namespace = queued.namespace();
        self.queue_of(&queued).push_front(&namespace, queued);
    }

    fn queue_of(&mut self, queued: &Queued) -> &mut FairQueue<Queued> {
        if queued.urgent { &mut self.urgent } else { &mut self.routine }
    }

    fn release(&mut self, now: Instant) {
        while let Some(entry) = self.held.first_entry() {
            if entry.key().0 > now {
                break;
            }
            let queued = entry.remove();
            self.push(queued);
        }
    }

    fn next(&mut self, now: Instant) -> Option<Queued> {
        self.release(now);
        self.urgent.pop_front().or_else(|| self.routine.pop_front())
    }

    fn is_idle(&mut self, now: Instant) -> bool {
        self.release(now);
        self.urgent.is_empty() && self.routine.is_empty()
    }

    fn next_held(&self) -> Option<Instant> {
        self.held.keys().next().map(|(at, _)| *at)
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the API server took it, or never will; otherwise it waits for another try.
    async fn send(&self, mut queued: Queued) -> bool {
        let attempt = queued.attempt.take().unwrap_or_else(|| self.attempt(&queued));
        let failure = match self.leadership.write(CALL_TIMEOUT, self.call(&queued, &attempt)).await {
            Ok(Ok(())) => {
                self.metrics.event("sent");
                return true;
            }
            Ok(Err(error)) => {
                tracing::debug!(reason = &*queued.text.reason, %error, "Event not sent");
                ApiFailure::of(&error)
            }
            Err(Unwritten::Late) => ApiFailure::Unavailable,
            // Another replica may lead by now: it tells what it finds.
            Err(Unwritten::NotLeading) => {
                self.metrics.event("not_leading");
                return true;
            }
        };
        let (attempt, wait) = match (failure, attempt) {
            (ApiFailure::Unavailable | ApiFailure::Unauthenticated, attempt) => (Some(attempt), true),
            // A try before this one was done, though nobody said so.
            (ApiFailure::Conflict, Attempt::Create(_)) => {
                self.metrics.event("sent");
                return true;
            }
            // Somebody removed the Event that was counted on, or it never came to be: this is told by a new one.
            (ApiFailure::Gone, Attempt::Count { .. }) => {
                self.series().forget(&queued.regarding, &queued.text);
                (None, false)
            }
            // An API server that has just started forbids what it allows a moment later.
            (ApiFailure::Forbidden, attempt) => {
                queued.attempt = Some(attempt);
                let Some(queued) = self.lock().forbidden(queued, Instant::now()) else { return true };
                self.series().forget(&queued.regarding, &queued.text);
                self.metrics.event(ApiFailure::Forbidden.label());
                return true;
            }
            // The namespace is going, or it is refused: another try would only hold up the others.
            (other, _) => {
                self.series().forget(&queued.regarding, &queued.text);
                self.metrics.event(other.label());
                return true;
            }
        };
        queued.attempt = attempt;
        self.lock().push_front(queued);
        !wait
    }

    fn attempt(&self, queued: &Queued) -> Attempt {
        self.series().attempt(&queued.regarding, &queued.text, Timestamp::now())
    }

    async fn call(&self, queued: &Queued, attempt: &Attempt) -> kube::Result<()> {
        let namespace = queued.regarding.namespace.as_deref().unwrap_or_default();
        match attempt {
            Attempt::Create(event) => {
                let events: Api<Event> = Api::namespaced(self.client.clone(), namespace);
                events.create(&PostParams::default(), event).await.map(drop)
            }
            Attempt::Count { name, series } => {
                let events: Api<PartialObjectMeta<Event>> = Api::namespaced(self.client.clone(), namespace);
                let patch = Patch::Merge(json!({ "series": series }));
                events.patch(name, &PatchParams::default(), &patch).await.map(drop)
            }
        }
    }

    fn series(&self) -> MutexGuard<'_, Series> {
        self.series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queued(uid: &str, urgent: bool) -> Queued {
        Queued {
            regarding: ObjectReference { uid: Some(uid.into()), ..ObjectReference::default() },
            text: EventText {
                reason: "ModelLoaded".into(),
                warning: false,
                note: String::new(),
                field_path: None,
            },
            urgent,
            attempt: None,
            forbidden: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_object_has_a_burst_and_then_a_pace() {
        let (mut state, now) = (State::default(), Instant::now());
        for _ in 0..30 {
            assert!(state.accept(queued("a", false), now));
        }
        assert!(state.accept(queued("b", false), now), "another object is not held up");
        let mut at_once = 0;
        while state.next(now).is_some() {
            at_once += 1;
        }
        assert_eq!(at_once, 26);
        assert!(state.next(now + REFILL).is_some());
        assert!(state.next(now + REFILL).is_none());
        assert_eq!(state.depth(), 4, "the rest waits and is not dropped");
    }

    #[tokio::test(start_paused = true)]
    async fn a_loud_object_does_not_fill_the_queue() {
        let (mut state, now) = (State::default(), Instant::now());
        let accepted = (0..QUEUE_MAX).filter(|_| state.accept(queued("loud", false), now)).count();
        assert_eq!(accepted, 125, "the burst, and what may wait");
        assert!(state.accept(queued("quiet", true), now));
        assert!(state.accept(queued("loud", false), now + REFILL), "it is heard again as its turn comes");
    }

    #[tokio::test(start_paused = true)]
    async fn what_was_forbidden_is_tried_again_for_half_a_minute() {
        let (mut state, start) = (State::default(), Instant::now());
        assert!(state.accept(queued("a", true), start));
        let (mut now, mut tries) = (start, 1);
        loop {
            let again = state.next(now).unwrap();
            if state.forbidden(again, now).is_some() {
                break;
            }
            assert!(state.accept(queued("b", false), now), "another one goes at once");
            assert_eq!(state.next(now).unwrap().regarding.uid.as_deref(), Some("b"));
            assert!(state.is_idle(now));
            now = state.next_held().unwrap();
            tries += 1;
        }
        assert_eq!((tries, now - start), (5, Duration::from_secs(30)));
        assert_eq!(state.depth(), 0);
    }

    #[tokio::test(start_paused = true)]
    async fn urgent_events_go_first_and_overflow_is_refused() {
        let (mut state, now) = (State::default(), Instant::now());
        for i in 0..QUEUE_MAX - 1 {
            assert!(state.accept(queued(&i.to_string(), false), now));
        }
        assert!(state.accept(queued("offline", true), now));
        assert!(!state.accept(queued("one too many", true), now));
        assert_eq!(state.next(now).unwrap().regarding.uid.as_deref(), Some("offline"));
    }
}
