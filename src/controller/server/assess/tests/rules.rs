//! Plugins' rules, answer by answer: what is told, what is shown, and what a restart keeps.

use super::*;
use crate::{
    api::fleet_plugin::Agent,
    plugins::{rules, values},
};

/// A scene with the plugin `queue`, which reports `depth` (and others as given) and has these rules.
fn scene(rules: Value) -> Scene {
    let agent: Agent = serde_json::from_value(json!({
        "defaultPort": 1,
        "endpoint": "/",
        "values": [{"name": "depth", "jsonPaths": ["$.depth"]}, {"name": "limit", "jsonPaths": ["$.limit"]}],
        "rules": rules,
    }))
    .unwrap();
    let values = values::compile(&agent).unwrap();
    let rules = rules::compile("queue", &agent.rules, &values).unwrap();
    let mut scene = Scene::new(json!({})).with_plugin("queue");
    scene.plugins[0].rules = rules.into();
    scene
}

fn rule(extra: Value) -> Value {
    let mut rule = json!({"name": "QueueLong", "when": "values.depth > 10", "message": "add a machine"});
    rule.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    json!([rule])
}

fn depth(depth: i64) -> Vec<AgentObservation> {
    said(&[("depth", depth)])
}

fn said(values: &[(&str, i64)]) -> Vec<AgentObservation> {
    let values = values.iter().map(|(name, value)| ((*name).to_owned(), Scalar::Integer(*value))).collect();
    vec![answered("queue", AgentValues { values, ..AgentValues::default() })]
}

const QUEUE_LONG: &str = "queue.plugins.ollama-fleet.io/QueueLong";

fn begins() -> Transition {
    Transition::Rule {
        plugin: "queue".into(),
        rule: "QueueLong".into(),
        active: true,
        warning: true,
        message: "add a machine".into(),
    }
}

fn ends() -> Transition {
    let Transition::Rule { plugin, rule, message, .. } = begins() else { unreachable!() };
    Transition::Rule { plugin, rule, active: false, warning: false, message }
}

#[test]
fn a_condition_follows_its_rule_and_makes_no_event() {
    let mut scene = scene(rule(json!({"severity": "Critical"})));
    assert_eq!(scene.poll_with(online(), depth(1)), []);
    assert_eq!(scene.condition(QUEUE_LONG), Some(("False", "Critical")));
    assert_eq!(scene.poll_with(online(), depth(11)), []);
    assert_eq!(scene.condition(QUEUE_LONG), Some(("True", "Critical")));
    assert_eq!(scene.memory.status.plugins.as_ref().unwrap()[0].active_rules, ["QueueLong"]);
    scene.poll_with(online(), depth(3));
    assert_eq!(scene.condition(QUEUE_LONG), Some(("False", "Critical")));
    assert_eq!(scene.ready(), ("True", "Online"));
}

#[test]
fn an_event_is_told_on_each_edge_and_has_no_condition() {
    let mut scene = scene(rule(json!({"as": "Event"})));
    assert_eq!(scene.poll_with(online(), depth(1)), []);
    assert_eq!(scene.poll_with(online(), depth(11)), [begins()]);
    assert_eq!(scene.poll_with(online(), depth(12)), []);
    assert_eq!(scene.poll_with(online(), depth(2)), [ends()]);
    assert_eq!(scene.condition(QUEUE_LONG), None);
}

#[test]
fn an_edge_is_written_once_and_the_values_in_between_are_not() {
    let mut scene = scene(rule(json!({})));
    scene.poll_with(online(), depth(1));
    let writes = scene.writes_of(|scene| {
        for number in [2, 11, 12, 13, 4, 5] {
            scene.poll_with(online(), depth(number));
        }
    });
    assert_eq!(writes, 2);
}

#[test]
fn a_rule_with_a_duration_must_hold_without_a_break() {
    let mut scene = scene(rule(json!({"as": "Event", "for": "25s"})));
    let told: Vec<usize> = [11, 11, 1, 11, 11, 11, 11, 11]
        .into_iter()
        .map(|number| scene.poll_with(online(), depth(number)).len())
        .collect();
    assert_eq!(told, [0, 0, 0, 0, 0, 0, 1, 0], "polls are ten seconds apart");
}

