//! Changes to a source that keep its lines: whatever is put in the place of something else has as many line
//! breaks, so a position in the result has the line that it has in what was submitted.

use std::borrow::Cow;

use oxc_span::Span;

/// Replacements of parts of one text.
#[derive(Default)]
pub struct Edits {
    list: Vec<(u32, u32, String)>,
}

impl Edits {
    pub fn replace(&mut self, span: Span, text: impl Into<String>) {
        self.list.push((span.start, span.end, text.into()));
    }

    /// Puts spaces in the place of everything but line breaks, so that columns stay as well.
    pub fn blank(&mut self, source: &str, span: Span) {
        let blanked = blanked(&source[span.start as usize..span.end as usize]);
        self.replace(span, blanked);
    }

    pub fn apply<'a>(mut self, source: &'a str) -> Cow<'a, str> {
        if self.list.is_empty() {
            return Cow::Borrowed(source);
        }
        self.list.sort_by_key(|(start, end, _)| (*start, *end));
        let mut result = String::with_capacity(source.len() + 64);
        let mut done = 0;
        for (start, end, text) in self.list {
            // What lies inside of something that was replaced is gone already.
            if start < done {
                continue;
            }
            result.push_str(&source[done as usize..start as usize]);
            result.push_str(&text);
            done = end;
        }
        result.push_str(&source[done as usize..]);
        Cow::Owned(result)
    }
}

/// Spaces of the same width in UTF-16 units, and the same line breaks.
pub fn blanked(text: &str) -> String {
    text.chars()
        .flat_map(|character| match character {
            '\n' | '\r' | '\u{2028}' | '\u{2029}' => [Some(character), None],
            wide if wide.len_utf16() == 2 => [Some(' '), Some(' ')],
            _ => [Some(' '), None],
        })
        .flatten()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_and_columns_stay_where_they_were() {
        let source = "a 😀b\nc";
        let mut edits = Edits::default();
        edits.blank(source, Span::new(2, 8));
        assert_eq!(edits.apply(source), "a    \nc");
        let mut edits = Edits::default();
        edits.replace(Span::new(0, 1), "x = ");
        edits.replace(Span::new(0, 0), "y; ");
        assert_eq!(edits.apply("a\nb"), "y; x = \nb");
        assert_eq!(Edits::default().apply("a"), "a");
    }
}
