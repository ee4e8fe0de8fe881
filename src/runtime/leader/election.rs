//! One replica's part in the election: what it asks for next, and what follows from each answer. Pure: no clock, no
//! client, no randomness.
//!
//! Two replicas never both count as the holder, as long as their clocks run at about the same rate:
//!
//! - The holder counts from before it *sent* the write that succeeded last, and stops at the renew deadline.
//! - Others count from when they *saw* the last change, which is later, and wait for the lease's duration, which is longer.
//! - Every write names the version that it is made from, so that nobody overwrites what they have not seen.
//! - A write without an answer counts only when the record is found to be exactly that write.
//!
//! Where this differs from client-go: a lease that disappears, or is emptied by hand, keeps others out for one more
//! duration, because its holder may not know yet. The duration in the record is believed within bounds. A record with
//! this replica's name in it is its own only if it has written that record. A holder whose deadline has passed has lost,
//! even if nobody has taken over.

use std::{fmt, time::Duration};

/// A duration in the record is believed up to this many times the own one: a replica with other flags may be leading in
/// the middle of a roll-out, but a number beyond that is a mistake, or is meant to lock everybody out.
const BELIEVED_MOST: u32 = 4;

/// How much of the retry period a replica that waits leaves out at random, so that replicas do not ask at once.
const JITTER: f64 = 0.4;

/// What a holder waits after a refused write before it looks who has written: a share of the retry period, so that
/// whoever keeps editing the lease does not make it ask in a circle.
const REFUSED_SHARE: u32 = 8;

/// What the holder leaves when it goes, as client-go does.
const RELEASED_SECONDS: i32 = 1;

/// The three times of an election.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// How long others wait after the last sign of life.
    pub lease: Duration,
    /// How long a holder may act after the last renewal.
    pub deadline: Duration,
    /// Time between two renewals, and at most between two looks of those who wait.
    pub retry: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimingError {
    #[error(
        "--lease-renew-deadline must be shorter than --lease-duration: the leader stops before others begin"
    )]
    Deadline,
    #[error(
        "--lease-retry-period must be at most 5/6 of --lease-renew-deadline: there has to be time for a second try"
    )]
    Retry,
}

impl Timing {
    pub fn new(lease: Duration, deadline: Duration, retry: Duration) -> Result<Self, TimingError> {
        if lease <= deadline {
            return Err(TimingError::Deadline);
        }
        // client-go's rule, with its factor of 1.2.
        if deadline * 5 < retry * 6 {
            return Err(TimingError::Retry);
        }
        Ok(Self { lease, deadline, retry })
    }
}

/// What a Lease says, as far as it matters here. Times are microseconds since 1970.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Record {
    pub holder: Option<String>,
    pub duration_seconds: Option<i32>,
    pub acquired: Option<i64>,
    pub renewed: Option<i64>,
    pub transitions: Option<i32>,
}

impl Record {
    fn is_released(&self) -> bool {
        self.holder.is_none() && self.duration_seconds == Some(RELEASED_SECONDS)
    }
}

/// A call to the API server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    Read,
    Create(Record),
    /// With the version that must still be the one.
    Update(Record, String),
}

/// What came of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// To a read: the record and its version, or that there is none.
    Found(Option<(Record, String)>),
    /// To a write: the new version.
    Written(String),
    /// To a write: somebody else was there first.
    Refused,
    /// No answer, or one that says nothing. A write may have been made.
    Failed,
}

/// What to do now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Todo {
    /// Nothing before this time.
    Wait(Duration),
    Ask(Request),
    /// Stop acting, at once and for good.
    Stop(Loss),
}

/// How a lease is lost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// It was not renewed in time.
    Expired,
    /// Somebody else has it.
    Taken(String),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Expired => f.write_str("it could not be renewed in time"),
            Self::Taken(holder) => write!(f, "it is held by {holder}"),
        }
    }
}

