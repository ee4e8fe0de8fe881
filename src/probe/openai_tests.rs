//! What is asked after the list, and what a list and a health come to together.

use super::*;
use rstest::rstest;

fn known(entries: &str) -> List {
    List::Known(openai_wire::models(format!(r#"{{"data":[{entries}]}}"#).as_bytes()).unwrap())
}

fn of(owner: &str) -> List {
    known(&format!(r#"{{"id":"m","owned_by":"{owner}"}}"#))
}

#[rstest]
// vLLM 0.32.0 and llama-server b10434: their /health runs nothing.
#[case::vllm(of("vllm"), false, true)]
#[case::llama(of("llamacpp"), false, true)]
// LiteLLM 1.108.7 runs a completion of every model, SGLang 0.5 generates a token.
#[case::litellm(of("openai"), false, false)]
#[case::sglang(of("sglang"), false, false)]
#[case::unknown(known(r#"{"id":"m"}"#), false, false)]
#[case::mixed(known(r#"{"id":"a","owned_by":"vllm"},{"id":"b","owned_by":"openai"}"#), false, false)]
#[case::named(of("openai"), true, true)]
#[case::empty(known(""), false, true)]
#[case::not_there(List::NotThere, false, true)]
#[case::refused(List::Failed(Failure::Unauthorized), false, false)]
#[case::refused_and_named(List::Failed(Failure::Unauthorized), true, true)]
#[case::broken(List::Failed(Failure::InvalidResponse), false, false)]
#[case::broken_and_named(List::Failed(Failure::InvalidResponse), true, true)]
#[case::another_api(List::Failed(Failure::NotOllama), true, false)]
#[case::nobody(List::Failed(Failure::ConnectionRefused), true, false)]
#[case::loading(List::Failed(Failure::ServerLoading), true, false)]
#[case::proxy(List::Failed(Failure::ProxyError), true, false)]
fn health_is_asked_only_where_it_is_free_or_named(
    #[case] list: List,
    #[case] named: bool,
    #[case] asked: bool,
) {
    assert_eq!(wants_health(&list, named), asked);
}

#[rstest]
#[case::a_list(of("openai"), None, false, Ok(()))]
#[case::both(of("vllm"), Some(Ok(Health::Well)), false, Ok(()))]
// vLLM 0.32.0 with a dead engine lists its models and has 503 at /health.
#[case::dead_engine(of("vllm"), Some(Err(Failure::ServerBusy)), false, Err(Failure::ServerBusy))]
#[case::internal_error(of("vllm"), Some(Err(Failure::InvalidResponse)), false, Err(Failure::InvalidResponse))]
#[case::proxy(of("vllm"), Some(Err(Failure::ProxyError)), false, Err(Failure::ProxyError))]
#[case::hangs(of("vllm"), Some(Err(Failure::Timeout)), false, Err(Failure::Timeout))]
// llama-server b10566 lists its model while it loads.
#[case::loading(of("llamacpp"), Some(Err(Failure::ServerLoading)), false, Err(Failure::ServerLoading))]
#[case::costs(
    of("openai"),
    Some(Err(Failure::HealthPathRunsModels)),
    true,
    Err(Failure::HealthPathRunsModels)
)]
// A proxy that lets only /v1 through.
#[case::only_the_api(of("vllm"), Some(Ok(Health::NotThere)), false, Ok(()))]
#[case::only_the_api_for_us(of("vllm"), Some(Err(Failure::KeyRejected)), false, Ok(()))]
#[case::only_the_api_and_pages(of("vllm"), Some(Ok(Health::Page)), false, Ok(()))]
#[case::a_named_path_that_is_not_there(
    of("vllm"),
    Some(Ok(Health::NotThere)),
    true,
    Err(Failure::NoHealthPath)
)]
#[case::a_named_path_for_others(
    of("vllm"),
    Some(Err(Failure::Unauthorized)),
    true,
    Err(Failure::Unauthorized)
)]
#[case::a_named_page(of("vllm"), Some(Ok(Health::Page)), true, Ok(()))]
#[case::no_list_and_well(List::NotThere, Some(Ok(Health::Well)), false, Ok(()))]
#[case::no_list_and_a_page(List::NotThere, Some(Ok(Health::Page)), false, Err(Failure::NotOllama))]
#[case::no_list_and_no_health(List::NotThere, Some(Ok(Health::NotThere)), false, Err(Failure::NotOllama))]
#[case::no_list_and_nothing_at_the_named_path(
    List::NotThere,
    Some(Ok(Health::NotThere)),
    true,
    Err(Failure::NoHealthPath)
)]
#[case::no_list_and_a_key(
    List::NotThere,
    Some(Err(Failure::Unauthorized)),
    false,
    Err(Failure::Unauthorized)
)]
// mlx_lm.server 0.32.2 without its model lists nothing, or sends an empty body.
#[case::mlx_without_its_model(known(""), Some(Err(Failure::ServerBusy)), false, Err(Failure::ServerBusy))]
#[case::mlx_with_an_empty_body(
    List::Failed(Failure::InvalidResponse),
    None,
    false,
    Err(Failure::InvalidResponse)
)]
#[case::mlx_with_an_empty_body_and_well(
    List::Failed(Failure::InvalidResponse),
    Some(Ok(Health::Well)),
    true,
    Ok(())
)]
#[case::nothing_listed_and_well(known(""), Some(Ok(Health::Well)), false, Ok(()))]
#[case::refused(List::Failed(Failure::Unauthorized), None, false, Err(Failure::Unauthorized))]
#[case::refused_but_the_named_path_is_well(
    List::Failed(Failure::Unauthorized),
    Some(Ok(Health::Well)),
    true,
    Ok(())
)]
#[case::refused_and_not_well(
    List::Failed(Failure::Unauthorized),
    Some(Err(Failure::ServerBusy)),
    true,
    Err(Failure::ServerBusy)
)]
fn a_good_list_never_outweighs_a_bad_health(
    #[case] list: List,
    #[case] health: Option<Result<Health, Failure>>,
    #[case] named: bool,
    #[case] expected: Result<(), Failure>,
) {
    assert_eq!(verdict(&list, health, named), expected);
}
