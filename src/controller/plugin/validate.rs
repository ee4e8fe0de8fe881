//! Whether a plugin can be used: from a spec to an accepted plugin, or to a reason and a message. Pure.

use super::index::ActivePlugin;
use crate::{
    api::{
        FleetPlugin, duration,
        endpoint::Scheme,
        fleet_plugin::{Agent, AgentScheme, PluginType},
    },
    plugins::values::CompiledValues,
};
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, core::Selector};
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Time that one reading may take where the plugin does not say.
const TIMEOUT: Duration = Duration::from_secs(3);

/// A plugin that cannot be used before somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    pub reason: &'static str,
    pub message: String,
}

impl Refused {
    fn invalid(message: impl Into<String>) -> Self {
        Self { reason: "InvalidSpec", message: message.into() }
    }
}

/// Judges every plugin of one namespace. They are judged together, because a configKey belongs to one of them: to the
/// older object, then to the first by name.
pub fn validate(plugins: &[Arc<FleetPlugin>]) -> BTreeMap<String, Result<Arc<ActivePlugin>, Refused>> {
    let mut ordered: Vec<&Arc<FleetPlugin>> = plugins.iter().collect();
    ordered.sort_by_key(|plugin| age_key(plugin));
    let mut owners: BTreeMap<&str, String> = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    for plugin in ordered {
        let verdict = validate_one(plugin).and_then(|active| {
            let Some(key) = config_key(plugin) else { return Ok(active) };
            match owners.get(key) {
                Some(owner) => Err(Refused {
                    reason: "ConfigKeyConflict",
                    message: format!("configKey {key} belongs to the older FleetPlugin {owner}; choose another one"),
                }),
                None => {
                    owners.insert(key, plugin.name_any());
                    Ok(active)
                }
            }
        });
        verdicts.insert(plugin.name_any(), verdict.map(Arc::new));
    }
    verdicts
}

/// Older first, then by name.
pub fn age_key(plugin: &FleetPlugin) -> (Option<Timestamp>, String) {
    (plugin.metadata.creation_timestamp.as_ref().map(|time| time.0), plugin.name_any())
}

fn config_key(plugin: &FleetPlugin) -> Option<&str> {
    plugin.spec.agent.as_ref()?.config_key.as_deref()
}

fn validate_one(plugin: &FleetPlugin) -> Result<ActivePlugin, Refused> {
    let spec = &plugin.spec;
    let PluginType::Agent = spec.type_;
    let agent = spec.agent.as_ref().ok_or_else(|| Refused::invalid("type Agent needs spec.agent"))?;
    match &spec.version {
        None => return Err(Refused::invalid("type Agent needs spec.version, a semantic version such as 1.0.0")),
        Some(version) => {
            semver::Version::parse(version)
                .map_err(|error| Refused::invalid(format!("version is no semantic version: {error}")))?;
        }
    }
    for (set, field) in [(agent.secret_ref.is_some(), "secretRef"), (agent.cert_secret_ref.is_some(), "certSecretRef")] {
        // Ignoring it would mean to ask with less protection than its owner wrote down.
        if set {
            return Err(Refused::invalid(format!(
                "agent.{field} is not supported by this version of the operator; remove it"
            )));
        }
    }
    let selector = match spec.server_selector.clone() {
        None => Selector::default(),
        Some(selector) => Selector::try_from(selector)
            .map_err(|error| Refused::invalid(format!("serverSelector is invalid: {error}")))?,
    };
    active(plugin.name_any(), selector, agent)
}

