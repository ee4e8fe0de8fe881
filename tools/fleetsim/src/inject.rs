//! Performs one answer on the wire, as well or as badly as the fault says.
//!
//! Decides nothing about which fault applies. Every wait ends when the peer
//! closes, so that a client which gave up is not counted as being served.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use tokio::time::sleep;

use crate::conn::Conn;
use crate::fault::{Fault, Mode, Stage};
use crate::http::{Answer, Framing, Request};
use crate::ollama::Moment;
use crate::state::{HostState, Port};
use crate::stats::HostStats;
use crate::{agent, distort, ollama, weird};

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Next {
    /// It waits for the next request.
    Keep,
    /// It is closed.
    Close,
    /// It is broken off with RST.
    Reset,
}

/// Everything about one request and its answer.
pub struct Exchange<'a> {
    /// The connection.
    pub conn: &'a Arc<Conn>,
    /// To tell when the answer is complete.
    pub stats: &'a HostStats,
    /// Which port.
    pub port: Port,
    /// The host's state when the request came.
    pub state: &'a HostState,
    /// What is wrong.
    pub fault: &'a Fault,
    /// The request.
    pub request: &'a Request,
    /// Time and chance.
    pub moment: Moment,
}

/// A fault that needs no request: the connection ends in any case.
pub async fn before_request(conn: &Conn, fault: &Fault) -> io::Result<Next> {
    if !delay(conn, fault.latency_ms.unwrap_or(0)).await {
        return Ok(Next::Close);
    }
    match fault.mode {
        Mode::Banner => {
            conn.write(weird::BANNER).await?;
            conn.closed().await;
            Ok(Next::Close)
        }
        Mode::Hang => {
            conn.closed().await;
            Ok(Next::Close)
        }
        _ => Ok(Next::Reset),
    }
}

/// Waits; false if the peer closed before the time was over.
async fn delay(conn: &Conn, ms: u64) -> bool {
    if ms == 0 {
        return true;
    }
    tokio::select! {
        () = sleep(Duration::from_millis(ms)) => true,
        () = conn.closed() => false,
    }
}

