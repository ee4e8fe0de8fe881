//! The guide for authors of plugins: what it shows are the files of its example, and these do what it says. The agent is
//! the shell script of the guide, started anew for every connection as inetd and systemd's sockets do.

use crate::support::{
    ControlPlane, PATIENCE, Scene, binaries,
    child::Process,
    condition, eventually, get, metric_value,
    objects::{self, has_condition, server_with},
};
use k8s_openapi::api::events::v1::Event;
use kube::api::DeleteParams;
use ollama_fleet_operator::api::{
    FleetPlugin,
    server_status::{PluginReport, Scalar},
};
use serde_json::json;
use std::{
    fs,
    net::Ipv4Addr,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

const FILES: [&str; 4] = ["agent.sh", "pi-agent.socket", "pi-agent@.service", "plugin.yaml"];
/// The longest that one answer may take; `RuntimeMaxSec` of the unit.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
const QUEUE_LONG: &str = "pi-agent.plugins.ollama-fleet.io/QueueLong";

#[test]
fn the_guide_shows_the_files_of_its_example() {
    let guide = fs::read_to_string(binaries::repository().join("docs/agent-plugins.md")).unwrap();
    let blocks = fenced(&guide);
    for name in FILES {
        let file = fs::read_to_string(example(name)).unwrap();
        assert!(blocks.contains(&file), "docs/agent-plugins.md does not show examples/agent-plugin/{name}");
    }
    let lines = fs::read_to_string(example("agent.sh")).unwrap().lines().count();
    assert!(lines <= 20, "the guide promises an agent of 20 lines, this one has {lines}");
}

/// From a script to values, a reading, a condition, an Event and metrics; and nothing of it is left without the plugin.
#[tokio::test]
async fn the_example_of_the_guide_works_and_goes_without_a_trace() {
    let idle = json!({"defaults": {"loaded": []}});
    let scene = Scene::with(1, &idle, |builder| builder).await;
    let machine = Machine::new();
    machine.jobs(2);
    machine.temperature("48312");
    let agent = Inetd::start(scene.fleet.address(0), &machine).await;
    // Five processes make an answer, which takes its time on a busy machine.
    let spec = json!({
        "pluginPorts": {"piAgentPort": agent.port},
        "poll": {"interval": "2s", "failureThreshold": 10},
    });
    let mut server = server_with("pi", scene.fleet.host(0), spec);
    server.metadata.labels = Some([("pi-agent".to_owned(), "true".to_owned())].into());
    scene.apply(&server).await;
    // The file itself, as the guide says: an object of ours would have written out what the file leaves to defaults.
    let apply = ["apply", "--server-side", "-n", &scene.namespace, "-f", "examples/agent-plugin/plugin.yaml"];
    ControlPlane::shared().kubectl(&apply, None).ok();

    scene.until_read("pi").await;
    let status = scene.status("pi").await;
    let report = status.plugins.unwrap().remove(0);
    assert_eq!((report.name.as_str(), report.state.as_deref()), ("pi-agent", Some("Active")));
    assert_eq!((number(&report, "cpuTemperature"), number(&report, "jobs")), (Some(48), Some(2)));
    let (total, free) = (number(&report, "diskTotal").unwrap(), number(&report, "diskFree").unwrap());
    assert!(0 < free && free < total, "{report:?}");
    assert_eq!(number(&report, "diskFreePercent"), Some(100 * free / total));
    assert_eq!(status.machine.unwrap().cpu_temperature_celsius, Some(48));
    scene.until("pi", QUEUE_LONG, "False", "Warning").await;
    eventually(PATIENCE, "the plugin counts its server", async || {
        let plugin: FleetPlugin = get(&scene.client, &scene.namespace, "pi-agent").await;
        has_condition(&plugin, "Ready", "True", "Healthy")?;
        has_condition(&plugin, "RulesHealthy", "True", "Evaluated")?;
        let summary = plugin.status.and_then(|status| status.servers).map(|servers| servers.summary);
        if summary.as_deref() == Some("1/1") { Ok(()) } else { Err(format!("{summary:?}")) }
    })
    .await;
    until_metrics(&scene, [Some(1.0), Some(2.0), Some(0.0), Some(0.0), Some(48.0)]).await;

    machine.jobs(12);
    machine.temperature("71500");
    scene.until("pi", QUEUE_LONG, "True", "Warning").await;
    let (.., message) = condition(&scene.get("pi").await, QUEUE_LONG).unwrap();
    assert!(message.starts_with("More than ten jobs are waiting"), "{message}");
    scene.until_told("pi", &["HotWhileIdle"]).await;
    let hot = told(&scene, "HotWhileIdle").await;
    assert_eq!(hot.type_.as_deref(), Some("Warning"));
    assert!(hot.note.unwrap().starts_with("plugin pi-agent: The CPU is hot"));
    until_metrics(&scene, [Some(1.0), Some(12.0), Some(1.0), Some(1.0), Some(72.0)]).await;

    machine.temperature("52000");
    scene.until_told("pi", &["HotWhileIdle", "HotWhileIdleResolved"]).await;
    assert_eq!(told(&scene, "HotWhileIdleResolved").await.type_.as_deref(), Some("Normal"));
    assert_eq!(condition(&scene.get("pi").await, QUEUE_LONG).unwrap().0, "True");

    let plugins = objects::api::<FleetPlugin>(&scene.client, &scene.namespace);
    plugins.delete("pi-agent", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "nothing of the plugin is left", async || {
        let server = scene.get("pi").await;
        let status = objects::status_of(&server);
        let conditions = [QUEUE_LONG, "PluginsHealthy"].map(|type_| condition(&server, type_));
        if conditions == [None, None] && status.plugins.is_none() && status.machine.is_none() {
            Ok(())
        } else {
            Err(format!("{conditions:?} {:?} {:?}", status.plugins, status.machine))
        }
    })
    .await;
    until_metrics(&scene, [None; 5]).await;
    let text = scene.operator.metrics().await;
    assert!(!text.contains("pi-agent"), "a series is left: {text}");
    scene.until_online("pi").await;
    scene.until_told("pi", &["HotWhileIdle", "HotWhileIdleResolved"]).await;
}

/// Whether the agent answers, its jobs, the rules `QueueLong` and `HotWhileIdle`, and the reading.
async fn until_metrics(scene: &Scene, expected: [Option<f64>; 5]) {
    const SERIES: [(&str, &[(&str, &str)]); 5] = [
        ("ollama_fleet_plugin_up", &[("plugin", "pi-agent")]),
        ("ollama_fleet_plugin_value", &[("plugin", "pi-agent"), ("name", "jobs")]),
        ("ollama_fleet_rule_active", &[("plugin", "pi-agent"), ("rule", "QueueLong")]),
        ("ollama_fleet_rule_active", &[("plugin", "pi-agent"), ("rule", "HotWhileIdle")]),
        ("ollama_fleet_server_temperature_celsius", &[("sensor", "cpu")]),
    ];
    eventually(PATIENCE, "the metrics are as expected", async || {
        let text = scene.operator.metrics().await;
        let found = SERIES.map(|(name, labels)| {
            metric_value(
                &text,
                name,
                &[labels, &[("server", "pi"), ("namespace", &scene.namespace)]].concat(),
            )
        });
        if found == expected { Ok(()) } else { Err(format!("{found:?}")) }
    })
    .await;
}

async fn told(scene: &Scene, reason: &str) -> Event {
    let events = scene.events("pi").await;
    events.into_iter().find(|event| event.reason.as_deref() == Some(reason)).unwrap()
}

fn number(report: &PluginReport, name: &str) -> Option<i64> {
    match report.values.get(name)? {
        Scalar::Integer(number) => Some(*number),
        _ => None,
    }
}

fn example(name: &str) -> PathBuf {
    binaries::repository().join("examples/agent-plugin").join(name)
}

/// The contents of the fenced blocks of a Markdown text.
fn fenced(text: &str) -> Vec<String> {
    text.split("\n```")
        .skip(1)
        .step_by(2)
        .map(|block| format!("{}\n", block.split_once('\n').unwrap_or_default().1))
        .collect()
}

/// What the script looks at, in place of a real machine's.
struct Machine {
    folder: TempDir,
}

impl Machine {
    fn new() -> Self {
        let folder = TempDir::new().unwrap();
        fs::create_dir(folder.path().join("jobs")).unwrap();
        Self { folder }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn temperature(&self, millicelsius: &str) {
        // Replaced in one step: an empty file would be an answer that is none.
        fs::write(self.path("new"), format!("{millicelsius}\n")).unwrap();
        fs::rename(self.path("new"), self.path("temp")).unwrap();
    }

    fn jobs(&self, count: usize) {
        (0..count).for_each(|job| fs::write(self.path("jobs").join(job.to_string()), "").unwrap());
    }
}

/// Accepts connections and gives each to a new process of the script, as its standard input and output.
struct Inetd {
    port: u16,
    task: JoinHandle<()>,
}

impl Inetd {
    async fn start(address: Ipv4Addr, machine: &Machine) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let (temperature, queue) = (machine.path("temp"), machine.path("jobs"));
        let task = tokio::spawn(async move {
            while let Ok((connection, _)) = listener.accept().await {
                let (temperature, queue) = (temperature.clone(), queue.clone());
                let answer = tokio::task::spawn_blocking(move || answer(connection, &temperature, &queue));
                answer.await.unwrap();
            }
        });
        Self { port, task }
    }
}

impl Drop for Inetd {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn answer(connection: TcpStream, temperature: &Path, queue: &Path) {
    let connection = connection.into_std().unwrap();
    connection.set_nonblocking(false).unwrap();
    let mut command = Command::new("sh");
    command.arg(example("agent.sh")).env("TEMPERATURE_FILE", temperature).env("QUEUE_FOLDER", queue);
    command.stdin(OwnedFd::from(connection.try_clone().unwrap())).stdout(OwnedFd::from(connection));
    command.stderr(Stdio::null());
    let process = Process::start(&mut command);
    // It holds the connection too, which ends when nobody does.
    drop(command);
    process.wait(ANSWER_LIMIT);
}
