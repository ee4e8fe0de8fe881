//! What is wrong is refused by the API server, at the field that is wrong, with a message that says what to write.

use crate::support::{ControlPlane, Namespace, http, objects};
use axum::http::Request;
use kube::{Client, core::response::Status};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer, endpoint::Endpoint};
use serde_json::{Value, json};

/// One object with one fault.
struct Bad {
    kind: Kind,
    /// Merged into a good object.
    patch: Value,
    /// The field that must be blamed, and nothing else; empty where the API server blames no field in particular.
    field: &'static str,
    /// A piece of the message.
    says: &'static str,
}

#[derive(Clone, Copy, PartialEq)]
enum Kind {
    Server,
    Plugin,
}

fn spec(patch: Value, field: &'static str, says: &'static str) -> Bad {
    Bad { kind: Kind::Server, patch: json!({ "spec": patch }), field, says }
}

fn host(host: &str, says: &'static str) -> Bad {
    spec(json!({ "host": host }), "spec.host", says)
}

fn poll(field: &'static str, value: Value, says: &'static str) -> Bad {
    let name = field.rsplit('.').next().unwrap();
    spec(json!({ "poll": { name: value } }), field, says)
}

fn plugin(patch: Value, field: &'static str, says: &'static str) -> Bad {
    Bad { kind: Kind::Plugin, patch: json!({ "spec": patch }), field, says }
}

fn agent(patch: Value, field: &'static str, says: &'static str) -> Bad {
    plugin(json!({ "agent": patch }), field, says)
}

/// A fault in the only value of an agent.
fn value(patch: Value, field: &'static str, says: &'static str) -> Bad {
    let mut value = json!({ "name": "load", "jsonPaths": ["$.load"] });
    merge(&mut value, &patch);
    agent(json!({ "values": [value] }), field, says)
}

const GENERAL: &str = "host must be a name, an IPv4 address or an IPv6 address in brackets, each with an optional :port, or http(s)://host[:port][/prefix]";
const ASCII: &str =
    "must not contain spaces or letters outside ASCII; write an international name in its xn-- form";
const PORT: &str = "the port in host must be a number between 1 and 65535";
const USER: &str =
    "must not contain user information; put credentials into a Secret and name it in secretRef";
const QUERY: &str =
    "must not contain a query or a fragment; write host[:port] or http(s)://host[:port][/prefix]";
const SCHEME: &str = "the scheme of host must be http:// or https://";
const NUMERIC: &str = "must be an IPv4 address of four decimal numbers, for example 192.168.1.100";
const BRACKETS: &str = "must hold a whole IPv6 address without a zone; write for example [fd00::1]:11434";
const INTERVAL: &str = "interval must be a duration between 1s and 24h, for example 10s or 1m30s";
const TIMEOUT: &str = "timeout must be a duration between 100ms and 5m, for example 5s";
const MODELS: &str = "modelsInterval must be a duration between 1s and 24h, for example 60s";
const MEMORY: &str = "memory must be a quantity above 0, for example 16Gi";
const VRAM: &str = "vram must be a quantity above 0, for example 12Gi";
const OBJECT_NAME: &str =
    "must be the name of an object in this namespace: lower case letters, digits, dots and dashes";
const PORTS_KEY: &str = "a key of pluginPorts is the configKey of a plugin: lowerCamelCase, at most 63 letters and digits, for example metricsPort";
const PORTS_NUMBER: &str =
    "a port in pluginPorts must be between 1 and 65535, or 0 to turn the plugin off on this server";
const END_TIME: &str = "endTime must be an RFC 3339 time with a zone, for example 2026-12-01T18:00:00Z";
const CONTROL: &str = "must not contain control characters or line breaks";
const VERSION: &str = "version must be a semantic version: three numbers and an optional suffix, for example 1.0.0 or 1.2.0-rc.1";
const ENDPOINT: &str = "endpoint must be a path that starts with /, in printable ASCII without spaces, backslashes or a fragment, for example /metrics";
const CONFIG_KEY: &str =
    "configKey must be lowerCamelCase, at most 63 letters and digits, for example metricsPort";
const DEFAULT_PORT: &str = "defaultPort must be between 1 and 65535; to turn a plugin off on one server set pluginPorts.<configKey>: 0 there";
const VALUE_NAME: &str =
    "the name of a value must be lowerCamelCase, at most 63 letters and digits, for example gpuTemperature";
