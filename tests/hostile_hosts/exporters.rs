//! Agents whose answers are large and dear to take apart, all within what one answer may be.

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, apply, eventually, metric_value,
    objects::{plugin, server_with},
    proc,
};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Hosts whose agents answer this line again and again.
async fn exporters(hosts: usize, line: &str, bytes: usize) -> Fleet {
    let body = line.repeat(bytes / line.len());
    let state = json!({"agentBody": body, "agentContentType": "text/plain; version=0.0.4"});
    Fleet::with(hosts, &json!({ "defaults": state }), &[]).await
}

/// Eight servers with 64 plugins each read a megabyte at every poll, of which each line is like the 32 that are wanted
/// but for its last label. There are never more of these answers than of large bodies at once, also while they wait to
/// be taken apart, and the exporter of another namespace is read on schedule.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_large_answers_of_agents_are_bounded_together_and_delay_no_other_namespace() {
    const SERVERS: usize = 8;
    const PLUGINS: usize = 64;
    /// 56 of 64 bodies of 1 MiB, the starts of the others with their connections, and what the operator needs itself;
    /// without the bound all 512 are there within seconds.
    const MOST: u64 = (56 + 64 + 48) << 20;
    /// 2.5 intervals of 5 s.
    const GAP: i64 = 12_500;
    let control_plane = ControlPlane::shared();
    let client = control_plane.client().await;
    let (greedy, modest) = (Namespace::new(control_plane).await, Namespace::new(control_plane).await);
    let operator = Operator::builder(control_plane).namespace(&greedy).namespace(&modest).start().await;
    let spec = json!({"poll": {"interval": "5s", "timeout": "4s"}});

    let own = exporters(1, "node_load1{cpu=\"0\",mode=\"idle\"} 1\n", 100_000).await;
    let load = json!([{"name": "load", "metric": {"name": "node_load1"}}]);
    let agent = json!({"values": load, "format": "Prometheus"});
    apply(&client, &modest, &plugin("node", own.agent_port(), agent)).await;
    apply(&client, &modest, &server_with("own", own.host(0), spec.clone())).await;
    let readings = async || own.host_stats(0).await.count("agent:/metrics");
    eventually(Duration::from_secs(30), "one's own exporter is read", async || readings().await >= 2).await;

    let labels: serde_json::Map<String, Value> = (0..7).map(|n| (format!("l{n}"), json!("x"))).collect();
    let values: Vec<Value> = (0..32)
        .map(|index| {
            let mut labels = labels.clone();
            labels.insert("l7".into(), json!(format!("w{index}")));
            json!({"name": format!("v{index}"), "metric": {"name": "m", "labels": labels}})
        })
        .collect();
    let line = (0..7).map(|n| format!("l{n}=\"x\",")).collect::<Vec<_>>().concat();
    let others = exporters(SERVERS, &format!("m{{{line}l7=\"y\"}} 1\n"), 1_000_000).await;
    for index in 0..PLUGINS {
        let agent = json!({"values": values, "format": "Prometheus"});
        apply(&client, &greedy, &plugin(&format!("p{index:02}"), others.agent_port(), agent)).await;
    }
    let (pid, before) = (operator.pid(), operator.rss_bytes());
    proc::reset_peak(pid);
    own.reset_stats().await;
    let start = Instant::now();
    for host in 0..SERVERS {
        apply(&client, &greedy, &server_with(&format!("s{host}"), others.host(host), spec.clone())).await;
    }
    let all = async || {
        let stats = others.stats().await;
        (0..SERVERS).map(|host| stats.host(host).count("agent:/metrics")).sum::<u64>()
    };
    let wanted = 3 * (SERVERS * PLUGINS) as u64;
    eventually(Duration::from_secs(90), "all are read some more times", async || {
        let (all, own) = (all().await, readings().await);
        if all >= wanted && own >= 6 {
            Ok(())
        } else {
            Err(format!("{all} of the others, {own} of one's own"))
        }
    })
    .await;
    let took = start.elapsed();
    let arrivals = own.arrivals("all", "agent:/metrics").await.into_values().next().unwrap();
    let widest = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap();
    assert!(widest <= GAP, "one's own exporter was not read for {widest} ms: {arrivals:?}");
    let grown = proc::peak_bytes(pid).saturating_sub(before);
    assert!(grown < MOST, "the operator grew by {} MiB", grown >> 20);
    assert_eq!(metric_value(&operator.metrics().await, "ollama_fleet_panics_total", &[]), Some(0.0));
    eprintln!(
        "figure: {} large answers asked for in {took:.0?}: {} MiB more at the peak; widest gap of another's exporter {widest} ms",
        all().await,
        grown >> 20
    );
}
