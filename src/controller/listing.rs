//! The books of a watch: which objects a list has brought, which are gone since, and which cannot be read.

use super::{
    status_writer::Kind,
    streams::{News, Trouble},
};
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

/// So many refusals of a scope count as an empty list, if another scope was listed before them. One alone may come from an
/// API server that has just started and refuses everybody until it has read the roles.
const REFUSALS_THAT_COUNT: u32 = 2;

/// What an item of a watch means for those who keep the objects.
pub enum Change<K> {
    /// The object is there, new or changed. `rewound`: it may be in an older state than it was, as the API server has come
    /// back from a backup.
    Applied { object: K, rewound: bool },
    /// It cannot be read, and this generation of it has not been answered yet.
    Unreadable(Box<InvalidObject>),
    /// The object with this UID is gone.
    Gone(String),
    /// A list is whole: what this scope had before and is not among these UIDs is gone.
    Listed(HashSet<String>),
}

/// What one scope has brought. Resource versions grow, so that an event with an older one is yesterday's news: a
/// duplicate, one out of order, one of an object that is gone. A list is what there is, whatever was seen before.
#[derive(Default)]
struct Scope {
    /// The API server has gone back since the last list that was whole.
    rewound: bool,
    /// UIDs seen in the list that is under way.
    listed: HashSet<String>,
    /// The version that each object that is there was last seen in.
    versions: HashMap<String, u64>,
    /// The newest version of anything since the last list.
    newest: u64,
}

impl Scope {
    /// Whether a list has the object in another version than it was last seen in, and whether in an older one.
    fn lists(&mut self, uid: &str, version: Option<u64>) -> (bool, bool) {
        let known = self.versions.get(uid).copied();
        let Some(version) = version else { return (true, self.rewound) };
        self.newest = self.newest.max(version);
        self.versions.insert(uid.to_owned(), version);
        let rewound = self.rewound || known.is_some_and(|known| known > version);
        (rewound || known != Some(version), rewound)
    }

    /// Whether the object was not seen in this version or a newer one.
    fn takes(&mut self, uid: &str, version: Option<u64>) -> bool {
        let Some(version) = version else { return true };
        if self.versions.get(uid).is_some_and(|known| *known >= version) {
            return false;
        }
        self.newest = self.newest.max(version);
        self.versions.insert(uid.to_owned(), version);
        true
    }
}

/// The books of all scopes of one kind.
pub struct Listing {
    kind: Kind,
    metrics: Arc<Metrics>,
    scopes: Vec<Scope>,
    /// Scopes whose first list is not whole yet, and how often it was refused; what was refused before any scope was listed
    /// does not count.
    initial: HashMap<usize, u32>,
    gate: Gate,
    /// Objects that cannot be read, by UID, with their scope and the generation that was answered.
    unreadable: HashMap<String, (usize, Option<i64>)>,
}

impl Listing {
    /// The gate opens when every scope has been listed once, or is refused while others are not.
    pub fn new(kind: Kind, metrics: Arc<Metrics>, scopes: usize, gate: Gate) -> Self {
        Self {
            kind,
            metrics,
            scopes: (0..scopes).map(|_| Scope::default()).collect(),
            initial: (0..scopes).map(|scope| (scope, 0)).collect(),
            gate,
            unreadable: HashMap::new(),
        }
    }

    /// Whether every scope has been listed at least once, save those that are refused: a namespace that is gone, or whose
    /// rights are, stops no other. If all are refused, nothing is known.
    pub fn is_complete(&self) -> bool {
        self.initial.len() < self.scopes.len()
            && self.initial.values().all(|refusals| *refusals >= REFUSALS_THAT_COUNT)
    }

    /// The scopes that have not been listed yet.
    pub fn awaited(&self) -> impl Iterator<Item = usize> {
        self.initial.keys().copied()
    }

    /// Whether this scope has been listed at least once.
    pub fn is_listed(&self, scope: usize) -> bool {
        !self.initial.contains_key(&scope)
    }

