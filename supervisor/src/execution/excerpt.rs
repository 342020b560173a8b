//! The lines around a place in a submitted source, as compilers show them.

/// Characters of a line that are shown.
const LINE_CHARS_MAX: usize = 160;

/// The line, marked, between the one before and the one after; nothing for a line that is not there.
pub fn excerpt(source: &str, line: u32) -> Option<String> {
    let lines = lines(source);
    let place = usize::try_from(line).ok()?.checked_sub(1).filter(|place| *place < lines.len())?;
    let last = (place + 1).min(lines.len() - 1);
    let width = (last + 1).to_string().len();
    let shown = (place.saturating_sub(1)..=last).map(|index| {
        let mark = if index == place { '>' } else { ' ' };
        let text: String = lines[index].chars().take(LINE_CHARS_MAX).collect();
        format!("{mark} {:>width$} | {text}", index + 1)
    });
    Some(shown.collect::<Vec<_>>().join("\n"))
}

/// Lines as ECMAScript ends them.
fn lines(source: &str) -> Vec<&str> {
    let breaks = ['\n', '\r', '\u{2028}', '\u{2029}'];
    let mut lines = Vec::new();
    let mut rest = source;
    while let Some(end) = rest.find(breaks) {
        lines.push(&rest[..end]);
        let length = if rest[end..].starts_with("\r\n") {
            2
        } else {
            rest[end..].chars().next().map_or(1, char::len_utf8)
        };
        rest = &rest[end + length..];
    }
    lines.push(rest);
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_stands_between_its_neighbours() {
        let source = "a\r\nb\nc\u{2028}d";
        let cases = [
            (1, Some("> 1 | a\n  2 | b")),
            (2, Some("  1 | a\n> 2 | b\n  3 | c")),
            (4, Some("  3 | c\n> 4 | d")),
            (5, None),
            (0, None),
        ];
        for (line, expected) in cases {
            assert_eq!(excerpt(source, line).as_deref(), expected, "{line}");
        }
        assert_eq!(excerpt(&"x".repeat(1000), 1).unwrap().len(), LINE_CHARS_MAX + 6);
    }
}
