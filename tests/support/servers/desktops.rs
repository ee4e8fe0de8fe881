//! Programs with a store of models that load on demand: Ollama and those that people run in its place.

use super::{
    Answer, HTML, JSON, Known,
    Life::{Down, Loading, Serving, Unloaded},
    Memory, ONLINE, Program, REFUSED, Setting, Stage, TEXT, UP, answer, json, other, stage,
};
use crate::support::servers::BUSY;

pub const ALL: &[Program] = &[OLLAMA, OLLAMA_OLD, LM_STUDIO, LOCALAI, LEMONADE];

const OLLAMA_TAGS: &str = r#"{"models":[{"name":"qwen3:8b","model":"qwen3:8b","modified_at":"2026-01-01T00:00:00Z",
"size":5225388164,"digest":"500a1f067a9f782620b40bee6f7b0c89e17ae61f686b92c24933e4ca4b2b8b41",
"details":{"format":"gguf","family":"qwen3","families":["qwen3"],"parameter_size":"8.2B","quantization_level":"Q4_K_M"}}]}"#;
const OLLAMA_PS: &str = r#"{"models":[{"name":"qwen3:8b","model":"qwen3:8b","size":6442450944,"size_vram":6442450944,
"digest":"500a1f067a9f782620b40bee6f7b0c89e17ae61f686b92c24933e4ca4b2b8b41","expires_at":"2318-01-01T00:00:00Z",
"details":{"format":"gguf","family":"qwen3","families":["qwen3"],"parameter_size":"8.2B","quantization_level":"Q4_K_M"},
"context_length":4096}]}"#;
const NOTHING: &str = r#"{"models":[]}"#;
/// A model that loads is not listed until it has loaded.
const OLLAMA_LIFE: &[Stage] = &[
    stage(Down, REFUSED, Memory::Unknown),
    stage(Unloaded, ONLINE, Memory::Known(&[])),
    stage(Loading, ONLINE, Memory::Known(&[])),
    stage(Serving, ONLINE, Memory::Known(&["qwen3:8b"])),
    stage(Unloaded, ONLINE, Memory::Known(&[])),
    stage(Serving, ONLINE, Memory::Known(&["qwen3:8b"])),
    stage(Down, REFUSED, Memory::Unknown),
    stage(Unloaded, ONLINE, Memory::Known(&[])),
];
const OLLAMA_404: Answer = answer(404, TEXT, "404 page not found");

pub const OLLAMA: Program = Program {
    name: "ollama",
    title: "Ollama",
    version: "0.34.0",
    known: Known::Run,
    rows: &[
        json("/api/version", UP, 200, r#"{"version":"0.34.0"}"#),
        json("/api/tags", UP, 200, OLLAMA_TAGS),
        json("/api/ps", &[Serving], 200, OLLAMA_PS),
        json("/api/ps", UP, 200, NOTHING),
        other("/", UP, answer(200, TEXT, "Ollama is running")),
    ],
    otherwise: OLLAMA_404,
    others: &[],
    settings: &[Setting {
        backend_type: "Ollama",
        health_path: None,
        models: Some(1),
        version: Some("0.34.0"),
        stages: OLLAMA_LIFE,
    }],
};

/// An installation of early 2025.
const OLLAMA_OLD: Program = Program {
    name: "ollama-old",
    version: "0.6.5",
    rows: &[
        json("/api/version", UP, 200, r#"{"version":"0.6.5"}"#),
        json("/api/tags", UP, 200, OLLAMA_TAGS),
        json("/api/ps", &[Serving], 200, OLLAMA_PS),
        json("/api/ps", UP, 200, NOTHING),
    ],
    others: &[],
    settings: &[Setting {
        backend_type: "Ollama",
        health_path: None,
        models: Some(1),
        version: Some("0.6.5"),
        stages: OLLAMA_LIFE,
    }],
    ..OLLAMA
};

/// Whether something is in memory, nobody can see.
const ON_DEMAND: &[Stage] = &[
    stage(Down, REFUSED, Memory::Unknown),
    stage(Unloaded, ONLINE, Memory::Unknown),
    stage(Serving, ONLINE, Memory::Unknown),
    stage(Unloaded, ONLINE, Memory::Unknown),
    stage(Down, REFUSED, Memory::Unknown),
    stage(Unloaded, ONLINE, Memory::Unknown),
];

const LM_STUDIO_LIST: &str = r#"{"data":[{"id":"qwen3-8b","object":"model","owned_by":"organization_owner"},
{"id":"text-embedding-nomic-embed-text-v1.5","object":"model","owned_by":"organization_owner"}],"object":"list"}"#;

