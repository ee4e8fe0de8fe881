//! The CRDs are what the code says, explain themselves, and show a fleet at a glance.

use crate::support::{ControlPlane, Namespace, apply, binaries, condition, get, objects, server};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer, crd};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs,
    path::{Path, PathBuf},
};

/// Files that users are told to apply.
fn examples() -> Vec<PathBuf> {
    let mut files =
        files("examples", "yaml").into_keys().map(|name| format!("examples/{name}").into()).collect();
    let plugins = fs::read_dir(binaries::repository().join("plugins")).unwrap();
    let plugins =
        plugins.map(|entry| entry.unwrap().path().join("plugin.yaml")).filter(|file| file.is_file());
    Vec::extend(&mut files, plugins);
    files
}

/// Names and texts of the files of a folder.
fn files(folder: &str, extension: &str) -> BTreeMap<String, String> {
    let folder = binaries::repository().join(folder);
    let paths = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path());
    let paths = paths.filter(|path| path.extension().is_some_and(|is| is == extension));
    let name = |path: &Path| path.file_name().unwrap().to_str().unwrap().to_owned();
    paths.map(|path| (name(&path), fs::read_to_string(&path).unwrap())).collect()
}

fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap()
}

/// The files in `crds/` are those that the code generates, and no others.
#[test]
fn the_crds_are_those_of_the_code() {
    let files = files("crds", "yaml");
    let generated: BTreeMap<String, Value> =
        crd::all().iter().map(|crd| (crd::file_name(crd), serde_json::to_value(crd).unwrap())).collect();
    assert!(files.keys().eq(generated.keys()), "run `make generate`: {:?}", files.keys());
    for (name, text) in files {
        assert_eq!(yaml(&text), generated[&name], "crds/{name} is stale: run `make generate`");
    }
}

/// The chart installs the same CRDs.
#[test]
fn the_crds_of_the_chart_are_the_same() {
    let (own, chart) = (files("crds", "yaml"), files("charts/ollama-fleet-operator/crd-files", "yaml"));
    assert!(own.keys().eq(chart.keys()), "run `make generate`: {:?}", chart.keys());
    for (name, text) in own {
        assert!(chart[&name] == text, "the chart's {name} is stale: run `make generate`");
    }
}

/// Calls `visit` for the schema of every field, and of what lists and maps hold, with its path.
fn walk(path: &str, schema: &Value, visit: &mut impl FnMut(&str, &Value)) {
    visit(path, schema);
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        walk(&format!("{path}.{name}"), field, visit);
    }
    if schema["items"].is_object() {
        walk(&format!("{path}[]"), &schema["items"], visit);
    }
    if schema["additionalProperties"].is_object() {
        walk(&format!("{path}{{}}"), &schema["additionalProperties"], visit);
    }
}

fn walk_all(mut visit: impl FnMut(&str, &Value)) {
    for crd in crd::all() {
        for version in &crd.spec.versions {
            let schema = serde_json::to_value(&version.schema.as_ref().unwrap().open_api_v3_schema).unwrap();
            walk(&crd.spec.names.kind, &schema, &mut visit);
        }
    }
}

/// Every field has a description, so that `kubectl explain` is documentation.
#[test]
fn every_field_is_described() {
    let mut missing = Vec::new();
    walk_all(|path, schema| {
        let own = !path.ends_with("[]") && !path.ends_with("{}");
        if own && schema["description"].as_str().is_none_or(str::is_empty) {
            missing.push(path.to_owned());
        }
    });
    assert!(missing.is_empty(), "{missing:?}");
}

/// No string, list or map can grow without end, so no object of ours can fill etcd or the operator's memory.
#[test]
fn every_string_list_and_map_is_bounded() {
    let mut unbounded = Vec::new();
    walk_all(|path, schema| {
        let has = |key: &str| !schema[key].is_null();
        let bounded = match schema["type"].as_str() {
            Some("string") => has("maxLength") || has("enum") || has("format"),
            Some("array") => has("maxItems"),
            Some("object") => has("properties") || has("maxProperties"),
            _ => true,
        };
        if !bounded {
            unbounded.push(path.to_owned());
        }
    });
    assert!(unbounded.is_empty(), "{unbounded:?}");
}

