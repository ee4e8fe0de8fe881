//! The HTTP API on a real control plane: what programs written for the old API read, who sees what, and that it says
//! what the objects say.

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, Scene, apply, eventually, get, http,
    objects::{self, fleet_metrics, has_condition},
    plugin, server, status_of,
};
use kube::api::{DeleteParams, Patch, PatchParams};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer};
use serde::Deserialize;
use serde_json::{Value, json};
use std::time::Duration;

/// Counts are written at most every 5 s; three times over for a busy machine.
const COUNTS: Duration = Duration::from_secs(15);

/// A manifest as the old API had it, and as a program written for it declares it. `description` and the rest before
/// `defaultPort` were required; ports were numbers; what was not in the file was not in the answer.
#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "camelCase")]
struct OldManifest {
    name: String,
    version: String,
    description: String,
    r#type: OldType,
    #[serde(default, deserialize_with = "present")]
    default_port: Option<u16>,
    #[serde(default, deserialize_with = "present")]
    endpoint: Option<String>,
    #[serde(default, deserialize_with = "present")]
    config_key: Option<String>,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum OldType {
    Agent,
    Hook,
}

/// An absent field is nothing; null is an error.
fn present<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(field: D) -> Result<Option<T>, D::Error> {
    T::deserialize(field).map(Some)
}

impl Operator {
    /// Status and JSON of a path.
    async fn api(&self, path: &str, token: Option<&str>) -> (u16, Value) {
        let url = format!("http://{}{path}", self.api_address());
        let (status, body) = http::get_with_token(&url, token).await.unwrap();
        let json = serde_json::from_str(&body).unwrap_or_else(|error| panic!("{path}: {error}: {body}"));
        (status.as_u16(), json)
    }

