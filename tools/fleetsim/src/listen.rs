//! The listening sockets: one pair per host, or one pair for all.
//!
//! Everything stays on loopback: single addresses are in 127.0.0.0/8, and the
//! wildcard sockets are tied to the loopback interface where the kernel lets
//! them, and hang up on every address that is not loopback in any case.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::sync::Arc;
use std::time::Duration;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use crate::address::Range;
use crate::fleet::Fleet;
use crate::serve;
use crate::state::Port;

/// Connections that may wait in the kernel: a burst from a whole fleet on a
/// shared socket, a few on one host's own.
const BACKLOG_SHARED: i32 = 4096;
const BACKLOG_OWN: i32 = 256;

/// All listening sockets.
#[derive(Debug)]
pub struct Listeners {
    ports: [u16; 2],
    shared: bool,
    /// Whether what is bound is accepted on at once.
    running: bool,
    /// Bound, but nobody accepts yet.
    bound: Vec<(usize, Port, std::net::TcpListener)>,
    accepting: HashMap<(usize, Port), JoinHandle<()>>,
}

impl Listeners {
    /// Binds the shared pair, or the first host's to learn the ports.
    pub fn new(range: Range, ports: [u16; 2], shared: bool) -> io::Result<Self> {
        let mut listeners =
            Self { ports, shared, running: false, bound: Vec::new(), accepting: HashMap::new() };
        for port in Port::BOTH {
            let asked = ports[port.slot()];
            let socket = if shared {
                listen(Ipv4Addr::UNSPECIFIED, asked, BACKLOG_SHARED)?
            } else {
                listen(range.address(0), asked, BACKLOG_OWN)?
            };
            listeners.ports[port.slot()] = socket.local_addr()?.port();
            listeners.bound.push((0, port, socket));
        }
        Ok(listeners)
    }

    /// Whether all hosts share one pair.
    pub fn shared(&self) -> bool {
        self.shared
    }

    /// The two port numbers.
    pub fn ports(&self) -> [u16; 2] {
        self.ports
    }

    /// Binds what does not listen yet: all of it, or nothing new.
    pub fn bind(&mut self, range: Range, wanted: impl Iterator<Item = (usize, Port)>) -> io::Result<()> {
        if self.shared {
            return Ok(());
        }
        let before = self.bound.len();
        for (index, port) in wanted {
            let waiting = |(i, p, _): &(usize, Port, _)| *i == index && *p == port;
            if self.accepting.contains_key(&(index, port)) || self.bound[..before].iter().any(waiting) {
                continue;
            }
            let address = range.address(index);
            match listen(address, self.ports[port.slot()], BACKLOG_OWN) {
                Ok(socket) => self.bound.push((index, port, socket)),
                Err(error) => {
                    self.bound.truncate(before);
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    /// From now on hosts answer.
    pub fn run(&mut self, fleet: &Arc<Fleet>) {
        self.running = true;
        self.start(fleet);
    }

    /// Begins to accept on everything that is bound, once the hosts answer.
    pub fn start(&mut self, fleet: &Arc<Fleet>) {
        if !self.running {
            return;
        }
        for (index, port, socket) in std::mem::take(&mut self.bound) {
            match TcpListener::from_std(socket) {
                Ok(listener) => {
                    let task = accept(Arc::clone(fleet), listener, port, index);
                    self.accepting.insert((index, port), tokio::spawn(task));
                }
                Err(error) => eprintln!("fleetsim: cannot watch a listener: {error}"),
            }
        }
    }

    /// Closes a host's own listener; it is closed when this returns.
    pub async fn close(&mut self, index: usize, port: Port) {
        self.bound.retain(|(i, p, _)| *i != index || *p != port);
        if let Some(task) = self.accepting.remove(&(index, port)) {
            task.abort();
            let _ = task.await;
        }
    }
}

fn listen(address: Ipv4Addr, port: u16, backlog: i32) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    // Connections of the time before a refusal may still be in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    if address.is_unspecified() {
        // Not every kernel lets an ordinary user do this; `accept` checks too.
        let _ = socket.bind_device(Some(b"lo"));
    }
    let bound = socket.bind(&SocketAddr::from((address, port)).into()).and_then(|()| socket.listen(backlog));
    bound.map_err(|error| io::Error::new(error.kind(), format!("{address}:{port}: {error}")))?;
    Ok(socket.into())
}

async fn accept(fleet: Arc<Fleet>, listener: TcpListener, port: Port, own: usize) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(index) = host_of(&fleet, &stream, peer, own) {
                    tokio::spawn(serve::serve(Arc::clone(&fleet), index, port, stream));
                }
            }
            // Out of descriptors, or the client left: the next may do better.
            Err(error) => {
                eprintln!("fleetsim: accept: {error}");
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
    }
}

/// The host that was called; none if the call is none of our business.
fn host_of(fleet: &Fleet, stream: &TcpStream, peer: SocketAddr, own: usize) -> Option<usize> {
    if !peer.ip().is_loopback() {
        return None;
    }
    if !fleet.shared {
        return Some(own);
    }
    match stream.local_addr() {
        Ok(SocketAddr::V4(called)) if called.ip().is_loopback() => {
            fleet.range.index(*SocketAddrV4::ip(&called))
        }
        _ => None,
    }
}
