use super::*;
use crate::{api::OllamaServer, controller::server::live::Live, runtime::Leadership};
use axum::http::{Request, Response};
use kube::client::Body;
use serde_json::json;
use std::{convert::Infallible, sync::Mutex};
use tokio::time::Instant;

/// What an API server answers to one request: `None` is nothing, ever; a body may end or go on without a word.
#[derive(Clone, Copy)]
enum Answer {
    Nothing,
    /// Of this version.
    List(u64),
    SilentWatch,
    Failure(u16),
}

/// The verbs that were asked for (`look` is a list of one), and when, in seconds.
type Asked = Arc<Mutex<Vec<(&'static str, u64)>>>;

fn apiserver(answer: impl Fn(&str, usize) -> Answer + Clone + Send + 'static) -> (Client, Asked) {
    let asked = Asked::default();
    let begin = Instant::now();
    let book = Arc::clone(&asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let query = request.uri().query().unwrap_or_default();
        let verb = match query.contains("watch=true") {
            true => "watch",
            false if query.split('&').any(|pair| pair == "limit=1") => "look",
            false => "list",
        };
        let number = {
            let mut book = book.lock().unwrap();
            book.push((verb, begin.elapsed().as_secs()));
            book.iter().filter(|(of, _)| *of == verb).count()
        };
        let answer = answer(verb, number);
        async move {
            let (code, body) = match answer {
                Answer::Nothing => std::future::pending().await,
                Answer::List(version) => {
                    let list = json!({"apiVersion": "ollama-fleet.io/v1alpha1", "kind": "OllamaServerList",
                        "metadata": {"resourceVersion": version.to_string()}, "items": []});
                    (200, axum::body::Body::from(list.to_string()))
                }
                Answer::SilentWatch => (
                    200,
                    axum::body::Body::from_stream(futures::stream::pending::<Result<Vec<u8>, Infallible>>()),
                ),
                Answer::Failure(code) => {
                    let status = json!({"kind": "Status", "status": "Failure", "code": code, "reason": "R", "message": "m"});
                    (code, axum::body::Body::from(status.to_string()))
                }
            };
            Response::builder().status(code).body(body)
        }
    });
    (Client::new(service, "default"), asked)
}

