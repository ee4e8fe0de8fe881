//! Slots that no namespace can take all of: whoever may create objects must not be able to stop the polls of others.
//!
//! A namespace may hold [`SHARE`] times what is left free. So one alone gets nearly all, several with much to ask get
//! the same, and there is always room for one that has nothing yet; nothing has to be taken away from anybody, which
//! could not be done without cutting polls short. Only with some hundred namespaces that ask for all that they can get
//! is nothing left; then a slot that comes free goes to the namespace that holds the fewest.

use super::limits::Namespace;
use std::{
    collections::{HashMap, VecDeque},
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// One namespace alone gets seven eighths of all slots, two get seven fifteenths each.
const SHARE: usize = 7;

/// Slots of one kind. Cheap to clone.
#[derive(Clone)]
pub struct FairSlots(Arc<Mutex<State>>);

struct State {
    free: usize,
    /// Those that hold a slot or wait for one.
    namespaces: HashMap<Namespace, Share>,
    waiting: usize,
    /// Number of the next waiter.
    next: u64,
}

#[derive(Default)]
struct Share {
    held: usize,
    waiting: VecDeque<Waiter>,
}

struct Waiter {
    number: u64,
    granted: oneshot::Sender<Slot>,
}

/// A slot; free again when dropped.
pub struct Slot {
    slots: FairSlots,
    namespace: Namespace,
}

impl fmt::Debug for Slot {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Slot").field("namespace", &self.namespace).finish_non_exhaustive()
    }
}

/// A place in the queue; left when dropped.
struct Waiting<'a> {
    slots: &'a FairSlots,
    namespace: &'a Namespace,
    number: u64,
}

impl FairSlots {
    pub fn new(slots: usize) -> Self {
        let state = State { free: slots, namespaces: HashMap::new(), waiting: 0, next: 0 };
        Self(Arc::new(Mutex::new(state)))
    }

