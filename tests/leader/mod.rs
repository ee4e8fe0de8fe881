//! Several replicas: one polls and writes, the others stand by, and whatever happens to the leader or to its Lease, there
//! are never two. The witnesses are the hosts' counters, the API server's books, and a proxy before it.
//!
//! The durations are short ones. `LEASE_DEFAULTS=1` runs the tests with those that the operator has by itself.

mod plugins;
mod proxy;

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, WriteCounter, all_events, apply, eventually, get,
    holds_for, http, metric_value, metrics,
    objects::{self, fleet_metrics, has_condition},
    operator::Builder,
    server,
};
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use kube::{
    Api, Client,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use nix::sys::signal::Signal;
use ollama_fleet_operator::api::OllamaServer;
use proxy::{Fault, Proxy};
use rstest::rstest;
use serde_json::{Value, json};
use std::{
    env,
    time::{Duration, SystemTime},
};

const NAME: &str = "ollama-fleet-operator";
/// Lease, deadline and retry period, in milliseconds: as short as a busy machine allows.
const SHORT: [u64; 3] = [8_000, 6_000, 1_000];
/// Those of the operator.
const DEFAULTS: [u64; 3] = [15_000, 10_000, 2_000];

/// A namespace with servers for the first hosts of a fleet, and with the Lease.
struct World {
    client: Client,
    namespace: Namespace,
    fleet: Fleet,
}

impl World {
    async fn new(hosts: usize) -> Self {
        let world = Self::without_servers(hosts).await;
        for host in 0..hosts {
            apply(&world.client, &world.namespace, &server(&name(host), world.fleet.host(host))).await;
        }
        world
    }

    async fn without_servers(hosts: usize) -> Self {
        let control_plane = ControlPlane::shared();
        Self {
            client: control_plane.client().await,
            namespace: Namespace::new(control_plane).await,
            fleet: Fleet::start(hosts).await,
        }
    }

    fn replica(&self, [lease, deadline, retry]: [u64; 3]) -> Builder {
        Operator::builder(ControlPlane::shared())
            .namespace(&self.namespace)
            .arg("--leader-elect")
            .arg(format!("--leader-elect-namespace={}", self.namespace))
            .arg(format!("--lease-duration={lease}ms"))
            .arg(format!("--lease-renew-deadline={deadline}ms"))
            .arg(format!("--lease-retry-period={retry}ms"))
    }

    /// Waits until every server is online. From then on polls come in their slots; the first came at once.
    async fn all_online(&self) {
        for host in 0..self.fleet.len() {
            self.until(host, "True", "Online").await;
        }
        self.fleet.reset_stats().await;
    }

    /// Waits until the server of a host is as it should be.
    async fn until(&self, host: usize, status: &str, reason: &str) {
        eventually(PATIENCE, reason, async || {
            let object: OllamaServer = get(&self.client, &self.namespace, &name(host)).await;
            has_condition(&object, "Ready", status, reason)
        })
        .await;
    }

    fn leases(&self) -> Api<Lease> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    async fn lease(&self) -> LeaseSpec {
        self.leases().get(NAME).await.unwrap().spec.unwrap()
    }

    async fn edit_lease(&self, patch: Value) {
        self.leases().patch(NAME, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
    }

    /// When the first host is polled after a moment, in milliseconds since then.
    async fn polled_after(&self, moment: i64, limit: Duration) -> i64 {
        eventually(limit, "the first poll", async || {
            let arrivals = self.fleet.arrivals("all", "/api/version").await;
            arrivals.into_values().flatten().filter(|at| *at > moment).min().map(|at| at - moment)
        })
        .await
    }

    /// Every host was asked once a second at most: one polls.
    async fn is_polled_by_one(&self) {
        for (host, arrivals) in self.fleet.arrivals("all", "/api/version").await {
            let close = arrivals.windows(2).filter(|pair| pair[1] - pair[0] < 400).count();
            assert_eq!(close, 0, "{host}: {arrivals:?}");
        }
    }

    /// Reasons of everything that was told, sorted.
    async fn told(&self) -> Vec<String> {
        let events = all_events(&self.client, &self.namespace).await;
        let mut told: Vec<_> = events
            .iter()
            .map(|event| {
                let times = event.series.as_ref().map_or(1, |series| series.count);
                format!("{} {}", event.reason.clone().unwrap_or_default(), times)
            })
            .collect();
        told.sort();
        told
    }
}

fn name(host: usize) -> String {
    format!("s{host}")
}

fn times() -> [u64; 3] {
    if env::var_os("LEASE_DEFAULTS").is_some() { DEFAULTS } else { SHORT }
}

fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap();
    i64::try_from(since.as_millis()).unwrap()
}

/// Waits until one of the replicas leads, and says which.
async fn leader(limit: Duration, replicas: &[&Operator]) -> usize {
    eventually(limit, "one replica leads", async || {
        for (index, replica) in replicas.iter().enumerate() {
            if replica.status().is_none() && leads(replica).await {
                return Some(index);
            }
        }
        None
    })
    .await
}

async fn leads(replica: &Operator) -> bool {
    metric_value(&replica.metrics().await, "ollama_fleet_leader", &[]) == Some(1.0)
}

/// The replica ends with an error, and its last line says why.
async fn until_lost(replica: &Operator, limit: Duration, why: &str) {
    let status = eventually(limit, "the leader ends", async || replica.status()).await;
    assert_eq!(status.code(), Some(1));
    let errors = errors(replica);
    assert_eq!(errors.len(), 1, "{errors:?}");
    let said = &errors[0];
    assert!(said.starts_with("leadership lost: the Lease ") && said.contains(why), "{said}");
}

/// The operator's own lines of that level; its client has some for every answer that is no success.
fn errors(replica: &Operator) -> Vec<String> {
    let own = |line: &Value| {
        let target = line["target"].as_str().unwrap_or_default();
        line["level"] == "ERROR" && target.starts_with("ollama_fleet_operator")
    };
    let text = |line: Value| line["message"].as_str().unwrap_or_default().to_owned();
    replica.log_lines().into_iter().filter(own).map(text).collect()
}

async fn rows(replica: &Operator, path: &str) -> Vec<Value> {
    let (status, body) = http::get(&format!("http://{}{path}", replica.api_address())).await.unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Of two replicas one polls and writes. The other is ready and says that it does not lead, answers reads from what the
/// objects say, has no series of servers, and takes over within seconds when the leader is told to stop: without a write
/// about what has not changed, and without telling anything again.
#[tokio::test]
async fn one_of_two_replicas_acts_and_the_other_is_ready_to() {
    let world = World::new(3).await;
    apply(&world.client, &world.namespace, &fleet_metrics(world.fleet.agent_port())).await;
    let first = world.replica(DEFAULTS).start().await;
    leader(PATIENCE, &[&first]).await;
    world.all_online().await;
    world.fleet.action("0", "die").await;
    world.until(0, "False", "ConnectionRefused").await;
    eventually(PATIENCE, "the death is told", async || world.told().await == ["ServerOffline 1"]).await;

    let second = world.replica(DEFAULTS).start().await;
    let ready: Value = serde_json::from_str(&second.readyz().await.unwrap()).unwrap();
    assert_eq!(ready, json!({"ready": true, "leader": false, "waitingFor": []}));
    let ready: Value = serde_json::from_str(&first.readyz().await.unwrap()).unwrap();
    assert_eq!(ready["leader"], true);
    // What the leader learns, the other shows.
    world.fleet.action("1", json!({"action": "load", "model": "new:1b"})).await;
    eventually(PATIENCE, "the other shows what the leader wrote", async || {
        let servers = rows(&second, "/api/servers").await;
        let all = servers.iter().map(|server| server["ready"].clone()).collect::<Vec<_>>();
        let loaded = servers[1]["loadedModels"].to_string().contains("new:1b");
        if loaded && all == [false, true, true] { Ok(()) } else { Err(format!("{servers:?}")) }
    })
    .await;
    eventually(PATIENCE, "the plugin is settled", async || {
        let plugins = rows(&second, "/api/plugins").await;
        let counts = &plugins[0]["servers"];
        if counts["matched"] == 3 && counts["healthy"] == 2 { Ok(()) } else { Err(format!("{plugins:?}")) }
    })
    .await;
    assert_eq!(rows(&first, "/api/plugins").await, rows(&second, "/api/plugins").await);
    let text = second.metrics().await;
    assert_eq!(metric_value(&text, "ollama_fleet_leader", &[]), Some(0.0));
    for series in ["ollama_fleet_server_up", "ollama_fleet_servers", "ollama_fleet_plugin_up"] {
        assert_eq!(metrics::series(&text, series), 0, "{series}");
    }
    assert!(metrics::series(&text, "ollama_fleet_watch_events_total") > 0, "{text}");
    world.is_polled_by_one().await;

    let told = eventually(PATIENCE, "both are told", async || {
        Some(world.told().await).filter(|told| told.len() >= 2)
    })
    .await;
    let writes = WriteCounter::start(&world.client, &world.namespace).await;
    let transitions = world.lease().await.lease_transitions;
    let begin = now();
    let (status, took) = first.terminate();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    assert!(first.log().contains("lease released"));
    let end = now();
    let polled = world.polled_after(end, PATIENCE).await + end - begin;
    eprintln!("figure: SIGTERM of the leader → first poll of the next one: {polled} ms, promised 3000 ms");
    let [lease, ..] = times();
    assert!(polled < i64::try_from(lease).unwrap(), "{polled} ms: the end of the lease was waited for");
    assert!(leads(&second).await);
    assert_eq!(world.lease().await.lease_transitions, transitions.map(|number| number + 1));
    // Long enough for three polls of each host.
    holds_for(Duration::from_secs(4), "nothing is written or told again", async || {
        let told_now = world.told().await;
        if told_now == told { Ok(()) } else { Err(format!("{told_now:?}, before {told:?}")) }
    })
    .await;
    assert_eq!(writes.total().await, 0, "{:?}", writes.all().await);
    world.is_polled_by_one().await;
    let text = second.metrics().await;
    assert_eq!(metrics::series(&text, "ollama_fleet_server_up"), 3);
    assert_eq!(
        metric_value(&text, "ollama_fleet_lease_renewals_total", &[("outcome", "renewed")]).map(|_| ()),
        Some(())
    );
    // It goes on from there: what is news is written and told.
    world.fleet.action("0", "revive").await;
    world.until(0, "True", "Online").await;
}

/// The leader is gone from one moment to the next: exactly one of the others takes over when the lease is over.
#[tokio::test]
async fn a_killed_leader_is_replaced_by_one() {
    let [lease, deadline, retry] = times();
    let world = World::new(3).await;
    let first = world.replica([lease, deadline, retry]).start().await;
    leader(PATIENCE, &[&first]).await;
    world.all_online().await;
    let (second, third) = (world.replica(times()).start().await, world.replica(times()).start().await);
    let writes = WriteCounter::start(&world.client, &world.namespace).await;
    let begin = now();
    first.kill();
    let end = now();
    // What the killed leader had asked may arrive a moment later.
    let polled = world.polled_after(end + 500, PATIENCE).await + end + 500 - begin;
    let promised = i64::try_from(lease + retry).unwrap() + 3_000;
    eprintln!(
        "figure: SIGKILL of the leader → first poll of the next one: {polled} ms, promised {promised} ms"
    );
    assert!(polled <= 2 * promised, "{polled} ms, promised {promised} ms, twice that on a busy machine");
    assert!(polled >= i64::try_from(deadline).unwrap() - 1000, "before the leader must have stopped");
    leader(PATIENCE, &[&second, &third]).await;
    holds_for(Duration::from_secs(3), "one of them leads", async || {
        leads(&second).await != leads(&third).await
    })
    .await;
    world.is_polled_by_one().await;
    assert_eq!(writes.total().await, 0, "{:?}", writes.all().await);
    assert_eq!(world.told().await, Vec::<String>::new());
}

/// A leader that was stopped for longer than its lease, with news at hand that it could not write before, sends nothing
/// at all when it wakes up: it ends, and the next one tells the news once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_wakes_up_too_late_writes_nothing() {
    let world = World::new(20).await;
    let proxy = Proxy::start(ControlPlane::shared()).await;
    let first = world.replica(times()).kubeconfig(proxy.kubeconfig()).start().await;
    world.all_online().await;
    proxy.writes(Fault::Answer(503, "ServiceUnavailable"));
    let before = proxy.seen().len();
    world.fleet.action("all", "die").await;
    let depths = ["ollama_fleet_status_write_queue", "ollama_fleet_event_queue"];
    eventually(PATIENCE, "statuses and Events wait to be sent", async || {
        let text = first.metrics().await;
        let waiting = depths.map(|depth| metric_value(&text, depth, &[]).unwrap_or_default());
        let tried = proxy.seen().len() - before;
        if tried > 2 && waiting.iter().all(|number| *number > 5.0) {
            Ok(())
        } else {
            Err(format!("{waiting:?}"))
        }
    })
    .await;
    first.signal(Signal::SIGSTOP);
    let written = resource_versions(&world).await;
    proxy.writes(Fault::None);
    // Whoever sees no sign of life for this long may take over.
    let renewed = world.lease().await.renew_time;
    holds_for(Duration::from_millis(times()[0]), "nobody renews", async || {
        world.lease().await.renew_time == renewed
    })
    .await;
    let sent = proxy.seen().len();
    first.signal(Signal::SIGCONT);
    until_lost(&first, Duration::from_secs(10), "it could not be renewed in time").await;
    assert_eq!(proxy.seen()[sent..], [] as [String; 0]);
    assert_eq!(resource_versions(&world).await, written);
    assert_eq!(world.told().await, Vec::<String>::new());

    let second = world.replica(times()).start().await;
    for host in 0..20 {
        world.until(host, "False", "ConnectionRefused").await;
    }
    eventually(PATIENCE, "each death is told once", async || {
        world.told().await == vec!["ServerOffline 1"; 20]
    })
    .await;
    drop(second);
}

async fn resource_versions(world: &World) -> Vec<Option<String>> {
    let servers = objects::api::<OllamaServer>(&world.client, &world.namespace);
    let list = servers.list(&kube::api::ListParams::default()).await.unwrap();
    list.items.into_iter().map(|server| server.metadata.resource_version).collect()
}

/// An API server that does not answer about the Lease, while it answers everything else, ends the leader before another
/// replica may take over; from then on it has polled and written nothing.
#[rstest]
#[case::silent(Fault::Hang, "no answer to")]
#[case::too_many_requests(Fault::Answer(429, "TooManyRequests"), "cannot")]
#[case::broken(Fault::Answer(500, "InternalError"), "cannot")]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_cannot_renew_steps_down_in_time(#[case] fault: Fault, #[case] why: &str) {
    let [lease, deadline, _] = times();
    let world = World::new(2).await;
    let proxy = Proxy::start(ControlPlane::shared()).await;
    let first = world.replica(times()).kubeconfig(proxy.kubeconfig()).start().await;
    world.all_online().await;
    let second = world.replica(times()).start().await;
    proxy.leases(fault);
    let begin = now();
    until_lost(&first, Duration::from_millis(lease), why).await;
    let took = now() - begin;
    eprintln!("figure: {fault:?} → the leader has ended after {took} ms, deadline {deadline} ms");
    // The last renewal may have been as long ago as the retry period.
    assert!(took > i64::try_from(deadline).unwrap() - 4000, "it did not even try again");
    world.fleet.action("0", "die").await;
    let sent = proxy.seen().len();
    assert_eq!(leader(Duration::from_millis(lease + 10_000), &[&second]).await, 0);
    world.until(0, "False", "ConnectionRefused").await;
    assert_eq!(proxy.seen().len(), sent);
    world.is_polled_by_one().await;
}

