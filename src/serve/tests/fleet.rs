//! The paths that show the fleet: who sees what of it, and what the apiserver is asked for that.

use super::{Running, args, client, shown, start, start_with};
use crate::{
    api::{FleetPlugin, OllamaServer, OllamaServerStatus},
    args::ApiAuth,
    controller::server::live::{Place, Snapshot},
    plugins::readings::Readings,
    runtime::Readiness,
    serve::{
        Shown,
        fleet::{NAMESPACES_MAX, SERVER_STATES_MAX},
    },
};
use reqwest::{Method, StatusCode};
use rstest::rstest;
use serde_json::{Value, json};
use std::sync::Arc;
use tokio::{io::AsyncWriteExt, net::TcpStream};

/// `admin` may everything; `tenant` may list both kinds in `a`, and get the plugin `p` there and `ghost`, which does not
/// exist; `pedant` may get the plugin `p` in `a` and nothing else. Nobody can be asked about the namespace `broken`.
pub fn access(body: &Value) -> (u16, Value) {
    let attributes = &body["spec"]["resourceAttributes"];
    assert_eq!(attributes["group"], "ollama-fleet.io");
    let text = |name: &str| attributes[name].as_str().unwrap_or_default().to_owned();
    let (verb, resource, namespace, name) = (text("verb"), text("resource"), text("namespace"), text("name"));
    assert!(["fleetplugins", "ollamaservers"].contains(&resource.as_str()), "{resource}");
    assert!((verb == "list") == name.is_empty(), "{attributes}");
    if namespace == "broken" {
        return (500, json!({"kind": "Status", "code": 500, "reason": "InternalError"}));
    }
    let user = body["spec"]["user"].as_str().unwrap().rsplit(':').next().unwrap().to_owned();
    let gets = verb == "get" && resource == "fleetplugins" && namespace == "a";
    let allowed = match user.as_str() {
        "admin" => true,
        "tenant" => namespace == "a" && (verb == "list" || (gets && ["p", "ghost"].contains(&name.as_str()))),
        "pedant" => gets && name == "p",
        _ => false,
    };
    let mut answer = body.clone();
    answer["status"] = json!({ "allowed": allowed });
    (201, answer)
}

/// Plugins and servers as `namespace/name`. The server's places must be kept.
fn fleet(plugins: &[&str], servers: &[&str]) -> (Shown, Vec<Place>) {
    let shown = shown(&Readiness::new());
    let split = |text: &str| {
        let (namespace, name) = text.split_once('/').unwrap();
        (namespace.to_owned(), name.to_owned())
    };
    let plugin = |text: &&str| {
        let (namespace, name) = split(text);
        let spec = json!({"type": "Agent", "version": "1.0.0", "agent": {"defaultPort": 9100, "endpoint": "/m",
            "secretRef": {"name": "top-secret"}}});
        let mut plugin = FleetPlugin::new(&name, serde_json::from_value(spec).unwrap());
        plugin.metadata.namespace = Some(namespace);
        Arc::new(plugin)
    };
    shown.installed.replace(plugins.iter().map(plugin).collect());
    let status = json!({"plugins": [{"name": "p", "state": "Active", "values": {"load": 1}}],
        "models": [{"name": "m:1b"}], "modelCount": 1, "conditions": []});
    let place = |text: &&str| {
        let (namespace, name) = split(text);
        let place = shown.live.enter(text);
        place.show(snapshot(&namespace, &name, &Arc::new(serde_json::from_value(status.clone()).unwrap())));
        place
    };
    let places = servers.iter().map(place).collect();
    (shown, places)
}

fn snapshot(namespace: &str, name: &str, status: &Arc<OllamaServerStatus>) -> Snapshot {
    let spec = json!({"host": "192.0.2.1", "secretRef": {"name": "top-secret"}});
    Snapshot {
        namespace: namespace.into(),
        name: name.into(),
        object: Arc::new(OllamaServer::new(name, serde_json::from_value(spec).unwrap())),
        backend: "Ollama",
        capacity_memory: None,
        capacity_vram: None,
        status: Arc::clone(status),
        agents: Arc::default(),
        readings: Readings::default(),
        failures: 0,
        last_poll: None,
    }
}

