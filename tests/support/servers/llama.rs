//! llama.cpp's llama-server, alone and as a router, and llama-swap, which starts one for each model.

use super::{
    Cost::{KeepAwake, Load, Wake},
    HTML, Known,
    Life::{Broken, Down, Loading, Serving, Sleeping, Unloaded},
    Memory, ONLINE, Program, REFUSED, Setting, TEXT, answer, json, other, stage,
};
use crate::support::servers::{Answer, BUSY, Life, UP};

pub const ALL: &[Program] = &[LLAMA_SERVER, LLAMA_ROUTER, LLAMA_SWAP];

const AWAKE: &[Life] = &[Serving, Sleeping];
const NOT_FOUND: Answer =
    answer(404, super::JSON, r#"{"error":{"message":"File Not Found","type":"not_found_error","code":404}}"#);
const OK: &str = r#"{"status":"ok"}"#;
const MODEL: &str = "qwen3-8b";

const LOADING: Answer = answer(
    503,
    super::JSON,
    r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
);
const METRICS: Answer = answer(
    200,
    "text/plain; version=0.0.4",
    "# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens\n\
     # TYPE llamacpp:prompt_tokens_total counter\nllamacpp:prompt_tokens_total {uses}\n\
     # HELP llamacpp:tokens_predicted_total Number of generation tokens processed\n\
     # TYPE llamacpp:tokens_predicted_total counter\nllamacpp:tokens_predicted_total {uses}\n\
     # HELP llamacpp:requests_processing Number of requests processing\n\
     # TYPE llamacpp:requests_processing gauge\nllamacpp:requests_processing 0\n\
     # HELP llamacpp:requests_deferred Number of requests deferred\n\
     # TYPE llamacpp:requests_deferred gauge\nllamacpp:requests_deferred 0\n",
);
const SLOTS: Answer = answer(200, super::JSON, r#"[{"id":0,"n_ctx":40960,"is_processing":false}]"#);

const LIST: &str = r#"{"models":[{"name":"qwen3-8b","model":"qwen3-8b","type":"model","capabilities":["completion"]}],
"object":"list","data":[{"id":"qwen3-8b","aliases":["qwen3-8b"],"tags":[],"object":"model","created":{now},
"owned_by":"llamacpp","meta":{"vocab_type":2,"n_vocab":151936,"n_ctx_train":40960,"n_embd":4096,
"n_params":8190735360,"size":5022257152}}]}"#;
const PROPS: &str = r#"{"default_generation_settings":{"n_ctx":40960},"total_slots":1,"model_alias":"qwen3-8b",
"model_path":"/models/qwen3-8b.gguf","modalities":{"vision":false,"audio":false},"chat_template":"",
"build_info":"b10434-0","is_sleeping":false}"#;
const PROPS_ASLEEP: &str = r#"{"default_generation_settings":{"n_ctx":40960},"total_slots":1,"model_alias":"qwen3-8b",
"model_path":"/models/qwen3-8b.gguf","modalities":{"vision":false,"audio":false},"chat_template":"",
"build_info":"b10434-0","is_sleeping":true}"#;

/// Started with one model, `--metrics` and `--sleep-idle-seconds`. Everything is 503 while it loads.
pub const LLAMA_SERVER: Program = Program {
    name: "llama-server",
    title: "llama-server, one model",
    version: "b10434",
    known: Known::Run,
    rows: &[
        other("/health", &[Loading], LOADING),
        other("/v1/models", &[Loading], LOADING),
        other("/props", &[Loading], LOADING),
        other("/metrics", &[Loading], LOADING),
        other("/slots", &[Loading], LOADING),
        json("/health", AWAKE, 200, OK),
        json("/v1/models", AWAKE, 200, LIST),
        json("/props", &[Serving], 200, PROPS),
        json("/props", &[Sleeping], 200, PROPS_ASLEEP),
        other("/metrics", &[Serving], METRICS).costs(&[KeepAwake]),
        other("/slots", &[Serving], SLOTS).costs(&[KeepAwake]),
        other("/metrics", &[Sleeping], METRICS).costs(&[Wake, Load, KeepAwake]),
        other("/slots", &[Sleeping], SLOTS).costs(&[Wake, Load, KeepAwake]),
        other("/", AWAKE, answer(415, TEXT, "Error: gzip is not supported by this browser")),
    ],
    otherwise: NOT_FOUND,
    others: &[Setting {
        backend_type: "Generic",
        health_path: None,
        models: None,
        version: None,
        stages: &[
            stage(Down, REFUSED, Memory::Unknown),
            stage(Loading, BUSY, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Unknown),
            stage(Sleeping, ONLINE, Memory::Unknown),
            stage(Down, REFUSED, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Unknown),
        ],
    }],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(1),
        version: None,
        stages: &[
            stage(Down, REFUSED, Memory::Unknown),
            stage(Loading, BUSY, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Known(&[MODEL])),
            stage(Sleeping, ONLINE, Memory::Known(&[])),
            stage(Serving, ONLINE, Memory::Known(&[MODEL])),
            stage(Down, REFUSED, Memory::Unknown),
            stage(Serving, ONLINE, Memory::Known(&[MODEL])),
        ],
    }],
};

