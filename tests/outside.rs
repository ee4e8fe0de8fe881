//! The operator as its surroundings see it: probes, metrics and who may read them, log, command line, and the end.

use crate::support::{
    ControlPlane, Fleet, Namespace, Operator, PATIENCE, apply, binaries, child, condition, eventually, get,
    holds_for, http, metric_value, metrics,
    objects::{self, fleet_metrics, has_condition},
    server,
};
use clap::CommandFactory as _;
use kube::{Client, api::DeleteParams};
use ollama_fleet_operator::{api::OllamaServer, args::Cli};
use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    net::TcpListener,
    process::Command,
    time::{Duration, Instant},
};
use tempfile::TempDir;

/// `/livez` and `/readyz` answer without a login, in the shapes that probes and people expect, and nothing else does.
#[tokio::test]
async fn probes_answer_without_a_login_and_tell_nothing_of_the_fleet() {
    let (fleet, namespace, client, operator) = set_up(1, &[]).await;
    apply(&client, &namespace, &server("very-secret-name", fleet.host(0))).await;
    ready(&client, &namespace, "very-secret-name").await;
    let ask =
        async |path: &str| http::get(&format!("http://{}{path}", operator.health_address())).await.unwrap();
    let (status, body) = ask("/livez").await;
    assert_eq!((status.as_u16(), body.as_str()), (200, "ok"));
    let (status, body) = ask("/readyz").await;
    assert_eq!(status, 200);
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap(), json!({"ready": true, "waitingFor": []}));
    for path in ["/", "/metrics", "/healthz", "/readyz/servers", "/livez/../metrics"] {
        let (status, body) = ask(path).await;
        assert!(status == 404 && !body.contains("secret"), "{path}: {status}: {body}");
    }
    let idle = operator.rss_bytes();
    eprintln!("RSS of a debug build with one server: {} MiB", idle >> 20);
}

/// `/metrics` is behind TLS and a token: 401 without one or with a wrong one, 403 for who has no right, 200 with the
/// right to get that path.
#[tokio::test]
async fn metrics_are_for_holders_of_a_token_with_the_right_to_read_them() {
    let control_plane = ControlPlane::shared();
    let (_, namespace, _, operator) = set_up(1, &["--listen=0.0.0.0:0", "--api-auth=kubernetes"]).await;
    let port = operator.api_address().rsplit_once(':').unwrap().1.to_owned();
    let url = format!("https://127.0.0.1:{port}/metrics");
    let kubectl =
        |args: &[&str]| control_plane.kubectl(&[args, &["-n", namespace.name()]].concat(), None).ok();
    let role = format!("{}-metrics", namespace.name());
    let token = |name: &str| {
        kubectl(&["create", "serviceaccount", name]);
        kubectl(&["create", "token", name]).trim().to_owned()
    };
    let (stranger, reader) = (token("stranger"), token("reader"));
    kubectl(&["create", "clusterrole", &role, "--verb=get", "--non-resource-url=/metrics"]);
    let account = format!("--serviceaccount={}:reader", namespace.name());
    kubectl(&["create", "clusterrolebinding", &role, &format!("--clusterrole={role}"), &account]);

    let ask = async |token: Option<&str>| http::get_with_token(&url, token).await.unwrap();
    for (token, expected, says) in [
        (None, 401, "a bearer token is required"),
        (Some("made.up.token"), 401, "does not accept this token"),
        (Some(stranger.as_str()), 403, "has no right to get the non-resource URL /metrics"),
    ] {
        let (status, body) = ask(token).await;
        let problem: Value = serde_json::from_str(&body).unwrap();
        assert_eq!((status.as_u16(), &problem["status"]), (expected, &json!(expected)), "{body}");
        assert!(problem["detail"].as_str().unwrap().contains(says), "{body}");
        assert!(!body.contains("ollama_fleet_"), "{body}");
    }
    let (status, body) = ask(Some(&reader)).await;
    assert!(status == 200 && body.ends_with("# EOF\n"), "{status}: {body}");
    assert!(metric_value(&body, "ollama_fleet_servers", &[]).is_some());
    assert!(
        http::get(&url.replace("https", "http")).await.is_err_and(|error| !error.is_empty()),
        "plain HTTP"
    );
    assert!(!operator.log().contains(&reader), "the log has a token in it");
    for kind in ["clusterrolebinding", "clusterrole"] {
        control_plane.kubectl(&["delete", kind, &role], None).ok();
    }
}

