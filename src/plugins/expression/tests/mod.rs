//! Expressions: what is accepted and what it gives, what is refused and in which words.

mod cost;
mod generated;

use super::*;
use rstest::rstest;

const VALUES: [(&str, ValueType); 6] = [
    ("temperature", ValueType::Integer),
    ("used", ValueType::Integer),
    ("total", ValueType::Integer),
    ("throttled", ValueType::Boolean),
    ("booted", ValueType::Time),
    ("host", ValueType::Hostname),
];
const RULE: Scope<'static> = Scope { values: &VALUES, open: false, rule: true };
const VALUE: Scope<'static> = Scope { values: &VALUES, open: false, rule: false };
const OPEN: Scope<'static> = Scope { values: &[], open: true, rule: true };

fn values() -> BTreeMap<String, Scalar> {
    BTreeMap::from([
        ("temperature".to_owned(), Scalar::Integer(85)),
        ("used".to_owned(), Scalar::Integer(30)),
        ("total".to_owned(), Scalar::Integer(40)),
        ("throttled".to_owned(), Scalar::Boolean(true)),
        ("booted".to_owned(), Scalar::Text("1970-01-01T01:00:00Z".to_owned())),
        ("host".to_owned(), Scalar::Text("gpu-1.lab".to_owned())),
    ])
}

fn previous() -> BTreeMap<String, Scalar> {
    BTreeMap::from([("temperature".to_owned(), Scalar::Integer(80))])
}

fn server() -> ServerFacts {
    ServerFacts {
        name: "ollama-1".to_owned(),
        namespace: "team-a".to_owned(),
        labels: BTreeMap::from([
            ("tier".to_owned(), "gold".to_owned()),
            ("example.com/zone".to_owned(), "b".to_owned()),
        ]),
        backend_type: "Ollama".to_owned(),
        reachable: true,
        in_maintenance: false,
        model_count: Some(3),
        loaded_count: None,
        vram_used: Some(20),
        memory_capacity: None,
        vram_capacity: Some(24),
    }
}

fn refusal(source: &str, scope: &Scope<'_>, wanted: Wanted) -> String {
    match Expression::compile(source, scope, wanted) {
        Err(error) => error.to_string(),
        Ok(_) => panic!("accepted: {source}"),
    }
}

fn boolean(source: &str) -> Result<Option<bool>, RunError> {
    let expression = Expression::compile(source, &RULE, Wanted::Boolean)
        .unwrap_or_else(|error| panic!("{source}: {error}"));
    expression.boolean(&Inputs { values: &values(), previous: Some(&previous()), server: Some(&server()) })
}

fn number(source: &str) -> Result<Option<f64>, RunError> {
    let expression = Expression::compile(source, &RULE, Wanted::Number)
        .unwrap_or_else(|error| panic!("{source}: {error}"));
    expression.number(&Inputs { values: &values(), previous: Some(&previous()), server: Some(&server()) })
}

