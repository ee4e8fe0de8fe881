//! TLS towards hosts: who is trusted, by which name, with which certificate of our own; what cannot be trusted is told
//! in words that say what to do, and never gone around. The hosts themselves are the witnesses.

use crate::support::{
    Authority, ControlPlane, Dns, Leaf, Namespace, Operator, PATIENCE, Secured, TlsHost, Way, apply,
    condition, create, eventually, get, holds_for, http, metric_value,
    objects::{has_condition, plugin, server_with},
    patch_spec, status_of,
};
use k8s_openapi::api::core::v1::Secret;
use ollama_fleet_operator::{
    api::{OllamaServer, endpoint::Endpoint, ollama_server::BackendType},
    controller::server::live::Live,
    metrics::Metrics,
    probe::{
        AgentTarget, Failure, HostOutcome, HostTarget, Lane, Manner, NameServers, Owner, Prober,
        address::{AddressPolicy, SharedPolicy, parse_cidr},
        tls::{Authorities, Identity, TlsSettings},
    },
    runtime::Leadership,
};
use rustls::pki_types::DnsName;
use serde_json::{Value, json};
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tokio_rustls::TlsAcceptor;

/// Three polls a second apart, the deadline and a second, three times over for a busy machine.
const VERDICT: Duration = Duration::from_millis(3 * 4800);
/// What is asked while others fail is asked every second; this is what a busy machine may take from that.
const GAP: Duration = Duration::from_secs(3);
const NAME: &str = "gpu1.lab";
const ADDRESS: &str = "127.0.0.1";

/// Answers to a client's first words.
const ALERT_PROTOCOL_VERSION: &[u8] = &[0x15, 3, 1, 0, 2, 2, 70];
const ALERT_HANDSHAKE_FAILURE: &[u8] = &[0x15, 3, 3, 0, 2, 2, 40];
const ALERT_UNKNOWN_NAME: &[u8] = &[0x15, 3, 3, 0, 2, 2, 112];
const BAD_REQUEST: &[u8] = b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n";
const SSH: &[u8] = b"SSH-2.0-OpenSSH_9.9\r\n";
const GO_WITHOUT_TLS: &[u8] =
    b"HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n";

fn prober(dns: &Dns) -> Prober {
    http::install_provider();
    let allowed = vec![parse_cidr("127.0.0.0/8").unwrap()];
    let policy = SharedPolicy::new(AddressPolicy { allowed, ..AddressPolicy::default() });
    Prober::new(
        policy,
        NameServers::One(dns.address, ""),
        Metrics::new(&Live::default(), 0, &Leadership::always()),
    )
    .unwrap()
}

fn target(host: &str, tls: TlsSettings) -> HostTarget {
    HostTarget {
        owner: Owner { namespace: "fleet".into(), uid: "host".into() },
        endpoint: Endpoint::parse(host).unwrap(),
        backend: BackendType::Ollama,
        host_header: None,
        authorization: None,
        tls,
        timeout: PATIENCE,
        lane: Lane::Healthy,
        with_models: false,
        manner: Manner::default(),
    }
}

/// What becomes of one poll: the class of its failure, if it is one.
async fn poll(prober: &Prober, host: &str, tls: &TlsSettings) -> Option<Failure> {
    match prober.host(&target(host, tls.clone())).await {
        HostOutcome::Online(_) => None,
        HostOutcome::Failed(failure) => Some(failure),
        HostOutcome::Skipped => panic!("{host} was skipped"),
    }
}

fn trusting(authority: &Authority) -> TlsSettings {
    let authorities = Some(Authorities::from_pem(authority.pem().as_bytes()).unwrap());
    TlsSettings { authorities, ..TlsSettings::default() }
}

fn named(settings: &TlsSettings, name: &'static str) -> TlsSettings {
    TlsSettings { server_name: Some(DnsName::try_from(name).unwrap()), ..settings.clone() }
}

fn with(settings: &TlsSettings, leaf: &Leaf) -> TlsSettings {
    let identity = Identity::from_pem(leaf.pem.as_bytes(), leaf.key_pem().as_bytes()).unwrap();
    TlsSettings { identity: Some(identity), ..settings.clone() }
}

