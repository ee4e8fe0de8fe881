//! Whether a server can be used: verdicts, what they are told and written for, and what comes before them.

use super::*;

#[test]
fn a_healthy_new_server_is_ready_without_any_event() {
    let mut scene = Scene::new(json!({}));
    assert_eq!(scene.poll(online()), []);
    assert_eq!(scene.ready(), ("True", "Online"));
    assert_eq!(scene.memory.status.loaded_count, Some(1));
    assert_eq!(scene.memory.status.vram_used.as_ref().unwrap().0, "1024Mi");
}

#[test]
fn a_death_is_two_writes_and_one_event() {
    let mut scene = Scene::new(json!({})).with_plugin("fleet-metrics");
    scene.poll_with(online(), vec![agent("fleet-metrics", &[(Reading::CpuPercent, 5)])]);
    let mut events = Vec::new();
    let mut reasons = Vec::new();
    let writes = scene.writes_of(|scene| {
        for failure in [
            Failure::Timeout,
            Failure::ConnectionRefused,
            Failure::ConnectionRefused,
            Failure::Timeout,
            Failure::DnsFailed,
        ] {
            events.extend(scene.poll_with(failed(failure), vec![agent_failed("fleet-metrics")]));
            reasons.push(scene.ready().1.to_owned());
        }
    });
    assert_eq!(writes, 2);
    assert_eq!(events, [Transition::ServerOffline(Some(Failure::ConnectionRefused))]);
    assert_eq!(reasons[..3], ["ProbeFailing", "ProbeFailing", "ConnectionRefused"]);
    assert_eq!(scene.condition("Accepted"), Some(("True", "Valid")));
    assert_eq!(scene.poll_with(online(), vec![agent("fleet-metrics", &[])]), [Transition::ServerOnline]);
    assert_eq!(scene.ready(), ("True", "Online"));
}

#[test]
fn ready_keeps_its_value_while_the_verdict_is_open() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    scene.poll(failed(Failure::Timeout));
    assert_eq!(scene.ready(), ("True", "ProbeFailing"));
    assert_eq!(scene.poll(online()), [], "a blip is no news");
}

#[rstest]
#[case(Failure::Unauthorized, ("False", "Unauthorized"), 1)]
#[case(Failure::HostRejected, ("False", "HostRejected"), 1)]
#[case(Failure::NotOllama, ("False", "NotOllama"), 1)]
#[case(Failure::Timeout, ("Unknown", "ProbeFailing"), 0)]
#[case(Failure::ServerBusy, ("Unknown", "ProbeFailing"), 0)]
#[case(Failure::ServerLoading, ("Unknown", "ProbeFailing"), 0)]
#[case(Failure::ProxyError, ("Unknown", "ProbeFailing"), 0)]
#[case(Failure::KeyRejected, ("False", "HostRejected"), 1)]
#[case(Failure::NoHealthPath, ("False", "InvalidResponse"), 1)]
fn before_any_verdict_only_what_no_retry_mends_is_one(
    #[case] failure: Failure,
    #[case] ready: (&str, &str),
    #[case] events: usize,
) {
    let mut scene = Scene::new(json!({}));
    assert_eq!(scene.poll(failed(failure)).len(), events);
    assert_eq!(scene.ready(), ready);
}

#[test]
fn an_offline_server_needs_its_success_threshold() {
    let mut scene = Scene::new(json!({"poll": {"failureThreshold": 1, "successThreshold": 2}}));
    scene.poll(online());
    scene.poll(failed(Failure::Timeout));
    assert_eq!(scene.poll(online()), []);
    assert_eq!(scene.ready(), ("False", "Timeout"));
    assert_eq!(scene.poll(online()), [Transition::ServerOnline]);
}

#[test]
fn a_restart_announces_and_writes_nothing() {
    let mut scene = Scene::new(json!({})).with_plugin("fleet-metrics");
    let hot = || {
        vec![agent(
            "fleet-metrics",
            &[(Reading::GpuTemperatureCelsius, 95), (Reading::MemoryTotal, 64 << 30)],
        )]
    };
    scene.poll_with(online(), hot());
    scene.poll_with(online(), hot());
    assert_eq!(scene.condition("ThermalPressure"), Some(("True", "GPUOverheating")));
    scene.restart();
    let writes = scene.writes_of(|scene| {
        assert_eq!(scene.poll(online()), [], "the agent has not answered yet");
        assert_eq!(scene.poll_with(online(), hot()), []);
        assert_eq!(scene.poll_with(online(), hot()), []);
    });
    assert_eq!(writes, 0);
}

