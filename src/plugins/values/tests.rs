//! Values from answers: the tables of sources, types, multipliers, rates and absences.

use super::*;
use crate::{
    api::fleet_plugin::{Agent, AgentFormat},
    probe::Failure,
};
use rstest::rstest;
use serde_json::{Value as Json, json};

fn compiled(format: &str, values: Json) -> Result<CompiledValues, ValueError> {
    let agent = json!({"defaultPort": 1, "endpoint": "/", "format": format, "values": values});
    compile(&serde_json::from_value::<Agent>(agent).unwrap())
}

/// The answers of an agent, ten seconds apart, each read by the same values.
fn answers(values: &CompiledValues, bodies: &[&str]) -> Vec<Result<AgentValues, AgentFailure>> {
    let start = Instant::now();
    let mut counters = Counters::default();
    let read = bodies.iter().enumerate().map(|(index, body)| {
        let at = start + Duration::from_secs(10 * index as u64);
        let answer = Answer::read(AgentFormat::Auto, None, body.as_bytes(), values.filter())?;
        values.extract(&answer, Arrival { at, clock: now() }, Duration::from_secs(10), &mut counters)
    });
    read.collect()
}

/// When all answers came, by the clock on the wall.
fn now() -> Timestamp {
    "2026-11-22T12:00:00Z".parse().unwrap()
}

fn last(values: &CompiledValues, bodies: &[&str]) -> BTreeMap<String, Scalar> {
    answers(values, bodies).pop().unwrap().map(|found| found.values).unwrap_or_default()
}

fn integers(found: &BTreeMap<String, Scalar>) -> Vec<(&str, i64)> {
    let integer = |value: &Scalar| match value {
        Scalar::Integer(number) => *number,
        other => panic!("{other:?} is no number"),
    };
    found.iter().map(|(name, value)| (name.as_str(), integer(value))).collect()
}

fn spec(type_: &str, paths: &[&str], extra: Json) -> Json {
    let mut value = json!({"name": "v", "type": type_, "jsonPaths": paths});
    value.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    value
}

fn one(spec: &Json, answer: &Json) -> Option<Scalar> {
    last(&compiled("Auto", json!([spec])).unwrap(), &[&answer.to_string()]).remove("v")
}

#[rstest]
#[case::float_rounds_half_away("Integer", json!(52.5), json!({}), Some(Scalar::Integer(53)))]
#[case::negative_rounds_half_away("Integer", json!(-2.5), json!({}), Some(Scalar::Integer(-3)))]
#[case::mebibytes("Integer", json!(24105.6), json!({"multiplier": "1Mi"}), Some(Scalar::Integer(25_276_553_626)))]
#[case::milli("Integer", json!(1500), json!({"multiplier": "1m"}), Some(Scalar::Integer(2)))]
#[case::null_is_absent("Integer", json!(null), json!({}), None)]
// netdata 1.37 and Home Assistant 2024 send numbers as texts, and what they do not know as words.
#[case::text_that_is_a_number("Integer", json!("52.5"), json!({}), Some(Scalar::Integer(53)))]
#[case::text_that_is_none("Integer", json!("52 °C"), json!({}), None)]
#[case::word("Integer", json!("unavailable"), json!({}), None)]
#[case::truth_is_no_number("Integer", json!(true), json!({}), None)]
#[case::seconds_as_text("Time", json!("1746864408.7"), json!({}), Some(Scalar::Text("2025-05-10T08:06:49Z".into())))]
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
#[case("First", json!([1, 3, 2, {}]), Some(1))]
#[case("Sum", json!([1, 3, 2, {}]), Some(6))]
#[case("Max", json!([1, 3, 2, {}]), Some(3))]
#[case("Min", json!([1, 3, 2, {}]), Some(1))]
#[case::first_that_is_known("First", json!([null, 3, 2]), Some(3))]
#[case::a_sum_with_null("Sum", json!([1, 3, null, 2]), None)]
#[case::a_sum_with_text("Sum", json!([1, "[N/A]"]), None)]
#[case::a_sum_of_texts("Sum", json!(["1", "2.5"]), Some(4))]
#[case::the_largest_that_is_known("Max", json!([1, null, 2]), Some(2))]
#[case::the_smallest_that_is_known("Min", json!([1, null, 2]), Some(1))]
#[case::nothing_known("Sum", json!([null]), None)]
fn several_matches_are_reduced(#[case] reduce: &str, #[case] list: Json, #[case] expected: Option<i64>) {
    let spec = spec("Integer", &["$.t[*]"], json!({"reduce": reduce}));
    assert_eq!(one(&spec, &json!({"t": list})), expected.map(Scalar::Integer));
}

