//! Secrets for hosts and agents: sent where their owner allows it and nowhere else; without them nothing is asked.
//!
//! The witnesses are the simulated hosts: they count connections, and requests with and without the right header.

mod agents;
mod leaks;
mod reading;
mod rotation;
mod unchecked;

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, Scene, apply, condition, eventually, get, holds_for,
    objects::{has_condition, server_with},
};
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::Client;
use ollama_fleet_operator::api::OllamaServer;
use serde_json::{Value, json};
use std::{collections::BTreeMap, time::Duration};

/// How soon a mended Secret is used: it is read again every ten seconds at most, at the next poll of one second.
const MENDED: Duration = Duration::from_secs(12);

/// The values of a Secret.
type Data<'a> = &'a [(&'a str, &'a [u8])];

/// A Secret for hosts, over plain HTTP too, as simulated hosts speak it.
fn secret(name: &str, hosts: &str, data: Data<'_>) -> Secret {
    let both = [("ollama-fleet.io/hosts", hosts), ("ollama-fleet.io/plain-http", "true")];
    secret_with(name, &both, data)
}

fn secret_with(name: &str, annotations: &[(&str, &str)], data: Data<'_>) -> Secret {
    let mut secret = Secret::default();
    secret.metadata.name = Some(name.to_owned());
    let annotations = annotations.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
    secret.metadata.annotations = Some(annotations.collect());
    let data = data.iter().map(|(key, value)| ((*key).to_owned(), ByteString(value.to_vec())));
    secret.data = Some(data.collect::<BTreeMap<_, _>>());
    secret
}

/// A server that is asked with a Secret.
fn with_secret(name: &str, host: String, secret: &str) -> OllamaServer {
    server_with(name, host, json!({"secretRef": {"name": secret}}))
}

/// Waits until a server is not polled for this reason, and says so as kstatus and people read it; the message.
async fn until_refused(client: &Client, namespace: &str, name: &str, reason: &str) -> String {
    let object = eventually(PATIENCE, &format!("{name} is {reason}"), async || {
        let object: OllamaServer = get(client, namespace, name).await;
        has_condition(&object, "Accepted", "False", reason)
            .and_then(|()| has_condition(&object, "Stalled", "True", reason))
            .and_then(|()| has_condition(&object, "Reachable", "Unknown", reason))
            .and_then(|()| has_condition(&object, "Ready", "False", reason))?;
        Ok::<_, String>(object)
    })
    .await;
    condition(&object, "Accepted").unwrap().2
}

/// A credential goes with every request to the host that its Secret names, as a token or as user and password; other hosts
/// get none, a host that the Secret does not name gets not even a connection, and a redirect takes it nowhere.
#[tokio::test]
async fn a_credential_goes_to_its_host_and_nowhere_else() {
    let scene = Scene::new(6).await;
    let address = |host| scene.fleet.address(host).to_string();
    let token: Data<'_> = &[("token", b"abc")];
    let basic: Data<'_> = &[("username", b"Aladdin"), ("password", b"open sesame")];
    scene.fleet.patch("0", json!({"authorization": "Bearer abc"})).await;
    scene.fleet.patch("1", json!({"authorization": "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ=="})).await;
    let location = format!("http://{}/api/version", scene.fleet.host(5));
    scene.fleet.patch("4", json!({"ollama": {"mode": "redirect", "location": location}})).await;
    let hosts = [address(0), address(4)].join(", ");
    scene.apply(&secret("token", &hosts, token)).await;
    scene.apply(&secret("basic", &format!("*.lab,{}", address(1)), basic)).await;

    for (name, host, secret) in
        [("token", 0, "token"), ("basic", 1, "basic"), ("strange", 2, "token"), ("redirects", 4, "token")]
    {
        scene.apply(&with_secret(name, scene.fleet.host(host), secret)).await;
    }
    scene.server("none", 3, json!({})).await;
    for name in ["token", "basic", "none"] {
        scene.until_online(name).await;
    }
    let message = until_refused(&scene.client, &scene.namespace, "strange", "SecretNotAllowed").await;
    assert!(message.contains("ollama-fleet.io/hosts"), "{message}");
    scene.until("redirects", "Ready", "False", "UnexpectedRedirect").await;
    scene.polls(0, 2).await;
    let stats = scene.fleet.stats().await;
    for host in [0, 1] {
        let host = stats.host(host);
        assert!(host.unauthorized == 0 && host.with_authorization == host.total, "{host:?}");
    }
    assert_eq!((stats.host(3).with_authorization, stats.host(3).unauthorized), (0, 0));
    for host in [2, 5] {
        assert_eq!((stats.host(host).connections, stats.host(host).total), (0, 0), "host {host}");
    }
    assert!(stats.host(4).with_authorization > 0);
}

