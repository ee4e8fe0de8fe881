//! Answers with the wrong content.
//!
//! Pure: an answer becomes another. How answers are cut off, delayed or
//! streamed on the wire is in `inject.rs`.

use std::io::Write as _;
use std::sync::Arc;

use serde_json::json;

use crate::fault::{Fault, Mode};
use crate::http::Answer;
use crate::inject::Exchange;
use crate::ollama;
use crate::state::{HostState, Port};
use crate::weird;

/// How a `huge` body begins.
pub const HUGE_START: &[u8] = br#"{"version":"0.24.0","models":[{"name":""#;

/// The answer that a fault makes of the right one.
pub fn answer(fault: &Fault, plain: Answer, exchange: &Exchange<'_>) -> Answer {
    let request = exchange.request;
    match fault.mode {
        Mode::Status => status(fault),
        Mode::Redirect => {
            let location = fault.location.clone().unwrap_or("/login".to_owned());
            Answer {
                headers: vec![("Location", location)],
                ..Answer::text(fault.code.unwrap_or(302), "Found\n")
            }
        }
        Mode::Garbage => Answer::json(weird::garbage(exchange.moment.tick)),
        Mode::Html => Answer {
            content_type: Some("text/html; charset=utf-8".into()),
            ..Answer::text(200, weird::LOGIN_PAGE)
        },
        Mode::Empty => Answer { body: Vec::new(), ..plain.with_code(200) },
        Mode::Truncated => {
            let half = plain.body.len() / 2;
            Answer { body: plain.body[..half].to_vec(), ..plain }
        }
        Mode::WrongTypes => Answer::json(wrong_types(exchange.port, &request.path)),
        Mode::Gzip => Answer {
            headers: vec![("Content-Encoding", "gzip".to_owned())],
            body: weird::gzip(&plain.body),
            ..plain
        },
        Mode::NotOllama if request.path == "/" => {
            Answer::text(200, "Welcome to the print server of floor 3\n")
        }
        Mode::NotOllama => ollama::not_found(),
        Mode::DeepJson => Answer::json(weird::deep_json(fault.depth.unwrap_or(10_000))),
        _ => plain,
    }
}

/// A status code with the body that Ollama, or a proxy before it, gives it.
fn status(fault: &Fault) -> Answer {
    let code = fault.code.unwrap_or(500);
    let error = |text: &str| Answer::json(json!({"error": text}).to_string().into_bytes());
    let mut answer = match code {
        401 => error("unauthorized"),
        // Ollama's check of the Host header says nothing at all.
        403 => Answer { content_type: None, ..Answer::text(403, "") },
        404 => ollama::not_found(),
        429 => error("too many requests"),
        503 => error("server busy, please try again.  maximum pending requests exceeded"),
        200..=299 => Answer::text(code, ""),
        _ => error("internal server error"),
    };
    if let Some(body) = &fault.body {
        let json = body.trim_start().starts_with(['{', '[']);
        answer = if json { Answer::json(body.clone().into_bytes()) } else { Answer::text(code, body) };
    }
    if let Some(after) = &fault.retry_after {
        answer.headers.push(("Retry-After", after.clone()));
    }
    answer.with_code(code)
}

/// Well-formed JSON in which no field has its type.
fn wrong_types(port: Port, path: &str) -> Vec<u8> {
    let document = match (port, path) {
        (Port::Ollama, "/api/version") => json!({"version": {"major": 0, "minor": 24}}),
        (Port::Ollama, "/api/tags") => json!({"models": {"name": "qwen3:8b"}}),
        (Port::Ollama, "/api/ps") => json!({"models": [
            {"name": 7, "model": null, "size": "big", "digest": [], "details": "none",
             "expires_at": 0, "size_vram": -1, "context_length": "long"}]}),
        (Port::Ollama, _) => json!({"object": 1, "data": "none", "status": []}),
        (Port::Agent, _) => json!({
            "hostname": 7, "uptime_seconds": "long", "boot_time": 0, "temperatures": [52.5],
            "memory": "64 GB", "load_avg": {}, "cpu_percent": "twelve", "gpu_percent": true,
            "recent_boots": "none", "reboot_causes": [], "disk": null}),
    };
    document.to_string().into_bytes()
}