/// What the router says of a child, with the other of its two models on disk only.
macro_rules! router_list {
    ($status:literal) => {
        concat!(
            r#"{"data":[{"id":"gemma3-4b","aliases":[],"tags":[],"object":"model","owned_by":"llamacpp","created":{now},"#,
            r#""in_cache":true,"path":"","status":{"value":"unloaded","args":["llama-server"],"preset":""}},"#,
            r#"{"id":"qwen3-8b","aliases":[],"tags":[],"object":"model","owned_by":"llamacpp","created":{now},"#,
            r#""in_cache":true,"path":"","status":"#,
            $status,
            r#"}],"object":"list"}"#
        )
    };
}
const ROUTER_LIST: &str = router_list!(r#"{"value":"loaded","args":["llama-server"],"preset":""}"#);
const ROUTER_LIST_LOADING: &str = router_list!(r#"{"value":"loading","args":["llama-server"],"preset":""}"#);
const ROUTER_LIST_ASLEEP: &str = router_list!(r#"{"value":"sleeping","args":["llama-server"],"preset":""}"#);
const ROUTER_LIST_EMPTY: &str = router_list!(r#"{"value":"unloaded","args":["llama-server"],"preset":""}"#);
const ROUTER_LIST_FAILED: &str =
    router_list!(r#"{"value":"unloaded","args":["llama-server"],"preset":"","exit_code":1,"failed":true}"#);
const ROUTER_PROPS: &str = r#"{"role":"router","max_instances":4,"models_autoload":true,"model_alias":"llama-server",
"model_path":"none","default_generation_settings":{"params":null,"n_ctx":0},"build_info":"b10434-0"}"#;
const NO_NAME: Answer = answer(
    400,
    super::JSON,
    r#"{"error":{"code":400,"message":"model name is missing from the request","type":"invalid_request_error"}}"#,
);
const NOT_LOADED: Answer = answer(
    400,
    super::JSON,
    r#"{"error":{"code":400,"message":"model is not loaded","type":"invalid_request_error"}}"#,
);
const AT_REST: &[Life] = &[Unloaded, Broken];

/// Started without a model. What names a model is handed to its process, which is started for it.
pub const LLAMA_ROUTER: Program = Program {
    name: "llama-router",
    title: "llama-server, router",
    version: "b10434",
    known: Known::Run,
    rows: &[
        json("/health", UP, 200, OK),
        json("/v1/models", &[Loading], 200, ROUTER_LIST_LOADING),
        json("/v1/models", &[Serving], 200, ROUTER_LIST),
        json("/v1/models", &[Sleeping], 200, ROUTER_LIST_ASLEEP),
        json("/v1/models", &[Unloaded], 200, ROUTER_LIST_EMPTY),
        json("/v1/models", &[Broken], 200, ROUTER_LIST_FAILED),
        json("/props?model=qwen3-8b", &[Serving, Sleeping], 200, PROPS),
        json("/props?model=qwen3-8b", AT_REST, 200, PROPS).costs(&[Load, KeepAwake]),
        json("/props", UP, 200, ROUTER_PROPS),
        other("/metrics?model=qwen3-8b", &[Serving], METRICS).costs(&[KeepAwake]),
        other("/metrics?model=qwen3-8b&autoload=false", &[Serving], METRICS).costs(&[KeepAwake]),
        other("/metrics?model=qwen3-8b", &[Sleeping], METRICS).costs(&[Wake, Load, KeepAwake]),
        // It loads nothing that is unloaded, but it wakes what sleeps.
        other("/metrics?model=qwen3-8b&autoload=false", &[Sleeping], METRICS).costs(&[Wake, Load, KeepAwake]),
        other("/metrics?model=qwen3-8b&autoload=false", AT_REST, NOT_LOADED),
        other("/metrics?model=qwen3-8b", AT_REST, METRICS).costs(&[Load, KeepAwake]),
        other("/metrics", UP, NO_NAME),
        other("/slots", UP, NO_NAME),
    ],
    otherwise: NOT_FOUND,
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(2),
        version: None,
        stages: &[
            stage(Down, REFUSED, Memory::Unknown),
            stage(Unloaded, ONLINE, Memory::Known(&[])),
            stage(Loading, ONLINE, Memory::Known(&[])),
            stage(Serving, ONLINE, Memory::Known(&[MODEL])),
            stage(Sleeping, ONLINE, Memory::Known(&[])),
            stage(Serving, ONLINE, Memory::Known(&[MODEL])),
            stage(Broken, ONLINE, Memory::Known(&[])),
            stage(Serving, ONLINE, Memory::Known(&[MODEL])),
            stage(Down, REFUSED, Memory::Unknown),
            stage(Unloaded, ONLINE, Memory::Known(&[])),
        ],
    }],
};

const SWAP_LIST: &str = r#"{"object":"list","data":[
{"id":"gemma3-4b","object":"model","created":{now},"owned_by":"llama-swap","status":{"value":"unloaded"}},
{"id":"qwen3-8b","object":"model","created":{now},"owned_by":"llama-swap","status":{"value":"loaded"}}]}"#;
const SWAP_LIST_EMPTY: &str = r#"{"object":"list","data":[
{"id":"gemma3-4b","object":"model","created":{now},"owned_by":"llama-swap","status":{"value":"unloaded"}},
{"id":"qwen3-8b","object":"model","created":{now},"owned_by":"llama-swap","status":{"value":"unloaded"}}]}"#;

