//! The address policy: which addresses the operator may dial. Pure; everything that dials asks it first.
//!
//! Whoever may create an `OllamaServer` makes the operator connect somewhere, so the rule is about addresses and not
//! about spellings: an IPv4 address inside an IPv6 one counts as both.

use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names of cloud metadata services; they are refused before any lookup.
const METADATA_NAMES: [&str; 4] =
    ["metadata", "metadata.google.internal", "metadata.goog", "instance-data.ec2.internal"];

/// An address or name that the policy refuses. The text never repeats the address, which may be somebody's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the address is not allowed")]
pub struct AddressNotAllowed;

/// Which addresses may be dialled.
#[derive(Clone, Debug, Default)]
pub struct AddressPolicy {
    /// Networks that re-open loopback; the always denied ones stay denied.
    allowed: Vec<IpNet>,
}

impl AddressPolicy {
    pub fn new(allowed: Vec<IpNet>) -> Self {
        Self { allowed }
    }

    /// Whether this address may be dialled.
    pub fn check(&self, address: IpAddr) -> Result<(), AddressNotAllowed> {
        match address {
            IpAddr::V4(v4) => self.check_v4(v4),
            IpAddr::V6(v6) => {
                let embedded = embedded_v4(v6);
                if let Some(v4) = embedded {
                    self.check_v4(v4)?;
                }
                self.check_v6(v6, embedded)
            }
        }
    }

    /// Whether this name may be looked up at all.
    pub fn check_name(name: &str) -> Result<(), AddressNotAllowed> {
        let name = name.trim_end_matches('.');
        let denied = METADATA_NAMES.iter().any(|metadata| name.eq_ignore_ascii_case(metadata));
        if denied { Err(AddressNotAllowed) } else { Ok(()) }
    }

    fn check_v4(&self, address: Ipv4Addr) -> Result<(), AddressNotAllowed> {
        let [a, ..] = address.octets();
        let always_denied = a == 0
            || address.is_link_local()
            || address.is_multicast()
            || a >= 240
            || address == Ipv4Addr::new(100, 100, 100, 200);
        let denied = always_denied || (address.is_loopback() && !self.reopened(IpAddr::V4(address)));
        if denied { Err(AddressNotAllowed) } else { Ok(()) }
    }

    fn check_v6(&self, address: Ipv6Addr, embedded: Option<Ipv4Addr>) -> Result<(), AddressNotAllowed> {
        const EC2_METADATA: Ipv6Addr = Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0x254);
        let always_denied = address.is_unspecified()
            || address.is_unicast_link_local()
            || address.is_multicast()
            || address == EC2_METADATA;
        let loopback = address.is_loopback() && embedded.is_none() && !self.reopened(IpAddr::V6(address));
        if always_denied || loopback { Err(AddressNotAllowed) } else { Ok(()) }
    }

    fn reopened(&self, address: IpAddr) -> bool {
        self.allowed.iter().any(|network| network.contains(&address))
    }
}

/// The IPv4 address that an IPv6 one stands for: mapped, compatible, NAT64 (well-known and local prefix), 6to4.
fn embedded_v4(address: Ipv6Addr) -> Option<Ipv4Addr> {
    let two_segments = |high: u16, low: u16| Ipv4Addr::from(u32::from(high) << 16 | u32::from(low));
    let segments = address.segments();
    match segments {
        // `::` and `::1` are themselves, not IPv4-compatible addresses.
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => None,
        [0, 0, 0, 0, 0, 0 | 0xffff, ..]
        | [0, 0, 0, 0, 0xffff, 0, ..]
        | [0x64, 0xff9b, 0, 0, 0, 0, ..]
        | [0x64, 0xff9b, 1, ..] => Some(two_segments(segments[6], segments[7])),
        [0x2002, high, low, ..] => Some(two_segments(high, low)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn policy(allowed: &[&str]) -> AddressPolicy {
        AddressPolicy::new(allowed.iter().map(|text| text.parse().unwrap()).collect())
    }

    #[rstest]
    #[case("192.168.1.100")]
    #[case("10.0.0.1")]
    #[case("203.0.113.7")]
    #[case("100.64.0.1")]
    #[case("fd00::1")]
    #[case("2001:db8::1")]
    #[case("64:ff9b::192.168.1.1")]
    fn ordinary_addresses_are_allowed(#[case] address: &str) {
        assert_eq!(policy(&[]).check(address.parse().unwrap()), Ok(()));
    }

    #[rstest]
    #[case("127.0.0.1")]
    #[case("127.8.8.8")]
    #[case("::1")]
    #[case("::ffff:127.0.0.1")]
    #[case("::127.0.0.1")]
    #[case("64:ff9b::127.0.0.1")]
    #[case("64:ff9b:1::7f00:1")]
    #[case("2002:7f00:1::")]
    fn loopback_is_refused_in_every_spelling(#[case] address: &str) {
        assert_eq!(policy(&[]).check(address.parse().unwrap()), Err(AddressNotAllowed));
    }

    #[rstest]
    #[case("0.0.0.0")]
    #[case("0.1.2.3")]
    #[case("169.254.169.254")]
    #[case("224.0.0.1")]
    #[case("255.255.255.255")]
    #[case("240.0.0.1")]
    #[case("100.100.100.200")]
    #[case("::")]
    #[case("fe80::1")]
    #[case("ff02::1")]
    #[case("fd00:ec2::254")]
    #[case("::ffff:169.254.169.254")]
    #[case("64:ff9b::a9fe:a9fe")]
    #[case("2002:a9fe:a9fe::")]
    fn no_flag_opens_what_is_always_denied(#[case] address: &str) {
        assert_eq!(policy(&["0.0.0.0/0", "::/0"]).check(address.parse().unwrap()), Err(AddressNotAllowed));
    }

    #[test]
    fn allowed_networks_reopen_loopback() {
        let policy = policy(&["127.0.0.0/8", "::1/128"]);
        assert_eq!(policy.check("127.3.2.1".parse().unwrap()), Ok(()));
        assert_eq!(policy.check("::1".parse().unwrap()), Ok(()));
    }

    #[test]
    fn metadata_names_are_refused() {
        assert!(AddressPolicy::check_name("Metadata.Google.Internal.").is_err());
        assert!(AddressPolicy::check_name("gpu1.lab").is_ok());
    }
}
