//! `POLL_INTERVAL`, `HEALTH_CHECK_TIMEOUT` and `OFFLINE_THRESHOLD` as `spec.poll`. Only what was set is written; what
//! does not fit the schema is cut to it, and said.

use super::{
    report::{Report, quote},
    settings::{self, POLL_INTERVAL, Settings, THRESHOLD, TIMEOUT},
};
use crate::api::ollama_server::Poll;

/// Seconds: the schema's bounds of `interval`.
const INTERVAL: (u64, u64) = (1, 86_400);
/// Milliseconds: the schema's bounds of `timeout`.
const TIMEOUT_MS: (u64, u64) = (100, 300_000);
const FAILURES: (u64, u64) = (1, 100);
/// Seconds: the operator's defaults of --poll-interval and --min-poll-interval.
const DEFAULT_INTERVAL: u64 = 10;
const MIN_POLL_INTERVAL: u64 = 5;

/// What of the settings goes to every server; `None` if none of them is set.
pub fn poll(settings: &Settings, report: &mut Report) -> Option<Poll> {
    let interval = read(settings, POLL_INTERVAL, "the old dashboard then took 10 seconds", report);
    if let Some(seconds) = interval.filter(|seconds| is_milliseconds(*seconds)) {
        report.check(
            POLL_INTERVAL,
            format!(
                "it is in seconds, and {seconds} looks like milliseconds; if {0} s are meant, write {0}",
                seconds / 1000
            ),
        );
    }
    let interval = interval.map(|seconds| within(POLL_INTERVAL, seconds, INTERVAL, "seconds", report));
    if let Some(seconds) = interval.filter(|seconds| *seconds < MIN_POLL_INTERVAL) {
        report.check(
            POLL_INTERVAL,
            format!("{seconds} s is raised to 5 s by the operator unless it runs with --min-poll-interval={seconds}s"),
        );
    }
    let timeout = read(settings, TIMEOUT, "the old dashboard then did not start", report);
    let timeout = timeout.map(|ms| within(TIMEOUT, ms, TIMEOUT_MS, "ms", report));
    let timeout = timeout.map(|ms| shorter_than_interval(ms, interval, report));
    let failures = read(settings, THRESHOLD, "the old dashboard then never polled to an end", report);
    let failures = failures.map(|count| within(THRESHOLD, count, FAILURES, "failed polls", report));
    let poll = Poll {
        interval: interval.map(|seconds| format!("{seconds}s")),
        timeout: timeout.map(duration),
        failure_threshold: failures.and_then(|count| i32::try_from(count).ok()),
        ..Poll::default()
    };
    (poll != Poll::default()).then_some(poll)
}

/// Nobody asks a host every 10,000 seconds; who has other times in milliseconds writes this one so as well.
fn is_milliseconds(interval: u64) -> bool {
    interval >= 1000 && interval.is_multiple_of(500) && !interval.is_multiple_of(3600)
}

/// A whole number above 0, read as the old dashboard did: digits at the beginning count, what follows does not.
fn read(settings: &Settings, name: &str, otherwise: &str, report: &mut Report) -> Option<u64> {
    let text = settings::get(settings, name)?;
    let digits: String =
        text.strip_prefix('+').unwrap_or(text).chars().take_while(char::is_ascii_digit).collect();
    let number = match digits.parse::<u64>() {
        Ok(number) => number,
        Err(_) if !digits.is_empty() => u64::MAX,
        Err(_) => 0,
    };
    if number == 0 {
        report.check(
            name,
            format!("must be a whole number above 0, found {}; {otherwise}; left out, so the operator's flag holds", quote(text)),
        );
        return None;
    }
    if digits.len() != text.trim_start_matches('+').len() {
        report.check(name, format!("{} was read as {number}, as the old dashboard did", quote(text)));
    }
    Some(number)
}

fn within(name: &str, number: u64, (least, most): (u64, u64), unit: &str, report: &mut Report) -> u64 {
    let fitting = number.clamp(least, most);
    if fitting != number {
        report.check(name, format!("must be between {least} and {most} {unit}; written as {fitting}"));
    }
    fitting
}

/// The old timeout was for each request, beside the interval; here it is for the whole poll, within the interval.
fn shorter_than_interval(timeout: u64, interval: Option<u64>, report: &mut Report) -> u64 {
    let bound = interval.unwrap_or(DEFAULT_INTERVAL).saturating_mul(1000);
    if timeout.saturating_mul(10) > bound.saturating_mul(8) {
        report.check(
            TIMEOUT,
            format!(
                "{} is over 80% of the interval of {}; a poll takes at most 80% of it",
                duration(timeout),
                duration(bound)
            ),
        );
    }
    if interval.is_some() { timeout.min(bound) } else { timeout }
}

