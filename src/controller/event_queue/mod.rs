//! The one sender of Events: a bounded queue, urgent ones first, namespace by namespace in turn, at a rate that the API
//! server and its readers can bear, and no object louder than the rest. Only overflow drops, and it is counted.

#[cfg(test)]
mod tests;
mod waiting;

use super::{
    api_client::Hold,
    api_failure::ApiFailure,
    event_series::{Attempt, Series},
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
use waiting::{Queued, Waiting};

/// Events a second; 1,000 machines that die at once are told of within 20 s.
const EVENTS_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(49);
/// Events at once after a rest, so that no second has more than that.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(7);
const IN_FLIGHT_MAX: usize = 8;
/// So many that fail on end are no tenant's own trouble.
const FAILURES_OF_AN_OUTAGE: usize = 8;
/// Deadline of one call; kube's client has none of its own.
const CALL_TIMEOUT: Duration = Duration::from_secs(5);
/// Pause after a failure of the API server.
const PAUSE: Duration = Duration::from_secs(1);
/// What a stop waits for the Events that are under way or waiting.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(2);

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
    waiting: Mutex<Waiting>,
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
            waiting: Mutex::default(),
            changed: Notify::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Asks for an Event about an object.
    pub fn submit(&self, regarding: ObjectReference, text: EventText, urgent: bool) {
        let accepted = self.shared.lock().accept(Queued::new(regarding, text, urgent), Instant::now());
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
        let mut drive = Drive { shared: Arc::clone(&self.shared), running: JoinSet::new(), failures: 0 };
        tokio::select! {
            () = drive.forever() => {}
            () = shutdown.cancelled() => {}
        }
        let _ = timeout(DRAIN_TIMEOUT, drive.drain()).await;
        let left = self.shared.lock().depth();
        if left > 0 {
            tracing::warn!(left, "stopping with Events unsent; the statuses say what they would have told");
            for _ in 0..left {
                self.shared.metrics.event("dropped");
            }
        }
    }
}

struct Drive {
    shared: Arc<Shared>,
    /// Each gives back what could not be sent now.
    running: JoinSet<Option<Queued>>,
    /// Since the last that was sent.
    failures: usize,
}

impl Drive {
    async fn forever(&mut self) {
        let shared = Arc::clone(&self.shared);
        let limiter = RateLimiter::direct(Quota::per_second(EVENTS_PER_SECOND).allow_burst(BURST));
        loop {
            while self.running.len() >= IN_FLIGHT_MAX || shared.lock().is_idle(Instant::now()) {
                let wake = shared.lock().next_held();
                tokio::select! {
                    Some(ended) = self.running.join_next() => self.settle(ended.ok().flatten()).await,
                    () = shared.changed.notified() => {}
                    () = sleep_until(wake.unwrap_or_else(|| Instant::now() + Duration::from_hours(1))) => {}
                }
            }
            if let Some(until) = shared.hold.until() {
                sleep_until(until).await;
            }
            limiter.until_ready().await;
            self.start_next();
            while let Some(ended) = self.running.try_join_next() {
                self.settle(ended.ok().flatten()).await;
            }
        }
    }

    /// Whether there was anything to send.
    fn start_next(&mut self) -> bool {
        let Some(queued) = self.shared.lock().next(Instant::now()) else { return false };
        let shared = Arc::clone(&self.shared);
        self.running.spawn(async move { shared.send(queued).await });
        true
    }

    /// One namespace may have its Events refused by what somebody has put in front of the API server: it waits, and
    /// nobody else does. If all that are tried fail, the API server is away, and everybody waits.
    async fn settle(&mut self, unsent: Option<Queued>) {
        let Some(queued) = unsent else {
            self.failures = 0;
            return;
        };
        self.failures += 1;
        let away = {
            let mut waiting = self.shared.lock();
            let away = self.failures >= FAILURES_OF_AN_OUTAGE || !waiting.has_others(queued.namespace());
            if away {
                waiting.put_back(queued);
            } else {
                waiting.later(queued, Instant::now());
            }
            away
        };
        if away {
            sleep(PAUSE).await;
        }
    }

    async fn drain(&mut self) {
        loop {
            if self.running.len() < IN_FLIGHT_MAX && self.start_next() {
                continue;
            }
            match self.running.join_next().await {
                Some(Ok(None)) => {}
                // All is sent, or the API server does not take any now.
                Some(Ok(Some(queued))) => {
                    self.shared.lock().put_back(queued);
                    break;
                }
                Some(Err(_)) | None => break,
            }
        }
        while let Some(ended) = self.running.join_next().await {
            if let Ok(Some(queued)) = ended {
                self.shared.lock().put_back(queued);
            }
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives it back if it is to be sent again, and the API server could not be asked; whoever is asked and refuses is
    /// dealt with here.
    async fn send(&self, mut queued: Queued) -> Option<Queued> {
        let attempt = queued.attempt.take().unwrap_or_else(|| self.attempt(&queued));
        let failure = match self.leadership.write(CALL_TIMEOUT, self.call(&queued, &attempt)).await {
            Ok(Ok(())) => {
                self.metrics.event("sent");
                return None;
            }
            Ok(Err(error)) => {
                tracing::debug!(reason = &*queued.text.reason, %error, "Event not sent");
                ApiFailure::of(&error)
            }
            Err(Unwritten::Late) => ApiFailure::Unavailable,
            // Another replica may lead by now: it tells what it finds.
            Err(Unwritten::NotLeading) => {
                self.metrics.event("not_leading");
                return None;
            }
        };
        let (attempt, wait) = match (failure, attempt) {
            (ApiFailure::Unavailable | ApiFailure::Unauthenticated, attempt) => (Some(attempt), true),
            // A try before this one was done, though nobody said so.
            (ApiFailure::Conflict, Attempt::Create(_)) => {
                self.metrics.event("sent");
                return None;
            }
            // Somebody removed the Event that was counted on, or it never came to be: this is told by a new one.
            (ApiFailure::Gone, Attempt::Count { .. }) => {
                self.series().forget(&queued.regarding, &queued.text);
                (None, false)
            }
            // An API server that has just started forbids what it allows a moment later.
            (ApiFailure::Forbidden, attempt) => {
                queued.attempt = Some(attempt);
                let queued = self.lock().forbidden(queued, Instant::now())?;
                self.series().forget(&queued.regarding, &queued.text);
                self.metrics.event(ApiFailure::Forbidden.label());
                return None;
            }
            // The namespace is going, or it is refused: another try would only hold up the others.
            (other, _) => {
                self.series().forget(&queued.regarding, &queued.text);
                self.metrics.event(other.label());
                return None;
            }
        };
        queued.attempt = attempt;
        if wait {
            return Some(queued);
        }
        self.lock().put_back(queued);
        None
    }

    fn attempt(&self, queued: &Queued) -> Attempt {
        self.series().attempt(&queued.regarding, &queued.text, Timestamp::now())
    }

    async fn call(&self, queued: &Queued, attempt: &Attempt) -> kube::Result<()> {
        let namespace = queued.namespace();
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
