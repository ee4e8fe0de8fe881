//! Values out of an agent's JSON: compiled once when a plugin is accepted, applied to each answer. Pure.
//!
//! What is missing or null is absent and never 0. Only numbers and booleans come through; text only as a parsed time
//! or host name, so that an agent does not become a way to read other services.

use super::{path_cost, readings::Readings};
use crate::api::{
    fleet_plugin::{Reading, Reduce, Value as ValueSpec, ValueType},
    server_status::{PLUGIN_VALUES_MAX, Scalar},
};
use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::Value as Json;
use serde_json_path::JsonPath;
use std::collections::BTreeMap;

/// Matches of one path that are looked at; a machine has a handful of sensors of one kind.
const MATCHES_MAX: usize = 64;
/// Depth to which numbers are collected when a plugin names no values.
const COLLECT_DEPTH: usize = 4;
/// Longest host name, by DNS.
const HOSTNAME_MAX: usize = 253;

/// Why a value cannot be compiled; the text names the value and says what is wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ValueError {
    #[error("value {value}: the JSON path {path} is invalid at position {position}: {message}")]
    Path { value: String, path: String, position: usize, message: String },
    #[error("value {value}: the multiplier is not a quantity above 0")]
    Multiplier { value: String },
    #[error("value {value}: the reading {reading:?} needs type {needed:?}")]
    ReadingType { value: String, reading: Reading, needed: ValueType },
    #[error("values {first} and {second} feed the same reading {reading:?}")]
    ReadingTwice { first: String, second: String, reading: Reading },
}

/// A value of a plugin, ready to be applied to answers.
#[derive(Debug)]
struct CompiledValue {
    name: String,
    type_: ValueType,
    paths: Vec<JsonPath>,
    reduce: Reduce,
    multiplier: f64,
    reading: Option<Reading>,
}

/// All values of a plugin.
#[derive(Debug)]
pub struct CompiledValues(Vec<CompiledValue>);

/// What one answer said.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct AgentValues {
    pub values: BTreeMap<String, Scalar>,
    pub readings: Readings,
}

impl CompiledValues {
    pub fn compile(specs: &[ValueSpec]) -> Result<Self, ValueError> {
        let mut compiled: Vec<CompiledValue> = Vec::with_capacity(specs.len());
        for spec in specs {
            let value = compile_one(spec)?;
            let twin =
                compiled.iter().find(|other| other.reading.is_some() && other.reading == value.reading);
            if let (Some(twin), Some(reading)) = (twin, value.reading) {
                return Err(ValueError::ReadingTwice {
                    first: twin.name.clone(),
                    second: value.name,
                    reading,
                });
            }
            compiled.push(value);
        }
        Ok(Self(compiled))
    }

    /// Applies the values to an answer; without any, keeps its numbers and booleans.
    pub fn extract(&self, answer: &Json) -> AgentValues {
        if self.0.is_empty() {
            let mut values = BTreeMap::new();
            collect(answer, "", 0, &mut values);
            return AgentValues { values, readings: Readings::default() };
        }
        let mut found = AgentValues::default();
        for value in &self.0 {
            let Some(scalar) = value.extract(answer) else { continue };
            if let Some(reading) = value.reading {
                feed(&mut found.readings, reading, &scalar);
            }
            found.values.insert(value.name.clone(), scalar);
        }
        found
    }
}

fn compile_one(spec: &ValueSpec) -> Result<CompiledValue, ValueError> {
    let mut paths = Vec::with_capacity(spec.json_paths.len());
    for path in &spec.json_paths {
        if let Some((position, message)) = path_cost::too_dear(path) {
            return Err(ValueError::Path {
                value: spec.name.clone(),
                path: path.clone(),
                position,
                message: message.to_owned(),
            });
        }
        paths.push(JsonPath::parse(path).map_err(|error| ValueError::Path {
            value: spec.name.clone(),
            path: path.clone(),
            position: error.position(),
            message: error.message().to_owned(),
        })?);
    }
    let multiplier = match &spec.multiplier {
        None => 1.0,
        Some(quantity) => quantity
            .value()
            .filter(|factor| *factor > 0.0)
            .ok_or_else(|| ValueError::Multiplier { value: spec.name.clone() })?,
    };
    if let Some(reading) = spec.reading {
        let needed = match reading {
            Reading::Hostname => ValueType::Hostname,
            Reading::BootTime => ValueType::Time,
            _ => ValueType::Integer,
        };
        if spec.type_ != needed {
            return Err(ValueError::ReadingType { value: spec.name.clone(), reading, needed });
        }
    }
    Ok(CompiledValue {
        name: spec.name.clone(),
        type_: spec.type_,
        paths,
        reduce: spec.reduce,
        multiplier,
        reading: spec.reading,
    })
}

