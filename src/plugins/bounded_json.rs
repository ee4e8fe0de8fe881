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

/// Reads an answer; too many values are [`Failure::ResponseTooLarge`], and what is no JSON [`Failure::InvalidResponse`].
pub fn parse(body: &[u8]) -> Result<Value, Failure> {
    let left = Cell::new(VALUES_MAX);
    let mut source = serde_json::Deserializer::from_slice(body);
    let parsed = (&mut source).deserialize_any(Bounded { left: &left });
    let ended = parsed.and_then(|value| source.end().map(|()| value));
    ended.map_err(|_| if left.get() == 0 { Failure::ResponseTooLarge } else { Failure::InvalidResponse })
}

/// Makes values while there are some left to make.
#[derive(Clone, Copy)]
struct Bounded<'a> {
    left: &'a Cell<usize>,
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
        let mut items = Vec::new();
        while let Some(item) = seq.next_element_seed(self)? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(self)?;
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
