//! Watches that end, lie, lag or go silent: hosts are asked as ever, nothing is forgotten, and nothing old comes back.

use crate::support::{
    Answer, Cut, Fault, Faulty, Match, Operator, PATIENCE, eventually, full, holds_for, metric_value,
    objects::{self, has_condition, server_with},
};
use kube::{
    Resource,
    api::{DeleteParams, DynamicObject, ListParams},
    core::{ApiResource, GroupVersionKind},
};
use ollama_fleet_operator::api::{GROUP, OllamaServer, VERSION};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SERVERS: &str = "ollamaservers";
/// A try that failed is made again after at most 1.6 s, a second after 3.2 s.
const BEGUN_AGAIN: Duration = Duration::from_secs(30);
/// Longest time between two polls of a host that is asked every second, in milliseconds.
const GAP: i64 = 2500;

fn lists() -> Match {
    Match::verb("list").of(SERVERS)
}

fn watches() -> Match {
    Match::verb("watch").of(SERVERS)
}

fn gone() -> Value {
    json!({"type": "ERROR", "object": {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "too old resource version", "reason": "Expired", "code": 410}})
}

/// A scene with some servers that are online, and the list of them in the operator's hands.
async fn online(servers: usize) -> Faulty {
    let faulty = Faulty::new(servers + 1).await;
    for host in 0..servers {
        faulty.server(&format!("s{host}"), host, json!({})).await;
    }
    for host in 0..servers {
        faulty.until_online(&format!("s{host}")).await;
    }
    faulty
}

/// An edit that only a working watch brings: another host.
async fn moves(faulty: &Faulty, name: &str, host: usize, limit: Duration) -> Duration {
    let start = Instant::now();
    faulty.patch_spec(name, json!({"host": faulty.fleet.host(host)})).await;
    eventually(limit, "the edit is followed", async || {
        let server = faulty.get(name).await;
        has_condition(&server, "Ready", "True", "Online")?;
        let endpoint = server.status.clone().and_then(|status| status.observed_endpoint);
        let expected = format!("http://{}", faulty.fleet.host(host));
        if endpoint.as_ref() == Some(&expected) { Ok(()) } else { Err(format!("{endpoint:?}")) }
    })
    .await;
    start.elapsed()
}

/// However a watch ends, it is begun anew where it was; only one that is too old lists again, once. Meanwhile every
/// host is asked on schedule, and no server is missing from the metrics.
#[tokio::test]
async fn a_watch_that_breaks_is_begun_anew_and_no_poll_is_missed() {
    let faulty = online(3).await;
    let (proxy, fleet) = (&faulty.proxy, &faulty.fleet);
    let mut spare = 3;
    for (what, listed) in [
        ("end", 0),
        ("mid event", 0),
        ("gone event", 1),
        ("gone answer", 1),
        ("bookmarks", 0),
        ("refused", 0),
    ] {
        eventually(PATIENCE, "the watch is open", async || proxy.open_watches(SERVERS) == 1).await;
        proxy.forget();
        fleet.reset_stats().await;
        // A list takes its time, and shows nothing until it is whole.
        proxy.fault(lists(), Fault::Delay(Duration::from_secs(2)));
        match what {
            "end" => proxy.cut(SERVERS, Cut::Ended),
            "mid event" => proxy.cut(SERVERS, Cut::MidEvent),
            "gone event" => proxy.inject(SERVERS, &gone()),
            "gone answer" => {
                proxy.fault_times(watches(), 1, Answer::status(410, "too old resource version").into());
                proxy.cut(SERVERS, Cut::Ended);
            }
            "bookmarks" => {
                let server = faulty.get("s0").await;
                for _ in 0..3 {
                    let bookmark = json!({"type": "BOOKMARK", "object": {"apiVersion": format!("{GROUP}/{VERSION}"),
                        "kind": "OllamaServer", "metadata": {"resourceVersion": server.metadata.resource_version}}});
                    proxy.inject(SERVERS, &bookmark);
                }
                proxy.cut(SERVERS, Cut::Ended);
            }
            _ => {
                proxy.fault_times(watches(), 2, Answer::status(503, "starting").into());
                proxy.cut(SERVERS, Cut::Ended);
            }
        }
        holds_for(Duration::from_secs(3), "no server is missing", async || {
            let metrics = faulty.operator.metrics().await;
            metric_value(&metrics, "ollama_fleet_servers", &[]) == Some(3.0)
        })
        .await;
        for (host, arrivals) in fleet.arrivals("0-3", "/api/version").await {
            let gap = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default();
            assert!(gap <= GAP, "{what}: {host}: {gap} ms between two polls");
        }
        let took = moves(&faulty, "s0", spare, BEGUN_AGAIN).await;
        spare = if spare == 3 { 0 } else { 3 };
        assert_eq!(proxy.seen(&lists()).len(), listed, "{what}");
        proxy.heal();
        eprintln!("{what}: an edit was followed {took:.1?} later");
    }
    for host in 0..3 {
        assert!(faulty.told(&format!("s{host}")).await.is_empty(), "nothing happened");
    }
    faulty.is_well().await;
}

