//! The election's IO: reads and writes the Lease with a client of its own, and moves the fence.
//!
//! It decides nothing: [`election`](super::election) does. Its client has a connection of its own and no retries, and
//! every call has a deadline, so that a busy or silent API server cannot hold up a renewal beyond the lease.

use super::{
    clock,
    election::{Answer, Election, Loss, Record, Request, Timing, Todo},
    leadership::Leadership,
};
use crate::{
    controller::api_failure::ApiFailure,
    metrics::Metrics,
    runtime::{Gate, Readiness},
};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use ring::rand::{SecureRandom, SystemRandom};
use rustix::system::uname;
use std::{env, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

/// The Lease of every replica of an installation; the chart's Role names it.
pub const LEASE: &str = "ollama-fleet-operator";
/// What a stop waits for the lease to be given back; after that others wait it out.
const RELEASE_TIMEOUT: Duration = Duration::from_secs(2);
/// A trouble that goes on is told once in this time.
const TOLD_EVERY: Duration = Duration::from_mins(1);

/// The process must end: another replica may act by now.
#[derive(Debug, thiserror::Error)]
#[error("leadership lost: the Lease {lease}: {loss}{}", trouble.as_ref().map(|text| format!("; last trouble: {text}")).unwrap_or_default())]
pub struct LeadershipLost {
    lease: String,
    loss: Loss,
    trouble: Option<String>,
}

/// Takes part in the election of one Lease.
pub struct Elector {
    api: Api<Lease>,
    namespace: String,
    /// As it was last read or written: what others keep in it stays.
    lease: Lease,
    timing: Timing,
    election: Election,
    leadership: Leadership,
    readiness: Readiness,
    gate: Gate,
    metrics: Arc<Metrics>,
    /// What was told last, and when.
    trouble: Option<(String, Instant)>,
    told_holder: Option<String>,
}

impl Elector {
    /// `client` must be used for nothing else, and must not retry.
    pub fn new(
        client: Client,
        namespace: &str,
        timing: Timing,
        leadership: Leadership,
        readiness: &Readiness,
        metrics: Arc<Metrics>,
    ) -> Self {
        let gate = readiness.gate("lease");
        gate.wait_for("the Lease of the leader election");
        Self {
            api: Api::namespaced(client, namespace),
            namespace: namespace.to_owned(),
            lease: Lease::default(),
            timing,
            election: Election::new(identity(), timing),
            leadership,
            readiness: readiness.clone(),
            gate,
            metrics,
            trouble: None,
            told_holder: None,
        }
    }

    /// Takes part until `release` is cancelled, and then gives back what it holds. Once `stop` is cancelled it is not
    /// elected any more.
    pub async fn run(
        mut self,
        stop: CancellationToken,
        release: CancellationToken,
    ) -> Result<(), LeadershipLost> {
        let readiness = self.readiness.clone();
        let mut stands = false;
        loop {
            let holds = self.election.holds_until().is_some();
            if release.is_cancelled() || (stop.is_cancelled() && !holds) {
                self.give_back().await;
                return Ok(());
            }
            match self.election.next(clock::now(), wall()) {
                Todo::Stop(loss) => {
                    self.leadership.hold(None);
                    let lease = format!("{}/{LEASE}", self.namespace);
                    return Err(LeadershipLost { lease, loss, trouble: self.trouble.map(|(text, _)| text) });
                }
                Todo::Wait(until) => tokio::select! {
                    () = sleep(until.saturating_sub(clock::now())) => {}
                    () = release.cancelled() => {}
                    () = stop.cancelled(), if !holds => {}
                    // Who has not seen the fleet yet would hold the lease and do nothing.
                    () = readiness.until_ready(), if !stands => {
                        stands = true;
                        self.election.stand(clock::now());
                    }
                },
                Todo::Ask(request) => {
                    let answer = tokio::select! {
                        answer = self.ask(&request) => answer,
                        // A write that is given up may have been made; giving back begins with a look.
                        () = release.cancelled() => Answer::Failed,
                    };
                    self.election.answered(answer, clock::now(), chance());
                    let until = self.election.holds_until();
                    self.leadership.hold(until);
                    self.tell_holder(!holds && until.is_some());
                }
            }
        }
    }

    /// Nothing is written from here on, and then others may know.
    async fn give_back(&mut self) {
        self.leadership.hold(None);
        let giving = async {
            while let Some(request) = self.election.release(clock::now(), wall()) {
                match self.ask(&request).await {
                    Answer::Written(_) => {
                        tracing::info!("lease released");
                        return true;
                    }
                    Answer::Failed => return false,
                    answer => self.election.answered(answer, clock::now(), chance()),
                }
            }
            true
        };
        if timeout(RELEASE_TIMEOUT, giving).await != Ok(true) {
            tracing::warn!("the lease could not be released; the next leader has to wait for its end");
        }
    }

    async fn ask(&mut self, request: &Request) -> Answer {
        let until = self.election.holds_until();
        let left = until.map_or(self.timing.deadline, |until| until.saturating_sub(clock::now()));
        // Half of the deadline leaves time for another try.
        let limit = left.min(self.timing.deadline / 2);
        let (verb, answer) = match request {
            Request::Read => ("get", timeout(limit, self.api.get(LEASE)).await),
            Request::Create(record) => {
                let lease = lease(Lease::default(), record, None);
                ("create", timeout(limit, self.api.create(&PostParams::default(), &lease)).await)
            }
            Request::Update(record, version) => {
                let lease = lease(self.lease.clone(), record, Some(version));
                ("update", timeout(limit, self.api.replace(LEASE, &PostParams::default(), &lease)).await)
            }
        };
        let renewal = until.is_some() && *request != Request::Read;
        let answer = match answer {
            Ok(answer) => answer.map_err(|error| {
                let failure = ApiFailure::of(&error);
                let text = if failure == ApiFailure::Forbidden {
                    let namespace = &self.namespace;
                    format!(
                        "no right to {verb} leases.coordination.k8s.io {LEASE} in the namespace {namespace}"
                    )
                } else {
                    format!("cannot {verb} the Lease: {}", said(&error))
                };
                (failure, text)
            }),
            Err(_) => Err((ApiFailure::Unavailable, format!("no answer to {verb} within {limit:.1?}"))),
        };
        if renewal {
            let outcome = answer.as_ref().map_or_else(|(failure, _)| failure.label(), |_| "renewed");
            self.metrics.lease_renewal(outcome);
        }
        match (answer, request) {
            (Ok(lease), _) => {
                self.well();
                let version = lease.metadata.resource_version.clone().unwrap_or_default();
                self.lease = lease;
                match request {
                    Request::Read => Answer::Found(Some((record(&self.lease), version))),
                    Request::Create(_) | Request::Update(..) => Answer::Written(version),
                }
            }
            (Err((ApiFailure::Gone, _)), Request::Read) => {
                self.well();
                Answer::Found(None)
            }
            (Err((ApiFailure::Gone, _)), Request::Update(..)) | (Err((ApiFailure::Conflict, _)), _) => {
                Answer::Refused
            }
            (Err((failure, text)), _) => {
                self.complain(failure, text);
                Answer::Failed
            }
        }
    }

    fn well(&mut self) {
        self.gate.open();
        if self.trouble.take().is_some() {
            tracing::info!("the Lease is answered again");
        }
    }

    fn complain(&mut self, failure: ApiFailure, text: String) {
        let forbidden = failure == ApiFailure::Forbidden;
        if forbidden {
            // Nobody would lead, and everybody would look well.
            self.gate.close("no right to get, create and update the Lease of the leader election");
        }
        let told = self.trouble.as_ref();
        let at = told.filter(|(before, at)| *before == text && at.elapsed() < TOLD_EVERY).map(|(_, at)| *at);
        if at.is_none() {
            if forbidden {
                tracing::error!("{text}: without it no replica can lead; the chart's Role has these rights");
            } else {
                tracing::warn!("{text}");
            }
        }
        self.trouble = Some((text, at.unwrap_or_else(Instant::now)));
    }

    fn tell_holder(&mut self, elected: bool) {
        let holder = self.election.holder();
        if elected {
            tracing::info!(holder, "elected: this replica leads");
        } else if self.told_holder.as_deref() != holder && self.election.holds_until().is_none() {
            tracing::info!(holder = holder.unwrap_or("nobody"), "standing by");
        }
        self.told_holder = holder.map(str::to_owned);
    }
}

/// An error in few words.
fn said(error: &kube::Error) -> String {
    match error {
        kube::Error::Api(status) => {
            format!("the API server answered {} {}: {}", status.code, status.reason, status.message)
        }
        other => other.to_string(),
    }
}

/// What a Lease says. An empty holder is none.
fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    let micros = |time: Option<MicroTime>| time.map(|time| time.0.as_microsecond());
    Record {
        holder: spec.holder_identity.filter(|holder| !holder.is_empty()),
        duration_seconds: spec.lease_duration_seconds,
        acquired: micros(spec.acquire_time),
        renewed: micros(spec.renew_time),
        transitions: spec.lease_transitions,
    }
}

