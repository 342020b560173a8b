//! Checks that an implementation has the shape that environments need:
//!
//! ```js
//! async function Initialize(agentId, backends) {}
//! async function Deinitialize() {}
//! // @endowment
//! async function GetRates(params = {}) {}
//! ```
//!
//! Violations are listed together, the first twenty that are found, each with the function and its line.

use std::collections::HashMap;

use analyzer::{Answer, GLOBALS, Implementation, ModuleKind, Violation};
use oxc_allocator::Allocator;
use oxc_ast::ast::{BindingPattern, Comment, Declaration, Expression, Function, Program as Tree, Statement};
use oxc_parser::{Parser, ParserReturn};
use oxc_span::{GetSpan, SourceType};

use crate::source::{refuse, syntax_errors};

const MARK: &str = "@endowment";

/// Names beside the guest's own that have a meaning, or may get one from ECMAScript.
const RESERVED: &[&str] =
    &["__defaultExport", "__only", "AsyncIterator", "WeakRef", "assert", "context", "execute", "main"];

pub fn analyze(text: &str) -> Answer {
    let allocator = Allocator::default();
    let as_module = Parser::new(&allocator, text, SourceType::mjs()).parse();
    let (module, parsed) = if is_module(&as_module) {
        (ModuleKind::Module, as_module)
    } else {
        (ModuleKind::CommonJs, Parser::new(&allocator, text, SourceType::cjs()).parse())
    };
    let violations = syntax_errors(text, &parsed);
    if !violations.is_empty() {
        return Answer::Refused { violations };
    }
    check(text, module, &parsed.program)
}

/// Import and export declarations decide.
fn is_module(parsed: &ParserReturn<'_>) -> bool {
    parsed.module_record.has_module_syntax
}

/// A top-level function declaration and the comment directly above it.
struct Found<'t> {
    function: &'t Function<'t>,
    start: u32,
    marked: bool,
}

impl Found<'_> {
    fn name(&self) -> &str {
        self.function.id.as_ref().map_or("default", |id| id.name.as_str())
    }
}

fn check<'t>(text: &str, module: ModuleKind, tree: &'t Tree<'t>) -> Answer {
    let marks: Vec<u32> = tree
        .body
        .iter()
        .map(|statement| statement.span().start)
        .filter(|start| is_marked(text, &tree.comments, *start))
        .collect();
    let functions: Vec<Found<'t>> =
        tree.body.iter().filter_map(|statement| top_level_function(statement, &marks)).collect();
    let mut declared: HashMap<&str, usize> = HashMap::new();
    for found in &functions {
        *declared.entry(found.name()).or_default() += 1;
    }
    let mut violations = Vec::new();
    check_hook(text, &functions, "Initialize", "agentId, backends", 2, &mut violations);
    check_hook(text, &functions, "Deinitialize", "", 0, &mut violations);
    for start in &marks {
        if functions.binary_search_by_key(start, |found| found.start).is_err() {
            let message = format!("`{MARK}` must stand directly above a top-level `async function`");
            refuse(&mut violations, text, *start, message);
        }
    }
    let marked: Vec<&Found<'_>> = functions.iter().filter(|found| found.marked).collect();
    if marks.is_empty() {
        let message =
            format!("no function is marked `{MARK}`: at least one `async function X(params = {{}})` must be");
        refuse(&mut violations, text, 0, message);
    }
    for found in &marked {
        check_endowment(text, found, &declared, &mut violations);
    }
    if !violations.is_empty() {
        violations.sort_by_key(|violation| (violation.line, violation.column));
        return Answer::Refused { violations };
    }
    let endowments = marked.iter().map(|found| found.name().to_owned()).collect();
    Answer::Implementation(Implementation { module, endowments })
}

