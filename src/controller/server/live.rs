//! The servers that are watched right now and what is known of each, for everybody who only reads.

use crate::{
    api::{
        OllamaServer, OllamaServerStatus,
        quantity::Quantity,
        server_status::{PluginReport, Scalar},
    },
    plugins::readings::Readings,
};
use k8s_openapi::jiff::Timestamp;
use kube::ResourceExt;
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

/// One server as it stands.
#[derive(Clone, Debug)]
pub struct Snapshot {
    pub namespace: Arc<str>,
    pub name: Arc<str>,
    /// The object as it was last seen, without its status.
    pub object: Arc<OllamaServer>,
    pub backend: &'static str,
    pub capacity_memory: Option<Quantity>,
    pub capacity_vram: Option<Quantity>,
    pub status: Arc<OllamaServerStatus>,
    /// At full precision, and at full rate.
    pub readings: Readings,
    pub agents: Arc<[AgentSnapshot]>,
    pub failures: u32,
    pub last_poll: Option<Timestamp>,
}

/// What an agent said of one server, for metrics.
#[derive(Clone, Debug)]
pub struct AgentSnapshot {
    pub plugin: String,
    /// `None`: not asked yet.
    pub up: Option<bool>,
    /// Those of the last answer; none while it does not answer.
    pub values: Arc<BTreeMap<String, Scalar>>,
    /// How long the last reading took.
    pub took: Option<Duration>,
    /// The rules that are known, and whether they hold.
    pub rules: Vec<(String, bool)>,
}

/// All servers that are watched. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub struct Live {
    servers: Arc<Mutex<BTreeMap<String, Snapshot>>>,
    /// The servers have been listed once, so that who is not here does not exist.
    listed: Arc<AtomicBool>,
    /// Something about plugins changed since it was last asked.
    plugins_changed: Arc<AtomicBool>,
}

/// A server's place in the live set; it is empty again when this is dropped.
#[derive(Debug)]
pub struct Place {
    uid: String,
    live: Live,
}

impl Live {
    pub fn enter(&self, uid: &str) -> Place {
        Place { uid: uid.to_owned(), live: self.clone() }
    }

    /// Called when the first list of servers is whole.
    pub fn set_listed(&self) {
        self.listed.store(true, Ordering::Relaxed);
    }

    /// Whether every server that exists is here.
    pub fn is_listed(&self) -> bool {
        self.listed.load(Ordering::Relaxed)
    }

    pub fn snapshots(&self) -> Vec<Snapshot> {
        self.servers.lock().unwrap_or_else(PoisonError::into_inner).values().cloned().collect()
    }

    /// The servers that `wanted` says yes to.
    pub fn select(&self, wanted: impl Fn(&Snapshot) -> bool) -> Vec<Snapshot> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.values().filter(|server| wanted(server)).cloned().collect()
    }

    /// The namespaces with servers in them.
    pub fn namespaces(&self) -> BTreeSet<Arc<str>> {
        let servers = self.servers.lock().unwrap_or_else(PoisonError::into_inner);
        servers.values().map(|server| Arc::clone(&server.namespace)).collect()
    }

    /// Whether plugins fare differently than when this was last called.
    pub fn take_plugins_changed(&self) -> bool {
        self.plugins_changed.swap(false, Ordering::Relaxed)
    }

    pub fn plugins_changed(&self) {
        self.plugins_changed.store(true, Ordering::Relaxed);
    }
}

impl Place {
    pub fn show(&self, snapshot: Snapshot) {
        let mut servers = self.live.servers.lock().unwrap_or_else(PoisonError::into_inner);
        let before = servers.insert(self.uid.clone(), snapshot);
        let after = servers.get(&self.uid);
        if selected(before.as_ref()) != selected(after) || !told(before.as_ref()).eq(told(after)) {
            self.live.plugins_changed();
        }
    }
}

/// Which plugins apply here, and whether they are asked at all.
fn selected(snapshot: Option<&Snapshot>) -> Option<(&BTreeMap<String, String>, bool)> {
    snapshot.map(|snapshot| (snapshot.object.labels(), snapshot.object.spec.suspend))
}

/// What a plugin's own status is made of: how it fares here, and why.
fn told(snapshot: Option<&Snapshot>) -> impl Iterator<Item = [Option<&str>; 4]> {
    let reports = snapshot.and_then(|snapshot| snapshot.status.plugins.as_ref());
    reports.into_iter().flatten().map(|report| {
        let PluginReport { name, state, reason, message, .. } = report;
        [Some(name.as_str()), state.as_deref(), reason.as_deref(), message.as_deref()]
    })
}

impl Drop for Place {
    fn drop(&mut self) {
        self.live.servers.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.uid);
        self.live.plugins_changed();
    }
}
