//! Waiting for what must happen, and watching that something does not. No test sleeps by itself.

use std::{
    fmt::Display,
    time::{Duration, Instant},
};
use tokio::time::{Instant as TokioInstant, sleep_until, timeout_at};

const POLL: Duration = Duration::from_millis(50);

/// What a check says: not yet (and perhaps why), or the value that was waited for.
pub trait Outcome {
    type Value;
    fn into_result(self) -> Result<Self::Value, String>;
}

impl<T> Outcome for Option<T> {
    type Value = T;
    fn into_result(self) -> Result<T, String> {
        self.ok_or_else(|| "nothing yet".to_owned())
    }
}

impl<T, E: Display> Outcome for Result<T, E> {
    type Value = T;
    fn into_result(self) -> Result<T, String> {
        self.map_err(|error| error.to_string())
    }
}

impl Outcome for bool {
    type Value = ();
    fn into_result(self) -> Result<(), String> {
        self.then_some(()).ok_or_else(|| "not yet true".to_owned())
    }
}

/// Repeats `check` until it gives a value, and fails with its last reason when `limit` is over. A check that hangs
/// counts as a failed one.
pub async fn eventually<R: Outcome>(
    limit: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> R,
) -> R::Value {
    let start = TokioInstant::now();
    let deadline = start + limit;
    let mut reason = "it was never asked".to_owned();
    loop {
        let next = TokioInstant::now() + POLL;
        match timeout_at(deadline, check()).await {
            Ok(outcome) => match outcome.into_result() {
                Ok(value) => return value,
                Err(error) => reason = error,
            },
            Err(_) => reason = format!("no answer in time; before that: {reason}"),
        }
        assert!(next < deadline, "not within {limit:?}: {what}: {reason}");
        sleep_until(next).await;
    }
}

/// Repeats `check` for the whole of `duration`, and fails as soon as it does not hold; the value of the last check.
pub async fn holds_for<R: Outcome>(
    duration: Duration,
    what: &str,
    mut check: impl AsyncFnMut() -> R,
) -> R::Value {
    let start = Instant::now();
    loop {
        let next = TokioInstant::now() + POLL;
        let value = match check().await.into_result() {
            Ok(value) => value,
            Err(error) => panic!("no longer true after {:?}: {what}: {error}", start.elapsed()),
        };
        if start.elapsed() >= duration {
            return value;
        }
        sleep_until(next).await;
    }
}
