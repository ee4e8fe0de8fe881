//! The harness: everything a test needs to start, ask, wait for and clean up. No file here knows a scenario.
//!
//! A test usually begins with
//!
//! ```ignore
//! let control_plane = ControlPlane::shared();
//! let namespace = Namespace::new(control_plane).await;
//! let fleet = Fleet::start(3).await;
//! let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
//! ```
//!
//! and ends with the drop of these four, which stops by process id what it started.

// Every file of tests uses its own part of this.
#![allow(dead_code, unused_imports)]

pub mod agent;
pub mod apiserver_proxy;
pub mod binaries;
pub mod board;
pub mod child;
pub mod clock;
pub mod connects;
pub mod control_plane;
pub mod dns;
pub mod faulty;
pub mod fleet;
pub mod http;
pub mod metrics;
pub mod named_tests;
pub mod namespace;
pub mod objects;
pub mod operator;
pub mod proc;
pub mod raw_host;
pub mod rights;
pub mod scene;
pub mod servers;
pub mod tls_host;
pub mod wait;
pub mod writes;

pub use agent::Agent;
pub use apiserver_proxy::{Answer, ApiProxy, Cut, Fault, Match};
pub use board::Board;
pub use connects::Connects;
pub use control_plane::ControlPlane;
pub use dns::{Dns, Reply};
pub use faulty::{Faulty, full, is_well};
pub use fleet::Fleet;
pub use metrics::metric_value;
pub use named_tests::NamedTests;
pub use namespace::Namespace;
pub use objects::{
    all_events, apply, condition, count, create, events, get, patch_spec, plugin, resource_version, server,
    status_of,
};
pub use operator::Operator;
pub use raw_host::RawHost;
pub use scene::Scene;
pub use tls_host::{Authority, Leaf, Secured, TlsHost, Way};
pub use wait::{eventually, holds_for};
pub use writes::WriteCounter;

/// How long anything that must happen may take on a busy machine before a test gives up. Promises with a bound of
/// their own name it; this is only the end of patience.
pub const PATIENCE: std::time::Duration = std::time::Duration::from_secs(30);
