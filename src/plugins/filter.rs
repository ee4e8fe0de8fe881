//! What of a JSON answer some path of a plugin can reach. The rest is read over and never kept, so that the processes of
//! a busy desktop do not make an answer too large whose temperatures are all that is wanted. Pure.
//!
//! It may keep too much and never too little: a filter looks at whatever is below its place, a search goes everywhere, and
//! what is not understood keeps everything.

use std::collections::BTreeMap;

/// Nodes of one filter; plugins have as many as their paths have steps. `*` beside many names makes copies of what
/// follows it, and past this everything is kept.
const NODES_MAX: usize = 4096;

/// What is kept of one value.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Filter {
    /// All that is in it.
    All,
    Some(Box<Inside>),
}

/// What is kept of what is in a value.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Inside {
    names: BTreeMap<String, Filter>,
    /// Of fields that no path names.
    others: Option<Filter>,
    /// Of each item of a list.
    items: Option<Filter>,
}

/// One step of a path.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    /// Names of fields, and whether any item of a list is meant too.
    Of { names: Vec<String>, items: bool },
    /// Every field and every item.
    Each,
    /// Whatever is there or below.
    All,
}

impl Filter {
    /// For valid paths; without any it keeps everything.
    pub fn of<'a>(paths: impl Iterator<Item = &'a str>) -> Self {
        let paths: Vec<Vec<Step>> = paths.map(steps).collect();
        let mut left = NODES_MAX;
        if paths.is_empty() {
            return Self::All;
        }
        build(&paths.iter().map(Vec::as_slice).collect::<Vec<_>>(), &mut left).unwrap_or(Self::All)
    }

    /// What is kept of a field; `None`: nothing.
    pub fn field(&self, name: &str) -> Option<&Self> {
        match self {
            Self::All => Some(self),
            Self::Some(inside) => inside.names.get(name).or(inside.others.as_ref()),
        }
    }

    /// What is kept of the items of a list; `None`: nothing.
    pub fn items(&self) -> Option<&Self> {
        match self {
            Self::All => Some(self),
            Self::Some(inside) => inside.items.as_ref(),
        }
    }
}

/// `None`: too many nodes.
fn build(paths: &[&[Step]], left: &mut usize) -> Option<Filter> {
    *left = left.checked_sub(1)?;
    if paths.iter().any(|path| matches!(path.first(), None | Some(Step::All))) {
        return Some(Filter::All);
    }
    let below = |reaches: &dyn Fn(&Step) -> bool, left: &mut usize| {
        let tails: Vec<&[Step]> = paths
            .iter()
            .filter_map(|path| path.split_first())
            .filter(|(first, _)| reaches(first))
            .map(|(_, tail)| tail)
            .collect();
        if tails.is_empty() { Some(None) } else { build(&tails, left).map(Some) }
    };
    let mut inside = Inside {
        others: below(&|step| *step == Step::Each, left)?,
        items: below(&|step| matches!(step, Step::Each | Step::Of { items: true, .. }), left)?,
        ..Inside::default()
    };
    for step in paths.iter().filter_map(|path| path.first()) {
        let Step::Of { names, .. } = step else { continue };
        for name in names {
            if !inside.names.contains_key(name) {
                let named = |step: &Step| match step {
                    Step::Of { names, .. } => names.contains(name),
                    Step::Each | Step::All => true,
                };
                if let Some(filter) = below(&named, left)? {
                    inside.names.insert(name.clone(), filter);
                }
            }
        }
    }
    Some(Filter::Some(Box::new(inside)))
}

/// The steps of a path.
fn steps(path: &str) -> Vec<Step> {
    let mut rest = path.trim().strip_prefix('$').unwrap_or_default();
    let mut steps = Vec::new();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return steps;
        }
        let Some((step, left)) = step(rest) else {
            steps.push(Step::All);
            return steps;
        };
        steps.push(step);
        rest = left;
    }
}

