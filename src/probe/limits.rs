//! How much is asked at once, by everybody together: slots for polls that are well and for polls that are not, for
//! lookups of names and for large bodies, and the turns at each address.

use super::{
    client::Lane,
    fair::{FairSlots, Slot},
    turns::{Asker, Turn, Turns},
};
use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

/// 10,000 healthy hosts at 10 s and 50 ms each need 50 slots; the rest is room for slow ones. Bounds open sockets.
const HEALTHY_MAX: usize = 4096;
/// 1,000 dead hosts at 10 s and a 2 s connect timeout need 200 slots.
const SUSPECT_MAX: usize = 512;
/// Agents answer beside the host they run on.
const AGENT_HEALTHY_MAX: usize = 2048;
const AGENT_SUSPECT_MAX: usize = 512;
/// Lookups take milliseconds, or the two seconds of their deadline; each has a socket.
const LOOKUPS_MAX: usize = 512;
/// Bodies that have outgrown [`SMALL_BODY`]. A list of models may have 4 MiB and anything else 1 MiB, so these are at
/// most 256 MiB, and all the small ones that fit into the slots above at most 112.
const LARGE_BODIES_MAX: usize = 64;
/// Bytes that every body may have without asking: answers of a usual host with a dozen models have less.
pub const SMALL_BODY: usize = 16 << 10;

/// Longest wait for a turn and a slot, whatever the interval: longer than a turn lasts for which others wait, so that
/// who waits gets one. A poll that has not begun by then is skipped.
pub const PATIENCE: Duration = Duration::from_mins(1);

/// The namespace of whoever asks.
pub type Namespace = Arc<str>;

/// Who asks: the object of a server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    pub namespace: Namespace,
    pub uid: Arc<str>,
}

/// The slots of all polls, and who is being asked right now. Cheap to clone.
#[derive(Clone)]
pub struct Limits {
    hosts: [FairSlots; 2],
    agents: [FairSlots; 2],
    lookups: FairSlots,
    large_bodies: FairSlots,
    turns: Turns,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            hosts: [FairSlots::new(HEALTHY_MAX), FairSlots::new(SUSPECT_MAX)],
            agents: [FairSlots::new(AGENT_HEALTHY_MAX), FairSlots::new(AGENT_SUSPECT_MAX)],
            lookups: FairSlots::new(LOOKUPS_MAX),
            large_bodies: FairSlots::new(LARGE_BODIES_MAX),
            turns: Turns::default(),
        }
    }
}

impl Limits {
    /// A slot for one poll of a host. `None` only if the operator is ending.
    pub async fn host_slot(&self, lane: Lane, namespace: &Namespace) -> Option<Slot> {
        self.hosts[lane as usize].slot(namespace).await
    }

    /// A slot for one reading of an agent.
    pub async fn agent_slot(&self, lane: Lane, namespace: &Namespace) -> Option<Slot> {
        self.agents[lane as usize].slot(namespace).await
    }

    /// A slot for one lookup of a name.
    pub async fn lookup_slot(&self, namespace: &Namespace) -> Option<Slot> {
        self.lookups.slot(namespace).await
    }

    /// A slot for a body of more than [`SMALL_BODY`].
    pub async fn large_body(&self, namespace: &Namespace) -> Option<Slot> {
        self.large_bodies.slot(namespace).await
    }

    /// Waits for the turn at this address. Two objects may name one host; the host is asked by one at a time.
    /// `None` only if the operator is ending.
    pub async fn turn(&self, address: IpAddr, port: u16, asker: Asker) -> Option<Turn> {
        self.turns.turn(SocketAddr::new(address, port), asker).await
    }
}
