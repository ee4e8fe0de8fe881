//! What is kept of Secrets, by namespace, within a bound for all of it. Where there is no room, something of the namespace
//! that holds the most goes: so one with many large Secrets pushes out its own, and never those of a namespace that
//! holds no more than its share.
//!
//! Pure: the caller brings the time.

use super::store::Key;
use std::{collections::HashMap, sync::Arc, time::Duration};
use tokio::time::Instant;

/// What an entry takes beyond the values in it.
pub const BYTES_OF_A_SLOT: usize = 1024;
/// An entry that nobody has asked for in this time is of no server any more; the longest interval is a day.
pub const UNUSED_FOR: Duration = Duration::from_hours(25);
/// How often those are looked for.
const SWEPT_EVERY: Duration = Duration::from_hours(1);

pub struct Kept<T> {
    namespaces: HashMap<String, Namespace<T>>,
    /// Of all; more than `most` only by places that are still empty, until the next one is filled.
    bytes: usize,
    most: usize,
    /// Counts uses, to tell which was longest ago.
    uses: u64,
    swept: Instant,
}

struct Namespace<T> {
    entries: HashMap<String, Entry<T>>,
    bytes: usize,
}

struct Entry<T> {
    value: Arc<T>,
    bytes: usize,
    used: u64,
    used_at: Instant,
}

impl<T: Default> Kept<T> {
    pub fn new(most: usize, now: Instant) -> Self {
        Self { namespaces: HashMap::new(), bytes: 0, most, uses: 0, swept: now }
    }

    /// What is kept under this name, empty if nothing was.
    pub fn get(&mut self, key: &Key, now: Instant) -> Arc<T> {
        self.sweep(now);
        self.uses += 1;
        let entry = self.namespaces.get_mut(&key.0).and_then(|namespace| namespace.entries.get_mut(&key.1));
        if let Some(entry) = entry {
            (entry.used, entry.used_at) = (self.uses, now);
            return Arc::clone(&entry.value);
        }
        let value = Arc::default();
        // Room is made when it is known how much is wanted: an empty place may turn out to be larger than all others.
        self.insert(key, &value, 0, now);
        value
    }

    /// Keeps this, which takes that many bytes by now, also if it had to go meanwhile; unless there is no room for it.
    pub fn put(&mut self, key: &Key, value: &Arc<T>, bytes: usize, now: Instant) {
        self.insert(key, value, bytes, now);
        while self.bytes > self.most && self.drop_one(&key.0) {}
    }

    fn insert(&mut self, (namespace, name): &Key, value: &Arc<T>, bytes: usize, now: Instant) {
        self.remove(namespace, name);
        self.uses += 1;
        let bytes = bytes + BYTES_OF_A_SLOT;
        let entry = Entry { value: Arc::clone(value), bytes, used: self.uses, used_at: now };
        let of = self.namespaces.entry(namespace.clone()).or_insert_with(Namespace::new);
        of.entries.insert(name.clone(), entry);
        of.bytes += bytes;
        self.bytes += bytes;
    }

    /// Takes away what was not used for longest in the namespace that holds the most; of several the one that wants more.
    fn drop_one(&mut self, wants: &str) -> bool {
        let largest = self.namespaces.iter().max_by_key(|(name, of)| (of.bytes, *name == wants));
        let Some((namespace, of)) = largest else { return false };
        let Some((name, _)) = of.entries.iter().min_by_key(|(_, entry)| entry.used) else { return false };
        let (namespace, name) = (namespace.clone(), name.clone());
        self.remove(&namespace, &name);
        true
    }

    fn remove(&mut self, namespace: &str, name: &str) {
        let Some(of) = self.namespaces.get_mut(namespace) else { return };
        let bytes = of.entries.remove(name).map_or(0, |entry| entry.bytes);
        of.bytes -= bytes;
        self.bytes -= bytes;
        if of.entries.is_empty() {
            self.namespaces.remove(namespace);
        }
    }

    fn sweep(&mut self, now: Instant) {
        if now.duration_since(self.swept) < SWEPT_EVERY {
            return;
        }
        self.swept = now;
        for of in self.namespaces.values_mut() {
            of.entries.retain(|_, entry| now.duration_since(entry.used_at) < UNUSED_FOR);
            of.bytes = of.entries.values().map(|entry| entry.bytes).sum();
        }
        self.namespaces.retain(|_, of| !of.entries.is_empty());
        self.bytes = self.namespaces.values().map(|of| of.bytes).sum();
    }
}

