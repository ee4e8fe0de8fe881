//! `kubectl ollama import`: reads the old dashboard's configuration, prints manifests. What they mean is in
//! `crate::import`; here are files, standard output and exit codes only.

// Doc comments here are what `--help` prints.
#![allow(clippy::doc_markdown)]

use crate::import::{
    self, Import,
    compose::{self, EnvFile, Service},
    dotenv::{self, Variables},
    manifests,
    plugins::PluginFile,
    report::{Level, Report, quote, steers},
    settings::{self, SERVERS, Settings},
};
use clap::{Args, ValueEnum};
use serde_json::Value;
use std::{
    collections::BTreeMap,
    env, fs,
    io::{self, ErrorKind, Write as _},
    path::{Path, PathBuf},
    process::ExitCode,
};

/// Turn the configuration of the old dashboard into manifests
///
/// Reads OLLAMA_SERVERS, with the settings beside it, from one place: the environment, or the file that a flag names.
/// Prints an OllamaServer for each entry, and a FleetPlugin for each plugin.json of an agent.
#[derive(Args, Debug)]
#[command(after_long_help = AFTER)]
pub struct ImportArgs {
    /// A .env file with OLLAMA_SERVERS; with --compose, the file for its variables instead of the .env beside it
    #[arg(long, value_name = "FILE", conflicts_with = "servers_file")]
    pub env_file: Option<PathBuf>,

    /// A compose file with a service whose environment or env_file has OLLAMA_SERVERS
    #[arg(long, value_name = "FILE", conflicts_with = "servers_file")]
    pub compose: Option<PathBuf>,

    /// The service of --compose, if several have OLLAMA_SERVERS
    #[arg(long, value_name = "NAME", requires = "compose")]
    pub service: Option<String>,

    /// A JSON file: the array of OLLAMA_SERVERS, or an object with OLLAMA_SERVERS and other settings
    #[arg(long, value_name = "FILE")]
    pub servers_file: Option<PathBuf>,

    /// The old dashboard's folder plugins/, with a folder and a plugin.json for each plugin
    #[arg(long, value_name = "DIR")]
    pub plugins: Option<PathBuf>,

    /// Namespace to write into every object; default: none, so that kubectl or kustomize chooses
    #[arg(short, long, value_name = "NAMESPACE", value_parser = namespace)]
    pub namespace: Option<String>,

    /// YAML documents, or one JSON list
    #[arg(short, long, value_enum, default_value_t = Output::Yaml)]
    pub output: Output,

    /// Write a file for each object, and kustomization.yaml, into this folder instead of printing
    #[arg(long, value_name = "DIR")]
    pub write: Option<PathBuf>,

    /// Let --write replace files that are there and differ
    #[arg(long, requires = "write")]
    pub force: bool,

    /// Print and write nothing if an entry is skipped
    #[arg(long)]
    pub strict: bool,
}

const AFTER: &str = "\
Examples:
  kubectl ollama import --env-file .env --plugins plugins > fleet.yaml && kubectl apply --server-side -f fleet.yaml
  kubectl ollama import --compose docker-compose.yml -n ollama-fleet --write fleet/
  kubectl ollama import --servers-file servers.json -o json --strict
  OLLAMA_SERVERS='[…]' kubectl ollama import

Standard error has a line for all that needs a look, with the entry's name and index:
  skipped:  nothing of the entry is in the output
  check:    in the output, but changed, guessed, or understood otherwise than before
  no home:  a setting that nothing here takes, and what replaces it

With --compose and --env-file, variables of the environment are not used: the files alone decide.

Exit codes:
  0  all entries are in the output
  1  an entry was skipped, or the output could not be written
  2  wrong usage, or input that cannot be read";

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Output {
    Yaml,
    Json,
}

/// Why nothing came out, and the exit code.
struct Failure(u8, String);

impl From<String> for Failure {
    fn from(message: String) -> Self {
        Self(2, message)
    }
}

pub fn run(args: &ImportArgs) -> ExitCode {
    match try_run(args) {
        Ok(0) => ExitCode::SUCCESS,
        Ok(_) => ExitCode::FAILURE,
        Err(Failure(code, message)) => {
            say(&format!("error: {message}"));
            ExitCode::from(code)
        }
    }
}

