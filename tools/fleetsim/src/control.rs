//! The control API: what tests ask for and look at.
//!
//! Parses and answers; the changes themselves are made by the fleet.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::Arc;

use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::action::Action;
use crate::address::{name, select};
use crate::fleet::{ChangeError, Fleet};
use crate::patch::patched;
use crate::state::Port;
use crate::stats::Report;

/// Longest body of a request.
const MAX_BODY: usize = 8 << 20;

/// Answers until the process ends.
pub async fn run(listener: TcpListener, fleet: Arc<Fleet>, ports: [u16; 2]) {
    loop {
        let Ok((stream, _)) = listener.accept().await else {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
            continue;
        };
        let fleet = Arc::clone(&fleet);
        tokio::spawn(async move {
            let service = service_fn(move |request| answer(Arc::clone(&fleet), ports, request));
            let _ = hyper::server::conn::http1::Builder::new()
                .serve_connection(TokioIo::new(stream), service)
                .await;
        });
    }
}

/// An answer that is not 200.
struct Refusal(StatusCode, String);

impl From<String> for Refusal {
    fn from(message: String) -> Self {
        Self(StatusCode::BAD_REQUEST, message)
    }
}

impl From<ChangeError> for Refusal {
    fn from(error: ChangeError) -> Self {
        let code = match error {
            ChangeError::Invalid(_) => StatusCode::BAD_REQUEST,
            ChangeError::Shared => StatusCode::CONFLICT,
            ChangeError::Listen(_) => StatusCode::INTERNAL_SERVER_ERROR,
        };
        Self(code, error.to_string())
    }
}

