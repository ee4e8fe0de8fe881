//! What is kept of an answer when its plugin names no values: numbers and booleans, few and in stable order. Pure.

use crate::{
    api::server_status::{PLUGIN_VALUES_MAX, Scalar},
    plugins::number::round,
};
use serde_json::Value as Json;
use std::collections::BTreeMap;

/// Depth to which numbers are looked for.
const DEPTH: usize = 4;
/// Longest name of a value, as for those that a plugin names.
const NAME_MAX: usize = 63;

/// Numbers and booleans in the order of their sorted keys, nested names joined in camel case; and whether there is any,
/// or at least one that is not known.
pub fn of_json(answer: &Json) -> (BTreeMap<String, Scalar>, bool) {
    let mut found = Found::default();
    found.collect(answer, "", 0);
    let any = found.unknown || !found.values.is_empty();
    (found.values, any)
}

#[derive(Default)]
struct Found {
    values: BTreeMap<String, Scalar>,
    /// Something is null.
    unknown: bool,
}

/// Samples, by the names of their metrics.
pub fn of_samples(samples: &BTreeMap<String, f64>) -> BTreeMap<String, Scalar> {
    let named = samples.iter().filter_map(|(name, number)| {
        Some((joined("", name), Scalar::Integer(round(*number)?))).filter(|(name, _)| !name.is_empty())
    });
    named.take(PLUGIN_VALUES_MAX).collect()
}

impl Found {
    fn collect(&mut self, value: &Json, name: &str, depth: usize) {
        if self.values.len() >= PLUGIN_VALUES_MAX || depth > DEPTH {
            return;
        }
        match value {
            Json::Object(map) => {
                let mut keys: Vec<&String> = map.keys().collect();
                keys.sort();
                for key in keys {
                    self.collect(&map[key], &joined(name, key), depth + 1);
                }
            }
            Json::Array(items) => {
                for (index, item) in items.iter().enumerate().take(PLUGIN_VALUES_MAX) {
                    self.collect(item, &joined(name, &index.to_string()), depth + 1);
                }
            }
            Json::Bool(truth) if !name.is_empty() => {
                self.values.insert(name.to_owned(), Scalar::Boolean(*truth));
            }
            Json::Number(number) if !name.is_empty() => {
                if let Some(integer) = number.as_f64().and_then(round) {
                    self.values.insert(name.to_owned(), Scalar::Integer(integer));
                }
            }
            Json::Null if !name.is_empty() => self.unknown = true,
            _ => {}
        }
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
    name.truncate(NAME_MAX);
    name
}
