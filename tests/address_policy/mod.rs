//! What the operator must not dial it does not dial, however it is written, wherever a name leads to, whenever that
//! changes. Not "is refused", but: there was no `connect()`.

mod spellings;

use crate::support::{
    Connects, ControlPlane, Dns, Fleet, Namespace, Operator, PATIENCE, apply, condition, create, eventually,
    get, http,
    objects::{has_condition, plugin, server, server_with},
    status_of,
};
use futures::future::join_all;
use ipnet::IpNet;
use k8s_openapi::api::networking::v1::ServiceCIDR;
use kube::{Api, api::ListParams};
use ollama_fleet_operator::{
    api::{OllamaServer, endpoint::Endpoint, ollama_server::BackendType},
    controller::server::live::Live,
    metrics::Metrics,
    probe::{
        AgentTarget, Failure, HostOutcome, HostTarget, Lane, Manner, NameServers, Owner, Prober,
        address::{AddressPolicy, SharedPolicy, parse_cidr},
        report::{HostReport, Part},
        tls::TlsSettings,
    },
    runtime::Leadership,
};
use serde_json::json;
use spellings::{ANSWERS, SPELLINGS};
use std::{net::SocketAddr, sync::Arc, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    time::{Instant, sleep, sleep_until},
};

/// Answers of a lookup are kept at least this long, and a second more.
const FORGOTTEN: Duration = Duration::from_secs(6);

/// Loopback on one port in both families; whoever gets here was dialled.
struct Trap {
    v4: TcpListener,
    v6: Option<TcpListener>,
    port: u16,
}

impl Trap {
    async fn set() -> Self {
        let v4 = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = v4.local_addr().unwrap().port();
        Self { v4, v6: TcpListener::bind(("::1", port)).await.ok(), port }
    }

    /// Whether a connection waits to be accepted.
    async fn caught(&self) -> bool {
        for listener in [Some(&self.v4), self.v6.as_ref()].into_iter().flatten() {
            if tokio::time::timeout(Duration::from_millis(50), listener.accept()).await.is_ok() {
                return true;
            }
        }
        false
    }
}

fn networks(texts: &[&str]) -> Vec<IpNet> {
    texts.iter().map(|text| parse_cidr(text).unwrap()).collect()
}

/// Loopback open in these networks, and nothing else said.
fn open(allowed: &[&str]) -> AddressPolicy {
    AddressPolicy { allowed: networks(allowed), ..AddressPolicy::default() }
}

fn prober(policy: &Arc<SharedPolicy>, dns: &Dns) -> Prober {
    http::install_provider();
    let metrics = Metrics::new(&Live::default(), 0, &Leadership::always());
    Prober::new(Arc::clone(policy), NameServers::One(dns.address, ""), metrics).unwrap()
}

fn owner(uid: &str) -> Owner {
    Owner { namespace: "n".into(), uid: uid.into() }
}

async fn poll(prober: &Prober, endpoint: &Endpoint) -> HostOutcome {
    let target = HostTarget {
        owner: owner("host"),
        endpoint: endpoint.clone(),
        backend: BackendType::Ollama,
        host_header: None,
        authorization: None,
        tls: TlsSettings::default(),
        timeout: Duration::from_secs(10),
        lane: Lane::Healthy,
        with_models: false,
        manner: Manner::default(),
    };
    prober.host(&target).await
}

async fn read_agent(prober: &Prober, endpoint: &Endpoint) -> Option<Failure> {
    let (endpoint, path) = (endpoint.clone(), "/metrics".to_owned());
    let target = AgentTarget {
        owner: owner("agent"),
        endpoint,
        path,
        accept: "*/*",
        authorization: None,
        tls: TlsSettings::default(),
        timeout: Duration::from_secs(10),
        lane: Lane::Healthy,
    };
    prober.agent(&target).await.and_then(Result::err).map(|failure| failure.class)
}

/// Asks as a host and as an agent; both must be refused by the policy.
async fn refused(prober: &Prober, text: &str, endpoint: &Endpoint) {
    let (host, agent) = tokio::join!(poll(prober, endpoint), read_agent(prober, endpoint));
    let HostOutcome::Failed(failure) = host else { panic!("{text} as a host: {host:?}") };
    assert!(failure.is_refusal(), "{text} as a host: {failure:?}");
    assert!(agent.is_some_and(Failure::is_refusal), "{text} as an agent: {agent:?}");
}