/// The first step and what follows it; `None`: one that reaches everything, or is not understood.
fn step(rest: &str) -> Option<(Step, &str)> {
    if let Some(after) = rest.strip_prefix('.') {
        let after = after.trim_start();
        if let Some(left) = after.strip_prefix('*') {
            return Some((Step::Each, left));
        }
        let end = after.find(|c: char| matches!(c, '.' | '[') || c.is_whitespace()).unwrap_or(after.len());
        let (name, left) = after.split_at(end);
        return (!name.is_empty()).then(|| (Step::Of { names: vec![name.to_owned()], items: false }, left));
    }
    let mut rest = rest.strip_prefix('[')?.trim_start();
    let (mut names, mut items, mut each) = (Vec::new(), false, false);
    loop {
        let left = match rest.chars().next()? {
            quote @ ('\'' | '"') => {
                let (name, left) = rest[1..].split_once(quote)?;
                // One with an escape may be any name.
                if name.contains('\\') {
                    return None;
                }
                names.push(name.to_owned());
                left
            }
            '*' => {
                each = true;
                &rest[1..]
            }
            '0'..='9' | '-' | ':' => {
                items = true;
                rest.trim_start_matches(|c: char| matches!(c, '0'..='9' | '-' | ':') || c.is_whitespace())
            }
            // A filter looks below each item or field.
            _ => return None,
        };
        let left = left.trim_start();
        if let Some(left) = left.strip_prefix(']') {
            let step = if each { Step::Each } else { Step::Of { names, items } };
            return Some((step, left));
        }
        rest = left.strip_prefix(',')?.trim_start();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plugins::bounded_json::parse;
    use proptest::prelude::*;
    use rstest::rstest;
    use serde_json::{Value, json};
    use serde_json_path::JsonPath;

    fn kept(paths: &[&str], answer: &Value) -> Value {
        parse(answer.to_string().as_bytes(), &Filter::of(paths.iter().copied())).unwrap()
    }

    #[rstest]
    #[case::name(&["$.cpu.total"], json!({"cpu": {"total": 7}}))]
    #[case::list(&["$.gpu[0].temperature"], json!({"gpu": [{"temperature": 60}, {"temperature": 61}]}))]
    #[case::quoted(&["$['cpu']['total']", "$[\"fs\"]"], json!({"cpu": {"total": 7}, "fs": {"/": {"size": 9, "used": 1}}}))]
    #[case::several(&["$.cpu['total','user']"], json!({"cpu": {"total": 7, "user": 3}}))]
    #[case::wildcard(&["$.gpu[*].id"], json!({"gpu": [{"id": 0}, {"id": 1}]}))]
    #[case::each_field(&["$.fs.*.used"], json!({"fs": {"/": {"used": 1}}}))]
    #[case::slice(&["$.gpu[0:1].id"], json!({"gpu": [{"id": 0}, {"id": 1}]}))]
    #[case::from_the_end(&["$.gpu[-1].id"], json!({"gpu": [{"id": 0}, {"id": 1}]}))]
    #[case::filter(&["$.gpu[?@.id == 1].temperature"], json!({"gpu": [{"id": 0, "temperature": 60}, {"id": 1, "temperature": 61}]}))]
    #[case::names_and_wildcard(&["$.fs.*.used", "$.fs['/'].size"], json!({"fs": {"/": {"size": 9, "used": 1}}}))]
    #[case::nothing(&["$.absent"], json!({}))]
    fn only_what_a_path_reaches_is_kept(#[case] paths: &[&str], #[case] expected: Value) {
        let answer = json!({
            "cpu": {"total": 7, "user": 3, "idle": 93},
            "gpu": [{"id": 0, "temperature": 60}, {"id": 1, "temperature": 61}],
            "fs": {"/": {"size": 9, "used": 1}},
            "processlist": [{"pid": 1, "cmdline": ["/sbin/init"]}],
        });
        assert_eq!(kept(paths, &answer), expected);
    }

    #[test]
    fn searches_keep_everything() {
        let answer = json!({"a": [{"b": 1}], "c": 2});
        for path in ["$..b", "$", "$.a[?@.b == 1]", "$['\\u0061']"] {
            let filter = Filter::of([path].into_iter());
            let wanted = JsonPath::parse(path).unwrap();
            let kept = parse(answer.to_string().as_bytes(), &filter).unwrap();
            assert_eq!(wanted.query(&kept).all(), wanted.query(&answer).all(), "{path}");
        }
        assert_eq!(Filter::of([].into_iter()), Filter::All);
    }

    #[test]
    fn a_filter_is_bounded() {
        let tail = ".a".repeat(100);
        let paths: Vec<String> = (0..100)
            .map(|n| format!("$.n{n}.n{n}"))
            .chain((0..8).map(|n| format!("$.*.*{tail}.b{n}")))
            .collect();
        assert!(Filter::of(paths.iter().map(String::as_str)) == Filter::All);
    }

    /// Any answer with few names, and paths that are likely to lead somewhere in it.
    fn answer() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![Just(json!(null)), (0..9_i64).prop_map(Value::from)];
        leaf.prop_recursive(4, 40, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[abc]", inner, 0..4)
                    .prop_map(|fields| Value::Object(fields.into_iter().collect())),
            ]
        })
    }

    const STEPS: &str = r"\.[abc]|\[[0-2]\]|\[-1\]|\.\*|\[\*\]|\['[abc]'\]|\['a', ?\x22b\x22, ?0\]|\[0:2\]|\.\.[abc]|\[\?@\.a == 1\]| \.a";

    proptest! {
        #[test]
        fn a_path_leads_to_the_same_values(
            answer in answer(),
            paths in proptest::collection::vec(proptest::collection::vec(STEPS, 0..4), 1..5),
        ) {
            let paths: Vec<String> = paths.into_iter().map(|steps| format!("${}", steps.concat())).collect();
            let valid: Vec<(&str, JsonPath)> =
                paths.iter().filter_map(|path| Some((path.as_str(), JsonPath::parse(path).ok()?))).collect();
            let kept = parse(answer.to_string().as_bytes(), &Filter::of(valid.iter().map(|(text, _)| *text))).unwrap();
            for (text, path) in &valid {
                prop_assert_eq!(path.query(&kept).all(), path.query(&answer).all(), "{}", text);
            }
        }
    }
}
