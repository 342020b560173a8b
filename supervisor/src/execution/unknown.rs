//! What to say of a program that uses a name that stands for nothing, so that it can be repaired in one step.

use analyzer::UnknownName;

use crate::protocol::ErrorDetails;

/// Where programs go looking for what a guest does not have, and what to do instead.
const ABSENT: &[(&[&str], &str)] = &[
    (
        &["fetch", "XMLHttpRequest", "WebSocket", "axios", "Request", "Response", "Headers"],
        "There is no network here; call one of the functions instead.",
    ),
    (
        &["require", "_", "lodash", "moment", "dayjs", "z", "cheerio"],
        "Modules cannot be loaded; everything that is available is already defined.",
    ),
    (
        &["module", "exports", "__filename", "__dirname"],
        "A program is no module: return a value, or declare `main`.",
    ),
    (
        &["process", "Deno", "Bun", "os"],
        "There is no process object and no environment; use `input` and the context.",
    ),
    (&["Buffer", "Blob", "File"], "Use Uint8Array, TextEncoder, TextDecoder, atob and btoa."),
    (&["fs", "path", "localStorage", "sessionStorage"], "There is no file system and nothing is stored."),
    (
        &["window", "global", "self", "document", "navigator", "alert"],
        "This is neither a browser nor Node; use globalThis and console.",
    ),
    (&["setImmediate", "clearImmediate"], "Use setTimeout with a delay of 0, or queueMicrotask."),
    (&["performance"], "Use Date.now()."),
    (
        &["WebAssembly", "SharedArrayBuffer", "Atomics", "WeakRef", "FinalizationRegistry", "Worker"],
        "Nothing here runs beside the program or lives longer than it.",
    ),
];

/// Functions that a hint lists.
const LISTED_MAX: usize = 20;
const NEAREST_MAX: usize = 3;
/// A longer name is no slip, and the time that its comparison takes grows with it.
const NAME_BYTES_MAX: usize = 100;

/// The error of the first unknown name; the others are named as well.
pub fn error_of(unknown: &[UnknownName], functions: &[String]) -> Option<ErrorDetails> {
    let (first, others) = unknown.split_first()?;
    let absent =
        ABSENT.iter().find(|(names, _)| names.contains(&first.name.as_str())).map(|(_, instead)| *instead);
    let (code, message) = match (absent, first.called) {
        (Some(_), _) => ("not_available", format!("{} is not available", first.name)),
        (None, true) => {
            ("api_not_provisioned", format!("{} is not a function of this environment", first.name))
        }
        (None, false) => ("reference_error", format!("{} is not defined", first.name)),
    };
    let mut hint = Vec::new();
    hint.extend(absent.map(str::to_owned));
    if first.assigned && absent.is_none() {
        hint.push(format!("Declare it: `let {}`.", first.name));
    }
    if !others.is_empty() {
        let names: Vec<&str> = others.iter().map(|other| other.name.as_str()).take(LISTED_MAX).collect();
        hint.push(format!("Not defined either: {}.", names.join(", ")));
    }
    let nearest = nearest(&first.name, functions);
    if !nearest.is_empty() {
        hint.push(format!("Did you mean {}?", nearest.join(" or ")));
    }
    hint.push(format!("Functions of this environment: {}.", listed(functions)));
    Some(ErrorDetails {
        name: "ReferenceError".to_owned(),
        message,
        code: Some(code.to_owned()),
        line: Some(first.line),
        column: Some(first.column),
        hint: Some(hint.join(" ")),
        ..ErrorDetails::default()
    })
}

/// Names that a slip away from the given one, the nearest first.
fn nearest<'a>(name: &str, functions: &'a [String]) -> Vec<&'a str> {
    if name.len() > NAME_BYTES_MAX {
        return Vec::new();
    }
    let wanted = name.to_lowercase();
    let mut near: Vec<(usize, &str)> = functions
        .iter()
        .map(|function| (strsim::damerau_levenshtein(&wanted, &function.to_lowercase()), function.as_str()))
        .filter(|(distance, function)| *distance <= 2 || *distance * 3 <= function.len())
        .collect();
    near.sort_unstable();
    near.into_iter().take(NEAREST_MAX).map(|(_, function)| function).collect()
}

fn listed(functions: &[String]) -> String {
    let shown = functions.iter().take(LISTED_MAX).cloned().collect::<Vec<_>>().join(", ");
    match functions.len().checked_sub(LISTED_MAX) {
        Some(more @ 1..) => format!("{shown} and {more} more"),
        _ => shown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(name: &str, called: bool) -> ErrorDetails {
        let functions: Vec<String> = ["GetRates", "GetProducts"].map(str::to_owned).into();
        let unknown =
            |name: &str| UnknownName { name: name.to_owned(), called, assigned: false, line: 2, column: 5 };
        error_of(&[unknown(name), unknown("other")], &functions).unwrap()
    }

    #[test]
    fn a_slip_is_told_with_what_was_meant() {
        let details = error("getRats", true);
        assert_eq!(
            (details.code.as_deref(), details.line, details.column),
            (Some("api_not_provisioned"), Some(2), Some(5))
        );
        let hint = details.hint.unwrap();
        assert!(hint.contains("Did you mean GetRates?") && hint.contains("either: other"), "{hint}");
        assert_eq!(error("total", false).code.as_deref(), Some("reference_error"));
        assert!(!error("total", false).hint.unwrap().contains("Did you mean"));
        assert_eq!(error("fetch", true).code.as_deref(), Some("not_available"));
        assert!(error_of(&[], &[]).is_none());
    }

    #[test]
    fn a_name_that_is_too_long_for_a_slip_is_not_compared() {
        let long = "a".repeat(NAME_BYTES_MAX + 1);
        assert!(nearest(&long, std::slice::from_ref(&long)).is_empty());
        assert_eq!(nearest(&long[1..], std::slice::from_ref(&long)).len(), 1);
    }

    #[test]
    fn a_long_list_is_shortened() {
        let many: Vec<String> = (0..23).map(|number| format!("F{number}")).collect();
        assert!(listed(&many).ends_with("F19 and 3 more"));
    }
}
