//! H14, H17 and H18: redirects, framing with two meanings, and services that are not Ollama.

use super::{OK, Row, Stage, VERSION};
use crate::support::raw_host::{Script, says, script};
use tokio::net::TcpListener;

fn length(body: &str) -> String {
    format!("Content-Length: {}\r\n\r\n{body}", body.len())
}

/// No status and no spelling of Location makes the operator go anywhere; nor does Refresh or a meta tag.
#[tokio::test]
async fn redirects_are_told_and_never_followed() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let here = trap.local_addr().unwrap();
    let to = |code: u16, location: String| {
        says(format!("HTTP/1.1 {code} Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n"))
    };
    let rows: Vec<Row> = vec![
        ("301 to another host", to(301, format!("http://{here}/")), "UnexpectedRedirect"),
        (
            "302 to the metadata service",
            to(302, "http://169.254.169.254/latest/meta-data/".into()),
            "UnexpectedRedirect",
        ),
        ("303", to(303, format!("http://{here}/")), "UnexpectedRedirect"),
        ("307 without a scheme", to(307, format!("//{here}/")), "UnexpectedRedirect"),
        ("308 to itself", to(308, "/api/version".into()), "UnexpectedRedirect"),
        ("302 to a file", to(302, "file:///etc/passwd".into()), "UnexpectedRedirect"),
        ("302 to gopher", to(302, format!("gopher://{here}/_x")), "UnexpectedRedirect"),
        ("302 to nowhere", says("HTTP/1.1 302 Go\r\nContent-Length: 0\r\n\r\n"), "UnexpectedRedirect"),
        ("300", to(300, format!("http://{here}/")), "UnexpectedRedirect"),
        ("304", says("HTTP/1.1 304 Same\r\n\r\n"), "UnexpectedRedirect"),
        (
            "Refresh and Content-Location",
            says(format!(
                "{OK}Refresh: 0; url=http://{here}/\r\nContent-Location: http://{here}/\r\n{}",
                length(VERSION)
            )),
            "Online",
        ),
        (
            "a page that moves on",
            says(format!("{OK}{}", length("<meta http-equiv=refresh content='0;url=/x'>"))),
            "NotOllama",
        ),
    ];
    tokio::select! {
        () = Stage::play(rows) => {}
        _ = trap.accept() => panic!("a redirect was followed"),
    }
}

/// Framing that two readers could read in two ways is refused or read in the safe one; what is behind the answer is
/// nobody's answer.
#[tokio::test]
async fn odd_framing_never_makes_an_answer_of_what_is_none() {
    let forged = format!("{OK}{}", length(r#"{"version":"6.6.6"}"#));
    let smuggled: Script = script(move |mut connection| {
        let both = format!("{OK}{}{forged}", length(VERSION));
        async move {
            while connection.request().await?.is_some() {
                connection.send(both.as_bytes()).await?;
            }
            Ok(())
        }
    });
    let chunked = format!("{:x}\r\n{VERSION}\r\n0\r\n\r\n", VERSION.len());
    let rows: Vec<Row> = vec![
        ("HTTP/1.0 without a length", says(format!("HTTP/1.0 200 OK\r\n\r\n{VERSION}")), "Online"),
        ("HTTP/0.9", says(VERSION), "InvalidResponse"),
        (
            "HTTP/2 in clear",
            says(b"\0\0\x12\x04\0\0\0\0\0\0\x03\0\0\0\x80\0\x04\0\x01\0\0\0\x05\0\xff\xff\xff".to_vec()),
            "InvalidResponse",
        ),
        ("a second answer on the same connection", smuggled, "Online"),
        (
            "chunks and a length",
            says(format!("{OK}Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n{chunked}")),
            "Online",
        ),
        (
            "chunked twice",
            says(format!("{OK}Transfer-Encoding: chunked, chunked\r\n\r\n{chunked}")),
            "Online",
        ),
        (
            "chunked and not at last",
            says(format!("{OK}Transfer-Encoding: chunked, gzip\r\n\r\n{chunked}")),
            "InvalidResponse",
        ),
        ("two lengths", says(format!("{OK}Content-Length: 7\r\n{}", length(VERSION))), "InvalidResponse"),
        (
            "a length with a sign",
            says(format!("{OK}Content-Length: +20\r\n\r\n{VERSION}")),
            "InvalidResponse",
        ),
        ("a folded header", says(format!("{OK}A: b\r\n c\r\n{}", length(VERSION))), "InvalidResponse"),
        (
            "a header with a blank before the colon",
            says(format!("{OK}A : b\r\n{}", length(VERSION))),
            "InvalidResponse",
        ),
        (
            "101 Switching Protocols",
            says("HTTP/1.1 101 Go\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            "InvalidResponse",
        ),
        (
            "103 Early Hints first",
            says(format!("HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\n{OK}{}", length(VERSION))),
            "Online",
        ),
        ("204", says("HTTP/1.1 204 No\r\n\r\n"), "InvalidResponse"),
        (
            "206",
            says(format!("HTTP/1.1 206 Part\r\nContent-Range: bytes 0-1/9\r\n{}", length("{\""))),
            "InvalidResponse",
        ),
        ("status 099", says(format!("HTTP/1.1 099 X\r\n{}", length(VERSION))), "InvalidResponse"),
        ("status 999", says(format!("HTTP/1.1 999 X\r\n{}", length(VERSION))), "InvalidResponse"),
    ];
    let mut stage = Stage::set().await;
    for row in rows {
        stage.add(row, serde_json::json!({})).await;
    }
    stage.until_judged().await;
    for (name, what, ..) in stage.hosts.iter().filter(|(.., reason)| *reason == "Online") {
        let version = stage.scene.status(name).await.version;
        assert_eq!(version.as_deref(), Some("0.24.0"), "{what}");
    }
    stage.strike().await;
}

/// Other services are told from Ollama where they can be, and are no crash where they cannot.
#[tokio::test]
async fn other_services_are_not_taken_for_ollama() {
    let greets = |bytes: &'static [u8]| {
        script(move |mut connection| async move {
            connection.send(bytes).await?;
            connection.ignore().await
        })
    };
    let page = |status: &str, body: &str| says(format!("HTTP/1.1 {status}\r\n{}", length(body)));
    let rows: Vec<Row> = vec![
        ("SSH", greets(b"SSH-2.0-OpenSSH_9.9\r\n"), "InvalidResponse"),
        ("SMTP", greets(b"220 mail.example.com ESMTP\r\n"), "InvalidResponse"),
        ("a database", greets(b"\x4a\0\0\0\x0a8.4.0\0\x08\0\0\0"), "InvalidResponse"),
        ("TLS", says(b"\x15\x03\x01\x00\x02\x02\x28".to_vec()), "TLSFailed"),
        ("a web server", page("404 Not Found", "<h1>404</h1>"), "NotOllama"),
        ("a web server that knows no GET", page("405 Method Not Allowed", ""), "NotOllama"),
        ("a metrics exporter", page("200 OK", "# HELP up x\nup 1\n"), "InvalidResponse"),
        ("another API", page("200 OK", r#"{"status":"ok","uptime":5}"#), "NotOllama"),
    ];
    Stage::play(rows).await;
}
