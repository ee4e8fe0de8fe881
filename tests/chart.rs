//! The chart installs what it says, into a real API server, and nothing that a restricted namespace refuses.

use crate::support::{ControlPlane, child, control_plane::helm_command};
use serde_json::{Value, json};
use tempfile::TempDir;

pub const CHART: &str = "charts/ollama-fleet-operator";
pub const MINIMAL: &str = "charts/ollama-fleet-operator/ci/minimal-values.yaml";
pub const EVERYTHING: &str = "charts/ollama-fleet-operator/ci/everything-values.yaml";

/// Helm without a cluster.
pub fn helm(args: &[&str]) -> child::Output {
    let folder = TempDir::new().unwrap();
    child::run(&mut helm_command(folder.path(), args), None)
}

/// The objects that the chart makes of these values.
pub fn render(values: &str, namespace: &str) -> Vec<Value> {
    let text = helm(&["template", "fleet", CHART, "-f", values, "-n", namespace, "--include-crds"]).ok();
    let documents: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
    documents.into_iter().filter(|document| !document.is_null()).collect()
}

pub fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects.iter().filter(|object| object["kind"] == kind).collect()
}

/// `helm lint` has nothing to say, with the least and with the most values.
#[test]
fn helm_lint_is_silent() {
    for values in [MINIMAL, EVERYTHING] {
        let said = helm(&["lint", "--strict", CHART, "-f", values]).ok();
        assert!(!said.contains("[WARNING]") && !said.contains("[ERROR]"), "{said}");
    }
}

/// The one value without a default is asked for in words.
#[test]
fn the_image_must_be_named() {
    let said = helm(&["template", "fleet", CHART]).refused();
    assert!(
        said.contains(
            "image.repository is required: set it to where your cluster pulls the operator's image from"
        ),
        "{said}"
    );
}

/// A value that does not exist is refused, not ignored; so is a flag that the chart passes itself.
#[test]
fn wrong_values_are_refused() {
    let with = |set: &str| helm(&["template", "fleet", CHART, "-f", MINIMAL, "--set", set]).refused();
    let said = with("polIntervall=5s");
    assert!(said.contains("polIntervall"), "{said}");
    let said = with("pollInterval=5");
    assert!(said.contains("pollInterval"), "{said}");
    let said = with("replicaCount=2,extraArgs={--leader-elect}");
    assert!(said.contains("leave --leader-elect out of extraArgs"), "{said}");
}