fn serving(shown: &Shown, auth: ApiAuth) -> Running {
    start_with(&args("127.0.0.1:0", auth), Arc::new(|| super::TEXT.to_owned()), shown.clone())
}

impl Running {
    async fn ask(&self, path: &str, token: &str) -> (u16, Value) {
        let response = client().get(self.url(path)).bearer_auth(token).send().await.unwrap();
        let status = response.status().as_u16();
        let kind = if status == 200 { "application/json" } else { "application/problem+json" };
        assert_eq!(response.headers()["content-type"], kind);
        assert_eq!(response.headers()["x-content-type-options"], "nosniff");
        assert_eq!(response.headers()["cache-control"], "no-store");
        let body = response.text().await.unwrap();
        assert!(!body.contains("top-secret"), "{body}");
        (status, serde_json::from_str(&body).unwrap())
    }

    /// Objects of a list, as `namespace/name`.
    async fn list(&self, path: &str, token: &str) -> Vec<String> {
        let (status, body) = self.ask(path, token).await;
        assert_eq!(status, 200, "{path}: {body}");
        let text = |row: &Value, field: &str| row[field].as_str().unwrap().to_owned();
        let rows = body.as_array().unwrap().iter();
        rows.map(|row| format!("{}/{}", text(row, "namespace"), text(row, "name"))).collect()
    }

    /// How many reviews the apiserver has answered.
    fn reviews(&self) -> usize {
        self.asked.lock().unwrap().len()
    }
}

#[tokio::test]
async fn lists_are_filtered_by_the_right_to_list_in_each_namespace() {
    let (shown, _places) = fleet(&["b/p", "a/q", "a/p"], &["b/x", "a/z", "a/y"]);
    let running = serving(&shown, ApiAuth::Kubernetes);
    for (token, plugins, servers) in [
        ("admin", vec!["a/p", "a/q", "b/p"], vec!["a/y", "a/z", "b/x"]),
        ("tenant", vec!["a/p", "a/q"], vec!["a/y", "a/z"]),
        ("stranger", vec![], vec![]),
    ] {
        assert_eq!(running.list("/api/plugins", token).await, plugins, "{token}");
        assert_eq!(running.list("/api/servers", token).await, servers, "{token}");
    }
    let open = serving(&shown, ApiAuth::None);
    assert_eq!(open.list("/api/plugins", "").await, ["a/p", "a/q", "b/p"]);
    assert_eq!(open.list("/api/servers", "").await, ["a/y", "a/z", "b/x"]);
    assert_eq!(open.reviews(), 0);
}

