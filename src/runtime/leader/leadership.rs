//! The fence: whether this process may write now. The one place for that rule; whoever writes goes through it.

use super::clock;
use std::{
    future::poll_fn,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    task::Poll,
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// Whether this process leads; clones share it.
#[derive(Clone, Debug)]
pub struct Leadership {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    /// Milliseconds of [`clock`] until which this process may write.
    until: AtomicU64,
    /// Becomes true once and stays: who loses the lease ends.
    gained: watch::Sender<bool>,
}

/// Why a call was not made, or has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unwritten {
    /// The lease is not held, or not held any more.
    NotLeading,
    /// The deadline is over.
    Late,
}

impl Leadership {
    /// Of the only replica: nobody else would act.
    pub fn always() -> Self {
        Self::until(u64::MAX, true)
    }

    /// Of a replica that has yet to be elected.
    pub fn none_yet() -> Self {
        Self::until(0, false)
    }

    fn until(until: u64, gained: bool) -> Self {
        let gained = watch::Sender::new(gained);
        Self { shared: Arc::new(Shared { until: AtomicU64::new(until), gained }) }
    }

    /// Whether this process leads at this moment.
    pub fn holds(&self) -> bool {
        millis(clock::now()) < self.shared.until.load(Ordering::Relaxed)
    }

    /// Returns when this process has begun to lead.
    pub async fn gained(&self) {
        // The sender lives as long as this.
        let _ = self.shared.gained.subscribe().wait_for(|gained| *gained).await;
    }

    /// Makes a call that changes something, with a deadline. The lease is looked at before each step of it, so that a
    /// process that was stopped in the middle does not send the rest when it wakes up.
    pub async fn write<T>(&self, limit: Duration, call: impl Future<Output = T>) -> Result<T, Unwritten> {
        let mut call = pin!(timeout(limit, call));
        poll_fn(|context| {
            if !self.holds() {
                return Poll::Ready(Err(Unwritten::NotLeading));
            }
            call.as_mut().poll(context).map(|answer| answer.map_err(|_| Unwritten::Late))
        })
        .await
    }

    /// Until when the lease is held; `None`: it is not.
    pub(super) fn hold(&self, until: Option<Duration>) {
        self.shared.until.store(until.map_or(0, millis), Ordering::Relaxed);
        if until.is_some() {
            self.shared.gained.send_if_modified(|gained| !std::mem::replace(gained, true));
        }
    }
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{cell::Cell, future::ready};

    const LIMIT: Duration = Duration::from_secs(30);

    #[tokio::test]
    async fn only_a_holder_writes() {
        let called = Cell::new(0);
        let call = || async { called.set(called.get() + 1) };
        let leadership = Leadership::none_yet();
        assert_eq!(leadership.write(LIMIT, call()).await, Err(Unwritten::NotLeading));
        assert_eq!(called.get(), 0);
        leadership.hold(Some(clock::now() + LIMIT));
        leadership.gained().await;
        assert_eq!(leadership.write(LIMIT, call()).await, Ok(()));
        leadership.hold(Some(clock::now()));
        assert_eq!(leadership.write(LIMIT, call()).await, Err(Unwritten::NotLeading));
        leadership.hold(None);
        assert!(!leadership.holds());
        assert_eq!(called.get(), 1);
        assert_eq!(Leadership::always().write(LIMIT, ready(7)).await, Ok(7));
    }

    /// What a stop of the process in the middle of a call looks like from inside.
    #[tokio::test]
    async fn a_call_that_has_begun_does_not_go_on_after_the_lease() {
        let leadership = Leadership::none_yet();
        leadership.hold(Some(clock::now() + LIMIT));
        let sent = Cell::new(false);
        let call = async {
            leadership.hold(Some(clock::now()));
            tokio::task::yield_now().await;
            sent.set(true);
        };
        assert_eq!(leadership.write(LIMIT, call).await, Err(Unwritten::NotLeading));
        assert!(!sent.get());
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_without_an_answer_is_late() {
        let call = std::future::pending::<()>();
        assert_eq!(Leadership::always().write(LIMIT, call).await, Err(Unwritten::Late));
    }
}