impl CompiledValue {
    /// The first path with a usable match counts.
    fn extract(&self, answer: &Json) -> Option<Scalar> {
        self.paths.iter().find_map(|path| {
            let matches = path.query(answer);
            let mut usable = matches.iter().take(MATCHES_MAX).copied();
            match self.type_ {
                ValueType::Integer => {
                    let reduced = self.reduce(usable.filter_map(Json::as_f64))?;
                    round(reduced * self.multiplier).map(Scalar::Integer)
                }
                ValueType::Boolean => usable.find_map(Json::as_bool).map(Scalar::Boolean),
                ValueType::Time => usable.find_map(time_of).map(|time| Scalar::Text(seconds(time))),
                ValueType::Hostname => usable.find_map(|value| hostname(value.as_str()?)).map(Scalar::Text),
            }
        })
    }

    fn reduce(&self, mut numbers: impl Iterator<Item = f64>) -> Option<f64> {
        match self.reduce {
            Reduce::First => numbers.next(),
            Reduce::Sum => numbers.fold(None, |sum, number| Some(sum.unwrap_or(0.0) + number)),
            Reduce::Max => numbers.reduce(f64::max),
            Reduce::Min => numbers.reduce(f64::min),
        }
    }
}

fn feed(readings: &mut Readings, reading: Reading, scalar: &Scalar) {
    match (reading, scalar) {
        (Reading::Hostname, Scalar::Text(name)) => readings.hostname = Some(name.clone()),
        (Reading::BootTime, Scalar::Text(time)) => readings.boot_time = time.parse().ok(),
        (_, Scalar::Integer(number)) => readings.set(reading, *number),
        _ => {}
    }
}

/// Half away from zero, as people round; what does not fit 64 bits is no value.
fn round(number: f64) -> Option<i64> {
    let rounded = number.round();
    #[allow(clippy::cast_possible_truncation)]
    (rounded.is_finite() && rounded.abs() < 9.2e18).then_some(rounded as i64)
}

/// RFC 3339, or a date and time without a zone, which means UTC, or seconds since 1970.
fn time_of(value: &Json) -> Option<Timestamp> {
    match value {
        Json::Number(number) => {
            let seconds = round(number.as_f64()?)?;
            (seconds > 0).then(|| Timestamp::from_second(seconds).ok())?
        }
        Json::String(text) if text.len() <= 64 => text.parse().ok().or_else(|| {
            let local: DateTime = text.parse().ok()?;
            Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
        }),
        _ => None,
    }
}

fn seconds(time: Timestamp) -> String {
    time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}

fn hostname(text: &str) -> Option<String> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let text = text.trim();
    (text.len() <= HOSTNAME_MAX && text.split('.').all(label)).then(|| text.to_owned())
}

/// Numbers and booleans in the order of their sorted keys, nested names joined in camel case.
fn collect(value: &Json, name: &str, depth: usize, values: &mut BTreeMap<String, Scalar>) {
    if values.len() >= PLUGIN_VALUES_MAX || depth > COLLECT_DEPTH {
        return;
    }
    match value {
        Json::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            for key in keys {
                collect(&map[key], &joined(name, key), depth + 1, values);
            }
        }
        Json::Array(items) => {
            for (index, item) in items.iter().enumerate().take(PLUGIN_VALUES_MAX) {
                collect(item, &joined(name, &index.to_string()), depth + 1, values);
            }
        }
        Json::Bool(truth) if !name.is_empty() => {
            values.insert(name.to_owned(), Scalar::Boolean(*truth));
        }
        Json::Number(number) if !name.is_empty() => {
            if let Some(integer) = number.as_f64().and_then(round) {
                values.insert(name.to_owned(), Scalar::Integer(integer));
            }
        }
        _ => {}
    }
}

/// `cpu_percent` at the top is `cpuPercent`; `total_mb` under `memory` is `memoryTotalMb`.
fn joined(prefix: &str, key: &str) -> String {
    let mut name = prefix.to_owned();
    for word in key.split(|c: char| !c.is_ascii_alphanumeric()).filter(|word| !word.is_empty()) {
        let (head, tail) = word.split_at(1);
        let head = if name.is_empty() { head.to_ascii_lowercase() } else { head.to_ascii_uppercase() };
        name.push_str(&head);
        name.push_str(tail);
    }
    name.truncate(63);
    name
}

#[cfg(test)]
#[path = "values_tests.rs"]
mod tests;