#[test]
fn a_restart_of_an_offline_server_announces_and_writes_nothing() {
    let mut scene = Scene::new(json!({}));
    for _ in 0..4 {
        scene.poll(failed(Failure::Timeout));
    }
    scene.restart();
    let writes = scene.writes_of(|scene| assert_eq!(scene.poll(failed(Failure::Timeout)), []));
    assert_eq!((writes, scene.ready()), (0, ("False", "Timeout")));
}

#[test]
fn another_host_is_another_server() {
    let mut scene = Scene::new(json!({})).with_plugin("fleet-metrics");
    scene.poll_with(online(), vec![agent("fleet-metrics", &[(Reading::CpuPercent, 5)])]);
    scene.spec.host = "192.168.1.101".into();
    scene.generation = 2;
    assert_eq!(scene.step(Observation::None), []);
    assert_eq!(scene.ready(), ("Unknown", "Pending"));
    let status = &scene.memory.status;
    assert!(
        status.models.is_none()
            && status.version.is_none()
            && status.machine.is_none()
            && status.loaded_models.is_none()
    );
    assert_eq!(scene.poll(online_with(&["x"], &["x"])), [], "no Events about what the old host had");
}

#[test]
fn another_backend_is_noticed_across_a_restart() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    scene.restart();
    scene.spec = serde_json::from_value(json!({"host": "192.168.1.100", "backendType": "VLLM"})).unwrap();
    scene.generation = 2;
    scene.step(Observation::None);
    assert_eq!((scene.ready(), &scene.memory.status.models), (("Unknown", "Pending"), &None));
}

#[test]
fn precedence_is_accepted_then_suspended_then_maintenance_then_reachable() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    scene.spec.maintenance =
        Some(crate::api::ollama_server::Maintenance { reason: Some("new PSU".into()), end_time: None });
    scene.step(Observation::None);
    assert_eq!(scene.ready(), ("False", "Maintenance"));
    assert_eq!(scene.condition("Reachable"), Some(("True", "Online")));
    scene.spec.suspend = true;
    scene.step(Observation::None);
    assert_eq!(scene.ready(), ("False", "Suspended"));
    assert_eq!(scene.condition("Reachable"), Some(("Unknown", "Suspended")));
    assert!(scene.memory.status.models.is_some(), "the last data is kept");
    scene.spec.host = "127.0.0.1".into();
    scene.step(Observation::None);
    assert_eq!(scene.ready(), ("False", "AddressNotAllowed"));
    assert_eq!(scene.condition("Stalled"), Some(("True", "AddressNotAllowed")));
    scene.spec.host = "192.168.1.100".into();
    scene.spec.suspend = false;
    scene.spec.maintenance = None;
    scene.step(Observation::None);
    assert_eq!((scene.ready(), scene.condition("Stalled")), (("Unknown", "Pending"), None));
}

#[test]
fn a_name_that_leads_to_a_refused_address_is_not_accepted_until_it_does_not() {
    let mut scene = Scene::new(json!({"host": "gpu1.lab"}));
    scene.poll(failed(Failure::AddressNotAllowed));
    assert_eq!(scene.condition("Accepted"), Some(("False", "AddressNotAllowed")));
    assert_eq!(scene.condition("Stalled"), Some(("True", "AddressNotAllowed")));
    assert_eq!(scene.poll(online()), []);
    assert_eq!((scene.ready(), scene.condition("Stalled")), (("True", "Online"), None));
}

