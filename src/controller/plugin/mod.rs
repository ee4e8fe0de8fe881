//! Plugins: resolve (the watch), validate (pure), plan (pure), apply (IO out). One task for all of them: there are few,
//! and they are judged together.

pub mod index;
pub mod installed;
mod plan;
mod validate;

use super::{
    context::Context,
    server::live::Snapshot,
    status_writer::{Kind, Target, Urgency, seen},
    streams,
};
use crate::{
    api::{FleetPlugin, FleetPluginStatus, condition},
    runtime::readiness::Gate,
};
use futures::StreamExt;
use index::{ActivePlugin, PluginIndex};
use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{
    ResourceExt,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::watcher::Event,
};
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use validate::{Refused, validate};

/// How often the counts of servers are looked at.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Counts alone are written at most this often: 1,000 machines that die are one write, not 1,000.
const COUNT_WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// A plugin that is watched.
struct Known {
    scope: usize,
    object: Arc<FleetPlugin>,
    newest: Arc<AtomicU64>,
    verdict: Option<Result<Arc<ActivePlugin>, Refused>>,
    judged_generation: Option<i64>,
    published: Option<FleetPluginStatus>,
    published_at: Option<Instant>,
}

/// The plugin controller.
pub struct Plugins {
    context: Arc<Context>,
    known: HashMap<String, Known>,
    listed: Vec<HashSet<String>>,
    /// Objects that cannot be read, by UID, with their scope and the generation that was answered.
    undecodable: HashMap<String, (usize, Option<i64>)>,
    gate: Gate,
    initial: HashSet<usize>,
}

impl Plugins {
    pub fn new(context: Arc<Context>, namespaces: &[String], gate: Gate) -> Self {
        let scopes = streams::scopes(namespaces);
        gate.wait_for("the list of FleetPlugins");
        Self {
            context,
            known: HashMap::new(),
            listed: vec![HashSet::new(); scopes],
            undecodable: HashMap::new(),
            gate,
            initial: (0..scopes).collect(),
        }
    }

