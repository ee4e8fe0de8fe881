//! Every way in which a plugin's spec can be wrong.

use super::{Bad, Kind, merge};
use serde_json::{Value, json};

pub fn plugin(patch: Value, field: &'static str, says: &'static str) -> Bad {
    Bad { kind: Kind::Plugin, patch: json!({ "spec": patch }), field, says }
}

pub fn agent(patch: Value, field: &'static str, says: &'static str) -> Bad {
    plugin(json!({ "agent": patch }), field, says)
}

/// A fault in the only value of an agent.
pub fn value(patch: Value, field: &'static str, says: &'static str) -> Bad {
    let mut value = json!({ "name": "load", "jsonPaths": ["$.load"] });
    merge(&mut value, &patch);
    agent(json!({ "values": [value] }), field, says)
}

/// A fault in the metric of the only value of an agent.
fn metric(patch: Value, field: &'static str, says: &'static str) -> Bad {
    let mut metric = json!({ "name": "node_load1" });
    merge(&mut metric, &patch);
    agent(json!({ "values": [{ "name": "load", "metric": metric }] }), field, says)
}

pub fn a_rule() -> Value {
    json!({ "name": "QueueLong", "when": "values.depth > 10", "message": "add a machine" })
}

/// A fault in the only rule of an agent.
fn rule(patch: Value, field: &'static str, says: &'static str) -> Bad {
    let mut rule = a_rule();
    merge(&mut rule, &patch);
    agent(json!({ "rules": [rule] }), field, says)
}

const VERSION: &str = "version must be a semantic version: three numbers and an optional suffix, for example 1.0.0 or 1.2.0-rc.1";
const ENDPOINT: &str = "endpoint must be a path that starts with /, in printable ASCII without spaces, backslashes or a fragment, for example /metrics";
const CONFIG_KEY: &str =
    "configKey must be lowerCamelCase, at most 63 letters and digits, for example metricsPort";
const DEFAULT_PORT: &str = "defaultPort must be between 1 and 65535; to turn a plugin off on one server set pluginPorts.<configKey>: 0 there";
const VALUE_NAME: &str =
    "the name of a value must be lowerCamelCase, at most 63 letters and digits, for example gpuTemperature";
const MULTIPLIER: &str = "multiplier must be a quantity above 0, for example 1Mi, 1000 or 100m";
const SELECTOR: &str = "needs operator In or NotIn with values, or Exists or DoesNotExist without";
const ONE_SOURCE: &str =
    "a value needs exactly one of jsonPaths, metric and expression, for example jsonPaths: [$.queue.depth]";
const RATE: &str = "rate is for values of type Integer with jsonPaths or metric; remove it, or write the rate as a value of its own";
const LABEL: &str = "metric.label is for values of type Hostname, which need it; the other types take the number of the series";
const METRIC_NAME: &str = "metric.name must be a name without labels or spaces; labels go into metric.labels";
const RULE_NAME: &str =
    "the name of a rule must be UpperCamelCase, at most 63 letters and digits, for example QueueLong";
const PLATFORM: &str = "platform must be a range of versions as npm writes them, without commas, for example >=0.1 <1 or ^1.2 || 2.x";
const RANGES: &str = "a value of dependencies.plugins is a range of versions as npm writes them, without commas, for example >=2 or ^1.2";