/// With loading on demand the list is what is on disk. A path that it does not know is an error with status 200.
pub const LM_STUDIO: Program = Program {
    name: "lm-studio",
    title: "LM Studio",
    version: "0.4",
    known: Known::Read,
    rows: &[json("/v1/models", UP, 200, LM_STUDIO_LIST)],
    otherwise: answer(200, JSON, r#"{"error":"Unexpected endpoint or method. (GET). Returning 200 anyway"}"#),
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(2),
        version: None,
        stages: ON_DEMAND,
    }],
};

/// `/readyz` is 503 while models are preloaded. The list has no owners. `core/http/routes/health.go`.
pub const LOCALAI: Program = Program {
    name: "localai",
    title: "LocalAI",
    version: "v4.9.0",
    known: Known::Read,
    rows: &[
        json("/v1/models", UP, 200, r#"{"object":"list","data":[{"id":"qwen3-8b","object":"model"}]}"#),
        other("/healthz", UP, answer(200, JSON, "")),
        json("/readyz", &[Loading], 503, r#"{"reason":"startup preload in progress","status":"starting"}"#),
        other("/readyz", UP, answer(200, JSON, "")),
        json("/api/version", UP, 200, r#"{"version":"0.9.0"}"#),
        json("/api/ps", &[Unloaded], 200, r#"{"models":null}"#),
    ],
    otherwise: answer(404, JSON, r#"{"error":{"code":404,"message":"Resource not found","type":""}}"#),
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: Some("/readyz"),
        models: Some(1),
        version: None,
        stages: &[
            stage(Down, REFUSED, Memory::Unknown),
            stage(Loading, BUSY, Memory::Unknown),
            stage(Unloaded, ONLINE, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Unknown),
            stage(Unloaded, ONLINE, Memory::Unknown),
            stage(Down, REFUSED, Memory::Unknown),
            stage(Unloaded, ONLINE, Memory::Unknown),
        ],
    }],
};

const LEMONADE_LIST: &str = r#"{"object":"list","data":[{"id":"Qwen3-8B-GGUF","object":"model","created":1234567890,
"owned_by":"lemonade","checkpoint":"unsloth/Qwen3-8B-GGUF:Q4_1","recipe":"llamacpp","downloaded":true,"size":5.25}]}"#;

/// The list is what is downloaded. `/health` is the page of its web app. `src/cpp/server/server.cpp`.
const LEMONADE: Program = Program {
    name: "lemonade",
    title: "Lemonade",
    version: "v11.7.0",
    known: Known::Read,
    rows: &[
        json("/v1/models", UP, 200, LEMONADE_LIST),
        json("/live", UP, 200, r#"{"status":"ok"}"#),
        json(
            "/v1/health",
            &[Serving],
            200,
            r#"{"status":"ok","version":"11.7.0","model_loaded":"Qwen3-8B-GGUF"}"#,
        ),
        json("/v1/health", UP, 200, r#"{"status":"ok","version":"11.7.0","model_loaded":null}"#),
        json("/api/version", UP, 200, r#"{"version":"0.16.1"}"#),
    ],
    otherwise: answer(200, HTML, "<!doctype html><html><head><title>Lemonade</title></head></html>"),
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: Some("/v1/health"),
        models: Some(1),
        version: None,
        stages: ON_DEMAND,
    }],
};