#[rstest]
#[case("values.temperature > 80", true)]
#[case("values.temperature > 84.5 && values.temperature < 85.5", true)]
#[case("values[\"temperature\"] == 85", true)]
#[case("values.throttled", true)]
#[case("!values.throttled", false)]
#[case("values.temperature - previous.temperature >= 5", true)]
#[case("has(values.temperature) && has(previous.temperature) && !has(previous.used)", true)]
#[case("values.booted == 3600", true)]
#[case("values.host.startsWith('gpu-') && values.host.endsWith(\".lab\") && values.host.contains('1')", true)]
#[case("values.host == server.name", false)]
#[case("size(values.host) == 9 && values.host.size() == 9", true)]
#[case("server.name == 'ollama-1' && server.namespace == 'team-a' && server.backendType == 'Ollama'", true)]
#[case("server.reachable && !server.inMaintenance", true)]
#[case("server.modelCount == 3 && !has(server.loadedCount) && server.vramUsed < server.vramCapacity", true)]
#[case("server.labels.tier in ['gold', 'silver']", true)]
#[case("server.labels['example.com/zone'] == 'b' && 'example.com/zone' in server.labels", true)]
#[case("has(server.labels.tier) && !has(server.labels.team) && size(server.labels) == 2", true)]
#[case("server.labels.exists(name, name.startsWith('example.com/'))", true)]
#[case("[values.temperature, values.used, 90].filter(t, t > 80).size() == 2", true)]
#[case("size([1, 2, 3].map(x, x * 2)) == 3 && !(4 in [1, 2])", true)]
#[case("[1, 2, 3].exists_one(x, x > 2)", true)]
#[case("[1, 2, 3].all(values_, values_ > 0)", true)]
#[case("server.reachable ? values.used > 10 : false", true)]
#[case("values.used > 10 // more than usual\n && true", true)]
fn conditions(#[case] source: &str, #[case] expected: bool) {
    assert_eq!(boolean(source), Ok(Some(expected)), "{source}");
}

#[rstest]
#[case("values.used * 100 / values.total", 75.0)]
#[case("double(values.used) / double(values.total)", 0.75)]
#[case("values.used / values.total", 0.0)]
#[case("int(7.9) + values.used % 7", 9.0)]
#[case("int(-7.9)", -7.0)]
#[case("max(values.used, values.total, 7) - min(values.used, values.total)", 10.0)]
#[case("max(1.5, 2.5) + abs(-1.5)", 4.0)]
#[case("abs(values.used - values.total)", 10.0)]
#[case("has(values.used) ? values.used : 0", 30.0)]
#[case("-values.used + 0x1f", 1.0)]
#[case("values.throttled ? 1 : 0", 1.0)]
#[case("-9223372036854775808", -9_223_372_036_854_775_808.0)]
fn numbers(#[case] source: &str, #[case] expected: f64) {
    assert_eq!(number(source), Ok(Some(expected)), "{source}");
}

#[rstest]
#[case::as_parsed("values.throttled == true", true)]
#[case::int_and_double("1 == 1.0 && 2 > 1.5 && 1.5 < 2 && 1 in [1.0, 2.0]", true)]
// Above 2^53 an int is compared as the double next to it.
#[case::large_int_and_double("9007199254740993 == 9007199254740992.0", true)]
fn comparisons(#[case] source: &str, #[case] expected: bool) {
    assert_eq!(boolean(source), Ok(Some(expected)), "{source}");
}

#[rstest]
#[case::needed("values.absent > 3", None)]
#[case::asked_for("has(values.absent) && values.absent > 3", Some(false))]
#[case::chosen("has(values.absent) ? values.absent > 3 : true", Some(true))]
#[case::decided_without("values.absent > 3 && 1 > 2", Some(false))]
#[case::decided_without_it_either("values.absent > 3 || 1 < 2", Some(true))]
#[case::not_decided("values.absent > 3 || 1 > 2", None)]
#[case::previous("previous.used > 3", None)]
#[case::label("server.labels.team == 'a'", None)]
#[case::field("server.loadedCount > 3", None)]
#[case::within_a_loop("[1, 2].all(x, x < values.absent)", None)]
fn what_is_absent_is_not_zero(#[case] source: &str, #[case] expected: Option<bool>) {
    let expression = Expression::compile(source, &OPEN, Wanted::Boolean).unwrap();
    let inputs = Inputs { values: &values(), previous: Some(&previous()), server: Some(&server()) };
    assert_eq!(expression.boolean(&inputs), Ok(expected));
    let empty = Inputs { values: &BTreeMap::new(), previous: None, server: None };
    assert_eq!(expression.boolean(&empty), Ok(expected));
}

