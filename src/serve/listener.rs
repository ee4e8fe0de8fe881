//! Sockets: binding them, and connections that are bounded in number, for all and for one address, and in how long a
//! reader may dawdle.
//!
//! Knows nothing of HTTP paths or of who may read them.

use axum::extract::connect_info::Connected;
use axum_server::{AddrListener, Address};
use std::{
    collections::HashMap,
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Sleep, sleep},
};

/// From the first byte of an answer that the reader's buffers had no room for, to the last. Ten thousand servers
/// are a few MiB; who takes longer than this keeps them in our memory.
const RESPONSE_DEADLINE: Duration = Duration::from_secs(30);

/// One address may hold a quarter of the connections; what it opens beyond is closed at once. Not less: everybody behind
/// an ingress or the apiserver's proxy has the same address.
const PEER_SHARE: usize = 4;

/// The first 64 bits.
const MACHINES: u128 = (u64::MAX as u128) << 64;

/// Binds, ready for a runtime. `[::]` is every address, and on a machine without IPv6 that is `0.0.0.0`.
pub fn bind(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let bound = std::net::TcpListener::bind(address).or_else(|error| {
        let taken = matches!(error.kind(), io::ErrorKind::AddrInUse | io::ErrorKind::PermissionDenied);
        if taken || address.ip() != Ipv6Addr::UNSPECIFIED {
            return Err(error);
        }
        std::net::TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).map_err(|_| error)
    })?;
    bound.set_nonblocking(true)?;
    Ok(bound)
}

/// The address of a connection's other end.
#[derive(Clone, Copy, Debug)]
pub struct Peer(SocketAddr);

/// Who is on the other end, as far as bounds for one go.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpAddr);

impl Network {
    /// An IPv4 address, or the 64 bits of an IPv6 address that a machine does not choose by itself.
    pub fn of(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & MACHINES).into(),
            address @ IpAddr::V4(_) => address,
        })
    }
}

impl Peer {
    pub fn network(self) -> Network {
        Network::of(self.0.ip())
    }
}

impl Connected<Self> for Peer {
    fn connect_info(peer: Self) -> Self {
        peer
    }
}

impl Address for Peer {
    type Stream = BoundedStream;
    type Listener = BoundedListener;
}

/// Accepts only so many connections at once. The others wait in the kernel's queue, where they cost nothing here.
pub struct BoundedListener {
    inner: TcpListener,
    connections: Arc<Semaphore>,
    peers: Peers,
    /// Whether accepting fails, out of file descriptors for example; only a change is news.
    failing: AtomicBool,
}

impl BoundedListener {
    /// To be called inside a runtime, with what [`bind`] returned.
    pub fn new(listener: std::net::TcpListener, connections: usize) -> io::Result<Self> {
        Ok(Self {
            inner: TcpListener::from_std(listener)?,
            connections: Arc::new(Semaphore::new(connections)),
            peers: Peers { held: Arc::default(), each: connections / PEER_SHARE },
            failing: AtomicBool::new(false),
        })
    }
}

impl AddrListener<BoundedStream, Peer> for BoundedListener {
    /// Never used: the number of connections would be unknown.
    async fn bind_to(_: Peer) -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn accept_stream(&self) -> io::Result<(BoundedStream, Peer)> {
        let permit = Arc::clone(&self.connections).acquire_owned().await.map_err(io::Error::other)?;
        let (stream, peer, place) = loop {
            let accepted = self.inner.accept().await;
            let failing = accepted.as_ref().err();
            if self.failing.swap(failing.is_some(), Ordering::Relaxed) != failing.is_some() {
                if let Some(error) = failing {
                    tracing::warn!(%error, "cannot accept connections");
                } else {
                    tracing::info!("accepting connections again");
                }
            }
            let (stream, peer) = accepted?;
            if let Some(place) = self.peers.take(Peer(peer).network()) {
                break (stream, peer, place);
            }
        };
        // Answers are written whole; waiting for more to send only delays them.
        stream.set_nodelay(true)?;
        Ok((BoundedStream { inner: stream, _permit: permit, _place: place, deadline: None }, Peer(peer)))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.inner.local_addr().map(Peer)
    }
}

/// How many connections each address holds. Has at most as many entries as there are connections.
#[derive(Clone)]
struct Peers {
    held: Arc<Mutex<HashMap<Network, usize>>>,
    /// For one address.
    each: usize,
}

/// One of an address's connections; gives its place back when it ends.
struct Place {
    peers: Peers,
    network: Network,
}

impl Peers {
    /// `None`: this address holds as many as it may.
    fn take(&self, network: Network) -> Option<Place> {
        let mut held = self.lock();
        let count = held.entry(network).or_default();
        if *count >= self.each {
            return None;
        }
        *count += 1;
        drop(held);
        Some(Place { peers: self.clone(), network })
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Network, usize>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.peers.lock();
        if let Some(count) = held.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.network);
            }
        }
    }
}

/// A connection that counts, and that ends if its reader is too slow.
pub struct BoundedStream {
    inner: TcpStream,
    _permit: OwnedSemaphorePermit,
    _place: Place,
    /// Set by the first write that found no room; gone when the peer says something again.
    deadline: Option<Pin<Box<Sleep>>>,
}

impl BoundedStream {
    fn within_deadline<T>(
        &mut self,
        context: &mut Context<'_>,
        written: Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        if written.is_pending() {
            let deadline = self.deadline.get_or_insert_with(|| Box::pin(sleep(RESPONSE_DEADLINE)));
            ready!(deadline.as_mut().poll(context));
            return Poll::Ready(Err(io::ErrorKind::TimedOut.into()));
        }
        written
    }
}

impl AsyncRead for BoundedStream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buffer.filled().len();
        let read = Pin::new(&mut self.inner).poll_read(context, buffer);
        if buffer.filled().len() > before {
            self.deadline = None;
        }
        read
    }
}

impl AsyncWrite for BoundedStream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write(context, bytes);
        self.within_deadline(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.inner).poll_write_vectored(context, slices);
        self.within_deadline(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::itself("192.0.2.1", "192.0.2.1", true)]
    #[case::in_another_form("192.0.2.1", "::ffff:192.0.2.1", true)]
    #[case::a_neighbour("192.0.2.1", "192.0.2.2", false)]
    #[case::an_address_that_a_machine_gave_itself("2001:db8::1", "2001:db8::ffff:2", true)]
    #[case::another_network("2001:db8::1", "2001:db8:0:1::1", false)]
    fn who_counts_as_one(#[case] one: &str, #[case] other: &str, #[case] same: bool) {
        let network = |text: &str| Network::of(text.parse().unwrap());
        assert_eq!(network(one) == network(other), same);
    }

    #[test]
    fn an_address_has_so_many_places_and_gets_them_back() {
        let peers = Peers { held: Arc::default(), each: 2 };
        let [one, other] = ["192.0.2.1", "192.0.2.2"].map(|text| Network::of(text.parse().unwrap()));
        let places = [peers.take(one).unwrap(), peers.take(one).unwrap()];
        assert!(peers.take(one).is_none() && peers.take(other).is_some());
        drop(places);
        assert!(peers.lock().is_empty());
        assert!(peers.take(one).is_some());
    }
}
