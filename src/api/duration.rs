//! Durations as users write them: `10s`, `1m30s`, `500ms`.

use std::time::Duration;

/// Parses `^([0-9]{1,5}(ms|s|m|h)){1,3}$`, the one spelling that every duration field accepts.
/// Returns `None` for anything else.
pub fn parse(text: &str) -> Option<Duration> {
    let mut rest = text;
    let mut total = Duration::ZERO;
    for _ in 0..3 {
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        if digits == 0 || digits > 5 {
            return None;
        }
        let number: u64 = rest[..digits].parse().ok()?;
        rest = &rest[digits..];
        let (unit, length) = if rest.starts_with("ms") {
            (Duration::from_millis(1), 2)
        } else {
            match rest.as_bytes().first()? {
                b's' => (Duration::from_secs(1), 1),
                b'm' => (Duration::from_mins(1), 1),
                b'h' => (Duration::from_hours(1), 1),
                _ => return None,
            }
        };
        total += unit * u32::try_from(number).ok()?;
        rest = &rest[length..];
        if rest.is_empty() {
            return Some(total);
        }
    }
    None
}

/// For command-line flags: like [`parse`], with an error that says what to write.
pub fn parse_flag(text: &str) -> Result<Duration, String> {
    parse(text).ok_or_else(|| format!("`{text}` is not a duration; write for example 10s, 500ms or 1m30s"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("10s", Some(10_000))]
    #[case("500ms", Some(500))]
    #[case("1m30s", Some(90_000))]
    #[case("1h2m3s", Some(3_723_000))]
    #[case("24h", Some(86_400_000))]
    #[case("0s", Some(0))]
    #[case("", None)]
    #[case("10", None)]
    #[case("s", None)]
    #[case("1.5s", None)]
    #[case("-1s", None)]
    #[case("100000s", None)]
    #[case("1h2m3s4ms", None)]
    #[case("10 s", None)]
    #[case("1d", None)]
    fn durations_are_read_as_documented(#[case] text: &str, #[case] millis: Option<u64>) {
        assert_eq!(parse(text), millis.map(Duration::from_millis));
    }
}
