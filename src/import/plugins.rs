//! `plugins/*/plugin.json`: an agent becomes a `FleetPlugin`, the one that shipped with the old dashboard the preset that
//! ships with the operator, a hook a skeleton in comments.

use super::{
    manifests::{AgentSpec, Object, PluginSpec, Unprintable},
    names::{self, Names},
    report::{Report, describe, quote},
};
use crate::probe::text::clean;
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// The plugin that both programs ship.
const SHIPPED: &str = "fleet-metrics";
const PRESET: &str = include_str!("../../plugins/fleet-metrics/plugin.yaml");
/// The only configKey that the old dashboard ever looked at, and the port it took without a plugin.
pub const METRICS_PORT: &str = "metricsPort";
const DEFAULT_PORT: u16 = 9100;
/// The only path that the old dashboard ever asked.
const METRICS: &str = "/metrics";
/// The schema's bounds.
const DESCRIPTION: usize = 512;
const ENDPOINT: usize = 256;
const VERSION: usize = 64;
const FIELDS: [&str; 7] = ["name", "version", "description", "type", "defaultPort", "endpoint", "configKey"];

/// A `plugin.json`: the folder that it is in, and its text or why it cannot be read.
#[derive(Clone, Debug)]
pub struct PluginFile {
    pub folder: String,
    pub text: Result<String, String>,
}

/// What the manifests became.
#[derive(Debug, Default)]
pub struct Plugins {
    pub objects: Vec<Object>,
    /// Hooks, as comments.
    pub skeletons: Vec<String>,
    /// Every configKey as it was written, and as it is written now.
    pub config_keys: BTreeMap<String, String>,
}

/// Every manifest, in the order given.
pub fn convert(
    files: &[PluginFile],
    namespace: Option<&str>,
    report: &mut Report,
) -> Result<Plugins, Unprintable> {
    let mut plugins = Plugins::default();
    let mut names = Names::default();
    let mut keys = BTreeSet::new();
    for file in files {
        let subject = format!("plugins/{}", quote(&file.folder).trim_matches('"'));
        let fields = match manifest(file) {
            Ok(fields) => fields,
            Err(why) => {
                report.skipped(subject, why);
                continue;
            }
        };
        let text = fields.get("name").and_then(Value::as_str).unwrap_or_default();
        if text != file.folder {
            report
                .check(&subject, format!("name {} is not that of its folder; the name counts", quote(text)));
        }
        let fallback = names::label(&format!("plugin {}", file.folder)).unwrap_or_default();
        let name = names.claim(text, &fallback);
        match fields.get("type").and_then(Value::as_str) {
            Some("agent") => {}
            Some("hook") => {
                report.check(&subject, "hook plugins are not supported by this version, and did not run in the old dashboard; YAML on standard output has a skeleton in comments, other output nothing");
                plugins.skeletons.push(skeleton(&name, namespace, &fields));
                continue;
            }
            _ => {
                let found = fields.get("type").map_or_else(|| "none".to_owned(), describe);
                report.skipped(subject, format!("type must be agent or hook, found {found}"));
                continue;
            }
        }
        match agent(&fields, &keys, &subject, report) {
            Ok(agent) => {
                if let (Some(key), Some(old)) =
                    (&agent.config_key, fields.get("configKey").and_then(Value::as_str))
                {
                    keys.insert(key.clone());
                    plugins.config_keys.insert(old.to_owned(), key.clone());
                }
                plugins.objects.push(object(name, namespace, &fields, agent, &subject, report)?);
            }
            Err(why) => report.skipped(subject, why),
        }
    }
    Ok(plugins)
}

/// The old dashboard's rules: an object with a name and a type.
fn manifest(file: &PluginFile) -> Result<Map<String, Value>, String> {
    let text = file.text.as_ref().map_err(Clone::clone)?;
    let value = serde_json::from_str(text.trim_start_matches('\u{feff}'))
        .map_err(|error| format!("plugin.json is not valid JSON: {error}"))?;
    let Value::Object(fields) = value else {
        return Err(format!("plugin.json must be an object, found {}", describe(&value)));
    };
    match fields.get("name").and_then(Value::as_str) {
        Some(name) if !name.trim().is_empty() => Ok(fields),
        _ => {
            let found = fields.get("name").map_or_else(|| "none".to_owned(), describe);
            Err(format!("name must be a text that is not blank, found {found}"))
        }
    }
}