/// Writes of status and Events that hang, or are all refused as too many, do not touch the renewals: those have a
/// connection and deadlines of their own.
#[rstest]
#[case::silent(Fault::Hang)]
#[case::too_many_requests(Fault::Answer(429, "TooManyRequests"))]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_writes_fail_keeps_the_lease(#[case] fault: Fault) {
    let [_, deadline, _] = times();
    let world = World::new(20).await;
    let proxy = Proxy::start(ControlPlane::shared()).await;
    let replica = world.replica(times()).kubeconfig(proxy.kubeconfig()).start().await;
    world.all_online().await;
    proxy.writes(fault);
    world.fleet.action("all", "die").await;
    let before = proxy.seen().len();
    eventually(PATIENCE, "it tries to write", async || proxy.seen().len() > before).await;
    let (renewed, transitions) = (world.lease().await.renew_time, world.lease().await.lease_transitions);
    holds_for(Duration::from_millis(deadline + 1_000), "it leads", async || leads(&replica).await).await;
    let lease = world.lease().await;
    assert!(lease.renew_time > renewed && lease.lease_transitions == transitions, "{lease:?}");
    proxy.writes(Fault::None);
    for host in 0..20 {
        world.until(host, "False", "ConnectionRefused").await;
    }
    eventually(PATIENCE, "each death is told once", async || {
        let told = world.told().await;
        if told == vec!["ServerOffline 1"; 20] { Ok(()) } else { Err(format!("{told:?}")) }
    })
    .await;
}

