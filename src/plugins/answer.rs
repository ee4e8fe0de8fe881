//! What an agent answered, told apart by format. Pure; what is not the format that the plugin wants is no answer.

use super::{bounded_json, exposition::Text, filter::Filter};
use crate::{api::fleet_plugin::AgentFormat, probe::AgentFailure};
use serde_json::Value as Json;

/// What Windows' editors and PowerShell put before a text in UTF-8.
const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// An answer in one of the formats.
#[derive(Debug)]
pub enum Answer<'a> {
    Json(Json),
    /// Prometheus' text format; only what is wanted is ever read out of it.
    Exposition(Text<'a>),
}

impl<'a> Answer<'a> {
    /// Of JSON only what the filter keeps.
    pub fn read(
        format: AgentFormat,
        content_type: Option<&str>,
        body: &'a [u8],
        filter: &Filter,
    ) -> Result<Self, AgentFailure> {
        let body = body.strip_prefix(BYTE_ORDER_MARK).unwrap_or(body);
        let told = MediaType::of(content_type);
        let json = match format {
            AgentFormat::Json => true,
            AgentFormat::Prometheus => false,
            AgentFormat::Auto => match told {
                MediaType::Json => true,
                MediaType::Text | MediaType::OpenMetrics => false,
                MediaType::Other => begins_as_json(body),
            },
        };
        if json {
            return bounded_json::parse(body, filter).map(Self::Json);
        }
        let seconds = match told {
            MediaType::OpenMetrics => true,
            MediaType::Text => false,
            MediaType::Json | MediaType::Other => ends_as_openmetrics(body),
        };
        Ok(Self::Exposition(Text { body, seconds }))
    }
}

/// What the header tells. Scripts send JSON as `text/plain` and as `text/html`; only exporters say which version of the
/// text format it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum MediaType {
    Json,
    Text,
    OpenMetrics,
    Other,
}

impl MediaType {
    fn of(content_type: Option<&str>) -> Self {
        let Some(content_type) = content_type else { return Self::Other };
        let mut parts = content_type.split(';').map(|part| part.trim().to_ascii_lowercase());
        let media_type = parts.next().unwrap_or_default();
        if media_type == "application/json" || media_type.ends_with("+json") {
            Self::Json
        } else if media_type == "application/openmetrics-text" {
            Self::OpenMetrics
        } else if media_type == "text/plain" && parts.any(|part| part.starts_with("version=")) {
            Self::Text
        } else {
            Self::Other
        }
    }
}

/// The last line of `OpenMetrics` is always this; in the other format it is a comment that nobody writes.
fn ends_as_openmetrics(body: &[u8]) -> bool {
    body.trim_ascii_end().ends_with(b"# EOF")
}

/// No line of the text format begins like this: a name in braces there is always in quotes, `{"up"} 1`, which JSON
/// has too; but whoever writes that also sends a Content-Type.
fn begins_as_json(body: &[u8]) -> bool {
    body.trim_ascii_start().first().is_some_and(|first| matches!(first, b'{' | b'['))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::json_type(AgentFormat::Auto, Some("application/json; charset=utf-8"), "{}", "json")]
    #[case::problem_type(AgentFormat::Auto, Some("application/health+json"), "{}", "json")]
    #[case::exporter(AgentFormat::Auto, Some("text/plain; version=0.0.4; charset=utf-8"), "up 1\n", "text")]
    #[case::openmetrics(
        AgentFormat::Auto,
        Some("application/openmetrics-text; version=1.0.0"),
        "up 1\n# EOF\n",
        "text"
    )]
    #[case::quoted_name(AgentFormat::Auto, Some("text/plain;version=1.0.0"), "{\"my.up\"} 1\n", "text")]
    #[case::script(AgentFormat::Auto, Some("text/plain"), " \n{\"a\": 1}", "json")]
    #[case::script_with_metrics(AgentFormat::Auto, Some("text/plain"), "up 1\n", "text")]
    #[case::no_type(AgentFormat::Auto, None, "[1]", "json")]
    #[case::no_type_text(AgentFormat::Auto, None, "# HELP up\n", "text")]
    #[case::html(AgentFormat::Auto, Some("text/html"), "<html>", "text")]
    #[case::type_wins_over_body(AgentFormat::Auto, Some("application/json"), "up 1\n", "none")]
    #[case::wanted_json(AgentFormat::Json, Some("text/plain; version=0.0.4"), "{}", "json")]
    #[case::not_json(AgentFormat::Json, None, "up 1\n", "none")]
    // PowerShell 5.1 writes a byte order mark before all that it writes as UTF-8.
    #[case::mark(AgentFormat::Json, None, "\u{feff}{}", "json")]
    #[case::mark_told_by_itself(AgentFormat::Auto, Some("text/plain"), "\u{feff}[1]", "json")]
    #[case::wanted_text(AgentFormat::Prometheus, Some("application/json"), "up 1\n", "text")]
    fn the_format_is_told_by_spec_type_and_first_character(
        #[case] format: AgentFormat,
        #[case] content_type: Option<&str>,
        #[case] body: &str,
        #[case] expected: &str,
    ) {
        let read = match Answer::read(format, content_type, body.as_bytes(), &Filter::All) {
            Ok(Answer::Json(_)) => "json",
            Ok(Answer::Exposition(_)) => "text",
            Err(_) => "none",
        };
        assert_eq!(read, expected);
    }

    /// Milliseconds in Prometheus' text format, seconds in `OpenMetrics`.
    #[rstest]
    #[case::exporter(Some("text/plain; version=0.0.4"), "up 1 1395066363000\n# EOF\n", false)]
    #[case::openmetrics(Some("application/openmetrics-text"), "up 1 1395066363\n", true)]
    #[case::told_by_its_end(Some("text/plain"), "up 1 1395066363\n# EOF\n", true)]
    #[case::no_end(None, "up 1 1395066363000\n", false)]
    fn the_unit_of_timestamps_is_the_formats(
        #[case] content_type: Option<&str>,
        #[case] body: &str,
        #[case] expected: bool,
    ) {
        let answer = Answer::read(AgentFormat::Prometheus, content_type, body.as_bytes(), &Filter::All);
        assert!(matches!(answer, Ok(Answer::Exposition(Text { seconds, .. })) if seconds == expected));
    }
}
