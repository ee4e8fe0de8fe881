//! Whether a plugin can be used: from a spec to an accepted plugin, or to a reason and a message. Pure.

use super::{
    dependencies::{self, Installed, Needs, Unmet},
    index::ActivePlugin,
};
use crate::{
    api::{
        FleetPlugin, duration,
        endpoint::Scheme,
        fleet_plugin::{Agent, AgentScheme, Dependencies, PluginType},
    },
    controller::credentials::References,
    plugins::{model_need::ModelNeed, rules, values, version_range::VersionRange},
    probe::text::clean,
};
use k8s_openapi::jiff::Timestamp;
use kube::{ResourceExt, core::Selector};
use semver::Version;
use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// Plugins of one namespace that are accepted: four times as many as one server is asked for. Compiled, each may take
/// some 300 KiB, and whoever may create one may create any number.
const ACCEPTED_MAX: usize = 256;
/// Why a plugin is refused, or asked nowhere, for its number alone.
pub const TOO_MANY_PLUGINS: &str = "TooManyPlugins";
/// Characters of a message; the longest of ours that quotes nothing has some 300.
const MESSAGE_MAX: usize = 1024;
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
        // Most messages quote what is wrong.
        Self { reason: "InvalidSpec", message: clean(&message.into(), MESSAGE_MAX) }
    }
}

/// A plugin whose own spec can be used; whether it may work depends on the others of its namespace.
#[derive(Debug)]
pub struct ValidPlugin {
    pub active: Arc<ActivePlugin>,
    pub version: Version,
    pub needs: Needs,
}

/// What the spec of a plugin comes to.
pub type Spec = Result<Arc<ValidPlugin>, Refused>;

/// What became of a plugin.
#[derive(Clone, Debug)]
pub enum Verdict {
    Active(Arc<ActivePlugin>),
    /// Accepted, but asked nowhere until something changes.
    Inactive(Refused),
    Refused(Refused),
}

/// One plugin of a namespace, with what its own spec came to.
#[derive(Clone, Copy)]
pub struct Candidate<'a> {
    pub object: &'a FleetPlugin,
    pub spec: &'a Spec,
}

/// Brings the specs of one namespace's plugins up to date, oldest first: what is valid after the first 256 is refused
/// without being compiled, until an older one goes.
pub fn validate_all<'a>(plugins: impl Iterator<Item = (&'a FleetPlugin, &'a mut Option<Spec>)>) {
    let mut left = ACCEPTED_MAX;
    for (object, spec) in plugins {
        if left == 0 {
            *spec = Some(Err(Refused {
                reason: TOO_MANY_PLUGINS,
                message: format!(
                    "the namespace has {ACCEPTED_MAX} older FleetPlugins that are valid, which is the most; remove some, or create it in another namespace"
                ),
            }));
            continue;
        }
        if matches!(spec, Some(Err(refused)) if refused.reason == TOO_MANY_PLUGINS) {
            *spec = None;
        }
        if spec.get_or_insert_with(|| validate(object).map(Arc::new)).is_ok() {
            left -= 1;
        }
    }
}

/// Judges every plugin of one namespace. They are judged together, because they depend on each other, and because a
/// configKey belongs to one of them: to the older object, then to the first by name. `unreadable`: the names of those that
/// exist beside them and cannot be read.
pub fn judge(
    mut plugins: Vec<Candidate<'_>>,
    unreadable: &[&str],
    platform: &Version,
) -> BTreeMap<String, Verdict> {
    plugins.sort_by_key(|plugin| age_key(plugin.object));
    let mut owners: BTreeMap<&str, String> = BTreeMap::new();
    let mut verdicts = BTreeMap::new();
    let mut installed: BTreeMap<&str, Installed<'_>> =
        unreadable.iter().map(|name| (*name, Installed::Refused)).collect();
    let names: Vec<String> = plugins.iter().map(|plugin| plugin.object.name_any()).collect();
    for (plugin, name) in plugins.iter().zip(&names) {
        let verdict = match (plugin.spec, config_key(plugin.object)) {
            (Err(refused), _) => Verdict::Refused(refused.clone()),
            (Ok(_), Some(key)) if owners.contains_key(key) => Verdict::Refused(Refused {
                reason: "ConfigKeyConflict",
                message: format!(
                    "configKey {key} belongs to the older FleetPlugin {}; choose another one",
                    owners[key]
                ),
            }),
            (Ok(valid), key) => {
                if let Some(key) = key {
                    owners.insert(key, name.clone());
                }
                let suspended = plugin.object.spec.suspend;
                let state = Installed::Accepted { version: &valid.version, needs: &valid.needs, suspended };
                installed.insert(name.as_str(), state);
                Verdict::Active(Arc::clone(&valid.active))
            }
        };
        if matches!(verdict, Verdict::Refused(_)) {
            installed.insert(name.as_str(), Installed::Refused);
        }
        verdicts.insert(name.clone(), verdict);
    }
    for (name, unmet) in dependencies::unmet(&installed, platform) {
        let Unmet { reason, message } = unmet;
        verdicts.insert(name, Verdict::Inactive(Refused { reason, message }));
    }
    for plugin in plugins.iter().filter(|plugin| plugin.object.spec.suspend) {
        let name = plugin.object.name_any();
        if !matches!(verdicts.get(&name), Some(Verdict::Refused(_))) {
            let message = "asked nowhere: spec.suspend is true".to_owned();
            verdicts.insert(name, Verdict::Inactive(Refused { reason: "Suspended", message }));
        }
    }
    verdicts
}

