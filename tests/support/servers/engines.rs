//! Programs that keep one model, or the models that they were told to, in memory, and answer as `OpenAI`'s API does.

use super::{
    Answer,
    Cost::{Inference, KeepAwake},
    JSON, Known,
    Life::{Broken, Down, Loading, Serving, Unloaded},
    Memory, ONLINE, Program, REFUSED, Row, Setting, Stage, TEXT, answer, json, other, stage,
};
use crate::support::servers::{BUSY, HTML, UP};

pub const ALL: &[Program] = &[VLLM, SGLANG, TGI, TEI, MLX_LM, TABBY_API, XINFERENCE, KOBOLD_CPP, EXO];

const FAST_API_404: Answer = answer(404, JSON, r#"{"detail":"Not Found"}"#);
const EMPTY: Answer = answer(200, JSON, "");
const UNAVAILABLE: Answer = answer(503, JSON, "");

const VLLM_LIST: &str = r#"{"object":"list","data":[{"id":"Qwen/Qwen3-8B","object":"model","created":{now},
"owned_by":"vllm","root":"Qwen/Qwen3-8B","parent":null,"max_model_len":40960,"permission":[{"id":"modelperm-{now}",
"object":"model_permission","created":{now},"allow_create_engine":false,"is_blocking":false}]}]}"#;

/// It listens when its model is loaded. When the engine dies the list stays good and `/health` is an empty 503.
pub const VLLM: Program = Program {
    name: "vllm",
    title: "vLLM",
    version: "0.32.0",
    known: Known::Run,
    rows: &[
        json("/v1/models", &[Serving, Broken], 200, VLLM_LIST),
        other("/health", &[Serving], EMPTY),
        other("/health", &[Broken], UNAVAILABLE),
        json("/version", &[Serving, Broken], 200, r#"{"version":"0.32.0"}"#),
        other("/metrics", &[Serving, Broken], answer(200, TEXT, "vllm:num_requests_running 0\n")),
    ],
    otherwise: FAST_API_404,
    others: &[Setting {
        backend_type: "Generic",
        health_path: None,
        models: None,
        version: None,
        stages: WITH_HEALTH,
    }],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(1),
        version: Some("0.32.0"),
        stages: &[
            stage(Down, REFUSED, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Known(&["Qwen/Qwen3-8B"])),
            stage(Broken, BUSY, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Known(&["Qwen/Qwen3-8B"])),
            stage(Down, REFUSED, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Known(&["Qwen/Qwen3-8B"])),
        ],
    }],
};

const SGLANG_LIST: &str = r#"{"object":"list","data":[{"id":"Qwen/Qwen3-8B","object":"model","created":{now},
"owned_by":"sglang","root":"Qwen/Qwen3-8B","parent":null,"max_model_len":40960}]}"#;

/// `/health` and `/health_generate` generate a token, and take a second at least; they are 503 while it warms up.
/// `python/sglang/srt/entrypoints/http_server.py`.
pub const SGLANG: Program = Program {
    name: "sglang",
    title: "SGLang",
    version: "main branch",
    known: Known::Read,
    rows: &[
        json("/v1/models", &[Loading, Serving, Broken], 200, SGLANG_LIST),
        other("/health", &[Loading], UNAVAILABLE),
        other("/health", &[Serving], EMPTY).costs(&[Inference, KeepAwake]),
        other("/health", &[Broken], UNAVAILABLE).costs(&[Inference, KeepAwake]),
        other("/health_generate", &[Loading], UNAVAILABLE),
        other("/health_generate", &[Serving], EMPTY).costs(&[Inference, KeepAwake]),
        json("/get_server_info", &[Serving], 200, r#"{"version":"0.5"}"#),
    ],
    otherwise: FAST_API_404,
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(1),
        version: None,
        stages: &[
            stage(Down, REFUSED, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Known(&["Qwen/Qwen3-8B"])),
            stage(Down, REFUSED, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Known(&["Qwen/Qwen3-8B"])),
        ],
    }],
};

/// A life without a sign of what is in memory.
const PLAIN: &[Stage] = &[
    stage(Down, REFUSED, Memory::Unknown),
    stage(Serving, ONLINE, Memory::Unknown),
    stage(Down, REFUSED, Memory::Unknown),
    stage(Serving, ONLINE, Memory::Unknown),
];

