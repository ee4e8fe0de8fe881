//! The operator as users run it: a process, told what to do by flags, seen through its listeners, log and objects.

use super::{ControlPlane, binaries, child::Process, eventually, http, rights};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::{
    env,
    fs::{self, File},
    path::{Path, PathBuf},
    process::{Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// Clock ticks per second in /proc, the same on every Linux that we run on.
const TICKS: f64 = 100.0;
const START_LIMIT: Duration = Duration::from_secs(30);

/// Who the operator is to the API server.
#[derive(Clone)]
enum Identity {
    /// The chart's ServiceAccount on the control plane of this administrator, who keeps files in this folder.
    Chart {
        admin: PathBuf,
        folder: PathBuf,
    },
    Kubeconfig(PathBuf),
}

/// What to start. Flags that are given here come after, and so win over, those of the harness.
#[derive(Clone)]
pub struct Builder {
    identity: Identity,
    secrets: bool,
    namespaces: Vec<String>,
    args: Vec<String>,
    env: Vec<(String, String)>,
    wrapper: Vec<String>,
    ready: bool,
}

impl Builder {
    /// A namespace to watch; without any, all of them.
    pub fn namespace(mut self, namespace: &str) -> Self {
        self.namespaces.push(namespace.to_owned());
        self
    }

    /// One more flag, as `--name=value`; replaces the harness's own flag of that name.
    pub fn arg(mut self, arg: impl Into<String>) -> Self {
        self.args.push(arg.into());
        self
    }

    pub fn env(mut self, name: &str, value: &str) -> Self {
        self.env.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A command that becomes the operator; it gets that and its arguments as its own last ones.
    pub fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|&part| part.to_owned()).collect();
        self
    }

    /// Another identity than the chart's ServiceAccount.
    pub fn kubeconfig(mut self, path: &Path) -> Self {
        self.identity = Identity::Kubeconfig(path.to_owned());
        self
    }

    /// As with `secretNamespaces: []`; otherwise Secrets of the watched namespaces can be read.
    pub fn without_secrets(mut self) -> Self {
        self.secrets = false;
        self
    }

    /// Return as soon as it listens: it cannot become ready yet.
    pub fn without_waiting_for_ready(mut self) -> Self {
        self.ready = false;
        self
    }

    fn flags(&self, kubeconfig: &Path) -> Vec<String> {
        let mut flags: Vec<String> = [
            "--min-poll-interval=1s",
            "--poll-interval=1s",
            "--allowed-cidrs=127.0.0.0/8",
            "--health-listen=127.0.0.1:0",
            "--listen=127.0.0.1:0",
            "--api-auth=none",
            "--log-format=json",
        ]
        .map(str::to_owned)
        .into();
        flags.push(format!("--kubeconfig={}", kubeconfig.display()));
        if !self.namespaces.is_empty() {
            flags.push(format!("--watch-namespaces={}", self.namespaces.join(",")));
        }
        // A flag may be given once only.
        let name = |flag: &str| flag.split('=').next().unwrap_or_default().to_owned();
        flags.retain(|flag| self.args.iter().all(|arg| name(arg) != name(flag)));
        flags.extend(self.args.iter().cloned());
        flags
    }

    /// The command, for tests of what the operator does before it listens.
    pub fn command(&self, kubeconfig: &Path) -> Command {
        let mut command = match self.wrapper.split_first() {
            Some((program, args)) => {
                let mut command = Command::new(program);
                command.args(args).arg(binaries::operator());
                command
            }
            None => Command::new(binaries::operator()),
        };
        command.arg("run").args(self.flags(kubeconfig)).stdin(Stdio::null()).stdout(Stdio::null());
        let own = env::vars_os().map(|(name, _)| name).filter(|name| {
            let name = name.to_string_lossy();
            name.starts_with("OLLAMA_FLEET_") || name == "KUBECONFIG" || name.starts_with("KUBERNETES_")
        });
        own.for_each(|name| {
            command.env_remove(name);
        });
        command.env("RUST_LOG", "info").env("RUST_BACKTRACE", "1");
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }

    /// Starts it, and waits until it is ready.
    pub async fn start(&self) -> Operator {
        let kubeconfig = match &self.identity {
            Identity::Kubeconfig(file) => file.clone(),
            Identity::Chart { admin, folder } => {
                let lease = self.args.iter().find_map(|arg| arg.strip_prefix("--leader-elect-namespace="));
                rights::kubeconfig(admin, folder, &self.namespaces, self.secrets, lease).await
            }
        };
        let folder = tempfile::Builder::new().prefix("operator-").tempdir().unwrap();
        let log = folder.path().join("stderr");
        let process = Process::start(self.command(&kubeconfig).stderr(File::create(&log).unwrap()));
        let mut operator = Operator { process, folder, health: String::new(), api: String::new() };
        let listening = eventually(START_LIMIT, "the operator listens", async || {
            if let Some(status) = operator.process.status() {
                panic!("the operator ended before it listened: {status}");
            }
            let both = |line: &Value| line["health"].is_string() && line["api"].is_string();
            let mut lines = operator.log_lines().into_iter();
            lines.find(|line| line["message"] == "listening" && both(line))
        })
        .await;
        let address = |field: &str| listening[field].as_str().unwrap_or_default().to_owned();
        (operator.health, operator.api) = (address("health"), address("api"));
        if self.ready {
            eventually(START_LIMIT, "the operator is ready", async || operator.readyz().await).await;
        }
        operator
    }
}

/// A running operator. Killed when dropped; its log is printed if the test is failing.
pub struct Operator {
    process: Process,
    folder: TempDir,
    health: String,
    api: String,
}

impl Operator {
    pub fn builder(control_plane: &ControlPlane) -> Builder {
        Builder {
            identity: Identity::Chart {
                admin: control_plane.kubeconfig().to_owned(),
                folder: control_plane.folder().to_owned(),
            },
            secrets: true,
            namespaces: Vec::new(),
            args: Vec::new(),
            env: Vec::new(),
            wrapper: Vec::new(),
            ready: true,
        }
    }

    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// `127.0.0.1:1234`, where `/livez` and `/readyz` are.
    pub fn health_address(&self) -> &str {
        &self.health
    }

    /// `127.0.0.1:1234`, where `/metrics` is.
    pub fn api_address(&self) -> &str {
        &self.api
    }

    /// The body of `/readyz` if it answers 200, else what it waits for.
    pub async fn readyz(&self) -> Result<String, String> {
        let (status, body) = http::get(&format!("http://{}/readyz", self.health)).await?;
        if status.is_success() { Ok(body) } else { Err(format!("{status}: {body}")) }
    }

    /// Status of `/livez`.
    pub async fn livez(&self) -> Result<u16, String> {
        http::get(&format!("http://{}/livez", self.health)).await.map(|(status, _)| status.as_u16())
    }

    /// The text of `/metrics`; needs `--api-auth=none`, as the harness starts it.
    pub async fn metrics(&self) -> String {
        let (status, body) = http::get(&format!("http://{}/metrics", self.api)).await.unwrap();
        assert!(status.is_success(), "/metrics: {status}: {body}");
        // Prometheus would refuse all of it.
        let mut names: Vec<&str> = body.lines().filter_map(|line| line.strip_prefix("# TYPE ")).collect();
        let all = names.len();
        names.sort_unstable_by_key(|family| family.split(' ').next().unwrap_or_default());
        names.dedup_by_key(|family| family.split(' ').next().unwrap_or_default());
        assert_eq!(names.len(), all, "a metric is told of twice");
        body
    }

    /// Everything that it has logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("stderr")).unwrap_or_default()
    }

    /// The complete lines of the log that are JSON, with `message` and all fields at the top.
    pub fn log_lines(&self) -> Vec<Value> {
        let log = self.log();
        let complete = log.rfind('\n').map_or("", |end| &log[..end]);
        complete.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// How it ended, if it has.
    pub fn status(&self) -> Option<ExitStatus> {
        self.process.status()
    }

    /// SIGKILL, as a crash or an eviction would.
    pub fn kill(&self) {
        self.process.kill();
    }

    pub fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// SIGTERM, then waits for the end: how it ended, and how long that took.
    pub fn terminate(&self) -> (ExitStatus, Duration) {
        let start = Instant::now();
        self.process.signal(Signal::SIGTERM);
        let status = self.process.wait(Duration::from_secs(30));
        (status.expect("the operator does not end on SIGTERM"), start.elapsed())
    }

    /// Resident memory.
    pub fn rss_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).unwrap();
        let line =
            status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a live process has VmRSS");
        line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
    }

    /// CPU time that it has used, in user and system mode.
    pub fn cpu_seconds(&self) -> f64 {
        let stat = fs::read_to_string(format!("/proc/{}/stat", self.pid())).unwrap();
        // The second field is the name in parentheses and may contain anything.
        let fields: Vec<&str> = stat.rsplit_once(')').unwrap().1.split_whitespace().collect();
        (fields[11].parse::<f64>().unwrap() + fields[12].parse::<f64>().unwrap()) / TICKS
    }
}

impl Drop for Operator {
    fn drop(&mut self) {
        self.process.kill();
        if thread::panicking() {
            eprintln!("--- log of the operator\n{}--- end of the log", self.log());
        }
    }
}
