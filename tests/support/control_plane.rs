//! A Kubernetes control plane as a child process, or an existing cluster.

use super::{
    binaries,
    child::{Output, Process, run},
    http,
};
use kube::{
    Client, Config,
    config::{KubeConfigOptions, Kubeconfig},
};
use nix::sys::signal::Signal;
use std::{
    env,
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Mutex, OnceLock, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use tempfile::TempDir;

/// Machines that run tests are busy.
const START_LIMIT: Duration = Duration::from_mins(1);
/// Ports of control planes that may be stopped: outside the range that others scan for a free one, or one of those
/// would take the port while its owner is away.
const OWN_PORTS: std::ops::Range<u16> = 28_000..29_000;
/// Its own promise is ten seconds.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// A running control plane with the operator's CRDs. It stops with the test process, however that ends.
///
/// Its calls block: they are made between the steps of a test, not beside them.
pub struct ControlPlane {
    kubeconfig: PathBuf,
    folder: TempDir,
    /// Kept over stops; `None`: chosen by itself, or by somebody else.
    port: Option<u16>,
    /// `None`: an existing cluster, or stopped.
    process: Mutex<Option<Process>>,
    existing: bool,
}

impl ControlPlane {
    /// The one of this test binary, for tests that keep to a namespace of their own. With `USE_CLUSTER=1` it is the
    /// cluster that `KUBECONFIG` names.
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<ControlPlane> = OnceLock::new();
        SHARED.get_or_init(|| {
            if env::var_os("USE_CLUSTER").is_some_and(|value| value == "1") {
                let kubeconfig = env::var_os("KUBECONFIG").expect("USE_CLUSTER=1 needs KUBECONFIG");
                let folder = TempDir::new().unwrap();
                let cluster = Self {
                    kubeconfig: kubeconfig.into(),
                    folder,
                    port: None,
                    process: Mutex::new(None),
                    existing: true,
                };
                cluster.install_crds();
                return cluster;
            }
            Self::run_in(true)
        })
    }

    /// One of its own, for tests that stop it, loosen a CRD, or install things that are not namespaced.
    pub fn start() -> Self {
        let own = Self::run_in(false);
        own.install_crds();
        own
    }

    /// One of its own without the operator's CRDs.
    pub fn start_bare() -> Self {
        Self::run_in(false)
    }

    fn run_in(shared: bool) -> Self {
        let folder = tempfile::Builder::new().prefix("control-plane-").tempdir().unwrap();
        let data = folder.path().join("data");
        let own = Self {
            kubeconfig: data.join("kubeconfig"),
            folder,
            port: (!shared).then(own_port),
            process: Mutex::new(None),
            existing: false,
        };
        if shared {
            // Nothing drops a static: the shell outlives the test process by the time that the control plane needs
            // to stop, and then removes the folder.
            let mut command = Command::new("sh");
            let script = r#"trap '' INT TERM; "$0" serve --data-dir "$1" --exit-with-stdin; rm -rf -- "$2""#;
            command.args(["-c", script]).arg(binaries::control_plane()).arg(&data).arg(own.folder.path());
            own.launch(command);
            own.install_crds();
        } else {
            own.start_again();
        }
        own
    }

    /// Starts it after [`Self::stop`], on the same data and the same port.
    pub fn start_again(&self) {
        let mut command = Command::new(binaries::control_plane());
        command.arg("serve").arg("--data-dir").arg(self.data()).arg("--exit-with-stdin");
        if let Some(port) = self.port {
            command.arg(format!("--port={port}"));
        }
        self.launch(command);
    }

    fn launch(&self, mut command: Command) {
        assert!(!self.existing, "an existing cluster is not started by a test");
        // The pipe is held as long as the process is known, so the end of this process is the end of its input.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let process = Process::start(&mut command);
        let ready = process.first_line(START_LIMIT);
        if ready.as_deref() != Some("ready") {
            let log = std::fs::read_to_string(self.data().join("control-plane.log")).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(20).collect();
            panic!("the control plane is not ready within {START_LIMIT:?}: {ready:?}\n{}", tail.join("\n"));
        }
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
    }

    /// Stops it in the orderly way; its data stay for [`Self::start_again`].
    pub fn stop(&self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        let process = process.expect("only a running control plane of the test's own can be stopped");
        process.signal(Signal::SIGTERM);
        let status = process.wait(STOP_LIMIT);
        assert!(status.is_some_and(|status| status.success()), "the control plane stopped with {status:?}");
    }

    /// Keeps what it has stored, for [`Self::restore`]. It is away meanwhile, as etcd's files are copied at rest.
    pub fn back_up(&self) {
        self.stop();
        copy(&self.data(), &self.backup());
        self.start_again();
    }

    /// Goes back to what was kept: objects and resource versions of then.
    pub fn restore(&self) {
        self.stop();
        std::fs::remove_dir_all(self.data()).unwrap();
        copy(&self.backup(), &self.data());
        self.start_again();
    }

    /// Ends it at once, as a crash would; its data stay for [`Self::start_again`].
    pub fn kill(&self) {
        assert!(!self.existing, "an existing cluster is not killed by a test");
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// A client for the runtime of this test: one that was made in another test's runtime dies with that.
    pub async fn client(&self) -> Client {
        client(&self.kubeconfig).await
    }

    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A folder for files of the tests; removed at the end.
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Runs kubectl to its end; `stdin` is its input, as for `-f -`.
    pub fn kubectl(&self, args: &[&str], stdin: Option<&str>) -> Output {
        let mut command = Command::new(binaries::control_plane());
        command.arg("kubectl").args(args).current_dir(binaries::repository());
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBECACHEDIR", self.folder.path().join("kubectl"));
        run(&mut command, stdin)
    }

    /// Runs Helm to its end, with its caches and settings in a folder of the test.
    pub fn helm(&self, args: &[&str]) -> Output {
        let mut command = helm_command(self.folder.path(), args);
        command.env("KUBECONFIG", &self.kubeconfig);
        run(&mut command, None)
    }

    /// Applies `crds/` and waits until the API server serves them.
    pub fn install_crds(&self) {
        self.kubectl(&["apply", "--server-side", "--force-conflicts", "-f", "crds/"], None).ok();
        let wait = ["wait", "--for=condition=Established", "--timeout=30s"];
        let crds = ["crd/ollamaservers.ollama-fleet.io", "crd/fleetplugins.ollama-fleet.io"];
        self.kubectl(&[&wait[..], &crds[..]].concat(), None).ok();
    }

    fn backup(&self) -> PathBuf {
        self.folder.path().join("backup")
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }
}

/// A folder with all that is in it, rights included.
fn copy(from: &Path, to: &Path) {
    let done = Command::new("cp").arg("-a").arg("--").arg(from).arg(to).status().unwrap();
    assert!(done.success(), "{} was not copied", from.display());
}

/// A free port that no other control plane of this process gets; another process begins elsewhere in the range.
fn own_port() -> u16 {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    let begin = usize::try_from(std::process::id()).unwrap() * 37;
    (0..OWN_PORTS.len())
        .filter_map(|_| {
            OWN_PORTS.clone().nth((begin + NEXT.fetch_add(1, Ordering::Relaxed)) % OWN_PORTS.len())
        })
        .find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok())
        .expect("a free port for a control plane")
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(process) = process {
            process.signal(Signal::SIGTERM);
            process.wait(STOP_LIMIT);
        }
    }
}

/// A client of whoever the kubeconfig is for.
pub async fn client(kubeconfig: &Path) -> Client {
    http::install_provider();
    Client::try_from(config(kubeconfig).await).unwrap()
}

/// What such a client is made of.
pub async fn config(kubeconfig: &Path) -> Config {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).unwrap();
    Config::from_custom_kubeconfig(kubeconfig, &KubeConfigOptions::default()).await.unwrap()
}

/// Helm as a command, for what needs no cluster as well.
pub fn helm_command(folder: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(binaries::helm());
    command.args(args).current_dir(binaries::repository()).env_remove("KUBECONFIG");
    for (variable, name) in [
        ("HELM_CACHE_HOME", "helm-cache"),
        ("HELM_CONFIG_HOME", "helm-config"),
        ("HELM_DATA_HOME", "helm-data"),
        ("KUBECACHEDIR", "kubectl"),
    ] {
        command.env(variable, folder.join(name));
    }
    command
}
