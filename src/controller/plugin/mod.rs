//! Plugins: resolve (the watch), validate (pure), plan (pure), apply (IO out). One task for all of them: there are few,
//! and those of one namespace are judged together.

mod dependencies;
pub mod index;
pub mod installed;
mod plan;
mod tally;
mod validate;

use super::{
    context::Context,
    listing::{Change, Listing},
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
use kube::{ResourceExt, core::error_boundary::InvalidObject};
use semver::Version;
use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, atomic::AtomicU64},
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use validate::{Candidate, Refused, ValidPlugin, Verdict, judge, validate};

/// How often the counts of servers are looked at.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Counts alone are written at most this often: 1,000 machines that die are one write, not 1,000.
const COUNT_WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// A plugin that is watched.
struct Known {
    scope: usize,
    namespace: String,
    object: Arc<FleetPlugin>,
    newest: Arc<AtomicU64>,
    /// What its own spec comes to, and the generation of that spec.
    spec: Result<Arc<ValidPlugin>, Refused>,
    judged_generation: Option<i64>,
    /// `None`: not judged beside the others yet.
    verdict: Option<Verdict>,
    published: Option<FleetPluginStatus>,
    published_at: Option<Instant>,
}

/// The plugin controller.
pub struct Plugins {
    context: Arc<Context>,
    known: HashMap<String, Known>,
    listing: Listing,
    /// Namespaces whose plugins have changed since they were judged.
    stale: HashSet<String>,
    /// The operator's own version, which plugins may depend on; without a pre-release, as ranges mean releases.
    platform: Version,
}

