//! The one writer of status: a queue that keeps only the newest body of each object, sends transitions before
//! heartbeats and namespace by namespace in turn, and stays within the write budget. When the API server is away it
//! waits; nothing else does.

mod call;
mod reduce;
pub mod standing;
#[cfg(test)]
mod tests;

pub use call::{Kind, Target, number, seen};

use super::{api_client::Hold, api_failure::ApiFailure, fair_queue::FairQueue};
use crate::{metrics::Metrics, runtime::Leadership};
use call::{Calls, Outcome};
use futures::FutureExt;
use governor::Quota;
use kube::Client;
use serde_json::Value;
use standing::Strays;
use std::{
    collections::{HashMap, HashSet},
    num::NonZeroU32,
    panic::AssertUnwindSafe,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// Status writes a second: a tenth of what etcd's own "medium" check asks of a disk, and 10,000 objects in 100 s.
const WRITES_PER_SECOND: NonZeroU32 = NonZeroU32::MIN.saturating_add(99);
/// Writes at once after a rest. With as many as a second's the first second would have twice its budget.
const BURST: NonZeroU32 = NonZeroU32::MIN.saturating_add(15);
/// Writes under way at once: at 10 ms each, 16 carry far more than the budget.
const IN_FLIGHT_MAX: usize = 16;
/// Pause after a failure of the API server, doubled up to the second number.
const PAUSE_LEAST: Duration = Duration::from_millis(250);
const PAUSE_MOST: Duration = Duration::from_secs(4);
/// Pause of one object whose write is refused, doubled up to the second number.
const REFUSED_LEAST: Duration = Duration::from_secs(5);
const REFUSED_MOST: Duration = Duration::from_mins(5);
/// The same where the operator lacks the right to write; an API server that has just started forbids what it allows a
/// moment later.
const FORBIDDEN_LEAST: Duration = Duration::from_secs(2);
const FORBIDDEN_MOST: Duration = Duration::from_secs(30);
/// What a stop waits for the writes that are under way or waiting.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Which writes go first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Urgency {
    Heartbeat,
    Transition,
}

/// Called once, when the status stands in the object, with the version that it then has.
pub type Written = Box<dyn FnOnce(Option<u64>) + Send + Sync>;

struct Job {
    target: Target,
    generation: Option<i64>,
    /// As text: a tree of values takes several times the room, and all 10,000 may wait at once.
    status: Box<str>,
    urgency: Urgency,
    /// What somebody else has put beside it, and is removed first.
    strays: Option<Strays>,
    /// Why it was not written yet, if that was tried; and how often on end for that.
    failure: Option<ApiFailure>,
    refusals: u32,
    written: Written,
}

/// Takes statuses and writes them. Cheap to clone.
#[derive(Clone)]
pub struct StatusWriter {
    shared: Arc<Shared>,
}

struct Shared {
    calls: Calls,
    hold: Hold,
    queue: Mutex<Queue>,
    changed: Notify,
}

#[derive(Default)]
struct Queue {
    jobs: HashMap<String, Job>,
    transitions: FairQueue<String>,
    heartbeats: FairQueue<String>,
    in_flight: HashSet<String>,
}

impl Queue {
    fn enqueue(&mut self, uid: &str) {
        let Some(job) = self.jobs.get(uid) else { return };
        if self.in_flight.contains(uid) {
            return;
        }
        let queue = match job.urgency {
            Urgency::Transition => &mut self.transitions,
            Urgency::Heartbeat => &mut self.heartbeats,
        };
        queue.push_back(&job.target.namespace, uid.to_owned());
    }

    /// Puts everything in its queue again that pauses because the API server was away; how much that is.
    fn retry_all(&mut self) -> usize {
        let away = |job: &Job| {
            matches!(job.failure, None | Some(ApiFailure::Unavailable | ApiFailure::Unauthenticated))
        };
        let waiting: Vec<String> =
            self.jobs.iter().filter(|(_, job)| away(job)).map(|(uid, _)| uid.clone()).collect();
        for uid in &waiting {
            self.enqueue(uid);
        }
        waiting.len()
    }

    /// Statuses that wait, and those under way.
    fn unwritten(&self) -> usize {
        self.jobs.len() + self.in_flight.len()
    }

    /// An object may stand in both queues, or in one after its job is done; then the entry is passed over.
    fn next(&mut self) -> Option<Job> {
        while let Some(uid) = self.transitions.pop_front().or_else(|| self.heartbeats.pop_front()) {
            if self.in_flight.contains(&uid) {
                continue;
            }
            if let Some(job) = self.jobs.remove(&uid) {
                self.in_flight.insert(uid);
                return Some(job);
            }
        }
        None
    }
}