    pub fn take<K: Resource>(&mut self, scope: usize, news: News<K>) -> Option<Change<K>>
    where
        DeserializeGuard<K>: Resource,
    {
        let event = match news {
            Ok(event) => event,
            Err(Trouble::Refused) => {
                self.refuse(scope);
                return None;
            }
            Err(Trouble::Rewound) => {
                self.scopes[scope].rewound = true;
                return None;
            }
        };
        match event {
            Event::Init => {
                self.scopes[scope].listed.clear();
                self.scopes[scope].newest = 0;
                None
            }
            Event::InitApply(object) => {
                let uid = object.meta().uid.clone()?;
                let books = &mut self.scopes[scope];
                let (news, rewound) = books.lists(&uid, version(&object));
                books.listed.insert(uid);
                if news { self.applied(scope, object, rewound) } else { None }
            }
            Event::InitDone => {
                let books = &mut self.scopes[scope];
                let listed = std::mem::take(&mut books.listed);
                books.rewound = false;
                books.versions.retain(|uid, _| listed.contains(uid));
                self.unreadable.retain(|uid, (of, _)| *of != scope || listed.contains(uid));
                self.count();
                if self.initial.len() == self.scopes.len() {
                    self.initial.values_mut().for_each(|refusals| *refusals = 0);
                }
                self.initial.remove(&scope);
                if self.is_complete() {
                    self.gate.open();
                }
                Some(Change::Listed(listed))
            }
            Event::Apply(object) => {
                let version = version(&object);
                let books = &mut self.scopes[scope];
                // A watch tells in order, so that what is older than anything told is old, known or not.
                let old = version.is_some_and(|version| version <= books.newest);
                if old || !books.takes(object.meta().uid.as_deref()?, version) {
                    return None;
                }
                self.applied(scope, object, false)
            }
            Event::Delete(object) => {
                // Never too old: what is gone does not come back under its UID.
                let uid = object.meta().uid.clone()?;
                let books = &mut self.scopes[scope];
                books.versions.remove(&uid);
                books.newest = books.newest.max(version(&object).unwrap_or_default());
                if self.unreadable.remove(&uid).is_some() {
                    self.count();
                }
                Some(Change::Gone(uid))
            }
        }
    }

    /// The list of a scope was refused. What the scope has brought before stays.
    fn refuse(&mut self, scope: usize) {
        let Some(refusals) = self.initial.get_mut(&scope) else { return };
        *refusals = refusals.saturating_add(1);
        if self.is_complete() {
            self.gate.open();
        } else if self.scopes.len() > 1
            && self.initial.len() == self.scopes.len()
            && self.initial.values().all(|refusals| *refusals > 0)
        {
            // Which these are is for the log: no name is shown to whoever asks for readiness.
            let kind = self.kind.as_str();
            self.gate.wait_for(format!("the right to list {kind}s, which is refused in every namespace"));
        }
    }

    fn applied<K>(&mut self, scope: usize, object: DeserializeGuard<K>, rewound: bool) -> Option<Change<K>>
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
                Some(Change::Applied { object, rewound })
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

/// Compared as a number, which Kubernetes promises since 1.35 and has always kept.
fn version(object: &impl Resource) -> Option<u64> {
    object.meta().resource_version.as_deref()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        api::OllamaServer,
        controller::server::live::Live,
        runtime::{Leadership, Readiness},
    };
    use serde_json::json;

    type Guarded = DeserializeGuard<OllamaServer>;

    fn object(uid: &str, version: u64) -> Guarded {
        let metadata =
            json!({"name": uid, "namespace": "n", "uid": uid, "resourceVersion": version.to_string()});
        let object = json!({"apiVersion": "ollama-fleet.io/v1alpha1", "kind": "OllamaServer", "metadata": metadata,
            "spec": {"host": "a.lab"}});
        serde_json::from_value(object).unwrap()
    }

    fn books() -> Listing {
        books_of(1).0
    }

    fn books_of(scopes: usize) -> (Listing, Readiness) {
        let metrics = Metrics::new(&Live::default(), 1, &Leadership::always());
        let readiness = Readiness::new();
        (Listing::new(Kind::OllamaServer, metrics, scopes, readiness.gate("servers")), readiness)
    }

    fn refuse(books: &mut Listing, scope: usize) {
        assert!(books.take::<OllamaServer>(scope, Err(Trouble::Refused)).is_none());
    }

    fn list(books: &mut Listing, scope: usize, events: Vec<Event<Guarded>>) {
        for event in [vec![Event::Init], events, vec![Event::InitDone]].concat() {
            books.take(scope, Ok(event));
        }
    }

    /// What was made of each: the versions that were applied, `-` for nothing.
    fn take(books: &mut Listing, events: Vec<Event<Guarded>>) -> String {
        let words = events.into_iter().map(|event| match books.take(0, Ok(event)) {
            None => "-".to_owned(),
            Some(Change::Applied { object, rewound }) => {
                let back = if rewound { "back to " } else { "" };
                format!("{back}{}", object.metadata.resource_version.unwrap_or_default())
            }
            Some(Change::Gone(uid)) => format!("gone {uid}"),
            Some(Change::Listed(uids)) => format!("listed {}", uids.len()),
            Some(Change::Unreadable(_)) => "unreadable".to_owned(),
        });
        words.collect::<Vec<_>>().join(", ")
    }

    #[test]
    fn yesterdays_news_is_no_news() {
        let mut books = books();
        let list = vec![
            Event::Init,
            Event::InitApply(object("b", 6)),
            Event::InitApply(object("a", 5)),
            Event::InitDone,
        ];
        assert_eq!(take(&mut books, list), "-, 6, 5, listed 2");
        let events = vec![
            Event::Apply(object("a", 9)),
            // A duplicate, one out of order, a very old one.
            Event::Apply(object("a", 9)),
            Event::Apply(object("b", 8)),
            Event::Apply(object("a", 1)),
            Event::Delete(object("b", 12)),
            // It does not rise again, whatever is told late.
            Event::Apply(object("b", 11)),
            Event::Delete(object("a", 3)),
            Event::Apply(object("c", 13)),
        ];
        assert_eq!(take(&mut books, events), "9, -, -, -, gone b, -, gone a, 13");
    }

