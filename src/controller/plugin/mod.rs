//! Plugins: validated, indexed for the servers, and reported about.

pub mod index;
