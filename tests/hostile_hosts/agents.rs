//! Agents that answer wrongly, slowly, too much, or not at all: their plugins say why, and their servers stay Ready.

use super::{
    VERDICT, assert_clean,
    fleet::{MEMORY, RETURN, all_ready},
    list,
};
use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, apply, events, eventually, get, holds_for,
    metric_value,
    objects::{fleet_metrics, has_condition, server_with},
    plugin, server, status_of,
};
use ollama_fleet_operator::api::{OllamaServer, server_status::PluginReport};
use serde_json::{Value, json};
use std::{
    net::Ipv4Addr,
    time::{Duration, Instant},
};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

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
        (fault(json!({"mode": "huge", "chunked": true})), "ResponseTooLarge"),
        (fault(json!({"mode": "deepJson"})), "InvalidResponse"),
        (fault(json!({"mode": "gzip"})), "InvalidResponse"),
        (fault(json!({"mode": "redirect"})), "UnexpectedRedirect"),
        (fault(json!({"mode": "status", "code": 404})), "InvalidResponse"),
        (fault(json!({"mode": "status", "code": 401})), "Unauthorized"),
        (fault(json!({"mode": "banner"})), "InvalidResponse"),
        (answer("# HELP node_load1 1m load average.\nnode_load1 0.21\n"), "InvalidResponse"),
        (answer(r#"{"status": "ok"}"#), "InvalidResponse"),
        (answer(&dense), "InvalidResponse"),
        (answer(&format!("{{\"temperatures\": {dense}}}")), "InvalidResponse"),
    ]
}

/// What has the fields that are wanted is this agent, whatever is in them: it is well, and what it does not say is unknown.
fn odd_agents() -> [Value; 3] {
    [
        json!({"agent": {"mode": "controlChars"}}),
        json!({"agent": {"mode": "wrongTypes"}}),
        json!({"agentBody": r#"{"hostname": "\u001b[2J\u202egpu", "cpu_percent": "some"}"#,
            "agentContentType": "application/json"}),
    ]
}

/// Whatever an agent answers, its plugin says why it does not work there, and the server stays Ready; what it says
/// never reaches the object as it is.
#[tokio::test]
async fn every_fault_of_an_agent_is_its_plugins_and_leaves_ready_alone() {
    let faults = agent_faults();
    let good = faults.len();
    let fleet = Fleet::start(good + 1 + odd_agents().len()).await;
    for (host, (patch, _)) in faults.iter().enumerate() {
        fleet.patch(&host.to_string(), patch.clone()).await;
    }
    for (odd, patch) in odd_agents().into_iter().enumerate() {
        fleet.patch(&(good + 1 + odd).to_string(), patch).await;
    }
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
        for host in good..fleet.len() {
            let report = report(&servers[&format!("s{host:02}")]);
            if report.state.as_deref() != Some("Active") {
                missing.push(format!("{host}: not Active: {report:?}"));
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
    assert!((good + 2..fleet.len()).all(|host| machine(host).is_none()), "a reading out of what is none");
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
        let listed = status.models.as_ref().map_or(0, |models| models.len());
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

/// The one plugin of a server; an empty report before there is one.
fn report(server: &OllamaServer) -> PluginReport {
    status_of(server).plugins.unwrap_or_default().into_iter().next().unwrap_or_default()
}

fn short(fault: &Value) -> String {
    fault.to_string().chars().take(80).collect()
}
