//! Scenarios of one server, step by step: what is concluded, what is announced, what would be written.

mod rules;

use super::*;
use crate::api::fleet_plugin::Reading;
use crate::{
    api::{OllamaServerStatus, server_status::Scalar},
    args::PollArgs,
    controller::server::{accept::accept, transition::Sensor},
    plugins::{readings::Readings, values::AgentValues},
    probe::{
        Failure,
        address::AddressPolicy,
        credential::{NoCredential, Problem, Role},
        report::{Expiry, HostReport, LoadedSeen, ModelSeen, Part},
    },
};
use clap::Parser;
use k8s_openapi::jiff::SignedDuration;
use rstest::rstest;
use serde_json::{Value, json};
use std::{sync::Arc, time::Duration};

#[derive(Parser)]
struct Flags {
    #[command(flatten)]
    poll: PollArgs,
}

fn plan(name: &str, port: Option<u16>) -> AgentPlan {
    AgentPlan {
        name: name.into(),
        port,
        revision: "1".into(),
        interval: Duration::from_secs(10),
        rules: Arc::default(),
    }
}

/// One server under test, with a clock that moves ten seconds a poll.
struct Scene {
    memory: Memory,
    spec: OllamaServerSpec,
    generation: i64,
    plugins: Vec<AgentPlan>,
    labels: BTreeMap<String, String>,
    unknown_ports: Vec<String>,
    now: Timestamp,
    published: OllamaServerStatus,
    writes: usize,
    requested_at: Option<String>,
}

impl Scene {
    fn new(spec: Value) -> Self {
        let mut full = json!({"host": "192.168.1.100"});
        full.as_object_mut().unwrap().extend(spec.as_object().unwrap().clone());
        Self {
            memory: Memory::default(),
            spec: serde_json::from_value(full).unwrap(),
            generation: 1,
            plugins: Vec::new(),
            labels: BTreeMap::new(),
            unknown_ports: Vec::new(),
            now: "2026-11-22T00:00:00Z".parse().unwrap(),
            published: OllamaServerStatus::default(),
            writes: 0,
            requested_at: None,
        }
    }

    fn with_plugin(mut self, name: &str) -> Self {
        self.plugins.push(plan(name, Some(9100)));
        self
    }

    fn step(&mut self, observation: Observation) -> Vec<Transition> {
        self.now += SignedDuration::from_secs(10);
        let acceptance = accept(&self.spec, &Flags::parse_from(["x"]).poll, &AddressPolicy::default());
        let subject = Subject {
            namespace: "ml",
            name: "server-1",
            labels: &self.labels,
            spec: &self.spec,
            generation: Some(self.generation),
            acceptance: &acceptance,
            plugins: &self.plugins,
            unknown_ports: &self.unknown_ports,
            requested_at: self.requested_at.as_deref(),
        };
        let Assessment { memory, transitions } =
            assess(std::mem::take(&mut self.memory), subject, observation, self.now);
        self.memory = memory;
        if significance(&self.published, &self.memory.status) > Significance::None {
            self.published = OllamaServerStatus::clone(&self.memory.status);
            self.writes += 1;
        }
        transitions
    }

    fn poll(&mut self, host: HostOutcome) -> Vec<Transition> {
        self.poll_with(host, Vec::new())
    }

    fn poll_with(&mut self, host: HostOutcome, agents: Vec<AgentObservation>) -> Vec<Transition> {
        self.step(Observation::Poll { host, agents, requested: false })
    }

    /// As if the operator had been killed: only what was written is left.
    fn restart(&mut self) {
        let object = serde_json::to_value(&self.published).unwrap();
        self.memory = Memory::from_status(Some(serde_json::from_value(object).unwrap()));
    }

    fn condition(&self, type_: &str) -> Option<(&str, &str)> {
        condition::find(&self.memory.status.conditions, type_)
            .map(|condition| (condition.status.as_str(), condition.reason.as_str()))
    }

    fn ready(&self) -> (&str, &str) {
        self.condition("Ready").unwrap()
    }

    fn writes_of(&mut self, steps: impl FnOnce(&mut Self)) -> usize {
        let before = self.writes;
        steps(self);
        self.writes - before
    }
}

fn online() -> HostOutcome {
    online_with(&["qwen3:8b"], &["llama3.2:latest", "qwen3:8b"])
}

fn online_with(loaded: &[&str], models: &[&str]) -> HostOutcome {
    HostOutcome::Online(HostReport {
        version: Part::Known("0.24.0".into()),
        models: Part::Known(
            models
                .iter()
                .map(|name| ModelSeen { name: (*name).into(), size: Some(1 << 30), ..ModelSeen::default() })
                .collect(),
        ),
        loaded: Part::Known(
            loaded
                .iter()
                .map(|name| LoadedSeen {
                    name: (*name).into(),
                    size: Some(1 << 30),
                    vram: Some(1 << 30),
                    ..LoadedSeen::default()
                })
                .collect(),
        ),
    })
}

fn failed(failure: Failure) -> HostOutcome {
    HostOutcome::Failed(failure)
}

