//! What the operator tells Prometheus: its own counters, and the fleet as it stands at the moment of the scrape.
//!
//! Histograms have no server label. Series of one server are made at scrape time from the live set, so that a deleted
//! object leaves nothing behind.

use crate::{
    api::fleet_plugin::Reading,
    controller::{server::live::Live, status_writer::Kind},
    probe::Failure,
    runtime::Leadership,
};
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
        histogram::Histogram,
        info::Info,
    },
    registry::Registry,
};
use std::{
    sync::{
        Arc, Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

mod budget;
mod fleet;
mod plugins;
#[cfg(test)]
mod tests;

/// Requests of a poll take milliseconds on a LAN and at most some seconds.
const REQUEST_BUCKETS: [f64; 11] = [0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];
/// A poll should begin within milliseconds of its slot; a second is an overloaded operator.
const LAG_BUCKETS: [f64; 9] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0];

/// The last line of every exposition.
const END: &str = "# EOF\n";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Call {
    call: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OfReading {
    reading: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Outcome {
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SecretRead {
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindOutcome {
    kind: &'static str,
    outcome: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindOnly {
    kind: &'static str,
}

/// An error of a watch.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct WatchError {
    kind: &'static str,
    /// Empty: all of them.
    namespace: String,
    reason: &'static str,
}

/// The operator's metrics.
pub struct Metrics {
    registry: Mutex<Registry>,
    poll_duration: Family<Call, Histogram>,
    poll_failures: Family<Reason, Counter>,
    polls_skipped: Counter,
    schedule_lag: Histogram,
    agent_read_duration: Histogram,
    scrape_failures: Family<Reason, Counter>,
    scrapes_skipped: Counter,
    readings_rejected: Family<OfReading, Counter>,
    secret_reads: Family<SecretRead, Counter>,
    writes: Family<KindOutcome, Counter>,
    write_duration: Family<KindOnly, Histogram>,
    events: Family<Outcome, Counter>,
    watch_events: Family<KindOnly, Counter>,
    watch_errors: Family<WatchError, Counter>,
    undecodable: Family<KindOnly, Gauge>,
    panics: Counter,
    lease_renewals: Family<Outcome, Counter>,
    depths: OnceLock<Depths>,
    /// Room that the next text is likely to need.
    room: AtomicUsize,
}

/// Lengths of queues, read at scrape time.
struct Depths {
    writes: Box<dyn Fn() -> usize + Send + Sync>,
    events: Box<dyn Fn() -> usize + Send + Sync>,
}

impl Metrics {
    pub fn new(live: &Live, server_limit: usize, leadership: &Leadership) -> Arc<Self> {
        let mut registry = Registry::with_prefix("ollama_fleet");
        registry.register(
            "build",
            "Version of the operator",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        let poll_duration: Family<Call, Histogram> = Family::new_with_constructor(request_histogram);
        registry.register(
            "server_poll_duration_seconds",
            "Time of one request of a poll, by call",
            poll_duration.clone(),
        );
        let poll_failures = Family::default();
        registry.register("server_poll_failures", "Polls that failed, by reason", poll_failures.clone());
        let polls_skipped = Counter::default();
        registry.register(
            "server_polls_skipped",
            "Polls that never began, for want of a slot or because another object asks the same address",
            polls_skipped.clone(),
        );
        let schedule_lag = Histogram::new(LAG_BUCKETS);
        registry.register(
            "schedule_lag_seconds",
            "Time from a server's slot to the begin of its poll",
            schedule_lag.clone(),
        );
        let agent_read_duration = Histogram::new(REQUEST_BUCKETS);
        registry.register(
            "agent_read_duration_seconds",
            "Time of one reading of an agent",
            agent_read_duration.clone(),
        );
        let scrape_failures = Family::default();
        registry.register(
            "plugin_scrape_failures",
            "Readings of agents that failed, by reason",
            scrape_failures.clone(),
        );
        let scrapes_skipped = Counter::default();
        registry.register(
            "plugin_scrapes_skipped",
            "Readings of agents that never began, for want of a slot, because another object asks the same address, or because the one before was still under way",
            scrapes_skipped.clone(),
        );
        let readings_rejected = Family::default();
        registry.register(
            "readings_rejected",
            "Readings of agents that no machine can have and that are left out, by reading",
            readings_rejected.clone(),
        );
        let secret_reads = Family::default();
        registry.register("secret_reads", "Readings of Secrets, by what came of them", secret_reads.clone());
        let writes = Family::default();
        registry.register("status_writes", "Writes of status, by kind and outcome", writes.clone());
        let write_duration: Family<KindOnly, Histogram> = Family::new_with_constructor(request_histogram);
        registry.register(
            "status_write_duration_seconds",
            "Time of one write of status",
            write_duration.clone(),
        );
        let events = Family::default();
        registry.register("events", "Events, by outcome", events.clone());
        let watch_events = Family::default();
        registry.register("watch_events", "Items of the watches", watch_events.clone());
        let watch_errors = Family::default();
        registry.register("watch_errors", "Errors of the watches", watch_errors.clone());
        let undecodable = Family::default();
        registry.register(
            "undecodable_objects",
            "Objects that cannot be read and are not acted on",
            undecodable.clone(),
        );
        let panics = Counter::default();
        registry.register("panics", "Tasks that ended by a bug and were begun again", panics.clone());
        let lease_renewals = Family::default();
        registry.register(
            "lease_renewals",
            "Renewals of the leader's Lease, by outcome",
            lease_renewals.clone(),
        );
        let fleet = fleet::FleetCollector::new(live.clone(), server_limit, leadership.clone());
        registry.register_collector(Box::new(fleet));
        Arc::new(Self {
            registry: Mutex::new(registry),
            poll_duration,
            poll_failures,
            polls_skipped,
            schedule_lag,
            agent_read_duration,
            scrape_failures,
            scrapes_skipped,
            readings_rejected,
            secret_reads,
            writes,
            write_duration,
            events,
            watch_events,
            watch_errors,
            undecodable,
            panics,
            lease_renewals,
            depths: OnceLock::new(),
            room: AtomicUsize::new(0),
        })
    }

    /// Tells where the lengths of the queues are read; once, when the queues exist.
    pub fn watch_queues(
        &self,
        writes: impl Fn() -> usize + Send + Sync + 'static,
        events: impl Fn() -> usize + Send + Sync + 'static,
    ) {
        let _ = self.depths.set(Depths { writes: Box::new(writes), events: Box::new(events) });
    }

    /// The exposition, in the `OpenMetrics` text format.
    pub fn expose(&self) -> String {
        // One that has to grow takes up to three times its size meanwhile.
        let mut text = String::with_capacity(self.room.load(Relaxed));
        let registry = self.registry.lock().unwrap_or_else(PoisonError::into_inner);
        // Writing into a String cannot fail; half an exposition would still end without `# EOF` and be refused.
        if encode(&mut text, &registry).is_err() {
            text.clear();
        }
        if let (Some(depths), Some(body)) = (self.depths.get(), text.strip_suffix(END).map(str::len)) {
            let (writes, events) = ((depths.writes)(), (depths.events)());
            let mut queues = Registry::with_prefix("ollama_fleet");
            queues.register(
                "status_write_queue",
                "Statuses that wait to be written",
                ConstGauge::new(as_gauge(writes)),
            );
            queues.register("event_queue", "Events that wait to be sent", ConstGauge::new(as_gauge(events)));
            let mut tail = String::new();
            if encode(&mut tail, &queues).is_ok() {
                // In place: a second copy of all would be as large again.
                text.truncate(body);
                text.push_str(&tail);
            }
        }
        self.room.store(text.len() + text.len() / 16, Relaxed);
        text
    }

    pub fn request_took(&self, call: &'static str, duration: Duration) {
        self.poll_duration.get_or_create(&Call { call }).observe(duration.as_secs_f64());
    }

    pub fn poll_failed(&self, failure: Failure) {
        self.poll_failures.get_or_create(&Reason { reason: failure.reason() }).inc();
    }

    pub fn poll_skipped(&self) {
        self.polls_skipped.inc();
    }

    pub fn poll_lagged(&self, lag: Duration) {
        self.schedule_lag.observe(lag.as_secs_f64());
    }

    pub fn agent_read(&self, duration: Duration, failure: Option<Failure>) {
        self.agent_read_duration.observe(duration.as_secs_f64());
        if let Some(failure) = failure {
            self.agent_failed(failure);
        }
    }

    pub fn agent_failed(&self, failure: Failure) {
        self.scrape_failures.get_or_create(&Reason { reason: failure.reason() }).inc();
    }

    pub fn agent_skipped(&self) {
        self.scrapes_skipped.inc();
    }

    pub fn reading_rejected(&self, reading: Reading) {
        self.readings_rejected.get_or_create(&OfReading { reading: reading.as_str() }).inc();
    }

    pub fn secret_read(&self, result: &'static str) {
        self.secret_reads.get_or_create(&SecretRead { result }).inc();
    }

    pub fn wrote(&self, kind: Kind, outcome: &'static str) {
        self.writes.get_or_create(&KindOutcome { kind: kind.as_str(), outcome }).inc();
    }

    pub fn write_took(&self, kind: Kind, duration: Duration) {
        self.write_duration.get_or_create(&KindOnly { kind: kind.as_str() }).observe(duration.as_secs_f64());
    }

    pub fn event(&self, outcome: &'static str) {
        self.events.get_or_create(&Outcome { outcome }).inc();
    }

    pub fn watched(&self, kind: Kind) {
        self.watch_events.get_or_create(&KindOnly { kind: kind.as_str() }).inc();
    }

    pub fn watch_failed(&self, kind: Kind, namespace: &str, reason: &'static str) {
        let labels = WatchError { kind: kind.as_str(), namespace: namespace.to_owned(), reason };
        self.watch_errors.get_or_create(&labels).inc();
    }

    pub fn undecodable(&self, kind: Kind, count: usize) {
        self.undecodable.get_or_create(&KindOnly { kind: kind.as_str() }).set(as_gauge(count));
    }

    pub fn lease_renewal(&self, outcome: &'static str) {
        self.lease_renewals.get_or_create(&Outcome { outcome }).inc();
    }

    pub fn panicked(&self) {
        self.panics.inc();
    }
}

fn request_histogram() -> Histogram {
    Histogram::new(REQUEST_BUCKETS)
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
