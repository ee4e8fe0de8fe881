//! Connections to hosts: TCP to the one address that was checked and whose turn is held, and TLS on it for https, never
//! one in place of the other. What is not connected by the end of the request that wanted it never will be.
//!
//! What happens to a connection is noted for the request that made it. A deadline that passes in the middle of a
//! handshake looks like any other from outside, and what a host says while it closes may come before the request does.
//! And a request that is given up can wait until its connection is closed, lest the next one stand beside it.

use super::{failure::Failure, resolve::CheckedResolver};
use crate::api::endpoint::Host;
use hyper::{
    Request, Uri,
    http::{Extensions, uri::Scheme},
};
use hyper_util::{
    client::legacy::connect::{CaptureConnection, Connected, Connection, capture_connection},
    rt::TokioIo,
};
use rustls::{ClientConfig, pki_types::ServerName};
use std::{
    error::Error,
    future::Future,
    io,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, AtomicU8, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsConnector, client::TlsStream};
use tokio_util::sync::{CancellationToken, DropGuard};
use tower::Service;

/// First byte of a TLS record that carries an alert: what a port that wants TLS answers to plain HTTP.
const TLS_ALERT: u8 = 0x15;
/// How long a request that was given up waits for the end of its connection: a task away, unless the machine is busy.
/// One that the host may keep, because its answer was read to the end, lives on.
const CLOSING_MAX: Duration = Duration::from_millis(100);

type BoxError = Box<dyn Error + Send + Sync>;

tokio::task_local! {
    /// The request that the connection is made for. A connector is given nothing but a URL.
    static ATTEMPT: Attempt;
}

/// The one address that may be dialled, because whoever asks has the turn there.
#[derive(Debug)]
pub struct Destination {
    /// Leads to the address, or did when it was looked up; asked again before each connection whether it may.
    host: Host,
    address: SocketAddr,
    /// What connecting may take of the time, TLS not counted.
    connect_max: Duration,
    reached: AtomicBool,
}

impl Destination {
    pub fn new(host: Host, address: SocketAddr, connect_max: Duration) -> Self {
        Self { host, address, connect_max, reached: AtomicBool::new(false) }
    }

    /// Whether it ever took a connection.
    pub fn reached(&self) -> bool {
        self.reached.load(Ordering::Acquire)
    }

    async fn dial(&self, resolver: &CheckedResolver) -> Result<TcpStream, BoxError> {
        resolver.recheck(&self.host, self.address.ip()).await?;
        let connecting = TcpStream::connect(self.address);
        let stream = timeout(self.connect_max, connecting).await.map_err(|_| ConnectTimeout)??;
        self.reached.store(true, Ordering::Release);
        stream.set_nodelay(true)?;
        Ok(stream)
    }
}

/// What a request says to the connection that is made for it, and hears from it.
#[derive(Clone, Debug)]
pub struct Attempt {
    destination: Arc<Destination>,
    /// Name lookup, connection and handshake are over by then.
    connected_by: Instant,
    /// Cancelled with the request. The client leaves a connection that it has begun to a task, where another comes free
    /// first: what nobody waits for any more must not stay at the host for as long as the host likes.
    over: CancellationToken,
    notes: Arc<Notes>,
}

#[derive(Debug, Default)]
struct Notes {
    stage: AtomicU8,
    heard: OnceLock<Failure>,
    /// Which connection carries the request, once that is known; an earlier request may have made it.
    carrier: OnceLock<CaptureConnection>,
}

/// Cancelled when the connection is closed.
#[derive(Clone)]
struct Closed(CancellationToken);

/// How far the connection of a request came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Not connected, or over a connection that an earlier request made.
    None = 0,
    Handshake = 1,
    Secured = 2,
}

impl Attempt {
    pub fn new(destination: Arc<Destination>, connected_by: Instant) -> Self {
        Self { destination, connected_by, over: CancellationToken::new(), notes: Arc::default() }
    }

    /// Runs a request whose connection, if it makes one, belongs to this attempt.
    pub async fn scope<F: Future>(self, request: F) -> F::Output {
        let _over = self.over.clone().drop_guard();
        ATTEMPT.scope(self, request).await
    }

    pub fn stage(&self) -> Stage {
        match self.notes.stage.load(Ordering::Acquire) {
            0 => Stage::None,
            1 => Stage::Handshake,
            _ => Stage::Secured,
        }
    }

    /// Learns which connection carries the request.
    pub fn follow<B>(&self, request: &mut Request<B>) {
        // A request belongs to one attempt.
        let _ = self.notes.carrier.set(capture_connection(request));
    }

