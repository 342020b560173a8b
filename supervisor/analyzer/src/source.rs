//! Positions in a source, and syntax errors as violations.

use analyzer::Violation;
use oxc_parser::ParserReturn;

/// A violation at a byte offset of `text`.
pub fn violation(text: &str, offset: u32, message: impl Into<String>) -> Violation {
    let (line, column) = position(text, offset as usize);
    Violation { message: message.into(), line, column }
}

/// More reasons than these help nobody.
pub const VIOLATIONS_MAX: usize = 20;

/// Adds a violation, unless there are enough.
pub fn refuse(violations: &mut Vec<Violation>, text: &str, offset: u32, message: impl Into<String>) {
    if violations.len() < VIOLATIONS_MAX {
        violations.push(violation(text, offset, message));
    }
}

/// The syntax errors that a parse found, if any.
pub fn syntax_errors(text: &str, parsed: &ParserReturn<'_>) -> Vec<Violation> {
    let errors = parsed.diagnostics.errors().map(|error| {
        let offset = error.labels.first().map_or(0, |label| label.offset());
        let help = error.help.as_ref().map(|help| format!(" ({help})")).unwrap_or_default();
        violation(text, offset, format!("{}{help}", error.message))
    });
    let mut found: Vec<Violation> = errors.take(VIOLATIONS_MAX).collect();
    if found.is_empty() && parsed.panicked {
        found.push(violation(text, 0, "the source cannot be parsed"));
    }
    found
}

/// Line and column from 1; lines end as ECMAScript says (LF, CR, CRLF, U+2028, U+2029).
pub fn position(text: &str, offset: usize) -> (u32, u32) {
    let mut end = offset.min(text.len());
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let mut line = 1;
    let mut column = 1;
    let mut characters = text[..end].chars().peekable();
    while let Some(character) = characters.next() {
        match character {
            '\r' if characters.peek() == Some(&'\n') => {}
            '\n' | '\r' | '\u{2028}' | '\u{2029}' => {
                line += 1;
                column = 1;
            }
            other => column += if other.len_utf16() == 2 { 2 } else { 1 },
        }
    }
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::position;

    #[test]
    fn lines_and_columns_count_as_javascript_counts_them() {
        let cases = [
            ("abc", 0, (1, 1)),
            ("a\nb", 2, (2, 1)),
            ("a\r\nbc", 4, (2, 2)),
            ("😀x", 4, (1, 3)),
            ("a\u{2028}b", 4, (2, 1)),
            ("a", 9, (1, 2)),
        ];
        for (text, offset, expected) in cases {
            assert_eq!(position(text, offset), expected, "{text:?} at {offset}");
        }
    }
}
