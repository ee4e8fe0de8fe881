//! Lists of real servers, a row each: whose they are, and what they tell of memory.

use super::*;
use rstest::rstest;

/// llama-server b10434 with `--alias tiny`, shortened: the list of the single mode has no state.
const LLAMA_SINGLE: &str = r#"{"models":[{"name":"tiny","model":"tiny","size":"","details":{"format":"gguf"}}],"object":"list",
    "data":[{"id":"tiny","aliases":["tiny"],"object":"model","created":1796094372,"owned_by":"llamacpp","meta":{"size":463616}}]}"#;
/// llama-server b10434 in router mode, shortened: one loaded, one asleep, one that could not be loaded.
const LLAMA_ROUTER: &str = r#"{"data":[
    {"id":"a","object":"model","owned_by":"llamacpp","status":{"value":"loaded","args":["--metrics"],"preset":"[a]"}},
    {"id":"b","object":"model","owned_by":"llamacpp","status":{"value":"sleeping","args":[]}},
    {"id":"c","object":"model","owned_by":"llamacpp","status":{"value":"loading"}},
    {"id":"broken","object":"model","owned_by":"llamacpp","status":{"value":"unloaded","exit_code":1,"failed":true}}],"object":"list"}"#;
/// vLLM 0.32.0, shortened.
const VLLM: &str = r#"{"object":"list","data":[{"id":"Qwen/Qwen3-0.6B","object":"model","created":1796094000,"owned_by":"vllm",
    "root":"Qwen/Qwen3-0.6B","parent":null,"max_model_len":40960,"permission":[{"id":"modelperm-1"}]}]}"#;
/// `SGLang` 0.5.
const SGLANG: &str = r#"{"object":"list","data":[{"id":"qwen","object":"model","created":1,"owned_by":"sglang","root":"qwen"}]}"#;
/// `LiteLLM` 1.108.7.
const LITELLM: &str = r#"{"data":[{"id":"gpt-a","object":"model","created":1677610602,"owned_by":"openai"},
    {"id":"gpt-b","object":"model","created":1677610602,"owned_by":"openai"}],"object":"list"}"#;
/// Ollama 0.34.0, whose list is of what is on disk.
const OLLAMA: &str =
    r#"{"object":"list","data":[{"id":"qwen3:8b","object":"model","created":1,"owned_by":"library"}]}"#;

fn list(body: &str) -> Listing {
    models(body.as_bytes()).unwrap()
}

#[rstest]
#[case::llama_single(LLAMA_SINGLE, Maker::LlamaCpp, true)]
#[case::llama_router(LLAMA_ROUTER, Maker::LlamaCpp, false)]
#[case::vllm(VLLM, Maker::Vllm, false)]
#[case::sglang(SGLANG, Maker::SgLang, false)]
#[case::litellm(LITELLM, Maker::Other, false)]
#[case::ollama(OLLAMA, Maker::Other, false)]
#[case::empty(r#"{"data":[]}"#, Maker::Other, false)]
#[case::of_two_makers(
    r#"{"data":[{"id":"a","owned_by":"vllm"},{"id":"b","owned_by":"llamacpp"}]}"#,
    Maker::Other,
    false
)]
#[case::one_of_many_says_nothing(
    r#"{"data":[{"id":"a","owned_by":"vllm"},{"id":"b"}]}"#,
    Maker::Other,
    false
)]
#[case::another_spelling(r#"{"data":[{"id":"a","owned_by":"vLLM"}]}"#, Maker::Other, false)]
#[case::no_text(r#"{"data":[{"id":"a","owned_by":["vllm"]}]}"#, Maker::Other, false)]
fn a_list_is_of_one_maker_or_of_nobody_that_is_known(
    #[case] body: &str,
    #[case] maker: Maker,
    #[case] needs_props: bool,
) {
    assert_eq!((list(body).maker(), list(body).needs_props()), (maker, needs_props));
}