/// What was seen last.
#[derive(Clone, Debug)]
struct Observed {
    record: Option<Record>,
    version: Option<String>,
    /// From when on it may be taken if it stays like this.
    free_at: Duration,
}

#[derive(Clone, Debug)]
struct Attempt {
    record: Record,
    sent: Duration,
}

#[derive(Clone, Debug)]
struct Held {
    /// When the write was sent that succeeded last.
    since: Duration,
    acquired: Option<i64>,
    transitions: Option<i32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Plan {
    Read,
    Write,
}

/// One replica's part.
#[derive(Clone, Debug)]
pub struct Election {
    me: String,
    timing: Timing,
    /// Whether it may be elected; before that it only looks.
    stands: bool,
    observed: Option<Observed>,
    /// The last write, which may have been made even if nobody said so.
    attempt: Option<Attempt>,
    held: Option<Held>,
    lost: Option<Loss>,
    plan: Plan,
    next: Duration,
}

impl Election {
    pub fn new(me: String, timing: Timing) -> Self {
        Self {
            me,
            timing,
            stands: false,
            observed: None,
            attempt: None,
            held: None,
            lost: None,
            plan: Plan::Read,
            next: Duration::ZERO,
        }
    }

    /// From now on this replica may be elected.
    pub fn stand(&mut self, now: Duration) {
        self.stands = true;
        self.next = self.next.min(now);
    }

    /// Who is the holder as far as is known.
    pub fn holder(&self) -> Option<&str> {
        self.observed.as_ref()?.record.as_ref()?.holder.as_deref()
    }

    /// Until when this replica may act.
    pub fn holds_until(&self) -> Option<Duration> {
        self.held.as_ref().map(|held| held.since + self.timing.deadline)
    }

    /// What to do at this moment. `wall` goes into the record, for people to read; a request that is returned counts as
    /// sent now.
    pub fn next(&mut self, now: Duration, wall: i64) -> Todo {
        if let Some(loss) = &self.lost {
            return Todo::Stop(loss.clone());
        }
        let end = self.holds_until();
        if end.is_some_and(|end| now >= end) {
            return self.stop(Loss::Expired);
        }
        if now < self.next {
            return Todo::Wait(end.map_or(self.next, |end| end.min(self.next)));
        }
        if self.plan == Plan::Read {
            return Todo::Ask(Request::Read);
        }
        let record = self.claim(wall);
        Todo::Ask(self.write(record, now))
    }

    /// What to ask to give the lease back; `None`: there is nothing to give.
    pub fn release(&mut self, now: Duration, wall: i64) -> Option<Request> {
        let held = self.held.as_ref().filter(|held| now < held.since + self.timing.deadline)?;
        if self.plan == Plan::Read {
            return Some(Request::Read);
        }
        let record = Record {
            holder: None,
            duration_seconds: Some(RELEASED_SECONDS),
            acquired: Some(wall),
            renewed: Some(wall),
            transitions: held.transitions,
        };
        Some(self.write(record, now))
    }

    /// Takes the answer to the last request. `chance` is a random number from 0 to 1.
    pub fn answered(&mut self, answer: Answer, now: Duration, chance: f64) {
        let pause = self.timing.retry.mul_f64(1.0 - JITTER * chance.clamp(0.0, 1.0));
        match answer {
            Answer::Found(seen) => self.found(seen, now, pause),
            Answer::Written(version) => {
                if let Some(Observed { version: seen, .. }) = &mut self.observed {
                    *seen = Some(version);
                }
                self.win(now);
            }
            Answer::Refused => {
                self.plan = Plan::Read;
                self.next = now + if self.held.is_some() { self.timing.retry / REFUSED_SHARE } else { pause };
            }
            Answer::Failed => {
                self.plan = Plan::Read;
                self.next = now + if self.held.is_some() { self.timing.retry } else { pause };
            }
        }
    }

