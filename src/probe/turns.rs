//! One object at a time at each address.
//!
//! Turns at an address are given in the order in which they were asked for, but never to one namespace again while
//! another waits: whoever creates many objects for one address is no more often there than who has one. What one object
//! reads of its agents may go on side by side, so that an agent that hangs holds up no other; but nobody joins while
//! somebody else waits, so that no stream of readings keeps others out. Once the turn passes to an object, all readings
//! of its that wait begin.

use super::limits::Owner;
use std::{
    collections::{HashMap, VecDeque},
    mem::take,
    net::SocketAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{oneshot, watch},
    time::sleep,
};

/// How long one namespace may keep the turn while another waits for it. A poll may be given up to five minutes, which
/// are its owner's to spend, not those of others; a host that has not answered after this long hangs.
const CONTESTED_MAX: Duration = Duration::from_secs(30);

/// Who wants the turn.
#[derive(Clone, Debug)]
pub struct Asker {
    owner: Owner,
    /// Whether nothing of the same owner may go on beside it.
    alone: bool,
}

impl Asker {
    pub fn alone(owner: &Owner) -> Self {
        Self { owner: owner.clone(), alone: true }
    }

    pub fn beside_its_own(owner: &Owner) -> Self {
        Self { owner: owner.clone(), alone: false }
    }

    fn may_join(&self, other: &Self) -> bool {
        !self.alone && !other.alone && self.owner == other.owner
    }
}

/// The addresses that are being asked. One of which nobody has the turn is not in the map.
/// Cheap to clone.
#[derive(Clone, Default)]
pub struct Turns(Arc<Mutex<HashMap<SocketAddr, Place>>>);

/// Who has the turn at one address, and who waits for it.
struct Place {
    asker: Asker,
    turns: usize,
    /// Whether another namespace waits than the one that asks.
    contested: watch::Sender<bool>,
    waiting: VecDeque<Waiter>,
    /// Number of the next waiter.
    next: u64,
}

struct Waiter {
    number: u64,
    asker: Asker,
    granted: oneshot::Sender<Turn>,
}

/// The right to ask an address; ends when dropped.
pub struct Turn {
    address: SocketAddr,
    turns: Turns,
    contested: watch::Receiver<bool>,
}

/// A place in the queue; left when dropped.
struct Waiting<'a> {
    turns: &'a Turns,
    address: SocketAddr,
    number: u64,
}

impl Turns {
    /// Waits for the turn at this address. `None` only if the operator is ending.
    pub async fn turn(&self, address: SocketAddr, asker: Asker) -> Option<Turn> {
        let (number, granted) = match self.enter(address, asker) {
            Ok(turn) => return Some(turn),
            Err(place) => place,
        };
        let _waiting = Waiting { turns: self, address, number };
        granted.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<SocketAddr, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn at(&self, address: SocketAddr, contested: watch::Receiver<bool>) -> Turn {
        Turn { address, turns: self.clone(), contested }
    }

    /// The turn, if it can be had now, or else a place at the end of the queue.
    fn enter(&self, address: SocketAddr, asker: Asker) -> Result<Turn, (u64, oneshot::Receiver<Turn>)> {
        let mut places = self.lock();
        let Some(place) = places.get_mut(&address) else {
            let (contested, receiver) = watch::channel(false);
            let place = Place { asker, turns: 1, contested, waiting: VecDeque::new(), next: 0 };
            places.insert(address, place);
            return Ok(self.at(address, receiver));
        };
        if place.waiting.is_empty() && asker.may_join(&place.asker) {
            place.turns += 1;
            return Ok(self.at(address, place.contested.subscribe()));
        }
        let (granted, turn) = oneshot::channel();
        let number = place.next;
        place.next += 1;
        place.waiting.push_back(Waiter { number, asker, granted });
        place.look_who_waits();
        Err((number, turn))
    }

    /// Changes who asks or waits at an address, and gives turns to those who may have one then.
    fn change(&self, address: SocketAddr, change: impl FnOnce(&mut Place)) {
        let granted: Vec<_> = {
            let mut places = self.lock();
            let Some(place) = places.get_mut(&address) else { return };
            change(place);
            let waiters = place.grant();
            place.look_who_waits();
            let granted = waiters.into_iter().map(|waiter| (waiter, place.contested.subscribe())).collect();
            if place.turns == 0 {
                places.remove(&address);
            }
            granted
        };
        // Whoever has given up meanwhile never sees the turn, which is dropped here and goes to the next.
        for (waiter, contested) in granted {
            drop(waiter.granted.send(self.at(address, contested)));
        }
    }
}

impl Place {
    fn is_of_another_namespace(&self, waiter: &Waiter) -> bool {
        waiter.asker.owner.namespace != self.asker.owner.namespace
    }

