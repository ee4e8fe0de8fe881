//! How much is asked at once: slots for polls that are well and for polls that are not, and one poll at a time of each
//! address.

use super::client::Lane;
use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::{OwnedMutexGuard, OwnedSemaphorePermit, Semaphore};

/// 10,000 healthy hosts at 10 s and 50 ms each need 50 slots; the rest is room for slow ones. Bounds open sockets.
const HEALTHY_MAX: usize = 4096;
/// 1,000 dead hosts at 10 s and a 2 s connect timeout need 200 slots.
const SUSPECT_MAX: usize = 512;
/// Agents answer beside the host they run on.
const AGENT_HEALTHY_MAX: usize = 2048;
const AGENT_SUSPECT_MAX: usize = 512;

/// The slots of all polls, and who is being asked right now. Cheap to clone.
#[derive(Clone)]
pub struct Limits {
    hosts: [Arc<Semaphore>; 2],
    agents: [Arc<Semaphore>; 2],
    asked: Arc<Mutex<HashMap<SocketAddr, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Default for Limits {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            hosts: [semaphore(HEALTHY_MAX), semaphore(SUSPECT_MAX)],
            agents: [semaphore(AGENT_HEALTHY_MAX), semaphore(AGENT_SUSPECT_MAX)],
            asked: Arc::default(),
        }
    }
}

/// Being the only one to ask an address; ends when dropped.
pub struct Turn {
    address: SocketAddr,
    guard: Option<OwnedMutexGuard<()>>,
    asked: Arc<Mutex<HashMap<SocketAddr, Arc<tokio::sync::Mutex<()>>>>>,
}

impl Limits {
    /// A slot for one poll of a host. `None` only if the operator is ending.
    pub async fn host_slot(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.hosts[lane as usize]).acquire_owned().await.ok()
    }

    /// A slot for one reading of an agent.
    pub async fn agent_slot(&self, lane: Lane) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.agents[lane as usize]).acquire_owned().await.ok()
    }

    /// Waits until nobody else asks this address. Two objects may name one host; the host is asked by one at a time.
    pub async fn turn(&self, address: IpAddr, port: u16) -> Turn {
        let address = SocketAddr::new(address, port);
        let lock = {
            let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(asked.entry(address).or_default())
        };
        Turn { address, guard: Some(lock.lock_owned().await), asked: Arc::clone(&self.asked) }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        self.guard.take();
        // Only the map holds it: nobody waits, and nobody can start to while the map is locked.
        if asked.get(&self.address).is_some_and(|lock| Arc::strong_count(lock) == 1) {
            asked.remove(&self.address);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::Ipv4Addr;

    #[tokio::test]
    async fn an_address_is_asked_by_one_at_a_time_and_forgotten_after() {
        let limits = Limits::default();
        let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let first = limits.turn(address, 1).await;
        let other_port = limits.turn(address, 2).await;
        let second = tokio::spawn({
            let limits = limits.clone();
            async move { limits.turn(address, 1).await }
        });
        tokio::task::yield_now().await;
        assert!(!second.is_finished());
        drop((first, other_port));
        drop(second.await.unwrap());
        assert!(limits.asked.lock().unwrap().is_empty());
    }
}
