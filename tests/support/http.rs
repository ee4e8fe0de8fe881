//! Plain requests to what the tests have started.

use reqwest::{Client, Method, StatusCode};
use std::{sync::Once, time::Duration};

/// rustls has no provider of its own; the first caller installs the one that the operator uses too.
pub fn install_provider() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let _ = rustls::crypto::ring::default_provider().install_default();
    });
}

/// Status and body; an error if there was no answer.
pub async fn request(
    method: Method,
    url: &str,
    body: Option<String>,
) -> Result<(StatusCode, String), String> {
    send(plain().request(method, url).body(body.unwrap_or_default())).await
}

pub async fn get(url: &str) -> Result<(StatusCode, String), String> {
    request(Method::GET, url, None).await
}

/// Like [`get`], with a bearer token if there is one, and with whatever certificate the server shows.
pub async fn get_with_token(url: &str, token: Option<&str>) -> Result<(StatusCode, String), String> {
    let client = builder().danger_accept_invalid_certs(true).build().unwrap();
    let request = client.get(url);
    send(match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    })
    .await
}

/// Like [`get_with_token`], with headers of the caller's choice; `host` replaces the one that the URL makes.
pub async fn get_with_headers(url: &str, headers: &[(&str, &str)]) -> Result<(StatusCode, String), String> {
    let client = builder().danger_accept_invalid_certs(true).build().unwrap();
    let request = client.get(url);
    send(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

async fn send(request: reqwest::RequestBuilder) -> Result<(StatusCode, String), String> {
    let answer = request.send().await.map_err(|error| format!("{error:?}"))?;
    let status = answer.status();
    answer.text().await.map(|body| (status, body)).map_err(|error| format!("{error:?}"))
}

/// A client of its own each time: a pooled connection belongs to the runtime of one test.
fn plain() -> Client {
    builder().build().unwrap()
}

fn builder() -> reqwest::ClientBuilder {
    install_provider();
    Client::builder().no_proxy().timeout(Duration::from_secs(10)).pool_max_idle_per_host(0)
}
