//! The outside witness of writes: what the API server tells a watcher of a namespace's servers.

use super::{PATIENCE, eventually, objects};
use futures::{StreamExt as _, pin_mut};
use kube::{
    Api, Client, ResourceExt as _,
    api::{DynamicObject, ListParams, WatchEvent, WatchParams},
    core::{ApiResource, GroupVersionKind},
};
use ollama_fleet_operator::api::{GROUP, MANAGER, OllamaServer, VERSION};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};
use tokio::task::JoinHandle;

/// Pause before a watch that the API server did not answer is asked for again.
const RETRY: Duration = Duration::from_millis(100);

/// Counts writes of status: a change of an object whose status, or whose entry in managedFields for the operator,
/// is another than before. A write that changes nothing is no event, and has cost nothing.
pub struct WriteCounter {
    client: Client,
    namespace: String,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

/// One write, as far as it is needed to say what was wrong with it.
#[derive(Clone, Debug)]
pub struct Write {
    pub at: Instant,
    /// When it was, in whole seconds, by the API server's own book: no matter when the witness had time to look.
    pub second: String,
    pub resource_version: String,
    /// Status and reason of Ready after it.
    pub ready: String,
    /// The top-level fields of status that it changed.
    pub changed: Vec<String>,
}

#[derive(Default)]
struct Seen {
    /// By name: the last version of the object, and the writes to it.
    last: BTreeMap<String, DynamicObject>,
    writes: BTreeMap<String, Vec<Write>>,
    /// Why the witness is worthless, if it is.
    lost: Option<String>,
}

impl WriteCounter {
    /// Starts watching; everything that is written from now on is counted.
    pub async fn start(client: &Client, namespace: &str) -> Self {
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, "OllamaServer"));
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &kind);
        let stored = api.list(&ListParams::default()).await.unwrap();
        let version = stored.metadata.resource_version.clone().unwrap_or_default();
        let objects = stored.items.into_iter().map(|object| (object.name_any(), object)).collect();
        let seen = Arc::new(Mutex::new(Seen { last: objects, ..Seen::default() }));
        let task = tokio::spawn(watch(api, version, Arc::clone(&seen)));
        Self { client: client.clone(), namespace: namespace.to_owned(), seen, task }
    }

    /// Waits until everything that is stored now has been seen here.
    pub async fn catch_up(&self) {
        let servers = objects::api::<OllamaServer>(&self.client, &self.namespace);
        let number =
            |version: Option<String>| version.and_then(|text| text.parse::<u64>().ok()).unwrap_or_default();
        eventually(PATIENCE, "the witness of writes has caught up", async || {
            let list = servers.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            let behind = self.read(|seen| {
                let seen = |server: &OllamaServer| {
                    let mine = seen.last.get(&server.name_any());
                    mine.is_some_and(|mine| {
                        number(mine.resource_version()) >= number(server.resource_version())
                    })
                };
                list.items.iter().filter(|server| !seen(server)).count()
            });
            if behind == 0 { Ok(()) } else { Err(format!("{behind} objects behind")) }
        })
        .await;
    }

    /// The writes to one object so far, oldest first.
    pub async fn writes(&self, name: &str) -> Vec<Write> {
        self.catch_up().await;
        self.read(|seen| seen.writes.get(name).cloned().unwrap_or_default())
    }

    /// The writes to all objects so far, by name; objects without one are absent.
    pub async fn all(&self) -> BTreeMap<String, Vec<Write>> {
        self.catch_up().await;
        self.read(|seen| seen.writes.clone())
    }

    /// Number of writes to all objects so far.
    pub async fn total(&self) -> usize {
        self.all().await.values().map(Vec::len).sum()
    }

    /// Forgets the writes so far; what was stored before is seen first.
    pub async fn reset(&self) {
        self.catch_up().await;
        self.lock().writes.clear();
    }

    fn read<T>(&self, read: impl FnOnce(&Seen) -> T) -> T {
        let seen = self.lock();
        if let Some(lost) = &seen.lost {
            panic!("the witness of writes has missed something: {lost}");
        }
        read(&seen)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for WriteCounter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// A raw watch, taken up again where it ended: a watcher that lists again would miss what lay between.
async fn watch(api: Api<DynamicObject>, mut version: String, seen: Arc<Mutex<Seen>>) {
    loop {
        let Ok(stream) = api.watch(&WatchParams::default(), &version).await else {
            // The API server is away; it will be back, or the test fails for another reason.
            tokio::time::sleep(RETRY).await;
            continue;
        };
        pin_mut!(stream);
        while let Some(event) = stream.next().await {
            let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
            match event {
                Ok(WatchEvent::Added(object) | WatchEvent::Modified(object)) => {
                    object.resource_version().unwrap_or_default().clone_into(&mut version);
                    seen.take(object);
                }
                Ok(WatchEvent::Deleted(object)) => {
                    object.resource_version().unwrap_or_default().clone_into(&mut version);
                    seen.last.remove(&object.name_any());
                }
                Ok(WatchEvent::Bookmark(bookmark)) => version.clone_from(&bookmark.metadata.resource_version),
                Ok(WatchEvent::Error(error)) if error.code == 410 => {
                    seen.lost = Some(error.to_string());
                    return;
                }
                Ok(WatchEvent::Error(_)) | Err(_) => break,
            }
        }
    }
}

impl Seen {
    fn take(&mut self, object: DynamicObject) {
        let name = object.name_any();
        let after = object.data["status"].clone();
        if let Some(before) = self.last.get(&name)
            && before.uid() == object.uid()
            && (before.data["status"] != after || own_entry(before) != own_entry(&object))
        {
            let ready = after["conditions"].as_array().and_then(|conditions| {
                conditions.iter().find(|condition| condition["type"] == "Ready").map(|ready| {
                    format!(
                        "{}/{}",
                        ready["status"].as_str().unwrap_or("?"),
                        ready["reason"].as_str().unwrap_or("?")
                    )
                })
            });
            self.writes.entry(name.clone()).or_default().push(Write {
                at: Instant::now(),
                second: own_entry(&object)
                    .and_then(|entry| Some(entry["time"].as_str()?.to_owned()))
                    .unwrap_or_default(),
                resource_version: object.resource_version().unwrap_or_default(),
                ready: ready.unwrap_or_default(),
                changed: changed(&before.data["status"], &after),
            });
        }
        self.last.insert(name, object);
    }
}

/// When and what the operator last applied, by the API server's own book.
fn own_entry(object: &DynamicObject) -> Option<Value> {
    let entries = object.metadata.managed_fields.as_ref()?;
    let own = entries.iter().find(|entry| entry.manager.as_deref() == Some(MANAGER))?;
    serde_json::to_value(own).ok()
}

/// Names of the top-level fields that differ.
fn changed(before: &Value, after: &Value) -> Vec<String> {
    let keys = |value: &Value| {
        value.as_object().map(|map| map.keys().cloned().collect::<Vec<_>>()).unwrap_or_default()
    };
    let mut names = [keys(before), keys(after)].concat();
    names.sort();
    names.dedup();
    names.retain(|name| before[name] != after[name]);
    names
}