const MULTIPLIER: &str = "multiplier must be a quantity above 0, for example 1Mi, 1000 or 100m";
const SELECTOR: &str = "needs operator In or NotIn with values, or Exists or DoesNotExist without";

#[allow(clippy::too_many_lines)] // a table
fn bad_servers() -> Vec<Bad> {
    vec![
        spec(json!({ "host": null }), "spec.host", "Required value"),
        spec(json!({ "host": 11434 }), "spec.host", "must be of type string"),
        host("", GENERAL),
        host("a b", ASCII),
        host("gpu1.lab ", ASCII),
        host("gpü1.lab", ASCII),
        host("gpu1\n.lab", ASCII),
        host("http://", GENERAL),
        host("http://:80", GENERAL),
        host("a..b", GENERAL),
        host("-gpu1", GENERAL),
        host("gpu1-", GENERAL),
        host("gpu1,gpu2", GENERAL),
        host("gpu1\\lab", GENERAL),
        host("http://gpu1.lab/a\\b", GENERAL),
        host("gpu1:", PORT),
        host("gpu1:0", PORT),
        host("gpu1:65536", PORT),
        host("gpu1:080", PORT),
        host("gpu1:+80", PORT),
        host("gpu1:http", PORT),
        host("https://gpu1.lab:/x", PORT),
        host("[fd00::1]:0", PORT),
        host("user:secret@gpu1", USER),
        host("http://user@gpu1/", USER),
        host("http://gpu1.lab?x=1", QUERY),
        host("http://gpu1.lab/#x", QUERY),
        host("ftp://gpu1.lab", SCHEME),
        host("HTTP://gpu1.lab", SCHEME),
        host(
            "gpu1.lab/ollama",
            "a path prefix in host needs a scheme; write for example http://gpu1.lab:11434/ollama",
        ),
        host("fd00::1", "an IPv6 address in host must be in brackets; write for example [fd00::1]:11434"),
        host("http://2001:db8::1/", "an IPv6 address in host must be in brackets"),
        host("[::1", BRACKETS),
        host("[]", BRACKETS),
        host("[1.2.3.4]", BRACKETS),
        host("[fe80::1%eth0]", BRACKETS),
        host("[fd00:::1]", BRACKETS),
        host("127.1", NUMERIC),
        host("2130706433", NUMERIC),
        host("0x7f.1", NUMERIC),
        host("gpu.0x7f:80", NUMERIC),
        host("999.999.999.999", NUMERIC),
        host("192.168.1.010", NUMERIC),
        host(&format!("http://{}", "a.".repeat(200)), "Too long"),
        spec(
            json!({ "backendType": "ollama" }),
            "spec.backendType",
            "supported values: \"Ollama\", \"VLLM\", \"Generic\", \"Plugin\"",
        ),
        spec(
            json!({ "backendType": "Plugin" }),
            "spec.providerRef",
            "backendType Plugin needs providerRef, the FleetPlugin that talks to the host; write providerRef: {name: my-plugin}",
        ),
        spec(
            json!({ "providerRef": { "name": "p" } }),
            "spec.providerRef",
            "providerRef is only for backendType Plugin; remove it, or set backendType: Plugin",
        ),
        spec(
            json!({ "backendType": "Plugin", "providerRef": { "name": "p", "namespace": "n" } }),
            "",
            "unknown field \"spec.providerRef.namespace\"",
        ),
        spec(json!({ "hots": "gpu1" }), "", "unknown field \"spec.hots\""),
        spec(json!({ "secretRef": { "name": "My_Secret" } }), "spec.secretRef.name", OBJECT_NAME),
        spec(json!({ "secretRef": { "name": "" } }), "spec.secretRef.name", OBJECT_NAME),
        spec(json!({ "certSecretRef": { "name": "a..b" } }), "spec.certSecretRef.name", OBJECT_NAME),
        spec(json!({ "certSecretRef": {} }), "spec.certSecretRef.name", "Required value"),
        spec(json!({ "displayName": "line\nbreak" }), "spec.displayName", CONTROL),
        spec(json!({ "displayName": "right\u{202e}left" }), "spec.displayName", CONTROL),
        spec(json!({ "displayName": "" }), "spec.displayName", "should be at least 1 chars long"),
        spec(
            json!({ "displayName": "x".repeat(129) }),
            "spec.displayName",
            "Too long: may not be more than 128",
        ),
        spec(json!({ "capacity": { "memory": 0 } }), "spec.capacity.memory", MEMORY),
        spec(json!({ "capacity": { "memory": -1 } }), "spec.capacity.memory", MEMORY),
        spec(json!({ "capacity": { "memory": "0" } }), "spec.capacity.memory", MEMORY),
        spec(json!({ "capacity": { "memory": "-1Gi" } }), "spec.capacity.memory", MEMORY),
        spec(json!({ "capacity": { "memory": "abc" } }), "spec.capacity.memory", MEMORY),
        spec(json!({ "capacity": { "memory": "" } }), "spec.capacity.memory", MEMORY),
        spec(json!({ "capacity": { "vram": "1Qi" } }), "spec.capacity.vram", VRAM),
        spec(json!({ "capacity": { "vram": "12 Gi" } }), "spec.capacity.vram", VRAM),
        spec(json!({ "capacity": { "vram": 1.5 } }), "spec.capacity.vram", "must be of type integer,string"),
        spec(json!({ "capacity": { "ramGb": 16 } }), "", "unknown field \"spec.capacity.ramGb\""),
        spec(json!({ "pluginPorts": { "metrics-port": 9100 } }), "spec.pluginPorts", PORTS_KEY),
        spec(json!({ "pluginPorts": { "MetricsPort": 9100 } }), "spec.pluginPorts", PORTS_KEY),
        spec(json!({ "pluginPorts": { "metricsPort": 65536 } }), "spec.pluginPorts", PORTS_NUMBER),
        spec(json!({ "pluginPorts": { "metricsPort": -1 } }), "spec.pluginPorts", PORTS_NUMBER),
        spec(
            json!({ "pluginPorts": { "metricsPort": "9100" } }),
            "spec.pluginPorts.metricsPort",
            "must be of type integer",
        ),
        poll("spec.poll.interval", "0s".into(), INTERVAL),
        poll("spec.poll.interval", "999ms".into(), INTERVAL),
        poll("spec.poll.interval", "1d".into(), INTERVAL),
        poll("spec.poll.interval", "-1s".into(), INTERVAL),
        poll("spec.poll.interval", "10".into(), INTERVAL),
        poll("spec.poll.interval", "".into(), INTERVAL),
        poll("spec.poll.interval", "10 s".into(), INTERVAL),
        poll("spec.poll.interval", "1.5s".into(), INTERVAL),
        poll("spec.poll.interval", "100000s".into(), INTERVAL),
        poll("spec.poll.interval", "24h1s".into(), INTERVAL),
        poll("spec.poll.interval", "99999h99999h99999h".into(), INTERVAL),
        poll("spec.poll.interval", 10.into(), "must be of type string"),
        poll("spec.poll.timeout", "99ms".into(), TIMEOUT),
        poll("spec.poll.timeout", "301s".into(), TIMEOUT),
        poll("spec.poll.modelsInterval", "1d".into(), MODELS),
        spec(
            json!({ "poll": { "interval": "5s", "timeout": "5001ms" } }),
            "spec.poll.timeout",
            "timeout must not be longer than interval",
        ),
        spec(json!({ "poll": { "interval": "5", "timeout": "10s" } }), "spec.poll.interval", INTERVAL),
        poll("spec.poll.failureThreshold", 0.into(), "should be greater than or equal to 1"),
        poll("spec.poll.failureThreshold", 101.into(), "should be less than or equal to 100"),
        poll("spec.poll.successThreshold", 0.into(), "should be greater than or equal to 1"),
        spec(
            json!({ "maintenance": { "endTime": "2026-12-01T18:00:00" } }),
            "spec.maintenance.endTime",
            END_TIME,
        ),
        spec(json!({ "maintenance": { "endTime": "2026-12-01" } }), "spec.maintenance.endTime", END_TIME),
        spec(
            json!({ "maintenance": { "endTime": "2026-02-30T18:00:00Z" } }),
            "spec.maintenance.endTime",
            END_TIME,
        ),
        spec(
            json!({ "maintenance": { "endTime": "2026-12-01T24:00:00Z" } }),
            "spec.maintenance.endTime",
            END_TIME,
        ),
        spec(
            json!({ "maintenance": { "endTime": "2026-12-01T18:00:00+25:00" } }),
            "spec.maintenance.endTime",
            END_TIME,
        ),
        spec(json!({ "maintenance": { "reason": "bell\u{7}" } }), "spec.maintenance.reason", CONTROL),
        spec(json!({ "maintenance": true }), "spec.maintenance", "must be of type object"),
        spec(json!({ "suspend": "true" }), "spec.suspend", "must be of type boolean"),
        spec(
            json!({ "tlsServerName": "https://gpu1" }),
            "spec.tlsServerName",
            "tlsServerName must be a DNS name without a port, for example gpu1.lab",
        ),
        spec(
            json!({ "tlsServerName": "gpu1.lab:443" }),
            "spec.tlsServerName",
            "must be a DNS name without a port",
        ),
        spec(
            json!({ "hostHeader": "a\r\nX: y" }),
            "spec.hostHeader",
            "hostHeader must be a host name or address with an optional :port, for example localhost or localhost:11434",
        ),
        spec(json!({ "hostHeader": "localhost:0" }), "spec.hostHeader", "hostHeader must be a host name"),
        spec(
            json!({ "thresholds": { "cpuTemperatureCelsius": 0 } }),
            "spec.thresholds.cpuTemperatureCelsius",
            "should be greater than or equal to 1",
        ),
        spec(
            json!({ "thresholds": { "gpuTemperatureCelsius": 201 } }),
            "spec.thresholds.gpuTemperatureCelsius",
            "should be less than or equal to 200",
        ),
        spec(
            json!({ "thresholds": { "diskUsedPercent": 101 } }),
            "spec.thresholds.diskUsedPercent",
            "should be less than or equal to 100",
        ),
        spec(
            json!({ "thresholds": { "memoryAvailablePercent": -1 } }),
            "spec.thresholds.memoryAvailablePercent",
            "should be greater than or equal to 0",
        ),
        spec(
            json!({ "thresholds": { "diskUsedPercent": 90.5 } }),
            "spec.thresholds.diskUsedPercent",
            "must be of type integer",
        ),
    ]
}