#[rstest]
#[case::vllm(VLLM, None, Some(&["Qwen/Qwen3-0.6B"][..]))]
#[case::sglang(SGLANG, None, Some(&["qwen"][..]))]
#[case::llama_single_awake(LLAMA_SINGLE, Some(false), Some(&["tiny"][..]))]
#[case::llama_single_asleep(LLAMA_SINGLE, Some(true), Some(&[][..]))]
#[case::llama_single_with_props_for_others(LLAMA_SINGLE, None, None)]
#[case::llama_router(LLAMA_ROUTER, None, Some(&["a"][..]))]
// llama-swap has states under an owner of its own.
#[case::llama_swap(
    r#"{"data":[{"id":"x","owned_by":"llama-swap","status":{"value":"unloaded"}},{"id":"y","owned_by":"llama-swap","status":{"value":"loaded"}}]}"#,
    None,
    Some(&["y"][..])
)]
#[case::litellm(LITELLM, None, None)]
#[case::ollama(OLLAMA, None, None)]
// mlx_lm.server 0.32.2 names no owner, and nothing at all without its model.
#[case::mlx(
    r#"{"object":"list","data":[{"id":"mlx-community/x","object":"model","created":1796094811}]}"#,
    None,
    None
)]
#[case::nothing_listed(r#"{"object":"list","data":[]}"#, None, None)]
#[case::null(r#"{"object":"list","data":null}"#, None, None)]
#[case::a_state_of_tomorrow(r#"{"data":[{"id":"x","status":{"value":"hibernating"}}]}"#, None, None)]
#[case::one_without_a_state(
    r#"{"data":[{"id":"x","status":{"value":"loaded"}},{"id":"y","owned_by":"openai"}]}"#,
    None,
    None
)]
#[case::a_state_that_is_none(r#"{"data":[{"id":"x","owned_by":"vllm","status":"loaded"}]}"#, None, Some(&["x"][..]))]
#[case::a_state_that_is_none_of_others(r#"{"data":[{"id":"x","status":7}]}"#, None, None)]
fn what_is_in_memory_is_known_or_not_said(
    #[case] body: &str,
    #[case] sleeps: Option<bool>,
    #[case] expected: Option<&[&str]>,
) {
    let loaded = list(body).loaded(sleeps);
    let names: Option<Vec<&str>> =
        loaded.known().map(|loaded| loaded.iter().map(|model| model.name.as_str()).collect());
    assert_eq!(names.as_deref(), expected);
    assert!(expected.is_some() || loaded == Part::Unknown, "{loaded:?}");
}

#[rstest]
#[case::names(br#"{"object":"list","data":[{"id":"m2"},{"id":"m1"},{"id":"m1"}]}"#, Ok(2))]
// Ollama before 0.3 with nothing on disk.
#[case::null_when_empty(br#"{"object":"list","data":null}"#, Ok(0))]
// LM Studio 0.4.17 at a path that it does not have, under a 200.
#[case::lm_studio(br#"{"error":"Unexpected endpoint or method. (GET /v1/models)"}"#, Err(Failure::NotOllama))]
// Open WebUI 0.12.4: a web application at any path.
#[case::a_page(b"<!doctype html><html lang=\"en\"></html>", Err(Failure::NotOllama))]
#[case::a_page_with_a_mark(b"\xef\xbb\xbf\n <html>", Err(Failure::NotOllama))]
#[case::ollamas_own_list(br#"{"models":[]}"#, Err(Failure::NotOllama))]
#[case::no_data(b"{}", Err(Failure::NotOllama))]
#[case::a_list(b"[]", Err(Failure::NotOllama))]
#[case::a_word(br#""I'm alive!""#, Err(Failure::NotOllama))]
#[case::an_object_for_data(br#"{"data":{}}"#, Err(Failure::InvalidResponse))]
#[case::no_id(br#"{"data":[{}]}"#, Err(Failure::InvalidResponse))]
#[case::a_number_for_an_id(br#"{"data":[{"id":5}]}"#, Err(Failure::InvalidResponse))]
#[case::cut(br#"{"data":[{"id":"a"}"#, Err(Failure::InvalidResponse))]
#[case::empty(b"", Err(Failure::InvalidResponse))]
fn lists_of_other_apis_are_told_from_broken_ones(#[case] body: &[u8], #[case] count: Result<usize, Failure>) {
    assert_eq!(models(body).map(|listing| listing.entries.len()), count);
}

#[rstest]
// llama-server b10434, shortened.
#[case(br#"{"default_generation_settings":{"params":{}},"total_slots":4,"build_info":"b10434","is_sleeping":true}"#, Ok(true))]
#[case(br#"{"default_generation_settings":{"params":{}},"total_slots":4,"is_sleeping":false}"#, Ok(false))]
// Builds before --sleep-idle-seconds do not have the key: they cannot sleep.
#[case(br#"{"default_generation_settings":{},"total_slots":1}"#, Ok(false))]
#[case(br#"{"status":"ok"}"#, Err(Failure::NotOllama))]
#[case(br#"{"default_generation_settings":{},"is_sleeping":"yes"}"#, Err(Failure::InvalidResponse))]
#[case(b"<html>", Err(Failure::NotOllama))]
fn props_tell_whether_the_model_sleeps(#[case] body: &[u8], #[case] expected: Result<bool, Failure>) {
    assert_eq!(sleeps(body), expected);
}
