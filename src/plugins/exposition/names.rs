//! Names in UTF-8 and the forms in which exporters write them. Pure.
//!
//! Who asks for `escaping=allow-utf-8` gets `{"gpu.temperature"} 1`; exporters that do not know it, or were told
//! otherwise, write underscores, or the encoding that begins with `U__`. This is what `EscapeName` of Prometheus' Go
//! client does (common 0.66), and the Python client since 0.22 likewise.

use std::{borrow::Cow, fmt::Write};

/// What is asked for where a plugin wants a name that the classic text format cannot write: the text formats of
/// Prometheus' own Accept header. `OpenMetrics` is left out, as it renames counters.
pub const ACCEPT_UTF8: &str =
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.9,text/plain;version=0.0.4;q=0.8,*/*;q=0.1";

/// A name that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Name<'a> {
    pub as_wanted: &'a str,
    /// Other ways to write it, best first; none for a name that every exporter writes as it is.
    pub escaped: Vec<String>,
}

impl<'a> Name<'a> {
    pub fn new(as_wanted: &'a str) -> Self {
        let escaped = if is_classic(as_wanted) {
            Vec::new()
        } else {
            vec![with_underscores(as_wanted), with_values(as_wanted)]
        };
        Self { as_wanted, escaped }
    }

    /// All forms, as it is wanted first.
    pub fn into_forms(self) -> impl Iterator<Item = Cow<'a, str>> {
        [Cow::Borrowed(self.as_wanted)].into_iter().chain(self.escaped.into_iter().map(Cow::Owned))
    }
}

/// Whether a name can be written without quotes, in every version of the format.
pub fn is_classic(name: &str) -> bool {
    !name.is_empty() && name.chars().enumerate().all(fits)
}

fn fits((place, c): (usize, char)) -> bool {
    c.is_ascii_alphabetic() || matches!(c, '_' | ':') || (place > 0 && c.is_ascii_digit())
}

fn with_underscores(name: &str) -> String {
    name.chars().enumerate().map(|(place, c)| if fits((place, c)) { c } else { '_' }).collect()
}

fn with_values(name: &str) -> String {
    let mut escaped = String::from("U__");
    for (place, c) in name.chars().enumerate() {
        if c == '_' {
            escaped.push_str("__");
        } else if fits((place, c)) {
            escaped.push(c);
        } else {
            // Writing into a String cannot fail.
            let _ = write!(escaped, "_{:x}_", u32::from(c));
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    #[rstest]
    #[case("node_load1", &["node_load1"])]
    #[case("job:rate5m", &["job:rate5m"])]
    #[case("gpu.temperature", &["gpu.temperature", "gpu_temperature", "U__gpu_2e_temperature"])]
    #[case("a_b.c", &["a_b.c", "a_b_c", "U__a__b_2e_c"])]
    #[case("1st", &["1st", "_st", "U___31_st"])]
    #[case("größe", &["größe", "gr__e", "U__gr_f6__df_e"])]
    fn a_name_has_the_forms_that_exporters_write(#[case] name: &str, #[case] forms: &[&str]) {
        assert_eq!(Name::new(name).into_forms().collect::<Vec<_>>(), forms);
    }
}