impl Plugins {
    pub fn new(context: Arc<Context>, namespaces: &[String], gate: Gate) -> Self {
        gate.wait_for("the list of FleetPlugins");
        let metrics = Arc::clone(&context.metrics);
        Self {
            listing: Listing::new(Kind::FleetPlugin, metrics, streams::scopes(namespaces), gate),
            context,
            known: HashMap::new(),
            stale: HashSet::new(),
            platform: platform(env!("CARGO_PKG_VERSION")),
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
                    if let Some(change) = self.listing.take(scope, event) {
                        self.on_change(scope, change);
                    }
                    // A list that is under way is judged when it is whole.
                    if self.listing.is_complete() && self.judge() {
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

    fn on_change(&mut self, scope: usize, change: Change<FleetPlugin>) {
        match change {
            Change::Applied(object) => self.apply(scope, object),
            Change::Unreadable(invalid) => self.refuse(&invalid),
            Change::Gone(uid) => self.forget(&uid),
            Change::Listed(listed) => {
                let gone = |(uid, known): (&String, &Known)| {
                    (known.scope == scope && !listed.contains(uid)).then(|| uid.clone())
                };
                for uid in self.known.iter().filter_map(gone).collect::<Vec<_>>() {
                    self.forget(&uid);
                }
            }
        }
    }

    fn forget(&mut self, uid: &str) {
        if let Some(known) = self.known.remove(uid) {
            self.stale.insert(known.namespace);
        }
        self.context.writer.forget(uid);
    }

    fn apply(&mut self, scope: usize, object: FleetPlugin) {
        let Some(uid) = object.uid() else { return };
        let published = object.status.clone().filter(|status| status.observed_generation.is_some());
        let object = Arc::new(object);
        let known = self.known.entry(uid).or_insert_with(|| Known {
            scope,
            namespace: object.namespace().unwrap_or_default(),
            object: Arc::clone(&object),
            newest: Arc::new(AtomicU64::new(0)),
            spec: validate(&object).map(Arc::new),
            judged_generation: object.metadata.generation,
            verdict: None,
            // What an earlier process wrote is not contradicted before the servers are known.
            published_at: published.is_some().then(Instant::now),
            published,
        });
        seen(&known.newest, object.metadata.resource_version.as_deref());
        // Our own writes come back too, and change nothing of what is judged.
        if known.judged_generation != object.metadata.generation {
            known.spec = validate(&object).map(Arc::new);
            known.judged_generation = object.metadata.generation;
            known.verdict = None;
        }
        if known.verdict.is_none() {
            self.stale.insert(known.namespace.clone());
        }
        known.object = object;
    }

    /// An object that cannot be read is answered once a generation, and stops no other plugin.
    fn refuse(&mut self, invalid: &InvalidObject) {
        let metadata = &invalid.metadata;
        let (Some(uid), Some(namespace), Some(name)) = (&metadata.uid, &metadata.namespace, &metadata.name)
        else {
            return;
        };
        self.forget(uid);
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

    /// Judges the plugins of the namespaces in which one changed, and tells the servers. Whether any were.
    fn judge(&mut self) -> bool {
        let first = !self.context.plugins.borrow().listed;
        if self.stale.is_empty() && !first {
            return false;
        }
        let mut index = PluginIndex::clone(&self.context.plugins.borrow());
        index.listed = true;
        for namespace in std::mem::take(&mut self.stale) {
            let mut here: Vec<&mut Known> =
                self.known.values_mut().filter(|known| known.namespace == namespace).collect();
            let candidates =
                here.iter().map(|known| Candidate { object: &known.object, spec: &known.spec }).collect();
            let mut verdicts = judge(candidates, &self.platform);
            let mut active: Vec<(_, Arc<ActivePlugin>)> = Vec::new();
            let mut config_keys = BTreeSet::new();
            for known in &mut here {
                let verdict = verdicts.remove(&known.object.name_any());
                if let Some(Verdict::Active(plugin)) = &verdict {
                    active.push((validate::age_key(&known.object), Arc::clone(plugin)));
                }
                config_keys.extend(validate::config_key(&known.object).map(str::to_owned));
                known.verdict = verdict;
            }
            active.sort_by(|(a, _), (b, _)| a.cmp(b));
            index.set(namespace, active.into_iter().map(|(_, plugin)| plugin).collect(), config_keys);
        }
        self.context.plugins.send_replace(Arc::new(index));
        true
    }

    /// Writes what has changed; whether counts still wait for their time.
    fn publish(&mut self) -> bool {
        let servers = self.context.live.snapshots();
        let mut tallies = tally::tally(&servers, &self.context.plugins.borrow());
        let now = Time(Timestamp::now());
        let mut waiting = false;
        let mut installed = Vec::with_capacity(self.known.len());
        for (uid, known) in &mut self.known {
            let Some(verdict) = &known.verdict else { continue };
            let name = known.object.name_any();
            let tally = tallies.take(&known.namespace, &name);
            let mut object = FleetPlugin::clone(&known.object);
            object.status.clone_from(&known.published);
            let status = plan::plan(&object, verdict, tally, &now);
            installed.push(FleetPlugin { status: Some(status.clone()), ..object });
            if known.published.as_ref() == Some(&status) {
                continue;
            }
            let only_counts =
                known.published.as_ref().is_some_and(|published| same_verdict(published, &status));
            let early = known.published_at.is_some_and(|at| at.elapsed() < COUNT_WRITE_INTERVAL);
            if only_counts && (early || !self.context.live.is_listed()) {
                waiting = true;
                continue;
            }
            let Ok(body) = serde_json::to_value(&status) else { continue };
            known.published = Some(status);
            known.published_at = Some(Instant::now());
            let target = Target {
                kind: Kind::FleetPlugin,
                namespace: known.namespace.clone(),
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

/// A version as ranges of `dependencies.platform` are matched against it.
fn platform(version: &str) -> Version {
    Version::parse(version).map_or_else(
        |_| Version::new(0, 0, 0),
        |version| Version::new(version.major, version.minor, version.patch),
    )
}

/// Whether all that differs is how the plugin fares on the servers, and what follows from that.
fn same_verdict(old: &FleetPluginStatus, new: &FleetPluginStatus) -> bool {
    let FleetPluginStatus { state, observed_generation, installed_version, servers: _, conditions } = new;
    let accepted = |conditions: &[Condition]| {
        condition::find(conditions, condition::ACCEPTED)
            .map(|accepted| (accepted.status.clone(), accepted.reason.clone()))
    };
    let why = |conditions: &[Condition]| {
        condition::find(conditions, condition::READY).map(|ready| ready.message.clone())
    };
    *state == old.state
        && *observed_generation == old.observed_generation
        && *installed_version == old.installed_version
        && accepted(conditions) == accepted(&old.conditions)
        // What an inactive plugin waits for is its verdict; how an active one fares is not.
        && (state.as_deref() == Some("Active") || why(conditions) == why(&old.conditions))
}
