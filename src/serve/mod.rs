//! The HTTP listeners: one for probes, plain, and one for everything that needs a login, behind TLS.
//!
//! - `listener` binds sockets and bounds connections; `tls` has the certificate.
//! - `health` answers probes. `routes` answers everybody else, after `origin` (which Host and page) and `auth`
//!   (which token; `review` asks the apiserver, `budget` says how often, `cache` remembers) have agreed.
//! - `fleet` has the paths that show servers and plugins; nothing else here knows them.
//! - `problem` is the shape of every refusal.
//!
//! What is served comes in as closures and handles, and is only read.

mod auth;
mod budget;
mod cache;
mod fleet;
mod health;
mod listener;
mod origin;
mod problem;
mod review;
mod routes;
mod tls;

#[cfg(test)]
mod tests;

pub use fleet::Shown;
pub use origin::parse_host;
pub use routes::Metrics;
pub use tls::TlsError;

use crate::{
    args::{ApiAuth, ServeArgs},
    runtime::{Readiness, Watchdog},
};
use auth::Authorizer;
use axum::{Router, extract::connect_info::IntoMakeServiceWithConnectInfo};
use axum_server::{Handle, Server, tls_rustls::RustlsAcceptor};
use hyper_util::rt::TokioTimer;
use listener::{BoundedListener, Peer};
use origin::Hosts;
use std::{io, net::SocketAddr, time::Duration};
use tls::{CertFiles, Certificate};
use tokio_util::sync::CancellationToken;

/// A few scrapers and people; each costs some 100 KiB, so all of them fit the memory limit.
const MAIN_CONNECTIONS: usize = 64;

/// The kubelet has at most three probes in flight; the rest is for people who look.
const HEALTH_CONNECTIONS: usize = 32;

/// Who connects and says nothing holds one of the few places. Also the time that an idle connection is kept.
const HEADER_DEADLINE: Duration = Duration::from_secs(10);

/// Shorter where strangers could otherwise crowd out the kubelet, whose probes give up after 3 s themselves.
const HEALTH_HEADER_DEADLINE: Duration = Duration::from_secs(3);

/// A connection's read and write buffers. Headers fit with the longest token that is accepted, three times over.
const CONNECTION_BUFFER: usize = 64 * 1024;

/// For answers in flight when the process ends; less than the 5 s that everything has.
const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

#[derive(Debug, thiserror::Error)]
pub enum ServeError {
    #[error("--{flag}: cannot listen on {address}: {source}")]
    Bind { flag: &'static str, address: SocketAddr, source: io::Error },
    #[error(
        "--api-auth=none lets everybody read, so --listen must be a loopback address, 127.0.0.1:8443 for example, \
         and not {address}"
    )]
    OpenToAll { address: SocketAddr },
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Both listeners, bound and ready to serve.
pub struct Serving {
    health: Bound,
    main: Bound,
    /// None: plain HTTP, on a loopback address.
    certificate: Option<Certificate>,
}

struct Bound {
    name: &'static str,
    socket: std::net::TcpListener,
    address: SocketAddr,
    router: Router,
    connections: usize,
    header_deadline: Duration,
}

/// Where the listeners are, which differs from what was asked for with port 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalAddrs {
    pub health: SocketAddr,
    pub main: SocketAddr,
    /// Whether the main listener speaks TLS.
    pub tls: bool,
}