    fn look_who_waits(&mut self) {
        let is = self.waiting.iter().any(|waiter| self.is_of_another_namespace(waiter));
        self.contested.send_if_modified(|contested| std::mem::replace(contested, is) != is);
    }

    /// Takes those out of the queue whose turn it is now.
    fn grant(&mut self) -> Vec<Waiter> {
        let another = self.waiting.iter().position(|waiter| self.is_of_another_namespace(waiter));
        let next = another.unwrap_or_default();
        let Some(asker) = self.waiting.get(next).map(|waiter| waiter.asker.clone()) else {
            return Vec::new();
        };
        if self.turns > 0 && !asker.may_join(&self.asker) {
            return Vec::new();
        }
        self.asker = asker;
        let granted = if self.asker.alone {
            self.waiting.remove(next).into_iter().collect()
        } else {
            let (granted, waiting) = take(&mut self.waiting)
                .into_iter()
                .partition::<VecDeque<_>, _>(|waiter| waiter.asker.may_join(&self.asker));
            self.waiting = waiting;
            Vec::from(granted)
        };
        self.turns += granted.len();
        granted
    }
}

impl Turn {
    /// Resolves when the turn, which has just begun, must end because another namespace waits for it.
    pub async fn is_over(&mut self) {
        sleep(CONTESTED_MAX).await;
        // The sender is there for as long as the turn is.
        let _ = self.contested.wait_for(|contested| *contested).await;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.turns.change(self.address, |place| place.turns -= 1);
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.turns.change(self.address, |place| place.waiting.retain(|waiter| waiter.number != self.number));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use std::{
        future::Future,
        net::{Ipv4Addr, SocketAddrV4},
        pin::Pin,
    };

    const ADDRESS: SocketAddr = SocketAddr::V4(SocketAddrV4::new(Ipv4Addr::LOCALHOST, 1));

    type Pending<'a> = Pin<Box<dyn Future<Output = Option<Turn>> + Send + 'a>>;

    /// `namespace/uid`; without a slash it is all the same namespace, and nobody at all wants to be alone.
    fn asker(who: &str) -> Asker {
        let (namespace, uid) = who.split_once('/').unwrap_or(("n", who));
        let owner = Owner { namespace: namespace.into(), uid: uid.into() };
        if uid.is_empty() { Asker::alone(&owner) } else { Asker::beside_its_own(&owner) }
    }

    fn turn<'a>(turns: &'a Turns, who: &str) -> Pending<'a> {
        Box::pin(turns.turn(ADDRESS, asker(who)))
    }

    /// The turn, which is to be had at once.
    fn now(pending: Pending<'_>) -> Turn {
        pending.now_or_never().flatten().expect("the turn is free")
    }

    fn waits(pending: &mut Pending<'_>) -> bool {
        pending.now_or_never().is_none()
    }

    #[track_caller]
    fn assert_forgotten(turns: &Turns) {
        assert!(turns.lock().is_empty());
    }

    #[test]
    fn an_address_is_asked_by_one_at_a_time_and_forgotten_after() {
        let turns = Turns::default();
        let first = now(turn(&turns, ""));
        let other_port = turns.turn(SocketAddr::new(ADDRESS.ip(), 2), asker("")).now_or_never().flatten();
        let mut second = turn(&turns, "");
        assert!(waits(&mut second));
        assert!(other_port.is_some());
        drop((first, other_port));
        drop(now(second));
        assert_forgotten(&turns);
    }

    #[test]
    fn readings_of_one_owner_share_the_turn_and_others_wait() {
        let turns = Turns::default();
        let (hanging, quick) = (now(turn(&turns, "a")), now(turn(&turns, "a")));
        drop(quick);
        let another = now(turn(&turns, "a"));
        let (mut stranger, mut host) = (turn(&turns, "b"), turn(&turns, ""));
        assert!(waits(&mut stranger) && waits(&mut host));
        drop((hanging, another));
        let stranger = now(stranger);
        assert!(waits(&mut host), "the host is asked by nobody else meanwhile");
        drop(stranger);
        let host = now(host);
        let mut reading = turn(&turns, "a");
        assert!(waits(&mut reading), "nothing goes on beside who is alone");
        drop(host);
        drop(now(reading));
        assert_forgotten(&turns);
    }