/// A watch through which nothing comes any more, not even its end, is noticed and begun anew; polls and writes go on
/// all the time. Takes four minutes, and so is part of the long form only; `streams.rs` has the rule in short.
#[tokio::test]
async fn a_watch_that_goes_silent_is_noticed() {
    if !full() {
        eprintln!("skipped: takes four minutes; TEST_FAULTS=full runs it");
        return;
    }
    let faulty = online(2).await;
    faulty.proxy.mute(SERVERS);
    // What comes without the watch goes on.
    faulty.fleet.action("1", "die").await;
    faulty.until("s1", "Ready", "False", "ConnectionRefused").await;
    let took = moves(&faulty, "s0", 2, Duration::from_secs(260)).await;
    assert!(took > Duration::from_secs(30), "the watch was not silent");
    eprintln!("figure: a silent watch was noticed after {took:.0?}, bound 205 s");
    faulty.is_well().await;
}

/// News that came before, late, or from before a deletion is no news: the spec is not undone, nothing that is gone is
/// asked, and nothing is written.
#[tokio::test]
async fn old_events_change_nothing() {
    let faulty = online(2).await;
    let (proxy, fleet) = (&faulty.proxy, &faulty.fleet);
    let old = faulty.get("s0").await;
    moves(&faulty, "s0", 2, PATIENCE).await;
    let deleted = faulty.get("s1").await;
    let servers = objects::api::<OllamaServer>(&faulty.client, &faulty.namespace);
    servers.delete("s1", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "one is gone", async || {
        metric_value(&faulty.operator.metrics().await, "ollama_fleet_servers", &[]) == Some(1.0)
    })
    .await;
    let new = faulty.get("s0").await;
    let writes = faulty.writes().await;
    fleet.reset_stats().await;
    for _ in 0..3 {
        for (type_, object) in [("MODIFIED", &old), ("ADDED", &old), ("ADDED", &deleted), ("MODIFIED", &new)]
        {
            proxy.inject(SERVERS, &json!({"type": type_, "object": object}));
        }
    }
    // The same news twice, and the one before it after it.
    proxy.edit_events(|_, event| vec![event.clone(), event]);
    faulty.patch_metadata("s0", json!({"labels": {"edit": "1"}})).await;
    holds_for(Duration::from_secs(4), "only the one host is asked", async || {
        let stats = fleet.stats().await;
        (stats.host(0).total == 0 && stats.host(1).total == 0)
            .then_some(())
            .ok_or(format!("{:?}", stats.requests))
    })
    .await;
    assert!(fleet.stats().await.host(2).total >= 2);
    assert_eq!(writes.total().await, 0);
    let metrics = faulty.operator.metrics().await;
    assert_eq!(metric_value(&metrics, "ollama_fleet_servers", &[]), Some(1.0));
    proxy.heal();
    moves(&faulty, "s0", 0, PATIENCE).await;
    faulty.is_well().await;
}

