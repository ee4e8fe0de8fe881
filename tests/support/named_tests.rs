//! The tests that documents name: a promise in a table is worth as much as the test that it points to.

use super::binaries::repository;
use std::{collections::BTreeSet, fs, path::Path};

/// All tests of the repository, each as the path of its module and its name.
pub struct NamedTests(BTreeSet<String>);

impl NamedTests {
    pub fn read() -> Self {
        let mut found = BTreeSet::new();
        for folder in ["src", "tests"] {
            collect(&repository().join(folder), "", &mut found);
        }
        Self(found)
    }

    /// Fails if one of the names in a table's cell, each in backticks as `module::test` with as much of the module's
    /// path as its writer saw fit, is no test. Returns how many there are. Commands of make are no tests.
    #[track_caller]
    pub fn check(&self, row: &str, cell: &str) -> usize {
        let names = cell.split('`').skip(1).step_by(2);
        names
            .inspect(|name| {
                let end = format!("::{name}");
                let there = name.contains("::") && self.0.iter().any(|test| test.ends_with(&end));
                assert!(there || name.starts_with("make "), "{row}: there is no test {name}");
            })
            .count()
    }
}

/// Adds the functions marked as tests in a folder; `module` is the path of its module.
fn collect(folder: &Path, module: &str, found: &mut BTreeSet<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let stem = path.file_stem().unwrap().to_string_lossy();
        let own = if stem == "mod" { module.to_owned() } else { format!("{module}::{stem}") };
        if path.is_dir() {
            collect(&path, &own, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            let source = fs::read_to_string(&path).unwrap();
            let mut marked = false;
            for line in source.lines().map(str::trim_start) {
                marked |= ["#[test]", "#[tokio::test", "#[rstest]"].iter().any(|mark| line.starts_with(mark));
                let name = line.trim_start_matches("async ").strip_prefix("fn ");
                if let Some(name) = name.and_then(|name| name.split(['(', '<']).next()) {
                    if marked {
                        found.insert(format!("{own}::{name}"));
                    }
                    marked = false;
                }
            }
        }
    }
}