/// A host's own authority is what makes it trusted, and nothing else does: not another authority, and not the
/// platform's. An address is verified as an address.
#[tokio::test]
async fn a_host_is_trusted_by_its_own_authority_only() {
    let (own, other) = (Authority::new("own"), Authority::new("other"));
    let host = TlsHost::start(Secured::by(&own.issue(&[ADDRESS]))).await;
    let dns = Dns::start().await;
    let prober = prober(&dns);
    assert_eq!(poll(&prober, &host.https(), &trusting(&own)).await, None);
    assert_eq!(host.seen().handshakes, 1, "one connection for all requests of a poll: {:?}", host.seen());
    for settings in [trusting(&other), TlsSettings::default()] {
        assert_eq!(poll(&prober, &host.https(), &settings).await, Some(Failure::TlsUnknownIssuer));
    }
    let both = format!("{}{}", other.pem(), own.pem());
    let both =
        TlsSettings { authorities: Authorities::from_pem(both.as_bytes()).ok(), ..TlsSettings::default() };
    assert_eq!(poll(&prober, &host.https(), &both).await, None);
    let seen = host.seen();
    assert_eq!((seen.plain, seen.resumed), (0, 0), "{seen:?}");
    // A certificate that nobody else has signed vouches for itself, unless it is an authority's.
    for (leaf, expected) in [
        (Leaf::self_signed(&[ADDRESS]), None),
        (Leaf::authority(&[ADDRESS]), Some(Failure::TlsBadCertificate)),
    ] {
        let itself = Authorities::from_pem(leaf.pem.as_bytes()).ok();
        let itself = TlsSettings { authorities: itself, ..TlsSettings::default() };
        host.set(Secured::by(&leaf));
        assert_eq!(poll(&prober, &host.https(), &itself).await, expected);
    }
}

/// `tlsServerName` is the name that the host hears and that its certificate must carry, for an address as for a name;
/// where the connection goes, and the Host header, stay those of the host.
#[tokio::test]
async fn a_server_name_is_asked_for_and_verified_in_place_of_the_hosts() {
    let own = Authority::new("own");
    let host = TlsHost::start(Secured::by(&own.issue(&[NAME]))).await;
    let dns = Dns::start().await;
    dns.say("host.lab", &[ADDRESS]);
    // Where the other name leads to is of no concern.
    dns.say(NAME, &["192.0.2.1"]);
    let prober = prober(&dns);
    let trusting = trusting(&own);
    let by_name = format!("https://host.lab:{}", host.address.port());
    for url in [host.https(), by_name.clone()] {
        assert_eq!(poll(&prober, &url, &trusting).await, Some(Failure::TlsWrongName), "{url}");
        assert_eq!(poll(&prober, &url, &named(&trusting, NAME)).await, None, "{url}");
        assert_eq!(poll(&prober, &url, &named(&trusting, "gpu2.lab")).await, Some(Failure::TlsWrongName));
    }
    let seen = host.seen();
    let name = |name: &str| Some(name.to_owned());
    let asked = [None, name(NAME), name("gpu2.lab"), name("host.lab"), name(NAME), name("gpu2.lab")];
    assert_eq!(seen.names, asked, "an address is not sent as a name");
    let (literal, by_name) = (host.address.to_string(), by_name.replace("https://", ""));
    assert_eq!(seen.hosts, [&*literal, &literal, &by_name, &by_name]);
}

/// A host that wants to know who asks lets in the certificate of its authority, and tells no and a wrong one apart, in
/// both versions of TLS.
#[tokio::test]
async fn a_client_certificate_is_shown_and_its_refusal_understood() {
    let (own, clients, strangers) =
        (Authority::new("own"), Authority::new("clients"), Authority::new("strangers"));
    let leaf = own.issue(&[ADDRESS]);
    let dns = Dns::start().await;
    let prober = prober(&dns);
    for tls12_only in [false, true] {
        let host =
            TlsHost::start(Secured { clients: Some(&clients), tls12_only, ..Secured::by(&leaf) }).await;
        let without = trusting(&own);
        let (right, wrong) = (clients.issue(&["operator"]), strangers.issue(&["operator"]));
        let expired = clients.issue_for(&["operator"], -3..-1);
        for (settings, expected) in [
            (with(&without, &right), None),
            (without.clone(), Some(Failure::TlsIdentityWanted)),
            (with(&without, &wrong), Some(Failure::TlsIdentityRefused)),
            (with(&without, &expired), Some(Failure::TlsIdentityRefused)),
        ] {
            let what = format!("TLS 1.2 only: {tls12_only}, {settings:?}");
            assert_eq!(poll(&prober, &host.https(), &settings).await, expected, "{what}");
        }
        assert_eq!(host.seen().requests.len(), 2, "only the right one was answered");
    }
}

