//! What machines do to processes: clocks that jump, descriptors that run out, a disk that cannot be written, a processor
//! that is taken away. The operator does what it can, says so, and never says that a host is gone when it is not.

use crate::support::{
    ApiProxy, ControlPlane, Faulty, Fleet, Namespace, Operator, PATIENCE, apply,
    clock::Clock,
    eventually, full, holds_for, is_well, metric_value,
    objects::{self, has_condition},
    server, status_of,
};
use kube::api::ListParams;
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use ollama_fleet_operator::api::OllamaServer;
use serde_json::json;
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::net::TcpSocket;

/// Longest time between two polls of a host that is asked every second, in milliseconds: one interval may be cut short or
/// drawn out as the clock jumps.
const GAP: i64 = 3000;
const HOUR: i64 = 3600;

fn name(host: usize) -> String {
    format!("s{host:03}")
}

/// A clock that is set forwards and back by an hour makes no poll come early, late or twice, no time of a status run
/// backwards, no write and no Event.
#[tokio::test]
async fn a_clock_that_jumps_moves_no_poll_and_no_time_backwards() {
    const HOSTS: usize = 5;
    let clock = Clock::new();
    // By way of the proxy, whose connection has no certificate that could be out of date.
    let faulty = Faulty::with(HOSTS, &json!({}), |builder| {
        clock.env().iter().fold(builder, |builder, (name, value)| builder.env(name, value))
    })
    .await;
    for host in 0..HOSTS {
        faulty.server(&name(host), host, json!({})).await;
    }
    for host in 0..HOSTS {
        faulty.until_online(&name(host)).await;
    }
    let mut times = Vec::new();
    let writes = faulty.writes().await;
    for (shift, action) in [(-HOUR, "die"), (0, "revive"), (HOUR, "die"), (0, "revive")] {
        writes.reset().await;
        faulty.fleet.reset_stats().await;
        clock.set(shift);
        let begin = Instant::now();
        let seconds = if full() { 60 } else { 5 };
        holds_for(Duration::from_secs(seconds), "nothing is written", async || {
            let total = writes.total().await;
            if total == 0 { Ok(()) } else { Err(format!("{total} writes at {shift} s")) }
        })
        .await;
        for (host, arrivals) in faulty.fleet.arrivals("all", "/api/version").await {
            let gaps: Vec<i64> = arrivals.windows(2).map(|pair| pair[1] - pair[0]).collect();
            // However long it took to look, with what is made up after a moment in which nothing moved.
            let most = usize::try_from(begin.elapsed().as_secs()).unwrap() + 3;
            assert!(arrivals.len() <= most, "{shift} s: {host}: a burst of {} polls", arrivals.len());
            assert!(gaps.iter().all(|gap| *gap <= GAP), "{shift} s: {host}: {gaps:?} ms");
        }
        faulty.fleet.action("0", action).await;
        let (status, reason) =
            if action == "die" { ("False", "ConnectionRefused") } else { ("True", "Online") };
        faulty.until(&name(0), "Ready", status, reason).await;
        let status = faulty.status(&name(0)).await;
        let ready = status.conditions.iter().find(|condition| condition.type_ == "Ready").unwrap();
        times.push((status.last_heartbeat_time.unwrap().0, ready.last_transition_time.0));
    }
    for pair in times.windows(2) {
        assert!(pair[1].0 >= pair[0].0 && pair[1].1 >= pair[0].1, "times ran backwards: {times:?}");
    }
    for host in 1..HOSTS {
        assert!(faulty.told(&name(host)).await.is_empty());
    }
    faulty.is_well().await;
}

