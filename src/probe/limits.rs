//! How much is asked at once: slots for polls that are well and for polls that are not, and one object at a time at
//! each address.
//!
//! Turns at an address are given in the order in which they were asked for. What one object reads of its agents may go
//! on side by side, so that an agent that hangs holds up no other; but nobody joins while somebody else waits, so that
//! no stream of readings keeps others out. Once the turn passes to an object, all readings of its that wait begin.

use super::client::Lane;
use std::{
    collections::{HashMap, VecDeque},
    mem::take,
    net::{IpAddr, SocketAddr},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};

/// 10,000 healthy hosts at 10 s and 50 ms each need 50 slots; the rest is room for slow ones. Bounds open sockets.
const HEALTHY_MAX: usize = 4096;
/// 1,000 dead hosts at 10 s and a 2 s connect timeout need 200 slots.
const SUSPECT_MAX: usize = 512;
/// Agents answer beside the host they run on.
const AGENT_HEALTHY_MAX: usize = 2048;
const AGENT_SUSPECT_MAX: usize = 512;

/// Who asks: the UID of a server's object.
pub type Owner = Arc<str>;

/// The slots of all polls, and who is being asked right now. Cheap to clone.
#[derive(Clone)]
pub struct Limits {
    hosts: [Arc<Semaphore>; 2],
    agents: [Arc<Semaphore>; 2],
    asked: Asked,
}

impl Default for Limits {
    fn default() -> Self {
        let semaphore = |permits| Arc::new(Semaphore::new(permits));
        Self {
            hosts: [semaphore(HEALTHY_MAX), semaphore(SUSPECT_MAX)],
            agents: [semaphore(AGENT_HEALTHY_MAX), semaphore(AGENT_SUSPECT_MAX)],
            asked: Asked::default(),
        }
    }
}

/// With whom a turn may be shared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Share {
    /// With nobody.
    Alone,
    /// With others of this owner.
    With(Owner),
}

/// The addresses that are being asked. One of which nobody has the turn is not in the map.
#[derive(Clone, Default)]
struct Asked(Arc<Mutex<HashMap<SocketAddr, Place>>>);

/// Who has the turn at one address, and who waits for it.
struct Place {
    share: Share,
    turns: usize,
    waiting: VecDeque<Waiter>,
    /// Number of the next waiter.
    next: u64,
}

struct Waiter {
    number: u64,
    share: Share,
    granted: oneshot::Sender<Turn>,
}

/// The right to ask an address; ends when dropped.
pub struct Turn {
    address: SocketAddr,
    asked: Asked,
}

/// A place in the queue; left when dropped.
struct Waiting<'a> {
    asked: &'a Asked,
    address: SocketAddr,
    number: u64,
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

    /// Waits for the turn at this address. Two objects may name one host; the host is asked by one at a time.
    /// `None` only if the operator is ending.
    pub async fn turn(&self, address: IpAddr, port: u16, share: Share) -> Option<Turn> {
        let address = SocketAddr::new(address, port);
        let (number, granted) = match self.asked.enter(address, share) {
            Ok(turn) => return Some(turn),
            Err(place) => place,
        };
        let _waiting = Waiting { asked: &self.asked, address, number };
        granted.await.ok()
    }
}

impl Asked {
    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, address: SocketAddr) -> Turn {
        Turn { address, asked: self.clone() }
    }

    /// The turn, if it can be had now, or else a place at the end of the queue.
    fn enter(&self, address: SocketAddr, share: Share) -> Result<Turn, (u64, oneshot::Receiver<Turn>)> {
        let mut asked = self.lock();
        let Some(place) = asked.get_mut(&address) else {
            asked.insert(address, Place { share, turns: 1, waiting: VecDeque::new(), next: 0 });
            return Ok(self.at(address));
        };
        if place.waiting.is_empty() && place.may_join(&share) {
            place.turns += 1;
            return Ok(self.at(address));
        }
        let (granted, turn) = oneshot::channel();
        let number = place.next;
        place.next += 1;
        place.waiting.push_back(Waiter { number, share, granted });
        Err((number, turn))
    }

    /// Changes who asks or waits at an address, and gives turns to those who may have one then.
    fn change(&self, address: SocketAddr, change: impl FnOnce(&mut Place)) {
        let granted = {
            let mut asked = self.lock();
            let Some(place) = asked.get_mut(&address) else { return };
            change(place);
            let granted = place.grant();
            if place.turns == 0 {
                asked.remove(&address);
            }
            granted
        };
        // Whoever has given up meanwhile never sees the turn, which is dropped here and goes to the next.
        for waiter in granted {
            drop(waiter.granted.send(self.at(address)));
        }
    }
}

impl Place {
    fn may_join(&self, share: &Share) -> bool {
        *share != Share::Alone && *share == self.share
    }

