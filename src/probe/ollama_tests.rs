//! Who is Ollama and who is not, from what its three endpoints say.

use super::*;
use rstest::rstest;

type Loaded = Part<Vec<LoadedSeen>>;
type Models = Part<Vec<ModelSeen>>;

fn version(text: &str) -> Part<String> {
    Part::Known(text.to_owned())
}

const PAGE: Failure = Failure::NotOllama;

#[rstest]
// Ollama 0.34.0.
#[case::all(version("0.34.0"), Loaded::Known(Vec::new()), Models::NotAsked, false, Ok(()))]
#[case::all_models_first(version("0.34.0"), Loaded::Failed(Failure::Timeout), Models::Known(Vec::new()), false, Ok(()))]
// Ollama 0.1.36 has no /api/ps, 0.1.38 has.
#[case::old(version("0.1.36"), Loaded::Missing, Models::NotAsked, false, Ok(()))]
#[case::old_candidate(version("0.1.37-rc1"), Loaded::Missing, Models::NotAsked, false, Ok(()))]
#[case::not_old(version("0.1.38"), Loaded::Missing, Models::NotAsked, false, Err(Failure::NotOllama))]
#[case::not_old_with_models(version("0.24.0"), Loaded::Missing, Models::Known(Vec::new()), false, Ok(()))]
#[case::not_old_and_once_proven(
    version("0.24.0"),
    Loaded::Missing,
    Models::Missing,
    true,
    Err(Failure::NotOllama)
)]
// Builds from source have everything.
#[case::source(version("0.0.0"), Loaded::Missing, Models::Missing, false, Err(Failure::NotOllama))]
// llama-swap has a version of its own and nothing else of Ollama's.
#[case::llama_swap(version("v210"), Loaded::Missing, Models::Missing, false, Err(Failure::NotOllama))]
#[case::a_commit(version("local_abc123"), Loaded::Missing, Models::Missing, false, Err(Failure::NotOllama))]
// Open WebUI 0.12.4: its version is open, the rest is a page.
#[case::open_webui(
    version("0.12.4"),
    Loaded::Failed(PAGE),
    Models::Failed(PAGE),
    false,
    Err(Failure::NotOllama)
)]
#[case::open_webui_in_place_of_ollama(
    version("0.12.4"),
    Loaded::Failed(PAGE),
    Models::NotAsked,
    true,
    Err(Failure::NotOllama)
)]
#[case::a_key_for_all_but_the_version(
    version("0.34.0"),
    Loaded::Failed(Failure::Unauthorized),
    Models::Failed(Failure::Unauthorized),
    true,
    Err(Failure::Unauthorized)
)]
#[case::an_endpoint_in_trouble(version("0.34.0"), Loaded::Failed(Failure::InvalidResponse), Models::NotAsked, true, Ok(()))]
#[case::an_endpoint_that_hangs(version("0.34.0"), Loaded::Failed(Failure::Timeout), Models::NotAsked, true, Ok(()))]
#[case::silent_lists(
    version("0.34.0"),
    Loaded::Failed(Failure::Timeout),
    Models::Failed(Failure::Timeout),
    false,
    Ok(())
)]
#[case::a_silent_list_beside_a_page(
    version("0.12.4"),
    Loaded::Failed(Failure::Timeout),
    Models::Failed(PAGE),
    true,
    Err(Failure::NotOllama)
)]
#[case::broken_lists_of_somebody(
    version("0.34.0"),
    Loaded::Failed(Failure::InvalidResponse),
    Models::Failed(Failure::InvalidResponse),
    false,
    Err(Failure::InvalidResponse)
)]
#[case::the_lists_without_a_version(Part::Failed(Failure::InvalidResponse), Loaded::Known(Vec::new()), Models::NotAsked, false, Ok(()))]
#[case::nothing(Part::Missing, Loaded::Missing, Models::NotAsked, true, Err(Failure::NotOllama))]
// LM Studio 0.4.17: {"error":"Unexpected endpoint or method. (GET /api/version)"} under a 200.
#[case::another_api(
    Part::Failed(PAGE),
    Loaded::Failed(PAGE),
    Models::NotAsked,
    true,
    Err(Failure::NotOllama)
)]
fn ollama_is_who_shows_a_list_of_models(
    #[case] version: Part<String>,
    #[case] loaded: Loaded,
    #[case] models: Models,
    #[case] proven: bool,
    #[case] expected: Result<(), Failure>,
) {
    assert_eq!(judge(&version, &loaded, &models, proven), expected);
}

#[rstest]
#[case("0.1.37", true)]
#[case("0.1.9", true)]
#[case("0.1.38", false)]
#[case("0.1.100", false)]
#[case("1.0.0", false)]
#[case("0.1.33-rc2+abc", true)]
#[case("0.0.0", false)]
#[case("0.1", false)]
#[case("0.1.x", false)]
#[case("0.1.2.3", false)]
#[case("", false)]
fn only_a_version_that_is_known_to_be_older_is(#[case] version: &str, #[case] older: bool) {
    assert_eq!(is_older(version, FIRST_WITH_PS), older);
}