/// One whose health path tells that what does the work is dead.
const WITH_HEALTH: &[Stage] = &[
    stage(Down, REFUSED, Memory::Unknown),
    stage(Serving, ONLINE, Memory::Unknown),
    stage(Broken, BUSY, Memory::Unknown),
    stage(Serving, ONLINE, Memory::Unknown),
    stage(Down, REFUSED, Memory::Unknown),
    stage(Serving, ONLINE, Memory::Unknown),
];

const TGI_LIST: &str = r#"{"object":"list","data":[{"id":"Qwen/Qwen3-8B","object":"model","created":0,
"owned_by":"Qwen/Qwen3-8B"}]}"#;
const TGI_UNHEALTHY: Answer = answer(503, JSON, r#"{"error":"unhealthy","error_type":"healthcheck"}"#);

/// `/health`, `/ping` and `/` run the model unless a generation has just succeeded: `backends/v3/src/backend.rs`.
const TGI: Program = Program {
    name: "tgi",
    title: "TGI",
    version: "v3.3.7",
    known: Known::Read,
    rows: &[
        json("/v1/models", &[Serving, Broken], 200, TGI_LIST),
        json("/info", &[Serving, Broken], 200, r#"{"model_id":"Qwen/Qwen3-8B","version":"3.3.7"}"#),
        other("/health", &[Serving], EMPTY).costs(&[Inference]),
        other("/health", &[Broken], TGI_UNHEALTHY).costs(&[Inference]),
        other("/ping", &[Serving], EMPTY).costs(&[Inference]),
        other("/", &[Serving], EMPTY).costs(&[Inference]),
    ],
    otherwise: answer(404, TEXT, ""),
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(1),
        version: None,
        stages: PLAIN,
    }],
};

/// `/health` and `/ping` run the model on a batch of one token until that has succeeded once, and again after each
/// failure: `backends/src/lib.rs`. It has no list of models.
const TEI: Program = Program {
    name: "tei",
    title: "TEI",
    version: "v1.9.3",
    known: Known::Read,
    rows: &[
        json("/info", &[Serving, Broken], 200, r#"{"model_id":"BAAI/bge-m3","version":"1.9.3"}"#),
        other("/health", &[Serving], EMPTY).costs(&[Inference]),
        json("/health", &[Broken], 503, r#"{"error":"unhealthy","error_type":"unhealthy"}"#)
            .costs(&[Inference]),
        other("/ping", &[Serving], EMPTY).costs(&[Inference]),
    ],
    otherwise: answer(404, TEXT, ""),
    others: &[],
    settings: &[Setting {
        backend_type: "Generic",
        health_path: Some("/info"),
        models: None,
        version: None,
        stages: PLAIN,
    }],
};

/// Its list has what is in the download cache, without an owner; without that folder (`Unloaded` here) it is a 200
/// without a body. `/health` is 503 while the thread of the model is dead or has not loaded it.
const MLX_LM: Program = Program {
    name: "mlx-lm",
    title: "mlx_lm.server",
    version: "0.32.2",
    known: Known::Run,
    rows: &[
        json("/v1/models", &[Unloaded], 200, ""),
        json(
            "/v1/models",
            UP,
            200,
            r#"{"object":"list","data":[{"id":"mlx-community/Qwen3-8B-4bit","object":"model","created":1764500000}]}"#,
        ),
        json("/health", &[Serving, Unloaded], 200, r#"{"status":"ok"}"#),
        json("/health", &[Loading, Broken], 503, r#"{"status":"unavailable"}"#),
    ],
    otherwise: answer(404, JSON, "Not Found"),
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: Some("/health"),
        models: Some(1),
        version: None,
        stages: &[
            stage(Down, REFUSED, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Unknown),
            stage(Broken, BUSY, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Unknown),
            stage(Unloaded, ONLINE, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Unknown),
            stage(Down, REFUSED, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Unknown),
        ],
    }],
};

/// The list is what is in memory for a user's key, and what is on disk for the administrator's. `/health` is 503
/// once an error has been kept: `endpoints/core/router.py`.
const TABBY_API: Program = Program {
    name: "tabbyapi",
    title: "TabbyAPI",
    version: "main branch of August 2026",
    known: Known::Read,
    rows: &[
        json(
            "/v1/models",
            &[Serving, Broken],
            200,
            r#"{"object":"list","data":[{"id":"qwen3-8b-exl3","object":"model","created":{now},"owned_by":"tabbyAPI"}]}"#,
        ),
        json("/v1/models", &[Unloaded], 200, r#"{"object":"list","data":[]}"#),
        json("/health", &[Serving, Unloaded], 200, r#"{"status":"healthy","issues":[]}"#),
        json(
            "/health",
            &[Broken],
            503,
            r#"{"status":"unhealthy","issues":[{"time":"2026-08-13T20:55:45Z","description":"CUDA error"}]}"#,
        ),
    ],
    otherwise: FAST_API_404,
    others: &[Setting {
        backend_type: "VLLM",
        health_path: Some("/health"),
        models: Some(1),
        version: None,
        stages: WITH_HEALTH,
    }],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(1),
        version: None,
        stages: PLAIN,
    }],
};

/// The list is what was launched; `owned_by` is its own name. `xinference/api/restful_api.py`.
const XINFERENCE: Program = Program {
    name: "xinference",
    title: "Xinference",
    version: "v3.2.0",
    known: Known::Read,
    rows: &[
        json(
            "/v1/models",
            &[Serving],
            200,
            r#"{"object":"list","data":[{"id":"qwen3","object":"model","created":0,"owned_by":"xinference","model_type":"LLM"}]}"#,
        ),
        json("/status", &[Serving], 200, r#"{"127.0.0.1:30000":{"cpu":{"usage":0.1}}}"#),
    ],
    otherwise: FAST_API_404,
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(1),
        version: None,
        stages: PLAIN,
    }],
};

const KOBOLD_LIST: &str = r#"{"object":"list","data":[{"id":"koboldcpp/qwen3-8b","object":"model","created":{now},
"owned_by":"koboldcpp","permission":[],"root":"koboldcpp"}]}"#;
const KOBOLD_404: Answer = answer(
    404,
    HTML,
    "Error: HTTP Server is running, but this endpoint does not exist. Please check the URL.",
);

