//! What may be wrong with a port or a path: the document, and its checks.
//!
//! Only data. How a fault looks on the wire is in `inject.rs`.

use serde::{Deserialize, Serialize};

/// One fault. All fields but `mode` belong to some modes only (see `check`).
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fault {
    /// What happens.
    pub mode: Mode,
    /// Delay before the answer or the fault.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latency_ms: Option<u64>,
    /// Where `hang` and `drip` begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stage: Option<Stage>,
    /// `drip`: time between two bytes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every_ms: Option<u64>,
    /// `status` and `redirect`: the status code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<u16>,
    /// `status`: value of the Retry-After header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<String>,
    /// `status`: the body.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<String>,
    /// `redirect`: value of the Location header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub location: Option<String>,
    /// `huge`: length of the body; absent: without an end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bytes: Option<u64>,
    /// `huge`: chunked instead of with a length.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunked: Option<bool>,
    /// `deepJson`: how many arrays deep.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub depth: Option<u32>,
    /// `manyModels`: how many.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count: Option<u32>,
}

/// The kinds of fault.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Mode {
    /// None.
    #[default]
    Healthy,
    /// Nothing listens.
    Refuse,
    /// RST as soon as the connection is accepted.
    Reset,
    /// RST after half the body.
    ResetMidBody,
    /// No progress from some stage on.
    Hang,
    /// One byte at a time.
    Drip,
    /// A status code.
    Status,
    /// A redirect.
    Redirect,
    /// Random printable bytes as JSON.
    Garbage,
    /// A login page.
    Html,
    /// 200 without a body.
    Empty,
    /// Half a JSON document, with a length that fits it.
    Truncated,
    /// JSON with other types than documented.
    WrongTypes,
    /// A very long body.
    Huge,
    /// A gzip body nobody asked for.
    Gzip,
    /// Another service.
    NotOllama,
    /// A protocol that is not HTTP.
    Banner,
    /// Deeply nested JSON.
    DeepJson,
    /// A very long list.
    ManyModels,
    /// Names with control characters.
    ControlChars,
}

impl Mode {
    /// Ends connections that are open when it begins.
    pub fn breaks_connections(self) -> bool {
        matches!(self, Self::Refuse | Self::Reset)
    }
}

/// Where a `hang` or `drip` begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Stage {
    /// Not a byte is answered.
    Connect,
    /// From the status line on.
    Headers,
    /// From the body on.
    Body,
}

/// Limits of what one fault may ask for.
const MAX_DEPTH: u32 = 1_000_000;
const MAX_COUNT: u32 = 1_000_000;
const MAX_DELAY_MS: u64 = 3_600_000;
const MAX_TEXT: usize = 1 << 20;

impl Fault {
    /// A fault with nothing but a mode.
    pub fn of(mode: Mode) -> Self {
        Self { mode, ..Self::default() }
    }

    /// Neither a fault nor a delay.
    pub fn is_none(&self) -> bool {
        self.mode == Mode::Healthy && self.latency_ms.unwrap_or(0) == 0
    }

    /// Acts on the connection, before a request is read.
    pub fn before_request(&self) -> bool {
        match self.mode {
            Mode::Refuse | Mode::Reset | Mode::Banner => true,
            Mode::Hang => self.stage() == Stage::Connect,
            _ => false,
        }
    }

    /// The stage, or the mode's default.
    pub fn stage(&self) -> Stage {
        self.stage.unwrap_or(match self.mode {
            Mode::Drip => Stage::Body,
            _ => Stage::Connect,
        })
    }

    /// Says what is wrong with the fault, if anything is.
    pub fn check(&self) -> Result<(), String> {
        let m = self.mode;
        let given: [(&str, bool, &[Mode]); 9] = [
            ("stage", self.stage.is_some(), &[Mode::Hang, Mode::Drip]),
            ("everyMs", self.every_ms.is_some(), &[Mode::Drip]),
            ("code", self.code.is_some(), &[Mode::Status, Mode::Redirect]),
            ("retryAfter", self.retry_after.is_some(), &[Mode::Status]),
            ("body", self.body.is_some(), &[Mode::Status]),
            ("location", self.location.is_some(), &[Mode::Redirect]),
            ("bytes", self.bytes.is_some(), &[Mode::Huge]),
            ("chunked", self.chunked.is_some(), &[Mode::Huge]),
            ("depth", self.depth.is_some(), &[Mode::DeepJson]),
        ];
        let count = ("count", self.count.is_some(), &[Mode::ManyModels][..]);
        for (field, present, modes) in given.into_iter().chain([count]) {
            if present && !modes.contains(&m) {
                return Err(format!("{field} is not a field of mode {m:?}; allowed with {modes:?}"));
            }
        }
        let header_text = |text: &Option<String>| {
            text.as_deref().is_some_and(|t| t.len() > 4096 || t.bytes().any(|b| b < b' ' || b == 0x7f))
        };
        let wrong = [
            (m == Mode::Status && self.code.is_none(), "mode status needs a code"),
            (self.code.is_some_and(|code| !(200..=599).contains(&code)), "code must be 200 to 599"),
            (m == Mode::Drip && self.stage == Some(Stage::Connect), "stage of drip must be headers or body"),
            (
                self.every_ms.is_some_and(|ms| ms == 0 || ms > MAX_DELAY_MS)
                    || self.latency_ms.is_some_and(|ms| ms > MAX_DELAY_MS),
                "everyMs must be 1 to 3600000, latencyMs at most 3600000",
            ),
            (
                self.depth.is_some_and(|depth| depth > MAX_DEPTH)
                    || self.count.is_some_and(|count| count > MAX_COUNT),
                "depth and count must be at most 1000000",
            ),
            (
                header_text(&self.location) || header_text(&self.retry_after),
                "location and retryAfter must be one line of at most 4096 bytes",
            ),
            (self.body.as_ref().is_some_and(|body| body.len() > MAX_TEXT), "body must be at most 1 MiB"),
        ];
        match wrong.into_iter().find(|(is, _)| *is) {
            Some((_, message)) => Err(message.to_owned()),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Fault, String> {
        let fault: Fault = serde_json::from_str(text).map_err(|error| error.to_string())?;
        fault.check().map(|()| fault)
    }

    #[test]
    fn fields_belong_to_their_modes() {
        assert!(parse(r#"{"mode":"hang","stage":"body","latencyMs":5}"#).is_ok());
        assert!(parse(r#"{"mode":"huge","bytes":5,"chunked":true}"#).is_ok());
        for bad in [
            r#"{"mode":"hang","code":503}"#,
            r#"{"mode":"status"}"#,
            r#"{"mode":"status","code":1000}"#,
            r#"{"mode":"drip","everyMs":0}"#,
            r#"{"mode":"drip","stage":"connect"}"#,
            r#"{"mode":"redirect","location":"/a\r\nX: y"}"#,
            r#"{"mode":"healthy","count":1}"#,
            r#"{"mode":"reset","colour":1}"#,
        ] {
            assert!(parse(bad).is_err(), "{bad}");
        }
        let unknown = parse(r#"{"mode":"slow"}"#).unwrap_err();
        assert!(unknown.contains("expected one of") && unknown.contains("resetMidBody"));
    }

    #[test]
    fn what_acts_before_a_request() {
        assert!(parse(r#"{"mode":"hang"}"#).unwrap().before_request());
        assert!(!parse(r#"{"mode":"hang","stage":"headers"}"#).unwrap().before_request());
        assert!(!parse(r#"{"mode":"drip"}"#).unwrap().before_request());
        assert!(parse(r#"{"mode":"reset"}"#).unwrap().before_request());
    }
}
