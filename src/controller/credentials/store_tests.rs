//! When a Secret is read and when its copy is used, with a clock that the tests turn.

use super::*;
use crate::{controller::server::live::Live, runtime::Leadership};
use serde_json::{Value, json};
use std::{
    future::pending,
    sync::atomic::{AtomicUsize, Ordering},
};
use tokio::time::{advance, sleep};

/// What the simulated API server does.
#[derive(Clone)]
enum Does {
    Answers(Value),
    Fails(ReadFailure),
    Hangs,
}

struct Scene {
    store: Arc<Store>,
    does: Arc<Mutex<Does>>,
    calls: Arc<AtomicUsize>,
}

fn secret(version: &str) -> Does {
    Does::Answers(json!({"metadata": {"name": "s", "uid": "u", "resourceVersion": version}}))
}

impl Scene {
    fn new(does: Does) -> Self {
        let does = Arc::new(Mutex::new(does));
        let calls = Arc::new(AtomicUsize::new(0));
        let (now_does, counter) = (Arc::clone(&does), Arc::clone(&calls));
        let fetch = move |key: Key| -> BoxFuture<'static, _> {
            counter.fetch_add(1, Ordering::Relaxed);
            let broken = Does::Fails(ReadFailure::Unavailable);
            let does = if key.1 == "broken" { broken } else { now_does.lock().unwrap().clone() };
            Box::pin(async move {
                sleep(Duration::from_millis(1)).await;
                match does {
                    Does::Answers(secret) => Ok(Material::of(serde_json::from_value(secret).unwrap())),
                    Does::Fails(failure) => Err(failure),
                    Does::Hangs => pending().await,
                }
            })
        };
        let metrics = Metrics::new(&Live::default(), 0, &Leadership::always());
        let store = Arc::new(Store::new(fetch, metrics));
        Self { store, does, calls }
    }

    fn now(&self, does: Does) {
        *self.does.lock().unwrap() = does;
    }

    fn calls(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    async fn read(&self, need: Need) -> Option<Known> {
        self.store.read(&key("s"), need).await
    }

    async fn word(&self, need: Need) -> Word {
        self.read(need).await.unwrap().word
    }
}

fn key(name: &str) -> Key {
    ("x".to_owned(), name.to_owned())
}

