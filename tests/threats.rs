//! The threat model in SECURITY.md names tests, and they exist.

use crate::support::{NamedTests, binaries::repository};
use std::fs;

/// Every row of the table has somebody who would do it, something that stands against it, and tests that exist.
#[test]
fn every_threat_names_tests_that_exist() {
    let tests = NamedTests::read();
    let text = fs::read_to_string(repository().join("SECURITY.md")).unwrap();
    let rows = text.lines().skip_while(|line| !line.starts_with("| threat |")).skip(2);
    let rows: Vec<Vec<&str>> = rows
        .take_while(|line| line.starts_with('|'))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    assert!(rows.len() >= 20, "{} rows", rows.len());
    for row in rows {
        let [threat, who, against, shown] = row[..] else { panic!("a row has four cells: {row:?}") };
        assert!(!who.is_empty() && !against.is_empty(), "{threat}");
        assert!(tests.check(threat, shown) > 0, "{threat}: nothing shows it");
    }
}
