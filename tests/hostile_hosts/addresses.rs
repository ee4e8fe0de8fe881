//! H13, H23: names with several addresses, and whose turn it is at each: one address is asked by one object at a time,
//! whatever names lead there, and for no longer than others can bear.

use crate::support::{Dns, PATIENCE, RawHost, eventually, http, raw_host::script};
use futures::{
    FutureExt as _,
    future::{join, join_all},
};
use ollama_fleet_operator::{
    api::{endpoint::Endpoint, ollama_server::BackendType},
    controller::server::live::Live,
    metrics::Metrics,
    probe::{
        AgentTarget, Failure, HostOutcome, HostTarget, Lane, Manner, NameServers, Owner, Prober,
        address::{AddressPolicy, SharedPolicy},
        tls::TlsSettings,
    },
    runtime::Leadership,
};
use std::{
    net::IpAddr,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};
use tokio::{
    net::{TcpListener, TcpSocket, TcpStream},
    time::{self, Instant},
};

/// Answers of a lookup are kept at least this long, and a second more.
const FORGOTTEN: Duration = Duration::from_secs(6);
/// As long as a turn lasts for which another namespace waits, and a second more.
const CONTESTED: Duration = Duration::from_secs(31);
const BODY: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 33\r\n\r\n{\"version\":\"0.24.0\",\"models\":[]} ";

fn prober(dns: &Dns) -> Prober {
    http::install_provider();
    let open = AddressPolicy { allowed: vec!["127.0.0.0/8".parse().unwrap()], ..AddressPolicy::default() };
    let metrics = Metrics::new(&Live::default(), 0, &Leadership::always());
    Prober::new(SharedPolicy::new(open), NameServers::One(dns.address, ""), metrics).unwrap()
}

/// A host in a namespace of its own.
fn host_at(endpoint: &str) -> HostTarget {
    HostTarget {
        owner: Owner { namespace: format!("of {endpoint}").into(), uid: endpoint.into() },
        endpoint: Endpoint::parse(endpoint).unwrap(),
        backend: BackendType::Ollama,
        host_header: None,
        authorization: None,
        tls: TlsSettings::default(),
        timeout: PATIENCE,
        lane: Lane::Healthy,
        with_models: false,
        manner: Manner::default(),
    }
}

fn agent_at(endpoint: &str) -> AgentTarget {
    let host = host_at(endpoint);
    AgentTarget {
        owner: Owner { namespace: format!("agent of {endpoint}").into(), uid: endpoint.into() },
        endpoint: host.endpoint,
        path: "/metrics".into(),
        accept: "*/*",
        authorization: None,
        tls: host.tls,
        timeout: host.timeout,
        lane: host.lane,
    }
}

#[track_caller]
fn assert_online(outcome: &HostOutcome) {
    assert!(matches!(outcome, HostOutcome::Online(_)), "{outcome:?}");
}

/// Answers everything at once, but hangs under the prefix `/hang`.
async fn half_hanging() -> RawHost {
    let talk = script(|mut connection| async move {
        while let Some(head) = connection.request().await? {
            if head.contains("/hang") {
                return connection.ignore().await;
            }
            connection.send(BODY).await?;
        }
        Ok(())
    });
    RawHost::start(talk).await
}

/// An address that takes no connection: the kernel drops every SYN for a queue that is full.
struct Dropping {
    _listener: TcpListener,
    _queue: Vec<TcpStream>,
}

impl Dropping {
    async fn at(address: &str, port: u16) -> Self {
        let address = (address.parse::<IpAddr>().unwrap(), port);
        let socket = TcpSocket::new_v4().unwrap();
        socket.bind(address.into()).unwrap();
        let (listener, mut queue) = (socket.listen(0).unwrap(), Vec::new());
        let soon = Duration::from_millis(300);
        while let Ok(Ok(stream)) = time::timeout(soon, TcpStream::connect(address)).await {
            queue.push(stream);
            assert!(queue.len() < 100, "the queue never fills");
        }
        Self { _listener: listener, _queue: queue }
    }
}

/// Ten owners whose names lead to the host behind an address where nobody listens, five more who write its address in
/// two ways, and as many agents: the host sees one request at a time, and all are answered.
#[tokio::test]
async fn one_address_is_asked_by_one_at_a_time_whatever_leads_there() {
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&now), Arc::clone(&most));
    let host = RawHost::start(script(move |mut connection| {
        let (now, most) = (Arc::clone(&counts.0), Arc::clone(&counts.1));
        async move {
            while connection.request().await?.is_some() {
                most.fetch_max(now.fetch_add(1, SeqCst) + 1, SeqCst);
                time::sleep(Duration::from_millis(20)).await;
                now.fetch_sub(1, SeqCst);
                connection.send(BODY).await?;
            }
            Ok(())
        }
    }))
    .await;
    let dns = Dns::start().await;
    let prober = prober(&dns);
    let (address, port) = (host.address.ip().to_string(), host.address.port());
    let names = (0..10).map(|index| {
        dns.say(&format!("n{index}.lab"), &[&format!("127.1.9.{}", index + 1), &address]);
        format!("n{index}.lab:{port}")
    });
    let endpoints: Vec<_> =
        names.chain([host.address.to_string(), format!("[::ffff:{address}]:{port}")]).collect();
    let hosts = join_all(endpoints.iter().map(async |endpoint| prober.host(&host_at(endpoint)).await));
    let agents = join_all(endpoints.iter().map(async |endpoint| prober.agent(&agent_at(endpoint)).await));
    let (hosts, agents) = join(hosts, agents).await;
    hosts.iter().for_each(assert_online);
    assert!(agents.iter().all(|agent| matches!(agent, Some(Ok(_)))), "{agents:?}");
    assert_eq!(most.load(SeqCst), 1, "requests at once");
}

