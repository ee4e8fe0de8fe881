//! The hosts, and how they change.
//!
//! A change is made under one lock: it is checked for all chosen hosts, then
//! seen by all of them, and their listeners have followed when it returns.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use jiff::Timestamp;
use tokio::sync::Notify;

use crate::address::Range;
use crate::listen::Listeners;
use crate::ollama::Moment;
use crate::patch::Memo;
use crate::state::{HostState, Port};
use crate::stats::HostStats;
use crate::weird::mix;

/// One simulated host.
#[derive(Debug)]
pub struct Host {
    state: Mutex<Arc<HostState>>,
    /// Told of every change, so that nothing hangs on with an old fault.
    pub changed: Notify,
    resets: [AtomicU32; 2],
    tick: AtomicU64,
    /// What it has witnessed.
    pub stats: HostStats,
}

impl Host {
    /// The state now.
    pub fn state(&self) -> Arc<HostState> {
        Arc::clone(&self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Rises when all connections of a port must be broken off.
    pub fn resets(&self, port: Port) -> u32 {
        self.resets[port.slot()].load(Ordering::Acquire)
    }
}

/// All hosts.
#[derive(Debug)]
pub struct Fleet {
    /// Their addresses.
    pub range: Range,
    /// The hosts by index.
    pub hosts: Vec<Host>,
    /// One listener per port for all.
    pub shared: bool,
    /// When the simulator started.
    pub start: Timestamp,
    seed: u64,
    listeners: tokio::sync::Mutex<Listeners>,
}

/// Why a change was refused; nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    /// The change itself is wrong.
    #[error("{0}")]
    Invalid(String),
    /// The change needs sockets that the hosts do not have.
    #[error(
        "hosts that share their sockets cannot refuse connections: \
         start with --sockets own, or use mode reset"
    )]
    Shared,
    /// A port could not be bound again.
    #[error("cannot listen: {0}")]
    Listen(#[from] std::io::Error),
}

impl Fleet {
    /// A fleet that does not listen yet.
    pub fn new(range: Range, count: usize, listeners: Listeners, seed: u64) -> Self {
        let start = Timestamp::now();
        let state = Arc::new(HostState::default());
        let host = |_| Host {
            state: Mutex::new(Arc::clone(&state)),
            changed: Notify::new(),
            resets: Default::default(),
            tick: AtomicU64::new(0),
            stats: HostStats::new(start),
        };
        Self {
            range,
            hosts: (0..count).map(host).collect(),
            shared: listeners.shared(),
            start,
            seed,
            listeners: tokio::sync::Mutex::new(listeners),
        }
    }

    /// Time and chance for one answer of a host.
    pub fn moment(&self, index: usize) -> Moment {
        let tick = self.hosts[index].tick.fetch_add(1, Ordering::Relaxed);
        Moment {
            now: Timestamp::now(),
            start: self.start,
            tick: mix(mix(self.seed ^ index as u64) ^ tick),
            index,
        }
    }

    /// From now on the hosts answer. Before, changes are only noted, so that
    /// nobody meets a host that is half set up.
    pub async fn run(self: &Arc<Self>) {
        self.listeners.lock().await.run(self);
    }

    /// Changes the chosen hosts, all or none. `resets` breaks off their open
    /// connections even if no fault asks for it.
    pub async fn change(
        self: &Arc<Self>,
        chosen: &[usize],
        change: impl FnMut(&HostState) -> Result<HostState, String>,
        resets: bool,
    ) -> Result<(), ChangeError> {
        let mut listeners = self.listeners.lock().await;
        let mut memo = Memo::new(change);
        let mut states = Vec::with_capacity(chosen.len());
        for &index in chosen {
            let old = self.hosts[index].state();
            let new = memo.apply(&old).map_err(ChangeError::Invalid)?;
            if self.shared && Port::BOTH.iter().any(|port| !new.listens(*port)) {
                return Err(ChangeError::Shared);
            }
            states.push((index, old, new));
        }
        // Binding may fail, so it comes before anybody sees the change.
        let wanted = states.iter().flat_map(|(index, _, new)| {
            let listening = Port::BOTH.into_iter().filter(|port| new.listens(*port));
            listening.map(|port| (*index, port))
        });
        listeners.bind(self.range, wanted)?;
        for (index, old, new) in states {
            let host = &self.hosts[index];
            // The state first: whoever connects meanwhile meets the new one.
            *host.state.lock().unwrap_or_else(PoisonError::into_inner) = Arc::clone(&new);
            for port in Port::BOTH {
                let (before, after) = (old.port_fault(port), new.port_fault(port));
                let broken = after.mode.breaks_connections() && before != after;
                if resets || broken {
                    host.resets[port.slot()].fetch_add(1, Ordering::AcqRel);
                }
                if !new.listens(port) {
                    listeners.close(index, port).await;
                }
            }
            host.changed.notify_waiters();
        }
        listeners.start(self);
        Ok(())
    }
}
