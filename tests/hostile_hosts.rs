//! Hosts and agents that answer wrongly, slowly, too much, or not at all: each gets its reason, and nobody else
//! notices.

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, apply, condition, count, events, eventually, get,
    holds_for, metric_value,
    objects::{self, fleet_metrics, has_condition, server_with},
    plugin, server, status_of,
};
use kube::{Client, api::ListParams};
use ollama_fleet_operator::api::{OllamaServer, server_status::PluginReport};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

/// Polls of these tests come every second, wait 0.8 s at most, and three failures are a verdict: 3 × 1 s + 0.8 s +
/// 1 s, three times over for a busy machine.
const VERDICT: Duration = Duration::from_millis(3 * 4800);
/// Interval + 1 s, three times over.
const RETURN: Duration = Duration::from_secs(6);
/// Longest time between two polls of a healthy host, in milliseconds: 2.5 intervals.
const GAP: i64 = 2500;
/// What floods, bombs and hangs may add to the operator's memory.
const MEMORY: u64 = 96 << 20;

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
        (json!({"mode": "status", "code": 502, "body": "\u{1b}[2J\u{202e}proxy"}), "InvalidResponse"),
        (json!({"mode": "status", "code": 503, "retryAfter": "0"}), "ServerBusy"),
        (json!({"mode": "redirect", "location": "http://169.254.169.254/"}), "UnexpectedRedirect"),
        (json!({"mode": "garbage"}), "InvalidResponse"),
        (json!({"mode": "html"}), "InvalidResponse"),
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

/// A name that leads nowhere is `DNSFailed`, and healing the name heals the server without a restart.
#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_as_such() {
    let fleet = Fleet::start(1).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    apply(&client, &namespace, &server("nowhere", "gpu1.invalid:11434")).await;
    apply(&client, &namespace, &server("s00", fleet.host(0))).await;
    eventually(VERDICT, "DNSFailed", async || {
        let object: OllamaServer = get(&client, &namespace, "nowhere").await;
        has_condition(&object, "Ready", "False", "DNSFailed")
            .and_then(|()| has_condition(&object, "Accepted", "True", "Valid"))
    })
    .await;
    all_ready(&client, &namespace, 0..1, PATIENCE).await;
    apply(&client, &namespace, &server("nowhere", fleet.host(0))).await;
    eventually(RETURN, "the new host is Ready", async || {
        has_condition(&get::<OllamaServer>(&client, &namespace, "nowhere").await, "Ready", "True", "Online")
    })
    .await;
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