    fn found(&mut self, seen: Option<(Record, String)>, now: Duration, pause: Duration) {
        let (record, version) = seen.unzip();
        let holder = record.as_ref().and_then(|record| record.holder.clone());
        let mine = self.attempt.as_ref().is_some_and(|attempt| Some(&attempt.record) == record.as_ref());
        let free_at = match &self.observed {
            Some(before) if before.record == record => before.free_at,
            before => now + self.keeps_out(record.as_ref(), before.is_none()),
        };
        self.observed = Some(Observed { record, version, free_at });
        if self.held.is_some() {
            match holder {
                _ if mine => self.win(now),
                Some(other) if other != self.me => {
                    self.stop(Loss::Taken(other));
                }
                // Edited, emptied or deleted, and nobody else has it: it is claimed again.
                _ => (self.plan, self.next) = (Plan::Write, now),
            }
        } else if mine {
            self.win(now);
        } else if self.stands && now >= free_at {
            (self.plan, self.next) = (Plan::Write, now);
        } else {
            let next = now + pause;
            self.plan = Plan::Read;
            self.next = if now < free_at { next.min(free_at) } else { next };
        }
    }

    /// How long a record that is new keeps this replica out.
    fn keeps_out(&self, record: Option<&Record>, first: bool) -> Duration {
        match record {
            Some(record) if record.holder.is_some() => {
                let seconds = record.duration_seconds.unwrap_or_default();
                let told = Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
                told.clamp(self.timing.lease, self.timing.lease * BELIEVED_MOST)
            }
            Some(record) if record.is_released() => Duration::ZERO,
            // Nobody has ever held it, as far as this replica can know.
            _ if first => Duration::ZERO,
            _ => self.timing.lease,
        }
    }

    /// The last attempt was made, and nothing has been written since.
    fn win(&mut self, now: Duration) {
        let Some(attempt) = self.attempt.clone() else { return };
        let Attempt { record, sent } = attempt;
        if self.held.is_none() && now >= sent + self.timing.deadline {
            // It took so long to learn of it that it is over. Nobody else has the lease: it is claimed once more.
            (self.plan, self.next) = (Plan::Write, now);
            return;
        }
        self.held = Some(Held { since: sent, acquired: record.acquired, transitions: record.transitions });
        if let Some(observed) = &mut self.observed {
            observed.record = Some(record);
        }
        self.plan = Plan::Write;
        self.next = now.max(sent + self.timing.retry);
    }

    /// The record that says that this replica holds the lease.
    fn claim(&self, wall: i64) -> Record {
        let seen = self.observed.as_ref().and_then(|observed| observed.record.as_ref());
        let before = self.attempt.as_ref().and_then(|attempt| attempt.record.renewed);
        // A clock that stands still or goes back must not make a renewal look like none.
        let renewed = before.map_or(wall, |before| wall.max(before.saturating_add(1)));
        let seconds = self.timing.lease.as_secs() + u64::from(self.timing.lease.subsec_nanos() > 0);
        let goes_on = seen.is_some_and(|seen| seen.holder.as_deref() == Some(&self.me));
        let held = self.held.as_ref().filter(|_| goes_on);
        let transitions = match (held, seen) {
            (Some(held), _) => held.transitions,
            (None, None) => Some(0),
            (None, Some(seen)) => Some(seen.transitions.unwrap_or_default().max(0).saturating_add(1)),
        };
        Record {
            holder: Some(self.me.clone()),
            duration_seconds: Some(i32::try_from(seconds).unwrap_or(i32::MAX)),
            acquired: held.map_or(Some(renewed), |held| held.acquired),
            renewed: Some(renewed),
            transitions,
        }
    }

    fn write(&mut self, record: Record, now: Duration) -> Request {
        let version = self.observed.as_ref().and_then(|observed| observed.version.clone());
        self.attempt = Some(Attempt { record: record.clone(), sent: now });
        match version {
            Some(version) => Request::Update(record, version),
            None => Request::Create(record),
        }
    }

    fn stop(&mut self, loss: Loss) -> Todo {
        self.held = None;
        self.lost = Some(loss.clone());
        Todo::Stop(loss)
    }
}
