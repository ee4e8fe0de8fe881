//! The listeners as a client sees them, in this process, with a mocked apiserver.

mod crowds;
mod fleet;
mod scrapes;

use super::{
    LocalAddrs, Metrics, ServeError, Serving, Shown,
    auth::{TOKEN_HEADER, TOKEN_MAX},
};
use crate::{
    args::{ApiAuth, ServeArgs},
    controller::{plugin::installed::Installed, server::live::Live},
    runtime::{Readiness, Watchdog},
};
use axum::http::{Request, Response};
use kube::client::Body;
use reqwest::{Client, Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};
use tokio_util::sync::{CancellationToken, DropGuard};

const TEXT: &str = "# TYPE ollama_fleet_up gauge\nollama_fleet_up 1\n# EOF\n";

/// Every request that reached the mocked apiserver: path and body.
type Asked = Arc<Mutex<Vec<(String, Value)>>>;

/// An apiserver that knows three tokens: `reader` may, `stranger` may not, `operator-only` may and is good for the
/// operator's audience alone. `leaver` holds one until it was asked for. `broken` answers 500, `forbidden` 403, `hang`
/// never.
fn apiserver(asked: &Asked) -> kube::Client {
    let asked = Arc::clone(asked);
    let service = tower::service_fn(move |request: Request<Body>| {
        let asked = Arc::clone(&asked);
        async move {
            let path = request.uri().path().to_owned();
            let body: Value = serde_json::from_slice(&request.into_body().collect_bytes().await?)?;
            let again = asked.lock().unwrap().iter().any(|(_, earlier)| *earlier == body);
            let (status, answer) = answer(&path, &body, again).await;
            asked.lock().unwrap().push((path, body));
            let answer =
                Response::builder().status(status).body(Body::from(answer.to_string().into_bytes()))?;
            Ok::<_, tower::BoxError>(answer)
        }
    });
    kube::Client::new(service, "fleet")
}

async fn answer(path: &str, body: &Value, again: bool) -> (u16, Value) {
    let mut answer = body.clone();
    if path.ends_with("/subjectaccessreviews") {
        if body["spec"]["resourceAttributes"].is_object() {
            return fleet::access(body);
        }
        let allowed = body["spec"]["user"] == "system:serviceaccount:monitoring:reader"
            && body["spec"]["groups"] == json!(["scrapers"])
            && body["spec"]["nonResourceAttributes"] == json!({"path": "/metrics", "verb": "get"});
        answer["status"] = json!({"allowed": allowed});
        return (201, answer);
    }
    assert_eq!(path, "/apis/authentication.k8s.io/v1/tokenreviews");
    let audiences = &body["spec"]["audiences"];
    let token = body["spec"]["token"].as_str().unwrap();
    let user = |name: &str| json!({"username": format!("system:serviceaccount:monitoring:{name}"), "groups": ["scrapers"]});
    answer["status"] = match token {
        "broken" => return (500, json!({"kind": "Status", "code": 500, "reason": "InternalError"})),
        "forbidden" => return (403, json!({"kind": "Status", "code": 403, "reason": "Forbidden"})),
        "garbled" => return (201, json!({"status": token})),
        "hang" => std::future::pending().await,
        "leaver" if audiences.is_null() && !again => json!({"authenticated": true, "user": user("reader")}),
        "reader" if audiences.is_null() => json!({"authenticated": true, "user": user("reader")}),
        "operator-only" if audiences == &json!(["ollama-fleet-operator"]) => {
            json!({"authenticated": true, "audiences": ["ollama-fleet-operator"], "user": user("reader")})
        }
        "other-audience" if !audiences.is_null() => {
            json!({"authenticated": true, "audiences": ["vault"], "user": user("reader")})
        }
        name @ ("stranger" | "admin" | "tenant" | "pedant") => {
            json!({"authenticated": true, "user": user(name)})
        }
        _ => json!({"authenticated": false, "error": "token lookup failed"}),
    };
    (201, answer)
}

struct Running {
    at: LocalAddrs,
    asked: Asked,
    readiness: Readiness,
    _stop: DropGuard,
}

