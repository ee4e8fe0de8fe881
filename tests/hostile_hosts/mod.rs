//! Hosts that answer wrongly, slowly, too much, or not at all: each gets its reason, and nobody else notices.

mod addresses;
mod agents;
mod bodies;
mod exporters;
mod fleet;
mod framing;
mod names;
mod neighbours;
mod restart;
mod slow;
mod statuses;

use crate::support::{
    PATIENCE, RawHost, Scene, eventually, holds_for, metric_value,
    objects::{self, has_condition, server_with},
    proc,
    raw_host::Script,
};
use kube::{
    Client,
    api::{DeleteParams, ListParams},
};
use ollama_fleet_operator::api::OllamaServer;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// Polls of these tests come every second, wait 0.8 s at most, and three failures are a verdict: 3 × 1 s + 0.8 s +
/// 1 s, three times over for a busy machine.
const VERDICT: Duration = Duration::from_millis(3 * 4800);
/// Longest time between two polls of a healthy host, in milliseconds: 2.5 intervals.
const GAP: i64 = 2500;
/// What one hostile host may add to the operator's memory while it is asked: a body of 1 MiB, its copy while it grows,
/// and the buffers of the connection.
const MEMORY_EACH: u64 = 3 << 20;
/// What the operator may grow by for reasons of its own: allocators keep some, metrics and Events have first uses.
const MEMORY_BASE: u64 = 24 << 20;
/// Connections that the operator may have open to the API server beyond those of before.
const OWN_FILES: usize = 24;
/// An answer of Ollama's API whatever was asked: a version beside a list of models.
const VERSION: &str = r#"{"version":"0.24.0","models":[]}"#;
const OK: &str = "HTTP/1.1 200 OK\r\n";

/// A name for the fault, what the host does, and the reason of Ready that comes of it; of a flood of the smallest pieces
/// it may be one of two, by how busy the machine is: `A|B`.
type Row = (&'static str, Script, &'static str);

/// Hostile hosts beside healthy ones, and the kernel and the healthy hosts as witnesses.
struct Stage {
    scene: Scene,
    hosts: Vec<(String, &'static str, RawHost, &'static str)>,
    files: usize,
    memory: u64,
}

impl Stage {
    const HEALTHY: usize = 3;

    /// Hosts that are well, for a while; from here on they are watched.
    async fn set() -> Self {
        let scene = Scene::new(Self::HEALTHY).await;
        for host in 0..Self::HEALTHY {
            scene.server(&format!("healthy{host}"), host, json!({})).await;
        }
        for host in 0..Self::HEALTHY {
            scene.until_online(&format!("healthy{host}")).await;
        }
        let (pid, memory) = (scene.operator.pid(), scene.operator.rss_bytes());
        let files = proc::open_files(pid);
        proc::reset_peak(pid);
        scene.fleet.reset_stats().await;
        Self { scene, hosts: Vec::new(), files, memory }
    }

    async fn add(&mut self, (what, script, reason): Row, spec: Value) {
        let (name, host) = (format!("s{:02}", self.hosts.len()), RawHost::start(script).await);
        self.scene.apply(&server_with(&name, host.address.to_string(), spec)).await;
        self.hosts.push((name, what, host, reason));
    }

    /// Whether every host has its reason by now; if not, which have another.
    async fn verdicts(&self) -> Result<(), String> {
        let servers = list(&self.scene.client, &self.scene.namespace).await;
        let mut missing = Vec::new();
        for (name, what, _, reason) in &self.hosts {
            let object = &servers[name];
            let status = if *reason == "Online" { "True" } else { "False" };
            let is = |reason| has_condition(object, "Ready", status, reason);
            if reason.split('|').all(|reason| is(reason).is_err()) {
                missing.push(format!("{what}: {:?}", is(reason)));
            }
            assert_clean(&serde_json::to_value(object).unwrap());
        }
        if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
    }