/// The state with control characters in every name.
pub fn control_chars(state: &HostState) -> HostState {
    let mut state = state.clone();
    let spoil = |name: &mut String| name.insert_str(0, weird::CONTROL_CHARS);
    spoil(&mut state.version);
    for model in Arc::make_mut(&mut state.models) {
        spoil(&mut model.name);
        spoil(&mut model.family);
    }
    for loaded in Arc::make_mut(&mut state.loaded) {
        spoil(&mut loaded.name);
    }
    let name = state.machine.hostname.get_or_insert_with(|| "host".to_owned());
    spoil(name);
    state
}

/// A list that is longer than anyone expects, one entry at a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongList {
    /// Models on disk.
    Tags,
    /// Models in memory.
    Running,
    /// Models as `OpenAI` lists them.
    OpenAi,
    /// Sensors.
    Sensors,
}

impl LongList {
    /// The list that a path has, if it has one.
    pub fn of(port: Port, path: &str) -> Option<Self> {
        match (port, path) {
            (Port::Ollama, "/api/tags") => Some(Self::Tags),
            (Port::Ollama, "/api/ps") => Some(Self::Running),
            (Port::Ollama, "/v1/models") => Some(Self::OpenAi),
            (Port::Agent, "/metrics") => Some(Self::Sensors),
            _ => None,
        }
    }

    /// What comes before the entries.
    pub fn prefix(self) -> &'static str {
        match self {
            Self::Tags | Self::Running => r#"{"models":["#,
            Self::OpenAi => r#"{"object":"list","data":["#,
            Self::Sensors => r#"{"hostname":"many","uptime_seconds":1.5,"temperatures":{"#,
        }
    }

    /// What comes after them.
    pub fn suffix(self) -> &'static str {
        match self {
            Self::Sensors => "}}",
            _ => "]}",
        }
    }

    /// Appends an entry.
    pub fn entry(self, number: u32, to: &mut Vec<u8>) {
        let comma = if number == 0 { "" } else { "," };
        let details = r#""details":{"parent_model":"","format":"gguf","family":"llama","families":null,"parameter_size":"1B","quantization_level":"Q4_K_M"}"#;
        // Writing to a Vec cannot fail.
        let _ = match self {
            Self::Tags => write!(
                to,
                r#"{comma}{{"name":"many-{number}:1b","model":"many-{number}:1b","modified_at":"2026-01-01T00:00:00.000000001Z","size":1000000,"digest":"{number:064x}",{details}}}"#
            ),
            Self::Running => write!(
                to,
                r#"{comma}{{"name":"many-{number}:1b","model":"many-{number}:1b","size":1000000,"digest":"{number:064x}",{details},"expires_at":"2318-01-01T00:00:00.000000001Z","size_vram":1000000,"context_length":4096}}"#
            ),
            Self::OpenAi => write!(
                to,
                r#"{comma}{{"id":"many-{number}","object":"model","created":1,"owned_by":"library"}}"#
            ),
            Self::Sensors => write!(to, r#"{comma}"thermal_zone{number}":41.5"#),
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lists_are_json() {
        for list in [LongList::Tags, LongList::Running, LongList::OpenAi, LongList::Sensors] {
            for count in [0, 3] {
                let mut body = list.prefix().as_bytes().to_vec();
                (0..count).for_each(|number| list.entry(number, &mut body));
                body.extend_from_slice(list.suffix().as_bytes());
                serde_json::from_slice::<serde_json::Value>(&body).unwrap();
            }
        }
    }

    #[test]
    fn statuses_have_ollamas_bodies() {
        let of = |code| {
            let mut fault = Fault::of(Mode::Status);
            fault.code = Some(code);
            status(&fault)
        };
        assert_eq!((of(403).code, of(403).body.len()), (403, 0));
        assert!(String::from_utf8(of(503).body).unwrap().contains("maximum pending"));
        assert_eq!(of(404).body, b"404 page not found");
        assert_eq!(of(418).code, 418);
    }

    #[test]
    fn control_characters_are_in_every_name() {
        let state = control_chars(&HostState::default());
        assert!(state.models.iter().all(|model| model.name.contains('\u{1b}')));
        assert!(state.version.contains('\u{202e}'));
    }
}
