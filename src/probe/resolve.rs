//! Names into addresses that may be dialled. Every answer is checked, here and nowhere else: at the begin of a poll, and
//! again each time that a connection is made. What is dialled is an address that was checked, never a name, so that a
//! name cannot change its mind between the check and the dial.

use super::address::{AddressNotAllowed, SharedPolicy};
use crate::api::endpoint::Host;
use hickory_resolver::{
    Resolver, TokioResolver,
    config::{ConnectionConfig, NameServerConfig, ResolverConfig},
    net::runtime::TokioRuntimeProvider,
    proto::rr::Name,
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// Time that one lookup may take; a resolver that is slower than this on a LAN does not answer at all.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(2);
/// Addresses of one name that are tried; more than a handful is a mistake or an attack.
const ADDRESSES_MAX: usize = 16;
/// Answers are kept at least this long, so that the addresses checked before a poll are those dialled in it, and a
/// time to live of 0 does not make two lookups of each poll.
const CACHE_LEAST: Duration = Duration::from_secs(5);
/// And at most this long, so that a host that moves is found again.
const CACHE_MOST: Duration = Duration::from_mins(5);

/// The name does not lead anywhere, or not in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the name cannot be resolved")]
pub struct LookupFailed;

/// Why a host has no address to dial.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ResolveError {
    #[error(transparent)]
    NotAllowed(#[from] AddressNotAllowed),
    #[error(transparent)]
    Lookup(#[from] LookupFailed),
}

/// Who is asked about names.
#[derive(Clone, Copy, Debug)]
pub enum NameServers {
    /// Those of the system's configuration, with its search domains and hosts file.
    System,
    /// One, over UDP and TCP, and with this search domain: what a test answers by hand.
    One(SocketAddr, &'static str),
}

/// Looks names up and lets only allowed addresses through. Cheap to clone.
#[derive(Clone)]
pub struct CheckedResolver {
    inner: Option<Arc<TokioResolver>>,
    policy: Arc<SharedPolicy>,
}

impl CheckedResolver {
    /// Without a usable configuration (a container image with nothing in it), names fail and literal addresses still
    /// work.
    pub fn new(policy: Arc<SharedPolicy>, servers: NameServers) -> Self {
        let provider = TokioRuntimeProvider::default();
        let builder = match servers {
            NameServers::System => Resolver::builder(provider),
            NameServers::One(address, search) => {
                let mut ways = vec![ConnectionConfig::udp(), ConnectionConfig::tcp()];
                for way in &mut ways {
                    way.port = address.port();
                }
                let server = NameServerConfig::new(address.ip(), true, ways);
                let search = Name::from_utf8(search).into_iter().collect();
                let config = ResolverConfig::from_parts(None, search, vec![server]);
                Ok(Resolver::builder_with_config(config, provider))
            }
        };
        let inner = builder.and_then(|mut builder| {
            let options = builder.options_mut();
            options.timeout = LOOKUP_TIMEOUT;
            options.attempts = 1;
            options.positive_min_ttl = Some(CACHE_LEAST);
            options.positive_max_ttl = Some(CACHE_MOST);
            options.negative_max_ttl = Some(CACHE_LEAST);
            builder.build()
        });
        if let Err(error) = &inner {
            tracing::warn!(%error, "no usable resolver configuration: host names cannot be resolved");
        }
        Self { inner: inner.ok().map(Arc::new), policy }
    }

    /// The addresses of a host that may be dialled: at least one, at most 16. A single refused answer refuses the name.
    pub async fn resolve(&self, host: &Host) -> Result<Vec<IpAddr>, ResolveError> {
        match host {
            Host::Ip(address) => {
                self.policy.get().check(*address)?;
                Ok(vec![*address])
            }
            Host::Name(name) => self.lookup(name).await,
        }
    }

    /// Whether an address that this host had when it was looked up may still be dialled: by the policy of now, and only
    /// while the host leads nowhere that is refused.
    pub async fn recheck(&self, host: &Host, address: IpAddr) -> Result<(), ResolveError> {
        self.resolve(host).await?;
        Ok(self.policy.get().check(address)?)
    }

    async fn lookup(&self, name: &str) -> Result<Vec<IpAddr>, ResolveError> {
        self.policy.get().check_name(name)?;
        let resolver = self.inner.as_ref().ok_or(LookupFailed)?;
        let mut query = Name::from_utf8(name).map_err(|_| LookupFailed)?;
        // `gpu1.lab` is meant as written; a cluster's search domains would first ask for gpu1.lab.default.svc….
        // A single label, such as `gpu1`, does go through them: that is how a LAN's own names work.
        query.set_fqdn(name.contains('.'));
        let answer = tokio::time::timeout(LOOKUP_TIMEOUT, resolver.lookup_ip(query)).await;
        let mut addresses: Vec<IpAddr> =
            answer.map_err(|_| LookupFailed)?.map_err(|_| LookupFailed)?.iter().collect();
        if addresses.is_empty() {
            return Err(LookupFailed.into());
        }
        // The policy of now, not of before the lookup, and all answers, not only those that will be tried.
        let policy = self.policy.get();
        addresses.iter().try_for_each(|address| policy.check(*address))?;
        addresses.truncate(ADDRESSES_MAX);
        Ok(addresses)
    }
}
