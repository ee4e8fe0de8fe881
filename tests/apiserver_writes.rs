//! Writes that are refused, lost, done without a word or asked to wait: the newest truth is written once as soon as it
//! can be, nobody is pressed, nothing is told twice, and hosts are asked as ever.

use crate::support::{
    Answer, ControlPlane, Cut, Fault, Faulty, Fleet, Match, Namespace, Operator, PATIENCE, apply, eventually,
    full, get, holds_for, is_well, metric_value,
    objects::{self, has_condition},
    server, status_of,
};
use futures::{StreamExt as _, stream};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::{
    Api,
    api::{DeleteParams, ListParams, Patch, PatchParams, PostParams},
};
use ollama_fleet_operator::api::{GROUP, OllamaServer};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const SERVERS: &str = "ollamaservers";
/// The writer's longest pause is 4 s, and what the API server may ask for 30 s; the machine is busy.
const CATCH_UP: Duration = Duration::from_secs(45);

fn statuses() -> Match {
    Match::verb("patch").of(SERVERS)
}

fn name(host: usize) -> String {
    format!("s{host:02}")
}

async fn online(servers: usize) -> Faulty {
    let faulty = Faulty::new(servers).await;
    for host in 0..servers {
        faulty.server(&name(host), host, json!({})).await;
    }
    for host in 0..servers {
        faulty.until_online(&name(host)).await;
    }
    faulty
}

/// What an API server in trouble says to writes: too many requests, overloaded, timed out, a full or slow etcd.
fn troubles() -> Vec<(&'static str, Fault)> {
    vec![
        ("429, 3 s", Answer::status(429, "slow down").retry_after("3").into()),
        ("503", Answer::status(503, "starting").into()),
        ("504", Answer::status(504, "etcdserver: request timed out").into()),
        ("500", Answer::status(500, "etcdserver: mvcc: database space exceeded").into()),
        ("500, leader", Answer::status(500, "etcdserver: leader changed").into()),
        ("connection", Fault::Drop),
    ]
}

/// While the API server is in trouble every host is asked on schedule, and writes back off together: a pause that is
/// asked for is kept, and otherwise one try finds out for all. Afterwards the statuses catch up, told once each.
#[tokio::test]
async fn an_api_server_in_trouble_is_left_alone_by_all_writes_together() {
    const HOSTS: usize = 20;
    let faulty = online(HOSTS).await;
    let (proxy, fleet) = (&faulty.proxy, &faulty.fleet);
    for (round, (what, fault)) in troubles().into_iter().enumerate() {
        let dies = round % 2 == 0;
        proxy.forget();
        proxy.fault(Match::writes(), fault);
        let counter = faulty.writes().await;
        fleet.action("all", if dies { "die" } else { "revive" }).await;
        eventually(PATIENCE, "a write was tried", async || !proxy.seen(&statuses()).is_empty()).await;
        let begin = Instant::now();
        fleet.reset_stats().await;
        holds_for(Duration::from_secs(5), "the operator lives", async || {
            faulty.operator.readyz().await.map(drop)?;
            (faulty.operator.livez().await == Ok(200)).then_some(()).ok_or("no life".to_owned())
        })
        .await;
        let tries = proxy.seen(&statuses());
        // Those under way when it began, and then one a pause: 0.25 s and its doubles up to 4 s.
        let later = tries.iter().filter(|request| request.at > begin + Duration::from_secs(1)).count();
        let most = 4 + usize::try_from(begin.elapsed().as_secs() / 4).unwrap();
        assert!(later <= most, "{what}: {later} writes pressed on, {} in sum", tries.len());
        if what.starts_with("429") {
            let first = tries[0].at;
            let early =
                tries.iter().filter(|one| (500..2800).contains(&(one.at - first).as_millis())).count();
            assert_eq!(early, 0, "{what}: the pause that was asked for was not kept");
        }
        let polled = fleet.stats().await;
        if !dies {
            assert!(
                (0..HOSTS).all(|host| polled.host(host).count("/api/version") >= 3),
                "{what}: polls rest"
            );
        }
        proxy.heal();
        let back = Instant::now();
        let (status, reason) = if dies { ("False", "ConnectionRefused") } else { ("True", "Online") };
        eventually(CATCH_UP, "every status has caught up", async || {
            let servers = objects::api::<OllamaServer>(&faulty.client, &faulty.namespace);
            let list = servers.list(&ListParams::default()).await.map_err(|error| error.to_string())?;
            list.items.iter().try_for_each(|server| has_condition(server, "Ready", status, reason))
        })
        .await;
        eprintln!("figure: {what}: {} tries in 5 s, caught up {:.1?} after", tries.len(), back.elapsed());
        // The newest truth only: what was overtaken while it waited is not written.
        let most = counter.all().await.into_values().map(|writes| writes.len()).max().unwrap_or_default();
        assert!(most <= 3, "{what}: {most} writes for one change");
    }
    for host in [0, HOSTS - 1] {
        eventually(CATCH_UP, "each change is told once", async || {
            let told = faulty.told(&name(host)).await;
            let of = |reason: &str| told.iter().filter(|one| *one == reason).count();
            if (of("ServerOffline"), of("ServerOnline")) == (3, 3) {
                Ok(())
            } else {
                Err(format!("{told:?}"))
            }
        })
        .await;
    }
    faulty.is_well().await;
}

