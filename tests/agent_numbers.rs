//! What is made of the numbers of agents, seen from outside: what is counted once, what is not believed, what is told of
//! an answer that lacks something, and how an agent is asked.

use crate::support::{
    PATIENCE, Scene, eventually, holds_for, metric_value,
    objects::{count, has_condition, plugin},
};
use k8s_openapi::jiff::{SignedDuration, Timestamp};
use ollama_fleet_operator::api::server_status::{PluginReport, Scalar};
use serde_json::{Value, json};
use std::{
    collections::HashMap,
    net::Ipv4Addr,
    sync::{Arc, Mutex},
    time::{Duration, Instant},
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    task::JoinHandle,
};

/// Longest that a connection may stand after its answer; a busy machine needs some of it.
const CLOSED_WITHIN: Duration = Duration::from_secs(1);
/// What pmproxy of PCP 6.0.3 sends of its answer to who asks it to close the connection.
const CUT: usize = 4096;

/// An agent with a body for each path, which keeps its connections open for as long as it may.
struct Agent {
    port: u16,
    bodies: Arc<Mutex<HashMap<String, String>>>,
    seen: Arc<Mutex<Seen>>,
    task: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Seen {
    /// For how long each connection stood after the answer.
    stood: Vec<Duration>,
    /// Second requests on a connection.
    again: usize,
}

impl Agent {
    async fn start(address: Ipv4Addr, bodies: &[(&str, &str)]) -> Self {
        let listener = TcpListener::bind((address, 0)).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let bodies: HashMap<String, String> =
            bodies.iter().map(|(path, body)| ((*path).to_owned(), (*body).to_owned())).collect();
        let (bodies, seen) = (Arc::new(Mutex::new(bodies)), Arc::new(Mutex::new(Seen::default())));
        let shared = (Arc::clone(&bodies), Arc::clone(&seen));
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (bodies, seen) = (Arc::clone(&shared.0), Arc::clone(&shared.1));
                tokio::spawn(async move { drop(answer(stream, &bodies, &seen).await) });
            }
        });
        Self { port, bodies, seen, task }
    }

    fn say(&self, path: &str, body: impl Into<String>) {
        self.bodies.lock().unwrap().insert(path.to_owned(), body.into());
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(
    mut stream: TcpStream,
    bodies: &Mutex<HashMap<String, String>>,
    seen: &Mutex<Seen>,
) -> std::io::Result<()> {
    let mut request = vec![0; 4096];
    let read = stream.read(&mut request).await?;
    let request = String::from_utf8_lossy(&request[..read]).to_ascii_lowercase();
    let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
    let (line, body) = match bodies.lock().unwrap().get(&path) {
        Some(body) => ("200 OK", body.clone()),
        None => ("404 Not Found", "404 page not found\n".to_owned()),
    };
    let mut whole = format!("HTTP/1.1 {line}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).into_bytes();
    if request.contains("connection: close") {
        whole.truncate(CUT);
        return stream.write_all(&whole).await;
    }
    stream.write_all(&whole).await?;
    let begin = Instant::now();
    let read = stream.read(&mut [0; 64]).await;
    let mut seen = seen.lock().unwrap();
    seen.again += usize::from(matches!(read, Ok(1..)));
    seen.stood.push(begin.elapsed());
    Ok(())
}

async fn report(scene: &Scene, plugin: &str) -> PluginReport {
    let reports = scene.status("a").await.plugins.unwrap_or_default();
    reports.into_iter().find(|report| report.name == plugin).unwrap_or_default()
}

async fn scene() -> Scene {
    let scene = Scene::new(1).await;
    scene.server("a", 0, json!({})).await;
    scene.until_online("a").await;
    scene
}

/// One sentence for six causes told nobody what to do.
#[tokio::test]
async fn what_an_answer_lacked_is_told() {
    let scene = scene().await;
    let bodies = [
        ("/page", "<!doctype html><title>It works</title>"),
        ("/line", "up 1\n# a comment\nqueue about 12\n"),
        ("/cut", "{\n \"temps\": {\"gpu\": 5"),
        ("/other", "{\"load\": 1}"),
        ("/exporter", "go_goroutines 7\n"),
    ];
    let agent = Agent::start(scene.fleet.address(0), &bodies).await;
    let values = json!([
        {"name": "gpuTemp", "jsonPaths": ["$.temps.gpu"]},
        {"name": "queue", "metric": {"name": "queue"}},
    ]);
    let expected = [
        ("gone", "the agent answers 404 to /gone"),
        ("page", "the answer is a page (HTML or XML), not metrics"),
        ("line", "line 3 of the answer is not in Prometheus' text format"),
        ("cut", "the answer is not JSON (line 2, column 19)"),
        (
            "other",
            "none of the plugin's values is in the answer; the first that is missing: value gpuTemp, path $.temps.gpu",
        ),
        (
            "exporter",
            "none of the plugin's values is in the answer; the first that is missing: value queue, metric queue",
        ),
    ];
    for (name, _) in expected {
        let spec = json!({"endpoint": format!("/{name}"), "values": values});
        scene.apply(&plugin(name, agent.port, spec)).await;
    }
    eventually(PATIENCE, "every plugin says what its answer lacked", async || {
        for (name, message) in expected {
            let report = report(&scene, name).await;
            let said = (report.state.as_deref(), report.reason.as_deref(), report.message.as_deref());
            if said != (Some("Error"), Some("InvalidResponse"), Some(message)) {
                return Err(format!("{name}: {said:?}"));
            }
        }
        Ok(())
    })
    .await;
    // The answer grows by a line before the odd one: that is no news.
    let writes = scene.writes().await;
    agent.say("/line", "up 1\nup 2\nup 3\nqueue about 12\n");
    holds_for(Duration::from_secs(4), "a line that moves is not told", async || {
        let written = writes.total().await;
        if written == 0 { Ok(()) } else { Err(format!("{written} writes")) }
    })
    .await;
}

/// DCGM exporter 4.2 with job mapping shows a GPU once for each job; `nvidia_gpu_exporter` 1.14 has told 644,245,923 °C.
#[tokio::test]
async fn a_device_counts_once_and_no_impossible_reading_is_believed() {
    let scene = scene().await;
    let text = |degrees: u32| {
        format!(
            "used{{UUID=\"GPU-a\",pod=\"one\"}} 84500\nused{{UUID=\"GPU-a\",pod=\"two\"}} 84500\n\
             used{{UUID=\"GPU-b\"}} 1000\ntemperature{{UUID=\"GPU-a\"}} {degrees}\n"
        )
    };
    let agent = Agent::start(scene.fleet.address(0), &[("/metrics", &text(644_245_923))]).await;
    let values = json!([
        {"name": "used", "metric": {"name": "used", "distinctBy": ["UUID"]}, "reduce": "Sum"},
        {"name": "gpu", "metric": {"name": "temperature"}, "reduce": "Max", "reading": "gpuTemperatureCelsius"},
    ]);
    scene.apply(&plugin("gpus", agent.port, json!({"values": values}))).await;
    let message = "gpuTemperatureCelsius is not within -50 to 150 and is left out";
    let as_expected = async || {
        let report = report(&scene, "gpus").await;
        let said = (report.state.as_deref(), report.reason.as_deref(), report.message.as_deref());
        if said != (Some("Active"), Some("ImplausibleReading"), Some(message)) {
            return Err(format!("{said:?}"));
        }
        let expected = [("used".to_owned(), Scalar::Integer(85_500))];
        assert_eq!(*report.values, expected.into(), "rules judge values, so it is none");
        let server = scene.get("a").await;
        assert_eq!(crate::support::condition(&server, "ThermalPressure"), None);
        has_condition(&server, "PluginsHealthy", "True", "AllHealthy")
    };
    eventually(PATIENCE, "the reading is named and left out", &as_expected).await;
    holds_for(Duration::from_secs(3), "it judges nothing", &as_expected).await;
    assert_eq!(scene.told("a").await, Vec::<String>::new());
    let metrics = scene.operator.metrics().await;
    let rejected = [("reading", "gpuTemperatureCelsius")];
    assert!(metric_value(&metrics, "ollama_fleet_readings_rejected_total", &rejected) >= Some(1.0));
    assert_eq!(metric_value(&metrics, "ollama_fleet_server_temperature_celsius", &[("sensor", "gpu")]), None);

    agent.say("/metrics", text(61));
    eventually(PATIENCE, "the good one is told", async || {
        let machine = scene.status("a").await.machine.unwrap_or_default();
        let report = report(&scene, "gpus").await;
        machine.gpu_temperature_celsius == Some(61) && report.reason.is_none()
    })
    .await;
}

/// A clock without a battery begins in 1970, NTP steps it forward, and somebody sets it back; none of it is a reboot.
#[tokio::test]
async fn a_clock_that_is_set_is_no_reboot() {
    let scene = scene().await;
    let boot = |ago: SignedDuration| json!({"boot": (Timestamp::now() - ago).as_second()}).to_string();
    let hours = SignedDuration::from_hours;
    let agent = Agent::start(scene.fleet.address(0), &[("/metrics", "{\"boot\": 9}")]).await;
    let values = json!([{"name": "boot", "type": "Time", "jsonPaths": ["$.boot"], "reading": "bootTime"}]);
    scene.apply(&plugin("clock", agent.port, json!({"values": values}))).await;
    eventually(PATIENCE, "1970 is not believed", async || {
        report(&scene, "clock").await.reason.as_deref() == Some("ImplausibleReading")
    })
    .await;
    let shown = async || {
        let metrics = scene.operator.metrics().await;
        metric_value(&metrics, "ollama_fleet_server_boot_timestamp_seconds", &[])
    };
    assert_eq!(shown().await, None);
    // NTP sets the clock; then it is ten minutes ahead, and then three hours behind.
    for told in [boot(hours(2)), boot(hours(2) - SignedDuration::from_mins(10)), boot(hours(5))] {
        agent.say("/metrics", told.clone());
        let told: Value = serde_json::from_str(&told).unwrap();
        eventually(PATIENCE, "the boot time is known", async || shown().await == told["boot"].as_f64()).await;
    }
    assert_eq!(count(&scene.events("a").await, "ServerRebooted"), 0);
    agent.say("/metrics", boot(SignedDuration::from_secs(-5)));
    eventually(PATIENCE, "a reboot is told", async || count(&scene.events("a").await, "ServerRebooted") == 1)
        .await;
}

/// pmproxy of PCP 6.0.3 cuts its answer at 4 KiB for who asks it to close the connection.
#[tokio::test]
async fn an_agent_is_not_asked_to_close_and_its_connection_is_closed() {
    let scene = scene().await;
    let long = format!("{}load 7\n", "# as long as an exporter's answer is\n".repeat(400));
    let agent = Agent::start(scene.fleet.address(0), &[("/metrics", &long)]).await;
    let values = json!([{"name": "load", "metric": {"name": "load"}}]);
    scene.apply(&plugin("pcp", agent.port, json!({"values": values}))).await;
    eventually(PATIENCE, "the whole answer is read", async || {
        let report = report(&scene, "pcp").await;
        report.state.as_deref() == Some("Active") && report.values.contains_key("load")
    })
    .await;
    eventually(PATIENCE, "several readings", async || agent.seen.lock().unwrap().stood.len() >= 3).await;
    let seen = agent.seen.lock().unwrap();
    assert_eq!(seen.again, 0, "each reading is a connection of its own");
    assert!(seen.stood.iter().all(|stood| *stood < CLOSED_WITHIN), "{seen:?}");
}