/// Where a GPU does not tell its power, `nvidia-smi` has `[N/A]`, and exporters NaN or null: the sum over the others is
/// no sum. An agent that answers so is well.
#[rstest]
#[case::json("Auto", json!({"jsonPaths": ["$.value"]}), "{\"value\": null}")]
#[case::text_in_json("Auto", json!({"jsonPaths": ["$.value"]}), "{\"value\": \"unavailable\"}")]
#[case::literal("Auto", json!({"jsonPaths": ["$.value"]}), "{\"value\": NaN}")]
#[case::rate("Auto", json!({"jsonPaths": ["$.value"], "rate": true}), "{\"value\": null}")]
#[case::series("Auto", json!({"metric": {"name": "value"}}), "value NaN\n")]
#[case::sum("Auto", json!({"metric": {"name": "value"}, "reduce": "Sum"}), "value{gpu=\"0\"} 4\nvalue{gpu=\"1\"} NaN\n")]
#[case::sum_of_rates("Auto", json!({"metric": {"name": "value"}, "reduce": "Sum", "rate": true}), "value{gpu=\"0\"} 4\nvalue{gpu=\"1\"} NaN\n")]
fn what_the_agent_does_not_know_is_absent_and_no_failure(
    #[case] format: &str,
    #[case] value: Json,
    #[case] body: &str,
) {
    let mut spec = json!({"name": "v"});
    spec.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    for values in [json!([spec]), json!([])] {
        let values_are_named = values != json!([]);
        let found = answers(&compiled(format, values).unwrap(), &[body, body]);
        // What has labels, and text, is nothing that is kept without being named.
        let unnamed = !values_are_named && (body.contains("gpu") || body.contains("unavailable"));
        assert!(found.iter().all(Result::is_ok) || unnamed, "{found:?}");
        let values = found.last().unwrap().as_ref().map(|found| found.values.clone()).unwrap_or_default();
        assert!(!values.contains_key("v"), "{values:?}");
    }
}

#[test]
fn without_values_numbers_and_booleans_are_kept_in_stable_order() {
    let none = compiled("Auto", json!([])).unwrap();
    let answer = json!({"b": 2.6, "a_c": {"x": true, "y": "text"}, "list": [1, "two"], "n": null});
    let names: Vec<String> = last(&none, &[&answer.to_string()]).into_keys().collect();
    assert_eq!(names, ["aCX", "b", "list0"]);
    let many: Json =
        (0..100).map(|i| (format!("k{i:03}"), json!(i))).collect::<serde_json::Map<_, _>>().into();
    assert_eq!(last(&none, &[&many.to_string()]).len(), PLUGIN_VALUES_MAX);
    let text = "b_total 2.6\na{x=\"secret\"} 7\nnan NaN\nc 1\n";
    assert_eq!(integers(&last(&none, &[text])), [("bTotal", 3), ("c", 1)], "text of labels names nothing");
}

#[rstest]
#[case::first("First", json!({}), &[12])]
#[case::sum_with_one_unknown("Sum", json!({}), &[])]
#[case::max("Max", json!({}), &[90])]
#[case::min("Min", json!({}), &[0])]
#[case::label("Sum", json!({"gpu": "1"}), &[90])]
#[case::absent_label("Sum", json!({"gpu": ""}), &[0])]
#[case::sum("Sum", json!({"kind": "card"}), &[102])]
fn series_are_chosen_by_labels_and_reduced(
    #[case] reduce: &str,
    #[case] labels: Json,
    #[case] expected: &[i64],
) {
    let values = json!([{"name": "v", "metric": {"name": "t", "labels": labels}, "reduce": reduce}]);
    let text = "t{gpu=\"0\",kind=\"card\"} 12\nt{gpu=\"1\",kind=\"card\"} 90\nt 0\nt{gpu=\"2\"} NaN\nu 7\n";
    let found = last(&compiled("Prometheus", values).unwrap(), &[text]);
    assert_eq!(integers(&found).into_iter().map(|(_, number)| number).collect::<Vec<_>>(), expected);
}

