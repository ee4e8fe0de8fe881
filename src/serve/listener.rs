//! Sockets: binding them, and connections that are bounded in number and in how long a reader may dawdle.
//!
//! Knows nothing of HTTP paths or of who may read them.

use axum_server::{AddrListener, Address};
use std::{
    future::Future,
    io,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    pin::Pin,
    sync::{
        Arc,
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
pub struct Peer(#[allow(dead_code)] SocketAddr);

impl Address for Peer {
    type Stream = BoundedStream;
    type Listener = BoundedListener;
}

/// Accepts only so many connections at once. The others wait in the kernel's queue, where they cost nothing here.
pub struct BoundedListener {
    inner: TcpListener,
    connections: Arc<Semaphore>,
    /// Whether accepting fails, out of file descriptors for example; only a change is news.
    failing: AtomicBool,
}

impl BoundedListener {
    /// To be called inside a runtime, with what [`bind`] returned.
    pub fn new(listener: std::net::TcpListener, connections: usize) -> io::Result<Self> {
        Ok(Self {
            inner: TcpListener::from_std(listener)?,
            connections: Arc::new(Semaphore::new(connections)),
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
        // Answers are written whole; waiting for more to send only delays them.
        stream.set_nodelay(true)?;
        Ok((BoundedStream { inner: stream, _permit: permit, deadline: None }, Peer(peer)))
    }

    fn get_local_addr(&self) -> io::Result<Peer> {
        self.inner.local_addr().map(Peer)
    }
}

/// A connection that counts, and that ends if its reader is too slow.
pub struct BoundedStream {
    inner: TcpStream,
    _permit: OwnedSemaphorePermit,
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
