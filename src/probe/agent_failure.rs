//! Why an agent could not be read, with what its answer lacked: the status, the line, the path or metric that found
//! nothing.
//!
//! The words are ours alone: names of the plugin's, numbers of lines, a status; never a byte of an answer. They stay the
//! same from one reading to the next, but for the numbers of lines, which [`AgentFailure::is_like`] leaves out.

use super::{Failure, text::clean};

/// Longest message of a report in status.
pub const MESSAGE_MAX: usize = 256;

/// The class of a failure, and its cause in words where the class has several.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AgentFailure {
    pub class: Failure,
    /// In place of what the class says of itself.
    detail: Option<Box<str>>,
}

impl AgentFailure {
    /// The answer is none that the plugin can read.
    pub fn invalid(detail: &str) -> Self {
        Self::told(Failure::InvalidResponse, detail)
    }

    /// More of it than is read.
    pub fn too_large(detail: &str) -> Self {
        Self::told(Failure::ResponseTooLarge, detail)
    }

    /// An HTTP status other than 2xx, to this path. What the class says of itself tells more where it names a remedy.
    pub fn status(status: u16, path: &str) -> Self {
        let class = match status {
            // For an agent a missing path is a wrong port or endpoint.
            404 | 405 => Failure::InvalidResponse,
            _ => Failure::from_status(status),
        };
        match class {
            Failure::Unauthorized | Failure::HostRejected | Failure::UnexpectedRedirect => class.into(),
            _ => Self::told(class, &format!("the agent answers {status} to {path}")),
        }
    }

    fn told(class: Failure, detail: &str) -> Self {
        Self { class, detail: Some(clean(detail, MESSAGE_MAX).into()) }
    }

    /// The reason as it stands in the report and in metrics.
    pub fn reason(&self) -> &'static str {
        self.class.reason()
    }

    /// The cause in words, as it stands in the report.
    pub fn message(&self) -> &str {
        self.detail.as_deref().unwrap_or_else(|| self.class.agent_text())
    }

    /// From a report that an earlier process wrote: the reason decides the class, and the message stands as it is.
    pub fn from_report(reason: &str, message: Option<&str>) -> Option<Self> {
        let class = Failure::from_report(reason, message)?;
        let own = |message: &&str| *message != class.agent_text() && *message != class.text();
        Some(message.filter(own).map_or_else(|| class.into(), |message| Self::told(class, message)))
    }

    /// Whether it is the same cause, though perhaps at another line of an answer that has grown.
    pub fn is_like(&self, other: &Self) -> bool {
        self.class == other.class && without_places(self.message()).eq(without_places(other.message()))
    }
}

impl From<Failure> for AgentFailure {
    fn from(class: Failure) -> Self {
        Self { class, detail: None }
    }
}

/// The words of a message, but for the numbers of lines and columns.
fn without_places(message: &str) -> impl Iterator<Item = &str> {
    let mut after_place = false;
    message.split([' ', '(']).filter(move |word| {
        let is_number = after_place && word.starts_with(|c: char| c.is_ascii_digit());
        after_place = matches!(*word, "line" | "column");
        !is_number
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case::wrong_path(404, "InvalidResponse", "the agent answers 404 to /metrics")]
    #[case::wrong_method(405, "InvalidResponse", "the agent answers 405 to /metrics")]
    #[case::error(500, "InvalidResponse", "the agent answers 500 to /metrics")]
    #[case::busy(503, "ServerBusy", "the agent answers 503 to /metrics")]
    #[case::credentials(401, "Unauthorized", Failure::Unauthorized.agent_text())]
    #[case::redirect(302, "UnexpectedRedirect", Failure::UnexpectedRedirect.agent_text())]
    fn a_status_is_named_where_the_class_has_no_better_words(
        #[case] status: u16,
        #[case] reason: &str,
        #[case] message: &str,
    ) {
        let failure = AgentFailure::status(status, "/metrics");
        assert_eq!((failure.reason(), failure.message()), (reason, message));
        // A restart of the operator neither forgets nor rewords it.
        assert_eq!(AgentFailure::from_report(reason, Some(message)), Some(failure));
    }

    #[test]
    fn a_report_of_another_version_keeps_its_words_and_its_class() {
        let failure = AgentFailure::from_report("InvalidResponse", Some("other words")).unwrap();
        assert_eq!((failure.class, failure.message()), (Failure::InvalidResponse, "other words"));
        let plain = AgentFailure::from_report("Timeout", Some(Failure::Timeout.agent_text()));
        assert_eq!(plain, Some(Failure::Timeout.into()));
        assert_eq!(AgentFailure::from_report("EvaluationFailed", Some("value a: b")), None);
    }

    #[test]
    fn another_line_is_the_same_cause_and_another_status_is_not() {
        let line = |line| AgentFailure::invalid(&format!("line {line} of the answer is not a sample"));
        assert!(line(12).is_like(&line(13)));
        let json = |line, column| AgentFailure::invalid(&format!("no JSON (line {line}, column {column})"));
        assert!(json(3, 7).is_like(&json(1, 2096)));
        assert!(!AgentFailure::status(404, "/m").is_like(&AgentFailure::status(500, "/m")));
        assert!(!line(12).is_like(&Failure::InvalidResponse.into()));
    }

    #[test]
    fn messages_are_short_and_clean() {
        let failure = AgentFailure::status(404, &format!("/\u{1b}[31m{}", "x".repeat(400)));
        assert!(failure.message().len() <= MESSAGE_MAX && !failure.message().contains('\u{1b}'));
    }
}
