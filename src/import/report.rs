//! What the user must know about an import: a line for each thing that was left out, changed, or guessed. The lines
//! begin with one of three words, name the entry, and hold no raw text of the input: a name may steer a terminal.

use crate::probe::text::is_hidden;
use serde_json::Value;
use std::fmt::{self, Write as _};

/// How bad it is; the first word of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// An entry of which nothing is in the output.
    Skipped,
    /// In the output, but not as it stood, or not as the old dashboard understood it.
    Check,
    /// A setting that nothing here takes.
    NoHome,
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub level: Level,
    /// Which entry: `servers[3] "gpu box"`, `plugins/foo`, or the name of a setting.
    pub subject: String,
    pub text: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let level = match self.level {
            Level::Skipped => "skipped",
            Level::Check => "check",
            Level::NoHome => "no home",
        };
        write!(f, "{level}: {}: {}", self.subject, self.text)
    }
}

/// Every finding, in the order of the input.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    pub findings: Vec<Finding>,
}

impl Report {
    pub fn skipped(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.add(Level::Skipped, subject.into(), text.into());
    }

    pub fn check(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.add(Level::Check, subject.into(), text.into());
    }

    pub fn no_home(&mut self, subject: impl Into<String>, text: impl Into<String>) {
        self.add(Level::NoHome, subject.into(), text.into());
    }

    fn add(&mut self, level: Level, subject: String, text: String) {
        self.findings.push(Finding { level, subject, text });
    }

    pub fn count(&self, level: Level) -> usize {
        self.findings.iter().filter(|finding| finding.level == level).count()
    }
}

/// More of a text is never worth reading in a line of a report.
const QUOTED: usize = 80;

/// Text of the input in quotes, short, and harmless to a terminal.
pub fn quote(text: &str) -> String {
    let mut quoted = String::from("\"");
    for (index, c) in text.chars().enumerate() {
        if index == QUOTED {
            quoted.push('…');
            break;
        }
        match c {
            '"' | '\\' => quoted.extend(['\\', c]),
            _ if steers(c) => {
                let _ = write!(quoted, "{}", c.escape_unicode());
            }
            _ => quoted.push(c),
        }
    }
    quoted.push('"');
    quoted
}

/// Whether a character is no letter but an order to whoever shows it: controls, line breaks, and what turns or hides text.
pub fn steers(c: char) -> bool {
    is_hidden(c)
}

/// A JSON value as a report names it.
pub fn describe(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        Value::Array(_) => "a list".to_owned(),
        Value::Object(_) => "an object".to_owned(),
        plain => plain.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;
    use serde_json::json;

    #[rstest]
    #[case("gpu box", r#""gpu box""#)]
    #[case("a\"b\\c", r#""a\"b\\c""#)]
    #[case("\u{1b}[31mred", r#""\u{1b}[31mred""#)]
    #[case("a\nskipped: x", r#""a\u{a}skipped: x""#)]
    #[case("\u{202e}gpj", r#""\u{202e}gpj""#)]
    #[case("Büro", "\"Büro\"")]
    fn quoted_text_cannot_steer_a_terminal(#[case] text: &str, #[case] quoted: &str) {
        assert_eq!(quote(text), quoted);
    }

    #[test]
    fn quoted_text_is_short() {
        assert_eq!(quote(&"x".repeat(1000)).chars().count(), QUOTED + 3);
    }

    #[rstest]
    #[case(json!("16"), "\"16\"")]
    #[case(json!(16.5), "16.5")]
    #[case(json!(null), "null")]
    #[case(json!([1]), "a list")]
    #[case(json!({"a": 1}), "an object")]
    fn values_are_named(#[case] value: Value, #[case] text: &str) {
        assert_eq!(describe(&value), text);
    }

    #[test]
    fn a_line_begins_with_what_to_grep_for() {
        let mut report = Report::default();
        report.skipped("servers[3] \"gpu box\"", "host must be a text that is not blank, found none");
        report.no_home("TELEGRAM_BOT_TOKEN", "x");
        assert_eq!(
            report.findings[0].to_string(),
            "skipped: servers[3] \"gpu box\": host must be a text that is not blank, found none"
        );
        assert_eq!(report.findings[1].to_string(), "no home: TELEGRAM_BOT_TOKEN: x");
        assert_eq!(report.count(Level::Skipped), 1);
    }
}
