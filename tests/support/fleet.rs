//! Simulated hosts and their agents, and what they have witnessed.

use super::{binaries, child::Process, http};
use reqwest::Method;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    fs, process,
    process::{Command, Stdio},
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

const START_LIMIT: Duration = Duration::from_secs(30);
/// Blocks of 64 × 254 addresses between 127.20.0.0 and 127.249.255.255.
const BLOCKS: u32 = 230 * 4;

/// A running fleet. Selectors are those of fleetsim: `0`, `5-9`, `0,3`, `all`.
pub struct Fleet {
    // Dropped, and so ended, first.
    _process: Process,
    _folder: TempDir,
    ready: Ready,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Ready {
    control: String,
    hosts: usize,
    ollama_port: u16,
    agent_port: u16,
    first_address: std::net::Ipv4Addr,
}

/// What the hosts have seen, summed up and one by one (`sim-00000`).
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Stats {
    pub total: u64,
    /// By path; those of agents are `agent:/metrics`.
    pub requests: BTreeMap<String, u64>,
    pub connections: u64,
    pub agent_connections: u64,
    /// The largest of any host.
    pub max_in_flight: usize,
    pub max_connections: usize,
    pub agent_max_in_flight: usize,
    pub hosts: BTreeMap<String, HostStats>,
}

impl Stats {
    pub fn host(&self, index: usize) -> &HostStats {
        &self.hosts[&name(index)]
    }
}

/// What one host has seen.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HostStats {
    pub requests: BTreeMap<String, u64>,
    pub total: u64,
    /// Most requests at the same time on the Ollama port.
    pub max_in_flight: usize,
    pub in_flight: usize,
    pub connections: u64,
    pub max_connections: usize,
    pub open_connections: usize,
    pub agent_max_in_flight: usize,
    pub agent_connections: u64,
    pub agent_max_connections: usize,
    /// Requests to either port with an Authorization header.
    pub with_authorization: u64,
    /// Requests that lacked the right one.
    pub unauthorized: u64,
    pub last_arrival: Option<String>,
    pub last_headers: Option<Value>,
}

impl HostStats {
    /// Requests to one path; 0 if there was none.
    pub fn count(&self, path: &str) -> u64 {
        self.requests.get(path).copied().unwrap_or_default()
    }
}

impl Fleet {
    /// That many healthy hosts.
    pub async fn start(hosts: usize) -> Self {
        Self::with(hosts, &json!({}), &[]).await
    }

    /// Hosts with a state from the start: `{"defaults": PATCH, "hosts": {"SELECTOR": PATCH}}`; `args` are more flags
    /// of fleetsim, such as `--sockets=shared`.
    pub async fn with(hosts: usize, scenario: &Value, args: &[&str]) -> Self {
        let folder = tempfile::Builder::new().prefix("fleet-").tempdir().unwrap();
        let file = folder.path().join("scenario.json");
        fs::write(&file, scenario.to_string()).unwrap();
        // Another test process may be on the same block: then the sockets are taken, and the next block is tried.
        for _ in 0..20 {
            let (address, ollama, agent) = block();
            let mut command = Command::new(binaries::fleetsim());
            command.arg("--exit-with-stdin").args(["--hosts", &hosts.to_string(), "--address", &address]);
            command.args(["--ollama-port", &ollama.to_string(), "--agent-port", &agent.to_string()]);
            command.arg("--scenario").arg(&file).args(args);
            command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
            let started = tokio::task::spawn_blocking(move || {
                let process = Process::start(&mut command);
                let line = process.first_line(START_LIMIT);
                (process, line)
            });
            let (process, line) = started.await.unwrap();
            if let Some(line) = line {
                let ready =
                    serde_json::from_str(&line).unwrap_or_else(|error| panic!("fleetsim: {error}: {line}"));
                return Self { _process: process, _folder: folder, ready };
            }
        }
        panic!("fleetsim does not start");
    }

