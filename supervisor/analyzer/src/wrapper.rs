//! The function that a program is put into, and what can be said of it before the program was read.

use crate::{Language, Submission};

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

/// What most programs of this look become. It is a guess from words alone: nothing is read, and nothing may depend
/// on it but time.
pub fn likely(submission: &Submission) -> Option<String> {
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
