//! What agents read: pressures, reboots, numbers that hardly move, and agents that fail.

use super::*;
use crate::api::server_status::PluginReport;

#[test]
fn an_agent_without_credentials_fails_at_once_and_the_server_does_not() {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    let refused = || AgentObservation {
        plugin: "m".into(),
        took: Duration::ZERO,
        result: Err(no_credential(Problem::OtherHost)),
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

#[rstest]
#[case::within_the_jitter(29, 0)]
#[case::a_reboot(31, 1)]
#[case::backwards(-31, 1)]
fn a_reboot_is_a_boot_time_that_moved(#[case] seconds: i64, #[case] events: usize) {
    let mut scene = Scene::new(json!({})).with_plugin("m");
    let booted = |second| {
        let readings =
            Readings { boot_time: Some(Timestamp::from_second(second).unwrap()), ..Readings::default() };
        let values = [("bootTime".to_owned(), Scalar::Integer(second))].into();
        vec![answered("m", AgentValues { values, readings, fault: None })]
    };
    scene.poll_with(online(), booted(1_000_000));
    let found = scene.poll_with(online(), booted(1_000_000 + seconds));
    assert_eq!(found.iter().filter(|transition| **transition == Transition::ServerRebooted).count(), events);
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

/// Whatever is in the memory of a host that fails, nobody knows it.
#[test]
fn a_plugin_that_needs_a_model_is_idle_while_the_host_fails() {
    let mut scene = scene_with_a_need(ModelNeed::Any);
    scene.poll_with(online(), vec![agent("llama-server", &[])]);
    scene.poll_with(failed(Failure::Timeout), vec![agent("llama-server", &[])]);
    assert_eq!(report(&scene).state.as_deref(), Some("Idle"));
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
