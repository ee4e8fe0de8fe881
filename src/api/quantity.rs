//! Kubernetes quantities: `16Gi`, `100m`, `1.5e3`, or a bare integer.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize};
use std::borrow::Cow;

/// A quantity as it stands in an object. The apiserver has checked it; [`Quantity::value`] still returns `None` for
/// what is none, because an object may be older than the schema.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Quantity(pub String);

impl Quantity {
    /// `bytes` as a whole number of Mi, rounded up, as every size in status is written.
    pub fn from_bytes_mi(bytes: u64) -> Self {
        Self(format!("{}Mi", bytes.div_ceil(1 << 20)))
    }

    /// The quantity as a plain number, `100m` being 0.1. `None` if it is not a quantity.
    pub fn value(&self) -> Option<f64> {
        parse(&self.0)
    }

    /// The quantity as a count of bytes, rounded down; `None` if it is not one or is negative.
    pub fn bytes(&self) -> Option<u64> {
        let value = self.value()?;
        // f64 holds whole bytes exactly up to 8 PiB, far above any memory or disk that this describes.
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
        (value.is_finite() && (0.0..=9.0e18).contains(&value)).then_some(value as u64)
    }
}

fn parse(text: &str) -> Option<f64> {
    const SUFFIXES: [(&str, f64); 15] = [
        ("Ki", 1024.0),
        ("Mi", 1_048_576.0),
        ("Gi", 1_073_741_824.0),
        ("Ti", 1_099_511_627_776.0),
        ("Pi", 1_125_899_906_842_624.0),
        ("Ei", 1_152_921_504_606_846_976.0),
        ("n", 1e-9),
        ("u", 1e-6),
        ("m", 1e-3),
        ("k", 1e3),
        ("M", 1e6),
        ("G", 1e9),
        ("T", 1e12),
        ("P", 1e15),
        ("E", 1e18),
    ];
    // The longest quantity that means anything is far shorter; a bound keeps hostile text cheap.
    if text.is_empty() || text.len() > 64 {
        return None;
    }
    let (number, factor) = SUFFIXES
        .iter()
        .find_map(|(suffix, factor)| text.strip_suffix(suffix).map(|number| (number, *factor)))
        .unwrap_or((text, 1.0));
    let plain = number.bytes().all(|b| b.is_ascii_digit() || matches!(b, b'.' | b'+' | b'-' | b'e' | b'E'));
    if !plain || number.is_empty() {
        return None;
    }
    number.parse::<f64>().ok().map(|value| value * factor).filter(|value| value.is_finite())
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum IntOrString {
            Int(i64),
            Text(String),
        }
        Ok(match IntOrString::deserialize(deserializer)? {
            IntOrString::Int(number) => Self(number.to_string()),
            IntOrString::Text(text) => Self(text),
        })
    }
}

impl JsonSchema for Quantity {
    fn schema_name() -> Cow<'static, str> {
        "Quantity".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "x-kubernetes-int-or-string": true, "maxLength": 64 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("16Gi", Some(17_179_869_184.0))]
    #[case("100m", Some(0.1))]
    #[case("1", Some(1.0))]
    #[case("1.5e3", Some(1500.0))]
    #[case("1E", Some(1e18))]
    #[case("-1", Some(-1.0))]
    #[case("", None)]
    #[case("Gi", None)]
    #[case("1Qi", None)]
    #[case("inf", None)]
    #[case("nan", None)]
    fn quantities_are_read(#[case] text: &str, #[case] value: Option<f64>) {
        assert_eq!(Quantity(text.into()).value(), value);
    }

    #[rstest]
    #[case(0, "0Mi")]
    #[case(1, "1Mi")]
    #[case(1_048_576, "1Mi")]
    #[case(1_048_577, "2Mi")]
    #[case(8_321_499_136, "7936Mi")]
    fn bytes_are_written_as_whole_mi_rounded_up(#[case] bytes: u64, #[case] text: &str) {
        assert_eq!(Quantity::from_bytes_mi(bytes).0, text);
    }
}
