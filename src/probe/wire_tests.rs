//! Every quirk of Ollama's answers that reaches the operator, a row each.

use super::*;
use proptest::prelude::*;
use rstest::rstest;

fn at(text: &str) -> Timestamp {
    text.parse().unwrap()
}

#[rstest]
#[case::release(br#"{"version":"0.33.0-rc2"}"#, Ok("0.33.0-rc2"))]
#[case::source_build(br#"{"version":"0.0.0"}"#, Ok("0.0.0"))]
#[case::unknown_fields(br#"{"version":"0.24.0","gpus":[{}]}"#, Ok("0.24.0"))]
#[case::escapes_are_dropped(b"{\"version\":\"0.24.0\\u001b[2J\"}", Ok("0.24.0[2J"))]
#[case::wrong_type(br#"{"version":24}"#, Err(Failure::InvalidResponse))]
// LM Studio 0.4.17 says this under a 200, and some other API that.
#[case::an_error(
    br#"{"error":"Unexpected endpoint or method. (GET /api/version)"}"#,
    Err(Failure::NotOllama)
)]
#[case::missing(b"{}", Err(Failure::NotOllama))]
#[case::null(b"null", Err(Failure::InvalidResponse))]
#[case::blank(br#"{"version":" "}"#, Err(Failure::InvalidResponse))]
#[case::html(b"<html>login</html>", Err(Failure::NotOllama))]
#[case::empty(b"", Err(Failure::InvalidResponse))]
#[case::truncated(br#"{"version":"0.2"#, Err(Failure::InvalidResponse))]
fn versions(#[case] body: &[u8], #[case] expected: Result<&str, Failure>) {
    assert_eq!(version(body), expected.map(str::to_owned));
}

#[rstest]
#[case::null_is_an_empty_list(br#"{"models":null}"#, Ok(0))]
#[case::empty(br#"{"models":[]}"#, Ok(0))]
#[case::missing_key(b"{}", Err(Failure::NotOllama))]
#[case::a_bare_list(b"[]", Err(Failure::NotOllama))]
// Open WebUI 0.12.4 at /api/ps.
#[case::a_page(b"\n<!doctype html>", Err(Failure::NotOllama))]
#[case::an_object_for_a_list(br#"{"models":{}}"#, Err(Failure::InvalidResponse))]
#[case::an_entry_without_a_name(br#"{"models":[{"size":1}]}"#, Err(Failure::InvalidResponse))]
#[case::an_entry_that_is_no_object(br#"{"models":[1]}"#, Err(Failure::InvalidResponse))]
#[case::model_stands_in_for_name(br#"{"models":[{"model":"a:latest"}]}"#, Ok(1))]
#[case::the_same_name_twice(br#"{"models":[{"name":"a"},{"name":"a"}]}"#, Ok(1))]
fn lists_of_models(#[case] body: &[u8], #[case] count: Result<usize, Failure>) {
    assert_eq!(tags(body).map(|models| models.len()), count);
    assert_eq!(ps(body, None).map(|models| models.len()), count);
}

#[test]
fn a_whole_entry_of_tags_is_read() {
    let body = br#"{"models":[{"name":"qwen3:8b","model":"qwen3:8b","modified_at":"2025-05-10T08:06:48.639712648-07:00",
        "size":5225388164,"digest":"500a1f067a9f782620b40bee6f7b0c89e17ae61f686b92c24933e4ca4b2b8b41",
        "details":{"parent_model":"","format":"gguf","family":"qwen3","families":null,"parameter_size":"8.2B",
        "quantization_level":"Q4_K_M","context_length":40960},"capabilities":["completion","tools"]}]}"#;
    let models = tags(body).unwrap();
    let model = &models[0];
    assert_eq!(model.name, "qwen3:8b");
    assert_eq!(model.size, Some(5_225_388_164));
    assert_eq!(model.parameter_size.as_deref(), Some("8.2B"));
    assert_eq!(model.context_length, Some(40960));
    assert_eq!(model.modified, Some(at("2025-05-10T15:06:48.639712648Z")));
    assert_eq!(model.capabilities.as_deref(), Some(&["completion".to_owned(), "tools".to_owned()][..]));
    assert_eq!(model.remote_host, None);
}

