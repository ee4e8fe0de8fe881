//! What hosts answer, up to the status, the Events and the metrics that come of it.

use super::{assert_clean, assert_clean_text, assert_fits, status_schema};
use crate::{
    api::{OllamaServer, OllamaServerStatus, ollama_server::OllamaServerSpec},
    args::PollArgs,
    controller::server::{
        accept::accept,
        assess::{AgentObservation, AgentPlan, Assessment, Memory, Observation, Subject, assess},
        live::Live,
        publish,
        transition::Transition,
    },
    metrics::Metrics,
    plugins::exposition,
    probe::{
        Failure, HostOutcome,
        address::AddressPolicy,
        health, openai_wire,
        report::{HostReport, Part},
        wire,
    },
    runtime::Leadership,
};
use clap::Parser;
use k8s_openapi::jiff::Timestamp;
use serde_json::json;
use std::{collections::BTreeMap, sync::Arc};

/// The object must stay below 32 KiB; what is not status has a share of it.
const STATUS_MAX: usize = 30 << 10;
/// The API server's bounds of an Event.
const NOTE_MAX: usize = 1024;
const REASON_MAX: usize = 128;

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    poll: PollArgs,
}

/// `GET /api/version`.
pub fn version(body: &[u8]) {
    if let Ok(version) = wire::version(body) {
        assert_clean_text(&version);
        let again = json!({ "version": version }).to_string();
        assert_eq!(wire::version(again.as_bytes()), Ok(version.clone()));
        let unknown = (Part::Missing, Part::Missing);
        reaches_status(HostReport { version: Part::Known(version), models: unknown.0, loaded: unknown.1 });
    }
}

/// `GET /api/tags`, `/api/ps` and `/v1/models`, which a host may all answer with the same bytes.
pub fn lists_of_models(body: &[u8]) {
    let now = Timestamp::from_second(1_800_000_000).ok();
    let models = wire::tags(body);
    let loaded = [wire::ps(body, now), wire::ps(body, None)];
    if let Ok(models) = &models {
        assert!(models.len() <= wire::MODELS_MAX);
        assert!(models.is_sorted_by(|a, b| a.name < b.name), "sorted, and each once");
    }
    for loaded in loaded {
        let models = models.clone().map_or(Part::Failed(Failure::InvalidResponse), Part::Known);
        let loaded = loaded.map_or(Part::Failed(Failure::InvalidResponse), Part::Known);
        reaches_status(HostReport { version: Part::Missing, models, loaded });
    }
    if let Ok(listing) = openai_wire::models(body) {
        assert!(listing.entries.len() <= wire::MODELS_MAX);
        assert!(listing.entries.is_sorted_by(|a, b| a.name < b.name), "sorted, and each once");
        for sleeps in [None, Some(false), Some(true)] {
            let (models, loaded) = (Part::Known(listing.models()), listing.loaded(sleeps));
            if let Part::Known(loaded) = &loaded {
                assert!(loaded.len() <= listing.entries.len());
            }
            reaches_status(HostReport { version: Part::Unknown, models, loaded });
        }
    }
    // What tells whether the server is well, or asleep, says one of few things.
    let _ = (openai_wire::sleeps(body), health::judge(200, body), health::judge(503, body));
}

/// A host that said nothing before says this, and then nothing again.
fn reaches_status(report: HostReport) {
    let empty = HostReport {
        version: Part::Known("0.24.0".into()),
        models: Part::Known(Vec::new()),
        loaded: Part::Known(Vec::new()),
    };
    let online = [empty.clone(), report, empty].map(|report| (HostOutcome::Online(report), Vec::new()));
    assess_all(online.into(), &[]);
}

/// Assesses one poll after the other, and looks at all that comes of each.
pub fn assess_all(polls: Vec<(HostOutcome, Vec<AgentObservation>)>, plugins: &[AgentPlan]) {
    let Ok(spec) = serde_json::from_value::<OllamaServerSpec>(json!({"host": "192.0.2.1"})) else {
        unreachable!("a host is all that a spec needs")
    };
    let acceptance = accept(&spec, &Flags::parse_from(["x"]).poll, &AddressPolicy::default());
    let subject = Subject {
        namespace: "ml",
        name: "s",
        labels: &BTreeMap::new(),
        spec: &spec,
        generation: Some(1),
        acceptance: &acceptance,
        plugins,
        unknown_keys: &[],
        requested_at: None,
    };
    let mut memory = Memory::default();
    for (number, (host, agents)) in (0..).zip(polls) {
        let observation = Observation::Poll { host, agents, requested: false };
        let now = Timestamp::from_second(1_800_000_000 + 10 * number).unwrap_or_default();
        let assessment = assess(memory, subject, observation, now);
        let Assessment { memory: new, transitions } = assessment;
        memory = new;
        let status: &OllamaServerStatus = &memory.status;
        let value = serde_json::to_value(status).unwrap_or_default();
        assert_clean(&value);
        assert_fits(status_schema("OllamaServer"), &value, "status");
        let size = value.to_string().len();
        assert!(size <= STATUS_MAX, "{size} bytes of status");
        // What was written is read again after a restart; times lose what is below a second.
        let read = serde_json::from_value::<OllamaServerStatus>(value.clone());
        assert_eq!(read.ok().and_then(|read| serde_json::to_value(read).ok()), Some(value));
        transitions.iter().for_each(told);
        scraped(&spec, &memory);
    }
}

fn told(transition: &Transition) {
    let event = transition.event();
    assert_clean_text(&event.note);
    assert_clean_text(&event.reason);
    assert!(event.note.len() <= NOTE_MAX, "{} bytes of note", event.note.len());
    assert!(event.reason.len() <= REASON_MAX && !event.reason.is_empty());
    if let Some(path) = &event.field_path {
        assert_clean_text(path);
        assert!(path.len() <= NOTE_MAX + 64, "{} bytes of fieldPath", path.len());
    }
}

/// Prometheus reads all of it, and finds no family that the operator does not have.
fn scraped(spec: &OllamaServerSpec, memory: &Memory) {
    let live = Live::default();
    let object = Arc::new(OllamaServer::new("s", spec.clone()));
    let place = live.enter("uid");
    place.show(publish::snapshot(&object, memory, true, None));
    let text = Metrics::new(&live, 10, &Leadership::always()).expose();
    assert!(
        exposition::unlabelled(exposition::Text { body: text.as_bytes(), seconds: true }, 0).is_ok(),
        "{text}"
    );
    for line in text.lines() {
        assert!(line.starts_with("ollama_fleet_") || line.starts_with('#'), "{line:?}");
        assert_clean_text(line);
    }
}
