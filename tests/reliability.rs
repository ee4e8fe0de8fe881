//! `docs/reliability.md` names a test for every fault, and each of them exists.

use crate::support::binaries::repository;
use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// The names of all tests and helpers by their module: the file's name, or its folder's.
fn functions(folder: &Path, found: &mut BTreeMap<String, BTreeSet<String>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let stem = path.file_stem().unwrap().to_string_lossy().into_owned();
            let parent = path.parent().unwrap().file_name().unwrap().to_string_lossy().into_owned();
            let module = if stem == "mod" { parent } else { stem };
            let source = fs::read_to_string(&path).unwrap();
            let names = source.lines().filter_map(|line| {
                line.trim_start().trim_start_matches("async ").strip_prefix("fn ")?.split(['(', '<']).next()
            });
            found.entry(module).or_default().extend(names.map(str::to_owned));
        }
    }
}

/// Every row has a label, what is expected, and tests that exist.
#[test]
fn every_row_names_tests_that_exist() {
    let mut known = BTreeMap::new();
    for folder in ["src", "tests"] {
        functions(&repository().join(folder), &mut known);
    }
    let page = fs::read_to_string(repository().join("docs/reliability.md")).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| id "));
    let mut labels = BTreeSet::new();
    for row in rows {
        let cells: Vec<&str> = row.trim_matches('|').split(" | ").map(str::trim).collect();
        let [label, fault, expected, tests] = cells[..] else { panic!("not four cells: {row}") };
        assert!(!fault.is_empty() && !expected.is_empty(), "{row}");
        let mut named = 0;
        for name in tests.split('`').skip(1).step_by(2) {
            let (module, test) = name.rsplit_once("::").unwrap_or_else(|| panic!("{label}: {name}"));
            let module = module.rsplit("::").next().unwrap_or(module);
            let there = known.get(module).is_some_and(|tests| tests.contains(test));
            assert!(there, "{label}: there is no test {name}");
            named += 1;
        }
        assert!(named > 0, "{label}: no test is named: {row}");
        labels.insert(label.to_owned());
    }
    let wanted = [("A", 1..=16), ("H", 1..=21), ("P", 1..=8)]
        .into_iter()
        .flat_map(|(letter, numbers)| numbers.map(move |number| format!("{letter}{number}")));
    let labels: BTreeSet<&str> = labels.iter().flat_map(|label| label.split(", ")).collect();
    for label in wanted {
        assert!(labels.contains(label.as_str()), "there is no row {label}");
    }
}