fn agent(plugin: &str, readings: &[(Reading, i64)]) -> AgentObservation {
    let mut found = Readings::default();
    for (reading, value) in readings {
        found.set(*reading, *value);
    }
    let values = [("uptime".to_owned(), Scalar::Integer(1))].into();
    answered(plugin, AgentValues { values, readings: found, fault: None })
}

fn answered(plugin: &str, values: AgentValues) -> AgentObservation {
    AgentObservation { plugin: plugin.into(), took: Duration::ZERO, result: Ok(values) }
}

fn agent_failed(plugin: &str) -> AgentObservation {
    AgentObservation { plugin: plugin.into(), took: Duration::ZERO, result: Err(Failure::ConnectionRefused) }
}

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
fn models_that_come_and_go_are_announced_by_name() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online_with(&[], &["a"]));
    assert_eq!(
        scene.poll(online_with(&["a", "b"], &["a", "b"])),
        [
            Transition::ModelLoaded("a".into()),
            Transition::ModelLoaded("b".into()),
            Transition::ModelAdded("b".into())
        ]
    );
    assert_eq!(
        scene.poll(online_with(&["b"], &["b"])),
        [Transition::ModelUnloaded("a".into()), Transition::ModelRemoved("a".into())]
    );
}

#[rstest]
#[case::failed(Part::Failed(Failure::InvalidResponse), Part::Failed(Failure::Timeout))]
#[case::missing(Part::Missing, Part::Missing)]
#[case::not_asked(Part::NotAsked, Part::NotAsked)]
fn one_endpoint_never_empties_a_list(
    #[case] loaded: Part<Vec<LoadedSeen>>,
    #[case] models: Part<Vec<ModelSeen>>,
) {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    let report = HostReport { version: Part::Known("0.24.0".into()), models, loaded };
    for _ in 0..5 {
        assert_eq!(scene.poll(HostOutcome::Online(report.clone())), []);
    }
    assert_eq!(scene.memory.status.models.as_ref().unwrap().len(), 2);
    assert_eq!(scene.memory.status.loaded_models.as_ref().unwrap().len(), 1);
}

#[test]
fn an_endpoint_that_keeps_failing_is_named_in_the_message() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    let report = HostReport {
        version: Part::Known("0.24.0".into()),
        models: Part::NotAsked,
        loaded: Part::Failed(Failure::InvalidResponse),
    };
    let writes = scene.writes_of(|scene| {
        for _ in 0..5 {
            scene.poll(HostOutcome::Online(report.clone()));
        }
    });
    let ready = condition::find(&scene.memory.status.conditions, "Ready").unwrap();
    assert!(ready.message.contains("loadedModels"), "{}", ready.message);
    assert_eq!(writes, 1, "said once, and not before it has lasted");
}

#[test]
fn a_moving_expiry_is_no_reason_to_write_but_stopping_is() {
    let with_expiry = |expires| {
        HostOutcome::Online(HostReport {
            version: Part::Known("0.24.0".into()),
            models: Part::NotAsked,
            loaded: Part::Known(vec![LoadedSeen { name: "a".into(), expires, ..LoadedSeen::default() }]),
        })
    };
    let at = |second| Timestamp::from_second(second).unwrap();
    let mut scene = Scene::new(json!({}));
    scene.poll(with_expiry(Expiry::At(at(1000))));
    assert_eq!(scene.writes_of(|scene| drop(scene.poll(with_expiry(Expiry::At(at(2000)))))), 0);
    assert_eq!(scene.writes_of(|scene| drop(scene.poll(with_expiry(Expiry::Past(at(2000)))))), 1);
    assert_eq!(scene.memory.status.loaded_models.as_ref().unwrap()[0].state, "Stopping");
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
    assert_eq!(scene.poll(failed(Failure::AddressNotAllowed)), []);
    assert_eq!(scene.condition("Accepted"), Some(("False", "AddressNotAllowed")));
    assert_eq!(scene.condition("Stalled"), Some(("True", "AddressNotAllowed")));
    assert_eq!(scene.poll(online()), []);
    assert_eq!((scene.ready(), scene.condition("Stalled")), (("True", "Online"), None));
}

fn no_credential(problem: Problem) -> Failure {
    Failure::NoCredential(NoCredential { role: Role::Authorization, problem })
}

#[test]
fn a_host_without_credentials_is_not_accepted_until_there_are_some() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    for problem in Problem::ALL {
        let reason = problem.reason();
        assert_eq!(scene.poll(failed(no_credential(problem))), []);
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
fn an_endpoint_that_goes_away_is_said_to_give_nothing() {
    let mut scene = Scene::new(json!({}));
    scene.poll(online());
    let report =
        HostReport { version: Part::Known("0.24.0".into()), models: Part::NotAsked, loaded: Part::Missing };
    for _ in 0..3 {
        scene.poll(HostOutcome::Online(report.clone()));
    }
    let ready = condition::find(&scene.memory.status.conditions, "Ready").unwrap();
    assert!(ready.message.contains("loadedModels"), "{}", ready.message);
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
