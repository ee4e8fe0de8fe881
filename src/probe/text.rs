//! Text from outside made fit for people, terminals and labels.

/// At most `max` characters of `text`, without control characters and without those that change the direction of
/// writing or take no room, nor blanks at either end: nothing that a host says may move a cursor, hide text or break a
/// line.
pub fn clean(text: &str, max: usize) -> String {
    // Nearly all text is of this kind, and is copied whole.
    if text.len() <= max && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.trim_ascii().to_owned();
    }
    let mut shown = text.chars().filter(|c| !is_hidden(*c)).skip_while(|c| c.is_whitespace());
    let mut cleaned: String = shown.by_ref().take(max).collect();
    cleaned.truncate(cleaned.trim_end().len());
    cleaned
}

/// Whether a character moves a cursor, ends a line, turns the direction of writing, or takes no room: control
/// characters, separators of lines, and what Unicode calls ignorable by default.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}' | '\u{1160}' | '\u{17b4}' | '\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fffb}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_and_bidi_marks_are_dropped() {
        assert_eq!(clean("\u{1b}[31mqwen3\u{202e}:8b\r\n\u{200b}", 64), "[31mqwen3:8b");
        assert_eq!(clean("abcdef", 3), "abc");
        assert_eq!(clean("\u{200b} \u{e0041}a \u{fe0f}b \u{3164}", 64), "a b");
        assert_eq!(clean("ab c", 3), "ab");
    }

    proptest! {
        #[test]
        fn nothing_hidden_survives_and_cleaning_twice_is_cleaning_once(text in any::<String>(), max in 0..100_usize) {
            let cleaned = clean(&text, max);
            prop_assert!(cleaned.chars().count() <= max);
            prop_assert!(!cleaned.chars().any(is_hidden));
            prop_assert_eq!(cleaned.trim(), &cleaned);
            prop_assert_eq!(&clean(&cleaned, max), &cleaned);
        }
    }
}