impl StatusWriter {
    pub fn new(client: Client, hold: Hold, leadership: Leadership, metrics: Arc<Metrics>) -> Self {
        let quota = Quota::per_second(WRITES_PER_SECOND).allow_burst(BURST);
        let calls = Calls::new(client, leadership, metrics, quota);
        let shared = Shared { calls, hold, queue: Mutex::default(), changed: Notify::new() };
        Self { shared: Arc::new(shared) }
    }

    /// Asks for a write. A status of the same object that still waits is replaced: the newest is the truth.
    pub fn submit(
        &self,
        target: Target,
        generation: Option<i64>,
        status: &Value,
        urgency: Urgency,
        strays: Option<Strays>,
        written: Written,
    ) {
        let uid = target.uid.clone();
        let status = status.to_string().into();
        let mut queue = self.shared.lock();
        let urgency = queue.jobs.get(&uid).map_or(urgency, |waiting| waiting.urgency.max(urgency));
        // What was refused of this generation will be again.
        let waiting = queue.jobs.get(&uid).filter(|waiting| waiting.generation == generation);
        let strays = strays.or_else(|| waiting.and_then(|waiting| waiting.strays.clone()));
        let (refusals, failure) = waiting.map_or((0, None), |waiting| (waiting.refusals, waiting.failure));
        let replaced = queue.jobs.insert(
            uid.clone(),
            Job { target, generation, status, urgency, strays, failure, refusals, written },
        );
        // One that waits stands in the queue already, or was refused and pauses: a new generation need not share that.
        if replaced.is_none_or(|replaced| replaced.urgency < urgency || replaced.generation != generation) {
            queue.enqueue(&uid);
        }
        drop(queue);
        self.shared.changed.notify_one();
    }

    /// Forgets what waits for an object that is gone.
    pub fn forget(&self, uid: &str) {
        self.shared.lock().jobs.remove(uid);
    }

    /// Statuses that wait to be written.
    pub fn depth(&self) -> usize {
        self.shared.lock().jobs.len()
    }

