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

/// RFC 3339, or a date and time without a zone, which means UTC.
pub fn time_of_text(text: &str) -> Option<Timestamp> {
    if text.len() > TIME_MAX {
        return None;
    }
    text.parse().ok().or_else(|| {
        let local: DateTime = text.parse().ok()?;
        Some(local.to_zoned(TimeZone::UTC).ok()?.timestamp())
    })
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
