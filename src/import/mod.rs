//! From the configuration of the old dashboard to manifests: `OLLAMA_SERVERS` and the settings beside it, and
//! `plugins/*/plugin.json`. Everything here is pure: `cli::import` reads the files and prints.
//!
//! Whatever is left out, changed or guessed is in the [`report::Report`]: nothing is lost silently.

pub mod capacity;
pub mod compose;
pub mod dotenv;
pub mod hosts;
pub mod interpolate;
pub mod manifests;
pub mod names;
pub mod plugins;
pub mod poll;
pub mod report;
pub mod servers;
pub mod settings;

use manifests::Object;
use plugins::{METRICS_PORT, PluginFile};
use report::Report;
use settings::Settings;

/// What an import gives.
#[derive(Debug, Default)]
pub struct Import {
    pub objects: Vec<Object>,
    /// What cannot be applied, as YAML comments.
    pub comments: Vec<String>,
    pub report: Report,
}

/// Converts everything. `files` is `None` if nobody said where plugins are. `report` is what reading the sources has
/// found already.
pub fn convert(
    settings: &Settings,
    files: Option<&[PluginFile]>,
    namespace: Option<&str>,
    mut report: Report,
) -> Result<Import, String> {
    let text = settings::get(settings, settings::SERVERS).ok_or("OLLAMA_SERVERS is empty")?;
    let entries = servers::parse(text)?;
    if entries.is_empty() {
        report.check(settings::SERVERS, "the list is empty");
    }
    let poll = poll::poll(settings, &mut report);
    let mut plugins = plugins::convert(files.unwrap_or_default(), namespace, &mut report)
        .map_err(|error| error.to_string())?;
    // The old dashboard knew this one without any plugin.
    if !plugins.config_keys.values().any(|key| key == METRICS_PORT) {
        plugins.config_keys.insert(METRICS_PORT.to_owned(), METRICS_PORT.to_owned());
        report.check(
            "plugins",
            "no plugin for metricsPort was read, and the old dashboard asked every server's agent on port 9100; \
             give its folder with --plugins, or apply plugins/fleet-metrics/plugin.yaml of the operator",
        );
    }
    let context = servers::Context { namespace, poll: poll.as_ref(), config_keys: &plugins.config_keys };
    let mut objects = servers::convert(&entries, &context, &mut report).map_err(|error| error.to_string())?;
    objects.append(&mut plugins.objects);
    settings::report_without_home(settings, &mut report);
    Ok(Import { objects, comments: plugins.skeletons, report })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn settings(servers: &str) -> Settings {
        [("OLLAMA_SERVERS", servers), ("POLL_INTERVAL", "30")]
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .into()
    }

    #[test]
    fn servers_come_before_plugins_and_all_have_the_poll() {
        let servers = r#"[{"name": "a", "host": "192.0.2.1:11434", "ramGb": 16, "metricsPort": null}]"#;
        let plugin = PluginFile {
            folder: "fleet-metrics".into(),
            text: Ok(r#"{"name": "fleet-metrics", "type": "agent", "defaultPort": 9100, "endpoint": "/metrics", "configKey": "metricsPort"}"#.into()),
        };
        let import = convert(&settings(servers), Some(&[plugin]), None, Report::default()).unwrap();
        let kinds: Vec<_> = import.objects.iter().map(|object| object.kind).collect();
        assert_eq!(kinds, ["OllamaServer", "FleetPlugin"]);
        assert_eq!(import.objects[0].json["spec"]["poll"]["interval"], "30s");
        assert_eq!(import.objects[0].json["spec"]["pluginPorts"]["metricsPort"], 0);
        assert_eq!(import.report, Report::default());
    }

    #[test]
    fn without_plugins_it_says_how_to_get_the_shipped_one() {
        let import = convert(&settings("[]"), None, None, Report::default()).unwrap();
        let lines: Vec<_> = import.report.findings.iter().map(ToString::to_string).collect();
        assert_eq!(lines.len(), 2, "{lines:?}");
        assert!(lines[1].contains("--plugins"), "{lines:?}");
    }

    #[rstest]
    #[case(" ", "OLLAMA_SERVERS is empty")]
    #[case("{}", "must be a JSON array")]
    #[case("[", "line 1 column 1")]
    fn what_is_no_list_of_servers_is_an_error(#[case] servers: &str, #[case] says: &str) {
        let error = convert(&settings(servers), None, None, Report::default()).unwrap_err();
        assert!(error.contains(says), "{error}");
    }
}