/// A Lease that says this, and keeps whatever else is in it.
fn lease(current: Lease, record: &Record, version: Option<&String>) -> Lease {
    let Record { holder, duration_seconds, acquired, renewed, transitions } = record.clone();
    let time = |micros: Option<i64>| {
        micros.and_then(|micros| Timestamp::from_microsecond(micros).ok()).map(MicroTime)
    };
    Lease {
        metadata: ObjectMeta {
            name: Some(LEASE.to_owned()),
            resource_version: version.cloned(),
            ..current.metadata
        },
        spec: Some(LeaseSpec {
            holder_identity: holder,
            lease_duration_seconds: duration_seconds,
            acquire_time: time(acquired),
            renew_time: time(renewed),
            lease_transitions: transitions,
            ..current.spec.unwrap_or_default()
        }),
    }
}

/// The pod's name, for people, and something that no other process has, not even the same pod's next one.
fn identity() -> String {
    let name = env::var("POD_NAME").ok().filter(|name| !name.is_empty());
    let name = name.unwrap_or_else(|| uname().nodename().to_string_lossy().into_owned());
    format!("{name}_{:016x}", random())
}

fn wall() -> i64 {
    Timestamp::now().as_microsecond()
}

/// A random number from 0 to 1.
fn chance() -> f64 {
    let [byte, ..] = random().to_le_bytes();
    f64::from(byte) / f64::from(u8::MAX)
}

