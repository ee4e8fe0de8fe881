//! Addresses and names of the hosts, and the selectors that pick some of them.
//!
//! Pure arithmetic: an accepted socket's address is turned into a host index
//! without a table, because 10,000 hosts may share one listener.

use std::net::Ipv4Addr;

/// More than this never fits the memory and descriptors of a test machine.
pub const MAX_HOSTS: usize = 100_000;

/// Addresses per /24 in use: `.0` and `.255` are skipped.
const PER_BLOCK: u32 = 254;

/// A run of consecutive addresses in 127.0.0.0/8.
#[derive(Debug, Clone, Copy)]
pub struct Range {
    first: u32,
    count: u32,
}

impl Range {
    /// A range of `count` hosts, all within 127.0.0.0/8.
    pub fn new(first: Ipv4Addr, count: usize) -> Result<Self, String> {
        if !first.is_loopback() || !(1..=254).contains(&first.octets()[3]) {
            return Err(format!("--address {first} must be in 127.0.0.0/8 and end in .1 to .254"));
        }
        let count = u32::try_from(count).map_err(|error| error.to_string())?;
        let range = Self { first: ordinal(first), count };
        if range.address(count.saturating_sub(1) as usize).is_loopback() {
            Ok(range)
        } else {
            Err(format!("{count} hosts from {first} leave 127.0.0.0/8"))
        }
    }

    /// The address of a host.
    pub fn address(self, index: usize) -> Ipv4Addr {
        let index = u32::try_from(index).unwrap_or(u32::MAX);
        let n = self.first.saturating_add(index);
        Ipv4Addr::from((n / PER_BLOCK).saturating_mul(256) + n % PER_BLOCK + 1)
    }

    /// The host that has this address.
    pub fn index(self, address: Ipv4Addr) -> Option<usize> {
        if !(1..=254).contains(&address.octets()[3]) {
            return None;
        }
        let index = ordinal(address).checked_sub(self.first)?;
        (index < self.count).then_some(index as usize)
    }
}

/// Number of an address when `.0` and `.255` do not count.
fn ordinal(address: Ipv4Addr) -> u32 {
    let bits = u32::from(address);
    (bits >> 8) * PER_BLOCK + (bits & 0xff).saturating_sub(1)
}

/// `sim-00000`.
pub fn name(index: usize) -> String {
    format!("sim-{index:05}")
}

/// What a selector may look like; part of every error about one.
const ALLOWED: &str = "allowed: a name (sim-00003), an index (3), a range (5-9), \
                       a comma list of these, or all";

/// Turns a selector into host indexes: sorted, without doubles, never empty.
pub fn select(selector: &str, hosts: usize) -> Result<Vec<usize>, String> {
    if selector == "all" {
        return Ok((0..hosts).collect());
    }
    let mut found = Vec::new();
    for part in selector.split(',') {
        let (from, to) = bounds(part).ok_or_else(|| format!("bad selector {part:?}; {ALLOWED}"))?;
        if from > to || to >= hosts {
            return Err(format!(
                "selector {part:?} is outside the {hosts} hosts (0-{}); {ALLOWED}",
                hosts.saturating_sub(1)
            ));
        }
        // Sorting now and then keeps a list of many overlapping ranges small.
        if found.len() > 2 * hosts {
            found.sort_unstable();
            found.dedup();
        }
        found.extend(from..=to);
    }
    found.sort_unstable();
    found.dedup();
    Ok(found)
}

/// First and last index of one part of a selector.
fn bounds(part: &str) -> Option<(usize, usize)> {
    let part = part.trim();
    if let Some(digits) = part.strip_prefix("sim-") {
        let index = number(digits)?;
        return (name(index) == part).then_some((index, index));
    }
    if let Some((from, to)) = part.split_once('-') {
        return Some((number(from)?, number(to)?));
    }
    number(part).map(|index| (index, index))
}

/// Digits only: `parse` alone would take a sign.
fn number(text: &str) -> Option<usize> {
    let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits.then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_skip_the_ends_of_a_block_and_come_back() {
        let range = Range::new(Ipv4Addr::new(127, 10, 0, 250), 10_000).unwrap();
        assert_eq!(range.address(4), Ipv4Addr::new(127, 10, 0, 254));
        assert_eq!(range.address(5), Ipv4Addr::new(127, 10, 1, 1));
        for index in 0..10_000 {
            assert_eq!(range.index(range.address(index)), Some(index));
        }
        assert_eq!(range.index(range.address(10_000)), None);
        assert_eq!(range.index(Ipv4Addr::new(127, 10, 1, 0)), None);
        assert_eq!(range.index(Ipv4Addr::new(127, 10, 0, 255)), None);
        assert_eq!(range.index(Ipv4Addr::new(127, 10, 0, 249)), None);
        assert_eq!(range.index(Ipv4Addr::new(10, 0, 0, 1)), None);
    }

    #[test]
    fn ranges_stay_in_loopback() {
        assert!(Range::new(Ipv4Addr::new(10, 0, 0, 1), 1).is_err());
        assert!(Range::new(Ipv4Addr::new(127, 0, 1, 0), 1).is_err());
        assert!(Range::new(Ipv4Addr::new(127, 255, 255, 254), 1).is_ok());
        assert!(Range::new(Ipv4Addr::new(127, 255, 255, 254), 2).is_err());
    }

    #[test]
    fn selectors() {
        assert_eq!(select("all", 3).unwrap(), [0, 1, 2]);
        assert_eq!(select("sim-00002", 3).unwrap(), [2]);
        assert_eq!(select("2", 3).unwrap(), [2]);
        assert_eq!(select("5-9,sim-00001,6", 10).unwrap(), [1, 5, 6, 7, 8, 9]);
        for bad in ["", "x", "3", "2-1", "1-", "-1", "sim-2", "+1", "0,", "sim-00003"] {
            assert!(select(bad, 3).unwrap_err().contains("allowed"), "{bad}");
        }
    }
}
