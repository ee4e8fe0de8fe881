//! Servers of other kinds than Ollama, as the operator asks them: what is asked at all, in which order, and what it never
//! costs. The hosts are sockets that answer as recorded from the real programs, and count.

use crate::support::{
    ControlPlane, Operator, PATIENCE, Scene, condition, eventually, holds_for, metric_value,
    objects::server_with,
    raw_host::{RawHost, Script, script},
};
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex},
    time::Duration,
};

/// `LiteLLM` 1.108.7, shortened.
const LITELLM_MODELS: &str =
    r#"{"data":[{"id":"gpt-a","object":"model","created":1677610602,"owned_by":"openai"}],"object":"list"}"#;
const LITELLM_HEALTH: &str = r#"{"healthy_endpoints":[{"api_base":"http://192.0.2.7/v1","model":"openai/gpt-a"}],"unhealthy_endpoints":[],"healthy_count":1,"unhealthy_count":0}"#;
/// llama-server b10434.
const LLAMA_MODELS: &str =
    r#"{"object":"list","data":[{"id":"tiny","object":"model","created":1796094372,"owned_by":"llamacpp"}]}"#;
const LLAMA_LOADING: &str = r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#;
/// vLLM 0.32.0.
const VLLM_MODELS: &str =
    r#"{"object":"list","data":[{"id":"Qwen/Qwen3-0.6B","object":"model","created":1,"owned_by":"vllm"}]}"#;

/// A status and a body for each path; a path that is not here is a 404, and one with status 0 never answers.
type Answers = Arc<Mutex<BTreeMap<&'static str, (u16, String)>>>;

/// A path, a status and a body.
type Row<'a> = (&'static str, u16, &'a str);

/// A server that answers from a table and counts what it was asked.
struct Fake {
    host: RawHost,
    answers: Answers,
    asked: Arc<Mutex<BTreeMap<String, usize>>>,
}

