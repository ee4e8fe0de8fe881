//! What an agent answered, told apart by format. Pure; what is not the format that the plugin wants is no answer.

use super::bounded_json;
use crate::{api::fleet_plugin::AgentFormat, probe::Failure};
use serde_json::Value as Json;

/// An answer in one of the formats.
#[derive(Debug)]
pub enum Answer<'a> {
    Json(Json),
    /// Prometheus' text format; only what is wanted is ever read out of it.
    Exposition(&'a [u8]),
}

impl<'a> Answer<'a> {
    pub fn read(format: AgentFormat, content_type: Option<&str>, body: &'a [u8]) -> Result<Self, Failure> {
        let json = match format {
            AgentFormat::Json => true,
            AgentFormat::Prometheus => false,
            AgentFormat::Auto => told_by_type(content_type).unwrap_or_else(|| begins_as_json(body)),
        };
        if json { bounded_json::parse(body).map(Self::Json) } else { Ok(Self::Exposition(body)) }
    }
}

/// Whether the header says that it is JSON; `None` if it does not tell. Scripts send JSON as `text/plain` and as
/// `text/html`; only exporters say which version of the text format it is.
fn told_by_type(content_type: Option<&str>) -> Option<bool> {
    let mut parts = content_type?.split(';').map(|part| part.trim().to_ascii_lowercase());
    let media_type = parts.next()?;
    if media_type == "application/json" || media_type.ends_with("+json") {
        return Some(true);
    }
    let exporter = media_type == "application/openmetrics-text"
        || (media_type == "text/plain" && parts.any(|part| part.starts_with("version=")));
    exporter.then_some(false)
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
    #[case::wanted_text(AgentFormat::Prometheus, Some("application/json"), "up 1\n", "text")]
    fn the_format_is_told_by_spec_type_and_first_character(
        #[case] format: AgentFormat,
        #[case] content_type: Option<&str>,
        #[case] body: &str,
        #[case] expected: &str,
    ) {
        let read = match Answer::read(format, content_type, body.as_bytes()) {
            Ok(Answer::Json(_)) => "json",
            Ok(Answer::Exposition(_)) => "text",
            Err(_) => "none",
        };
        assert_eq!(read, expected);
    }
}
