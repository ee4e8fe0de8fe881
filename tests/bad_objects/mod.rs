//! What is wrong is refused by the API server, at the field that is wrong, with a message that says what to write.

use crate::support::{ControlPlane, Namespace, http, objects};
use axum::http::Request;
use kube::{Client, core::response::Status};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer, endpoint::Endpoint};
use serde_json::{Value, json};

mod plugins;
mod servers;

use plugins::{a_rule, agent, bad_plugins, plugin, value};
use servers::{bad_servers, spec};

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
        value(json!({ "rate": true, "reduce": "Sum" }), "", ""),
        agent(json!({ "format": "Prometheus", "values": [
            { "name": "a", "metric": { "name": "node_load1", "labels": { "x": "", "y.z": "{\"}" } } },
            { "name": "b", "type": "Hostname", "metric": { "name": "info", "label": "nodename" } },
            { "name": "c", "expression": "values.a * 2", "multiplier": "1Ki" }] }), "", ""),
        agent(json!({ "rules": [a_rule(), { "name": "R", "when": "x", "message": "m", "for": "24h", "as": "Event", "severity": "Info" }] }), "", ""),
        plugin(json!({ "dependencies": {} }), "", ""),
        plugin(json!({ "dependencies": { "platform": "^0.1 || 1.x", "plugins": { "core": "*", "a-b": "1 - 2" } } }), "", ""),
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
