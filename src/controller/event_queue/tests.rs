//! Which Event goes next, which there is no room for, and what a failure holds up.

use super::*;
use crate::controller::server::live::Live;
use axum::http::{Request, Response, StatusCode};
use kube::client::Body;
use waiting::{OF_A_NAMESPACE_MAX, REFILL};

fn queued(uid: &str, urgent: bool) -> Queued {
    queued_in("n", uid, urgent)
}

fn queued_in(namespace: &str, uid: &str, urgent: bool) -> Queued {
    let regarding = ObjectReference {
        namespace: Some(namespace.into()),
        uid: Some(uid.into()),
        ..ObjectReference::default()
    };
    let text =
        EventText { reason: "ModelLoaded".into(), warning: false, note: String::new(), field_path: None };
    Queued::new(regarding, text, urgent)
}

#[tokio::test(start_paused = true)]
async fn an_object_has_a_burst_and_then_a_pace() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    for _ in 0..30 {
        assert!(waiting.accept(queued("a", false), now));
    }
    assert!(waiting.accept(queued("b", false), now), "another object is not held up");
    let mut at_once = 0;
    while waiting.next(now).is_some() {
        at_once += 1;
    }
    assert_eq!(at_once, 26);
    assert!(waiting.next(now + REFILL).is_some());
    assert!(waiting.next(now + REFILL).is_none());
    assert_eq!(waiting.depth(), 4, "the rest waits and is not dropped");
}

#[tokio::test(start_paused = true)]
async fn a_loud_object_does_not_fill_the_queue() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    let accepted = (0..OF_A_NAMESPACE_MAX).filter(|_| waiting.accept(queued("loud", false), now)).count();
    assert_eq!(accepted, 125, "the burst, and what may wait");
    assert!(waiting.accept(queued("quiet", true), now));
    assert!(waiting.accept(queued("loud", false), now + REFILL), "it is heard again as its turn comes");
}

#[tokio::test(start_paused = true)]
async fn what_was_forbidden_is_tried_again_for_half_a_minute() {
    let (mut waiting, start) = (Waiting::default(), Instant::now());
    assert!(waiting.accept(queued("a", true), start));
    let (mut now, mut tries) = (start, 1);
    loop {
        let again = waiting.next(now).unwrap();
        if waiting.forbidden(again, now).is_some() {
            break;
        }
        assert!(waiting.accept(queued("b", false), now), "another one goes at once");
        assert_eq!(waiting.next(now).unwrap().regarding.uid.as_deref(), Some("b"));
        assert!(waiting.is_idle(now));
        now = waiting.next_held().unwrap();
        tries += 1;
    }
    assert_eq!((tries, now - start), (5, Duration::from_secs(30)));
    assert_eq!(waiting.depth(), 0);
}

#[tokio::test(start_paused = true)]
async fn urgent_events_go_first_and_overflow_is_refused() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    for i in 0..OF_A_NAMESPACE_MAX {
        assert!(waiting.accept(queued(&i.to_string(), false), now));
    }
    assert!(!waiting.accept(queued("one too many", false), now));
    for i in 0..OF_A_NAMESPACE_MAX {
        assert!(waiting.accept(queued(&i.to_string(), true), now), "news has not taken the room of a death");
    }
    assert!(!waiting.accept(queued("one too many", true), now));
    assert!(waiting.next(now).unwrap().urgent);
    assert!(waiting.accept(queued("room again", true), now));
}

/// Whatever one namespace has to tell, and another after it: there is room for a third's, and its turn is soon.
#[tokio::test(start_paused = true)]
async fn a_loud_namespace_does_not_fill_the_queue() {
    let (mut waiting, now) = (Waiting::default(), Instant::now());
    for namespace in ["loud", "louder"] {
        // 400 objects, each with its burst and all that may be held of it.
        for object in 0..400 {
            for _ in 0..125 {
                waiting.accept(queued_in(namespace, &format!("{namespace}{object}"), false), now);
            }
        }
    }
    for object in 0..100 {
        assert!(waiting.accept(queued_in("quiet", &format!("q{object}"), false), now), "{object}");
    }
    let first: Vec<_> = (0..6).map(|_| waiting.next(now).unwrap().namespace().to_owned()).collect();
    assert_eq!(first.iter().filter(|namespace| *namespace == "quiet").count(), 2);
    while waiting.next(now + Duration::from_hours(1)).is_some() {}
    assert_eq!(waiting.depth(), 0);
}

/// Something in front of the API server fails all Events of one namespace, for ever: those of others are sent as if
/// nothing was, and its own are tried ever more rarely.
#[tokio::test]
async fn a_namespace_whose_events_fail_holds_up_no_other() {
    let book = Arc::new(Mutex::new((0, 0)));
    let (counts, told) = (Arc::clone(&book), Arc::new(Notify::new()));
    let all_told = Arc::clone(&told);
    let service = tower::service_fn(move |request: Request<Body>| {
        let fails = request.uri().path().contains("/namespaces/bad/");
        let mut counts = counts.lock().unwrap();
        if fails {
            counts.0 += 1;
        } else {
            counts.1 += 1;
        }
        if counts.1 == 20 {
            all_told.notify_one();
        }
        let (code, body) = if fails {
            let message = "failed calling webhook";
            (500, json!({"kind": "Status", "status": "Failure", "code": 500, "message": message}))
        } else {
            (
                201,
                json!({"apiVersion": "events.k8s.io/v1", "kind": "Event", "metadata": {}, "eventTime": null}),
            )
        };
        async move {
            let code = StatusCode::from_u16(code).unwrap();
            Response::builder().status(code).body(Body::from(body.to_string().into_bytes()))
        }
    });
    let leadership = Leadership::always();
    let metrics = Metrics::new(&Live::default(), 1, &leadership);
    let queue = EventQueue::new(Client::new(service, "d"), Hold::default(), leadership, metrics);
    for object in 0..20 {
        for namespace in ["bad", "good"] {
            let Queued { regarding, text, urgent, .. } =
                queued_in(namespace, &format!("{namespace}{object}"), true);
            queue.submit(regarding, text, urgent);
        }
    }
    let running = tokio::spawn(queue.clone().run(CancellationToken::new()));
    // Within a second; with a pause for each failure it would be twenty and more.
    timeout(Duration::from_secs(10), told.notified()).await.expect("the others are told");
    let tries = book.lock().unwrap().0;
    assert!(tries <= 40, "{tries} tries");
    assert_eq!(queue.depth(), 20, "and nothing of its own is lost");
    running.abort();
}
