//! Agents that mean harm: whatever they answer is an error of their plugin on that server, costs bounded memory, and
//! reaches neither objects nor logs nor metrics as it is; the host, its other agents and other servers go on.

use crate::support::{
    PATIENCE, Scene, all_events, eventually, holds_for, metric_value, metrics,
    objects::{self, fleet_metrics, has_condition, plugin, server_with, status_of},
};
use kube::api::ListParams;
use ollama_fleet_operator::api::{FleetPlugin, OllamaServer, server_status::PluginReport};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    net::Ipv4Addr,
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

/// What all hostile agents together may add to the operator's memory.
const MEMORY: u64 = 96 << 20;
/// Three failures at an interval of 3 s, with a deadline of 2.4 s; three times over for a busy machine.
const VERDICT: Duration = Duration::from_secs(3 * 12);
/// Longest time between two requests to a healthy host or agent, in milliseconds: 2.5 intervals.
const GAP: i64 = 7500;
/// Stands in every answer, and may stand nowhere else.
const CANARY: &str = "Canary7f3a";
/// Colour, the direction of writing, a bell and a C1 control.
const ESCAPES: &str = "\u{1b}[31m\u{202e}Canary7f3a\u{7}\u{9b}2J";

/// What an agent sends to whoever has asked for something.
enum Reply {
    /// These bytes, and then the end of the connection.
    Bytes(Vec<u8>),
    /// These bytes, and then these others without end.
    Endless(Vec<u8>, Vec<u8>),
    /// These bytes, and then one byte after the other of a body that never ends.
    Drip(Vec<u8>),
    /// A counter that falls with each answer.
    Falling(AtomicI64),
}

