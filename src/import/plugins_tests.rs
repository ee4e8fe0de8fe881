//! Tables of manifests.

use super::*;
use crate::api::FleetPlugin;
use proptest::prelude::*;
use rstest::rstest;
use serde_json::json;

fn file(folder: &str, text: impl ToString) -> PluginFile {
    PluginFile { folder: folder.to_owned(), text: Ok(text.to_string()) }
}

fn import(files: &[PluginFile]) -> (Plugins, Vec<FleetPlugin>, Vec<String>) {
    let mut report = Report::default();
    let plugins = convert(files, Some("lab"), &mut report).unwrap();
    let objects = plugins.objects.iter().map(|object| {
        let from_yaml: Value = serde_saphyr::from_str(&object.yaml).unwrap();
        assert_eq!(from_yaml, object.json);
        assert_eq!(from_yaml["metadata"]["namespace"], "lab");
        serde_json::from_value::<FleetPlugin>(from_yaml).unwrap()
    });
    let objects = objects.collect();
    (plugins, objects, report.findings.iter().map(ToString::to_string).collect())
}

fn manifest(patch: Value) -> Value {
    let mut manifest = json!({
        "name": "queue", "version": "1.2.0", "description": "Queue depth", "type": "agent",
        "defaultPort": 9200, "endpoint": "/metrics", "configKey": "metricsPort"
    });
    for (key, value) in patch.as_object().unwrap() {
        manifest[key] = value.clone();
    }
    manifest
}

#[test]
fn an_agent_becomes_a_plugin_without_a_word() {
    let (plugins, objects, lines) = import(&[file("queue", manifest(json!({})))]);
    assert_eq!(lines, [] as [String; 0]);
    let spec = &objects[0].spec;
    let agent = spec.agent.as_ref().unwrap();
    assert_eq!(spec.version.as_deref(), Some("1.2.0"));
    assert_eq!((agent.default_port, agent.endpoint.as_str()), (9200, "/metrics"));
    assert_eq!(plugins.config_keys, [("metricsPort".into(), "metricsPort".into())].into());
}

/// The text of the preset is edited by lines; each of them has to be there once.
#[test]
fn the_shipped_plugin_is_the_full_preset() {
    let shipped: FleetPlugin = serde_saphyr::from_str(PRESET).unwrap();
    let old = json!({
        "name": "fleet-metrics", "version": "1.0.0", "description": "System metrics agent", "type": "agent",
        "defaultPort": 9100, "endpoint": "/metrics", "configKey": "metricsPort"
    });
    let (_, objects, lines) = import(&[file("fleet-metrics", &old)]);
    assert_eq!(lines, [] as [String; 0]);
    assert_eq!(objects[0].spec, shipped.spec);
    let mut moved = old;
    moved["defaultPort"] = 9101.into();
    moved["endpoint"] = "/stats".into();
    moved["configKey"] = "on".into();
    let (_, objects, _) = import(&[file("fleet-metrics", moved)]);
    let agent = objects[0].spec.agent.as_ref().unwrap();
    assert_eq!(
        (agent.default_port, agent.endpoint.as_str(), agent.config_key.as_deref()),
        (9101, "/stats", Some("on"))
    );
    assert_eq!(agent.values, shipped.spec.agent.unwrap().values);
}

#[rstest]
#[case(json!({"name": "Queue Depth!"}), "name \"Queue Depth!\" is not that of its folder")]
#[case(json!({"endpoint": "/stats"}), "endpoint is written as /stats; the old dashboard ignored it")]
#[case(json!({"endpoint": "stats"}), "endpoint is written as /stats; the old dashboard ignored it")]
#[case(json!({"endpoint": null}), "endpoint is missing; written as /metrics")]
#[case(json!({"version": "v1.2"}), "version must be a semantic version, found \"v1.2\"; written as 1.2.0")]
#[case(json!({"version": "latest"}), "found \"latest\"; written as 0.0.0")]
#[case(json!({"version": 2}), "found 2; written as 0.0.0")]
#[case(json!({"description": "x".repeat(600)}), "description must be a text of at most 512")]
#[case(json!({"description": "a\u{202e}b"}), "description has line breaks, or characters that steer")]
#[case(json!({"description": ["x"]}), "description must be a text")]
#[case(json!({"configKey": "queuePort"}), "the old dashboard never asked it")]
#[case(json!({"author": "me"}), "\"author\" is no field of a manifest")]
fn doubtful_manifests_are_kept_and_reported(#[case] patch: Value, #[case] says: &str) {
    let (_, objects, lines) = import(&[file("queue", manifest(patch))]);
    assert_eq!((objects.len(), lines.len()), (1, 1), "{lines:?}");
    assert!(lines[0].starts_with("check: plugins/queue: ") && lines[0].contains(says), "{lines:?}");
}

