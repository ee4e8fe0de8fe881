//! Writes what is generated from the code: `crds/`, the chart's copy, `docs/api.md`, and the flags in
//! `docs/reference.md`.
//!
//! `crdgen [--check] [ROOT]`: with `--check` nothing is written, and it fails if a file is not what it would write.

use clap::CommandFactory;
use ollama_fleet_operator::{api::crd, args::Cli};
use serde_json::{Map, Value};
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    error::Error,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

const CRD_FOLDERS: [&str; 2] = ["crds", "charts/ollama-fleet-operator/crd-files"];
const API_REFERENCE: &str = "docs/api.md";
const REFERENCE: &str = "docs/reference.md";
/// Between these two lines of [`REFERENCE`] is the table of flags.
const FLAGS: (&str, &str) = ("<!-- flags: generated -->\n", "<!-- end of flags -->\n");

fn main() -> Result<(), Box<dyn Error>> {
    let mut args: Vec<_> = env::args_os().skip(1).collect();
    let check = args.first().is_some_and(|arg| arg == "--check");
    if check {
        args.remove(0);
    }
    let root = PathBuf::from(args.pop().unwrap_or_else(|| ".".into()));
    if !args.is_empty() || !root.join("Cargo.toml").is_file() {
        return Err("usage: crdgen [--check] [ROOT], with the repository's folder as ROOT".into());
    }
    let files = generate(&root)?;
    if !check {
        for (path, text) in &files {
            fs::create_dir_all(root.join(path).parent().unwrap_or(&root))?;
            fs::write(root.join(path), text)?;
        }
        return Ok(());
    }
    let stale: Vec<_> = stale(&root, &files)?.iter().map(|path| path.display().to_string()).collect();
    if stale.is_empty() {
        Ok(())
    } else {
        Err(format!("stale, run `make generate`: {}", stale.join(", ")).into())
    }
}

/// Files that differ, are missing, or are no longer generated.
fn stale(root: &Path, files: &BTreeMap<PathBuf, String>) -> Result<BTreeSet<PathBuf>, Box<dyn Error>> {
    let differs =
        |(path, text): &(&PathBuf, &String)| fs::read_to_string(root.join(path)).ok().as_ref() != Some(text);
    let mut stale: BTreeSet<PathBuf> = files.iter().filter(differs).map(|(path, _)| path.clone()).collect();
    for folder in CRD_FOLDERS {
        for entry in fs::read_dir(root.join(folder))? {
            let path = Path::new(folder).join(entry?.file_name());
            if !files.contains_key(&path) {
                stale.insert(path);
            }
        }
    }
    Ok(stale)
}

/// Every generated file, by its path in the repository.
fn generate(root: &Path) -> Result<BTreeMap<PathBuf, String>, Box<dyn Error>> {
    let mut files = BTreeMap::new();
    let mut reference = String::from(
        "# API reference\n\nGenerated from the code by `make generate`. The same text is in the cluster: `kubectl explain ollamaserver.spec`.\n\
         A type with * is a required field. Quantities and durations are written as Kubernetes writes them: `16Gi`, `1m30s`.\n",
    );
    for definition in crd::all() {
        // Through JSON first, so that maps come out in one stable order.
        let value = serde_json::to_value(&definition)?;
        let text = serde_saphyr::to_string(&value)?;
        for folder in CRD_FOLDERS {
            files.insert(Path::new(folder).join(crd::file_name(&definition)), text.clone());
        }
        describe_kind(&mut reference, &value);
    }
    files.insert(API_REFERENCE.into(), reference);
    let reference = fs::read_to_string(root.join(REFERENCE))?;
    files.insert(
        REFERENCE.into(),
        with_flags(&reference).ok_or("docs/reference.md has no place for the flags")?,
    );
    Ok(files)
}

