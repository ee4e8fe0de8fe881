//! Generated expressions: none panics, none takes long, and what is accepted fails for no reason but its numbers.

use super::*;
use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use std::time::{Duration, Instant};

const TOKENS: [&str; 72] = [
    "values",
    "values.a",
    "values.b",
    "previous.a",
    "server",
    "server.name",
    "server.labels",
    "server.labels.x",
    "server.modelCount",
    "[\"a\"]",
    ".a",
    ".labels",
    "x",
    "x",
    "1",
    "0",
    "2",
    "-1",
    "1.5",
    "0.0",
    "1e308",
    "9223372036854775807",
    "-9223372036854775808",
    "0x7fffffffffffffff",
    "1u",
    "true",
    "false",
    "null",
    "\"a\"",
    "'b'",
    "\"",
    "'",
    "\\",
    "&&",
    "||",
    "!",
    "-",
    "+",
    "*",
    "/",
    "%",
    "<",
    "<=",
    ">",
    ">=",
    "==",
    "!=",
    " in ",
    "?",
    ":",
    ",",
    "(",
    ")",
    "[",
    "]",
    "{",
    "}",
    ".all(x,",
    ".exists(x,",
    ".map(x,",
    ".filter(x,",
    ".exists_one(x,",
    "has(",
    "size(",
    "int(",
    "double(",
    "max(",
    "abs(",
    ".startsWith(",
    ".size()",
    "é",
    "\n",
];

/// An int, a double and a bool, each made of smaller ones; nearly all are accepted.
fn expressions() -> impl Strategy<Value = [String; 3]> {
    let leaf = |parts: &[&'static str]| prop::sample::select(parts.to_vec());
    let leaves = (
        leaf(&[
            "values.a",
            "values.b",
            "values.none",
            "previous.a",
            "server.modelCount",
            "1",
            "0",
            "-1",
            "9223372036854775807",
            "-9223372036854775808",
            "size(server.name)",
            "size(server.labels)",
        ]),
        leaf(&["1.5", "0.0", "-1e308", "double(values.a)", "double(previous.b)"]),
        leaf(&[
            "true",
            "false",
            "server.reachable",
            "has(values.a)",
            "has(values.none)",
            "has(server.labels.x)",
            "server.name == 'a'",
            "server.labels.tier.contains('o')",
            "'tier' in server.labels",
        ]),
    );
    leaves.prop_map(|(int, double, bool)| [int, double, bool].map(str::to_owned)).prop_recursive(
        4,
        32,
        2,
        |inner| {
            (inner.clone(), inner, 0..12_usize, 0..10_usize, 0..14_usize).prop_map(
                |(a, b, int, double, bool)| {
                    let ([int_a, real_a, bool_a], [int_b, real_b, bool_b]) = (a, b);
                    let int = match int {
                        at @ 0..5 => format!("({int_a}{}{int_b})", ["+", "-", "*", "/", "%"][at]),
                        5 => format!("-({int_a})"),
                        6 => format!("abs({int_a})"),
                        7 => format!("int({real_a})"),
                        8 => format!("max({int_a},{int_b})"),
                        9 => format!("({bool_a}?{int_a}:{int_b})"),
                        10 => format!("size([{int_a},{int_b}].filter(x,x>{int_b}))"),
                        _ => format!("[{int_a},{int_b}].map(x,x-{int_b}).size()"),
                    };
                    let double = match double {
                        at @ 0..4 => format!("({real_a}{}{real_b})", ["+", "-", "*", "/"][at]),
                        4 => format!("-({real_a})"),
                        5 => format!("abs({real_a})"),
                        6 | 7 => format!("double({int_a})"),
                        8 => format!("min({real_a},{real_b})"),
                        _ => format!("({bool_a}?{real_a}:{real_b})"),
                    };
                    let bool = match bool {
                        at @ 0..4 => format!("({int_a}{}{int_b})", ["<", ">=", "==", "!="][at]),
                        at @ 4..7 => format!("({real_a}{}{int_b})", ["<=", ">", "!="][at - 4]),
                        7 => format!("({bool_a}&&{bool_b})"),
                        8 => format!("({bool_a}||{bool_b})"),
                        9 => format!("!({bool_a})"),
                        10 => format!("({int_a} in[{int_b},1])"),
                        11 => format!("[{int_a},{int_b}].all(x,x>{int_a})"),
                        12 => format!("server.labels.exists(x,x.startsWith('t')&&{bool_a})"),
                        _ => format!("[{int_a},{int_b}].exists_one(x,x>{int_a}&&{bool_a})"),
                    };
                    [int, double, bool]
                },
            )
        },
    )
}

fn survives(source: &str) {
    let extreme =
        BTreeMap::from([("a".to_owned(), Scalar::Integer(i64::MIN)), ("b".to_owned(), Scalar::Integer(-1))]);
    let zero =
        BTreeMap::from([("a".to_owned(), Scalar::Integer(0)), ("b".to_owned(), Scalar::Boolean(true))]);
    let facts = server();
    let start = Instant::now();
    for wanted in [Wanted::Boolean, Wanted::Number] {
        let Ok(expression) = Expression::compile(source, &OPEN, wanted) else { continue };
        for values in [&extreme, &zero, &BTreeMap::new()] {
            for (previous, server) in [(Some(&extreme), Some(&facts)), (None, None)] {
                let inputs = Inputs { values, previous, server };
                // Accepted, so that its types are right: nothing can fail but numbers and the host's values.
                let failed = |error| error == RunError::Failed;
                match wanted {
                    Wanted::Boolean => assert!(!expression.boolean(&inputs).is_err_and(failed), "{source}"),
                    Wanted::Number => {
                        let number = expression.number(&inputs);
                        assert!(
                            !number.is_ok_and(|number| number.is_some_and(|number| !number.is_finite())),
                            "{source}"
                        );
                        assert!(!number.is_err_and(failed), "{source}");
                    }
                }
            }
        }
    }
    assert!(start.elapsed() < Duration::from_secs(1), "{source}");
}

/// So that the test of expressions below is one of evaluation too.
#[test]
fn most_generated_expressions_are_accepted() {
    let mut runner = TestRunner::deterministic();
    let strategy = expressions();
    let accepted = (0..200).filter(|_| {
        let [_, _, bool] = strategy.new_tree(&mut runner).unwrap().current();
        Expression::compile(&bool, &OPEN, Wanted::Boolean).is_ok()
    });
    let accepted = accepted.count();
    assert!(accepted > 120, "{accepted} of 200");
}

proptest! {
    #[test]
    fn no_soup_of_tokens_panics(tokens in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 1..24)) {
        survives(&tokens.concat());
    }

    #[test]
    fn no_expression_panics(sources in expressions()) {
        for source in sources {
            survives(&source);
        }
    }

    #[test]
    fn no_kibibyte_takes_long(tokens in prop::collection::vec(prop::sample::select(TOKENS.to_vec()), 300)) {
        let mut source = tokens.concat().replace(['{', '}', '\\'], "");
        while source.len() > bounds::SOURCE_MAX {
            source.pop();
        }
        survives(&source);
    }
}
