//! The llama-server plugin, as it ships, beside servers that put an idle model to sleep: reading metrics restarts their
//! idle time, and wakes a model that sleeps. Seen of llama-server b10434 with `--sleep-idle-seconds`.

use crate::support::{
    PATIENCE, Scene, binaries, eventually, holds_for,
    objects::server_with,
    servers::{FakeServer, LLAMA_ROUTER, LLAMA_SERVER, Life, Program},
};
use ollama_fleet_operator::api::FleetPlugin;
use serde_json::{Value, json};
use std::{fs, time::Duration};

/// What `--sleep-idle-seconds` would say: longer than the interval, shorter than a few doubled pauses.
const IDLE: Duration = Duration::from_secs(5);
/// Long enough for a reading that must not come.
const QUIET: Duration = Duration::from_secs(5);
const MODEL: &str = "qwen3-8b";

/// The plugin from its manifest.
fn shipped() -> FleetPlugin {
    let manifest = binaries::repository().join("plugins/llama-server/plugin.yaml");
    serde_saphyr::from_str(&fs::read_to_string(manifest).unwrap()).unwrap()
}

/// The copy for one model of a router, as the plugin's README has it.
fn for_router() -> FleetPlugin {
    let mut plugin = shipped();
    let endpoint = format!("/metrics?model={MODEL}&autoload=false");
    plugin.spec.agent.as_mut().unwrap().endpoint = endpoint;
    plugin
}

/// A server for a fake, with the plugin's label and its port.
async fn register(scene: &Scene, name: &str, fake: &FakeServer, mut spec: Value) {
    spec["pluginPorts"] = json!({"llamaServerPort": fake.address.port()});
    let mut server = server_with(name, fake.address.to_string(), spec);
    let label = ("ollama-fleet.io/llama-server".to_owned(), "true".to_owned());
    server.metadata.labels.get_or_insert_default().extend([label]);
    scene.apply(&server).await;
}

/// A program in some state, which sleeps when it is idle, and the plugin that reads it.
async fn plugged(program: &Program, life: Life, plugin: FleetPlugin) -> (Scene, FakeServer) {
    let scene = Scene::new(1).await;
    scene.apply(&plugin).await;
    let mut fake = FakeServer::new(program).await;
    fake.become_(life).await;
    fake.rests_after(IDLE, Life::Sleeping);
    register(&scene, "llama", &fake, json!({"backendType": "VLLM"})).await;
    scene.until_online("llama").await;
    (scene, fake)
}

async fn until_plugin_is(scene: &Scene, name: &str, state: &str) {
    eventually(PATIENCE, &format!("the plugin is {state} at {name}"), async || {
        let report = scene.status(name).await.plugins.unwrap_or_default().into_iter().next();
        let is = report.as_ref().and_then(|report| report.state.as_deref());
        if is == Some(state) { Ok(()) } else { Err(format!("{report:?}")) }
    })
    .await;
    scene.until(name, "PluginsHealthy", "True", "AllHealthy").await;
}

async fn until_it_sleeps(fake: &FakeServer) {
    eventually(PATIENCE, "it falls asleep although it is read", async || {
        if fake.life() == Life::Sleeping { Ok(()) } else { Err(format!("{:?}", fake.all_asked())) }
    })
    .await;
}

/// Nothing but what is free is asked for a while, and nothing was ever woken or loaded.
async fn is_left_alone(fake: &FakeServer, life: Life) {
    let read = fake.asked("/metrics");
    let polls = fake.asked("/v1/models");
    holds_for(QUIET, "it is left alone", async || {
        let (counts, asked) = (fake.counts(), fake.all_asked());
        let alone = fake.life() == life && fake.asked("/metrics") == read;
        if alone && (counts.wakes, counts.loads) == (0, 0) {
            Ok(())
        } else {
            Err(format!("{counts:?} {asked:?}"))
        }
    })
    .await;
    assert!(fake.asked("/v1/models") >= polls + 3, "it is polled meanwhile");
}