#[rstest]
#[case("values.used / (values.total - 40)", RunError::DivisionByZero)]
#[case("values.used % (values.total - 40)", RunError::DivisionByZero)]
#[case("double(values.used) / 0.0", RunError::NotFinite)]
#[case("0.0 / double(values.total - 40)", RunError::NotFinite)]
#[case("double(values.used) > 1.0 / double(values.total - 40) ? 1 : 0", RunError::NotFinite)]
#[case("1e308 * double(values.used)", RunError::NotFinite)]
#[case("9223372036854775807 - 40 + values.total + values.used", RunError::Overflow)]
#[case("int(1e18 * double(values.used))", RunError::Overflow)]
#[case("(-9223372036854775807 - (values.used - 29)) / (values.total - 41)", RunError::Overflow)]
#[case("(-9223372036854775807 - (values.used - 29)) % (values.total - 41)", RunError::Overflow)]
#[case("-(-9223372036854775807 - (values.used - 29))", RunError::Overflow)]
#[case("abs(-9223372036854775807 - (values.used - 29))", RunError::Overflow)]
#[case("-9223372036854775807 - (values.used - 28)", RunError::Overflow)]
#[case("(9223372036854775807 - 40 + values.used) * values.used", RunError::Overflow)]
fn what_has_no_result(#[case] source: &str, #[case] expected: RunError) {
    assert_eq!(number(source), Err(expected), "{source}");
}

#[test]
fn a_value_of_another_type_is_an_error() {
    for (name, scalar) in [
        ("temperature", Scalar::Boolean(true)),
        ("throttled", Scalar::Integer(1)),
        ("booted", Scalar::Text("yesterday".to_owned())),
        ("host", Scalar::Integer(1)),
    ] {
        let expression = Expression::compile(
            "has(values.temperature) && values.temperature == 1 && values.throttled && values.booted == 1 && values.host == 'a'",
            &RULE,
            Wanted::Boolean,
        )
        .unwrap();
        let mut wrong = values();
        wrong.insert(name.to_owned(), scalar);
        let inputs = Inputs { values: &wrong, previous: None, server: None };
        assert_eq!(expression.boolean(&inputs), Err(RunError::WrongType), "{name}");
    }
}

#[test]
fn more_labels_than_are_searched_are_an_error() {
    let labels = (0..65).map(|n| (format!("l{n}"), String::new())).collect();
    let server = ServerFacts { labels, ..server() };
    let inputs = Inputs { values: &values(), previous: None, server: Some(&server) };
    let search = Expression::compile("'l64' in server.labels", &RULE, Wanted::Boolean).unwrap();
    assert_eq!(search.boolean(&inputs), Err(RunError::ManyLabels));
    let one = Expression::compile("has(server.labels.l64)", &RULE, Wanted::Boolean).unwrap();
    assert_eq!(one.boolean(&inputs), Ok(Some(true)));
}

#[test]
fn what_is_asked_must_be_what_was_compiled() {
    let inputs = Inputs { values: &values(), previous: None, server: None };
    let number = Expression::compile("1", &VALUE, Wanted::Number).unwrap();
    assert_eq!(number.boolean(&inputs), Err(RunError::Failed));
    let boolean = Expression::compile("true", &VALUE, Wanted::Boolean).unwrap();
    assert_eq!(boolean.number(&inputs), Err(RunError::Failed));
}

