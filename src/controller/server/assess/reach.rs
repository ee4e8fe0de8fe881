//! Whether the host can be reached: hysteresis over polls. One bad poll is a doubt, several are a verdict.

use super::memory::Memory;
use crate::{
    api::{
        OllamaServerStatus,
        condition::{self, Truth},
        server_status::TRANSITION_TIMES_MAX,
    },
    controller::server::transition::Transition,
    probe::Failure,
};
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::SignedDuration};

/// The verdict about a host and how it came to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reach {
    verdict: Truth,
    failures: u32,
    successes: u32,
    /// Class of the first failure of the running row; it is named while the verdict is still open. As long as there is
    /// one, the host is in doubt.
    first: Option<Failure>,
    /// Class of the last failure.
    last: Option<Failure>,
    /// The reason while the host is down: the class that it failed with when that was decided, or that it has failed with
    /// for as many polls since.
    told: Option<Failure>,
    /// Polls in a row that failed with the last class.
    alike: u32,
    /// When the reason last became another one; `None`: not in this process.
    retold: Option<Time>,
}

/// The least time between two reasons of a host that is down, so that one that fails in turns is not written each time.
const RETELL_LEAST: SignedDuration = SignedDuration::from_mins(1);

impl Default for Reach {
    fn default() -> Self {
        Self {
            verdict: Truth::Unknown,
            failures: 0,
            successes: 0,
            first: None,
            last: None,
            told: None,
            alike: 0,
            retold: None,
        }
    }
}

/// How a verdict moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    None,
    /// The first verdict ever, or since the host was last forgotten.
    First(bool),
    Changed(bool),
}

impl Reach {
    pub fn from_status(status: &OllamaServerStatus) -> Self {
        let Some(reachable) = condition::find(&status.conditions, condition::REACHABLE) else {
            return Self::default();
        };
        let failures = status.consecutive_failures.and_then(|count| u32::try_from(count).ok()).unwrap_or(0);
        let class = Failure::from_reason(&reachable.reason);
        match (Truth::parse(&reachable.status), reachable.reason.as_str()) {
            (verdict @ Truth::True, "ProbeFailing") => {
                let first =
                    Failure::ALL.into_iter().find(|class| reachable.message == probe_failing_message(*class));
                // In doubt all the same, if the message is another version's.
                let first = first.or(Some(Failure::Timeout));
                Self { verdict, failures, first, last: first, ..Self::default() }
            }
            (verdict @ Truth::True, _) => Self { verdict, ..Self::default() },
            (verdict @ Truth::False, _) => {
                let class = Failure::from_report(&reachable.reason, Some(&reachable.message)).or(class);
                Self {
                    verdict,
                    failures: failures.max(1),
                    first: class,
                    last: class,
                    told: class,
                    ..Self::default()
                }
            }
            (Truth::Unknown, _) => Self::default(),
        }
    }

    pub fn forget(&mut self) {
        *self = Self::default();
    }

    pub fn succeeded(&mut self, threshold: u32) -> Change {
        self.failures = 0;
        self.first = None;
        self.successes = self.successes.saturating_add(1);
        match self.verdict {
            Truth::Unknown => self.decide(true),
            Truth::False if self.successes >= threshold => self.decide(true),
            Truth::True | Truth::False => Change::None,
        }
    }

    /// A requested poll that fails casts doubt, but does not bring the verdict closer.
    pub fn failed(&mut self, failure: Failure, threshold: u32, requested: bool, now: &Time) -> Change {
        self.successes = 0;
        self.alike = if self.last == Some(failure) { self.alike.saturating_add(1) } else { 1 };
        if !requested {
            self.failures = self.failures.saturating_add(1);
        }
        self.first = self.first.or(Some(failure));
        self.last = Some(failure);
        if self.verdict == Truth::False {
            self.retell(failure, threshold, now);
        }
        let decided = match self.verdict {
            Truth::False => false,
            Truth::Unknown => failure.is_permanent() || self.failures >= threshold,
            Truth::True => self.failures >= threshold,
        };
        if decided { self.decide(false) } else { Change::None }
    }

    /// The reason of a host that is down follows its class, once that has lasted.
    fn retell(&mut self, failure: Failure, threshold: u32, now: &Time) {
        let lately = self.retold.as_ref().is_some_and(|retold| now.0.duration_since(retold.0) < RETELL_LEAST);
        if self.told != Some(failure) && self.alike >= threshold && !lately {
            self.told = Some(failure);
            self.retold = Some(now.clone());
        }
    }

    fn decide(&mut self, up: bool) -> Change {
        let first = self.verdict == Truth::Unknown;
        self.verdict = up.into();
        self.last = if up { None } else { self.last };
        (self.told, self.retold) = (self.last, None);
        if first { Change::First(up) } else { Change::Changed(up) }
    }

    pub fn is_up(&self) -> bool {
        self.verdict == Truth::True && self.first.is_none()
    }

    pub fn is_down(&self) -> bool {
        self.verdict == Truth::False
    }

    pub fn is_pending(&self) -> bool {
        self.verdict == Truth::Unknown && self.first.is_none()
    }

    pub fn is_failing(&self) -> bool {
        self.first.is_some() || self.verdict == Truth::False
    }

    pub fn failures(&self) -> u32 {
        self.failures
    }

    pub fn failure(&self) -> Option<Failure> {
        self.told.or(self.last)
    }

    pub fn has_verdict(&self) -> bool {
        self.verdict != Truth::Unknown
    }

    /// Status, reason and message of Reachable, and of Ready where nothing else takes precedence.
    pub fn condition(&self) -> (Truth, &'static str, String) {
        match (self.verdict, self.first, self.told) {
            (verdict @ Truth::False, _, Some(told)) => (verdict, told.reason(), told.text().to_owned()),
            (verdict @ Truth::False, _, None) => {
                (verdict, Failure::Timeout.reason(), Failure::Timeout.text().to_owned())
            }
            (verdict, Some(first), _) => (verdict, "ProbeFailing", probe_failing_message(first)),
            (Truth::True, ..) => (Truth::True, "Online", "the host answers".to_owned()),
            (Truth::Unknown, ..) => {
                (Truth::Unknown, "Pending", "the host has not been polled yet".to_owned())
            }
        }
    }
}

fn probe_failing_message(first: Failure) -> String {
    format!("the host failed its last poll, which is not yet a verdict: {}", first.reason())
}

/// Remembers a change of the verdict and says what happened.
pub fn record(memory: &mut Memory, change: Change, now: &Time, transitions: &mut Vec<Transition>) {
    match change {
        Change::None | Change::First(true) => {}
        Change::First(false) => transitions.push(Transition::ServerOffline(memory.reach.failure())),
        Change::Changed(up) => {
            let times = &mut memory.status_mut().recent_transition_times;
            times.push(now.clone());
            let surplus = times.len().saturating_sub(TRANSITION_TIMES_MAX);
            times.drain(..surplus);
            // What happened first is told first.
            let transition =
                if up { Transition::ServerOnline } else { Transition::ServerOffline(memory.reach.failure()) };
            transitions.insert(0, transition);
        }
    }
}
