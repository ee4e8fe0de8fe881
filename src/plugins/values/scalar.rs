//! From what stands in an answer to what may stand in status: whole numbers, booleans, times and host names. Pure.

use crate::{
    api::{fleet_plugin::Reduce, server_status::Scalar},
    plugins::number::round,
};
use k8s_openapi::jiff::{Timestamp, civil::DateTime, tz::TimeZone};
use serde_json::Value as Json;
use std::collections::HashMap;

/// Longest host name, by DNS.
const HOSTNAME_MAX: usize = 253;
/// Longest text that is taken for a number.
const NUMBER_MAX: usize = 64;
/// Longest form of a time that anybody writes.
const TIME_MAX: usize = 64;

/// One number of several, of which those that are not finite are unknown. A sum over the others would be a lie; the
/// largest and the smallest of them are still something that is there.
pub fn reduce(how: Reduce, numbers: impl Iterator<Item = f64>) -> Option<f64> {
    if how == Reduce::Sum {
        let sum = numbers.fold(None, |sum, number| Some(sum.unwrap_or(0.0) + number));
        return sum.filter(|sum: &f64| sum.is_finite());
    }
    let mut known = numbers.filter(|number| number.is_finite());
    match how {
        Reduce::First | Reduce::Sum => known.next(),
        Reduce::Max => known.reduce(f64::max),
        Reduce::Min => known.reduce(f64::min),
    }
}

/// The largest number of each group, in the order of the groups' first members; unknown if all of them are.
pub fn largest_of_each(members: impl Iterator<Item = (u64, f64)>) -> Vec<f64> {
    let mut places: HashMap<u64, usize> = HashMap::new();
    let mut largest: Vec<f64> = Vec::new();
    for (group, number) in members {
        let place = *places.entry(group).or_insert(largest.len());
        match largest.get_mut(place) {
            None => largest.push(number),
            Some(known) if number.is_finite() && (!known.is_finite() || *known < number) => *known = number,
            Some(_) => {}
        }
    }
    largest
}

/// What a number stands for in JSON: a number, or a text that is wholly one, as netdata and Home Assistant send. Not
/// finite if it is unknown; `None` for a list or an object, which is no number that could be missing.
pub fn number_of(node: &Json) -> Option<f64> {
    match node {
        Json::Array(_) | Json::Object(_) => None,
        Json::Number(number) => number.as_f64().or(Some(f64::NAN)),
        Json::String(text) => Some(number_of_text(text).unwrap_or(f64::NAN)),
        Json::Null | Json::Bool(_) => Some(f64::NAN),
    }
}

/// A text that is wholly a JSON number.
pub fn number_of_text(text: &str) -> Option<f64> {
    let of_numbers = |byte: u8| byte.is_ascii_digit() || matches!(byte, b'+' | b'-' | b'.' | b'e' | b'E');
    let fits = text.len() <= NUMBER_MAX && text.bytes().all(of_numbers);
    if fits { serde_json::from_str(text).ok() } else { None }
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

    #[rstest]
    #[case("12.5", Some(12.5))]
    #[case("-3", Some(-3.0))]
    #[case("1e3", Some(1000.0))]
    #[case("", None)]
    #[case(" 12", None)]
    #[case("+5", None)]
    #[case("012", None)]
    #[case("0x1f", None)]
    #[case("1_000", None)]
    #[case("12 W", None)]
    #[case("NaN", None)]
    #[case("unavailable", None)]
    fn a_text_is_a_number_if_it_is_wholly_one(#[case] text: &str, #[case] expected: Option<f64>) {
        assert_eq!(number_of_text(text), expected);
    }

    #[test]
    fn the_largest_of_each_group_counts() {
        let members = [(7, 1.0), (8, f64::NAN), (7, 3.0), (8, 2.0), (7, f64::NAN), (9, f64::NAN)];
        let found = largest_of_each(members.into_iter());
        assert_eq!(format!("{found:?}"), "[3.0, 2.0, NaN]");
    }
}