#[rstest]
#[case("{", "plugin.json is not valid JSON")]
#[case("[]", "must be an object, found a list")]
#[case("{\"type\": \"agent\"}", "name must be a text that is not blank, found none")]
#[case("{\"name\": \"queue\"}", "type must be agent or hook, found none")]
#[case("{\"name\": \"queue\", \"type\": \"Agent\"}", "type must be agent or hook, found \"Agent\"")]
#[case(
    "{\"name\": \"queue\", \"type\": \"agent\"}",
    "defaultPort must be a port from 1 to 65535, found none"
)]
#[case("{\"name\": \"queue\", \"type\": \"agent\", \"defaultPort\": 0}", "found 0")]
#[case("{\"name\": \"queue\", \"type\": \"agent\", \"defaultPort\": \"9\"}", "found \"9\"")]
#[case(
    "{\"name\": \"queue\", \"type\": \"agent\", \"defaultPort\": 9, \"endpoint\": \"http://x/y\"}",
    "endpoint must be a path"
)]
fn bad_manifests_are_skipped_and_the_others_survive(#[case] text: &str, #[case] says: &str) {
    let (_, objects, lines) =
        import(&[file("queue", text), file("other", manifest(json!({"name": "other"})))]);
    assert_eq!((objects.len(), lines.len()), (1, 1), "{lines:?}");
    assert!(lines[0].starts_with("skipped: plugins/queue: ") && lines[0].contains(says), "{lines:?}");
}

#[test]
fn a_missing_port_is_the_one_that_the_old_dashboard_took() {
    let (_, objects, lines) = import(&[file(
        "queue",
        r#"{"name": "queue", "version": "1.0.0", "type": "agent", "endpoint": "/metrics", "configKey": "metricsPort"}"#,
    )]);
    assert_eq!(objects[0].spec.agent.as_ref().unwrap().default_port, 9100);
    assert!(lines[0].contains("defaultPort is missing"), "{lines:?}");
}

#[test]
fn names_and_config_keys_are_given_once() {
    let (plugins, objects, lines) = import(&[
        file("queue", manifest(json!({"configKey": "queue_port"}))),
        file("Queue", manifest(json!({"name": "Queue"}))),
        file("third", manifest(json!({"name": "third", "configKey": "queuePort"}))),
    ]);
    let names: Vec<_> = objects.iter().filter_map(|plugin| plugin.metadata.name.as_deref()).collect();
    assert_eq!(names, ["queue", "queue-2"]);
    assert_eq!(plugins.config_keys["queue_port"], "queuePort");
    assert!(lines.iter().any(|line| line.contains("configKey \"queue_port\" is written as queuePort")));
    assert!(lines.iter().any(|line| line.starts_with("skipped: plugins/third: configKey queuePort belongs")));
}

#[test]
fn a_name_of_which_nothing_can_be_kept_is_that_of_the_folder() {
    let folder = "x".repeat(80);
    let (_, objects, _) = import(&[file(&folder, manifest(json!({"name": "!"})))]);
    assert_eq!(objects[0].metadata.name.as_deref(), Some(format!("plugin-{}", "x".repeat(56)).as_str()));
}

#[test]
fn a_hook_is_a_skeleton_in_comments() {
    let hook = json!({"name": "notify", "version": "1.0.0", "description": "a\nb", "type": "hook"});
    let (plugins, objects, lines) = import(&[file("notify", hook)]);
    assert!(objects.is_empty());
    assert!(lines[0].starts_with("check: plugins/notify: hook plugins are not supported"), "{lines:?}");
    let skeleton = &plugins.skeletons[0];
    assert!(skeleton.lines().all(|line| line.starts_with('#')), "{skeleton}");
    assert!(
        skeleton.contains("# kind: FleetPlugin\n") && skeleton.contains("#   type: Hook\n"),
        "{skeleton}"
    );
}

proptest! {
    #[test]
    fn any_manifest_gives_only_what_can_be_read(
        name in ".{0,10}|[a-z-]{1,8}", version in ".{0,8}|[0-9.]{1,6}", endpoint in ".{0,8}|/[a-z/]{0,8}",
        key in ".{0,8}|[a-zA-Z_]{1,9}", port in 0..70_000_u32,
    ) {
        let manifest = json!({
            "name": name, "type": "agent", "version": version, "endpoint": endpoint, "configKey": key, "defaultPort": port
        });
        let (_, objects, lines) = import(&[file(&name, manifest)]);
        prop_assert_eq!(objects.len() + lines.iter().filter(|line| line.starts_with("skipped: ")).count(), 1);
        for plugin in objects {
            let agent = plugin.spec.agent.unwrap();
            prop_assert!(agent.endpoint.starts_with('/') && agent.endpoint.chars().all(|c| c.is_ascii_graphic()));
            prop_assert!((1..=65535).contains(&agent.default_port));
            prop_assert!(semver::Version::parse(&plugin.spec.version.unwrap()).is_ok());
            prop_assert!(agent.config_key.is_none_or(|key| key.starts_with(|c: char| c.is_ascii_lowercase()) && key.len() <= 63));
        }
    }
}

#[test]
fn a_description_is_written_without_what_steers_a_terminal() {
    let manifest = json!({"name": "q", "version": "1.0.0", "type": "agent", "defaultPort": 9100, "endpoint": "/metrics",
        "configKey": "metricsPort", "description": "a\u{1b}[31m\u{202e}b\u{200b}\nc"});
    let file = PluginFile { folder: "q".to_owned(), text: Ok(manifest.to_string()) };
    let mut report = Report::default();
    let plugins = convert(&[file], None, &mut report).unwrap();
    assert_eq!(plugins.objects[0].json["spec"]["description"], "a[31mb c");
    assert!(!plugins.objects[0].yaml.contains(['\u{1b}', '\u{202e}', '\u{200b}']));
    assert_eq!(report.findings.len(), 1, "{:?}", report.findings);
}
