//! Hosts that speak TLS, or something else where TLS is expected, and what they have witnessed. Their certificates are
//! made by the test.

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
};
use rustls::{
    HandshakeKind, RootCertStore, ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
    server::{Acceptor, WebPkiClientVerifier},
    version::{TLS12, TLS13},
};
use std::{
    net::SocketAddr,
    ops::Range,
    sync::{Arc, Mutex},
    time::{Duration, Instant, SystemTime},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};
use tokio_rustls::LazyConfigAcceptor;

/// First byte of a TLS record of a handshake: what a client that speaks TLS begins with.
const HANDSHAKE: u8 = 0x16;
const DAY: Duration = Duration::from_hours(24);

/// Who signs certificates. Each has a name of its own, as real ones do.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// `ca.crt`.
    pub fn pem(&self) -> String {
        self.issuer.pem()
    }

    pub fn issue(&self, names: &[&str]) -> Leaf {
        // An hour back, because clocks differ.
        self.issue_for(names, -1..30)
    }

    /// Valid from and until that many days from now.
    pub fn issue_for(&self, names: &[&str], days: Range<i32>) -> Leaf {
        let key = KeyPair::generate().unwrap();
        let certificate = params(names, days).signed_by(&key, &self.issuer).unwrap();
        Leaf { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    fn roots(&self) -> Arc<RootCertStore> {
        let mut roots = RootCertStore::empty();
        roots.add(self.issuer.der().clone()).unwrap();
        Arc::new(roots)
    }
}

/// A certificate and its key.
pub struct Leaf {
    pub pem: String,
    der: CertificateDer<'static>,
    key: KeyPair,
}

impl Leaf {
    pub fn self_signed(names: &[&str]) -> Self {
        Self::of_itself(&params(names, -1..30))
    }

    /// Self-signed, and an authority's, as `openssl req -x509` makes it.
    pub fn authority(names: &[&str]) -> Self {
        let mut params = params(names, -1..30);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self::of_itself(&params)
    }

    fn of_itself(params: &CertificateParams) -> Self {
        let key = KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        Self { pem: certificate.pem(), der: certificate.der().clone(), key }
    }

    /// `tls.key`.
    pub fn key_pem(&self) -> String {
        self.key.serialize_pem()
    }
}

fn params(names: &[&str], days: Range<i32>) -> CertificateParams {
    let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(names).unwrap();
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    let at = |days: i32| {
        let now = SystemTime::now();
        let far = DAY * days.unsigned_abs();
        if days < 0 { now - far } else { now + far }
    };
    params.not_before = at(days.start).into();
    params.not_after = at(days.end).into();
    params
}

/// How TLS is spoken.
pub struct Secured<'a> {
    pub leaf: &'a Leaf,
    /// Whose client certificates are let in; `None`: nobody needs one.
    pub clients: Option<&'a Authority>,
    pub tls12_only: bool,
}

impl<'a> Secured<'a> {
    pub fn by(leaf: &'a Leaf) -> Self {
        Self { leaf, clients: None, tls12_only: false }
    }

    fn config(&self) -> Arc<ServerConfig> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let versions = if self.tls12_only { &[&TLS12][..] } else { &[&TLS13, &TLS12] };
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_protocol_versions(versions)
            .unwrap();
        let builder = match self.clients {
            None => builder.with_no_client_auth(),
            Some(authority) => builder.with_client_cert_verifier(
                WebPkiClientVerifier::builder_with_provider(authority.roots(), provider).build().unwrap(),
            ),
        };
        let key = PrivateKeyDer::try_from(self.leaf.key.serialize_der()).unwrap();
        Arc::new(builder.with_single_cert(vec![self.leaf.der.clone()], key).unwrap())
    }
}

/// What a host does with a connection.
#[derive(Clone)]
pub enum Way {
    /// Speaks TLS, and Ollama's API in it.
    Tls(Arc<ServerConfig>),
    /// Says nothing at all.
    Silent,
    /// Closes as soon as it has heard something.
    Closes,
    /// Says this to whatever it hears.
    Says(&'static [u8]),
}

impl From<Secured<'_>> for Way {
    fn from(secured: Secured<'_>) -> Self {
        Self::Tls(secured.config())
    }
}

