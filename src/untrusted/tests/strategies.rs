//! How hostile input is put together from its pieces.

use super::pieces::{CEL, WORDS};
use proptest::{prelude::*, sample::select};
use serde_json::{Map, Number, Value, json};

pub fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::collection::vec(select(&WORDS[..]), 0..6).prop_map(|words| words.concat()),
        2 => any::<String>(),
        1 => (select(&WORDS[..]), 100..2000_usize).prop_map(|(word, times)| word.repeat(times)),
    ]
}

/// Numbers as hosts may write them, from far below zero to beyond all range.
pub fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| Number::from_f64(number).map_or(Value::Null, Value::Number)),
        select(&[0_i64, 1, -1, i64::MAX, i64::MIN, 1 << 53][..]).prop_map(Value::from),
    ]
}

pub fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => word().prop_map(Value::from),
        2 => number(),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => select(&["2026-01-01T00:00:00.5-07:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00"][..]).prop_map(Value::from),
    ]
}

/// Any JSON, with these keys more often than others.
pub fn json(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    leaf().prop_recursive(4, 48, 8, move |inner| {
        let key = prop_oneof![3 => select(keys).prop_map(str::to_owned), 1 => word()];
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..8).prop_map(Value::Array),
            prop::collection::vec((key, inner), 0..8)
                .prop_map(|fields| Value::Object(fields.into_iter().collect::<Map<_, _>>())),
        ]
    })
}

/// A list under a key, of objects with these keys: what the parsers take, with anything in it.
pub fn list(under: &'static str, keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
    let entry = prop::collection::vec(json(keys), keys.len()).prop_map(move |values| {
        Value::Object(keys.iter().map(|key| (*key).to_owned()).zip(values).collect::<Map<_, _>>())
    });
    prop::collection::vec(prop_oneof![6 => entry, 1 => json(keys)], 0..12).prop_map(
        move |items| match under {
            "" => Value::Array(items),
            _ => json!({ under: items }),
        },
    )
}

/// Well-formed text that was cut, doubled, or had some bytes changed.
pub fn spoiled(text: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<u8>> {
    let text = text.prop_map(|json| json.to_string().into_bytes());
    (
        text,
        prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..3),
        any::<prop::sample::Index>(),
        0..5_u8,
    )
        .prop_map(|(mut text, changes, cut, how)| {
            if how == 0 {
                for (place, byte) in changes {
                    let place = place.index(text.len());
                    text[place] = byte;
                }
            } else if how == 1 {
                text.truncate(cut.index(text.len()));
            }
            text
        })
}

/// Bytes, text, and lines of what is given.
pub fn text_of(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![4 => select(pieces).prop_map(str::to_owned), 1 => word()];
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => any::<String>().prop_map(String::into_bytes),
        4 => prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

/// A spec that is nearly valid: what is right around one thing that is hostile.
pub fn agent_spec() -> impl Strategy<Value = Value> {
    (leaf(), word(), text_of(CEL), any::<bool>()).prop_map(|(anything, word, cel, of_value)| {
        let cel = String::from_utf8_lossy(&cel).into_owned();
        let (value, rule) = if of_value { (anything, json!(cel)) } else { (json!("$.a"), anything) };
        json!({"type": "Agent", "version": "1.0.0", "dependencies": {"platform": word},
            "agent": {"defaultPort": 9100, "endpoint": "/metrics",
                "values": [{"name": "a", "type": "Integer", "jsonPaths": [value]},
                    {"name": "b", "type": "Integer", "expression": cel}],
                "rules": [{"name": "Hot", "when": rule, "as": "Condition", "severity": "Warning", "message": word}]}})
    })
}
