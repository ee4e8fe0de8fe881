//! Every way in which a server's spec can be wrong.

use super::{Bad, Kind};
use serde_json::{Value, json};

pub fn spec(patch: Value, field: &'static str, says: &'static str) -> Bad {
    Bad { kind: Kind::Server, patch: json!({ "spec": patch }), field, says }
}

pub fn host(host: &str, says: &'static str) -> Bad {
    spec(json!({ "host": host }), "spec.host", says)
}

pub fn poll(field: &'static str, value: Value, says: &'static str) -> Bad {
    let name = field.rsplit('.').next().unwrap();
    spec(json!({ "poll": { name: value } }), field, says)
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

#[allow(clippy::too_many_lines)] // a table
pub fn bad_servers() -> Vec<Bad> {
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
