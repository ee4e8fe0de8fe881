//! Every right that the chart gives, written down: a rule that comes, goes or grows turns this red.
//!
//! `UPDATE_GOLDEN=1 cargo test --test integration rbac_golden` writes `tests/golden/rbac/` anew, to be read in the diff.

use crate::{
    chart::{CHART, MINIMAL, helm},
    support::binaries,
};
use serde_json::Value;
use std::{collections::BTreeSet, env, fmt::Write as _, fs};

/// What is rendered: the name of the file, and the values.
const CASES: [(&str, &[&str]); 9] = [
    ("default", &[]),
    ("watch-namespaces", &["watchNamespaces={team-a,team-b}"]),
    ("secret-namespaces", &["secretNamespaces={team-a,team-b}"]),
    ("no-secrets", &["secretNamespaces=[]"]),
    ("leader-election", &["replicaCount=2", "extraArgs={--leader-elect}"]),
    ("no-rbac", &["rbac.create=false"]),
    ("no-aggregation", &["rbac.aggregate=false"]),
    ("own-account", &["serviceAccount.create=false", "serviceAccount.name=mine", "watchNamespaces={team-a}"]),
    (
        "prometheus",
        &[
            "serviceMonitor.enabled=true",
            "serviceMonitor.prometheusServiceAccount.name=prometheus",
            "serviceMonitor.prometheusServiceAccount.namespace=monitoring",
        ],
    ),
];

/// The rendered rights are those that were written down, for each way to ask for them, and no other file is there.
#[test]
fn the_rendered_rights_are_as_written_down() {
    let folder = binaries::repository().join("tests/golden/rbac");
    let update = env::var_os("UPDATE_GOLDEN").is_some();
    for (name, values) in CASES {
        let rights = rights(values);
        let file = folder.join(format!("{name}.yaml"));
        if update {
            fs::write(&file, &rights).unwrap();
        }
        let written = fs::read_to_string(&file).unwrap_or_default();
        assert!(
            written == rights,
            "the rights of {values:?} are not those in {}. If they are meant to be new, write them down with\n  \
             UPDATE_GOLDEN=1 cargo test --test integration rbac_golden\n--- rendered\n{rights}",
            file.display()
        );
    }
    let expected: BTreeSet<String> = CASES.iter().map(|(name, _)| format!("{name}.yaml")).collect();
    let there: BTreeSet<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(there, expected);
}

/// With `watchNamespaces`, what is bound cluster-wide to the operator has no namespace by nature; and nothing, in any
/// case, is bound to anybody but it, or lets it hand on rights.
#[test]
fn what_is_bound_cluster_wide_has_no_namespace() {
    for (name, values) in CASES {
        let objects = rendered(values);
        let bound: Vec<&Value> = objects
            .iter()
            .filter(|object| object["kind"] == "ClusterRoleBinding")
            .filter(|binding| binding["subjects"][0]["namespace"] == "fleet")
            .map(|binding| {
                let of = |role: &&Value| {
                    role["kind"] == "ClusterRole" && role["metadata"]["name"] == binding["roleRef"]["name"]
                };
                objects.iter().find(of).unwrap_or_else(|| panic!("{name}: no role for {binding}"))
            })
            .collect();
        let resources = |rule: &Value| {
            let resources = rule["resources"].as_array().cloned().unwrap_or_default();
            resources.into_iter().map(|resource| resource.as_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        for role in &objects {
            for rule in role["rules"].as_array().into_iter().flatten() {
                for verb in ["*", "escalate", "bind", "impersonate"] {
                    assert!(!rule["verbs"].as_array().unwrap().contains(&verb.into()), "{name}: {rule}");
                }
            }
        }
        if !values.iter().any(|value| value.starts_with("watchNamespaces")) {
            continue;
        }
        assert_eq!(bound.len(), 1, "{name}");
        let wide: Vec<String> = bound[0]["rules"].as_array().unwrap().iter().flat_map(resources).collect();
        assert_eq!(
            wide,
            ["tokenreviews", "subjectaccessreviews", "customresourcedefinitions", "servicecidrs"],
            "{name}"
        );
    }
}

/// The objects of RBAC that the chart makes.
fn rendered(values: &[&str]) -> Vec<Value> {
    let mut args = vec!["template", "fleet", CHART, "-n", "fleet", "-f", MINIMAL];
    for value in values {
        let json = value.ends_with("[]");
        args.extend([if json { "--set-json" } else { "--set" }, value]);
    }
    let objects: Vec<Value> = serde_saphyr::from_multiple(&helm(&args).ok()).unwrap();
    objects.into_iter().filter(|object| object["apiVersion"] == "rbac.authorization.k8s.io/v1").collect()
}

/// As text: sorted, without what every object of the chart has.
fn rights(values: &[&str]) -> String {
    let mut documents: Vec<String> = rendered(values)
        .into_iter()
        .map(|mut object| {
            let labels = object["metadata"].as_object_mut().unwrap().remove("labels").unwrap_or_default();
            let own = |label: &&String| label.starts_with("rbac.authorization.k8s.io/");
            let own: Vec<&String> =
                labels.as_object().into_iter().flat_map(serde_json::Map::keys).filter(own).collect();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let mut lines =
                format!("kind: {}\nname: {}\n", text(&object["kind"]), text(&object["metadata"]["name"]));
            if !own.is_empty() {
                let _ = writeln!(lines, "labels: {own:?}");
            }
            for (key, value) in
                [("namespace", &object["metadata"]["namespace"]), ("roleRef", &object["roleRef"])]
            {
                if !value.is_null() {
                    let _ = writeln!(lines, "{key}: {value}");
                }
            }
            for list in ["rules", "subjects"] {
                for item in object[list].as_array().into_iter().flatten() {
                    if !lines.contains(&format!("\n{list}:\n")) {
                        let _ = writeln!(lines, "{list}:");
                    }
                    let _ = writeln!(lines, "  - {item}");
                }
            }
            lines
        })
        .collect();
    documents.sort();
    documents.join("---\n")
}
