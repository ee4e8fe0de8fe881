//! Compose files, as far as they hold the settings of the old dashboard: `services.*.environment` and `env_file`.
//! `extends` and `include` are not followed; `docker compose config` writes a file in which they are resolved.

use super::{
    dotenv::{self, Variables},
    interpolate::{Interpolated, interpolate},
    report::{Report, quote},
    settings::{self, SERVERS, Settings},
};
use serde_json::{Map, Value};

/// One service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    pub name: String,
    /// In the order of the file; `None` takes the value of the `.env` file.
    environment: Vec<(String, Option<String>)>,
    pub env_files: Vec<EnvFile>,
}

/// A file of variables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EnvFile {
    /// Relative to the compose file.
    pub path: String,
    /// Whether it has to be there.
    pub required: bool,
    /// Whether it is taken as it is written, without quotes and variables.
    pub raw: bool,
}

/// The services of a compose file, by name. `variables` are those of the `.env` file, for the paths.
pub fn parse(text: &str, variables: &Variables) -> Result<Vec<Service>, String> {
    let file: Value =
        serde_saphyr::from_str(text).map_err(|error| format!("not valid YAML: {}", place(&error)))?;
    let services = file.get("services").and_then(Value::as_object).ok_or("it has no services")?;
    services.iter().map(|(name, service)| read(name, service, variables)).collect()
}

/// Where a fault is. The parser's own message shows the lines around it, which may hold secrets.
fn place(error: &serde_saphyr::Error) -> String {
    error.location().map_or_else(
        || "somewhere in the file".to_owned(),
        |place| format!("line {} column {}", place.line(), place.column()),
    )
}

fn read(name: &str, service: &Value, variables: &Variables) -> Result<Service, String> {
    let wrong = |what: &str| format!("services.{}.{what}", quote(name));
    let environment = match service.get("environment") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Object(map)) => map
            .iter()
            .map(|(key, value)| Ok((key.clone(), scalar(value)?)))
            .collect::<Result<_, &str>>()
            .map_err(&wrong)?,
        Some(Value::Array(items)) => items.iter().map(item).collect::<Result<_, &str>>().map_err(&wrong)?,
        Some(_) => return Err(wrong("environment must be a map or a list")),
    };
    let path = |text: &str| {
        interpolate(text, &|name| dotenv::lookup(variables, name))
            .map(|found| found.text)
            .map_err(|error| wrong(&format!("env_file: {error}")))
    };
    let one = |value: &Value| match value {
        Value::String(text) => Ok(EnvFile { path: path(text)?, required: true, raw: false }),
        Value::Object(map) => {
            let text =
                map.get("path").and_then(Value::as_str).ok_or_else(|| wrong("env_file has no path"))?;
            let raw = is_raw(map).map_err(wrong)?;
            Ok(EnvFile { path: path(text)?, required: required(map), raw })
        }
        _ => Err(wrong("env_file must be a path or a list of paths")),
    };
    let env_files = match service.get("env_file") {
        None | Some(Value::Null) => Vec::new(),
        Some(Value::Array(items)) => items.iter().map(one).collect::<Result<_, _>>()?,
        Some(value) => vec![one(value)?],
    };
    Ok(Service { name: name.to_owned(), environment, env_files })
}

fn required(file: &Map<String, Value>) -> bool {
    file.get("required").and_then(Value::as_bool).unwrap_or(true)
}

fn is_raw(file: &Map<String, Value>) -> Result<bool, &'static str> {
    match file.get("format") {
        None | Some(Value::Null) => Ok(false),
        Some(format) => match format.as_str() {
            Some("raw") => Ok(true),
            // The default has a name too.
            Some("" | ".env") => Ok(false),
            _ => Err("env_file has a format that compose does not know; it knows raw"),
        },
    }
}

fn scalar(value: &Value) -> Result<Option<String>, &'static str> {
    match value {
        Value::Null => Ok(None),
        Value::String(text) => Ok(Some(text.clone())),
        Value::Bool(_) | Value::Number(_) => Ok(Some(value.to_string())),
        Value::Array(_) | Value::Object(_) => {
            Err("environment has a value that is no text; put quotes around it")
        }
    }
}

