//! `docs/reliability.md` names a test for every fault, and each of them exists.

use crate::support::{NamedTests, binaries::repository};
use std::{collections::BTreeSet, fs};

/// Every row has a label, what is expected, and tests that exist.
#[test]
fn every_row_names_tests_that_exist() {
    let known = NamedTests::read();
    let page = fs::read_to_string(repository().join("docs/reliability.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id "));
    let mut labels = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [label, fault, expected, tests] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!fault.is_empty() && !expected.is_empty(), "{row}");
        assert!(known.check(label, tests) > 0, "{label}: no test is named: {row}");
        labels.insert(label.to_owned());
    }
    let wanted = [("A", 1..=18), ("H", 1..=23), ("P", 1..=8)]
        .into_iter()
        .flat_map(|(letter, numbers)| numbers.map(move |number| format!("{letter}{number}")));
    let labels: BTreeSet<&str> = labels.iter().flat_map(|label| label.split(", ")).collect();
    for label in wanted {
        assert!(labels.contains(label.as_str()), "there is no row {label}");
    }
}