#[test]
fn what_needs_an_absent_value_is_unknown_and_goes_without_a_word() {
    let mut scene = scene(json!([
        {"name": "QueueLong", "when": "values.depth > 10", "message": "add a machine"},
        {"name": "Loud", "when": "values.depth > 10", "as": "Event", "message": "add a machine"},
    ]));
    assert_eq!(scene.poll_with(online(), depth(11)).len(), 1);
    assert_eq!(scene.poll_with(online(), said(&[("limit", 1)])), []);
    assert_eq!(scene.condition(QUEUE_LONG), None);
    assert_eq!(scene.memory.status.plugins.as_ref().unwrap()[0].reason, None, "an absent value is no fault");
}

#[test]
fn rules_go_with_their_agent_and_without_a_word() {
    let mut scene = scene(rule(json!({})));
    scene.poll_with(online(), depth(11));
    let mut told = Vec::new();
    for _ in 0..3 {
        told.extend(scene.poll_with(online(), vec![agent_failed("queue")]));
    }
    assert_eq!(told.len(), 1, "only that the plugin failed: {told:?}");
    assert_eq!(scene.condition(QUEUE_LONG), None);
}

#[test]
fn a_rule_that_cannot_be_computed_shows_in_the_plugins_report_only() {
    let mut scene = scene(json!([
        {"name": "QueueLong", "when": "values.depth / values.limit > 1", "message": "add a machine"},
        {"name": "Other", "when": "values.depth > 10", "message": "still judged"},
    ]));
    scene.poll_with(online(), said(&[("depth", 11), ("limit", 0)]));
    let report = scene.memory.status.plugins.as_ref().unwrap()[0].clone();
    assert_eq!(report.state.as_deref(), Some("Active"));
    assert_eq!(report.reason.as_deref(), Some("EvaluationFailed"));
    assert_eq!(report.message.as_deref(), Some("rule QueueLong: division by zero"));
    assert_eq!(scene.condition("queue.plugins.ollama-fleet.io/Other"), Some(("True", "Warning")));
    assert_eq!(scene.ready(), ("True", "Online"));
    scene.poll_with(online(), said(&[("depth", 11), ("limit", 5)]));
    assert_eq!(scene.memory.status.plugins.as_ref().unwrap()[0].reason, None);
}

#[rstest]
#[case::condition("Condition")]
#[case::event("Event")]
fn a_restart_is_no_news_for_rules(#[case] outcome: &str) {
    let mut scene = scene(rule(json!({"as": outcome})));
    scene.poll_with(online(), depth(11));
    let before = scene.condition(QUEUE_LONG).map(|(status, _)| status.to_owned());
    scene.restart();
    let writes = scene.writes_of(|scene| {
        assert_eq!(scene.poll(online()), [], "the agent has not answered yet");
        assert_eq!(scene.condition(QUEUE_LONG).map(|(status, _)| status.to_owned()), before);
        assert_eq!(scene.poll_with(online(), depth(12)), []);
    });
    assert_eq!(writes, 0);
    let told = scene.poll_with(online(), depth(1));
    assert_eq!(told.len(), usize::from(outcome == "Event"), "what began before the restart ends after it");
}

#[test]
fn previous_is_the_answer_before_and_never_one_of_an_earlier_process() {
    let mut scene = scene(rule(json!({"when": "values.depth > previous.depth + 5", "as": "Event"})));
    assert_eq!(scene.poll_with(online(), depth(100)), [], "there is no answer before the first");
    assert_eq!(scene.poll_with(online(), depth(103)), []);
    assert_eq!(scene.poll_with(online(), depth(110)), [begins()]);
    scene.poll_with(online(), depth(110));
    scene.restart();
    assert_eq!(scene.poll_with(online(), depth(200)), [], "what was written is of unknown age");
}