#[rstest]
#[case::boolean(json!({"type": "Boolean", "metric": {"name": "on"}}), Some(Scalar::Boolean(true)))]
#[case::no_boolean(json!({"type": "Boolean", "metric": {"name": "boot"}}), None)]
#[case::time(json!({"type": "Time", "metric": {"name": "boot"}}), Some(Scalar::Text("2025-05-10T08:06:48Z".into())))]
#[case::never_set(json!({"type": "Time", "metric": {"name": "off"}}), None)]
#[case::hostname(json!({"type": "Hostname", "metric": {"name": "info", "label": "node"}}), Some(Scalar::Text("gpu-1".into())))]
#[case::no_hostname(json!({"type": "Hostname", "metric": {"name": "info", "label": "os"}}), None)]
#[case::missing(json!({"metric": {"name": "absent"}}), None)]
fn a_metric_becomes_every_type(#[case] value: Json, #[case] expected: Option<Scalar>) {
    let mut spec = json!({"name": "v"});
    spec.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    let values = compiled("Auto", json!([spec])).unwrap();
    let text = "on 1\noff 0\nboot 1746864408\ninfo{node=\"gpu-1\",os=\"some Linux\"} 1\n";
    assert_eq!(last(&values, &[text]).remove("v"), expected);
}

#[test]
fn a_rate_is_a_second_and_summed_over_series() {
    let values =
        json!([{"name": "v", "metric": {"name": "c"}, "rate": true, "reduce": "Sum", "multiplier": "1000"}]);
    let values = compiled("Auto", values).unwrap();
    let first = "c{cpu=\"0\"} 100\nc{cpu=\"1\"} 5\n";
    let second = "c{cpu=\"1\"} 10\nc{cpu=\"0\"} 107.5\n";
    let found = answers(&values, &[first, second]);
    assert_eq!(found[0].as_ref().unwrap().values.len(), 0, "one answer has no rate, and is an answer");
    assert_eq!(integers(&found[1].as_ref().unwrap().values), [("v", 1250)]);
}

#[test]
fn a_counter_that_resets_gives_no_rate_and_never_a_negative_one() {
    let values = compiled("Auto", json!([{"name": "v", "jsonPaths": ["$.c"], "rate": true}])).unwrap();
    let found = answers(&values, &["{\"c\": 100}", "{\"c\": 20}", "{\"c\": 70}"]);
    let rates: Vec<_> = found.into_iter().map(|found| found.unwrap().values.remove("v")).collect();
    assert_eq!(rates, [None, None, Some(Scalar::Integer(5))]);
}

#[test]
fn a_counter_that_resets_is_not_replaced_by_another_one() {
    let values = compiled("Auto", json!([{"name": "v", "jsonPaths": ["$.a", "$.b"], "rate": true}])).unwrap();
    let found = answers(&values, &["{\"a\": 100, \"b\": 0}", "{\"a\": 0, \"b\": 1000}"]);
    assert!(found[1].as_ref().unwrap().values.is_empty());
}

#[test]
fn an_expression_works_with_what_is_published() {
    let values = json!([
        {"name": "size", "jsonPaths": ["$.size"], "multiplier": "1Ki"},
        {"name": "free", "jsonPaths": ["$.free"], "multiplier": "1Ki"},
        {"name": "used", "expression": "values.size - values.free", "reading": "diskUsed"},
        {"name": "percent", "expression": "double(values.used) * 100.0 / double(values.size)"},
        {"name": "full", "type": "Boolean", "expression": "values.percent > 90"},
        {"name": "hot", "expression": "has(values.gone) ? values.gone : 0"},
        {"name": "gone", "jsonPaths": ["$.gone"]},
        {"name": "half", "expression": "values.gone / 2"},
    ]);
    let error = compiled("JSON", values.clone()).unwrap_err().to_string();
    assert!(error.contains("value hot") && error.contains("gone"), "only earlier values are known: {error}");
    let mut values = values;
    values.as_array_mut().unwrap().remove(5);
    let values = compiled("JSON", values).unwrap();
    let found = answers(&values, &["{\"size\": 100, \"free\": 7.5}"]).remove(0).unwrap();
    assert_eq!(found.values["used"], Scalar::Integer(94720));
    assert_eq!(found.values["percent"], Scalar::Integer(93));
    assert_eq!(found.values["full"], Scalar::Boolean(true));
    assert_eq!(found.readings.get(Reading::DiskUsed), Some(94720));
    assert!(!found.values.contains_key("half"), "what needs an absent value is absent, and no 0");
    assert_eq!(found.fault, None);
}

