//! What the hosts have witnessed: requests, arrivals and overlaps.
//!
//! An overlap is counted only if it is real: before a maximum is raised, the
//! kernel is asked which of the other connections the peer has already closed.
//! And a request stops counting just before its last byte is written, so that
//! a client's next one is never taken for a second at the same time.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use jiff::Timestamp;
use serde::Serialize;

use crate::conn::Conn;
use crate::http::Request;
use crate::state::{AGENT_PREFIX, Port};

/// Arrival times kept per host and path.
const ARRIVALS: usize = 256;

/// Distinct paths per host; the rest are counted as `other`.
const MAX_PATHS: usize = 64;
const MAX_PATH_LENGTH: usize = 128;
const OTHER: &str = "other";

/// The witness of one host.
#[derive(Debug)]
pub struct HostStats {
    /// Arrivals are kept as milliseconds since this, in half the space.
    base: i64,
    inner: Mutex<Inner>,
}

#[derive(Debug, Default)]
struct Inner {
    ports: [PortStats; 2],
    paths: Vec<PathStats>,
    last: Option<i64>,
    headers: Option<Box<LastHeaders>>,
    authorized: u64,
    unauthorized: u64,
}

#[derive(Debug, Default)]
struct PortStats {
    open: Vec<Weak<Conn>>,
    accepted: u64,
    max_open: usize,
    busy: usize,
    max_busy: usize,
}

#[derive(Debug)]
struct PathStats {
    key: Box<str>,
    count: u64,
    arrivals: VecDeque<u32>,
}

/// Headers of the latest request to the Ollama port.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LastHeaders {
    host: Option<String>,
    authorization: bool,
    user_agent: Option<String>,
    accept_encoding: Option<String>,
}

/// One host's figures, as the control API shows them.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    /// By path.
    pub requests: BTreeMap<String, u64>,
    /// Sum of them.
    pub total: u64,
    /// Most requests at the same time on the Ollama port.
    pub max_in_flight: usize,
    /// Requests on the Ollama port now.
    pub in_flight: usize,
    /// Accepted on the Ollama port.
    pub connections: u64,
    /// Most open at once on the Ollama port.
    pub max_connections: usize,
    /// Open on the Ollama port now.
    pub open_connections: usize,
    /// Most requests at the same time on the agent port.
    pub agent_max_in_flight: usize,
    /// Accepted on the agent port.
    pub agent_connections: u64,
    /// Most open at once on the agent port.
    pub agent_max_connections: usize,
    /// Requests with an Authorization header.
    pub with_authorization: u64,
    /// Requests that lacked the right one and were answered 401.
    pub unauthorized: u64,
    /// When the latest request came.
    pub last_arrival: Option<String>,
    /// Its headers.
    pub last_headers: Option<LastHeaders>,
}

impl PortStats {
    /// Connections that count: still open at the other side too.
    fn live(&self, only_busy: bool, own: &Arc<Conn>) -> usize {
        let counts =
            |conn: &Arc<Conn>| (!only_busy || conn.busy()) && (Arc::ptr_eq(conn, own) || !conn.gone());
        self.open.iter().filter_map(Weak::upgrade).filter(counts).count()
    }
}

