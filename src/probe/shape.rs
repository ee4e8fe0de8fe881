//! Whose answer it is: JSON of the API that is wanted, of another one, or a page. Pure.

use super::failure::Failure;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, MapAccess, SeqAccess, Visitor},
};
use std::fmt;

/// Keys of an object that are looked at.
const KEYS_MAX: usize = 64;

/// An answer of the API that is wanted. What is a page, or JSON without `key`, is of another API; what has the key and is
/// not as promised is a broken answer of this one.
pub(super) fn parse<T: DeserializeOwned>(body: &[u8], key: &str) -> Result<T, Failure> {
    serde_json::from_slice(body)
        .map_err(|_| if is_foreign(body, key) { Failure::NotOllama } else { Failure::InvalidResponse })
}

fn is_foreign(body: &[u8], key: &str) -> bool {
    if is_page(body) {
        return true;
    }
    // Whole JSON, and no object with the key. A bare null is nobody's API.
    match serde_json::from_slice(body) {
        Ok(Shape::Object(keys)) => !keys.iter().any(|known| known == key),
        Ok(Shape::Other) => true,
        Ok(Shape::Null) | Err(_) => false,
    }
}

/// Whether it is HTML or XML: no JSON begins so.
pub(super) fn is_page(body: &[u8]) -> bool {
    let text = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body);
    text.trim_ascii_start().first() == Some(&b'<')
}

/// What a JSON value is, without what is in it. Nested deeper than any API's answer it is an error, as `serde_json` counts.
enum Shape {
    /// With its first keys.
    Object(Vec<String>),
    Null,
    Other,
}

impl<'de> Deserialize<'de> for Shape {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct ShapeVisitor;
        impl<'de> Visitor<'de> for ShapeVisitor {
            type Value = Shape;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("anything")
            }
            fn visit_bool<E>(self, _: bool) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_unit<E>(self) -> Result<Shape, E> {
                Ok(Shape::Null)
            }
            fn visit_i64<E>(self, _: i64) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_u64<E>(self, _: u64) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_f64<E>(self, _: f64) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_str<E>(self, _: &str) -> Result<Shape, E> {
                Ok(Shape::Other)
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Shape, A::Error> {
                while seq.next_element::<Shape>()?.is_some() {}
                Ok(Shape::Other)
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Shape, A::Error> {
                let mut keys = Vec::new();
                while let Some((key, _)) = map.next_entry::<String, Shape>()? {
                    if keys.len() < KEYS_MAX {
                        keys.push(key);
                    }
                }
                Ok(Shape::Object(keys))
            }
        }
        deserializer.deserialize_any(ShapeVisitor)
    }
}
