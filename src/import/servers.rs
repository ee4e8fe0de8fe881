//! The entries of `OLLAMA_SERVERS`: each becomes an `OllamaServer`, or a line that says why not. A bad entry spoils no
//! other.

use super::{
    capacity, hosts,
    manifests::{Maintenance, Object, ServerSpec, Unprintable},
    names::Names,
    report::{Report, describe, quote, steers},
    settings::SERVERS,
};
use crate::api::{
    endpoint::Endpoint,
    ollama_server::{BackendType, Capacity, Poll},
    quantity::Quantity,
};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, btree_map::Entry};

/// The schema's bounds.
const DISPLAY_NAME: usize = 128;
const PORTS: usize = 32;
/// Fields in which people kept a key for the host.
const KEYS: [&str; 4] = ["apiKey", "api_key", "apikey", "token"];
/// Why a server is in maintenance that was disabled.
const DISABLED: &str = "disabled in the old dashboard";

/// What every entry is read with.
pub struct Context<'a> {
    pub namespace: Option<&'a str>,
    pub poll: Option<&'a Poll>,
    /// The fields that are a plugin's port, as they are written in an entry and as they are written in an object.
    pub config_keys: &'a BTreeMap<String, String>,
}

/// The text of `OLLAMA_SERVERS` as a list; the error says where it is wrong and shows nothing of it.
pub fn parse(text: &str) -> Result<Vec<Value>, String> {
    match serde_json::from_str(text) {
        Ok(Value::Array(entries)) => Ok(entries),
        Ok(other) => Err(format!("{SERVERS} must be a JSON array of servers, found {}", kind(&other))),
        Err(error) => Err(format!("{SERVERS} is not valid JSON: {error}")),
    }
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "a list",
        Value::Object(_) => "an object",
    }
}

/// Every entry, in order.
pub fn convert(
    entries: &[Value],
    context: &Context<'_>,
    report: &mut Report,
) -> Result<Vec<Object>, Unprintable> {
    let mut names = Names::default();
    let mut addresses: BTreeMap<String, String> = BTreeMap::new();
    let mut objects = Vec::new();
    for (index, entry) in entries.iter().enumerate() {
        let text = entry.get("name").and_then(Value::as_str).filter(|name| !name.trim().is_empty());
        let subject = text
            .map_or_else(|| format!("servers[{index}]"), |name| format!("servers[{index}] {}", quote(name)));
        // A skipped entry keeps its name too, or mending it would rename those after it.
        let name = names.claim(text.unwrap_or_default(), &format!("server-{index}"));
        let required = match required(entry) {
            Ok(required) => required,
            Err(faults) => {
                report.skipped(subject, faults.join("; "));
                continue;
            }
        };
        let spec = convert_one(&required, &name, context, &subject, report);
        match addresses.entry(address(&required.host.endpoint)) {
            Entry::Occupied(first) => report.check(
                &subject,
                format!(
                    "has the same host as {}; the old dashboard knew only the first, and the operator asks it for one object at a time",
                    first.get()
                ),
            ),
            Entry::Vacant(free) => {
                free.insert(subject);
            }
        }
        objects.push(Object::new("OllamaServer", name, context.namespace, &spec)?);
    }
    Ok(objects)
}

fn address(endpoint: &Endpoint) -> String {
    endpoint.to_string()
}

/// An entry that has what it must have.
struct Required<'a> {
    fields: &'a Map<String, Value>,
    name: &'a str,
    host: hosts::Host,
}

/// That it has a name, and a host that can be written. Every fault is named, not just the first. The old dashboard wanted
/// `ramGb` as well, but nothing here needs it.
fn required(entry: &Value) -> Result<Required<'_>, Vec<String>> {
    let Some(fields) = entry.as_object() else {
        return Err(vec![format!("must be an object, found {}", describe(entry))]);
    };
    let found = |key: &str| fields.get(key).map_or_else(|| "none".to_owned(), describe);
    let text = |key: &str| {
        let text = fields.get(key).and_then(Value::as_str).filter(|text| !text.trim().is_empty());
        text.ok_or_else(|| format!("{key} must be a text that is not blank, found {}", found(key)))
    };
    let name = text("name");
    let host = text("host").and_then(hosts::read);
    match (name, host) {
        (Ok(name), Ok(host)) => Ok(Required { fields, name, host }),
        (name, host) => Err([name.err(), host.err()].into_iter().flatten().collect()),
    }
}

