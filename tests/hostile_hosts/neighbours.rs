//! A namespace that asks for more than its share, and another that wants no more than its own.

use super::{GAP, has_condition, list, on_schedule};
use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, RawHost, Scene, apply, eventually, holds_for,
    metric_value, objects, objects::server_with, raw_host::script,
};
use futures::{StreamExt as _, stream};
use ollama_fleet_operator::api::OllamaServer;
use serde_json::json;
use std::time::Duration;

/// Nine hundred hosts of one namespace that accept and say nothing hold every slot that they can get. The failing hosts
/// of another namespace are asked on schedule all the same, as are its healthy ones, and get their verdicts.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_namespace_full_of_dead_hosts_delays_no_other() {
    /// At 5 s, of which each takes 4, they would hold 720 slots at once; there are 512.
    const GREEDY: usize = 900;
    const OWN: usize = 6;
    let control_plane = ControlPlane::shared();
    let client = control_plane.client().await;
    let (greedy, modest) = (Namespace::new(control_plane).await, Namespace::new(control_plane).await);
    let silent = Fleet::with(GREEDY, &json!({"defaults": {"ollama": {"mode": "hang"}}}), &[]).await;
    let own = json!({"hosts": {"3-5": {"ollama": {"mode": "hang", "stage": "headers"}}}});
    let fleet = Fleet::with(OWN, &own, &[]).await;
    let operator = Operator::builder(control_plane).namespace(&greedy).namespace(&modest).start().await;
    let spec = json!({"poll": {"interval": "5s", "timeout": "4s"}});
    stream::iter(0..GREEDY)
        .for_each_concurrent(16, async |index| {
            let server = server_with(&format!("s{index:04}"), silent.host(index), spec.clone());
            objects::create(&client, &greedy, &server).await.unwrap();
        })
        .await;
    // Until their verdicts are written, these take the operator's writes, which are bounded for all together.
    eventually(Duration::from_mins(3), "the greedy ones have their verdicts", async || {
        let servers = list(&client, &greedy).await;
        let judged =
            servers.values().filter(|object| has_condition(*object, "Ready", "False", "Timeout").is_ok());
        let judged = judged.count();
        if judged == GREEDY { Ok(()) } else { Err(format!("{judged} of {GREEDY}")) }
    })
    .await;
    for host in 0..OWN {
        apply(&client, &modest, &server_with(&format!("m{host}"), fleet.host(host), json!({}))).await;
    }
    eventually(Duration::from_secs(15), "the modest ones have their verdicts", async || {
        let servers = list(&client, &modest).await;
        (0..OWN).try_for_each(|host| {
            let (status, reason) = if host < 3 { ("True", "Online") } else { ("False", "Timeout") };
            has_condition(&servers[&format!("m{host}")], "Ready", status, reason)
        })
    })
    .await;
    fleet.reset_stats().await;
    holds_for(Duration::from_secs(8), "the greedy ones stay at it", async || {
        silent.stats().await.hosts.values().map(|host| host.open_connections).sum::<usize>() > 300
    })
    .await;
    let mut widest = 0;
    for (host, arrivals) in fleet.arrivals("all", "/api/version").await {
        let gap = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(i64::MAX);
        assert!(arrivals.len() >= 4 && gap <= GAP, "{host} was not asked for {gap} ms: {arrivals:?}");
        widest = widest.max(gap);
    }
    assert_eq!(metric_value(&operator.metrics().await, "ollama_fleet_panics_total", &[]), Some(0.0));
    eprintln!("figure: beside {GREEDY} silent hosts of another namespace, the widest gap is {widest} ms");
}

/// A host that is slow for the objects of another namespace at the same address is still asked for one's own, again and
/// again: turns alternate between namespaces, however many objects the other has.
#[tokio::test]
async fn objects_of_another_namespace_at_one_address_do_not_take_all_turns() {
    let scene = Scene::new(1).await;
    scene.server("healthy", 0, json!({})).await;
    // Under its prefix the same server answers after three seconds.
    let host = RawHost::start(script(|mut connection| async move {
        while let Some(head) = connection.request().await? {
            if head.contains("/slow") {
                tokio::time::sleep(Duration::from_secs(3)).await;
            }
            connection.send(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}").await?;
        }
        Ok(())
    }))
    .await;
    let other = Namespace::new(ControlPlane::shared()).await;
    let both =
        Operator::builder(ControlPlane::shared()).namespace(&other).namespace(&scene.namespace).start().await;
    let Scene { operator, fleet, namespace, client } = scene;
    drop(operator);
    let slow = json!({"backendType": "Generic", "poll": {"interval": "5s", "timeout": "4s"}});
    for index in 0..12 {
        let at = format!("http://{}/slow", host.address);
        apply(&client, &other, &server_with(&format!("s{index:02}"), at, slow.clone())).await;
    }
    eventually(PATIENCE, "they are at it", async || host.accepted() >= 3).await;
    let own = json!({"backendType": "Generic", "poll": {"interval": "2s"}});
    apply(&client, &namespace, &server_with("own", host.address.to_string(), own)).await;
    // Of twelve others it has to wait for one at a time.
    eventually(Duration::from_secs(15), "one's own is Ready", async || {
        let object: OllamaServer = objects::get(&client, &namespace, "own").await;
        has_condition(&object, "Ready", "True", "Online")
    })
    .await;
    let last_poll = async || {
        let metrics = both.metrics().await;
        metric_value(&metrics, "ollama_fleet_server_last_poll_timestamp_seconds", &[("server", "own")])
    };
    let (mut polls, mut last) = (0, last_poll().await);
    eventually(Duration::from_secs(30), "it is asked again and again", async || {
        let now = last_poll().await;
        polls += u32::from(now != last);
        last = now;
        if polls >= 3 { Ok(()) } else { Err(format!("{polls} polls")) }
    })
    .await;
    drop((fleet, both));
}

/// The helper of other tests notices a host that is not asked.
#[tokio::test]
#[should_panic(expected = "was not asked")]
async fn a_host_that_is_not_asked_is_noticed() {
    let scene = Scene::new(1).await;
    on_schedule(&scene, 0..1).await;
}
