//! What agents answer, through plugins that name values and one that names none, up to the status.

use super::{assert_clean, hosts::assess_all};
use crate::{
    api::{
        FleetPlugin,
        fleet_plugin::AgentFormat,
        server_status::{PLUGIN_VALUES_MAX, Scalar},
    },
    controller::{
        plugin::index::AgentPlace,
        server::assess::{AgentObservation, AgentPlan},
    },
    plugins::{
        answer::Answer,
        counters::Counters,
        exposition::{self, Text},
        filter::Filter,
        model_need::ModelNeed,
        values::{AgentValues, Arrival, CompiledValues, compile},
    },
    probe::{
        AgentFailure, HostOutcome,
        report::{HostReport, Part},
    },
};
use k8s_openapi::jiff::Timestamp;
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
        include_str!("../../plugins/amd-device-metrics/plugin.yaml"),
        include_str!("../../plugins/glances/plugin.yaml"),
        include_str!("../../plugins/libre-hardware-monitor/plugin.yaml"),
        include_str!("../../plugins/macmon/plugin.yaml"),
        include_str!("../../plugins/netdata/plugin.yaml"),
        include_str!("../../plugins/nvidia-gpu-exporter/plugin.yaml"),
        include_str!("../../plugins/nvitop-exporter/plugin.yaml"),
        include_str!("../../plugins/shelly-plug/plugin.yaml"),
        include_str!("../../plugins/telegraf/plugin.yaml"),
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
    for seconds in [false, true] {
        if let Ok(found) = exposition::unlabelled(Text { body, seconds }, PLUGIN_VALUES_MAX) {
            assert!(found.numbers.len() <= PLUGIN_VALUES_MAX);
            assert!(found.numbers.values().all(|number| number.is_finite()));
        }
    }
    read_by_all(AgentFormat::Prometheus, body);
    read_by_all(AgentFormat::Auto, body);
}

fn read_by_all(format: AgentFormat, body: &[u8]) {
    let whole = Answer::read(format, None, body, &Filter::All);
    let mut observations = Vec::new();
    let clock = Timestamp::constant(1_795_305_600, 0);
    for (index, values) in PLUGINS.iter().enumerate() {
        // What nobody reaches is the only thing that may be lost of it.
        let answer = match Answer::read(format, None, body, values.filter()) {
            Ok(answer) => answer,
            Err(failure) => {
                assert!(whole.is_err(), "{failure:?}");
                observations.push(observation(index, Err(failure)));
                continue;
            }
        };
        let mut counters = Counters::default();
        let begin = Instant::now();
        // Twice, so that rates are there.
        for at in [begin, begin + INTERVAL] {
            let result = values.extract(&answer, Arrival { at, clock }, INTERVAL, &mut counters);
            if let Ok(found) = &result {
                bounded(found);
            }
            observations.push(observation(index, result));
        }
    }
    let plan = |index: usize| AgentPlan {
        name: format!("p{index}"),
        revision: "1".into(),
        place: Some(AgentPlace { elsewhere: None, port: 9100 }),
        need: ModelNeed::None,
        interval: INTERVAL,
        rules: Arc::default(),
    };
    let plans: Vec<AgentPlan> = (0..PLUGINS.len()).map(plan).collect();
    let online = HostOutcome::Online(HostReport {
        version: Part::Known("0.24.0".into()),
        models: Part::Known(Vec::new()),
        loaded: Part::Known(Vec::new()),
    });
    assess_all(vec![(online.clone(), observations), (online, Vec::new())], &plans);
}

fn observation(index: usize, result: Result<AgentValues, AgentFailure>) -> AgentObservation {
    AgentObservation { plugin: format!("p{index}"), took: Duration::ZERO, result }
}

fn bounded(found: &AgentValues) {
    assert!(!found.readings.has_implausible(), "{:?}", found.readings);
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
