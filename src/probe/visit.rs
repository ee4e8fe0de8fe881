//! From an endpoint to an address that is asked: its name is looked up and every answer checked, then the addresses are
//! gone through in the order of the answer until one takes a connection. Each is dialled only while its turn is held.

use super::{
    Prober,
    client::Route,
    connect::Destination,
    failure::Failure,
    fair::Slot,
    limits::{Limits, Owner, PATIENCE},
    tls::TlsSettings,
    turns::Asker,
};
use crate::api::endpoint::{Endpoint, Host};
use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    time::Duration,
};
use tokio::time::{Instant, timeout};

/// An address that drops packets gets no more than this of the time while the name has others: a machine that has IPv6
/// in name only must still be reached. Long enough for one packet to be lost on the way to a host that is well.
const CONNECT_MAX_BEFORE_OTHERS: Duration = Duration::from_secs(2);

/// What is asked of whoever takes a connection.
pub trait Question: Sync {
    type Answer: Send;

    fn visit(&self) -> Visit<'_>;

    /// `None` only if the operator is ending.
    fn slot(&self, limits: &Limits) -> impl Future<Output = Option<Slot>> + Send;

    /// Whatever happens, it is over by the deadline.
    fn ask(
        &self,
        prober: &Prober,
        route: &Route,
        deadline: Instant,
    ) -> impl Future<Output = Result<Self::Answer, Failure>> + Send;
}

/// Who is to be asked, by whom and for how long.
pub struct Visit<'a> {
    pub endpoint: &'a Endpoint,
    pub owner: &'a Owner,
    pub asker: Asker,
    pub tls: &'a TlsSettings,
    /// Bounds everything from the name lookup to the last byte; waiting does not count.
    pub time: Duration,
}

/// How long connecting to an address may take of what is left, while the name has so many others yet.
fn connect_max(left: Duration, others: usize) -> Duration {
    match u32::try_from(others) {
        Ok(0) => left,
        Ok(others) => CONNECT_MAX_BEFORE_OTHERS.min(left / others.saturating_add(1)),
        Err(_) => Duration::ZERO,
    }
}

impl Prober {
    /// What the first address says that takes a connection. `None`: nothing was asked, because no slot came free in time
    /// or another object kept asking the same address.
    pub(super) async fn visit<Q: Question>(&self, question: &Q) -> Option<Result<Q::Answer, Failure>> {
        let visit = question.visit();
        let Endpoint { host, port, .. } = visit.endpoint;
        let (addresses, mut left) = match self.addresses_of(&visit).await? {
            Ok(found) => found,
            Err(failure) => return Some(Err(failure)),
        };
        let (mut patience, mut others) = (PATIENCE, addresses.len());
        for address in addresses {
            others -= 1;
            let address = SocketAddr::new(address, *port);
            let begin = Instant::now();
            // The turn first: whoever waits for one address must not hold a slot that another could use.
            let waiting = async {
                let turn = self.limits.turn(address, visit.asker.clone()).await?;
                question.slot(&self.limits).await.map(|slot| (turn, slot))
            };
            let (mut turn, slot) = timeout(patience, waiting).await.ok()??;
            patience = patience.saturating_sub(begin.elapsed());
            let begin = Instant::now();
            let destination = Destination::new(host.clone(), address, connect_max(left, others));
            let route = self.clients.route(visit.tls, destination);
            let result = tokio::select! {
                result = question.ask(self, &route, begin + left) => result,
                () = turn.is_over() => Err(Failure::Timeout),
            };
            let reached = route.destination.reached();
            drop((route, turn, slot));
            let unreachable = matches!(result, Err(Failure::ConnectionRefused | Failure::Timeout));
            if others == 0 || reached || !unreachable {
                return Some(result);
            }
            left = left.saturating_sub(begin.elapsed());
        }
        Some(Err(Failure::DnsFailed))
    }

    /// The addresses of an endpoint, and what is left of the time for asking them. `None`: no slot for a lookup came free
    /// in time.
    async fn addresses_of(&self, visit: &Visit<'_>) -> Option<Result<(Vec<IpAddr>, Duration), Failure>> {
        let Endpoint { host, port, .. } = visit.endpoint;
        // Before the lookup: the name of what must not be dialled is nobody's business.
        if let Err(refused) = self.policy.get().check_port(*port) {
            return Some(Err(refused.into()));
        }
        let slot = match host {
            Host::Ip(_) => None,
            Host::Name(_) => {
                Some(timeout(PATIENCE, self.limits.lookup_slot(&visit.owner.namespace)).await.ok()??)
            }
        };
        let begin = Instant::now();
        let found = timeout(visit.time, self.resolver.resolve(host)).await;
        drop(slot);
        Some(match found {
            Ok(Ok(addresses)) => Ok((addresses, visit.time.saturating_sub(begin.elapsed()))),
            Ok(Err(error)) => Err(error.into()),
            Err(_) => Err(Failure::DnsFailed),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_address_gets_a_part_of_the_time_and_the_last_what_is_left() {
        let seconds = Duration::from_secs;
        assert_eq!(connect_max(seconds(5), 0), seconds(5));
        assert_eq!(connect_max(seconds(5), 1), seconds(2));
        assert_eq!(connect_max(seconds(1), 1), seconds(1) / 2);
        assert_eq!(connect_max(seconds(4), 15), seconds(4) / 16);
        assert_eq!(connect_max(Duration::ZERO, 1), Duration::ZERO);
    }
}
