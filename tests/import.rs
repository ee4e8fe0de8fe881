//! `kubectl ollama import`: what users of the old dashboard have, made into objects that apply and stay as they are.
//! Several tests are named for faults of the old dashboard, whose configurations must come through all the same.

use crate::support::{ControlPlane, Namespace, binaries};
use assert_cmd::Command;
use serde_json::{Value, json};
use std::{fs, path::Path};
use tempfile::TempDir;

/// What the program said, and how it ended.
struct Said {
    code: Option<i32>,
    out: String,
    err: String,
}

impl Said {
    /// The lines of the report that begin so.
    fn lines(&self, start: &str) -> Vec<&str> {
        self.err.lines().filter(|line| line.starts_with(start)).collect()
    }

    fn objects(&self) -> Vec<Value> {
        serde_saphyr::from_multiple(&self.out).unwrap()
    }
}

fn import_in(folder: &Path, args: &[&str], environment: &[(&str, &str)]) -> Said {
    let mut command = Command::new(binaries::kubectl_ollama());
    command.arg("import").args(args).current_dir(folder).env_clear();
    command.envs(environment.iter().copied());
    let output = command.output().unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// With the servers in the environment.
fn import(servers: &Value, args: &[&str]) -> Said {
    import_in(Path::new("/"), args, &[("OLLAMA_SERVERS", &servers.to_string())])
}

fn folder(files: &[(&str, &str)]) -> TempDir {
    let folder = TempDir::new().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    folder
}

fn entry(name: &str, host: &str) -> Value {
    json!({ "name": name, "host": host, "ramGb": 16 })
}

/// As the old dashboard's own example has it, and a bit of everything.
const ENV: &str = r#"# Ollama servers to monitor
OLLAMA_SERVERS='[
  {"name": "GPU Server 1", "host": "192.168.1.100:11434", "ramGb": 16, "metricsPort": 9100},
  {"name": "GPU Server 2", "host": "192.168.1.101:11434", "ramGb": 23.5, "metricsPort": null},
  {"name": "Büro é", "host": "[fd00::1]:11434", "ramGb": 8, "metricsPort": 0, "queuePort": 9201},
  {"name": "on", "host": "gpu.example.com:8000", "ramGb": 64, "backendType": "vllm"},
  {"name": "1e3", "host": "http://gpu.example.com/ollama", "ramGb": 64, "backendType": "generic"},
  {"name": "GPU Server 1", "host": "192.168.1.102:11434", "ramGb": 16}
]'
POSTGRES_PASSWORD=pa$$word$
POLL_INTERVAL=30
HEALTH_CHECK_TIMEOUT=2500
OFFLINE_THRESHOLD=5
"#;
const FLEET_METRICS: &str = r#"{
  "name": "fleet-metrics", "version": "1.0.0", "description": "System metrics agent", "type": "agent",
  "defaultPort": 9100, "endpoint": "/metrics", "configKey": "metricsPort"
}"#;
const QUEUE: &str = r#"{
  "name": "queue", "version": "1.2", "description": "Queue: depth # of \"requests\"", "type": "agent",
  "defaultPort": 9200, "endpoint": "/stats", "configKey": "queuePort"
}"#;
const HOOK: &str = r#"{"name": "notify", "version": "1.0.0", "description": "tells", "type": "hook"}"#;

fn old_dashboard() -> TempDir {
    folder(&[
        (".env", ENV),
        ("plugins/fleet-metrics/plugin.json", FLEET_METRICS),
        ("plugins/queue/plugin.json", QUEUE),
        ("plugins/notify/plugin.json", HOOK),
        ("plugins/notify/index.ts", ""),
    ])
}