#[tokio::test(start_paused = true)]
async fn a_copy_is_used_for_a_minute() {
    let scene = Scene::new(secret("1"));
    let first = scene.read(Need::Usual).await.unwrap();
    assert!(first.fresh && first.word.is_ok());
    advance(Duration::from_secs(59)).await;
    assert!(!scene.read(Need::Usual).await.unwrap().fresh);
    assert_eq!(scene.calls(), 1);
    advance(Duration::from_secs(2)).await;
    let again = scene.read(Need::Usual).await.unwrap();
    assert!(again.fresh && Arc::ptr_eq(&again.word.unwrap(), &first.word.unwrap()), "nothing has changed");
    assert_eq!(scene.calls(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_special_reason_reads_at_once_but_not_often() {
    let scene = Scene::new(secret("1"));
    let old = scene.word(Need::Usual).await.unwrap();
    advance(Duration::from_millis(100)).await;
    scene.now(secret("2"));
    let new = scene.word(Need::Pressing).await.unwrap();
    assert!(!old.is_same(&new));
    scene.now(secret("3"));
    advance(Duration::from_secs(9)).await;
    assert!(scene.word(Need::Pressing).await.unwrap().is_same(&new));
    assert_eq!(scene.calls(), 2);
    advance(Duration::from_secs(1)).await;
    assert!(!scene.word(Need::Pressing).await.unwrap().is_same(&new));
    assert_eq!(scene.calls(), 3);
}

#[tokio::test(start_paused = true)]
async fn what_is_gone_is_believed_at_once() {
    let scene = Scene::new(secret("1"));
    scene.word(Need::Usual).await.unwrap();
    scene.now(Does::Fails(ReadFailure::Missing));
    assert_eq!(scene.word(Need::Pressing).await.unwrap_err(), Refusal::Missing);
    assert_eq!(scene.word(Need::Usual).await.unwrap_err(), Refusal::Missing);
    scene.now(secret("2"));
    advance(PRESSED_EVERY).await;
    assert!(scene.word(Need::Pressing).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_right_that_was_there_is_missed_only_when_it_is_so_twice() {
    let scene = Scene::new(secret("1"));
    scene.word(Need::Usual).await.unwrap();
    scene.now(Does::Fails(ReadFailure::Forbidden));
    advance(KEPT_FOR).await;
    assert!(scene.word(Need::Usual).await.is_ok());
    assert!(scene.word(Need::Usual).await.is_ok());
    assert_eq!(scene.calls(), 2);
    advance(PRESSED_EVERY).await;
    assert_eq!(scene.word(Need::Usual).await.unwrap_err(), Refusal::Forbidden);
    let never = Scene::new(Does::Fails(ReadFailure::Forbidden));
    assert_eq!(never.word(Need::Usual).await.unwrap_err(), Refusal::Forbidden);
}

#[tokio::test(start_paused = true)]
async fn without_the_api_server_the_last_copy_is_used() {
    for away in [Does::Hangs, Does::Fails(ReadFailure::Unavailable)] {
        let scene = Scene::new(secret("1"));
        let copy = scene.word(Need::Usual).await.unwrap();
        scene.now(away);
        advance(KEPT_FOR).await;
        let start = Instant::now();
        assert!(scene.word(Need::Usual).await.unwrap().is_same(&copy));
        assert!(start.elapsed() <= REFRESH_TIMEOUT + Duration::from_millis(10), "{:?}", start.elapsed());
        // Neither this Secret nor another is waited for again, for a while.
        let start = Instant::now();
        assert!(scene.word(Need::Usual).await.is_ok() && scene.word(Need::Pressing).await.is_ok());
        assert!(start.elapsed() < Duration::from_millis(10), "{:?}", start.elapsed());
        assert_eq!(scene.calls(), 2);
        advance(AWAY_FOR).await;
        scene.now(secret("2"));
        assert!(!scene.word(Need::Usual).await.unwrap().is_same(&copy));
    }
}

/// What cannot be decrypted, for example, is a failure of its own, however often it is asked for.
#[tokio::test(start_paused = true)]
async fn one_secret_that_cannot_be_read_does_not_make_others_stale() {
    let scene = Scene::new(secret("1"));
    let copy = scene.word(Need::Usual).await.unwrap();
    for _ in 0..20 {
        assert!(scene.store.read(&key("broken"), Need::Usual).await.is_none());
        advance(Duration::from_secs(5)).await;
    }
    scene.now(secret("2"));
    assert!(!scene.word(Need::Usual).await.unwrap().is_same(&copy));
}

#[tokio::test(start_paused = true)]
async fn what_was_never_read_is_unknown_without_the_api_server() {
    let scene = Scene::new(Does::Hangs);
    let start = Instant::now();
    assert!(scene.read(Need::Usual).await.is_none());
    assert_eq!(start.elapsed(), CALL_TIMEOUT);
    scene.now(secret("1"));
    assert!(scene.read(Need::Usual).await.unwrap().fresh);
}

#[tokio::test(start_paused = true)]
async fn readers_of_one_secret_share_a_call() {
    let scene = Scene::new(secret("1"));
    let readers = (0..100).map(|_| {
        let store = Arc::clone(&scene.store);
        tokio::spawn(async move { store.read(&key("s"), Need::Usual).await.unwrap().word.is_ok() })
    });
    for reader in readers.collect::<Vec<_>>() {
        assert!(reader.await.unwrap());
    }
    assert_eq!(scene.calls(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_gives_up_leaves_the_others_a_call() {
    let scene = Scene::new(Does::Hangs);
    let store = Arc::clone(&scene.store);
    let gone = tokio::spawn(async move { store.read(&key("s"), Need::Usual).await.is_some() });
    advance(Duration::from_millis(10)).await;
    gone.abort();
    scene.now(secret("1"));
    assert!(scene.read(Need::Usual).await.is_some());
}

#[tokio::test(start_paused = true)]
async fn namespaces_are_apart() {
    let scene = Scene::new(secret("1"));
    scene.read(Need::Usual).await.unwrap();
    scene.now(Does::Fails(ReadFailure::Missing));
    let elsewhere = ("y".to_owned(), "s".to_owned());
    assert_eq!(scene.store.read(&elsewhere, Need::Usual).await.unwrap().word.unwrap_err(), Refusal::Missing);
}

#[tokio::test(start_paused = true)]
async fn copies_are_bounded_by_what_they_take() {
    let certificate = rcgen::generate_simple_self_signed(["gpu1.lab".to_owned()]).unwrap().cert.pem();
    let bundle = certificate.repeat(200 * 1024 / certificate.len());
    let data = |ca: String| json!({"ca.crt": k8s_openapi::ByteString(ca.into_bytes())});
    let scene = Scene::new(Does::Answers(json!({"metadata": {"name": "s"}, "data": data(bundle)})));
    for number in 0..200 {
        scene.store.read(&key(&format!("s{number}")), Need::Usual).await.unwrap();
    }
    let (kept, bytes) = scene.store.places().size();
    assert!(bytes <= BYTES_MAX);
    assert!((100..=170).contains(&kept), "{kept}");
    // Nothing is kept of what cannot be used, so it drives out nothing but for the room of its slots.
    scene.now(Does::Answers(json!({"metadata": {"name": "s"}, "data": data("a".repeat(200 * 1024))})));
    for number in 0..200 {
        scene.store.read(&("y".to_owned(), format!("s{number}")), Need::Usual).await.unwrap();
    }
    assert!(scene.store.places().size().0 >= kept + 190);
}

/// Many large Secrets of one namespace do not take from another the copy with which its polls go on.
#[tokio::test(start_paused = true)]
async fn a_namespace_full_of_secrets_takes_no_copy_from_another() {
    let certificate = rcgen::generate_simple_self_signed(["gpu1.lab".to_owned()]).unwrap().cert.pem();
    let bundle = certificate.repeat(250 * 1024 / certificate.len());
    let data = json!({"ca.crt": k8s_openapi::ByteString(bundle.into_bytes())});
    let scene = Scene::new(secret("1"));
    let copy = scene.word(Need::Usual).await.unwrap();
    scene.now(Does::Answers(json!({"metadata": {"name": "s"}, "data": data})));
    for number in 0..140 {
        scene.store.read(&("greedy".to_owned(), format!("s{number}")), Need::Usual).await.unwrap();
    }
    scene.now(Does::Fails(ReadFailure::Unavailable));
    let known = scene.read(Need::Usual).await.expect("the last copy, while the API server is away");
    assert!(known.word.unwrap().is_same(&copy));
}
