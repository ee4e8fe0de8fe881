//! Starts the simulator and talks to it as a raw client would. Every wait has
//! a deadline.

use std::io::{BufRead as _, BufReader, ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// Longer than any healthy answer takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long silence must last to count as such.
pub const SILENCE: Duration = Duration::from_millis(150);

/// A running simulator; ends with the value.
pub struct Sim {
    pub child: Child,
    pub control: SocketAddr,
    hosts: Vec<(SocketAddr, SocketAddr)>,
}

impl Sim {
    pub fn start(arguments: &[&str]) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_fleetsim"))
            .args([
                "--exit-with-stdin",
                "--ollama-port",
                "0",
                "--agent-port",
                "0",
            ])
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let ready: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(ready["ready"], true);
        let mut sim = Self {
            child,
            control: ready["control"].as_str().unwrap().parse().unwrap(),
            hosts: Vec::new(),
        };
        let address = |host: &Value, port: &str| host[port].as_str().unwrap().parse().unwrap();
        let hosts = sim.control("GET", "/hosts", "").1;
        let hosts = hosts.as_array().unwrap().iter();
        sim.hosts = hosts
            .map(|host| (address(host, "ollama"), address(host, "agent")))
            .collect();
        assert_eq!(ready["hosts"], sim.hosts.len());
        assert_eq!(ready["ollamaPort"], sim.hosts[0].0.port());
        assert_eq!(ready["agentPort"], sim.hosts[0].1.port());
        sim
    }

    pub fn ollama(&self, index: usize) -> SocketAddr {
        self.hosts[index].0
    }

    pub fn agent(&self, index: usize) -> SocketAddr {
        self.hosts[index].1
    }

    pub fn control(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = call(self.control, method, path, body);
        let json = serde_json::from_slice(&answer.body).unwrap();
        (answer.code, json)
    }

    /// Patches, and expects it to work.
    pub fn patch(&self, selector: &str, patch: &str) {
        let (code, answer) = self.control("PATCH", &format!("/hosts/{selector}"), patch);
        assert_eq!(code, 200, "{answer}");
    }

    pub fn act(&self, selector: &str, action: &str) {
        let path = format!("/hosts/{selector}/actions");
        let (code, answer) = self.control("POST", &path, action);
        assert_eq!(code, 200, "{answer}");
    }

    /// A host's figures.
    pub fn stats(&self, name: &str) -> Value {
        let (_, mut stats) = self.control("GET", &format!("/stats/{name}"), "");
        stats["hosts"][name].take()
    }

    /// Waits until a host's figures are as wanted.
    pub fn until(&self, name: &str, wanted: impl Fn(&Value) -> bool) -> Value {
        let end = Instant::now() + PATIENCE;
        loop {
            let stats = self.stats(name);
            if wanted(&stats) {
                return stats;
            }
            assert!(Instant::now() < end, "never came: {stats}");
            std::thread::yield_now();
        }
    }

    pub fn get(&self, index: usize, path: &str) -> Answer {
        call(self.ollama(index), "GET", path, "")
    }

    pub fn json(&self, index: usize, path: &str) -> Value {
        let answer = self.get(index, path);
        assert_eq!(answer.code, 200, "{path}");
        serde_json::from_slice(&answer.body).unwrap()
    }

    pub fn metrics(&self, index: usize) -> Value {
        let answer = call(self.agent(index), "GET", "/metrics", "");
        assert_eq!(answer.code, 200);
        serde_json::from_slice(&answer.body).unwrap()
    }
}

impl Drop for Sim {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A complete answer.
pub struct Answer {
    pub code: u16,
    pub head: String,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        let mut found = lines.filter(|(key, _)| key.eq_ignore_ascii_case(name));
        found.next().map(|(_, value)| value)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

/// How reading ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Closed,
    Reset,
    Silent,
}

pub fn connect(address: SocketAddr) -> std::io::Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

pub fn request(method: &str, path: &str, more: &str) -> String {
    format!("{method} {path} HTTP/1.1\r\nHost: sim\r\n{more}\r\n")
}

/// One request on a connection of its own, read to the end.
pub fn call(address: SocketAddr, method: &str, path: &str, body: &str) -> Answer {
    let mut stream = connect(address).unwrap();
    let more = format!("Content-Length: {}\r\nConnection: close\r\n", body.len());
    let text = request(method, path, &more) + body;
    stream.write_all(text.as_bytes()).unwrap();
    let (bytes, end) = read(&mut stream, PATIENCE, usize::MAX);
    assert_eq!(end, End::Closed, "{method} {path}");
    split(&bytes)
}

/// A request whose answer may never come or end: what came, and how it ended.
pub fn raw(address: SocketAddr, path: &str, limit: usize) -> (Vec<u8>, End) {
    let mut stream = connect(address).unwrap();
    // A reset may be quicker than the request.
    let _ = stream.write_all(request("GET", path, "").as_bytes());
    read(&mut stream, SILENCE, limit)
}

pub fn read(stream: &mut TcpStream, patience: Duration, limit: usize) -> (Vec<u8>, End) {
    stream.set_read_timeout(Some(patience)).unwrap();
    let (mut bytes, mut scratch) = (Vec::new(), [0; 8192]);
    while bytes.len() < limit {
        match stream.read(&mut scratch) {
            Ok(0) => return (bytes, End::Closed),
            Ok(count) => bytes.extend_from_slice(&scratch[..count]),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => return (bytes, End::Reset),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return (bytes, End::Silent),
            Err(error) => panic!("{error}"),
        }
    }
    (bytes, End::Silent)
}

/// Head and body; the body must be as long as announced, unless it is chunked.
pub fn split(bytes: &[u8]) -> Answer {
    let end = bytes
        .windows(4)
        .position(|four| four == b"\r\n\r\n")
        .unwrap()
        + 4;
    let head = String::from_utf8(bytes[..end].to_vec()).unwrap();
    let code = head.split(' ').nth(1).unwrap().parse().unwrap();
    let body = bytes[end..].to_vec();
    Answer { code, head, body }
}
