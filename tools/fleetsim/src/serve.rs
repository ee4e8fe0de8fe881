//! Serves one accepted connection, request after request.
//!
//! Looks up the state anew for every request, and watches for changes while a
//! fault is being performed.

use std::io;
use std::pin::pin;
use std::sync::Arc;

use tokio::net::TcpStream;

use crate::conn::Conn;
use crate::fault::Fault;
use crate::fleet::{Fleet, Host};
use crate::http::{self, Answer, Framing, Request};
use crate::inject::{self, Exchange, Next};
use crate::state::{HostState, Port};

/// Longest request body that is read and thrown away.
const MAX_REQUEST_BODY: u64 = 1 << 20;

/// Serves until either side is done.
pub async fn serve(fleet: Arc<Fleet>, index: usize, port: Port, stream: TcpStream) {
    let host = &fleet.hosts[index];
    let seen = host.resets(port);
    let conn = Arc::new(Conn::new(stream));
    host.stats.open(port, &conn);
    let visit = Visit { fleet: &fleet, host, index, port, seen, conn: &conn };
    let end = visit.talk().await;
    // Before the close itself: what comes after it must not meet old figures.
    host.stats.close(port, &conn);
    if matches!(end, Ok(Next::Reset)) {
        conn.reset();
    }
}

struct Visit<'a> {
    fleet: &'a Fleet,
    host: &'a Host,
    index: usize,
    port: Port,
    /// The count of resets when the connection came.
    seen: u32,
    conn: &'a Arc<Conn>,
}

impl Visit<'_> {
    async fn talk(&self) -> io::Result<Next> {
        let state = self.host.state();
        if let Some(fault) = state.connection_fault(self.port) {
            self.host.stats.begin(self.port, self.conn);
            let now = |state: &HostState| state.connection_fault(self.port) == Some(fault);
            return self.while_so(now, inject::before_request(self.conn, fault)).await;
        }
        drop(state);
        let mut bytes = Vec::new();
        loop {
            let Some(request) = self.while_so(|_| true, self.request(&mut bytes)).await? else {
                return Ok(self.end());
            };
            self.host.stats.begin(self.port, self.conn);
            let moment = self.fleet.moment(self.index);
            self.host.stats.arrived(self.port, &request, moment.now);
            let state = self.host.state();
            let fault = state.fault(self.port, &request.path);
            let exchange = Exchange {
                conn: self.conn,
                stats: &self.host.stats,
                port: self.port,
                state: &state,
                fault,
                request: &request,
                moment,
            };
            let next = if fault.is_none() {
                exchange.perform().await?
            } else {
                let now = |now: &HostState| self.same(now, &request, fault);
                self.while_so(now, exchange.perform()).await?
            };
            if next != Next::Keep {
                return Ok(next);
            }
            self.host.stats.end(self.port, self.conn);
        }
    }

    fn same(&self, now: &HostState, request: &Request, fault: &Fault) -> bool {
        now.fault(self.port, &request.path) == fault
    }

    /// Broken off, or just over.
    fn end(&self) -> Next {
        if self.host.resets(self.port) == self.seen { Next::Close } else { Next::Reset }
    }

    /// Does the work for as long as the host's state allows it.
    async fn while_so<T: From<Ended>>(
        &self,
        so: impl Fn(&HostState) -> bool,
        work: impl Future<Output = io::Result<T>>,
    ) -> io::Result<T> {
        let mut work = pin!(work);
        loop {
            let mut changed = pin!(self.host.changed.notified());
            // Listens before it looks, so that no change falls in between.
            changed.as_mut().enable();
            if self.host.resets(self.port) != self.seen {
                return Ok(Ended::Broken.into());
            }
            if !so(&self.host.state()) {
                return Ok(Ended::Over.into());
            }
            tokio::select! {
                biased;
                done = &mut work => return done,
                () = changed => {}
            }
        }
    }

    /// Reads a request and throws its body away; none at the end.
    async fn request(&self, bytes: &mut Vec<u8>) -> io::Result<Option<Request>> {
        let request = loop {
            match http::parse(bytes) {
                Ok(Some((request, length))) => {
                    bytes.drain(..length);
                    break request;
                }
                Ok(None) => {}
                Err(reason) => {
                    let answer = Answer::text(400, reason);
                    let length = Framing::Length(answer.body.len() as u64);
                    let mut reply = answer.head(length, None, false);
                    reply.extend_from_slice(&answer.body);
                    self.conn.write(&reply).await?;
                    return Ok(None);
                }
            }
            if self.conn.read(bytes).await? == 0 {
                return Ok(None);
            }
        };
        let mut left = request.content_length;
        if left > MAX_REQUEST_BODY {
            return Ok(None);
        }
        loop {
            let here = usize::try_from(left).unwrap_or(usize::MAX).min(bytes.len());
            bytes.drain(..here);
            left -= here as u64;
            if left == 0 {
                return Ok(Some(request));
            }
            if self.conn.read(bytes).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// Why work ended before it was done.
enum Ended {
    Broken,
    Over,
}

impl From<Ended> for Next {
    fn from(ended: Ended) -> Self {
        match ended {
            Ended::Broken => Self::Reset,
            Ended::Over => Self::Close,
        }
    }
}

impl From<Ended> for Option<Request> {
    fn from(_: Ended) -> Self {
        None
    }
}
