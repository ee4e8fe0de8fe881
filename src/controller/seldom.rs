//! Says whether something that happens all the time may be told again: one line a minute is enough to read of it.

use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// One line about one thing in this time.
const EVERY: Duration = Duration::from_mins(1);

/// When each thing was told last. What may be told is a fixed set of words, so that this stays small.
#[derive(Debug, Default)]
pub struct Seldom {
    told: Mutex<HashMap<&'static str, Instant>>,
}

impl Seldom {
    /// Whether it is time to tell of this; from then on it is not, for a minute.
    pub fn may_tell(&self, what: &'static str) -> bool {
        let now = Instant::now();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(what).is_some_and(|at| now.duration_since(*at) < EVERY) {
            return false;
        }
        told.insert(what, now);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn each_thing_is_told_once_a_minute() {
        let seldom = Seldom::default();
        assert!(seldom.may_tell("a") && seldom.may_tell("b") && !seldom.may_tell("a"));
        tokio::time::advance(Duration::from_millis(59_999)).await;
        assert!(!seldom.may_tell("a"));
        tokio::time::advance(Duration::from_millis(1)).await;
        assert!(seldom.may_tell("a"));
    }
}
