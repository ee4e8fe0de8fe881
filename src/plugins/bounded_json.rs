//! JSON from strangers: no more of it becomes an object than any agent has reason to say, and only what the plugin can
//! reach. Pure.
//!
//! A body of 1 MiB may hold 100,000 tiny objects, each some hundred times as large in memory as on the wire, and paths
//! are looked for in all of them. What no path reaches is read over, and counts for nothing.
//!
//! NaN and the infinities are no JSON, and many programs write them: Python's json, and C's printf. They are null, as what
//! is known of the rest is no less true.

use super::filter::Filter;
use crate::probe::AgentFailure;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::{cell::Cell, fmt};

/// Values that one answer may have, lists and objects included. A machine with hundreds of sensors has a few thousand.
const VALUES_MAX: usize = 20_000;
/// Lists and objects that stand in each other. Agents have a handful; `$..a..a` finds a value once for each of them.
const DEPTH_MAX: usize = 32;
/// Longest name of a field. Machines have disks and devices under their paths, which Linux ends here; wildcards find
/// what is under a name that is too long to be written into a path.
const KEY_MAX: usize = 4096;

/// Reads of an answer what the filter keeps; too many values, or too long a name, are too large, and what is no JSON is
/// invalid, and says where.
pub fn parse(body: &[u8], filter: &Filter) -> Result<Value, AgentFailure> {
    let failure = match parse_strictly(body, filter) {
        Ok(value) => return Ok(value),
        Err(failure) => failure,
    };
    // Few answers have them, so that others are not looked through.
    with_unknown_numbers(body).map_or(Err(failure), |body| parse_strictly(&body, filter))
}

fn parse_strictly(body: &[u8], filter: &Filter) -> Result<Value, AgentFailure> {
    let left = Cell::new(VALUES_MAX);
    let mut source = serde_json::Deserializer::from_slice(body);
    let parsed = (&mut source).deserialize_any(Bounded { left: &left, depth: 0, filter });
    let ended = parsed.and_then(|value| source.end().map(|()| value));
    ended.map_err(|error| if left.get() == 0 { too_large() } else { not_json(body, &error) })
}

fn too_large() -> AgentFailure {
    AgentFailure::too_large(&format!(
        "more than {VALUES_MAX} values of the answer are within the plugin's reach, or a name has more than {KEY_MAX} bytes; name what to keep by narrower paths in agent.values"
    ))
}

/// What the answer is, where it is known, else where it stops being JSON.
fn not_json(body: &[u8], error: &serde_json::Error) -> AgentFailure {
    match body.trim_ascii_start().first() {
        None => AgentFailure::invalid("the answer is empty"),
        Some(b'<') => AgentFailure::invalid("the answer is a page (HTML or XML), not JSON"),
        Some(_) if error.is_data() => AgentFailure::invalid("the answer is JSON in too many levels"),
        Some(_) => {
            let (line, column) = (error.line(), error.column());
            AgentFailure::invalid(&format!("the answer is not JSON (line {line}, column {column})"))
        }
    }
}

/// The same with null for each unknown number that stands outside of a text; `None` if there is none.
fn with_unknown_numbers(body: &[u8]) -> Option<Vec<u8>> {
    let of_word = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.' | b'_');
    let mut mended: Option<Vec<u8>> = None;
    let mut taken = 0;
    let mut at = 0;
    while at < body.len() {
        if body[at] == b'"' {
            at += 1;
            while at < body.len() && body[at] != b'"' {
                at += if body[at] == b'\\' { 2 } else { 1 };
            }
            at += 1;
        } else if of_word(body[at]) {
            let word = &body[at..];
            let word = &word[..word.iter().position(|byte| !of_word(*byte)).unwrap_or(word.len())];
            if is_unknown_number(word) {
                let mended = mended.get_or_insert_with(|| Vec::with_capacity(body.len() + 64));
                mended.extend_from_slice(&body[taken..at]);
                mended.extend_from_slice(b"null");
                taken = at + word.len();
            }
            at += word.len();
        } else {
            at += 1;
        }
    }
    mended.map(|mut mended| {
        mended.extend_from_slice(body.get(taken..).unwrap_or_default());
        mended
    })
}

/// NaN and the infinities in every way that programs write them, and a number that is larger than any.
fn is_unknown_number(word: &[u8]) -> bool {
    let number = str::from_utf8(word).ok().and_then(|word| word.parse::<f64>().ok());
    number.is_some_and(|number| !number.is_finite())
}

/// Makes values while there are some left to make.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    left: &'a Cell<usize>,
    /// Lists and objects around the value.
    depth: usize,
    /// What is kept of it.
    filter: &'a Filter,
}

impl Bounded<'_> {
    /// For what stands inside this value.
    fn deeper<E: Error>(self) -> Result<Self, E> {
        let depth = self.depth + 1;
        if depth > DEPTH_MAX { Err(E::custom("too deep")) } else { Ok(Self { depth, ..self }) }
    }
}