fn top_level_function<'t>(statement: &'t Statement<'t>, marks: &[u32]) -> Option<Found<'t>> {
    let function = match statement {
        Statement::FunctionDeclaration(function) => function,
        Statement::ExportDeclaration(export) => match &export.declaration {
            Declaration::FunctionDeclaration(function) => function,
            _ => return None,
        },
        _ => return None,
    };
    let start = statement.span().start;
    Some(Found { function, start, marked: marks.binary_search(&start).is_ok() })
}

/// Whether the comments directly above `start`, with nothing but white space between, hold the mark.
fn is_marked(text: &str, comments: &[Comment], start: u32) -> bool {
    let mut end = start;
    let before = comments.partition_point(|comment| comment.span.end <= start);
    for comment in comments[..before].iter().rev() {
        let between = &text[comment.span.end as usize..end as usize];
        if !between.trim().is_empty() || between.matches('\n').count() > 1 {
            return false;
        }
        let content = &text[comment.span.start as usize..comment.span.end as usize];
        if content.split(|c: char| c.is_whitespace() || c == '*' || c == '/').any(|word| word == MARK) {
            return true;
        }
        end = comment.span.start;
    }
    false
}

fn check_hook(
    text: &str,
    functions: &[Found<'_>],
    name: &str,
    parameters: &str,
    count: usize,
    violations: &mut Vec<Violation>,
) {
    let wanted = format!("`async function {name}({parameters})`");
    let all: Vec<_> = functions.iter().filter(|found| found.name() == name).collect();
    let [found] = all.as_slice() else {
        let message = if all.is_empty() {
            format!("{name} is missing: declare a top-level {wanted}")
        } else {
            format!("{name} is declared {} times", all.len())
        };
        return refuse(violations, text, all.last().map_or(0, |found| found.start), message);
    };
    if !found.function.r#async || found.function.generator {
        refuse(violations, text, found.start, format!("{name} must be an async function: {wanted}"));
    }
    let given = parameter_count(found.function);
    if given != count {
        let message = format!("{name} must have exactly {} but has {given}: {wanted}", counted(count));
        refuse(violations, text, found.start, message);
    }
    if found.marked {
        let message = format!("{name} must not be marked `{MARK}`: programs may not call it");
        refuse(violations, text, found.start, message);
    }
}

/// `declared` is how often each name is.
fn check_endowment(
    text: &str,
    found: &Found<'_>,
    declared: &HashMap<&str, usize>,
    violations: &mut Vec<Violation>,
) {
    let name = found.name();
    let wanted = format!("`async function {name}(params = {{}})`");
    let mut refuse = |message: String| refuse(violations, text, found.start, message);
    if !found.function.r#async || found.function.generator {
        refuse(format!("{name} is marked `{MARK}` and must be an async function: {wanted}"));
    }
    if !has_only_params(found.function) {
        refuse(format!(
            "{name} is marked `{MARK}` and must have the single parameter `params = {{}}`: {wanted}"
        ));
    }
    if RESERVED.contains(&name) || GLOBALS.binary_search(&name).is_ok() {
        refuse(format!("{name} is a name that programs already have: choose another"));
    }
    if declared.get(name).is_some_and(|times| *times > 1) {
        refuse(format!("{name} is declared more than once"));
    }
}

fn parameter_count(function: &Function<'_>) -> usize {
    function.params.items.len() + usize::from(function.params.rest.is_some())
}

fn has_only_params(function: &Function<'_>) -> bool {
    let [parameter] = function.params.items.as_slice() else { return false };
    let named = matches!(&parameter.pattern, BindingPattern::BindingIdentifier(id) if id.name == "params");
    let empty = matches!(parameter.initializer.as_deref(), Some(Expression::ObjectExpression(object)) if object.properties.is_empty());
    function.params.rest.is_none() && named && empty
}