/// An idle server is read ever more rarely and so falls asleep; while it sleeps the plugin is Idle, which is healthy,
/// and its endpoint is left alone. A request of a user wakes it, and then it is read anew, and falls asleep again. The
/// idle times are such that some of the models fall asleep between a poll and the next reading.
#[tokio::test]
async fn an_idle_server_falls_asleep_and_is_not_woken() {
    let scene = Scene::new(1).await;
    scene.apply(&shipped()).await;
    let mut fakes = Vec::new();
    for millis in [1500, 2500, 3500, 5000, 6500, 7300] {
        let (name, mut fake) = (format!("idle-{millis}"), FakeServer::new(&LLAMA_SERVER).await);
        fake.become_(Life::Serving).await;
        register(&scene, &name, &fake, json!({"backendType": "VLLM"})).await;
        fake.rests_after(Duration::from_millis(millis), Life::Sleeping);
        fakes.push((name, fake));
    }
    for _ in 0..2 {
        for (name, fake) in &fakes {
            eventually(PATIENCE, &format!("{name} is read"), async || fake.asked("/metrics") > 0).await;
        }
        for (name, fake) in &fakes {
            until_it_sleeps(fake).await;
            until_plugin_is(&scene, name, "Idle").await;
            let report = scene.status(name).await;
            assert_eq!(report.loaded_count, Some(0), "{name}");
        }
        for (_, fake) in &fakes {
            is_left_alone(fake, Life::Sleeping).await;
        }
        for (name, fake) in &fakes {
            let read = fake.asked("/metrics");
            fake.used_by_somebody();
            eventually(PATIENCE, &format!("{name} is read anew"), async || fake.asked("/metrics") > read)
                .await;
        }
    }
}

/// A server that works is read at each interval, however long before it was idle: counters that move end the pauses.
#[tokio::test]
async fn a_server_that_works_is_read_at_its_interval() {
    let (_scene, fake) = plugged(&LLAMA_SERVER, Life::Serving, shipped()).await;
    eventually(PATIENCE, "it has been idle for some readings", async || fake.asked("/metrics") >= 3).await;
    let read = fake.asked("/metrics");
    holds_for(Duration::from_secs(12), "it works", async || {
        fake.used_by_somebody();
        fake.counts().wakes == 0
    })
    .await;
    let read = fake.asked("/metrics") - read;
    assert!(read >= 5, "{read} readings in 12 s of work");
}

/// Of a router that model is read only while it is in memory and awake; nothing is loaded, and nothing is woken.
#[tokio::test]
async fn a_router_is_read_only_while_the_model_is_awake() {
    let (scene, mut fake) = plugged(&LLAMA_ROUTER, Life::Unloaded, for_router()).await;
    until_plugin_is(&scene, "llama", "Idle").await;
    is_left_alone(&fake, Life::Unloaded).await;
    assert_eq!(fake.asked("/metrics"), 0);
    fake.used_by_somebody();
    eventually(PATIENCE, "it is read", async || fake.asked("/metrics") > 0).await;
    until_it_sleeps(&fake).await;
    until_plugin_is(&scene, "llama", "Idle").await;
    is_left_alone(&fake, Life::Sleeping).await;
    fake.become_(Life::Unloaded).await;
    is_left_alone(&fake, Life::Unloaded).await;
}

/// Of a server that is registered as Generic nobody knows whether a model is in memory, so the plugin leaves it alone.
#[tokio::test]
async fn what_is_unknown_is_not_asked() {
    let scene = Scene::new(1).await;
    scene.apply(&shipped()).await;
    let mut fake = FakeServer::new(&LLAMA_SERVER).await;
    fake.become_(Life::Sleeping).await;
    register(&scene, "llama", &fake, json!({"backendType": "Generic"})).await;
    scene.until_online("llama").await;
    until_plugin_is(&scene, "llama", "Idle").await;
    holds_for(QUIET, "it is left alone", async || {
        fake.life() == Life::Sleeping && fake.asked("/metrics") == 0
    })
    .await;
}
