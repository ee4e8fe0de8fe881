//! The controllers: what is watched becomes polls, and polls become status, Events and metrics.

pub mod api_client;
pub mod api_failure;
pub mod context;
pub mod credentials;
pub mod event_queue;
mod event_series;
mod fair_queue;
mod listing;
pub mod own_addresses;
pub mod plugin;
mod seldom;
pub mod server;
pub mod status_writer;
mod streams;