/// In each form that it can have.
#[tokio::test]
async fn the_output_applies_unchanged_and_applying_it_again_changes_nothing() {
    let control_plane = ControlPlane::shared();
    let old = old_dashboard();
    for form in ["yaml", "json", "files"] {
        let namespace = Namespace::new(control_plane).await;
        let files = old.path().join(form);
        let mut args = vec!["--env-file", ".env", "--plugins", "plugins", "--namespace", &namespace];
        match form {
            "files" => args.extend(["--write", "files"]),
            _ => args.extend(["-o", form]),
        }
        let said = import_in(old.path(), &args, &[]);
        assert_eq!(said.code, Some(0), "{}", said.err);
        let source = if form == "files" { ["-k", files.to_str().unwrap()] } else { ["-f", "-"] };
        let apply = || {
            let args = [&["apply", "--server-side", "--validate=strict"][..], &source].concat();
            let output = control_plane.kubectl(&args, Some(&said.out));
            assert_eq!(output.stderr, "", "{form}");
            output.ok()
        };
        let kubectl =
            |args: &[&str]| control_plane.kubectl(&[args, &["-n", namespace.name()][..]].concat(), None).ok();
        let versions = || {
            kubectl(&[
                "get",
                "ollamaservers,fleetplugins",
                "-o",
                "jsonpath={range .items[*]}{.metadata.name}={.metadata.resourceVersion} {end}",
            ])
        };
        apply();
        // The API server stores the default status with the first update, which is the operator's elsewhere.
        for kind in ["ollamaservers", "fleetplugins"] {
            let status = r#"{"status":{"conditions":[]}}"#;
            for name in kubectl(&["get", kind, "-o", "name"]).lines() {
                kubectl(&["patch", name, "--subresource=status", "--type=merge", "-p", status]);
            }
        }
        let before = versions();
        apply();
        assert_eq!(before, versions(), "{form}");
        assert_eq!(before.split_whitespace().count(), 8, "{before}");
        let of = |name: &str, path: &str| {
            kubectl(&["get", "osrv", name, "-o", &format!("jsonpath={{.spec.{path}}}")])
        };
        assert_eq!(of("gpu-server-2", "capacity.memory"), "24064Mi");
        assert_eq!(of("gpu-server-2", "pluginPorts"), r#"{"metricsPort":0}"#);
        assert_eq!(of("gpu-server-1-2", "host"), "192.168.1.102:11434");
        assert_eq!(of("buro-e", "displayName"), "Büro é");
        assert_eq!(of("on", "backendType"), "VLLM");
        assert_eq!(of("on", "poll"), r#"{"failureThreshold":5,"interval":"30s","timeout":"2s500ms"}"#);
        let values =
            kubectl(&["get", "fplug", "fleet-metrics", "-o", "jsonpath={.spec.agent.values[*].name}"]);
        assert!(values.contains("gpuTemperatureCelsius"), "{values}");
    }
}

/// Whatever is printed is taken; what the API server would refuse is skipped and reported.
#[tokio::test]
async fn every_host_that_is_printed_is_accepted() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let long = format!("http://gpu1/{}", "x".repeat(400));
    let hosts = [
        "192.168.1.1",
        "192.168.1.1:1",
        "gpu_1.lab:1",
        "GPU1.lab.:1",
        "[fd00::1]",
        "[FD00::1]:2",
        "fd00::1",
        "2001:db8::1",
        "fd00::1:11434",
        "fd00::1:8080",
        "[::ffff:192.0.2.1]:1",
        "::ffff:192.0.2.1",
        "::192.0.2.1",
        "[::]",
        "::",
        "http://x:1",
        "HTTPS://x",
        "http://x/y",
        "http://x/é",
        "http://x/a@b",
        "http://x/[1]",
        "http://x//y",
        "x:1/y",
        "x/",
        "http://x:1/?q",
        "x:080",
        "x:0",
        "x:65536",
        "x:",
        ":1",
        "a..b:1",
        "-a:1",
        "1.2.3:1",
        "1.2.3.4.:1",
        "0x7f.1:1",
        "user:pw@x:1",
        "[fe80::1%eth0]:1",
        "ftp://x",
        "http://",
        "http:///x",
        "gpü:1",
        "a b:1",
        " x:1 ",
        "x\n:1",
        "[1.2.3.4]:1",
        "http://[fd00::1]",
        "http://fd00::1/",
        &long,
        "http://x/$<>^`{|}~\"'%20",
    ];
    let entries: Vec<_> = hosts.iter().map(|host| entry(host, host)).collect();
    let said = import(&entries.into(), &["-n", &namespace]);
    assert_eq!(said.code, Some(1));
    let printed = said.objects().len();
    assert_eq!(printed + said.lines("skipped: ").len(), hosts.len());
    let applied =
        control_plane.kubectl(&["apply", "--server-side", "--validate=strict", "-f", "-"], Some(&said.out));
    assert_eq!(applied.ok().lines().count(), printed);
}

#[test]
fn bad_entries_are_skipped_by_index_and_the_others_survive() {
    let servers =
        json!([entry("a", "192.0.2.1:1"), {"name": "gpu box", "ramGb": 16}, 7, entry("b", "192.0.2.3:1")]);
    let said = import(&servers, &[]);
    assert_eq!((said.code, said.objects().len()), (Some(1), 2));
    assert_eq!(
        said.lines("skipped: "),
        [
            "skipped: servers[1] \"gpu box\": host must be a text that is not blank, found none",
            "skipped: servers[2]: must be an object, found 7"
        ]
    );
    let strict = import(&servers, &["--strict"]);
    assert_eq!((strict.code, strict.out.as_str()), (Some(1), ""));
    assert_eq!(strict.lines("skipped: ").len(), 2);
}

#[test]
fn ipv6_hosts_come_through_as_what_they_were_meant_to_be() {
    let hosts = ["[fd00::1]:11434", "http://x:1", "2001:db8::1"];
    let said = import(&hosts.map(|host| entry(host, host)).to_vec().into(), &[]);
    let printed: Vec<_> = said.objects().iter().map(|object| object["spec"]["host"].clone()).collect();
    assert_eq!(printed, ["[fd00::1]:11434", "http://x:1", "[2001:db8::1]:11434"]);
    assert_eq!(said.lines("check: servers").len(), 1, "{}", said.err);
}

#[test]
fn duplicate_names_get_the_same_names_each_time() {
    let names = |count: usize| -> Vec<_> {
        let all = ["gpu", "GPU", "gpu 2", "!!", "gpu"];
        let entries = all
            .iter()
            .enumerate()
            .take(count)
            .map(|(index, name)| entry(name, &format!("192.0.2.{index}:1")));
        let said = import(&entries.collect::<Vec<_>>().into(), &[]);
        said.objects().iter().map(|object| object["metadata"]["name"].as_str().unwrap().to_owned()).collect()
    };
    assert_eq!(names(5), ["gpu", "gpu-2", "gpu-2-2", "server-3", "gpu-3"]);
    assert_eq!(names(3), names(5)[..3]);
}

#[test]
fn an_endpoint_that_was_ignored_and_a_name_unlike_its_folder_are_said() {
    let old = folder(&[("plugins/depth/plugin.json", QUEUE), ("plugins/broken/plugin.json", "{")]);
    let said = import_in(old.path(), &["--plugins", "plugins"], &[("OLLAMA_SERVERS", "[]")]);
    assert_eq!(said.code, Some(1));
    assert_eq!(
        said.lines("skipped: plugins/broken: plugin.json is not valid JSON: ").len(),
        1,
        "{}",
        said.err
    );
    for part in
        ["is not that of its folder", "endpoint is written as /stats", "version must be", "never asked it"]
    {
        assert!(
            said.lines("check: plugins/depth: ").iter().any(|line| line.contains(part)),
            "{part}: {}",
            said.err
        );
    }
    assert_eq!(said.objects()[0]["spec"]["agent"]["endpoint"], "/stats");
}

#[test]
fn hooks_are_comments_in_yaml_and_a_line_elsewhere() {
    let old = old_dashboard();
    let yaml = import_in(old.path(), &["--env-file", ".env", "--plugins", "plugins"], &[]);
    assert!(yaml.out.contains("# kind: FleetPlugin\n# metadata:\n#   name: notify\n"), "{}", yaml.out);
    assert_eq!(yaml.objects().len(), 8);
    let json = import_in(old.path(), &["--env-file", ".env", "--plugins", "plugins", "-o", "json"], &[]);
    assert_eq!(json.lines("check: plugins/notify: hook plugins are not supported").len(), 1);
    let list: Value = serde_json::from_str(&json.out).unwrap();
    assert_eq!((list["kind"].as_str(), list["items"].as_array().map(Vec::len)), (Some("List"), Some(8)));
}

#[test]
fn bad_poll_settings_are_said_and_left_to_the_flags() {
    let servers = json!([entry("a", "192.0.2.1:1")]).to_string();
    let settings = [("POLL_INTERVAL", "fast"), ("HEALTH_CHECK_TIMEOUT", "-1"), ("OFFLINE_THRESHOLD", "0")];
    let said = import_in(Path::new("/"), &[], &[&settings[..], &[("OLLAMA_SERVERS", &servers)]].concat());
    assert_eq!(said.code, Some(0));
    assert!(said.objects()[0]["spec"].get("poll").is_none());
    for (name, _) in settings {
        assert_eq!(said.lines(&format!("check: {name}: ")).len(), 1, "{}", said.err);
    }
}

#[test]
fn what_has_no_home_is_named_and_secrets_are_not_shown() {
    let env = "OLLAMA_SERVERS='[{\"name\":\"a\",\"host\":\"u:s3cret@192.0.2.1\",\"ramGb\":1},{\"name\":\"b\",\"host\":\"192.0.2.2:1\",\"ramGb\":1,\"maxConcurrent\":2}]'\n\
        TELEGRAM_BOT_TOKEN=s3cret\nWAN_CHECK_INTERVAL=60\nPROXY_MIN_NUM_CTX=1\nADMIN_PASSWORD=s3cret$\nUNRELATED=s3cret\n";
    let old = folder(&[(".env", env)]);
    let said = import_in(old.path(), &["--env-file", ".env"], &[]);
    let named: Vec<_> = said.lines("no home: ").iter().map(|line| line.split(": ").nth(1).unwrap()).collect();
    assert_eq!(
        named,
        [
            "servers[1] \"b\"",
            "ADMIN_PASSWORD",
            "PROXY_MIN_NUM_CTX",
            "TELEGRAM_BOT_TOKEN",
            "WAN_CHECK_INTERVAL"
        ]
    );
    assert!(!said.err.contains("s3cret") && !said.out.contains("s3cret") && !said.err.contains("UNRELATED"));
}

/// What the old dashboard skipped or had in its database comes through, and applies.
#[tokio::test]
async fn optional_fields_cost_no_server() {
    let control_plane = ControlPlane::shared();
    let namespace = Namespace::new(control_plane).await;
    let host = |number: usize| format!("192.0.2.{number}:11434");
    let servers = json!([
        {"name": "bare", "host": host(1)},
        {"name": "text", "host": host(2), "ramGb": "16"},
        {"name": "off", "host": host(3), "ramGb": 16, "isDisabled": true, "apiKey": "sk-s3cret"},
    ]);
    let settings = [("OLLAMA_SERVERS", servers.to_string()), ("POLL_INTERVAL", "10000".to_owned())];
    let settings = settings.each_ref().map(|(name, value)| (*name, value.as_str()));
    let said = import_in(Path::new("/"), &["-n", &namespace], &settings);
    assert_eq!(said.code, Some(0), "{}", said.err);
    for line in [
        "check: servers[0] \"bare\": ramGb must be a number above 0, found none; capacity is left out",
        "check: servers[1] \"text\": ramGb must be a number above 0, found \"16\"; capacity is left out",
        "check: servers[2] \"off\": apiKey is not written",
        "check: POLL_INTERVAL: it is in seconds, and 10000 looks like milliseconds; if 10 s are meant, write 10",
    ] {
        assert_eq!(said.lines(line).len(), 1, "{line}: {}", said.err);
    }
    assert!(!said.err.contains("s3cret") && !said.out.contains("s3cret"));
    let spec = |name: &str| {
        said.objects().into_iter().find(|object| object["metadata"]["name"] == name).unwrap()["spec"].take()
    };
    assert_eq!(spec("off")["maintenance"], json!({"reason": "disabled in the old dashboard"}));
    assert!(spec("bare").get("capacity").is_none() && spec("text").get("capacity").is_none());
    let args = ["apply", "--server-side", "--validate=strict", "-f", "-"];
    assert_eq!(control_plane.kubectl(&args, Some(&said.out)).ok().lines().count(), 3);
}

/// Compose 2.30 and later: `format: raw` takes a value as it is written, quotes, dollars and all.
#[test]
fn a_raw_env_file_is_taken_as_written() {
    let env = "# the fleet\nOLLAMA_SERVERS=[{\"name\": \"a $b # c\", \"host\": \"192.0.2.1:1\", \"ramGb\": 1}]\nPOLL_INTERVAL=\"30\"\n";
    let compose = "services: {fleet: {image: x, env_file: [{path: fleet.env, format: raw}]}}\n";
    let old =
        folder(&[("docker-compose.yml", compose), ("fleet.env", env), (".env", "b=gone\nMÜLLER[0]=x\n")]);
    let said = import_in(old.path(), &["--compose", "docker-compose.yml"], &[]);
    assert_eq!(said.code, Some(0), "{}", said.err);
    assert_eq!(said.objects()[0]["spec"]["displayName"], "a $b # c");
    // It is in quotes, which are a part of it.
    assert_eq!(said.lines("check: POLL_INTERVAL: ").len(), 1, "{}", said.err);
}

/// A pipe ends with the code of its last command, so that a skipped server would look like success.
#[test]
fn the_documented_commands_show_the_exit_code() {
    let help = Command::new(binaries::kubectl_ollama()).args(["import", "--help"]).output().unwrap();
    let mut texts = vec![String::from_utf8(help.stdout).unwrap()];
    for page in ["README.md", "docs/migration.md"] {
        texts.push(fs::read_to_string(binaries::repository().join(page)).unwrap());
    }
    for text in &texts {
        let commands: Vec<_> = text
            .lines()
            .map(str::trim)
            .filter(|line| line.starts_with("kubectl ollama import ") && line.contains("fleet.yaml"))
            .collect();
        assert!(!commands.is_empty(), "{text}");
        assert!(!text.lines().any(|line| line.contains("ollama import") && line.contains(" | ")), "{text}");
        for command in commands {
            let old = old_dashboard();
            fs::write(
                old.path().join(".env"),
                "OLLAMA_SERVERS=[{\"name\": \"a\", \"host\": \"192.0.2.1:1\", \"ramGb\": 1}, 7]",
            )
            .unwrap();
            let program = format!("{} import", binaries::kubectl_ollama().display());
            // Whatever follows is not reached, or is not there.
            let script = command
                .replace("kubectl ollama import", &program)
                .replace("kubectl apply", "touch applied #");
            let ended = Command::new("sh").args(["-c", &script]).current_dir(old.path()).output().unwrap();
            assert_eq!(ended.status.code(), Some(1), "{command}");
            assert!(!old.path().join("applied").exists(), "{command}");
            let written = fs::read_to_string(old.path().join("fleet.yaml")).unwrap();
            assert!(written.contains("192.0.2.1:1"), "the others are there: {written}");
        }
    }
}

#[test]
fn names_do_not_steer_the_terminal() {
    let said = import(&json!([entry("a\u{1b}]0;x\u{7}\u{202e}", "192.0.2.1:1")]), &[]);
    assert!(
        !said.err.chars().chain(said.out.chars()).any(|c| c != '\n' && (c.is_control() || c == '\u{202e}'))
    );
}

#[test]
fn a_compose_file_is_read_with_the_env_file_beside_it() {
    let compose = "services:\n  app:\n    environment:\n      - OLLAMA_SERVERS=${OLLAMA_SERVERS}\n      - POLL_INTERVAL=${POLL_INTERVAL:-10}\n  db:\n    environment: {POSTGRES_PASSWORD: x}\n";
    let old = folder(&[("docker-compose.yml", compose), (".env", ENV), ("other.env", "OLLAMA_SERVERS=[]\n")]);
    // The variable of the process is another fleet's.
    let stray = [("OLLAMA_SERVERS", "[{}]")];
    let said = import_in(
        Path::new("/"),
        &["--compose", old.path().join("docker-compose.yml").to_str().unwrap()],
        &stray,
    );
    assert_eq!((said.code, said.objects().len()), (Some(0), 6), "{}", said.err);
    assert_eq!(said.objects()[0]["spec"]["poll"], json!({"interval": "30s"}));
    let said = import_in(old.path(), &["--compose", "docker-compose.yml", "--env-file", "other.env"], &stray);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{}", said.err);
}

#[test]
fn of_several_services_one_is_chosen_unless_they_agree() {
    let two = |second: &str| {
        format!(
            "services:\n  app: {{environment: ['OLLAMA_SERVERS=[]']}}\n  app-dev: {{env_file: dev.env, environment: ['OLLAMA_SERVERS={second}']}}\n"
        )
    };
    let old = folder(&[("same.yml", &two("[]")), ("other.yml", &two("[7]")), ("dev.env", "X=1")]);
    assert_eq!(import_in(old.path(), &["--compose", "same.yml"], &[]).code, Some(0));
    let said = import_in(old.path(), &["--compose", "other.yml"], &[]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("\"app\", \"app-dev\" have different settings; choose one with --service"),
        "{}",
        said.err
    );
    assert_eq!(import_in(old.path(), &["--compose", "other.yml", "--service", "app"], &[]).code, Some(0));
}

#[test]
fn a_json_file_is_the_array_or_an_object_of_settings() {
    let entry = entry("a", "192.0.2.1:1");
    let object = json!({"OLLAMA_SERVERS": [entry], "POLL_INTERVAL": 20, "TELEGRAM_CHAT_ID": 1}).to_string();
    let old = folder(&[
        ("array.json", &json!([entry]).to_string()),
        ("object.json", &object),
        ("bad.json", "[\n  {\"name\": }\n]"),
    ]);
    assert_eq!(import_in(old.path(), &["--servers-file", "array.json"], &[]).objects().len(), 1);
    let said = import_in(old.path(), &["--servers-file", "object.json"], &[]);
    assert_eq!(said.objects()[0]["spec"]["poll"]["interval"], "20s");
    assert_eq!(said.lines("no home: TELEGRAM_CHAT_ID").len(), 1);
    let said = import_in(old.path(), &["--servers-file", "bad.json"], &[]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("bad.json: not valid JSON: ") && said.err.contains("line 2 column 12"),
        "{}",
        said.err
    );
}

#[test]
fn wrong_usage_and_unreadable_input_end_with_2_and_say_what_to_give() {
    let old = folder(&[("empty.env", "A=1\n"), ("bad.env", "A=1\nOLLAMA_SERVERS='[\n")]);
    for (args, says) in [
        (&[][..], "give --env-file, --compose or --servers-file"),
        (&["--env-file", "empty.env"], "it does not set OLLAMA_SERVERS"),
        (&["--env-file", "bad.env"], "bad.env: line 2: the value begins with a quote that is never closed"),
        (&["--env-file", "none.env"], "none.env: No such file"),
        (&["--env-file", "a", "--servers-file", "b"], "cannot be used with"),
        (&["--force"], "--write"),
        (&["--namespace", "Not A Name"], "a namespace has at most 63"),
        (&["-o", "xml"], "possible values: yaml, json"),
    ] {
        let said = import_in(old.path(), args, &[]);
        assert_eq!((said.code, said.out.as_str()), (Some(2), ""), "{args:?}: {}", said.err);
        assert!(said.err.contains(says), "{args:?}: {}", said.err);
    }
    let said = import_in(old.path(), &["--plugins", "none"], &[("OLLAMA_SERVERS", "[]")]);
    assert_eq!(said.code, Some(2), "{}", said.err);
}

#[test]
fn files_are_written_once_and_never_over_another_without_force() {
    let old = old_dashboard();
    let run = |more: &[&str]| {
        import_in(
            old.path(),
            &[&["--env-file", ".env", "--plugins", "plugins", "--write", "out/fleet"], more].concat(),
            &[],
        )
    };
    let said = run(&[]);
    assert_eq!((said.code, said.out.as_str()), (Some(0), ""), "{}", said.err);
    assert_eq!(said.lines("wrote: out/fleet: 9 of 9 files").len(), 1, "{}", said.err);
    assert_eq!(run(&[]).lines("wrote: out/fleet: 0 of 9 files").len(), 1);
    let changed = old.path().join("out/fleet/ollamaserver-on.yaml");
    let original = fs::read_to_string(&changed).unwrap();
    fs::write(&changed, "mine").unwrap();
    let said = run(&[]);
    assert_eq!(said.code, Some(2));
    assert!(
        said.err.contains("has other content in ollamaserver-on.yaml; nothing is written"),
        "{}",
        said.err
    );
    assert_eq!(fs::read_to_string(&changed).unwrap(), "mine");
    assert_eq!(run(&["--force"]).code, Some(0));
    assert_eq!(fs::read_to_string(&changed).unwrap(), original);
}

#[test]
fn a_reader_that_goes_away_is_no_failure() {
    let entries: Vec<_> =
        (0..3000).map(|n| entry(&format!("s{n}"), &format!("192.0.2.1:{}", n + 1))).collect();
    let old = folder(&[("servers.json", &Value::from(entries).to_string())]);
    let script = r#""$0" import --servers-file servers.json 2>err | head -n 1; exit "${PIPESTATUS[0]}""#;
    let output = std::process::Command::new("bash")
        .args(["-c", script])
        .arg(binaries::kubectl_ollama())
        .current_dir(old.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", fs::read_to_string(old.path().join("err")).unwrap());
}

/// kubectl looks for its plugins on the PATH.
#[test]
fn kubectl_finds_the_plugin_by_its_name() {
    let folder = TempDir::new().unwrap();
    std::os::unix::fs::symlink(binaries::kubectl_ollama(), folder.path().join("kubectl-ollama")).unwrap();
    let output = Command::new(binaries::control_plane())
        .args(["kubectl", "ollama", "import"])
        .env("PATH", folder.path())
        .env("OLLAMA_SERVERS", json!([entry("a", "192.0.2.1:1")]).to_string())
        .output()
        .unwrap();
    let out = String::from_utf8(output.stdout).unwrap();
    assert!(out.contains("kind: OllamaServer\n"), "{out}{}", String::from_utf8_lossy(&output.stderr));
}