/// With 256 descriptors for hundreds of hosts, half of them dead, and a root that cannot be written: every host is asked,
/// in turn; none that is well is called dead; nothing spins, and nothing is written to a disk.
#[tokio::test]
async fn few_descriptors_and_no_disk_are_enough() {
    let hosts = if full() { 1000 } else { 200 };
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    // Answers that take a while, so that many are open at the same time.
    let scenario = json!({"defaults": {"ollama": {"mode": "healthy", "latencyMs": 150}}});
    let fleet = Fleet::with(hosts, &scenario, &["--sockets=own"]).await;
    let operator = Operator::builder(control_plane)
        .namespace(&namespace)
        .under(&["sh", "-c", "cd / && ulimit -n 256 && exec \"$0\" \"$@\""])
        .env("TMPDIR", "/nonexistent")
        .env("HOME", "/nonexistent")
        .arg("--poll-interval=5s")
        .start()
        .await;
    for host in 0..hosts {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
    }
    let servers = objects::api::<OllamaServer>(&client, &namespace);
    let verdicts = async |reason: &str| {
        let list = servers.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let status = if reason == "Online" { "True" } else { "False" };
        let is = |server: &&OllamaServer| has_condition(*server, "Ready", status, reason).is_ok();
        Ok::<usize, String>(list.items.iter().filter(is).count())
    };
    eventually(4 * PATIENCE, "all are online", async || {
        let online = verdicts("Online").await?;
        if online == hosts { Ok(()) } else { Err(format!("{online} of {hosts}")) }
    })
    .await;
    // An hour's worth of readers at the door takes descriptors too.
    let mut doors = Vec::new();
    for number in 0..60 {
        // One address may hold some of the places only.
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(SocketAddr::from(([127, 0, 1, 1 + number / 12], 0))).unwrap();
        doors.extend(socket.connect(operator.api_address().parse().unwrap()).await);
    }
    fleet.patch(&format!("0-{}", hosts / 2 - 1), json!({"ollama": {"mode": "hang"}})).await;
    eventually(4 * PATIENCE, "the dead half has its verdict", async || {
        let dead = verdicts("Timeout").await?;
        if dead == hosts / 2 { Ok(()) } else { Err(format!("{dead} of {}", hosts / 2)) }
    })
    .await;
    let before = operator.cpu_seconds();
    let begin = Instant::now();
    holds_for(Duration::from_secs(5), "no host that is well is called dead", async || {
        let online = verdicts("Online").await?;
        if online == hosts - hosts / 2 { Ok(()) } else { Err(format!("{online} online")) }
    })
    .await;
    let share = (operator.cpu_seconds() - before) / begin.elapsed().as_secs_f64();
    assert!(share < 1.0, "it spins: {share:.2} cores");
    drop(doors);
    let open = std::fs::read_dir(format!("/proc/{}/fd", operator.pid())).unwrap();
    let files: Vec<_> = open.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok()).collect();
    let written: Vec<_> = files.iter().filter(|file| file.is_absolute() && file.is_file()).collect();
    assert!(written.len() <= 1, "it has files open beside its log: {written:?}");
    assert!(files.len() <= 256);
    is_well(&operator).await;
    eprintln!("figure: {hosts} hosts with 256 descriptors: {} open, {share:.2} cores", files.len());
}

/// With a tenth of a processor every host is still asked and none that is well is called dead; given back, it catches up.
#[tokio::test]
async fn a_throttled_processor_calls_no_host_dead() {
    const HOSTS: usize = 50;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let proxy = ApiProxy::start(control_plane);
    let fleet = Fleet::start(HOSTS).await;
    let operator = Operator::builder(control_plane)
        .namespace(&namespace)
        .kubeconfig(&proxy.kubeconfig())
        .arg("--poll-interval=5s")
        .start()
        .await;
    for host in 0..HOSTS {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
    }
    let servers = objects::api::<OllamaServer>(&client, &namespace);
    let online = async || {
        let list = servers.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
        let off: Vec<_> =
            list.items.iter().filter_map(|one| has_condition(one, "Ready", "True", "Online").err()).collect();
        if off.is_empty() { Ok(()) } else { Err(format!("{off:?}")) }
    };
    eventually(PATIENCE, "all are online", online).await;
    fleet.reset_stats().await;
    let pid = Pid::from_raw(operator.pid().try_into().unwrap());
    let throttle = async {
        // As a quota of the kernel does it: a tenth of each 100 ms.
        loop {
            kill(pid, Signal::SIGSTOP).unwrap();
            tokio::time::sleep(Duration::from_millis(90)).await;
            kill(pid, Signal::SIGCONT).unwrap();
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    let seconds = if full() { 60 } else { 15 };
    tokio::select! {
        () = throttle => {}
        () = async {
            tokio::time::sleep(Duration::from_secs(seconds)).await;
        } => {}
    }
    kill(pid, Signal::SIGCONT).unwrap();
    online().await.unwrap();
    let stats = fleet.stats().await;
    let polls: Vec<u64> = (0..HOSTS).map(|host| stats.host(host).count("/api/version")).collect();
    let (least, most) = (polls.iter().min().copied().unwrap(), polls.iter().max().copied().unwrap());
    assert!(least >= 1 && most <= least + 2, "unevenly asked: {polls:?}");
    fleet.action("0", "die").await;
    eventually(PATIENCE, "it is itself again", async || {
        let one = servers.get(&name(0)).await.map_err(|error| error.to_string())?;
        let failing = status_of(&one).consecutive_failures;
        has_condition(&one, "Ready", "False", "ConnectionRefused")
            .map_err(|error| format!("{error} {failing:?}"))
    })
    .await;
    let skipped = metric_value(&operator.metrics().await, "ollama_fleet_server_polls_skipped_total", &[]);
    eprintln!(
        "figure: at a tenth of a processor each host was asked {least} to {most} times in {seconds} s, {skipped:?} polls skipped"
    );
    is_well(&operator).await;
}
