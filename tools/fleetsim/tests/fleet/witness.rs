//! What the simulator reports about its clients.

use std::io::Write as _;

use serde_json::{Value, json};

use crate::sim::{End, SILENCE, Sim, call, connect, read, request};

const HOST: &str = "sim-00000";

#[test]
fn requests_are_counted_by_path_with_their_arrivals() {
    let sim = Sim::start(&["--hosts", "2", "--address", "127.32.1.1"]);
    let before = jiff::Timestamp::now().as_millisecond();
    for _ in 0..3 {
        sim.get(0, "/api/version?x=1");
    }
    call(sim.ollama(0), "POST", "/api/pull", "{}");
    sim.metrics(0);
    let after = jiff::Timestamp::now().as_millisecond();
    let stats = sim.stats(HOST);
    assert_eq!(stats["requests"], json!({"/api/version": 3, "POST /api/pull": 1, "agent:/metrics": 1}));
    assert_eq!((&stats["total"], &stats["connections"]), (&json!(5), &json!(4)));
    assert_eq!((&stats["maxInFlight"], &stats["agentMaxInFlight"]), (&json!(1), &json!(1)));
    assert_eq!(stats["maxConnections"], 1);
    assert_eq!(stats["lastHeaders"]["host"], "sim");
    assert_eq!(stats["lastHeaders"]["authorization"], false);
    let last: jiff::Timestamp = stats["lastArrival"].as_str().unwrap().parse().unwrap();
    assert!((before..=after).contains(&last.as_millisecond()));

    let (_, arrivals) = sim.control("GET", "/arrivals/all?path=%2Fapi%2Fversion&limit=2", "");
    let times: Vec<i64> = serde_json::from_value(arrivals[HOST].clone()).unwrap();
    assert!(times.len() == 2 && times.is_sorted());
    assert!(times.iter().all(|time| (before..=after).contains(time)));
    assert_eq!(arrivals["sim-00001"], json!([]));
    let (_, all) = sim.control("GET", "/stats", "");
    assert_eq!((&all["total"], &all["requests"]["/api/version"]), (&json!(5), &json!(3)));
    sim.control("DELETE", "/stats", "");
    let stats = sim.stats(HOST);
    assert_eq!((&stats["total"], &stats["maxInFlight"]), (&json!(0), &json!(0)));
}

#[test]
fn overlaps_count_and_serial_requests_do_not() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.32.2.1"]);
    sim.patch("0", r#"{"paths":{"/api/ps":{"mode":"hang","stage":"body"}}}"#);
    let hang = || {
        let mut stream = connect(sim.ollama(0)).unwrap();
        stream.write_all(request("GET", "/api/ps", "").as_bytes()).unwrap();
        // Something has come: the request is being served.
        assert!(!read(&mut stream, SILENCE * 20, 1).0.is_empty());
        stream
    };
    // A client that gave up before its next request is not two clients.
    for _ in 0..50 {
        drop(hang());
    }
    let stats = sim.stats(HOST);
    assert_eq!((&stats["maxInFlight"], &stats["maxConnections"]), (&json!(1), &json!(1)));
    // Nor is one that asks again as soon as the last byte has come.
    let mut stream = connect(sim.ollama(0)).unwrap();
    for _ in 0..500 {
        stream.write_all(request("GET", "/", "").as_bytes()).unwrap();
        assert!(!read(&mut stream, SILENCE * 20, 1).0.is_empty());
    }
    drop(stream);
    assert_eq!(sim.stats(HOST)["maxInFlight"], 1);
    let three = [hang(), hang(), hang()];
    let stats = sim.stats(HOST);
    assert_eq!((&stats["inFlight"], &stats["maxInFlight"]), (&json!(3), &json!(3)));
    assert_eq!((&stats["openConnections"], &stats["maxConnections"]), (&json!(3), &json!(3)));
    drop(three);
    sim.until(HOST, |stats| stats["inFlight"] == 0 && stats["openConnections"] == 0);
}

