//! When a server is polled: on a slot of its own that follows from its UID, so that a restart of the operator neither
//! bunches nor shifts the polls of a fleet. Pure.

use super::observe::Turn;
use k8s_openapi::jiff::Timestamp;
use std::{hash::Hasher, time::Duration};
use tokio::time::Instant;

/// Status is confirmed at least this often, so that "older than 10 minutes" means stale.
pub const HEARTBEAT: Duration = Duration::from_mins(5);
/// Heartbeats of objects that were written together drift apart by up to this; 10,000 of them then come at 222 a
/// second at first, which the write budget smooths.
const HEARTBEAT_SPREAD: Duration = Duration::from_secs(45);

/// Where in every interval an object's slot lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Phase(u64);

impl Phase {
    /// FNV-1a over the UID: the same on every machine and in every version, unlike the standard library's hasher.
    pub fn of(uid: &str) -> Self {
        struct Fnv(u64);
        impl Hasher for Fnv {
            fn finish(&self) -> u64 {
                self.0
            }
            fn write(&mut self, bytes: &[u8]) {
                for byte in bytes {
                    self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
                }
            }
        }
        let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
        hasher.write(uid.as_bytes());
        // FNV's high bits are its good ones.
        let hash = hasher.finish();
        Self(hash ^ (hash >> 32))
    }

    /// The first slot after `now_ms` (milliseconds since the Unix epoch), and after `last_ms`, the slot that was used
    /// last, unless the clock has jumped back.
    pub fn next_slot(self, now_ms: u64, last_ms: Option<u64>, interval: Duration) -> u64 {
        let interval = u64::try_from(interval.as_millis()).unwrap_or(u64::MAX).max(1);
        let offset = self.0 % interval;
        let after = last_ms.filter(|last| *last < now_ms.saturating_add(interval)).unwrap_or(0).max(now_ms);
        let start = after - after % interval + offset;
        if start > after { start } else { start.saturating_add(interval) }
    }

    /// How long after a write the next heartbeat is due.
    pub fn heartbeat_after(self) -> Duration {
        let spread = u64::try_from(HEARTBEAT_SPREAD.as_millis()).unwrap_or(1);
        HEARTBEAT + Duration::from_millis((self.0 >> 16) % spread)
    }
}

/// When what is due for one server.
#[derive(Default)]
pub struct Timing {
    /// The next slot, and when that is; `None`: not polled at all.
    pub slot: Option<(u64, Instant)>,
    /// The slot that was used last.
    pub used_slot: Option<u64>,
    /// A poll before the next slot.
    pub at_once: Option<Instant>,
    /// The host has not been asked since it became this one, or since it may be asked again.
    pub unasked: bool,
    pub last_models: Option<Instant>,
    /// What the poll that is under way asks of the models on disk.
    pub turn: Turn,
    /// The list of models was due and got no time; it comes first in the next poll.
    pub models_missed: bool,
    pub last_requested: Option<Instant>,
    pub last_poll: Option<Timestamp>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const INTERVAL: Duration = Duration::from_secs(10);

    #[test]
    fn slots_are_one_interval_apart_and_survive_a_restart() {
        let phase = Phase::of("d76d5700-42a0-4fd0-936f-28aaac4e1251");
        let first = phase.next_slot(1_000_000_000, None, INTERVAL);
        assert_eq!(phase.next_slot(first, Some(first), INTERVAL), first + 10_000);
        // A timer that fires a millisecond early does not use the slot twice.
        assert_eq!(phase.next_slot(first - 1, Some(first), INTERVAL), first + 10_000);
        assert_eq!(phase.next_slot(first + 3_333, None, INTERVAL), first + 10_000);
    }

    #[test]
    fn a_clock_that_jumps_back_does_not_stop_the_polls() {
        let phase = Phase::of("a");
        assert!(phase.next_slot(1_000_000, Some(9_000_000), INTERVAL) <= 1_010_000);
    }

    #[test]
    fn a_fleet_is_spread_evenly() {
        let mut tenths = [0; 10];
        for i in 0..10_000 {
            let slot =
                Phase::of(&format!("{i:08x}-42a0-4fd0-936f-28aaac4e1251")).next_slot(0, None, INTERVAL);
            tenths[usize::try_from(slot % 10_000 / 1000).unwrap()] += 1;
        }
        assert!(tenths.iter().all(|count| (850..1150).contains(count)), "{tenths:?}");
    }

    proptest! {
        #[test]
        fn the_next_slot_is_within_one_interval(uid in ".{0,40}", now in 0u64..1 << 50, interval in 1u64..100_000_000) {
            let next = Phase::of(&uid).next_slot(now, None, Duration::from_millis(interval));
            prop_assert!(next > now && next <= now + interval);
        }

        #[test]
        fn a_heartbeat_comes_before_a_status_is_stale(uid in ".{0,40}") {
            let after = Phase::of(&uid).heartbeat_after();
            prop_assert!(after >= HEARTBEAT && after < 2 * HEARTBEAT);
        }
    }
}