fn convert_one(
    entry: &Required<'_>,
    name: &str,
    context: &Context<'_>,
    subject: &str,
    report: &mut Report,
) -> ServerSpec {
    if let Some(note) = &entry.host.note {
        report.check(subject, note);
    }
    let mut spec = ServerSpec {
        display_name: display_name(entry.name, subject, report).filter(|text| text != name),
        host: entry.host.text.clone(),
        poll: context.poll.cloned(),
        ..ServerSpec::default()
    };
    match memory(entry.fields.get("ramGb")) {
        Ok(memory) => spec.capacity = Some(Capacity { memory: Some(Quantity(memory)), vram: None }),
        Err(why) => report.check(subject, format!("{why}; capacity is left out")),
    }
    for (key, value) in entry.fields {
        match key.as_str() {
            "name" | "host" | "ramGb" => {}
            "isDisabled" => spec.maintenance = maintenance(value, subject, report),
            // The key itself is in no line and in no manifest.
            key if KEYS.contains(&key) && !is_empty(value) => report.check(
                subject,
                format!("{key} is not written: a key belongs into a Secret of the namespace, as token, with the annotation ollama-fleet.io/hosts; name the Secret in spec.secretRef"),
            ),
            key if KEYS.contains(&key) => {}
            "backendType" => spec.backend_type = backend(value, subject, report),
            "maxConcurrent" => report.no_home(
                subject,
                "maxConcurrent: the operator routes no requests, so there is nothing to limit",
            ),
            _ => match context.config_keys.get(key) {
                Some(_) if spec.plugin_ports.len() == PORTS => report
                    .check(subject, format!("{key}: an object has room for {PORTS} ports of plugins; left out")),
                Some(config_key) => match port(value) {
                    Some(port) => {
                        spec.plugin_ports.insert(config_key.clone(), port);
                    }
                    None => report.check(
                        subject,
                        format!(
                            "{key} must be a port from 1 to 65535, or 0 or null for off, found {}; left out, so the plugin is asked on its default port",
                            describe(value)
                        ),
                    ),
                },
                None => report.check(
                    subject,
                    format!("{} is neither a field nor the configKey of a plugin that was read; left out", quote(key)),
                ),
            },
        }
    }
    spec
}

/// `ramGb` as a quantity, or why it is none.
fn memory(ram_gb: Option<&Value>) -> Result<String, String> {
    let found = || ram_gb.map_or_else(|| "none".to_owned(), describe);
    let number = ram_gb.and_then(Value::as_f64).filter(|number| *number > 0.0);
    let number = number.ok_or_else(|| format!("ramGb must be a number above 0, found {}", found()))?;
    capacity::memory(number).map_err(|why| format!("ramGb {} {why}", found()))
}

/// A server that was switched off is polled on, and its Warnings are dropped.
fn maintenance(value: &Value, subject: &str, report: &mut Report) -> Option<Maintenance> {
    match value {
        Value::Bool(true) => Some(Maintenance { reason: DISABLED }),
        Value::Bool(false) | Value::Null => None,
        odd => {
            report.check(
                subject,
                format!("isDisabled must be true or false, found {}; read as false", describe(odd)),
            );
            None
        }
    }
}

fn is_empty(value: &Value) -> bool {
    value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty())
}

/// The name as people wrote it, as far as the schema takes it.
fn display_name(text: &str, subject: &str, report: &mut Report) -> Option<String> {
    let plain: String = text.chars().map(|c| if steers(c) { ' ' } else { c }).collect();
    let cut: String = plain.trim().chars().take(DISPLAY_NAME).collect();
    let shown = cut.trim_end();
    if shown != text.trim() {
        report.check(
            subject,
            format!(
                "displayName takes {DISPLAY_NAME} characters and none that steer a terminal; written as {}",
                quote(shown)
            ),
        );
    }
    (!shown.is_empty()).then(|| shown.to_owned())
}