#[test]
fn a_host_without_credentials_is_not_accepted_until_there_are_some() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    for problem in Problem::ALL {
        let reason = problem.reason();
        let told = scene.condition("Accepted") == Some(("False", reason));
        assert_eq!(scene.poll(failed(no_credential(problem))).is_empty(), told, "each reason is told once");
        assert_eq!(scene.condition("Accepted"), Some(("False", reason)));
        assert_eq!(scene.condition("Stalled"), Some(("True", reason)));
        assert_eq!(scene.condition("Reachable"), Some(("Unknown", reason)));
        assert_eq!(scene.ready(), ("False", reason));
        assert!(scene.memory.lacks_credentials());
        // The API server cannot be asked: what was said stands.
        scene.poll(HostOutcome::Skipped);
        assert_eq!(scene.ready(), ("False", reason));
        // A restart forgets nothing, and writes nothing about it.
        scene.restart();
        let writes = scene.writes;
        scene.step(Observation::None);
        scene.poll(failed(no_credential(problem)));
        assert_eq!((scene.ready(), scene.writes), (("False", reason), writes));
    }
    assert_eq!(scene.poll(online()), []);
    assert_eq!((scene.ready(), scene.condition("Stalled")), (("True", "Online"), None));
    // An edit that names another Secret takes the word back until that one is read.
    scene.poll(failed(no_credential(Problem::Missing)));
    scene.memory.forget_refusal();
    scene.step(Observation::None);
    assert_eq!((scene.ready(), scene.condition("Stalled")), (("Unknown", "Pending"), None));
}

/// `LiteLLM` 1.108.7 runs a completion of every model for its /health.
#[test]
fn a_host_whose_health_runs_models_is_not_accepted_and_says_what_to_write() {
    let mut scene = Scene::new(json!({"backendType": "Generic"}));
    let told = scene.poll(failed(Failure::HealthPathRunsModels));
    let refused = |told: &Transition| matches!(told, Transition::SpecRefused { reason, .. } if *reason == "HealthPathRunsModels");
    assert!(
        told.len() == 1 && refused(&told[0]),
        "the refusal is told, and no verdict about the host: {told:?}"
    );
    for _ in 0..2 {
        let accepted = condition::find(&scene.memory.status.conditions, "Accepted").unwrap();
        assert_eq!((accepted.status.as_str(), accepted.reason.as_str()), ("False", "HealthPathRunsModels"));
        assert!(accepted.message.contains("/health/liveliness"), "{}", accepted.message);
        assert_eq!(scene.ready(), ("False", "HealthPathRunsModels"));
        assert_eq!(scene.condition("Reachable"), Some(("Unknown", "HealthPathRunsModels")));
        assert!(scene.memory.is_barred());
        // Nor does a restart, or a heartbeat, forget it.
        scene.restart();
        assert!(scene.memory.is_barred());
        scene.step(Observation::None);
    }
    scene.memory.forget_refusal();
    assert!(!scene.memory.is_barred());
    scene.poll(online());
    assert_eq!(scene.ready(), ("True", "Online"));
}

/// Sub-classes share a reason, and each has its own words.
#[test]
fn a_restart_keeps_the_words_of_a_reason() {
    for failure in Failure::ALL.into_iter().filter(|failure| !failure.is_refusal()) {
        let mut scene = Scene::new(json!({"poll": {"failureThreshold": 1}}));
        scene.poll(failed(failure));
        scene.restart();
        let writes = scene.writes_of(|scene| {
            scene.step(Observation::None);
        });
        assert_eq!(writes, 0, "{failure:?}");
        let ready = condition::find(&scene.memory.status.conditions, "Ready").unwrap();
        assert_eq!(ready.message, failure.text());
    }
}

#[test]
fn a_requested_poll_that_fails_does_not_bring_the_verdict_closer() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    for _ in 0..5 {
        scene.step(Observation::Poll { host: failed(Failure::Timeout), agents: Vec::new(), requested: true });
    }
    assert_eq!(scene.ready(), ("True", "ProbeFailing"));
    assert_eq!(scene.memory.status.consecutive_failures, Some(0));
    assert_eq!(scene.poll(failed(Failure::Timeout)), []);
    assert_eq!(scene.poll(failed(Failure::Timeout)), []);
    assert_eq!(scene.poll(failed(Failure::Timeout)).len(), 1);
}