impl<'de> DeserializeSeed<'de> for Bounded<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, source: D) -> Result<Value, D::Error> {
        match self.left.get().checked_sub(1) {
            Some(left) if left > 0 => self.left.set(left),
            _ => {
                self.left.set(0);
                return Err(D::Error::custom("too many values"));
            }
        }
        source.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Bounded<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Number::from_f64(value).map_or(Value::Null, Value::Number))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut items = Vec::new();
        match self.filter.items() {
            Some(filter) => {
                while let Some(item) = seq.next_element_seed(Bounded { filter, ..inside })? {
                    items.push(item);
                }
            }
            None => while seq.next_element::<IgnoredAny>()?.is_some() {},
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let Some(filter) = self.filter.field(&key) else {
                map.next_value::<IgnoredAny>()?;
                continue;
            };
            if key.len() > KEY_MAX {
                self.left.set(0);
                return Err(A::Error::custom("too long a name"));
            }
            let value = map.next_value_seed(Bounded { filter, ..inside })?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::probe::Failure;
    use proptest::prelude::*;
    use serde_json::json;

    /// All of it, or the class of why not.
    fn parsed(body: &[u8]) -> Result<Value, Failure> {
        parse(body, &Filter::All).map_err(|failure| failure.class)
    }

    /// What Python 3.12's json and hand-written C send for what they do not know, beside what they know.
    #[test]
    fn unknown_numbers_are_not_the_end_of_an_answer() {
        let body = r#"{"a":NaN,"b":[Infinity,-Infinity,-nan,1e999,1],"NaN":"NaN, \"NaN","c":2}"#;
        let expected = json!({"a": null, "b": [null, null, null, null, 1], "NaN": "NaN, \"NaN", "c": 2});
        assert_eq!(parsed(body.as_bytes()), Ok(expected));
        for body in ["{\"a\":NaNo}", "{\"a\":xNaN}", "NaN,", "[NaN", "{\"a\": NaN \"b}"] {
            assert_eq!(parsed(body.as_bytes()), Err(Failure::InvalidResponse), "{body}");
        }
    }

    /// Glances 4.5.8 on a desktop with 500 processes: `/api/4/all` has 352 KB and more than 20,000 values.
    #[test]
    fn what_no_path_reaches_costs_nothing() {
        let process = r#"{"pid":1,"cpu_times":[1,2,3,4,5],"memory_info":{"rss":1,"vms":2},"name":"a","status":"S","gids":[1,2,3],"io_counters":[0,0,0,0,0],"cmdline":["a","b","c"],"key":"pid","time_since_update":1.5,"nice":0,"num_threads":1,"username":"u","cpu_percent":0.1,"memory_percent":0.1,"e":[1,2,3,4,5,6,7,8,9]}"#;
        let body = format!(
            "{{\"processlist\":[{}],\"cpu\":{{\"total\":7.5,\"idle\":92.5}}}}",
            vec![process; 500].join(",")
        );
        assert_eq!(parsed(body.as_bytes()), Err(Failure::ResponseTooLarge));
        let filter = Filter::of(["$.cpu.total"].into_iter());
        assert_eq!(parse(body.as_bytes(), &filter), Ok(json!({"cpu": {"total": 7.5}})));
        // It is read over, and not past what is no JSON.
        let broken = body.replacen("\"pid\":1", "\"pid\":", 1);
        assert_eq!(parse(broken.as_bytes(), &filter).unwrap_err().class, Failure::InvalidResponse);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let message = |body: &str| parse(body.as_bytes(), &Filter::All).unwrap_err().message().to_owned();
        assert_eq!(message("{\n  \"a\": 1,\n  \"b\": }"), "the answer is not JSON (line 3, column 8)");
        assert_eq!(message("<!doctype html>"), "the answer is a page (HTML or XML), not JSON");
        assert_eq!(message(" \n"), "the answer is empty");
        assert_eq!(message(&"[".repeat(40)), "the answer is JSON in too many levels");
        assert!(message(&format!("[{}0]", "0,".repeat(VALUES_MAX))).starts_with("more than 20000 values"));
    }

    #[test]
    fn an_answer_is_read_as_it_is() {
        let answer = json!({"a": [1, -2, 3.5, true, null, "text"], "b": {"c": {}}, "d": 18_446_744_073_709_551_615_u64});
        assert_eq!(parsed(answer.to_string().as_bytes()), Ok(answer));
    }

    #[test]
    fn too_many_values_are_too_large() {
        let list = |items: usize| format!("[{}0]", "0,".repeat(items - 1)).into_bytes();
        assert!(parsed(&list(VALUES_MAX - 1)).is_ok());
        assert_eq!(parsed(&list(VALUES_MAX)), Err(Failure::ResponseTooLarge));
        let objects = format!("[{}0]", r#"{"":0},"#.repeat(VALUES_MAX));
        assert_eq!(parsed(objects.as_bytes()), Err(Failure::ResponseTooLarge));
    }

    #[test]
    fn too_long_a_name_is_too_large() {
        let object = |length: usize| format!("{{\"{}\": 1}}", "k".repeat(length)).into_bytes();
        assert!(parsed(&object(KEY_MAX)).is_ok());
        assert_eq!(parsed(&object(KEY_MAX + 1)), Err(Failure::ResponseTooLarge));
    }

    #[test]
    fn what_is_too_deep_is_invalid() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
        assert!(parsed(&deep(DEPTH_MAX)).is_ok());
        assert_eq!(parsed(&deep(DEPTH_MAX + 1)), Err(Failure::InvalidResponse));
        let wide = format!("{{\"a\":[{}0]}}", "[[1]],".repeat(100));
        assert!(parsed(wide.as_bytes()).is_ok(), "only what stands in each other counts");
    }

    #[test]
    fn what_is_no_json_is_invalid() {
        for body in ["", "{", "[1] 2", "node_load1 0.21", &"[".repeat(10_000)] {
            assert_eq!(parsed(body.as_bytes()), Err(Failure::InvalidResponse), "{body:.20}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parsed(&body);
            let filter = Filter::of(["$.a[0].b"].into_iter());
            let _ = parse(&body, &filter);
        }
    }
}
