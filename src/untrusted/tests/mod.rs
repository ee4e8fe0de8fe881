//! Hostile bytes for every parser: any bytes, any text, JSON with hostile words in it, and what is nearly right.

mod pieces;
mod strategies;

use super::*;
use pieces::{AGENT, CEL, COMPOSE, ENV, HOSTS, MODEL, PLUGIN, SAMPLES, SCALARS, SERVER, SPEC};
use proptest::prelude::*;
use serde_json::{Map, json};
use strategies::{agent_spec, json, list, spoiled, text_of, word};

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn hosts_lists_are_bounded_and_clean(body in prop_oneof![
        spoiled(list("models", MODEL)), spoiled(list("data", MODEL)), spoiled(json(MODEL))
    ]) {
        lists_of_models(&body);
    }

    #[test]
    fn versions_are_bounded_and_clean(body in prop_oneof![
        spoiled(word().prop_map(|text| json!({ "version": text }))), spoiled(json(MODEL))
    ]) {
        version(&body);
    }

    #[test]
    fn agents_json_is_bounded_and_clean(body in prop_oneof![spoiled(json(AGENT)), spoiled(list("disk", AGENT))]) {
        agent_json(&body);
    }

    #[test]
    fn agents_text_is_bounded_and_clean(body in text_of(SAMPLES)) {
        agent_text(&body);
    }

    #[test]
    fn manifests_are_judged(spec in prop_oneof![spoiled(json(SPEC)), spoiled(agent_spec())]) {
        manifest(&spec);
    }

    #[test]
    fn imports_are_clean(
        servers in prop_oneof![spoiled(list("", SERVER)), spoiled(json(SERVER))],
        plugin in spoiled(json(PLUGIN)),
        env in text_of(ENV),
        file in text_of(COMPOSE),
    ) {
        servers_json(&servers);
        plugin_json(&plugin);
        dotenv(&env);
        compose(&file);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn hosts_scalars_and_annotations_are_read_or_refused(
        text in text_of(HOSTS), number in text_of(SCALARS), echoed in word(),
    ) {
        host(&text);
        scalars(&number);
        annotation(echoed.as_bytes());
    }

    #[test]
    fn expressions_are_refused_or_run(source in text_of(CEL)) {
        expression(&source);
    }
}

#[test]
fn a_broken_promise_is_noticed() {
    let schema = status_schema("OllamaServer");
    let wrong = [
        json!({"version": "x".repeat(65)}),
        json!({"models": vec![json!({}); 501]}),
        json!({"machine": {"colour": 1}}),
        json!({"conditions": [{"status": "Maybe"}]}),
        json!({"plugins": [{"values": (0..33).map(|n| (n.to_string(), json!(n))).collect::<Map<_, _>>()}]}),
    ];
    for status in wrong {
        let broken = std::panic::catch_unwind(|| assert_fits(schema, &status, "status"));
        assert!(broken.is_err(), "{status}");
    }
    assert!(std::panic::catch_unwind(|| assert_clean(&json!({"a": ["\u{202e}"]}))).is_err());
}