    /// All rows get their reasons, keep them and go on being asked; then they are deleted, and nothing is left of them.
    async fn play(rows: Vec<Row>) {
        let mut stage = Self::set().await;
        for row in rows {
            stage.add(row, json!({})).await;
        }
        stage.until_judged().await;
        stage.strike().await;
    }

    /// Waits for the verdicts, and sees them stand over some more polls.
    async fn until_judged(&self) {
        eventually(VERDICT, "every fault has become its reason", async || self.verdicts().await).await;
        let before: Vec<usize> = self.hosts.iter().map(|(.., host, _)| host.accepted()).collect();
        holds_for(Duration::from_secs(3), "the verdicts stand", async || self.verdicts().await).await;
        for ((_, what, host, _), before) in self.hosts.iter().zip(before) {
            assert!(host.accepted() > before, "{what}: it is not asked any more, so its slot is not free");
        }
    }

    /// Deletes the hostile ones, and asks the witnesses.
    async fn strike(self) {
        let Self { scene, hosts, files, memory } = self;
        let pid = scene.operator.pid();
        let grown = proc::peak_bytes(pid).saturating_sub(memory);
        let api = objects::api::<OllamaServer>(&scene.client, &scene.namespace);
        for (name, ..) in &hosts {
            api.delete(name, &DeleteParams::default()).await.unwrap();
        }
        eventually(PATIENCE, "no connection to them is left", async || {
            let left = proc::connected(pid);
            let theirs =
                hosts.iter().filter(|(.., host, _)| left.iter().any(|is| host.address.ip() == *is)).count();
            let now = proc::open_files(pid);
            if theirs == 0 && now <= files + OWN_FILES {
                Ok(())
            } else {
                Err(format!("{theirs} connections; {now} open files, {files} before"))
            }
        })
        .await;
        let widest = on_schedule(&scene, 0..Self::HEALTHY).await;
        let metrics = scene.operator.metrics().await;
        assert_eq!(metric_value(&metrics, "ollama_fleet_panics_total", &[]), Some(0.0));
        let allowed = MEMORY_BASE + hosts.len() as u64 * MEMORY_EACH;
        assert!(grown <= allowed, "the operator grew by {} MiB of {}", grown >> 20, allowed >> 20);
        eprintln!(
            "figure: {} hostile hosts: {} MiB more at the peak; widest gap of a healthy host {widest} ms; {:.1} s of CPU",
            hosts.len(),
            grown >> 20,
            scene.operator.cpu_seconds()
        );
    }
}

/// Whether these hosts of the fleet have been asked on schedule since its stats were reset; the widest gap.
async fn on_schedule(scene: &Scene, hosts: std::ops::Range<usize>) -> i64 {
    let mut widest = 0;
    let selector = format!("{}-{}", hosts.start, hosts.end - 1);
    for (host, arrivals) in scene.fleet.arrivals(&selector, "/api/version").await {
        let gap = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(i64::MAX);
        assert!(gap <= GAP, "{host} was not asked for {gap} ms: {arrivals:?}");
        widest = widest.max(gap);
    }
    assert!(scene.fleet.stats().await.max_in_flight <= 1, "two requests at once to one host");
    widest
}

/// Every server of the namespace, by name.
async fn list(client: &Client, namespace: &str) -> BTreeMap<String, OllamaServer> {
    let list = objects::api::<OllamaServer>(client, namespace).list(&ListParams::default()).await.unwrap();
    list.items.into_iter().map(|server| (server.metadata.name.clone().unwrap_or_default(), server)).collect()
}

/// No text in it can move a cursor, hide itself or turn the direction of writing.
#[track_caller]
fn assert_clean(value: &Value) {
    match value {
        Value::String(text) => {
            let bad = |c: char| {
                c.is_control()
                    || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
            };
            assert!(!text.contains(bad), "{text:?}");
        }
        Value::Array(items) => items.iter().for_each(assert_clean),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            assert_clean(&Value::String(key.clone()));
            assert_clean(value);
        }),
        _ => {}
    }
}