/// The number of skipped entries.
fn try_run(args: &ImportArgs) -> Result<usize, Failure> {
    let mut report = Report::default();
    let settings = settings(args, &mut report)?;
    let plugins = args.plugins.as_deref().map(|folder| plugin_files(folder, &mut report)).transpose()?;
    let import = import::convert(&settings, plugins.as_deref(), args.namespace.as_deref(), report)?;
    for finding in &import.report.findings {
        say(&finding.to_string());
    }
    let skipped = import.report.count(Level::Skipped);
    if args.strict && skipped > 0 {
        say(&format!("error: {skipped} skipped, and --strict is given: nothing is written"));
        return Ok(skipped);
    }
    match &args.write {
        Some(folder) => {
            write(folder, &manifests::files(&import.objects, args.output == Output::Json), args.force)?;
        }
        None => print(&match args.output {
            Output::Yaml => manifests::yaml(&import.objects, &import.comments),
            Output::Json => manifests::json(&import.objects),
        })?,
    }
    say(&summary(&import));
    Ok(skipped)
}

fn summary(import: &Import) -> String {
    let count = |kind: &str| import.objects.iter().filter(|object| object.kind == kind).count();
    format!(
        "imported: OllamaServer {}, FleetPlugin {}; skipped {}, to check {}, without a home {}",
        count("OllamaServer"),
        count("FleetPlugin"),
        import.report.count(Level::Skipped),
        import.report.count(Level::Check),
        import.report.count(Level::NoHome),
    )
}

/// A path as a message may show it: as it is, and in quotes with escapes if anything in it would steer a terminal.
fn shown(path: &Path) -> String {
    let text = path.to_string_lossy();
    if text.contains(steers) { quote(&text) } else { text.into_owned() }
}

/// A line for a terminal. Messages quote what they take of the input; what libraries put into theirs is not known.
fn harmless(line: &str) -> String {
    let mut harmless = String::with_capacity(line.len());
    for c in line.chars() {
        if steers(c) {
            harmless.extend(c.escape_unicode());
        } else {
            harmless.push(c);
        }
    }
    harmless
}

/// Standard error may be closed; there is nobody to tell then.
fn say(line: &str) {
    let line = harmless(line);
    let _ = writeln!(io::stderr().lock(), "{line}");
}

fn settings(args: &ImportArgs, report: &mut Report) -> Result<Settings, String> {
    if let Some(path) = &args.servers_file {
        return json_settings(&read(path)?).map_err(|error| format!("{}: {error}", shown(path)));
    }
    if let Some(path) = &args.compose {
        return compose_settings(args, path, report).map_err(|error| format!("{}: {error}", shown(path)));
    }
    if let Some(path) = &args.env_file {
        let settings = dotenv::parse(&read(path)?, &Variables::new())
            .and_then(|variables| compose::of_interest(&variables, report))
            .map_err(|error| format!("{}: {error}", shown(path)))?;
        return with_servers(settings).ok_or_else(|| format!("{}: it does not set {SERVERS}", shown(path)));
    }
    let environment = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value)))
        .filter(|(name, _)| settings::is_setting(name))
        .map(|(name, value)| match value.into_string() {
            Ok(value) => Ok((name, value)),
            Err(_) => Err(format!("the variable {name} is not UTF-8")),
        })
        .collect::<Result<Settings, _>>()?;
    with_servers(environment).ok_or_else(|| {
        format!("the environment has no {SERVERS}; give --env-file, --compose or --servers-file, or set it")
    })
}

fn with_servers(settings: Settings) -> Option<Settings> {
    settings::get(&settings, SERVERS).is_some().then_some(settings)
}

/// The array itself, or an object of settings, in which texts and numbers are as good as in an environment.
fn json_settings(text: &str) -> Result<Settings, String> {
    let text = text.trim_start_matches('\u{feff}');
    match serde_json::from_str(text).map_err(|error| format!("not valid JSON: {error}"))? {
        Value::Object(fields) if fields.contains_key(SERVERS) => Ok(fields
            .into_iter()
            .filter(|(name, _)| settings::is_setting(name))
            .map(|(name, value)| match value {
                Value::String(text) => (name, text),
                Value::Null => (name, String::new()),
                other => (name, other.to_string()),
            })
            .collect()),
        Value::Object(_) => Err(format!("the object has no {SERVERS}")),
        _ => Ok([(SERVERS.to_owned(), text.to_owned())].into()),
    }
}