#[rstest]
#[case::listed("tenant", "/api/namespaces/a/plugins", 200)]
#[case::listed("tenant", "/api/namespaces/a/servers", 200)]
#[case::another_namespace("tenant", "/api/namespaces/b/plugins", 403)]
#[case::no_such_namespace("tenant", "/api/namespaces/nowhere/servers", 403)]
#[case::empty_namespace("admin", "/api/namespaces/empty/servers", 200)]
#[case::got("tenant", "/api/namespaces/a/plugins/p", 200)]
#[case::no_right_and_there("tenant", "/api/namespaces/a/plugins/q", 403)]
#[case::no_right_and_not_there("tenant", "/api/namespaces/a/plugins/r", 403)]
#[case::right_and_not_there("tenant", "/api/namespaces/a/plugins/ghost", 404)]
#[case::to_list_is_not_to_get("tenant", "/api/namespaces/a/servers/y", 403)]
#[case::got("admin", "/api/namespaces/a/servers/y", 200)]
#[case::not_there("admin", "/api/namespaces/a/servers/p", 404)]
#[case::of_another_namespace("admin", "/api/namespaces/b/servers/y", 404)]
#[case::no_name("admin", "/api/namespaces/a/plugins/P", 404)]
#[case::no_name("admin", "/api/namespaces/a/plugins/p%2Fq", 404)]
#[case::no_text("admin", "/api/namespaces/%ff/plugins/p", 404)]
#[case::unknown_token("nobody", "/api/namespaces/a/plugins/p", 401)]
#[case::unknown_token("nobody", "/api/namespaces/%ff/plugins/p", 401)]
#[case::unknown_token("nobody", "/api/plugins", 401)]
#[case::no_answer("tenant", "/api/namespaces/broken/plugins", 503)]
#[tokio::test]
async fn answers_by_right(#[case] token: &str, #[case] path: &str, #[case] expected: u16) {
    let (shown, _places) = fleet(&["a/p", "a/q", "b/p"], &["a/y", "b/x"]);
    let running = serving(&shown, ApiAuth::Kubernetes);
    let (status, body) = running.ask(path, token).await;
    assert_eq!(status, expected, "{body}");
}

/// What is forbidden is worded the same whether or not it exists.
#[tokio::test]
async fn a_refusal_does_not_tell_what_exists() {
    let (shown, _places) = fleet(&["a/there"], &[]);
    let running = serving(&shown, ApiAuth::Kubernetes);
    let detail = async |name: &str| {
        let (_, body) = running.ask(&format!("/api/namespaces/a/plugins/{name}"), "tenant").await;
        body["detail"].as_str().unwrap().replace(name, "NAME")
    };
    let refused = detail("there").await;
    assert_eq!(refused, detail("nowhere").await);
    let says = "has no right to get fleetplugins.ollama-fleet.io named NAME in the namespace a";
    assert!(refused.ends_with(says), "{refused}");
}

#[tokio::test]
async fn servers_of_a_plugin_are_for_those_who_may_list_them() {
    let (shown, _places) = fleet(&["a/p"], &["a/y", "b/x"]);
    let running = serving(&shown, ApiAuth::Kubernetes);
    let (_, whole) = running.ask("/api/namespaces/a/plugins/p", "tenant").await;
    assert_eq!(whole["serverStates"], json!([{"server": "y", "state": "Active"}]));
    let (_, partial) = running.ask("/api/namespaces/a/plugins/p", "pedant").await;
    assert_eq!((&partial["name"], partial.get("serverStates")), (&json!("p"), None));
}

/// A list has neither the models on disk nor what agents said; one server has.
#[tokio::test]
async fn one_server_tells_more_than_a_list() {
    let (shown, _places) = fleet(&[], &["a/y"]);
    let running = serving(&shown, ApiAuth::None);
    let (_, list) = running.ask("/api/servers", "").await;
    let (_, mut one) = running.ask("/api/namespaces/a/servers/y", "").await;
    assert_eq!(list[0]["plugins"], json!([{"name": "p", "state": "Active"}]));
    assert_eq!((&list[0]["ready"], &list[0]["displayName"]), (&Value::Null, &json!("y")));
    assert_eq!(one["plugins"], json!([{"name": "p", "state": "Active", "values": {"load": 1}}]));
    let more = one.as_object_mut().unwrap();
    assert_eq!(more.remove("models"), Some(json!([{"name": "m:1b"}])));
    assert_eq!(more.remove("conditions"), Some(json!([])));
    one["plugins"] = list[0]["plugins"].clone();
    assert_eq!(one, list[0]);
}

#[tokio::test]
async fn one_review_is_enough_for_everything_and_answers_are_remembered() {
    let (shown, _places) = fleet(&["a/p", "b/p", "c/p"], &[]);
    let running = serving(&shown, ApiAuth::Kubernetes);
    for _ in 0..3 {
        running.list("/api/plugins", "admin").await;
    }
    // One token, for which the first audience is enough; one right.
    assert_eq!(running.reviews(), 2);
    for _ in 0..3 {
        running.list("/api/plugins", "tenant").await;
    }
    assert_eq!(running.reviews(), 2 + 1 + 1 + 3);
}

