//! What the source of an expression may be, before anything parses it. Pure; in one pass, without recursion.
//!
//! The parser of the `cel` crate recurses, and so does what comes after it. In this project's debug builds the parser
//! takes 11 KiB of stack for each bracket and all of them together 5 KiB for each operator, so that 1 KiB of brackets
//! would take 11 MiB of the 2 MiB that a thread has. With the bounds below it is 640 KiB, in a release 256 KiB.

use super::ExpressionError;

pub const SOURCE_MAX: usize = 1024;
/// Brackets within brackets.
const NESTING_MAX: usize = 12;
/// Operators, brackets and calls; an expression of 1 KiB that asks for `has()` at each value has about 100.
const OPERATORS_MAX: usize = 128;

/// Where something is in the source, counted from 1 as editors do.
pub fn place(source: &str, at: usize) -> (usize, usize) {
    let before = source.get(..at).unwrap_or(source);
    let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() + 1;
    (line, column)
}

pub fn refused(source: &str, at: usize, message: impl Into<String>) -> ExpressionError {
    let (line, column) = place(source, at);
    ExpressionError::At { line, column, message: message.into() }
}

/// Refuses what is too long, too deep, or written with characters and quotes that expressions do not have.
pub fn check(source: &str) -> Result<(), ExpressionError> {
    if source.len() > SOURCE_MAX {
        return Err(ExpressionError::Long { bytes: source.len() });
    }
    if source.trim().is_empty() {
        return Err(ExpressionError::Empty);
    }
    let bytes = source.as_bytes();
    let mut brackets: Vec<(usize, u8)> = Vec::new();
    let mut operators = 0;
    let mut at = 0;
    while let Some(&byte) = bytes.get(at) {
        let next = bytes.get(at + 1).copied();
        let refuse = |message: &str| Err(refused(source, at, message));
        let mut length = 1;
        match (byte, next) {
            (b' ' | b'\t' | b'\n' | b'\r' | b'.' | b',', _) => {}
            (b'/', Some(b'/')) => length = bytes[at..].iter().take_while(|byte| **byte != b'\n').count(),
            (b'"' | b'\'', _) => length = text(source, at)?,
            (b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'_', _) => {
                let word = |byte: &&u8| byte.is_ascii_alphanumeric() || **byte == b'_';
                length = bytes[at..].iter().take_while(word).count();
                operators += usize::from(source.get(at..at + length) == Some("in"));
            }
            (b'(' | b'[', _) => {
                operators += 1;
                brackets.push((at, if byte == b'(' { b')' } else { b']' }));
                if brackets.len() > NESTING_MAX {
                    return refuse(&format!("at most {NESTING_MAX} brackets within each other"));
                }
            }
            (b')' | b']', _) => {
                if brackets.pop().is_none_or(|(_, closing)| closing != byte) {
                    return refuse(&format!("`{}` closes nothing", char::from(byte)));
                }
            }
            (b'{' | b'}', _) => {
                return refuse("there are no maps and messages here; lists are written [1, 2]");
            }
            (b'&', Some(b'&')) | (b'|', Some(b'|')) | (b'=' | b'!' | b'<' | b'>', Some(b'=')) => {
                operators += 1;
                length = 2;
            }
            (b'=', _) => return refuse("`=` is no operator; equal is written `==`"),
            (b'&', _) => return refuse("`&` is no operator; and is written `&&`"),
            (b'|', _) => return refuse("`|` is no operator; or is written `||`"),
            (b'+' | b'-' | b'*' | b'/' | b'%' | b'<' | b'>' | b'!' | b'?' | b':', _) => operators += 1,
            _ => return refuse("this character only stands within quotes"),
        }
        if operators > OPERATORS_MAX {
            return refuse(&format!("at most {OPERATORS_MAX} operators, brackets and calls"));
        }
        at += length;
    }
    match brackets.last() {
        Some((open, closing)) => {
            Err(refused(source, *open, format!("this bracket has no `{}`", char::from(*closing))))
        }
        None => Ok(()),
    }
}

/// Length of the text in quotes that begins here. The forms of CEL that span lines or keep backslashes are refused, so
/// that there is one way to see where a text ends.
fn text(source: &str, start: usize) -> Result<usize, ExpressionError> {
    let bytes = source.as_bytes();
    let quote = bytes[start];
    if start > 0 && (bytes[start - 1].is_ascii_alphanumeric() || bytes[start - 1] == b'_') {
        return Err(refused(
            source,
            start,
            "write a space before a quote; r\"\" and b\"\" are not supported",
        ));
    }
    if bytes[start..].starts_with(&[quote; 3]) {
        return Err(refused(source, start, "a text is written with one quote before and after it"));
    }
    let mut at = start + 1;
    while let Some(&byte) = bytes.get(at) {
        match byte {
            _ if byte == quote => return Ok(at + 1 - start),
            b'\\' if bytes.get(at + 1).is_some_and(u8::is_ascii_graphic) => at += 1,
            _ if byte.is_ascii_control() || byte == b'\\' => break,
            _ => {}
        }
        at += 1;
    }
    Err(refused(source, start, "this text has no end on its line"))
}
