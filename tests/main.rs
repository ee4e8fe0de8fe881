//! The integration tests: the real control plane, a simulated fleet, and the operator as a process of its own.
//! One file a capability; `support` is the harness.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unwrap_in_result)]

mod harness;
mod support;