/// Whatever an outsider does to the Lease while the leader is well: labels stay, numbers are mended, a deleted Lease is
/// made again by the leader, and another holder's name ends it. Nobody else takes over before that.
#[tokio::test]
async fn an_edited_or_deleted_lease_makes_no_second_leader() {
    let world = World::new(1).await;
    let first = world.replica(times()).start().await;
    world.all_online().await;
    let second = world.replica(times()).start().await;
    let holder = world.lease().await.holder_identity.unwrap();

    world.edit_lease(json!({"metadata": {"labels": {"team": "platform"}}})).await;
    let renewed = world.lease().await.renew_time;
    eventually(PATIENCE, "it is renewed", async || world.lease().await.renew_time > renewed).await;
    world.edit_lease(json!({"spec": {"leaseDurationSeconds": i32::MAX, "leaseTransitions": i32::MAX}})).await;
    let own = i32::try_from(times()[0] / 1000).unwrap();
    eventually(PATIENCE, "the duration is mended", async || {
        world.lease().await.lease_duration_seconds == Some(own)
    })
    .await;
    let labels = world.leases().get(NAME).await.unwrap().metadata.labels.unwrap();
    assert_eq!(labels.get("team").map(String::as_str), Some("platform"));

    world.leases().delete(NAME, &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "it is made again", async || {
        let lease = world.leases().get_opt(NAME).await.unwrap();
        lease.and_then(|lease| lease.spec?.holder_identity)
    })
    .await;
    world.edit_lease(json!({"spec": {"holderIdentity": null}})).await;
    eventually(PATIENCE, "it is claimed again", async || world.lease().await.holder_identity.is_some()).await;
    assert_eq!(world.lease().await.holder_identity.as_deref(), Some(holder.as_str()));
    assert!(first.status().is_none() && !leads(&second).await);
    world.is_polled_by_one().await;

    world.edit_lease(json!({"spec": {"holderIdentity": "somebody", "leaseDurationSeconds": 1}})).await;
    until_lost(&first, PATIENCE, "it is held by somebody").await;
    // Nobody called so exists, and the Lease is never renewed.
    assert_eq!(leader(PATIENCE, &[&second]).await, 0);
    world.is_polled_by_one().await;
}