#[test]
fn silent_connections_are_in_flight_and_end_with_their_fault() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.32.3.1"]);
    sim.patch("0", r#"{"ollama":{"mode":"hang"}}"#);
    let mut first = connect(sim.ollama(0)).unwrap();
    let mut second = connect(sim.ollama(0)).unwrap();
    sim.until(HOST, |stats| stats["inFlight"] == 2 && stats["maxInFlight"] == 2);
    sim.patch("0", r#"{"version":"0.25.0"}"#);
    assert_eq!(read(&mut first, SILENCE, 1).1, End::Silent, "not its fault");
    sim.patch("0", r#"{"ollama":{"mode":"healthy"}}"#);
    assert_eq!(read(&mut first, SILENCE * 20, 1).1, End::Closed);
    assert_eq!(read(&mut second, SILENCE * 20, 1).1, End::Closed);
    assert_eq!(sim.json(0, "/api/version")["version"], "0.25.0");
    // An idle connection outlives a fault, but not the death of its host.
    let mut idle = connect(sim.ollama(0)).unwrap();
    idle.write_all(request("GET", "/", "").as_bytes()).unwrap();
    assert!(!read(&mut idle, SILENCE * 20, 1).0.is_empty());
    sim.patch("0", r#"{"ollama":{"mode":"empty"}}"#);
    assert_eq!(read(&mut idle, SILENCE, 1).1, End::Silent);
    sim.act("0", r#"{"action":"die"}"#);
    assert_eq!(read(&mut idle, SILENCE * 20, 1).1, End::Reset);
}

#[test]
fn ten_thousand_hosts_share_two_sockets() {
    let sim = Sim::start(&["--hosts", "10000", "--address", "127.33.0.1"]);
    for index in (0..10_000).step_by(499) {
        assert_eq!(sim.metrics(index)["hostname"], format!("sim-{index:05}"));
        sim.patch(&index.to_string(), &format!(r#"{{"version":"0.0.{index}"}}"#));
        assert_eq!(sim.json(index, "/api/version")["version"], format!("0.0.{index}"));
    }
    let (code, answer) = sim.control("PATCH", "/hosts/5", r#"{"ollama":{"mode":"refuse"}}"#);
    assert!(code == 409 && answer["error"].as_str().unwrap().contains("--sockets own"));
    sim.act("5-9", r#"{"action":"die"}"#);
    if let Ok(mut stream) = connect(sim.ollama(7)) {
        assert_eq!(read(&mut stream, SILENCE * 20, 1).1, End::Reset);
    }
    sim.act("all", r#"{"action":"revive"}"#);
    assert_eq!(sim.get(7, "/").code, 200);
    let start = std::time::Instant::now();
    let (_, stats) = sim.control("GET", "/stats", "");
    assert!(start.elapsed().as_secs() < 5, "{:?}", start.elapsed());
    let per_host = stats["hosts"].as_object().unwrap();
    assert_eq!(per_host.len(), 10_000);
    let asked = |host: &&Value| host["requests"]["/api/version"] == 1;
    assert_eq!(per_host.values().filter(asked).count(), 21);
}

#[test]
fn a_wanted_authorization_is_compared_and_counted() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.32.9.1"]);
    sim.patch("0", r#"{"authorization":"Bearer right","agentAuthorization":"Basic eDp5"}"#);
    for (address, path, header, code) in [
        (sim.ollama(0), "/", "", "401"),
        (sim.ollama(0), "/", "Authorization: Bearer wrong\r\n", "401"),
        (sim.ollama(0), "/", "Authorization: Bearer right\r\n", "200"),
        (sim.agent(0), "/metrics", "Authorization: Bearer right\r\n", "401"),
        (sim.agent(0), "/metrics", "Authorization: Basic eDp5\r\n", "200"),
    ] {
        let mut stream = connect(address).unwrap();
        let more = format!("{header}Connection: close\r\n");
        stream.write_all(request("GET", path, &more).as_bytes()).unwrap();
        let (bytes, _) = read(&mut stream, SILENCE * 20, usize::MAX);
        let answer = String::from_utf8_lossy(&bytes);
        assert!(answer.starts_with(&format!("HTTP/1.1 {code} ")), "{header}: {answer}");
    }
    let stats = sim.stats(HOST);
    assert_eq!((&stats["withAuthorization"], &stats["unauthorized"]), (&json!(4), &json!(3)));
    assert!(!stats.to_string().contains("right"));
}
