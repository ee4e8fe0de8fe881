//! All servers: the watch of their objects begins, feeds and ends one task for each.
//!
//! A replica that does not lead only watches and shows what the objects say. When it is elected it lists once more,
//! because what it has may be older than the last leader's last write, and begins the tasks from that.

use super::{
    assess::Memory,
    live::Place,
    publish::{self, Mailbox, Publisher, Seen},
    task::ServerTask,
};
use crate::{
    api::{OllamaServer, OllamaServerStatus, condition},
    controller::{
        api_failure::ApiFailure,
        context::Context,
        listing::{Change, Listing},
        plugin::index::PluginIndex,
        status_writer::{Kind, Target, Urgency, number, seen},
        streams,
    },
    runtime::readiness::Gate,
};
use futures::StreamExt;
use k8s_openapi::{apimachinery::pkg::apis::meta::v1::Time, jiff::Timestamp};
use kube::{Api, Client, ResourceExt, core::error_boundary::InvalidObject};
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::watch,
    task::{Id, JoinSet},
};
use tokio_util::sync::CancellationToken;

/// Pause before a server's task that ended by a bug is begun again.
const RESTART_PAUSE: Duration = Duration::from_secs(5);
/// A namespace whose lists were refused may be allowed at any time, and each kind finds out by itself, within 10 s. A server
/// that is first to be listed waits for its plugins that long and a little; then they are refused for good.
const PLUGINS_WAIT: Duration = Duration::from_secs(15);

/// A server that is watched.
struct Handle {
    scope: usize,
    key: (String, String),
    object: watch::Sender<Arc<OllamaServer>>,
    /// The status that the object was last seen with, for the task to look at.
    status: Mailbox,
    newest: Arc<AtomicU64>,
    /// Where a replica that does not lead shows what the object says. `None`: the task shows what it knows.
    shown: Option<Place>,
    /// What polls it, if this replica leads.
    task: Option<Id>,
}

/// All servers.
pub struct Fleet {
    context: Arc<Context>,
    servers: HashMap<String, Handle>,
    /// UIDs by namespace and name, to notice a recreated object.
    by_key: HashMap<(String, String), String>,
    tasks: JoinSet<()>,
    listing: Listing,
    gate: Gate,
    /// Whether this replica polls and writes.
    leads: bool,
}

