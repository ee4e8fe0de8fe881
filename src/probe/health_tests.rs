//! What real servers say at their health endpoints, and what is made of it.

use super::*;
use rstest::rstest;

/// `LiteLLM` 1.108.7, shortened.
const LITELLM: &str = r#"{"healthy_endpoints":[{"api_base":"http://192.0.2.7/v1","model":"openai/gpt-a"}],
    "unhealthy_endpoints":[],"healthy_count":1,"unhealthy_count":0}"#;

#[rstest]
// vLLM 0.32.0 says nothing at all.
#[case::vllm(200, "", Ok(Health::Well))]
// llama-server b10434.
#[case::llama(200, r#"{"status":"ok"}"#, Ok(Health::Well))]
#[case::llama_loading(
    503,
    r#"{"error":{"message":"Loading model","type":"unavailable_error","code":503}}"#,
    Err(Failure::ServerLoading)
)]
// LiteLLM 1.108.7, /health/liveliness and /health/readiness.
#[case::litellm_liveliness(200, r#""I'm alive!""#, Ok(Health::Well))]
#[case::litellm_readiness(200, r#"{"status":"healthy","db":"Not connected"}"#, Ok(Health::Well))]
#[case::litellm(200, LITELLM, Err(Failure::HealthPathRunsModels))]
#[case::litellm_under_an_error(503, LITELLM, Err(Failure::HealthPathRunsModels))]
#[case::litellm_cut(
    200,
    r#"{"healthy_endpoints":[{"model":"openai/gpt-a"#,
    Err(Failure::HealthPathRunsModels)
)]
#[case::litellm_all_dead_and_cut(200, r#"{"unhealthy_endpoints":[{"#, Err(Failure::HealthPathRunsModels))]
#[case::a_proxy_with_one_of_the_keys(200, r#"{"healthy_endpoints":3}"#, Ok(Health::Well))]
#[case::the_keys_further_in(
    200,
    r#"{"x":{"healthy_endpoints":[],"unhealthy_endpoints":[]}}"#,
    Ok(Health::Well)
)]
// LM Studio 0.4.17 at any path that it does not have.
#[case::lm_studio(200, r#"{"error":"Unexpected endpoint or method. (GET /health)"}"#, Ok(Health::NotThere))]
#[case::an_error_under_a_200(200, r#"{"error":{"message":"no"}}"#, Err(Failure::InvalidResponse))]
#[case::no_error(200, r#"{"error":null,"status":"ok"}"#, Ok(Health::Well))]
#[case::no_error_either(200, r#"{"error":"","errors":[]}"#, Ok(Health::Well))]
#[case::words(200, "OK", Ok(Health::Well))]
#[case::no_content(204, "", Ok(Health::Well))]
#[case::a_page(200, "<!DOCTYPE html><title>up</title>", Ok(Health::Page))]
#[case::not_found(404, "404 page not found", Ok(Health::NotThere))]
#[case::not_allowed(405, "", Ok(Health::NotThere))]
// mlx_lm.server 0.32.2 without its model.
#[case::mlx(503, r#"{"status": "unavailable"}"#, Err(Failure::ServerBusy))]
// vLLM 0.32.0 with a dead engine, by version.
#[case::error(500, "", Err(Failure::InvalidResponse))]
#[case::unavailable(503, "", Err(Failure::ServerBusy))]
#[case::proxy(502, "<html>502 Bad Gateway</html>", Err(Failure::ProxyError))]
#[case::key(401, "{}", Err(Failure::Unauthorized))]
#[case::key_of_another(403, "{}", Err(Failure::KeyRejected))]
#[case::moved(307, "", Err(Failure::UnexpectedRedirect))]
fn health_is_what_the_answer_shows(
    #[case] status: u16,
    #[case] body: &str,
    #[case] expected: Result<Health, Failure>,
) {
    assert_eq!(judge(status, body.as_bytes()), expected);
}
