//! What the server on the Ollama port answers when nothing is wrong.
//!
//! Pure: a state and a request give an answer. Field names and oddities are
//! those of Ollama 0.24; other backends answer their few endpoints.

use jiff::{SignedDuration, Timestamp, tz::Offset};
use serde::Serialize;
use serde_json::json;

use crate::http::{Answer, Request};
use crate::models::{Expires, Loaded, Model};
use crate::state::{Backend, HostState};
use crate::weird::mix;

/// What an answer depends on besides the state.
#[derive(Debug, Clone, Copy)]
pub struct Moment {
    /// The time.
    pub now: Timestamp,
    /// Start of the simulator.
    pub start: Timestamp,
    /// Differs from call to call and from host to host.
    pub tick: u64,
    /// Number of the host.
    pub index: usize,
}

/// The answer to a request.
pub fn answer(state: &HostState, request: &Request, moment: &Moment) -> Answer {
    let get = request.method == "GET";
    let head = request.is_head();
    let path = request.path.as_str();
    match state.backend {
        Backend::Ollama => {
            if state.quirks.no_tags404 && path == "/api/tags" || state.quirks.no_ps404 && path == "/api/ps" {
                return not_found();
            }
            match path {
                "/" if get || head => Answer::text(200, "Ollama is running"),
                "/api/version" if get || head => json_of(&json!({"version": state.version})),
                "/api/tags" if get || head => tags(state, moment),
                "/api/ps" if get => ps(state, moment),
                "/api/status" if get => json_of(&json!({"cloud":{"disabled":false,"source":"none"}})),
                "/v1/models" if get => openai_models(state, moment),
                _ if POST_ONLY.contains(&path) && request.method == "POST" => {
                    json_of(&json!({"error": "missing request body"})).with_code(400)
                }
                "/" | "/api/version" | "/api/tags" | "/api/ps" | "/api/status" | "/v1/models" => {
                    Answer::text(405, "405 method not allowed")
                }
                _ if POST_ONLY.contains(&path) => Answer::text(405, "405 method not allowed"),
                _ => not_found(),
            }
        }
        Backend::Vllm => match path {
            "/health" if get => Answer { content_type: None, ..Answer::text(200, "") },
            "/v1/models" if get => openai_models(state, moment),
            "/version" if get => json_of(&json!({"version": state.version})),
            "/health" | "/v1/models" | "/version" => {
                json_of(&json!({"detail": "Method Not Allowed"})).with_code(405)
            }
            _ => json_of(&json!({"detail": "Not Found"})).with_code(404),
        },
        Backend::Generic => match path {
            "/health" if get || head => json_of(&json!({"status": "ok"})),
            "/" if get || head => Answer::text(200, "It works"),
            _ => not_found(),
        },
    }
}

/// Endpoints that change something or infer; a poller has no business there.
const POST_ONLY: [&str; 12] = [
    "/api/show",
    "/api/pull",
    "/api/push",
    "/api/create",
    "/api/copy",
    "/api/delete",
    "/api/generate",
    "/api/chat",
    "/api/embed",
    "/api/embeddings",
    "/v1/chat/completions",
    "/v1/completions",
];

/// As Go's router says it.
pub fn not_found() -> Answer {
    Answer::text(404, "404 page not found")
}

fn json_of(value: &impl Serialize) -> Answer {
    Answer::json(serde_json::to_vec(value).unwrap_or_default())
}

/// A size, which some versions and proxies write as a float.
#[derive(Serialize)]
#[serde(untagged)]
enum Size {
    Whole(u64),
    Float(f64),
}

impl Size {
    #[expect(clippy::cast_precision_loss, reason = "the loss is what the quirk is about")]
    fn of(bytes: u64, float: bool) -> Self {
        if float { Self::Float(bytes as f64) } else { Self::Whole(bytes) }
    }
}

#[derive(Serialize)]
struct List<T> {
    models: Option<Vec<T>>,
}

#[derive(Serialize)]
struct Details<'a> {
    parent_model: &'static str,
    format: &'static str,
    family: &'a str,
    families: Option<[&'a str; 1]>,
    parameter_size: &'a str,
    quantization_level: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
}

#[derive(Serialize)]
struct Tag<'a> {
    name: &'a str,
    model: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_model: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    remote_host: Option<&'a str>,
    modified_at: String,
    size: Size,
    digest: &'a str,
    details: Details<'a>,
    #[serde(skip_serializing_if = "Option::is_none")]
    capabilities: Option<&'a [String]>,
}

#[derive(Serialize)]
struct Running<'a> {
    name: &'a str,
    model: &'a str,
    size: Size,
    digest: &'a str,
    details: Details<'a>,
    expires_at: String,
    size_vram: Size,
    #[serde(skip_serializing_if = "Option::is_none")]
    context_length: Option<u64>,
}

