//! `.env` files as compose reads them: `export`, comments, three ways of quoting, values over several lines; and files of
//! `format: raw`, which are taken as they are written. Compared with compose-go 3.0.0-alpha.4 (`dotenv/parser.go`) and, for
//! raw ones, with docker/cli's `pkg/kvfile`, which compose takes for them.
//!
//! The libraries for this read variables of the process while they parse, take the quotes out of unquoted JSON, or stop
//! silently where they do not understand; here the file alone decides, and what is not understood is an error.

use super::interpolate::{Interpolated, interpolate};
use std::collections::BTreeMap;

/// The variables of a file by name. One whose value cannot be read is an error only for whom needs it.
pub type Variables = BTreeMap<String, Result<Interpolated, String>>;

/// What a variable of `variables` says, if it can be read.
pub fn lookup(variables: &Variables, name: &str) -> Option<String> {
    variables.get(name)?.as_ref().ok().map(|value| value.text.clone())
}

/// Reads a file. Variables in values are looked up in `outer`, then among those further up in the file.
pub fn parse(text: &str, outer: &Variables) -> Result<Variables, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text).replace("\r\n", "\n");
    let mut variables = Variables::new();
    let mut rest = text.as_str();
    loop {
        rest = rest.trim_start();
        if rest.is_empty() {
            return Ok(variables);
        }
        if rest.starts_with('#') {
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        }
        let line = text[..text.len() - rest.len()].matches('\n').count() + 1;
        let at_line = |message: &str| format!("line {line}: {message}");
        let (key, after) = key(rest).map_err(at_line)?;
        let Some(after) = after else {
            // `export NAME` hands a variable of the process on; that process is not this one.
            rest = rest.split_once('\n').map_or("", |(_, after)| after);
            continue;
        };
        let (value, after) = value(after).map_err(at_line)?;
        let known = |name: &str| lookup(outer, name).or_else(|| lookup(&variables, name));
        let value = match value {
            Value::Literal(text) => Ok(Interpolated { text, unset: Vec::new() }),
            Value::Template(text) => interpolate(&text, &known),
        };
        variables.insert(key.to_owned(), value);
        rest = after;
    }
}

/// Reads a file of `format: raw`: a variable a line, without quotes, comments behind values, or variables in values.
pub fn parse_raw(text: &str) -> Result<Variables, String> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let mut variables = Variables::new();
    for (index, line) in text.lines().enumerate() {
        // What is behind the value belongs to it.
        let line = line.trim_start();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let at_line = |message: &str| format!("line {}: {message}", index + 1);
        // A name alone hands a variable of the process on; that process is not this one.
        let Some((name, value)) = line.split_once('=') else { continue };
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(at_line("expected NAME=value without a blank before the ="));
        }
        variables.insert(name.to_owned(), Ok(Interpolated { text: value.to_owned(), unset: Vec::new() }));
    }
    Ok(variables)
}

/// The name before `=`, and what follows; `None` where a line has only a name.
fn key(text: &str) -> Result<(&str, Option<&str>), &'static str> {
    let line = text.split('\n').next().unwrap_or_default();
    let exported = line.strip_prefix("export").filter(|rest| rest.starts_with([' ', '\t']));
    let start = exported.unwrap_or(line).trim_start();
    let offset = line.len() - start.len();
    let end = start.find(['=', ':']).unwrap_or(start.len());
    let name = start[..end].trim_end();
    let valid = |c: char| c.is_alphanumeric() || matches!(c, '_' | '.' | '-' | '[' | ']');
    if name.is_empty() || !name.chars().all(valid) {
        return Err("expected NAME=value, a comment or an empty line");
    }
    if end == start.len() {
        return Ok((name, None));
    }
    Ok((name, text.get(offset + end + 1..)))
}

enum Value {
    /// In single quotes.
    Literal(String),
    /// With variables.
    Template(String),
}

