//! The client of the controllers: no call without a deadline, no hidden retries, and an ear for an API server that asks
//! for a pause.

use axum::http::{HeaderMap, Response, StatusCode, header::RETRY_AFTER};
use kube::{Client, Config, client::ClientBuilder};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;
use tower::{timeout::TimeoutLayer, util::MapResponseLayer};

/// A connection on which nothing has come for so long is dead. Watches end by themselves before that; a list whose body
/// stalls would hold up a controller for ever.
const SILENCE_MOST: Duration = Duration::from_secs(super::streams::WATCH_SECONDS as u64 + 20);
/// The head of an answer comes within this time or not at all: the API server gives up a request after 60 s. Without it
/// a list or a watch that is asked for through a black hole is waited for until the process ends.
const HEAD_MOST: Duration = Duration::from_secs(65);
/// The longest pause that anybody may ask for: what says more is broken, and status would grow stale.
const PAUSE_MOST: Duration = Duration::from_secs(30);

/// Until when the API server wants to be left alone. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Hold {
    until: Arc<Mutex<Option<Instant>>>,
}

impl Hold {
    /// The end of the pause that was asked for, if there is one and it is not over.
    pub fn until(&self) -> Option<Instant> {
        let until = *self.until.lock().unwrap_or_else(PoisonError::into_inner);
        until.filter(|until| *until > Instant::now())
    }

    fn note(&self, status: StatusCode, headers: &HeaderMap) {
        if !matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE) {
            return;
        }
        // The API server says seconds; a date, which proxies may say, is left to the pauses of the callers.
        let seconds = headers.get(RETRY_AFTER).and_then(|value| value.to_str().ok()?.trim().parse().ok());
        let Some(pause) = seconds.map(Duration::from_secs) else { return };
        let until = Instant::now() + pause.min(PAUSE_MOST);
        let mut held = self.until.lock().unwrap_or_else(PoisonError::into_inner);
        *held = Some(held.map_or(until, |held| held.max(until)));
    }
}

/// A client that keeps all of this, and the pauses that it is asked for.
pub fn build(mut config: Config) -> kube::Result<(Client, Hold)> {
    // The client's own retries can hold a call for minutes; every caller here has a deadline and its own pace.
    config.default_retry = false;
    config.read_timeout = Some(SILENCE_MOST);
    // Else the time that a connection lay idle would count.
    config.reset_reader_on_write = true;
    let hold = Hold::default();
    let noted = hold.clone();
    let listen = move |response: Response<_>| {
        noted.note(response.status(), response.headers());
        response
    };
    let client = ClientBuilder::try_from(config)?
        .with_layer(&MapResponseLayer::new(listen))
        .with_layer(&TimeoutLayer::new(HEAD_MOST))
        .build();
    Ok((client, hold))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::asked(429, "7", Some(7))]
    #[case::away(503, "1", Some(1))]
    #[case::absurd(429, "31536000", Some(30))]
    #[case::zero(429, "0", None)]
    #[case::a_date(429, "Wed, 21 Oct 2026 07:28:00 GMT", None)]
    #[case::nonsense(429, "-1", None)]
    #[case::another_failure(500, "7", None)]
    #[case::well(200, "7", None)]
    #[tokio::test(start_paused = true)]
    async fn a_pause_is_kept_within_bounds(
        #[case] code: u16,
        #[case] value: &str,
        #[case] pause: Option<u64>,
    ) {
        let hold = Hold::default();
        let headers = HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]);
        hold.note(StatusCode::from_u16(code).unwrap(), &headers);
        let now = Instant::now();
        assert_eq!(hold.until().map(|until| (until - now).as_secs()), pause);
        tokio::time::advance(Duration::from_secs(31)).await;
        assert_eq!(hold.until(), None, "it passes");
    }

    #[tokio::test(start_paused = true)]
    async fn a_shorter_pause_does_not_end_a_longer_one() {
        let hold = Hold::default();
        for value in ["9", "2"] {
            hold.note(
                StatusCode::TOO_MANY_REQUESTS,
                &HeaderMap::from_iter([(RETRY_AFTER, value.parse().unwrap())]),
            );
        }
        assert_eq!(hold.until(), Some(Instant::now() + Duration::from_secs(9)));
    }

    /// An API server that takes the connection and says this, and then nothing; what becomes of a list, and when.
    async fn listed_from(says: &'static [u8]) -> Duration {
        let _ = rustls::crypto::ring::default_provider().install_default();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let (client, _) = build(Config::new(url.parse().unwrap())).unwrap();
        let silent = std::thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            std::io::Write::write_all(&mut stream, says).unwrap();
            stream
        });
        let namespaces: kube::Api<k8s_openapi::api::core::v1::Namespace> = kube::Api::all(client);
        let begin = Instant::now();
        assert!(namespaces.list(&kube::api::ListParams::default()).await.is_err());
        drop(silent.join());
        begin.elapsed()
    }

    #[tokio::test(start_paused = true)]
    async fn no_call_waits_for_ever() {
        assert!(listed_from(b"").await <= HEAD_MOST);
        let stalls = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{";
        assert!(listed_from(stalls).await <= SILENCE_MOST);
    }
}
