//! A queue in which every namespace has a line of its own, and the lines take turns: what happens to a thousand objects
//! of one tenant at once holds up nobody else's news by more than one turn.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

/// First in, first out within a namespace.
pub struct FairQueue<T> {
    /// None of them is empty.
    lines: HashMap<Arc<str>, VecDeque<T>>,
    /// The namespaces that have a line, by whose turn is next.
    turns: VecDeque<Arc<str>>,
}

impl<T> Default for FairQueue<T> {
    fn default() -> Self {
        Self { lines: HashMap::new(), turns: VecDeque::new() }
    }
}

impl<T> FairQueue<T> {
    pub fn is_empty(&self) -> bool {
        self.turns.is_empty()
    }

    /// Whether anything of another namespace waits.
    pub fn has_others(&self, namespace: &str) -> bool {
        self.lines.len() > usize::from(self.lines.contains_key(namespace))
    }

    /// At the end of the namespace's line; a new line has the last turn.
    pub fn push_back(&mut self, namespace: &str, item: T) {
        if let Some(line) = self.lines.get_mut(namespace) {
            line.push_back(item);
        } else {
            let namespace = self.open(namespace, item);
            self.turns.push_back(namespace);
        }
    }

    /// Back to where it was taken from, as if it had not been.
    pub fn push_front(&mut self, namespace: &str, item: T) {
        if let Some(line) = self.lines.get_mut(namespace) {
            line.push_front(item);
        } else {
            let namespace = self.open(namespace, item);
            self.turns.push_front(namespace);
        }
    }

    pub fn pop_front(&mut self) -> Option<T> {
        let namespace = self.turns.pop_front()?;
        let line = self.lines.get_mut(&namespace)?;
        let item = line.pop_front()?;
        if line.is_empty() {
            self.lines.remove(&namespace);
        } else {
            self.turns.push_back(namespace);
        }
        Some(item)
    }

    fn open(&mut self, namespace: &str, item: T) -> Arc<str> {
        let namespace: Arc<str> = namespace.into();
        self.lines.insert(Arc::clone(&namespace), VecDeque::from([item]));
        namespace
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn popped(queue: &mut FairQueue<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| queue.pop_front()).collect()
    }

    #[test]
    fn lines_take_turns_and_keep_their_order() {
        let mut queue = FairQueue::default();
        for (namespace, item) in
            [("a", "a1"), ("a", "a2"), ("a", "a3"), ("b", "b1"), ("c", "c1"), ("b", "b2"), ("a", "a4")]
        {
            queue.push_back(namespace, item);
        }
        assert_eq!(popped(&mut queue), ["a1", "b1", "c1", "a2", "b2", "a3", "a4"]);
        assert!(queue.lines.is_empty() && queue.turns.is_empty());
    }

    #[test]
    fn what_is_put_back_is_the_next_of_its_namespace() {
        let mut queue = FairQueue::default();
        for (namespace, item) in [("a", "a1"), ("a", "a2"), ("b", "b1")] {
            queue.push_back(namespace, item);
        }
        let first = queue.pop_front().unwrap();
        queue.push_front("a", first);
        assert!(queue.has_others("a") && queue.has_others("c"));
        assert_eq!(popped(&mut queue), ["b1", "a1", "a2"]);
        queue.push_front("a", "a3");
        assert!(!queue.has_others("a") && queue.has_others("b"));
        assert_eq!(popped(&mut queue), ["a3"]);
    }

    proptest! {
        /// Whatever comes and goes: nothing is lost or doubled, each line keeps its order, and between two of one
        /// namespace every other that waits all the time has its turn.
        #[test]
        fn nothing_is_lost_and_nobody_is_passed_over(steps in prop::collection::vec(prop::option::of(0..4_usize), 0..200)) {
            const NAMES: [&str; 4] = ["a", "b", "c", "d"];
            let mut queue = FairQueue::default();
            let (mut pushed, mut taken) = ([0; 4], [0; 4]);
            // How often each other namespace was served since this one, which waits, was.
            let mut since = [[0; 4]; 4];
            for step in steps {
                if let Some(namespace) = step {
                    if pushed[namespace] == taken[namespace] {
                        since[namespace] = [0; 4];
                    }
                    queue.push_back(NAMES[namespace], (namespace, pushed[namespace]));
                    pushed[namespace] += 1;
                } else if let Some((namespace, number)) = queue.pop_front() {
                    prop_assert_eq!(number, taken[namespace]);
                    taken[namespace] += 1;
                    since[namespace] = [0; 4];
                    for other in (0..4).filter(|other| *other != namespace && pushed[*other] > taken[*other]) {
                        since[other][namespace] += 1;
                        prop_assert!(since[other][namespace] <= 1, "{} waits", NAMES[other]);
                    }
                }
                let waiting: usize = (0..4).map(|namespace| pushed[namespace] - taken[namespace]).sum();
                prop_assert_eq!(queue.is_empty(), waiting == 0);
            }
        }
    }
}