impl<T> Namespace<T> {
    fn new() -> Self {
        Self { entries: HashMap::new(), bytes: 0 }
    }
}

#[cfg(test)]
impl<T> Kept<T> {
    /// How many entries there are, and what they take.
    pub fn size(&self) -> (usize, usize) {
        (self.namespaces.values().map(|of| of.entries.len()).sum(), self.bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What one entry of the tests takes.
    const LARGE: usize = 10 * BYTES_OF_A_SLOT;

    struct Scene {
        kept: Kept<()>,
        now: Instant,
    }

    impl Scene {
        /// Room for so many.
        fn new(entries: usize) -> Self {
            let now = Instant::now();
            Self { kept: Kept::new(entries * LARGE, now), now }
        }

        fn put(&mut self, namespace: &str, name: &str) {
            let key = (namespace.to_owned(), name.to_owned());
            let value = self.kept.get(&key, self.now);
            self.kept.put(&key, &value, LARGE - BYTES_OF_A_SLOT, self.now);
        }

        fn names(&self, namespace: &str) -> Vec<&str> {
            let of = self.kept.namespaces.get(namespace);
            let mut names: Vec<&str> =
                of.into_iter().flat_map(|of| of.entries.keys().map(String::as_str)).collect();
            names.sort_unstable();
            names
        }
    }

    #[test]
    fn a_namespace_with_much_pushes_out_its_own() {
        let mut scene = Scene::new(4);
        scene.put("modest", "a");
        for number in 0..10 {
            scene.put("greedy", &format!("{number}"));
        }
        assert_eq!(scene.names("modest"), ["a"]);
        assert_eq!(scene.names("greedy"), ["7", "8", "9"]);
        // Who comes late gets a share all the same.
        scene.put("late", "b");
        assert_eq!((scene.names("modest"), scene.names("late")), (vec!["a"], vec!["b"]));
        assert_eq!(scene.names("greedy"), ["8", "9"]);
        assert_eq!(scene.kept.size(), (4, 4 * LARGE));
    }

    #[test]
    fn among_equals_nobody_goes_for_a_newcomer() {
        let mut scene = Scene::new(2);
        for namespace in ["a", "b", "c"] {
            scene.put(namespace, "x");
        }
        assert_eq!((scene.names("a").len(), scene.names("b").len(), scene.names("c").len()), (1, 1, 0));
    }

    #[test]
    fn of_one_namespace_what_was_used_last_stays() {
        let mut scene = Scene::new(2);
        scene.put("a", "1");
        scene.put("a", "2");
        scene.kept.get(&("a".to_owned(), "1".to_owned()), scene.now);
        scene.put("a", "3");
        assert_eq!(scene.names("a"), ["1", "3"]);
    }

    #[test]
    fn what_nobody_asks_for_any_more_goes() {
        let mut scene = Scene::new(10);
        scene.put("a", "1");
        scene.put("b", "1");
        scene.now += UNUSED_FOR / 2;
        scene.put("a", "1");
        scene.now += UNUSED_FOR / 2;
        scene.put("a", "2");
        assert_eq!((scene.names("a"), scene.names("b")), (vec!["1", "2"], vec![]));
        assert_eq!(scene.kept.size(), (2, 2 * LARGE));
    }

    #[test]
    fn what_grows_or_shrinks_is_counted_as_it_is() {
        let mut scene = Scene::new(4);
        let key = ("a".to_owned(), "1".to_owned());
        let value = scene.kept.get(&key, scene.now);
        for bytes in [0, 100, 5, 7000] {
            scene.kept.put(&key, &value, bytes, scene.now);
            assert_eq!(scene.kept.size(), (1, bytes + BYTES_OF_A_SLOT));
            assert!(Arc::ptr_eq(&scene.kept.get(&key, scene.now), &value));
        }
        // Larger than all there is: used once, and not kept.
        scene.kept.put(&key, &value, 4 * LARGE, scene.now);
        assert_eq!(scene.kept.size(), (0, 0));
    }
}
