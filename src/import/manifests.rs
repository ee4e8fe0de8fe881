//! The objects of an import, and how they are printed: YAML documents, a JSON list, or a file each. The same input
//! gives the same bytes.

use crate::api::{
    API_VERSION,
    ollama_server::{BackendType, Capacity, Poll},
};
use serde::Serialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// One object, ready to be printed in either format.
#[derive(Clone, Debug, PartialEq)]
pub struct Object {
    pub kind: &'static str,
    pub name: String,
    pub yaml: String,
    pub json: Value,
}

/// An object cannot be printed; a fault of this program.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {0}: {1}")]
pub struct Unprintable(pub String, pub String);

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Manifest<'a, Spec> {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata<'a>,
    spec: &'a Spec,
}

#[derive(Serialize)]
struct Metadata<'a> {
    name: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    namespace: Option<&'a str>,
}

/// The fields of an `OllamaServer` that the old configuration has a word for; what it has none for is not written.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerSpec {
    #[serde(skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    pub host: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub backend_type: Option<BackendType>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capacity: Option<Capacity>,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub plugin_ports: BTreeMap<String, i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub poll: Option<Poll>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub maintenance: Option<Maintenance>,
}

/// A maintenance without an end; the old configuration had no word for one.
#[derive(Debug, Serialize)]
pub struct Maintenance {
    pub reason: &'static str,
}

/// The fields of a `FleetPlugin` that a `plugin.json` has a word for.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PluginSpec {
    #[serde(rename = "type")]
    pub type_: &'static str,
    pub version: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    pub agent: AgentSpec,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AgentSpec {
    pub default_port: u16,
    pub endpoint: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub config_key: Option<String>,
}

impl Object {
    pub fn new<Spec: Serialize>(
        kind: &'static str,
        name: String,
        namespace: Option<&str>,
        spec: &Spec,
    ) -> Result<Self, Unprintable> {
        let metadata = Metadata { name: &name, namespace };
        let manifest = Manifest { api_version: API_VERSION, kind, metadata, spec };
        let printed = serde_saphyr::to_string(&manifest).map_err(|error| error.to_string());
        let json = serde_json::to_value(&manifest).map_err(|error| error.to_string());
        match printed.and_then(|yaml| Ok((yaml, json?))) {
            Ok((yaml, json)) => Ok(Self { kind, name, yaml, json }),
            Err(error) => Err(Unprintable(name, error)),
        }
    }

    /// An object whose text is written by hand, comments and all.
    pub fn from_yaml(kind: &'static str, name: String, yaml: String) -> Result<Self, Unprintable> {
        match serde_saphyr::from_str(&yaml) {
            Ok(json) => Ok(Self { kind, name, yaml, json }),
            Err(error) => Err(Unprintable(name, error.to_string())),
        }
    }

    fn file_name(&self, extension: &str) -> String {
        format!("{}-{}.{extension}", self.kind.to_lowercase(), self.name)
    }
}

/// YAML documents for `kubectl apply -f -`; what cannot be applied follows as comments.
pub fn yaml(objects: &[Object], comments: &[String]) -> String {
    let mut out = objects.iter().map(|object| object.yaml.as_str()).collect::<Vec<_>>().join("---\n");
    for comment in comments {
        if !out.is_empty() {
            out.push('\n');
        }
        out.push_str(comment);
    }
    out
}

/// A `v1` List.
pub fn json(objects: &[Object]) -> String {
    let items: Vec<&Value> = objects.iter().map(|object| &object.json).collect();
    format!("{:#}\n", json!({ "apiVersion": "v1", "kind": "List", "items": items }))
}

/// A file for each object, and the kustomization that names them; by their names.
pub fn files(objects: &[Object], as_json: bool) -> BTreeMap<String, String> {
    let extension = if as_json { "json" } else { "yaml" };
    let mut files: BTreeMap<String, String> = objects
        .iter()
        .map(|object| {
            let text = if as_json { format!("{:#}\n", object.json) } else { object.yaml.clone() };
            (object.file_name(extension), text)
        })
        .collect();
    let mut kustomization =
        "apiVersion: kustomize.config.k8s.io/v1beta1\nkind: Kustomization\nresources:".to_owned();
    if files.is_empty() {
        kustomization.push_str(" []");
    }
    for name in files.keys() {
        kustomization.push_str("\n- ");
        kustomization.push_str(name);
    }
    kustomization.push('\n');
    files.insert("kustomization.yaml".to_owned(), kustomization);
    files
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::OllamaServer;
    use rstest::rstest;

    fn server(name: &str, display_name: &str) -> Object {
        let spec = ServerSpec {
            display_name: Some(display_name.to_owned()),
            host: "192.0.2.1:11434".to_owned(),
            ..ServerSpec::default()
        };
        Object::new("OllamaServer", name.to_owned(), Some("lab"), &spec).unwrap()
    }

    #[rstest]
    #[case("on")]
    #[case("1e3")]
    #[case("null")]
    #[case("0x10")]
    #[case("~")]
    #[case("a: b # c")]
    #[case("- x")]
    #[case("'\"\\")]
    #[case("*a &b !c %d @e `f")]
    #[case("12:30:00")]
    #[case("2026-01-01")]
    #[case("---")]
    #[case("{a}")]
    #[case("é 机房 🚀")]
    fn odd_text_stays_text(#[case] text: &str) {
        let object = server("a", text);
        let read: OllamaServer = serde_saphyr::from_str(&object.yaml).unwrap();
        assert_eq!(read.spec.display_name.as_deref(), Some(text), "{}", object.yaml);
        assert_eq!(object.json["spec"]["displayName"], text);
    }

    #[test]
    fn the_words_of_kubernetes_come_first() {
        assert_eq!(
            server("a", "A").yaml,
            "apiVersion: ollama-fleet.io/v1alpha1\nkind: OllamaServer\nmetadata:\n  name: a\n  namespace: lab\nspec:\n  displayName: A\n  host: 192.0.2.1:11434\n"
        );
    }

    #[test]
    fn documents_are_separated_and_comments_come_last() {
        let text = yaml(&[server("a", "A"), server("b", "B")], &["# c\n".to_owned()]);
        assert_eq!(text.matches("---\n").count(), 1);
        assert!(text.ends_with("\n\n# c\n"));
        assert_eq!(yaml(&[], &[]), "");
    }

    #[test]
    fn a_file_each_and_a_kustomization() {
        let files = files(&[server("b", "B"), server("a", "A")], false);
        let names: Vec<_> = files.keys().map(String::as_str).collect();
        assert_eq!(names, ["kustomization.yaml", "ollamaserver-a.yaml", "ollamaserver-b.yaml"]);
        assert!(
            files["kustomization.yaml"]
                .ends_with("resources:\n- ollamaserver-a.yaml\n- ollamaserver-b.yaml\n")
        );
    }
}
