//! TLS towards hosts and agents: whom to trust, as whom to appear, and by which name to call.
//!
//! | file | holds |
//! |---|---|
//! | `material` | certificates and keys out of PEM, checked before anything is dialled |
//! | `config` | what rustls is told |
//! | `failure` | what its errors mean to a person |
//!
//! Nothing here dials, and nothing here prints a key.

mod config;
mod failure;
mod material;

pub use config::ClientConfigs;
pub use material::{Authorities, Identity, TlsMaterialError, Weight};

use rustls::pki_types::DnsName;

/// How connections to a host are secured. Equal settings share a client.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct TlsSettings {
    /// Who may have signed the host's certificate; `None`: the platform's roots.
    pub authorities: Option<Authorities>,
    /// What the operator shows a host that asks who it is.
    pub identity: Option<Identity>,
    /// The name that the host is asked by and that its certificate must carry; `None`: the one in its endpoint.
    pub server_name: Option<DnsName<'static>>,
    /// Any certificate counts.
    pub skip_verify: bool,
}

impl TlsSettings {
    /// What they hold beyond what all share.
    pub fn weights(&self) -> impl Iterator<Item = Weight> {
        let authorities = self.authorities.as_ref().map(Authorities::weight);
        authorities.into_iter().chain(self.identity.as_ref().map(Identity::weight))
    }
}