impl Fake {
    async fn start(rows: &[Row<'_>]) -> Self {
        let answers = Answers::default();
        let asked: Arc<Mutex<BTreeMap<String, usize>>> = Arc::default();
        let talk: Script = {
            let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
            script(move |mut connection| {
                let (answers, asked) = (Arc::clone(&answers), Arc::clone(&asked));
                async move {
                    while let Some(head) = connection.request().await? {
                        let path = head.split(' ').nth(1).unwrap_or_default().to_owned();
                        *asked.lock().unwrap().entry(path.clone()).or_default() += 1;
                        let answer = answers.lock().unwrap().get(path.as_str()).cloned();
                        let (status, body) = answer.unwrap_or((404, r#"{"detail":"Not Found"}"#.into()));
                        if status == 0 {
                            return connection.ignore().await;
                        }
                        let head = format!("HTTP/1.1 {status} X\r\nContent-Length: {}\r\n\r\n", body.len());
                        connection.send(format!("{head}{body}").as_bytes()).await?;
                    }
                    Ok(())
                }
            })
        };
        let fake = Self { host: RawHost::start(talk).await, answers, asked };
        fake.say(rows);
        fake
    }

    fn say(&self, rows: &[Row<'_>]) {
        let rows = rows.iter().map(|(path, status, body)| (*path, (*status, (*body).to_owned())));
        self.answers.lock().unwrap().extend(rows);
    }

    fn asked(&self) -> BTreeMap<String, usize> {
        self.asked.lock().unwrap().clone()
    }

    fn count(&self, path: &str) -> usize {
        self.asked().get(path).copied().unwrap_or_default()
    }

    async fn until_asked(&self, path: &str, times: usize) {
        let before = self.count(path);
        eventually(PATIENCE, path, async || {
            let count = self.count(path) - before;
            if count >= times { Ok(()) } else { Err(format!("{count} of {times}: {:?}", self.asked())) }
        })
        .await;
    }
}

async fn serve(scene: &Scene, name: &str, fake: &Fake, spec: Value) {
    let mut full = json!({"poll": {"interval": "1s", "timeout": "800ms"}});
    full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
    scene.apply(&server_with(name, fake.host.address.to_string(), full)).await;
}

async fn message(scene: &Scene, name: &str, type_: &str) -> String {
    condition(&scene.get(name).await, type_).map(|(.., message)| message).unwrap_or_default()
}

/// `LiteLLM` 1.108.7 runs a completion of every model at its provider for each /health, which is paid for. As a VLLM it is
/// asked for its list only; with the path that costs nothing, for that too. What is in its memory is nobody's knowledge.
#[tokio::test]
async fn litellm_is_polled_without_a_single_completion() {
    let scene = Scene::new(1).await;
    let rows = [
        ("/v1/models", 200, LITELLM_MODELS),
        ("/health", 200, LITELLM_HEALTH),
        ("/health/liveliness", 200, r#""I'm alive!""#),
    ];
    let (plain, named) = (Fake::start(&rows).await, Fake::start(&rows).await);
    serve(&scene, "plain", &plain, json!({"backendType": "VLLM"})).await;
    serve(&scene, "named", &named, json!({"backendType": "VLLM", "healthPath": "/health/liveliness"})).await;
    for name in ["plain", "named"] {
        scene.until_online(name).await;
    }
    plain.until_asked("/v1/models", 5).await;
    named.until_asked("/health/liveliness", 5).await;
    assert_eq!(plain.asked().keys().collect::<Vec<_>>(), ["/v1/models"]);
    assert_eq!(named.asked().keys().collect::<Vec<_>>(), ["/health/liveliness", "/v1/models"]);
    let status = scene.status("plain").await;
    assert_eq!((status.model_count, status.loaded_count), (Some(1), None));
    assert!(status.loaded_models.is_none() && status.vram_used.is_none(), "{status:?}");
    let metrics = scene.operator.metrics().await;
    for series in ["model_loaded", "server_loaded_models", "server_vram_used_bytes"] {
        assert!(!metrics.contains(&format!("\nollama_fleet_{series}{{")), "{series}");
    }
    assert_eq!(metric_value(&metrics, "ollama_fleet_server_models", &[("server", "plain")]), Some(1.0));
}

/// A health that runs models shows it in its answer: it has been asked once, and is not again, whoever starts the operator
/// anew or asks for a poll, until the spec is edited.
#[tokio::test]
async fn a_health_path_that_runs_models_is_asked_once() {
    let scene = Scene::new(1).await;
    let rows = [
        ("/v1/models", 200, LITELLM_MODELS),
        ("/health", 200, LITELLM_HEALTH),
        ("/health/liveliness", 200, r#""I'm alive!""#),
    ];
    let (generic, vllm) = (Fake::start(&rows).await, Fake::start(&rows).await);
    serve(&scene, "generic", &generic, json!({"backendType": "Generic"})).await;
    serve(&scene, "vllm", &vllm, json!({"backendType": "VLLM", "healthPath": "/health"})).await;
    for name in ["generic", "vllm"] {
        scene.until(name, "Accepted", "False", "HealthPathRunsModels").await;
        scene.until(name, "Ready", "False", "HealthPathRunsModels").await;
        let text = message(&scene, name, "Accepted").await;
        assert!(text.contains("/health/liveliness"), "{text}");
    }
    let once = async || {
        let counts = (generic.count("/health"), vllm.count("/health"));
        if counts == (1, 1) { Ok(()) } else { Err(format!("{counts:?}")) }
    };
    holds_for(Duration::from_secs(4), "it is asked once", once).await;
    let asked = json!({"annotations": {"ollama-fleet.io/requestedAt": "now"}});
    scene.patch_metadata("generic", asked).await;
    eventually(PATIENCE, "the request is taken note of", async || {
        let handled = scene.status("generic").await.last_handled_requested_at;
        if handled.as_deref() == Some("now") { Ok(()) } else { Err(format!("{handled:?}")) }
    })
    .await;
    holds_for(Duration::from_secs(3), "a request does not ask it", once).await;
    let Scene { operator, fleet, namespace, client } = scene;
    drop(operator);
    let operator = Operator::builder(ControlPlane::shared()).namespace(&namespace).start().await;
    let scene = Scene { operator, fleet, namespace, client };
    holds_for(Duration::from_secs(4), "a restart does not ask it", once).await;

    scene.patch_spec("generic", json!({"displayName": "Proxy"})).await;
    generic.until_asked("/health", 1).await;
    scene.until("generic", "Accepted", "False", "HealthPathRunsModels").await;
    for name in ["generic", "vllm"] {
        scene.patch_spec(name, json!({"healthPath": "/health/liveliness"})).await;
        scene.until_online(name).await;
    }
    generic.until_asked("/health/liveliness", 3).await;
    assert_eq!((generic.count("/health"), vllm.count("/health")), (2, 1));
}

/// A generic server is asked one path and no other, and says what to write where there is nothing.
#[tokio::test]
async fn a_generic_server_is_asked_its_health_path_and_nothing_else() {
    let scene = Scene::new(1).await;
    let named = Fake::start(&[("/-/healthy?x=1", 200, "<html>up</html>"), ("/health", 200, "")]).await;
    let lacking = Fake::start(&[("/", 200, "It works")]).await;
    // LM Studio 0.4.17 answers so at every path that it does not have.
    let lm_studio =
        Fake::start(&[("/health", 200, r#"{"error":"Unexpected endpoint or method. (GET /health)"}"#)]).await;
    serve(&scene, "named", &named, json!({"backendType": "Generic", "healthPath": "/-/healthy?x=1"})).await;
    serve(&scene, "lacking", &lacking, json!({"backendType": "Generic"})).await;
    serve(&scene, "lm-studio", &lm_studio, json!({"backendType": "Generic"})).await;
    scene.until_online("named").await;
    for name in ["lacking", "lm-studio"] {
        scene.until(name, "Ready", "False", "InvalidResponse").await;
        let text = message(&scene, name, "Ready").await;
        assert!(text.contains("set spec.healthPath"), "{text}");
    }
    named.until_asked("/-/healthy?x=1", 3).await;
    lacking.until_asked("/health", 2).await;
    assert_eq!(named.asked().len(), 1, "{:?}", named.asked());
    assert_eq!(lacking.asked().len(), 1, "{:?}", lacking.asked());
}

/// `LiteLLM` 1.108.7 answers its /health once every model has, which may be after the poll's time. Nothing shows then that
/// asking ran them, so the reason says what it may be.
#[tokio::test]
async fn a_health_path_that_is_too_slow_says_what_it_may_be_doing() {
    let scene = Scene::new(1).await;
    let fake = Fake::start(&[("/health", 0, "")]).await;
    serve(&scene, "slow", &fake, json!({"backendType": "Generic"})).await;
    scene.until("slow", "Ready", "False", "Timeout").await;
    let text = message(&scene, "slow", "Ready").await;
    assert!(text.contains("set spec.healthPath"), "{text}");
}

/// llama-server b10434 with --sleep-idle-seconds: a poll asks nothing that wakes it, and what sleeps is not in memory.
#[tokio::test]
async fn a_sleeping_llama_server_is_known_to_sleep_and_left_asleep() {
    let scene = Scene::new(1).await;
    let props = |asleep: bool| format!(r#"{{"default_generation_settings":{{}},"is_sleeping":{asleep}}}"#);
    let fake = Fake::start(&[
        ("/v1/models", 200, LLAMA_MODELS),
        ("/health", 200, r#"{"status":"ok"}"#),
        ("/props", 200, &props(false)),
    ])
    .await;
    serve(&scene, "llama", &fake, json!({"backendType": "VLLM"})).await;
    scene.until_online("llama").await;
    let loaded = async |expected: Option<i32>| {
        eventually(PATIENCE, "what is in memory", async || {
            let count = scene.status("llama").await.loaded_count;
            if count == expected { Ok(()) } else { Err(format!("{count:?}, not {expected:?}")) }
        })
        .await;
    };
    loaded(Some(1)).await;
    // One endpoint that fails leaves what was known.
    fake.say(&[("/props", 500, "")]);
    let asked = || fake.asked().get("/props").copied().unwrap_or_default();
    let before = asked();
    eventually(PATIENCE, "it is asked some more", async || asked() >= before + 3).await;
    assert_eq!(scene.status("llama").await.loaded_count, Some(1));
    fake.say(&[("/props", 200, &props(true))]);
    loaded(Some(0)).await;
    assert_eq!(scene.status("llama").await.vram_used, None);
    // With --api-key the list is open and the properties are not.
    fake.say(&[("/props", 401, "{}")]);
    loaded(None).await;
    scene.until_online("llama").await;
    // It lists its model while it loads (b10566).
    fake.say(&[("/health", 503, LLAMA_LOADING)]);
    scene.until("llama", "Ready", "False", "ServerBusy").await;
    let text = message(&scene, "llama", "Ready").await;
    assert!(text.contains("loading"), "{text}");
    assert_eq!(fake.asked().keys().collect::<Vec<_>>(), ["/health", "/props", "/v1/models"]);
}

/// vLLM 0.32.0: its version is its own, asked with the list's interval; with a dead engine it lists its models and is not
/// well; behind a gateway that cannot reach it the reason says who answers; a key that it wants is told.
#[tokio::test]
async fn vllm_is_as_well_as_its_health() {
    let scene = Scene::new(1).await;
    let well = [
        ("/v1/models", 200, VLLM_MODELS),
        ("/health", 200, ""),
        ("/version", 200, r#"{"version":"0.32.0"}"#),
    ];
    let fake = Fake::start(&well).await;
    serve(&scene, "vllm", &fake, json!({"backendType": "VLLM"})).await;
    scene.until_online("vllm").await;
    let status = scene.status("vllm").await;
    assert_eq!((status.version.as_deref(), status.loaded_count), (Some("0.32.0"), Some(1)));
    fake.until_asked("/health", 4).await;
    assert_eq!(fake.count("/version"), 1, "not at each poll");
    for (path, code, reason) in [
        ("/health", 500, "InvalidResponse"),
        ("/health", 502, "ProxyError"),
        ("/health", 503, "ServerBusy"),
        ("/v1/models", 504, "ProxyError"),
        ("/v1/models", 401, "Unauthorized"),
    ] {
        fake.say(&[(path, code, "")]);
        scene.until("vllm", "Ready", "False", reason).await;
        fake.say(&well);
        scene.until_online("vllm").await;
    }
    fake.say(&[("/v1/models", 401, "")]);
    scene.until("vllm", "Ready", "False", "Unauthorized").await;
    assert!(message(&scene, "vllm", "Ready").await.contains("secretRef"));
}

/// Pages, and JSON of others, are no Ollama and no vLLM, at once and for good.
#[tokio::test]
async fn another_api_is_not_taken_for_the_one_that_is_wanted() {
    let scene = Scene::new(1).await;
    let page = "<!doctype html><html></html>";
    let lm_studio = r#"{"error":"Unexpected endpoint or method. (GET /x)"}"#;
    let rows: Vec<(&str, &str, Vec<Row<'_>>)> = vec![
        // Open WebUI 0.12.4: the version is open, the rest is its application.
        (
            "open-webui",
            "Ollama",
            vec![
                ("/api/version", 200, r#"{"version":"0.12.4"}"#),
                ("/api/ps", 200, page),
                ("/api/tags", 200, page),
                ("/", 200, page),
            ],
        ),
        // llama-swap has a version of its own.
        ("llama-swap", "Ollama", vec![("/api/version", 200, r#"{"version":"v210","commit":"abc"}"#)]),
        (
            "lm-studio",
            "Ollama",
            ["/api/version", "/api/ps", "/api/tags", "/"].map(|path| (path, 200, lm_studio)).into(),
        ),
        ("a-page", "VLLM", ["/v1/models", "/health"].map(|path| (path, 200, page)).into()),
        ("an-error", "VLLM", ["/v1/models", "/health"].map(|path| (path, 200, lm_studio)).into()),
    ];
    let mut fakes = Vec::new();
    for (name, backend, answers) in &rows {
        let fake = Fake::start(answers).await;
        serve(&scene, name, &fake, json!({ "backendType": backend, "poll": {"interval": "1m"} })).await;
        fakes.push(fake);
    }
    for (name, ..) in &rows {
        // Long before a second poll.
        scene.until(name, "Ready", "False", "NotOllama").await;
        let status = scene.status(name).await;
        assert!(status.models.is_none() && status.loaded_models.is_none(), "{name}: {status:?}");
    }
}

/// An Ollama whose /api/ps hangs, as it does while a version before 0.5 loads from a slow disk, is asked for its models
/// all the same; and one that never answers for them keeps nobody from what is in memory.
#[tokio::test]
async fn what_is_due_gets_its_turn_at_a_host_that_hangs() {
    let scene = Scene::new(1).await;
    let tags = r#"{"models":[{"name":"qwen3:8b","size":5225388164}]}"#;
    let ps = r#"{"models":[{"name":"qwen3:8b","size":6000000000,"size_vram":6000000000}]}"#;
    let version = ("/api/version", 200, r#"{"version":"0.4.7"}"#);
    let (no_ps, no_tags) = (
        Fake::start(&[version, ("/api/ps", 0, ""), ("/api/tags", 200, tags)]).await,
        Fake::start(&[version, ("/api/ps", 200, ps), ("/api/tags", 0, "")]).await,
    );
    let often = json!({"poll": {"interval": "1s", "timeout": "800ms", "modelsInterval": "1s"}});
    for (name, fake) in [("no-ps", &no_ps), ("no-tags", &no_tags)] {
        serve(&scene, name, fake, often.clone()).await;
        scene.until_online(name).await;
    }
    eventually(PATIENCE, "its models are known", async || {
        let count = scene.status("no-ps").await.model_count;
        if count == Some(1) { Ok(()) } else { Err(format!("{count:?}")) }
    })
    .await;
    for fake in [&no_ps, &no_tags] {
        fake.until_asked("/api/version", 9).await;
        let polls = fake.count("/api/version");
        for path in ["/api/ps", "/api/tags"] {
            let turns = fake.count(path);
            assert!(turns * 3 + 3 >= polls, "{path}: {turns} turns in {polls} polls");
        }
    }
    assert_eq!(scene.status("no-tags").await.loaded_count, Some(1));
    scene.until_online("no-ps").await;
}