impl Serving {
    /// Binds both listeners and reads or makes the certificate, so that what is wrong is known before anything
    /// starts. To be called inside a runtime.
    pub fn bind(
        args: &ServeArgs,
        client: kube::Client,
        readiness: Readiness,
        watchdog: Watchdog,
        metrics: Metrics,
        shown: Shown,
    ) -> Result<Self, ServeError> {
        let loopback = args.listen.ip().to_canonical().is_loopback();
        if args.api_auth == ApiAuth::None && !loopback {
            return Err(ServeError::OpenToAll { address: args.listen });
        }
        let certificate = match (&args.tls_cert_file, &args.tls_key_file) {
            (Some(cert), Some(key)) => {
                Some(Certificate::from_files(CertFiles { cert: cert.clone(), key: key.clone() })?)
            }
            _ if loopback => None,
            _ => Some(Certificate::self_signed(client.default_namespace())?),
        };
        let authorizer = match args.api_auth {
            ApiAuth::None => Authorizer::Open,
            ApiAuth::Kubernetes => Authorizer::kubernetes(client),
        };
        let default_port = if certificate.is_some() { 443 } else { 80 };
        let health = health::router(readiness, watchdog);
        let hosts = Hosts::new(default_port, &args.allowed_hosts);
        let main = routes::router(metrics, shown, authorizer, hosts);
        Ok(Self {
            health: Bound::new(
                "health-listen",
                args.health_listen,
                health,
                HEALTH_CONNECTIONS,
                HEALTH_HEADER_DEADLINE,
            )?,
            main: Bound::new("listen", args.listen, main, MAIN_CONNECTIONS, HEADER_DEADLINE)?,
            certificate,
        })
    }

    pub fn local_addrs(&self) -> LocalAddrs {
        LocalAddrs { health: self.health.address, main: self.main.address, tls: self.certificate.is_some() }
    }

    /// Serves until told to stop, then lets answers in flight finish for a short while.
    pub async fn run(self, shutdown: CancellationToken) {
        let Self { health, main, certificate } = self;
        let tls = certificate.as_ref().map(|certificate| certificate.config.clone());
        let fresh = async {
            match certificate {
                Some(certificate) => certificate.keep_fresh().await,
                None => std::future::pending().await,
            }
        };
        let serving = async {
            tokio::join!(
                health
                    .serve(&shutdown, |server, router| server.http1_only().serve(router.into_make_service())),
                async {
                    match tls {
                        Some(config) => {
                            let acceptor = RustlsAcceptor::new(config).handshake_timeout(HEADER_DEADLINE);
                            main.serve(&shutdown, |server, router| {
                                server.acceptor(acceptor).http1_only().serve(with_peer(router))
                            })
                            .await;
                        }
                        None => {
                            main.serve(&shutdown, |server, router| {
                                server.http1_only().serve(with_peer(router))
                            })
                            .await;
                        }
                    }
                }
            )
        };
        tokio::select! {
            _ = serving => {}
            () = fresh => {}
        }
    }
}

/// Requests come with the address of their connection.
fn with_peer(router: Router) -> IntoMakeServiceWithConnectInfo<Router, Peer> {
    router.into_make_service_with_connect_info()
}

impl Bound {
    fn new(
        flag: &'static str,
        address: SocketAddr,
        router: Router,
        connections: usize,
        header_deadline: Duration,
    ) -> Result<Self, ServeError> {
        let bind = || {
            let socket = listener::bind(address)?;
            let address = socket.local_addr()?;
            Ok((socket, address))
        };
        let (socket, address) = bind().map_err(|source| ServeError::Bind { flag, address, source })?;
        Ok(Self { name: flag, socket, address, router, connections, header_deadline })
    }

    /// Serves with what `start` makes of the server, until told to stop.
    async fn serve<F>(self, shutdown: &CancellationToken, start: impl FnOnce(Server<Peer>, Router) -> F)
    where
        F: Future<Output = io::Result<()>>,
    {
        let Self { name, socket, address, router, connections, header_deadline } = self;
        let handle = Handle::new();
        let served = async {
            let listener = BoundedListener::new(socket, connections)?;
            let mut server = Server::from_listener(listener).handle(handle.clone());
            server
                .http_builder()
                .http1()
                .timer(TokioTimer::new())
                .header_read_timeout(header_deadline)
                .max_buf_size(CONNECTION_BUFFER);
            tracing::debug!(flag = name, %address, "listening");
            start(server, router).await
        };
        tokio::pin!(served);
        let ended = tokio::select! {
            ended = &mut served => ended,
            () = shutdown.cancelled() => {
                handle.graceful_shutdown(Some(SHUTDOWN_GRACE));
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::error!(flag = name, %address, %error, "the listener ended");
        }
    }
}
