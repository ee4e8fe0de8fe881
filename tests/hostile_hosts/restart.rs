//! H19 to H21: hosts that flap, all at once, and the schedule across a restart.

use super::list;
use crate::support::{
    ControlPlane, Operator, PATIENCE, Scene, WriteCounter, all_events, count, eventually, holds_for,
    objects::{self, condition, has_condition, server_with},
    status_of,
};
use futures::{StreamExt as _, stream};
use serde_json::json;
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

/// A host that fails every other poll is never offline, and no Event is made of it. One whose every failure is a verdict
/// becomes Flapping; its Events come in a burst of 25 at most and then one in 10 s.
#[tokio::test]
async fn a_host_that_flaps_is_told_as_flapping_and_not_poll_by_poll() {
    let scene = Scene::new(2).await;
    // More than any busy machine makes of one turn.
    scene.server("doubted", 0, json!({"poll": {"failureThreshold": 20}})).await;
    scene.server("judged", 1, json!({"poll": {"failureThreshold": 1}})).await;
    for name in ["doubted", "judged"] {
        scene.until_online(name).await;
    }
    let writes = WriteCounter::start(&scene.client, &scene.namespace).await;
    let start = Instant::now();
    let mut turns = 0_u32;
    eventually(Duration::from_mins(1), "one is Flapping", async || {
        // The next poll fails, and the one after it does not.
        let busy = json!({"mode": "status", "code": 503});
        scene
            .fleet
            .patch("all", json!({"ollama": if turns.is_multiple_of(2) { busy } else { json!(null) }}))
            .await;
        turns += 1;
        for host in 0..2 {
            let asked = async || scene.fleet.host_stats(host).await.count("/api/version");
            let before = asked().await;
            eventually(PATIENCE, "a poll", async || asked().await > before).await;
        }
        let object = scene.get("judged").await;
        let doubted = scene.get("doubted").await;
        assert_eq!(
            condition(&doubted, "Reachable").unwrap().0,
            "True",
            "{:?}",
            status_of(&doubted).conditions
        );
        condition(&object, "Flapping").is_some_and(|found| found.0 == "True")
    })
    .await;
    assert!(scene.events("doubted").await.is_empty(), "a doubt is no news");
    let told = scene.events("judged").await;
    let allowed = 25 + start.elapsed().as_secs() / 10 + 1;
    assert!(
        count(&told, "ServerOffline") + count(&told, "ServerOnline") <= usize::try_from(allowed).unwrap()
    );
    for (name, writes) in writes.all().await {
        // One for each change of what is known, and none besides.
        assert!(writes.len() <= turns as usize + 1, "{name}: {} writes in {turns} turns", writes.len());
    }
    eprintln!("figure: Flapping after {turns} turns in {:.1?}", start.elapsed());
}

/// When all hosts die at once, and come back at once, no second has more than a hundred writes, as those see it who
/// watch the objects, and each server is told of once each way, and no model is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fleet_that_dies_and_returns_at_once_keeps_the_budget_of_writes() {
    const SERVERS: usize = 250;
    /// A hundred a second, and what a busy machine lets through late.
    const A_SECOND: usize = 130;
    let scene = Scene::new(SERVERS).await;
    create(&scene, SERVERS, "3s").await;
    let writes = WriteCounter::start(&scene.client, &scene.namespace).await;
    for (action, reason, told) in
        [("die", "ConnectionRefused", "ServerOffline"), ("revive", "Online", "ServerOnline")]
    {
        let status = if reason == "Online" { "True" } else { "False" };
        scene.fleet.action("all", action).await;
        eventually(Duration::from_mins(1), "all have the verdict", async || {
            let servers = list(&scene.client, &scene.namespace).await;
            let there = servers
                .values()
                .filter(|object| has_condition(*object, "Ready", status, reason).is_ok())
                .count();
            if there == SERVERS { Ok(()) } else { Err(format!("{there} of {SERVERS}")) }
        })
        .await;
        eventually(Duration::from_mins(1), "all is told", async || {
            let events = all_events(&scene.client, &scene.namespace).await;
            let there = count(&events, told);
            if there == SERVERS { Ok(()) } else { Err(format!("{there} of {SERVERS} {told}")) }
        })
        .await;
    }
    let events = all_events(&scene.client, &scene.namespace).await;
    assert_eq!((count(&events, "ServerOffline"), count(&events, "ServerOnline")), (SERVERS, SERVERS));
    assert_eq!(
        events
            .iter()
            .filter(|event| event.reason.as_deref().is_some_and(|is| is.starts_with("Model")))
            .count(),
        0
    );
    let times: Vec<String> = writes.all().await.into_values().flatten().map(|write| write.second).collect();
    assert!(times.iter().all(|second| !second.is_empty()), "the API server keeps no book");
    let mut by_second: BTreeMap<&str, usize> = BTreeMap::new();
    for second in &times {
        *by_second.entry(second).or_default() += 1;
    }
    let densest = by_second.into_values().max().unwrap_or_default();
    assert!(densest <= A_SECOND, "{densest} writes in a second");
    eprintln!(
        "figure: {} writes for {SERVERS} deaths and returns, at most {densest} in a second",
        times.len()
    );
}