fn item(value: &Value) -> Result<(String, Option<String>), &'static str> {
    let text = value.as_str().ok_or("environment must be a list of NAME=value")?;
    Ok(match text.split_once('=') {
        Some((name, value)) => (name.trim().to_owned(), Some(value.to_owned())),
        None => (text.trim().to_owned(), None),
    })
}

impl Service {
    /// The settings of this service: its `env_file`s one after the other, then its `environment`, whose variables are
    /// those of the `.env` file. `files` has the texts of those of `env_files` that are there.
    pub fn settings(
        &self,
        variables: &Variables,
        files: &[(EnvFile, String)],
        report: &mut Report,
    ) -> Result<Settings, String> {
        let mut all = Variables::new();
        for (file, text) in files {
            let parsed = if file.raw { dotenv::parse_raw(text) } else { dotenv::parse(text, variables) };
            all.extend(parsed.map_err(|error| format!("{}: {error}", quote(&file.path)))?);
        }
        for (name, value) in &self.environment {
            let value = match value {
                Some(text) => interpolate(text, &|name| dotenv::lookup(variables, name)),
                None => match variables.get(name) {
                    Some(value) => value.clone(),
                    None => continue,
                },
            };
            all.insert(name.clone(), value);
        }
        of_interest(&all, report)
    }
}

