//! The clock that leases are timed by.

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// Time since the machine started, which nobody sets. Unlike the clock behind `Instant` it goes on while the machine is
/// suspended: whoever wakes up must know how long others have been waiting.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    let seconds = u64::try_from(time.tv_sec).unwrap_or_default();
    Duration::new(seconds, u32::try_from(time.tv_nsec).unwrap_or_default())
}
