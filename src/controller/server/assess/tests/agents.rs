//! What agents read: pressures, reboots, numbers that hardly move, and agents that fail.

use super::*;
use crate::api::server_status::PluginReport;

#[test]
fn an_agent_without_credentials_fails_at_once_and_the_server_does_not() {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    let refused = || AgentObservation {
        plugin: "m".into(),
        took: Duration::ZERO,
        result: Err(no_credential(Problem::OtherHost).into()),
    };
    let events = scene.poll_with(online(), vec![refused()]);
    assert_eq!(events, [Transition::PluginFailed { plugin: "m".into(), reason: "SecretNotAllowed" }]);
    assert_eq!(scene.condition("PluginsHealthy"), Some(("False", "PluginFailed")));
    assert_eq!(scene.ready(), ("True", "Online"));
    let report = scene.memory.status.plugins.as_ref().unwrap()[0].clone();
    assert_eq!(
        (report.state.as_deref(), report.reason.as_deref()),
        (Some("Error"), Some("SecretNotAllowed"))
    );
    assert!(report.message.unwrap().starts_with("agent.secretRef: "));
    scene.restart();
    let writes = scene.writes;
    assert_eq!(scene.poll_with(online(), vec![refused()]), []);
    assert_eq!(scene.writes, writes, "a restart makes nothing of it");
}

#[test]
fn warnings_are_dropped_in_maintenance_and_an_offline_end_is_told_once() {
    let mut scene = Scene::new(json!({"maintenance": {"endTime": "2026-11-22T00:01:05Z"}}));
    scene.poll(online());
    let mut events = Vec::new();
    for _ in 0..4 {
        events.extend(scene.poll(failed(Failure::Timeout)));
    }
    assert_eq!((events.len(), scene.ready()), (0, ("False", "Maintenance")));
    assert_eq!(scene.condition("Reachable"), Some(("False", "Timeout")));
    scene.step(Observation::None);
    assert_eq!(scene.step(Observation::None), [Transition::ServerOffline(Some(Failure::Timeout))]);
    assert_eq!(scene.ready(), ("False", "Timeout"));
    assert_eq!(scene.step(Observation::None), []);
}

#[test]
fn heat_is_told_after_two_readings_and_resolved_after_two() {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    let poll = |scene: &mut Scene, degrees| {
        scene.poll_with(online(), vec![agent("m", &[(Reading::GpuTemperatureCelsius, degrees)])])
    };
    assert_eq!(poll(&mut scene, 60), []);
    assert_eq!(scene.condition("ThermalPressure"), Some(("False", "TemperatureNormal")));
    assert_eq!(poll(&mut scene, 90), []);
    assert_eq!(poll(&mut scene, 90), [Transition::Pressure(Sensor::GpuTemperature)]);
    assert_eq!(poll(&mut scene, 88), [], "not yet three degrees below");
    assert_eq!(poll(&mut scene, 87), []);
    assert_eq!(poll(&mut scene, 87), [Transition::PressureResolved(Sensor::GpuTemperature)]);
}

#[test]
fn readings_of_a_failed_agent_go_without_being_resolved() {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    for _ in 0..2 {
        scene.poll_with(online(), vec![agent("m", &[(Reading::GpuTemperatureCelsius, 95)])]);
    }
    let mut events = Vec::new();
    for _ in 0..3 {
        events.extend(scene.poll_with(online(), vec![agent_failed("m")]));
    }
    assert_eq!(events, [Transition::PluginFailed { plugin: "m".into(), reason: "ConnectionRefused" }]);
    assert_eq!((scene.condition("ThermalPressure"), &scene.memory.status.machine), (None, &None));
    assert_eq!(scene.condition("PluginsHealthy"), Some(("False", "PluginFailed")));
    assert_eq!(scene.ready(), ("True", "Online"), "a failing agent never makes its server not Ready");
    let recovered = scene.poll_with(online(), vec![agent("m", &[])]);
    assert_eq!(recovered, [Transition::PluginRecovered("m".into())]);
}