#[rstest]
#[case::empty(" \n ", "the expression is empty")]
#[case::name(
    "valeus.temperature > 1",
    "line 1, column 7: unknown name `valeus`; an expression may use values, previous and server"
)]
#[case::bare_name(
    "true &&\n  foo",
    "line 2, column 3: unknown name `foo`; an expression may use values, previous and server"
)]
#[case::value(
    "values.gpuTemp > 1",
    "line 1, column 7: `values.gpuTemp` is not one of the plugin's values: temperature, used, total, throttled, booted, host"
)]
#[case::value_in_quotes(
    "values['gpuTemp'] > 1",
    "line 1, column 7: `values.gpuTemp` is not one of the plugin's values: temperature, used, total, throttled, booted, host"
)]
#[case::previous(
    "previous.gpuTemp > 1",
    "line 1, column 9: `previous.gpuTemp` is not one of the plugin's values: temperature, used, total, throttled, booted, host"
)]
#[case::field(
    "server.vram > 1",
    "line 1, column 7: `server.vram` is unknown; there are labels, name, namespace, backendType, reachable, inMaintenance, modelCount, loadedCount, vramUsed, memoryCapacity, vramCapacity"
)]
#[case::field_of_a_value(
    "values.used.x > 1",
    "line 1, column 12: `values.used` is one value and has no fields"
)]
#[case::field_of_a_label(
    "server.labels.x.y == ''",
    "line 1, column 16: `server.labels.x` is one value and has no fields"
)]
#[case::field_of_an_element("[1].all(x, x.y > 1)", "line 1, column 13: `x` is one element and has no fields")]
#[case::whole_map("size(values) > 1", "line 1, column 6: `values` needs a name after it, like values.NAME")]
#[case::whole_server(
    "server == server",
    "line 1, column 1: `server` needs a name after it, like server.name"
)]
#[case::computed_key(
    "values[server.name] > 1",
    "line 1, column 7: `[ ]` after a value takes a name in quotes, as in values[\"name\"]"
)]
#[case::index(
    "[1, 2][0] > 1",
    "line 1, column 7: `[ ]` after a value takes a name in quotes, as in values[\"name\"]"
)]
#[case::function(
    "matches(values.host, 'a')",
    "line 1, column 8: unknown function `matches`; there are has, size, int, double, min, max, abs, startsWith, endsWith, contains, all, exists, exists_one, map and filter"
)]
#[case::method("values.host.matches('a')", "line 1, column 20: unknown function `matches`; there are")]
#[case::type_conversion("string(values.used) == '1'", "unknown function `string`")]
#[case::timestamp("timestamp('2020-01-01T00:00:00Z') == 1", "unknown function `timestamp`")]
#[case::internal("@finite(1.0) > 1", "line 1, column 1: this character only stands within quotes")]
#[case::second_loop(
    "[1].all(x, true) && [1].all(x, true)",
    "one of all, exists, exists_one, map and filter is allowed, once"
)]
#[case::loop_in_a_loop(
    "[1].all(x, [1].all(y, true))",
    "one of all, exists, exists_one, map and filter is allowed, once"
)]
#[case::loop_over_a_loop(
    "[1].map(x, x).all(x, true)",
    "one of all, exists, exists_one, map and filter is allowed, once"
)]
#[case::loop_over_a_number(
    "values.used.all(x, true)",
    "it goes through an int; a list or server.labels is needed"
)]
#[case::loop_hides_a_name("[1].all(values, values > 0)", "the element needs another name")]
#[case::element_outside("[1].all(x, x > 0) && x > 0", "unknown name `x`")]
#[case::text_of_texts(
    "values.host + 'a' == 'b'",
    "line 1, column 13: `+` does not go with a string and a string"
)]
#[case::list_of_lists_added("size([1] + [2]) > 1", "`+` does not go with a list and a list")]
#[case::nested_list("size([[1]]) > 1", "there are no lists of lists")]
#[case::mixed_list("1 in [1, 2.0]", "the elements of a list have one type")]
#[case::empty_list("1 in []", "this list is empty")]
#[case::map(
    "{'a': 1}.a == 1",
    "line 1, column 1: there are no maps and messages here; lists are written [1, 2]"
)]
#[case::unsigned("1u > 2", "write the number without `u`")]
#[case::null(
    "values.used == null",
    "nothing is null here; write has(values.NAME) to see whether it is there"
)]
#[case::raw_text("values.host == r'a'", "line 1, column 17: write a space before a quote")]
#[case::three_quotes("values.host == '''a'''", "a text is written with one quote before and after it")]
#[case::open_text("values.host == 'a", "line 1, column 16: this text has no end on its line")]
#[case::open_bracket("(1 > 2", "line 1, column 1: this bracket has no `)`")]
#[case::wrong_bracket("(1 > 2]", "line 1, column 7: `]` closes nothing")]
#[case::single_equals("values.used = 1", "line 1, column 13: `=` is no operator; equal is written `==`")]
#[case::single_and("true & false", "line 1, column 6: `&` is no operator; and is written `&&`")]
#[case::single_or("true | false", "line 1, column 6: `|` is no operator; or is written `||`")]
#[case::unfinished("values.used >", "line 1, column 14: the end is not expected here")]
#[case::two_parts("values.used 1", "line 1, column 13: '1' is not expected here")]
#[case::optional("values.?used == 1", "line 1, column 7: unsupported syntax '.?'")]
#[case::has_of_a_name("has(values)", "line 1, column 5: invalid argument to has() macro")]
#[case::arithmetic_mixed(
    "values.used * 1.5 > 1.0",
    "line 1, column 13: int and double do not mix; write 2.0 instead of 2, or double(x)"
)]
#[case::max_mixed("max(values.used, 1.5) > 1.0", "int and double do not mix")]
#[case::max_of_one("max(values.used) > 1", "max() takes two numbers or more")]
#[case::arms_mixed(
    "(true ? 1 : 'a') == 1",
    "`? :` gives either an int or a string; both must be of one type"
)]
#[case::branch_not_taken(
    "values.throttled ? values.host > 1 : true",
    "`>` does not go with a string and an int"
)]
#[case::never_equal("values.host == 1", "`==` does not go with a string and an int")]
#[case::texts_in_order("values.host < 'b'", "`<` does not go with a string and a string")]
#[case::negated_number("!values.used", "`!` takes a bool")]
#[case::and_of_numbers("values.used && true", "`&&` takes two bools")]
#[case::in_a_text("'a' in values.host", "`in` looks for one element in a list, not for a string in a string")]
#[case::result("values.used + 1", "the expression gives an int; a bool is needed")]
#[case::overflow(
    "9223372036854775807 + 1 > 0",
    "the expression fails when every value is 0, false or empty: a number does not fit 64 bits"
)]
#[case::too_large("9223372036854775808 > 0", "line 1, column 1: invalid int literal")]
#[case::infinite("1e999 > 0.0", "line 1, column 1: invalid double literal")]
fn refused(#[case] source: &str, #[case] message: &str) {
    let refusal = refusal(source, &RULE, Wanted::Boolean);
    assert!(refusal.contains(message), "{source}\n{refusal}\n{message}");
}

