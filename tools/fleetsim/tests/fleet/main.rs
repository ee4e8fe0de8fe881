//! The simulator as its clients see it.

// Tests may fail by panicking; nothing else may.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::print_stdout)]

mod answers;
mod control;
mod faults;
mod sim;
mod witness;