#[test]
fn a_plugin_that_is_off_here_is_listed_and_not_counted() {
    let mut scene = Scene::new(json!({}));
    scene.plugins.push(plan("m", None));
    scene.poll(online());
    assert_eq!(scene.memory.status.plugins.as_ref().unwrap()[0].state.as_deref(), Some("Disabled"));
    assert_eq!((scene.condition("PluginsHealthy"), &scene.memory.status.plugin_summary), (None, &None));
}

/// Seconds by which the boot time moves of a machine that has run for an hour at the first answer, and for 100 seconds more
/// at the last that told of the old one.
#[rstest]
#[case::within_the_jitter(29, 0)]
#[case::a_clock_that_is_set_forward(600, 0)]
#[case::a_clock_that_is_set_back(-600, 0)]
#[case::a_reboot(3705, 1)]
fn a_reboot_is_a_boot_time_after_the_last_answer(#[case] seconds: i64, #[case] events: usize) {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    let first = scene.now - SignedDuration::from_hours(1);
    let booted = |time: Timestamp| {
        let readings = Readings { boot_time: Some(time), ..Readings::default() };
        vec![answered("m", AgentValues { readings, ..AgentValues::default() })]
    };
    for _ in 0..10 {
        scene.poll_with(online(), booted(first));
    }
    let now = booted(first + SignedDuration::from_secs(seconds));
    let mut found = scene.poll_with(online(), now.clone());
    found.extend(scene.poll_with(online(), now));
    assert_eq!(found.iter().filter(|transition| **transition == Transition::ServerRebooted).count(), events);
}

/// The time that an answer takes moves a boot time that is computed from an uptime.
#[test]
fn a_computed_boot_time_stands_still() {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    let boot = scene.now - SignedDuration::from_hours(1);
    for jitter in [0, 2, -1, 29, -29] {
        let readings = Readings {
            boot_time: Some(boot + SignedDuration::from_secs(jitter)),
            boot_time_is_computed: true,
            ..Readings::default()
        };
        scene.poll_with(online(), vec![answered("m", AgentValues { readings, ..AgentValues::default() })]);
        let told = scene.memory.status.machine.as_ref().unwrap().boot_time.as_ref().unwrap().0;
        assert_eq!(told, boot, "{jitter}");
    }
}

/// hwmon's 255 °C and `nvidia-smi`'s 644,245,923 raised alarms.
#[test]
fn a_reading_that_cannot_be_judges_nothing_and_is_named() {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    let implausible = [(Reading::GpuTemperatureCelsius, Implausible::Range)];
    let wrong = || answered("m", AgentValues { implausible: implausible.into(), ..AgentValues::default() });
    for _ in 0..3 {
        assert_eq!(scene.poll_with(online(), vec![wrong()]), []);
    }
    assert_eq!(scene.condition("ThermalPressure"), None);
    assert_eq!(scene.condition("PluginsHealthy").map(|(status, _)| status), Some("True"));
    let report = |scene: &Scene| {
        let report = scene.memory.status.plugins.as_ref().unwrap()[0].clone();
        (report.state.unwrap(), report.reason, report.message)
    };
    let expected = (
        "Active".to_owned(),
        Some("ImplausibleReading".to_owned()),
        Some("gpuTemperatureCelsius is not within -50 to 150 and is left out".to_owned()),
    );
    assert_eq!(report(&scene), expected);
    scene.restart();
    scene.step(Observation::None);
    assert_eq!(report(&scene), expected, "a restart does not forget it");
    scene.poll_with(online(), vec![agent("m", &[(Reading::GpuTemperatureCelsius, 60)])]);
    assert_eq!(report(&scene), ("Active".to_owned(), None, None));
}

