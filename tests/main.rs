//! The integration tests: the real control plane, a simulated fleet, and the operator as a process of its own.
//! One file a capability; `support` is the harness.

// Tests may fail by panicking, and hand over JSON that they make in place.
#![allow(clippy::needless_pass_by_value)]
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::unwrap_in_result)]

mod address_policy;
mod agent_guide;
mod api;
mod apiserver_faults;
mod apiserver_watches;
mod apiserver_writes;
mod backend_lives;
mod backend_sleep;
mod backends;
mod bad_objects;
mod chart;
mod chart_rights;
mod crds;
mod credentials;
mod harness;
mod host_tls;
mod hostile_agents;
mod hostile_hosts;
mod idle_plugins;
mod import;
mod kills;
mod leader;
mod listener;
mod many;
mod many_plugins;
mod models;
mod odd_http;
mod old_defects;
mod outside;
mod plugin_dependencies;
mod plugin_places;
mod plugin_ports;
mod plugin_rules;
mod plugins;
mod pod_security;
mod pressure;
mod process_faults;
mod quiet;
mod rbac_golden;
mod refused_specs;
mod reliability;
mod restored;
mod server_lifecycle;
mod shipped_plugins;
mod support;
mod threats;
mod watched_namespaces;
