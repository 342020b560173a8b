//! The forms in which models send a program: with a byte order mark, as a script with a hashbang, or in the
//! fences of Markdown with text around them. What is not program becomes blank, so that every line and column
//! stays where it was.

use crate::edits::blanked;

/// A source that is program only.
pub struct Program {
    pub text: String,
    /// The fence said that it is TypeScript.
    pub says_typescript: bool,
}

/// Languages of fences that hold programs, in lower case; nothing counts where no fence says more.
const JAVASCRIPT: [&str; 6] = ["js", "javascript", "mjs", "cjs", "jsx", "node"];
const TYPESCRIPT: [&str; 4] = ["ts", "typescript", "mts", "tsx"];

/// Spaces before a fence: it may stand in a list.
const INDENT_MAX: usize = 12;

/// Takes away what stands before a program in a file.
pub fn without_marks(text: &str) -> String {
    let (mark, rest) = match text.strip_prefix('\u{feff}') {
        Some(rest) => (" ", rest),
        None => ("", text),
    };
    match rest.starts_with("#!") {
        true => {
            let end = rest.find(['\n', '\r', '\u{2028}', '\u{2029}']).unwrap_or(rest.len());
            format!("{mark}{}{}", blanked(&rest[..end]), &rest[end..])
        }
        false => format!("{mark}{rest}"),
    }
}

/// Whether a text has fences of backquotes. JavaScript has a meaning for them (templates that are tagged by
/// templates), but nobody writes that.
pub fn has_backquote_fences(text: &str) -> bool {
    backquote_fences(text).next().is_some()
}

/// Where fences of backquotes stand.
pub fn backquote_fences(text: &str) -> impl Iterator<Item = u32> {
    let mut at = 0;
    let on_one_line = on_one_line(text).is_some();
    text.split_inclusive('\n').filter_map(move |line| {
        let start = at;
        at += line.len();
        let is_fence = fence(line).is_some_and(|fence| fence.mark == '`') || on_one_line;
        is_fence.then(|| u32::try_from(start + line.len() - line.trim_start().len()).unwrap_or(u32::MAX))
    })
}

/// The language and the place of a program in fences on one line, as in "```js return 1 ```".
fn on_one_line(text: &str) -> Option<Block<'_>> {
    let inside = text.trim().strip_prefix("```")?.strip_suffix("```")?;
    let (language, code) = inside.split_once(' ')?;
    let known = JAVASCRIPT.contains(&language) || TYPESCRIPT.contains(&language);
    if !known || code.contains(['\n', '`']) {
        return None;
    }
    let start = text.find(code)?;
    Some(Block { language, start, end: start + code.len() })
}

/// The program in the fences of a text, if it has any.
pub fn from_fences(text: &str) -> Option<Program> {
    let blocks = on_one_line(text).map_or_else(|| blocks(text), |block| vec![block]);
    let is = |languages: &'static [&str]| {
        move |block: &&Block<'_>| languages.contains(&block.language.to_ascii_lowercase().as_str())
    };
    let said: Vec<&Block<'_>> =
        blocks.iter().filter(|block| is(&JAVASCRIPT)(block) || is(&TYPESCRIPT)(block)).collect();
    let chosen = match said.is_empty() {
        false => said,
        true => blocks.iter().filter(|block| block.language.is_empty()).take(1).collect(),
    };
    if chosen.is_empty() {
        return None;
    }
    let mut result = String::with_capacity(text.len());
    let mut done = 0;
    for block in &chosen {
        result.push_str(&blanked(&text[done..block.start]));
        result.push_str(&text[block.start..block.end]);
        done = block.end;
    }
    result.push_str(&blanked(&text[done..]));
    Some(Program { text: result, says_typescript: chosen.iter().any(is(&TYPESCRIPT)) })
}

/// What stands between two fences (CommonMark, section 4.5).
struct Block<'a> {
    /// The first word of the info string.
    language: &'a str,
    start: usize,
    end: usize,
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut open: Option<(Fence<'_>, usize)> = None;
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let next = at + line.len();
        match (fence(line), open.take()) {
            (Some(fence), None) => open = Some((fence, next)),
            (Some(closing), Some((opening, start))) if closing.closes(&opening) => {
                found.push(Block { language: opening.language, start, end: at });
            }
            (_, still) => open = still,
        }
        at = next;
    }
    // A model that was cut off has not closed it.
    if let Some((opening, start)) = open {
        found.push(Block { language: opening.language, start, end: text.len() });
    }
    found
}

struct Fence<'a> {
    mark: char,
    length: usize,
    language: &'a str,
}

impl Fence<'_> {
    fn closes(&self, opening: &Fence<'_>) -> bool {
        self.mark == opening.mark && self.length >= opening.length && self.language.is_empty()
    }
}

fn fence(line: &str) -> Option<Fence<'_>> {
    let indented = line.trim_end();
    let text = indented.trim_start_matches(' ');
    let mark = text.chars().next().filter(|mark| ['`', '~'].contains(mark))?;
    let length = text.chars().take_while(|character| *character == mark).count();
    let info = text[length..].trim();
    let is_fence =
        length >= 3 && indented.len() - text.len() <= INDENT_MAX && !(mark == '`' && info.contains('`'));
    is_fence.then(|| Fence {
        mark,
        length,
        language: info.split([' ', '{', ',', ':']).next().unwrap_or_default(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn marks_before_a_program_become_blank() {
        for (text, expected) in [
            ("\u{feff}return 1", " return 1"),
            ("#!/usr/bin/env node\nreturn 1", "                   \nreturn 1"),
            ("return 1", "return 1"),
        ] {
            assert_eq!(without_marks(text), expected);
        }
    }

    #[test]
    fn the_program_is_what_the_fences_hold() {
        let cases = [
            ("```js\nreturn 1\n```", Some("     \nreturn 1\n   "), false),
            (
                "Here:\n\n```typescript\nlet a: 1\n```\nDone!\n",
                Some("     \n\n             \nlet a: 1\n   \n     \n"),
                true,
            ),
            ("```\nreturn 1\n```\n```json\n{}\n```", Some("   \nreturn 1\n   \n       \n  \n   "), false),
            ("```json\n{}\n```\n```js\nf()\n```", Some("       \n  \n   \n     \nf()\n   "), false),
            ("~~~js\na\n```\nb\n~~~", Some("     \na\n```\nb\n   "), false),
            ("```js\nreturn 1", Some("     \nreturn 1"), false),
            ("````js\n```\n````", Some("      \n```\n    "), false),
            ("```python\nprint(1)\n```", None, false),
            ("return `a`", None, false),
            ("```js return 1 ```", Some("      return 1    "), false),
            ("1. Run:\n    ```js\n    f()\n    ```", Some("       \n         \n    f()\n       "), false),
        ];
        for (text, expected, typescript) in cases {
            let found = from_fences(text);
            assert_eq!(found.as_ref().map(|program| program.text.as_str()), expected, "{text}");
            assert_eq!(found.is_some_and(|program| program.says_typescript), typescript, "{text}");
        }
    }
}
