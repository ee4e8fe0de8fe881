//! The address policy: which addresses and ports the operator may dial. Pure; everything that dials asks it first.
//!
//! Whoever may create an `OllamaServer` makes the operator connect somewhere, so the rule is about addresses and not
//! about spellings. In this order:
//!
//! 1. What is *always denied* is refused: link-local, metadata, multicast, unspecified and reserved addresses and the
//!    names that lead there. Nothing opens them.
//! 2. What is *denied* is refused unless `--allowed-cidrs` has it: loopback, `--denied-cidrs`, and what the operator
//!    adds by itself (see [`crate::controller::own_addresses`]).
//! 3. With `--only-cidrs`, what is not in it is refused. It opens nothing that 1 or 2 close, and `--allowed-cidrs` adds
//!    nothing to it: each flag does one thing, and an address passes all of them.
//! 4. A port that is not in `--allowed-ports` is refused.
//!
//! An IPv4 address inside an IPv6 one is judged too by 1 and 2, see [`forms`].

mod cidr;
mod forms;
mod ports;
mod shared;
#[cfg(test)]
mod tests;

pub use cidr::parse as parse_cidr;
pub use ports::Ports;
pub use shared::SharedPolicy;

use crate::api::endpoint::{Endpoint, Host};
use ipnet::IpNet;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Names of cloud metadata services. Their usual addresses are refused anyhow; the names are refused before any
/// lookup, for a resolver may be made to answer anything.
const METADATA_NAMES: [&str; 9] = [
    "metadata",
    "metadata.google.internal",
    "metadata.goog",
    "metadata.azure.internal",
    "metadata.azure.com",
    "metadata.tencentyun.com",
    "metadata.platformequinix.com",
    "instance-data",
    "instance-data.ec2.internal",
];
/// Metadata services outside the link-local range: Alibaba's, Azure's host agent, Oracle's.
const METADATA_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(100, 100, 100, 200), Ipv4Addr::new(168, 63, 129, 16), Ipv4Addr::new(192, 0, 0, 192)];

/// An address, name or port that the policy refuses. The text never repeats it, for it may be somebody's secret.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressNotAllowed {
    #[error("the address is not allowed by the operator's address policy")]
    Address,
    #[error("the port is not one of those that the operator may dial (--allowed-ports)")]
    Port,
}

/// Which addresses and ports may be dialled.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AddressPolicy {
    /// Refused like loopback.
    pub denied: Vec<IpNet>,
    /// Re-opens loopback and what is in `denied`; opens nothing else and closes nothing.
    pub allowed: Vec<IpNet>,
    /// If there are any, nothing outside them is dialled.
    pub only: Vec<IpNet>,
    pub ports: Ports,
}

impl AddressPolicy {
    /// Whether this may be dialled, as far as that can be told without a lookup. The answers of a lookup have to pass
    /// [`Self::check`] each.
    pub fn check_endpoint(&self, endpoint: &Endpoint) -> Result<(), AddressNotAllowed> {
        match &endpoint.host {
            Host::Ip(address) => self.check(*address)?,
            Host::Name(name) => self.check_name(name)?,
        }
        self.check_port(endpoint.port)
    }

    /// Whether this port may be dialled at all.
    pub fn check_port(&self, port: u16) -> Result<(), AddressNotAllowed> {
        if self.ports.contains(port) { Ok(()) } else { Err(AddressNotAllowed::Port) }
    }

    /// Whether this address may be dialled.
    pub fn check(&self, address: IpAddr) -> Result<(), AddressNotAllowed> {
        // The kernel dials a mapped address as the IPv4 address that it is.
        let dialled = address.to_canonical();
        let mut judged = [dialled].into_iter().chain(forms::embedded(dialled).into_iter().map(IpAddr::V4));
        let denied = judged.any(|form| always_denied(form) || (self.denies(form) && !self.allows(form)));
        let outside = !self.only.is_empty() && !has(&self.only, dialled);
        if denied || outside { Err(AddressNotAllowed::Address) } else { Ok(()) }
    }

    /// Whether this name may be looked up at all.
    pub fn check_name(&self, name: &str) -> Result<(), AddressNotAllowed> {
        let name = name.trim_end_matches('.');
        let metadata = METADATA_NAMES.iter().any(|metadata| name.eq_ignore_ascii_case(metadata));
        // By RFC 6761 these are loopback whatever a resolver says.
        let last = name.rsplit('.').next().unwrap_or_default();
        let local = last.eq_ignore_ascii_case("localhost")
            && !self.allows(Ipv4Addr::LOCALHOST.into())
            && !self.allows(Ipv6Addr::LOCALHOST.into());
        if metadata || local { Err(AddressNotAllowed::Address) } else { Ok(()) }
    }

    /// The same policy with more that is denied.
    #[must_use]
    pub fn denying(&self, more: impl IntoIterator<Item = IpNet>) -> Self {
        let mut policy = self.clone();
        policy.denied.extend(more);
        policy
    }

    fn denies(&self, address: IpAddr) -> bool {
        address.is_loopback() || has(&self.denied, address)
    }

    fn allows(&self, address: IpAddr) -> bool {
        has(&self.allowed, address)
    }
}

fn has(networks: &[IpNet], address: IpAddr) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

fn always_denied(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => {
            let first = address.octets()[0];
            // "This network" and everything from 240.0.0.0 up, broadcast included, are nobody's address.
            first == 0
                || first >= 240
                || address.is_link_local()
                || address.is_multicast()
                || METADATA_V4.contains(&address)
        }
        IpAddr::V6(address) => {
            address.is_unspecified()
                || address.is_unicast_link_local()
                || address.is_multicast()
                || is_metadata(address)
        }
    }
}

/// The metadata services that have an IPv6 address outside the link-local range. Amazon keeps a whole block for what
/// is on the instance, Oracle and Scaleway one address each, Google one address.
fn is_metadata(address: Ipv6Addr) -> bool {
    matches!(
        address.segments(),
        [0xfd00, 0xec2, ..]
            | [0xfd20, 0xce, 0, 0, 0, 0, 0, 0x254]
            | [0xfd00, 0xc1, 0, 0, 0, 0, 0xa9fe, 0xa9fe]
            | [0xfd00, 0x42, 0, 0, 0, 0, 0, 0x42]
    )
}