impl Exchange<'_> {
    /// Answers.
    pub async fn perform(&self) -> io::Result<Next> {
        let fault = self.fault;
        if fault.before_request() {
            return before_request(self.conn, fault).await;
        }
        if !delay(self.conn, fault.latency_ms.unwrap_or(0)).await {
            return Ok(Next::Close);
        }
        match fault.mode {
            Mode::ResetMidBody => {
                self.half().await?;
                Ok(Next::Reset)
            }
            Mode::Hang => {
                if fault.stage() == Stage::Headers {
                    self.conn.write(b"HTTP/1.1 200 OK\r\n").await?;
                } else {
                    self.half().await?;
                }
                self.conn.closed().await;
                Ok(Next::Close)
            }
            Mode::Drip => self.drip().await,
            Mode::Huge => self.huge().await,
            Mode::ManyModels => self.many().await,
            _ => self.send(&self.answer()).await,
        }
    }

    /// The answer, distorted in content only.
    fn answer(&self) -> Answer {
        match self.fault.mode {
            Mode::ControlChars => self.plain(&distort::control_chars(self.state)),
            _ => distort::answer(self.fault, self.plain(self.state), self),
        }
    }

    fn plain(&self, state: &HostState) -> Answer {
        if let Some(wanted) = state.wanted_authorization(self.port)
            && !self.request.authorization.as_ref().is_some_and(|sent| sent.is(wanted))
        {
            self.stats.refused();
            return Answer::text(401, "unauthorized");
        }
        match self.port {
            Port::Ollama => ollama::answer(state, self.request, &self.moment),
            Port::Agent => agent::answer(state, self.request, &self.moment),
        }
    }

    fn date(&self) -> Option<Timestamp> {
        let quirks = &self.state.quirks;
        let skew = SignedDuration::from_secs(quirks.date_skew_seconds);
        (!quirks.no_date).then(|| self.moment.now.checked_add(skew).unwrap_or(self.moment.now))
    }

    fn head(&self, answer: &Answer, framing: Framing) -> Vec<u8> {
        answer.head(framing, self.date(), self.request.keep_alive)
    }

    fn after(&self) -> Next {
        if self.request.keep_alive { Next::Keep } else { Next::Close }
    }

    /// Head and body with the body's length.
    fn whole(&self, answer: &Answer) -> Vec<u8> {
        let mut bytes = self.head(answer, Framing::Length(answer.body.len() as u64));
        if !self.request.is_head() {
            bytes.extend_from_slice(&answer.body);
        }
        bytes
    }

    async fn send(&self, answer: &Answer) -> io::Result<Next> {
        self.finish(&self.whole(answer)).await?;
        Ok(self.after())
    }

    /// Writes the end of an answer. The request stops counting before the last
    /// bytes go out, not after: the client may send its next one at once.
    async fn finish(&self, bytes: &[u8]) -> io::Result<()> {
        let tail = bytes.len().saturating_sub(4096);
        self.conn.write(&bytes[..tail]).await?;
        self.stats.end(self.port, self.conn);
        self.conn.write(&bytes[tail..]).await
    }

    /// The head and half of the body.
    async fn half(&self) -> io::Result<()> {
        let answer = self.plain(self.state);
        let mut bytes = self.head(&answer, Framing::Length(answer.body.len() as u64));
        bytes.extend_from_slice(&answer.body[..answer.body.len() / 2]);
        self.conn.write(&bytes).await
    }

    async fn drip(&self) -> io::Result<Next> {
        let answer = self.plain(self.state);
        let bytes = self.whole(&answer);
        let at_once = match self.fault.stage() {
            Stage::Body if !self.request.is_head() => bytes.len() - answer.body.len(),
            _ => 0,
        };
        self.conn.write(&bytes[..at_once]).await?;
        for (position, byte) in bytes.iter().enumerate().skip(at_once) {
            if !delay(self.conn, self.fault.every_ms.unwrap_or(1000)).await {
                return Ok(Next::Close);
            }
            if position + 1 == bytes.len() {
                self.stats.end(self.port, self.conn);
            }
            self.conn.write(std::slice::from_ref(byte)).await?;
        }
        Ok(self.after())
    }

    /// A body without end, or nearly so, from one small buffer.
    async fn huge(&self) -> io::Result<Next> {
        let framing = match (self.fault.chunked, self.fault.bytes) {
            (Some(true), _) => Framing::Chunked,
            (_, Some(bytes)) => Framing::Length(bytes),
            _ => Framing::UntilClose,
        };
        let head = self.head(&Answer::json(Vec::new()), framing);
        self.conn.write(&head).await?;
        if self.request.is_head() {
            return Ok(Next::Close);
        }
        let mut left = self.fault.bytes.unwrap_or(u64::MAX);
        let mut piece = distort::HUGE_START.to_vec();
        piece.resize(16 * 1024, b'a');
        while left > 0 {
            piece.truncate(usize::try_from(left).unwrap_or(usize::MAX).max(1));
            left -= piece.len() as u64;
            if left == 0 && framing != Framing::Chunked {
                self.stats.end(self.port, self.conn);
            }
            self.piece(framing, &piece).await?;
            piece.fill(b'a');
        }
        self.piece(framing, b"").await?;
        // What was announced as endless or long is not worth a second request.
        Ok(Next::Close)
    }

    /// A long list, made while it is written.
    async fn many(&self) -> io::Result<Next> {
        let head = self.head(&Answer::json(Vec::new()), Framing::Chunked);
        let count = self.fault.count.unwrap_or(20_000);
        let Some(list) = distort::LongList::of(self.port, &self.request.path) else {
            return self.send(&self.plain(self.state)).await;
        };
        self.conn.write(&head).await?;
        if self.request.is_head() {
            return Ok(self.after());
        }
        let mut piece = list.prefix().as_bytes().to_vec();
        for number in 0..count {
            list.entry(number, &mut piece);
            if piece.len() > 16 * 1024 {
                self.piece(Framing::Chunked, &piece).await?;
                piece.clear();
            }
        }
        piece.extend_from_slice(list.suffix().as_bytes());
        self.piece(Framing::Chunked, &piece).await?;
        self.piece(Framing::Chunked, b"").await?;
        Ok(self.after())
    }

    /// One part of a streamed body; an empty one is its end.
    async fn piece(&self, framing: Framing, bytes: &[u8]) -> io::Result<()> {
        if framing == Framing::Chunked {
            let mut chunk = format!("{:x}\r\n", bytes.len()).into_bytes();
            chunk.extend_from_slice(bytes);
            chunk.extend_from_slice(b"\r\n");
            if bytes.is_empty() {
                self.stats.end(self.port, self.conn);
            }
            return self.conn.write(&chunk).await;
        }
        self.conn.write(bytes).await
    }
}