/// Faults of an agent, and the reason that its plugin must show.
fn agent_faults() -> Vec<(Value, &'static str)> {
    let answer = |body: &str| json!({"agentBody": body, "agentContentType": "application/json"});
    let fault = |fault: Value| json!({ "agent": fault });
    // Small on the wire, and large in memory if every piece of it became an object.
    let dense = format!("[{}0]", r#"{"":0},"#.repeat(120_000));
    vec![
        (fault(json!({"mode": "refuse"})), "ConnectionRefused"),
        (fault(json!({"mode": "hang", "stage": "connect"})), "Timeout"),
        (fault(json!({"mode": "drip", "everyMs": 200})), "Timeout"),
        (fault(json!({"mode": "garbage"})), "InvalidResponse"),
        (fault(json!({"mode": "html"})), "InvalidResponse"),
        (fault(json!({"mode": "empty"})), "InvalidResponse"),
        (fault(json!({"mode": "wrongTypes"})), "InvalidResponse"),
        (fault(json!({"mode": "huge", "chunked": true})), "ResponseTooLarge"),
        (fault(json!({"mode": "deepJson"})), "InvalidResponse"),
        (fault(json!({"mode": "gzip"})), "InvalidResponse"),
        (fault(json!({"mode": "redirect"})), "UnexpectedRedirect"),
        (fault(json!({"mode": "status", "code": 404})), "InvalidResponse"),
        (fault(json!({"mode": "status", "code": 401})), "Unauthorized"),
        (fault(json!({"mode": "banner"})), "InvalidResponse"),
        (answer("# HELP node_load1 1m load average.\nnode_load1 0.21\n"), "InvalidResponse"),
        (answer(r#"{"status": "ok"}"#), "InvalidResponse"),
        (answer(r#"{"hostname": "\u001b[2J\u202egpu", "cpu_percent": "12"}"#), "InvalidResponse"),
        (answer(&dense), "ResponseTooLarge"),
    ]
}

/// Whatever an agent answers, its plugin says why it does not work there, and the server stays Ready; what it says
/// never reaches the object as it is.
#[tokio::test]
async fn every_fault_of_an_agent_is_its_plugins_and_leaves_ready_alone() {
    let faults = agent_faults();
    let good = faults.len();
    let fleet = Fleet::start(good + 2).await;
    for (host, (patch, _)) in faults.iter().enumerate() {
        fleet.patch(&host.to_string(), patch.clone()).await;
    }
    fleet.patch(&(good + 1).to_string(), json!({"agent": {"mode": "controlChars"}})).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    let before = operator.rss_bytes();
    for host in 0..fleet.len() {
        apply(&client, &namespace, &server(&format!("s{host:02}"), fleet.host(host))).await;
    }
    let mut rss = 0;
    eventually(VERDICT, "every plugin says why", async || {
        rss = rss.max(operator.rss_bytes());
        let servers = list(&client, &namespace).await;
        let mut missing = Vec::new();
        for (host, (fault, reason)) in faults.iter().enumerate() {
            let object = &servers[&format!("s{host:02}")];
            let report = report(object);
            let right = report.state.as_deref() == Some("Error") && report.reason.as_deref() == Some(*reason);
            if !right || report.message.is_none() || !report.values.is_empty() {
                missing.push(format!("{}: not {reason}: {report:?}", short(fault)));
            }
            if let Err(error) = has_condition(object, "Ready", "True", "Online")
                .and_then(|()| has_condition(object, "PluginsHealthy", "False", "PluginFailed"))
            {
                missing.push(format!("{}: {error}", short(fault)));
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
    })
    .await;
    let servers = list(&client, &namespace).await;
    for (name, object) in &servers {
        assert_clean(&serde_json::to_value(object).unwrap());
        assert_clean(&serde_json::to_value(events(&client, &namespace, name).await).unwrap());
    }
    let machine = |host: usize| status_of(&servers[&format!("s{host:02}")]).machine;
    assert!((0..good).all(|host| machine(host).is_none()), "readings of a failing agent");
    assert!(machine(good).is_some_and(|machine| machine.hostname.is_some()));
    // Numbers can be believed beside a name that cannot.
    assert!(
        machine(good + 1).is_some_and(|machine| machine.hostname.is_none() && machine.memory_total.is_some())
    );
    let metrics = operator.metrics().await;
    assert_eq!(metric_value(&metrics, "ollama_fleet_panics_total", &[]), Some(0.0));
    assert!(rss < before + MEMORY, "memory grew from {before} to {rss}");
    eprintln!("{} faults of agents: RSS {} to {} MiB", faults.len(), before >> 20, rss >> 20);

    fleet.patch("all", json!({"agent": null, "agentBody": null, "agentContentType": null})).await;
    eventually(RETURN, "every plugin works again", async || {
        let servers = list(&client, &namespace).await;
        servers.values().try_for_each(|object| has_condition(object, "PluginsHealthy", "True", "AllHealthy"))
    })
    .await;
}

/// An agent's port that hangs or drops packets costs a new server no more than the half second that it is given.
#[tokio::test]
async fn an_agents_port_that_drops_packets_does_not_slow_ready() {
    // The agent has 3 s; whoever waits for it is later than this.
    const BOUND: Duration = Duration::from_millis(2500);
    let fleet = Fleet::start(3).await;
    fleet.patch("0", json!({"agent": {"mode": "hang"}})).await;
    // A queue of connections that is full: the kernel drops every further SYN.
    let port = fleet.agent_port() + 2000;
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind((fleet.address(1), port).into()).unwrap();
    let full = socket.listen(0).unwrap();
    let mut waiting = Vec::new();
    while let Ok(Ok(stream)) = connect(fleet.address(1), port).await {
        waiting.push(stream);
        assert!(waiting.len() < 100, "the queue never fills");
    }
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    apply(&client, &namespace, &plugin("agent", fleet.agent_port(), json!({"configKey": "port"}))).await;
    let operator =
        Operator::builder(control_plane).namespace(&namespace).arg("--poll-interval=10s").start().await;
    eventually(PATIENCE, "the plugin is accepted", async || {
        let plugin: ollama_fleet_operator::api::FleetPlugin = get(&client, &namespace, "agent").await;
        has_condition(&plugin, "Accepted", "True", "Valid")
    })
    .await;
    let mut figures = Vec::new();
    for (host, ports) in [(2, json!({})), (0, json!({})), (1, json!({ "port": port }))] {
        let name = format!("s{host:02}");
        let start = Instant::now();
        apply(&client, &namespace, &server_with(&name, fleet.host(host), json!({ "pluginPorts": ports })))
            .await;
        all_ready(&client, &namespace, host..host + 1, BOUND).await;
        figures.push(start.elapsed());
    }
    eprintln!(
        "Ready after {:.1?} with an agent, {:.1?} with one that hangs, {:.1?} with one that drops packets",
        figures[0], figures[1], figures[2]
    );
    drop((full, waiting, operator));
}

async fn connect(
    address: Ipv4Addr,
    port: u16,
) -> Result<std::io::Result<TcpStream>, tokio::time::error::Elapsed> {
    tokio::time::timeout(Duration::from_millis(300), TcpStream::connect((address, port))).await
}

/// Who follows an agent's redirect, or the names in its answer, would come here.
#[tokio::test]
async fn no_redirect_of_an_agent_or_a_host_is_followed() {
    let trap = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let location = format!("http://{}/stolen", trap.local_addr().unwrap());
    let fleet = Fleet::start(1).await;
    let redirect = json!({"mode": "redirect", "location": location, "code": 307});
    fleet.patch("0", json!({"ollama": redirect, "agent": redirect})).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    apply(&client, &namespace, &server("s00", fleet.host(0))).await;
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    let verdict = eventually(VERDICT, "UnexpectedRedirect", async || {
        let object: OllamaServer = get(&client, &namespace, "s00").await;
        has_condition(&object, "Ready", "False", "UnexpectedRedirect")?;
        // While the host fails, what its agent does is no reason to write; metrics know it at once.
        let labels = [("reason", "UnexpectedRedirect")];
        metric_value(&operator.metrics().await, "ollama_fleet_plugin_scrape_failures_total", &labels)
            .map(drop)
            .ok_or_else(|| "the agent was not read".to_owned())
    });
    tokio::select! {
        () = verdict => {}
        _ = trap.accept() => panic!("a redirect was followed"),
    }
    drop(operator);
}

/// However much a host and its agents have to say, and in how long words, the object stays under 32 KiB and says how
/// many models it leaves out; and no name forges a series.
#[tokio::test]
async fn what_hosts_and_agents_say_keeps_the_object_small_and_forges_no_series() {
    let long = |index: usize| format!("{index:03}-{}", "x".repeat(230));
    let forged = "evil\"} 1\nollama_fleet_forged 1 #\\";
    let mut models: Vec<Value> = (0..400).map(|index| json!({"name": long(index)})).collect();
    models.push(json!({ "name": forged }));
    let in_memory = |name: String| {
        json!({"name": name, "digest": "f".repeat(64), "sizeBytes": 5_u64 << 30, "vramBytes": 5_u64 << 30,
            "contextLength": 4096, "expires": "forever"})
    };
    let mut loaded: Vec<Value> = (0..60).map(|index| in_memory(long(index))).collect();
    loaded.insert(0, in_memory(format!("!{forged}")));
    let body: serde_json::Map<String, Value> =
        (0..32).map(|index| (format!("k{index:02}{}", "y".repeat(60)), json!(i64::MAX >> 10))).collect();
    let state = json!({"models": models, "loaded": loaded, "agentContentType": "application/json",
        "agentBody": Value::from(body).to_string()});
    let fleet = Fleet::with(1, &json!({ "defaults": state }), &[]).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    for index in 0..10 {
        apply(&client, &namespace, &plugin(&format!("p{index}"), fleet.agent_port(), json!({}))).await;
    }
    let spec = json!({"poll": {"modelsInterval": "1s"}});
    apply(&client, &namespace, &server_with("s00", fleet.host(0), spec)).await;
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    let check = async || {
        let object: OllamaServer = get(&client, &namespace, "s00").await;
        has_condition(&object, "PluginsHealthy", "True", "AllHealthy")?;
        let size = serde_json::to_string(&object).unwrap().len();
        let status = status_of(&object);
        let listed = status.models.as_ref().map_or(0, Vec::len);
        assert!(size < 32 << 10, "{size} bytes with {listed} models");
        assert_eq!((status.model_count, status.loaded_count), (Some(401), Some(61)));
        assert_eq!(usize::try_from(status.models_omitted.unwrap()).unwrap() + listed, 401);
        if listed < 10 { Err(format!("only {listed} models listed")) } else { Ok((size, listed)) }
    };
    eventually(PATIENCE, "everything has been said", check).await;
    let (size, listed) = holds_for(Duration::from_secs(3), "the object stays small", check).await;
    let told = events(&client, &namespace, "s00").await;
    assert!(told.is_empty(), "{told:?}");
    let text = operator.metrics().await;
    assert!(metric_value(&text, "ollama_fleet_model_loaded", &[("server", "s00")]).is_some());
    assert!(!text.lines().any(|line| line.starts_with("ollama_fleet_forged")), "a series is forged");
    assert!(text.contains(r#"model="!evil\"} 1ollama_fleet_forged 1 #\\""#), "the name is not escaped");
    eprintln!("{size} bytes with {listed} of 401 models, 61 loaded, and 10 plugins of 32 values");
}

/// Every server of the namespace, by name.
async fn list(client: &Client, namespace: &str) -> BTreeMap<String, OllamaServer> {
    let list = objects::api::<OllamaServer>(client, namespace).list(&ListParams::default()).await.unwrap();
    list.items.into_iter().map(|server| (server.metadata.name.clone().unwrap_or_default(), server)).collect()
}

async fn all_ready(client: &Client, namespace: &str, hosts: std::ops::Range<usize>, limit: Duration) {
    eventually(limit, "every host is Ready", async || {
        let servers = list(client, namespace).await;
        hosts.clone().try_for_each(|host| {
            has_condition(&servers[&format!("s{host:02}")], "Ready", "True", "Online")
                .map_err(|error| format!("s{host:02}: {error}"))
        })
    })
    .await;
}

/// The one plugin of a server; an empty report before there is one.
fn report(server: &OllamaServer) -> PluginReport {
    status_of(server).plugins.unwrap_or_default().into_iter().next().unwrap_or_default()
}

fn short(fault: &Value) -> String {
    fault.to_string().chars().take(80).collect()
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