    /// An API server that comes back from an older backup lists versions that are lower, and an edit after that is one,
    /// though its version was seen before.
    #[test]
    fn a_list_is_the_truth_whatever_was_seen_before() {
        let mut books = books();
        let list = |version| vec![Event::Init, Event::InitApply(object("a", version)), Event::InitDone];
        assert_eq!(take(&mut books, list(5)), "-, 5, listed 1");
        assert_eq!(
            take(&mut books, vec![Event::Apply(object("a", 9)), Event::Apply(object("b", 10))]),
            "9, 10"
        );
        assert_eq!(take(&mut books, list(5)), "-, back to 5, listed 1");
        let edits =
            vec![Event::Apply(object("a", 7)), Event::Apply(object("a", 7)), Event::Apply(object("b", 8))];
        assert_eq!(take(&mut books, edits), "7, -, 8");
        // One that lags is made up for by the watch, which goes on from where it was.
        assert_eq!(take(&mut books, list(5)), "-, back to 5, listed 1");
        assert_eq!(
            take(&mut books, vec![Event::Apply(object("a", 7)), Event::Apply(object("a", 9))]),
            "7, 9"
        );
    }

    /// What stood in an object in a version that is there again need not be what stands in it now.
    #[test]
    fn everything_is_looked_at_again_once_the_api_server_has_gone_back() {
        let mut books = books();
        let list = || vec![Event::Init, Event::InitApply(object("a", 5)), Event::InitDone];
        take(&mut books, list());
        assert_eq!(take(&mut books, list()), "-, -, listed 1");
        assert!(books.take::<OllamaServer>(0, Err(Trouble::Rewound)).is_none());
        assert_eq!(take(&mut books, list()), "-, back to 5, listed 1");
        assert_eq!(take(&mut books, list()), "-, -, listed 1");
    }

    #[test]
    fn what_is_gone_is_forgotten() {
        let mut books = books();
        let mut list = vec![Event::Init];
        list.extend((1..=100).map(|number| Event::InitApply(object(&number.to_string(), number))));
        list.push(Event::InitDone);
        take(&mut books, list);
        assert_eq!(books.scopes[0].versions.len(), 100);
        take(
            &mut books,
            (1..=50).map(|number| Event::Delete(object(&number.to_string(), 100 + number))).collect(),
        );
        assert_eq!(books.scopes[0].versions.len(), 50);
        take(&mut books, vec![Event::Init, Event::InitDone]);
        assert!(books.scopes[0].versions.is_empty() && books.scopes[0].listed.is_empty());
    }

    #[test]
    fn a_refused_scope_stops_no_other() {
        let (mut books, readiness) = books_of(3);
        refuse(&mut books, 1);
        refuse(&mut books, 1);
        list(&mut books, 0, Vec::new());
        // What was refused before anything was listed may have been refused to everybody.
        refuse(&mut books, 1);
        list(&mut books, 2, Vec::new());
        assert!(!books.is_complete() && !readiness.snapshot().ready);
        refuse(&mut books, 1);
        assert!(books.is_complete() && readiness.snapshot().ready);
        assert_eq!(books.awaited().collect::<Vec<_>>(), [1]);
        list(&mut books, 1, vec![Event::InitApply(object("a", 7))]);
        assert!(books.is_complete() && books.is_listed(1) && books.awaited().next().is_none());
    }

    #[test]
    fn a_scope_that_only_fails_is_waited_for() {
        let (mut books, readiness) = books_of(3);
        list(&mut books, 0, Vec::new());
        for _ in 0..REFUSALS_THAT_COUNT {
            refuse(&mut books, 1);
        }
        assert!(!books.is_complete() && !readiness.snapshot().ready);
    }

    #[test]
    fn rights_that_are_missing_everywhere_are_no_readiness() {
        for scopes in [1, 2] {
            let (mut books, readiness) = books_of(scopes);
            for scope in (0..scopes).cycle().take(20) {
                refuse(&mut books, scope);
            }
            assert!(!books.is_complete() && !readiness.snapshot().ready);
            let detail = &readiness.snapshot().waiting_for[0].detail;
            // With one scope it waits for what it always waits for.
            assert_eq!(detail.contains("refused in every namespace"), scopes > 1, "{detail}");
        }
    }

    #[test]
    fn nothing_is_forgotten_for_a_refusal() {
        let (mut books, readiness) = books_of(1);
        list(&mut books, 0, vec![Event::InitApply(object("a", 7))]);
        refuse(&mut books, 0);
        assert!(books.is_complete() && readiness.snapshot().ready);
        assert!(books.scopes[0].versions.contains_key("a"));
    }
}