fn random() -> u64 {
    let mut bytes = [0; 8];
    // Without entropy there would be no TLS either.
    let _ = SystemRandom::new().fill(&mut bytes);
    u64::from_le_bytes(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn parsed(value: Value) -> Lease {
        serde_json::from_value(value).unwrap()
    }

    #[test]
    fn what_others_keep_in_the_lease_stays() {
        let current = parsed(json!({
            "metadata": {"name": LEASE, "resourceVersion": "6", "uid": "u", "labels": {"team": "a"},
                "annotations": {"note": "b"}},
            "spec": {"holderIdentity": "", "strategy": "OldestEmulationVersion", "preferredHolder": "x"},
        }));
        let ours = Record {
            holder: Some("me".to_owned()),
            duration_seconds: Some(15),
            acquired: Some(1_000_001),
            renewed: Some(2_000_002),
            transitions: Some(3),
        };
        let written = serde_json::to_value(lease(current, &ours, Some(&"7".to_owned()))).unwrap();
        let expected = json!({
            "apiVersion": "coordination.k8s.io/v1", "kind": "Lease",
            "metadata": {"name": LEASE, "resourceVersion": "7", "uid": "u", "labels": {"team": "a"},
                "annotations": {"note": "b"}},
            "spec": {"holderIdentity": "me", "leaseDurationSeconds": 15, "leaseTransitions": 3,
                "acquireTime": "1970-01-01T00:00:01.000001Z", "renewTime": "1970-01-01T00:00:02.000002Z",
                "strategy": "OldestEmulationVersion", "preferredHolder": "x"},
        });
        assert_eq!(written, expected);
        // Found again, it must be recognised as the same.
        assert_eq!(record(&parsed(written)), ours);
    }

    #[test]
    fn an_empty_holder_is_none() {
        let empty =
            parsed(json!({"metadata": {}, "spec": {"holderIdentity": "", "leaseDurationSeconds": 1}}));
        assert_eq!(record(&empty), Record { duration_seconds: Some(1), ..Record::default() });
        assert_eq!(record(&Lease::default()), Record::default());
    }

    #[test]
    fn no_two_processes_have_the_same_identity() {
        assert_ne!(identity(), identity());
        assert!((0.0..=1.0).contains(&chance()));
    }
}