/// A deleted server has no series any more, whatever it had.
#[tokio::test]
async fn metrics_of_a_deleted_server_vanish() {
    let (fleet, namespace, client, operator) = set_up(2, &[]).await;
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    fleet.action("all", json!({"action": "pull", "model": "m:latest", "sizeBytes": 1 << 20})).await;
    fleet.action("all", json!({"action": "load", "model": "m:latest", "expires": "forever"})).await;
    for host in 0..2 {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
        ready(&client, &namespace, &name(host)).await;
    }
    let of = |text: &str, server: &str| {
        let label = format!("server=\"{server}\"");
        text.lines().filter(|line| line.contains(&label)).count()
    };
    let text = eventually(PATIENCE, "both have every series", async || {
        let text = operator.metrics().await;
        (of(&text, "s00") > 15 && of(&text, "s00") == of(&text, "s01")).then_some(text)
    })
    .await;
    assert_eq!(metric_value(&text, "ollama_fleet_server_up", &[("server", "s00")]), Some(1.0));
    assert_eq!(
        metric_value(&text, "ollama_fleet_model_loaded", &[("server", "s00"), ("model", "m:latest")]),
        Some(1.0)
    );
    assert_eq!(metric_value(&text, "ollama_fleet_plugin_up", &[("server", "s00")]), Some(1.0));
    for histogram in text.lines().filter(|line| line.contains("_bucket{")) {
        assert!(!histogram.contains("server="), "{histogram}");
    }
    let api = objects::api::<OllamaServer>(&client, &namespace);
    api.delete("s00", &DeleteParams::default()).await.unwrap();
    eventually(PATIENCE, "the deleted one has none", async || {
        let text = operator.metrics().await;
        of(&text, "s00") == 0 && of(&text, "s01") > 15
    })
    .await;
    eprintln!("{} series of one server", of(&text, "s01"));
}

/// Above `--metrics-server-limit` only what alerts need is left of each server, and a gauge says for how many.
#[tokio::test]
async fn detail_is_dropped_above_the_limit_and_counted() {
    let (fleet, namespace, client, operator) = set_up(3, &["--metrics-server-limit=2"]).await;
    let seen = async |count: usize, detailed: usize, dropped: f64| {
        eventually(PATIENCE, "the series are bounded", async || {
            let text = operator.metrics().await;
            let of = |name| metrics::series(&text, name);
            let is = (
                of("ollama_fleet_server_up"),
                of("ollama_fleet_server_last_poll_timestamp_seconds"),
                of("ollama_fleet_server_info"),
                metric_value(&text, "ollama_fleet_metrics_servers_dropped", &[]),
            );
            let expected = (count, count, detailed, Some(dropped));
            if is == expected { Ok(()) } else { Err(format!("{is:?}, not {expected:?}")) }
        })
        .await;
    };
    for host in 0..2 {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
    }
    seen(2, 2, 0.0).await;
    apply(&client, &namespace, &server(&name(2), fleet.host(2))).await;
    seen(3, 0, 3.0).await;
    objects::api::<OllamaServer>(&client, &namespace).delete("s02", &DeleteParams::default()).await.unwrap();
    seen(2, 2, 0.0).await;
}

/// SIGTERM in the middle of a burst of writes: the operator ends with 0 within 5 s, and every transition that it has
/// seen stands in its object.
#[tokio::test]
async fn a_stop_finishes_the_writes_of_what_was_seen() {
    // Two writes each at 100 a second: a burst of three seconds.
    const SERVERS: usize = 150;
    let (fleet, namespace, client, operator) = set_up(SERVERS, &[]).await;
    for host in 0..SERVERS {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
    }
    let api = objects::api::<OllamaServer>(&client, &namespace);
    eventually(2 * PATIENCE, "every server is Ready", async || {
        let servers = api.list(&kube::api::ListParams::default()).await.unwrap();
        servers.items.iter().all(|server| has_condition(server, "Ready", "True", "Online").is_ok())
    })
    .await;
    fleet.action("all", "die").await;
    let seen = || -> BTreeSet<String> {
        let lines = operator.log_lines();
        let offline = lines.iter().filter(|line| line["reason"] == "ServerOffline");
        offline.filter_map(|line| line["server"].as_str().map(str::to_owned)).collect()
    };
    eventually(PATIENCE, "the first verdicts are seen", async || seen().len() >= 60).await;
    let (status, took) = operator.terminate();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
    let seen = seen();
    let mut waiting = 0;
    for server in &seen {
        let object: OllamaServer = get(&client, &namespace, server).await;
        has_condition(&object, "Ready", "False", "ConnectionRefused")
            .unwrap_or_else(|error| panic!("{server}: seen, but not written: {error}"));
        waiting += 1;
    }
    assert!(!operator.log().contains("unwritten"), "{}", operator.log());
    eprintln!("stopped in {took:.1?} with all {waiting} transitions written");
}

