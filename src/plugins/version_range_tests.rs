use super::*;
use proptest::prelude::*;
use regex::bytes::{Regex, RegexBuilder};
use rstest::rstest;
use serde::Deserialize;
use std::collections::BTreeMap;

/// What npm itself says; `tests/fixtures/npm-ranges/make.js` writes it.
#[derive(Deserialize)]
struct Table {
    semver: String,
    versions: Vec<String>,
    /// Bit n of the hexadecimal number says whether version n matches.
    ranges: BTreeMap<String, String>,
    /// Npm reads them and we do not.
    narrower: Vec<String>,
    refused: Vec<String>,
}

fn table() -> Table {
    serde_json::from_str(include_str!("../../tests/fixtures/npm-ranges/table.json")).unwrap()
}

fn range(text: &str) -> VersionRange {
    VersionRange::parse(text).unwrap_or_else(|error| panic!("{text:?}: {error}"))
}

/// RE2 knows ASCII only, so far as `\d` and `\w` go.
fn pattern() -> Regex {
    RegexBuilder::new(RANGE_PATTERN).unicode(false).build().unwrap()
}

#[test]
fn ranges_match_what_they_match_in_npm() {
    let table = table();
    assert!(table.semver.starts_with("7."));
    assert!(table.ranges.len() > 2500 && table.versions.len() > 90);
    let versions: Vec<Version> = table.versions.iter().map(|text| Version::parse(text).unwrap()).collect();
    let mut wrong = Vec::new();
    for (text, bits) in &table.ranges {
        let bits = u128::from_str_radix(bits, 16).unwrap();
        let range = range(text);
        for (n, version) in versions.iter().enumerate() {
            if range.matches(version) != ((bits >> n) & 1 == 1) {
                wrong.push(format!("{text:?} and {version}: {}", range.matches(version)));
            }
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn what_npm_refuses_is_refused_and_so_is_what_it_stretches() {
    let table = table();
    for text in table.refused.iter().chain(&table.narrower) {
        assert!(VersionRange::parse(text).is_err(), "{text:?}");
    }
}

#[test]
fn the_pattern_matches_every_range() {
    let pattern = pattern();
    for text in table().ranges.keys() {
        assert!(pattern.is_match(text.as_bytes()), "{text:?}");
    }
}

/// Order and sense of the parts are for the operator to judge.
#[test]
fn the_pattern_refuses_most_of_what_is_no_range() {
    let (pattern, table) = (pattern(), table());
    let matched = |texts: &[String]| texts.iter().filter(|text| pattern.is_match(text.as_bytes())).count();
    assert!(matched(&table.refused) * 5 < table.refused.len());
    assert!(matched(&table.narrower) * 3 < table.narrower.len());
    for text in [
        "",
        " ",
        "latest",
        ">=1, <2",
        ">=1 && <2",
        "1 | 2",
        "1 or 2",
        "!1",
        "^1 ||",
        "~>1.2",
        "1.2.3.4",
        "1.2.3rc.1",
    ] {
        assert!(!pattern.is_match(text.as_bytes()), "{text:?}");
    }
}

#[rstest]
#[case("", RangeError::Empty)]
#[case("   ", RangeError::Empty)]
#[case("^1 ||", RangeError::EmptySide)]
#[case(">=1, <2", RangeError::Joint(','))]
#[case(">=1 && <2", RangeError::Joint('&'))]
#[case("1 | 2", RangeError::Joint('|'))]
#[case("!1", RangeError::Character('!'))]
#[case("1\n", RangeError::Character('\n'))]
#[case("latest", RangeError::NoNumber("latest".to_owned()))]
#[case("1 - 2 <3", RangeError::Span)]
#[case(">=1 - 2", RangeError::Span)]
#[case("1 - <2", RangeError::Span)]
#[case("1.2 >=", RangeError::NoVersion(">="))]
#[case(">= <2", RangeError::NoNumber("<2".to_owned()))]
#[case("~>1.2", RangeError::NoNumber(">1.2".to_owned()))]
#[case("1.2.3.4", RangeError::NoNumber("1.2.3.4".to_owned()))]
#[case("^01.2", RangeError::Number("01.2".to_owned()))]
#[case("9007199254740991", RangeError::Number("9007199254740991".to_owned()))]
#[case("1.x.3", RangeError::AfterAny("1.x.3".to_owned()))]
#[case("^1.2-rc.1", RangeError::PartialSuffix("1.2-rc.1".to_owned()))]
#[case("1.2.3-rc..1", RangeError::Suffix("1.2.3-rc..1".to_owned()))]
#[case("1.2.3+", RangeError::Suffix("1.2.3+".to_owned()))]
#[case(&"1".repeat(LENGTH_MAX + 1), RangeError::TooLong(LENGTH_MAX + 1))]
#[case(&"1 ".repeat(COMPARATORS_MAX), RangeError::TooMany)]
#[case(&["*"; COMPARATORS_MAX + 1].join("||"), RangeError::TooMany)]
fn refusals_say_what_is_wrong(#[case] text: &str, #[case] error: RangeError) {
    assert_eq!(VersionRange::parse(text).unwrap_err(), error);
    assert!(error.to_string().contains("write "), "{error}");
}

#[test]
fn a_range_reads_as_it_was_written() {
    assert_eq!(range(" >= 1.2  <2||^3 ").to_string(), " >= 1.2  <2||^3 ");
}

#[test]
fn versions_beyond_npms_numbers_are_compared_all_the_same() {
    let huge = Version::new(u64::MAX, u64::MAX, u64::MAX);
    assert!(
        range("*").matches(&huge)
            && range(">=1").matches(&huge)
            && !range("<=999999999999999").matches(&huge)
    );
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".{0,40}", odd in "[0-9xv.<>=^~|* +a-]{0,40}") {
        for text in [text, odd] {
            if let Ok(range) = VersionRange::parse(&text) {
                prop_assert!(pattern().is_match(text.as_bytes()), "{:?}", text);
                range.matches(&Version::new(1, 2, 3));
            }
        }
    }
}
