//! Scenarios of one server, step by step: what is concluded, what is announced, what would be written.

mod agents;
mod availability;
mod models;
mod rules;
mod told;

use super::*;
use crate::{
    api::fleet_plugin::Reading, controller::plugin::index::AgentPlace, plugins::model_need::ModelNeed,
};
use crate::{
    api::{OllamaServerStatus, server_status::Scalar},
    args::PollArgs,
    controller::server::{accept::accept, transition::Sensor},
    plugins::{
        readings::{Implausible, Readings},
        values::AgentValues,
    },
    probe::{
        AgentFailure, Failure,
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
        need: ModelNeed::None,
        name: name.into(),
        place: port.map(|port| AgentPlace { elsewhere: None, port }),
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
    unknown_keys: Vec<String>,
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
            unknown_keys: Vec::new(),
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
            unknown_keys: &self.unknown_keys,
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
    answered(plugin, AgentValues { values, readings: found, ..AgentValues::default() })
}

fn answered(plugin: &str, values: AgentValues) -> AgentObservation {
    AgentObservation { plugin: plugin.into(), took: Duration::ZERO, result: Ok(values) }
}

fn agent_failed(plugin: &str) -> AgentObservation {
    AgentObservation {
        plugin: plugin.into(),
        took: Duration::ZERO,
        result: Err(Failure::ConnectionRefused.into()),
    }
}

fn no_credential(problem: Problem) -> Failure {
    Failure::NoCredential(NoCredential { role: Role::Authorization, problem })
}