#[test]
fn order_is_ours_because_the_hosts_order_changes() {
    let models = tags(br#"{"models":[{"name":"b"},{"name":"a"}]}"#).unwrap();
    assert_eq!(models.iter().map(|model| model.name.as_str()).collect::<Vec<_>>(), ["a", "b"]);
}

#[rstest]
#[case::float(r#"{"name":"a","size":1024.0}"#, Some(1024))]
#[case::negative(r#"{"name":"a","size":-1}"#, None)]
#[case::text(r#"{"name":"a","size":"1024"}"#, None)]
#[case::null(r#"{"name":"a","size":null}"#, None)]
#[case::a_list(r#"{"name":"a","size":[1]}"#, None)]
#[case::overflowing(r#"{"name":"a","size":1e300}"#, None)]
#[case::null_details(r#"{"name":"a","size":7,"details":null,"capabilities":null}"#, Some(7))]
#[case::cloud_stub(
    r#"{"name":"big:cloud","size":384,"remote_host":"https://ollama.example.com"}"#,
    Some(384)
)]
fn optional_fields_of_the_wrong_kind_are_unknown(#[case] entry: &str, #[case] size: Option<u64>) {
    let models = tags(format!(r#"{{"models":[{entry}]}}"#).as_bytes()).unwrap();
    assert_eq!(models[0].size, size);
}

#[rstest]
#[case::idle_countdown(
    "2025-05-10T08:10:00.5-07:00",
    Some("2025-05-10T15:06:00Z"),
    Expiry::At(at("2025-05-10T15:10:00.5Z"))
)]
#[case::stopping(
    "2025-05-10T08:05:00-07:00",
    Some("2025-05-10T15:06:00Z"),
    Expiry::Past(at("2025-05-10T15:05:00Z"))
)]
#[case::within_two_seconds(
    "2025-05-10T15:05:59Z",
    Some("2025-05-10T15:06:00Z"),
    Expiry::At(at("2025-05-10T15:05:59Z"))
)]
#[case::forever("2317-08-20T15:06:00Z", Some("2025-05-10T15:06:00Z"), Expiry::Never)]
#[case::no_date_header("2025-05-10T15:05:00Z", None, Expiry::At(at("2025-05-10T15:05:00Z")))]
#[case::go_zero_time("0001-01-01T00:00:00Z", Some("2025-05-10T15:06:00Z"), Expiry::Unknown)]
#[case::no_time("soon", Some("2025-05-10T15:06:00Z"), Expiry::Unknown)]
fn expiry_is_judged_by_the_hosts_own_clock(
    #[case] expires: &str,
    #[case] now: Option<&str>,
    #[case] expected: Expiry,
) {
    let body = format!(r#"{{"models":[{{"name":"a","expires_at":"{expires}"}}]}}"#);
    assert_eq!(ps(body.as_bytes(), now.map(at)).unwrap()[0].expires, expected);
}

#[test]
fn a_list_beyond_the_bound_is_refused_whole() {
    let entries = vec![r#"{"name":"x"}"#; MODELS_MAX + 1].join(",");
    assert_eq!(tags(format!(r#"{{"models":[{entries}]}}"#).as_bytes()), Err(Failure::ResponseTooLarge));
}

#[test]
fn deep_nesting_is_an_error_not_a_crash() {
    let body = format!(r#"{{"models":{}{}}}"#, "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(tags(body.as_bytes()), Err(Failure::InvalidResponse));
    for body in ["[".repeat(100_000) + &"]".repeat(100_000), "{\"a\":".repeat(100_000) + &"}".repeat(100_000)]
    {
        assert_eq!(tags(body.as_bytes()), Err(Failure::InvalidResponse));
    }
}

proptest! {
    #[test]
    fn no_bytes_make_a_parser_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
        let _ = (version(&body), tags(&body), ps(&body, None), super::super::openai_wire::models(&body));
        let _ = (super::super::openai_wire::sleeps(&body), super::super::health::judge(200, &body));
    }

    #[test]
    fn no_json_makes_a_parser_panic_or_lets_hidden_text_through(name in any::<String>(), size in any::<f64>()) {
        let body = serde_json::json!({"models": [{"name": name, "size": size, "digest": name, "details": {"family": name}}]});
        if let Ok(models) = tags(body.to_string().as_bytes()) {
            prop_assert!(models.iter().all(|model| !model.name.chars().any(char::is_control)));
        }
    }
}
