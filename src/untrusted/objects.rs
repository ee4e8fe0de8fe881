//! What stands in objects: host strings, durations, quantities, annotations, and whole plugins with their expressions.

use super::{assert_clean_text, assert_fits, status_schema};
use crate::{
    api::{
        FleetPlugin, REQUESTED_AT_MAX, duration,
        endpoint::{Endpoint, Host},
        fleet_plugin::{FleetPluginSpec, ValueType},
        quantity::Quantity,
        server_status::Scalar,
    },
    controller::plugin::validate,
    plugins::{
        expression::{Expression, Inputs, Scope, ServerFacts, Wanted},
        version_range::VersionRange,
    },
    probe::text::clean,
};
use serde_json::json;
use std::{collections::BTreeMap, str, time::Duration};

/// The longest message of ours about an object; far below the API server's bound.
const MESSAGE_MAX: usize = 1024;

/// `spec.host`.
pub fn host(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    let Ok(endpoint) = Endpoint::parse(text) else { return };
    let url = endpoint.to_string();
    assert_clean_text(&url);
    assert!(url.is_ascii() && url.len() <= text.len() + "http://:11434".len(), "{url}");
    assert_eq!(Endpoint::parse(&url).as_ref(), Ok(&endpoint));
    // The client must go where the check was, and nowhere else.
    let parsed = url::Url::parse(&url).ok();
    let same = parsed.is_none_or(|parsed| {
        let port = parsed.port_or_known_default() == Some(endpoint.port);
        let host = match (&endpoint.host, parsed.host()) {
            (Host::Ip(address), Some(url::Host::Ipv4(other))) => *address == other,
            (Host::Ip(address), Some(url::Host::Ipv6(other))) => *address == other,
            (Host::Name(name), Some(url::Host::Domain(other))) => name == other,
            _ => false,
        };
        port && host && parsed.username().is_empty() && parsed.password().is_none()
    });
    assert!(same, "{url} leads elsewhere");
}

/// Durations, quantities, times and ranges of versions.
pub fn scalars(text: &[u8]) {
    let Ok(text) = str::from_utf8(text) else { return };
    if let Some(duration) = duration::parse(text) {
        assert!(duration <= Duration::from_hours(3 * 99_999));
    }
    let quantity = Quantity(text.to_owned());
    assert!(quantity.value().is_none_or(f64::is_finite));
    if let Some(bytes) = quantity.bytes() {
        let again = Quantity::from_bytes_mi(bytes);
        assert!(again.bytes().is_some_and(|rounded| rounded >= bytes), "{text}");
    }
    if let Err(error) = VersionRange::parse(text) {
        assert!(error.to_string().len() <= MESSAGE_MAX);
    }
}

/// An annotation that is echoed.
pub fn annotation(value: &[u8]) {
    let value = String::from_utf8_lossy(value);
    let echoed = clean(&value, REQUESTED_AT_MAX);
    assert_clean_text(&echoed);
    assert!(echoed.chars().count() <= REQUESTED_AT_MAX);
    assert_eq!(clean(&echoed, REQUESTED_AT_MAX), echoed);
}

/// An expression, compiled for each use, and run on values that are there and on none.
pub fn expression(source: &[u8]) {
    let Ok(source) = str::from_utf8(source) else { return };
    let types = [
        ("a", ValueType::Integer),
        ("b", ValueType::Boolean),
        ("t", ValueType::Time),
        ("h", ValueType::Hostname),
    ];
    let some: BTreeMap<String, Scalar> = [
        ("a", Scalar::Integer(i64::MIN)),
        ("b", Scalar::Boolean(true)),
        ("t", Scalar::Text("2026-01-01T00:00:00Z".into())),
        ("h", Scalar::Text("gpu1".into())),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    let none = BTreeMap::new();
    let facts = ServerFacts::default();
    for (open, rule) in [(false, false), (true, false), (false, true)] {
        let scope = Scope { values: &types, open, rule };
        for wanted in [Wanted::Boolean, Wanted::Number] {
            let compiled = match Expression::compile(source, &scope, wanted) {
                Ok(compiled) => compiled,
                Err(error) => {
                    // It is cleaned where a refusal is made of it.
                    assert!(error.to_string().len() <= 4 * MESSAGE_MAX, "{error}");
                    continue;
                }
            };
            for values in [&some, &none] {
                let inputs = Inputs { values, previous: Some(&some), server: Some(&facts) };
                if let Ok(Some(number)) = compiled.number(&inputs) {
                    assert!(number.is_finite());
                }
                if let Err(error) = compiled.boolean(&inputs) {
                    message(&error.to_string());
                }
            }
        }
    }
}

/// The spec of a `FleetPlugin`, as JSON.
pub fn manifest(spec: &[u8]) {
    let Ok(spec) = serde_json::from_slice::<FleetPluginSpec>(spec) else { return };
    let plugin = FleetPlugin::new("p", spec);
    match validate::validate(&plugin) {
        Ok(valid) => {
            assert!(valid.active.default_port > 0 && valid.active.path.starts_with('/'));
        }
        Err(refused) => {
            message(&refused.message);
            let condition = json!({"conditions": [{"type": "Accepted", "status": "False",
                "reason": refused.reason, "message": refused.message}]});
            assert_fits(status_schema("FleetPlugin"), &condition, "status");
        }
    }
}

/// What people read in a condition.
#[track_caller]
fn message(text: &str) {
    assert_clean_text(text);
    assert!(text.chars().count() <= MESSAGE_MAX, "{} characters of message", text.chars().count());
}