/// `conditions` is the only list that several writers share, by type; a write replaces every other list and map.
#[test]
fn only_conditions_are_merged() {
    let mut wrong = Vec::new();
    walk_all(|path, schema| {
        let kind = |key: &str| schema[key].as_str().map(str::to_owned);
        let right = match schema["type"].as_str() {
            Some("array") if path.ends_with(".conditions") => {
                kind("x-kubernetes-list-type").as_deref() == Some("map")
                    && schema["x-kubernetes-list-map-keys"] == json!(["type"])
            }
            Some("array") => kind("x-kubernetes-list-type").as_deref() == Some("atomic"),
            _ => true,
        };
        if !right {
            wrong.push(path.to_owned());
        }
    });
    assert!(wrong.is_empty(), "{wrong:?}");
}

/// Nothing in the CRDs makes the API server warn.
#[test]
fn the_crds_are_applied_without_a_warning() {
    let control_plane = ControlPlane::shared();
    let args = ["apply", "--server-side", "--force-conflicts", "--validate=strict", "-f", "crds/"];
    let output = control_plane.kubectl(&args, None);
    assert_eq!(output.stderr, "");
    output.ok();
}

/// `kubectl explain` knows the fields, under the short name too.
#[test]
fn kubectl_explain_is_documentation() {
    let control_plane = ControlPlane::shared();
    let host = control_plane.kubectl(&["explain", "ollamaserver.spec.host"], None).ok();
    assert!(host.contains("FIELD: host <string>") && host.contains("https://gpu1.lab/ollama"), "{host}");
    let server = control_plane.kubectl(&["explain", "osrv"], None).ok();
    // kubectl breaks lines where it likes.
    let server = server.split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(server.contains("older than 10 minutes is stale"), "{server}");
    let agent = control_plane.kubectl(&["explain", "fplug.spec.agent.defaultPort"], None).ok();
    assert!(agent.contains("FIELD: defaultPort <integer>"), "{agent}");
}

/// `kubectl get` shows a fleet at a glance: these columns, in this order, and more with `-o wide`.
#[tokio::test]
async fn kubectl_get_has_the_promised_columns() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let client = control_plane.client().await;
    apply(&client, &namespace, &server("a", "gpu1.lab")).await;
    apply(&client, &namespace, &objects::plugin("p", 9100, json!({}))).await;
    let header = |args: &[&str]| {
        let table = control_plane.kubectl(&[&["get", "-n", namespace.name()], args].concat(), None).ok();
        table.lines().next().unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let servers = "NAME READY STATUS VERSION LOADED MODELS VRAM GPU-TEMP HEARTBEAT AGE";
    assert_eq!(header(&["ollamaservers"]), servers);
    let wide = format!("{servers} HOST BACKEND CPU% MEM-FREE DISK% PLUGINS FAILURES MESSAGE");
    assert_eq!(header(&["osrv", "-o", "wide"]), wide);
    let plugins = "NAME TYPE VERSION STATE READY SERVERS ENDPOINT PORT AGE";
    assert_eq!(header(&["fleetplugins"]), plugins);
    assert_eq!(header(&["fplug"]), plugins);
    // The category lists both kinds.
    let all = control_plane.kubectl(&["get", "ollama-fleet", "-n", &namespace, "-o", "name"], None).ok();
    assert_eq!(
        all.lines().collect::<Vec<_>>(),
        ["fleetplugin.ollama-fleet.io/p", "ollamaserver.ollama-fleet.io/a"]
    );
}

