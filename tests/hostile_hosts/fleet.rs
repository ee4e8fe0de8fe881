//! All faults that fleetsim has, side by side with healthy hosts; and what is not asked at all.

use super::{GAP, VERDICT, assert_clean, list};
use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, apply, condition, count, events, eventually, get,
    holds_for, metric_value,
    objects::{fleet_metrics, has_condition, server_with},
    plugin, server, status_of,
};
use kube::Client;
use ollama_fleet_operator::api::OllamaServer;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use tokio::net::TcpListener;

/// Interval + 1 s, three times over.
pub const RETURN: Duration = Duration::from_secs(6);
/// What floods, bombs and hangs may add to the operator's memory.
pub const MEMORY: u64 = 96 << 20;

/// Faults of a host, and the reason that each must be given.
fn host_faults() -> Vec<(Value, &'static str)> {
    vec![
        (json!({"mode": "refuse"}), "ConnectionRefused"),
        (json!({"mode": "reset"}), "ConnectionRefused"),
        (json!({"mode": "hang", "stage": "connect"}), "Timeout"),
        (json!({"mode": "hang", "stage": "headers"}), "Timeout"),
        (json!({"mode": "hang", "stage": "body"}), "Timeout"),
        (json!({"mode": "drip", "stage": "headers", "everyMs": 200}), "Timeout"),
        (json!({"mode": "drip", "stage": "body", "everyMs": 200}), "Timeout"),
        (json!({"mode": "healthy", "latencyMs": 5000}), "Timeout"),
        (json!({"mode": "status", "code": 401}), "Unauthorized"),
        (json!({"mode": "status", "code": 403}), "HostRejected"),
        (json!({"mode": "status", "code": 404}), "NotOllama"),
        (json!({"mode": "status", "code": 429, "retryAfter": "31536000"}), "ServerBusy"),
        (json!({"mode": "status", "code": 500}), "InvalidResponse"),
        (json!({"mode": "status", "code": 502, "body": "\u{1b}[2J\u{202e}proxy"}), "ProxyError"),
        (json!({"mode": "status", "code": 503, "retryAfter": "0"}), "ServerBusy"),
        (json!({"mode": "redirect", "location": "http://169.254.169.254/"}), "UnexpectedRedirect"),
        (json!({"mode": "garbage"}), "InvalidResponse"),
        (json!({"mode": "html"}), "NotOllama"),
        (json!({"mode": "empty"}), "InvalidResponse"),
        (json!({"mode": "truncated"}), "InvalidResponse"),
        (json!({"mode": "wrongTypes"}), "InvalidResponse"),
        (json!({"mode": "huge", "bytes": 1_u64 << 30}), "ResponseTooLarge"),
        (json!({"mode": "huge", "chunked": true}), "ResponseTooLarge"),
        (json!({"mode": "gzip"}), "InvalidResponse"),
        (json!({"mode": "notOllama"}), "NotOllama"),
        (json!({"mode": "banner"}), "InvalidResponse"),
        (json!({"mode": "deepJson"}), "InvalidResponse"),
        (json!({"mode": "resetMidBody"}), "InvalidResponse"),
    ]
}