/// A conflict is answered by reading again, three times a turn; then the object pauses, ever longer, and others do not.
#[tokio::test]
async fn a_conflict_is_tried_three_times_and_then_pauses() {
    let faulty = online(2).await;
    let (proxy, fleet) = (&faulty.proxy, &faulty.fleet);
    proxy.fault(statuses().named("s00"), Answer::status(409, "the object has been modified").into());
    fleet.action("all", "die").await;
    faulty.until("s01", "Ready", "False", "ConnectionRefused").await;
    holds_for(Duration::from_secs(4), "the operator lives", async || {
        faulty.operator.livez().await == Ok(200)
    })
    .await;
    let tries = proxy.seen(&statuses().named("s00"));
    // Turns of three with pauses of 0.25 s and its doubles up to 4 s between them; the verdict does not wait for the
    // pause of the failure before it, and so may have a turn of its own.
    let took = tries.last().unwrap().at - tries[0].at;
    let mut turns = 1;
    let (mut begins, mut pause) = (Duration::ZERO, Duration::from_millis(250));
    while begins <= took {
        turns += 1;
        begins += pause;
        pause = (2 * pause).min(Duration::from_secs(4));
    }
    eprintln!("figure: {} tries in {took:.1?}, bound {}", tries.len(), 3 * turns);
    assert!((3..=3 * turns).contains(&tries.len()), "{} tries in {took:.1?}", tries.len());
    let reads = proxy.seen(&Match::verb("get").of(SERVERS).named("s00")).len();
    assert!(reads.abs_diff(tries.len()) <= 1, "{reads} reads for {} tries", tries.len());
    proxy.heal();
    faulty.until("s00", "Ready", "False", "ConnectionRefused").await;
    faulty.until_told("s00", &["ServerOffline"]).await;
    faulty.is_well().await;
}

/// Writes that were done although nobody said so, be it that the connection broke or that no answer came: nothing is
/// told twice, and nothing is written twice.
#[tokio::test]
async fn what_was_done_without_an_answer_is_not_done_twice() {
    let faulty = online(2).await;
    let (proxy, fleet) = (&faulty.proxy, &faulty.fleet);
    let counter = faulty.writes().await;
    // The second failure of a dead host, its verdict, and the Event; then the same on the way back.
    for fault in [Fault::DropAnswer, Fault::HangAnswer] {
        for action in ["die", "revive"] {
            counter.reset().await;
            let told = faulty.told("s00").await.len();
            proxy.forget();
            proxy.fault_times(statuses().named("s00"), 2, fault.clone());
            proxy.fault_times(Match::writes().of("events"), 1, fault.clone());
            fleet.action("0", action).await;
            let (status, reason) =
                if action == "die" { ("False", "ConnectionRefused") } else { ("True", "Online") };
            faulty.until("s00", "Ready", status, reason).await;
            eventually(PATIENCE, "every request is answered in the end", async || {
                let requests = proxy.seen(&Match::writes());
                let answered = |resource: &str| {
                    requests.iter().any(|one| {
                        one.resource == resource && one.code.is_some_and(|code| code < 300 || code == 409)
                    })
                };
                answered(SERVERS) && answered("events")
            })
            .await;
            faulty.polls(1, 2).await;
            let writes = counter.writes("s00").await;
            let most = if action == "die" { 2 } else { 1 };
            assert_eq!(writes.len(), most, "{fault:?} {action}: {writes:?}");
            let now = faulty.told("s00").await;
            assert_eq!(now.len(), told + 1, "{fault:?} {action}: {now:?}");
            proxy.heal();
        }
    }
    faulty.is_well().await;
}

