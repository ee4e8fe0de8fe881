//! Plugins: resolve (the watch), validate (pure), plan (pure), apply (IO out). One task for all of them: there are few,
//! and those of one namespace are judged together.
//!
//! A replica that does not lead watches and judges, and shows the statuses that the objects have. When it is elected it
//! lists once more and goes on from those.

mod dependencies;
pub mod index;
pub mod installed;
mod plan;
mod tally;
pub mod validate;

use super::{
    context::Context,
    listing::{Change, Listing},
    server::transition::EventText,
    status_writer::{Kind, Target, Urgency, number, seen, standing::Standing},
    streams,
};
use crate::{
    api::{FleetPlugin, FleetPluginStatus, condition},
    runtime::readiness::Gate,
};
use futures::StreamExt;
use index::{ActivePlugin, PluginIndex};
use k8s_openapi::{
    api::core::v1::ObjectReference,
    apimachinery::pkg::apis::meta::v1::{Condition, Time},
    jiff::Timestamp,
};
use kube::{Resource, ResourceExt, core::error_boundary::InvalidObject};
use semver::Version;
use std::{
    collections::{BTreeSet, HashMap, HashSet, hash_map::Entry},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;
use validate::{Candidate, Spec, Verdict, judge, validate_all};

/// How often the counts of servers are looked at.
const COUNT_INTERVAL: Duration = Duration::from_secs(1);
/// Counts alone are written at most this often: 1,000 machines that die are one write, not 1,000.
const COUNT_WRITE_INTERVAL: Duration = Duration::from_secs(5);

/// A plugin that is watched.
struct Known {
    scope: usize,
    namespace: String,
    /// With the newest status that is planned for it; shared with whoever shows it.
    object: Arc<FleetPlugin>,
    newest: Arc<AtomicU64>,
    /// What its own spec comes to. `None`: not looked at since it changed.
    spec: Option<Spec>,
    /// `None`: not judged beside the others yet.
    verdict: Option<Verdict>,
    published: Option<FleetPluginStatus>,
    published_at: Option<Instant>,
    standing: Standing<FleetPluginStatus>,
}

/// A plugin that exists and cannot be read.
struct Unreadable {
    scope: usize,
    namespace: String,
    name: String,
}

/// The plugin controller.
pub struct Plugins {
    context: Arc<Context>,
    known: HashMap<String, Known>,
    unreadable: HashMap<String, Unreadable>,
    /// The UIDs of both, by namespace and name.
    by_key: HashMap<(String, String), String>,
    /// Something has changed that those who show plugins do not have yet.
    unshown: bool,
    listing: Listing,
    /// Those that are watched, one for each scope; empty: all of them.
    namespaces: Vec<String>,
    gate: Gate,
    /// Whether this replica writes.
    leads: bool,
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
            listing: Listing::new(Kind::FleetPlugin, metrics, streams::scopes(namespaces), gate.clone()),
            namespaces: namespaces.to_vec(),
            gate,
            leads: context.leadership.holds(),
            context,
            known: HashMap::new(),
            unreadable: HashMap::new(),
            by_key: HashMap::new(),
            unshown: true,
            stale: HashSet::new(),
            platform: platform(env!("CARGO_PKG_VERSION")),
        }
    }

    /// Follows the objects until the token is cancelled.
    pub async fn run(mut self, namespaces: Vec<String>, shutdown: CancellationToken) {
        let client = self.context.client.clone();
        let metrics = Arc::clone(&self.context.metrics);
        let leadership = self.context.leadership.clone();
        let watch =
            || streams::watch::<FleetPlugin>(&client, &namespaces, Kind::FleetPlugin, Arc::clone(&metrics));
        let mut items = std::pin::pin!(watch());
        let mut ticks = interval(COUNT_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        // Something may have to be written at the next look: counts whose time had not come, or all of it.
        let mut waiting = false;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = leadership.gained(), if !self.leads => {
                    self.leads = true;
                    let (metrics, gate) = (Arc::clone(&metrics), self.gate.clone());
                    self.listing = Listing::new(Kind::FleetPlugin, metrics, streams::scopes(&namespaces), gate);
                    items.set(watch());
                    // What changed while nobody led was judged here when it came, so that the list makes nothing stale.
                    waiting = true;
                }
                Some((scope, news)) = items.next() => {
                    if let Some(change) = self.listing.take(scope, news) {
                        self.on_change(scope, change);
                    }
                    // A list that is under way is judged when it is whole.
                    if self.listing.is_complete() && (self.judge() || (self.unshown && !self.leads)) {
                        waiting |= self.publish();
                    }
                }
                _ = ticks.tick(), if self.listing.is_complete() => {
                    if self.context.live.take_plugins_changed() || waiting || self.is_corrected() {
                        waiting = self.publish();
                    }
                }
            }
        }
    }

    fn on_change(&mut self, scope: usize, change: Change<FleetPlugin>) {
        match change {
            Change::Applied { object, rewound } => self.apply(scope, object, rewound),
            Change::Unreadable(invalid) => self.refuse(scope, &invalid),
            Change::Gone(uid) => self.forget(&uid),
            Change::Listed(listed) => {
                let known = self.known.iter().map(|(uid, known)| (uid, known.scope));
                let unreadable = self.unreadable.iter().map(|(uid, unreadable)| (uid, unreadable.scope));
                let gone: Vec<String> = known
                    .chain(unreadable)
                    .filter(|(uid, of)| *of == scope && !listed.contains(*uid))
                    .map(|(uid, _)| uid.clone())
                    .collect();
                for uid in gone {
                    self.forget(&uid);
                }
            }
        }
    }

    fn forget(&mut self, uid: &str) {
        let known = self.known.remove(uid).map(|known| (known.namespace, known.object.name_any()));
        let unreadable =
            self.unreadable.remove(uid).map(|unreadable| (unreadable.namespace, unreadable.name));
        if let Some(key) = known.or(unreadable) {
            if self.by_key.get(&key).is_some_and(|holder| holder == uid) {
                self.by_key.remove(&key);
            }
            self.stale.insert(key.0);
            self.unshown = true;
        }
        self.context.writer.forget(uid);
    }

    /// From now on the name is this object's. Another one of that name is gone, even if that was never said: a list that
    /// is under way tells of what is gone only at its end.
    fn claim(&mut self, namespace: &str, name: &str, uid: &str) {
        let key = (namespace.to_owned(), name.to_owned());
        if let Some(twin) = self.by_key.insert(key, uid.to_owned()).filter(|twin| twin != uid) {
            self.forget(&twin);
        }
    }

    fn apply(&mut self, scope: usize, mut object: FleetPlugin, rewound: bool) {
        let Some(uid) = object.uid() else { return };
        let namespace = object.namespace().unwrap_or_default();
        if let Some(unreadable) = self.unreadable.remove(&uid) {
            self.stale.insert(unreadable.namespace);
        }
        self.claim(&namespace, &object.name_any(), &uid);
        let written = object.status.clone().filter(|status| status.observed_generation.is_some());
        // Later, what is planned is newer than what comes back.
        let adopts = !self.leads || !self.listing.is_listed(scope);
        let version = number(object.metadata.resource_version.as_deref());
        self.unshown = true;
        let known = match self.known.entry(uid) {
            Entry::Occupied(known) => {
                let known = known.into_mut();
                // Our own writes come back too, and change nothing of what is judged.
                if known.object.metadata.generation != object.metadata.generation {
                    known.spec = None;
                    known.verdict = None;
                }
                if rewound {
                    known.newest.store(version.unwrap_or_default(), Ordering::Relaxed);
                }
                if adopts {
                    known.standing.adopt(version.unwrap_or_default());
                    known.published_at = written.is_some().then(Instant::now);
                    known.published = written;
                } else {
                    if let (Some(version), Some(published)) = (version, &known.published) {
                        let stands = object.status.take().unwrap_or_default();
                        known.standing.see(version, rewound, &stands, published, Instant::now());
                    }
                    object.status.clone_from(&known.object.status);
                }
                known.object = Arc::new(object);
                known
            }
            Entry::Vacant(place) => place.insert(Known {
                scope,
                namespace,
                object: Arc::new(object),
                newest: Arc::new(AtomicU64::new(0)),
                standing: Standing::new(version.unwrap_or_default()),
                spec: None,
                verdict: None,
                // What an earlier process wrote is not contradicted before the servers are known.
                published_at: written.is_some().then(Instant::now),
                published: written,
            }),
        };
        known.newest.fetch_max(version.unwrap_or_default(), Ordering::Relaxed);
        if known.verdict.is_none() {
            self.stale.insert(known.namespace.clone());
        }
    }

    /// An object that cannot be read is answered once a generation, and stops no other plugin.
    fn refuse(&mut self, scope: usize, invalid: &InvalidObject) {
        let metadata = &invalid.metadata;
        let (Some(uid), Some(namespace), Some(name)) = (&metadata.uid, &metadata.namespace, &metadata.name)
        else {
            return;
        };
        self.forget(uid);
        self.claim(namespace, name, uid);
        let unreadable = Unreadable { scope, namespace: namespace.clone(), name: name.clone() };
        self.unreadable.insert(uid.clone(), unreadable);
        self.stale.insert(namespace.clone());
        tracing::warn!(namespace, plugin = name, error = invalid.error, "a FleetPlugin cannot be read");
        if !self.leads {
            return;
        }
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
        self.context.writer.submit(
            target,
            metadata.generation,
            &status,
            Urgency::Transition,
            None,
            Box::new(|_| {}),
        );
    }

    /// Judges the plugins of the namespaces in which one changed, and tells the servers. Whether any were. A namespace
    /// that is listed later than the others waits until its list is whole.
    fn judge(&mut self) -> bool {
        let current = Arc::clone(&self.context.plugins.borrow());
        let awaited: BTreeSet<String> =
            self.listing.awaited().filter_map(|scope| self.namespaces.get(scope).cloned()).collect();
        let due: Vec<String> = self.stale.extract_if(|namespace| !awaited.contains(namespace)).collect();
        let first = !current.listed;
        if due.is_empty() && !first && current.awaited == awaited {
            return false;
        }
        // Made only if a server would notice: each time it is told, it looks at all of its plugins.
        let mut changed: Option<PluginIndex> = None;
        for namespace in due {
            let (active, config_keys) = self.judge_namespace(&namespace);
            if !current.has(&namespace, &active, &config_keys) {
                changed.get_or_insert_with(|| PluginIndex::clone(&current)).set(
                    namespace,
                    active,
                    config_keys,
                );
            }
        }
        if first || changed.is_some() || current.awaited != awaited {
            let mut index = changed.unwrap_or_else(|| PluginIndex::clone(&current));
            index.listed = true;
            index.awaited = awaited;
            self.context.plugins.send_replace(Arc::new(index));
        }
        true
    }

    /// The active plugins of a namespace, oldest first, and the configKeys of all.
    fn judge_namespace(&mut self, namespace: &str) -> (Vec<Arc<ActivePlugin>>, BTreeSet<String>) {
        let mut here: Vec<&mut Known> =
            self.known.values_mut().filter(|known| known.namespace == namespace).collect();
        here.sort_by_cached_key(|known| validate::age_key(&known.object));
        validate_all(here.iter_mut().map(|known| (&*known.object, &mut known.spec)));
        let candidates = here
            .iter()
            .filter_map(|known| Some(Candidate { object: &known.object, spec: known.spec.as_ref()? }))
            .collect();
        let unreadable: Vec<&str> = self
            .unreadable
            .values()
            .filter(|unreadable| unreadable.namespace == namespace)
            .map(|unreadable| unreadable.name.as_str())
            .collect();
        let mut verdicts = judge(candidates, &unreadable, &self.platform);
        let mut active = Vec::new();
        let mut config_keys = BTreeSet::new();
        for known in here {
            known.verdict = verdicts.remove(&known.object.name_any());
            if let Some(Verdict::Active(plugin)) = &known.verdict {
                active.push(Arc::clone(plugin));
            }
            config_keys.extend(validate::config_key(&known.object).map(str::to_owned));
        }
        (active, config_keys)
    }

    /// Whether a status that somebody else wrote is to be put right now.
    fn is_corrected(&self) -> bool {
        let interval = self.context.poll.poll_interval;
        let now = Instant::now();
        self.leads && self.known.values().any(|known| known.standing.is_due(interval, now))
    }

    /// Writes and shows what has changed; whether counts still wait for their time.
    fn publish(&mut self) -> bool {
        let waiting = self.leads && self.write();
        if std::mem::take(&mut self.unshown) {
            let judged = self.known.values().filter(|known| known.verdict.is_some());
            self.context.installed.replace(judged.map(|known| Arc::clone(&known.object)).collect());
        }
        waiting
    }

    fn write(&mut self) -> bool {
        let servers = self.context.live.snapshots();
        let mut tallies = tally::tally(&servers, &self.context.plugins.borrow());
        let now = Time(Timestamp::now());
        let interval = self.context.poll.poll_interval;
        let mut waiting = false;
        for (uid, known) in &mut self.known {
            let Some(verdict) = &known.verdict else { continue };
            let name = known.object.name_any();
            let mut tally = tallies.take(&known.namespace, &name);
            tally.uncounted = !self.context.live.is_listed();
            let status = plan::plan(&known.object, known.published.as_ref(), verdict, tally, &now);
            if known.object.status.as_ref() != Some(&status) {
                // Whoever shows the old one keeps that.
                Arc::make_mut(&mut known.object).status = Some(status.clone());
                self.unshown = true;
            }
            let is_wrong = known.standing.is_due(interval, Instant::now());
            if known.published.as_ref() == Some(&status) && !is_wrong {
                continue;
            }
            let only_counts = !is_wrong
                && known.published.as_ref().is_some_and(|published| same_verdict(published, &status));
            let early = known.published_at.is_some_and(|at| at.elapsed() < COUNT_WRITE_INTERVAL);
            if only_counts && (early || !self.context.live.is_listed()) {
                waiting = true;
                continue;
            }
            let Ok(body) = serde_json::to_value(&status) else { continue };
            let before = known.published.as_ref().map_or(&[][..], |published| &published.conditions);
            if let Some(refused) = condition::newly_false(before, &status.conditions, condition::ACCEPTED) {
                let text = EventText::refused(&refused.reason, &refused.message);
                let (namespace, reason) = (&known.namespace, &*text.reason);
                tracing::info!(namespace, plugin = name, reason, note = text.note, "transition");
                let regarding = ObjectReference { resource_version: None, ..known.object.object_ref(&()) };
                self.context.events.submit(regarding, text, false);
            }
            let strays = known.standing.correct(interval, &body, Instant::now());
            let written = Box::new(known.standing.on_written(Arc::new(status.clone())));
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
            self.context.writer.submit(target, generation, &body, Urgency::Transition, strays, written);
        }
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