#[allow(clippy::too_many_lines)] // a table
fn bad_plugins() -> Vec<Bad> {
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
        agent(json!({ "format": "json" }), "spec.agent.format", "supported values: \"Auto\", \"JSON\""),
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
        value(json!({ "jsonPaths": null }), "spec.agent.values[0].jsonPaths", "Required value"),
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
    ]
}

/// Every fault is refused with one message, at the one field that is wrong, which says what to write.
#[tokio::test]
async fn a_bad_object_is_refused_with_a_message_that_says_what_to_write() {
    let client = client().await;
    let mut failures = Vec::new();
    for bad in bad_servers().into_iter().chain(bad_plugins()) {
        let mut object = good(bad.kind);
        merge(&mut object, &bad.patch);
        let said = match try_create(&client, bad.kind, &object).await {
            Ok(()) => vec!["it is accepted".to_owned()],
            Err(status) => match blamed(&status).as_slice() {
                [(field, message)] if field == bad.field && message.contains(bad.says) => continue,
                causes => causes.iter().map(|(field, message)| format!("{field}: {message}")).collect(),
            },
        };
        let (patch, must) = (&bad.patch, format!("{}: … {}", bad.field, bad.says));
        failures.push(format!("{patch}\n  must say\n    {must}\n  says\n    {}", said.join("\n    ")));
    }
    assert!(failures.is_empty(), "{} of the table:\n{}", failures.len(), failures.join("\n"));
}

