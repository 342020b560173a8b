//! The function that a program is put into, and what can be said of it before the program was read.

use std::collections::HashSet;

use crate::{Entry, Language, Program, Submission};

/// The head of a wrapped program.
pub const LINES_BEFORE_CALL: u32 = 1;

/// What leads to names that a program does not mention; so does `this` outside of functions.
pub const WAYS_TO_NAMES: [&str; 3] = ["globalThis", "eval", "Function"];

/// A program as a function, its head on a line of its own. `ending` follows the program; an asynchronous function is
/// more to compile and to run.
pub fn wrapped(is_async: bool, source: &str, ending: &str) -> String {
    let head = if is_async { "async function" } else { "function" };
    ["(", head, " () {\n", source, "\n", ending, "})"].concat()
}

/// How a program ends that starts with one of its functions.
pub fn calling(name: &str, has_input: bool) -> String {
    // Without an input, a function's own defaults hold.
    let given = if has_input { "input" } else { "" };
    ["return ", name, "(", given, ");\n"].concat()
}

/// What a program most likely is to a guest.
pub struct Likely {
    pub source: String,
    pub functions: Vec<String>,
}

impl Likely {
    pub fn is(&self, program: &Program) -> bool {
        let Program { source, entry, lines_before, shifts, functions, .. } = program;
        (entry, *lines_before) == (&Entry::Call, LINES_BEFORE_CALL)
            && shifts.is_empty()
            && *source == self.source
            && *functions == self.functions
    }
}

/// What most programs of this look become. It is a guess from words alone: nothing is read, and nothing may depend
/// on it but time.
pub fn likely(submission: &Submission) -> Option<Likely> {
    let source = likely_source(submission)?;
    let is_part = |character: char| character.is_alphanumeric() || "_$".contains(character);
    let words: HashSet<&str> = submission.source.split(|character| !is_part(character)).collect();
    let all = words.contains("this") || WAYS_TO_NAMES.iter().any(|way| words.contains(way));
    let is_likely = |name: &&String| all || words.contains(name.as_str());
    let functions = submission.functions.iter().filter(is_likely).cloned().collect();
    Some(Likely { source, functions })
}

fn likely_source(submission: &Submission) -> Option<String> {
    let Submission { source, language, entry, has_input, .. } = submission;
    let has = |words: &[&str]| words.iter().any(|word| source.contains(word));
    if *language == Some(Language::TypeScript) || has(&["export ", "```", "~~~"]) {
        return None;
    }
    let starts = |name: &str| has(&[&format!("function {name}("), &format!("const {name} = ")]);
    let name = match entry {
        Some(entry) if starts(entry) => Some(entry.as_str()),
        Some(_) => return None,
        None => [("execute", *has_input), ("main", true)]
            .into_iter()
            .find_map(|(name, may_be)| (may_be && starts(name)).then_some(name)),
    };
    match name {
        Some(name) => Some(wrapped(false, source, &calling(name, *has_input))),
        None => has(&["return "]).then(|| wrapped(has(&["await "]), source, "")),
    }
}
