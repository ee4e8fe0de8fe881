//! All servers: the watch of their objects begins, feeds and ends one task for each.

use super::{
    assess::Memory,
    live::Place,
    publish::{self, Publisher},
    task::ServerTask,
};
use crate::{
    api::{OllamaServer, OllamaServerStatus, condition},
    controller::{
        api_failure::ApiFailure,
        context::Context,
        listing::{Change, Listing},
        status_writer::{Kind, Target, Urgency, seen},
        streams,
    },
    runtime::readiness::Gate,
};
use futures::StreamExt;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{Api, Client, ResourceExt, core::error_boundary::InvalidObject};
use std::{
    collections::HashMap,
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// Pause before a server's task that ended by a bug is begun again.
const RESTART_PAUSE: Duration = Duration::from_secs(5);

/// A server that is watched.
struct Handle {
    scope: usize,
    key: (String, String),
    object: watch::Sender<Arc<OllamaServer>>,
    newest: Arc<AtomicU64>,
    task: Id,
}

/// All servers.
pub struct Fleet {
    context: Arc<Context>,
    servers: HashMap<String, Handle>,
    /// UIDs by namespace and name, to notice a recreated object.
    by_key: HashMap<(String, String), String>,
    tasks: JoinSet<()>,
    listing: Listing,
}

impl Fleet {
    pub fn new(context: Arc<Context>, namespaces: &[String], gate: Gate) -> Self {
        gate.wait_for("the list of OllamaServers");
        let metrics = Arc::clone(&context.metrics);
        Self {
            listing: Listing::new(Kind::OllamaServer, metrics, streams::scopes(namespaces), gate),
            context,
            servers: HashMap::new(),
            by_key: HashMap::new(),
            tasks: JoinSet::new(),
        }
    }

    /// Follows the objects until the token is cancelled; then every task is ended, and what they published goes on.
    pub async fn run(mut self, namespaces: Vec<String>, shutdown: CancellationToken) {
        // A server that is judged before its plugins are known would lose what those have said.
        let mut plugins = self.context.plugins.subscribe();
        tokio::select! {
            () = shutdown.cancelled() => return,
            _ = plugins.wait_for(|index| index.listed) => {}
        }
        drop(plugins);
        let metrics = Arc::clone(&self.context.metrics);
        let client = self.context.client.clone();
        let mut items =
            std::pin::pin!(streams::watch::<OllamaServer>(&client, &namespaces, Kind::OllamaServer, metrics));
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                Some((scope, event)) = items.next() => {
                    if let Some(change) = self.listing.take(scope, event) {
                        self.on_change(scope, change);
                    }
                }
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Err(error) = ended {
                        self.on_bug(error.id());
                    }
                }
            }
        }
        self.tasks.shutdown().await;
    }

    fn on_change(&mut self, scope: usize, change: Change<OllamaServer>) {
        match change {
            Change::Applied(object) => self.apply(scope, object),
            Change::Unreadable(invalid) => self.refuse(&invalid),
            Change::Gone(uid) => self.remove(&uid),
            Change::Listed(listed) => {
                let gone: Vec<String> = self
                    .servers
                    .iter()
                    .filter(|(uid, handle)| handle.scope == scope && !listed.contains(*uid))
                    .map(|(uid, _)| uid.clone())
                    .collect();
                for uid in gone {
                    self.remove(&uid);
                }
                if self.listing.is_complete() {
                    self.context.live.set_listed();
                }
            }
        }
    }

    fn apply(&mut self, scope: usize, object: OllamaServer) {
        let Some(uid) = object.uid() else { return };
        if let Some(handle) = self.servers.get(&uid) {
            seen(&handle.newest, object.metadata.resource_version.as_deref());
            // Our own writes come back too; tasks compare what concerns them. The status is known already.
            let object = OllamaServer { status: None, ..object };
            handle.object.send_replace(Arc::new(object));
            return;
        }
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        // A deleted and recreated object: the watch may have missed that the old one went.
        if let Some(twin) = self.by_key.get(&key).cloned() {
            self.remove(&twin);
        }
        self.begin(scope, key, uid, object);
    }

    fn begin(&mut self, scope: usize, key: (String, String), uid: String, object: OllamaServer) {
        let newest = Arc::new(AtomicU64::new(0));
        seen(&newest, object.metadata.resource_version.as_deref());
        let target = target(&key, &uid, &newest);
        let publisher = Publisher::new(object.status.clone().unwrap_or_default(), target);
        let place: Place = self.context.live.enter(&uid);
        let memory = Memory::from_status(object.status.clone());
        let object = Arc::new(OllamaServer { status: None, ..object });
        // Not left to the task: whoever reads must find every server as soon as the list of them is complete.
        place.show(publish::snapshot(&object, &memory, !object.spec.suspend, None));
        let (sender, receiver) = watch::channel(object);
        let task = ServerTask::new(Arc::clone(&self.context), receiver, place, publisher, memory);
        let task = self.tasks.spawn(task.run()).id();
        self.by_key.insert(key.clone(), uid.clone());
        self.servers.insert(uid, Handle { scope, key, object: sender, newest, task });
    }

    fn remove(&mut self, uid: &str) {
        // Dropping the sender ends the task, and with it everything that it has under way.
        if let Some(handle) = self.servers.remove(uid) {
            self.by_key.remove(&handle.key);
        }
        self.context.writer.forget(uid);
    }

    /// A task ended by a bug: it is begun again, from what the object last said.
    fn on_bug(&mut self, task: Id) {
        self.context.metrics.panicked();
        let Some(uid) =
            self.servers.iter().find(|(_, handle)| handle.task == task).map(|(uid, _)| uid.clone())
        else {
            return;
        };
        let Some(handle) = self.servers.remove(&uid) else { return };
        tracing::error!(
            namespace = handle.key.0,
            server = handle.key.1,
            "a server's task ended by a bug, beginning it again"
        );
        let context = Arc::clone(&self.context);
        let target = target(&handle.key, &uid, &handle.newest);
        let receiver = handle.object.subscribe();
        let task = self.tasks.spawn(async move {
            let status = current_status(&context.client, &target).await;
            let place = context.live.enter(&target.uid);
            let memory = Memory::from_status(status.clone());
            let publisher = Publisher::new(status.unwrap_or_default(), target);
            ServerTask::new(context, receiver, place, publisher, memory).run().await;
        });
        self.servers.insert(uid, Handle { task: task.id(), ..handle });
    }

    /// An object that cannot be read (older than the schema, or let in by a loosened one) is answered once a
    /// generation and stops nothing.
    fn refuse(&mut self, invalid: &InvalidObject) {
        let metadata = &invalid.metadata;
        let (Some(uid), Some(namespace), Some(name)) = (&metadata.uid, &metadata.namespace, &metadata.name)
        else {
            return;
        };
        if self.servers.contains_key(uid) {
            self.remove(uid);
        }
        tracing::warn!(namespace, server = name, error = invalid.error, "an OllamaServer cannot be read");
        let newest = Arc::new(AtomicU64::new(0));
        seen(&newest, metadata.resource_version.as_deref());
        let target = target(&(namespace.clone(), name.clone()), uid, &newest);
        let status = undecodable_status(metadata.generation);
        self.context.writer.submit(target, metadata.generation, status, Urgency::Transition, Box::new(|| {}));
    }
}