/// Versions before these bounds wrote what they were told.
#[test]
fn a_wrong_reading_that_stands_in_status_is_corrected_at_once() {
    let machine = |degrees: i64| OllamaServerStatus {
        machine: serde_json::from_value(json!({"gpuTemperatureCelsius": degrees})).unwrap(),
        ..OllamaServerStatus::default()
    };
    assert_eq!(significance(&machine(644_245_923), &machine(60)), Significance::Meaning);
    assert_eq!(significance(&machine(644_245_923), &OllamaServerStatus::default()), Significance::Meaning);
    assert_eq!(significance(&machine(95), &machine(60)), Significance::Readings);
    let read = Memory::from_status(Some(OllamaServerStatus {
        observed_generation: Some(1),
        ..machine(644_245_923)
    }));
    assert!(read.readings().is_empty(), "and judges nothing after a restart");
}

/// What the answer lacked is said, again after a restart, and a line that moves is no news.
#[test]
fn the_cause_of_an_agents_failure_is_told() {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    let odd = |line: u32| AgentObservation {
        plugin: "m".into(),
        took: Duration::ZERO,
        result: Err(AgentFailure::invalid(&format!("line {line} of the answer is not in the format"))),
    };
    for line in 10..13 {
        scene.poll_with(online(), vec![odd(line)]);
    }
    let message = |scene: &Scene| scene.memory.status.plugins.as_ref().unwrap()[0].message.clone();
    let first = message(&scene);
    assert_eq!(first.as_deref(), Some("line 10 of the answer is not in the format"));
    assert_eq!(scene.writes_of(|scene| drop(scene.poll_with(online(), vec![odd(13)]))), 0);
    scene.restart();
    assert_eq!(scene.writes_of(|scene| drop(scene.poll_with(online(), vec![odd(14)]))), 0);
    assert_eq!(message(&scene), first);
    let gone = AgentObservation { result: Err(AgentFailure::status(404, "/metrics")), ..odd(1) };
    scene.poll_with(online(), vec![gone]);
    assert_eq!(message(&scene).as_deref(), Some("the agent answers 404 to /metrics"));
}

#[rstest]
#[case::temperature(Reading::CpuTemperatureCelsius, 50, 52, 53)]
#[case::percent(Reading::CpuPercent, 10, 15, 16)]
#[case::bytes_of_the_whole(Reading::MemoryAvailable, 32 << 30, (32 << 30) + (64 << 30) / 101, (33 << 30) + (1 << 28))]
fn numbers_have_a_dead_band(
    #[case] reading: Reading,
    #[case] first: i64,
    #[case] near: i64,
    #[case] far: i64,
) {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    let poll = |scene: &mut Scene, value| {
        drop(
            scene
                .poll_with(online(), vec![agent("m", &[(reading, value), (Reading::MemoryTotal, 64 << 30)])]),
        );
    };
    poll(&mut scene, first);
    assert_eq!(scene.writes_of(|scene| poll(scene, near)), 0);
    assert_eq!(scene.writes_of(|scene| poll(scene, far)), 1);
}

#[test]
fn a_pressure_goes_with_its_plugin_also_while_suspended() {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    for _ in 0..2 {
        scene.poll_with(online(), vec![agent("m", &[(Reading::GpuTemperatureCelsius, 95)])]);
    }
    scene.spec.suspend = true;
    scene.step(Observation::None);
    assert_eq!(scene.condition("ThermalPressure"), Some(("True", "GPUOverheating")), "the last data is kept");
    scene.plugins.clear();
    scene.step(Observation::None);
    assert_eq!((scene.condition("ThermalPressure"), &scene.memory.status.machine), (None, &None));
}

/// A plugin that must not wake a model, on a server that has one in memory or not.
fn scene_with_a_need(need: ModelNeed) -> Scene {
    let mut scene = Scene::new(json!({})).with_plugin("llama-server");
    scene.plugins[0].need = need;
    scene
}