/// A way for a Secret to be wrong: what it is, the reason, and a word of the message.
type Row = (&'static str, Option<Secret>, &'static str, &'static str);

fn wrong(address: &str) -> Vec<Row> {
    let named = |data| Some(secret("s", address, data));
    let annotated = |annotations: &[(&str, &str)]| Some(secret_with("s", annotations, &[("token", b"abc")]));
    vec![
        ("missing", None, "SecretNotFound", "create it"),
        ("lacks-key", named(&[("Token", b"abc")]), "SecretNotFound", "token, or username and password"),
        ("half-basic", named(&[("username", b"abc")]), "SecretNotFound", "token, or username and password"),
        ("not-utf8", named(&[("token", b"abc\xff")]), "InvalidSpec", "UTF-8"),
        ("newline", named(&[("token", b"abc\n")]), "InvalidSpec", "line break"),
        ("header", named(&[("token", b"abc\r\nX-Other: 1")]), "InvalidSpec", "line break"),
        ("empty", named(&[("token", b"")]), "InvalidSpec", "empty"),
        ("bare", annotated(&[]), "SecretNotAllowed", "lacks the annotation ollama-fleet.io/hosts"),
        (
            "other-host",
            annotated(&[("ollama-fleet.io/hosts", "192.0.2.1"), ("ollama-fleet.io/plain-http", "true")]),
            "SecretNotAllowed",
            "does not name this host",
        ),
        (
            "plain-http",
            annotated(&[("ollama-fleet.io/hosts", address)]),
            "SecretNotAllowed",
            "ollama-fleet.io/plain-http",
        ),
    ]
}

/// A Secret that is missing, or cannot or may not be used, is said so with what to do about it; nothing is dialled. When it is
/// mended, the host is polled, without anybody touching the server. A Secret as large as they may be is used too.
#[tokio::test]
async fn without_a_usable_secret_a_host_is_left_alone_until_it_is_mended() {
    // The rows' addresses are known only when the hosts are there.
    let count = wrong("").len();
    let scene = Scene::new(count).await;
    let address = |host| scene.fleet.address(host).to_string();
    scene.agents().await;
    scene.fleet.patch("all", json!({"authorization": "Bearer abc"})).await;
    for host in 0..count {
        let (name, secret, ..) = wrong(&address(host)).swap_remove(host);
        if let Some(mut secret) = secret {
            secret.metadata.name = Some(name.to_owned());
            scene.apply(&secret).await;
        }
        scene.apply(&with_secret(name, scene.fleet.host(host), name)).await;
    }
    for (name, _, reason, word) in wrong("") {
        let message = until_refused(&scene.client, &scene.namespace, name, reason).await;
        assert!(message.starts_with("secretRef: ") && message.contains(word), "{name}: {message}");
        assert!(!message.contains("abc"), "{name}: {message}");
    }
    holds_for(Duration::from_secs(3), "no host and no agent is dialled", async || {
        let stats = scene.fleet.stats().await;
        stats.connections == 0 && stats.agent_connections == 0
    })
    .await;
    let padding = vec![b'x'; 1000 * 1024];
    for host in 0..count {
        let name = wrong("")[host].0;
        let data: Data<'_> = &[("token", b"abc"), ("other", &padding)];
        scene.apply(&secret(name, &address(host), if host == 0 { data } else { &data[..1] })).await;
    }
    for (name, ..) in wrong("") {
        scene.within(MENDED, name, "Ready", "True", "Online").await;
        assert!(condition(&scene.get(name).await, "Stalled").is_none());
    }
    assert_eq!(scene.fleet.stats().await.hosts.values().map(|host| host.unauthorized).sum::<u64>(), 0);
}

/// A server that is pointed at a host of somebody else takes its credential there neither over the poll nor over an agent:
/// nothing is dialled there at all. Pointed back, it is polled as before.
#[tokio::test]
async fn an_edited_host_does_not_get_the_credential() {
    let scene = Scene::new(2).await;
    scene.agents().await;
    scene.apply(&secret("s", &scene.fleet.address(0).to_string(), &[("token", b"abc")])).await;
    scene.apply(&with_secret("a", scene.fleet.host(0), "s")).await;
    scene.until_read("a").await;
    scene.patch_spec("a", json!({"host": scene.fleet.host(1)})).await;
    until_refused(&scene.client, &scene.namespace, "a", "SecretNotAllowed").await;
    holds_for(Duration::from_secs(3), "nothing is dialled", async || {
        let other = scene.fleet.host_stats(1).await;
        other.connections == 0 && other.agent_connections == 0
    })
    .await;
    scene.patch_spec("a", json!({"host": scene.fleet.host(0)})).await;
    scene.within(Duration::from_secs(2), "a", "Ready", "True", "Online").await;
}

/// The annotation taken away from a Secret in use ends its use, and so does deleting it. That is noticed at the next reading,
/// which a host that does not take the credential any more brings about at once.
#[tokio::test]
async fn a_secret_that_is_taken_back_is_not_used_any_more() {
    let scene = Scene::new(2).await;
    for (host, name) in ["withdrawn", "deleted"].into_iter().enumerate() {
        scene.fleet.patch(&host.to_string(), json!({"authorization": "Bearer abc"})).await;
        let address = scene.fleet.address(host).to_string();
        scene.apply(&secret(name, &address, &[("token", b"abc")])).await;
        scene.apply(&with_secret(name, scene.fleet.host(host), name)).await;
        scene.until_online(name).await;
    }
    scene.apply(&secret_with("withdrawn", &[], &[("token", b"abc")])).await;
    let secrets = crate::support::objects::api::<Secret>(&scene.client, &scene.namespace);
    secrets.delete("deleted", &kube::api::DeleteParams::default()).await.unwrap();
    scene.fleet.patch("all", json!({"authorization": "Bearer new"})).await;
    until_refused(&scene.client, &scene.namespace, "withdrawn", "SecretNotAllowed").await;
    until_refused(&scene.client, &scene.namespace, "deleted", "SecretNotFound").await;
    let before = scene.fleet.stats().await.connections;
    holds_for(Duration::from_secs(2), "nothing is dialled", async || {
        scene.fleet.stats().await.connections == before
    })
    .await;
}

/// A Secret belongs to its namespace: a server elsewhere that names one of the same name gets that of its own namespace, or
/// none. A reference has no field for a namespace, and a name is no path.
#[tokio::test]
async fn secrets_of_another_namespace_are_out_of_reach() {
    let control_plane = ControlPlane::shared();
    let client = control_plane.client().await;
    let (own, other) = (Namespace::new(control_plane).await, Namespace::new(control_plane).await);
    let fleet = Fleet::start(2).await;
    let operator = Operator::builder(control_plane).namespace(&own).namespace(&other).start().await;
    let both = format!("{},{}", fleet.address(0), fleet.address(1));
    fleet.patch("0", json!({"authorization": "Bearer own"})).await;
    fleet.patch("1", json!({"authorization": "Bearer other"})).await;
    apply(&client, &own, &secret("s", &both, &[("token", b"own")])).await;
    apply(&client, &own, &with_secret("a", fleet.host(0), "s")).await;
    apply(&client, &other, &with_secret("b", fleet.host(1), "s")).await;
    until_refused(&client, &other, "b", "SecretNotFound").await;
    assert_eq!(fleet.host_stats(1).await.connections, 0);
    apply(&client, &other, &secret("s", &both, &[("token", b"other")])).await;
    for (namespace, name) in [(&own, "a"), (&other, "b")] {
        eventually(PATIENCE, name, async || {
            has_condition(&get::<OllamaServer>(&client, namespace, name).await, "Ready", "True", "Online")
        })
        .await;
    }
    let stats = fleet.stats().await;
    assert_eq!((stats.host(0).unauthorized, stats.host(1).unauthorized), (0, 0));

    for spec in [
        json!({"host": "192.0.2.1", "secretRef": {"name": "s", "namespace": own.name()}}),
        json!({"host": "192.0.2.1", "secretRef": {"name": format!("../../{}/secrets/s", own.name())}}),
    ] {
        let object = json!({"apiVersion": "ollama-fleet.io/v1alpha1", "kind": "OllamaServer",
            "metadata": {"name": "c"}, "spec": spec});
        let args = ["apply", "--validate=strict", "-n", other.name(), "-f", "-"];
        let refused = control_plane.kubectl(&args, Some(&object.to_string())).refused();
        assert!(refused.contains("namespace"), "{refused}");
    }
    drop(operator);
}

/// What the schema lets pass and cannot work is said at once: certificates without TLS.
#[tokio::test]
async fn certificates_need_tls() {
    let scene = Scene::new(1).await;
    let object: Value = json!({"certSecretRef": {"name": "c"}});
    scene.server("a", 0, object).await;
    let message = until_refused(&scene.client, &scene.namespace, "a", "InvalidSpec").await;
    assert!(message.contains("certSecretRef") && message.contains("https://"), "{message}");
    scene.patch_spec("a", json!({"host": format!("https://{}", scene.fleet.host(0))})).await;
    let message = until_refused(&scene.client, &scene.namespace, "a", "SecretNotFound").await;
    assert!(message.starts_with("certSecretRef: "), "{message}");
    assert_eq!(scene.fleet.stats().await.connections, 0);
}
