//! Programs that have no model of their own and hand requests on.

use super::{
    Cost::Inference,
    HTML, JSON, Known,
    Life::{Broken, Down, Serving},
    Memory, ONLINE, Program, REFUSED, Setting, Stage, TEXT, UP, answer, json, other, stage,
};

pub const ALL: &[Program] = &[LITELLM, OPEN_WEBUI, OLLA];

/// What is behind it may be dead; it is well.
const GATEWAY: &[Stage] = &[
    stage(Down, REFUSED, Memory::Unknown),
    stage(Serving, ONLINE, Memory::Unknown),
    stage(Broken, ONLINE, Memory::Unknown),
    stage(Serving, ONLINE, Memory::Unknown),
    stage(Down, REFUSED, Memory::Unknown),
    stage(Serving, ONLINE, Memory::Unknown),
];

const LITELLM_LIST: &str = r#"{"data":[{"id":"gpt-4o","object":"model","created":1677610602,"owned_by":"openai"},
{"id":"qwen3-8b","object":"model","created":1677610602,"owned_by":"openai"}],"object":"list"}"#;
const LITELLM_HEALTH: &str = r#"{"healthy_endpoints":[{"model":"openai/gpt-4o"},{"model":"openai/qwen3-8b"}],
"unhealthy_endpoints":[],"healthy_count":2,"unhealthy_count":0}"#;
const LITELLM_SICK: &str = r#"{"healthy_endpoints":[],"unhealthy_endpoints":[{"model":"openai/gpt-4o",
"error":"litellm.InternalServerError"},{"model":"openai/qwen3-8b","error":"litellm.InternalServerError"}],
"healthy_count":0,"unhealthy_count":2}"#;

/// `/health` runs a completion of every model at its provider.
pub const LITELLM: Program = Program {
    name: "litellm",
    title: "LiteLLM",
    version: "1.108.7",
    known: Known::Run,
    rows: &[
        json("/v1/models", UP, 200, LITELLM_LIST),
        json("/health/liveliness", UP, 200, r#""I'm alive!""#),
        json(
            "/health/readiness",
            UP,
            200,
            r#"{"status":"healthy","db":"Not connected","litellm_version":"1.108.7"}"#,
        ),
        json("/health", &[Serving], 200, LITELLM_HEALTH).costs(&[Inference, Inference]),
        json("/health", &[Broken], 200, LITELLM_SICK).costs(&[Inference, Inference]),
    ],
    otherwise: answer(404, JSON, r#"{"detail":"Not Found"}"#),
    others: &[
        Setting { backend_type: "VLLM", health_path: None, models: Some(2), version: None, stages: GATEWAY },
        Setting {
            backend_type: "Generic",
            health_path: Some("/health/liveliness"),
            models: None,
            version: None,
            stages: GATEWAY,
        },
    ],
    settings: &[
        Setting {
            backend_type: "VLLM",
            health_path: Some("/health/readiness"),
            models: Some(2),
            version: None,
            stages: GATEWAY,
        },
        Setting {
            backend_type: "VLLM",
            health_path: Some("/health/liveliness"),
            models: Some(2),
            version: None,
            stages: GATEWAY,
        },
    ],
};

const PAGE: &str =
    "<!doctype html><html lang=\"en\"><head><title>Open WebUI</title></head><body></body></html>";

/// `/api/version` is open and looks like Ollama's; every other path of a browser is the page.
pub const OPEN_WEBUI: Program = Program {
    name: "open-webui",
    title: "Open WebUI",
    version: "0.12.4",
    known: Known::Run,
    rows: &[
        json("/health", UP, 200, r#"{"status":true}"#),
        json("/api/version", UP, 200, r#"{"version":"0.12.4"}"#),
        json("/ollama/api/version", UP, 401, r#"{"detail":"Not authenticated"}"#),
        json("/api/models", UP, 401, r#"{"detail":"Not authenticated"}"#),
    ],
    otherwise: answer(200, HTML, PAGE),
    others: &[],
    settings: &[Setting {
        backend_type: "Generic",
        health_path: Some("/health"),
        models: None,
        version: None,
        stages: GATEWAY,
    }],
};

/// Its own health is under `/internal/`; lists are under the prefixes of its providers. Nothing asks a model.
const OLLA: Program = Program {
    name: "olla",
    title: "Olla",
    version: "0.0.28",
    known: Known::Read,
    rows: &[
        json("/internal/health", UP, 200, r#"{"status":"healthy"}"#),
        json(
            "/olla/proxy/v1/models",
            UP,
            200,
            r#"{"object":"list","data":[{"id":"qwen3:8b","object":"model","owned_by":"olla","created":{now}}]}"#,
        ),
        other("/version", UP, answer(200, JSON, r#"{"name":"Olla","version":"v0.0.28"}"#)),
    ],
    otherwise: answer(404, TEXT, "404 page not found\n"),
    others: &[],
    settings: &[Setting {
        backend_type: "Generic",
        health_path: Some("/internal/health"),
        models: None,
        version: None,
        stages: GATEWAY,
    }],
};
