//! Servers: observe (IO in), assess (pure), publish (IO out), driven by one task for each server.

pub mod accept;
mod agents;
pub mod assess;
pub mod fleet;
mod idle_pause;
pub mod live;
mod observe;
pub mod publish;
pub mod schedule;
mod task;
pub mod transition;