/// Nobody knows the operator for a while: one line a minute tells of it for each thing, writes do not press on, hosts
/// are asked, and nothing is lost when the API server knows it again.
#[tokio::test]
async fn an_unknown_token_is_waited_out() {
    const HOSTS: usize = 10;
    let faulty = online(HOSTS).await;
    let (proxy, fleet) = (&faulty.proxy, &faulty.fleet);
    proxy.fault(Match::all(), Answer::status(401, "Unauthorized").into());
    proxy.cut(SERVERS, Cut::Ended);
    proxy.cut("fleetplugins", Cut::MidEvent);
    proxy.forget();
    fleet.action("all", "die").await;
    eventually(PATIENCE, "writes are refused", async || {
        let labels = [("kind", "OllamaServer"), ("outcome", "unauthenticated")];
        let metrics = faulty.operator.metrics().await;
        metric_value(&metrics, "ollama_fleet_status_writes_total", &labels).is_some_and(|count| count >= 2.0)
            && metric_value(&metrics, "ollama_fleet_watch_errors_total", &[("kind", "OllamaServer")])
                .is_some_and(|count| count >= 2.0)
    })
    .await;
    holds_for(Duration::from_secs(4), "the operator lives", async || {
        faulty.operator.livez().await == Ok(200)
    })
    .await;
    let tries = proxy.seen(&statuses()).len();
    assert!(tries <= 30, "{tries} writes pressed on");
    let lines = faulty.operator.log_lines();
    let loud = |level: &str| lines.iter().filter(|line| line["level"] == level).count();
    assert!(loud("ERROR") <= 1 && loud("WARN") <= 4, "{} errors, {} warnings", loud("ERROR"), loud("WARN"));
    proxy.heal();
    for host in 0..HOSTS {
        faulty.until(&name(host), "Ready", "False", "ConnectionRefused").await;
        faulty.until_told(&name(host), &["ServerOffline"]).await;
    }
    // The watch is back too.
    faulty.server("new", 0, json!({"suspend": true})).await;
    faulty.until("new", "Ready", "False", "Suspended").await;
    faulty.is_well().await;
}

/// A token that has run out is another one in its file: the operator reads it again within a minute, without a restart.
/// Takes that minute, and so is part of the long form only.
#[tokio::test]
async fn a_token_is_read_again_from_its_file() {
    if !full() {
        eprintln!("skipped: takes a minute; TEST_FAULTS=full runs it");
        return;
    }
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let proxy = crate::support::ApiProxy::start(control_plane);
    let kubectl =
        |args: &[&str]| control_plane.kubectl(&[args, &["-n", namespace.name()]].concat(), None).ok();
    let account = format!("--serviceaccount={}:operator", namespace.name());
    let token = || {
        kubectl(&["create", "serviceaccount", "operator"]);
        kubectl(&["create", "token", "operator"])
    };
    let file = proxy.folder().join("token");
    std::fs::write(&file, token().trim()).unwrap();
    kubectl(&["create", "rolebinding", "all", "--clusterrole=cluster-admin", &account]);
    let kubeconfig = proxy.folder().join("with-token");
    std::fs::write(&kubeconfig, proxy.kubeconfig_for(json!({"tokenFile": file})).to_string()).unwrap();
    let fleet = Fleet::start(1).await;
    apply(&client, &namespace, &server("s", fleet.host(0))).await;
    let operator =
        Operator::builder(control_plane).namespace(&namespace).kubeconfig(&kubeconfig).start().await;
    let is = async |status: &str, reason: &str, limit| {
        eventually(limit, "the status is right", async || {
            has_condition(&get::<OllamaServer>(&client, &namespace, "s").await, "Ready", status, reason)
        })
        .await;
    };
    is("True", "Online", PATIENCE).await;
    // A token of an account that is gone is none; its namesake's is another.
    kubectl(&["delete", "serviceaccount", "operator"]);
    let new = token();
    fleet.action("0", "die").await;
    eventually(PATIENCE, "the old token is refused", async || {
        let labels = [("outcome", "unauthenticated")];
        metric_value(&operator.metrics().await, "ollama_fleet_status_writes_total", &labels).is_some()
    })
    .await;
    std::fs::write(&file, new.trim()).unwrap();
    let begin = Instant::now();
    is("False", "ConnectionRefused", Duration::from_secs(90)).await;
    eprintln!("figure: a new token was in use after {:.0?}, bound 60 s", begin.elapsed());
    is_well(&operator).await;
}