#[test]
fn an_expression_that_cannot_be_computed_is_absent_and_says_so() {
    let values = json!([
        {"name": "a", "jsonPaths": ["$.a"]},
        {"name": "share", "expression": "100 / values.a"},
        {"name": "large", "expression": "values.a + 9223372036854775807"},
    ]);
    let values = compiled("JSON", values).unwrap();
    let found = answers(&values, &["{\"a\": 0}", "{\"a\": 1}"]);
    let zero = found[0].as_ref().unwrap();
    assert_eq!(
        (zero.values.contains_key("share"), &zero.fault),
        (false, &None),
        "a share of nothing is unknown"
    );
    let one = found[1].as_ref().unwrap();
    assert!(one.fault.as_ref().unwrap().starts_with("value large: "), "{:?}", one.fault);
    assert_eq!(one.values["share"], Scalar::Integer(100));
}

#[rstest]
#[case::path("Auto", json!({"jsonPaths": ["$.a["]}), "value v: the JSON path $.a[ is invalid at position")]
#[case::expression("Auto", json!({"expression": "values.x + 1"}), "value v: the expression is invalid: line 1, column")]
#[case::no_source("Auto", json!({}), "exactly one of jsonPaths, metric and expression")]
#[case::two_sources("Auto", json!({"jsonPaths": ["$.a"], "expression": "1"}), "exactly one of")]
#[case::path_in_text("Prometheus", json!({"jsonPaths": ["$.a"]}), "jsonPaths cannot be read out of format Prometheus")]
#[case::metric_in_json("JSON", json!({"metric": {"name": "a"}}), "metric cannot be read out of format Json")]
#[case::rate_of_time("Auto", json!({"metric": {"name": "a"}, "type": "Time", "rate": true}), "rate is for values of type Integer")]
#[case::rate_of_expression("Auto", json!({"expression": "1", "rate": true}), "rate is for values")]
#[case::label_of_number("Auto", json!({"metric": {"name": "a", "label": "l"}}), "metric.label is for values of type Hostname")]
#[case::hostname_of_number("Auto", json!({"metric": {"name": "a"}, "type": "Hostname"}), "metric.label is for values")]
#[case::hostname_of_expression("Auto", json!({"expression": "'a'", "type": "Hostname"}), "not Hostname")]
#[case::reading("Auto", json!({"jsonPaths": ["$.a"], "type": "Boolean", "reading": "cpuPercent"}), "needs type Integer")]
fn what_cannot_be_compiled_says_why(#[case] format: &str, #[case] value: Json, #[case] expected: &str) {
    let mut spec = json!({"name": "v"});
    spec.as_object_mut().unwrap().extend(value.as_object().unwrap().clone());
    let error = compiled(format, json!([spec])).unwrap_err().to_string();
    assert!(error.contains(expected), "{error}");
}

#[rstest]
#[case::html("<html><body>It works</body></html>")]
#[case::other_exporter("go_goroutines 7\n")]
#[case::empty("")]
#[case::nothing_found("{\"other\": 1}")]
fn an_answer_without_anything_wanted_is_not_this_agent(#[case] body: &str) {
    let values = json!([
        {"name": "a", "jsonPaths": ["$.a"]},
        {"name": "b", "metric": {"name": "b"}},
        {"name": "c", "expression": "1"},
    ]);
    let found = answers(&compiled("Auto", values).unwrap(), &[body]).remove(0);
    assert_eq!(found.unwrap_err().class, Failure::InvalidResponse, "an expression alone is no answer");
}

/// DCGM exporter 4.2 with job mapping shows a GPU once for each job, and Telegraf 1.37 once for each power state that it
/// had: 169 GB read as 338.
#[rstest]
#[case::sum("Sum", json!(["UUID"]), Some(5))]
#[case::sum_of_all("Sum", json!([]), Some(8))]
#[case::first("First", json!(["UUID"]), Some(3))]
#[case::two_labels("Sum", json!(["UUID", "job"]), Some(8))]
#[case::absent_label("Sum", json!(["gone"]), Some(3))]
fn of_series_that_measure_one_thing_the_largest_counts(
    #[case] reduce: &str,
    #[case] by: Json,
    #[case] expected: Option<i64>,
) {
    let values = json!([{"name": "v", "metric": {"name": "used", "distinctBy": by}, "reduce": reduce}]);
    let text = "used{UUID=\"GPU-a\",job=\"1\"} 1\nused{UUID=\"GPU-b\"} 2\nused{UUID=\"GPU-a\",job=\"2\"} 3\n\
                used{UUID=\"GPU-b\",job=\"2\"} 2\n";
    let found = last(&compiled("Auto", values).unwrap(), &[text]).remove("v");
    assert_eq!(found, expected.map(Scalar::Integer));
}