/// What must become of its plugin.
enum Outcome {
    Error(&'static str),
    /// It works, and has exactly these values.
    Values(Value),
}
use Outcome::{Error, Values};

/// Name of a plugin, what its agent does, what must become of it, and its own spec.
type Expected = (String, &'static str, Outcome, Option<Value>);

struct Row {
    what: &'static str,
    reply: Reply,
    outcome: Outcome,
    /// What the plugin wants of it, if not the usual.
    agent: Option<Value>,
}

fn row(what: &'static str, reply: Reply, outcome: Outcome) -> Row {
    Row { what, reply, outcome, agent: None }
}

const JSON: &str = "application/json";
const TEXT: &str = "text/plain; version=0.0.4";

/// An answer as it should be, with a body that should not.
fn ok(content_type: &str, body: impl Into<Vec<u8>>) -> Reply {
    let body = body.into();
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nContent-Length: {}\r\n\r\n", body.len());
    Reply::Bytes([head.into_bytes(), body].concat())
}

/// One line for each number.
fn lines(numbers: impl Iterator<Item = u32>, line: impl Fn(u32) -> String) -> String {
    numbers.map(line).collect::<Vec<_>>().concat()
}

fn head(head: &str) -> Vec<u8> {
    format!("HTTP/1.1 {head}\r\n\r\n").into_bytes()
}

fn status(line: &str) -> Reply {
    let body = format!("{{\"n\":1,\"text\":\"{CANARY}\"}}");
    let head =
        format!("HTTP/1.1 {line}\r\nX-Canary: {CANARY}\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    Reply::Bytes(head.into_bytes())
}

fn bodies() -> Vec<Row> {
    let flood = format!("\"{CANARY}\",").repeat(200).into_bytes();
    let gigabyte = head("200 OK\r\nContent-Type: application/json\r\nContent-Length: 1073741824");
    let chunk = [format!("{:x}\r\n", flood.len()).as_bytes(), &flood, b"\r\n"].concat();
    let deep = |open: &str, close: &str| format!("{}1{}", open.repeat(100_000), close.repeat(100_000));
    let dense = format!("[{}0]", format!("{{\"{CANARY}\":0}},").repeat(40_000));
    vec![
        row("1 GiB, announced", Reply::Endless(gigabyte, flood.clone()), Error("ResponseTooLarge")),
        row(
            "1 GiB in chunks",
            Reply::Endless(head("200 OK\r\nTransfer-Encoding: chunked"), chunk),
            Error("ResponseTooLarge"),
        ),
        row("1 GiB until the end", Reply::Endless(head("200 OK"), flood), Error("ResponseTooLarge")),
        row(
            "a million metrics",
            ok(TEXT, lines(0..1_000_000, |n| format!("{CANARY}_{n} 1\n"))),
            Error("ResponseTooLarge"),
        ),
        row("JSON 100,000 arrays deep", ok(JSON, deep("[", "]")), Error("InvalidResponse")),
        row("JSON 100,000 objects deep", ok(JSON, deep("{\"n\":", "}")), Error("InvalidResponse")),
        Row {
            agent: Some(json!({})),
            ..row("JSON of 40,000 objects", ok(JSON, dense.clone()), Error("ResponseTooLarge"))
        },
        row("JSON of 40,000 objects that nobody asked for", ok(JSON, dense), Error("InvalidResponse")),
        row(
            "one line of 1 MiB",
            ok(TEXT, format!("m{{x=\"{}\"}} 1\n", "y".repeat(1_000_000))),
            Error("ResponseTooLarge"),
        ),
        row(
            "a quote that never ends",
            ok(TEXT, format!("m{{x=\"{}", "y".repeat(1_000_000))),
            Error("InvalidResponse"),
        ),
        row(
            "a comment of 1 MiB and no end",
            ok(TEXT, format!("# {}", "y".repeat(1_000_000))),
            Error("InvalidResponse"),
        ),
        row(
            "1000 labels",
            ok(TEXT, format!("m{{{}}} 1\n", lines(0..1000, |n| format!("{CANARY}{n}=\"x\",")))),
            Error("ResponseTooLarge"),
        ),
        row(
            "a label of 64 KiB",
            ok(TEXT, format!("m{{x=\"{}\"}} 1\n", CANARY.repeat(6000))),
            Error("ResponseTooLarge"),
        ),
        row(
            "5000 series of one metric",
            ok(TEXT, lines(0..5000, |n| format!("m{{x=\"{CANARY}{n}\"}} 1\n"))),
            Error("ResponseTooLarge"),
        ),
        row(
            "a page",
            ok("text/html", format!("<html><title>{CANARY}</title>{ESCAPES}</html>")),
            Error("InvalidResponse"),
        ),
        row("text that says it is JSON", ok(JSON, "m 1\n"), Error("InvalidResponse")),
        row("JSON that says it is text", ok(TEXT, "{\"n\":1}"), Error("InvalidResponse")),
        row(
            "an image",
            ok("image/png", b"\x89PNG\r\n\x1a\n\0\0Canary7f3a".to_vec()),
            Error("InvalidResponse"),
        ),
        row(
            "bytes that are no UTF-8",
            ok(TEXT, b"m{x=\"\xff\xfeCanary7f3a\"} 1\xc3\n".to_vec()),
            Error("InvalidResponse"),
        ),
        row("nothing", ok(JSON, ""), Error("InvalidResponse")),
        row(
            "a number too large for JSON's readers",
            ok(JSON, "{\"n\":1e999,\"other\":3}"),
            Values(json!({})),
        ),
        row("NaN in JSON, which has none", ok(JSON, "{\"n\":NaN}"), Values(json!({}))),
        row("two documents", ok(JSON, "{\"n\":1}{\"n\":2}"), Error("InvalidResponse")),
    ]
}

fn framing() -> Vec<Row> {
    let gzip = [
        head("200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip").as_slice(),
        b"\x1f\x8b\x08\0\0\0\0\0\0\xff\x01\x07\0\xf8\xff{\"n\":1}",
    ]
    .concat();
    let line = format!("A: {CANARY}\r\n").into_bytes();
    let escaped =
        format!("HTTP/1.1 200 OK\r\nX: {ESCAPES}\r\nContent-Length: 7\r\n\r\n{{\"n\":1}}").into_bytes();
    vec![
        row("gzip", Reply::Bytes(gzip), Error("InvalidResponse")),
        row("a body that drips", Reply::Drip(head("200 OK\r\nContent-Length: 100000")), Error("Timeout")),
        row("a head that drips", Reply::Drip(b"HTTP/1.1 200 OK\r\nA: ".to_vec()), Error("Timeout")),
        row(
            "headers without end",
            Reply::Endless(b"HTTP/1.1 200 OK\r\n".to_vec(), line),
            Error("ResponseTooLarge"),
        ),
        row("escapes in a header", Reply::Bytes(escaped), Error("InvalidResponse")),
        row(
            "a redirect",
            status(&format!("302 Found\r\nLocation: http://127.0.0.1:1/{CANARY}")),
            Error("UnexpectedRedirect"),
        ),
        row(
            "401",
            status(&format!("401 {CANARY}\r\nWWW-Authenticate: Basic realm=\"{CANARY}\"")),
            Error("Unauthorized"),
        ),
        row("403", status("403 Forbidden"), Error("HostRejected")),
        row("404", status("404 Not Found"), Error("InvalidResponse")),
        row("500", status(&format!("500 {CANARY}")), Error("InvalidResponse")),
        row("no HTTP", Reply::Bytes(format!("SSH-2.0-{CANARY}\r\n").into_bytes()), Error("InvalidResponse")),
    ]
}

/// Answers of which a part can be believed.
fn half_true() -> Vec<Row> {
    let edges = "{\"n\":1,\"n\":2,\"max\":9223372036854775807,\"more\":18446744073709551615,\
                 \"min\":-9223372036854775808,\"exact\":4611686018427387904,\"text\":\"5\",\"null\":null}";
    let paths = |names: &[&str]| -> Value {
        let values = names.iter().map(|name| json!({"name": name, "jsonPaths": [format!("$.{name}")]}));
        json!({ "values": values.collect::<Vec<_>>() })
    };
    let metrics = |names: &[&str]| -> Value {
        let values = names.iter().map(|name| json!({"name": name, "metric": {"name": name}}));
        json!({ "values": values.collect::<Vec<_>>() })
    };
    let keys = json!({ "n": 7, (ESCAPES): 8, "host": ESCAPES, "nested": {(ESCAPES): {(ESCAPES): CANARY}} });
    let host = json!({"values": [
        {"name": "n", "jsonPaths": ["$.n"]},
        {"name": "host", "type": "Hostname", "jsonPaths": ["$.host"]}
    ]});
    let label = json!({"values": [
        {"name": "m", "metric": {"name": "m"}},
        {"name": "host", "type": "Hostname", "metric": {"name": "m", "label": "x"}}
    ]});
    let falling = json!({"values": [
        {"name": "fell", "metric": {"name": "fell_total"}, "rate": true},
        {"name": "steady", "metric": {"name": "steady"}}
    ]});
    // Nearly as deep as an answer may be, where the path finds each number once for each object around it.
    let nested = {
        let list = format!("{{\"a\":5,\"text\":\"{CANARY}\"}},").repeat(6_000);
        format!("{{\"first\":1,\"a\":{}[{list}0]{}}}", "{\"a\":".repeat(27), "}".repeat(27))
    };
    let dear = json!({"values": [
        {"name": "rate", "jsonPaths": ["$..a..a"], "rate": true},
        {"name": "first", "jsonPaths": ["$.first"]}
    ]});
    let with =
        |agent: Value, what, reply, values| Row { what, reply, outcome: Values(values), agent: Some(agent) };
    vec![
        with(dear, "a rate of numbers deep inside each other", ok(JSON, nested), json!({"first": 1})),
        with(
            metrics(&["a", "b", "c", "d"]),
            "NaN and the infinities",
            ok(TEXT, "a NaN\nb +Inf\nc -Inf\nd 3\n"),
            json!({"d": 3}),
        ),
        Row {
            agent: Some(metrics(&["a", "b"])),
            ..row("nothing but NaN", ok(TEXT, "a NaN\nb NaN\n"), Values(json!({})))
        },
        with(
            paths(&["n", "max", "more", "min", "exact", "text", "null"]),
            "a key twice, and the edges of 64 bits",
            ok(JSON, edges),
            json!({"n": 2, "exact": 4_611_686_018_427_387_904_i64, "text": 5}),
        ),
        with(metrics(&["a", "b"]), "a number beyond a double", ok(TEXT, "a 1e999\nb 4\n"), json!({"b": 4})),
        with(host, "escapes in keys and in a host name", ok(JSON, keys.to_string()), json!({"n": 7})),
        with(label, "escapes in a label", ok(TEXT, format!("m{{x=\"{ESCAPES}\"}} 9\n")), json!({"m": 9})),
        with(
            json!({}),
            "strings for a plugin that names no values",
            ok(JSON, json!({"text": CANARY, "list": [CANARY], "count": 6}).to_string()),
            json!({"count": 6}),
        ),
        with(
            falling,
            "a counter that falls",
            Reply::Falling(AtomicI64::new(1_000_000)),
            json!({"steady": 1}),
        ),
    ]
}

/// Every hostile answer becomes its plugin's reason, or exactly the values that can be believed; memory stays bounded;
/// the host stays Ready, and it, a healthy plugin on the same server and another server are asked on schedule; and no
/// byte of an answer is found anywhere.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_an_agent_answers_is_its_plugins_own_affair() {
    let rows: Vec<Row> = bodies().into_iter().chain(framing()).chain(half_true()).collect();
    let scene = Scene::with(2, &json!({}), |builder| builder.arg("--poll-interval=3s")).await;
    assert!(rows.len() < 60, "a server lists 64 plugins");
    scene.apply(&fleet_metrics(scene.fleet.agent_port())).await;
    for (name, host) in [("victim", 0), ("other", 1)] {
        let mut server = server_with(name, scene.fleet.host(host), json!({}));
        server.metadata.labels = Some([("name".to_owned(), name.to_owned())].into());
        scene.apply(&server).await;
        scene.until_read(name).await;
    }
    let before = scene.operator.rss_bytes();
    let mut expected = Vec::new();
    let mut replies = Vec::new();
    for (index, Row { what, reply, outcome, agent }) in rows.into_iter().enumerate() {
        expected.push((format!("p{index:02}"), what, outcome, agent));
        replies.push(reply);
    }
    let port = listen(scene.fleet.address(0), replies).await;
    for (name, _, _, agent) in &expected {
        let usual = json!({"values": [
            {"name": "n", "jsonPaths": ["$.n"]},
            {"name": "m", "metric": {"name": "m"}},
            {"name": "host", "type": "Hostname", "metric": {"name": "m", "label": "x"}}
        ]});
        let mut agent = agent.clone().unwrap_or(usual);
        agent["endpoint"] = format!("/{name}").into();
        let mut object = plugin(name, port, agent);
        object.spec.server_selector =
            serde_json::from_value(json!({"matchLabels": {"name": "victim"}})).unwrap();
        scene.apply(&object).await;
    }
    scene.fleet.reset_stats().await;
    let mut rss = 0;
    let mut as_expected = async || {
        rss = rss.max(scene.operator.rss_bytes());
        let server = scene.get("victim").await;
        has_condition(&server, "Ready", "True", "Online").unwrap();
        has_condition(&server, "Reachable", "True", "Online").unwrap();
        assert_clean(&serde_json::to_value(&server).unwrap());
        let size = serde_json::to_string(&server).unwrap().len();
        assert!(size < 32 << 10, "{size} bytes");
        let text = scene.operator.metrics().await;
        assert!(!text.contains(CANARY), "an answer is in the metrics");
        let fell = metric_value(&text, "ollama_fleet_plugin_value", &[("name", "fell")]);
        assert_eq!(fell, None, "a counter that falls has no rate");
        outcomes(&server, &expected)
    };
    let start = std::time::Instant::now();
    eventually(VERDICT, "every answer has become its outcome", &mut as_expected).await;
    let took = start.elapsed();
    holds_for(Duration::from_secs(7), "the outcomes stand", &mut as_expected).await;

    assert!(rss < before + MEMORY, "memory grew from {before} to {rss}");
    has_condition(&scene.get("other").await, "PluginsHealthy", "True", "AllHealthy").unwrap();
    let mut widest = 0;
    for path in ["/api/version", "agent:/metrics"] {
        for (host, arrivals) in scene.fleet.arrivals("all", path).await {
            let gap = arrivals.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or(i64::MAX);
            assert!(gap <= GAP, "{host}: {path} was not asked for {gap} ms");
            widest = widest.max(gap);
        }
    }
    let stats = scene.fleet.stats().await;
    assert_eq!((stats.max_in_flight, stats.agent_max_in_flight), (1, 1));

    nothing_leaked(&scene).await;
    eprintln!(
        "figure: {} hostile agents, all told after {took:.1?}; widest gap of the others {widest} ms; RSS {} to {} MiB",
        expected.len(),
        before >> 20,
        rss >> 20
    );
}

/// Whether every plugin of the server has become what was expected, and the healthy one is well.
fn outcomes(server: &OllamaServer, expected: &[Expected]) -> Result<(), String> {
    let reports = status_of(server).plugins.unwrap_or_default();
    let reports: BTreeMap<&str, &PluginReport> =
        reports.iter().map(|report| (report.name.as_str(), report)).collect();
    let state = |name: &str| reports.get(name).and_then(|report| report.state.as_deref());
    let mut missing = Vec::new();
    if state("fleet-metrics") != Some("Active") {
        missing.push(format!("the healthy plugin is {:?}", state("fleet-metrics")));
    }
    for (name, what, outcome, _) in expected {
        let report = reports.get(name.as_str()).copied().cloned().unwrap_or_default();
        let (is_so, wanted) = match outcome {
            Error(reason) => {
                let says = report.reason.as_deref() == Some(*reason) && report.message.is_some();
                (state(name) == Some("Error") && says && report.values.is_empty(), (*reason).to_owned())
            }
            Values(values) => {
                let said = serde_json::to_value(&report.values).unwrap();
                (state(name) == Some("Active") && said == *values, values.to_string())
            }
        };
        if !is_so {
            missing.push(format!("{name}, {what}: not {wanted}: {report:?}"));
        }
    }
    if missing.is_empty() { Ok(()) } else { Err(missing.join("\n")) }
}

/// Nothing has ended by a bug, and no byte of an answer is in an object, an Event, the metrics or the log.
async fn nothing_leaked(scene: &Scene) {
    let text = scene.operator.metrics().await;
    assert_eq!(metric_value(&text, "ollama_fleet_panics_total", &[]), Some(0.0));
    assert_each_family_is_declared_once(&text);
    let told = all_events(&scene.client, &scene.namespace).await;
    assert!(told.iter().all(|event| event.reason.as_deref() == Some("PluginFailed")), "{told:?}");
    let servers = objects::api::<OllamaServer>(&scene.client, &scene.namespace);
    let plugins = objects::api::<FleetPlugin>(&scene.client, &scene.namespace);
    let statuses: Vec<_> = plugins.list(&ListParams::default()).await.unwrap().items;
    let statuses: Vec<_> = statuses.into_iter().map(|plugin| plugin.status).collect();
    for said in [
        serde_json::to_value(&told).unwrap(),
        serde_json::to_value(servers.list(&ListParams::default()).await.unwrap().items).unwrap(),
        serde_json::to_value(&statuses).unwrap(),
    ] {
        assert_clean(&said);
        assert!(!said.to_string().contains(CANARY), "an answer is in an object: {said}");
    }
    let log = scene.operator.log();
    assert!(!log.contains(CANARY) && !log.contains('\u{1b}'), "an answer is in the log");
}

/// Agents of a plugin that names no values make up as many names as fit their answers, each machine its own: a server
/// keeps 32, the metrics 64 for all, always the same, and the gauge counts the rest.
#[tokio::test]
async fn names_that_agents_make_up_are_bounded_and_the_rest_is_counted() {
    const HOSTS: usize = 4;
    let hosts: serde_json::Map<String, Value> = (0..HOSTS)
        .map(|host| {
            // In the order in which they are least welcome.
            let body = lines((0..60_000).rev(), |number| format!("h{host}_v{number:05} 1\n"));
            (host.to_string(), json!({"agentBody": body, "agentContentType": TEXT}))
        })
        .collect();
    let scene =
        Scene::with(HOSTS, &json!({ "hosts": hosts }), |builder| builder.arg("--poll-interval=5s")).await;
    scene.apply(&plugin("all", scene.fleet.agent_port(), json!({}))).await;
    let before = scene.operator.rss_bytes();
    let name = |host: usize| format!("s{host}");
    for host in 0..HOSTS {
        scene.server(&name(host), host, json!({})).await;
    }
    for host in 0..HOSTS {
        scene.until_read(&name(host)).await;
        let server = scene.get(&name(host)).await;
        let values = status_of(&server).plugins.unwrap().remove(0).values;
        let first: Vec<String> = (0..32).map(|number| format!("h{host}V{number:05}")).collect();
        assert_eq!(values.keys().cloned().collect::<Vec<_>>(), first);
    }
    let shown = async || {
        let text = scene.operator.metrics().await;
        let names: Vec<String> = text
            .lines()
            .filter(|line| line.starts_with("ollama_fleet_plugin_value{"))
            .map(|line| line.split("name=\"").nth(1).unwrap().split('"').next().unwrap().to_owned())
            .collect();
        let dropped = metric_value(&text, "ollama_fleet_plugin_series_dropped", &[]);
        if names.len() == 64 && dropped == Some(64.0) {
            assert!(names.iter().all(|name| name.starts_with("h0") || name.starts_with("h1")), "{names:?}");
            Ok(())
        } else {
            Err(format!("{} names, {dropped:?} dropped", names.len()))
        }
    };
    eventually(PATIENCE, "the metrics have 64 names", shown).await;
    holds_for(Duration::from_secs(6), "they are the same at each poll", shown).await;
    let rss = scene.operator.rss_bytes();
    assert!(rss < before + MEMORY, "memory grew from {before} to {rss}");
    assert_eq!(metrics::series(&scene.operator.metrics().await, "ollama_fleet_plugin_up"), HOSTS);
    eprintln!("figure: 4 agents of 60,000 metrics: RSS {} to {} MiB", before >> 20, rss >> 20);
}

/// Listens beside the simulated host; the path of a request, such as `/p07`, chooses the reply. The port.
async fn listen(address: Ipv4Addr, replies: Vec<Reply>) -> u16 {
    let listener = TcpListener::bind((address, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let replies = Arc::new(replies);
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let replies = Arc::clone(&replies);
            // A client that hangs up in the middle is what is expected of it.
            tokio::spawn(async move { drop(say(stream, &replies).await) });
        }
    });
    port
}

async fn say(mut stream: TcpStream, replies: &[Reply]) -> std::io::Result<()> {
    let mut request = vec![0; 4096];
    let read = stream.read(&mut request).await?;
    let line = String::from_utf8_lossy(&request[..read]).into_owned();
    let number = line.strip_prefix("GET /p").and_then(|rest| rest.split(' ').next()?.parse::<usize>().ok());
    let Some(reply) = number.and_then(|number| replies.get(number)) else { return Ok(()) };
    match reply {
        Reply::Bytes(bytes) => stream.write_all(bytes).await?,
        Reply::Endless(first, rest) => {
            stream.write_all(first).await?;
            let rest = rest.repeat((20_000 / rest.len()).max(1));
            // Some 20 MB/s: a flood for its reader that leaves the test a core to look at it.
            let mut pace = tokio::time::interval(Duration::from_millis(1));
            loop {
                pace.tick().await;
                stream.write_all(&rest).await?;
            }
        }
        Reply::Drip(first) => {
            stream.write_all(first).await?;
            let mut pace = tokio::time::interval(Duration::from_millis(100));
            loop {
                pace.tick().await;
                stream.write_all(b"x").await?;
            }
        }
        Reply::Falling(counter) => {
            let now = counter.fetch_sub(1000, Ordering::Relaxed);
            let body = format!("fell_total{{x=\"{CANARY}\"}} {now}\nsteady 1\n");
            let head =
                format!("HTTP/1.1 200 OK\r\nContent-Type: {TEXT}\r\nContent-Length: {}\r\n\r\n", body.len());
            stream.write_all(format!("{head}{body}").as_bytes()).await?;
        }
    }
    stream.shutdown().await?;
    // Closing with unread input would be a reset, which takes away what the other side has not read yet.
    while stream.read(&mut request).await? > 0 {}
    Ok(())
}

/// Prometheus refuses a scrape in which a family is declared twice.
#[track_caller]
fn assert_each_family_is_declared_once(text: &str) {
    let families = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next());
    let mut families: Vec<&str> = families.collect();
    let all = families.len();
    families.sort_unstable();
    let twice: Vec<_> = families.windows(2).filter(|pair| pair[0] == pair[1]).collect();
    assert!(twice.is_empty() && all > 10, "{twice:?}");
}

/// No text in it can move a cursor, hide itself or turn the direction of writing.
#[track_caller]
fn assert_clean(value: &Value) {
    let bad = |c: char| {
        c.is_control()
            || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}')
    };
    match value {
        Value::String(text) => assert!(!text.contains(bad), "{text:?}"),
        Value::Array(items) => items.iter().for_each(assert_clean),
        Value::Object(map) => map.iter().for_each(|(key, value)| {
            assert!(!key.contains(bad), "{key:?}");
            assert_clean(value);
        }),
        _ => {}
    }
}