/// A status that is too large for the API server is cut down to its conditions, and not sent again and again.
#[tokio::test]
async fn a_status_that_is_too_large_is_cut_down() {
    let faulty = online(1).await;
    let proxy = &faulty.proxy;
    proxy.forget();
    // What is cut down passes: the rule is used up.
    proxy.fault_times(
        statuses(),
        1,
        Answer::status(413, "Request entity too large: limit is 3145728").into(),
    );
    faulty.fleet.action("0", json!({"action": "upgrade", "version": "0.99.0"})).await;
    eventually(PATIENCE, "the status is cut down", async || {
        let status = faulty.status("s00").await;
        status.models.is_none() && status.version.is_none() && !status.conditions.is_empty()
    })
    .await;
    faulty.until_online("s00").await;
    assert_eq!(proxy.seen(&statuses()).len(), 2);
    // Refused whatever it says, it is tried ever more rarely.
    proxy.forget();
    proxy.fault(statuses(), Answer::status(422, "is invalid").into());
    faulty.fleet.action("0", "die").await;
    eventually(PATIENCE, "a write was tried", async || !proxy.seen(&statuses()).is_empty()).await;
    holds_for(Duration::from_secs(8), "the operator lives", async || {
        faulty.operator.livez().await == Ok(200)
    })
    .await;
    let tries = proxy.seen(&statuses()).len();
    assert!(tries <= 8, "{tries} tries");
    let errors = faulty.operator.log_lines().into_iter().filter(|line| line["level"] == "ERROR").count();
    assert_eq!(errors, 1, "told once a minute");
    proxy.heal();
    faulty.until("s00", "Ready", "False", "ConnectionRefused").await;
    faulty.is_well().await;
}

/// A cluster whose definition is older than the operator gets what it has fields for.
#[tokio::test]
async fn an_older_definition_gets_what_it_knows() {
    let control_plane = ControlPlane::start();
    let client = control_plane.client().await;
    let crds: Api<CustomResourceDefinition> = Api::all(client.clone());
    let mut crd = crds.get(&format!("{SERVERS}.{GROUP}")).await.unwrap();
    crd.metadata.managed_fields = None;
    let mut crd = serde_json::to_value(crd).unwrap();
    let schema = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
    for field in ["models", "modelCount"] {
        assert!(crd.pointer_mut(schema).unwrap().as_object_mut().unwrap().remove(field).is_some());
    }
    let crd: CustomResourceDefinition = serde_json::from_value(crd).unwrap();
    crds.replace(&format!("{SERVERS}.{GROUP}"), &PostParams::default(), &crd).await.unwrap();
    let namespace = Namespace::new(&control_plane).await;
    let fleet = Fleet::start(2).await;
    let operator = Operator::builder(&control_plane).namespace(&namespace).start().await;
    for host in 0..2 {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
    }
    for (action, status, reason) in [("revive", "True", "Online"), ("die", "False", "ConnectionRefused")] {
        fleet.action("all", action).await;
        for host in 0..2 {
            eventually(PATIENCE, "the status is written", async || {
                let server: OllamaServer = get(&client, &namespace, &name(host)).await;
                has_condition(&server, "Ready", status, reason)?;
                let status = status_of(&server);
                assert!(status.models.is_none() && status.model_count.is_none());
                status.version.map(drop).ok_or_else(|| "what it knows is missing".to_owned())
            })
            .await;
        }
    }
    let labels = |outcome| [("kind", "OllamaServer"), ("outcome", outcome)];
    let metrics = operator.metrics().await;
    let writes = |outcome| metric_value(&metrics, "ollama_fleet_status_writes_total", &labels(outcome));
    eprintln!("figure: {:?} refused, {:?} written", writes("refused"), writes("written"));
    // Each field is learned once; two writes may learn it at the same time.
    assert!(writes("refused").is_some_and(|count| count <= 4.0) && writes("unavailable").is_none());
    let errors = operator.log_lines().into_iter().filter(|line| line["level"] == "ERROR").count();
    assert_eq!(errors, 1, "one line tells of it");
    is_well(&operator).await;
}