/// Each way in which TLS fails has a class of its own; a host that lets a handshake hang is no ordinary timeout, on
/// either lane. Nothing but TLS is ever sent to it.
#[tokio::test]
async fn each_fault_of_tls_has_its_class() {
    let own = Authority::new("own");
    let dns = Dns::start().await;
    let prober = prober(&dns);
    let rows: Vec<(Way, Failure)> = vec![
        (Secured::by(&own.issue_for(&[ADDRESS], -3..-1)).into(), Failure::TlsExpired),
        (Secured::by(&own.issue_for(&[ADDRESS], 1..3)).into(), Failure::TlsNotYetValid),
        (Secured::by(&own.issue(&[NAME])).into(), Failure::TlsWrongName),
        (Secured::by(&Leaf::self_signed(&[ADDRESS])).into(), Failure::TlsUnknownIssuer),
        (Secured::by(&Authority::new("own").issue(&[ADDRESS])).into(), Failure::TlsUnknownIssuer),
        (Way::Says(ALERT_PROTOCOL_VERSION), Failure::TlsVersion),
        (Way::Says(ALERT_UNKNOWN_NAME), Failure::TlsWrongName),
        (Way::Says(ALERT_HANDSHAKE_FAILURE), Failure::TlsHandshake),
        (Way::Says(GO_WITHOUT_TLS), Failure::TlsNotSpoken),
        (Way::Says(SSH), Failure::TlsNotSpoken),
        (Way::Says(b""), Failure::TlsClosed),
        (Way::Closes, Failure::TlsClosed),
    ];
    for (row, (way, expected)) in rows.into_iter().enumerate() {
        let host = TlsHost::start(way).await;
        let failure = poll(&prober, &host.https(), &trusting(&own)).await;
        assert_eq!(failure, Some(expected), "row {row}: {:?}", host.seen());
        let vllm = HostTarget { backend: BackendType::Vllm, ..target(&host.https(), trusting(&own)) };
        assert_eq!(prober.host(&vllm).await, HostOutcome::Failed(expected), "row {row}");
        // Each poll has tried once, and told nothing.
        let seen = host.seen();
        assert_eq!((seen.connections, seen.plain, seen.requests.len()), (2, 0, 0), "row {row}: {seen:?}");
    }
    let silent = TlsHost::start(Way::Silent).await;
    let short = HostTarget { timeout: Duration::from_millis(700), ..target(&silent.https(), trusting(&own)) };
    let stalled = HostOutcome::Failed(Failure::TlsStalled);
    assert_eq!(prober.host(&short).await, stalled);
    // Here the bound of the lane ends it, well before that of the poll.
    let suspect = HostTarget { lane: Lane::Suspect, timeout: PATIENCE, ..short.clone() };
    let began = Instant::now();
    assert_eq!(prober.host(&suspect).await, stalled);
    assert!(began.elapsed() < PATIENCE / 2, "{:?}", began.elapsed());
    let plain = HostTarget { endpoint: Endpoint::parse(&silent.address.to_string()).unwrap(), ..short };
    assert_eq!(prober.host(&plain).await, HostOutcome::Failed(Failure::Timeout));
    assert_eq!(silent.seen().plain, 1, "that of the last poll, which was told so");
}