/// More than 80 ways to write what must not be dialled, and more than 30 answers of a resolver that lead there, past
/// the check that an object has to pass first. Nothing is dialled.
#[tokio::test]
async fn what_is_refused_is_never_dialled() {
    let Some(connects) = Connects::of_this_process() else {
        return Connects::run_test("address_policy::what_is_refused_is_never_dialled");
    };
    let (trap, dns) = (Trap::set().await, Dns::start().await);
    let policy = SharedPolicy::new(AddressPolicy::default());
    let prober = prober(&policy, &dns);
    dns.say("gpu1.lab", &["192.0.2.1"]);
    // Should the policy on names fail, these lead into the trap.
    for name in ["localhost", "a.localhost", "x.y.localhost", "metadata", "metadata.google.internal"] {
        dns.say(name, &["192.0.2.1"]);
    }

    let mut asked = 0;
    for spelling in SPELLINGS {
        let text = spelling.replace("PORT", &trap.port.to_string());
        // What is no host at all is not asked: the object is InvalidSpec.
        let Ok(endpoint) = Endpoint::parse(&text) else { continue };
        assert!(policy.get().check_endpoint(&endpoint).is_err(), "{text} is accepted");
        refused(&prober, &text, &endpoint).await;
        asked += 1;
    }
    join_all(ANSWERS.iter().enumerate().map(async |(index, answers)| {
        let name = format!("n{index}.lab");
        dns.say(&name, answers);
        let endpoint = Endpoint::parse(&format!("{name}:{}", trap.port)).unwrap();
        assert!(policy.get().check_endpoint(&endpoint).is_ok(), "{name} is refused before its lookup");
        refused(&prober, &format!("{answers:?}"), &endpoint).await;
    }))
    .await;
    assert_eq!(connects.all(), [], "somebody was dialled");
    assert!(!trap.caught().await, "the trap was reached");
    assert!(SPELLINGS.len() >= 80 && ANSWERS.len() >= 30 && asked >= 60, "{asked} were asked");

    // The recorder does record: the same prober dials the trap once that is allowed, by literal and by name.
    policy.set(open(&["127.0.0.1/32"]));
    for host in ["127.0.0.1", "n0.lab", "[::ffff:127.0.0.1]"] {
        let endpoint = Endpoint::parse(&format!("{host}:{}", trap.port)).unwrap();
        let target = poll(&prober, &endpoint);
        assert!(tokio::time::timeout(Duration::from_millis(500), target).await.is_err(), "{host}");
    }
    let expected: SocketAddr = format!("127.0.0.1:{}", trap.port).parse().unwrap();
    let dialled = connects.all();
    assert!(
        dialled.len() >= 3 && dialled.iter().all(|to| to.ip().to_canonical() == expected.ip()),
        "{dialled:?}"
    );
    assert!(trap.caught().await);
}

/// An Ollama on `address` that closes each connection after its answer, and answers the first question late.
async fn slow_host(address: &str, late: Duration) -> (u16, tokio::task::JoinHandle<()>) {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let task = tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut request = [0; 2048];
            let size = stream.read(&mut request).await.unwrap_or_default();
            let body = if request[..size].starts_with(b"GET /api/version") {
                sleep(late).await;
                r#"{"version":"0.32.4"}"#
            } else {
                r#"{"models":[]}"#
            };
            let length = body.len();
            let head = format!("HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: {length}\r\n\r\n");
            let _ = stream.write_all(format!("{head}{body}").as_bytes()).await;
        }
    });
    (port, task)
}

fn online(outcome: HostOutcome) -> HostReport {
    match outcome {
        HostOutcome::Online(report) => report,
        other => panic!("not online: {other:?}"),
    }
}

