//! Networks as flags have them.

use ipnet::{IpNet, Ipv4Net};
use std::net::IpAddr;

/// Bits before the IPv4 address in a mapped one.
const MAPPED: u8 = 96;

/// A network, or an address that stands for itself alone. Bits behind the prefix are refused: whoever wrote them had
/// another network in mind.
pub fn parse(text: &str) -> Result<IpNet, String> {
    let network = match text.parse::<IpAddr>() {
        Ok(address) => IpNet::from(address),
        Err(_) => text.parse().map_err(|_| {
            format!(
                "`{text}` is no network; write an address and a length, for example 10.0.0.0/8 or fd00::/8"
            )
        })?,
    };
    if network.trunc() != network {
        return Err(format!(
            "`{text}` has bits set behind the prefix; write {} for the network or {} for the one address",
            network.trunc(),
            network.addr()
        ));
    }
    Ok(unmapped(network))
}

/// Mapped addresses are judged as IPv4, so a network of them would never match.
fn unmapped(network: IpNet) -> IpNet {
    let IpNet::V6(v6) = network else { return network };
    let address = v6.addr().to_ipv4_mapped();
    let length = v6.prefix_len().checked_sub(MAPPED);
    match address.zip(length).and_then(|(address, length)| Ipv4Net::new(address, length).ok()) {
        Some(v4) => IpNet::V4(v4),
        None => network,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("10.0.0.0/8", "10.0.0.0/8")]
    #[case("0.0.0.0/0", "0.0.0.0/0")]
    #[case("192.168.1.7", "192.168.1.7/32")]
    #[case("fd00::/8", "fd00::/8")]
    #[case("::1", "::1/128")]
    #[case("::ffff:10.0.0.0/104", "10.0.0.0/8")]
    #[case("::ffff:10.0.0.1", "10.0.0.1/32")]
    fn networks_and_addresses_are_read(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(parse(text).unwrap().to_string(), expected);
    }

    #[rstest]
    #[case("", "is no network")]
    #[case("localhost", "is no network")]
    #[case("10.0.0.0/33", "is no network")]
    #[case("10.0.0/8", "is no network")]
    #[case(" 10.0.0.0/8", "is no network")]
    #[case("10.1.2.3/8", "write 10.0.0.0/8 for the network or 10.1.2.3 for the one address")]
    #[case("fd00::1/8", "write fd00::/8")]
    fn what_is_no_network_is_refused_with_advice(#[case] text: &str, #[case] advice: &str) {
        let said = parse(text).unwrap_err();
        assert!(said.contains(advice), "{said}");
    }
}
