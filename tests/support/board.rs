//! What the API server tells a watcher of a namespace's servers: many tests at once may look without asking it.

use super::objects;
use futures::StreamExt as _;
use kube::{
    Client,
    runtime::{WatchStreamExt as _, reflector, watcher},
};
use ollama_fleet_operator::api::OllamaServer;
use std::sync::Arc;
use tokio::task::JoinHandle;

pub struct Board {
    servers: reflector::Store<OllamaServer>,
    namespace: String,
    task: JoinHandle<()>,
}

impl Board {
    pub fn start(client: &Client, namespace: &str) -> Self {
        let (servers, writer) = reflector::store();
        let events = watcher(objects::api::<OllamaServer>(client, namespace), watcher::Config::default());
        let stream = events.default_backoff().reflect(writer);
        let task = tokio::spawn(stream.for_each(async |_| {}));
        Self { servers, namespace: namespace.to_owned(), task }
    }

    /// A server as it stood when it was last told of; an error until it was.
    pub fn get(&self, name: &str) -> Result<Arc<OllamaServer>, String> {
        let key = reflector::ObjectRef::new(name).within(&self.namespace);
        self.servers.get(&key).ok_or_else(|| format!("{name} is not there yet"))
    }
}

impl Drop for Board {
    fn drop(&mut self) {
        self.task.abort();
    }
}