/// A healthy fleet logs nothing, a transition one line, and every line is JSON.
#[tokio::test]
async fn the_log_has_a_line_a_transition_and_none_a_healthy_poll() {
    let (fleet, namespace, client, operator) = set_up(5, &[]).await;
    apply(&client, &namespace, &fleet_metrics(fleet.agent_port())).await;
    for host in 0..5 {
        apply(&client, &namespace, &server(&name(host), fleet.host(host))).await;
    }
    for host in 0..5 {
        eventually(PATIENCE, "settled", async || {
            let server: OllamaServer = get(&client, &namespace, &name(host)).await;
            has_condition(&server, "PluginsHealthy", "True", "AllHealthy")
        })
        .await;
    }
    fleet.reset_stats().await;
    let before = operator.log().lines().count();
    holds_for(Duration::from_secs(10), "no line is logged", async || {
        let log = operator.log();
        let more: Vec<&str> = log.lines().skip(before).collect();
        if more.is_empty() { Ok(()) } else { Err(format!("{more:#?}")) }
    })
    .await;
    let polls = fleet.stats().await.requests["/api/version"];
    assert!(polls >= 40, "only {polls} polls");
    fleet.action("0", "die").await;
    fleet.action("1", json!({"action": "upgrade", "version": "9.9.9"})).await;
    let transitions = || -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let lines = operator.log_lines().into_iter().skip(before);
        lines.map(|line| (text(&line["server"]), text(&line["reason"]))).collect()
    };
    eventually(PATIENCE, "both are logged", async || transitions().len() >= 2).await;
    holds_for(Duration::from_secs(3), "each is logged once", async || transitions().len() == 2).await;
    let pair = |server: &str, reason: &str| (server.to_owned(), reason.to_owned());
    let logged: BTreeSet<_> = transitions().into_iter().collect();
    assert_eq!(logged, [pair("s00", "ServerOffline"), pair("s01", "VersionChanged")].into());
    assert_eq!(operator.log().lines().count(), operator.log_lines().len(), "a line is no JSON");
    eprintln!("{polls} polls of a healthy fleet without a line");
}

/// `--help` is the reference: every flag stands there with its twin in the environment, and the twin works.
#[test]
fn help_lists_every_flag_with_its_environment_twin() {
    let help = child::run(Command::new(binaries::operator()).args(["run", "--help"]), None).ok();
    // Long lines are wrapped.
    let help = help.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut cli = Cli::command();
    cli.build();
    let run = cli.find_subcommand("run").unwrap();
    let mut flags = 0;
    for arg in run.get_arguments().filter(|arg| !["help", "version"].contains(&arg.get_id().as_str())) {
        let long = arg.get_long().expect("every argument is a flag");
        let twin = format!("OLLAMA_FLEET_{}", long.to_uppercase().replace('-', "_"));
        assert_eq!(arg.get_env().and_then(|env| env.to_str()), Some(twin.as_str()), "--{long}");
        // A flag that may stand alone reads `--flag[=<VALUE>]`.
        let named = [format!("--{long} "), format!("--{long}[=")].iter().any(|flag| help.contains(flag));
        assert!(named && help.contains(&format!("[env: {twin}=")), "--{long}: {help}");
        assert!(arg.get_help().is_some(), "--{long} has no help");
        flags += 1;
    }
    assert!(flags >= 14, "{flags} flags");
    let mut command = Command::new(binaries::operator());
    let refused = child::run(command.arg("run").env("OLLAMA_FLEET_POLL_INTERVAL", "soon"), None).refused();
    assert!(refused.contains("--poll-interval") && refused.contains("soon"), "{refused}");
}

