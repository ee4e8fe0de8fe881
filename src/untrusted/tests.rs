//! Hostile bytes for every parser: any bytes, any text, JSON with hostile words in it, and what is nearly right.

use super::*;
use proptest::{prelude::*, sample::select};
use serde_json::{Map, Number, json};

/// Escapes, controls, bidi marks, what takes no room, what labels and YAML quote, long words, and halves of things.
const WORDS: [&str; 26] = [
    "\u{1b}[31m",
    "\u{9b}2J",
    "\u{7}",
    "\u{0}",
    "\r\n",
    "\u{202e}gpj",
    "\u{2066}",
    "\u{200b}",
    "\u{feff}",
    "\u{e0041}",
    "\u{fe0f}",
    "\u{3164}",
    "\u{2028}",
    "\"} 1\nollama_fleet_forged 1 #",
    "\\",
    "'",
    "{{",
    "}}",
    ": ",
    "# ",
    "- ",
    "\u{1f469}\u{200d}\u{1f692}",
    "qwen3:8b",
    " ",
    "\u{a0}",
    "%00%0a",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![
        4 => prop::collection::vec(select(&WORDS[..]), 0..6).prop_map(|words| words.concat()),
        2 => any::<String>(),
        1 => (select(&WORDS[..]), 100..2000_usize).prop_map(|(word, times)| word.repeat(times)),
    ]
}

/// Numbers as hosts may write them, from far below zero to beyond all range.
fn number() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(|number| Number::from_f64(number).map_or(Value::Null, Value::Number)),
        select(&[0_i64, 1, -1, i64::MAX, i64::MIN, 1 << 53][..]).prop_map(Value::from),
    ]
}