fn args(listen: &str, api_auth: ApiAuth) -> ServeArgs {
    ServeArgs {
        health_listen: "127.0.0.1:0".parse().unwrap(),
        listen: listen.parse().unwrap(),
        tls_cert_file: None,
        tls_key_file: None,
        allowed_hosts: Vec::new(),
        api_auth,
    }
}

fn bind(args: &ServeArgs, asked: &Asked, readiness: &Readiness) -> Result<Serving, ServeError> {
    bind_with(args, asked, Arc::new(|| TEXT.to_owned()), shown(readiness))
}

fn bind_with(args: &ServeArgs, asked: &Asked, metrics: Metrics, shown: Shown) -> Result<Serving, ServeError> {
    let readiness = shown.readiness.clone();
    Serving::bind(args, apiserver(asked), readiness, Watchdog::start(), metrics, shown)
}

/// A fleet without a server, and plugins that are not listed yet.
fn shown(readiness: &Readiness) -> Shown {
    let readiness = readiness.clone();
    Shown { live: Live::default(), installed: Installed::default(), readiness, namespaces: [].into() }
}

fn start(args: &ServeArgs) -> Running {
    start_with(args, Arc::new(|| TEXT.to_owned()), shown(&Readiness::new()))
}

fn start_with(args: &ServeArgs, metrics: Metrics, shown: Shown) -> Running {
    let (asked, readiness) = (Asked::default(), shown.readiness.clone());
    let serving = bind_with(args, &asked, metrics, shown).unwrap();
    let at = serving.local_addrs();
    let shutdown = CancellationToken::new();
    tokio::spawn(serving.run(shutdown.clone()));
    Running { at, asked, readiness, _stop: shutdown.drop_guard() }
}

/// A client that takes any certificate.
fn client() -> Client {
    let _ = rustls::crypto::ring::default_provider().install_default();
    Client::builder().no_proxy().danger_accept_invalid_certs(true).build().unwrap()
}

impl Running {
    fn url(&self, path: &str) -> String {
        let scheme = if self.at.tls { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}{path}", self.at.main.port())
    }

    fn health(&self, path: &str) -> String {
        format!("http://{}{path}", self.at.health)
    }

    async fn scrape(&self, token: &str) -> reqwest::Response {
        client().get(self.url("/metrics")).bearer_auth(token).send().await.unwrap()
    }
}