    /// Waits for a slot. `None` only if the operator is ending.
    pub async fn slot(&self, namespace: &Namespace) -> Option<Slot> {
        let (number, granted) = match self.enter(namespace) {
            Ok(slot) => return Some(slot),
            Err(place) => place,
        };
        let _waiting = Waiting { slots: self, namespace, number };
        granted.await.ok()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn of(&self, namespace: &Namespace) -> Slot {
        Slot { slots: self.clone(), namespace: Arc::clone(namespace) }
    }

    /// A slot, if one can be had now, or else a place at the end of the namespace's queue.
    fn enter(&self, namespace: &Namespace) -> Result<Slot, (u64, oneshot::Receiver<Slot>)> {
        let mut state = self.lock();
        let free = state.free;
        let share = state.namespaces.entry(Arc::clone(namespace)).or_default();
        if share.waiting.is_empty() && share.may_have_one_of(free) {
            share.held += 1;
            state.free -= 1;
            return Ok(self.of(namespace));
        }
        let (granted, slot) = oneshot::channel();
        let number = state.next;
        state.next += 1;
        state.waiting += 1;
        state
            .namespaces
            .entry(Arc::clone(namespace))
            .or_default()
            .waiting
            .push_back(Waiter { number, granted });
        Err((number, slot))
    }

    /// Changes what a namespace holds or waits for, and gives slots to those who may have one then.
    fn change(&self, namespace: &Namespace, change: impl FnOnce(&mut State, &mut Share)) {
        let granted = {
            let mut state = self.lock();
            let mut share = state.namespaces.remove(namespace).unwrap_or_default();
            change(&mut state, &mut share);
            if share.held > 0 || !share.waiting.is_empty() {
                state.namespaces.insert(Arc::clone(namespace), share);
            }
            state.grant()
        };
        // Whoever has given up meanwhile never sees the slot, which is dropped here and goes to the next.
        for (namespace, waiter) in granted {
            drop(waiter.granted.send(self.of(&namespace)));
        }
    }
}

impl State {
    /// Takes those out of the queues who may have a slot now: the namespace with the fewest first, then who came first.
    fn grant(&mut self) -> Vec<(Namespace, Waiter)> {
        let mut granted = Vec::new();
        while self.waiting > 0 {
            let waiting = self.namespaces.iter_mut().filter(|(_, share)| !share.waiting.is_empty());
            let next = waiting.min_by_key(|(_, share)| {
                (share.held, share.waiting.front().map_or(u64::MAX, |waiter| waiter.number))
            });
            let Some((namespace, share)) = next.filter(|(_, share)| share.may_have_one_of(self.free)) else {
                break;
            };
            let Some(waiter) = share.waiting.pop_front() else { break };
            share.held += 1;
            granted.push((Arc::clone(namespace), waiter));
            self.free -= 1;
            self.waiting -= 1;
        }
        granted
    }
}

impl Share {
    fn may_have_one_of(&self, free: usize) -> bool {
        self.held < SHARE.saturating_mul(free)
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        self.slots.change(&self.namespace, |state, share| {
            share.held -= 1;
            state.free += 1;
        });
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.slots.change(self.namespace, |state, share| {
            let before = share.waiting.len();
            share.waiting.retain(|waiter| waiter.number != self.number);
            state.waiting -= before - share.waiting.len();
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::FutureExt;
    use proptest::prelude::*;
    use std::{future::Future, pin::Pin};

    type Pending<'a> = Pin<Box<dyn Future<Output = Option<Slot>> + Send + 'a>>;

    fn namespaces(count: usize) -> Vec<Namespace> {
        (0..count).map(|number| format!("n{number}").into()).collect()
    }

    /// As many slots as can be had at once, up to `most`.
    fn take(slots: &FairSlots, namespace: &Namespace, most: usize) -> Vec<Slot> {
        (0..most).map_while(|_| slots.slot(namespace).now_or_never().flatten()).collect()
    }

    #[track_caller]
    fn assert_whole(slots: &FairSlots, all: usize) {
        let state = slots.lock();
        assert_eq!((state.free, state.waiting, state.namespaces.len()), (all, 0, 0));
    }

    #[test]
    fn one_alone_gets_nearly_all_and_a_second_is_let_in_at_once() {
        let slots = FairSlots::new(512);
        let names = namespaces(3);
        let greedy = take(&slots, &names[0], 1000);
        assert_eq!(greedy.len(), 448);
        assert_eq!(take(&slots, &names[1], 50).len(), 50);
        let second = take(&slots, &names[1], 1000);
        assert_eq!(second.len(), 56);
        assert_eq!(take(&slots, &names[2], 1000).len(), 7);
        drop((greedy, second));
        assert_whole(&slots, 512);
    }

    #[test]
    fn what_comes_free_goes_to_who_has_the_fewest() {
        let slots = FairSlots::new(1);
        let names = namespaces(3);
        let mut first = take(&slots, &names[0], 1);
        let mut waiting: Vec<Pending<'_>> = Vec::new();
        for name in [0, 0, 1, 0, 2, 1] {
            let mut pending: Pending<'_> = Box::pin(slots.slot(&names[name]));
            assert!((&mut pending).now_or_never().is_none());
            waiting.push(pending);
        }
        // Of namespaces that hold none, who came first.
        let mut order = Vec::new();
        first.clear();
        while !waiting.is_empty() {
            let next = waiting.iter_mut().position(|pending| {
                pending.now_or_never().flatten().map(|slot| order.push(slot.namespace.to_string())).is_some()
            });
            drop(waiting.remove(next.expect("somebody has the slot")));
        }
        assert_eq!(order, ["n0", "n0", "n1", "n0", "n2", "n1"]);
        assert_whole(&slots, 1);
    }

    #[test]
    fn a_slot_given_to_who_just_gave_up_goes_to_the_next() {
        let slots = FairSlots::new(1);
        let names = namespaces(2);
        let held = take(&slots, &names[0], 1);
        let mut gone: Pending<'_> = Box::pin(slots.slot(&names[0]));
        let mut next: Pending<'_> = Box::pin(slots.slot(&names[1]));
        assert!((&mut gone).now_or_never().is_none() && (&mut next).now_or_never().is_none());
        drop(held);
        drop(gone);
        assert!(next.now_or_never().flatten().is_some());
        assert_whole(&slots, 1);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Ask(usize),
        GiveBack(usize),
        GiveUp(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => (0..4_usize).prop_map(Step::Ask),
            2 => any::<usize>().prop_map(Step::GiveBack),
            1 => any::<usize>().prop_map(Step::GiveUp),
        ]
    }

    proptest! {
        /// Whatever the order of asking, giving back and giving up: no more slots than there are, nobody waits who
        /// may have one, a newcomer finds one while any is free, and nothing is left in the end.
        #[test]
        fn any_order_keeps_the_rule(all in 1..20_usize, steps in prop::collection::vec(step(), 0..200)) {
            let slots = FairSlots::new(all);
            let names = namespaces(5);
            let mut held: Vec<Slot> = Vec::new();
            let mut waiting: Vec<Pending<'_>> = Vec::new();
            for step in steps {
                match step {
                    Step::Ask(name) => waiting.push(Box::pin(slots.slot(&names[name]))),
                    Step::GiveBack(which) if !held.is_empty() => drop(held.remove(which % held.len())),
                    Step::GiveUp(which) if !waiting.is_empty() => drop(waiting.remove(which % waiting.len())),
                    _ => {}
                }
                waiting.retain_mut(|pending| match pending.now_or_never() {
                    Some(slot) => {
                        held.extend(slot);
                        false
                    }
                    None => true,
                });
                {
                    let state = slots.lock();
                    prop_assert_eq!(state.free + held.len(), all);
                    prop_assert_eq!(state.waiting, waiting.len());
                    for share in state.namespaces.values().filter(|share| !share.waiting.is_empty()) {
                        prop_assert!(!share.may_have_one_of(state.free));
                    }
                    prop_assert_eq!(state.namespaces.values().map(|share| share.held).sum::<usize>(), held.len());
                }
                let newcomer = slots.slot(&names[4]).now_or_never().flatten();
                prop_assert_eq!(newcomer.is_some(), held.len() < all);
            }
            drop((waiting, held));
            assert_whole(&slots, all);
        }
    }

    /// The same with tasks that really run side by side.
    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn tasks_side_by_side_never_exceed_the_slots() {
        use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
        let (slots, names) = (FairSlots::new(8), namespaces(3));
        let inside = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..600_usize)
            .map(|number| {
                let (slots, inside, name) =
                    (slots.clone(), Arc::clone(&inside), Arc::clone(&names[number % 3]));
                tokio::spawn(async move {
                    let mut pending: Pending<'_> = Box::pin(slots.slot(&name));
                    if number % 5 == 0 {
                        tokio::task::yield_now().await;
                        return drop(futures::poll!(&mut pending));
                    }
                    let held = pending.await;
                    assert!(inside.fetch_add(1, SeqCst) < 8);
                    tokio::task::yield_now().await;
                    inside.fetch_sub(1, SeqCst);
                    drop(held);
                })
            })
            .collect();
        for task in tasks {
            tokio::time::timeout(std::time::Duration::from_secs(30), task).await.unwrap().unwrap();
        }
        assert_whole(&slots, 8);
    }
}