fn leaf() -> impl Strategy<Value = Value> {
    prop_oneof![
        4 => word().prop_map(Value::from),
        2 => number(),
        1 => any::<bool>().prop_map(Value::from),
        1 => Just(Value::Null),
        1 => select(&["2026-01-01T00:00:00.5-07:00", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59+14:00"][..]).prop_map(Value::from),
    ]
}

/// Any JSON, with these keys more often than others.
fn json(keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
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
fn list(under: &'static str, keys: &'static [&'static str]) -> impl Strategy<Value = Value> {
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
fn spoiled(text: impl Strategy<Value = Value>) -> impl Strategy<Value = Vec<u8>> {
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
fn text_of(pieces: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![4 => select(pieces).prop_map(str::to_owned), 1 => word()];
    prop_oneof![
        1 => prop::collection::vec(any::<u8>(), 0..200),
        1 => any::<String>().prop_map(String::into_bytes),
        4 => prop::collection::vec(piece, 0..24).prop_map(|pieces| pieces.concat().into_bytes()),
    ]
}

const MODEL: &[&str] = &[
    "name",
    "model",
    "digest",
    "size",
    "size_vram",
    "context_length",
    "modified_at",
    "expires_at",
    "remote_host",
    "capabilities",
    "details",
    "family",
    "parameter_size",
    "quantization_level",
    "id",
    "models",
    "data",
    "version",
];
const AGENT: &[&str] = &[
    "hostname",
    "uptime_seconds",
    "boot_time",
    "temperatures",
    "memory",
    "total_mb",
    "available_mb",
    "disk",
    "total_gb",
    "used_gb",
    "cpu_percent",
    "gpu_percent",
    "load_avg",
    "gpu0",
    "cpu",
];
const SERVER: &[&str] = &["name", "host", "ramGb", "metricsPort", "type", "backendType", "id", "displayName"];
const PLUGIN: &[&str] =
    &["name", "version", "description", "type", "defaultPort", "endpoint", "configKey", "hooks"];
const SPEC: &[&str] = &[
    "type",
    "version",
    "agent",
    "defaultPort",
    "endpoint",
    "configKey",
    "format",
    "values",
    "rules",
    "jsonPaths",
    "metric",
    "labels",
    "label",
    "expression",
    "rate",
    "reduce",
    "multiplier",
    "reading",
    "when",
    "for",
    "as",
    "severity",
    "message",
    "dependencies",
    "platform",
    "plugins",
    "serverSelector",
    "matchLabels",
    "matchExpressions",
    "key",
    "operator",
];
const SAMPLES: &[&str] = &[
    "node_load1",
    "node_cpu_seconds_total",
    "node_memory_MemTotal_bytes",
    "{",
    "}",
    "=",
    "\"",
    ",",
    " ",
    "\t",
    "\n",
    "\r\n",
    "1",
    "-1",
    "NaN",
    "+Inf",
    "1e400",
    "0x1p-2",
    "# TYPE a counter\n",
    "# EOF\n",
    "# {trace_id=\"a\"} 1 2",
    "mode=\"idle\"",
    "cpu=\"0\"",
    "\\n",
    "\\\\",
    "nodename=\"\u{202e}x\"",
    "node_uname_info",
    "1700000000",
];
const CEL: &[&str] = &[
    "values.a",
    "values.b",
    "values.t",
    "values.h",
    "previous.a",
    "server.name",
    " + ",
    " - ",
    " * ",
    " / ",
    " % ",
    " == ",
    " && ",
    " || ",
    "!",
    "(",
    ")",
    "[",
    "]",
    ", ",
    "has(",
    ".exists(x, ",
    "x",
    "9223372036854775807",
    "-1",
    "0.5",
    "1e308",
    "'a'",
    "true",
    "? ",
    " : ",
    ".startsWith('g')",
    "now",
    "size(",
    "double(",
    "int(",
];
const HOSTS: &[&str] = &[
    "http://",
    "https://",
    "gpu1.lab",
    "192.0.2.1",
    "[2001:db8::1]",
    "[::ffff:192.0.2.1]",
    ":",
    "11434",
    "0",
    "65536",
    "/",
    "/ollama",
    "@",
    "user:pw@",
    "?",
    "#",
    "\\",
    "%2f",
    "..",
    ".",
    "-",
    "xn--a",
    "0x7f",
    "1e1",
    "//",
    "\u{202e}",
    "\u{fb01}",
    "_",
];
const SCALARS: &[&str] = &[
    "1",
    "99999",
    "0",
    "ms",
    "s",
    "m",
    "h",
    "Ki",
    "Mi",
    "E",
    "e",
    "n",
    "u",
    ".",
    "-",
    "+",
    "e400",
    "inf",
    "NaN",
    ">=",
    "<",
    "^",
    "~",
    "||",
    "x",
    "*",
    " ",
    "1.2.3",
    "-rc.1",
    "18446744073709551616",
];
const ENV: &[&str] = &[
    "OLLAMA_SERVERS",
    "POLL_INTERVAL",
    "=",
    "'",
    "\"",
    "[",
    "]",
    "{\"name\":\"a\",\"host\":\"192.0.2.1\"}",
    "\n",
    "export ",
    "# ",
    "${",
    "}",
    ":-",
    ":?",
    "$",
    "$$",
    "\\n",
    "\r\n",
    "a",
    " ",
];
const COMPOSE: &[&str] = &[
    "services:\n",
    "  web:\n",
    "    environment:\n",
    "      - OLLAMA_SERVERS=[]\n",
    "      A: b\n",
    "    env_file: .env\n",
    "    env_file:\n",
    "      - path: x\n",
    "&a ",
    "*a",
    "? ",
    "|\n",
    "<<: *a\n",
    "!!binary ",
    "[",
    "]",
    "{",
    "}",
];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hosts_lists_are_bounded_and_clean(body in prop_oneof![
        spoiled(list("models", MODEL)), spoiled(list("data", MODEL)), spoiled(json(MODEL))
    ]) {
        lists_of_models(&body);
    }

    #[test]
    fn versions_are_bounded_and_clean(body in prop_oneof![
        spoiled(word().prop_map(|text| json!({ "version": text }))), spoiled(json(MODEL))
    ]) {
        version(&body);
    }

    #[test]
    fn agents_json_is_bounded_and_clean(body in prop_oneof![spoiled(json(AGENT)), spoiled(list("disk", AGENT))]) {
        agent_json(&body);
    }

    #[test]
    fn agents_text_is_bounded_and_clean(body in text_of(SAMPLES)) {
        agent_text(&body);
    }

    #[test]
    fn manifests_are_judged(spec in prop_oneof![spoiled(json(SPEC)), spoiled(agent_spec())]) {
        manifest(&spec);
    }

    #[test]
    fn imports_are_clean(
        servers in prop_oneof![spoiled(list("", SERVER)), spoiled(json(SERVER))],
        plugin in spoiled(json(PLUGIN)),
        env in text_of(ENV),
        file in text_of(COMPOSE),
    ) {
        servers_json(&servers);
        plugin_json(&plugin);
        dotenv(&env);
        compose(&file);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hosts_scalars_and_annotations_are_read_or_refused(
        text in text_of(HOSTS), number in text_of(SCALARS), echoed in word(),
    ) {
        host(&text);
        scalars(&number);
        annotation(echoed.as_bytes());
    }

    #[test]
    fn expressions_are_refused_or_run(source in text_of(CEL)) {
        expression(&source);
    }
}

/// A spec that is nearly valid: what is right around one thing that is hostile.
fn agent_spec() -> impl Strategy<Value = Value> {
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

#[test]
fn a_broken_promise_is_noticed() {
    let schema = status_schema("OllamaServer");
    let wrong = [
        json!({"version": "x".repeat(65)}),
        json!({"models": vec![json!({}); 501]}),
        json!({"machine": {"colour": 1}}),
        json!({"conditions": [{"status": "Maybe"}]}),
        json!({"plugins": [{"values": (0..33).map(|n| (n.to_string(), json!(n))).collect::<Map<_, _>>()}]}),
    ];
    for status in wrong {
        let broken = std::panic::catch_unwind(|| assert_fits(schema, &status, "status"));
        assert!(broken.is_err(), "{status}");
    }
    assert!(std::panic::catch_unwind(|| assert_clean(&json!({"a": ["\u{202e}"]}))).is_err());
}
