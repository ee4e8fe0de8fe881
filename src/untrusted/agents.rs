//! What agents answer, through plugins that name values and one that names none, up to the status.

use super::{assert_clean, hosts::assess_all};
use crate::{
    api::{
        FleetPlugin,
        fleet_plugin::AgentFormat,
        server_status::{PLUGIN_VALUES_MAX, Scalar},
    },
    controller::server::assess::{AgentObservation, AgentPlan},
    plugins::{
        answer::Answer,
        counters::Counters,
        exposition,
        values::{AgentValues, CompiledValues, compile},
    },
    probe::{
        Failure, HostOutcome,
        report::{HostReport, Part},
    },
};
use std::{
    sync::{Arc, LazyLock},
    time::{Duration, Instant},
};

/// Longest name of a value, and longest text: a host name.
const NAME_MAX: usize = 63;
const TEXT_MAX: usize = 253;
const INTERVAL: Duration = Duration::from_secs(10);

/// The shipped plugins, and one that names no value.
static PLUGINS: LazyLock<Vec<CompiledValues>> = LazyLock::new(|| {
    let shipped = [
        include_str!("../../plugins/fleet-metrics/plugin.yaml"),
        include_str!("../../plugins/node-exporter/plugin.yaml"),
        include_str!("../../plugins/windows-exporter/plugin.yaml"),
        include_str!("../../plugins/dcgm-exporter/plugin.yaml"),
        include_str!("../../plugins/llama-server/plugin.yaml"),
    ];
    let agents =
        shipped.iter().filter_map(|yaml| serde_saphyr::from_str::<FleetPlugin>(yaml).ok()?.spec.agent);
    let agents: Vec<_> = agents.collect();
    assert_eq!(agents.len(), shipped.len(), "a shipped plugin cannot be read");
    let mut bare = agents[0].clone();
    bare.values.clear();
    agents.iter().chain([&bare]).filter_map(|agent| compile(agent).ok()).collect()
});

/// JSON of an agent.
pub fn agent_json(body: &[u8]) {
    read_by_all(AgentFormat::Json, body);
}

/// Prometheus' text or OpenMetrics.
pub fn agent_text(body: &[u8]) {
    if let Ok(samples) = exposition::unlabelled(body, PLUGIN_VALUES_MAX) {
        assert!(samples.len() <= PLUGIN_VALUES_MAX);
        assert!(samples.values().all(|number| number.is_finite()));
    }
    read_by_all(AgentFormat::Prometheus, body);
    read_by_all(AgentFormat::Auto, body);
}

fn read_by_all(format: AgentFormat, body: &[u8]) {
    let Ok(answer) = Answer::read(format, None, body) else { return };
    let mut observations = Vec::new();
    for (index, values) in PLUGINS.iter().enumerate() {
        let mut counters = Counters::default();
        let begin = Instant::now();
        // Twice, so that rates are there.
        for at in [begin, begin + INTERVAL] {
            let result = values.extract(&answer, at, INTERVAL, &mut counters);
            if let Ok(found) = &result {
                bounded(found);
            }
            observations.push(observation(index, result));
        }
    }
    let plan = |index: usize| AgentPlan {
        name: format!("p{index}"),
        revision: "1".into(),
        port: Some(9100),
        interval: INTERVAL,
        rules: Arc::default(),
        credentials: crate::controller::credentials::References::default(),
    };
    let plans: Vec<AgentPlan> = (0..PLUGINS.len()).map(plan).collect();
    let online = HostOutcome::Online(HostReport {
        version: Part::Known("0.24.0".into()),
        models: Part::Known(Vec::new()),
        loaded: Part::Known(Vec::new()),
    });
    assess_all(vec![(online.clone(), observations), (online, Vec::new())], &plans);
}

fn observation(index: usize, result: Result<AgentValues, Failure>) -> AgentObservation {
    AgentObservation { plugin: format!("p{index}"), took: Duration::ZERO, result }
}

fn bounded(found: &AgentValues) {
    assert!(found.values.len() <= PLUGIN_VALUES_MAX);
    assert_clean(&serde_json::to_value(&found.values).unwrap_or_default());
    for (name, value) in &found.values {
        assert!(!name.is_empty() && name.len() <= NAME_MAX, "{name:?}");
        assert!(name.bytes().all(|b| b.is_ascii_alphanumeric()), "{name:?}");
        if let Scalar::Text(text) = value {
            assert!(text.len() <= TEXT_MAX && text.is_ascii(), "{text:?}");
        }
    }
}