/// Events of one object that never come: as soon as the watch lists again, the edit is followed, the relabelled server
/// has its plugin, and the twin of a deleted one begins afresh; the old one's status never stood on the twin.
#[tokio::test]
async fn events_that_never_came_are_made_up_for_by_the_next_list() {
    let faulty = online(3).await;
    let (proxy, fleet) = (&faulty.proxy, &faulty.fleet);
    let mut plugin = objects::fleet_metrics(fleet.agent_port());
    plugin.spec.server_selector = serde_json::from_value(json!({"matchLabels": {"agent": "yes"}})).unwrap();
    faulty.apply(&plugin).await;
    proxy.edit_events(|resource, event| if resource == SERVERS { vec![] } else { vec![event] });
    faulty.patch_spec("s0", json!({"host": fleet.host(3)})).await;
    faulty.patch_metadata("s1", json!({"labels": {"agent": "yes"}})).await;
    let servers = objects::api::<OllamaServer>(&faulty.client, &faulty.namespace);
    servers.delete("s2", &DeleteParams::default()).await.unwrap();
    let twin = faulty.apply(&server_with("s2", fleet.host(2), json!({"suspend": true}))).await;
    let writes = faulty.writes().await;
    // What the operator would have to say of the old one.
    fleet.action("2", "die").await;
    faulty.polls(1, 4).await;
    assert_eq!(writes.writes("s2").await.len(), 0, "nothing of the old one stands on the twin");
    assert_eq!(faulty.get("s2").await.meta().uid, twin.metadata.uid);

    proxy.heal();
    proxy.inject(SERVERS, &gone());
    faulty.until("s2", "Ready", "False", "Suspended").await;
    faulty.until("s1", "PluginsHealthy", "True", "AllHealthy").await;
    moves(&faulty, "s0", 3, BEGUN_AGAIN).await;
    assert!(faulty.get("s2").await.metadata.finalizers.unwrap_or_default().is_empty());
    assert!(faulty.told("s2").await.iter().all(|reason| reason == "ServerOffline"));
    faulty.is_well().await;
}

/// An operator that starts with a list of yesterday does not write yesterday's verdict over today's, tells nothing
/// twice, undoes no edit and raises nobody from the dead.
#[tokio::test]
async fn a_start_with_a_list_of_yesterday_undoes_nothing() {
    let faulty = online(4).await;
    let (proxy, fleet) = (&faulty.proxy, &faulty.fleet);
    let kind = ApiResource::from_gvk(&GroupVersionKind::gvk(GROUP, VERSION, "OllamaServer"));
    let all = kube::Api::<DynamicObject>::namespaced_with(faulty.client.clone(), &faulty.namespace, &kind);
    let mut yesterday = serde_json::to_value(all.list(&ListParams::default()).await.unwrap()).unwrap();
    for item in yesterday["items"].as_array_mut().unwrap() {
        (item["apiVersion"], item["kind"]) = (format!("{GROUP}/{VERSION}").into(), "OllamaServer".into());
    }
    fleet.action("0", "die").await;
    faulty.until("s0", "Ready", "False", "ConnectionRefused").await;
    faulty.until_told("s0", &["ServerOffline"]).await;
    moves(&faulty, "s1", 4, PATIENCE).await;
    let servers = objects::api::<OllamaServer>(&faulty.client, &faulty.namespace);
    servers.delete("s2", &DeleteParams::default()).await.unwrap();
    let (offline, moved) = (faulty.get("s0").await, faulty.get("s1").await);
    faulty.operator.kill();

    let writes = faulty.writes().await;
    fleet.reset_stats().await;
    proxy.forget();
    proxy.fault_times(lists(), 1, Answer::ok(yesterday.to_string()).into());
    // A poll that ends in the milliseconds until the watch has caught up would still go by yesterday.
    let again = Operator::builder(crate::support::ControlPlane::shared())
        .namespace(&faulty.namespace)
        .kubeconfig(&proxy.kubeconfig())
        .arg("--poll-interval=10s")
        .start()
        .await;
    eventually(PATIENCE * 2, "the host is asked again and again", async || {
        fleet.stats().await.host(3).total >= 5
    })
    .await;
    assert_eq!(proxy.seen(&lists()).iter().filter(|request| request.applied).count(), 0, "yesterday's list");
    for write in writes.all().await.into_values().flatten() {
        assert!(write.ready != "True/ProbeFailing", "{write:?}");
    }
    let (now, there) = (faulty.get("s0").await, faulty.get("s1").await);
    has_condition(&now, "Ready", "False", "ConnectionRefused").unwrap();
    let transition = |server: &OllamaServer| {
        let conditions = server.status.as_ref().unwrap().conditions.iter();
        conditions.map(|one| (one.type_.clone(), one.last_transition_time.clone())).collect::<Vec<_>>()
    };
    assert_eq!(transition(&now), transition(&offline), "nothing turned");
    assert_eq!(there.status.unwrap().observed_endpoint, moved.status.unwrap().observed_endpoint);
    assert_eq!(faulty.told("s0").await, ["ServerOffline"]);
    assert!(servers.get_opt("s2").await.unwrap().is_none());
    let metrics = again.metrics().await;
    assert_eq!(metric_value(&metrics, "ollama_fleet_servers", &[]), Some(3.0));
    assert_eq!(fleet.stats().await.host(1).total, 0, "the old spec's host is not asked");
    crate::support::is_well(&again).await;
}