/// Every way in which a host can fail becomes its reason, in time, with one Event and without a byte of the answer;
/// meanwhile the healthy hosts beside it are polled on schedule; and each failed host comes back when it heals.
#[tokio::test]
async fn every_fault_of_a_host_becomes_its_reason_and_delays_no_other_host() {
    const HEALTHY: usize = 6;
    let faults = host_faults();
    // Online, for what counts is intact, but with lists that cannot be used or names that must be cleaned.
    let odd = [json!({"mode": "manyModels"}), json!({"mode": "controlChars"})];
    let (many, odd_end) = (faults.len(), faults.len() + odd.len());
    let fleet = Fleet::start(odd_end + HEALTHY).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    for host in 0..fleet.len() {
        let spec = json!({"poll": {"modelsInterval": "1s"}});
        apply(&client, &namespace, &server_with(&format!("s{host:02}"), fleet.host(host), spec)).await;
    }
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    all_ready(&client, &namespace, 0..fleet.len(), PATIENCE).await;
    let before = operator.rss_bytes();
    let healthy = format!("{odd_end}-{}", fleet.len() - 1);

    fleet.reset_stats().await;
    let start = Instant::now();
    for (host, fault) in faults.iter().map(|(fault, _)| fault).chain(&odd).enumerate() {
        fleet.patch(&host.to_string(), json!({ "ollama": fault })).await;
    }
    let mut verdicts: BTreeMap<usize, Duration> = BTreeMap::new();
    let mut rss = 0;
    eventually(VERDICT, "every fault has become its reason", async || {
        rss = rss.max(operator.rss_bytes());
        let servers = list(&client, &namespace).await;
        let mut missing = Vec::new();
        for (host, (fault, reason)) in faults.iter().enumerate() {
            let object = &servers[&format!("s{host:02}")];
            match has_condition(object, "Reachable", "False", reason)
                .and_then(|()| has_condition(object, "Ready", "False", reason))
            {
                Ok(()) => {
                    verdicts.entry(host).or_insert_with(|| start.elapsed());
                }
                Err(error) => missing.push(format!("{fault}: {error}")),
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
    })
    .await;
    // Faults last, and nothing more comes of them.
    holds_for(Duration::from_secs(5), "the verdicts stand", async || {
        rss = rss.max(operator.rss_bytes());
        let servers = list(&client, &namespace).await;
        faults.iter().enumerate().try_for_each(|(host, (_, reason))| {
            has_condition(&servers[&format!("s{host:02}")], "Ready", "False", reason)
        })
    })
    .await;

    let servers = list(&client, &namespace).await;
    for (host, (fault, _)) in faults.iter().enumerate() {
        let name = format!("s{host:02}");
        let status = status_of(&servers[&name]);
        assert!(
            status.model_count.is_some_and(|count| count > 0),
            "{fault}: what was known is gone: {status:?}"
        );
        let told = events(&client, &namespace, &name).await;
        assert_eq!((count(&told, "ServerOffline"), told.len()), (1, 1), "{fault}: {told:?}");
        assert_clean(&serde_json::to_value(&told).unwrap());
    }
    for (name, object) in &servers {
        assert_clean(&serde_json::to_value(object).unwrap());
        let size = serde_json::to_string(object).unwrap().len();
        assert!(size < 32 << 10, "{name} has {size} bytes");
    }
    // Too many models to be true: Ready, the last list stands, and the message says so.
    let (ready, reason, message) = condition(&servers[&format!("s{many:02}")], "Ready").unwrap();
    assert_eq!((ready.as_str(), reason.as_str()), ("True", "Online"));
    assert!(message.contains("no usable answer"), "{message}");
    has_condition(&servers[&format!("s{:02}", many + 1)], "Ready", "True", "Online").unwrap();

    let mut widest = 0;
    for (host, arrivals) in fleet.arrivals(&healthy, "/api/version").await {
        let gap = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(i64::MAX);
        assert!(gap <= GAP, "{host} was not asked for {gap} ms: {arrivals:?}");
        widest = widest.max(gap);
    }
    let at_once = fleet.stats().await.max_in_flight;
    assert_eq!(at_once, 1, "{at_once} requests at once to one host");
    let metrics = operator.metrics().await;
    assert_eq!(metric_value(&metrics, "ollama_fleet_panics_total", &[]), Some(0.0));
    assert!(rss < before + MEMORY, "memory grew from {before} to {rss}");

    let healed = Instant::now();
    fleet.patch("all", json!({"ollama": null})).await;
    all_ready(&client, &namespace, 0..fleet.len(), RETURN).await;
    let slowest = verdicts.values().max().unwrap();
    eprintln!(
        "{} faults: slowest verdict {slowest:.1?}, all back in {:.1?}; widest gap of a healthy host {widest} ms; RSS {} to {} MiB",
        faults.len(),
        healed.elapsed(),
        before >> 20,
        rss >> 20
    );
}

/// A new object of a host that no retry mends is told at once, and one that was never reached after the threshold.
#[tokio::test]
async fn a_host_that_was_never_well_gets_its_verdict_too() {
    let scenario = json!({"hosts": {
        "0": {"ollama": {"mode": "status", "code": 401}},
        "1": {"ollama": {"mode": "notOllama"}},
        "2": {"ollama": {"mode": "hang"}},
        "3": {"ollama": {"mode": "status", "code": 503}}
    }});
    let fleet = Fleet::with(4, &scenario, &[]).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    for host in 0..4 {
        apply(&client, &namespace, &server(&format!("s{host:02}"), fleet.host(host))).await;
    }
    for (host, reason) in ["Unauthorized", "NotOllama", "Timeout", "ServerBusy"].into_iter().enumerate() {
        let name = format!("s{host:02}");
        eventually(VERDICT, reason, async || {
            has_condition(&get::<OllamaServer>(&client, &namespace, &name).await, "Ready", "False", reason)
        })
        .await;
        let polls = fleet.host_stats(host).await.connections;
        let told = eventually(PATIENCE, "ServerOffline is told", async || {
            let told = events(&client, &namespace, &name).await;
            (count(&told, "ServerOffline") == 1).then_some(told)
        })
        .await;
        assert_eq!(told.len(), 1, "{told:?}");
        eprintln!("{reason} after {polls} connections");
    }
    drop(operator);
}

/// Loopback is not dialled unless the administrator opens it: not as an address in any spelling, not by a name that
/// leads there, and not by an agent's port.
#[tokio::test]
async fn loopback_is_refused_in_every_spelling_and_never_dialled() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let trap6 = TcpListener::bind("[::1]:0").await.ok();
    let port = trap.local_addr().unwrap().port();
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane)
        .namespace(&namespace)
        .arg("--allowed-cidrs=10.0.0.0/8")
        .start()
        .await;
    let port6 = trap6.as_ref().map_or(port, |trap| trap.local_addr().unwrap().port());
    let hosts = [
        format!("127.0.0.1:{port}"),
        format!("http://127.0.0.1:{port}/prefix"),
        format!("localhost:{port}"),
        format!("[::1]:{port6}"),
        format!("[64:ff9b::7f00:1]:{port}"),
        "169.254.169.254:80".to_owned(),
        "metadata.google.internal:80".to_owned(),
        "0.0.0.0:11434".to_owned(),
    ];
    apply(&client, &namespace, &plugin("agent", port, json!({}))).await;
    for (index, host) in hosts.iter().enumerate() {
        apply(&client, &namespace, &server(&format!("s{index:02}"), host)).await;
    }
    for (index, host) in hosts.iter().enumerate() {
        let object = eventually(PATIENCE, host, async || {
            let object: OllamaServer = get(&client, &namespace, &format!("s{index:02}")).await;
            for (type_, status) in
                [("Accepted", "False"), ("Stalled", "True"), ("Ready", "False"), ("Reachable", "Unknown")]
            {
                has_condition(&object, type_, status, "AddressNotAllowed")?;
            }
            Ok::<_, String>(object)
        })
        .await;
        let (.., message) = condition(&object, "Accepted").unwrap();
        assert!(!message.contains("127.0.0.1"), "the message tells the address: {message}");
    }
    holds_for(Duration::from_secs(3), "nobody dials loopback", async || {
        let six = async {
            match &trap6 {
                Some(trap) => trap.accept().await.map(drop),
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = trap.accept() => Err("a connection to 127.0.0.1"),
            _ = six => Err("a connection to ::1"),
            () = tokio::time::sleep(Duration::from_millis(100)) => Ok(()),
        }
    })
    .await;
    drop(operator);
}

/// What this version cannot honour is refused and said so; the host is not asked with less protection than its owner
/// wrote down. Without the field, it is polled.
#[tokio::test]
async fn a_server_that_wants_what_is_not_there_yet_is_not_polled_without_it() {
    let rows = [
        (json!({"secretRef": {"name": "token"}}), "SecretNotFound", "secretRef"),
        (json!({"certSecretRef": {"name": "ca"}}), "InvalidSpec", "certSecretRef"),
        (json!({"tlsServerName": "gpu1.lab"}), "InvalidSpec", "tlsServerName"),
        (
            json!({"backendType": "Plugin", "providerRef": {"name": "llama-cpp"}}),
            "ProviderNotFound",
            "providerRef",
        ),
    ];
    let fleet = Fleet::start(rows.len()).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    for (host, (spec, ..)) in rows.iter().enumerate() {
        apply(&client, &namespace, &server_with(&format!("s{host:02}"), fleet.host(host), spec.clone()))
            .await;
    }
    for (host, (_, reason, field)) in rows.iter().enumerate() {
        let object = eventually(PATIENCE, field, async || {
            let object: OllamaServer = get(&client, &namespace, &format!("s{host:02}")).await;
            has_condition(&object, "Accepted", "False", reason)
                .and_then(|()| has_condition(&object, "Stalled", "True", reason))
                .and_then(|()| has_condition(&object, "Ready", "False", reason))?;
            Ok::<_, String>(object)
        })
        .await;
        let (.., message) = condition(&object, "Accepted").unwrap();
        assert!(message.contains(field), "{message}");
    }
    holds_for(Duration::from_secs(3), "no host and no agent is asked", async || {
        fleet.stats().await.total == 0
    })
    .await;
    apply(&client, &namespace, &server("s00", fleet.host(0))).await;
    all_ready(&client, &namespace, 0..1, RETURN).await;
    let object: OllamaServer = get(&client, &namespace, "s00").await;
    assert_eq!(condition(&object, "Stalled"), None);
    drop(operator);
}

pub async fn all_ready(client: &Client, namespace: &str, hosts: std::ops::Range<usize>, limit: Duration) {
    eventually(limit, "every host is Ready", async || {
        let servers = list(client, namespace).await;
        hosts.clone().try_for_each(|host| {
            has_condition(&servers[&format!("s{host:02}")], "Ready", "True", "Online")
                .map_err(|error| format!("s{host:02}: {error}"))
        })
    })
    .await;
}