#[test]
fn an_edited_plugin_is_compared_with_nothing_that_it_read_before() {
    let mut scene = scene(json!([
        {"name": "QueueLong", "when": "values.depth > previous.depth + 5", "as": "Event", "message": "add a machine"},
        {"name": "Lasting", "when": "values.depth > 10", "for": "15s", "message": "m"},
    ]));
    scene.poll_with(online(), depth(11));
    scene.plugins[0].revision = "2".into();
    assert_eq!(scene.poll_with(online(), depth(100)), [], "the value before had another meaning");
    scene.poll_with(online(), depth(100));
    let lasting = |scene: &Scene| {
        scene.condition("queue.plugins.ollama-fleet.io/Lasting").map(|(status, _)| status == "True")
    };
    assert_eq!(lasting(&scene), Some(false), "20 s, of which 10 s since the edit");
    scene.poll_with(online(), depth(100));
    assert_eq!(lasting(&scene), Some(true));
    assert_eq!(scene.poll_with(online(), depth(200)), [begins()]);
}

#[test]
fn while_the_host_fails_rules_make_neither_events_nor_writes() {
    let mut scene = scene(json!([
        {"name": "QueueLong", "when": "values.depth > 10", "as": "Event", "message": "add a machine"},
        {"name": "Shown", "when": "values.depth > 10", "message": "add a machine"},
    ]));
    scene.poll_with(online(), depth(1));
    for _ in 0..3 {
        scene.poll_with(failed(Failure::Timeout), depth(1));
    }
    let writes = scene.writes_of(|scene| {
        assert_eq!(scene.poll_with(failed(Failure::Timeout), depth(11)), []);
    });
    assert_eq!(writes, 0);
    assert_eq!(scene.condition("queue.plugins.ollama-fleet.io/Shown"), Some(("True", "Warning")));
}

#[test]
fn a_rule_knows_the_server() {
    let when = "values.depth > 0 && server.reachable && server.loadedCount == 1 && server.labels['gpu'] == 'big' \
                && server.namespace == 'ml' && server.name == 'server-1' && server.backendType == 'Ollama' \
                && !server.inMaintenance";
    let mut scene = scene(rule(json!({"when": when})));
    scene.labels.insert("gpu".into(), "big".into());
    scene.poll_with(online(), depth(1));
    assert_eq!(scene.condition(QUEUE_LONG), Some(("True", "Warning")));
}

#[test]
fn a_server_has_room_for_sixteen_conditions_and_says_when_there_are_more() {
    let many: Vec<Value> = (0..16)
        .map(|i| json!({"name": format!("R{i:02}"), "when": "values.depth > 10", "message": "m"}))
        .collect();
    let mut scene = scene(json!(many));
    let mut second = scene.plugins[0].clone();
    second.name = "second".into();
    let agent: Agent = serde_json::from_value(json!({
        "defaultPort": 1, "endpoint": "/", "values": [{"name": "depth", "jsonPaths": ["$.depth"]}],
        "rules": [{"name": "One", "when": "values.depth > 10", "message": "m"}],
    }))
    .unwrap();
    second.rules = rules::compile("second", &agent.rules, &values::compile(&agent).unwrap()).unwrap().into();
    scene.plugins.push(second);
    let mut both = depth(11);
    both.extend(depth(11).into_iter().map(|mut seen| {
        seen.plugin = "second".into();
        seen
    }));
    scene.poll_with(online(), both);
    let conditions = scene.memory.status.conditions.iter();
    assert_eq!(conditions.filter(|condition| condition.type_.contains('/')).count(), 16);
    let reports = scene.memory.status.plugins.clone().unwrap();
    assert_eq!((reports[0].name.as_str(), reports[0].reason.as_deref()), ("queue", None));
    assert_eq!(reports[1].reason.as_deref(), Some("TooManyConditions"));
    assert_eq!(reports[1].active_rules, ["One"], "it is judged all the same");
}

#[test]
fn an_unknown_key_of_plugin_ports_is_a_warning_that_keeps_the_spec_valid() {
    let mut scene = Scene::new(json!({"pluginPorts": {"metricPort": 9100}}));
    scene.unknown_keys = vec!["metricPort".into()];
    scene.poll(online());
    assert_eq!(scene.condition("Accepted"), Some(("True", "Valid")));
    let accepted = condition::find(&scene.memory.status.conditions, "Accepted").unwrap();
    assert!(accepted.message.contains("metricPort"), "{}", accepted.message);
}

#[test]
fn rules_that_are_removed_hold_no_longer() {
    let mut scene = scene(rule(json!({})));
    scene.poll_with(online(), depth(11));
    scene.plugins[0].rules = Arc::default();
    scene.poll_with(online(), depth(11));
    let left = |scene: &Scene| scene.memory.status.plugins.as_ref().unwrap()[0].active_rules.clone();
    assert_eq!(left(&scene), [""; 0]);
    scene.restart();
    scene.poll_with(online(), depth(11));
    assert_eq!(left(&scene), [""; 0]);
}

