//! Changes to a source that keep its lines: whatever is put in the place of something else has as many line
//! breaks, so a position in the result has the line that it has in what was submitted. Where columns move,
//! the shifts say by how much.

use std::collections::HashMap;

use analyzer::Shift;
use oxc_span::Span;

use crate::source::position;

/// Replacements of parts of one text.
#[derive(Default)]
pub struct Edits {
    list: Vec<(u32, u32, String)>,
    /// Ends of names that got a member, with the lengths of the names.
    appended: HashMap<u32, i64>,
}

/// A text after its edits.
pub struct Edited {
    pub text: String,
    pub shifts: Vec<Shift>,
}

impl Edits {
    pub fn replace(&mut self, span: Span, text: impl Into<String>) {
        self.list.push((span.start, span.end, text.into()));
    }

    /// Puts a member behind a name. V8 gives the place of the member for a call of it; that becomes the name's.
    pub fn append(&mut self, name: Span, member: &str) {
        self.appended.insert(name.end, i64::from(name.end - name.start));
        self.replace(Span::new(name.end, name.end), member);
    }

    /// Puts spaces in the place of everything but line breaks, so that columns stay as well.
    pub fn blank(&mut self, source: &str, span: Span) {
        let blanked = blanked(&source[span.start as usize..span.end as usize]);
        self.replace(span, blanked);
    }

    /// The same for a statement: what stands before it ends there, as it did.
    pub fn blank_statement(&mut self, source: &str, span: Span) {
        let blanked = blanked(&source[span.start as usize..span.end as usize]);
        self.replace(span, format!(";{}", blanked.get(1..).unwrap_or_default()));
    }

    pub fn apply(mut self, source: &str) -> Edited {
        self.list.sort_by_key(|(start, end, _)| (*start, *end));
        let mut text = String::with_capacity(source.len() + 64);
        let mut moved: Vec<(usize, i64)> = Vec::new();
        let mut done = 0;
        for (start, end, replacement) in self.list {
            // What lies inside of something that was replaced is gone already.
            if start < done {
                continue;
            }
            text.push_str(&source[done as usize..start as usize]);
            let name = self.appended.get(&start).filter(|_| start == end).copied();
            if let Some(length) = name {
                moved.push((text.len(), length + 1));
                moved.push((text.len() + replacement.len(), -(length + 1)));
            }
            text.push_str(&replacement);
            let by = units(&replacement) - units(&source[start as usize..end as usize]);
            if by != 0 {
                moved.push((text.len(), by));
            }
            done = end;
        }
        text.push_str(&source[done as usize..]);
        let shifts = shifts(&text, moved);
        Edited { text, shifts }
    }
}

/// The lines and columns of offsets that rise, in one pass.
fn shifts(text: &str, moved: Vec<(usize, i64)>) -> Vec<Shift> {
    let (mut line, mut column, mut done) = (1, 1, 0);
    let place = |(offset, by): (usize, i64)| {
        let (lines, columns) = position(&text[done..offset], offset - done);
        column = if lines == 1 { column + columns - 1 } else { columns };
        line += lines - 1;
        done = offset;
        Shift { line, column, by }
    };
    moved.into_iter().map(place).collect()
}

fn units(text: &str) -> i64 {
    i64::try_from(text.encode_utf16().count()).unwrap_or(i64::MAX)
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
        let edited = edits.apply(source);
        assert_eq!((edited.text.as_str(), edited.shifts.len()), ("a    \nc", 0));
        assert_eq!(Edits::default().apply("a").text, "a");
    }

    #[test]
    fn the_place_of_an_added_member_is_that_of_its_name() {
        let mut edits = Edits::default();
        edits.append(Span::new(2, 5), ".sync");
        let edited = edits.apply("a Get(b) c");
        assert_eq!(edited.text, "a Get.sync(b) c");
        let submitted = |column: i64| {
            let moved = edited.shifts.iter().filter(|shift| i64::from(shift.column) <= column);
            moved.fold(column, |column, shift| column - shift.by)
        };
        assert_eq!((submitted(3), submitted(7), submitted(12), submitted(15)), (3, 3, 7, 10));
    }

    #[test]
    fn shifts_say_from_where_columns_have_moved() {
        let mut edits = Edits::default();
        edits.replace(Span::new(0, 1), "x = ");
        edits.replace(Span::new(0, 0), "y; ");
        edits.replace(Span::new(4, 5), "");
        let edited = edits.apply("a\nb cd");
        assert_eq!(edited.text, "y; x = \nb d");
        let shifts: Vec<_> = edited.shifts.iter().map(|shift| (shift.line, shift.column, shift.by)).collect();
        assert_eq!(shifts, [(1, 4, 3), (1, 8, 3), (2, 3, -1)]);
    }
}