/// It has one model, and answers when that is loaded. `koboldcpp.py`.
const KOBOLD_CPP: Program = Program {
    name: "koboldcpp",
    title: "KoboldCpp",
    version: "1.76",
    known: Known::Read,
    rows: &[
        json("/v1/models", &[Serving], 200, KOBOLD_LIST),
        json(
            "/api/extra/version",
            &[Serving],
            200,
            r#"{"result":"KoboldCpp","version":"1.76","protected":false}"#,
        ),
        json(
            "/api/tags",
            &[Serving],
            200,
            r#"{"models":[{"name":"koboldcpp","model":"qwen3-8b","size":394998579}]}"#,
        ),
    ],
    otherwise: KOBOLD_404,
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(1),
        version: None,
        stages: PLAIN,
    }],
};

/// The list is everything that it knows of, here or not. `src/exo/api/main.py`.
const EXO: Program = Program {
    name: "exo",
    title: "exo",
    version: "0.3.70",
    known: Known::Read,
    rows: &[
        EXO_LIST,
        json("/node_id", UP, 200, r#""12D3KooWQYhTNQdmr3ArTeUHRYzFg94BKyTkoWBDWez9kSCVe2Xo""#),
        json("/ollama/api/version", UP, 200, r#"{"version":"1.0.0"}"#),
    ],
    otherwise: FAST_API_404,
    others: &[],
    settings: &[Setting {
        backend_type: "Generic",
        health_path: Some("/node_id"),
        models: None,
        version: None,
        stages: PLAIN,
    }],
};
const EXO_LIST: Row = json(
    "/v1/models",
    UP,
    200,
    r#"{"object":"list","data":[{"id":"mlx-community/Qwen3-8B-4bit","object":"model","created":{now},
"owned_by":"exo","name":"Qwen3-8B-4bit","storage_size_megabytes":4600,"tasks":["TextGeneration"]}]}"#,
);
