//! What healthy hosts answer, and their oddities.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::sim::{Sim, call};

#[test]
fn ollama_answers_as_ollama_does() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.30.1.1"]);
    let root = sim.get(0, "/");
    assert_eq!((root.code, root.text()), (200, "Ollama is running"));
    assert!(
        root.header("content-type")
            .unwrap()
            .starts_with("text/plain")
    );
    assert!(root.header("date").unwrap().ends_with(" GMT"));
    for path in ["/", "/api/version", "/api/tags"] {
        let head = call(sim.ollama(0), "HEAD", path, "");
        assert_eq!((head.code, head.body.len()), (200, 0), "{path}");
        assert_ne!(head.header("content-length"), Some("0"));
    }
    assert_eq!(sim.json(0, "/api/version"), json!({"version": "0.24.0"}));
    let unknown = sim.get(0, "/api/nothing");
    assert_eq!((unknown.code, unknown.text()), (404, "404 page not found"));
    assert_eq!(call(sim.ollama(0), "POST", "/api/ps", "{}").code, 405);
    assert_eq!(call(sim.ollama(0), "HEAD", "/api/ps", "").code, 405);

    let tags: Vec<Value> = (0..30).map(|_| sim.json(0, "/api/tags")).collect();
    let first = |list: &Value| list["models"][0]["name"].to_string();
    assert!(
        tags.iter().map(first).collect::<BTreeSet<_>>().len() > 1,
        "order"
    );
    let families = |list: &Value| list["models"][0]["details"]["families"].is_null();
    assert_eq!(tags.iter().map(families).collect::<BTreeSet<_>>().len(), 2);
    for model in tags[0]["models"].as_array().unwrap() {
        assert_eq!(model["digest"].as_str().unwrap().len(), 64);
        assert_eq!(model["details"]["parent_model"], "");
        assert!(model["capabilities"].is_array() && model["size"].is_u64());
        nine_decimals(&model["modified_at"], "-07:00");
    }
    let openai = sim.json(0, "/v1/models");
    assert_eq!(
        (&openai["object"], &openai["data"][0]["object"]),
        (&json!("list"), &json!("model"))
    );
}

fn nine_decimals(time: &Value, zone: &str) {
    let time = time.as_str().unwrap();
    let decimals = time.split_once('.').unwrap().1;
    assert_eq!(&decimals[9..], zone, "{time}");
    time.parse::<jiff::Timestamp>().unwrap();
}

#[test]
fn loaded_models_expire_near_past_never_or_then() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.30.2.1"]);
    let loaded: Vec<_> = ["near", "past", "forever", "2030-01-02T03:04:05Z"]
        .map(|when| json!({"name": when, "sizeBytes": 8, "vramBytes": 4, "expires": when}))
        .into();
    sim.patch(
        "0",
        &json!({"loaded": loaded, "quirks": {"zoneOffset": "+05:30"}}).to_string(),
    );
    let ps = || sim.json(0, "/api/ps")["models"].as_array().unwrap().clone();
    let expires = |name: &str| {
        let models = ps();
        let model = models.iter().find(|model| model["name"] == name).unwrap();
        nine_decimals(&model["expires_at"], "+05:30");
        assert_eq!(
            (&model["size"], &model["size_vram"]),
            (&json!(8), &json!(4))
        );
        let time: jiff::Timestamp = model["expires_at"].as_str().unwrap().parse().unwrap();
        time.as_second() - jiff::Timestamp::now().as_second()
    };
    assert!((200..=301).contains(&expires("near")));
    assert!((-60..=-9).contains(&expires("past")));
    assert!(expires("forever") > 290 * 365 * 86400);
    let times: BTreeSet<_> = (0..5).map(|_| expires("near")).collect();
    assert!(times.len() > 1, "moves with each call");
    let model = ps()
        .into_iter()
        .find(|model| model["name"] == "2030-01-02T03:04:05Z");
    assert_eq!(
        model.unwrap()["expires_at"],
        "2030-01-02T08:34:05.000000000+05:30"
    );
}