#[test]
fn of_rates_the_largest_of_each_group_counts() {
    let metric = json!({"name": "e", "distinctBy": ["UUID"]});
    let values = json!([{"name": "v", "metric": metric, "rate": true, "reduce": "Sum"}]);
    let text = |a: u32, b: u32, c: u32| {
        format!("e{{UUID=\"a\",job=\"1\"}} {a}\ne{{UUID=\"a\",job=\"2\"}} {b}\ne{{UUID=\"b\"}} {c}\n")
    };
    let found = last(&compiled("Auto", values).unwrap(), &[&text(0, 0, 0), &text(100, 70, 50)]);
    assert_eq!(integers(&found), [("v", 15)]);
}

#[rstest]
#[case::heat("gpuTemperatureCelsius", "644245923", None)]
#[case::no_sensor("cpuTemperatureCelsius", "255", None)]
#[case::before_rounding("cpuPercent", "101.4", None)]
#[case::clamped("cpuPercent", "100.7", Some(100))]
#[case::overflow("memoryTotal", "1e300", None)]
#[case::good("gpuTemperatureCelsius", "61.5", Some(62))]
fn a_reading_is_what_a_machine_can_have(
    #[case] reading: &str,
    #[case] number: &str,
    #[case] expected: Option<i64>,
) {
    let values = compiled("JSON", json!([{"name": "v", "jsonPaths": ["$.v"], "reading": reading}])).unwrap();
    let reading = values.readings().next().unwrap();
    let found = answers(&values, &[&format!("{{\"v\": {number}}}")]).remove(0).unwrap();
    assert_eq!(found.readings.get(reading), expected);
    assert_eq!(found.implausible.contains_key(&reading), expected.is_none());
    assert_eq!(found.values.contains_key("v"), expected.is_some(), "rules must not judge it either");
}

/// Glances 4.5, netdata, Telegraf and nvitop-exporter tell how long the machine runs and not since when.
#[rstest]
#[case::uptime(json!({"up": 3600.7}), Some("2026-11-22T10:59:59Z"), true)]
#[case::boot_time_wins(json!({"up": 3600, "boot": "2026-11-22T11:00:30Z"}), Some("2026-11-22T11:00:30Z"), false)]
#[case::boot_time_of_no_clock(json!({"up": 3600, "boot": "1970-01-01T00:00:09Z"}), Some("2026-11-22T11:00:00Z"), true)]
#[case::impossible(json!({"up": -5}), None, false)]
fn an_uptime_tells_when_the_machine_started(
    #[case] answer: Json,
    #[case] expected: Option<&str>,
    #[case] computed: bool,
) {
    for order in [["up", "boot"], ["boot", "up"]] {
        let value = |name: &str| match name {
            "up" => json!({"name": "up", "jsonPaths": ["$.up"], "reading": "uptimeSeconds"}),
            _ => json!({"name": "boot", "type": "Time", "jsonPaths": ["$.boot"], "reading": "bootTime"}),
        };
        let values = compiled("JSON", json!(order.map(value))).unwrap();
        let found = answers(&values, &[&answer.to_string()]).remove(0).unwrap();
        assert_eq!(found.readings.boot_time, expected.map(|time| time.parse().unwrap()));
        assert_eq!(found.readings.boot_time_is_computed, computed);
        let impossible = found.implausible.contains_key(&Reading::BootTime);
        assert!(!impossible || !found.values.contains_key("boot"), "rules must not judge it either");
    }
}

#[rstest]
#[case::path(json!([{"name": "gpuTemp", "jsonPaths": ["$.temps.gpu", "$.t"]}]), "{}", "value gpuTemp, path $.temps.gpu")]
#[case::metric(json!([{"name": "c", "expression": "1"}, {"name": "load", "metric": {"name": "load1"}}]), "up 1\n", "value load, metric load1")]
#[case::other_format(json!([{"name": "a", "jsonPaths": ["$.a"]}]), "up 1\n", "no value of the plugin has a metric")]
#[case::nothing_named(json!([]), "{\"a\": \"b\"}", "the answer has no number and no boolean")]
fn what_the_answer_lacked_is_named(#[case] values: Json, #[case] body: &str, #[case] end: &str) {
    let failure = answers(&compiled("Auto", values).unwrap(), &[body]).remove(0).unwrap_err();
    assert_eq!(failure.class, Failure::InvalidResponse);
    assert!(failure.message().ends_with(end), "{}", failure.message());
}

