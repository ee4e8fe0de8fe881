//! Making and reading the operator's objects.

use k8s_openapi::{
    NamespaceResourceScope, api::events::v1::Event, apimachinery::pkg::apis::meta::v1::Condition,
};
use kube::{
    Api, Client, Resource, ResourceExt as _,
    api::{ListParams, Patch, PatchParams, PostParams},
};
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer, OllamaServerStatus};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::fmt::Debug;

/// What every kind of namespaced object has.
pub trait Object:
    Resource<Scope = NamespaceResourceScope, DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned
{
}

impl<T> Object for T where
    T: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned
{
}

/// A server with the least that it needs; change its spec before it is applied.
pub fn server(name: &str, host: impl Into<String>) -> OllamaServer {
    server_with(name, host, json!({}))
}

/// A server with more of its spec, in the words of the API.
pub fn server_with(name: &str, host: impl Into<String>, mut spec: Value) -> OllamaServer {
    spec["host"] = host.into().into();
    OllamaServer::new(name, serde_json::from_value(spec).unwrap())
}

/// An agent plugin that is read at `/metrics`; `agent` has what else it needs, in the words of the API.
pub fn plugin(name: &str, port: u16, mut agent: Value) -> FleetPlugin {
    agent["defaultPort"] = port.into();
    if agent["endpoint"].is_null() {
        agent["endpoint"] = "/metrics".into();
    }
    let spec = json!({ "type": "Agent", "version": "1.0.0", "agent": agent });
    FleetPlugin::new(name, serde_json::from_value(spec).unwrap())
}

/// The plugin that ships with the product, with its port moved to where the simulated agents listen.
pub fn fleet_metrics(port: u16) -> FleetPlugin {
    let file = super::binaries::repository().join("plugins/fleet-metrics/plugin.yaml");
    let mut plugin: FleetPlugin = serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap();
    plugin.spec.agent.as_mut().unwrap().default_port = port.into();
    plugin
}

/// Server-side apply, as a user or a GitOps tool does it.
pub async fn apply<T: Object>(client: &Client, namespace: &str, object: &T) -> T {
    let params = PatchParams::apply("integration-test").force();
    api(client, namespace).patch(&object.name_any(), &params, &Patch::Apply(object)).await.unwrap()
}

/// Creates an object; the error of the API server if it refuses.
pub async fn create<T: Object>(client: &Client, namespace: &str, object: &T) -> kube::Result<T> {
    api(client, namespace).create(&PostParams::default(), object).await
}

/// Merges JSON into the spec of an object.
pub async fn patch_spec<T: Object>(client: &Client, namespace: &str, name: &str, spec: Value) -> T {
    let patch = Patch::Merge(json!({ "spec": spec }));
    api(client, namespace).patch(name, &PatchParams::default(), &patch).await.unwrap()
}

pub async fn get<T: Object>(client: &Client, namespace: &str, name: &str) -> T {
    api(client, namespace).get(name).await.unwrap()
}

pub fn api<T: Object>(client: &Client, namespace: &str) -> Api<T> {
    Api::namespaced(client.clone(), namespace)
}

pub fn resource_version<T: Object>(object: &T) -> String {
    object.resource_version().unwrap_or_default()
}

/// The status of a server; the empty one if it has none.
pub fn status_of(server: &OllamaServer) -> OllamaServerStatus {
    server.status.clone().unwrap_or_default()
}

/// Kinds that carry conditions.
pub trait Conditioned {
    fn conditions(&self) -> &[Condition];
}

impl Conditioned for OllamaServer {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
}

impl Conditioned for FleetPlugin {
    fn conditions(&self) -> &[Condition] {
        self.status.as_ref().map_or(&[], |status| &status.conditions)
    }
}

/// Status, reason and message of a condition, if it is there.
pub fn condition(object: &impl Conditioned, type_: &str) -> Option<(String, String, String)> {
    let found = object.conditions().iter().find(|condition| condition.type_ == type_)?;
    Some((found.status.clone(), found.reason.clone(), found.message.clone()))
}

/// Whether the condition has this status and reason; if not, what it has instead. For use in `eventually`.
pub fn has_condition(
    object: &impl Conditioned,
    type_: &str,
    status: &str,
    reason: &str,
) -> Result<(), String> {
    match condition(object, type_) {
        Some((is, why, _)) if is == status && why == reason => Ok(()),
        other => Err(format!("{type_} is {other:?}, not {status}/{reason}")),
    }
}

/// The Events about one object, oldest first.
pub async fn events(client: &Client, namespace: &str, name: &str) -> Vec<Event> {
    let mut events = all_events(client, namespace).await;
    events
        .retain(|event| event.regarding.as_ref().is_some_and(|object| object.name.as_deref() == Some(name)));
    events
}

/// The Events of a namespace, oldest first.
pub async fn all_events(client: &Client, namespace: &str) -> Vec<Event> {
    let mut events = api::<Event>(client, namespace).list(&ListParams::default()).await.unwrap().items;
    events.sort_by_key(|event| event.event_time.clone());
    events
}

/// How often something was told: an Event that repeats is one object with a count.
pub fn count(events: &[Event], reason: &str) -> usize {
    let times = |event: &Event| event.series.as_ref().map_or(1, |series| series.count);
    let of_reason = events.iter().filter(|event| event.reason.as_deref() == Some(reason));
    of_reason.map(|event| usize::try_from(times(event)).unwrap_or_default()).sum()
}
