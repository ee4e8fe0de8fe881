//! From what is to be told to the Event object that tells it. What repeats is one object with a count; a try that is
//! made again is the same object under the same name, so that one which was done although nobody said so is not done
//! twice. kube's own recorder names each try anew, which is why it is not used. Pure but for the clock.

use super::server::transition::EventText;
use crate::api::MANAGER;
use k8s_openapi::{
    api::{
        core::v1::ObjectReference,
        events::v1::{Event, EventSeries},
    },
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::{SignedDuration, Timestamp},
};
use std::collections::HashMap;

/// What repeats later than this after the last time is told anew. The API server keeps Events for an hour.
const SERIES_MAX: SignedDuration = SignedDuration::from_mins(6);
/// Series that are remembered before old ones are looked for: some seconds' worth at full rate.
const SWEEP_LEAST: usize = 1024;
/// Longest name of an object, and what of it the time takes.
const NAME_MAX: usize = 253;
const SUFFIX: usize = 18;
/// The API server refuses longer notes.
const NOTE_MAX: usize = 1024;

/// What makes two Events the same news.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    uid: String,
    reason: String,
    warning: bool,
    field_path: Option<String>,
}

/// A request to the API server; made once, and sent until it is answered.
#[derive(Clone, Debug, PartialEq)]
pub enum Attempt {
    Create(Box<Event>),
    /// The Event of that name was told once more.
    Count {
        name: String,
        series: EventSeries,
    },
}

#[derive(Debug)]
struct Told {
    name: String,
    count: i32,
    last: Timestamp,
}

/// The series that are still counted on.
#[derive(Debug, Default)]
pub struct Series {
    told: HashMap<Key, Told>,
    sweep_at: usize,
}

impl Series {
    /// The next request that tells this.
    pub fn attempt(&mut self, regarding: &ObjectReference, text: &EventText, now: Timestamp) -> Attempt {
        self.sweep(now);
        let key = key(regarding, text);
        if let Some(told) = self.told.get_mut(&key).filter(|told| is_fresh(told, now)) {
            told.count = told.count.saturating_add(1);
            told.last = now;
            let series = EventSeries { count: told.count, last_observed_time: MicroTime(now) };
            return Attempt::Count { name: told.name.clone(), series };
        }
        let event = event(regarding, text, now);
        let name = event.metadata.name.clone().unwrap_or_default();
        self.told.insert(key, Told { name, count: 1, last: now });
        Attempt::Create(Box::new(event))
    }

    /// Forgets a series whose Event is not there, or never came to be.
    pub fn forget(&mut self, regarding: &ObjectReference, text: &EventText) {
        self.told.remove(&key(regarding, text));
    }

    fn sweep(&mut self, now: Timestamp) {
        if self.told.len() >= self.sweep_at.max(SWEEP_LEAST) {
            self.told.retain(|_, told| is_fresh(told, now));
            self.sweep_at = self.told.len() * 2;
        }
    }
}

fn is_fresh(told: &Told, now: Timestamp) -> bool {
    told.last + SERIES_MAX > now
}

fn key(regarding: &ObjectReference, text: &EventText) -> Key {
    Key {
        uid: regarding.uid.clone().unwrap_or_default(),
        reason: text.reason.clone().into_owned(),
        warning: text.warning,
        field_path: text.field_path.clone(),
    }
}

fn event(regarding: &ObjectReference, text: &EventText, now: Timestamp) -> Event {
    let mut name = regarding.name.clone().unwrap_or_default();
    // Names of objects are ASCII.
    name.truncate(NAME_MAX - SUFFIX);
    let name = format!("{}.{:x}", name.trim_end_matches(['-', '.']), now.as_nanosecond());
    Event {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: regarding.namespace.clone(),
            ..ObjectMeta::default()
        },
        event_time: Some(MicroTime(now)),
        reporting_controller: Some(MANAGER.to_owned()),
        reporting_instance: Some(std::env::var("POD_NAME").unwrap_or_else(|_| MANAGER.to_owned())),
        action: Some("Poll".to_owned()),
        reason: Some(text.reason.clone().into_owned()),
        regarding: Some(regarding.clone()),
        related: text
            .field_path
            .clone()
            .map(|path| ObjectReference { field_path: Some(path), ..regarding.clone() }),
        note: Some(text.note.chars().take(NOTE_MAX / 4).collect()),
        type_: Some(if text.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn regarding(uid: &str) -> ObjectReference {
        ObjectReference { uid: Some(uid.into()), name: Some("s".into()), ..ObjectReference::default() }
    }

    fn text(field_path: Option<&str>) -> EventText {
        EventText {
            reason: "ModelLoaded".into(),
            warning: false,
            note: "n".repeat(2000),
            field_path: field_path.map(str::to_owned),
        }
    }

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }

    fn created(attempt: Attempt) -> Event {
        match attempt {
            Attempt::Create(event) => *event,
            Attempt::Count { .. } => panic!("counted"),
        }
    }

    #[test]
    fn what_repeats_is_counted_and_what_differs_is_not() {
        let mut series = Series::default();
        let first = created(series.attempt(&regarding("a"), &text(Some("x")), at(0)));
        assert_eq!(first.related.unwrap().field_path.as_deref(), Some("x"));
        assert!(first.note.unwrap().len() <= NOTE_MAX);
        for (uid, path) in [("a", Some("y")), ("a", None), ("b", Some("x"))] {
            created(series.attempt(&regarding(uid), &text(path), at(1)));
        }
        for (count, second) in [(2, 1), (3, 300), (4, 600)] {
            let name = first.metadata.name.clone().unwrap();
            let series_of = EventSeries { count, last_observed_time: MicroTime(at(second)) };
            let expected = Attempt::Count { name, series: series_of };
            assert_eq!(series.attempt(&regarding("a"), &text(Some("x")), at(second)), expected);
        }
        let anew = created(series.attempt(&regarding("a"), &text(Some("x")), at(961)));
        assert_ne!(anew.metadata.name, first.metadata.name);
        series.forget(&regarding("a"), &text(Some("x")));
        created(series.attempt(&regarding("a"), &text(Some("x")), at(962)));
    }

    #[test]
    fn a_long_name_leaves_room_for_the_time() {
        let regarding =
            ObjectReference { name: Some(format!("{}-b", "a".repeat(251))), ..ObjectReference::default() };
        let event = created(Series::default().attempt(&regarding, &text(None), at(1_800_000_000)));
        assert!(event.metadata.name.unwrap().len() <= NAME_MAX);
    }

    #[test]
    fn series_that_are_over_are_forgotten() {
        let mut series = Series::default();
        for number in 0..10_000 {
            series.attempt(&regarding(&number.to_string()), &text(None), at(number));
        }
        assert!(series.told.len() < 3 * SWEEP_LEAST, "{}", series.told.len());
    }
}
