//! A memory that forgets: of who holds a token and who may do what, so that a scrape every few seconds does not ask
//! the apiserver each time.
//!
//! Pure: the caller brings the time. What it is keyed by are digests of tokens, never tokens.

use std::{collections::HashMap, hash::Hash, time::Duration};
use tokio::time::Instant;

/// How long a token or a right that was taken away may still be used.
pub const ALLOW_FOR: Duration = Duration::from_mins(1);

/// Shorter, so that a right just given works soon.
pub const DENY_FOR: Duration = Duration::from_secs(30);

/// SHA-256 of a token.
pub type TokenDigest = [u8; 32];

/// Bounded: the expired go first when it is full, then the oldest.
#[derive(Debug)]
pub struct Cache<K, V> {
    entries: HashMap<K, Entry<V>>,
    capacity: usize,
}

#[derive(Debug)]
struct Entry<V> {
    value: V,
    expires: Instant,
    inserted: Instant,
}

impl<K: Clone + Eq + Hash, V: Clone> Cache<K, V> {
    pub fn new(capacity: usize) -> Self {
        Self { entries: HashMap::new(), capacity }
    }

    pub fn get(&self, key: &K, now: Instant) -> Option<V> {
        let entry = self.entries.get(key)?;
        (now < entry.expires).then(|| entry.value.clone())
    }

    pub fn put(&mut self, key: K, value: V, lifetime: Duration, now: Instant) {
        if self.entries.len() >= self.capacity && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        self.entries.insert(key, Entry { value, expires: now + lifetime, inserted: now });
    }

    pub fn remove(&mut self, key: &K) {
        self.entries.remove(key);
    }

    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.expires);
        if self.entries.len() < self.capacity {
            return;
        }
        let oldest = self.entries.iter().min_by_key(|(_, entry)| entry.inserted).map(|(key, _)| key.clone());
        if let Some(key) = oldest {
            self.entries.remove(&key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);
    const CAPACITY: usize = 100;

    #[test]
    fn values_expire_each_at_its_time() {
        let now = Instant::now();
        let mut cache = Cache::new(CAPACITY);
        cache.put(1, "allowed", ALLOW_FOR, now);
        cache.put(2, "denied", DENY_FOR, now);

        let late = now + Duration::from_secs(29);
        assert_eq!((cache.get(&1, late), cache.get(&2, late)), (Some("allowed"), Some("denied")));
        let later = now + DENY_FOR;
        assert_eq!((cache.get(&1, later), cache.get(&2, later)), (Some("allowed"), None));
        assert_eq!(cache.get(&1, now + ALLOW_FOR), None);
        assert_eq!(cache.get(&3, now), None);
    }

    #[test]
    fn a_new_value_replaces_the_old() {
        let now = Instant::now();
        let mut cache = Cache::new(CAPACITY);
        cache.put(1, true, ALLOW_FOR, now);
        cache.put(1, false, DENY_FOR, now + SECOND);
        assert_eq!(cache.get(&1, now + SECOND), Some(false));
    }

    #[test]
    fn the_oldest_goes_when_full() {
        let now = Instant::now();
        let mut cache = Cache::new(CAPACITY);
        for number in 0..=CAPACITY {
            cache.put(number, (), ALLOW_FOR, now + Duration::from_millis(number.try_into().unwrap()));
        }
        assert_eq!(cache.entries.len(), CAPACITY);
        assert_eq!(cache.get(&0, now + SECOND), None);
        assert_eq!(cache.get(&1, now + SECOND), Some(()));
        assert_eq!(cache.get(&CAPACITY, now + SECOND), Some(()));
    }

    #[test]
    fn the_expired_go_before_the_oldest() {
        let now = Instant::now();
        let mut cache = Cache::new(CAPACITY);
        cache.put(0, (), ALLOW_FOR, now);
        for number in 1..CAPACITY {
            cache.put(number, (), DENY_FOR, now);
        }
        let later = now + DENY_FOR;
        cache.put(CAPACITY, (), DENY_FOR, later);
        assert_eq!(cache.entries.len(), 2);
        assert_eq!(cache.get(&0, later), Some(()));
    }
}
