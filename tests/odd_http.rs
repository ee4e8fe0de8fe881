//! Hosts that speak HTTP or TLS in ways of their own: what can be understood is, the rest becomes a reason in time.

use crate::support::{
    ControlPlane, Namespace, Operator, PATIENCE, apply, eventually, get, holds_for, metric_value,
    objects::{has_condition, server_with},
    server, status_of,
};
use axum::{Router, routing};
use axum_server::tls_rustls::RustlsConfig;
use ollama_fleet_operator::api::OllamaServer;
use serde_json::json;
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// Three polls a second apart, the deadline and a second, three times over for a busy machine.
const VERDICT: Duration = Duration::from_millis(3 * 4800);
/// An answer of Ollama's API whatever was asked: a version beside a list of models.
const VERSION: &str = r#"{"version":"0.24.0","models":[]}"#;

/// What a server sends to whoever has asked for something.
enum Answer {
    /// These bytes, and then the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, and then these others without end.
    Endless(&'static [u8], &'static [u8]),
}

fn text(head: &str, body: &str) -> Answer {
    Answer::Bytes(format!("{head}\r\n\r\n{body}").into_bytes())
}

/// Framing as no server should do it: what is an answer counts as one, the rest is told by its class, within the
/// deadline, without eating memory.
#[tokio::test]
async fn odd_framing_is_understood_or_told_in_time() {
    let ok = "HTTP/1.1 200 OK";
    let length = format!("{ok}\r\nContent-Length: {}", VERSION.len());
    let rows: Vec<(&str, Answer, &str)> = vec![
        ("an old server without a length", text("HTTP/1.0 200 OK", VERSION), "Online"),
        ("a body until the end", text(ok, VERSION), "Online"),
        (
            "a second answer behind the first",
            text(&length, &format!("{VERSION}{length}\r\n\r\n{VERSION}")),
            "Online",
        ),
        ("100 Continue first", text(&format!("HTTP/1.1 100 Continue\r\n\r\n{length}"), VERSION), "Online"),
        ("a byte order mark", text(ok, &format!("\u{feff}{VERSION}")), "InvalidResponse"),
        ("two lengths", text(&format!("{length}\r\nContent-Length: 7"), VERSION), "InvalidResponse"),
        ("a negative length", text(&format!("{ok}\r\nContent-Length: -1"), VERSION), "InvalidResponse"),
        (
            "a length of 16 EiB",
            text(&format!("{ok}\r\nContent-Length: 18446744073709551615"), VERSION),
            "ResponseTooLarge",
        ),
        (
            "a chunk of 2^72",
            text(&format!("{ok}\r\nTransfer-Encoding: chunked"), "ffffffffffffffffff\r\n"),
            "InvalidResponse",
        ),
        (
            "a body shorter than promised",
            text(&format!("{ok}\r\nContent-Length: 4000"), VERSION),
            "InvalidResponse",
        ),
        ("10,000 headers", text(&format!("{ok}{}", "\r\nA: b".repeat(10_000)), VERSION), "ResponseTooLarge"),
        (
            "a header of 1 MB",
            text(&format!("{ok}\r\nA: {}", "b".repeat(1_000_000)), VERSION),
            "ResponseTooLarge",
        ),
        ("headers without end", Answer::Endless(b"HTTP/1.1 200 OK\r\n", b"A: b\r\n"), "ResponseTooLarge"),
        ("100 Continue without end", Answer::Endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n"), "Timeout"),
        ("an alert of TLS", Answer::Bytes(vec![0x15, 3, 1, 0, 2, 2, 0x28]), "TLSFailed"),
        ("no HTTP at all", Answer::Bytes(b"SSH-2.0-OpenSSH_9.9\r\n".to_vec()), "InvalidResponse"),
        ("nothing", Answer::Bytes(Vec::new()), "ConnectionRefused"),
    ];
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    let before = operator.rss_bytes();
    let mut expected = Vec::new();
    for (index, (what, answer, reason)) in rows.into_iter().enumerate() {
        let name = format!("s{index:02}");
        let host = listen(answer).await.to_string();
        apply(&client, &namespace, &server(&name, host)).await;
        expected.push((name, what, reason));
    }
    let mut rss = 0;
    let mut verdicts = async || {
        rss = rss.max(operator.rss_bytes());
        let mut missing = Vec::new();
        for (name, what, reason) in &expected {
            let status = if *reason == "Online" { "True" } else { "False" };
            let object: OllamaServer = get(&client, &namespace, name).await;
            if let Err(error) = has_condition(&object, "Ready", status, reason) {
                missing.push(format!("{what}: {error}"));
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
    };
    eventually(VERDICT, "every oddity has its verdict", &mut verdicts).await;
    holds_for(Duration::from_secs(3), "the verdicts stand", &mut verdicts).await;
    let metrics = operator.metrics().await;
    assert_eq!(metric_value(&metrics, "ollama_fleet_panics_total", &[]), Some(0.0));
    assert!(rss < before + (64 << 20), "memory grew from {before} to {rss}");
    let cpu = operator.cpu_seconds();
    eprintln!("{} oddities: RSS {} to {} MiB, {cpu:.1} s of CPU", expected.len(), before >> 20, rss >> 20);
}

/// A certificate that nobody vouches for, or no TLS at all, is `TLSFailed` and never a silent fall back to plain HTTP;
/// with `insecureSkipVerify` the certificate counts, and the object says that it is not checked.
#[tokio::test]
async fn tls_that_cannot_be_trusted_is_told_and_never_gone_around() {
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let secure = listener.local_addr().unwrap();
    let key = rcgen::generate_simple_self_signed(vec!["127.0.0.1".to_owned()]).unwrap();
    let config =
        RustlsConfig::from_pem(key.cert.pem().into(), key.signing_key.serialize_pem().into()).await.unwrap();
    let router = Router::new()
        .route("/api/version", routing::get(async || VERSION))
        .route("/api/ps", routing::get(async || r#"{"models":[]}"#));
    let served = axum_server::from_tcp_rustls(listener, config).unwrap().serve(router.into_make_service());
    tokio::spawn(served);
    let plain = listen(text("HTTP/1.1 200 OK", VERSION)).await;

    apply(&client, &namespace, &server("self-signed", format!("https://{secure}"))).await;
    apply(&client, &namespace, &server("no-tls", format!("https://{plain}"))).await;
    let skip = json!({"insecureSkipVerify": true});
    apply(&client, &namespace, &server_with("unchecked", format!("https://{secure}"), skip)).await;
    for name in ["self-signed", "no-tls"] {
        eventually(VERDICT, name, async || {
            has_condition(
                &get::<OllamaServer>(&client, &namespace, name).await,
                "Ready",
                "False",
                "TLSFailed",
            )
        })
        .await;
    }
    let unchecked = eventually(PATIENCE, "unchecked", async || {
        let object: OllamaServer = get(&client, &namespace, "unchecked").await;
        has_condition(&object, "Ready", "True", "Online").map(|()| object)
    })
    .await;
    assert_eq!(status_of(&unchecked).version.as_deref(), Some("0.24.0"));
    let (.., message) = crate::support::condition(&unchecked, "Accepted").unwrap();
    assert!(message.contains("insecureSkipVerify"), "{message}");
    drop(operator);
}

/// A server that answers every request, and whoever connects, in the same way.
async fn listen(answer: Answer) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = Arc::clone(&answer);
            tokio::spawn(async move { say(stream, &answer).await });
        }
    });
    address
}

async fn say(mut stream: TcpStream, answer: &Answer) -> std::io::Result<()> {
    let mut request = [0; 4096];
    if stream.read(&mut request).await? == 0 {
        return Ok(());
    }
    match answer {
        Answer::Bytes(bytes) => stream.write_all(bytes).await?,
        Answer::Endless(first, rest) => {
            stream.write_all(first).await?;
            let rest = rest.repeat(1000);
            // Some 20 MB/s: a flood for its reader that leaves the test a core to look at it.
            let mut pace = tokio::time::interval(Duration::from_millis(1));
            loop {
                pace.tick().await;
                stream.write_all(&rest).await?;
            }
        }
    }
    stream.shutdown().await?;
    // Closing with unread input would be a reset, which takes away what the other side has not read yet.
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}
