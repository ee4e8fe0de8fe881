//! The life of the process: what it still waits for, whether it is alive, and how it ends.
//!
//! Nothing here knows of servers, plugins or HTTP.

pub mod crds;
pub mod leader;
pub mod readiness;
pub mod shutdown;
pub mod watchdog;

pub use crds::{CrdGate, wait_for_crds};
pub use leader::{Elector, Leadership, LeadershipLost};
pub use readiness::{Gate, Readiness, Snapshot};
pub use shutdown::shutdown_signal;
pub use watchdog::Watchdog;
