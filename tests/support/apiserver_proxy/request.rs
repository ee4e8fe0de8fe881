//! Requests as the API server understands them, and which of them fare how.

use hyper::Method;
use serde_json::json;
use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant},
};

/// Posted, but only asks.
const REVIEWS: [&str; 3] = ["tokenreviews", "subjectaccessreviews", "selfsubjectaccessreviews"];

/// One request that came through.
#[derive(Clone, Debug)]
pub struct Request {
    pub at: Instant,
    pub path: String,
    pub query: String,
    /// In Kubernetes' words: get, list, watch, create, update, patch, delete; and `look`, a list of one, which asks how far
    /// the API server is.
    pub verb: &'static str,
    pub namespace: String,
    pub resource: String,
    pub name: String,
    pub subresource: String,
    pub body: String,
    /// What the client was answered; `None`: nothing yet, or nothing at all.
    pub code: Option<u16>,
    /// Whether the API server was asked, and did it.
    pub applied: bool,
}

impl Request {
    pub fn new(method: &Method, path: &str, query: &str, body: String) -> Self {
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
        // /api/v1/… or /apis/GROUP/VERSION/…
        let rest = match parts.first() {
            Some(&"api") => parts.get(2..),
            Some(&"apis") => parts.get(3..),
            _ => None,
        };
        let rest = rest.unwrap_or_default();
        let (namespace, rest) = match rest {
            ["namespaces", namespace, rest @ ..] if !rest.is_empty() => (*namespace, rest),
            rest => ("", rest),
        };
        let part = |index: usize| (*rest.get(index).unwrap_or(&"")).to_owned();
        let watches = query.split('&').any(|pair| pair == "watch=true" || pair == "watch=1");
        let looks = query.split('&').any(|pair| pair == "limit=1");
        let verb = match *method {
            Method::GET if watches => "watch",
            Method::GET if rest.len() == 1 && looks => "look",
            Method::GET if rest.len() == 1 => "list",
            Method::GET => "get",
            Method::POST => "create",
            Method::PUT => "update",
            Method::PATCH => "patch",
            Method::DELETE => "delete",
            _ => "other",
        };
        Self {
            at: Instant::now(),
            path: path.to_owned(),
            query: query.to_owned(),
            verb,
            namespace: namespace.to_owned(),
            resource: part(0),
            name: part(1),
            subresource: part(2),
            body,
            code: None,
            applied: false,
        }
    }

    /// Whether it is meant to change something.
    pub fn is_write(&self) -> bool {
        matches!(self.verb, "create" | "update" | "patch" | "delete")
            && !REVIEWS.contains(&self.resource.as_str())
    }
}

/// Which requests; everything that is not said may be anything.
#[derive(Clone, Debug, Default)]
pub struct Match {
    verb: Option<&'static str>,
    resource: Option<&'static str>,
    name: Option<String>,
    writes: bool,
}

impl Match {
    pub fn all() -> Self {
        Self::default()
    }

    pub fn writes() -> Self {
        Self { writes: true, ..Self::default() }
    }

    pub fn verb(verb: &'static str) -> Self {
        Self { verb: Some(verb), ..Self::default() }
    }

    /// Of that plural, the status of it included.
    pub fn of(self, resource: &'static str) -> Self {
        Self { resource: Some(resource), ..self }
    }

    pub fn named(self, name: &str) -> Self {
        Self { name: Some(name.to_owned()), ..self }
    }

    pub fn matches(&self, request: &Request) -> bool {
        self.verb.is_none_or(|verb| verb == request.verb)
            && self.resource.is_none_or(|resource| resource == request.resource)
            && self.name.as_ref().is_none_or(|name| *name == request.name)
            && (!self.writes || request.is_write())
    }
}

pub(super) struct Rule {
    pub matches: Match,
    /// So many that match are let through first.
    pub skip: usize,
    /// How often it still acts; `None`: always.
    pub left: Option<usize>,
    pub fault: Fault,
}

/// What is done to a request.
#[derive(Clone)]
pub enum Fault {
    /// It is passed on after this time.
    Delay(Duration),
    /// The connection ends before the API server hears of it.
    Drop,
    /// The API server does it, and the connection ends before the answer.
    DropAnswer,
    /// Nothing is passed on and nothing is answered.
    Hang,
    /// The API server does it, and nothing is ever answered.
    HangAnswer,
    /// It is answered here; the API server does not hear of it.
    Answer(Answer),
    /// Something happens, then as with [`Fault::Drop`].
    CallThenDrop(Call),
    /// The API server does it, something happens, and the connection ends without an answer.
    CallAfterwards(Call),
}

/// Something that the test does in the middle of a request.
pub type Call = Arc<dyn Fn() + Send + Sync>;

impl fmt::Debug for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Delay(_) => "Delay",
            Self::Drop => "Drop",
            Self::DropAnswer => "DropAnswer",
            Self::Hang => "Hang",
            Self::HangAnswer => "HangAnswer",
            Self::Answer(_) => "Answer",
            Self::CallThenDrop(_) => "CallThenDrop",
            Self::CallAfterwards(_) => "CallAfterwards",
        })
    }
}

/// An answer in the API server's stead.
#[derive(Clone, Debug)]
pub struct Answer {
    pub code: u16,
    pub retry_after: Option<String>,
    pub body: String,
}

impl Answer {
    /// A failure as the API server words it.
    pub fn status(code: u16, message: &str) -> Self {
        let reason = match code {
            401 => "Unauthorized",
            403 => "Forbidden",
            404 => "NotFound",
            409 => "Conflict",
            410 => "Expired",
            413 => "RequestEntityTooLarge",
            422 => "Invalid",
            429 => "TooManyRequests",
            500 => "InternalError",
            503 => "ServiceUnavailable",
            504 => "Timeout",
            _ => "",
        };
        let body = json!({"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
            "message": message, "reason": reason, "code": code});
        Self { code, retry_after: None, body: body.to_string() }
    }

    /// The header of that name.
    pub fn retry_after(self, value: &str) -> Self {
        Self { retry_after: Some(value.to_owned()), ..self }
    }

    /// A success, such as a list of yesterday.
    pub fn ok(body: impl Into<String>) -> Self {
        Self { code: 200, retry_after: None, body: body.into() }
    }
}

impl From<Answer> for Fault {
    fn from(answer: Answer) -> Self {
        Self::Answer(answer)
    }
}