/// Follows a watch for a while, in time that passes by itself; how often it had begun a list.
async fn follow(client: &Client, time: Duration) -> usize {
    let metrics = Metrics::new(&Live::default(), 1, &Leadership::always());
    let mut items = std::pin::pin!(watch::<OllamaServer>(client, &[], Kind::OllamaServer, metrics));
    let mut lists = 0;
    let deadline = Instant::now() + time;
    while let Ok(Some((_, event))) = tokio::time::timeout_at(deadline, items.next()).await {
        lists += usize::from(matches!(event, Ok(watcher::Event::InitDone)));
    }
    lists
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_went_silent_is_noticed_and_begun_anew_where_it_was() {
    let (client, asked) =
        apiserver(|verb, _| if verb == "watch" { Answer::SilentWatch } else { Answer::List(7) });
    assert_eq!(follow(&client, Duration::from_secs(500)).await, 1, "listed once only");
    let expected = [("list", 0), ("look", 0), ("watch", 0), ("watch", 205), ("watch", 410)];
    assert_eq!(*asked.lock().unwrap(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_watch_that_is_refused_as_too_old_lists_again() {
    let (client, asked) = apiserver(|verb, number| match (verb, number) {
        ("list" | "look", _) => Answer::List(7),
        (_, 1) => Answer::Failure(410),
        _ => Answer::SilentWatch,
    });
    assert_eq!(follow(&client, Duration::from_mins(1)).await, 2);
    assert_eq!(verbs(&asked), ["list", "look", "watch", "look", "list", "look", "watch"]);
}

fn verbs(asked: &Asked) -> Vec<&'static str> {
    asked.lock().unwrap().iter().map(|(verb, _)| *verb).collect()
}

/// etcd of Kubernetes 1.36 takes a watch from a version that is yet to come, and sends nothing until it has come: after a
/// restore of an older backup every edit went unseen, for as long as the backup was old.
#[tokio::test(start_paused = true)]
async fn an_api_server_that_went_back_is_listed_again() {
    let (client, asked) = apiserver(|verb, number| match (verb, number) {
        ("list", 1) | ("look", 1) => Answer::List(7000),
        ("watch", 1) | ("look", 2) => Answer::Failure(503),
        ("watch", _) => Answer::SilentWatch,
        _ => Answer::List(5000),
    });
    let metrics = Metrics::new(&Live::default(), 1, &Leadership::always());
    let mut items = std::pin::pin!(watch::<OllamaServer>(&client, &[], Kind::OllamaServer, metrics));
    let mut told = Vec::new();
    let deadline = Instant::now() + Duration::from_mins(1);
    while let Ok(Some((_, news))) = tokio::time::timeout_at(deadline, items.next()).await {
        told.push(match news {
            Err(Trouble::Rewound) => "rewound",
            Ok(watcher::Event::InitDone) => "listed",
            _ => continue,
        });
    }
    assert_eq!(told, ["listed", "rewound", "listed"]);
    assert_eq!(verbs(&asked), ["list", "look", "watch", "look", "look", "list", "look", "watch"]);
}

#[tokio::test(start_paused = true)]
async fn tries_grow_rarer_and_never_stop() {
    let (client, asked) = apiserver(|_, _| Answer::Failure(503));
    follow(&client, Duration::from_mins(10)).await;
    let asked = asked.lock().unwrap();
    // 0.8 s and its doubles with up to as much again by chance, and then 10 s.
    assert!((55..=75).contains(&asked.len()), "{asked:?}");
    let last: Vec<u64> = asked.iter().rev().take(3).map(|(_, at)| *at).collect();
    assert!(last.windows(2).all(|pair| (9..=11).contains(&(pair[0] - pair[1]))), "{last:?}");
}

#[tokio::test(start_paused = true)]
async fn a_refused_list_is_news_and_tried_again() {
    let (client, _) = apiserver(|verb, number| match (verb, number) {
        ("list", 1) => Answer::Failure(403),
        ("list", 2) => Answer::Failure(503),
        ("list" | "look", _) => Answer::List(7),
        // What was listed stays as it is.
        (_, 1) => Answer::Failure(403),
        _ => Answer::SilentWatch,
    });
    let metrics = Metrics::new(&Live::default(), 1, &Leadership::always());
    let namespaces = ["lab".to_owned()];
    let watch = watch::<OllamaServer>(&client, &namespaces, Kind::OllamaServer, Arc::clone(&metrics));
    let mut items = std::pin::pin!(watch);
    let mut told = Vec::new();
    let deadline = Instant::now() + Duration::from_mins(1);
    while let Ok(Some((_, news))) = tokio::time::timeout_at(deadline, items.next()).await {
        match news {
            Err(Trouble::Refused) => told.push("refused"),
            Ok(watcher::Event::InitDone) => told.push("listed"),
            Ok(_) | Err(Trouble::Rewound) => {}
        }
    }
    assert_eq!(told, ["refused", "listed"]);
    let text = metrics.expose();
    for (reason, count) in [("forbidden", 2), ("unavailable", 1)] {
        let line = format!(
            "ollama_fleet_watch_errors_total{{kind=\"OllamaServer\",namespace=\"lab\",reason=\"{reason}\"}} {count}\n"
        );
        assert!(text.contains(&line), "no {line}in {text}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_list_that_is_never_answered_is_left_to_the_client() {
    // The deadline of heads is the client's; without one there is nothing that ends this.
    let (client, asked) = apiserver(|_, _| Answer::Nothing);
    follow(&client, Duration::from_mins(10)).await;
    assert_eq!(*asked.lock().unwrap(), [("list", 0)]);
}