/// A Lease that its holder has left with a duration that is absurd or missing locks nobody out for ever: four times the
/// own duration at most.
#[rstest]
#[case::seventy_years(json!(i32::MAX), 4)]
#[case::missing(Value::Null, 1)]
#[case::one_second(json!(1), 1)]
#[tokio::test]
async fn an_absurd_duration_locks_nobody_out(#[case] duration: Value, #[case] times: i64) {
    const OWN: u64 = 2_000;
    let world = World::new(1).await;
    let lease: Lease = serde_json::from_value(json!({"metadata": {"name": NAME},
        "spec": {"holderIdentity": "gone", "leaseDurationSeconds": duration, "renewTime": "2999-01-01T00:00:00.000000Z"}}))
    .unwrap();
    world.leases().create(&PostParams::default(), &lease).await.unwrap();
    let begin = now();
    let replica = world.replica([OWN, 1_500, 300]).start().await;
    eventually(PATIENCE, "the lease is taken", async || {
        world.lease().await.holder_identity.is_some_and(|holder| holder != "gone")
    })
    .await;
    let took = now() - begin;
    eprintln!("figure: a lease of {duration} s was taken after {took} ms");
    assert!(took >= i64::try_from(OWN).unwrap() * times, "{took} ms");
    drop(replica);
}

