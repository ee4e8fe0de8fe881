//! Conditions: their types, their reasons, and the one way to set them.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

pub const READY: &str = "Ready";
pub const REACHABLE: &str = "Reachable";
pub const ACCEPTED: &str = "Accepted";
pub const PLUGINS_HEALTHY: &str = "PluginsHealthy";
pub const RULES_HEALTHY: &str = "RulesHealthy";
pub const STALLED: &str = "Stalled";
pub const THERMAL_PRESSURE: &str = "ThermalPressure";
pub const MEMORY_PRESSURE: &str = "MemoryPressure";
pub const DISK_PRESSURE: &str = "DiskPressure";
pub const FLAPPING: &str = "Flapping";

/// The status of a condition.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Truth {
    True,
    False,
    Unknown,
}

impl Truth {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }

    /// What is neither True nor False is Unknown.
    pub fn parse(text: &str) -> Self {
        match text {
            "True" => Self::True,
            "False" => Self::False,
            _ => Self::Unknown,
        }
    }
}

impl From<bool> for Truth {
    fn from(value: bool) -> Self {
        if value { Self::True } else { Self::False }
    }
}

/// The condition of that type, if it is there.
pub fn find<'a>(conditions: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    conditions.iter().find(|condition| condition.type_ == type_)
}

/// The status of the condition of that type; `Unknown` if it is not there.
pub fn truth(conditions: &[Condition], type_: &str) -> Truth {
    find(conditions, type_).map_or(Truth::Unknown, |condition| Truth::parse(&condition.status))
}

/// The condition of that type, if it has become False, or is so for another reason than before.
pub fn newly_false<'a>(before: &[Condition], now: &'a [Condition], type_: &str) -> Option<&'a Condition> {
    let is_false = |condition: &&Condition| Truth::parse(&condition.status) == Truth::False;
    let refused = find(now, type_).filter(is_false)?;
    let known = find(before, type_).filter(|before| is_false(before) && before.reason == refused.reason);
    known.is_none().then_some(refused)
}

/// The conditions of one object being made anew: what is not set again is gone, and what keeps its status keeps its
/// `lastTransitionTime`.
pub struct Builder<'a> {
    previous: &'a [Condition],
    generation: Option<i64>,
    now: &'a Time,
    next: Vec<Condition>,
}

impl<'a> Builder<'a> {
    pub fn new(previous: &'a [Condition], generation: Option<i64>, now: &'a Time) -> Self {
        Self { previous, generation, now, next: Vec::with_capacity(8) }
    }

    /// Sets a condition. `message` must be stable text: no counters, durations, addresses or bytes of a response.
    pub fn set(&mut self, type_: &str, truth: Truth, reason: &str, message: impl Into<String>) -> &mut Self {
        let unchanged = find(self.previous, type_).filter(|previous| previous.status == truth.as_str());
        let last_transition_time =
            unchanged.map_or_else(|| self.now.clone(), |previous| previous.last_transition_time.clone());
        self.next.push(Condition {
            type_: type_.to_owned(),
            status: truth.as_str().to_owned(),
            reason: reason.to_owned(),
            message: message.into(),
            observed_generation: self.generation,
            last_transition_time,
        });
        self
    }

    /// Keeps a condition as it was, if it was there.
    pub fn keep(&mut self, type_: &str) -> &mut Self {
        if let Some(previous) = find(self.previous, type_) {
            self.next.push(Condition { observed_generation: self.generation, ..previous.clone() });
        }
        self
    }

    /// The conditions, sorted by type, so that equal meaning is equal text.
    pub fn build(mut self) -> Vec<Condition> {
        self.next.sort_by(|a, b| a.type_.cmp(&b.type_));
        self.next
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::jiff::Timestamp;

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    #[test]
    fn transition_time_moves_only_with_status() {
        let epoch = at(0);
        let mut first = Builder::new(&[], Some(1), &epoch);
        first.set(READY, Truth::True, "Online", "a");
        let first = first.build();
        let now = at(10);
        let mut same = Builder::new(&first, Some(2), &now);
        same.set(READY, Truth::True, "ProbeFailing", "b");
        let same = same.build();
        assert_eq!(same[0].last_transition_time, at(0));
        assert_eq!(same[0].observed_generation, Some(2));
        let later = at(20);
        let mut changed = Builder::new(&same, Some(2), &later);
        changed.set(READY, Truth::False, "Timeout", "c");
        assert_eq!(changed.build()[0].last_transition_time, at(20));
    }

    #[test]
    fn a_condition_that_is_not_set_again_is_gone() {
        let now = at(1);
        let mut first = Builder::new(&[], None, &now);
        first.set(STALLED, Truth::True, "InvalidSpec", "");
        let first = first.build();
        assert!(Builder::new(&first, None, &now).build().is_empty());
    }
}