/// A name that leads to a good address when it is checked and to a bad one afterwards is dialled at the good one or
/// not at all: within a poll, when a connection is made anew, and from poll to poll. When it is good again it is asked
/// again.
#[tokio::test]
async fn a_name_that_changes_its_mind_is_refused_at_each_connection() {
    let Some(connects) = Connects::of_this_process() else {
        let name = "address_policy::a_name_that_changes_its_mind_is_refused_at_each_connection";
        return Connects::run_test(name);
    };
    let dns = Dns::start().await;
    let policy = SharedPolicy::new(open(&["127.0.0.2/32"]));
    let prober = prober(&policy, &dns);
    let (port, _host) = slow_host("127.0.0.2", FORGOTTEN).await;
    let trap = TcpListener::bind(("127.0.0.3", port)).await.unwrap();
    let endpoint = Endpoint::parse(&format!("flips.lab:{port}")).unwrap();
    let good: SocketAddr = format!("127.0.0.2:{port}").parse().unwrap();

    // The first connection is good. While the host thinks, the name turns bad, and the second is not made.
    dns.say("flips.lab", &["127.0.0.2"]);
    let turn = async {
        sleep(FORGOTTEN / 2).await;
        dns.say("flips.lab", &["127.0.0.3"]);
    };
    let (outcome, ()) = tokio::join!(poll(&prober, &endpoint), turn);
    let report = online(outcome);
    assert_eq!(report.version, Part::Known("0.32.4".to_owned()));
    assert_eq!(report.loaded, Part::Failed(Failure::AddressNotAllowed));
    assert_eq!(connects.all(), [good]);

    // So it is for the next polls, of host and agent.
    refused(&prober, "a name that has turned bad", &endpoint).await;
    assert_eq!(connects.all(), [good]);

    // Checked while it is good, turned bad at once: the answer that was checked is the one that is dialled.
    dns.say("flips.lab", &["127.0.0.2"]);
    sleep(FORGOTTEN).await;
    let turned = Instant::now() + Duration::from_millis(300);
    let turn = async {
        sleep_until(turned).await;
        dns.say("flips.lab", &["127.0.0.3"]);
    };
    let (agent, ()) = tokio::join!(read_agent(&prober, &endpoint), turn);
    assert_eq!(agent, None, "the agent was not read");
    assert_eq!(connects.all(), [good, good]);
    let reached = tokio::time::timeout(Duration::from_millis(100), trap.accept()).await;
    assert!(reached.is_err(), "the bad address was dialled");
}

/// Another policy holds at once, for literals and names, though a name's answer is still known and a connection is
/// still open.
#[tokio::test]
async fn another_policy_holds_at_once() {
    let dns = Dns::start().await;
    let fleet = Fleet::start(1).await;
    let denied = format!("{}/32", fleet.address(0));
    let loopback = || open(&["127.0.0.0/8"]);
    let policy = SharedPolicy::new(loopback());
    let prober = prober(&policy, &dns);
    dns.say("gpu1.lab", &[&fleet.address(0).to_string()]);
    let hosts = [fleet.host(0), format!("gpu1.lab:{}", fleet.ollama_port())];
    let endpoints = hosts.map(|host| Endpoint::parse(&host).unwrap());
    let elsewhere = AddressPolicy { only: networks(&["10.0.0.0/8"]), ..loopback() };
    let closed = AddressPolicy { ports: "80,443".parse().unwrap(), ..loopback() };
    let no_loopback = AddressPolicy::default().denying(networks(&[&denied]));
    for forbidding in [elsewhere, closed, no_loopback] {
        for endpoint in &endpoints {
            online(poll(&prober, endpoint).await);
        }
        policy.set(forbidding);
        let before = fleet.host_stats(0).await.total;
        for endpoint in &endpoints {
            refused(&prober, "what is no longer allowed", endpoint).await;
        }
        assert_eq!(fleet.host_stats(0).await.total, before, "it was asked all the same");
        policy.set(loopback());
    }
}

