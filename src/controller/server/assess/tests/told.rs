//! What people are told: Events about refused specs, and messages that say what their condition says.

use super::*;
use crate::{api::condition::Truth, controller::server::assess::pressure::Pressures};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;

fn refusals(transitions: &[Transition]) -> Vec<&str> {
    let reason = |transition| match transition {
        &Transition::SpecRefused { ref reason, .. } => Some(reason.as_str()),
        _ => None,
    };
    transitions.iter().filter_map(reason).collect()
}

/// A spec that cannot be acted on was neither an Event nor a line of the log: only who read the conditions knew.
#[test]
fn a_refused_spec_is_told_once_and_again_when_the_reason_is_another() {
    let mut scene = Scene::new(json!({"host": "127.0.0.1"}));
    let transitions = scene.step(Observation::None);
    assert_eq!(refusals(&transitions), ["AddressNotAllowed"]);
    let event = transitions[0].event();
    let accepted = condition::find(&scene.memory.status.conditions, "Accepted").unwrap().clone();
    assert_eq!((event.note, event.warning, transitions[0].is_urgent()), (accepted.message, true, false));
    assert!(scene.step(Observation::None).is_empty(), "the same refusal is no news");
    scene.restart();
    assert!(scene.step(Observation::None).is_empty(), "nor after a restart");
    (scene.spec.host, scene.generation) = ("127.0.0.2".into(), 2);
    assert!(scene.step(Observation::None).is_empty(), "nor for another spec that is refused for the same");
    (scene.spec.host, scene.generation) = ("127.1".into(), 3);
    assert_eq!(refusals(&scene.step(Observation::None)), ["InvalidSpec"]);
    (scene.spec.host, scene.generation) = ("192.168.1.1".into(), 4);
    assert!(scene.step(Observation::None).is_empty(), "that it is accepted is no Warning");
    (scene.spec.host, scene.generation) = ("127.0.0.1".into(), 5);
    assert_eq!(refusals(&scene.step(Observation::None)), ["AddressNotAllowed"]);
}

#[rstest]
#[case::secret(no_credential(Problem::Missing), "SecretNotFound")]
#[case::right(no_credential(Problem::Forbidden), "SecretForbidden")]
#[case::grant(no_credential(Problem::OtherHost), "SecretNotAllowed")]
#[case::name(Failure::AddressNotAllowed, "AddressNotAllowed")]
fn what_only_a_poll_finds_out_is_told_as_well(#[case] failure: Failure, #[case] reason: &str) {
    let mut scene = Scene::new(json!({}));
    assert_eq!(refusals(&scene.poll(failed(failure))), [reason]);
    assert_eq!(scene.poll(failed(failure)), []);
    scene.restart();
    assert_eq!(scene.poll(failed(failure)), []);
    scene.poll(online());
    assert_eq!(refusals(&scene.poll(failed(failure))), [reason]);
}

#[test]
fn a_maintenance_keeps_a_refusal_to_itself() {
    let mut scene = Scene::new(json!({"host": "127.0.0.1", "maintenance": {}}));
    assert_eq!(scene.step(Observation::None), []);
    assert_eq!(scene.condition("Accepted"), Some(("False", "AddressNotAllowed")));
}

/// `MemoryPressure=False: above the threshold` reads as if there were pressure.
#[test]
fn a_condition_that_is_false_says_so_in_its_message() {
    let known = |type_: &str| Condition {
        type_: type_.into(),
        status: "False".into(),
        reason: "x".into(),
        message: String::new(),
        observed_generation: None,
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
    };
    let quiet = Pressures::from_conditions(&["ThermalPressure", "MemoryPressure", "DiskPressure"].map(known));
    let told = quiet.conditions();
    let told: Vec<_> = told.iter().map(|(type_, truth, _, message)| (*type_, *truth, *message)).collect();
    let expected = [
        ("ThermalPressure", "no thermal pressure: the temperatures are below their thresholds"),
        ("MemoryPressure", "no memory pressure: available memory is above its threshold"),
        ("DiskPressure", "no disk pressure: the disk is filled below its threshold"),
    ];
    assert_eq!(told, expected.map(|(type_, message)| (type_, Truth::False, message)));
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    let flapping = condition::find(&scene.memory.status.conditions, "Flapping").unwrap();
    assert_eq!(
        (flapping.status.as_str(), flapping.message.as_str()),
        ("False", "not flapping: Reachable is stable")
    );
}