/// The settings among variables. A value that cannot be read is an error only here: what others mean by theirs is no
/// matter of ours.
pub fn of_interest(variables: &Variables, report: &mut Report) -> Result<Settings, String> {
    let mut found = Settings::new();
    for (name, value) in variables.iter().filter(|(name, _)| settings::is_setting(name)) {
        match value {
            Ok(Interpolated { text, unset }) => {
                for variable in unset {
                    report.check(
                        name,
                        format!("uses the variable {variable}, which is not set; read as empty"),
                    );
                }
                found.insert(name.clone(), text.clone());
            }
            Err(error)
                if [SERVERS, settings::POLL_INTERVAL, settings::TIMEOUT, settings::THRESHOLD]
                    .contains(&name.as_str()) =>
            {
                return Err(format!("{name}: {error}"));
            }
            // Reported by its name like the others of its kind; its value does not matter.
            Err(_) => {
                found.insert(name.clone(), "set".to_owned());
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn settings(compose: &str, env: &str, files: &[(&str, &str)]) -> (Settings, Vec<String>) {
        let variables = dotenv::parse(env, &Variables::new()).unwrap();
        let service = parse(compose, &variables).unwrap().remove(0);
        let text =
            |path: &str| files.iter().find(|(name, _)| *name == path).map(|(_, text)| (*text).to_owned());
        let files: Vec<_> =
            service.env_files.iter().filter_map(|file| Some((file.clone(), text(&file.path)?))).collect();
        let mut report = Report::default();
        let found = service.settings(&variables, &files, &mut report).unwrap();
        (found, report.findings.iter().map(ToString::to_string).collect())
    }

    #[rstest]
    #[case("environment:\n      OLLAMA_SERVERS: '[1]'\n      POLL_INTERVAL: 30", "")]
    #[case("environment:\n      - OLLAMA_SERVERS=[1]\n      - POLL_INTERVAL=30\n      - OTHER=x", "")]
    #[case(
        "environment:\n      - OLLAMA_SERVERS=${OLLAMA_SERVERS}\n      - POLL_INTERVAL=${SECONDS:-30}",
        "OLLAMA_SERVERS='[1]'"
    )]
    #[case(
        "environment:\n      OLLAMA_SERVERS:\n      POLL_INTERVAL: ${POLL_INTERVAL}",
        "OLLAMA_SERVERS=[1]\nPOLL_INTERVAL=30"
    )]
    #[case(
        "environment:\n      - OLLAMA_SERVERS\n      - POLL_INTERVAL",
        "OLLAMA_SERVERS=[1]\nPOLL_INTERVAL=30"
    )]
    #[case(
        "environment: &e {OLLAMA_SERVERS: '[1]', POLL_INTERVAL: '30'}\n  b:\n    environment: {<<: *e, X: '1'}",
        ""
    )]
    fn settings_are_found_wherever_compose_finds_them(#[case] service: &str, #[case] env: &str) {
        let (found, lines) = settings(&format!("services:\n  a:\n    {service}\n"), env, &[]);
        assert_eq!((found["OLLAMA_SERVERS"].as_str(), found["POLL_INTERVAL"].as_str()), ("[1]", "30"));
        assert_eq!((found.len(), lines.len()), (2, 0), "{lines:?}");
    }

    #[test]
    fn anchors_and_merges_are_followed() {
        let text = "x-env: &e {OLLAMA_SERVERS: '[1]'}\nservices:\n  a:\n    environment: {<<: *e, POLL_INTERVAL: '30'}\n";
        assert_eq!(settings(text, "", &[]).0.len(), 2);
    }

    #[test]
    fn the_environment_wins_over_env_files_and_a_later_file_over_an_earlier() {
        let text = "services:\n  a:\n    env_file: [one.env, {path: two.env, required: false}]\n    environment: [POLL_INTERVAL=3]\n";
        let service = parse(text, &Variables::new()).unwrap().remove(0);
        let file = |path: &str, required| EnvFile { path: path.into(), required, raw: false };
        assert_eq!(service.env_files, [file("one.env", true), file("two.env", false)]);
        let files = [("one.env", "OLLAMA_SERVERS=[1]\nPOLL_INTERVAL=1"), ("two.env", "OLLAMA_SERVERS=[2]")];
        let (found, _) = settings(text, "", &files);
        assert_eq!((found["OLLAMA_SERVERS"].as_str(), found["POLL_INTERVAL"].as_str()), ("[2]", "3"));
    }

    #[test]
    fn a_raw_file_is_taken_as_written() {
        let text = |format: &str| {
            format!(
                "services: {{a: {{env_file: [{{path: one.env, format: {format}}}], environment: [POLL_INTERVAL=3]}}}}"
            )
        };
        let files = [("one.env", "OLLAMA_SERVERS=[{\"name\": \"$a # b\"}] # c")];
        let (found, lines) = settings(&text("raw"), "a=x", &files);
        assert_eq!(found["OLLAMA_SERVERS"], "[{\"name\": \"$a # b\"}] # c");
        assert_eq!(lines, [] as [String; 0]);
        let (found, _) = settings(&text("~"), "a=x", &files);
        assert_eq!(found["OLLAMA_SERVERS"], "[{\"name\": \"x");
        let error = parse(&text("toml"), &Variables::new()).unwrap_err();
        assert!(error.contains("a format that compose does not know"), "{error}");
    }

    #[test]
    fn an_unset_variable_is_reported() {
        let (found, lines) =
            settings("services: {a: {environment: ['OLLAMA_SERVERS=${NONE}', 'X=${Y}']}}", "", &[]);
        assert_eq!(found["OLLAMA_SERVERS"], "");
        assert_eq!(lines, ["check: OLLAMA_SERVERS: uses the variable NONE, which is not set; read as empty"]);
    }

    #[test]
    fn a_token_that_is_no_template_is_named_and_not_shown() {
        let (found, _) = settings("services: {a: {environment: ['TELEGRAM_BOT_TOKEN=s3$']}}", "", &[]);
        assert_eq!(found["TELEGRAM_BOT_TOKEN"], "set");
    }

    #[rstest]
    #[case("[", "not valid YAML: line")]
    #[case("a: s3cret\n b: [s3cret", "not valid YAML: line")]
    #[case("version: '3'", "it has no services")]
    #[case("services: {a: {environment: 3}}", "environment must be a map or a list")]
    #[case("services: {a: {environment: {OLLAMA_SERVERS: [1]}}}", "put quotes around it")]
    #[case("services: {a: {env_file: 3}}", "env_file must be a path")]
    fn what_is_no_compose_file_is_an_error_without_its_text(#[case] text: &str, #[case] says: &str) {
        let error = parse(text, &Variables::new()).unwrap_err();
        assert!(error.contains(says) && !error.contains("s3cret"), "{error}");
    }
}