#[test]
fn a_requested_poll_is_no_verdict_even_where_one_failure_is() {
    let mut scene = Scene::new(json!({"poll": {"failureThreshold": 1}}));
    scene.poll(online());
    scene.step(Observation::Poll { host: failed(Failure::Timeout), agents: Vec::new(), requested: true });
    assert_eq!(scene.ready(), ("True", "ProbeFailing"));
    assert_eq!(scene.poll(failed(Failure::Timeout)).len(), 1);
}

#[test]
fn four_changes_in_ten_minutes_are_flapping_and_ten_quiet_minutes_are_not() {
    let mut scene = Scene::new(json!({"poll": {"failureThreshold": 1}}));
    scene.poll(online());
    for _ in 0..2 {
        scene.poll(failed(Failure::Timeout));
        scene.poll(online());
    }
    assert_eq!(scene.condition("Flapping"), Some(("True", "ReachableChangesOften")));
    scene.now += SignedDuration::from_mins(10);
    scene.poll(online());
    assert_eq!(scene.condition("Flapping"), Some(("False", "Stable")));
}

#[test]
fn a_skipped_poll_changes_nothing_and_confirms_nothing() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    let confirmed = scene.memory.status.last_heartbeat_time.clone();
    assert_eq!(scene.writes_of(|scene| assert_eq!(scene.poll(HostOutcome::Skipped), [])), 0);
    scene.step(Observation::None);
    assert_eq!(scene.memory.status.last_heartbeat_time, confirmed);
    scene.poll(online());
    assert_ne!(scene.memory.status.last_heartbeat_time, confirmed);
}

#[test]
fn messages_are_stable_and_free_of_numbers() {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    for failure in Failure::ALL {
        let mut scene = Scene::new(json!({"poll": {"failureThreshold": 1}}));
        scene.poll(failed(failure));
        for condition in &scene.memory.status.conditions {
            assert!(!condition.message.contains("192.168"), "{}", condition.message);
        }
    }
    scene.poll_with(online(), vec![agent_failed("m")]);
    let first: Vec<String> =
        scene.memory.status.conditions.iter().map(|condition| condition.message.clone()).collect();
    scene.poll_with(online(), vec![agent_failed("m")]);
    let second: Vec<String> =
        scene.memory.status.conditions.iter().map(|condition| condition.message.clone()).collect();
    assert_eq!(first, second);
}

/// A host that was switched on again, but wants a key now: the old remedy would send its owner to the wrong place.
#[test]
fn the_reason_of_a_host_that_is_down_follows_its_class() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    for _ in 0..3 {
        scene.poll(failed(Failure::ConnectionRefused));
    }
    let mut seen = Vec::new();
    let writes = scene.writes_of(|scene| {
        for _ in 0..3 {
            assert_eq!(scene.poll(failed(Failure::Unauthorized)), [], "no second Event");
            seen.push(scene.ready().1.to_owned());
        }
    });
    assert_eq!(seen, ["ConnectionRefused", "ConnectionRefused", "Unauthorized"]);
    assert_eq!(writes, 1);
    scene.restart();
    scene.poll(failed(Failure::Unauthorized));
    assert_eq!(scene.ready(), ("False", "Unauthorized"), "a restart goes on from there");
}

#[test]
fn the_reason_follows_at_most_once_a_minute() {
    let mut scene = Scene::new(json!({"poll": {"failureThreshold": 1}}));
    scene.poll(online());
    scene.poll(failed(Failure::Timeout));
    let writes = scene.writes_of(|scene| {
        // Two minutes, ten seconds each.
        for poll in 0..12 {
            let class = if poll % 2 == 0 { Failure::ServerBusy } else { Failure::Timeout };
            scene.poll(failed(class));
        }
    });
    assert_eq!(writes, 2);
}

#[test]
fn a_class_that_does_not_last_is_no_reason() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    for _ in 0..3 {
        scene.poll(failed(Failure::Timeout));
    }
    let writes = scene.writes_of(|scene| {
        for _ in 0..10 {
            scene.poll(failed(Failure::ServerBusy));
            scene.poll(failed(Failure::ServerBusy));
            scene.poll(failed(Failure::Timeout));
        }
    });
    assert_eq!((writes, scene.ready()), (0, ("False", "Timeout")));
}