    #[test]
    fn a_stream_of_readings_keeps_nobody_out() {
        let turns = Turns::default();
        let mut running = vec![now(turn(&turns, "a"))];
        let mut other = turn(&turns, "b");
        assert!(waits(&mut other));
        let mut late: Vec<_> = (0..10).map(|_| turn(&turns, "a")).collect();
        assert!(late.iter_mut().all(waits), "nobody joins while somebody waits");
        running.clear();
        let other = now(other);
        assert!(late.iter_mut().all(waits));
        let mut last = turn(&turns, "b");
        assert!(waits(&mut last), "the other has no more right to stay than the first had");
        drop(other);
        // All that waited begin together, however many stood between them.
        let late: Vec<_> = late.into_iter().map(now).collect();
        assert!(waits(&mut last));
        drop(late);
        drop(now(last));
        assert_forgotten(&turns);
    }

    #[test]
    fn who_gives_up_waiting_leaves_the_queue_and_lets_others_through() {
        let turns = Turns::default();
        let running = now(turn(&turns, "a"));
        let (mut other, mut same) = (turn(&turns, "b"), turn(&turns, "a"));
        assert!(waits(&mut other) && waits(&mut same));
        drop(other);
        let same = now(same);
        drop((running, same));
        assert_forgotten(&turns);
    }

    #[test]
    fn a_turn_that_was_given_to_who_just_gave_up_goes_to_the_next() {
        let turns = Turns::default();
        let running = now(turn(&turns, ""));
        let (mut gone, mut next) = (turn(&turns, ""), turn(&turns, "b"));
        assert!(waits(&mut gone) && waits(&mut next));
        // It has the turn now, and is dropped before it knows.
        drop(running);
        assert!(waits(&mut next));
        drop(gone);
        drop(now(next));
        assert_forgotten(&turns);
    }

    #[test]
    fn no_namespace_has_the_turn_twice_while_another_waits() {
        let turns = Turns::default();
        let mut running = vec![now(turn(&turns, "a/"))];
        let mut waiting: Vec<_> = ["a/1", "a/", "a/2", "b/", "c/1", "b/", "c/1"]
            .into_iter()
            .map(|who| (who, turn(&turns, who)))
            .collect();
        assert!(waiting.iter_mut().all(|(_, pending)| waits(pending)));
        let mut order = Vec::new();
        while !waiting.is_empty() {
            running.clear();
            let mut granted = Vec::new();
            waiting.retain_mut(|(who, pending)| match pending.now_or_never().flatten() {
                Some(turn) => {
                    running.push(turn);
                    granted.push(*who);
                    false
                }
                None => true,
            });
            order.push(granted.join("+"));
        }
        assert_eq!(order, ["b/", "a/1", "c/1+c/1", "a/", "b/", "a/2"]);
        running.clear();
        assert_forgotten(&turns);
    }

    /// Who keeps the turn while another namespace waits is told to end; who is waited for by its own is not.
    #[tokio::test(start_paused = true)]
    async fn a_turn_that_others_wait_for_ends() {
        let turns = Turns::default();
        let mut long = now(turn(&turns, "a/"));
        let mut own = turn(&turns, "a/");
        assert!(waits(&mut own));
        let hour = Duration::from_hours(1);
        assert!(tokio::time::timeout(hour, long.is_over()).await.is_err());
        let mut other = turn(&turns, "b/");
        assert!(waits(&mut other));
        let begin = tokio::time::Instant::now();
        long.is_over().await;
        assert!(begin.elapsed() <= CONTESTED_MAX + Duration::from_millis(1));
        drop(long);
        let mut other = now(other);
        assert!(other.is_over().now_or_never().is_none());
        drop((own, other));
        assert_forgotten(&turns);
    }

    #[test]
    fn a_future_that_was_never_polled_holds_nothing() {
        let turns = Turns::default();
        drop(turn(&turns, "a"));
        assert_forgotten(&turns);
    }

    /// Whatever the order of coming, giving up and leaving: never two owners at once, nobody is forgotten in the queue,
    /// and nothing is left in the end.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn any_order_of_tasks_keeps_the_rule() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let turns = Turns::default();
        let inside: Arc<[AtomicUsize; 3]> = Arc::default();
        let tasks: Vec<_> = (0..600_usize)
            .map(|number| {
                let (turns, inside) = (turns.clone(), Arc::clone(&inside));
                tokio::spawn(async move {
                    let owner = number % 3;
                    let share = ["", "a", "b"][owner];
                    let mut pending = turn(&turns, share);
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
            tokio::time::timeout(Duration::from_secs(30), task).await.unwrap().unwrap();
        }
        assert_forgotten(&turns);
    }
}