    /// Follows the objects until the token is cancelled.
    pub async fn run(mut self, namespaces: Vec<String>, shutdown: CancellationToken) {
        let client = self.context.client.clone();
        let metrics = Arc::clone(&self.context.metrics);
        let mut items =
            std::pin::pin!(streams::watch::<FleetPlugin>(&client, &namespaces, Kind::FleetPlugin, metrics));
        let mut ticks = interval(COUNT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut counts_waiting = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                Some((scope, event)) = items.next() => {
                    self.on_event(scope, event);
                    // A list that is under way is judged when it is whole.
                    if self.initial.is_empty() {
                        self.judge();
                        counts_waiting |= self.publish();
                    }
                }
                _ = ticks.tick() => {
                    if self.context.live.take_plugins_changed() || counts_waiting {
                        counts_waiting = self.publish();
                    }
                }
            }
        }
    }

    fn on_event(&mut self, scope: usize, event: Event<DeserializeGuard<FleetPlugin>>) {
        match event {
            Event::Init => self.listed[scope].clear(),
            Event::InitApply(object) => {
                if let Some(uid) = kube::Resource::meta(&object).uid.clone() {
                    self.listed[scope].insert(uid);
                }
                self.apply(scope, object);
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed[scope]);
                self.known.retain(|uid, known| known.scope != scope || listed.contains(uid));
                self.undecodable.retain(|uid, (of, _)| *of != scope || listed.contains(uid));
                self.count_undecodable();
                self.initial.remove(&scope);
                if self.initial.is_empty() {
                    self.gate.open();
                }
            }
            Event::Apply(object) => self.apply(scope, object),
            Event::Delete(object) => {
                if let Some(uid) = &kube::Resource::meta(&object).uid {
                    self.known.remove(uid);
                    self.context.writer.forget(uid);
                    if self.undecodable.remove(uid).is_some() {
                        self.count_undecodable();
                    }
                }
            }
        }
    }

    fn apply(&mut self, scope: usize, object: DeserializeGuard<FleetPlugin>) {
        let Some(uid) = kube::Resource::meta(&object).uid.clone() else { return };
        let object = match object.0 {
            Ok(object) => object,
            Err(invalid) => {
                self.refuse(scope, &invalid);
                return;
            }
        };
        if self.undecodable.remove(&uid).is_some() {
            self.count_undecodable();
        }
        let published = object.status.clone().filter(|status| status.observed_generation.is_some());
        let known = self.known.entry(uid).or_insert_with(|| Known {
            scope,
            object: Arc::new(object.clone()),
            newest: Arc::new(AtomicU64::new(0)),
            verdict: None,
            judged_generation: None,
            // What an earlier process wrote is not contradicted before the servers are known.
            published_at: published.is_some().then(Instant::now),
            published,
        });
        seen(&known.newest, object.metadata.resource_version.as_deref());
        known.object = Arc::new(object);
    }

    /// An object that cannot be read is answered once a generation, and stops no other plugin.
    fn refuse(&mut self, scope: usize, invalid: &InvalidObject) {
        let metadata = &invalid.metadata;
        let (Some(uid), Some(namespace), Some(name)) = (&metadata.uid, &metadata.namespace, &metadata.name)
        else {
            return;
        };
        self.known.remove(uid);
        let answered = (scope, metadata.generation);
        if self.undecodable.insert(uid.clone(), answered) == Some(answered) {
            return;
        }
        self.count_undecodable();
        tracing::warn!(namespace, plugin = name, error = invalid.error, "a FleetPlugin cannot be read");
        let Ok(status) = serde_json::to_value(plan::unreadable(metadata.generation, &Time(Timestamp::now())))
        else {
            return;
        };
        let newest = Arc::new(AtomicU64::new(0));
        seen(&newest, metadata.resource_version.as_deref());
        let target = Target {
            kind: Kind::FleetPlugin,
            namespace: namespace.clone(),
            name: name.clone(),
            uid: uid.clone(),
            newest,
        };
        self.context.writer.submit(target, metadata.generation, status, Urgency::Transition, Box::new(|| {}));
    }

    fn count_undecodable(&self) {
        self.context.metrics.undecodable(Kind::FleetPlugin, self.undecodable.len());
    }

    /// Judges every plugin anew and tells the servers, if anything is different.
    fn judge(&mut self) {
        let mut namespaces: BTreeMap<String, Vec<Arc<FleetPlugin>>> = BTreeMap::new();
        for known in self.known.values() {
            let namespace = known.object.namespace().unwrap_or_default();
            namespaces.entry(namespace).or_default().push(Arc::clone(&known.object));
        }
        let mut index = PluginIndex { listed: true, ..PluginIndex::default() };
        let mut changed = !self.context.plugins.borrow().listed;
        for (namespace, plugins) in namespaces {
            let mut verdicts = validate(&plugins);
            let mut active = Vec::new();
            for known in
                self.known.values_mut().filter(|known| known.object.namespace().as_ref() == Some(&namespace))
            {
                let Some(verdict) = verdicts.remove(&known.object.name_any()) else { continue };
                // What has not changed stays the same object, so that no reading that is under way is thrown away.
                let same = known.judged_generation == known.object.metadata.generation
                    && known.verdict.as_ref().is_some_and(|old| old.as_ref().err() == verdict.as_ref().err());
                if !same {
                    changed = true;
                    known.verdict = Some(verdict);
                    known.judged_generation = known.object.metadata.generation;
                }
                if let Some(Ok(plugin)) = &known.verdict
                    && !known.object.spec.suspend
                {
                    active.push((validate::age_key(&known.object), Arc::clone(plugin)));
                }
            }
            active.sort_by(|(a, _), (b, _)| a.cmp(b));
            index.by_namespace.insert(namespace, active.into_iter().map(|(_, plugin)| plugin).collect());
        }
        let counts = |index: &PluginIndex| index.by_namespace.values().map(Vec::len).sum::<usize>();
        if changed || counts(&index) != counts(&self.context.plugins.borrow()) {
            self.context.plugins.send_replace(Arc::new(index));
        }
    }

    /// Writes what has changed; whether counts still wait for their time.
    fn publish(&mut self) -> bool {
        let servers = self.context.live.snapshots();
        let now = Time(Timestamp::now());
        let mut waiting = false;
        let mut installed = Vec::with_capacity(self.known.len());
        for (uid, known) in &mut self.known {
            let Some(verdict) = &known.verdict else { continue };
            let namespace = known.object.namespace().unwrap_or_default();
            let name = known.object.name_any();
            let here = servers.iter().filter(|server: &&Snapshot| *server.namespace == *namespace);
            let counts = plan::count(&name, here);
            let mut object = FleetPlugin::clone(&known.object);
            object.status.clone_from(&known.published);
            let status = plan::plan(&object, verdict.as_ref().map(|_| ()), counts, &now);
            installed.push(FleetPlugin { status: Some(status.clone()), ..object });
            if known.published.as_ref() == Some(&status) {
                continue;
            }
            let only_counts =
                known.published.as_ref().is_some_and(|published| same_verdict(published, &status));
            if only_counts && known.published_at.is_some_and(|at| at.elapsed() < COUNT_WRITE_INTERVAL) {
                waiting = true;
                continue;
            }
            let Ok(body) = serde_json::to_value(&status) else { continue };
            known.published = Some(status);
            known.published_at = Some(Instant::now());
            let target = Target {
                kind: Kind::FleetPlugin,
                namespace,
                name,
                uid: uid.clone(),
                newest: Arc::clone(&known.newest),
            };
            let generation = known.object.metadata.generation;
            self.context.writer.submit(target, generation, body, Urgency::Transition, Box::new(|| {}));
        }
        self.context.installed.replace(installed);
        waiting
    }
}

/// Whether all that differs is how the plugin fares on the servers, and what follows from that.
fn same_verdict(old: &FleetPluginStatus, new: &FleetPluginStatus) -> bool {
    let FleetPluginStatus { state, observed_generation, installed_version, servers: _, conditions } = new;
    let accepted = |conditions: &[Condition]| {
        condition::find(conditions, condition::ACCEPTED)
            .map(|accepted| (accepted.status.clone(), accepted.reason.clone(), accepted.message.clone()))
    };
    *state == old.state
        && *observed_generation == old.observed_generation
        && *installed_version == old.installed_version
        && accepted(conditions) == accepted(&old.conditions)
}