fn details<'a>(model: &'a Model, with_context: bool, moment: &Moment) -> Details<'a> {
    Details {
        parent_model: "",
        format: "gguf",
        family: &model.family,
        // Often null in the wild, and both are legal.
        families: (!moment.tick.is_multiple_of(3)).then_some([model.family.as_str()]),
        parameter_size: &model.parameter_size,
        quantization_level: &model.quantization,
        context_length: model.context_length.filter(|_| with_context),
    }
}

/// Nobody may rely on the order, so it moves with each call.
fn list<T: Serialize>(mut models: Vec<T>, state: &HostState, moment: &Moment) -> Answer {
    if let Some(by) = usize::try_from(moment.tick).ok().and_then(|n| n.checked_rem(models.len())) {
        models.rotate_left(by);
    }
    let null = models.is_empty() && state.quirks.null_models;
    json_of(&List { models: (!null).then_some(models) })
}

fn tags(state: &HostState, moment: &Moment) -> Answer {
    let quirks = &state.quirks;
    let offset = quirks.offset_seconds().unwrap_or(0);
    let tag = |model: &'_ Model| {
        // A fixed time long ago that differs from model to model.
        let age = mix(model.size_bytes ^ model.name.len() as u64) % 30_000_000;
        let nanos = 1_767_225_600_000_000_000 - i128::from(age) * 1_000_000_007;
        let fallback = Timestamp::from_nanosecond(nanos).unwrap_or(Timestamp::UNIX_EPOCH);
        rfc3339(model.modified_at.unwrap_or(fallback), offset)
    };
    let entries = state.models.iter().map(|model| Tag {
        name: &model.name,
        model: &model.name,
        remote_model: model.remote_model.as_deref(),
        remote_host: model.remote_host.as_deref(),
        modified_at: tag(model),
        size: Size::of(model.size_bytes, quirks.float_sizes),
        digest: &model.digest,
        details: details(model, quirks.tags_capabilities, moment),
        capabilities: model.capabilities.as_deref().filter(|_| quirks.tags_capabilities),
    });
    list(entries.collect(), state, moment)
}

fn ps(state: &HostState, moment: &Moment) -> Answer {
    let quirks = &state.quirks;
    let offset = quirks.offset_seconds().unwrap_or(0);
    let unknown = Model::named("");
    let entry = |loaded: &'_ Loaded| expires(&loaded.expires, moment);
    let entries = state.loaded.iter().map(|loaded| {
        let model = state.models.iter().find(|model| model.name == loaded.name);
        Running {
            name: &loaded.name,
            model: &loaded.name,
            size: Size::of(loaded.size_bytes, quirks.float_sizes),
            digest: &loaded.digest,
            details: details(model.unwrap_or(&unknown), false, moment),
            expires_at: rfc3339(entry(loaded), offset),
            size_vram: Size::of(loaded.vram_bytes, quirks.float_sizes),
            context_length: loaded.context_length,
        }
    });
    list(entries.collect(), state, moment)
}

fn expires(expires: &Expires, moment: &Moment) -> Timestamp {
    let from_now = |by: SignedDuration| moment.now.checked_add(by).unwrap_or(Timestamp::MAX);
    match expires {
        Expires::Near => {
            let part = i64::try_from(mix(moment.tick) % 60_000_000).unwrap_or(0);
            from_now(SignedDuration::from_secs(240) + SignedDuration::from_micros(part))
        }
        Expires::Past => from_now(SignedDuration::from_secs(-10)),
        // Go's longest duration, which is what keep_alive -1 amounts to.
        Expires::Forever => from_now(SignedDuration::from_nanos(i64::MAX)),
        Expires::At(time) => *time,
    }
}

/// RFC 3339 with nine decimals in the host's zone, as Go writes it.
pub fn rfc3339(time: Timestamp, offset_seconds: i32) -> String {
    let offset = Offset::from_seconds(offset_seconds).unwrap_or(Offset::UTC);
    let local = offset.to_datetime(time).strftime("%Y-%m-%dT%H:%M:%S%.9f");
    if offset_seconds == 0 {
        return format!("{local}Z");
    }
    let minutes = offset_seconds.abs() / 60;
    let sign = if offset_seconds < 0 { '-' } else { '+' };
    format!("{local}{sign}{:02}:{:02}", minutes / 60, minutes % 60)
}

fn openai_models(state: &HostState, moment: &Moment) -> Answer {
    let owner = match state.backend {
        Backend::Vllm => "vllm",
        _ => "library",
    };
    let created = moment.start.as_second();
    let data: Vec<_> = state
        .models
        .iter()
        .map(|model| json!({"id": model.name, "object": "model", "created": created, "owned_by": owner}))
        .collect();
    // A nil slice in Go: null while there is nothing to list.
    let null = data.is_empty() && state.backend == Backend::Ollama;
    let data = (!null).then_some(data);
    json_of(&json!({"object": "list", "data": data}))
}
