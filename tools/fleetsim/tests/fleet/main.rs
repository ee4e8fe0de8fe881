//! The simulator as its clients see it.

mod answers;
mod control;
mod faults;
mod sim;
mod witness;