/// Host and agent at one port, which finishes the handshake of one connection at a time: those that it leaves hanging end
/// with the polls that made them, though meanwhile the others are answered.
#[tokio::test]
async fn no_handshake_outlives_the_poll_that_began_it() {
    let own = Authority::new("own");
    let Way::Tls(config) = Secured::by(&own.issue(&[ADDRESS])).into() else { unreachable!() };
    let listener = TcpListener::bind((ADDRESS, 0)).await.unwrap();
    let host = format!("https://{}", listener.local_addr().unwrap());
    let (stalled, open) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let counts = (Arc::clone(&stalled), Arc::clone(&open));
    let served = tokio::spawn(async move {
        loop {
            // The first is answered as soon as another has come, which is not.
            let (first, _) = listener.accept().await.unwrap();
            let (mut second, _) = listener.accept().await.unwrap();
            counts.0.fetch_add(1, SeqCst);
            counts.1.fetch_add(1, SeqCst);
            let open = Arc::clone(&counts.1);
            tokio::spawn(async move {
                let mut heard = [0; 4096];
                while second.read(&mut heard).await.is_ok_and(|size| size > 0) {}
                open.fetch_sub(1, SeqCst);
            });
            let Ok(mut secure) = TlsAcceptor::from(Arc::clone(&config)).accept(first).await else { continue };
            let mut heard = [0; 4096];
            while secure.read(&mut heard).await.is_ok_and(|size| size > 0) {
                let _ = secure.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\n{\"data\":[]}").await;
            }
        }
    });
    let dns = Dns::start().await;
    let prober = prober(&dns);
    let timeout = Duration::from_secs(1);
    let polled = HostTarget { backend: BackendType::Vllm, timeout, ..target(&host, trusting(&own)) };
    let read = AgentTarget {
        owner: polled.owner.clone(),
        endpoint: polled.endpoint.clone(),
        path: "/metrics".into(),
        accept: "*/*",
        authorization: None,
        tls: polled.tls.clone(),
        timeout,
        lane: Lane::Healthy,
    };
    for _ in 0..3 {
        let _ = tokio::join!(prober.host(&polled), prober.agent(&read));
    }
    assert!(stalled.load(SeqCst) > 0);
    eventually(PATIENCE, "what was left hanging is closed", async || match open.load(SeqCst) {
        0 => Ok(()),
        open => Err(format!("{open} of {} are open", stalled.load(SeqCst))),
    })
    .await;
    served.abort();
}

/// Plain HTTP sent to a port that wants TLS is told as that, whether the port answers in TLS or in HTTP.
#[tokio::test]
async fn a_port_that_wants_tls_is_recognised() {
    let dns = Dns::start().await;
    let prober = prober(&dns);
    for way in [Way::Says(ALERT_PROTOCOL_VERSION), Way::Says(GO_WITHOUT_TLS)] {
        let host = TlsHost::start(way).await;
        let failure = poll(&prober, &host.address.to_string(), &TlsSettings::default()).await;
        assert_eq!(failure, Some(Failure::TlsWanted));
    }
}

/// An operator to which this authority is one of the platform's, and the folder that says so.
async fn operator_trusting(
    own: &Authority,
    control_plane: &'static ControlPlane,
    namespace: &Namespace,
) -> (Operator, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let roots = folder.path().join("roots.pem");
    std::fs::write(&roots, own.pem()).unwrap();
    let operator = Operator::builder(control_plane)
        .namespace(namespace)
        .env("SSL_CERT_FILE", &roots.display().to_string())
        .env("SSL_CERT_DIR", &folder.path().display().to_string())
        .start()
        .await;
    (operator, folder)
}

/// One host with a fault, and what the user reads about it.
struct Row {
    name: &'static str,
    host: TlsHost,
    spec: Value,
    /// `None`: it is online.
    words: Option<&'static str>,
}

async fn row(name: &'static str, way: impl Into<Way>, spec: Value, words: Option<&'static str>) -> Row {
    Row { name, host: TlsHost::start(way).await, spec, words }
}