/// `None`: the default.
fn backend(value: &Value, subject: &str, report: &mut Report) -> Option<BackendType> {
    match value.as_str() {
        Some("ollama") => Some(BackendType::Ollama),
        Some("vllm") => Some(BackendType::Vllm),
        Some("generic") => Some(BackendType::Generic),
        _ if value.is_null() => None,
        _ => {
            report.check(
                subject,
                format!("backendType {} is none of ollama, vllm and generic; written as Ollama, which is how the old dashboard took it", describe(value)),
            );
            Some(BackendType::Ollama)
        }
    }
}

/// `None`: no port.
fn port(value: &Value) -> Option<i32> {
    if value.is_null() {
        return Some(0);
    }
    // 9100.0 is a whole number in JSON.
    let number = value.as_f64().filter(|number| number.fract() == 0.0 && (0.0..=65535.0).contains(number))?;
    #[allow(clippy::cast_possible_truncation)]
    Some(number as i32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::OllamaServer;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::json;

    fn import(entries: Value) -> (Vec<OllamaServer>, Vec<String>) {
        let mut report = Report::default();
        let keys = [("metricsPort", "metricsPort"), ("queue_port", "queuePort")]
            .map(|(old, new)| (old.to_owned(), new.to_owned()));
        let context = Context { namespace: None, poll: None, config_keys: &keys.into() };
        let objects = convert(entries.as_array().unwrap(), &context, &mut report).unwrap();
        let servers = objects.iter().map(|object| {
            let from_yaml: Value = serde_saphyr::from_str(&object.yaml).unwrap();
            assert_eq!(from_yaml, object.json);
            serde_json::from_value::<OllamaServer>(from_yaml).unwrap()
        });
        (servers.collect(), report.findings.iter().map(ToString::to_string).collect())
    }

    fn entry(patch: Value) -> Value {
        let mut entry = json!({"name": "gpu", "host": "192.0.2.1:11434", "ramGb": 16});
        entry.as_object_mut().unwrap().extend(patch.as_object().unwrap().clone());
        entry
    }

    #[test]
    fn a_good_entry_becomes_a_server_without_a_word() {
        let (servers, lines) = import(json!([entry(json!({
            "name": "Server 1", "metricsPort": 9100, "queue_port": null, "backendType": "vllm"
        }))]));
        assert_eq!(lines, [] as [String; 0]);
        let server = &servers[0];
        assert_eq!(server.metadata.name.as_deref(), Some("server-1"));
        assert_eq!(server.spec.display_name.as_deref(), Some("Server 1"));
        assert_eq!(server.spec.backend_type, BackendType::Vllm);
        assert_eq!(server.spec.capacity.as_ref().unwrap().memory, Some(Quantity("16Gi".into())));
        assert_eq!(server.spec.plugin_ports, [("metricsPort".into(), 9100), ("queuePort".into(), 0)].into());
    }

    #[rstest]
    #[case(json!("x"), "must be an object, found \"x\"")]
    #[case(json!(null), "must be an object, found null")]
    #[case(json!({}), "name must be a text that is not blank, found none; host must be a text that is not blank, found none")]
    #[case(entry(json!({"name": " "})), "name must be a text that is not blank, found \" \"")]
    #[case(entry(json!({"name": 7})), "name must be a text that is not blank, found 7")]
    #[case(entry(json!({"host": ""})), "host must be a text that is not blank, found \"\"")]
    #[case(entry(json!({"host": "ftp://x"})), "the scheme of host must be http:// or https://")]
    fn bad_entries_are_skipped_by_index_and_the_others_survive(#[case] bad: Value, #[case] why: &str) {
        let (servers, lines) =
            import(json!([entry(json!({"host": "a:1"})), bad, entry(json!({"host": "b:1"}))]));
        assert_eq!(servers.len(), 2);
        assert_eq!(lines.len(), 1, "{lines:?}");
        assert!(
            lines[0].starts_with("skipped: servers[1]") && lines[0].ends_with(&format!(": {why}")),
            "{lines:?}"
        );
    }

    #[rstest]
    #[case(json!(0), Some(0))]
    #[case(json!(null), Some(0))]
    #[case(json!(9100), Some(9100))]
    #[case(json!(9100.0), Some(9100))]
    #[case(json!(65535), Some(65535))]
    #[case(json!(65536), None)]
    #[case(json!(-1), None)]
    #[case(json!(9100.5), None)]
    #[case(json!("9100"), None)]
    #[case(json!(true), None)]
    #[case(json!([9100]), None)]
    fn ports_are_ports_or_off_or_left_out_with_a_line(#[case] value: Value, #[case] port: Option<i32>) {
        let (servers, lines) = import(json!([entry(json!({"metricsPort": value}))]));
        assert_eq!(servers[0].spec.plugin_ports.get("metricsPort").copied(), port);
        assert_eq!(lines.len(), usize::from(port.is_none()), "{lines:?}");
    }

    /// A server is worth more than a number about it, and a disabled one is a server too.
    #[rstest]
    #[case::absent(json!({"ramGb": null}), "ramGb must be a number above 0, found null; capacity is left out")]
    #[case::text(json!({"ramGb": "16"}), "ramGb must be a number above 0, found \"16\"; capacity is left out")]
    #[case::zero(json!({"ramGb": 0}), "ramGb must be a number above 0, found 0; capacity is left out")]
    #[case::negative(json!({"ramGb": -1.5}), "ramGb must be a number above 0, found -1.5; capacity is left out")]
    #[case::list(json!({"ramGb": [16]}), "ramGb must be a number above 0, found a list; capacity is left out")]
    #[case::disabled(json!({"isDisabled": "yes"}), "isDisabled must be true or false, found \"yes\"; read as false")]
    fn what_is_optional_and_odd_costs_no_server(#[case] patch: Value, #[case] why: &str) {
        let (servers, lines) = import(json!([entry(patch.clone())]));
        assert_eq!(lines, [format!("check: servers[0] \"gpu\": {why}")]);
        assert_eq!(servers[0].spec.capacity.is_none(), patch.get("ramGb").is_some());
        assert_eq!(servers[0].spec.maintenance, None);
    }

    #[test]
    fn an_entry_without_ram_gb_is_a_server() {
        let (servers, lines) = import(json!([{"name": "gpu", "host": "192.0.2.1:11434"}]));
        assert_eq!(servers[0].spec.capacity, None);
        assert!(
            lines[0].ends_with("ramGb must be a number above 0, found none; capacity is left out"),
            "{lines:?}"
        );
    }

    #[test]
    fn a_disabled_server_is_in_maintenance_and_says_why() {
        let (servers, lines) = import(json!([
            entry(json!({"isDisabled": true})),
            entry(json!({"host": "b:1", "isDisabled": false})),
            entry(json!({"host": "c:1", "isDisabled": null})),
        ]));
        let reasons: Vec<_> = servers
            .iter()
            .map(|server| server.spec.maintenance.clone().map(|maintenance| maintenance.reason.unwrap()))
            .collect();
        assert_eq!(reasons, [Some("disabled in the old dashboard".to_owned()), None, None]);
        assert_eq!(lines, [] as [String; 0]);
    }

    #[rstest]
    fn a_key_is_a_hint_at_a_secret_and_never_shown(
        #[values("apiKey", "api_key", "apikey", "token")] field: &str,
        #[values(json!("sk-s3cret"), json!(["sk-s3cret"]), json!(4711))] key: Value,
    ) {
        let (servers, lines) = import(json!([entry(json!({field: key}))]));
        assert_eq!(lines.len(), 1);
        assert!(
            lines[0].starts_with(&format!("check: servers[0] \"gpu\": {field} is not written")),
            "{lines:?}"
        );
        assert!(lines[0].contains("spec.secretRef"), "{lines:?}");
        let printed = format!("{lines:?} {servers:?}");
        assert!(!printed.contains("s3cret") && !printed.contains("4711"), "{printed}");
        assert_eq!(import(json!([entry(json!({field: " "}))])).1.len(), 0, "none was set");
    }

    #[rstest]
    #[case(json!({"backendType": "vLLM"}), "check: servers[0] \"gpu\": backendType \"vLLM\" is none of")]
    #[case(json!({"backendType": 1}), "check: servers[0] \"gpu\": backendType 1 is none of")]
    #[case(json!({"maxConcurrent": 4}), "no home: servers[0] \"gpu\": maxConcurrent: ")]
    #[case(json!({"tags": ["x"]}), "check: servers[0] \"gpu\": \"tags\" is neither a field nor the configKey")]
    #[case(json!({"ramGb": 1e300}), "check: servers[0] \"gpu\": ramGb 1e+300 is more memory than any machine has")]
    #[case(json!({"host": "fd00::1"}), "check: servers[0] \"gpu\": host was read as [fd00::1]:11434")]
    #[case(json!({"name": "a\u{1b}[31mb"}), "check: servers[0] \"a\\u{1b}[31mb\": displayName takes")]
    #[case(json!({"name": "x".repeat(200)}), "check: servers[0] \"xxx")]
    fn doubtful_entries_are_kept_and_reported(#[case] patch: Value, #[case] line: &str) {
        let (servers, lines) = import(json!([entry(patch)]));
        assert_eq!((servers.len(), lines.len()), (1, 1), "{lines:?}");
        assert!(lines[0].starts_with(line), "{lines:?}");
    }

    #[test]
    fn duplicate_names_are_numbered_and_a_skipped_entry_keeps_its_name() {
        let entries = json!([
            entry(json!({"host": "a:1"})),
            entry(json!({"host": "ftp://b"})),
            entry(json!({"host": "c:1"})),
        ]);
        let names: Vec<_> = import(entries).0.into_iter().filter_map(|server| server.metadata.name).collect();
        assert_eq!(names, ["gpu", "gpu-3"]);
    }

    #[test]
    fn the_same_host_twice_is_kept_and_reported() {
        let (servers, lines) = import(json!([
            entry(json!({"host": "GPU1:80"})),
            entry(json!({"name": "b", "host": "http://gpu1"}))
        ]));
        assert_eq!(servers.len(), 2);
        assert!(
            lines[0].starts_with("check: servers[1] \"b\": has the same host as servers[0] \"gpu\""),
            "{lines:?}"
        );
    }

    #[rstest]
    #[case("{}", "found an object")]
    #[case("\"[]\"", "found a string")]
    #[case("[{\"name\": s3cret}]", "at line 1 column 11")]
    #[case("[\n1,\n]", "at line 3 column 1")]
    #[case("", "at line 1 column 0")]
    fn what_is_no_list_is_an_error_with_its_place(#[case] text: &str, #[case] says: &str) {
        let error = parse(text).unwrap_err();
        assert!(error.contains(says) && !error.contains("s3cret"), "{error}");
    }

    fn json_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::from),
            any::<i64>().prop_map(Value::from),
            (-10.0..1e5_f64).prop_map(Value::from),
            any::<f64>().prop_map(Value::from),
            ".{0,12}".prop_map(Value::from),
            "[a-z0-9.:\\[\\]/]{1,20}".prop_map(Value::from),
            prop::collection::vec(any::<u8>(), 0..3).prop_map(Value::from),
        ]
    }

    proptest! {
        #[test]
        fn any_objects_give_only_what_the_parsers_accept(
            entries in prop::collection::vec(prop::collection::btree_map(
                prop_oneof!["name|host|ramGb", "metricsPort|queue_port|backendType|maxConcurrent", ".{0,5}"], json_value(), 0..8), 0..8),
            hosts in prop::collection::vec("[a-z0-9.:]{1,12}", 8),
        ) {
            // Half of them have what is required, or little would get through.
            let entries: Vec<_> = entries.into_iter().zip(hosts).enumerate().map(|(index, (fields, host))| {
                let mut entry = json!(fields);
                if index % 2 == 0 {
                    let fields = entry.as_object_mut().unwrap();
                    fields.extend(json!({"name": format!("n {host}"), "host": host, "ramGb": index + 1}).as_object().unwrap().clone());
                }
                entry
            }).collect();
            let count = entries.len();
            let (servers, lines) = import(Value::Array(entries));
            prop_assert_eq!(servers.len() + lines.iter().filter(|line| line.starts_with("skipped: ")).count(), count);
            for server in servers {
                prop_assert!(Endpoint::parse(&server.spec.host).is_ok(), "{}", server.spec.host);
                prop_assert!(server.spec.plugin_ports.values().all(|port| (0..=65535).contains(port)));
                let memory = server.spec.capacity.and_then(|capacity| capacity.memory);
                prop_assert!(memory.is_none_or(|memory| memory.value().is_some_and(|value| value > 0.0)));
                prop_assert!(server.spec.display_name.is_none_or(|text| !text.is_empty() && text.chars().count() <= 128 && !text.chars().any(steers)));
            }
            prop_assert!(lines.iter().all(|line| !line.chars().any(steers)), "{lines:?}");
        }
    }
}
