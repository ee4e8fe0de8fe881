//! Ollama Fleet Operator: hosts outside the cluster that serve models, as Kubernetes objects that tell the truth.
//!
//! ```text
//! watch ─▶ schedule ─▶ observe (host + agents) ─▶ assess (pure) ─▶ publish (status, Events, metrics)
//! ```
//!
//! | folder | holds |
//! |---|---|
//! | `api` | the custom resources: types, conditions, parsed values; no IO, no clock |
//! | `controller` | watches, one task a server, the plugin controller, the writers of status and Events |
//! | `probe` | talking to hosts and agents: the only place that dials |
//! | `plugins` | what a manifest means and what an agent's answer says by it; pure |
//! | `serve` | the two HTTP listeners |
//! | `runtime` | readiness, the wait for the CRDs, the watchdog, shutdown |

pub mod api;
pub mod args;
pub mod controller;
pub mod metrics;
pub mod operator;
pub mod plugins;
pub mod probe;
pub mod runtime;
pub mod serve;
pub mod telemetry;