/// What is at the edge but right is accepted, and means to the operator what it says.
#[tokio::test]
async fn an_object_at_the_edge_of_the_rules_is_accepted() {
    let label = "a".repeat(63);
    let hosts = [
        "g",
        "192.168.1.100",
        "0.0.0.0:1",
        "gpu1.lab.:65535",
        "GPU_1.lab",
        "_gpu.lab",
        "3com.net",
        "1.2.3.4.example",
        "0x7f.lab",
        "xn--gp1-hoa.lab",
        &label,
        "[::1]",
        "[fd00::1]:11434",
        "http://[fd00::1]/x",
        "https://gpu1.lab",
        "http://gpu1.lab:1/a/b-c~d%20e/",
        "https://192.168.1.101:443/ollama",
    ];
    let many: Vec<Value> = (0..32).map(|n| json!({ "name": format!("v{n}"), "jsonPaths": ["$"] })).collect();
    let mut good = Vec::new();
    good.extend(hosts.map(|host| spec(json!({ "host": host }), "", "")));
    good.extend([
        spec(json!({ "displayName": "Größe 大 🦙" }), "", ""),
        spec(json!({ "backendType": "Plugin", "providerRef": { "name": "llama.cpp-1" } }), "", ""),
        spec(json!({ "capacity": { "memory": 1, "vram": "0.5Gi" } }), "", ""),
        spec(json!({ "capacity": {} }), "", ""),
        spec(json!({ "pluginPorts": { "a": 0, "metricsPort": 65535 } }), "", ""),
        spec(json!({ "pluginPorts": {} }), "", ""),
        spec(json!({ "poll": { "interval": "1s", "timeout": "1000ms" } }), "", ""),
        spec(json!({ "poll": { "interval": "23h59m60s", "timeout": "5m", "modelsInterval": "24h" } }), "", ""),
        spec(json!({ "poll": { "failureThreshold": 1, "successThreshold": 100 } }), "", ""),
        spec(json!({ "maintenance": {} }), "", ""),
        spec(json!({ "maintenance": { "reason": "", "endTime": "2028-02-29T23:59:59.123456789-11:30" } }), "", ""),
        spec(json!({ "hostHeader": "[::1]:11434", "tlsServerName": "gpu_1.lab" }), "", ""),
        spec(json!({ "thresholds": { "cpuTemperatureCelsius": 200, "memoryAvailablePercent": 0 } }), "", ""),
        // Nothing was said, so the default holds.
        spec(json!({ "backendType": null, "thresholds": null, "suspend": null }), "", ""),
        plugin(json!({ "version": "0.0.0-a.1+b.01" }), "", ""),
        plugin(json!({ "serverSelector": {} }), "", ""),
        plugin(json!({ "serverSelector": { "matchLabels": { "gpu": "" }, "matchExpressions": [
            { "key": "a.b/c", "operator": "NotIn", "values": ["x"] }, { "key": "d", "operator": "DoesNotExist" }] } }), "", ""),
        agent(json!({ "defaultPort": 1, "endpoint": "/", "timeout": "100ms", "interval": "24h" }), "", ""),
        agent(json!({ "endpoint": "/a?b=c&d[]=e", "scheme": "https", "format": "JSON" }), "", ""),
        agent(json!({ "values": many }), "", ""),
        agent(json!({ "values": [] }), "", ""),
        value(json!({ "multiplier": "1e-3", "reading": "diskUsedPercent", "reduce": "Min" }), "", ""),
        value(json!({ "name": "x", "jsonPaths": ["$..a", "$['b c']"], "multiplier": 1_048_576 }), "", ""),
    ]);

    let client = client().await;
    let mut failures = Vec::new();
    for edge in good {
        let mut object = self::good(edge.kind);
        merge(&mut object, &edge.patch);
        if let Err(status) = try_create(&client, edge.kind, &object).await {
            failures.push(format!("{} is refused: {}", edge.patch, status.message));
        }
        let understood = match edge.kind {
            Kind::Server => serde_json::from_value::<OllamaServer>(object.clone()).map(drop),
            Kind::Plugin => serde_json::from_value::<FleetPlugin>(object.clone()).map(drop),
        };
        if let Err(error) = understood {
            // Only the API server fills in what an explicit null leaves to the default.
            if !edge.patch.to_string().contains("null") {
                failures.push(format!("{} is not understood: {error}", edge.patch));
            }
        }
        if let Some(host) = edge.patch.pointer("/spec/host").and_then(Value::as_str)
            && let Err(error) = Endpoint::parse(host)
        {
            failures.push(format!("host {host} is accepted but means nothing to the operator: {error}"));
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// Whatever passes the rule of `host` has a meaning to the operator: each of these is refused by both or by neither.
#[tokio::test]
async fn the_rule_of_host_and_the_operator_agree() {
    let client = client().await;
    let names = [
        "gpu1",
        "gpu1.",
        "1.2.3.4",
        "1.2.3.4.",
        "1.2.3",
        "a.1",
        "a.0x",
        "a_b",
        "-a",
        "a-",
        "[::1]",
        "[::ffff:1]",
        "[1:2]",
    ];
    let schemes = ["", "http://", "https://", "ws://"];
    let ports = ["", ":80", ":0", ":99999"];
    let prefixes = ["", "/", "/a%20b//c", "/[x]"];
    let mut failures = Vec::new();
    for host in names.iter().flat_map(|name| schemes.map(|scheme| format!("{scheme}{name}"))) {
        for (port, prefix) in ports.iter().flat_map(|port| prefixes.map(|prefix| (port, prefix))) {
            let host = format!("{host}{port}{prefix}");
            let mut object = good(Kind::Server);
            object["spec"]["host"] = host.clone().into();
            let accepted = try_create(&client, Kind::Server, &object).await;
            let parsed = Endpoint::parse(&host);
            // Brackets in a path are the one thing that only the rule refuses.
            if accepted.is_ok() != (parsed.is_ok() && prefix != "/[x]") {
                failures.push(format!("{host}: API server {accepted:?}, operator {parsed:?}"));
            }
        }
    }
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

/// The type of a plugin is fixed, and an update is told the same as a creation.
#[tokio::test]
async fn the_type_of_a_plugin_cannot_be_changed() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let client = control_plane.client().await;
    objects::create(&client, &namespace, &objects::plugin("p", 9100, json!({}))).await.unwrap();
    let patch = r#"{"spec":{"type":"Hook"}}"#;
    let args = ["patch", "fleetplugin", "p", "-n", &namespace, "--type=merge", "-p", patch];
    let said = control_plane.kubectl(&args, None).refused();
    assert!(said.contains("supported values: \"Agent\""), "{said}");
}

/// A null is no port: server-side apply says so instead of losing it.
#[tokio::test]
async fn a_null_port_is_refused() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let mut object = good(Kind::Server);
    object["spec"]["pluginPorts"] = json!({ "metricsPort": null });
    let args = ["apply", "--server-side", "-n", &namespace, "-f", "-"];
    let said = control_plane.kubectl(&args, Some(&object.to_string())).refused();
    assert!(said.contains("spec.pluginPorts.metricsPort"), "{said}");
}

async fn client() -> Client {
    ControlPlane::shared().client().await
}

fn good(kind: Kind) -> Value {
    let (kind, spec) = match kind {
        Kind::Server => ("OllamaServer", json!({ "host": "gpu1.lab" })),
        Kind::Plugin => (
            "FleetPlugin",
            json!({ "type": "Agent", "version": "1.0.0", "agent": { "defaultPort": 9100, "endpoint": "/metrics" } }),
        ),
    };
    json!({ "apiVersion": "ollama-fleet.io/v1alpha1", "kind": kind, "metadata": { "name": "under-test" }, "spec": spec })
}

/// RFC 7386, but a null inside a list or of a value that was not there stays, to be sent.
fn merge(target: &mut Value, patch: &Value) {
    match (target, patch) {
        (Value::Object(target), Value::Object(patch)) => {
            for (key, value) in patch {
                if value.is_null() && target.contains_key(key) {
                    target.remove(key);
                } else {
                    merge(target.entry(key.as_str()).or_insert(Value::Null), value);
                }
            }
        }
        (target, patch) => patch.clone_into(target),
    }
}

/// Creates an object without storing it, with the field validation that kubectl asks for.
async fn try_create(client: &Client, kind: Kind, object: &Value) -> Result<(), Box<Status>> {
    http::install_provider();
    let plural = match kind {
        Kind::Server => "ollamaservers",
        Kind::Plugin => "fleetplugins",
    };
    let url = format!(
        "/apis/ollama-fleet.io/v1alpha1/namespaces/default/{plural}?dryRun=All&fieldValidation=Strict"
    );
    let request = Request::post(url).header("content-type", "application/json");
    match client.request::<Value>(request.body(object.to_string().into_bytes()).unwrap()).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) => Err(status),
        Err(error) => panic!("{error}"),
    }
}

/// Field and message of each cause. What the API server says of no field is its own remark on another cause: that it
/// says something twice, or has checked no further.
fn blamed(status: &Status) -> Vec<(String, String)> {
    let causes = status.details.iter().flat_map(|details| &details.causes);
    let causes = causes.filter(|cause| cause.field != "<nil>");
    let causes: Vec<_> = causes.map(|cause| (cause.field.clone(), cause.message.clone())).collect();
    if causes.is_empty() { vec![(String::new(), status.message.clone())] } else { causes }
}