/// Very many servers that come, are relabelled and go within a second leave nothing behind: no poll, no series, no
/// write, no memory to speak of. 150 of them; 10,000 in the long form.
#[tokio::test]
async fn a_crowd_that_comes_and_goes_at_once_leaves_nothing() {
    let crowd: u16 = if full() { 10_000 } else { 150 };
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let fleet = Fleet::with(crowd.into(), &json!({}), &["--sockets=shared"]).await;
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    apply(&client, &namespace, &server("stays", fleet.host(0))).await;
    apply(&client, &namespace, &objects::fleet_metrics(fleet.agent_port())).await;
    let api = objects::api::<OllamaServer>(&client, &namespace);
    let name = |number: u16| format!("c{number:05}");
    let every = |verb: &'static str| {
        let (api, fleet) = (&api, &fleet);
        stream::iter(0..crowd).for_each_concurrent(32, move |number| async move {
            let patch = Patch::Merge(json!({"metadata": {"labels": {"crowd": "yes"}}}));
            let object = server(&name(number), fleet.host(number.into()));
            // Many write at once, and etcd may be too busy for one of them.
            eventually(PATIENCE, verb, async || {
                let done = match verb {
                    "create" => api.create(&PostParams::default(), &object).await.map(drop),
                    "label" => api.patch(&name(number), &PatchParams::default(), &patch).await.map(drop),
                    _ => api.delete(&name(number), &DeleteParams::default()).await.map(drop),
                };
                match done {
                    Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(()),
                    other => other,
                }
            })
            .await;
        })
    };
    let servers = async || metric_value(&operator.metrics().await, "ollama_fleet_servers", &[]);
    let mut rss = Vec::new();
    for round in 0..2 {
        let begin = Instant::now();
        every("create").await;
        eventually(4 * PATIENCE, "all are here", async || servers().await >= Some(crowd.into())).await;
        every("label").await;
        every("delete").await;
        let deleted = Instant::now();
        eventually(2 * PATIENCE, "all are gone", async || servers().await == Some(1.0)).await;
        eprintln!(
            "figure: round {round}: {crowd} came and went in {:.1?}, forgotten {:.1?} after the last was deleted, bound 5 s",
            begin.elapsed(),
            deleted.elapsed()
        );
        eventually(PATIENCE, "nothing waits", async || {
            let metrics = operator.metrics().await;
            let depth = |queue| metric_value(&metrics, queue, &[]);
            depth("ollama_fleet_status_write_queue") == Some(0.0)
                && depth("ollama_fleet_event_queue") == Some(0.0)
        })
        .await;
        rss.push(operator.rss_bytes() >> 20);
    }
    eprintln!("figure: {rss:?} MiB after each round");
    assert!(rss[1] <= rss[0] + 16 + rss[0] / 4, "{rss:?} MiB");
    fleet.reset_stats().await;
    eventually(PATIENCE, "the one that stays is asked", async || {
        fleet.stats().await.host(0).count("/api/version") >= 3
    })
    .await;
    let stats = fleet.stats().await;
    let asked = stats.hosts.values().filter(|host| host.total > 0).count();
    assert_eq!(asked, 1, "hosts of servers that are gone are asked");
    let lines = operator.log_lines();
    let errors: Vec<&Value> = lines.iter().filter(|line| line["level"] == "ERROR").collect();
    assert!(errors.is_empty(), "{errors:?}");
    is_well(&operator).await;
}