/// Older first, then by name.
pub fn age_key(plugin: &FleetPlugin) -> (Option<Timestamp>, String) {
    (plugin.metadata.creation_timestamp.as_ref().map(|time| time.0), plugin.name_any())
}

pub fn config_key(plugin: &FleetPlugin) -> Option<&str> {
    plugin.spec.agent.as_ref()?.config_key.as_deref()
}

/// Judges the spec of one plugin, whatever others say.
pub fn validate(plugin: &FleetPlugin) -> Result<ValidPlugin, Refused> {
    let spec = &plugin.spec;
    let PluginType::Agent = spec.type_;
    let agent = spec.agent.as_ref().ok_or_else(|| Refused::invalid("type Agent needs spec.agent"))?;
    let version = spec
        .version
        .as_deref()
        .ok_or_else(|| Refused::invalid("type Agent needs spec.version, a semantic version such as 1.0.0"))?;
    let version = Version::parse(version)
        .map_err(|error| Refused::invalid(format!("version is no semantic version: {error}")))?;
    let needs = needs(spec.dependencies.as_ref())?;
    let selector = match spec.server_selector.clone() {
        None => Selector::default(),
        Some(selector) => Selector::try_from(selector)
            .map_err(|error| Refused::invalid(format!("serverSelector is invalid: {error}")))?,
    };
    let uid = plugin.uid().unwrap_or_default();
    let revision = format!("{uid}/{}", plugin.metadata.generation.unwrap_or_default()).into();
    let active = Arc::new(active(plugin.name_any(), revision, selector, agent)?);
    Ok(ValidPlugin { active, version, needs })
}

fn needs(dependencies: Option<&Dependencies>) -> Result<Needs, Refused> {
    let Some(Dependencies { platform, plugins }) = dependencies else { return Ok(Needs::default()) };
    let parse = |field: &str, text: &str| {
        VersionRange::parse(text).map_err(|error| Refused::invalid(format!("dependencies.{field}: {error}")))
    };
    let platform = platform.as_deref().map(|text| parse("platform", text)).transpose()?;
    let plugins = plugins
        .iter()
        .map(|(name, text)| Ok((name.clone(), parse(&format!("plugins.{name}"), text)?)))
        .collect::<Result<_, Refused>>()?;
    Ok(Needs { platform, plugins })
}

