//! Values from answers: the table of types, multipliers and absences, and the shipped plugin on real answers.

use super::*;
use crate::api::FleetPlugin;
use rstest::rstest;
use serde_json::json;

fn spec(type_: &str, paths: &[&str], extra: Json) -> ValueSpec {
    let mut value = json!({"name": "v", "type": type_, "jsonPaths": paths});
    value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    serde_json::from_value(value).unwrap()
}

fn one(spec: &ValueSpec, answer: &Json) -> Option<Scalar> {
    CompiledValues::compile(std::slice::from_ref(spec)).unwrap().extract(answer).values.remove("v")
}

#[rstest]
#[case::float_rounds_half_away("Integer", json!(52.5), json!({}), Some(Scalar::Integer(53)))]
#[case::negative_rounds_half_away("Integer", json!(-2.5), json!({}), Some(Scalar::Integer(-3)))]
#[case::mebibytes("Integer", json!(24105.6), json!({"multiplier": "1Mi"}), Some(Scalar::Integer(25_276_553_626)))]
#[case::milli("Integer", json!(1500), json!({"multiplier": "1m"}), Some(Scalar::Integer(2)))]
#[case::null_is_absent("Integer", json!(null), json!({}), None)]
#[case::text_is_no_number("Integer", json!("52"), json!({}), None)]
#[case::too_large("Integer", json!(1e300), json!({}), None)]
#[case::boolean("Boolean", json!(true), json!({}), Some(Scalar::Boolean(true)))]
#[case::number_is_no_boolean("Boolean", json!(1), json!({}), None)]
#[case::rfc3339("Time", json!("2025-05-10T08:06:48.25-07:00"), json!({}), Some(Scalar::Text("2025-05-10T15:06:48Z".into())))]
#[case::time_without_zone_is_utc("Time", json!("2025-05-10T08:06:48.123456"), json!({}), Some(Scalar::Text("2025-05-10T08:06:48Z".into())))]
#[case::seconds("Time", json!(1_746_864_408.7), json!({}), Some(Scalar::Text("2025-05-10T08:06:49Z".into())))]
#[case::prose_is_no_time("Time", json!("yesterday"), json!({}), None)]
#[case::hostname("Hostname", json!("gpu-1.lab"), json!({}), Some(Scalar::Text("gpu-1.lab".into())))]
#[case::prose_is_no_hostname("Hostname", json!("secret token: abc"), json!({}), None)]
fn types(#[case] type_: &str, #[case] value: Json, #[case] extra: Json, #[case] expected: Option<Scalar>) {
    assert_eq!(one(&spec(type_, &["$.x"], extra), &json!({"x": value})), expected);
}

#[test]
fn the_first_path_with_a_usable_match_counts() {
    let spec = spec("Integer", &["$.a", "$.b", "$.c"], json!({}));
    assert_eq!(one(&spec, &json!({"a": null, "b": 2, "c": 3})), Some(Scalar::Integer(2)));
}

#[rstest]
#[case("First", 1)]
#[case("Sum", 6)]
#[case("Max", 3)]
#[case("Min", 1)]
fn several_matches_are_reduced(#[case] reduce: &str, #[case] expected: i64) {
    let spec = spec("Integer", &["$.t[*]"], json!({"reduce": reduce}));
    assert_eq!(one(&spec, &json!({"t": [1, 3, null, 2]})), Some(Scalar::Integer(expected)));
}

#[test]
fn a_bad_path_is_named_with_its_position() {
    let error = CompiledValues::compile(&[spec("Integer", &["$.a["], json!({}))]).unwrap_err();
    assert!(error.to_string().starts_with("value v: the JSON path $.a[ is invalid at position"), "{error}");
}

#[test]
fn without_values_numbers_and_booleans_are_kept_in_stable_order() {
    let answer = json!({"b": 2.6, "a_c": {"x": true, "y": "text"}, "list": [1, "two"], "n": null});
    let values = CompiledValues::compile(&[]).unwrap().extract(&answer).values;
    let names: Vec<&str> = values.keys().map(String::as_str).collect();
    assert_eq!(names, ["aCX", "b", "list0"]);
    let many: Json =
        (0..100).map(|i| (format!("k{i:03}"), json!(i))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(CompiledValues::compile(&[]).unwrap().extract(&many).values.len(), PLUGIN_VALUES_MAX);
}

fn shipped() -> CompiledValues {
    let text = std::fs::read_to_string("plugins/fleet-metrics/plugin.yaml").unwrap();
    let plugin: FleetPlugin = serde_saphyr::from_str(&text).unwrap();
    CompiledValues::compile(&plugin.spec.agent.unwrap().values).unwrap()
}

#[rstest]
#[case::ours("plugins/fleet-metrics/tests/answer-current.json")]
#[case::already_installed("plugins/fleet-metrics/tests/answer-older-agent.json")]
fn the_shipped_plugin_reads_every_agent_out_there(#[case] file: &str) {
    let answer: Json = serde_json::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    let found = shipped().extract(&answer);
    assert!(found.readings.hostname.is_some() && found.readings.boot_time.is_some());
    for reading in [
        Reading::CpuPercent,
        Reading::GpuPercent,
        Reading::CpuTemperatureCelsius,
        Reading::GpuTemperatureCelsius,
        Reading::MemoryTotal,
        Reading::MemoryAvailable,
        Reading::DiskTotal,
        Reading::DiskUsed,
    ] {
        assert!(found.readings.get(reading).is_some(), "{reading:?} is missing");
    }
    assert!(found.readings.disk_used_percent().is_some() && found.values.len() <= PLUGIN_VALUES_MAX);
}
