//! Variables in text, as compose files and `.env` files have them: `$NAME`, `${NAME}`, `${NAME:-default}` and the
//! other forms, `$$` for a dollar. It knows only the variables it is given, never those of the process.

/// Deeper nested defaults are nobody's configuration.
const DEPTH: usize = 16;

/// What became of a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interpolated {
    pub text: String,
    /// Variables that are used and not set; they are read as empty, as compose reads them.
    pub unset: Vec<String>,
}

/// `text` with its variables replaced by what `lookup` knows. The error is fixed words: the text may hold a secret.
pub fn interpolate(text: &str, lookup: &dyn Fn(&str) -> Option<String>) -> Result<Interpolated, String> {
    let mut unset = Vec::new();
    let text = expand(text, lookup, &mut unset, 0)?;
    Ok(Interpolated { text, unset })
}

fn expand(
    text: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    if depth > DEPTH {
        return Err("its variables are nested too deep".to_owned());
    }
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        if let Some(after) = after.strip_prefix('$') {
            out.push('$');
            rest = after;
        } else if let Some(braced) = after.strip_prefix('{') {
            let end = closing(braced).ok_or("it has a ${ without its }")?;
            out.push_str(&braces(&braced[..end], lookup, unset, depth)?);
            rest = &braced[end + 1..];
        } else {
            let (name, after) = split_name(after);
            if name.is_empty() {
                return Err("it has a $ that begins no variable; write $$ for a dollar, or use single quotes in a .env file".to_owned());
            }
            out.push_str(&value_of(name, lookup, unset));
            rest = after;
        }
    }
    out.push_str(rest);
    Ok(out)
}

/// What is between `${` and `}`.
fn braces(
    inner: &str,
    lookup: &dyn Fn(&str) -> Option<String>,
    unset: &mut Vec<String>,
    depth: usize,
) -> Result<String, String> {
    let (name, operator) = split_name(inner);
    if name.is_empty() {
        return Err("it has a ${} without the name of a variable".to_owned());
    }
    let value = lookup(name);
    // With a colon an empty value counts as none.
    let (kind, operand, value) = match operator.strip_prefix(':') {
        Some(rest) => (rest.chars().next(), rest.get(1..), value.filter(|value| !value.is_empty())),
        None => (operator.chars().next(), operator.get(1..), value),
    };
    let operand = operand.unwrap_or_default();
    match (kind, value) {
        (None, _) if operator.is_empty() => Ok(value_of(name, lookup, unset)),
        (Some('-' | '?'), Some(value)) => Ok(value),
        (Some('-'), None) | (Some('+'), Some(_)) => expand(operand, lookup, unset, depth + 1),
        (Some('+'), None) => Ok(String::new()),
        (Some('?'), None) => Err(format!("it needs the variable {name}, which is not set")),
        _ => Err(format!("it uses the variable {name} in a form that compose does not have")),
    }
}

fn value_of(name: &str, lookup: &dyn Fn(&str) -> Option<String>, unset: &mut Vec<String>) -> String {
    lookup(name).unwrap_or_else(|| {
        unset.push(name.to_owned());
        String::new()
    })
}

fn split_name(text: &str) -> (&str, &str) {
    if text.starts_with(|c: char| c.is_ascii_digit()) {
        return ("", text);
    }
    text.split_at(text.find(|c: char| c != '_' && !c.is_ascii_alphanumeric()).unwrap_or(text.len()))
}

/// Where the brace is that closes; a default may be JSON, with braces of its own.
fn closing(text: &str) -> Option<usize> {
    let mut open = 1_usize;
    for (index, byte) in text.bytes().enumerate() {
        match byte {
            b'{' => open += 1,
            b'}' => open -= 1,
            _ => {}
        }
        if open == 0 {
            return Some(index);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;
    use rstest::rstest;

    fn known(name: &str) -> Option<String> {
        match name {
            "A" => Some("a".to_owned()),
            "EMPTY" => Some(String::new()),
            "MONEY" => Some("$A".to_owned()),
            _ => None,
        }
    }

    #[rstest]
    #[case("plain", "plain")]
    #[case("$A-${A}", "a-a")]
    #[case("$$A", "$A")]
    #[case("${NONE:-x}${NONE-y}", "xy")]
    #[case("${EMPTY:-x}${EMPTY-y}", "x")]
    #[case("${A:+set}${NONE:+set}${EMPTY:+set}${EMPTY+set}", "setset")]
    #[case("${A:?no}${EMPTY?no}", "a")]
    #[case("${NONE:-${OTHER:-[{\"n\":\"$A\"}]}}!", "[{\"n\":\"a\"}]!")]
    #[case("$MONEY", "$A")]
    fn variables_are_replaced_as_compose_does(#[case] text: &str, #[case] expected: &str) {
        assert_eq!(interpolate(text, &known).unwrap().text, expected);
    }

    #[test]
    fn unset_variables_are_empty_and_named() {
        let found = interpolate("x${NONE}$OTHER", &known).unwrap();
        assert_eq!(found, Interpolated { text: "x".into(), unset: vec!["NONE".into(), "OTHER".into()] });
    }

    #[rstest]
    #[case("${A")]
    #[case("${}")]
    #[case("$")]
    #[case("$1")]
    #[case("${A!x}")]
    #[case("${NONE:?secret}")]
    #[case("${EMPTY:?secret}")]
    fn what_is_no_variable_is_refused_without_showing_it(#[case] text: &str) {
        assert!(!interpolate(text, &known).unwrap_err().contains("secret"));
    }

    #[test]
    fn nesting_is_bounded() {
        let deep = format!("{}x{}", "${NONE:-".repeat(5000), "}".repeat(5000));
        assert!(interpolate(&deep, &known).is_err());
    }
}