#[tokio::test]
async fn probes_say_alive_and_what_is_waited_for() {
    let running = start(&args("127.0.0.1:0", ApiAuth::None));
    let gate = running.readiness.gate("crds");
    let get = async |path| client().get(running.health(path)).send().await.unwrap();

    let live = get("/livez").await;
    assert_eq!((live.status(), live.text().await.unwrap().as_str()), (StatusCode::OK, "ok"));

    let ready = get("/readyz").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let expected = json!({"ready": false, "waitingFor": [{"name": "crds", "detail": "not started"}]});
    assert_eq!(serde_json::from_str::<Value>(&ready.text().await.unwrap()).unwrap(), expected);

    gate.open();
    let ready = get("/readyz").await;
    assert_eq!(ready.status(), StatusCode::OK);
    assert_eq!(ready.text().await.unwrap(), r#"{"ready":true,"waitingFor":[]}"#);

    for path in ["/metrics", "/", "/livez/"] {
        assert_eq!(get(path).await.status(), StatusCode::NOT_FOUND, "{path}");
    }
}

#[tokio::test]
async fn metrics_come_over_tls_with_a_good_token() {
    let running = start(&args("0.0.0.0:0", ApiAuth::Kubernetes));
    assert!(running.at.tls);
    for token in ["reader", "operator-only"] {
        let response = running.scrape(token).await;
        assert_eq!(response.status(), StatusCode::OK, "{token}");
        let headers = response.headers();
        assert_eq!(headers["content-type"], "application/openmetrics-text; version=1.0.0; charset=utf-8");
        assert_eq!(headers["x-content-type-options"], "nosniff");
        assert_eq!(headers["content-length"], TEXT.len().to_string().as_str());
        assert_eq!(response.text().await.unwrap(), TEXT);
    }
}

#[rstest]
#[case::no_right("stranger", 403, "system:serviceaccount:monitoring:stranger")]
#[case::unknown("nobody", 401, "does not accept this token")]
#[case::for_somebody_else("other-audience", 401, "does not accept this token")]
#[case::too_long(&"x".repeat(TOKEN_MAX + 1), 401, "that long")]
#[case::apiserver_fails("broken", 503, "cannot be asked")]
#[case::operator_has_no_right("forbidden", 503, "cannot be asked")]
#[case::unreadable_answer("garbled", 503, "cannot be asked")]
#[tokio::test]
async fn refusals(#[case] token: &str, #[case] status: u16, #[case] detail: &str) {
    let running = start(&args("127.0.0.1:0", ApiAuth::Kubernetes));
    let response = running.scrape(token).await;
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    let challenged = response.headers().get("www-authenticate").is_some_and(|value| value == "Bearer");
    assert_eq!(challenged, status == 401);
    assert_eq!(response.headers().contains_key("retry-after"), status == 503);
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(problem["status"], status);
    assert!(problem["detail"].as_str().unwrap().contains(detail), "{problem}");
}

#[tokio::test]
async fn an_apiserver_that_hangs_is_given_up() {
    let running = start(&args("127.0.0.1:0", ApiAuth::Kubernetes));
    let response = tokio::time::timeout(Duration::from_secs(9), running.scrape("hang")).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test]
async fn tokens_come_in_either_header() {
    let running = start(&args("127.0.0.1:0", ApiAuth::Kubernetes));
    for (name, value, status) in [
        (TOKEN_HEADER, "reader", 200),
        ("authorization", "bearer reader", 200),
        ("authorization", "Basic reader", 401),
        ("authorization", "Bearer ", 401),
        ("cookie", "token=reader", 401),
    ] {
        let response = client().get(running.url("/metrics")).header(name, value).send().await.unwrap();
        assert_eq!(response.status().as_u16(), status, "{name}: {value}");
    }
    let both =
        client().get(running.url("/metrics")).basic_auth("a", Some("b")).header(TOKEN_HEADER, "reader");
    assert_eq!(both.send().await.unwrap().status(), StatusCode::OK);
    assert_eq!(
        client().get(running.url("/metrics")).send().await.unwrap().status(),
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn the_apiserver_is_asked_once_and_failures_are_forgotten() {
    let running = start(&args("127.0.0.1:0", ApiAuth::Kubernetes));
    let asked = || running.asked.lock().unwrap().len();
    for _ in 0..3 {
        running.scrape("reader").await;
    }
    // Two audiences, one right.
    assert_eq!(asked(), 3);
    for _ in 0..3 {
        running.scrape("nobody").await;
    }
    assert_eq!(asked(), 3 + 2);
    running.scrape("broken").await;
    running.scrape("broken").await;
    assert_eq!(asked(), 3 + 2 + 2);
}

#[rstest]
#[case::unknown_path(Method::GET, "/nothing", 404)]
#[case::unknown_root(Method::GET, "/", 404)]
#[case::method(Method::POST, "/metrics", 405)]
#[case::method(Method::DELETE, "/metrics", 405)]
#[case::unknown_below_the_api(Method::GET, "/api/nothing", 404)]
#[case::trailing_slash(Method::GET, "/api/plugins/", 404)]
#[case::method(Method::POST, "/api/plugins", 405)]
#[case::method(Method::PUT, "/api/servers", 405)]
#[case::method(Method::DELETE, "/api/namespaces/a/plugins/p", 405)]
#[tokio::test]
async fn what_is_not_served(#[case] method: Method, #[case] path: &str, #[case] status: u16) {
    let running = start(&args("127.0.0.1:0", ApiAuth::None));
    let response = client().request(method, running.url(path)).send().await.unwrap();
    assert_eq!(response.status().as_u16(), status);
    assert_eq!(response.headers().contains_key("allow"), status == 405);
    let problem: Value = serde_json::from_str(&response.text().await.unwrap()).unwrap();
    assert_eq!(problem["status"], status);
}

#[rstest]
#[case::host("host", "evil.example", 403)]
#[case::origin("origin", "https://evil.example", 403)]
#[case::body("content-length", "65537", 413)]
#[tokio::test]
async fn what_is_refused_before_anything_else(#[case] name: &str, #[case] value: &str, #[case] status: u16) {
    let running = start(&args("127.0.0.1:0", ApiAuth::Kubernetes));
    let mut stream = TcpStream::connect(running.at.main).await.unwrap();
    let host = if name == "host" { "" } else { "Host: localhost\r\n" };
    let request = format!("GET /metrics HTTP/1.1\r\n{host}{name}: {value}\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut start = [0; 12];
    stream.read_exact(&mut start).await.unwrap();
    assert_eq!(String::from_utf8_lossy(&start), format!("HTTP/1.1 {status}"));
    assert!(running.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn plain_http_is_for_loopback_only() {
    assert!(!start(&args("127.0.0.1:0", ApiAuth::Kubernetes)).at.tls);
    assert!(!start(&args("127.0.0.1:0", ApiAuth::None)).at.tls);
    let everywhere = start(&args("0.0.0.0:0", ApiAuth::Kubernetes));
    assert!(everywhere.at.tls);
    let plain = client().get(format!("http://127.0.0.1:{}/metrics", everywhere.at.main.port())).send().await;
    assert!(plain.is_err());
}

#[rstest]
#[case("0.0.0.0:0")]
#[case("[::]:0")]
#[case("192.0.2.1:0")]
#[tokio::test]
async fn no_login_is_for_loopback_only(#[case] listen: &str) {
    let error = bind(&args(listen, ApiAuth::None), &Asked::default(), &Readiness::new()).err().unwrap();
    let text = error.to_string();
    assert!(text.contains("--api-auth=none") && text.contains("--listen") && text.contains(listen), "{text}");
}

#[tokio::test]
async fn without_login_nobody_is_asked() {
    let running = start(&args("127.0.0.1:0", ApiAuth::None));
    let response = client().get(running.url("/metrics")).send().await.unwrap();
    assert_eq!(response.text().await.unwrap(), TEXT);
    assert!(running.asked.lock().unwrap().is_empty());
}

#[tokio::test]
async fn a_taken_port_is_named() {
    let running = start(&args("127.0.0.1:0", ApiAuth::None));
    let taken: SocketAddr = running.at.main;
    let error = bind(&args(&taken.to_string(), ApiAuth::None), &Asked::default(), &Readiness::new());
    let text = error.err().unwrap().to_string();
    assert!(text.starts_with(&format!("--listen: cannot listen on {taken}: ")), "{text}");
}

#[tokio::test]
async fn shutdown_ends_both_listeners_although_a_client_idles() {
    let (asked, readiness) = (Asked::default(), Readiness::new());
    let serving = bind(&args("127.0.0.1:0", ApiAuth::None), &asked, &readiness).unwrap();
    let at = serving.local_addrs();
    let shutdown = CancellationToken::new();
    let running = tokio::spawn(serving.run(shutdown.clone()));
    let _idle = TcpStream::connect(at.main).await.unwrap();
    client().get(format!("http://{}/livez", at.health)).send().await.unwrap();
    shutdown.cancel();
    tokio::time::timeout(Duration::from_secs(4), running).await.unwrap().unwrap();
    assert!(TcpStream::connect(at.main).await.is_err());
    assert!(TcpStream::connect(at.health).await.is_err());
}

/// Asks until the answer has that status, for at most 30 s; the last answer must have it.
async fn get_until(url: &str, status: StatusCode) -> reqwest::Response {
    let deadline = tokio::time::Instant::now() + Duration::from_secs(30);
    loop {
        let response = client().get(url).send().await.unwrap();
        if response.status() == status || tokio::time::Instant::now() > deadline {
            assert_eq!(response.status(), status);
            return response;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}
