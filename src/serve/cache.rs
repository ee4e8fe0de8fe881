//! The memory of who may do what, so that a scrape every few seconds does not ask the apiserver each time.
//!
//! Pure: the caller brings the time. It holds digests of tokens, never tokens.

use super::review::{Right, Verdict};
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

/// How long a right that was taken away may still be used.
pub const ALLOW_FOR: Duration = Duration::from_mins(1);

/// Shorter, so that a right just given works soon.
pub const DENY_FOR: Duration = Duration::from_secs(30);

/// About 200 KiB. Reviews are limited to 20 a second, so a flood of wrong tokens fills at most 20 × 30 s + 40 = 640
/// entries before the first of them expire, and cannot push out those of honest callers.
pub const CAPACITY: usize = 1024;

/// SHA-256 of a token.
pub type TokenDigest = [u8; 32];

#[derive(Debug, Default)]
pub struct Cache {
    entries: HashMap<(TokenDigest, Right), Entry>,
}

#[derive(Debug)]
struct Entry {
    verdict: Verdict,
    expires: Instant,
    inserted: Instant,
}

impl Cache {
    pub fn get(&self, token: TokenDigest, right: &Right, now: Instant) -> Option<Verdict> {
        // The key is small, and a borrowed pair is no borrow of a pair.
        let entry = self.entries.get(&(token, right.clone()))?;
        (now < entry.expires).then(|| entry.verdict.clone())
    }

    pub fn put(&mut self, token: TokenDigest, right: Right, verdict: Verdict, now: Instant) {
        let key = (token, right);
        if self.entries.len() >= CAPACITY && !self.entries.contains_key(&key) {
            self.make_room(now);
        }
        let lifetime = if verdict == Verdict::Allowed { ALLOW_FOR } else { DENY_FOR };
        self.entries.insert(key, Entry { verdict, expires: now + lifetime, inserted: now });
    }

    fn make_room(&mut self, now: Instant) {
        self.entries.retain(|_, entry| now < entry.expires);
        if self.entries.len() < CAPACITY {
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

    const RIGHT: Right = Right::NonResource { path: "/metrics", verb: "get" };
    const SECOND: Duration = Duration::from_secs(1);

    fn token(number: usize) -> TokenDigest {
        let mut digest = [0; 32];
        digest[..8].copy_from_slice(&number.to_be_bytes());
        digest
    }

    #[test]
    fn verdicts_expire_each_at_its_time() {
        let now = Instant::now();
        let mut cache = Cache::default();
        let forbidden = Verdict::Forbidden { user: "eve".into() };
        cache.put(token(1), RIGHT, Verdict::Allowed, now);
        cache.put(token(2), RIGHT, forbidden.clone(), now);
        cache.put(token(3), RIGHT, Verdict::Unknown, now);

        let late = now + Duration::from_secs(29);
        assert_eq!(cache.get(token(1), &RIGHT, late), Some(Verdict::Allowed));
        assert_eq!(cache.get(token(2), &RIGHT, late), Some(forbidden));
        assert_eq!(cache.get(token(3), &RIGHT, late), Some(Verdict::Unknown));

        let later = now + DENY_FOR;
        assert_eq!(cache.get(token(1), &RIGHT, later), Some(Verdict::Allowed));
        assert_eq!(cache.get(token(2), &RIGHT, later), None);
        assert_eq!(cache.get(token(3), &RIGHT, later), None);
        assert_eq!(cache.get(token(1), &RIGHT, now + ALLOW_FOR), None);
    }

    #[test]
    fn a_right_is_not_another_right() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.put(token(1), RIGHT, Verdict::Allowed, now);
        let other = Right::NonResource { path: "/metrics", verb: "post" };
        assert_eq!(cache.get(token(1), &other, now), None);
        assert_eq!(cache.get(token(2), &RIGHT, now), None);
    }

    #[test]
    fn a_new_verdict_replaces_the_old() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.put(token(1), RIGHT, Verdict::Allowed, now);
        cache.put(token(1), RIGHT, Verdict::Unknown, now + SECOND);
        assert_eq!(cache.get(token(1), &RIGHT, now + SECOND), Some(Verdict::Unknown));
    }

    #[test]
    fn the_oldest_goes_when_full() {
        let now = Instant::now();
        let mut cache = Cache::default();
        for number in 0..=CAPACITY {
            let at = now + Duration::from_millis(number.try_into().unwrap());
            cache.put(token(number), RIGHT, Verdict::Allowed, at);
        }
        assert_eq!(cache.entries.len(), CAPACITY);
        assert_eq!(cache.get(token(0), &RIGHT, now + SECOND), None);
        assert_eq!(cache.get(token(1), &RIGHT, now + SECOND), Some(Verdict::Allowed));
        assert_eq!(cache.get(token(CAPACITY), &RIGHT, now + SECOND), Some(Verdict::Allowed));
    }

    #[test]
    fn the_expired_go_before_the_oldest() {
        let now = Instant::now();
        let mut cache = Cache::default();
        cache.put(token(0), RIGHT, Verdict::Allowed, now);
        for number in 1..CAPACITY {
            cache.put(token(number), RIGHT, Verdict::Unknown, now);
        }
        let later = now + DENY_FOR;
        cache.put(token(CAPACITY), RIGHT, Verdict::Unknown, later);
        assert_eq!(cache.entries.len(), 2);
        assert_eq!(cache.get(token(0), &RIGHT, later), Some(Verdict::Allowed));
    }
}
