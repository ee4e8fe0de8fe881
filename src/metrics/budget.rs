//! How many series of plugins there are in all, and whose. Pure.
//!
//! What is left out must not change from scrape to scrape, or it would look like agents that come and go. So room is
//! kept for all that the agents of a plugin have, also while one of them is silent, and given out in an order that
//! stays.

use std::collections::BTreeMap;

/// Series of plugins for each of as many servers as may have all their series: those of two large exporters. A server
/// may have 64 plugins with 50 series each.
const SERIES_PER_SERVER: usize = 64;
/// Servers for which there is room in any case: the default of `--metrics-server-limit`. Series with the longest names
/// make 55 MiB of text then, and usual ones 15.
const SERVERS_MIN: usize = 2000;

/// Series of plugins in all, for this limit of servers.
pub fn series(server_limit: usize) -> usize {
    SERIES_PER_SERVER.saturating_mul(server_limit.max(SERVERS_MIN))
}

/// What is left for each namespace: given out by it until it is used up. Whoever wants less than an equal share gets
/// all of it, and what they leave is shared out equally among the others.
#[derive(Debug)]
pub struct Room<'a>(BTreeMap<&'a str, usize>);

impl<'a> Room<'a> {
    /// Shares `all` out to namespaces that want so many each.
    pub fn share(wanted: &BTreeMap<&'a str, usize>, all: usize) -> Self {
        let mut by_size: Vec<(&str, usize)> =
            wanted.iter().map(|(namespace, wanted)| (*namespace, *wanted)).collect();
        by_size.sort_unstable_by_key(|(namespace, wanted)| (*wanted, *namespace));
        let (mut left, mut without) = (all, by_size.len());
        let shares = by_size.into_iter().map(|(namespace, wanted)| {
            let share = wanted.min(left / without);
            left -= share;
            without -= 1;
            (namespace, share)
        });
        Self(shares.collect())
    }

    /// Whether so many more series of a namespace find room. What comes after one that does not finds none either, so
    /// that a small thing is not shown or left out by what a large one before it happens to be.
    pub fn take(&mut self, namespace: &str, series: usize) -> bool {
        let Some(left) = self.0.get_mut(namespace) else { return false };
        let fits = *left >= series;
        *left = if fits { *left - series } else { 0 };
        fits
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn shares(wanted: &[usize], all: usize) -> Vec<usize> {
        let names: Vec<String> = (0..wanted.len()).map(|number| format!("n{number:03}")).collect();
        let wanted = names.iter().map(String::as_str).zip(wanted.iter().copied()).collect();
        Room::share(&wanted, all).0.into_values().collect()
    }

    #[test]
    fn who_wants_little_gets_it_and_the_others_share_the_rest() {
        assert_eq!(shares(&[10, 20, 30], 60), [10, 20, 30]);
        assert_eq!(shares(&[1000, 10, 1000], 110), [50, 10, 50]);
        assert_eq!(shares(&[1000], 110), [110]);
        assert_eq!(shares(&[], 110), [0; 0]);
    }

    #[test]
    fn room_is_given_out_in_order_and_ends_at_the_first_that_does_not_fit() {
        let mut room = Room::share(&BTreeMap::from([("a", 9), ("b", 2)]), 8);
        assert!(room.take("a", 4));
        assert!(!room.take("a", 3), "two are left");
        assert!(!room.take("a", 1));
        assert!(room.take("b", 2), "another namespace's is its own");
        assert!(!room.take("b", 1));
        assert!(!room.take("c", 1));
    }

    #[test]
    fn the_shipped_agent_has_all_its_series_on_as_many_servers_as_the_limit_says() {
        for limit in [0, 1, 2000, 10_000] {
            assert!(series(limit) >= limit * 50, "a plugin of 32 values and 16 rules, and two of its own");
        }
        assert_eq!(series(2000), 128_000);
    }

    proptest! {
        /// No more than there is, nobody more than wanted, nothing left while somebody wants more, and nobody who gets
        /// less than wanted gets less than another.
        #[test]
        fn shares_are_fair(wanted in prop::collection::vec(0..500_usize, 1..20), all in 0..3000_usize) {
            let shares = shares(&wanted, all);
            let sum: usize = shares.iter().sum();
            prop_assert!(sum <= all);
            let most = shares.iter().max().copied().unwrap_or_default();
            for (share, wanted) in shares.iter().zip(&wanted) {
                prop_assert!(share <= wanted);
                // Whole series cannot always be shared out evenly.
                prop_assert!(share == wanted || share + 1 >= most);
            }
            prop_assert!(sum == all || shares == wanted);
        }
    }
}
