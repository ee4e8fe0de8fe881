//! What probes ask, without a login: `/livez` and `/readyz`, nothing else and nothing of the fleet.

use super::problem::Problem;
use crate::runtime::{Readiness, Watchdog};
use axum::{
    Json, Router,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::get,
};

pub fn router(readiness: Readiness, watchdog: Watchdog) -> Router {
    Router::new()
        .route("/livez", get(live))
        .with_state(watchdog)
        .route("/readyz", get(ready))
        .with_state(readiness)
        .fallback(not_found)
}

/// Only the event loop counts: a restart mends nothing else.
async fn live(State(watchdog): State<Watchdog>) -> Response {
    if watchdog.alive() {
        "ok".into_response()
    } else {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the event loop is stuck").into_response()
    }
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let snapshot = readiness.snapshot();
    let status = if snapshot.ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(snapshot))
}

async fn not_found() -> Problem {
    Problem::new(StatusCode::NOT_FOUND, "only /livez and /readyz are served here")
}