async fn answer(
    fleet: Arc<Fleet>,
    ports: [u16; 2],
    request: Request<Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let (code, body) = match route(&fleet, ports, request).await {
        Ok(body) => (StatusCode::OK, body),
        Err(Refusal(code, error)) => (code, json!({"error": error}).to_string().into_bytes()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = code;
    let json = header::HeaderValue::from_static("application/json");
    response.headers_mut().insert(header::CONTENT_TYPE, json);
    Ok(response)
}

const ROUTES: &str = "allowed: GET /healthz, GET /hosts, GET /hosts/{sel}/state, \
    PATCH /hosts/{sel}, POST /hosts/{sel}/actions, GET /stats, GET /stats/{sel}, \
    DELETE /stats, GET /arrivals/{sel}?path=/api/version&limit=100";

async fn route(fleet: &Arc<Fleet>, ports: [u16; 2], request: Request<Incoming>) -> Result<Vec<u8>, Refusal> {
    let (head, body) = request.into_parts();
    let path = decode(head.uri.path());
    let segments: Vec<&str> = path.trim_matches('/').split('/').collect();
    let chosen = |selector: &str| select(selector, fleet.hosts.len());
    match (head.method.clone(), segments.as_slice()) {
        (Method::GET, ["healthz"]) => bytes(&json!({"ok": true})),
        (Method::GET, ["hosts"]) => bytes(&hosts(fleet, ports)),
        (Method::GET, ["hosts", selector, "state"]) => states(fleet, &chosen(selector)?),
        (Method::PATCH, ["hosts", selector]) => {
            let chosen = chosen(selector)?;
            let change: Value =
                serde_json::from_slice(&read(body).await?).map_err(|error| format!("patch: {error}"))?;
            fleet.change(&chosen, |old| patched(old, &change), false).await?;
            bytes(&json!({"changed": chosen.len()}))
        }
        (Method::POST, ["hosts", selector, "actions"]) => {
            let chosen = chosen(selector)?;
            let action = Action::parse(&read(body).await?)?;
            let now = Timestamp::now();
            let change = |old: &_| Ok(action.apply(old, now, fleet.shared));
            fleet.change(&chosen, change, action.resets()).await?;
            bytes(&json!({"changed": chosen.len()}))
        }
        (Method::GET, ["stats"]) => stats(fleet, 0..fleet.hosts.len()),
        (Method::GET, ["stats", selector]) => stats(fleet, chosen(selector)?.into_iter()),
        (Method::DELETE, ["stats"]) => {
            fleet.hosts.iter().for_each(|host| host.stats.reset());
            bytes(&json!({"ok": true}))
        }
        (Method::GET, ["arrivals", selector]) => {
            arrivals(fleet, &chosen(selector)?, head.uri.query().unwrap_or_default())
        }
        (method, _) => Err(Refusal(StatusCode::NOT_FOUND, format!("{method} {path} is not known; {ROUTES}"))),
    }
}

fn bytes(value: &impl Serialize) -> Result<Vec<u8>, Refusal> {
    let failed = |error: serde_json::Error| Refusal(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    serde_json::to_vec(value).map_err(failed)
}

async fn read(body: Incoming) -> Result<Bytes, Refusal> {
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) => Err(format!("body (at most {MAX_BODY} bytes): {error}").into()),
    }
}

#[derive(Serialize)]
struct HostEntry {
    name: String,
    index: usize,
    address: String,
    ollama: String,
    agent: String,
}

fn hosts(fleet: &Fleet, ports: [u16; 2]) -> Vec<HostEntry> {
    let entry = |index| {
        let address = fleet.range.address(index);
        HostEntry {
            name: name(index),
            index,
            address: address.to_string(),
            ollama: format!("{address}:{}", ports[Port::Ollama.slot()]),
            agent: format!("{address}:{}", ports[Port::Agent.slot()]),
        }
    };
    (0..fleet.hosts.len()).map(entry).collect()
}

/// One host's state, or several by name.
fn states(fleet: &Fleet, chosen: &[usize]) -> Result<Vec<u8>, Refusal> {
    if let [index] = chosen {
        return bytes(&*fleet.hosts[*index].state());
    }
    let states: BTreeMap<_, _> =
        chosen.iter().map(|&index| (name(index), fleet.hosts[index].state())).collect();
    bytes(&states)
}

#[derive(Serialize, Default)]
#[serde(rename_all = "camelCase")]
struct Stats {
    total: u64,
    requests: BTreeMap<String, u64>,
    connections: u64,
    agent_connections: u64,
    max_in_flight: usize,
    max_connections: usize,
    agent_max_in_flight: usize,
    hosts: BTreeMap<String, Report>,
}

fn stats(fleet: &Fleet, chosen: impl Iterator<Item = usize>) -> Result<Vec<u8>, Refusal> {
    let mut all = Stats::default();
    for index in chosen {
        let report = fleet.hosts[index].stats.report();
        all.total += report.total;
        all.connections += report.connections;
        all.agent_connections += report.agent_connections;
        all.max_in_flight = all.max_in_flight.max(report.max_in_flight);
        all.max_connections = all.max_connections.max(report.max_connections);
        all.agent_max_in_flight = all.agent_max_in_flight.max(report.agent_max_in_flight);
        for (path, count) in &report.requests {
            match all.requests.get_mut(path) {
                Some(sum) => *sum += count,
                None => drop(all.requests.insert(path.clone(), *count)),
            }
        }
        all.hosts.insert(name(index), report);
    }
    bytes(&all)
}

fn arrivals(fleet: &Fleet, chosen: &[usize], query: &str) -> Result<Vec<u8>, Refusal> {
    let (mut path, mut limit) = (None, usize::MAX);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("path", value)) => path = Some(decode(value)),
            Some(("limit", value)) => {
                limit = value.parse().map_err(|_| "limit must be a number".to_owned())?;
            }
            _ => return Err(format!("query {pair:?}: allowed are path and limit").into()),
        }
    }
    let path = path.ok_or("path is missing, as in ?path=/api/version".to_owned())?;
    let times: BTreeMap<_, _> =
        chosen.iter().map(|&index| (name(index), fleet.hosts[index].stats.arrivals(&path, limit))).collect();
    bytes(&times)
}

/// Undoes percent-encoding.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        let hex = |digit: u8| char::from(digit).to_digit(16).and_then(|d| u8::try_from(d).ok());
        if let (b'%', [high, low, after @ ..]) = (first, tail)
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            bytes.push(high * 16 + low);
            rest = after;
        } else {
            bytes.push(*first);
            rest = tail;
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percent_encoding() {
        assert_eq!(decode("%2Fapi%2fps"), "/api/ps");
        assert_eq!(decode("100%"), "100%");
        assert_eq!(decode("%zz"), "%zz");
    }
}