    /// Waits, for a moment at most, until the connection of a request that was given up is closed: it ends in a task of
    /// its own, and a host would see the next request beside this one.
    pub async fn closed(&self) {
        let mut extras = Extensions::new();
        if let Some(carrier) = self.notes.carrier.get()
            && let Some(connection) = carrier.connection_metadata().as_ref()
        {
            connection.get_extras(&mut extras);
        }
        if let Some(Closed(closed)) = extras.remove() {
            let _ = timeout(CLOSING_MAX, closed.cancelled()).await;
        }
    }

    /// What the connection itself tells of why it failed, if it does.
    pub fn heard(&self) -> Option<Failure> {
        self.notes.heard.get().copied()
    }
}

impl Notes {
    fn reached(&self, stage: Stage) {
        self.stage.store(stage as u8, Ordering::Release);
    }

    fn hear(&self, failure: Failure) {
        // The first is the cause of those that follow.
        let _ = self.heard.set(failure);
    }
}

/// Connection, or handshake, took longer than the attempt allows.
#[derive(Debug, thiserror::Error)]
#[error("not connected in time")]
pub struct ConnectTimeout;

/// Makes connections with one configuration of TLS.
#[derive(Clone)]
pub struct Connector {
    resolver: CheckedResolver,
    tls: TlsConnector,
    /// In place of the name in the URL.
    server_name: Option<ServerName<'static>>,
}

impl Connector {
    pub fn new(
        resolver: CheckedResolver,
        tls: ClientConfig,
        server_name: Option<ServerName<'static>>,
    ) -> Self {
        Self { resolver, tls: TlsConnector::from(Arc::new(tls)), server_name }
    }

    async fn connect(mut self, url: Uri, attempt: Attempt) -> Result<TokioIo<HostStream>, BoxError> {
        let name = match url.scheme() {
            Some(scheme) if *scheme == Scheme::HTTPS => Some(match self.server_name.take() {
                Some(name) => name,
                None => name_in(&url)?,
            }),
            _ => None,
        };
        let tcp = attempt.destination.dial(&self.resolver).await?;
        let notes = attempt.notes;
        let inner = match name {
            None => Inner::Plain { stream: tcp, unread: true },
            Some(name) => {
                notes.reached(Stage::Handshake);
                let stream = self.tls.connect(name, tcp).await?;
                notes.reached(Stage::Secured);
                Inner::Tls(Box::new(stream))
            }
        };
        let closed = CancellationToken::new().drop_guard();
        Ok(TokioIo::new(HostStream { inner, notes, closed }))
    }
}

/// The name in a URL as TLS takes it; the brackets of an IPv6 address are the URL's.
fn name_in(url: &Uri) -> Result<ServerName<'static>, BoxError> {
    let host = url.host().unwrap_or_default();
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    Ok(ServerName::try_from(host.to_owned())?)
}

impl Service<Uri> for Connector {
    type Response = TokioIo<HostStream>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, url: Uri) -> Self::Future {
        let (connector, attempt) = (self.clone(), ATTEMPT.try_with(Clone::clone));
        Box::pin(async move {
            let attempt = attempt?;
            let (over, by) = (attempt.over.clone(), attempt.connected_by);
            let connecting = timeout_at(by, connector.connect(url, attempt));
            over.run_until_cancelled(connecting).await.ok_or(ConnectTimeout)?.map_err(|_| ConnectTimeout)?
        })
    }
}

/// A connection to a host.
pub struct HostStream {
    inner: Inner,
    notes: Arc<Notes>,
    closed: DropGuard,
}

enum Inner {
    Plain { stream: TcpStream, unread: bool },
    Tls(Box<TlsStream<TcpStream>>),
}

impl AsyncRead for HostStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let begin = buffer.filled().len();
        match &mut this.inner {
            Inner::Plain { stream, unread } => {
                let read = Pin::new(stream).poll_read(context, buffer);
                if let Some(first) = buffer.filled().get(begin)
                    && std::mem::take(unread)
                    && *first == TLS_ALERT
                {
                    this.notes.hear(Failure::TlsWanted);
                }
                read
            }
            Inner::Tls(stream) => {
                let read = Pin::new(stream.as_mut()).poll_read(context, buffer);
                if let Poll::Ready(Err(error)) = &read
                    && let Some(failure) = Failure::from_tls(error)
                {
                    this.notes.hear(failure);
                }
                read
            }
        }
    }
}

impl AsyncWrite for HostStream {
    fn poll_write(self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match &mut self.get_mut().inner {
            Inner::Plain { stream, .. } => Pin::new(stream).poll_write(context, bytes),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_write(context, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Plain { stream, .. } => Pin::new(stream).poll_flush(context),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match &mut self.get_mut().inner {
            Inner::Plain { stream, .. } => Pin::new(stream).poll_shutdown(context),
            Inner::Tls(stream) => Pin::new(stream.as_mut()).poll_shutdown(context),
        }
    }
}

impl Connection for HostStream {
    fn connected(&self) -> Connected {
        Connected::new().extra(Closed(self.closed.token().clone()))
    }
}