    pub fn len(&self) -> usize {
        self.ready.hosts
    }

    /// `127.20.0.1:21434`, as in `spec.host`.
    pub fn host(&self, index: usize) -> String {
        format!("{}:{}", self.address(index), self.ready.ollama_port)
    }

    pub fn address(&self, index: usize) -> std::net::Ipv4Addr {
        assert!(index < self.ready.hosts, "there is no host {index}");
        // The first is a .1, and .0 and .255 are not in use.
        let index = u32::try_from(index).unwrap();
        std::net::Ipv4Addr::from(u32::from(self.ready.first_address) + index / 254 * 256 + index % 254)
    }

    pub fn ollama_port(&self) -> u16 {
        self.ready.ollama_port
    }

    /// Where every host's agent listens, on the host's address.
    pub fn agent_port(&self) -> u16 {
        self.ready.agent_port
    }

    /// An address of the same block on which nothing listens.
    pub fn nobody(&self) -> String {
        format!("{}:{}", self.address(0), self.ready.ollama_port + 4000)
    }

    /// Merges JSON into the state of the chosen hosts.
    pub async fn patch(&self, selector: &str, patch: Value) {
        self.control(Method::PATCH, &format!("hosts/{selector}"), Some(&patch)).await.unwrap();
    }

    /// Lets something happen: `json!({"action": "load", "model": "qwen3:8b"})`, or just `"die"`.
    pub async fn action(&self, selector: &str, action: impl Into<Value>) {
        let action = match action.into() {
            Value::String(name) => json!({ "action": name }),
            action => action,
        };
        self.control(Method::POST, &format!("hosts/{selector}/actions"), Some(&action)).await.unwrap();
    }

    /// The state of one host.
    pub async fn state(&self, index: usize) -> Value {
        self.ask(&format!("hosts/{index}/state")).await
    }

    pub async fn stats(&self) -> Stats {
        self.ask("stats").await
    }

    /// What one host has seen.
    pub async fn host_stats(&self, index: usize) -> HostStats {
        let mut stats: Stats = self.ask(&format!("stats/{index}")).await;
        stats.hosts.remove(&name(index)).unwrap()
    }

    pub async fn reset_stats(&self) {
        self.control(Method::DELETE, "stats", None).await.unwrap();
    }

    /// When requests to a path came, by host (`sim-00000`), oldest first, in milliseconds since 1970; the last 256.
    pub async fn arrivals(&self, selector: &str, path: &str) -> BTreeMap<String, Vec<i64>> {
        self.ask(&format!("arrivals/{selector}?path={path}")).await
    }

    /// The error that the control API answers; for tests of patches that must fail.
    pub async fn control(&self, method: Method, path: &str, body: Option<&Value>) -> Result<String, String> {
        let url = format!("http://{}/{path}", self.ready.control);
        let (status, text) = http::request(method, &url, body.map(Value::to_string)).await?;
        if status.is_success() { Ok(text) } else { Err(format!("fleetsim: {path}: {status}: {text}")) }
    }

    async fn ask<T: DeserializeOwned>(&self, path: &str) -> T {
        let text = self.control(Method::GET, path, None).await.unwrap();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("fleetsim: {path}: {error}: {text}"))
    }
}

/// The name that fleetsim gives a host.
pub fn name(index: usize) -> String {
    format!("sim-{index:05}")
}

/// First address and both ports of a block that no other fleet of this process has, and hardly one of another.
/// The ports are below the ephemeral range, so that no outgoing connection has one.
fn block() -> (String, u16, u16) {
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| AtomicU32::new(process::id().wrapping_mul(61)));
    let block = NEXT.fetch_add(1, Ordering::Relaxed) % BLOCKS;
    let offset = u16::try_from(block).unwrap();
    (format!("127.{}.{}.1", 20 + block / 4, block % 4 * 64), 21_434 + offset, 29_100 + offset)
}
