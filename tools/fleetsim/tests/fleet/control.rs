//! Changing hosts while they run.

use std::io::ErrorKind;

use serde_json::json;

use crate::sim::{Sim, connect};

#[test]
fn hosts_refuse_and_listen_again() {
    let sim = Sim::start(&["--hosts", "3", "--address", "127.34.1.254"]);
    assert_eq!(sim.ollama(1).ip().to_string(), "127.34.2.1");
    for _ in 0..20 {
        assert_eq!(sim.get(1, "/").code, 200);
        sim.act("1-2", r#"{"action":"die"}"#);
        for address in [sim.ollama(1), sim.agent(1), sim.ollama(2)] {
            assert_eq!(
                connect(address).unwrap_err().kind(),
                ErrorKind::ConnectionRefused
            );
        }
        assert_eq!(sim.get(0, "/").code, 200);
        sim.act("1-2", r#"{"action":"revive"}"#);
        sim.metrics(1);
    }
}

#[test]
fn patches_by_selector() {
    let sim = Sim::start(&["--hosts", "10", "--address", "127.34.3.1"]);
    let versions = || -> Vec<String> {
        let version = |i| {
            sim.json(i, "/api/version")["version"]
                .as_str()
                .unwrap()
                .to_owned()
        };
        (0..10).map(version).collect()
    };
    let patched = sim.control("PATCH", "/hosts/5-7,sim-00001", r#"{"version":"9"}"#);
    assert_eq!(patched, (200, json!({"changed": 4})));
    let mut expected = vec!["0.24.0".to_owned(); 10];
    for index in [1, 5, 6, 7] {
        "9".clone_into(&mut expected[index]);
    }
    assert_eq!(versions(), expected);
    sim.patch("all", r#"{"version":null}"#);
    assert_eq!(versions(), vec!["0.24.0"; 10]);
    for (selector, patch, told) in [
        ("11", r#"{"version":"x"}"#, "allowed"),
        ("some", r#"{"version":"x"}"#, "allowed"),
        ("1", r#"{"verzion":"x"}"#, "expected one of"),
        ("1", r#"{"ollama":{"mode":"wild"}}"#, "expected one of"),
        (
            "1",
            r#"{"ollama":{"mode":"hang","code":1}}"#,
            "allowed with",
        ),
        ("1", r#"{"version":"#, "patch"),
    ] {
        let (code, answer) = sim.control("PATCH", &format!("/hosts/{selector}"), patch);
        let error = answer["error"].as_str().unwrap();
        assert!(code == 400 && error.contains(told), "{error}");
    }
    let (code, answer) = sim.control("POST", "/hosts/1/actions", r#"{"action":"fly"}"#);
    assert!(code == 400 && answer["error"].as_str().unwrap().contains("reboot"));
    assert_eq!(sim.control("GET", "/nothing", "").0, 404);
    assert_eq!(versions(), vec!["0.24.0"; 10]);
}

#[test]
fn actions() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.34.4.1"]);
    let names = |path: &str| {
        let list = sim.json(0, path);
        let models = list["models"].as_array().unwrap().iter();
        let mut names: Vec<_> = models.map(|model| model["name"].to_string()).collect();
        names.sort();
        names.join(" ")
    };
    sim.act("0", r#"{"action":"pull","model":"new:1b","sizeBytes":77}"#);
    sim.act("0", r#"{"action":"load","model":"new:1b","vramBytes":70}"#);
    sim.act("0", r#"{"action":"remove","model":"llama3.2:latest"}"#);
    assert_eq!(
        names("/api/tags"),
        r#""new:1b" "nomic-embed-text:latest" "qwen3:8b""#
    );
    assert_eq!(names("/api/ps"), r#""new:1b" "qwen3:8b""#);
    sim.act("0", r#"{"action":"unload","model":"qwen3:8b"}"#);
    assert_eq!(names("/api/ps"), r#""new:1b""#);
    let before = sim.metrics(0);
    sim.act("0", r#"{"action":"reboot"}"#);
    let after = sim.metrics(0);
    assert!(after["uptime_seconds"].as_f64() < before["uptime_seconds"].as_f64());
    assert_eq!(names("/api/ps"), "");
    sim.act("0", r#"{"action":"hot"}"#);
    assert_eq!(sim.metrics(0)["temperatures"]["gpu0"], 95.0);
    sim.act("0", r#"{"action":"cool"}"#);
    assert_eq!(sim.metrics(0)["temperatures"]["gpu0"], 61.0);
    sim.act("0", r#"{"action":"diskFull"}"#);
    assert_eq!(sim.metrics(0)["disk"]["used_gb"], 980.0);
    sim.act("0", r#"{"action":"upgrade","version":"0.33.0-rc2"}"#);
    assert_eq!(sim.json(0, "/api/version")["version"], "0.33.0-rc2");
    let (_, state) = sim.control("GET", "/hosts/0/state", "");
    assert_eq!(state["version"], "0.33.0-rc2");
}

#[test]
fn a_scenario_is_in_place_from_the_start() {
    let path = std::env::temp_dir().join(format!("fleetsim-{}.json", std::process::id()));
    let scenario = json!({
        "defaults": {"version": "1.0.0"},
        "hosts": {"sim-00000": {"ollama": {"mode": "refuse"}}, "2-3": {"version": "2.0.0"}},
    });
    std::fs::write(&path, scenario.to_string()).unwrap();
    let file = path.to_str().unwrap();
    let mut sim = Sim::start(&[
        "--hosts",
        "5",
        "--address",
        "127.34.5.1",
        "--scenario",
        file,
    ]);
    std::fs::remove_file(&path).unwrap();
    assert_eq!(
        connect(sim.ollama(0)).unwrap_err().kind(),
        ErrorKind::ConnectionRefused
    );
    let version = |index| sim.json(index, "/api/version")["version"].clone();
    assert_eq!(
        [1, 2, 3, 4].map(version),
        ["1.0.0", "2.0.0", "2.0.0", "1.0.0"]
    );
    // The end of stdin is the end of the simulator.
    drop(sim.child.stdin.take());
    assert!(sim.child.wait().unwrap().success());
}
