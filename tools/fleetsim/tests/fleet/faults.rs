//! Every fault as a raw client sees it.

use std::io::{ErrorKind, Write as _};

use serde_json::Value;

use crate::sim::{Answer, End, SILENCE, Sim, call, connect, raw, read, request, split};

fn fault(sim: &Sim, document: &str) {
    sim.patch(
        "0",
        &format!(r#"{{"ollama":{document},"agent":{document}}}"#),
    );
}

#[test]
fn connections_that_fail_or_stay_silent() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.31.1.1"]);
    for address in [sim.ollama(0), sim.agent(0)] {
        let path = if address == sim.ollama(0) {
            "/api/tags"
        } else {
            "/metrics"
        };
        fault(&sim, r#"{"mode":"refuse"}"#);
        assert_eq!(
            connect(address).unwrap_err().kind(),
            ErrorKind::ConnectionRefused
        );
        fault(&sim, r#"{"mode":"reset"}"#);
        // The reset may come before the client has even finished connecting.
        if let Ok(mut stream) = connect(address) {
            assert_eq!(read(&mut stream, SILENCE * 20, 1), (vec![], End::Reset));
        }
        fault(&sim, r#"{"mode":"hang"}"#);
        assert_eq!(raw(address, path, 1), (vec![], End::Silent));
        fault(&sim, r#"{"mode":"banner"}"#);
        let (bytes, end) = raw(address, path, 1000);
        assert_eq!(
            (&*bytes, end),
            (&b"SSH-2.0-OpenSSH_9.2\r\n"[..], End::Silent)
        );
        fault(&sim, r#"{"mode":"hang","stage":"headers"}"#);
        let (bytes, end) = raw(address, path, 1000);
        assert_eq!((&*bytes, end), (&b"HTTP/1.1 200 OK\r\n"[..], End::Silent));
        for (mode, how) in [("hang", End::Silent), ("resetMidBody", End::Reset)] {
            let stage = if mode == "hang" {
                r#","stage":"body""#
            } else {
                ""
            };
            fault(&sim, &format!(r#"{{"mode":"{mode}"{stage}}}"#));
            let (bytes, end) = raw(address, path, usize::MAX);
            assert_eq!(end, how, "{mode}");
            let answer = split(&bytes);
            assert_eq!(answer.code, 200);
            let length: usize = answer.header("content-length").unwrap().parse().unwrap();
            assert_eq!(answer.body.len(), length / 2);
        }
    }
}

#[test]
fn slow_answers_come_whole() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.31.2.1"]);
    for document in [
        r#"{"mode":"drip","everyMs":1,"stage":"headers"}"#,
        r#"{"mode":"drip","everyMs":1,"stage":"body"}"#,
        r#"{"mode":"healthy","latencyMs":20}"#,
    ] {
        fault(&sim, document);
        let start = std::time::Instant::now();
        assert_eq!(sim.json(0, "/api/version")["version"], "0.24.0");
        assert!(start.elapsed().as_millis() >= 20, "{document}");
    }
    fault(&sim, r#"{"mode":"drip","everyMs":60000}"#);
    let (bytes, end) = raw(sim.ollama(0), "/api/version", usize::MAX);
    assert_eq!((split(&bytes).body.len(), end), (0, End::Silent));
    fault(&sim, r#"{"mode":"drip","everyMs":60000,"stage":"headers"}"#);
    assert_eq!(raw(sim.ollama(0), "/", 1), (vec![], End::Silent));
    fault(&sim, r#"{"mode":"status","code":500,"latencyMs":60000}"#);
    assert_eq!(raw(sim.ollama(0), "/", 1), (vec![], End::Silent));
}

#[test]
fn statuses_and_redirects() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.31.3.1"]);
    let get = |document: &str| {
        fault(&sim, document);
        sim.get(0, "/api/version")
    };
    let busy = get(r#"{"mode":"status","code":503,"retryAfter":"7"}"#);
    assert_eq!((busy.code, busy.header("retry-after")), (503, Some("7")));
    let busy_text =
        r#"{"error":"server busy, please try again.  maximum pending requests exceeded"}"#;
    assert_eq!(busy.text(), busy_text);
    assert_eq!(
        get(r#"{"mode":"status","code":401}"#).text(),
        r#"{"error":"unauthorized"}"#
    );
    assert_eq!(get(r#"{"mode":"status","code":403}"#).text(), "");
    assert_eq!(
        get(r#"{"mode":"status","code":404}"#).text(),
        "404 page not found"
    );
    let own = get(r#"{"mode":"status","code":418,"body":"short and stout"}"#);
    assert_eq!((own.code, own.text()), (418, "short and stout"));
    let moved = get(r#"{"mode":"redirect"}"#);
    assert_eq!(
        (moved.code, moved.header("location")),
        (302, Some("/login"))
    );
    let moved = get(r#"{"mode":"redirect","code":308,"location":"http://127.0.0.1:1/"}"#);
    assert_eq!(
        (moved.code, moved.header("location")),
        (308, Some("http://127.0.0.1:1/"))
    );
}

#[test]
fn wrong_content() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.31.4.1"]);
    let get = |document: &str, path: &str| {
        fault(&sim, document);
        sim.get(0, path)
    };
    let json = |answer: &Answer| serde_json::from_slice::<Value>(&answer.body);

    let garbage = get(r#"{"mode":"garbage"}"#, "/api/version");
    assert!(garbage.body.iter().all(u8::is_ascii_graphic) && json(&garbage).is_err());
    let html = get(r#"{"mode":"html"}"#, "/api/version");
    assert!(html.text().starts_with("<!DOCTYPE html>") && html.code == 200);
    assert!(
        html.header("content-type")
            .unwrap()
            .starts_with("text/html")
    );
    let empty = get(r#"{"mode":"empty"}"#, "/api/version");
    assert_eq!(
        (empty.code, empty.header("content-length")),
        (200, Some("0"))
    );
    let cut = get(r#"{"mode":"truncated"}"#, "/api/tags");
    assert_eq!(
        cut.header("content-length").unwrap(),
        cut.body.len().to_string()
    );
    assert!(json(&cut).unwrap_err().is_eof());
    for path in ["/api/version", "/api/tags", "/api/ps"] {
        let wrong = json(&get(r#"{"mode":"wrongTypes"}"#, path)).unwrap();
        assert!(!wrong["version"].is_string() && !wrong["models"][0]["name"].is_string());
    }
    let gzip = get(r#"{"mode":"gzip"}"#, "/api/version");
    assert_eq!(gzip.header("content-encoding"), Some("gzip"));
    assert_eq!(&gzip.body[..3], [0x1f, 0x8b, 8]);
    let root = get(r#"{"mode":"notOllama"}"#, "/");
    assert!(root.code == 200 && !root.text().contains("Ollama"));
    assert_eq!(sim.get(0, "/api/version").code, 404);
    let deep = get(r#"{"mode":"deepJson","depth":500}"#, "/api/version");
    assert_eq!(deep.text().matches('[').count(), 500);
    let spoilt = json(&get(r#"{"mode":"controlChars"}"#, "/api/ps")).unwrap();
    let name = spoilt["models"][0]["name"].as_str().unwrap();
    assert!(name.contains('\u{1b}') && name.contains('\u{202e}') && name.contains('\0'));

    let agent = |document: &str| {
        fault(&sim, document);
        json(&call(sim.agent(0), "GET", "/metrics", "")).unwrap()
    };
    assert!(agent(r#"{"mode":"wrongTypes"}"#)["temperatures"].is_array());
    let spoilt = agent(r#"{"mode":"controlChars"}"#);
    assert!(spoilt["hostname"].as_str().unwrap().contains('\u{1b}'));
}

/// Undoes chunked encoding.
fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    loop {
        let line = bytes.windows(2).position(|two| two == b"\r\n").unwrap();
        let size = std::str::from_utf8(&bytes[..line]).unwrap();
        let size = usize::from_str_radix(size, 16).unwrap();
        body.extend_from_slice(&bytes[line + 2..line + 2 + size]);
        assert_eq!(&bytes[line + 2 + size..line + 4 + size], b"\r\n");
        bytes = &bytes[line + 4 + size..];
        if size == 0 {
            assert!(bytes.is_empty());
            return body;
        }
    }
}

#[test]
fn very_long_answers() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.31.5.1"]);
    fault(&sim, r#"{"mode":"huge","bytes":3000000}"#);
    let huge = sim.get(0, "/api/tags");
    assert_eq!(huge.header("content-length"), Some("3000000"));
    assert_eq!(huge.body.len(), 3_000_000);
    fault(&sim, r#"{"mode":"huge","bytes":3000000,"chunked":true}"#);
    assert_eq!(unchunk(&sim.get(0, "/api/tags").body).len(), 3_000_000);
    for document in [r#"{"mode":"huge"}"#, r#"{"mode":"huge","chunked":true}"#] {
        fault(&sim, document);
        let (bytes, end) = raw(sim.ollama(0), "/api/tags", 20_000_000);
        assert!(bytes.len() >= 20_000_000 && end == End::Silent, "goes on");
    }
    sim.until("sim-00000", |stats| stats["inFlight"] == 0);
    fault(&sim, r#"{"mode":"manyModels","count":3000}"#);
    for path in ["/api/tags", "/api/ps"] {
        let many: Value = serde_json::from_slice(&unchunk(&sim.get(0, path).body)).unwrap();
        assert_eq!(many["models"].as_array().unwrap().len(), 3000);
    }
}

#[test]
fn a_paths_fault_wins_and_the_connection_goes_on() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.31.6.1"]);
    let document = r#"{"ollama":{"mode":"hang"},
        "paths":{"/api/version":{"mode":"healthy"},"/api/ps":{"mode":"status","code":500},
                 "agent:/metrics":{"mode":"empty"}}}"#;
    sim.patch("0", document);
    let mut stream = connect(sim.ollama(0)).unwrap();
    for (path, code) in [("/api/version", 200), ("/api/ps", 500)] {
        stream
            .write_all(request("GET", path, "").as_bytes())
            .unwrap();
        let (bytes, _) = read(&mut stream, SILENCE * 20, 1);
        assert_eq!(split(&bytes).code, code);
    }
    stream
        .write_all(request("GET", "/api/tags", "").as_bytes())
        .unwrap();
    assert_eq!(read(&mut stream, SILENCE, 1), (vec![], End::Silent));
    assert_eq!(call(sim.agent(0), "GET", "/metrics", "").body, b"");
    assert_eq!(sim.stats("sim-00000")["connections"], 1);
}