    /// Takes those out of the queue whose turn it is now.
    fn grant(&mut self) -> Vec<Waiter> {
        let Some(first) = self.waiting.front() else { return Vec::new() };
        if self.turns > 0 && !self.may_join(&first.share) {
            return Vec::new();
        }
        self.share = first.share.clone();
        let granted = if self.share == Share::Alone {
            self.waiting.pop_front().into_iter().collect()
        } else {
            let (granted, waiting) = take(&mut self.waiting)
                .into_iter()
                .partition::<VecDeque<_>, _>(|waiter| waiter.share == self.share);
            self.waiting = waiting;
            Vec::from(granted)
        };
        self.turns += granted.len();
        granted
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.asked.change(self.address, |place| place.turns -= 1);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.asked.change(self.address, |place| place.waiting.retain(|waiter| waiter.number != self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::{future::Future, net::Ipv4Addr, pin::Pin};

    const ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    type Pending<'a> = Pin<Box<dyn Future<Output = Option<Turn>> + Send + 'a>>;

    fn turn<'a>(limits: &'a Limits, owner: &str) -> Pending<'a> {
        let share = if owner.is_empty() { Share::Alone } else { Share::With(owner.into()) };
        Box::pin(limits.turn(ADDRESS, 1, share))
    }

    /// The turn, which is to be had at once.
    fn now(pending: Pending<'_>) -> Turn {
        pending.now_or_never().flatten().expect("the turn is free")
    }

    fn waits(pending: &mut Pending<'_>) -> bool {
        pending.now_or_never().is_none()
    }

    #[track_caller]
    fn assert_forgotten(limits: &Limits) {
        assert!(limits.asked.lock().is_empty());
    }

    #[test]
    fn an_address_is_asked_by_one_at_a_time_and_forgotten_after() {
        let limits = Limits::default();
        let first = now(turn(&limits, ""));
        let other_port = limits.turn(ADDRESS, 2, Share::Alone).now_or_never().flatten();
        let mut second = turn(&limits, "");
        assert!(waits(&mut second));
        assert!(other_port.is_some());
        drop((first, other_port));
        drop(now(second));
        assert_forgotten(&limits);
    }

    #[test]
    fn readings_of_one_owner_share_the_turn_and_others_wait() {
        let limits = Limits::default();
        let (hanging, quick) = (now(turn(&limits, "a")), now(turn(&limits, "a")));
        drop(quick);
        let another = now(turn(&limits, "a"));
        let (mut stranger, mut host) = (turn(&limits, "b"), turn(&limits, ""));
        assert!(waits(&mut stranger) && waits(&mut host));
        drop((hanging, another));
        let stranger = now(stranger);
        assert!(waits(&mut host), "the host is asked by nobody else meanwhile");
        drop(stranger);
        let host = now(host);
        let mut reading = turn(&limits, "a");
        assert!(waits(&mut reading), "nothing goes on beside who is alone");
        drop(host);
        drop(now(reading));
        assert_forgotten(&limits);
    }

    #[test]
    fn a_stream_of_readings_keeps_nobody_out() {
        let limits = Limits::default();
        let mut running = vec![now(turn(&limits, "a"))];
        let mut other = turn(&limits, "b");
        assert!(waits(&mut other));
        let mut late: Vec<_> = (0..10).map(|_| turn(&limits, "a")).collect();
        assert!(late.iter_mut().all(waits), "nobody joins while somebody waits");
        running.clear();
        let other = now(other);
        assert!(late.iter_mut().all(waits));
        let mut last = turn(&limits, "b");
        assert!(waits(&mut last), "the other has no more right to stay than the first had");
        drop(other);
        // All that waited begin together, however many stood between them.
        let late: Vec<_> = late.into_iter().map(now).collect();
        assert!(waits(&mut last));
        drop(late);
        drop(now(last));
        assert_forgotten(&limits);
    }

    #[test]
    fn who_gives_up_waiting_leaves_the_queue_and_lets_others_through() {
        let limits = Limits::default();
        let running = now(turn(&limits, "a"));
        let (mut other, mut same) = (turn(&limits, "b"), turn(&limits, "a"));
        assert!(waits(&mut other) && waits(&mut same));
        drop(other);
        let same = now(same);
        drop((running, same));
        assert_forgotten(&limits);
    }

    #[test]
    fn a_turn_that_was_given_to_who_just_gave_up_goes_to_the_next() {
        let limits = Limits::default();
        let running = now(turn(&limits, ""));
        let (mut gone, mut next) = (turn(&limits, ""), turn(&limits, "b"));
        assert!(waits(&mut gone) && waits(&mut next));
        // It has the turn now, and is dropped before it knows.
        drop(running);
        assert!(waits(&mut next));
        drop(gone);
        drop(now(next));
        assert_forgotten(&limits);
    }

    #[test]
    fn a_future_that_was_never_polled_holds_nothing() {
        let limits = Limits::default();
        drop(turn(&limits, "a"));
        assert_forgotten(&limits);
    }

    /// Whatever the order of coming, giving up and leaving: never two owners at once, nobody is forgotten in the queue,
    /// and nothing is left in the end.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn any_order_of_tasks_keeps_the_rule() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let limits = Limits::default();
        let inside: Arc<[AtomicUsize; 3]> = Arc::default();
        let tasks: Vec<_> = (0..600_usize)
            .map(|number| {
                let (limits, inside) = (limits.clone(), Arc::clone(&inside));
                tokio::spawn(async move {
                    let owner = number % 3;
                    let share = ["", "a", "b"][owner];
                    let mut pending = turn(&limits, share);
                    for _ in 0..number % 7 {
                        tokio::task::yield_now().await;
                        // Some give up after some looks at the queue.
                        if number % 5 == 0 && futures::poll!(&mut pending).is_ready() {
                            break;
                        }
                    }
                    if number % 5 == 0 {
                        return;
                    }
                    let held = pending.await;
                    inside[owner].fetch_add(1, SeqCst);
                    tokio::task::yield_now().await;
                    let now: Vec<usize> = inside.iter().map(|count| count.load(SeqCst)).collect();
                    assert_eq!(now.iter().filter(|count| **count > 0).count(), 1, "{now:?}");
                    assert!(now[0] <= 1, "{now:?}");
                    inside[owner].fetch_sub(1, SeqCst);
                    drop(held);
                })
            })
            .collect();
        for task in tasks {
            tokio::time::timeout(std::time::Duration::from_secs(30), task).await.unwrap().unwrap();
        }
        assert_forgotten(&limits);
    }
}
