//! A host that is a socket and a script: what no HTTP server would send.

use std::{
    future::Future,
    net::{Ipv4Addr, SocketAddr},
    pin::Pin,
    process,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

type Talk = Pin<Box<dyn Future<Output = std::io::Result<()>> + Send>>;
/// What is done with one connection.
pub type Script = Arc<dyn Fn(Connection) -> Talk + Send + Sync>;

/// One connection to a host.
pub struct Connection {
    pub stream: TcpStream,
    /// How many came before it.
    pub number: usize,
    sent: Arc<AtomicU64>,
}

/// A listening socket on an address of its own; it ends with the test.
pub struct RawHost {
    pub address: SocketAddr,
    accepted: Arc<AtomicUsize>,
    sent: Arc<AtomicU64>,
    task: JoinHandle<()>,
}

impl RawHost {
    pub async fn start(script: Script) -> Self {
        Self::at((free_address(), 0).into(), script).await
    }

    pub async fn at(address: SocketAddr, script: Script) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (accepted, sent) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicU64::new(0)));
        let counts = (Arc::clone(&accepted), Arc::clone(&sent));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let number = counts.0.fetch_add(1, Ordering::Relaxed);
                let connection = Connection { stream, number, sent: Arc::clone(&counts.1) };
                tokio::spawn(script(connection));
            }
        });
        Self { address, accepted, sent, task }
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::Relaxed)
    }

    /// Bytes that the kernel has taken so far.
    pub fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }
}

impl Drop for RawHost {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Between 127.2.0.1 and 127.19.255.254: below the addresses of simulated fleets.
pub fn free_address() -> Ipv4Addr {
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(process::id().wrapping_mul(997)));
    let number = NEXT.fetch_add(1, Ordering::Relaxed) % (18 * 254 * 254);
    let part = |number: u32, base: u32| u8::try_from(number + base).unwrap();
    Ipv4Addr::new(127, part(number / (254 * 254), 2), part(number / 254 % 254, 1), part(number % 254, 1))
}

impl Connection {
    /// The next request's first line and headers; `None` at the end of the connection.
    pub async fn request(&mut self) -> std::io::Result<Option<String>> {
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            let mut byte = [0];
            if self.stream.read(&mut byte).await? == 0 {
                return Ok(None);
            }
            head.push(byte[0]);
        }
        Ok(Some(String::from_utf8_lossy(&head).into_owned()))
    }

    pub async fn send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        for piece in bytes.chunks(64 << 10) {
            self.stream.write_all(piece).await?;
            self.sent.fetch_add(piece.len() as u64, Ordering::Relaxed);
        }
        Ok(())
    }

    /// Nothing more, in order: what was sent arrives.
    pub async fn finish(mut self) -> std::io::Result<()> {
        self.stream.shutdown().await?;
        self.ignore().await
    }

    /// The end at once, with a reset.
    pub fn reset(self) -> std::io::Result<()> {
        self.stream.set_zero_linger()
    }

    /// Reads and throws away until the other side has had enough.
    pub async fn ignore(&mut self) -> std::io::Result<()> {
        let mut buffer = [0; 4096];
        while self.stream.read(&mut buffer).await? > 0 {}
        Ok(())
    }
}

/// Does this with each connection.
pub fn script<F, T>(talk: F) -> Script
where
    F: Fn(Connection) -> T + Send + Sync + 'static,
    T: Future<Output = std::io::Result<()>> + Send + 'static,
{
    Arc::new(move |connection| Box::pin(talk(connection)))
}

/// Answers these bytes to the first request, and ends.
pub fn says(bytes: impl Into<Vec<u8>>) -> Script {
    let bytes: Arc<[u8]> = bytes.into().into();
    script(move |mut connection| {
        let bytes = Arc::clone(&bytes);
        async move {
            connection.request().await?;
            connection.send(&bytes).await?;
            connection.finish().await
        }
    })
}

/// Answers these bytes, and then these others again and again, at some 20 MB/s or one piece in this time.
pub fn says_without_end(first: impl Into<Vec<u8>>, rest: &'static [u8], pause: Option<Duration>) -> Script {
    let first: Arc<[u8]> = first.into().into();
    script(move |mut connection| {
        let first = Arc::clone(&first);
        async move {
            connection.request().await?;
            connection.send(&first).await?;
            let piece = if pause.is_some() { rest.to_vec() } else { rest.repeat((20 << 10) / rest.len()) };
            // Without a pause it is a flood for its reader that leaves the test a core to look at it.
            let mut pace = tokio::time::interval(pause.unwrap_or(Duration::from_millis(1)));
            loop {
                pace.tick().await;
                connection.send(&piece).await?;
            }
        }
    })
}