/// Every fault of TLS is `TLSFailed` with words of its own that hold still, and none is gone around by plain HTTP; the
/// hosts that can be trusted are online and asked on time meanwhile. The authority of the test stands in for the
/// platform's.
#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_trusted_is_told_in_words_that_help() {
    let own = Authority::new("own");
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let (operator, _roots) = operator_trusting(&own, control_plane, &namespace).await;
    let (good, for_name) = (own.issue(&[ADDRESS]), own.issue(&[NAME]));
    let nobodys = Leaf::self_signed(&[ADDRESS]);
    let clients = Authority::new("clients");
    let wants_client = Secured { clients: Some(&clients), ..Secured::by(&good) };
    let skip = || json!({"insecureSkipVerify": true});
    let rows = vec![
        row("trusted", Secured::by(&good), json!({}), None).await,
        row("named", Secured::by(&for_name), json!({"tlsServerName": NAME}), None).await,
        row("unchecked", Secured::by(&nobodys), skip(), None).await,
        row("expired", Secured::by(&own.issue_for(&[ADDRESS], -3..-1)), json!({}), Some("has expired")).await,
        row("early", Secured::by(&own.issue_for(&[ADDRESS], 1..3)), json!({}), Some("not valid yet")).await,
        row("misnamed", Secured::by(&for_name), json!({}), Some("tlsServerName")).await,
        row("self-signed", Secured::by(&nobodys), json!({}), Some("self-signed or of an unknown authority"))
            .await,
        row("wants-client", wants_client, json!({}), Some("a client certificate is wanted")).await,
        row("old", Way::Says(ALERT_PROTOCOL_VERSION), json!({}), Some("TLS 1.2 or 1.3 is needed")).await,
        row("plain", Way::Says(BAD_REQUEST), json!({}), Some("does not speak TLS")).await,
        row("silent", Way::Silent, json!({}), Some("handshake was not finished in time")).await,
        row("closes", Way::Closes, json!({}), Some("closed in the middle of the TLS handshake")).await,
    ];
    for Row { name, host, spec, .. } in &rows {
        apply(&client, &namespace, &server_with(name, host.https(), spec.clone())).await;
    }
    let told = async |Row { name, words, .. }: &Row| {
        let object: OllamaServer = get(&client, &namespace, name).await;
        let (status, reason) = if words.is_none() { ("True", "Online") } else { ("False", "TLSFailed") };
        has_condition(&object, "Ready", status, reason).map_err(|error| format!("{name}: {error}"))?;
        let (.., message) = condition(&object, "Ready").unwrap();
        if message.contains(words.unwrap_or_default()) { Ok(()) } else { Err(format!("{name}: {message}")) }
    };
    let mut all = async || {
        for row in &rows {
            told(row).await?;
        }
        Ok::<_, String>(())
    };
    eventually(VERDICT, "every fault has its words", &mut all).await;
    let since = Instant::now();
    holds_for(Duration::from_secs(4), "the words stand", &mut all).await;
    for Row { name, host, words, .. } in &rows {
        let seen = host.seen();
        assert_eq!((seen.plain, seen.resumed), (0, 0), "{name} heard something else than TLS: {seen:?}");
        if words.is_none() {
            let polls = seen.requests.into_iter().filter(|at| *at >= since);
            let polls: Vec<Instant> = [since].into_iter().chain(polls).chain([Instant::now()]).collect();
            let gap = polls.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(GAP * 2);
            assert!(gap <= GAP, "{name} was not asked for {gap:?}");
        } else {
            assert_eq!(seen.requests.len(), 0, "{name} was asked for something: {seen:?}");
        }
    }
    assert!(rows[1].host.seen().names.iter().all(|name| name.as_deref() == Some(NAME)));

    // Who is not checked is known, in the object and in metrics, for as long as it is so.
    let unchecked: OllamaServer = get(&client, &namespace, "unchecked").await;
    assert_eq!(status_of(&unchecked).version.as_deref(), Some("0.24.0"));
    let (.., message) = condition(&unchecked, "Accepted").unwrap();
    assert!(message.contains("insecureSkipVerify"), "{message}");
    let insecure = async |name: &str| {
        metric_value(&operator.metrics().await, "ollama_fleet_server_tls_insecure", &[("server", name)])
    };
    assert_eq!((insecure("unchecked").await, insecure("trusted").await), (Some(1.0), None));
    patch_spec::<OllamaServer>(&client, &namespace, "unchecked", json!({"insecureSkipVerify": false})).await;
    eventually(VERDICT, "it is checked again", async || {
        has_condition(
            &get::<OllamaServer>(&client, &namespace, "unchecked").await,
            "Ready",
            "False",
            "TLSFailed",
        )
    })
    .await;
    assert_eq!(insecure("unchecked").await, None);

    // A name to be verified, where nothing would be verified.
    let object = server_with("unsafe", "192.168.1.1", json!({"tlsServerName": NAME}));
    create(&client, &namespace, &object).await.unwrap();
    let message = eventually(PATIENCE, "it is refused", async || {
        let object: OllamaServer = get(&client, &namespace, "unsafe").await;
        has_condition(&object, "Ready", "False", "InvalidSpec")
            .map(|()| condition(&object, "Accepted").unwrap().2)
    })
    .await;
    assert!(message.contains("write https:// in front of the host"), "{message}");
    assert_eq!(metric_value(&operator.metrics().await, "ollama_fleet_panics_total", &[]), Some(0.0));
}