fn agent(
    fields: &Map<String, Value>,
    taken: &BTreeSet<String>,
    subject: &str,
    report: &mut Report,
) -> Result<AgentSpec, String> {
    let config_key = match fields.get("configKey") {
        None | Some(Value::Null) => None,
        Some(value) => config_key(value, subject, report),
    };
    if let Some(key) = config_key.as_ref().filter(|key| taken.contains(*key)) {
        return Err(format!(
            "configKey {key} belongs to a plugin before it; a port can be that of one plugin only, so choose another"
        ));
    }
    let port = match fields.get("defaultPort") {
        Some(value) => {
            value.as_u64().and_then(|port| u16::try_from(port).ok()).filter(|port| *port > 0).ok_or_else(
                || format!("defaultPort must be a port from 1 to 65535, found {}", describe(value)),
            )?
        }
        None if config_key.as_deref() == Some(METRICS_PORT) => {
            report.check(
                subject,
                format!("defaultPort is missing; written as {DEFAULT_PORT}, which the old dashboard took"),
            );
            DEFAULT_PORT
        }
        None => return Err("defaultPort must be a port from 1 to 65535, found none".to_owned()),
    };
    let endpoint = endpoint(fields.get("endpoint"), subject, report)?;
    if config_key.as_deref() != Some(METRICS_PORT) {
        report.check(subject, format!("the old dashboard never asked it; the operator asks port {port} of every server, unless serverSelector or a port of 0 says otherwise"));
    }
    for key in fields.keys().filter(|key| !FIELDS.contains(&key.as_str())) {
        report.check(subject, format!("{} is no field of a manifest; left out", quote(key)));
    }
    Ok(AgentSpec { default_port: port, endpoint, config_key })
}

/// A configKey in lowerCamelCase.
fn config_key(value: &Value, subject: &str, report: &mut Report) -> Option<String> {
    let mut key = String::new();
    let mut upper = false;
    for c in value.as_str().unwrap_or_default().chars() {
        if !c.is_ascii_alphanumeric() || (key.is_empty() && c.is_ascii_digit()) {
            upper = !key.is_empty();
        } else {
            key.push(match (key.is_empty(), upper) {
                (true, _) => c.to_ascii_lowercase(),
                (_, true) => c.to_ascii_uppercase(),
                _ => c,
            });
            upper = false;
        }
    }
    key.truncate(63);
    if key.is_empty() {
        report.check(subject, format!("configKey must be letters and digits, found {}; left out, so no server can override the port", describe(value)));
        return None;
    }
    if value.as_str() != Some(&key) {
        report.check(
            subject,
            format!("configKey {} is written as {key} here and in pluginPorts", describe(value)),
        );
    }
    Some(key)
}

fn endpoint(value: Option<&Value>, subject: &str, report: &mut Report) -> Result<String, String> {
    let Some(value) = value.filter(|value| !value.is_null()) else {
        report.check(
            subject,
            format!("endpoint is missing; written as {METRICS}, which the old dashboard always asked"),
        );
        return Ok(METRICS.to_owned());
    };
    let text = value.as_str().unwrap_or_default().trim();
    let path = if text.starts_with('/') { text.to_owned() } else { format!("/{text}") };
    let printable = |c: char| c.is_ascii_graphic() && !matches!(c, '#' | '\\');
    if text.is_empty() || path.len() > ENDPOINT || !path.chars().all(printable) || path.contains("://") {
        return Err(format!("endpoint must be a path such as /metrics, found {}", describe(value)));
    }
    if path != METRICS {
        report.check(
            subject,
            format!("endpoint is written as {path}; the old dashboard ignored it and always asked {METRICS}"),
        );
    }
    Ok(path)
}