/// What the object says now; asked until there is an answer, as nothing else knows what was announced already.
async fn current_status(client: &Client, target: &Target) -> Option<OllamaServerStatus> {
    let api: Api<OllamaServer> = Api::namespaced(client.clone(), &target.namespace);
    loop {
        tokio::time::sleep(RESTART_PAUSE).await;
        match tokio::time::timeout(RESTART_PAUSE, api.get(&target.name)).await {
            Ok(Ok(object)) => {
                return object.status.filter(|_| object.metadata.uid.as_deref() == Some(target.uid.as_str()));
            }
            Ok(Err(error)) if ApiFailure::of(&error) == ApiFailure::Gone => return None,
            _ => {}
        }
    }
}

fn target(key: &(String, String), uid: &str, newest: &Arc<AtomicU64>) -> Target {
    Target {
        kind: Kind::OllamaServer,
        namespace: key.0.clone(),
        name: key.1.clone(),
        uid: uid.to_owned(),
        newest: Arc::clone(newest),
    }
}

fn undecodable_status(generation: Option<i64>) -> serde_json::Value {
    const MESSAGE: &str = "the object does not have the form that the operator understands; compare it with `kubectl explain ollamaserver.spec`";
    let now = Time(Timestamp::now());
    let mut builder = condition::Builder::new(&[], generation, &now);
    for (type_, truth) in [
        (condition::ACCEPTED, condition::Truth::False),
        (condition::READY, condition::Truth::False),
        (condition::REACHABLE, condition::Truth::Unknown),
        (condition::STALLED, condition::Truth::True),
    ] {
        builder.set(type_, truth, "InvalidSpec", MESSAGE);
    }
    let status = OllamaServerStatus {
        observed_generation: generation,
        last_heartbeat_time: Some(now.clone()),
        conditions: builder.build(),
        ..OllamaServerStatus::default()
    };
    serde_json::to_value(status).unwrap_or_default()
}