/// A certificate that is renewed on the host is taken without a restart and without a missed poll; one that is replaced
/// by a stranger's is not, although a session of before is still there to be resumed. An agent on the host goes by the
/// host's name.
#[tokio::test(flavor = "multi_thread")]
async fn a_renewed_certificate_is_taken_and_a_strangers_is_not() {
    let own = Authority::new("own");
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let (operator, _roots) = operator_trusting(&own, control_plane, &namespace).await;
    let host = TlsHost::start(Secured::by(&own.issue(&[NAME]))).await;
    let agent = TlsHost::start(Secured::by(&own.issue(&[NAME]))).await;
    let values = json!([{"name": "version", "type": "Integer", "jsonPaths": ["$.version"]}]);
    let https = json!({"scheme": "https", "format": "JSON", "values": values});
    apply(&client, &namespace, &plugin("agent", agent.address.port(), https)).await;
    let spec = json!({"tlsServerName": NAME});
    apply(&client, &namespace, &server_with("host", host.https(), spec)).await;
    let is = async |status: &str, reason: &str| {
        has_condition(&get::<OllamaServer>(&client, &namespace, "host").await, "Ready", status, reason)
    };
    let more_handshakes = async || {
        let before = host.seen().handshakes;
        eventually(PATIENCE, "more handshakes", async || host.seen().handshakes >= before + 3).await;
    };
    eventually(PATIENCE, "online", async || is("True", "Online").await).await;
    host.set(Secured::by(&own.issue(&[NAME])));
    more_handshakes().await;
    is("True", "Online").await.unwrap();
    let failures = |metrics: String| {
        metric_value(&metrics, "ollama_fleet_server_poll_failures_total", &[("reason", "TLSFailed")])
    };
    assert_eq!(failures(operator.metrics().await), None, "no poll failed for the new certificate");

    host.set(Secured::by(&Authority::new("stranger").issue(&[NAME])));
    eventually(VERDICT, "the stranger is told", async || is("False", "TLSFailed").await).await;
    let asked = host.seen().requests.len();
    holds_for(Duration::from_secs(3), "the stranger stays out", async || is("False", "TLSFailed").await)
        .await;
    assert_eq!(host.seen().requests.len(), asked, "the stranger was asked for something");

    host.set(Secured::by(&own.issue(&[NAME])));
    eventually(VERDICT, "online again", async || is("True", "Online").await).await;
    more_handshakes().await;
    for seen in [host.seen(), agent.seen()] {
        assert_eq!((seen.resumed, seen.plain), (0, 0), "{seen:?}");
        assert!(seen.names.iter().all(|name| name.as_deref() == Some(NAME)), "{seen:?}");
    }
    assert!(!agent.seen().requests.is_empty(), "the agent goes by the name of its server");
    drop(operator);
}

/// The authority and the client certificate of a Secret make a connection that is refused without them, on both sides.
#[tokio::test(flavor = "multi_thread")]
async fn certificates_of_a_secret_are_used_for_their_host() {
    let (own, clients) = (Authority::new("own"), Authority::new("clients"));
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let _operator = Operator::builder(control_plane).namespace(&namespace).start().await;
    let leaf = own.issue(&[ADDRESS]);
    let host = TlsHost::start(Secured { clients: Some(&clients), ..Secured::by(&leaf) }).await;
    let asks = clients.issue(&["operator"]);
    let data = json!({"ca.crt": own.pem(), "tls.crt": asks.pem, "tls.key": asks.key_pem()});
    let metadata = json!({"name": "certificates", "annotations": {"ollama-fleet.io/hosts": ADDRESS}});
    let secret: Secret = serde_json::from_value(json!({"metadata": metadata, "stringData": data})).unwrap();
    apply(&client, &namespace, &secret).await;
    let spec = json!({"certSecretRef": {"name": "certificates"}});
    apply(&client, &namespace, &server_with("with", host.https(), spec)).await;
    eventually(VERDICT, "online by the Secret", async || {
        has_condition(&get::<OllamaServer>(&client, &namespace, "with").await, "Ready", "True", "Online")
    })
    .await;
    apply(&client, &namespace, &server_with("without", host.https(), json!({}))).await;
    eventually(VERDICT, "refused without it", async || {
        has_condition(
            &get::<OllamaServer>(&client, &namespace, "without").await,
            "Ready",
            "False",
            "TLSFailed",
        )
    })
    .await;
    assert_eq!(host.seen().plain, 0);
}