fn compose_settings(args: &ImportArgs, path: &Path, report: &mut Report) -> Result<Settings, String> {
    let folder = path.parent().unwrap_or(Path::new(""));
    let beside = folder.join(".env");
    let env_file = args.env_file.as_deref().or_else(|| beside.is_file().then_some(beside.as_path()));
    let variables = match env_file {
        Some(file) => dotenv::parse(&read(file)?, &Variables::new())
            .map_err(|error| format!("{}: {error}", shown(file)))?,
        None => Variables::new(),
    };
    let services = compose::parse(&read(path)?, &variables)?;
    if let Some(name) = &args.service
        && !services.iter().any(|service| service.name == *name)
    {
        return Err(format!("it has no service {}", quote(name)));
    }
    let mut found = Vec::new();
    for service in
        services.iter().filter(|service| args.service.as_ref().is_none_or(|name| service.name == *name))
    {
        let mut own = Report::default();
        let settings = service.settings(&variables, &env_files(folder, service)?, &mut own);
        let settings = settings.map_err(|error| format!("service {}: {error}", quote(&service.name)))?;
        if settings.contains_key(SERVERS) {
            found.push((service.name.as_str(), settings, own));
        }
    }
    // A development twin of the same service is no question.
    if found.iter().all(|(_, settings, _)| *settings == found[0].1) {
        found.truncate(1);
    }
    match found.len() {
        0 => {
            Err(format!("none of its services sets {SERVERS}; it is looked for in environment and env_file"))
        }
        1 => {
            let (name, settings, own) = found.remove(0);
            report.findings.extend(own.findings);
            with_servers(settings).ok_or_else(|| {
                format!("{SERVERS} of the service {} is empty; is the .env file missing that it comes from? Give it with --env-file", quote(name))
            })
        }
        _ => {
            let names: Vec<_> = found.iter().map(|(name, _, _)| quote(name)).collect();
            Err(format!(
                "the services {} have different settings; choose one with --service",
                names.join(", ")
            ))
        }
    }
}

fn env_files(folder: &Path, service: &Service) -> Result<Vec<(EnvFile, String)>, String> {
    let mut files = Vec::new();
    for file in &service.env_files {
        let path = folder.join(&file.path);
        if file.required || path.exists() {
            files.push((file.clone(), read(&path)?));
        }
    }
    Ok(files)
}

/// Every plugin.json of a folder's folders, by the names of these.
fn plugin_files(folder: &Path, report: &mut Report) -> Result<Vec<PluginFile>, String> {
    let failed = |error: io::Error| format!("{}: {error}", shown(folder));
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(failed)? {
        let path = entry.map_err(failed)?.path();
        let manifest = path.join("plugin.json");
        if manifest.exists() {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            files.insert(
                name,
                fs::read_to_string(&manifest).map_err(|error| format!("plugin.json cannot be read: {error}")),
            );
        }
    }
    if files.is_empty() {
        let own = folder.join("plugin.json").exists();
        report.check(
            "plugins",
            if own {
                "--plugins is a plugin's own folder; give the folder above it"
            } else {
                "no folder of --plugins has a plugin.json"
            },
        );
    }
    Ok(files.into_iter().map(|(folder, text)| PluginFile { folder, text }).collect())
}

fn read(path: &Path) -> Result<String, String> {
    fs::read_to_string(path).map_err(|error| format!("{}: {error}", shown(path)))
}

/// A reader that goes away, `head` for example, has what it wanted.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => {
            Err(Failure(1, format!("standard output: {error}")))
        }
        _ => Ok(()),
    }
}

/// All or nothing, as far as can be seen before: a file that somebody changed is not overwritten by the way.
fn write(folder: &Path, files: &BTreeMap<String, String>, force: bool) -> Result<(), Failure> {
    let mut due = Vec::new();
    let mut others = Vec::new();
    for (name, text) in files {
        let path = folder.join(name);
        match fs::read(&path) {
            Ok(present) if present == text.as_bytes() => {}
            Err(error) if error.kind() == ErrorKind::NotFound => due.push((path, text)),
            Ok(_) if force => due.push((path, text)),
            Ok(_) => others.push(name.as_str()),
            Err(error) => return Err(Failure(1, format!("{}: {error}", shown(&path)))),
        }
    }
    if !others.is_empty() {
        let names = others.join(", ");
        return Err(Failure(
            2,
            format!(
                "{} has other content in {names}; nothing is written; give --force to replace it",
                shown(folder)
            ),
        ));
    }
    let failed = |path: &Path, error: &io::Error| Failure(1, format!("{}: {error}", shown(path)));
    fs::create_dir_all(folder).map_err(|error| failed(folder, &error))?;
    for (path, text) in &due {
        fs::write(path, text).map_err(|error| failed(path, &error))?;
    }
    say(&format!("wrote: {}: {} of {} files", shown(folder), due.len(), files.len()));
    Ok(())
}

fn namespace(text: &str) -> Result<String, String> {
    if import::names::label(text).as_deref() == Some(text) {
        Ok(text.to_owned())
    } else {
        Err("a namespace has at most 63 lower case letters, digits and dashes".to_owned())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_steers_the_terminal() {
        assert_eq!(shown(Path::new("a b/é.env")), "a b/é.env");
        assert_eq!(shown(Path::new("x\u{1b}[31m\u{202e}")), r#""x\u{1b}[31m\u{202e}""#);
        assert_eq!(harmless("wrote: a\u{200b}\nb é"), r"wrote: a\u{200b}\u{a}b é");
    }
}