fn object(
    name: String,
    namespace: Option<&str>,
    fields: &Map<String, Value>,
    agent: AgentSpec,
    subject: &str,
    report: &mut Report,
) -> Result<Object, Unprintable> {
    if name == SHIPPED {
        return preset(name, namespace, &agent);
    }
    let spec = PluginSpec {
        type_: "Agent",
        version: version(fields.get("version"), subject, report),
        description: description(fields.get("description"), subject, report),
        agent,
    };
    Object::new("FleetPlugin", name, namespace, &spec)
}

/// The shipped manifest, comments and all, with the lines exchanged that the old one may have had otherwise.
fn preset(name: String, namespace: Option<&str>, agent: &AgentSpec) -> Result<Object, Unprintable> {
    let scalar = |text: &str| {
        serde_saphyr::to_string(&text)
            .map(|text| text.trim_end().to_owned())
            .map_err(|error| Unprintable(SHIPPED.to_owned(), error.to_string()))
    };
    let port = format!("    defaultPort: {}", agent.default_port);
    let endpoint = format!("    endpoint: {}", scalar(&agent.endpoint)?);
    let key = agent.config_key.as_deref().map(scalar).transpose()?.map(|key| format!("    configKey: {key}"));
    let namespace = namespace.map(scalar).transpose()?.map(|namespace| format!("  namespace: {namespace}"));
    let mut lines = Vec::new();
    for line in PRESET.lines() {
        match line {
            "    defaultPort: 9100" => lines.push(port.as_str()),
            "    endpoint: /metrics" => lines.push(&endpoint),
            "    configKey: metricsPort" => lines.extend(key.as_deref()),
            "  name: fleet-metrics" => lines.extend([line].into_iter().chain(namespace.as_deref())),
            _ => lines.push(line),
        }
    }
    let yaml = lines.join("\n") + "\n";
    Object::from_yaml("FleetPlugin", name, yaml)
}

/// A semantic version; what is nearly one is completed, and what is none becomes 0.0.0.
fn version(value: Option<&Value>, subject: &str, report: &mut Report) -> String {
    let text = value.and_then(Value::as_str).unwrap_or_default();
    let bare = text.trim().trim_start_matches(['v', 'V']);
    let candidates = [bare.to_owned(), format!("{bare}.0"), format!("{bare}.0.0")];
    let version = candidates
        .into_iter()
        .find(|text| text.len() <= VERSION && semver::Version::parse(text).is_ok())
        .unwrap_or_else(|| "0.0.0".to_owned());
    if version != text {
        let found = value.map_or_else(|| "none".to_owned(), describe);
        report.check(
            subject,
            format!("version must be a semantic version, found {found}; written as {version}"),
        );
    }
    version
}

fn description(value: Option<&Value>, subject: &str, report: &mut Report) -> Option<String> {
    let value = value.filter(|value| !value.is_null())?;
    let Some(text) = value.as_str() else {
        report.check(subject, "description must be a text; left out");
        return None;
    };
    // A text of several lines is one line of words, not words run together.
    let spaced: String = text.chars().map(|c| if c.is_whitespace() { ' ' } else { c }).collect();
    let harmless = clean(&spaced, usize::MAX);
    if harmless != text {
        report.check(
            subject,
            "description has line breaks, or characters that steer or hide text; written without them",
        );
    }
    let kept: String = harmless.chars().take(DESCRIPTION).collect();
    if kept != harmless {
        report.check(subject, format!("description must be a text of at most {DESCRIPTION} characters; cut"));
    }
    Some(kept).filter(|text| !text.is_empty())
}

fn skeleton(name: &str, namespace: Option<&str>, fields: &Map<String, Value>) -> String {
    let namespace = namespace.map(|namespace| format!("#   namespace: {namespace}\n")).unwrap_or_default();
    let description = fields.get("description").and_then(Value::as_str);
    let description =
        description.map(|text| format!("#   description: {}\n", quote(text))).unwrap_or_default();
    format!(
        "# Hook plugins are not supported by this version of the operator. This is where {name} would begin:\n\
         # apiVersion: ollama-fleet.io/v1alpha1\n# kind: FleetPlugin\n# metadata:\n#   name: {name}\n{namespace}# spec:\n#   type: Hook\n{description}"
    )
}

#[cfg(test)]
#[path = "plugins_tests.rs"]
mod tests;