/// The address policy of the values is what the operator is told, with the pod's own addresses; it can be told nothing.
#[test]
fn the_address_policy_is_handed_over() {
    let container = |values: &str| {
        of_kind(&render(values, "fleet"), "Deployment")[0]["spec"]["template"]["spec"]["containers"][0]
            .clone()
    };
    let policy = |container: &Value| {
        let args = container["args"].as_array().unwrap().iter().map(|arg| arg.as_str().unwrap().to_owned());
        args.filter(|arg| arg.contains("-cidrs=") || arg.contains("-ports=")).collect::<Vec<_>>()
    };
    let (everything, minimal) = (container(EVERYTHING), container(MINIMAL));
    let expected = [
        "--denied-cidrs=10.244.0.0/16,fd00:10:244::/56",
        "--allowed-cidrs=127.0.0.0/8,::1/128",
        "--only-cidrs=192.168.0.0/16,127.0.0.0/8",
        "--allowed-ports=443,9100,11000-12000",
    ];
    assert_eq!(policy(&everything), expected);
    assert!(policy(&minimal).is_empty(), "{minimal}");
    for container in [everything, minimal] {
        let env = container["env"].as_array().unwrap();
        let own = env.iter().find(|variable| variable["name"] == "POD_IPS").unwrap();
        assert_eq!(own["valueFrom"]["fieldRef"]["fieldPath"], "status.podIPs");
    }
    let with = |set: &str| helm(&["template", "fleet", CHART, "-f", MINIMAL, "--set-json", set]).refused();
    for (set, names) in [
        (r#"deniedCidrs=["10.244.0.0"]"#, "deniedCidrs"),
        (r#"onlyCidrs=["lab"]"#, "onlyCidrs"),
        (r#"allowedPorts=["http"]"#, "allowedPorts"),
        (r"allowedPorts=[65536]", "allowedPorts"),
    ] {
        let said = with(set);
        assert!(said.contains(names), "{said}");
    }
}

/// Every object that the chart can make is one that the API server takes, field by field.
#[test]
fn every_rendered_object_is_valid() {
    let control_plane = ControlPlane::start_bare();
    for namespace in ["fleet", "team-a", "team-b"] {
        control_plane.kubectl(&["create", "namespace", namespace], None).ok();
    }
    for values in [MINIMAL, EVERYTHING] {
        for object in render(values, "fleet") {
            // The Prometheus Operator's kinds, which this control plane does not have.
            if object["apiVersion"].as_str().unwrap().starts_with("monitoring.coreos.com/") {
                continue;
            }
            let args = ["create", "--dry-run=server", "--validate=strict", "-f", "-"];
            let output = control_plane.kubectl(&args, Some(&object.to_string()));
            assert_eq!(output.stderr, "", "{values}: {object}");
            output.ok();
        }
    }
    let everything = render(EVERYTHING, "fleet");
    for kind in ["ServiceMonitor", "PrometheusRule", "PodDisruptionBudget", "NetworkPolicy"] {
        assert_eq!(of_kind(&everything, kind).len(), 1, "{kind}");
    }
    let minimal = render(MINIMAL, "fleet");
    assert!(
        of_kind(&minimal, "PodDisruptionBudget").is_empty(),
        "a budget for one replica only blocks node drains"
    );
    assert_eq!(of_kind(&minimal, "CustomResourceDefinition").len(), 2);
}

/// More than one replica elect a leader, and so does a single one that is told to. Then an update may have both at once;
/// without a leader it may not.
#[test]
fn replicas_elect_a_leader() {
    for (set, elects, replicas) in [
        ("replicaCount=1", false, 1),
        ("leaderElection.enabled=true", true, 1),
        ("replicaCount=2", true, 2),
        ("replicaCount=0", false, 0),
    ] {
        let text = helm(&["template", "fleet", CHART, "-f", MINIMAL, "--set", set]).ok();
        let objects: Vec<Value> = serde_saphyr::from_multiple(&text).unwrap();
        let deployment = &of_kind(&objects, "Deployment")[0]["spec"];
        let container = &deployment["template"]["spec"]["containers"][0];
        let args = container["args"].as_array().unwrap();
        assert_eq!(args.contains(&json!("--leader-elect")), elects, "{set}");
        let strategy = if elects { "RollingUpdate" } else { "Recreate" };
        assert_eq!(
            (&deployment["strategy"]["type"], &deployment["replicas"]),
            (&json!(strategy), &json!(replicas))
        );
        for (name, path) in [("POD_NAME", "metadata.name"), ("POD_NAMESPACE", "metadata.namespace")] {
            let env = container["env"].as_array().unwrap();
            let variable = env.iter().find(|variable| variable["name"] == name).unwrap();
            assert_eq!(variable["valueFrom"]["fieldRef"]["fieldPath"], path);
        }
    }
}

/// Replicas can be added and taken away again by an upgrade; the API server refuses what one strategy leaves of the
/// other.
#[test]
fn replicas_can_be_added_and_taken_away() {
    let control_plane = ControlPlane::start_bare();
    control_plane.kubectl(&["create", "namespace", "fleet"], None).ok();
    let helm = |verb: &str, set: &str| {
        control_plane.helm(&[verb, "fleet", CHART, "-n", "fleet", "-f", MINIMAL, "--set", set]).ok();
        let strategy = ["get", "deployment", "-n", "fleet", "-o", "jsonpath={.items[*].spec.strategy.type}"];
        control_plane.kubectl(&strategy, None).ok()
    };
    assert_eq!(helm("install", "replicaCount=1"), "Recreate");
    assert_eq!(helm("upgrade", "replicaCount=2"), "RollingUpdate");
    assert_eq!(helm("upgrade", "replicaCount=1"), "Recreate");
}

/// No rule of the chart's roles is wider than needed: no wildcard; Secrets may be read by name, in namespaces that are
/// named, and nowhere else.
#[test]
fn the_roles_have_no_wildcard_and_secrets_only_by_name() {
    for (values, expected) in [(MINIMAL, vec!["fleet"]), (EVERYTHING, vec!["team-a"])] {
        let objects = render(values, "fleet");
        let mut readers = Vec::new();
        for role in of_kind(&objects, "ClusterRole").into_iter().chain(of_kind(&objects, "Role")) {
            assert!(!role["rules"].to_string().contains("\"*\""), "{role}");
            if role["rules"].to_string().contains("secrets") {
                assert_eq!(
                    role["rules"],
                    json!([{ "apiGroups": [""], "resources": ["secrets"], "verbs": ["get"] }])
                );
                readers.push(&role["metadata"]["name"]);
            }
        }
        for binding in of_kind(&objects, "ClusterRoleBinding") {
            assert!(!readers.contains(&&binding["roleRef"]["name"]), "{binding}");
        }
        let bound: Vec<&Value> = of_kind(&objects, "RoleBinding")
            .into_iter()
            .filter(|binding| readers.contains(&&binding["roleRef"]["name"]))
            .map(|binding| &binding["metadata"]["namespace"])
            .collect();
        assert_eq!(bound, expected, "{values}");
    }
}

/// The chart installs and uninstalls; the CRDs and everything that users have made stay.
#[test]
fn uninstalling_keeps_crds_and_servers() {
    let control_plane = ControlPlane::start_bare();
    let install = ["install", "fleet", CHART, "-n", "fleet", "--create-namespace", "-f", MINIMAL];
    let notes = control_plane.helm(&install).ok();
    assert!(
        notes.contains("kubectl rollout status -n fleet deployment/fleet-ollama-fleet-operator"),
        "{notes}"
    );
    let wait = ["wait", "--for=condition=Established", "--timeout=30s", "crd/ollamaservers.ollama-fleet.io"];
    control_plane.kubectl(&wait, None).ok();
    let names = |kind: &str| control_plane.kubectl(&["get", kind, "-A", "-o", "name"], None).ok();
    assert!(names("deployment").contains("fleet-ollama-fleet-operator"));
    control_plane.kubectl(&["apply", "--server-side", "-f", "examples/ollamaserver-minimal.yaml"], None).ok();
    // An upgrade with the same values changes nothing that would restart the operator.
    let generation = ["get", "deployment", "-n", "fleet", "-o", "jsonpath={.items[*].metadata.generation}"];
    let before = control_plane.kubectl(&generation, None).ok();
    control_plane.helm(&["upgrade", "fleet", CHART, "-n", "fleet", "-f", MINIMAL]).ok();
    assert_eq!(before, control_plane.kubectl(&generation, None).ok());
    control_plane.helm(&["uninstall", "fleet", "-n", "fleet"]).ok();
    for (kind, ours) in
        [("deployment", ""), ("clusterrole", "fleet-ollama"), ("clusterrolebinding", "fleet-ollama")]
    {
        let left = names(kind);
        assert!(!left.lines().any(|line| line.contains("ollama") && line.contains(ours)), "{left}");
    }
    let crds = names("crd");
    assert!(
        crds.contains("ollamaservers.ollama-fleet.io") && crds.contains("fleetplugins.ollama-fleet.io"),
        "{crds}"
    );
    assert_eq!(names("ollamaserver").trim(), "ollamaserver.ollama-fleet.io/server-1");
    // The next release of that name takes them over.
    control_plane.helm(&install).ok();
}
