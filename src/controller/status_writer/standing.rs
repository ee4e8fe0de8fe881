//! What stands in the status of one object, beside what was written there last: whether somebody else has changed it.
//! Pure but for the cell that the writer fills.
//!
//! Versions order what comes back: an event of our own earlier write is older than the answer to the last one, and says
//! nothing. What is newer and says something else was put there by somebody else: a restore of a backup, or a person.

use serde::Serialize;
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// An event of our own write may come before the answer to it.
const SETTLES_AFTER: Duration = Duration::from_millis(500);

/// What is known of one object's status. `S` is its type.
#[derive(Debug)]
pub struct Standing<S> {
    written: Arc<Mutex<Written<S>>>,
    foreign: Option<Foreign>,
    corrected: Option<Instant>,
}

/// What this process wrote last, and in which version the object has it.
#[derive(Debug)]
struct Written<S> {
    version: u64,
    /// `None`: nothing yet; the version is that in which the object was first seen.
    status: Option<Arc<S>>,
}

/// A status that somebody else wrote.
#[derive(Debug)]
struct Foreign {
    version: u64,
    status: Value,
    since: Instant,
}

/// What a status has to lose that stands in an object, beside what is written over it: an apply leaves alone what others
/// have set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Strays {
    /// The version of the object that they were seen in.
    pub version: u64,
    /// JSON pointers, in the order in which they can be removed.
    pub paths: Vec<String>,
}

impl<S: Serialize> Standing<S> {
    /// `version` is that in which the object was first seen.
    pub fn new(version: u64) -> Self {
        Self {
            written: Arc::new(Mutex::new(Written { version, status: None })),
            foreign: None,
            corrected: None,
        }
    }

    /// Whether this process has written the status yet.
    pub fn is_ours(&self) -> bool {
        self.lock().status.is_some()
    }

    /// To be called when `status` has been written, with the version that the object then had.
    pub fn on_written(&self, status: Arc<S>) -> impl FnOnce(Option<u64>) + Send + Sync + use<S>
    where
        S: Send + Sync + 'static,
    {
        let written = Arc::clone(&self.written);
        move |version| {
            let mut written = written.lock().unwrap_or_else(PoisonError::into_inner);
            written.version = version.unwrap_or(written.version);
            written.status = Some(status);
        }
    }

    /// The object was seen with this status. `published` is what was handed to the writer last, written or not.
    /// `rewound`: the API server has gone back to an older state, so that versions do not order what was before.
    pub fn see(&mut self, version: u64, rewound: bool, status: &impl Serialize, published: &S, now: Instant) {
        let (last, ours) = {
            let mut written = self.lock();
            if rewound {
                written.version = version.saturating_sub(1);
            }
            (written.version, written.status.clone())
        };
        if version < last {
            return;
        }
        // As it stands in an object: times are cut to seconds there.
        let stands = value(status);
        let ours = ours.map(|ours| value(&*ours));
        let is_ours = if version == last {
            // Our own write, or what this process began with: as it was taken, less what the API server does not know.
            ours.as_ref().is_none_or(|ours| strays(&stands, ours).is_empty())
        } else {
            stands == value(published) || ours.as_ref() == Some(&stands)
        };
        if is_ours {
            self.foreign = None;
            return;
        }
        let since = self.foreign.take().map_or(now, |before| before.since);
        self.foreign = Some(Foreign { version, status: stands, since });
    }

    /// When what somebody else wrote is to be put right: not oftener than once in `interval`, whoever fights.
    pub fn due(&self, interval: Duration) -> Option<Instant> {
        let foreign = self.foreign.as_ref()?;
        let settled = foreign.since + SETTLES_AFTER;
        Some(self.corrected.map_or(settled, |last| settled.max(last + interval)))
    }

    /// Whether it is to be put right now.
    pub fn is_due(&self, interval: Duration, now: Instant) -> bool {
        self.due(interval).is_some_and(|due| due <= now)
    }

