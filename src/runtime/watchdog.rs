//! The watchdog of the event loop: is this process still able to run its tasks?
//!
//! It watches nothing outside the process. An apiserver or a host that is away must not fail it, because a restart
//! would mend neither and would throw away what is known.
//!
//! `/livez` is served by the same event loop. If that is stuck altogether, nobody answers and the probe times out,
//! which is the same verdict; the watchdog is for a loop that still answers here and there while tasks starve.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

/// Often enough that one late tick is far from the limit, rare enough to cost nothing.
const TICK: Duration = Duration::from_secs(1);

/// A loaded machine, a paused container or a long garbage sweep of the kernel delays a tick by seconds. Thirty
/// missing ticks are no load: the probes fail then, and a restart is the only thing left.
pub const SILENCE_LIMIT: Duration = Duration::from_secs(30);

/// When the event loop last ran its tick; clones share it.
#[derive(Clone, Debug)]
pub struct Watchdog {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    start: Instant,
    /// Milliseconds from `start` to the last tick; an `Instant` is not atomic.
    last_tick: AtomicU64,
}

impl Watchdog {
    /// Starts ticking on the current runtime, until the runtime ends.
    pub fn start() -> Self {
        let watchdog = Self::new(Instant::now());
        let ticking = watchdog.clone();
        tokio::spawn(async move {
            loop {
                ticking.tick(Instant::now());
                tokio::time::sleep(TICK).await;
            }
        });
        watchdog
    }

    /// False once the event loop has not run its tick for [`SILENCE_LIMIT`].
    pub fn alive(&self) -> bool {
        self.alive_at(Instant::now())
    }

    fn new(start: Instant) -> Self {
        Self { inner: Arc::new(Inner { start, last_tick: AtomicU64::new(0) }) }
    }

    fn tick(&self, now: Instant) {
        self.inner.last_tick.store(self.since_start(now), Ordering::Relaxed);
    }

    fn alive_at(&self, now: Instant) -> bool {
        let silence = self.since_start(now).saturating_sub(self.inner.last_tick.load(Ordering::Relaxed));
        Duration::from_millis(silence) <= SILENCE_LIMIT
    }

    fn since_start(&self, now: Instant) -> u64 {
        u64::try_from(now.saturating_duration_since(self.inner.start).as_millis()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn silence_past_the_limit_is_death_and_a_tick_revives() {
        let start = Instant::now();
        let watchdog = Watchdog::new(start);
        assert!(watchdog.alive_at(start));
        assert!(watchdog.alive_at(start + SILENCE_LIMIT));
        let late = start + SILENCE_LIMIT + Duration::from_millis(1);
        assert!(!watchdog.alive_at(late));
        watchdog.tick(late);
        assert!(watchdog.alive_at(late + SILENCE_LIMIT));
        assert!(!watchdog.alive_at(late + SILENCE_LIMIT + TICK));
    }

    #[tokio::test]
    async fn it_ticks_by_itself() {
        let watchdog = Watchdog::start();
        let ticked = || watchdog.inner.last_tick.load(Ordering::Relaxed) >= 900;
        let deadline = Instant::now() + Duration::from_secs(30);
        while !ticked() && Instant::now() < deadline {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(ticked());
        assert!(watchdog.alive());
    }
}