impl HostStats {
    /// Nothing seen yet.
    pub fn new(start: Timestamp) -> Self {
        Self { base: start.as_millisecond(), inner: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A connection was accepted.
    pub fn open(&self, port: Port, conn: &Arc<Conn>) {
        let mut inner = self.lock();
        let stats = &mut inner.ports[port.slot()];
        stats.accepted += 1;
        stats.open.push(Arc::downgrade(conn));
        if stats.open.len() > stats.max_open {
            stats.max_open = stats.max_open.max(stats.live(false, conn));
        }
    }

    /// A connection is about to be closed.
    pub fn close(&self, port: Port, conn: &Arc<Conn>) {
        let mut inner = self.lock();
        let stats = &mut inner.ports[port.slot()];
        let own = Arc::downgrade(conn);
        stats.open.retain(|other| !other.ptr_eq(&own));
        if stats.open.is_empty() {
            // Idle hosts hold no memory for connections.
            stats.open = Vec::new();
        }
        if conn.set_busy(false) {
            stats.busy -= 1;
        }
    }

    /// A request, or a connection that never gets to one, is served from now on.
    pub fn begin(&self, port: Port, conn: &Arc<Conn>) {
        let mut inner = self.lock();
        let stats = &mut inner.ports[port.slot()];
        if !conn.set_busy(true) {
            stats.busy += 1;
        }
        if stats.busy > stats.max_busy {
            stats.max_busy = stats.max_busy.max(stats.live(true, conn));
        }
    }

    /// The answer is complete but for its last bytes.
    pub fn end(&self, port: Port, conn: &Conn) {
        let mut inner = self.lock();
        if conn.set_busy(false) {
            inner.ports[port.slot()].busy -= 1;
        }
    }

    /// A request's head was read.
    pub fn arrived(&self, port: Port, request: &Request, now: Timestamp) {
        let prefix = match port {
            Port::Ollama => "",
            Port::Agent => AGENT_PREFIX,
        };
        let method = match request.method.as_str() {
            "GET" => String::new(),
            other => format!("{other} "),
        };
        let matches = |key: &str| {
            key.strip_prefix(prefix)
                .and_then(|rest| rest.strip_prefix(method.as_str()))
                .is_some_and(|path| path == request.path)
        };
        let now = now.as_millisecond();
        let mut inner = self.lock();
        let slot = inner.paths.iter().position(|stats| matches(&stats.key));
        let slot = slot.unwrap_or_else(|| {
            let length = request.path.len() + method.len();
            let room = inner.paths.len() < MAX_PATHS && length <= MAX_PATH_LENGTH;
            let key = if room { format!("{prefix}{method}{}", request.path) } else { OTHER.to_owned() };
            inner.slot(&key)
        });
        let stats = &mut inner.paths[slot];
        stats.count += 1;
        if stats.arrivals.len() == ARRIVALS {
            stats.arrivals.pop_front();
        }
        let offset = u32::try_from(now.saturating_sub(self.base)).unwrap_or(0);
        stats.arrivals.push_back(offset);
        inner.last = Some(now);
        inner.authorized += u64::from(request.authorization.is_some());
        if port == Port::Ollama {
            inner.remember_headers(request);
        }
    }

    /// A request lacked the right Authorization.
    pub fn refused(&self) {
        self.lock().unauthorized += 1;
    }

    /// The figures.
    pub fn report(&self) -> Report {
        let inner = self.lock();
        let [ollama, agent] = &inner.ports;
        let requests: BTreeMap<String, u64> =
            inner.paths.iter().map(|stats| (stats.key.to_string(), stats.count)).collect();
        let last = inner.last.and_then(|ms| Timestamp::from_millisecond(ms).ok());
        Report {
            total: requests.values().sum(),
            requests,
            max_in_flight: ollama.max_busy,
            in_flight: ollama.busy,
            connections: ollama.accepted,
            max_connections: ollama.max_open,
            open_connections: ollama.open.len(),
            agent_max_in_flight: agent.max_busy,
            agent_connections: agent.accepted,
            agent_max_connections: agent.max_open,
            with_authorization: inner.authorized,
            unauthorized: inner.unauthorized,
            last_arrival: last.map(|time| format!("{time:.3}")),
            last_headers: inner.headers.as_deref().cloned(),
        }
    }

    /// The latest arrivals at a path, oldest first, as Unix milliseconds.
    pub fn arrivals(&self, path: &str, limit: usize) -> Vec<i64> {
        let inner = self.lock();
        let Some(stats) = inner.paths.iter().find(|stats| &*stats.key == path) else {
            return Vec::new();
        };
        let skip = stats.arrivals.len().saturating_sub(limit);
        let times = stats.arrivals.iter().skip(skip);
        times.map(|offset| self.base + i64::from(*offset)).collect()
    }

    /// Forgets what was; what is still open or in flight counts again.
    pub fn reset(&self) {
        let mut inner = self.lock();
        let ports = std::mem::take(&mut inner.ports);
        *inner = Inner {
            ports: ports.map(|port| PortStats {
                accepted: 0,
                max_open: port.open.len(),
                max_busy: port.busy,
                ..port
            }),
            ..Inner::default()
        };
    }
}

impl Inner {
    fn slot(&mut self, key: &str) -> usize {
        if let Some(slot) = self.paths.iter().position(|stats| &*stats.key == key) {
            return slot;
        }
        self.paths.push(PathStats { key: key.into(), count: 0, arrivals: VecDeque::new() });
        self.paths.len() - 1
    }

    /// Allocates only when something differs from the request before.
    fn remember_headers(&mut self, request: &Request) {
        let cut = |text: &Option<String>| {
            let cut = |text: &String| text.chars().take(MAX_PATH_LENGTH).collect();
            text.as_ref().map(cut)
        };
        let same = self.headers.as_ref().is_some_and(|last| {
            last.host == request.host
                && last.authorization == request.authorization.is_some()
                && last.user_agent == request.user_agent
                && last.accept_encoding == request.accept_encoding
        });
        if !same {
            self.headers = Some(Box::new(LastHeaders {
                host: cut(&request.host),
                authorization: request.authorization.is_some(),
                user_agent: cut(&request.user_agent),
                accept_encoding: cut(&request.accept_encoding),
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(line: &str) -> Request {
        let head = format!("{line} HTTP/1.1\r\nHost: h\r\nAuthorization: x\r\n\r\n");
        crate::http::parse(head.as_bytes()).unwrap().unwrap().0
    }

    #[test]
    fn counts_by_path_and_keeps_the_latest_arrivals() {
        let stats = HostStats::new(Timestamp::UNIX_EPOCH);
        let at = |ms| Timestamp::from_millisecond(ms).unwrap();
        for ms in 0..300 {
            stats.arrived(Port::Ollama, &request("GET /api/ps"), at(ms));
        }
        stats.arrived(Port::Agent, &request("GET /metrics"), at(400));
        stats.arrived(Port::Ollama, &request("POST /api/pull"), at(500));
        let report = stats.report();
        assert_eq!(report.total, 302);
        assert_eq!(report.requests["/api/ps"], 300);
        assert_eq!(report.requests["agent:/metrics"], 1);
        assert_eq!(report.requests["POST /api/pull"], 1);
        assert_eq!(report.last_arrival.as_deref(), Some("1970-01-01T00:00:00.500Z"));
        let headers = report.last_headers.unwrap();
        assert_eq!((headers.host.as_deref(), headers.authorization), (Some("h"), true));
        assert_eq!(stats.arrivals("/api/ps", 1000).len(), ARRIVALS);
        assert_eq!(stats.arrivals("/api/ps", 2), [298, 299]);
        assert_eq!(stats.arrivals("agent:/metrics", 2), [400]);
        stats.reset();
        assert_eq!(stats.report().total, 0);
    }

    #[test]
    fn paths_are_bounded() {
        let stats = HostStats::new(Timestamp::UNIX_EPOCH);
        for n in 0..100 {
            let request = request(&format!("GET /{n}"));
            stats.arrived(Port::Ollama, &request, Timestamp::UNIX_EPOCH);
        }
        let report = stats.report();
        assert_eq!(report.requests.len(), MAX_PATHS + 1);
        assert_eq!(report.requests[OTHER], 36);
    }
}
