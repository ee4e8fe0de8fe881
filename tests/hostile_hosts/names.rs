//! H13: names, and servers of names that mean harm or are broken.

use crate::support::{
    ControlPlane, Dns, Fleet, Namespace, Operator, PATIENCE, Reply, apply, eventually, get, http,
    objects::{has_condition, server},
};
use futures::future::join_all;
use ollama_fleet_operator::{
    api::{OllamaServer, endpoint::Endpoint, ollama_server::BackendType},
    controller::server::live::Live,
    metrics::Metrics,
    probe::{
        Failure, HostOutcome, HostTarget, Lane, Manner, NameServers, Owner, Prober,
        address::{AddressPolicy, SharedPolicy},
        tls::TlsSettings,
    },
    runtime::Leadership,
};
use std::{
    net::{IpAddr, Ipv4Addr},
    time::{Duration, Instant},
};

/// A lookup may take two seconds.
const LOOKUP: Duration = Duration::from_secs(2);

fn prober(dns: &Dns) -> Prober {
    http::install_provider();
    let open = AddressPolicy { allowed: vec!["127.0.0.0/8".parse().unwrap()], ..AddressPolicy::default() };
    let metrics = Metrics::new(&Live::default(), 0, &Leadership::always());
    Prober::new(SharedPolicy::new(open), NameServers::One(dns.address, "svc.example.com"), metrics).unwrap()
}

async fn poll(prober: &Prober, host: &str) -> (HostOutcome, Duration) {
    let target = HostTarget {
        owner: Owner { namespace: "n".into(), uid: host.into() },
        endpoint: Endpoint::parse(host).unwrap(),
        backend: BackendType::Ollama,
        host_header: None,
        authorization: None,
        tls: TlsSettings::default(),
        timeout: Duration::from_secs(5),
        lane: Lane::Healthy,
        with_models: false,
        manner: Manner::default(),
    };
    let start = Instant::now();
    (prober.host(&target).await, start.elapsed())
}

/// Whatever a name server does, a name is an address that is asked, or `DNSFailed` within two seconds, or refused by
/// the policy; no answer is tried beyond the first sixteen, and one forbidden address among a thousand refuses all.
#[tokio::test]
async fn names_become_addresses_or_a_reason_in_time() {
    let (dns, fleet) = (Dns::start().await, Fleet::start(1).await);
    let prober = prober(&dns);
    let (good, port) = (fleet.address(0), fleet.ollama_port());
    let nobody = |count: u8| (0..count).map(|last| IpAddr::from(Ipv4Addr::new(127, 1, 1, last)));
    let thousand = (0..1000_u16).map(|number| {
        let [high, low] = number.to_be_bytes();
        IpAddr::from(Ipv4Addr::new(127, 1, 2 + high, low))
    });
    let forbidden = IpAddr::from(Ipv4Addr::new(169, 254, 169, 254));
    let first: Vec<IpAddr> = [IpAddr::from(good)].into_iter().chain(thousand.clone()).collect();
    let hidden: Vec<IpAddr> = first.iter().copied().chain([forbidden]).collect();
    dns.reply("refused.lab", Reply::Code(5));
    dns.reply("broken.lab", Reply::Code(2));
    dns.reply("late.lab", Reply::Late(Duration::from_secs(10), vec![good.into()]));
    dns.reply("soon.lab", Reply::Late(Duration::from_millis(300), vec![good.into()]));
    dns.reply("empty.lab", Reply::Addresses(Vec::new()));
    dns.reply("loop.lab", Reply::Alias("pool.lab"));
    dns.reply("pool.lab", Reply::Alias("loop.lab"));
    dns.reply("thousand.lab", Reply::Addresses(first));
    dns.reply("hidden.lab", Reply::Addresses(hidden));
    dns.reply("second.lab", Reply::Addresses(nobody(1).chain([good.into()]).collect()));
    dns.reply("seventeenth.lab", Reply::Addresses(nobody(16).chain([good.into()]).collect()));
    let failed = |failure| Some(failure);
    let rows = [
        ("nowhere.lab", failed(Failure::DnsFailed)),
        ("refused.lab", failed(Failure::DnsFailed)),
        ("broken.lab", failed(Failure::DnsFailed)),
        ("late.lab", failed(Failure::DnsFailed)),
        ("soon.lab", None),
        ("empty.lab", failed(Failure::DnsFailed)),
        ("loop.lab", failed(Failure::DnsFailed)),
        ("thousand.lab", None),
        ("hidden.lab", failed(Failure::AddressNotAllowed)),
        ("second.lab", None),
        ("seventeenth.lab", failed(Failure::ConnectionRefused)),
    ];
    let told = join_all(rows.map(async |(name, _)| poll(&prober, &format!("{name}:{port}")).await)).await;
    for ((name, expected), (outcome, took)) in rows.iter().zip(told) {
        let failure = match outcome {
            HostOutcome::Online(_) => None,
            HostOutcome::Failed(failure) => Some(failure),
            HostOutcome::Skipped => panic!("{name} was skipped"),
        };
        assert_eq!(failure, *expected, "{name}");
        assert!(took < LOOKUP + Duration::from_secs(2), "{name} took {took:?}");
    }
}

