//! What must hold of every parser of foreign input, whatever the input is: no panic, and what comes out is bounded and
//! clean. One function a group of parsers, from bytes; it panics if a promise is broken. The unit tests call them with
//! hostile bytes, and `fuzz/` with all that a fuzzer finds. Nothing here is in the operator.

// To panic is how each of them says that a promise is broken.
#![allow(clippy::missing_panics_doc)]

mod agents;
mod hosts;
mod imports;
mod objects;
#[cfg(test)]
mod tests;

pub use agents::{agent_json, agent_text};
pub use hosts::{lists_of_models, version};
pub use imports::{compose, dotenv, plugin_json, servers_json};
pub use objects::{annotation, expression, host, manifest, scalars};

use crate::{api::crd, probe::text::is_hidden};
use serde_json::Value;
use std::sync::LazyLock;

/// No character in any text of it, keys included, moves a cursor, hides itself or turns the direction of writing.
#[track_caller]
fn assert_clean(value: &Value) {
    match value {
        Value::String(text) => assert_clean_text(text),
        Value::Array(items) => items.iter().for_each(assert_clean),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            assert_clean_text(key);
            assert_clean(value);
        }),
        _ => {}
    }
}

#[track_caller]
fn assert_clean_text(text: &str) {
    assert!(!text.contains(is_hidden), "{text:?}");
}

/// The schema of status of a kind, as it is installed.
fn status_schema(kind: &str) -> &'static Value {
    static SCHEMAS: LazyLock<Value> = LazyLock::new(|| {
        let schema = |crd: &_| {
            let crd = serde_json::to_value(crd).unwrap_or_default();
            let kind = crd["spec"]["names"]["kind"].as_str().unwrap_or_default().to_owned();
            (kind, crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["status"].clone())
        };
        crd::all().iter().map(schema).collect::<serde_json::Map<_, _>>().into()
    });
    let schema = &SCHEMAS[kind];
    assert!(schema.is_object(), "{kind} has no schema of status");
    schema
}

/// The lengths and bounds of the schema hold, as the API server would check them.
#[track_caller]
fn assert_fits(schema: &Value, value: &Value, path: &str) {
    let bound = |name: &str| schema[name].as_u64().and_then(|bound| usize::try_from(bound).ok());
    let within = |name: &str, length: usize| {
        assert!(bound(name).is_none_or(|bound| length <= bound), "{path}: {length} is above {name}");
    };
    match value {
        Value::String(text) => {
            within("maxLength", text.chars().count());
            assert!(bound("minLength").is_none_or(|bound| text.chars().count() >= bound), "{path} is empty");
            if let Some(allowed) = schema["enum"].as_array() {
                assert!(allowed.contains(value), "{path}: {value} is none of {allowed:?}");
            }
        }
        Value::Array(items) => {
            within("maxItems", items.len());
            for (index, item) in items.iter().enumerate() {
                assert_fits(&schema["items"], item, &format!("{path}[{index}]"));
            }
        }
        Value::Object(map) => {
            within("maxProperties", map.len());
            for (key, item) in map {
                let field = &schema["properties"][key];
                let schema = if field.is_null() { &schema["additionalProperties"] } else { field };
                assert!(!schema.is_null(), "{path}.{key} is not in the schema");
                assert_fits(schema, item, &format!("{path}.{key}"));
            }
        }
        _ => {}
    }
}
