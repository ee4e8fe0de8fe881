//! From what stands in an answer to what may stand in status: whole numbers, booleans, times and host names. Pure.

use crate::api::{fleet_plugin::Reduce, server_status::Scalar};
use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};

/// Longest host name, by DNS.
const HOSTNAME_MAX: usize = 253;
/// Longest form of a time that anybody writes.
const TIME_MAX: usize = 64;

/// Half away from zero, as people round; what does not fit 64 bits is no value.
pub fn round(number: f64) -> Option<i64> {
    let rounded = number.round();
    #[allow(clippy::cast_possible_truncation)]
    (rounded.is_finite() && rounded.abs() < 9.2e18).then_some(rounded as i64)
}

/// One number of several.
pub fn reduce(how: Reduce, mut numbers: impl Iterator<Item = f64>) -> Option<f64> {
    match how {
        Reduce::First => numbers.next(),
        Reduce::Sum => numbers.fold(None, |sum, number| Some(sum.unwrap_or(0.0) + number)),
        Reduce::Max => numbers.reduce(f64::max),
        Reduce::Min => numbers.reduce(f64::min),
    }
}

/// Formats without booleans write 0 and 1.
pub fn boolean(number: f64) -> Option<bool> {
    if number == 0.0 {
        Some(false)
    } else if (number - 1.0).abs() < f64::EPSILON {
        Some(true)
    } else {
        None
    }
}

/// Seconds since 1970. No machine started and nothing happened at 0: that is a clock that was never set.
pub fn time_of_seconds(number: f64) -> Option<Timestamp> {
    round(number).filter(|seconds| *seconds > 0).and_then(|seconds| Timestamp::from_second(seconds).ok())
}

/// RFC 3339, or a date and time without a zone, which means UTC. What is before 1970, such as Go's year 1, is a time that
/// was never set, and years before 0 have no RFC 3339; after 9999 there is no time at all.
pub fn time_of_text(text: &str) -> Option<Timestamp> {
    if text.len() > TIME_MAX {
        return None;
    }
    let time: Option<Timestamp> = text.parse().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    });
    time.filter(|time| *time >= Timestamp::UNIX_EPOCH)
}

/// RFC 3339 in whole seconds.
pub fn time(time: Timestamp) -> Scalar {
    Scalar::Text(time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string())
}

/// A name as machines have it, underscores included; prose is none.
pub fn hostname(text: &str) -> Option<Scalar> {
    let label = |label: &str| {
        !label.is_empty()
            && label.len() <= 63
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    let text = text.trim();
    (text.len() <= HOSTNAME_MAX && text.split('.').all(label)).then(|| Scalar::Text(text.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("2026-09-21T14:13:20Z", Some("2026-09-21T14:13:20Z"))]
    #[case("2026-09-21T14:13:20", Some("2026-09-21T14:13:20Z"))]
    #[case("1970-01-01T00:00:00Z", Some("1970-01-01T00:00:00Z"))]
    #[case("1969-12-31T23:59:59Z", None)]
    #[case("0001-01-01T00:00:00Z", None)]
    #[case("-000001-01-01T00:00:00Z", None)]
    #[case("-000001-01-01T00:00:00", None)]
    #[case("+010000-01-01T00:00:00Z", None)]
    fn times_are_those_that_can_be_written(#[case] text: &str, #[case] expected: Option<&str>) {
        let expected = expected.map(|text| Scalar::Text(text.to_owned()));
        assert_eq!(time_of_text(text).map(time), expected);
    }
}