#[test]
fn a_number_is_not_a_text_and_a_value_is_no_rule() {
    let text = refusal("'a'", &VALUE, Wanted::Number);
    assert_eq!(text, "the expression gives a string; a number is needed");
    let truth = refusal("values.used > 1", &VALUE, Wanted::Number);
    assert_eq!(truth, "the expression gives a bool; a number is needed");
    let server = refusal("server.modelCount", &VALUE, Wanted::Number);
    assert!(server.ends_with("only a rule may use `server`; a value may use values"), "{server}");
    let none = Scope { values: &[], open: false, rule: false };
    let none = refusal("values.used", &none, Wanted::Number);
    assert!(
        none.ends_with(
            "`values.used` is not one of the plugin's values: there is none that can be used here"
        ),
        "{none}"
    );
    let names: Vec<String> = (0..9).map(|n| format!("v{n}")).collect();
    let many: Vec<(&str, ValueType)> = names.iter().map(|name| (name.as_str(), ValueType::Integer)).collect();
    let many = refusal("values.used", &Scope { values: &many, open: false, rule: false }, Wanted::Number);
    assert!(many.ends_with("v6, v7, …"), "{many}");
}

#[test]
fn threads_share_expressions() {
    fn shared<T: Send + Sync + 'static>() {}
    shared::<Expression>();
}