/// The reference with the table of flags renewed.
fn with_flags(reference: &str) -> Option<String> {
    let (before, rest) = reference.split_once(FLAGS.0)?;
    let (_, after) = rest.split_once(FLAGS.1)?;
    let mut table = String::from("| flag | variable | default | meaning |\n|---|---|---|---|\n");
    let cli = Cli::command();
    for flag in cli.find_subcommand("run")?.get_arguments() {
        let default: Vec<_> =
            flag.get_default_values().iter().map(|value| format!("`{}`", value.display())).collect();
        let value = flag.get_value_names().and_then(<[_]>::first).map_or("", |name| name.as_str());
        let choices: Vec<_> =
            flag.get_possible_values().iter().map(|value| format!("`{}`", value.get_name())).collect();
        let value = if choices.is_empty() { format!("`{value}`") } else { choices.join(" or ") };
        let _ = writeln!(
            table,
            "| `--{}` {} | `{}` | {} | {} |",
            flag.get_long()?,
            value,
            flag.get_env()?.display(),
            default.join(", "),
            cell(&flag.get_help()?.to_string()),
        );
    }
    Some(format!("{before}{}{table}{}{after}", FLAGS.0, FLAGS.1))
}

fn describe_kind(out: &mut String, crd: &Value) {
    let spec = &crd["spec"];
    let kind = text(&spec["names"]["kind"]);
    for version in list(&spec["versions"]) {
        let schema = &version["schema"]["openAPIV3Schema"];
        let short: Vec<_> =
            list(&spec["names"]["shortNames"]).iter().map(|name| format!("`{}`", text(name))).collect();
        let _ = write!(
            out,
            "\n## {kind}\n\n{}\n\n`apiVersion: {}/{}`, {}, `kubectl get {}` or {}.\n",
            text(&schema["description"]),
            text(&spec["group"]),
            text(&version["name"]),
            text(&spec["scope"]).to_lowercase(),
            text(&spec["names"]["plural"]),
            short.join(", "),
        );
        for part in ["spec", "status"] {
            describe_object(out, &format!("{kind}.{part}"), &schema["properties"][part]);
        }
    }
}

/// A table of the fields of an object, then those of the objects in it.
fn describe_object(out: &mut String, path: &str, schema: &Value) {
    let Some(fields) = schema["properties"].as_object() else { return };
    let required: BTreeSet<_> = list(&schema["required"]).iter().map(text).collect();
    let _ = write!(out, "\n### {path}\n\n| field | type | default | description |\n|---|---|---|---|\n");
    for (name, field) in fields {
        let star = if required.contains(name.as_str()) { " *" } else { "" };
        let default = field.get("default").map(|value| format!("`{value}`")).unwrap_or_default();
        let _ = writeln!(
            out,
            "| `{name}` | {}{star} | {} | {} |",
            type_of(&format!("{path}.{name}"), field),
            cell(&default),
            cell(text(&field["description"])),
        );
    }
    for (name, field) in fields {
        let (path, object) = innermost(format!("{path}.{name}"), field);
        describe_object(out, &path, object);
    }
}

/// What a list, or a map, is made of in the end.
fn innermost(path: String, schema: &Value) -> (String, &Value) {
    match (schema.get("items"), schema.get("additionalProperties")) {
        (Some(items), _) => innermost(path + "[]", items),
        (_, Some(values @ Value::Object(_))) => innermost(path + "{}", values),
        _ => (path, schema),
    }
}

fn type_of(path: &str, schema: &Value) -> String {
    if let Some(items) = schema.get("items") {
        return format!("list of {}", type_of(&format!("{path}[]"), items));
    }
    if let Some(values @ Value::Object(_)) = schema.get("additionalProperties") {
        return format!("map of {}", type_of(&format!("{path}{{}}"), values));
    }
    if schema["x-kubernetes-int-or-string"] == true {
        return "quantity".to_owned();
    }
    if schema["properties"].as_object().is_some_and(|fields: &Map<_, _>| !fields.is_empty()) {
        let anchor: String = path.chars().filter(char::is_ascii_alphanumeric).collect();
        return format!("[object](#{})", anchor.to_lowercase());
    }
    let choices: Vec<_> = list(&schema["enum"]).iter().map(|choice| format!("`{}`", text(choice))).collect();
    if !choices.is_empty() {
        return choices.join(", ");
    }
    match (text(&schema["type"]), text(&schema["format"])) {
        (_, "date-time") => "time".to_owned(),
        ("", _) => "any".to_owned(),
        (name, _) => name.to_owned(),
    }
}

/// Text inside a cell of a table.
fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace("\n\n", "<br>").replace('\n', " ")
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