fn counted(count: usize) -> String {
    match count {
        0 => "no parameters".to_owned(),
        1 => "one parameter".to_owned(),
        2 => "two parameters".to_owned(),
        more => format!("{more} parameters"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::VIOLATIONS_MAX;

    const HOOKS: &str = "async function Initialize(agentId, backends) {}\nasync function Deinitialize() {}\n";

    fn refused(text: &str) -> Vec<String> {
        match analyze(text) {
            Answer::Refused { violations } => violations
                .into_iter()
                .map(|violation| format!("{}: {}", violation.line, violation.message))
                .collect(),
            other => panic!("{text} was accepted: {other:?}"),
        }
    }

    fn accepted(text: &str) -> Implementation {
        match analyze(text) {
            Answer::Implementation(implementation) => implementation,
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn both_module_systems_are_understood() {
        let plain = accepted(&format!(
            "const a = require('axios');\n{HOOKS}// @endowment\nasync function GetA(params = {{}}) {{}}"
        ));
        assert_eq!((plain.module, plain.endowments), (ModuleKind::CommonJs, vec!["GetA".to_owned()]));
        let module = accepted(&format!(
            "import a from 'axios';\n{HOOKS}/** Doc.\n * @endowment */\nexport async function GetB(params = {{}}) {{}}"
        ));
        assert_eq!((module.module, module.endowments), (ModuleKind::Module, vec!["GetB".to_owned()]));
    }

    #[test]
    fn only_the_comment_directly_above_marks_a_function() {
        let text = format!(
            "{HOOKS}// @endowment\n// Reads A.\nasync function A(params = {{}}) {{}}\n// @endowment\n\n\nasync function B(params = {{}}) {{}}\n/* @endowments */\nasync function C(params = {{}}) {{}}\nasync function D(params = {{}}) {{ /* @endowment */ }}"
        );
        assert_eq!(accepted(&text).endowments, ["A"]);
    }

    #[test]
    fn a_few_violations_are_enough_however_many_there_are() {
        let text = HOOKS.to_owned() + &"//@endowment\nfunction A(){}\n".repeat(35_000);
        let found = refused(&text);
        assert_eq!(found.len(), VIOLATIONS_MAX);
        assert!(found.iter().any(|message| message == "4: A is declared more than once"), "{found:?}");
    }

    #[test]
    fn every_violation_names_function_and_line() {
        let cases = [
            (
                "async function Deinitialize() {}\n// @endowment\nasync function A(params = {}) {}",
                "1: Initialize is missing",
            ),
            (
                "function Initialize(a, b) {}\nasync function Deinitialize() {}",
                "1: Initialize must be an async function",
            ),
            (
                "async function Initialize(a) {}\nasync function Deinitialize() {}",
                "1: Initialize must have exactly two parameters but has 1",
            ),
            (
                "async function Initialize(a, b) {}\nasync function Deinitialize(x) {}",
                "2: Deinitialize must have exactly no parameters but has 1",
            ),
            (HOOKS, "1: no function is marked `@endowment`"),
            (
                &format!("{HOOKS}// @endowment\nfunction A(params = {{}}) {{}}"),
                "4: A is marked `@endowment` and must be an async function",
            ),
            (
                &format!("{HOOKS}// @endowment\nasync function A(params) {{}}"),
                "4: A is marked `@endowment` and must have the single parameter",
            ),
            (
                &format!("{HOOKS}// @endowment\nasync function A(params = {{}}, b) {{}}"),
                "4: A is marked `@endowment` and must have the single parameter",
            ),
            (
                &format!("{HOOKS}// @endowment\nasync function Date(params = {{}}) {{}}"),
                "4: Date is a name that programs already have",
            ),
            (
                &format!("{HOOKS}// @endowment\nasync function __only(params = {{}}) {{}}"),
                "4: __only is a name that programs already have",
            ),
            (
                &format!("{HOOKS}// @endowment\nconst A = async (params = {{}}) => 1"),
                "4: `@endowment` must stand directly above",
            ),
            ("let = ;", "1: "),
        ];
        for (text, expected) in cases {
            let found = refused(text);
            assert!(found.iter().any(|message| message.starts_with(expected)), "{text}\n{found:?}");
        }
    }
}
