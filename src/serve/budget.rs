//! How often the apiserver is asked who holds a token: whoever invents tokens uses up a share of their own, and never
//! what keeps those who hold good ones served.
//!
//! Only decides; asks nobody.

use super::{
    cache::{Cache, TokenDigest},
    listener::Network,
};
use governor::{DefaultDirectRateLimiter, DefaultKeyedRateLimiter, Quota, RateLimiter};
use std::{
    num::NonZeroU32,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Everybody who reaches the port can make the operator ask the apiserver by inventing tokens. Honest callers need
/// one question a minute each.
const STRANGERS_PER_SECOND: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// A few dozen scrapers that come at once, at start for example.
const STRANGERS_BURST: NonZeroU32 = NonZeroU32::new(40).unwrap();

/// A quarter of that for one address, so that one alone cannot take all. Not less: everybody behind an ingress or the
/// apiserver's proxy has the same address.
const PEER_PER_SECOND: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// Half of what there is for all, for scrapers behind one address that come at once.
const PEER_BURST: NonZeroU32 = NonZeroU32::new(20).unwrap();

/// Addresses whose share is counted. Where there are more at once, they have long used up what there is for all.
const PEERS_MAX: usize = 1024;

/// A good token is asked for once a minute; more only while the apiserver does not answer.
const RENEWALS_PER_SECOND: NonZeroU32 = NonZeroU32::new(1).unwrap();

/// Requests of one caller that come in the moment in which a verdict ends.
const RENEWALS_BURST: NonZeroU32 = NonZeroU32::new(5).unwrap();

/// As many as strangers have, for all good tokens together: the apiserver is not flooded by those either.
const ALL_RENEWALS_PER_SECOND: NonZeroU32 = STRANGERS_PER_SECOND;
const ALL_RENEWALS_BURST: NonZeroU32 = STRANGERS_BURST;

/// How long a token counts as known after its last yes. That it is known opens nothing: it is asked for again all the
/// same, only not in one line with strangers. Longer than any usual interval of scrapes.
const KNOWN_FOR: Duration = Duration::from_hours(1);

/// About 100 KiB. Only a yes of the apiserver makes an entry, so that inventing tokens pushes nobody out.
const KNOWN_MAX: usize = 1024;

pub struct Budget {
    peers: DefaultKeyedRateLimiter<Network>,
    strangers: DefaultDirectRateLimiter,
    renewals: DefaultKeyedRateLimiter<TokenDigest>,
    all_renewals: DefaultDirectRateLimiter,
    /// Tokens that were good when they were last asked for.
    known: Mutex<Cache<TokenDigest, ()>>,
}

impl Budget {
    pub fn new() -> Self {
        let quota = |per_second, burst| Quota::per_second(per_second).allow_burst(burst);
        Self {
            peers: RateLimiter::keyed(quota(PEER_PER_SECOND, PEER_BURST)),
            strangers: RateLimiter::direct(quota(STRANGERS_PER_SECOND, STRANGERS_BURST)),
            renewals: RateLimiter::keyed(quota(RENEWALS_PER_SECOND, RENEWALS_BURST)),
            all_renewals: RateLimiter::direct(quota(ALL_RENEWALS_PER_SECOND, ALL_RENEWALS_BURST)),
            known: Mutex::new(Cache::new(KNOWN_MAX)),
        }
    }

    /// Whether the apiserver may be asked about this token now; if so, that counts.
    pub fn allows(&self, token: &TokenDigest, peer: Network, now: Instant) -> bool {
        // Who has used up what they have as somebody known may still ask as everybody may.
        self.renews(token, now) || self.admits(peer)
    }

    /// What the apiserver said.
    pub fn note(&self, token: TokenDigest, good: bool, now: Instant) {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if good {
            known.put(token, (), KNOWN_FOR, now);
        } else {
            known.remove(&token);
        }
    }

    fn renews(&self, token: &TokenDigest, now: Instant) -> bool {
        let known = self.known.lock().unwrap_or_else(PoisonError::into_inner).get(token, now).is_some();
        if !known {
            return false;
        }
        // Tokens that have their whole share again need not be remembered; those that are known bound the rest.
        self.renewals.retain_recent();
        self.renewals.check_key(token).is_ok() && self.all_renewals.check().is_ok()
    }

    fn admits(&self, peer: Network) -> bool {
        if self.peers.len() >= PEERS_MAX {
            self.peers.retain_recent();
        }
        // The address first: what it has no share for must not use up that of others.
        let crowded = self.peers.len() >= PEERS_MAX;
        (crowded || self.peers.check_key(&peer).is_ok()) && self.strangers.check().is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{IpAddr, Ipv4Addr};

    fn peer(number: usize) -> Network {
        Network::of(IpAddr::V4(Ipv4Addr::from_bits(0xc000_0200 + u32::try_from(number).unwrap())))
    }

    fn token(number: usize) -> TokenDigest {
        let mut token = TokenDigest::default();
        token[..8].copy_from_slice(&number.to_le_bytes());
        token
    }

    /// How many of a thousand invented tokens are asked for.
    fn flood(budget: &Budget, peer: Network) -> usize {
        let now = Instant::now();
        (0..1000).filter(|number| budget.allows(&token(1_000_000 + number), peer, now)).count()
    }

    /// Whether what there is for it is used up; one more comes back every 50 ms.
    fn refuses(budget: &Budget, token: TokenDigest, now: Instant) -> bool {
        (0..3).any(|_| !budget.allows(&token, peer(99), now))
    }

    #[test]
    fn one_address_cannot_use_up_what_there_is_for_all() {
        let budget = Budget::new();
        let asked = flood(&budget, peer(1));
        assert!((20..30).contains(&asked), "{asked}");
        assert!(budget.allows(&token(1), peer(2), Instant::now()));
    }

    #[test]
    fn who_had_a_good_token_is_asked_for_again_whatever_strangers_do() {
        let (budget, now) = (Budget::new(), Instant::now());
        budget.note(token(1), true, now);
        for number in 0..8 {
            flood(&budget, peer(number));
        }
        assert!(refuses(&budget, token(2), now), "strangers have used up theirs");
        assert!(budget.allows(&token(1), peer(99), now));
        assert!(budget.allows(&token(1), peer(0), now), "also behind the address of a flood");
    }

    #[test]
    fn a_token_that_is_good_no_more_or_was_not_seen_for_long_is_a_strangers() {
        let (budget, now) = (Budget::new(), Instant::now());
        budget.note(token(1), true, now);
        budget.note(token(2), true, now);
        budget.note(token(1), false, now);
        for number in 0..8 {
            flood(&budget, peer(number));
        }
        assert!(refuses(&budget, token(1), now));
        assert!(refuses(&budget, token(2), now + KNOWN_FOR));
        assert!(budget.allows(&token(2), peer(99), now));
    }

    #[test]
    fn good_tokens_are_bounded_too_each_and_together() {
        let (budget, now) = (Budget::new(), Instant::now());
        (0..100).for_each(|number| budget.note(token(number), true, now));
        let asked = (0..1000).filter(|_| budget.renews(&token(0), now)).count();
        assert!((5..10).contains(&asked), "{asked}");
        let asked =
            (1..100).flat_map(|number| [number; 5]).filter(|n| budget.renews(&token(*n), now)).count();
        assert!((30..60).contains(&asked), "{asked}");
    }

    #[test]
    fn only_so_many_addresses_are_counted() {
        let budget = Budget::new();
        for number in 0..2 * PEERS_MAX {
            budget.admits(peer(number));
        }
        assert!(budget.peers.len() <= PEERS_MAX);
    }
}
