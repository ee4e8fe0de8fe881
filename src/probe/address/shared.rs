//! The policy that holds now. Whoever dials reads it without a lock; whoever decides ahead is told when it changes.

use super::AddressPolicy;
use arc_swap::ArcSwap;
use std::sync::Arc;
use tokio::sync::watch;

/// One policy for everything that dials. What is denied may change while the operator runs.
#[derive(Debug)]
pub struct SharedPolicy {
    current: ArcSwap<AddressPolicy>,
    changed: watch::Sender<()>,
}

impl SharedPolicy {
    pub fn new(policy: AddressPolicy) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(policy), changed: watch::Sender::new(()) })
    }

    pub fn get(&self) -> Arc<AddressPolicy> {
        self.current.load_full()
    }

    /// Replaces the policy; tells nobody if it is the same. One task calls this.
    pub fn set(&self, policy: AddressPolicy) -> bool {
        let new = **self.current.load() != policy;
        if new {
            self.current.store(Arc::new(policy));
            self.changed.send_replace(());
        }
        new
    }

    /// Resolves after each change.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
}
