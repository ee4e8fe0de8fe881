//! The books of a watch: which objects a list has brought, which are gone since, and which cannot be read.

use super::status_writer::Kind;
use crate::{metrics::Metrics, runtime::readiness::Gate};
use kube::{
    Resource,
    core::{DeserializeGuard, error_boundary::InvalidObject},
    runtime::watcher::Event,
};
use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

/// What an item of a watch means for those who keep the objects.
pub enum Change<K> {
    /// The object is there, new or changed.
    Applied(K),
    /// It cannot be read, and this generation of it has not been answered yet.
    Unreadable(Box<InvalidObject>),
    /// The object with this UID is gone.
    Gone(String),
    /// A list is whole: what this scope had before and is not among these UIDs is gone.
    Listed(HashSet<String>),
}

/// The books of all scopes of one kind.
pub struct Listing {
    kind: Kind,
    metrics: Arc<Metrics>,
    /// UIDs seen in each scope's list that is under way.
    listed: Vec<HashSet<String>>,
    /// Scopes whose first list is not whole yet.
    initial: HashSet<usize>,
    gate: Gate,
    /// Objects that cannot be read, by UID, with their scope and the generation that was answered.
    unreadable: HashMap<String, (usize, Option<i64>)>,
}

impl Listing {
    /// The gate opens when every scope has been listed once.
    pub fn new(kind: Kind, metrics: Arc<Metrics>, scopes: usize, gate: Gate) -> Self {
        Self {
            kind,
            metrics,
            listed: vec![HashSet::new(); scopes],
            initial: (0..scopes).collect(),
            gate,
            unreadable: HashMap::new(),
        }
    }

    /// Whether every scope has been listed at least once.
    pub fn is_complete(&self) -> bool {
        self.initial.is_empty()
    }

    pub fn take<K: Resource>(&mut self, scope: usize, event: Event<DeserializeGuard<K>>) -> Option<Change<K>>
    where
        DeserializeGuard<K>: Resource,
    {
        match event {
            Event::Init => {
                self.listed[scope].clear();
                None
            }
            Event::InitApply(object) => {
                if let Some(uid) = &object.meta().uid {
                    self.listed[scope].insert(uid.clone());
                }
                self.applied(scope, object)
            }
            Event::InitDone => {
                let listed = std::mem::take(&mut self.listed[scope]);
                self.unreadable.retain(|uid, (of, _)| *of != scope || listed.contains(uid));
                self.count();
                self.initial.remove(&scope);
                if self.initial.is_empty() {
                    self.gate.open();
                }
                Some(Change::Listed(listed))
            }
            Event::Apply(object) => self.applied(scope, object),
            Event::Delete(object) => {
                let uid = object.meta().uid.clone()?;
                if self.unreadable.remove(&uid).is_some() {
                    self.count();
                }
                Some(Change::Gone(uid))
            }
        }
    }

    fn applied<K>(&mut self, scope: usize, object: DeserializeGuard<K>) -> Option<Change<K>>
    where
        K: Resource,
        DeserializeGuard<K>: Resource,
    {
        let uid = object.meta().uid.clone()?;
        match object.0 {
            Ok(object) => {
                if self.unreadable.remove(&uid).is_some() {
                    self.count();
                }
                Some(Change::Applied(object))
            }
            Err(invalid) => {
                let answered = (scope, invalid.metadata.generation);
                if self.unreadable.insert(uid, answered) == Some(answered) {
                    return None;
                }
                self.count();
                Some(Change::Unreadable(Box::new(invalid)))
            }
        }
    }

    fn count(&self) {
        self.metrics.undecodable(self.kind, self.unreadable.len());
    }
}