/// What a host has seen.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    pub connections: u64,
    /// Connections that began with something else than TLS.
    pub plain: u64,
    /// Handshakes that were finished, and those among them that took up an older session.
    pub handshakes: u64,
    pub resumed: u64,
    /// The names that were asked for, newest last; `None` for none.
    pub names: Vec<Option<String>>,
    /// Requests, by when they came.
    pub requests: Vec<Instant>,
    /// The Host headers of the requests.
    pub hosts: Vec<String>,
}

/// A host; it ends with the test.
pub struct TlsHost {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    task: JoinHandle<()>,
}

struct Shared {
    way: Mutex<Way>,
    seen: Mutex<Seen>,
}

impl TlsHost {
    pub async fn start(way: impl Into<Way>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared { way: Mutex::new(way.into()), seen: Mutex::default() });
        let task = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, task }
    }

    /// As in `spec.host`.
    pub fn https(&self) -> String {
        format!("https://{}", self.address)
    }

    /// Does otherwise with the connections to come.
    pub fn set(&self, way: impl Into<Way>) {
        *self.shared.way.lock().unwrap() = way.into();
    }

    pub fn seen(&self) -> Seen {
        self.shared.seen.lock().unwrap().clone()
    }
}

impl Drop for TlsHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = Arc::clone(&shared);
        tokio::spawn(async move { serve(stream, &shared).await });
    }
}

impl Shared {
    fn note(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.seen.lock().unwrap());
    }
}

async fn serve(mut stream: TcpStream, shared: &Shared) -> std::io::Result<()> {
    shared.note(|seen| seen.connections += 1);
    let way = shared.way.lock().unwrap().clone();
    let mut first = [0];
    if stream.peek(&mut first).await? > 0 && first[0] != HANDSHAKE {
        shared.note(|seen| seen.plain += 1);
    }
    match way {
        Way::Silent => until_closed(stream).await,
        Way::Closes => {
            let mut heard = [0; 4096];
            stream.read(&mut heard).await.map(|_| ())
        }
        Way::Says(bytes) => {
            let mut heard = [0; 4096];
            if stream.read(&mut heard).await? == 0 {
                return Ok(());
            }
            stream.write_all(bytes).await?;
            stream.shutdown().await?;
            until_closed(stream).await
        }
        Way::Tls(config) => {
            let begun = LazyConfigAcceptor::new(Acceptor::default(), &mut stream).await?;
            let name = begun.client_hello().server_name().map(str::to_owned);
            shared.note(|seen| seen.names.push(name));
            let Ok(mut secure) = begun.into_stream(config).await else {
                // Closing with unread input would be a reset, which takes away the alert that tells why.
                stream.shutdown().await?;
                return until_closed(stream).await;
            };
            let kind = secure.get_ref().1.handshake_kind();
            shared.note(|seen| {
                seen.handshakes += 1;
                seen.resumed += u64::from(kind == Some(HandshakeKind::Resumed));
            });
            // What a client sends with its refused certificate is an error here; the alert goes out with it.
            let _ = api(&mut secure, shared).await;
            let _ = secure.shutdown().await;
            until_closed(stream).await
        }
    }
}

async fn until_closed(mut stream: TcpStream) -> std::io::Result<()> {
    let mut heard = [0; 4096];
    while stream.read(&mut heard).await? > 0 {}
    Ok(())
}

/// Ollama's API, as far as a poll needs it.
async fn api(mut stream: impl AsyncRead + AsyncWrite + Unpin, shared: &Shared) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    loop {
        let end = loop {
            if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
                break end;
            }
            if stream.read_buf(&mut bytes).await? == 0 {
                return Ok(());
            }
        };
        let head = String::from_utf8_lossy(&bytes[..end]).into_owned();
        bytes.drain(..end + 4);
        let host =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("host: ").map(str::to_owned));
        shared.note(|seen| {
            seen.requests.push(Instant::now());
            seen.hosts.extend(host);
        });
        let body = match head.split(' ').nth(1) {
            Some("/api/version") => r#"{"version":"0.24.0"}"#,
            _ => r#"{"models":[]}"#,
        };
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.write_all(answer.as_bytes()).await?;
        stream.flush().await?;
    }
}