#[allow(clippy::too_many_lines)] // a table
pub fn bad_plugins() -> Vec<Bad> {
    let many: Vec<Value> =
        (0..33).map(|n| json!({ "name": format!("v{n}"), "jsonPaths": ["$.x"] })).collect();
    let twice = json!([{ "name": "load", "jsonPaths": ["$.a"] }, { "name": "load", "jsonPaths": ["$.b"] }]);
    vec![
        plugin(json!({ "type": null }), "spec.type", "Required value"),
        plugin(json!({ "type": "Hook" }), "spec.type", "supported values: \"Agent\""),
        plugin(json!({ "type": "agent" }), "spec.type", "supported values: \"Agent\""),
        plugin(
            json!({ "agent": null }),
            "spec.agent",
            "type Agent needs spec.agent; write at least agent: {defaultPort: 9100, endpoint: /metrics}",
        ),
        plugin(
            json!({ "version": null }),
            "spec.version",
            "type Agent needs spec.version, a semantic version such as 1.0.0",
        ),
        plugin(json!({ "version": "1.0" }), "spec.version", VERSION),
        plugin(json!({ "version": "v1.0.0" }), "spec.version", VERSION),
        plugin(json!({ "version": "01.0.0" }), "spec.version", VERSION),
        plugin(json!({ "version": "1.0.0-" }), "spec.version", VERSION),
        plugin(json!({ "version": "" }), "spec.version", VERSION),
        plugin(json!({ "version": 1 }), "spec.version", "must be of type string"),
        plugin(json!({ "keywords": [""] }), "spec.keywords[0]", "should be at least 1 chars long"),
        plugin(json!({ "author": "me" }), "spec.author", "must be of type object"),
        plugin(json!({ "author": {} }), "spec.author.name", "Required value"),
        plugin(json!({ "hook": {} }), "", "unknown field \"spec.hook\""),
        plugin(
            json!({ "serverSelector": { "matchExpressions": [{ "key": "gpu", "operator": "Like" }] } }),
            "spec.serverSelector",
            SELECTOR,
        ),
        plugin(
            json!({ "serverSelector": { "matchExpressions": [{ "key": "gpu", "operator": "In" }] } }),
            "spec.serverSelector",
            SELECTOR,
        ),
        plugin(
            json!({ "serverSelector": { "matchExpressions": [{ "key": "gpu", "operator": "Exists", "values": ["a"] }] } }),
            "spec.serverSelector",
            SELECTOR,
        ),
        plugin(
            json!({ "serverSelector": { "gpu": "big" } }),
            "",
            "unknown field \"spec.serverSelector.gpu\"",
        ),
        agent(json!({ "defaultPort": null }), "spec.agent.defaultPort", "Required value"),
        agent(json!({ "defaultPort": 0 }), "spec.agent.defaultPort", DEFAULT_PORT),
        agent(json!({ "defaultPort": 65536 }), "spec.agent.defaultPort", DEFAULT_PORT),
        agent(json!({ "defaultPort": "9100" }), "spec.agent.defaultPort", "must be of type integer"),
        agent(json!({ "endpoint": "metrics" }), "spec.agent.endpoint", ENDPOINT),
        agent(json!({ "endpoint": "" }), "spec.agent.endpoint", ENDPOINT),
        agent(json!({ "endpoint": "/my metrics" }), "spec.agent.endpoint", ENDPOINT),
        agent(json!({ "endpoint": "/metrics#x" }), "spec.agent.endpoint", ENDPOINT),
        agent(json!({ "endpoint": "/m\\etrics" }), "spec.agent.endpoint", ENDPOINT),
        agent(json!({ "endpoint": "/métrics" }), "spec.agent.endpoint", ENDPOINT),
        agent(
            json!({ "endpoint": format!("/{}", "x".repeat(256)) }),
            "spec.agent.endpoint",
            "Too long: may not be more than 256",
        ),
        agent(json!({ "configKey": "metrics-port" }), "spec.agent.configKey", CONFIG_KEY),
        agent(json!({ "configKey": "" }), "spec.agent.configKey", CONFIG_KEY),
        agent(json!({ "scheme": "HTTP" }), "spec.agent.scheme", "supported values: \"http\", \"https\""),
        agent(
            json!({ "format": "json" }),
            "spec.agent.format",
            "supported values: \"Auto\", \"JSON\", \"Prometheus\"",
        ),
        agent(
            json!({ "interval": "0s" }),
            "spec.agent.interval",
            "interval must be a duration between 1s and 24h, for example 30s",
        ),
        agent(
            json!({ "timeout": "61s" }),
            "spec.agent.timeout",
            "timeout must be a duration between 100ms and 1m, for example 3s",
        ),
        agent(
            json!({ "secretRef": { "name": "s", "namespace": "n" } }),
            "",
            "unknown field \"spec.agent.secretRef.namespace\"",
        ),
        agent(
            json!({ "values": twice }),
            "spec.agent.values",
            "two values have the same name; names must be unique within a plugin",
        ),
        agent(json!({ "values": many }), "spec.agent.values", "must have at most 32 items"),
        value(json!({ "name": "gpu-temp" }), "spec.agent.values[0].name", VALUE_NAME),
        value(json!({ "name": "" }), "spec.agent.values[0].name", VALUE_NAME),
        value(json!({ "jsonPaths": null }), "spec.agent.values[0]", ONE_SOURCE),
        value(json!({ "expression": "1" }), "spec.agent.values[0]", ONE_SOURCE),
        value(json!({ "metric": { "name": "load" } }), "spec.agent.values[0]", ONE_SOURCE),
        value(json!({ "jsonPaths": [] }), "spec.agent.values[0].jsonPaths", "should have at least 1 items"),
        value(
            json!({ "jsonPaths": ["load"] }),
            "spec.agent.values[0].jsonPaths",
            "a JSON path starts with $, for example $.temperatures.gpu",
        ),
        value(json!({ "jsonPaths": [""] }), "spec.agent.values[0].jsonPaths", "a JSON path starts with $"),
        value(json!({ "jsonPaths": "$.load" }), "spec.agent.values[0].jsonPaths", "must be of type array"),
        value(
            json!({ "type": "Float" }),
            "spec.agent.values[0].type",
            "supported values: \"Integer\", \"Boolean\", \"Time\", \"Hostname\"",
        ),
        value(
            json!({ "reduce": "Average" }),
            "spec.agent.values[0].reduce",
            "supported values: \"First\", \"Sum\", \"Max\", \"Min\"",
        ),
        value(json!({ "multiplier": 0 }), "spec.agent.values[0].multiplier", MULTIPLIER),
        value(json!({ "multiplier": "-100m" }), "spec.agent.values[0].multiplier", MULTIPLIER),
        value(
            json!({ "multiplier": 0.5 }),
            "spec.agent.values[0].multiplier",
            "must be of type integer,string",
        ),
        value(
            json!({ "reading": "gpuTemperature" }),
            "spec.agent.values[0].reading",
            "supported values: \"hostname\", \"bootTime\"",
        ),
        metric(json!({ "name": "node_load1{}" }), "spec.agent.values[0].metric.name", METRIC_NAME),
        metric(json!({ "name": "" }), "spec.agent.values[0].metric.name", "should be at least 1 chars long"),
        metric(json!({ "label": "nodename" }), "spec.agent.values[0].metric", LABEL),
        metric(
            json!({ "labels": { "mode": 1 } }),
            "spec.agent.values[0].metric.labels.mode",
            "must be of type string",
        ),
        value(json!({ "type": "Time", "rate": true }), "spec.agent.values[0].rate", RATE),
        agent(
            json!({ "values": [{ "name": "load", "expression": "1", "rate": true }] }),
            "spec.agent.values[0].rate",
            RATE,
        ),
        agent(
            json!({ "values": [{ "name": "name", "type": "Hostname", "metric": { "name": "node_uname_info" } }] }),
            "spec.agent.values[0].metric",
            LABEL,
        ),
        agent(
            json!({ "values": [{ "name": "load", "expression": "1".repeat(1025) }] }),
            "spec.agent.values[0].expression",
            "Too long: may not be more than 1024",
        ),
        rule(json!({ "name": "queueLong" }), "spec.agent.rules[0].name", RULE_NAME),
        rule(json!({ "name": "Queue-Long" }), "spec.agent.rules[0].name", RULE_NAME),
        rule(json!({ "when": null }), "spec.agent.rules[0].when", "Required value"),
        rule(json!({ "when": "" }), "spec.agent.rules[0].when", "should be at least 1 chars long"),
        rule(json!({ "message": null }), "spec.agent.rules[0].message", "Required value"),
        rule(
            json!({ "message": "a\nb" }),
            "spec.agent.rules[0].message",
            "message must not contain control characters or line breaks",
        ),
        rule(
            json!({ "message": "x".repeat(257) }),
            "spec.agent.rules[0].message",
            "Too long: may not be more than 256",
        ),
        rule(
            json!({ "for": "5 minutes" }),
            "spec.agent.rules[0].for",
            "for must be a duration between 1s and 24h, for example 5m",
        ),
        rule(
            json!({ "as": "Alert" }),
            "spec.agent.rules[0].as",
            "supported values: \"Condition\", \"Event\"",
        ),
        rule(
            json!({ "severity": "Error" }),
            "spec.agent.rules[0].severity",
            "supported values: \"Info\", \"Warning\", \"Critical\"",
        ),
        agent(
            json!({ "rules": [a_rule(), a_rule()] }),
            "spec.agent.rules",
            "two rules have the same name; names must be unique within a plugin",
        ),
        plugin(
            json!({ "dependencies": { "platform": ">=0.1, <1" } }),
            "spec.dependencies.platform",
            PLATFORM,
        ),
        plugin(json!({ "dependencies": { "platform": "latest" } }), "spec.dependencies.platform", PLATFORM),
        plugin(json!({ "dependencies": { "platform": "" } }), "spec.dependencies.platform", PLATFORM),
        plugin(
            json!({ "dependencies": { "plugins": { "core": "=> 2" } } }),
            "spec.dependencies.plugins",
            RANGES,
        ),
        plugin(
            json!({ "dependencies": { "plugins": { "Core": ">=2" } } }),
            "spec.dependencies.plugins",
            "a key of dependencies.plugins is the name of a FleetPlugin in this namespace, for example metrics-core",
        ),
        Bad {
            kind: Kind::Plugin,
            patch: json!({ "metadata": { "generateName": null, "name": "gpu.metrics" } }),
            field: "",
            says: "at most 63 lower case letters, digits and dashes, without dots",
        },
    ]
}
