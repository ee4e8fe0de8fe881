//! Who of several replicas acts: one Lease, one holder, and a fence around every write.
//!
//! ```text
//! Lease ◀─▶ elector (IO, own client) ◀─▶ election (pure) ─▶ leadership (the fence) ─▶ whoever writes
//! ```
//!
//! The rules are those of client-go, where they are safe: others time the lease by when they saw it change, not by the
//! time that is written in it; the holder stops earlier than others may begin.
//!
//! Nothing here knows what the leader does.

mod clock;
mod election;
mod elector;
mod leadership;

#[cfg(test)]
mod election_tests;
#[cfg(test)]
mod model_tests;

pub use election::{Timing, TimingError};
pub use elector::{Elector, LeadershipLost};
pub use leadership::{Leadership, Unwritten};