    /// Writes until the token is cancelled, and then what is waiting, for at most 5 s.
    pub async fn run(self, shutdown: CancellationToken) {
        let mut drive = Drive { shared: self.shared, running: JoinSet::new(), pause: None, pauses: 0 };
        tokio::select! {
            () = drive.forever() => {}
            () = shutdown.cancelled() => {}
        }
        let _ = timeout(DRAIN_TIMEOUT, drive.drain()).await;
        let waiting = { drive.shared.lock().unwritten() };
        if waiting > 0 {
            tracing::warn!(waiting, "stopping with statuses unwritten");
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Drive {
    shared: Arc<Shared>,
    running: JoinSet<(Job, Outcome)>,
    pause: Option<Instant>,
    pauses: u32,
}

impl Drive {
    async fn forever(&mut self) {
        loop {
            self.settle_finished();
            if self.running.len() < self.in_flight_most() && self.start_next().await {
                continue;
            }
            let shared = Arc::clone(&self.shared);
            tokio::select! {
                Some(finished) = self.running.join_next() => self.settle(finished.ok()),
                () = shared.changed.notified() => {}
            }
        }
    }

    async fn drain(&mut self) {
        self.shared.lock().retry_all();
        loop {
            self.settle_finished();
            if self.running.len() < self.in_flight_most() && self.start_next().await {
                continue;
            }
            match self.running.join_next().await {
                Some(finished) => self.settle(finished.ok()),
                None if self.shared.lock().retry_all() == 0 => return,
                None => sleep(PAUSE_LEAST).await,
            }
        }
    }

    /// One that finds out whether the API server is well again, and then all.
    fn in_flight_most(&self) -> usize {
        if self.pauses > 0 { 1 } else { IN_FLIGHT_MAX }
    }

    /// Whether a write was begun. Waits for the pause and the budget only when something is waiting.
    async fn start_next(&mut self) -> bool {
        let waiting = {
            let queue = self.shared.lock();
            !queue.transitions.is_empty() || !queue.heartbeats.is_empty()
        };
        if !waiting {
            return false;
        }
        if let Some(until) = self.pause.take().max(self.shared.hold.until()) {
            sleep_until(until).await;
        }
        self.shared.calls.limiter.until_ready().await;
        let Some(job) = self.shared.lock().next() else { return false };
        let shared = Arc::clone(&self.shared);
        self.running.spawn(async move {
            let Job { target, generation, status, strays, .. } = &job;
            let call = async {
                // It was written from a value, so it is one.
                let Ok(status) = serde_json::from_str(status) else { return Outcome::Dropped };
                if let Some(strays) = strays {
                    shared.calls.remove(target, strays).await;
                }
                shared.calls.write(target, *generation, &status).await
            };
            let attempt = AssertUnwindSafe(call).catch_unwind();
            // A bug loses this one status, and not its object's place in the queue.
            let outcome = attempt.await.unwrap_or_else(|_| {
                shared.calls.metrics.panicked();
                Outcome::Dropped
            });
            (job, outcome)
        });
        true
    }

    fn settle_finished(&mut self) {
        while let Some(finished) = self.running.try_join_next() {
            self.settle(finished.ok());
        }
    }

    fn settle(&mut self, finished: Option<(Job, Outcome)>) {
        // A panic while writing loses that one status; the heartbeat repairs it.
        let Some((job, outcome)) = finished else {
            self.shared.calls.metrics.panicked();
            return;
        };
        let uid = job.target.uid.clone();
        let kind = job.target.kind;
        let mut queue = self.shared.lock();
        queue.in_flight.remove(&uid);
        match outcome {
            Outcome::Written(version) => {
                self.shared.calls.metrics.wrote(kind, "written");
                self.pauses = 0;
                (job.written)(version);
            }
            Outcome::Dropped => {
                self.shared.calls.metrics.wrote(kind, "dropped");
                self.pauses = 0;
            }
            Outcome::NotLeading => self.shared.calls.metrics.wrote(kind, "not_leading"),
            Outcome::Failed(failure) => {
                self.shared.calls.metrics.wrote(kind, failure.label());
                // What an outage has added up says nothing about a right that is missing after it.
                let refusals = if job.failure == Some(failure) { job.refusals } else { 0 };
                if matches!(failure, ApiFailure::Forbidden | ApiFailure::Unauthenticated)
                    && refusals > 0
                    && self.shared.calls.seldom.may_tell(failure.label())
                {
                    let namespace = &job.target.namespace;
                    tracing::error!(
                        kind = kind.as_str(),
                        namespace,
                        reason = failure.label(),
                        "no right to write status, trying again"
                    );
                }
                if matches!(failure, ApiFailure::Unavailable | ApiFailure::Unauthenticated)
                    && self.pause.is_none_or(|until| until <= Instant::now())
                {
                    // Several that fail together are one failure.
                    self.pause = Some(Instant::now() + doubled(PAUSE_LEAST, PAUSE_MOST, self.pauses));
                    self.pauses = self.pauses.saturating_add(1);
                }
                // A newer status that came meanwhile takes this one's place, and of the same generation its pause too:
                // what changes at each poll would otherwise press on at each poll. A new generation is tried at once.
                let generation = job.generation;
                let mut next = queue.jobs.remove(&uid).unwrap_or(job);
                let pauses = next.generation == generation;
                if pauses {
                    next.refusals = refusals.saturating_add(1);
                    next.failure = Some(failure);
                }
                queue.jobs.insert(uid.clone(), next);
                if pauses {
                    drop(queue);
                    self.enqueue_later(uid, pause_of_one(failure, refusals));
                    return;
                }
            }
        }
        queue.enqueue(&uid);
    }

    fn enqueue_later(&self, uid: String, wait: Duration) {
        let shared = Arc::clone(&self.shared);
        tokio::spawn(async move {
            sleep(wait).await;
            shared.lock().enqueue(&uid);
            shared.changed.notify_one();
        });
    }
}

/// How long one object waits after its write failed for the n-th time on end in one way, counted from 0.
fn pause_of_one(failure: ApiFailure, refusals: u32) -> Duration {
    match failure {
        // Somebody edits the object faster than it can be read and written; they will pause for breath.
        ApiFailure::Conflict | ApiFailure::Unavailable | ApiFailure::Unauthenticated => {
            doubled(PAUSE_LEAST, PAUSE_MOST, refusals)
        }
        // Rights come back by themselves, and then nobody should wait long.
        ApiFailure::Forbidden => doubled(FORBIDDEN_LEAST, FORBIDDEN_MOST, refusals),
        _ => doubled(REFUSED_LEAST, REFUSED_MOST, refusals),
    }
}

fn doubled(least: Duration, most: Duration, times: u32) -> Duration {
    least.saturating_mul(1 << times.min(16)).min(most)
}