/// A name's first address refuses, or drops what is sent there: the host behind the second is online, on either lane, as
/// an agent too, and within the one deadline. Where the last address fails as well, its failure is the host's.
#[tokio::test]
async fn a_dead_address_of_a_name_makes_no_host_offline() {
    let (dns, host) = (Dns::start().await, half_hanging().await);
    let prober = prober(&dns);
    let (address, port) = (host.address.ip().to_string(), host.address.port());
    let _dropping = Dropping::at("127.1.9.101", port).await;
    dns.say("refuses.lab", &["127.1.9.102", &address]);
    dns.say("drops.lab", &["127.1.9.101", &address]);
    dns.say("both.lab", &["127.1.9.102", "127.1.9.101", &address]);
    dns.say("dead.lab", &["127.1.9.101", "127.1.9.102"]);
    let timeout = Duration::from_secs(8);
    let begin = Instant::now();
    let polls = ["refuses.lab", "drops.lab", "both.lab"].map(async |name| {
        let endpoint = format!("{name}:{port}");
        for lane in [Lane::Healthy, Lane::Suspect] {
            assert_online(&prober.host(&HostTarget { timeout, lane, ..host_at(&endpoint) }).await);
        }
        let agent = prober.agent(&AgentTarget { timeout, ..agent_at(&endpoint) }).await;
        assert!(matches!(agent, Some(Ok(_))), "{name}: {agent:?}");
    });
    join_all(polls).await;
    eprintln!("figure: nine polls of names with dead addresses took {:?}", begin.elapsed());
    let dead = HostTarget { timeout, ..host_at(&format!("dead.lab:{port}")) };
    assert_eq!(prober.host(&dead).await, HostOutcome::Failed(Failure::ConnectionRefused));
    // A short deadline is shared out too.
    let short = HostTarget { timeout: Duration::from_secs(2), ..host_at(&format!("drops.lab:{port}")) };
    assert_online(&prober.host(&short).await);
}

/// A name that leads elsewhere by the time that its turn has come is asked where the turn is: it does not keep the
/// address of somebody else while it hangs at another.
#[tokio::test]
async fn a_name_that_moves_while_it_waits_is_asked_where_its_turn_is() {
    let (dns, host) = (Dns::start().await, half_hanging().await);
    let prober = prober(&dns);
    let port = host.address.port();
    let hangs = script(|mut connection| async move { connection.ignore().await });
    let elsewhere = RawHost::at(([127, 1, 9, 103], port).into(), hangs).await;
    dns.say("moves.lab", &[&host.address.ip().to_string()]);
    let first = HostTarget { timeout: FORGOTTEN, ..host_at(&format!("http://{}/hang", host.address)) };
    let second = host_at(&format!("moves.lab:{port}"));
    let first = prober.host(&first);
    let second = async {
        eventually(PATIENCE, "the host is asked", async || host.accepted() == 1).await;
        prober.host(&second).await
    };
    let moves = async {
        let asked = async || dns.asked().contains(&"A moves.lab".to_owned());
        eventually(PATIENCE, "the name is looked up", asked).await;
        dns.say("moves.lab", &["127.1.9.103"]);
    };
    let ((first, second), ()) = join(join(first, second), moves).await;
    assert_eq!(first, HostOutcome::Failed(Failure::Timeout));
    assert_online(&second);
    assert_eq!(elsewhere.accepted(), 0, "it was dialled without a turn");
}

/// A host, or an agent, that hangs may take its owner's five minutes, but not those of another namespace that wants to
/// ask the same address.
#[tokio::test]
async fn who_hangs_at_an_address_leaves_it_while_another_namespace_waits() {
    let (dns, host) = (Dns::start().await, half_hanging().await);
    let prober = prober(&dns);
    let timeout = Duration::from_mins(5);
    let hanging = format!("http://{}/hang", host.address);
    let (slow_host, slow_agent) = (host_at(&hanging), agent_at(&hanging));
    let slow_host = HostTarget { timeout, ..slow_host };
    let slow_agent = AgentTarget { timeout, path: "/hang".into(), ..slow_agent };
    let own = host_at(&host.address.to_string());
    for is_agent in [false, true] {
        let before = host.accepted();
        let slow = async {
            if is_agent {
                prober.agent(&slow_agent).await.and_then(Result::err).map(|failure| failure.class)
            } else {
                match prober.host(&slow_host).await {
                    HostOutcome::Failed(failure) => Some(failure),
                    _ => None,
                }
            }
        };
        let mut slow = pin!(slow);
        let accepted = eventually(PATIENCE, "it is asked", async || host.accepted() > before);
        tokio::select! {
            ended = &mut slow => panic!("it does not hang: {ended:?}"),
            () = accepted => {}
        }
        let mut own = pin!(prober.host(&own));
        assert!((&mut own).now_or_never().is_none(), "the turn is another's");
        // Not the real half minute, and with the clock running again nothing else comes sooner than it would.
        time::pause();
        time::advance(CONTESTED).await;
        time::resume();
        let both = join(slow, own);
        let (failure, own) = time::timeout(PATIENCE, both).await.expect("the turn passes on");
        assert_eq!(failure, Some(Failure::Timeout));
        assert_online(&own);
    }
}