#[test]
fn names_in_utf8_are_asked_for_only_where_they_are_wanted() {
    let accept = |metric: Json| {
        compiled("Auto", json!([{"name": "v", "metric": metric}])).unwrap().accept().to_owned()
    };
    assert_eq!(accept(json!({"name": "node_load1", "labels": {"cpu": "0"}})), "*/*");
    for metric in [
        json!({"name": "gpu.temperature"}),
        json!({"name": "t", "labels": {"hw.id": "0"}}),
        json!({"name": "t", "distinctBy": ["hw.id"]}),
    ] {
        assert!(accept(metric).starts_with("text/plain;version=1.0.0;escaping=allow-utf-8"));
    }
}

/// The dearest path that is allowed, over the dearest answer: each number is matched once for each object around it.
#[test]
fn a_rate_over_a_deep_answer_writes_no_way_down_for_each_match() {
    const DEPTH: usize = 28;
    let body = |number: usize| {
        let list = format!("{{\"a\":{number}}},").repeat(9_000);
        format!("{}[{list}0]{}", "{\"a\":".repeat(DEPTH), "}".repeat(DEPTH))
    };
    let values = compiled("JSON", json!([spec("Integer", &["$..a..a"], json!({"rate": true}))])).unwrap();
    let before = peak_memory();
    let found = answers(&values, &[&body(1), &body(11)]);
    // There are more counters than can be remembered, so there is no rate; but it is an answer.
    assert!(found.into_iter().all(|found| found.is_ok_and(|found| found.values.is_empty())));
    let grown = peak_memory() - before;
    assert!(grown < 128 << 20, "{} MiB", grown >> 20);
}

fn peak_memory() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

#[test]
fn a_rate_follows_each_number_by_where_it_stands() {
    let values = compiled(
        "JSON",
        json!([spec("Integer", &["$..total"], json!({"rate": true, "reduce": "Max", "multiplier": "10"}))]),
    )
    .unwrap();
    let first = json!({"disks": [{"total": 5}, {"total": 50}], "net": {"total": 7}}).to_string();
    // In another order of keys, with one more disk.
    let second = r#"{"net":{"total":27},"disks":[{"total":15},{"total":50},{"total":900}]}"#;
    assert_eq!(integers(&last(&values, &[&first, second])), [("v", 20)]);
}

/// The dearest plugin that is accepted, on the dearest answers of 20,000 values that it could be given.
#[test]
fn the_dearest_paths_are_bounded() {
    let bound = if cfg!(debug_assertions) { Duration::from_secs(5) } else { Duration::from_millis(500) };
    let chain = |depth: usize| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
    let chains = vec![chain(30); 640].join(",");
    let flat = vec!["{\"a\":1,\"b\":2}"; 6600].join(",");
    let answers = [format!("[{chains}]"), format!("[{flat}]")];
    for path in ["$..a..a", "$..*", "$..a[*]", "$[?@.a == 1]..b"] {
        let values: Vec<Json> =
            (0..8).map(|i| json!({"name": format!("v{i}"), "jsonPaths": [path], "reduce": "Sum"})).collect();
        let compiled = compiled("JSON", json!(values)).unwrap();
        for body in &answers {
            let json = Answer::read(AgentFormat::Json, None, body.as_bytes(), compiled.filter()).unwrap();
            let begin = Instant::now();
            let _ = compiled.extract(
                &json,
                Arrival { at: begin, clock: now() },
                Duration::from_secs(10),
                &mut Counters::default(),
            );
            let took = begin.elapsed();
            assert!(took < bound, "{path} on {} bytes: {took:?}", body.len());
        }
    }
    let nine: Vec<Json> =
        (0..9).map(|i| json!({"name": format!("v{i}"), "jsonPaths": ["$..a..b"]})).collect();
    let error = compiled("JSON", json!(nine)).unwrap_err().to_string();
    assert!(error.contains("72 of at most 64"), "{error}");
}
