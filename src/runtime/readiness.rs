//! Readiness: named gates, all of which must be open before the process counts as ready.
//!
//! The texts are shown to whoever can reach `/readyz`, without a login: they must not hold names, addresses or
//! anything else of the fleet.

use super::Leadership;
use serde::Serialize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use tokio::sync::Notify;

/// Every gate of the process; clones share them. Without any gate it is ready.
#[derive(Clone, Debug, Default)]
pub struct Readiness {
    gates: Arc<Mutex<Vec<State>>>,
    opened: Arc<Notify>,
    /// `None`: there is no election.
    leadership: Option<Leadership>,
}

#[derive(Debug)]
struct State {
    name: &'static str,
    /// What a closed gate waits for; `None` is open.
    waiting_for: Option<String>,
}

/// One thing that readiness depends on; closed until opened.
#[derive(Clone, Debug)]
pub struct Gate {
    readiness: Readiness,
    name: &'static str,
}

/// What `/readyz` answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Snapshot {
    pub ready: bool,
    /// Absent without an election.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub leader: Option<bool>,
    pub waiting_for: Vec<Waiting>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Waiting {
    pub name: &'static str,
    pub detail: String,
}

impl Readiness {
    pub fn new() -> Self {
        Self::default()
    }

    /// Also tells whether this replica leads, which readiness does not depend on.
    #[must_use]
    pub fn with_leadership(self, leadership: Leadership) -> Self {
        Self { leadership: Some(leadership), ..self }
    }

    /// Returns when every gate is open.
    pub async fn until_ready(&self) {
        loop {
            let opened = self.opened.notified();
            if self.snapshot().ready {
                return;
            }
            opened.await;
        }
    }

    /// The gate of that name, made closed if there is none yet.
    pub fn gate(&self, name: &'static str) -> Gate {
        let mut gates = self.lock();
        if !gates.iter().any(|gate| gate.name == name) {
            gates.push(State { name, waiting_for: Some("not started".to_owned()) });
        }
        Gate { readiness: self.clone(), name }
    }

    pub fn snapshot(&self) -> Snapshot {
        let waiting_for: Vec<_> = self
            .lock()
            .iter()
            .filter_map(|gate| {
                gate.waiting_for.as_ref().map(|detail| Waiting { name: gate.name, detail: detail.clone() })
            })
            .collect();
        let leader = self.leadership.as_ref().map(Leadership::holds);
        Snapshot { ready: waiting_for.is_empty(), leader, waiting_for }
    }

    /// A panic elsewhere leaves the list whole: each change is one assignment.
    fn lock(&self) -> MutexGuard<'_, Vec<State>> {
        self.gates.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Gate {
    /// Says what a closed gate waits for. An open one stays open.
    pub fn wait_for(&self, text: impl Into<String>) {
        self.change(|waiting_for| {
            if waiting_for.is_some() {
                *waiting_for = Some(text.into());
            }
        });
    }

    pub fn open(&self) {
        self.change(|waiting_for| *waiting_for = None);
    }

    /// Closes the gate, open or not, and says why.
    pub fn close(&self, text: impl Into<String>) {
        self.change(|waiting_for| *waiting_for = Some(text.into()));
    }

    fn change(&self, change: impl FnOnce(&mut Option<String>)) {
        let mut gates = self.readiness.lock();
        let was_ready = gates.iter().all(|gate| gate.waiting_for.is_none());
        if let Some(gate) = gates.iter_mut().find(|gate| gate.name == self.name) {
            change(&mut gate.waiting_for);
        }
        let is_ready = gates.iter().all(|gate| gate.waiting_for.is_none());
        drop(gates);
        match (was_ready, is_ready) {
            (false, true) => {
                tracing::info!("ready");
                self.readiness.opened.notify_waiters();
            }
            (true, false) => tracing::warn!(gate = self.name, "no longer ready"),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn value(readiness: &Readiness) -> serde_json::Value {
        serde_json::to_value(readiness.snapshot()).unwrap()
    }

    #[test]
    fn ready_is_when_every_gate_is_open() {
        let readiness = Readiness::new();
        assert_eq!(value(&readiness), json!({"ready": true, "waitingFor": []}));

        let crds = readiness.gate("crds");
        let cache = readiness.clone().gate("cache");
        crds.wait_for("the definition of ollamaservers");
        assert_eq!(
            value(&readiness),
            json!({"ready": false, "waitingFor": [
                {"name": "crds", "detail": "the definition of ollamaservers"},
                {"name": "cache", "detail": "not started"},
            ]})
        );

        crds.open();
        assert!(!readiness.snapshot().ready);
        cache.open();
        assert_eq!(value(&readiness), json!({"ready": true, "waitingFor": []}));
    }

    #[test]
    fn only_close_closes_an_open_gate() {
        let readiness = Readiness::new();
        let gate = readiness.gate("crds");
        gate.open();
        gate.wait_for("something");
        assert!(readiness.snapshot().ready);
        gate.close("the definition was deleted");
        assert_eq!(readiness.snapshot().waiting_for[0].detail, "the definition was deleted");
    }

    #[tokio::test]
    async fn whoever_waits_is_told_when_everything_is_open() {
        let readiness = Readiness::new();
        let (crds, cache) = (readiness.gate("crds"), readiness.gate("cache"));
        let waiting = tokio::spawn({
            let readiness = readiness.clone();
            async move { readiness.until_ready().await }
        });
        crds.open();
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished());
        cache.open();
        waiting.await.unwrap();
        readiness.until_ready().await;
    }

    #[test]
    fn who_takes_part_in_an_election_says_whether_it_leads() {
        for (leadership, leads) in [(Leadership::none_yet(), false), (Leadership::always(), true)] {
            let readiness = Readiness::new().with_leadership(leadership);
            assert_eq!(value(&readiness), json!({"ready": true, "leader": leads, "waitingFor": []}));
        }
    }

    #[test]
    fn the_same_name_is_the_same_gate() {
        let readiness = Readiness::new();
        let first = readiness.gate("crds");
        readiness.gate("crds").open();
        assert!(readiness.snapshot().ready);
        first.close("again");
        assert_eq!(readiness.snapshot().waiting_for.len(), 1);
    }
}