#[test]
fn quirks_of_versions() {
    let sim = Sim::start(&["--hosts", "1", "--address", "127.30.3.1"]);
    sim.patch("0", r#"{"models":[],"loaded":[]}"#);
    assert_eq!(sim.json(0, "/api/tags"), json!({"models": []}));
    assert_eq!(
        sim.json(0, "/v1/models"),
        json!({"object": "list", "data": null})
    );
    sim.patch("0", r#"{"quirks":{"nullModels":true}}"#);
    assert_eq!(sim.json(0, "/api/tags"), json!({"models": null}));
    assert_eq!(sim.json(0, "/api/ps"), json!({"models": null}));
    sim.patch(
        "0",
        r#"{"models":null,"quirks":{"floatSizes":true,"tagsCapabilities":false}}"#,
    );
    let model = sim.json(0, "/api/tags")["models"][0].clone();
    assert!(model["size"].is_f64() && model.get("capabilities").is_none());
    assert!(model["details"].get("context_length").is_none());
    sim.patch(
        "0",
        r#"{"quirks":{"noTags404":true,"noPs404":true,"noDate":true}}"#,
    );
    assert_eq!(
        (sim.get(0, "/api/tags").code, sim.get(0, "/api/ps").code),
        (404, 404)
    );
    assert_eq!(sim.get(0, "/").header("date"), None);
    sim.patch(
        "0",
        r#"{"quirks":{"noDate":false,"dateSkewSeconds":-86400}}"#,
    );
    let answer = sim.get(0, "/");
    let yesterday = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24);
    let (date, day) = (
        answer.header("date").unwrap(),
        yesterday.strftime("%d %b %Y"),
    );
    let moved = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24);
    assert!(
        date.contains(&day.to_string()) || date.contains(&moved.strftime("%d %b %Y").to_string()),
        "{date}"
    );
}

#[test]
fn other_backends_have_other_endpoints() {
    let sim = Sim::start(&["--hosts", "2", "--address", "127.30.4.1"]);
    sim.patch("0", r#"{"backend":"vllm"}"#);
    sim.patch("1", r#"{"backend":"generic"}"#);
    let health = sim.get(0, "/health");
    assert_eq!((health.code, health.body.len()), (200, 0));
    let models = sim.json(0, "/v1/models");
    assert_eq!(models["data"][0]["owned_by"], "vllm");
    assert_eq!(
        (sim.get(0, "/api/version").code, sim.get(0, "/").code),
        (404, 404)
    );
    assert_eq!(
        (sim.get(1, "/health").code, sim.get(1, "/").code),
        (200, 200)
    );
    assert_eq!(sim.get(1, "/v1/models").code, 404);
}

#[test]
fn agents_report_their_machine() {
    let sim = Sim::start(&["--hosts", "2", "--address", "127.30.5.1"]);
    let (first, second) = (sim.metrics(0), sim.metrics(0));
    assert_eq!(first["hostname"], "sim-00000");
    assert_eq!(sim.metrics(1)["hostname"], "sim-00001");
    assert_eq!(
        first["temperatures"],
        json!({"thermal_zone0": 52.5, "gpu0": 61.0})
    );
    assert!(first["memory"]["total_mb"].is_f64() && first["disk"]["used_gb"].is_f64());
    assert!(first["uptime_seconds"].as_f64() < second["uptime_seconds"].as_f64());
    assert_ne!(first["load_avg"], second["load_avg"]);
    assert_eq!(first["load_avg"].as_array().unwrap().len(), 3);
    assert_eq!(call(sim.agent(0), "GET", "/other", "").code, 404);
    sim.patch(
        "0",
        r#"{"agentBody":"up 1\n","agentContentType":"text/plain; version=0.0.4"}"#,
    );
    let other = call(sim.agent(0), "GET", "/other", "");
    assert_eq!((other.code, other.text()), (200, "up 1\n"));
    assert_eq!(
        other.header("content-type"),
        Some("text/plain; version=0.0.4")
    );
}