/// Without the right to read Leases a replica says so once, is not ready, polls nothing, and needs no restart when it
/// has the right.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_told_once() {
    let world = World::new(1).await;
    let proxy = Proxy::start(ControlPlane::shared()).await;
    proxy.leases(Fault::Answer(403, "Forbidden"));
    let builder = world.replica(times()).kubeconfig(proxy.kubeconfig());
    let replica = builder.without_waiting_for_ready().start().await;
    let detail = "no right to get, create and update the Lease of the leader election";
    let waiting = eventually(PATIENCE, "/readyz says what is missing", async || {
        let said = replica.readyz().await.err()?;
        said.contains(detail).then_some(said)
    })
    .await;
    assert!(waiting.contains(r#""leader":false"#), "{waiting}");
    holds_for(Duration::from_secs(3), "it is told once, and nobody is asked", async || {
        errors(&replica).len() == 1 && world.fleet.stats().await.total == 0
    })
    .await;
    let said =
        format!("no right to get leases.coordination.k8s.io {NAME} in the namespace {}", world.namespace);
    assert!(errors(&replica)[0].contains(&said), "{:?}", errors(&replica));
    proxy.leases(Fault::None);
    world.until(0, "True", "Online").await;
    replica.readyz().await.unwrap();
}

/// Times that would let two replicas lead are refused before anything starts.
#[test]
fn times_that_do_not_go_together_are_refused() {
    let refused = |arg: &str| {
        let mut command = Operator::builder(ControlPlane::shared())
            .arg("--leader-elect")
            .arg(arg)
            .command(ControlPlane::shared().kubeconfig());
        let output = command.stderr(std::process::Stdio::piped()).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(refused("--lease-duration=10s").contains("--lease-renew-deadline must be shorter"));
    assert!(refused("--lease-retry-period=9s").contains("--lease-retry-period must be at most"));
}