/// The operator as users run it: what it says about refused hosts and agents, and that it dials the API server, the one
/// open host and that host's one open agent, and nothing else.
#[tokio::test]
async fn the_operator_dials_what_is_open_and_tells_why_it_does_not_dial_the_rest() {
    let (trap, connects) = (Trap::set().await, Connects::new());
    let fleet = Fleet::start(2).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let services: Vec<IpNet> = Api::<ServiceCIDR>::all(client.clone())
        .list(&ListParams::default())
        .await
        .unwrap()
        .into_iter()
        .flat_map(|object| object.spec.and_then(|spec| spec.cidrs).unwrap_or_default())
        .map(|text| text.parse().unwrap())
        .collect();
    assert!(!services.is_empty(), "the cluster has no ServiceCIDR");

    let mut builder = Operator::builder(control_plane)
        .namespace(&namespace)
        .arg(format!("--allowed-cidrs={}/32", fleet.address(0)))
        .arg("--denied-cidrs=203.0.113.0/24,2001:db8:dead::/48")
        .env("POD_IPS", "198.51.100.7,2001:db8:90d::7")
        .env("KUBERNETES_SERVICE_HOST", "198.51.100.1");
    for (name, value) in connects.env() {
        builder = builder.env(name, &value);
    }
    // An agent on an open port; one on a port that is never open; one that a server moves to such a port.
    apply(&client, &namespace, &plugin("open", fleet.agent_port(), json!({}))).await;
    apply(&client, &namespace, &plugin("closed", 22, json!({}))).await;
    let moved = json!({"configKey": "movedPort"});
    apply(&client, &namespace, &plugin("moved", fleet.agent_port(), moved)).await;
    let spec = json!({"pluginPorts": {"movedPort": 10250}});
    apply(&client, &namespace, &server_with("good", fleet.host(0), spec)).await;

    let service = services[0].addr();
    let service = if service.is_ipv6() { format!("[{service}]") } else { service.to_string() };
    let own = ["198.51.100.7", "[2001:db8:90d::7]", "[::ffff:198.51.100.1]", "[64:ff9b::198.51.100.7]"];
    let denied = ["203.0.113.9", "[2001:db8:dead::1]", "[64:ff9b::203.0.113.9]", &service];
    let closed = fleet.host(1);
    let mut refused = Vec::new();
    let texts = SPELLINGS.iter().map(|text| text.replace("PORT", &trap.port.to_string()));
    let rest = own.iter().chain(&denied).map(ToString::to_string).chain([closed]);
    for (index, host) in texts.chain(rest).enumerate() {
        let name = format!("s{index:03}");
        // What the API server itself refuses never reaches the operator.
        if create(&client, &namespace, &server(&name, &host)).await.is_ok() {
            refused.push((name, host));
        }
    }
    assert!(refused.len() > 60, "only {} were taken: {refused:?}", refused.len());

    let operator = builder.start().await;
    for (name, host) in &refused {
        let object = eventually(PATIENCE, host, async || {
            let object: OllamaServer = get(&client, &namespace, name).await;
            let reason = if Endpoint::parse(host).is_ok() { "AddressNotAllowed" } else { "InvalidSpec" };
            for (type_, status) in [("Accepted", "False"), ("Stalled", "True"), ("Ready", "False")] {
                has_condition(&object, type_, status, reason)?;
            }
            Ok::<_, String>(object)
        })
        .await;
        let (_, reason, message) = condition(&object, "Accepted").unwrap();
        if reason == "AddressNotAllowed" {
            // "--allowed-ports" has no digit either.
            assert!(
                !message.contains(|c: char| c.is_ascii_digit()),
                "the message tells the address: {message}"
            );
            let by_port = ["192.0.2.1", "[2001:db8::1]", "gpu1.lab"].iter().any(|open| host.contains(open));
            assert_eq!(message.contains("--allowed-ports"), by_port, "{host}: {message}");
        }
    }
    let reports = eventually(PATIENCE, "every plugin has its state", async || {
        let object: OllamaServer = get(&client, &namespace, "good").await;
        has_condition(&object, "Ready", "True", "Online")?;
        let reports = status_of(&object).plugins.unwrap_or_default();
        let state = |name: &str| {
            let report = reports.iter().find(|report| report.name == name);
            report.and_then(|report| report.state.clone()).unwrap_or_default()
        };
        let states = [state("open"), state("closed"), state("moved")];
        if states == ["Active", "Error", "Error"] { Ok(reports) } else { Err(format!("{states:?}")) }
    })
    .await;
    for report in reports.iter().filter(|report| report.name != "open") {
        assert_eq!(report.reason.as_deref(), Some("AddressNotAllowed"), "{report:?}");
        assert!(report.message.as_ref().unwrap().contains("--allowed-ports"), "{report:?}");
    }
    // Whatever was under way is over.
    sleep(Duration::from_secs(2)).await;
    let apiserver = client_address(control_plane);
    let open =
        [fleet.ollama_port(), fleet.agent_port()].map(|port| SocketAddr::from((fleet.address(0), port)));
    let dialled = connects.all();
    assert!(open.iter().all(|address| dialled.contains(address)) && dialled.contains(&apiserver));
    for address in dialled {
        assert!(address == apiserver || open.contains(&address), "{address} was dialled");
    }
    assert!(!trap.caught().await, "the trap was reached");
    drop(operator);
}

/// Where the control plane's API server listens.
fn client_address(control_plane: &ControlPlane) -> SocketAddr {
    let args = ["config", "view", "--minify", "-o", "jsonpath={.clusters[0].cluster.server}"];
    let url = control_plane.kubectl(&args, None).ok();
    url.trim().trim_start_matches("https://").parse().unwrap()
}