/// The value that `text` begins with, and what follows its line.
fn value(text: &str) -> Result<(Value, &str), &'static str> {
    let text = text.trim_start_matches([' ', '\t']);
    match text.chars().next() {
        Some('\'') => {
            let (raw, after) = quoted(&text[1..], '\'')?;
            Ok((Value::Literal(raw.replace("\\'", "'")), after))
        }
        Some('"') => {
            let (raw, after) = quoted(&text[1..], '"')?;
            Ok((Value::Template(unescape(raw)), after))
        }
        _ => {
            let (line, after) = text.split_once('\n').unwrap_or((text, ""));
            // Blanks before the value are gone by now, so that one which begins with # is a value.
            let value = line.split_once(" #").map_or(line, |(value, _)| value);
            Ok((Value::Template(value.trim_end().to_owned()), after))
        }
    }
}

/// What is before the closing quote, and what follows its line.
fn quoted(text: &str, quote: char) -> Result<(&str, &str), &'static str> {
    let mut escaped = false;
    let end = text.char_indices().find_map(|(index, c)| {
        let ends = c == quote && !escaped;
        escaped = c == '\\' && !escaped;
        ends.then_some(index)
    });
    let end = end.ok_or("the value begins with a quote that is never closed")?;
    let (line, after) = text[end + 1..].split_once('\n').unwrap_or((&text[end + 1..], ""));
    let trailing = line.trim();
    if trailing.is_empty() || trailing.starts_with('#') {
        Ok((&text[..end], after))
    } else {
        Err(
            "there is text after the closing quote of the value; a quote inside it must be written as \\\" or \\'",
        )
    }
}