    /// What is to be removed now, if anything is to be put right now; `status` is what is about to be written.
    pub fn correct(&mut self, interval: Duration, status: &Value, now: Instant) -> Option<Strays> {
        if !self.is_due(interval, now) {
            return None;
        }
        let Foreign { version, status: stands, .. } = self.foreign.take()?;
        let (last, ours) = {
            let written = self.lock();
            (written.version, written.status.clone())
        };
        // It was written over meanwhile, or was our own all along and came before the answer to the write.
        if version < last || ours.is_some_and(|ours| value(&*ours) == stands) {
            return None;
        }
        self.corrected = Some(now);
        Some(Strays { version, paths: strays(&stands, status) })
    }

    /// Goes on from what another process of ours has written.
    pub fn adopt(&mut self, version: u64) {
        *self.lock() = Written { version, status: None };
        self.foreign = None;
    }

    fn lock(&self) -> MutexGuard<'_, Written<S>> {
        self.written.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Strays {
    /// As a JSON patch that does nothing to another version of the object.
    pub fn patch(&self) -> Value {
        let test =
            json!({"op": "test", "path": "/metadata/resourceVersion", "value": self.version.to_string()});
        let removals =
            self.paths.iter().map(|path| json!({"op": "remove", "path": format!("/status{path}")}));
        std::iter::once(test).chain(removals).collect()
    }
}

/// A status is made of numbers, strings and lists of them: it always has a JSON form.
fn value(status: &impl Serialize) -> Value {
    serde_json::to_value(status).unwrap_or_default()
}

/// The paths in `stands` that `ours` does not have. Lists are written whole, but for the conditions, whose key is their type.
fn strays(stands: &Value, ours: &Value) -> Vec<String> {
    let mut paths = Vec::new();
    collect(stands, ours, "", &mut paths);
    paths
}

fn collect(stands: &Value, ours: &Value, at: &str, paths: &mut Vec<String>) {
    let (Value::Object(stands), Value::Object(ours)) = (stands, ours) else { return };
    for (key, value) in stands {
        let path = format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"));
        match ours.get(key) {
            None => paths.push(path),
            Some(own) if at.is_empty() && key == "conditions" => paths.extend(stray_conditions(value, own)),
            Some(own) => collect(value, own, &path, paths),
        }
    }
}

/// From the last to the first, so that each removal leaves the places of the next ones as they are.
fn stray_conditions(stands: &Value, ours: &Value) -> Vec<String> {
    let types = |conditions: &Value| -> Vec<String> {
        let conditions = conditions.as_array().into_iter().flatten();
        conditions.map(|condition| condition["type"].as_str().unwrap_or_default().to_owned()).collect()
    };
    let own: BTreeSet<String> = types(ours).into_iter().collect();
    let places = types(stands).into_iter().enumerate().rev();
    places
        .filter(|(_, type_)| !own.contains(type_))
        .map(|(place, _)| format!("/conditions/{place}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    const INTERVAL: Duration = Duration::from_secs(10);

    /// A status that was written in version 10.
    fn scene() -> (Standing<Value>, Value, Instant) {
        let standing = Standing::new(3);
        let status = json!({"version": "0.34.0", "conditions": [{"type": "Ready", "status": "True"}]});
        standing.on_written(Arc::new(status.clone()))(Some(10));
        (standing, status, Instant::now())
    }

    fn old() -> Value {
        json!({"version": "0.6.5", "vramUsed": "6Gi", "machine": {"cpuPercent": 3},
            "conditions": [{"type": "Ready", "status": "False"}, {"type": "Stalled", "status": "True"}]})
    }

    #[rstest]
    #[case::our_own_write(10, 0)]
    #[case::our_own_write_before(9, 1)]
    #[case::an_edit_of_the_spec(11, 0)]
    #[case::a_write_of_ours_whose_answer_is_under_way(11, 2)]
    fn what_we_wrote_is_not_foreign(#[case] version: u64, #[case] which: usize) {
        let (mut standing, status, now) = scene();
        let next = json!({"version": "0.35.0"});
        let seen = [&status, &old(), &next][which].clone();
        standing.see(version, false, &seen, &next, now);
        assert_eq!(standing.due(INTERVAL), None);
    }

    /// A definition that is older than the operator has none of its new fields, and that is nobody's edit.
    #[test]
    fn what_the_api_server_does_not_take_is_not_missed() {
        let (mut standing, status, now) = scene();
        standing.see(10, false, &json!({"conditions": status["conditions"]}), &status, now);
        assert_eq!(standing.due(INTERVAL), None);
    }

    #[test]
    fn what_somebody_else_wrote_is_put_right_once_in_an_interval() {
        let (mut standing, status, now) = scene();
        standing.see(11, false, &old(), &status, now);
        assert_eq!(standing.due(INTERVAL), Some(now + SETTLES_AFTER));
        assert_eq!(standing.correct(INTERVAL, &status, now), None, "its answer may be under way");
        let later = now + SETTLES_AFTER;
        let paths = ["/conditions/1", "/machine", "/vramUsed"].map(str::to_owned).to_vec();
        assert_eq!(standing.correct(INTERVAL, &status, later), Some(Strays { version: 11, paths }));
        assert_eq!(standing.due(INTERVAL), None);
        standing.on_written(Arc::new(status.clone()))(Some(12));
        // Another writer insists.
        standing.see(13, false, &old(), &status, later);
        assert_eq!(standing.due(INTERVAL), Some(later + INTERVAL));
        // And gives up, or is written over for another reason.
        standing.see(14, false, &status, &status, later);
        assert_eq!(standing.due(INTERVAL), None);
    }

    #[test]
    fn what_was_written_over_meanwhile_is_let_be() {
        let (mut standing, status, now) = scene();
        standing.see(11, false, &old(), &status, now);
        standing.on_written(Arc::new(status.clone()))(Some(12));
        assert_eq!(standing.correct(INTERVAL, &status, now + INTERVAL), None);
        // What the other one added stands beside it.
        let mut mixed = status.clone();
        mixed["vramUsed"] = "6Gi".into();
        standing.see(12, false, &mixed, &status, now);
        let strays = standing.correct(INTERVAL, &status, now + INTERVAL).unwrap();
        assert_eq!((strays.version, strays.paths), (12, vec!["/vramUsed".to_owned()]));
    }

    /// etcd comes back from a backup: what stands in the object has a version that is long past.
    #[test]
    fn a_state_that_went_back_is_compared_whatever_its_version() {
        let (mut standing, status, now) = scene();
        standing.see(5, true, &status, &status, now);
        assert_eq!(standing.due(INTERVAL), None, "nothing of it has changed");
        standing.see(5, true, &old(), &status, now);
        assert_eq!(standing.correct(INTERVAL, &status, now + INTERVAL).unwrap().version, 5);
    }

    #[test]
    fn what_a_process_begins_with_is_not_foreign() {
        let (mut standing, now) = (Standing::new(3), Instant::now());
        standing.see(3, false, &old(), &json!({}), now);
        assert!(standing.due(INTERVAL).is_none() && !standing.is_ours());
        standing.see(4, false, &old(), &json!({}), now);
        assert!(standing.due(INTERVAL).is_some());
        standing.adopt(4);
        assert_eq!(standing.due(INTERVAL), None);
    }

    #[test]
    fn a_patch_is_for_one_version() {
        let strays = Strays { version: 7, paths: vec!["/a~1b".to_owned()] };
        let expected = json!([{"op": "test", "path": "/metadata/resourceVersion", "value": "7"},
            {"op": "remove", "path": "/status/a~1b"}]);
        assert_eq!(strays.patch(), expected);
    }
}
