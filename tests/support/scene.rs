//! The usual beginning of a test: a namespace, simulated hosts, and an operator that watches nothing else.

use super::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, WriteCounter, apply, eventually,
    objects::{self, has_condition},
    operator::Builder,
};
use k8s_openapi::api::events::v1::Event;
use kube::{
    Client,
    api::{Patch, PatchParams},
};
use ollama_fleet_operator::api::{OllamaServer, OllamaServerStatus};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Functional tests allow three times the promised bound: they share the machine with each other.
const SLACK: u32 = 3;

/// Everything that a test of running servers needs; dropped in this order.
pub struct Scene {
    pub operator: Operator,
    pub fleet: Fleet,
    pub namespace: Namespace,
    pub client: Client,
}

impl Scene {
    /// That many healthy hosts.
    pub async fn new(hosts: usize) -> Self {
        Self::with(hosts, &json!({}), |builder| builder).await
    }

    /// Hosts with a state from the start, and an operator with flags of the test's own.
    pub async fn with(hosts: usize, scenario: &Value, flags: impl FnOnce(Builder) -> Builder) -> Self {
        let control_plane = ControlPlane::shared();
        let namespace = Namespace::new(control_plane).await;
        let fleet = Fleet::with(hosts, scenario, &[]).await;
        let operator = flags(Operator::builder(control_plane).namespace(&namespace)).start().await;
        Self { operator, fleet, namespace, client: control_plane.client().await }
    }

    /// Applies a server for a host of the fleet; `spec` is the rest of its spec.
    pub async fn server(&self, name: &str, host: usize, spec: Value) -> OllamaServer {
        self.apply(&objects::server_with(name, self.fleet.host(host), spec)).await
    }

    /// The shipped agent plugin, in this namespace.
    pub async fn agents(&self) {
        self.apply(&objects::fleet_metrics(self.fleet.agent_port())).await;
    }

    pub async fn apply<T: objects::Object>(&self, object: &T) -> T {
        apply(&self.client, &self.namespace, object).await
    }

    pub async fn patch_spec(&self, name: &str, spec: Value) -> OllamaServer {
        objects::patch_spec(&self.client, &self.namespace, name, spec).await
    }

    /// Merges JSON into the metadata of a server.
    pub async fn patch_metadata(&self, name: &str, metadata: Value) {
        let patch = Patch::Merge(json!({ "metadata": metadata }));
        let servers = objects::api::<OllamaServer>(&self.client, &self.namespace);
        servers.patch(name, &PatchParams::default(), &patch).await.unwrap();
    }

    pub async fn get(&self, name: &str) -> OllamaServer {
        objects::get(&self.client, &self.namespace, name).await
    }

    pub async fn status(&self, name: &str) -> OllamaServerStatus {
        self.get(name).await.status.unwrap_or_default()
    }

    /// Waits until a condition has this status and reason.
    pub async fn until(&self, name: &str, type_: &str, status: &str, reason: &str) {
        self.within(PATIENCE, name, type_, status, reason).await;
    }

    /// Waits until a condition has this status and reason, for three times the promised bound; how long it took.
    pub async fn within(
        &self,
        bound: Duration,
        name: &str,
        type_: &str,
        status: &str,
        reason: &str,
    ) -> Duration {
        let start = Instant::now();
        let what = format!("{name}: {type_}={status}/{reason}");
        eventually(bound * SLACK, &what, async || {
            has_condition(&self.get(name).await, type_, status, reason)
        })
        .await;
        let took = start.elapsed();
        eprintln!("figure: {what} after {} ms, bound {} ms", took.as_millis(), bound.as_millis());
        took
    }

    pub async fn until_online(&self, name: &str) {
        self.until(name, "Ready", "True", "Online").await;
    }

    /// Waits until the server is online and its agent has been read.
    pub async fn until_read(&self, name: &str) {
        self.until_online(name).await;
        self.until(name, "PluginsHealthy", "True", "AllHealthy").await;
    }

    /// Waits until that many polls of a host are over which began after this call.
    pub async fn polls(&self, host: usize, polls: u64) {
        let before = self.fleet.host_stats(host).await.count("/api/version");
        eventually(PATIENCE, "more polls", async || {
            // One may have been under way before, and the last one counted is still under way.
            self.fleet.host_stats(host).await.count("/api/version") >= before + polls + 2
        })
        .await;
    }

    pub async fn events(&self, name: &str) -> Vec<Event> {
        objects::events(&self.client, &self.namespace, name).await
    }

    /// What has been told about a server: the reasons of its Events, as often as each was told, sorted.
    pub async fn told(&self, name: &str) -> Vec<String> {
        let events = self.events(name).await;
        let mut reasons: Vec<String> = events
            .iter()
            .flat_map(|event| {
                let times = event.series.as_ref().map_or(1, |series| series.count);
                (0..times).map(|_| event.reason.clone().unwrap_or_default())
            })
            .collect();
        reasons.sort();
        reasons
    }

    /// Waits until exactly this has been told about a server; more than that fails when it does not go away.
    pub async fn until_told(&self, name: &str, expected: &[&str]) {
        eventually(PATIENCE, "the Events are as expected", async || {
            let told = self.told(name).await;
            if told == expected { Ok(()) } else { Err(format!("told {told:?}, expected {expected:?}")) }
        })
        .await;
    }

    pub async fn writes(&self) -> WriteCounter {
        WriteCounter::start(&self.client, &self.namespace).await
    }
}