fn report(scene: &Scene) -> PluginReport {
    scene.memory.status.plugins.as_ref().unwrap()[0].clone()
}

/// llama-server b10434 with --sleep-idle-seconds: `/metrics` wakes the model, so nobody asks while it sleeps.
#[test]
fn a_plugin_that_needs_a_model_is_idle_and_healthy_without_one() {
    let mut scene = scene_with_a_need(ModelNeed::Any);
    let asleep = || online_with(&[], &["llama3.2:latest", "qwen3:8b"]);
    assert_eq!(scene.poll(asleep()), []);
    assert_eq!(report(&scene).state.as_deref(), Some("Idle"));
    assert_eq!(scene.condition("PluginsHealthy"), Some(("True", "AllHealthy")));
    assert_eq!(scene.memory.status.plugin_summary.as_deref(), Some("1/1"));

    let awake = vec![agent("llama-server", &[(Reading::CpuPercent, 5)])];
    assert_eq!(scene.poll_with(online(), awake), [Transition::ModelLoaded("qwen3:8b".into())]);
    assert_eq!(report(&scene).state.as_deref(), Some("Active"));
    assert_eq!(scene.memory.status.machine.as_ref().unwrap().cpu_percent, Some(5));

    assert_eq!(
        scene.poll(asleep()),
        [Transition::ModelUnloaded("qwen3:8b".into())],
        "falling idle is no Event"
    );
    assert_eq!(report(&scene).state.as_deref(), Some("Idle"));
    assert!(
        report(&scene).values.is_empty() && scene.memory.status.machine.is_none(),
        "nobody knows them now"
    );
    scene.restart();
    assert_eq!(scene.writes_of(|scene| assert_eq!(scene.poll(asleep()), [])), 0);
}

#[rstest]
#[case::named(ModelNeed::Named("llama3.2:latest".into()), "Idle")]
#[case::named_and_awake(ModelNeed::Named("qwen3:8b".into()), "Active")]
fn a_plugin_about_one_model_needs_that_one(#[case] need: ModelNeed, #[case] state: &str) {
    let mut scene = scene_with_a_need(need);
    scene.poll_with(online(), vec![agent("llama-server", &[])]);
    assert_eq!(report(&scene).state.as_deref(), Some(state));
}

/// Whatever is in the memory of a host that is down, nobody knows it.
#[test]
fn a_plugin_that_needs_a_model_is_idle_while_the_host_is_down() {
    let mut scene = scene_with_a_need(ModelNeed::Any);
    scene.poll_with(online(), vec![agent("llama-server", &[])]);
    let mut states = Vec::new();
    for _ in 0..3 {
        scene.poll(failed(Failure::Timeout));
        states.push(report(&scene).state.unwrap());
    }
    assert_eq!(states, ["Active", "Active", "Idle"], "a doubt about the host is no verdict");
    scene.poll_with(online(), vec![agent("llama-server", &[])]);
    assert_eq!(report(&scene).state.as_deref(), Some("Active"));
}

/// An agent that failed, then rested, and answers again, has recovered once.
#[test]
fn a_failed_plugin_that_rests_recovers_when_it_answers() {
    let mut scene = scene_with_a_need(ModelNeed::Any);
    let mut events = Vec::new();
    for _ in 0..3 {
        events.extend(scene.poll_with(online(), vec![agent_failed("llama-server")]));
    }
    events.extend(scene.poll(online_with(&[], &["llama3.2:latest", "qwen3:8b"])));
    assert_eq!(report(&scene).state.as_deref(), Some("Idle"));
    events.extend(scene.poll_with(online(), vec![agent("llama-server", &[])]));
    let about: Vec<_> = events
        .iter()
        .filter(|event| matches!(event, Transition::PluginFailed { .. } | Transition::PluginRecovered(_)))
        .collect();
    assert_eq!(about.len(), 2, "{about:?}");
}
