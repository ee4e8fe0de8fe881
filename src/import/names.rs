//! Names for people made into names of objects: DNS labels, each given once.

use deunicode::deunicode;
use std::collections::BTreeMap;

/// Longest DNS label.
const MAX: usize = 63;

/// The names given so far. A name depends only on the entries before it, so that an entry added at the end renames none.
#[derive(Debug, Default)]
pub struct Names {
    /// Names in use, and the number to try next for one that wants the same.
    taken: BTreeMap<String, u32>,
}

impl Names {
    /// A name made from `text`, or from `fallback` where nothing of it can be kept. The first entry keeps the plain
    /// name, later ones get `-2`, `-3` and so on.
    pub fn claim(&mut self, text: &str, fallback: &str) -> String {
        let base = label(text).unwrap_or_else(|| fallback.to_owned());
        if !self.taken.contains_key(&base) {
            self.taken.insert(base.clone(), 2);
            return base;
        }
        loop {
            let next = self.taken.entry(base.clone()).or_insert(2);
            let suffix = format!("-{next}");
            *next += 1;
            let stem = base.get(..MAX - suffix.len()).unwrap_or(&base).trim_end_matches('-');
            let name = format!("{stem}{suffix}");
            if !self.taken.contains_key(&name) {
                self.taken.insert(name.clone(), 2);
                return name;
            }
        }
    }
}

/// `text` as a DNS label: letters without accents, in lower case, and a dash for anything else. `None` if nothing is left.
pub fn label(text: &str) -> Option<String> {
    let mut label = String::new();
    for c in deunicode(text).chars() {
        if c.is_ascii_alphanumeric() {
            label.push(c.to_ascii_lowercase());
        } else if !label.is_empty() && !label.ends_with('-') {
            label.push('-');
        }
        if label.len() == MAX {
            break;
        }
    }
    label.truncate(label.trim_end_matches('-').len());
    (!label.is_empty()).then_some(label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    #[rstest]
    #[case("Server 1", Some("server-1"))]
    #[case("  GPU__Box!! ", Some("gpu-box"))]
    #[case("Büro-Rechner é", Some("buro-rechner-e"))]
    #[case("机房", Some("ji-fang"))]
    #[case("gpu1.lab", Some("gpu1-lab"))]
    #[case("---", None)]
    #[case("", None)]
    #[case("\u{1b}[31mred", Some("31mred"))]
    fn names_become_labels(#[case] text: &str, #[case] expected: Option<&str>) {
        assert_eq!(label(text).as_deref(), expected);
    }

    #[test]
    fn a_long_name_is_cut_and_does_not_end_with_a_dash() {
        assert_eq!(label(&"x".repeat(100)).unwrap(), "x".repeat(63));
        assert_eq!(label(&format!("{} yz", "x".repeat(62))).unwrap(), "x".repeat(62));
    }

    #[test]
    fn duplicate_names_are_numbered_in_order() {
        let mut names = Names::default();
        let given: Vec<_> = ["gpu", "GPU!", "gpu-2", "gpu", "!!!", "---"]
            .iter()
            .enumerate()
            .map(|(index, text)| names.claim(text, &format!("server-{index}")))
            .collect();
        assert_eq!(given, ["gpu", "gpu-2", "gpu-2-2", "gpu-3", "server-4", "server-5"]);
    }

    #[test]
    fn a_numbered_name_is_still_a_label() {
        let mut names = Names::default();
        let long = "x".repeat(80);
        assert_eq!(names.claim(&long, "s"), "x".repeat(63));
        assert_eq!(names.claim(&long, "s"), format!("{}-2", "x".repeat(61)));
    }

    proptest! {
        #[test]
        fn every_name_is_a_label_and_given_once(texts in prop::collection::vec(".{0,80}|[a-c]{0,2}(-2)?", 0..40), more: String) {
            let give = |texts: &[String]| {
                let mut names = Names::default();
                texts.iter().enumerate().map(|(index, text)| names.claim(text, &format!("server-{index}"))).collect::<Vec<_>>()
            };
            let given = give(&texts);
            for name in &given {
                prop_assert!(!name.is_empty() && name.len() <= 63, "{name}");
                prop_assert!(name.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-'), "{name}");
                prop_assert!(!name.starts_with('-') && !name.ends_with('-'), "{name}");
            }
            let unique: std::collections::BTreeSet<_> = given.iter().collect();
            prop_assert_eq!(unique.len(), given.len());
            let mut longer = texts.clone();
            longer.push(more);
            prop_assert_eq!(&give(&longer)[..texts.len()], &given[..]);
        }
    }
}
