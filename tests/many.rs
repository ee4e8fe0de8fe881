//! Many servers at once, and several objects for one host.

use crate::support::{
    PATIENCE, Scene, WriteCounter, all_events, count, eventually, holds_for,
    objects::{self, has_condition},
};
use futures::{StreamExt as _, stream};
use kube::api::ListParams;
use ollama_fleet_operator::api::OllamaServer;
use serde_json::json;
use std::{
    env,
    time::{Duration, Instant},
};

/// Three hundred, or what `TEST_SERVERS` says.
fn servers() -> usize {
    env::var("TEST_SERVERS").ok().and_then(|text| text.parse().ok()).unwrap_or(300)
}

async fn ready_as(scene: &Scene, status: &str, reason: &str) -> usize {
    let api = objects::api::<OllamaServer>(&scene.client, &scene.namespace);
    let list = api.list(&ListParams::default()).await.unwrap();
    list.items.iter().filter(|server| has_condition(*server, "Ready", status, reason).is_ok()).count()
}

/// A fleet that is created at once is Ready within 15 s. When it dies at once, with its agents, there is one
/// `ServerOffline` a server and nothing else, and two writes a server, within the write budget. No host is ever asked
/// twice at the same time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_dies_at_once_is_told_of_server_by_server() {
    let number = servers();
    let scene = Scene::new(number).await;
    scene.agents().await;
    // A thousand servers once a second are more than the test's share of the machine.
    let spec = json!({"poll": {"interval": "5s", "timeout": "3s"}});
    let start = Instant::now();
    stream::iter(0..number)
        .for_each_concurrent(16, async |index| {
            let name = format!("s{index:04}");
            let server = objects::server_with(&name, scene.fleet.host(index), spec.clone());
            objects::create(&scene.client, &scene.namespace, &server).await.unwrap();
        })
        .await;
    let created = start.elapsed();
    eventually(Duration::from_secs(15) * 3, "all are Ready", async || {
        let ready = ready_as(&scene, "True", "Online").await;
        if ready == number { Ok(()) } else { Err(format!("{ready} of {number}")) }
    })
    .await;
    eprintln!("figure: {number} created in {created:?}, all Ready after {:?}, bound 15 s", start.elapsed());
    assert_eq!(all_events(&scene.client, &scene.namespace).await.len(), 0, "a first good verdict is no news");
    // The first poll may have come before the plugin; then its first reading is one more write.
    eventually(PATIENCE, "every agent has been read", async || {
        let api = objects::api::<OllamaServer>(&scene.client, &scene.namespace);
        let list = api.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let read =
            |server: &&OllamaServer| has_condition(*server, "PluginsHealthy", "True", "AllHealthy").is_ok();
        let read = list.items.iter().filter(read).count();
        if read == number { Ok(()) } else { Err(format!("{read} of {number}")) }
    })
    .await;

    let writes = WriteCounter::start(&scene.client, &scene.namespace).await;
    let died = Instant::now();
    scene.fleet.action("all", "die").await;
    // Three intervals and the timeout, and the writes at a hundred a second.
    let bound =
        Duration::from_secs(5 * 3 + 3 + 1) + Duration::from_millis(20) * u32::try_from(number).unwrap();
    eventually(bound * 3, "all are offline", async || {
        let offline = ready_as(&scene, "False", "ConnectionRefused").await;
        if offline == number { Ok(()) } else { Err(format!("{offline} of {number}")) }
    })
    .await;
    eprintln!("figure: {number} offline after {:?}, bound {bound:?}", died.elapsed());
    let told = async || count(&all_events(&scene.client, &scene.namespace).await, "ServerOffline");
    eventually(Duration::from_mins(1), "every death is told", async || {
        let told = told().await;
        if told == number { Ok(()) } else { Err(format!("{told} of {number}")) }
    })
    .await;
    eprintln!("figure: {number} told after {:?}", died.elapsed());
    // A doubt that waits for its turn to be written until the verdict is there is overtaken by it.
    let wanted = if number > 400 { 1..=2 } else { 2..=2 };
    holds_for(Duration::from_secs(11), "no write and no Event follows", async || {
        let all = writes.all().await;
        let wrong: Vec<_> =
            all.iter().filter(|(_, writes)| !wanted.contains(&writes.len())).take(3).collect();
        if all.len() == number && wrong.is_empty() { Ok(()) } else { Err(format!("{wrong:?}")) }
    })
    .await;
    let events = all_events(&scene.client, &scene.namespace).await;
    assert_eq!((count(&events, "ServerOffline"), events.len()), (number, number));
    let stats = scene.fleet.stats().await;
    assert_eq!((stats.max_in_flight, stats.agent_max_in_flight), (1, 1));
    assert!(stats.max_connections <= 1, "{}", stats.max_connections);
}

/// Two objects for one host are both Ready, and the host is still asked by one at a time, even if it is slow.
#[tokio::test]
async fn a_host_with_two_objects_is_asked_by_one_at_a_time() {
    let scenario = json!({"defaults": {"ollama": {"mode": "healthy", "latencyMs": 150}}});
    let scene = Scene::with(1, &scenario, |builder| builder).await;
    for name in ["a", "b", "c"] {
        scene.server(name, 0, json!({"poll": {"interval": "2s"}})).await;
    }
    for name in ["a", "b", "c"] {
        scene.until_online(name).await;
    }
    scene.polls(0, 12).await;
    let stats = scene.fleet.host_stats(0).await;
    assert_eq!((stats.max_in_flight, stats.max_connections), (1, 1));
    assert_eq!(all_events(&scene.client, &scene.namespace).await.len(), 0);
}