    /// The array that a path answers, without a login.
    async fn rows(&self, path: &str) -> Vec<Value> {
        let (status, body) = self.api(path, None).await;
        assert_eq!(status, 200, "{path}: {body}");
        serde_json::from_value(body).unwrap()
    }
}

fn names(rows: &[Value]) -> Vec<String> {
    let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
    rows.iter().map(|row| format!("{}/{}", text(row, "namespace"), text(row, "name"))).collect()
}

/// A program that was written for the old `/api/plugins` reads the new one: the same names and types, lower case, and
/// absent where the old file had nothing.
#[tokio::test]
async fn a_program_for_the_old_api_reads_the_plugins() {
    let scene = Scene::new(1).await;
    scene.agents().await;
    scene.apply(&plugin("bare", scene.fleet.agent_port(), json!({"endpoint": "/bare"}))).await;
    let rows = eventually(PATIENCE, "both are listed", async || {
        let rows = scene.operator.rows("/api/plugins").await;
        if rows.len() == 2 { Ok(rows) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let old: Vec<OldManifest> = serde_json::from_value(json!(rows)).unwrap();
    let port = Some(scene.fleet.agent_port());
    let bare = OldManifest {
        name: "bare".into(),
        version: "1.0.0".into(),
        description: String::new(),
        r#type: OldType::Agent,
        default_port: port,
        endpoint: Some("/bare".into()),
        config_key: None,
    };
    let shipped = OldManifest {
        name: "fleet-metrics".into(),
        version: "1.0.0".into(),
        description: fleet_metrics(0).spec.description.unwrap(),
        r#type: OldType::Agent,
        default_port: port,
        endpoint: Some("/metrics".into()),
        config_key: Some("metricsPort".into()),
    };
    assert_eq!(old, [bare, shipped]);
    assert!(rows[0].get("configKey").is_none(), "{}", rows[0]);
    let fields: Vec<&str> = rows[1].as_object().unwrap().keys().map(String::as_str).collect();
    for field in ["namespace", "state", "servers"] {
        assert!(fields.contains(&field), "{fields:?}");
    }
    assert_eq!(rows[1]["namespace"], scene.namespace.name());
}

/// The old project listed a second agent plugin and never asked it; here what is listed is asked.
#[tokio::test]
async fn a_second_agent_plugin_is_listed_and_called() {
    let scene = Scene::new(1).await;
    scene.agents().await;
    scene.apply(&plugin("second", scene.fleet.agent_port(), json!({"endpoint": "/second"}))).await;
    scene.server("s00", 0, json!({})).await;
    scene.until_online("s00").await;
    eventually(COUNTS, "both are listed with a server that they were asked on", async || {
        let rows = scene.operator.rows("/api/plugins").await;
        let asked = |row: &Value| {
            let count = |name: &str| row["servers"][name].as_i64().unwrap_or_default();
            (row["name"].as_str().map(str::to_owned), count("matched"), count("healthy") + count("failing"))
        };
        let is: Vec<_> = rows.iter().map(asked).collect();
        let expected = ["fleet-metrics", "second"].map(|name| (Some(name.to_owned()), 1, 1));
        if is == expected { Ok(()) } else { Err(format!("{rows:?}")) }
    })
    .await;
    let stats = scene.fleet.host_stats(0).await;
    for path in ["agent:/metrics", "agent:/second"] {
        assert!(stats.count(path) > 0, "{path} was never called: {:?}", stats.requests);
    }
}

/// A list has what the caller may list, namespace by namespace; one object is for those who may get it, and nobody else
/// learns whether it exists.
#[tokio::test]
async fn a_service_account_sees_its_own_namespace_only() {
    let control_plane = ControlPlane::shared();
    let client = control_plane.client().await;
    let fleet = Fleet::start(2).await;
    let (ours, theirs) = (Namespace::new(control_plane).await, Namespace::new(control_plane).await);
    let builder = Operator::builder(control_plane).namespace(&ours).namespace(&theirs);
    let operator = builder.arg("--api-auth=kubernetes").start().await;
    for (host, namespace) in [&ours, &theirs].into_iter().enumerate() {
        apply(&client, namespace, &fleet_metrics(fleet.agent_port())).await;
        apply(&client, namespace, &server("s00", fleet.host(host))).await;
        eventually(PATIENCE, "Ready", async || {
            has_condition(&get::<OllamaServer>(&client, namespace, "s00").await, "Ready", "True", "Online")
        })
        .await;
    }
    let kubectl = |args: &[&str]| control_plane.kubectl(&[args, &["-n", ours.name()]].concat(), None).ok();
    let token = |name: &str| {
        kubectl(&["create", "serviceaccount", name]);
        kubectl(&["create", "token", name]).trim().to_owned()
    };
    let (viewer, lister, stranger) = (token("viewer"), token("lister"), token("stranger"));
    let grant = |name: &str, verb: &str| {
        let verb = format!("--verb={verb}");
        kubectl(&[
            "create",
            "role",
            name,
            &verb,
            "--resource=fleetplugins.ollama-fleet.io,ollamaservers.ollama-fleet.io",
        ]);
        let account = format!("--serviceaccount={}:{name}", ours.name());
        kubectl(&["create", "rolebinding", name, &format!("--role={name}"), &account]);
    };
    grant("viewer", "get,list");
    grant("lister", "list");
    let both = [ours.name(), theirs.name()];
    let seen = |token: &str, namespace: &str| token == viewer && namespace == ours.name();

    for token in [&viewer, &lister] {
        // A right just given takes a moment to reach the API server's authorizer.
        eventually(PATIENCE, "the roles hold", async || {
            operator.api("/api/plugins", Some(token.as_str())).await.1.as_array().map(Vec::len) == Some(1)
        })
        .await;
        let (_, plugins) = operator.api("/api/plugins", Some(token.as_str())).await;
        assert_eq!(names(plugins.as_array().unwrap()), [format!("{ours}/fleet-metrics")]);
        let (status, servers) = operator.api("/api/servers", Some(token.as_str())).await;
        assert_eq!((status, names(servers.as_array().unwrap())), (200, vec![format!("{ours}/s00")]));
    }
    for path in ["/api/plugins", "/api/servers"] {
        assert_eq!(operator.api(path, Some(stranger.as_str())).await, (200, json!([])), "{path}");
        for (token, says) in
            [(None, "a bearer token is required"), (Some("made.up.token"), "does not accept this token")]
        {
            let (status, problem) = operator.api(path, token).await;
            assert_eq!((status, &problem["status"]), (401, &json!(401)), "{problem}");
            assert!(problem["detail"].as_str().unwrap().contains(says), "{problem}");
        }
    }
    for namespace in both {
        for token in [&viewer, &lister, &stranger] {
            for name in ["plugins/fleet-metrics", "plugins/nothing", "servers/s00", "servers/nothing"] {
                let path = format!("/api/namespaces/{namespace}/{name}");
                let (status, body) = operator.api(&path, Some(token.as_str())).await;
                let there = if name.ends_with("nothing") { 404 } else { 200 };
                let expected = if seen(token, namespace) { there } else { 403 };
                assert_eq!(status, expected, "{path}: {body}");
            }
        }
        let path = format!("/api/namespaces/{namespace}/servers");
        let (status, body) = operator.api(&path, Some(lister.as_str())).await;
        assert_eq!(status, if namespace == ours.name() { 200 } else { 403 }, "{body}");
    }
    for secret in [&viewer, &lister, &stranger] {
        assert!(!operator.log().contains(secret.as_str()), "the log has a token in it");
    }
}

/// A plugin in Error says so and why; a deleted one is gone, from the list and by itself.
#[tokio::test]
async fn a_plugin_in_error_shows_it_and_a_deleted_one_vanishes() {
    let scene = Scene::new(1).await;
    let bad = json!({"values": [{"name": "load", "jsonPaths": ["$.load["]}]});
    scene.apply(&plugin("bad", scene.fleet.agent_port(), bad)).await;
    scene.agents().await;
    let state = async |name: &str| {
        let rows = scene.operator.rows("/api/plugins").await;
        let row = rows.iter().find(|row| row["name"] == name);
        row.map(|row| row["state"].as_str().unwrap_or_default().to_owned())
    };
    eventually(PATIENCE, "its state is shown", async || {
        let states = (state("bad").await, state("fleet-metrics").await);
        let expected = (Some("Error".to_owned()), Some("Active".to_owned()));
        if states == expected { Ok(()) } else { Err(format!("{states:?}")) }
    })
    .await;
    let path = format!("/api/namespaces/{}/plugins/bad", scene.namespace);
    let (_, details) = scene.operator.api(&path, None).await;
    let conditions = details["conditions"].as_array().unwrap();
    let accepted = conditions.iter().find(|condition| condition["type"] == "Accepted").unwrap();
    assert_eq!((&accepted["status"], &accepted["reason"]), (&json!("False"), &json!("InvalidSpec")));
    assert!(accepted["message"].as_str().unwrap().contains("$.load["), "{accepted}");

    let api = objects::api::<FleetPlugin>(&scene.client, &scene.namespace);
    api.delete("bad", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "it is gone", async || {
        let gone = state("bad").await.is_none() && scene.operator.api(&path, None).await.0 == 404;
        gone && state("fleet-metrics").await.is_some()
    })
    .await;
}

/// What the API says is what the objects say, field by field, under the same names.
#[tokio::test]
async fn the_api_says_what_the_objects_say() {
    let scene = Scene::new(2).await;
    scene.agents().await;
    scene.fleet.action("0", json!({"action": "pull", "model": "m:latest", "sizeBytes": 1 << 30})).await;
    scene.fleet.action("0", json!({"action": "load", "model": "m:latest", "expires": "forever"})).await;
    scene.server("s00", 0, json!({"displayName": "Server 1", "capacity": {"memory": "16Gi"}})).await;
    scene.server("s01", 1, json!({"pluginPorts": {"metricsPort": 0}})).await;
    scene.until_read("s00").await;
    scene.until_online("s01").await;
    eventually(COUNTS, "plugins and servers agree with their objects", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "fleet-metrics").await;
        let plugin = serde_json::to_value(&plugin).unwrap();
        let rows = scene.operator.rows("/api/plugins").await;
        let [row] = rows.as_slice() else { return Err(format!("{rows:?}")) };
        if row["servers"]["disabled"] != 1 {
            return Err(format!("not counted yet: {row}"));
        }
        same(row, &plugin["spec"], &["version", "description"])?;
        same(row, &plugin["spec"]["agent"], &["defaultPort", "endpoint", "configKey"])?;
        same(row, &plugin["status"], &["state", "servers"])?;
        let path = format!("/api/namespaces/{}/plugins/fleet-metrics", scene.namespace);
        let (_, details) = scene.operator.api(&path, None).await;
        same(&details, &plugin["spec"], &["author", "keywords", "provides"])?;
        same(&details, &plugin["status"], &["conditions", "installedVersion"])?;
        let expected = json!([{"server": "s00", "state": "Active"}, {"server": "s01", "state": "Disabled"}]);
        if details["serverStates"] != expected {
            return Err(details["serverStates"].to_string());
        }

        let rows = scene.operator.rows("/api/servers").await;
        if rows.len() != 2 {
            return Err(format!("{rows:?}"));
        }
        for row in &rows {
            let name = row["name"].as_str().unwrap();
            let server = serde_json::to_value(scene.get(name).await).unwrap();
            same(row, &server["spec"], &["host", "backendType", "capacity"])?;
            let fields = ["version", "modelCount", "modelSize", "loadedCount", "vramUsed"];
            same(row, &server["status"], &fields)?;
            same(row, &server["status"], &["pluginSummary"])?;
            let (ours, theirs) = (loaded(row), loaded(&server["status"]));
            if ours != theirs {
                return Err(format!("{ours:?}, not {theirs:?}"));
            }
            let path = format!("/api/namespaces/{}/servers/{name}", scene.namespace);
            let (_, details) = scene.operator.api(&path, None).await;
            same(&details, &server["status"], &["models", "conditions"])?;
        }
        Ok(())
    })
    .await;
    let rows = scene.operator.rows("/api/servers").await;
    assert_eq!((&rows[0]["displayName"], &rows[1]["displayName"]), (&json!("Server 1"), &json!("s01")));
    assert_eq!((&rows[0]["ready"], &rows[0]["reason"]), (&json!(true), &json!("Online")));
    assert_eq!(rows[0]["plugins"], json!([{"name": "fleet-metrics", "state": "Active"}]));
    assert_eq!(rows[0]["machine"]["gpuTemperatureCelsius"], 61);
    assert_eq!(rows[0]["loadedModels"][0]["name"], "m:latest");
    assert!(rows[0].get("models").is_none());
}

/// The API is ahead of the objects, not behind them: what a poll found is shown whether or not it could be written, and
/// an edit and a deletion at once.
#[tokio::test]
async fn servers_follow_polls_edits_and_deletions() {
    let scene = Scene::new(2).await;
    scene.server("s00", 0, json!({})).await;
    scene.server("s01", 1, json!({})).await;
    scene.until_online("s00").await;
    scene.until_online("s01").await;
    scene.fleet.action("0", "die").await;
    let row = async |name: &str| {
        let rows = scene.operator.rows("/api/servers").await;
        rows.into_iter().find(|row| row["name"] == name)
    };
    eventually(PATIENCE, "the dead one is shown as such", async || {
        let row = row("s00").await.unwrap();
        let is = (&row["ready"], &row["reachable"], &row["reason"]);
        if is == (&json!(false), &json!(false), &json!("ConnectionRefused")) {
            Ok(())
        } else {
            Err(row.to_string())
        }
    })
    .await;
    let failures = |row: &Value| row["consecutiveFailures"].as_u64().unwrap();
    let before = failures(&row("s00").await.unwrap());
    eventually(PATIENCE, "failures go on counting without a write", async || {
        failures(&row("s00").await.unwrap()) > before + 2
    })
    .await;
    let written = status_of(&scene.get("s00").await).consecutive_failures.unwrap();
    assert!(u64::try_from(written).unwrap() < failures(&row("s00").await.unwrap()));

    let labels = Patch::Merge(json!({"spec": {"displayName": "Rack 2"}}));
    let api = objects::api::<OllamaServer>(&scene.client, &scene.namespace);
    api.patch("s01", &PatchParams::default(), &labels).await.unwrap();
    eventually(PATIENCE, "the new name is shown", async || {
        row("s01").await.is_some_and(|row| row["displayName"] == "Rack 2")
    })
    .await;
    api.delete("s01", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "the deleted one is gone", async || row("s01").await.is_none()).await;
}

/// The models in memory without the time of their end, which moves at every poll and is written now and then.
fn loaded(of: &Value) -> Vec<Value> {
    let mut models = of["loadedModels"].as_array().cloned().unwrap_or_default();
    for model in &mut models {
        model.as_object_mut().unwrap().remove("expirationTime");
    }
    models
}

/// Whether these fields are the same in both, absence included.
fn same(left: &Value, right: &Value, fields: &[&str]) -> Result<(), String> {
    for field in fields {
        if left.get(field) != right.get(field) {
            return Err(format!("{field}: {:?}, not {:?}", left.get(field), right.get(field)));
        }
    }
    Ok(())
}