/// Polls are spread over the interval by what each object is, so that an operator that comes back neither bunches them
/// nor moves them: no tenth of a second has more than twice its share, and each host keeps its time.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restart_neither_bunches_nor_moves_the_polls() {
    const SERVERS: usize = 500;
    const INTERVAL: i64 = 4000;
    const BIN: i64 = 200;
    let mut scene = Scene::new(SERVERS).await;
    create(&scene, SERVERS, "4s").await;
    let before = phases(&scene, INTERVAL).await;
    scene.operator.kill();
    scene.fleet.reset_stats().await;
    scene.operator = Operator::builder(ControlPlane::shared()).namespace(&scene.namespace).start().await;
    let after = phases(&scene, INTERVAL).await;
    for (when, phases) in [("before", &before), ("after", &after)] {
        let mut bins = BTreeMap::<i64, usize>::new();
        for phase in phases.values() {
            *bins.entry(phase / BIN).or_default() += 1;
        }
        let (most, mean) = (bins.values().max().unwrap(), SERVERS / usize::try_from(INTERVAL / BIN).unwrap());
        assert!(*most <= 2 * mean + mean / 2, "{when} the restart {most} of {SERVERS} in {BIN} ms: {bins:?}");
        eprintln!("figure: {when} the restart at most {most} polls in {BIN} ms of a mean of {mean}");
    }
    let moved: Vec<i64> = before
        .iter()
        .map(|(host, phase)| {
            let apart = (after[host] - phase).rem_euclid(INTERVAL);
            apart.min(INTERVAL - apart)
        })
        .filter(|apart| *apart > 500)
        .collect();
    assert!(moved.len() <= SERVERS / 20, "{} hosts are asked at another time: {moved:?}", moved.len());
}

/// When in the interval each host is asked: the earliest of its arrivals over four intervals, as a busy machine makes them
/// late and never early.
async fn phases(scene: &Scene, interval: i64) -> BTreeMap<String, i64> {
    scene.fleet.reset_stats().await;
    let all = eventually(PATIENCE * 2, "every host is asked four times", async || {
        let all = scene.fleet.arrivals("all", "/api/version").await;
        let least = all.values().map(Vec::len).min().unwrap_or_default();
        if all.len() == scene.fleet.len() && least >= 4 { Ok(all) } else { Err(format!("{least} times")) }
    })
    .await;
    let earliest = |arrivals: Vec<i64>| {
        let first = arrivals[0].rem_euclid(interval);
        let mut apart: Vec<i64> = arrivals
            .iter()
            .map(|at| (at.rem_euclid(interval) - first + interval / 2).rem_euclid(interval) - interval / 2)
            .collect();
        apart.sort_unstable();
        (first + apart[0]).rem_euclid(interval)
    };
    all.into_iter().map(|(host, arrivals)| (host, earliest(arrivals))).collect()
}

/// That many servers, all Ready.
async fn create(scene: &Scene, servers: usize, interval: &str) {
    let spec = json!({"poll": {"interval": interval}});
    stream::iter(0..servers)
        .for_each_concurrent(16, async |index| {
            let server = server_with(&format!("s{index:04}"), scene.fleet.host(index), spec.clone());
            objects::create(&scene.client, &scene.namespace, &server).await.unwrap();
        })
        .await;
    eventually(Duration::from_mins(1), "all are Ready", async || {
        let all = list(&scene.client, &scene.namespace).await;
        let ready =
            all.values().filter(|object| has_condition(*object, "Ready", "True", "Online").is_ok()).count();
        if ready == servers { Ok(()) } else { Err(format!("{ready} of {servers}")) }
    })
    .await;
    holds_for(Duration::from_secs(1), "they stay", async || true).await;
}
