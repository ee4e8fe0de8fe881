//! The paths of the main listener, and the rules that every request to it obeys.

use super::{
    auth::{Authorizer, Sender},
    fleet::{self, Shown},
    origin::Hosts,
    problem::Problem,
    review::Right,
};
use axum::{
    Router,
    body::{Body, Bytes},
    extract::{DefaultBodyLimit, Request, State},
    http::{HeaderValue, StatusCode, header},
    middleware::{Next, from_fn_with_state},
    response::{IntoResponse, Response},
    routing::get,
};
use futures::stream;
use std::{convert::Infallible, sync::Arc, time::Duration};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::spawn_blocking,
};

/// Writes every metric as OpenMetrics text.
pub type Metrics = Arc<dyn Fn() -> String + Send + Sync>;

/// Longer than asking the apiserver takes; after this nobody waits for the answer any more.
const REQUEST_DEADLINE: Duration = Duration::from_secs(30);

/// Nothing that is served takes a body yet; a manifest, the largest thing that may come, is far smaller.
const BODY_MAX: usize = 64 * 1024;

/// Each holds the whole text, a few MiB for a large fleet, until its reader has taken it. Two Prometheus replicas
/// and a person with curl are three.
const SCRAPES_MAX: usize = 4;

/// Pieces in which the text is handed to the connection, so that the count of scrapes follows the reader.
const CHUNK: usize = 64 * 1024;

/// What prometheus-client writes, whatever `Accept` says: every scraper of today reads it, and the older text
/// format has no word for some of its types.
const OPENMETRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

const READ_METRICS: Right = Right::NonResource { path: "/metrics", verb: "get" };

#[derive(Clone)]
struct App {
    metrics: Metrics,
    authorizer: Arc<Authorizer>,
    scrapes: Arc<Semaphore>,
    hosts: Hosts,
}

pub fn router(metrics: Metrics, shown: Shown, authorizer: Authorizer, hosts: Hosts) -> Router {
    let authorizer = Arc::new(authorizer);
    let app = App {
        metrics,
        authorizer: Arc::clone(&authorizer),
        scrapes: Arc::new(Semaphore::new(SCRAPES_MAX)),
        hosts,
    };
    Router::new()
        .route("/metrics", get(scrape))
        .merge(fleet::router(shown, authorizer))
        .fallback(not_found)
        .method_not_allowed_fallback(method_not_allowed)
        .layer(DefaultBodyLimit::max(BODY_MAX))
        .layer(from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// What holds for every path, known or not.
async fn guard(State(app): State<App>, request: Request, next: Next) -> Response {
    let mut response = match admit(&app, &request) {
        Ok(()) => tokio::time::timeout(REQUEST_DEADLINE, next.run(request)).await.unwrap_or_else(|_| {
            Problem::new(StatusCode::SERVICE_UNAVAILABLE, "the answer took too long").into_response()
        }),
        Err(problem) => problem.into_response(),
    };
    let headers = response.headers_mut();
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

fn admit(app: &App, request: &Request) -> Result<(), Problem> {
    app.hosts.check(request.uri(), request.headers())?;
    // Refused before it is sent; a body of unknown length meets the limit where it is read.
    let length = request.headers().get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok());
    if length.and_then(|length| length.parse().ok()).is_some_and(|length: u64| length > BODY_MAX as u64) {
        let detail = "a request's body must not be larger than 64 KiB";
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, detail));
    }
    Ok(())
}

async fn scrape(State(app): State<App>, sender: Sender) -> Result<Response, Problem> {
    app.authorizer.identify(&sender).await?.require(&READ_METRICS).await?;
    let permit = Arc::clone(&app.scrapes).try_acquire_owned().map_err(|_| {
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, "too many scrapes at once").retry_soon()
    })?;
    // A large fleet takes some tenths of a second, in which a worker would serve nobody else. The permit goes along: also
    // a text that nobody waits for any more is one of so many.
    let render = move || (Bytes::from((app.metrics)()), permit);
    let (text, permit) = spawn_blocking(render).await.map_err(|error| {
        tracing::error!(%error, "the metrics could not be written");
        Problem::new(StatusCode::INTERNAL_SERVER_ERROR, "the metrics could not be written")
    })?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(OPENMETRICS)),
        (header::CONTENT_LENGTH, HeaderValue::from(text.len())),
    ];
    Ok((headers, held(text, permit)).into_response())
}

/// A body that keeps the permit until its last piece is taken, or the reader is gone.
fn held(text: Bytes, permit: OwnedSemaphorePermit) -> Body {
    Body::from_stream(stream::unfold((text, permit), |(mut rest, permit)| async move {
        if rest.is_empty() {
            return None;
        }
        let piece = rest.split_to(CHUNK.min(rest.len()));
        Some((Ok::<_, Infallible>(piece), (rest, permit)))
    }))
}

async fn not_found() -> Problem {
    Problem::new(
        StatusCode::NOT_FOUND,
        "no such path; /metrics, /api/plugins and /api/servers are served here",
    )
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "this path does not take that method")
}