/// What cannot work ends at once with one clear error that names what to change, and a status other than 0.
#[test]
fn what_cannot_work_is_one_clear_error() {
    let empty = TempDir::new().unwrap();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = format!("--health-listen={}", taken.local_addr().unwrap());
    let kubeconfig = ControlPlane::shared().kubeconfig().display().to_string();
    let cluster = format!("--kubeconfig={kubeconfig}");
    let rows: &[(&[&str], &str)] = &[
        (&["--pol-interval=1s"], "--poll-interval"),
        (&["--poll-interval=ever"], "ever"),
        (&["--allowed-cidrs=localhost"], "--allowed-cidrs"),
        (&["--denied-cidrs=10.0.0.0/8,10.1.2.3/16"], "write 10.1.0.0/16 for the network or 10.1.2.3"),
        (&["--only-cidrs=192.168.1.0/240"], "for example 10.0.0.0/8 or fd00::/8"),
        (&["--allowed-ports=80,http"], "write for example 80,443,8000-8999"),
        (&["--allowed-ports=9000-8000"], "write 8000-9000"),
        (&["--listen=8443"], "127.0.0.1:8443"),
        (&["--tls-cert-file=/nowhere"], "--tls-key-file"),
        (&["--log-format=xml"], "json, text"),
        (&["--kubeconfig=/nowhere/config"], "/nowhere/config"),
        (&[], "--kubeconfig"),
        (&[&cluster, "--listen=0.0.0.0:0", "--api-auth=none"], "--listen must be a loopback address"),
        (&[&cluster, "--listen=127.0.0.1:0", &taken], "--health-listen"),
        (
            &[&cluster, "--listen=127.0.0.1:0", "--tls-cert-file=/nowhere", "--tls-key-file=/nowhere"],
            "/nowhere",
        ),
    ];
    let mut command = Command::new(binaries::operator());
    let filter = child::run(command.args(["run", &cluster]).env("RUST_LOG", "kube=loud"), None).refused();
    assert!(filter.contains("RUST_LOG=`kube=loud`"), "{filter:?}");
    for (args, says) in rows {
        let mut command = Command::new(binaries::operator());
        command.arg("run").args(*args).env_clear().env("HOME", empty.path());
        if !args.iter().any(|arg| arg.starts_with("--health-listen")) {
            command.arg("--health-listen=127.0.0.1:0");
        }
        let start = Instant::now();
        let output = child::run(&mut command, None);
        let took = start.elapsed();
        let code = output.status.code();
        let text = output.refused();
        assert!(text.contains(says), "{args:?} does not say {says}: {text}");
        assert!(code.is_some_and(|code| code == 1 || code == 2), "{args:?}: {code:?}: {text}");
        let errors = text.lines().filter(|line| line.to_lowercase().contains("error")).count();
        assert!(errors == 1 && !text.contains("panicked"), "{args:?}: {text}");
        assert!(took < Duration::from_secs(10), "{args:?} took {took:?}");
    }
}

/// A cluster that does not answer is waited for, alive and not ready, and `/readyz` says so.
#[tokio::test]
async fn a_cluster_that_does_not_answer_is_waited_for() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("config");
    let nobody = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let kubeconfig = json!({"apiVersion": "v1", "kind": "Config", "current-context": "x",
        "clusters": [{"name": "x", "cluster": {"server": format!("https://{nobody}")}}],
        "users": [{"name": "x", "user": {"token": "t"}}],
        "contexts": [{"name": "x", "context": {"cluster": "x", "user": "x"}}]});
    std::fs::write(&file, kubeconfig.to_string()).unwrap();
    let builder = Operator::builder(ControlPlane::shared()).kubeconfig(&file).without_waiting_for_ready();
    let operator = builder.start().await;
    eventually(PATIENCE, "/readyz says what is missing", async || match operator.readyz().await {
        Err(text) if text.contains("the apiserver cannot be reached") && text.starts_with("503") => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    assert_eq!(operator.livez().await, Ok(200));
    let (status, took) = operator.terminate();
    assert!(status.success() && took < Duration::from_secs(5), "{status} after {took:?}");
}

async fn set_up(hosts: usize, args: &[&str]) -> (Fleet, Namespace, Client, Operator) {
    let fleet = Fleet::start(hosts).await;
    let control_plane = ControlPlane::shared();
    let (namespace, client) = (Namespace::new(control_plane).await, control_plane.client().await);
    let builder = Operator::builder(control_plane).namespace(&namespace);
    let builder = args.iter().fold(builder, |builder, arg| builder.arg(*arg));
    let operator = builder.start().await;
    (fleet, namespace, client, operator)
}

fn name(host: usize) -> String {
    format!("s{host:02}")
}

async fn ready(client: &Client, namespace: &str, name: &str) {
    eventually(PATIENCE, "the server is Ready", async || {
        let server: OllamaServer = get(client, namespace, name).await;
        has_condition(&server, "Ready", "True", "Online")
            .map_err(|error| format!("{name}: {error}: {:?}", condition(&server, "Accepted")))
    })
    .await;
}
