//! How often an agent is asked whose answers may keep a model awake (`agent.onlyWhileLoaded`): at its interval while
//! its counters move, and ever more rarely while they do not, so that an idle server can fall asleep. Pure.

use crate::plugins::model_need::ModelNeed;
use std::{collections::BTreeSet, time::Duration};

/// The longest pause. Servers that put models to sleep do so after minutes; an hour is longer than any of them waits.
const PAUSE_MAX: Duration = Duration::from_hours(1);

/// What decides when one such agent is asked next.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdlePause {
    /// `None`: nothing has been heard yet, or a model was loaded since.
    pause: Option<Duration>,
    /// The models that were in memory when the host last told.
    loaded: BTreeSet<String>,
}

impl IdlePause {
    /// Takes note of the models in memory. One that was not there before is a reason to ask at once.
    pub fn host_told<'a>(&mut self, loaded: impl Iterator<Item = &'a str>) {
        let loaded: BTreeSet<String> = loaded.map(str::to_owned).collect();
        if !loaded.is_subset(&self.loaded) {
            self.pause = None;
        }
        self.loaded = loaded;
    }

    /// Something goes on that its counters do not tell yet, such as requests that wait.
    pub fn end(&mut self) {
        self.pause = None;
    }

    /// Whether it may be asked now, so long after it was asked last: what it needs is in memory, and the pause is over.
    /// `slack`: slots are late by this much at most.
    pub fn is_due(&self, need: &ModelNeed, since: Option<Duration>, slack: Duration) -> bool {
        let waited = match (self.pause, since) {
            (Some(pause), Some(since)) => since + slack >= pause,
            _ => true,
        };
        waited && need.is_met(self.loaded.iter().map(String::as_str))
    }

    /// Time between two answers as it is now.
    pub fn pause(&self, interval: Duration) -> Duration {
        self.pause.unwrap_or(interval)
    }

    /// Takes note of an answer. `moved`: whether any of its counters has; an agent that fails has moved nothing.
    pub fn answered(&mut self, moved: bool, interval: Duration) {
        self.pause = Some(match self.pause {
            Some(pause) if !moved => pause.saturating_mul(2).min(PAUSE_MAX).max(interval),
            _ => interval,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn the_pause_doubles_while_nothing_moves() {
        let mut pause = IdlePause::default();
        pause.host_told(["a"].into_iter());
        let mut pauses = Vec::new();
        for moved in [true, false, false, false, true, false] {
            pause.answered(moved, INTERVAL);
            pauses.push(pause.pause.unwrap().as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 10, 20]);
        for _ in 0..20 {
            pause.answered(false, INTERVAL);
        }
        assert_eq!(pause.pause, Some(PAUSE_MAX));
    }

    #[test]
    fn an_interval_above_the_longest_pause_stays() {
        let mut pause = IdlePause::default();
        pause.answered(false, PAUSE_MAX * 2);
        pause.answered(false, PAUSE_MAX * 2);
        assert_eq!(pause.pause, Some(PAUSE_MAX * 2));
    }

    #[test]
    fn it_is_asked_when_its_pause_is_over() {
        let mut pause = IdlePause::default();
        pause.host_told(["a"].into_iter());
        assert!(pause.is_due(&ModelNeed::Any, None, Duration::ZERO), "never asked before");
        pause.answered(false, INTERVAL);
        pause.answered(false, INTERVAL);
        assert!(!pause.is_due(&ModelNeed::Any, Some(seconds(14)), seconds(5)));
        assert!(
            pause.is_due(&ModelNeed::Any, Some(seconds(15)), seconds(5)),
            "a slot that is a little early"
        );
    }

    #[test]
    fn a_model_that_is_loaded_anew_ends_the_pause() {
        let mut pause = IdlePause::default();
        pause.host_told(["a"].into_iter());
        pause.answered(false, INTERVAL);
        pause.answered(false, INTERVAL);
        pause.host_told(["a"].into_iter());
        assert!(!pause.is_due(&ModelNeed::Any, Some(seconds(1)), Duration::ZERO), "the same model");
        pause.host_told(["a", "b"].into_iter());
        assert!(pause.is_due(&ModelNeed::Any, Some(seconds(1)), Duration::ZERO));
        pause.answered(false, INTERVAL);
        pause.host_told([].into_iter());
        assert!(!pause.is_due(&ModelNeed::Any, Some(seconds(3600)), Duration::ZERO), "it sleeps");
        pause.host_told(["a"].into_iter());
        assert!(pause.is_due(&ModelNeed::Any, Some(seconds(1)), Duration::ZERO), "somebody woke it");
    }
}
