//! IPv4 addresses inside IPv6 ones: what a gateway or tunnel on the way would make of an address.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// The IPv4 addresses that an IPv6 one may stand for.
///
/// Mapped ones are not here: they *are* IPv4, and the caller has unwrapped them. `::1` and `::` are themselves.
pub fn embedded(address: IpAddr) -> Vec<Ipv4Addr> {
    let IpAddr::V6(address) = address else { return Vec::new() };
    let segments = address.segments();
    if matches!(segments, [0, 0, 0, 0, 0, 0, 0, 0 | 1]) {
        return Vec::new();
    }
    let mut found = Vec::new();
    // IPv4-compatible, IPv4-translated, and NAT64's well-known prefix.
    if matches!(segments[..6], [0, 0, 0, 0, 0 | 0xffff, 0] | [0x64, 0xff9b, 0, 0, 0, 0]) {
        found.push(two(segments[6], segments[7]));
    }
    match segments {
        [0x64, 0xff9b, 1, ..] => found.extend(local_nat64(address)),
        // 6to4.
        [0x2002, high, low, ..] => found.push(two(high, low)),
        // Teredo: the server, and the client with all bits turned over.
        [0x2001, 0, high, low, .., client_high, client_low] => {
            found.extend([two(high, low), two(!client_high, !client_low)]);
        }
        _ => {}
    }
    // ISATAP, in any network.
    if let [.., 0 | 0x200, 0x5efe, high, low] = segments {
        found.push(two(high, low));
    }
    found
}

/// NAT64's prefix for local use leaves the length of the prefix to the gateway, which puts the IPv4 address behind it
/// and leaves octet 8 out (RFC 6052, 2.2). What comes to 0.0.0.0/8 is not how this gateway does it, for nobody is
/// there; if every way comes to that, one is kept and refuses the address.
fn local_nat64(address: Ipv6Addr) -> Vec<Ipv4Addr> {
    let octets = address.octets();
    let ways = [[6, 7, 9, 10], [7, 9, 10, 11], [9, 10, 11, 12], [12, 13, 14, 15]];
    let mut found = ways.map(|way| Ipv4Addr::from(way.map(|index| octets[index]))).to_vec();
    let last = found[3];
    found.retain(|address| address.octets()[0] != 0);
    if found.is_empty() { vec![last] } else { found }
}

fn two(high: u16, low: u16) -> Ipv4Addr {
    Ipv4Addr::from(u32::from(high) << 16 | u32::from(low))
}
