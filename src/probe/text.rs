//! Text from outside made fit for people, terminals and labels.

/// At most `max` characters of `text`, without control characters and without those that change the direction of
/// writing or take no room: nothing that a host says may move a cursor, hide text or break a line.
pub fn clean(text: &str, max: usize) -> String {
    // Nearly all text is of this kind, and is copied whole.
    if text.len() <= max && text.bytes().all(|byte| matches!(byte, b' '..=b'~')) {
        return text.to_owned();
    }
    text.chars().filter(|c| !is_hidden(*c)).take(max).collect()
}

/// Whether a character moves a cursor, ends a line, turns the direction of writing, or takes no room.
pub fn is_hidden(c: char) -> bool {
    c.is_control()
        || matches!(c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{feff}' | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn escapes_and_bidi_marks_are_dropped() {
        assert_eq!(clean("\u{1b}[31mqwen3\u{202e}:8b\r\n\u{200b}", 64), "[31mqwen3:8b");
        assert_eq!(clean("abcdef", 3), "abc");
    }

    proptest! {
        #[test]
        fn nothing_hidden_survives(text in any::<String>()) {
            let cleaned = clean(&text, 100);
            prop_assert!(cleaned.chars().count() <= 100);
            prop_assert!(!cleaned.chars().any(is_hidden));
        }
    }
}
