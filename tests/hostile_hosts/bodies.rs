//! H6 to H11: bodies and headers that are too large, encoded, or not what they should be.

use super::{OK, Row, Stage, VERSION, on_schedule};
use crate::support::{
    RawHost, Scene, eventually, metric_value,
    objects::{has_condition, server_with},
    proc,
    raw_host::{Script, says, says_without_end, script},
};
use serde_json::json;
use std::time::Duration;

const GIB: &str = "Content-Length: 1073741824\r\n\r\n";
const CHUNKED: &str = "Transfer-Encoding: chunked\r\n\r\n";

fn encoded(encoding: &str) -> Script {
    let body = vec![0x1f; 10 << 20];
    let head = format!("{OK}Content-Encoding: {encoding}\r\nContent-Length: {}\r\n\r\n", body.len());
    says([head.into_bytes(), body].concat())
}

fn with_headers(headers: &str) -> Script {
    says(format!("{OK}{headers}Content-Length: {}\r\n\r\n{VERSION}", VERSION.len()))
}

/// Too much of anything is refused where it is noticed: a length before a byte of the body is read, encodings before
/// they are decoded, and the rest at its bound. The host cannot even send what is not read.
#[tokio::test]
async fn what_is_too_large_is_not_read() {
    let rows: Vec<Row> = vec![
        ("1 GiB with a length", says_without_end(format!("{OK}{GIB}"), b" ", None), "ResponseTooLarge"),
        ("no length and no end", says_without_end(format!("{OK}\r\n"), b" ", None), "ResponseTooLarge"),
        (
            "large chunks without end",
            script(|mut connection| async move {
                connection.request().await?;
                connection.send(format!("{OK}{CHUNKED}").as_bytes()).await?;
                let chunk = [b"100000\r\n".to_vec(), vec![b' '; 1 << 20], b"\r\n".to_vec()].concat();
                loop {
                    connection.send(&chunk).await?;
                }
            }),
            "ResponseTooLarge",
        ),
        ("an error without end", says_without_end("HTTP/1.1 503 Busy\r\n\r\n", b" ", None), "ServerBusy"),
        (
            "an error of 1 GiB",
            says_without_end(format!("HTTP/1.1 401 No\r\n{GIB}"), b" ", None),
            "Unauthorized",
        ),
        ("gzip", encoded("gzip"), "InvalidResponse"),
        ("br", encoded("br"), "InvalidResponse"),
        ("zstd", encoded("zstd"), "InvalidResponse"),
        ("deflate", encoded("deflate"), "InvalidResponse"),
        ("gzip in gzip", encoded("gzip, gzip"), "InvalidResponse"),
        ("an unknown encoding", encoded("rot13"), "InvalidResponse"),
        ("a header of 1 MB", with_headers(&format!("A: {}\r\n", "b".repeat(1_000_000))), "ResponseTooLarge"),
        ("10,000 headers", with_headers(&"A: b\r\n".repeat(10_000)), "ResponseTooLarge"),
        ("65 headers", with_headers(&"A: b\r\n".repeat(64)), "ResponseTooLarge"),
        ("63 headers", with_headers(&"A: b\r\n".repeat(62)), "Online"),
    ];
    let mut stage = Stage::set().await;
    for row in rows {
        stage.add(row, json!({})).await;
    }
    stage.until_judged().await;
    for (_, what, host, _) in &stage.hosts {
        let each = host.sent() / host.accepted() as u64;
        // A megabyte is read where there is no length, and the kernel keeps some megabytes on their way.
        assert!(each < 12 << 20, "{what}: {each} bytes a connection were taken");
    }
    stage.strike().await;
}