/// A new object is Unknown and Pending before anyone has written a status, and says that it was never polled.
#[tokio::test]
async fn a_new_object_is_pending() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let client = control_plane.client().await;
    apply(&client, &namespace, &server("a", "gpu1.lab")).await;
    apply(&client, &namespace, &objects::plugin("p", 9100, json!({}))).await;
    let server: OllamaServer = get(&client, &namespace, "a").await;
    let plugin: FleetPlugin = get(&client, &namespace, "p").await;
    let pending = ("Unknown".into(), "Pending".into(), "waiting for the operator".into());
    assert_eq!(condition(&server, "Ready"), Some(pending));
    assert_eq!(condition(&server, "Ready"), condition(&plugin, "Ready"));
    assert_eq!(server.status.unwrap().observed_generation, None);
    let table = control_plane.kubectl(&["get", "osrv", "a", "-n", &namespace, "--no-headers"], None).ok();
    assert_eq!(table.split_whitespace().take(3).collect::<Vec<_>>(), ["a", "Unknown", "Pending"]);
    let wait = ["wait", "osrv/a", "-n", &namespace, "--for=condition=Ready=Unknown", "--timeout=5s"];
    control_plane.kubectl(&wait, None).ok();
}

/// Servers can be picked by host and by kind of backend, on the API server's side.
#[tokio::test]
async fn servers_are_selected_by_host_and_backend() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let client = control_plane.client().await;
    for (name, host, backend) in
        [("a", "gpu1.lab", "Ollama"), ("b", "gpu2.lab", "VLLM"), ("c", "gpu2.lab", "Ollama")]
    {
        apply(&client, &namespace, &objects::server_with(name, host, json!({ "backendType": backend })))
            .await;
    }
    let names = |selector: &str| {
        let args = ["get", "osrv", "-n", &namespace, "-o", "name", "--field-selector", selector];
        let names = control_plane.kubectl(&args, None).ok();
        names.lines().map(|line| line.rsplit('/').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(names("spec.host=gpu2.lab"), ["b", "c"]);
    assert_eq!(names("spec.backendType=VLLM"), ["b"]);
    assert_eq!(names("spec.host=gpu2.lab,spec.backendType!=VLLM"), ["c"]);
}

/// Every example and every shipped plugin is accepted as it stands, and applying it again changes nothing: server-side
/// or client-side, as most users have it in their fingers.
#[tokio::test]
async fn examples_are_applied_and_stay_as_they_are() {
    let control_plane = ControlPlane::shared();
    let files = examples();
    assert!(files.len() >= 5, "{files:?}");
    for mode in [&["--server-side"][..], &[]] {
        let namespace = Namespace::new(control_plane).await;
        for file in &files {
            let file = file.to_str().unwrap();
            let run = |verb: &[&str], rest: &[&str]| {
                let output = control_plane
                    .kubectl(&[verb, &["-n", namespace.name(), "-f", file], rest].concat(), None);
                assert_eq!(output.stderr, "", "{file}");
                output.ok()
            };
            let apply = || run(&[&["apply", "--validate=strict"], mode].concat(), &[]);
            let versions = || {
                run(
                    &["get"],
                    &["-o", "jsonpath={.metadata.resourceVersion},{.items[*].metadata.resourceVersion}"],
                )
            };
            apply();
            // The API server stores the default status with the first update, which the operator's own write is
            // where there is an operator.
            let status = r#"{"status":{"conditions":[]}}"#;
            for name in run(&["get"], &["-o", "name"]).lines().filter(|name| !name.starts_with("secret/")) {
                let patch = ["patch", name, "-n", namespace.name(), "--subresource=status", "--type=merge"];
                control_plane.kubectl(&[&patch[..], &["-p", status]].concat(), None).ok();
            }
            let before = versions();
            let said = apply();
            assert_eq!(before, versions(), "{file} changes when it is applied again {mode:?}: {said}");
            let settled = [" unchanged", " serverside-applied"];
            assert!(said.lines().all(|line| settled.iter().any(|end| line.ends_with(end))), "{said}");
        }
    }
}