/// The escapes of double quotes. An escaped dollar is doubled, which is how the next step knows it for one.
fn unescape(raw: &str) -> String {
    let mut out = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some(at) = rest.find('\\') {
        out.push_str(&rest[..at]);
        let after = &rest[at + 1..];
        let Some(c) = after.chars().next() else {
            out.push('\\');
            return out;
        };
        rest = &after[c.len_utf8()..];
        match c {
            'a' => out.push('\u{7}'),
            'b' => out.push('\u{8}'),
            'f' => out.push('\u{c}'),
            'n' => out.push('\n'),
            'r' => out.push('\r'),
            't' => out.push('\t'),
            'v' => out.push('\u{b}'),
            '$' => out.push_str("$$"),
            '"' | '\\' => out.push(c),
            '0' => {
                let digits = rest.len() - rest.trim_start_matches(|c: char| c.is_ascii_digit()).len();
                let (digits, behind) = rest.split_at(digits.min(3));
                let code = u8::from_str_radix(digits, 8).ok().filter(|_| digits.len() == 3);
                match code {
                    Some(code) => out.push(char::from(code)),
                    None => out.extend(['\\'].into_iter().chain(digits.chars())),
                }
                rest = behind;
            }
            other => out.extend(['\\', other]),
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rstest::rstest;

    fn value_in(file: &str) -> String {
        lookup(&parse(file, &Variables::new()).unwrap(), "V").unwrap()
    }

    #[rstest]
    #[case("V=1", "1")]
    #[case("V = 1 ", "1")]
    #[case("V: 1", "1")]
    #[case("export V=1", "1")]
    #[case("export\tV=1\r\n", "1")]
    #[case("\u{feff}V=1", "1")]
    #[case("# V=0\n\n  # x\nV=1 # comment", "1")]
    #[case("V=1#2", "1#2")]
    #[case("V=# nothing", "# nothing")]
    #[case("V=   # note", "# note")]
    #[case("V=\t# note # more", "# note")]
    #[case("V=1\t# no comment", "1\t# no comment")]
    #[case("MÜLLER=1\nV=$MÜLLER", "ÜLLER")]
    #[case("變數=1\n٣=2\na.b-c[0]=3\nV=4", "4")]
    #[case("V=\"\\a\\0101\\c\\'\"", "\u{7}A\\c\\'")]
    #[case("V=", "")]
    #[case("V=1\nV=2", "2")]
    #[case("export A\nV=1", "1")]
    #[case("V='a # b' # c", "a # b")]
    #[case("V='$A'", "$A")]
    #[case(r"V='Let\'s'", "Let's")]
    #[case("V='a\\nb'", "a\\nb")]
    #[case("V=\"a\\nb\\t\\\"c\\\"\\\\\"", "a\nb\t\"c\"\\")]
    #[case("A=x\nV=\"$A\\$A$$\"", "x$A$")]
    #[case("A=x\nV=${A:-y}", "x")]
    #[case("V='[\n  {\"a\": 1}\n]'\nB=1", "[\n  {\"a\": 1}\n]")]
    #[case("V=[{\"name\": \"a b\", \"n\": 1}]", "[{\"name\": \"a b\", \"n\": 1}]")]
    #[case("V=\"[{\\\"name\\\": \\\"a\\\"}]\"", "[{\"name\": \"a\"}]")]
    fn values_are_read_as_compose_reads_them(#[case] file: &str, #[case] value: &str) {
        assert_eq!(value_in(file), value);
    }

    #[rstest]
    #[case("A=1\nV='[1", "line 2: the value begins with a quote that is never closed")]
    #[case("V='a\nb\nc' d\n", "line 1: there is text after the closing quote")]
    #[case("A=1\n\n{\"x\": 1}", "line 3: expected NAME=value")]
    #[case("=x", "line 1: expected NAME=value")]
    fn what_is_not_understood_is_named_by_its_line(#[case] file: &str, #[case] error: &str) {
        let found = parse(file, &Variables::new()).unwrap_err();
        assert!(found.starts_with(error), "{found}");
    }

    #[test]
    fn names_are_those_that_compose_takes() {
        let variables = parse("變數=1\nMÜLLER=2\na.b-c[0]=3\n9V=4", &Variables::new()).unwrap();
        assert_eq!(variables.keys().collect::<Vec<_>>(), ["9V", "MÜLLER", "a.b-c[0]", "變數"]);
        for odd in ["a/b=1", "a$=1", "a b=1", "{=1"] {
            assert!(parse(odd, &Variables::new()).is_err(), "{odd}");
        }
    }

    /// Compose 2.30 and later.
    #[rstest]
    #[case("V=1", "1")]
    #[case("\u{feff}  V='a' \"b\" # c $A ${B} \\n ", "'a' \"b\" # c $A ${B} \\n ")]
    #[case("# V=0\n\nA\nV=1=2\r\n", "1=2")]
    #[case("V=", "")]
    #[case("export=x\nV=[{\"name\": \"a\"}]", "[{\"name\": \"a\"}]")]
    fn raw_values_are_taken_as_written(#[case] file: &str, #[case] value: &str) {
        assert_eq!(lookup(&parse_raw(file).unwrap(), "V").unwrap(), value);
    }

    #[rstest]
    #[case("A=1\nexport V=1", "line 2: expected NAME=value")]
    #[case("=1", "line 1: expected NAME=value")]
    fn a_raw_name_is_one_word(#[case] file: &str, #[case] error: &str) {
        assert!(parse_raw(file).unwrap_err().starts_with(error));
    }

    #[test]
    fn a_password_that_is_no_template_does_not_spoil_the_rest() {
        let variables = parse("PASSWORD=pa$$$\nV=$PASSWORD.1\nW=2", &Variables::new()).unwrap();
        assert!(variables["PASSWORD"].as_ref().is_err_and(|error| !error.contains("pa")));
        assert_eq!(variables["V"].as_ref().unwrap().unset, ["PASSWORD"]);
        assert_eq!(lookup(&variables, "W").unwrap(), "2");
    }

    #[test]
    fn variables_of_the_process_are_not_read() {
        let variables = parse("V=$PATH", &Variables::new()).unwrap();
        assert_eq!(variables["V"].as_ref().unwrap().unset, ["PATH"]);
    }

    #[test]
    fn variables_given_from_outside_win() {
        let outer = parse("A=outer", &Variables::new()).unwrap();
        let variables = parse("A=inner\nV=$A", &outer).unwrap();
        assert_eq!(lookup(&variables, "V").unwrap(), "outer");
    }

    proptest! {
        #[test]
        fn no_text_is_too_odd(text: String) {
            let _ = parse(&text, &Variables::new());
        }

        #[test]
        fn single_quotes_keep_everything(text in "[^'\\\\\r]*") {
            prop_assert_eq!(value_in(&format!("V='{text}'")), text);
        }
    }
}
