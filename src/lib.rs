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
//! | `runtime` | readiness, the wait for the CRDs, the leader election, the watchdog, shutdown |
//! | `cli` | `kubectl ollama`, a file a verb: reads files, prints, ends with an exit code |
//! | `untrusted` | what holds of every parser of foreign input, for tests and fuzzing only |
//! | `import` | what the old dashboard was configured with, as manifests; pure |

// Tables of tests hand JSON over by value, unwrap in helpers that return results, and tell "no maintenance" from
// "one without an end"; none of that belongs in the code that they test.
#![cfg_attr(
    test,
    allow(
        clippy::needless_pass_by_value,
        clippy::option_option,
        clippy::unwrap_in_result,
        clippy::panic_in_result_fn
    )
)]

pub mod api;
pub mod args;
pub mod cli;
pub mod controller;
pub mod import;
pub mod metrics;
pub mod operator;
pub mod plugins;
pub mod probe;
pub mod runtime;
pub mod serve;
pub mod telemetry;
#[cfg(any(test, feature = "fuzzing"))]
pub mod untrusted;
