//! The plugins that ship with the product, each read against real answers of what it reads.

use crate::support::binaries;
use ollama_fleet_operator::{
    api::{
        FleetPlugin,
        fleet_plugin::{Agent, Reading},
        server_status::Scalar,
    },
    plugins::{
        answer::Answer,
        counters::Counters,
        expression::{Inputs, ServerFacts},
        readings::Readings,
        rules,
        values::{self, AgentValues, Arrival},
    },
};
use serde::Deserialize;
use serde_json::{Value, json};
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// One case of a plugin's `tests/cases.json`; plugins/README.md describes the form.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Case {
    name: String,
    answers: Vec<RecordedAnswer>,
    values: BTreeMap<String, Value>,
    readings: BTreeMap<String, Value>,
    #[serde(default)]
    rules: BTreeSet<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RecordedAnswer {
    file: PathBuf,
    at_seconds: u64,
}

/// Every shipped plugin gives exactly the values, readings and rules that its cases list, and each reading, value and
/// rule that it has is in one of them.
#[test]
fn shipped_plugins_read_real_answers() {
    let mut plugins = 0;
    for entry in fs::read_dir(binaries::repository().join("plugins")).unwrap() {
        let folder = entry.unwrap().path();
        let cases = folder.join("tests/cases.json");
        if !folder.join("plugin.yaml").is_file() {
            continue;
        }
        assert!(cases.is_file(), "{} has no cases", folder.display());
        let manifest = fs::read_to_string(folder.join("plugin.yaml")).unwrap();
        let plugin: FleetPlugin = serde_saphyr::from_str(&manifest).unwrap();
        let cases: Vec<Case> = serde_json::from_str(&fs::read_to_string(cases).unwrap()).unwrap();
        let (mut shown, mut seen, mut held) = (BTreeSet::new(), BTreeSet::new(), BTreeSet::new());
        for case in cases {
            check(&folder, &plugin, &case);
            shown.extend(case.readings.into_keys());
            seen.extend(case.values.into_keys());
            held.extend(case.rules);
        }
        let Agent { values, rules, .. } = plugin.spec.agent.unwrap();
        let named: BTreeSet<String> = values.iter().map(|value| value.name.clone()).collect();
        assert_eq!(seen, named, "{}: every value is in a case", folder.display());
        let named: BTreeSet<String> = rules.into_iter().map(|rule| rule.name).collect();
        assert_eq!(held, named, "{}: every rule holds in a case", folder.display());
        let claimed: BTreeSet<String> =
            values.iter().filter_map(|value| Some(shown_as(value.reading?).as_str().to_owned())).collect();
        assert_eq!(shown, claimed, "{}: every reading is shown by a case", folder.display());
        plugins += 1;
    }
    assert_eq!(plugins, 14, "fleet-metrics and thirteen programs of others");
}

/// The field of status.machine that a reading fills.
fn shown_as(reading: Reading) -> Reading {
    if reading == Reading::UptimeSeconds { Reading::BootTime } else { reading }
}

fn check(folder: &Path, plugin: &FleetPlugin, case: &Case) {
    let context = format!("{}: {}", folder.display(), case.name);
    let agent = plugin.spec.agent.as_ref().unwrap();
    let compiled = values::compile(agent).unwrap_or_else(|error| panic!("{context}: {error}"));
    let rules =
        rules::compile("p", &agent.rules, &compiled).unwrap_or_else(|error| panic!("{context}: {error}"));
    let start = Instant::now();
    // Later than every answer was recorded.
    let clock = "2027-01-01T00:00:00Z".parse().unwrap();
    let mut counters = Counters::default();
    let mut found: Vec<AgentValues> = Vec::new();
    for RecordedAnswer { file, at_seconds } in &case.answers {
        let body = fs::read(folder.join("tests").join(file)).unwrap();
        let answer = Answer::read(agent.format, None, &body, compiled.filter()).unwrap();
        let at = start + Duration::from_secs(*at_seconds);
        found.push(
            compiled.extract(&answer, Arrival { at, clock }, Duration::from_secs(10), &mut counters).unwrap(),
        );
    }
    let last = found.pop().unwrap();
    assert_eq!(last.fault, None, "{context}");
    let values: BTreeMap<String, Value> =
        last.values.iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    assert_eq!(values, case.values, "{context}");
    assert_eq!(readings(&last.readings), case.readings, "{context}");
    let facts = ServerFacts { reachable: true, ..ServerFacts::default() };
    let previous = found.pop();
    let inputs = Inputs {
        values: &last.values,
        previous: previous.as_ref().map(|answer| &answer.values),
        server: Some(&facts),
    };
    let holding: BTreeSet<String> = rules
        .iter()
        .filter(|rule| {
            rule.holds(&inputs).unwrap_or_else(|error| panic!("{context}: {}: {error}", rule.name))
                == Some(true)
        })
        .map(|rule| rule.name.clone())
        .collect();
    assert_eq!(holding, case.rules, "{context}");
}

fn plain(value: &Scalar) -> Value {
    serde_json::to_value(value).unwrap()
}

fn readings(found: &Readings) -> BTreeMap<String, Value> {
    let numbers = [
        Reading::CpuPercent,
        Reading::GpuPercent,
        Reading::CpuTemperatureCelsius,
        Reading::GpuTemperatureCelsius,
        Reading::MemoryTotal,
        Reading::MemoryAvailable,
        Reading::DiskTotal,
        Reading::DiskUsed,
        Reading::DiskUsedPercent,
    ];
    let numbers = numbers.into_iter().filter_map(|reading| Some((reading, json!(found.get(reading)?))));
    let texts = [
        (Reading::Hostname, found.hostname.clone().map(Value::from)),
        (Reading::BootTime, found.boot_time.map(|time| json!(time.to_string()))),
    ];
    let texts = texts.into_iter().filter_map(|(reading, value)| Some((reading, value?)));
    numbers.chain(texts).map(|(reading, value)| (reading.as_str().to_owned(), value)).collect()
}
