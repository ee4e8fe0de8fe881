//! JSON from strangers: no more of it becomes an object than any agent has reason to say. Pure.
//!
//! A body of 1 MiB may hold 100,000 tiny objects, each some hundred times as large in memory as on the wire, and paths
//! are looked for in all of them.

use crate::probe::Failure;
use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::{cell::Cell, fmt};

/// Values that one answer may have, lists and objects included. A machine with hundreds of sensors has a few thousand.
const VALUES_MAX: usize = 20_000;
/// Lists and objects that stand in each other. Agents have a handful; `$..a..a` finds a value once for each of them.
const DEPTH_MAX: usize = 32;

/// Reads an answer; too many values are [`Failure::ResponseTooLarge`], and what is no JSON [`Failure::InvalidResponse`].
pub fn parse(body: &[u8]) -> Result<Value, Failure> {
    let left = Cell::new(VALUES_MAX);
    let mut source = serde_json::Deserializer::from_slice(body);
    let parsed = (&mut source).deserialize_any(Bounded { left: &left, depth: 0 });
    let ended = parsed.and_then(|value| source.end().map(|()| value));
    ended.map_err(|_| if left.get() == 0 { Failure::ResponseTooLarge } else { Failure::InvalidResponse })
}

/// Makes values while there are some left to make.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    left: &'a Cell<usize>,
    /// Lists and objects around the value.
    depth: usize,
}

impl Bounded<'_> {
    /// For what stands inside this value.
    fn inside<E: Error>(self) -> Result<Self, E> {
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
        let inside = self.inside()?;
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(inside)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let inside = self.inside()?;
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(inside)?;
            fields.insert(key, value);
        }
        Ok(Value::Object(fields))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    #[test]
    fn an_answer_is_read_as_it_is() {
        let answer = json!({"a": [1, -2, 3.5, true, null, "text"], "b": {"c": {}}, "d": 18_446_744_073_709_551_615_u64});
        assert_eq!(parse(answer.to_string().as_bytes()), Ok(answer));
    }

    #[test]
    fn too_many_values_are_too_large() {
        let list = |items: usize| format!("[{}0]", "0,".repeat(items - 1)).into_bytes();
        assert!(parse(&list(VALUES_MAX - 1)).is_ok());
        assert_eq!(parse(&list(VALUES_MAX)), Err(Failure::ResponseTooLarge));
        let objects = format!("[{}0]", r#"{"":0},"#.repeat(VALUES_MAX));
        assert_eq!(parse(objects.as_bytes()), Err(Failure::ResponseTooLarge));
    }

    #[test]
    fn what_is_too_deep_is_invalid() {
        let deep = |depth: usize| format!("{}1{}", "[".repeat(depth), "]".repeat(depth)).into_bytes();
        assert!(parse(&deep(DEPTH_MAX)).is_ok());
        assert_eq!(parse(&deep(DEPTH_MAX + 1)), Err(Failure::InvalidResponse));
        let wide = format!("{{\"a\":[{}0]}}", "[[1]],".repeat(100));
        assert!(parse(wide.as_bytes()).is_ok(), "only what stands in each other counts");
    }

    #[test]
    fn what_is_no_json_is_invalid() {
        for body in ["", "{", "[1] 2", "node_load1 0.21", &"[".repeat(10_000)] {
            assert_eq!(parse(body.as_bytes()), Err(Failure::InvalidResponse), "{body:.20}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..512)) {
            let _ = parse(&body);
        }
    }
}