/// Milliseconds as the API writes durations: at most five digits before each unit.
fn duration(ms: u64) -> String {
    match (ms / 1000, ms % 1000) {
        (seconds, 0) => format!("{seconds}s"),
        (0, ms) => format!("{ms}ms"),
        (seconds, ms) => format!("{seconds}s{ms}ms"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::duration as api_duration;
    use proptest::prelude::*;
    use rstest::rstest;

    fn convert(interval: &str, timeout: &str, threshold: &str) -> (Option<Poll>, Vec<String>) {
        let settings = [(POLL_INTERVAL, interval), (TIMEOUT, timeout), (THRESHOLD, threshold)]
            .map(|(name, value)| (name.to_owned(), value.to_owned()));
        let mut report = Report::default();
        let poll = poll(&settings.into(), &mut report);
        (poll, report.findings.iter().map(ToString::to_string).collect())
    }

    #[rstest]
    #[case(["", "", ""], [None, None], None, 0)]
    #[case(["10", "5000", "3"], [Some("10s"), Some("5s")], Some(3), 0)]
    #[case([" 30 ", "2500", "5"], [Some("30s"), Some("2s500ms")], Some(5), 0)]
    // Bad values: those that the old dashboard replaced, refused, or read halfway.
    #[case(["abc", "x", "-1"], [None, None], None, 3)]
    #[case(["0", "", "0"], [None, None], None, 2)]
    #[case(["10s", "", ""], [Some("10s"), None], None, 1)]
    #[case(["7.9", "", "3.5"], [Some("7s"), None], Some(3), 2)]
    #[case(["99999999999999999999999", "", ""], [Some("86400s"), None], None, 1)]
    #[case(["90000", "", "1000"], [Some("86400s"), None], Some(100), 2)]
    // Seconds for the old dashboard as well, but nobody meant them.
    #[case(["10000", "5000", ""], [Some("10000s"), Some("5s")], None, 1)]
    #[case(["60000", "", ""], [Some("60000s"), None], None, 1)]
    #[case(["600000", "", ""], [Some("86400s"), None], None, 2)]
    #[case(["3600", "", ""], [Some("3600s"), None], None, 0)]
    #[case(["900", "", ""], [Some("900s"), None], None, 0)]
    #[case(["", "50", ""], [None, Some("100ms")], None, 1)]
    #[case(["600", "600000", ""], [Some("600s"), Some("300s")], None, 1)]
    // The timeout has to fit into the interval.
    #[case(["5", "8000", ""], [Some("5s"), Some("5s")], None, 1)]
    #[case(["5", "4500", ""], [Some("5s"), Some("4s500ms")], None, 1)]
    #[case(["", "9000", ""], [None, Some("9s")], None, 1)]
    #[case(["2", "", ""], [Some("2s"), None], None, 1)]
    fn settings_become_a_poll(
        #[case] given: [&str; 3],
        #[case] durations: [Option<&str>; 2],
        #[case] failures: Option<i32>,
        #[case] findings: usize,
    ) {
        let (poll, lines) = convert(given[0], given[1], given[2]);
        let poll = poll.unwrap_or_default();
        assert_eq!([poll.interval.as_deref(), poll.timeout.as_deref()], durations);
        assert_eq!(poll.failure_threshold, failures);
        assert_eq!(lines.len(), findings, "{lines:?}");
    }

    #[test]
    fn milliseconds_are_told_for_what_they_are() {
        let line = convert("10000", "", "").1.remove(0);
        assert_eq!(
            line,
            "check: POLL_INTERVAL: it is in seconds, and 10000 looks like milliseconds; if 10 s are meant, write 10"
        );
    }

    #[test]
    fn nothing_set_is_nothing_written() {
        assert_eq!(convert("", " ", ""), (None, Vec::new()));
    }

    proptest! {
        #[test]
        fn what_is_written_fits_the_schema(interval in "[0-9]{0,8}", timeout in "[0-9]{0,9}", threshold in ".{0,4}|[0-9]{1,5}") {
            let poll = convert(&interval, &timeout, &threshold).0.unwrap_or_default();
            let parsed = |text: &Option<String>| text.as_deref().map(|text| api_duration::parse(text).unwrap().as_millis());
            let (interval, timeout) = (parsed(&poll.interval), parsed(&poll.timeout));
            prop_assert!(interval.is_none_or(|ms| (1000..=86_400_000).contains(&ms)));
            prop_assert!(timeout.is_none_or(|ms| (100..=300_000).contains(&ms)));
            if let (Some(interval), Some(timeout)) = (interval, timeout) {
                prop_assert!(timeout <= interval);
            }
            prop_assert!(poll.failure_threshold.is_none_or(|count| (1..=100).contains(&count)));
        }
    }
}
