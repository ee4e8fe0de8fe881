//! How much is asked at once, by everybody together: slots for polls that are well and for polls that are not, for
//! lookups of names, for large bodies and for taking them apart, and the turns at each address.

use super::{
    client::Lane,
    fair::{FairSlots, Slot},
    turns::{Asker, Turn, Turns},
};
use std::{net::SocketAddr, sync::Arc, time::Duration};

/// 10,000 healthy hosts at 10 s and 50 ms each need 50 slots; the rest is room for slow ones. Bounds open sockets.
const HEALTHY_MAX: usize = 4096;
/// 1,000 dead hosts at 10 s and a 2 s connect timeout need 200 slots.
const SUSPECT_MAX: usize = 512;
/// Agents answer beside the host they run on.
const AGENT_HEALTHY_MAX: usize = 2048;
const AGENT_SUSPECT_MAX: usize = 512;
/// Lookups take milliseconds, or the two seconds of their deadline; each has a socket.
const LOOKUPS_MAX: usize = 512;
/// Bodies that have outgrown [`SMALL_BODY`], until they are taken apart. A list of models may have 4 MiB and anything else
/// 1 MiB, so these are at most 256 MiB, and all the small ones that fit into the slots above at most 112. What a connection
/// holds besides has a bound of its own.
const LARGE_BODIES_MAX: usize = 64;
/// Large answers of agents that are taken apart at once: half of the cores of a small machine stay free for everybody
/// else. Those that wait for it keep the slot of a large body, so that they are bounded too.
const PARSED_AT_ONCE: usize = 2;
/// Bytes that every body may have without asking: answers of a usual host with a dozen models have less.
pub const SMALL_BODY: usize = 16 << 10;

/// Kinds of slots that have a socket each: two of hosts, two of agents, lookups.
const KINDS: usize = 5;
/// Descriptors for everything else: the listeners and their connections, watches, writes and the runtime.
const KEPT_FILES: usize = 512;

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
    parsing: FairSlots,
    turns: Turns,
}

impl Default for Limits {
    fn default() -> Self {
        let files = rlimit::getrlimit(rlimit::Resource::NOFILE).map_or(u64::MAX, |(soft, _)| soft);
        Self::within(usize::try_from(files).unwrap_or(usize::MAX))
    }
}

/// How many of these slots there are where a process may have so many open files: all, or as many as of every other kind
/// out of what the listeners and the API server leave. Without a descriptor a host that is well would look dead.
fn share(slots: usize, files: usize) -> usize {
    let left = files - KEPT_FILES.min(files / 2);
    slots.min(left / KINDS).max(1)
}

impl Limits {
    fn within(files: usize) -> Self {
        let slots = |slots| FairSlots::new(share(slots, files));
        Self {
            hosts: [slots(HEALTHY_MAX), slots(SUSPECT_MAX)],
            agents: [slots(AGENT_HEALTHY_MAX), slots(AGENT_SUSPECT_MAX)],
            lookups: slots(LOOKUPS_MAX),
            large_bodies: FairSlots::new(LARGE_BODIES_MAX),
            parsing: FairSlots::new(PARSED_AT_ONCE),
            turns: Turns::default(),
        }
    }

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

    /// A slot for taking a large answer apart.
    pub async fn parsing_slot(&self, namespace: &Namespace) -> Option<Slot> {
        self.parsing.slot(namespace).await
    }

    /// Waits for the turn at this address, however it is written. Two objects may name one host; the host is asked by one
    /// at a time. `None` only if the operator is ending.
    pub async fn turn(&self, address: SocketAddr, asker: Asker) -> Option<Turn> {
        self.turns.turn(SocketAddr::new(address.ip().to_canonical(), address.port()), asker).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_fit_into_what_may_be_open() {
        let all = [HEALTHY_MAX, SUSPECT_MAX, AGENT_HEALTHY_MAX, AGENT_SUSPECT_MAX, LOOKUPS_MAX];
        for files in [1, 16, 256, 1024, 4096, 8191] {
            let sum: usize = all.iter().map(|slots| share(*slots, files)).sum();
            assert!(sum <= files.saturating_sub(KEPT_FILES.min(files / 2)).max(all.len()), "{files}: {sum}");
        }
        for files in [KINDS * HEALTHY_MAX + KEPT_FILES, 1 << 20, usize::MAX] {
            assert!(all.iter().all(|slots| share(*slots, files) == *slots), "{files}");
        }
    }
}