fn active(name: String, selector: Selector, agent: &Agent) -> Result<ActivePlugin, Refused> {
    let default_port = u16::try_from(agent.default_port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Refused::invalid("agent.defaultPort must be between 1 and 65535"))?;
    if !agent.endpoint.starts_with('/') || agent.endpoint.contains(|c: char| c.is_control() || c.is_whitespace() || c == '#') {
        return Err(Refused::invalid("agent.endpoint must be a path that starts with /"));
    }
    let optional = |text: Option<&str>, field: &str| -> Result<Option<Duration>, Refused> {
        let Some(text) = text else { return Ok(None) };
        let value = duration::parse(text).filter(|value| !value.is_zero());
        value.map(Some).ok_or_else(|| Refused::invalid(format!("agent.{field} must be a duration, for example 3s")))
    };
    Ok(ActivePlugin {
        name,
        selector,
        scheme: match agent.scheme {
            AgentScheme::Http => Scheme::Http,
            AgentScheme::Https => Scheme::Https,
        },
        default_port,
        path: agent.endpoint.clone(),
        config_key: agent.config_key.clone(),
        interval: optional(agent.interval.as_deref(), "interval")?,
        timeout: optional(agent.timeout.as_deref(), "timeout")?.unwrap_or(TIMEOUT),
        values: CompiledValues::compile(&agent.values).map_err(|error| Refused::invalid(error.to_string()))?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::{Value, json};

    fn plugin(name: &str, created: &str, agent: Value) -> Arc<FleetPlugin> {
        let mut full = json!({"defaultPort": 9100, "endpoint": "/metrics"});
        full.as_object_mut().unwrap().extend(agent.as_object().unwrap().clone());
        let object = json!({
            "apiVersion": "ollama-fleet.io/v1alpha1", "kind": "FleetPlugin",
            "metadata": {"name": name, "namespace": "x", "creationTimestamp": created},
            "spec": {"type": "Agent", "version": "1.0.0", "agent": full}
        });
        Arc::new(serde_json::from_value(object).unwrap())
    }

    #[test]
    fn the_older_plugin_keeps_the_config_key() {
        let young = plugin("a", "2026-01-02T00:00:00Z", json!({"configKey": "metricsPort"}));
        let old = plugin("b", "2026-01-01T00:00:00Z", json!({"configKey": "metricsPort"}));
        let verdicts = validate(&[Arc::clone(&young), Arc::clone(&old)]);
        assert!(verdicts["b"].is_ok());
        assert_eq!(verdicts["a"].as_ref().unwrap_err().reason, "ConfigKeyConflict");
        assert!(validate(&[young])["a"].is_ok(), "it heals by itself when the other goes");
    }

    #[test]
    fn a_refused_plugin_does_not_hold_a_config_key() {
        let bad = plugin("bad", "2026-01-01T00:00:00Z", json!({"configKey": "k", "secretRef": {"name": "s"}}));
        let good = plugin("good", "2026-01-02T00:00:00Z", json!({"configKey": "k"}));
        let verdicts = validate(&[bad, good]);
        assert!(verdicts["bad"].is_err() && verdicts["good"].is_ok());
    }

    #[rstest]
    #[case::secret(json!({"secretRef": {"name": "s"}}), "secretRef")]
    #[case::port(json!({"defaultPort": 70000}), "defaultPort")]
    #[case::endpoint(json!({"endpoint": "metrics"}), "endpoint")]
    #[case::timeout(json!({"timeout": "soon"}), "timeout")]
    #[case::path(json!({"values": [{"name": "x", "jsonPaths": ["$.["]}]}), "position")]
    fn refusals_name_the_field(#[case] agent: Value, #[case] word: &str) {
        let refused = validate(&[plugin("p", "2026-01-01T00:00:00Z", agent)]).remove("p").unwrap().unwrap_err();
        assert!(refused.message.contains(word), "{}", refused.message);
    }

    #[rstest]
    #[case::absent(json!({}), Some(9100))]
    #[case::number(json!({"metricsPort": 9200}), Some(9200))]
    #[case::zero(json!({"metricsPort": 0}), None)]
    #[case::out_of_range(json!({"metricsPort": 70000}), None)]
    #[case::another_key(json!({"otherPort": 1}), Some(9100))]
    fn ports_are_overridden_by_config_key(#[case] overrides: Value, #[case] port: Option<u16>) {
        let active = validate(&[plugin("p", "2026-01-01T00:00:00Z", json!({"configKey": "metricsPort"}))])
            .remove("p")
            .unwrap()
            .unwrap();
        assert_eq!(active.port(&serde_json::from_value(overrides).unwrap()), port);
    }
}