#[test]
fn what_needs_two_answers_is_no_news_after_a_restart() {
    let mut scene = scene(json!([
        {"name": "QueueLong", "when": "values.depth > previous.depth - 1", "as": "Event", "message": "add a machine"},
        {"name": "Growing", "when": "values.depth > previous.depth - 1", "for": "15s", "message": "m"},
    ]));
    scene.poll_with(online(), depth(1));
    assert_eq!(scene.poll_with(online(), depth(2)), [begins()]);
    scene.poll_with(online(), depth(3));
    scene.poll_with(online(), depth(4));
    let growing = "queue.plugins.ollama-fleet.io/Growing";
    assert_eq!(scene.condition(growing), Some(("True", "Warning")));
    scene.restart();
    let writes = scene.writes_of(|scene| {
        for number in [5, 6, 7] {
            assert_eq!(scene.poll_with(online(), depth(number)), []);
            assert_eq!(scene.condition(growing), Some(("True", "Warning")));
        }
    });
    assert_eq!(writes, 0);
    assert_eq!(scene.poll_with(online(), depth(1)), [ends()]);
}

#[test]
fn a_rule_that_was_unknown_for_a_while_is_not_told_again() {
    let mut scene = scene(rule(json!({"as": "Event"})));
    assert_eq!(scene.poll_with(online(), depth(11)), [begins()]);
    assert_eq!(scene.poll_with(online(), said(&[("limit", 1)])), []);
    assert_eq!(scene.poll_with(online(), depth(11)), []);
    assert_eq!(scene.poll_with(online(), depth(1)), [ends()]);
}

#[test]
fn what_begins_while_the_host_fails_is_told_when_it_is_back() {
    let mut scene = scene(rule(json!({"as": "Event"})));
    scene.poll_with(online(), depth(1));
    for number in [1, 1, 11] {
        let told = scene.poll_with(failed(Failure::Timeout), depth(number));
        assert!(!told.contains(&begins()), "{told:?}");
    }
    assert_eq!(scene.poll_with(online(), depth(11)), [Transition::ServerOnline, begins()]);
    assert_eq!(scene.poll_with(online(), depth(1)), [ends()]);
}

#[test]
fn a_moment_in_a_failed_poll_is_told_too_and_its_end_never_alone() {
    let mut scene = scene(rule(json!({"when": "values.depth > previous.depth", "as": "Event"})));
    scene.poll_with(online(), depth(1));
    scene.poll_with(failed(Failure::Timeout), depth(2));
    assert_eq!(scene.poll_with(online(), depth(2)), [begins(), ends()]);
}

#[test]
fn time_that_nobody_looked_at_does_not_count_as_held() {
    let mut scene = scene(rule(json!({"as": "Event", "for": "5m"})));
    scene.poll_with(online(), depth(11));
    scene.now += SignedDuration::from_hours(1);
    assert_eq!(scene.poll_with(online(), depth(11)), [], "an hour of silence is two intervals at most");
    scene.now -= SignedDuration::from_hours(2);
    assert_eq!(scene.poll_with(online(), depth(11)), [], "a clock that was set back takes nothing away");
    let polls = (0..40).take_while(|_| scene.poll_with(online(), depth(11)).is_empty()).count();
    assert_eq!(polls, 27, "of 300 s, 20 came with the gap, and 10 with each poll; the 28th tells");
}

#[rstest]
#[case::own_event("ServerOffline")]
#[case::end_of_another("QueueLongResolved")]
fn the_names_of_the_operators_own_events_are_refused(#[case] name: &str) {
    let agent: Agent = serde_json::from_value(json!({
        "defaultPort": 1, "endpoint": "/", "values": [{"name": "depth", "jsonPaths": ["$.depth"]}],
        "rules": [{"name": name, "when": "values.depth > 1", "message": "m"}],
    }))
    .unwrap();
    let error = rules::compile("queue", &agent.rules, &values::compile(&agent).unwrap()).unwrap_err();
    assert!(error.to_string().contains("choose another name"), "{error}");
}
