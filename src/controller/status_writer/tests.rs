//! The writer in front of an API server that answers at once: order, pauses and bugs.

use super::*;
use crate::controller::server::live::Live;
use axum::http::{Method, Request, Response, StatusCode};
use serde_json::json;

#[test]
fn pauses_double_up_to_their_bound() {
    let pauses: Vec<_> = (0..7).map(|n| doubled(PAUSE_LEAST, PAUSE_MOST, n).as_millis()).collect();
    assert_eq!(pauses, [250, 500, 1000, 2000, 4000, 4000, 4000]);
}

fn writer(client: Client) -> (StatusWriter, Arc<Metrics>) {
    let metrics = Metrics::new(&Live::default(), 1, &Leadership::always());
    let writer = StatusWriter::new(client, Hold::default(), Leadership::always(), Arc::clone(&metrics));
    (writer, metrics)
}

fn submit(writer: &StatusWriter, namespace: &str, name: &str) {
    let target = Target {
        kind: Kind::OllamaServer,
        namespace: namespace.into(),
        name: name.into(),
        uid: format!("{namespace}/{name}"),
        newest: Arc::default(),
    };
    writer.submit(target, Some(1), &json!({}), Urgency::Transition, None, Box::new(|_| {}));
}

/// What an API server says to a request, and after how long; its number among all writes, or none if it reads.
type Answers = fn(Option<usize>) -> (Duration, StatusCode, Value);

/// An API server that answers so, and the names of the objects that were written, in order.
fn api_server(answers: Answers) -> (Client, Arc<Mutex<Vec<String>>>) {
    let written = Arc::new(Mutex::new(Vec::new()));
    let book = Arc::clone(&written);
    let service = tower::service_fn(move |request: Request<kube::client::Body>| {
        let number = (request.method() == Method::PATCH).then(|| {
            let mut book = book.lock().unwrap();
            book.push(request.uri().path().rsplit('/').nth(1).unwrap_or_default().to_owned());
            book.len()
        });
        async move {
            let (took, code, body) = answers(number);
            sleep(took).await;
            Response::builder().status(code).body(axum::body::Body::from(body.to_string()))
        }
    });
    (Client::new(service, "d"), written)
}

fn taken(_: Option<usize>) -> (Duration, StatusCode, Value) {
    let object = json!({"apiVersion": "v", "kind": "k",
        "metadata": {"uid": "n/a", "generation": 1, "resourceVersion": "9"}});
    (Duration::ZERO, StatusCode::OK, object)
}

/// A tenant whose whole fleet dies delays the verdict of another's by no more than what is under way.
#[tokio::test(start_paused = true)]
async fn a_crowd_in_one_namespace_holds_up_no_other() {
    let (client, written) = api_server(taken);
    let (writer, _) = writer(client);
    for number in 0..150 {
        submit(&writer, "crowd", &format!("c{number}"));
    }
    submit(&writer, "other", "o");
    let running = tokio::spawn(writer.clone().run(CancellationToken::new()));
    while writer.depth() > 0 {
        sleep(Duration::from_millis(100)).await;
    }
    let place = written.lock().unwrap().iter().position(|name| name == "o");
    assert!(place.is_some_and(|place| place <= IN_FLIGHT_MAX), "it was number {place:?}");
    running.abort();
}

/// A bug in writing one status costs that one: the next of the same object, and the others, are written.
#[tokio::test(start_paused = true)]
async fn a_bug_in_one_write_costs_one_write() {
    let (client, written) = api_server(|number| {
        assert_ne!(number, Some(1), "a bug");
        taken(number)
    });
    let (writer, metrics) = writer(client);
    let running = tokio::spawn(writer.clone().run(CancellationToken::new()));
    for name in ["a", "b", "a"] {
        submit(&writer, "n", name);
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(*written.lock().unwrap(), ["a", "b", "a"]);
    assert!(!running.is_finished());
    let text = metrics.expose();
    assert!(text.contains("ollama_fleet_panics_total 1\n"), "{text}");
    assert!(text.contains(r#"outcome="written"} 2"#), "{text}");
}

/// Somebody edits an object all the time, and its status is another at each poll: it pauses ever longer all the same.
#[tokio::test(start_paused = true)]
async fn a_newer_status_shares_the_pause_of_the_one_that_it_replaces() {
    let (client, written) = api_server(|number| {
        if number.is_none() {
            return taken(None);
        }
        let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": "Conflict", "message": "modified", "code": 409});
        (Duration::from_millis(40), StatusCode::CONFLICT, refusal)
    });
    let (writer, _) = writer(client);
    let running = tokio::spawn(writer.clone().run(CancellationToken::new()));
    for _ in 0..100 {
        submit(&writer, "n", "a");
        sleep(Duration::from_millis(100)).await;
    }
    // In ten seconds: turns of three, after pauses of 0.25 s and its doubles. Fewer where the budget, which keeps the
    // time of the wall, is waited for.
    let tries = written.lock().unwrap().len();
    assert!((3..=18).contains(&tries), "{tries} tries");
    running.abort();
}

/// An API server that has just come back forbids for a moment what it allows then: nobody waits long for that, however
/// long it was away before.
#[tokio::test(start_paused = true)]
async fn a_right_that_is_missing_for_a_moment_delays_for_a_moment() {
    let (client, written) = api_server(|number| {
        let (code, reason) = match number {
            Some(1..=8) => (StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
            Some(9) => (StatusCode::FORBIDDEN, "Forbidden"),
            other => return taken(other),
        };
        let refusal = json!({"kind": "Status", "apiVersion": "v1", "status": "Failure",
            "reason": reason, "message": "", "code": code.as_u16()});
        (Duration::ZERO, code, refusal)
    });
    let (writer, _) = writer(client);
    let running = tokio::spawn(writer.clone().run(CancellationToken::new()));
    submit(&writer, "n", "a");
    let count = || written.lock().unwrap().len();
    while count() < 9 {
        sleep(Duration::from_millis(100)).await;
    }
    sleep(FORBIDDEN_LEAST + Duration::from_millis(500)).await;
    assert_eq!((count(), writer.depth()), (10, 0));
    running.abort();
}

/// The budget is one of requests, and has no first second of twice its size.
#[tokio::test]
async fn a_crowd_is_written_at_the_pace_of_the_budget() {
    let (client, written) = api_server(taken);
    let (writer, _) = writer(client);
    for number in 0..100 {
        submit(&writer, "n", &format!("s{number}"));
    }
    let begin = std::time::Instant::now();
    let running = tokio::spawn(writer.clone().run(CancellationToken::new()));
    while written.lock().unwrap().len() < 100 {
        sleep(Duration::from_millis(5)).await;
    }
    // Ten milliseconds each for those beyond the burst, less what a clock may be off.
    let least = Duration::from_millis(9) * (100 - BURST.get());
    assert!(begin.elapsed() >= least, "{:?}", begin.elapsed());
    running.abort();
}