fn active(
    name: String,
    revision: Arc<str>,
    selector: Selector,
    agent: &Agent,
) -> Result<ActivePlugin, Refused> {
    let default_port = u16::try_from(agent.default_port)
        .ok()
        .filter(|port| *port > 0)
        .ok_or_else(|| Refused::invalid("agent.defaultPort must be between 1 and 65535"))?;
    if !agent.endpoint.starts_with('/')
        || agent.endpoint.contains(|c: char| c.is_control() || c.is_whitespace() || c == '#')
    {
        return Err(Refused::invalid("agent.endpoint must be a path that starts with /"));
    }
    let optional = |text: Option<&str>, field: &str| -> Result<Option<Duration>, Refused> {
        let Some(text) = text else { return Ok(None) };
        let value = duration::parse(text).filter(|value| !value.is_zero());
        value
            .map(Some)
            .ok_or_else(|| Refused::invalid(format!("agent.{field} must be a duration, for example 3s")))
    };
    let credentials = References::parse(agent.secret_ref.as_ref(), agent.cert_secret_ref.as_ref())
        .map_err(|error| Refused::invalid(format!("agent.{error}")))?;
    if credentials.certificates.is_some() && agent.scheme == AgentScheme::Http {
        return Err(Refused::invalid(
            "agent.certSecretRef needs TLS: set agent.scheme to https, or remove it",
        ));
    }
    let values = values::compile(agent).map_err(|error| Refused::invalid(error.to_string()))?;
    let rules =
        rules::compile(&name, &agent.rules, &values).map_err(|error| Refused::invalid(error.to_string()))?;
    Ok(ActivePlugin {
        name,
        revision,
        selector,
        scheme: match agent.scheme {
            AgentScheme::Http => Scheme::Http,
            AgentScheme::Https => Scheme::Https,
        },
        default_port,
        path: agent.endpoint.clone(),
        need: ModelNeed::of(agent.only_while_loaded, &agent.endpoint),
        credentials,
        config_key: agent.config_key.clone(),
        interval: optional(agent.interval.as_deref(), "interval")?,
        timeout: optional(agent.timeout.as_deref(), "timeout")?.unwrap_or(TIMEOUT),
        format: agent.format,
        values,
        rules: rules.into(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::{endpoint::Endpoint, ollama_server::OllamaServerSpec};
    use rstest::rstest;
    use serde_json::{Value, json};

    fn plugin(name: &str, created: &str, agent: Value) -> FleetPlugin {
        let mut full = json!({"defaultPort": 9100, "endpoint": "/metrics"});
        full.as_object_mut().unwrap().extend(agent.as_object().unwrap().clone());
        let object = json!({
            "apiVersion": "ollama-fleet.io/v1alpha1", "kind": "FleetPlugin",
            "metadata": {"name": name, "namespace": "x", "creationTimestamp": created},
            "spec": {"type": "Agent", "version": "1.0.0", "agent": full}
        });
        serde_json::from_value(object).unwrap()
    }

    fn judged(plugins: &[&FleetPlugin]) -> BTreeMap<String, Verdict> {
        let specs: Vec<_> = plugins.iter().map(|plugin| validate(plugin).map(Arc::new)).collect();
        let candidates =
            plugins.iter().zip(&specs).map(|(object, spec)| Candidate { object, spec }).collect();
        judge(candidates, &["unreadable"], &Version::new(0, 1, 0))
    }

    #[test]
    fn what_needs_an_unreadable_plugin_is_told_that_it_is_there() {
        let mut needy = plugin("a", "2026-01-01T00:00:00Z", json!({}));
        needy.spec.dependencies = serde_json::from_value(json!({"plugins": {"unreadable": ">=1"}})).unwrap();
        let verdicts = judged(&[&needy]);
        let Verdict::Inactive(Refused { message, .. }) = &verdicts["a"] else { panic!("{verdicts:?}") };
        assert_eq!(message, "needs unreadable >=1, which is not accepted");
        assert!(!verdicts.contains_key("unreadable"));
    }

    #[test]
    fn the_youngest_are_refused_until_an_older_one_goes() {
        let bad = json!({"certSecretRef": {"name": "s"}});
        let mut plugins = vec![plugin("invalid", "2026-01-01T00:00:00Z", bad)];
        plugins
            .extend((0..ACCEPTED_MAX).map(|n| plugin(&format!("p{n}"), "2026-01-02T00:00:00Z", json!({}))));
        plugins.push(plugin("late", "2026-01-03T00:00:00Z", json!({})));
        let mut specs: Vec<Option<Spec>> = plugins.iter().map(|_| None).collect();
        validate_all(plugins.iter().zip(&mut specs));
        let refused = |spec: &Option<Spec>| spec.clone().unwrap().err();
        assert_eq!(refused(&specs[0]).unwrap().reason, "InvalidSpec", "it takes no place");
        assert_eq!(specs[1..=ACCEPTED_MAX].iter().filter_map(refused).count(), 0);
        let late = refused(specs.last().unwrap()).unwrap();
        assert!(late.reason == "TooManyPlugins" && late.message.contains("256"), "{late:?}");
        validate_all(plugins.iter().zip(&mut specs).skip(2));
        assert_eq!(refused(specs.last().unwrap()), None);
    }

    #[test]
    fn the_older_plugin_keeps_the_config_key() {
        let young = plugin("a", "2026-01-02T00:00:00Z", json!({"configKey": "metricsPort"}));
        let old = plugin("b", "2026-01-01T00:00:00Z", json!({"configKey": "metricsPort"}));
        let verdicts = judged(&[&young, &old]);
        assert!(matches!(verdicts["b"], Verdict::Active(_)));
        assert!(matches!(&verdicts["a"], Verdict::Refused(refused) if refused.reason == "ConfigKeyConflict"));
        assert!(
            matches!(judged(&[&young])["a"], Verdict::Active(_)),
            "it heals by itself when the other goes"
        );
    }

    #[test]
    fn a_refused_plugin_does_not_hold_a_config_key() {
        let bad =
            plugin("bad", "2026-01-01T00:00:00Z", json!({"configKey": "k", "certSecretRef": {"name": "s"}}));
        let good = plugin("good", "2026-01-02T00:00:00Z", json!({"configKey": "k"}));
        let verdicts = judged(&[&bad, &good]);
        assert!(matches!(verdicts["bad"], Verdict::Refused(_)));
        assert!(matches!(verdicts["good"], Verdict::Active(_)));
    }

    #[rstest]
    #[case::secret(json!({"secretRef": {"name": "../s"}}), "agent.secretRef.name")]
    #[case::certificates_without_tls(json!({"certSecretRef": {"name": "s"}}), "agent.certSecretRef needs TLS")]
    #[case::port(json!({"defaultPort": 70000}), "defaultPort")]
    #[case::endpoint(json!({"endpoint": "metrics"}), "endpoint")]
    #[case::timeout(json!({"timeout": "soon"}), "timeout")]
    #[case::path(json!({"values": [{"name": "x", "jsonPaths": ["$.["]}]}), "position")]
    fn refusals_name_the_field(#[case] agent: Value, #[case] word: &str) {
        let refused = validate(&plugin("p", "2026-01-01T00:00:00Z", agent)).unwrap_err();
        assert!(refused.message.contains(word), "{}", refused.message);
    }

    /// Where a plugin with the configKey `metricsPort` is asked, and what for.
    #[rstest]
    #[case::absent(json!({}), Some("http://192.168.1.100:9100"))]
    #[case::number(json!({"pluginPorts": {"metricsPort": 9200}}), Some("http://192.168.1.100:9200"))]
    #[case::zero(json!({"pluginPorts": {"metricsPort": 0}}), None)]
    #[case::out_of_range(json!({"pluginPorts": {"metricsPort": 70000}}), None)]
    #[case::another_key(json!({"pluginPorts": {"otherPort": 1}}), Some("http://192.168.1.100:9100"))]
    #[case::elsewhere(json!({"pluginHosts": {"metricsPort": "192.168.1.60:80"}}), Some("http://192.168.1.60:80"))]
    #[case::elsewhere_without_port(json!({"pluginHosts": {"metricsPort": "bmc1.lab"}}), Some("http://bmc1.lab:9100"))]
    #[case::elsewhere_v6(json!({"pluginHosts": {"metricsPort": "[fd00::1]:81"}}), Some("http://[fd00::1]:81"))]
    #[case::elsewhere_with_the_port_of_ports(
        json!({"pluginHosts": {"metricsPort": "bmc1.lab"}, "pluginPorts": {"metricsPort": 9200}}),
        Some("http://bmc1.lab:9200")
    )]
    #[case::elsewhere_and_off(
        json!({"pluginHosts": {"metricsPort": "bmc1.lab:80"}, "pluginPorts": {"metricsPort": 0}}),
        None
    )]
    fn places_are_overridden_by_config_key(#[case] overrides: Value, #[case] url: Option<&str>) {
        let valid =
            validate(&plugin("p", "2026-01-01T00:00:00Z", json!({"configKey": "metricsPort"}))).unwrap();
        let mut spec = json!({"host": "192.168.1.100"});
        spec.as_object_mut().unwrap().extend(overrides.as_object().unwrap().clone());
        let spec: OllamaServerSpec = serde_json::from_value(spec).unwrap();
        let host = Endpoint::parse(&spec.host).unwrap();
        let place = valid.active.place(&spec);
        assert_eq!(place.map(|place| valid.active.endpoint(&host, place).to_string()).as_deref(), url);
    }

    #[rstest]
    #[case("gpu1.lab:11434", "/ipmi?target=gpu1.lab&module=default")]
    #[case("192.168.1.100", "/ipmi?target=192.168.1.100&module=default")]
    #[case("[fd00::1]", "/ipmi?target=fd00%3A%3A1&module=default")]
    fn the_host_has_its_place_in_a_path(#[case] host: &str, #[case] path: &str) {
        let endpoint = json!({"endpoint": "/ipmi?target={host}&module=default"});
        let valid = validate(&plugin("p", "2026-01-01T00:00:00Z", endpoint)).unwrap();
        assert_eq!(valid.active.path(&Endpoint::parse(host).unwrap().host), path);
    }
}