/// Part of a list would pass for all of it.
#[tokio::test]
async fn a_list_is_whole_or_refused() {
    let (shown, _places) = fleet(&["a/p", "broken/p"], &[]);
    let running = serving(&shown, ApiAuth::Kubernetes);
    assert_eq!(running.ask("/api/plugins", "tenant").await.0, 503);
    assert_eq!(running.list("/api/plugins", "admin").await.len(), 2);

    let names: Vec<String> = (0..=NAMESPACES_MAX).map(|number| format!("n{number}/p")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let (shown, _places) = fleet(&names, &[]);
    let running = serving(&shown, ApiAuth::Kubernetes);
    let (status, body) = running.ask("/api/plugins", "tenant").await;
    assert!(
        status == 403 && body["detail"].as_str().unwrap().contains("/api/namespaces/NAMESPACE"),
        "{body}"
    );
    assert_eq!(running.reviews(), 2);
    assert_eq!(running.list("/api/plugins", "admin").await.len(), NAMESPACES_MAX + 1);

    let (shown, _places) = fleet(&names[1..], &[]);
    let running = serving(&shown, ApiAuth::Kubernetes);
    assert_eq!(running.list("/api/plugins", "tenant").await.len(), 0);
    assert_eq!(running.reviews(), 2 + NAMESPACES_MAX);
}

/// Who holds a good token cannot make the operator ask without end, and does not take the share of others.
#[tokio::test]
async fn a_user_has_a_share_of_questions() {
    let (shown, _places) = fleet(&[], &[]);
    let running = serving(&shown, ApiAuth::Kubernetes);
    let mut refused = 0;
    for number in 0..800 {
        let path = format!("/api/namespaces/a/plugins/x{number}");
        refused += usize::from(running.ask(&path, "stranger").await.0 == 503);
    }
    assert!(refused > 50, "{refused}");
    assert_eq!(running.list("/api/plugins", "admin").await.len(), 0);
}

#[tokio::test]
async fn nothing_is_shown_before_everything_is_listed() {
    let (shown, _places) = fleet(&["a/p"], &["a/y"]);
    let gate = shown.readiness.gate("servers");
    let running = serving(&shown, ApiAuth::None);
    let paths = [
        "/api/plugins",
        "/api/servers",
        "/api/namespaces/a/plugins",
        "/api/namespaces/a/servers",
        "/api/namespaces/a/plugins/p",
        "/api/namespaces/a/servers/y",
    ];
    for path in paths {
        assert_eq!(running.ask(path, "").await.0, 503, "{path}");
    }
    gate.open();
    for path in paths {
        assert_eq!(running.ask(path, "").await.0, 200, "{path}");
    }
    let unlisted = start(&args("127.0.0.1:0", ApiAuth::None));
    assert_eq!(unlisted.ask("/api/plugins", "").await.0, 503);
}

#[tokio::test]
async fn a_namespace_that_is_not_watched_is_not_shown_as_empty() {
    let (mut shown, _places) = fleet(&["a/p"], &[]);
    shown.namespaces = ["a".to_owned()].into();
    let running = serving(&shown, ApiAuth::Kubernetes);
    assert_eq!(running.list("/api/namespaces/a/plugins", "admin").await, ["a/p"]);
    let (status, body) = running.ask("/api/namespaces/b/servers", "admin").await;
    assert!(status == 404 && body["detail"].as_str().unwrap().contains("does not watch"), "{body}");
    assert_eq!(running.ask("/api/namespaces/b/servers", "stranger").await.0, 403);
}

#[tokio::test]
async fn heads_are_those_of_gets_and_strangers_pages_are_refused() {
    let (shown, _places) = fleet(&["a/p"], &[]);
    let running = serving(&shown, ApiAuth::None);
    let url = running.url("/api/plugins");
    let head = client().request(Method::HEAD, &url).send().await.unwrap();
    assert_eq!(
        (head.status(), &head.headers()["content-type"]),
        (StatusCode::OK, &"application/json".parse().unwrap())
    );
    assert_eq!(head.text().await.unwrap(), "");
    for (name, value) in [("host", "evil.example"), ("origin", "https://evil.example")] {
        let refused = client().get(&url).header(name, value).send().await.unwrap();
        assert_eq!(refused.status(), StatusCode::FORBIDDEN, "{name}");
    }
}

/// A plugin on more servers than it tells of: those where it fails come first, and the rest is counted.
#[tokio::test]
async fn a_plugin_on_very_many_servers_tells_of_those_where_it_fails() {
    let (shown, mut places) = fleet(&["a/p"], &[]);
    let report = |state: &str| -> Arc<OllamaServerStatus> {
        let status = json!({"plugins": [{"name": "p", "state": state}], "conditions": []});
        Arc::new(serde_json::from_value(status).unwrap())
    };
    let (active, error) = (report("Active"), report("Error"));
    for number in 0..=SERVER_STATES_MAX {
        let name = format!("s{number:05}");
        let place = shown.live.enter(&name);
        place.show(snapshot("a", &name, if number == SERVER_STATES_MAX { &error } else { &active }));
        places.push(place);
    }
    let running = serving(&shown, ApiAuth::None);
    let (_, plugin) = running.ask("/api/namespaces/a/plugins/p", "").await;
    let states = plugin["serverStates"].as_array().unwrap();
    assert_eq!((states.len(), &plugin["serverStatesOmitted"]), (SERVER_STATES_MAX, &json!(1)));
    assert_eq!(states[0], json!({"server": format!("s{SERVER_STATES_MAX:05}"), "state": "Error"}));
    assert_eq!(states[1]["server"], "s00000");
}

/// Ten thousand servers of 16 KiB each are 160 MiB that never are in memory at once, and readers who dawdle take the
/// places of no others for long.
#[tokio::test]
async fn only_so_many_lists_at_once_and_a_reader_who_leaves_makes_room() {
    const SERVERS: usize = 10_000;
    let (shown, mut places) = fleet(&[], &[]);
    let status = json!({"conditions": [{"type": "Ready", "status": "True", "reason": "Online",
        "message": "x".repeat(16 << 10), "lastTransitionTime": "2026-11-22T01:02:03Z"}]});
    let status: Arc<OllamaServerStatus> = Arc::new(serde_json::from_value(status).unwrap());
    for number in 0..SERVERS {
        let name = format!("s{number:05}");
        let place = shown.live.enter(&name);
        place.show(snapshot("a", &name, &status));
        places.push(place);
    }
    let running = serving(&shown, ApiAuth::None);
    let ask = async || {
        let mut stream = TcpStream::connect(running.at.main).await.unwrap();
        stream.write_all(b"GET /api/servers HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
        stream
    };
    let mut slow = Vec::new();
    for _ in 0..4 {
        slow.push(ask().await);
    }
    let url = running.url("/api/namespaces/a/servers");
    let response = super::get_until(&url, StatusCode::SERVICE_UNAVAILABLE).await;
    assert_eq!(response.headers()["retry-after"], "1");
    assert_eq!(client().get(running.url("/metrics")).send().await.unwrap().status(), StatusCode::OK);

    slow.pop();
    let mut response = super::get_until(&url, StatusCode::OK).await;
    let (mut bytes, mut servers) = (0, 0);
    while let Some(piece) = response.chunk().await.unwrap() {
        bytes += piece.len();
        servers += piece.windows(9).filter(|window| window == b"\"Online\",").count();
    }
    assert!(bytes > SERVERS * (16 << 10), "{bytes}");
    // A piece may end within one of them.
    assert!(servers > SERVERS * 9 / 10, "{servers}");
}
