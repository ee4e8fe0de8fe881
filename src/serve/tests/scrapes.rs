//! Scrapes of a fleet whose text is large, by readers who are slow.

use super::{args, client, get_until, shown, start_with};
use crate::{args::ApiAuth, runtime::Readiness, serve::Metrics};
use reqwest::StatusCode;
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, mpsc},
    time::Duration,
};
use tokio::{io::AsyncWriteExt, net::TcpStream, sync::watch};

/// Sends a request and leaves the answer unread.
async fn ask_without_reading(at: SocketAddr) -> TcpStream {
    let mut stream = TcpStream::connect(at).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    stream
}

#[tokio::test]
async fn only_so_many_scrapes_at_once_and_a_reader_who_leaves_makes_room() {
    let large: Metrics = Arc::new(|| "x".repeat(32 << 20));
    let running = start_with(&args("127.0.0.1:0", ApiAuth::None), large, shown(&Readiness::new()));
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(ask_without_reading(running.at.main).await);
    }
    let response = get_until(&running.url("/metrics"), StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(response.headers()["retry-after"], "1");

    slow.pop();
    let response = get_until(&running.url("/metrics"), StatusCode::OK).await;
    assert_eq!(response.bytes().await.unwrap().len(), 32 << 20);
}

/// Here with one thread for all: while the metrics of a large fleet are written, others are served.
#[tokio::test]
async fn a_scrape_that_takes_long_holds_up_nobody() {
    let (release, released) = mpsc::channel::<()>();
    let (begun, mut begins) = watch::channel(false);
    let released = Mutex::new(released);
    let slow: Metrics = Arc::new(move || {
        begun.send_replace(true);
        // The sender is dropped as soon as others were served.
        let waited = released.lock().unwrap().recv_timeout(Duration::from_secs(20));
        format!("{waited:?}")
    });
    let running = start_with(&args("127.0.0.1:0", ApiAuth::None), slow, shown(&Readiness::new()));
    let scrape = tokio::spawn(client().get(running.url("/metrics")).send());
    begins.wait_for(|begun| *begun).await.unwrap();
    assert_eq!(client().get(running.health("/livez")).send().await.unwrap().status(), StatusCode::OK);
    drop(release);
    assert_eq!(scrape.await.unwrap().unwrap().text().await.unwrap(), "Err(Disconnected)");
}