/// Everything under `/upstream/MODEL/` starts that model. `/api/version` is JSON and no Ollama's.
pub const LLAMA_SWAP: Program = Program {
    name: "llama-swap",
    title: "llama-swap",
    version: "v250",
    known: Known::Run,
    rows: &[
        other("/health", UP, answer(200, TEXT, "OK")),
        json("/v1/models", &[Serving], 200, SWAP_LIST),
        json("/v1/models", &[Unloaded], 200, SWAP_LIST_EMPTY),
        json("/running", &[Serving], 200, r#"{"running":[{"model":"qwen3-8b","state":"ready"}]}"#),
        json("/running", &[Unloaded], 200, r#"{"running":[]}"#),
        json("/api/version", UP, 200, r#"{"version":"250","commit":"0bdb372","build_date":"2026-08-22"}"#),
        json("/upstream/qwen3-8b/health", &[Serving], 200, OK).costs(&[KeepAwake]),
        json("/upstream/qwen3-8b/health", &[Unloaded], 200, OK).costs(&[Load, KeepAwake]),
        other("/ui", UP, answer(200, HTML, "<!doctype html><title>llama-swap</title>")),
    ],
    otherwise: answer(404, TEXT, "404 page not found\n"),
    others: &[],
    settings: &[Setting {
        backend_type: "VLLM",
        health_path: None,
        models: Some(2),
        version: None,
        stages: &[
            stage(Down, REFUSED, Memory::Unknown),
            stage(Unloaded, ONLINE, Memory::Known(&[])),
            stage(Serving, ONLINE, Memory::Known(&[MODEL])),
            stage(Unloaded, ONLINE, Memory::Known(&[])),
            stage(Down, REFUSED, Memory::Unknown),
            stage(Unloaded, ONLINE, Memory::Known(&[])),
        ],
    }],
};