impl Fleet {
    pub fn new(context: Arc<Context>, namespaces: &[String], gate: Gate) -> Self {
        gate.wait_for("the list of OllamaServers");
        let metrics = Arc::clone(&context.metrics);
        Self {
            listing: Listing::new(Kind::OllamaServer, metrics, streams::scopes(namespaces), gate.clone()),
            gate,
            leads: context.leadership.holds(),
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
        let leadership = self.context.leadership.clone();
        let watch =
            || streams::watch::<OllamaServer>(&client, &namespaces, Kind::OllamaServer, Arc::clone(&metrics));
        let mut items = std::pin::pin!(watch());
        loop {
            tokio::select! {
                () = shutdown.cancelled() => break,
                () = leadership.gained(), if !self.leads => {
                    self.leads = true;
                    let (metrics, gate) = (Arc::clone(&metrics), self.gate.clone());
                    self.listing = Listing::new(Kind::OllamaServer, metrics, streams::scopes(&namespaces), gate);
                    items.set(watch());
                }
                Some((scope, news)) = items.next() => {
                    if let Some(change) = self.listing.take(scope, news) {
                        self.on_change(scope, change);
                    }
                    if self.listing.is_complete() {
                        self.context.live.set_listed();
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
            Change::Applied { object, rewound } => self.apply(scope, object, rewound),
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
            }
        }
    }

    fn apply(&mut self, scope: usize, mut object: OllamaServer, rewound: bool) {
        let Some(uid) = object.uid() else { return };
        if let Some(handle) = self.servers.get(&uid) {
            let version = object.metadata.resource_version.clone();
            if rewound {
                handle.newest.store(number(version.as_deref()).unwrap_or_default(), Ordering::Relaxed);
            }
            seen(&handle.newest, version.as_deref());
            match &handle.shown {
                None => {
                    // Our own writes come back too; tasks compare what concerns them, of the status as well.
                    let status = object.status.take().unwrap_or_default();
                    if let Some(version) = number(version.as_deref()) {
                        Seen { status, version, rewound }.post(&handle.status);
                    }
                    handle.object.send_replace(Arc::new(object));
                }
                Some(_) if self.leads => self.poll(&uid, object),
                Some(place) => show(place, object),
            }
            return;
        }
        let key = (object.namespace().unwrap_or_default(), object.name_any());
        // A deleted and recreated object: the watch may have missed that the old one went.
        if let Some(twin) = self.by_key.get(&key).cloned() {
            self.remove(&twin);
        }
        self.begin(scope, key, &uid, object);
    }

    fn begin(&mut self, scope: usize, key: (String, String), uid: &str, object: OllamaServer) {
        let newest = Arc::new(AtomicU64::new(0));
        seen(&newest, object.metadata.resource_version.as_deref());
        let place = self.context.live.enter(uid);
        // Not left to the task: whoever reads must find every server as soon as the list of them is complete.
        show(&place, object.clone());
        let bare = Arc::new(OllamaServer { status: None, ..object.clone() });
        self.by_key.insert(key.clone(), uid.to_owned());
        let (object_of, shown) = (watch::Sender::new(bare), Some(place));
        let status = Mailbox::default();
        let handle = Handle { scope, key, object: object_of, status, newest, shown, task: None };
        self.servers.insert(uid.to_owned(), handle);
        if self.leads {
            self.poll(uid, object);
        }
    }

    /// Begins the task of a server that was only shown, from what its object says.
    fn poll(&mut self, uid: &str, object: OllamaServer) {
        let Some(handle) = self.servers.get_mut(uid) else { return };
        let Some(place) = handle.shown.take() else { return };
        let target = target(&handle.key, uid, &handle.newest);
        let mailbox = Arc::clone(&handle.status);
        let publisher = Publisher::new(object.status.clone().unwrap_or_default(), target, mailbox);
        let memory = Memory::from_status(object.status.clone());
        handle.object.send_replace(Arc::new(OllamaServer { status: None, ..object }));
        let (context, receiver) = (Arc::clone(&self.context), handle.object.subscribe());
        let namespace = handle.key.0.clone();
        let task = self.tasks.spawn(async move {
            plugins_known(context.plugins.subscribe(), &namespace).await;
            ServerTask::new(context, receiver, place, publisher, memory).run().await;
        });
        handle.task = Some(task.id());
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
            self.servers.iter().find(|(_, handle)| handle.task == Some(task)).map(|(uid, _)| uid.clone())
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
        let mailbox = Arc::clone(&handle.status);
        let task = self.tasks.spawn(async move {
            let status = current_status(&context.client, &target).await;
            let place = context.live.enter(&target.uid);
            let memory = Memory::from_status(status.clone());
            let publisher = Publisher::new(status.unwrap_or_default(), target, mailbox);
            ServerTask::new(context, receiver, place, publisher, memory).run().await;
        });
        self.servers.insert(uid, Handle { task: Some(task.id()), ..handle });
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
        if !self.leads {
            return;
        }
        let newest = Arc::new(AtomicU64::new(0));
        seen(&newest, metadata.resource_version.as_deref());
        let target = target(&(namespace.clone(), name.clone()), uid, &newest);
        let status = undecodable_status(metadata.generation);
        self.context.writer.submit(
            target,
            metadata.generation,
            &status,
            Urgency::Transition,
            None,
            Box::new(|_| {}),
        );
    }
}

/// Returns when the plugins of the namespace have been listed, or it is too long that they are not.
async fn plugins_known(mut plugins: watch::Receiver<Arc<PluginIndex>>, namespace: &str) {
    let known = plugins.wait_for(|index| index.listed && !index.awaited.contains(namespace));
    let _ = tokio::time::timeout(PLUGINS_WAIT, known).await;
}

/// Shows what an object says.
fn show(place: &Place, object: OllamaServer) {
    let memory = Memory::from_status(object.status.clone());
    let polled = !object.spec.suspend;
    place.show(publish::snapshot(&Arc::new(OllamaServer { status: None, ..object }), &memory, polled, None));
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

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::Instant;

    fn index(listed: bool, awaited: &[&str]) -> Arc<PluginIndex> {
        let awaited = awaited.iter().map(|&namespace| namespace.to_owned()).collect();
        Arc::new(PluginIndex { listed, awaited, ..PluginIndex::default() })
    }

    /// How long a server of the namespace `lab` waits for its plugins, in seconds.
    async fn waits(plugins: &watch::Sender<Arc<PluginIndex>>) -> u64 {
        let begin = Instant::now();
        plugins_known(plugins.subscribe(), "lab").await;
        begin.elapsed().as_secs()
    }

    #[tokio::test(start_paused = true)]
    async fn a_server_waits_for_plugins_that_may_come_and_not_for_ever() {
        let plugins = watch::Sender::new(index(true, &["other"]));
        assert_eq!(waits(&plugins).await, 0);
        plugins.send_replace(index(true, &["lab"]));
        assert_eq!(waits(&plugins).await, PLUGINS_WAIT.as_secs());
        let later = async {
            tokio::time::sleep(Duration::from_secs(3)).await;
            plugins.send_replace(index(true, &[]));
        };
        assert_eq!(tokio::join!(waits(&plugins), later).0, 3);
    }
}