/// A name with a dot is asked for as it stands, whatever the search domains of the cluster; a name without one goes
/// through them. A name that may be used for no time is not looked up twice in one poll, and what it says is checked
/// again when it is.
#[tokio::test]
async fn names_are_asked_as_written_and_checked_each_time() {
    let (dns, fleet) = (Dns::start().await, Fleet::start(1).await);
    let prober = prober(&dns);
    let port = fleet.ollama_port();
    // Who controls a search domain must not catch what is meant for another.
    dns.say("gpu1.lab.svc.example.com", &["169.254.169.254"]);
    dns.say("gpu1.lab", &[&fleet.address(0).to_string()]);
    dns.say("gpu2.svc.example.com", &[&fleet.address(0).to_string()]);
    for host in ["gpu1.lab", "gpu2"] {
        let (outcome, _) = poll(&prober, &format!("{host}:{port}")).await;
        assert!(matches!(outcome, HostOutcome::Online(_)), "{host}: {outcome:?}");
    }
    let asked = dns.asked();
    assert!(!asked.iter().any(|name| name.ends_with("gpu1.lab.svc.example.com")), "{asked:?}");
    let lookups = asked.iter().filter(|name| *name == "A gpu1.lab").count();
    assert_eq!(lookups, 1, "one poll makes one lookup: {asked:?}");
    assert!(asked.iter().any(|name| name == "A gpu2.svc.example.com"), "{asked:?}");

    dns.say("gpu1.lab", &["169.254.169.254"]);
    eventually(PATIENCE, "the other answer is noticed and refused", async || {
        let (outcome, _) = poll(&prober, &format!("gpu1.lab:{port}")).await;
        let refused = outcome == HostOutcome::Failed(Failure::AddressNotAllowed);
        if refused { Ok(()) } else { Err(format!("{outcome:?}")) }
    })
    .await;
}

/// A name that leads nowhere is `DNSFailed`, and healing the name heals the server without a restart.
#[tokio::test]
async fn a_name_that_does_not_resolve_is_told_as_such() {
    let fleet = Fleet::start(1).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    apply(&client, &namespace, &server("nowhere", "gpu1.invalid:11434")).await;
    eventually(PATIENCE, "DNSFailed", async || {
        let object: OllamaServer = get(&client, &namespace, "nowhere").await;
        has_condition(&object, "Ready", "False", "DNSFailed")
            .and_then(|()| has_condition(&object, "Accepted", "True", "Valid"))
    })
    .await;
    apply(&client, &namespace, &server("nowhere", fleet.host(0))).await;
    eventually(PATIENCE, "the new host is Ready", async || {
        has_condition(&get::<OllamaServer>(&client, &namespace, "nowhere").await, "Ready", "True", "Online")
    })
    .await;
    drop(operator);
}