/// What is no answer of Ollama is told as such and costs no panic; what is one, in spite of oddities, is read.
#[tokio::test]
async fn odd_json_is_refused_or_understood() {
    let of = |body: &str| {
        says(format!("{OK}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    };
    let deep = |open: &str, close: &str| format!("{}{}", open.repeat(100_000), close.repeat(100_000));
    let long_name = format!(r#"{{"version":"0.24.0","models":[{{"name":"{}"}}]}}"#, "x".repeat(900_000));
    let many = format!(r#"{{"models":[{}{{}}]}}"#, r#"{"name":"a"},"#.repeat(70_000));
    let rows: Vec<Row> = vec![
        ("malformed", of(r#"{"version":"#), "InvalidResponse"),
        ("a byte order mark", of("\u{feff}{\"version\":\"0.24.0\"}"), "InvalidResponse"),
        ("a login page", of("<html><form action=/login></html>"), "NotOllama"),
        ("nothing", of(""), "InvalidResponse"),
        ("null", of("null"), "InvalidResponse"),
        ("NaN", of(r#"{"version":NaN}"#), "InvalidResponse"),
        ("a wrong type", of(r#"{"version":24,"models":"none"}"#), "InvalidResponse"),
        (
            "half a letter",
            says([format!("{OK}\r\n{{\"version\":\"0.2").as_bytes(), b"\xf0\x9f\"}"].concat()),
            "InvalidResponse",
        ),
        ("arrays 100,000 deep", of(&deep("[", "]")), "InvalidResponse"),
        ("objects 100,000 deep", of(&deep("{\"a\":", "}")), "InvalidResponse"),
        ("70,000 models", of(&many), "InvalidResponse"),
        ("a key twice", of(r#"{"version":"1","version":"0.24.0","models":[]}"#), "Online"),
        ("unknown fields", of(r#"{"version":"0.24.0","gpus":[{"a":1e999}],"models":null}"#), "Online"),
        (
            "numbers out of range",
            of(
                r#"{"version":"0.24.0","models":[{"name":"a","size":-1,"size_vram":1e300,"context_length":18446744073709551616}]}"#,
            ),
            "Online",
        ),
        ("a name of 900 kB", of(&long_name), "Online"),
        (
            "orders for a terminal",
            of(
                "{\"version\":\"\\u001b[2J0.24.0\\u202e\",\"models\":[{\"name\":\"\\u001b]0;x\\u0007a\\u200b\"}]}",
            ),
            "Online",
        ),
    ];
    Stage::play(rows).await;
}

/// Two hundred hosts that send a megabyte each and then hang in the last byte hold no more than the bodies that may be
/// large at once; the others wait with what is small, and time out.
#[tokio::test]
async fn many_large_bodies_at_once_are_bounded_together() {
    const HOSTS: usize = 200;
    /// 56 of 64 bodies of 1 MiB, the starts of the others with their connections, and what the operator needs itself.
    const MOST: u64 = (56 + 24 + 24) << 20;
    let scene = Scene::new(1).await;
    scene.server("healthy", 0, json!({})).await;
    scene.until_online("healthy").await;
    let body = format!("{OK}Content-Length: 1000000\r\n\r\n{{\"version\":\"{}", "x".repeat(990_000));
    hold(&scene, HOSTS, body, "Timeout", MOST).await;
}

/// As many that never end a head of 380 kB hold next to nothing: what a connection keeps is bounded before it is read.
#[tokio::test]
async fn many_heads_without_an_end_are_bounded_together() {
    const HOSTS: usize = 200;
    /// 32 KiB each, connections, and what the operator needs itself; without the bound it is 80 MiB and more.
    const MOST: u64 = 40 << 20;
    let scene = Scene::new(1).await;
    scene.server("healthy", 0, json!({})).await;
    scene.until_online("healthy").await;
    let head = format!("{OK}{}", format!("X-Filler: {}\r\n", "x".repeat(6_400)).repeat(60));
    hold(&scene, HOSTS, head, "ResponseTooLarge", MOST).await;
}

/// Polls so many hosts that answer with this and then hang. They get this reason, the operator grows by less than `most`
/// bytes, and the healthy host is asked on time.
async fn hold(scene: &Scene, count: usize, answer: String, reason: &str, most: u64) {
    let script: Script = script(move |mut connection| {
        let answer = answer.clone();
        async move {
            connection.request().await?;
            connection.send(answer.as_bytes()).await?;
            connection.ignore().await
        }
    });
    let mut hosts = Vec::new();
    let spec = json!({"poll": {"interval": "5s", "timeout": "4s"}});
    for index in 0..count {
        let host = RawHost::start(script.clone()).await;
        scene.apply(&server_with(&format!("s{index:03}"), host.address.to_string(), spec.clone())).await;
        hosts.push(host);
    }
    let (pid, before) = (scene.operator.pid(), scene.operator.rss_bytes());
    proc::reset_peak(pid);
    scene.fleet.reset_stats().await;
    eventually(Duration::from_secs(90), "all have their reason", async || {
        let servers = super::list(&scene.client, &scene.namespace).await;
        let judged = |index: &usize| {
            has_condition(&servers[&format!("s{index:03}")], "Ready", "False", reason).is_ok()
        };
        let judged = (0..count).filter(judged).count();
        if judged == count { Ok(()) } else { Err(format!("{judged} of {count}")) }
    })
    .await;
    let grown = proc::peak_bytes(pid).saturating_sub(before);
    assert!(grown < most, "the operator grew by {} MiB", grown >> 20);
    let widest = on_schedule(scene, 0..1).await;
    let metrics = scene.operator.metrics().await;
    assert_eq!(metric_value(&metrics, "ollama_fleet_panics_total", &[]), Some(0.0));
    eprintln!(
        "figure: {count} answers that hang, {reason}: {} MiB more at the peak; widest gap {widest} ms",
        grown >> 20
    );
}
