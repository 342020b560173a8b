//! Reads a submitted program in whatever form it comes, decides how it starts, and wraps it so that its lines
//! and columns stay as submitted.
//!
//! ```text
//!  submitted ─► marks and fences blanked ─► types blanked ─► exports blanked ─► wrapped by its entry
//! ```

use std::borrow::Cow;

use analyzer::{Answer, Entry, EntryKind, LINES_BEFORE_CALL, Language, Program, Submission, Violation};
use oxc_allocator::Allocator;
use oxc_ast::AstKind;
use oxc_ast::ast::{ExportDefaultDeclarationKind, ModuleDeclaration, Program as Tree};
use oxc_parser::{ParseOptions, Parser, ParserReturn};
use oxc_semantic::{Semantic, SemanticBuilder, Stats};
use oxc_span::{GetSpan, SourceType, Span};

use crate::edits::{Edited, Edits};
use crate::entry::{Start, declares_function};
use crate::size::Size;
use crate::source::{VIOLATIONS_MAX, refuse, syntax_errors, violation};
use crate::{calls, forms, names, tokens, types};

/// The name of a default export that has none. A program that uses it itself is refused as a duplicate.
const DEFAULT_EXPORT: &str = "__defaultExport";

pub fn analyze(submission: &Submission) -> Answer {
    let allocator = Allocator::default();
    match read(submission, &allocator).and_then(|source| started(submission, &source)) {
        Ok(program) => Answer::Program(program),
        Err(Refusal::Violations(violations)) => Answer::Refused { violations },
        Err(Refusal::TooComplex) => Answer::TooComplex,
    }
}

/// A program as JavaScript without anything around it, each line and column where it was.
struct Source<'a> {
    text: &'a str,
    language: Language,
    /// Without errors.
    parsed: ParserReturn<'a>,
    stats: Stats,
}

/// Why a program cannot be run.
enum Refusal {
    Violations(Vec<Violation>),
    TooComplex,
}

fn parse<'a>(allocator: &'a Allocator, text: &'a str, kind: SourceType) -> ParserReturn<'a> {
    let options = ParseOptions {
        allow_return_outside_function: true,
        parse_regular_expression: true,
        ..ParseOptions::default()
    };
    Parser::new(allocator, text, kind).with_options(options).parse()
}

/// What a tree has, and the errors of its parse; a tree that is too deep is not looked at any further.
fn checked(text: &str, parsed: &ParserReturn<'_>) -> Result<(Stats, Vec<Violation>), Refusal> {
    let size = Size::of(&parsed.program);
    if !size.is_bearable() {
        return Err(Refusal::TooComplex);
    }
    Ok((size.stats, syntax_errors(text, parsed)))
}

fn read<'a>(submission: &Submission, allocator: &'a Allocator) -> Result<Source<'a>, Refusal> {
    let text = allocator.alloc_str(&forms::without_marks(&submission.source));
    let wanted = submission.language;
    let is_fenced = forms::has_backquote_fences(text) && !fences_are_comment(text);
    let fenced = || {
        forms::from_fences(text).map(|fenced| {
            let said = fenced.says_typescript.then_some(Language::TypeScript);
            read_as(allocator.alloc_str(&fenced.text), wanted.or(said), allocator)
        })
    };
    if is_fenced {
        let message = "none of the fences holds a program: mark it as ```js";
        return fenced().unwrap_or_else(|| Err(Refusal::Violations(vec![violation(text, 0, message)])));
    }
    match read_as(text, wanted, allocator) {
        Ok(program) => Ok(program),
        Err(refused) => fenced().unwrap_or(Err(refused)),
    }
}

/// Whether everything that looks like a fence stands in a comment of a program.
fn fences_are_comment(text: &str) -> bool {
    let allocator = Allocator::default();
    let parsed = parse(&allocator, text, SourceType::ts());
    let in_comment = |place: u32| {
        let comments = parsed.program.comments.iter();
        comments.map(|comment| comment.span).any(|span| span.start < place && place < span.end)
    };
    syntax_errors(text, &parsed).is_empty() && forms::backquote_fences(text).all(in_comment)
}

/// As JavaScript, and as TypeScript where that fails and nothing else is said.
fn read_as<'a>(
    text: &'a str,
    language: Option<Language>,
    allocator: &'a Allocator,
) -> Result<Source<'a>, Refusal> {
    let mut refused = Vec::new();
    if language != Some(Language::TypeScript) {
        let parsed = parse(allocator, text, SourceType::mjs());
        let (stats, errors) = checked(text, &parsed)?;
        if errors.is_empty() {
            return Ok(Source { text, language: Language::JavaScript, parsed, stats });
        }
        refused = errors;
    }
    if language == Some(Language::JavaScript) {
        return Err(Refusal::Violations(refused));
    }
    let parsed = parse(allocator, text, SourceType::ts());
    let (_, errors) = checked(text, &parsed)?;
    if !errors.is_empty() {
        // What is neither is most likely that of which more was understood.
        let place = |violations: &[Violation]| violations.first().map(|first| (first.line, first.column));
        let is_typescript = refused.is_empty() || place(&errors) > place(&refused);
        return Err(Refusal::Violations(if is_typescript { errors } else { refused }));
    }
    let javascript = types::without_types(text, &parsed.program).map_err(Refusal::Violations)?;
    let text = allocator.alloc_str(&javascript);
    let parsed = parse(allocator, text, SourceType::mjs());
    match checked(text, &parsed)? {
        (stats, errors) if errors.is_empty() => {
            Ok(Source { text, language: Language::TypeScript, parsed, stats })
        }
        (_, errors) => Err(Refusal::Violations(errors)),
    }
}

fn started(submission: &Submission, source: &Source<'_>) -> Result<Program, Refusal> {
    let Source { text, language, ref parsed, stats } = *source;
    let tree = &parsed.program;
    let builder = SemanticBuilder::new().with_build_nodes(true).with_check_syntax_error(true);
    let built = builder.with_stats(stats).build(tree);
    let contradictions = built.diagnostics.errors().take(VIOLATIONS_MAX).map(|error| {
        // The last place is the one that contradicts the others.
        let offset = error.labels.last().map_or(0, |label| label.offset());
        violation(text, offset, error.message.to_string())
    });
    let mut violations: Vec<Violation> = contradictions.collect();
    let (mut edits, exported) = without_exports(submission, text, tree, &mut violations);
    tokens::rewrite(text, &built.semantic, &mut edits, &mut violations);
    refuse_dynamic_imports(submission, text, &built.semantic, &mut violations);
    let undefined = names::undefined(&built.semantic, submission);
    names::throw_where_tried(&built.semantic, &undefined, &mut edits);
    if let Some(name) = submission.entry.as_deref().filter(|name| !declares_function(tree, name)) {
        violations.push(violation(text, 0, format!("{name} is not a top-level function of the program")));
    }
    if !violations.is_empty() {
        return Err(Refusal::Violations(violations));
    }
    let start = Start::decide(submission, tree, &built.semantic, exported);
    start.prepare(text, tree, &built.semantic, &mut edits);
    let warnings = calls::rewrite(text, &built.semantic, submission, start.completes, &mut edits);
    let Edited { text: source, shifts } = edits.apply(text);
    let is_script = start.kind == EntryKind::Script;
    Ok(Program {
        source: start.wrap(source),
        entry: if is_script { Entry::Script } else { Entry::Call },
        entry_kind: start.kind,
        language,
        lines_before: if is_script { 0 } else { LINES_BEFORE_CALL },
        shifts,
        unknown: names::unknown(text, &built.semantic, &undefined),
        used: names::used(&built.semantic, submission),
        functions: names::functions(&built.semantic, submission),
        warnings,
    })
}

/// Functions that a refusal lists.
const LISTED_MAX: usize = 20;

/// What to say of an import: what there is without it.
fn no_import(submission: &Submission) -> String {
    let functions: Vec<&str> = submission.functions.iter().take(LISTED_MAX).map(String::as_str).collect();
    let more = if submission.functions.len() > LISTED_MAX { " and more" } else { "" };
    format!(
        "`import` is not available: everything that there is is already defined. Functions of this environment: {}{more}",
        functions.join(", ")
    )
}

/// Blanks what exports say, and gives the name of the default export.
fn without_exports(
    submission: &Submission,
    text: &str,
    tree: &Tree<'_>,
    violations: &mut Vec<Violation>,
) -> (Edits, Option<Cow<'static, str>>) {
    let mut edits = Edits::default();
    let mut exported = None;
    for declaration in tree.body.iter().filter_map(|statement| statement.as_module_declaration()) {
        let span = declaration.span();
        match declaration {
            ModuleDeclaration::ImportDeclaration(_) => {
                refuse(violations, text, span.start, no_import(submission))
            }
            ModuleDeclaration::ExportDeclaration(export) => {
                edits.blank(text, Span::new(span.start, export.declaration.span().start));
            }
            ModuleDeclaration::ExportNamedDeclaration(export) => {
                edits.blank_statement(text, span);
                let default = export.specifiers.iter().find(|one| one.exported.name() == "default");
                exported = default.map(|one| Cow::Owned(one.local.name().to_string())).or(exported);
            }
            ModuleDeclaration::ExportDefaultDeclaration(export) => {
                let (start, name) = match &export.declaration {
                    ExportDefaultDeclarationKind::FunctionDeclaration(function) => {
                        (function.span.start, function.id.as_ref().map(|id| id.name.to_string()))
                    }
                    ExportDefaultDeclarationKind::ClassDeclaration(_) => {
                        let message = "the default export is a class: export a function or a value";
                        refuse(violations, text, span.start, message);
                        continue;
                    }
                    other => (other.span().start, None),
                };
                let before = Span::new(span.start, start);
                match name {
                    Some(name) => {
                        edits.blank(text, before);
                        exported = Some(Cow::Owned(name));
                    }
                    None => {
                        let breaks: String = text[before.start as usize..before.end as usize]
                            .chars()
                            .filter(|character| *character == '\n')
                            .collect();
                        edits.replace(before, format!("const {DEFAULT_EXPORT} = {breaks}"));
                        edits.replace(Span::new(span.end, span.end), ";");
                        exported = Some(Cow::Borrowed(DEFAULT_EXPORT));
                    }
                }
            }
            _ => refuse(
                violations,
                text,
                span.start,
                "`export … from` is not available: there are no other modules",
            ),
        }
    }
    (edits, exported)
}

fn refuse_dynamic_imports(
    submission: &Submission,
    text: &str,
    semantic: &Semantic<'_>,
    violations: &mut Vec<Violation>,
) {
    let mut message = None;
    for node in semantic.nodes() {
        if let AstKind::ImportExpression(import) = node.kind() {
            let message =
                message.get_or_insert_with(|| no_import(submission).replace("`import`", "`import()`"));
            refuse(violations, text, import.span.start, message.as_str());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn submission(text: &str) -> Submission {
        Submission {
            source: text.to_owned(),
            functions: vec!["GetRates".to_owned()],
            ..Submission::default()
        }
    }

    fn program(submission: &Submission) -> Program {
        match analyze(submission) {
            Answer::Program(program) => program,
            other => panic!("{}: {other:?}", submission.source),
        }
    }

    #[test]
    fn the_entry_is_decided_on_the_syntax_tree() {
        let cases = [
            ("async function main() { return 1 } // end", EntryKind::Main),
            ("const main = async () => 1;", EntryKind::Main),
            ("export async function main() { return 1 }", EntryKind::Main),
            ("export default async () => 1", EntryKind::ExportDefault),
            ("export default { a: 1 }\n", EntryKind::ExportDefault),
            (
                "function helper() {}\nexport default async function run(input) { return helper() }",
                EntryKind::ExportDefault,
            ),
            ("const x = await GetRates();", EntryKind::Body),
            ("return 1", EntryKind::Body),
            ("for await (const x of []) {}", EntryKind::Body),
            ("class A extends (await GetRates()) {}", EntryKind::Body),
            ("class A { [await GetRates()]() { return 1 } }", EntryKind::Body),
            ("await using a = {};", EntryKind::Body),
            ("class A { static { (async () => await 1)() } m() { return 1 } }", EntryKind::Script),
            ("if (1) { return }", EntryKind::Body),
            ("async () => 1", EntryKind::Function),
            ("// a\n(x) => x // b\n", EntryKind::Function),
            ("/* c */ (async () => 1) ;", EntryKind::Function),
            ("(async function () { return 1 });", EntryKind::Function),
            ("const f = async () => { await GetRates() }; f()", EntryKind::Script),
            ("1 + 1", EntryKind::Script),
            ("const main = 3;", EntryKind::Script),
            ("function execute(i) { return i }", EntryKind::Script),
            ("async function main() { return 1 }\nmain();", EntryKind::Main),
            ("const main = () => 1;\nawait main()", EntryKind::Main),
            ("function main() { return 1 }\nmain().then(GetRates);", EntryKind::Script),
            ("function main(a) { return a }\nawait main(1)", EntryKind::Body),
            ("function main() { return main.length }", EntryKind::Main),
        ];
        for (text, expected) in cases {
            let program = program(&submission(text));
            assert_eq!(program.entry_kind, expected, "{text}");
            let shift = usize::try_from(program.lines_before).unwrap();
            for (line, wrapped) in text.lines().zip(program.source.lines().skip(shift)) {
                // A default export without a name moves columns; what follows a function and a call of `main` are
                // left out; the last expression is returned.
                let moved = line.contains("export default")
                    || expected == EntryKind::Function
                    || (expected == EntryKind::Main && wrapped.trim_matches([' ', ';']).is_empty())
                    || wrapped.trim_start().starts_with("return ");
                assert!(moved || wrapped.contains(line.trim_start_matches("export ")), "{wrapped}");
            }
        }
        let with_input = Submission {
            has_input: true,
            ..submission("function main() {}\nfunction execute(i) { return i }")
        };
        assert_eq!(program(&with_input).entry_kind, EntryKind::Execute);
        let named = Submission {
            entry: Some("second".to_owned()),
            ..submission("function main() {}\nconst second = () => 2")
        };
        assert_eq!(program(&named).entry_kind, EntryKind::Entry);
        let missing = Submission { entry: Some("third".to_owned()), ..named };
        assert!(matches!(analyze(&missing), Answer::Refused { .. }));
    }

    #[test]
    fn every_form_of_source_is_read_and_its_lines_stay() {
        let cases = [
            ("Here is the program:\n```js\nreturn 1\n```\nIt returns one.", Language::JavaScript, 3),
            ("```ts\nconst a: number = 1;\nreturn a\n```", Language::TypeScript, 3),
            ("\u{feff}#!/usr/bin/env node\r\nreturn 1", Language::JavaScript, 2),
            ("const a: number = 1;\nreturn a", Language::TypeScript, 2),
            ("'use strict';\nreturn `\n~~~js\nno\n~~~\n`", Language::JavaScript, 2),
            ("interface A { b: string }\nenum E { A, B }\nreturn (E.B as number)!", Language::TypeScript, 3),
        ];
        for (text, language, line) in cases {
            let program = program(&submission(text));
            assert_eq!(program.language, language, "{text}");
            let wanted = program.source.lines().nth(line).unwrap_or_default();
            assert!(wanted.contains("return"), "line {line} of {}", program.source);
        }
    }

    #[test]
    fn names_that_stand_for_nothing_are_told_with_their_place() {
        let text = "const a = 1; a();\nGetRats(); function c() { c(d(), e.f()) } try { risky() } catch (g) { g() }\nif (typeof maybe === 'undefined') h; GetRates(); ({ i }) => i()";
        let unknown = program(&submission(text)).unknown;
        let found: Vec<_> =
            unknown.iter().map(|name| (name.name.as_str(), name.called, name.line, name.column)).collect();
        assert_eq!(
            found,
            [("GetRats", true, 2, 1), ("d", true, 2, 29), ("e", false, 2, 34), ("h", false, 3, 35)]
        );
    }

    #[test]
    fn a_program_that_names_its_functions_gets_no_others() {
        let functions = |text: &str| {
            let functions = vec!["GetRates".to_owned(), "Other".to_owned()];
            program(&Submission { functions, ..submission(text) }).functions
        };
        for text in [
            "return GetRates()",
            "const o = { globalThis: 1, eval: GetRates }; return o.globalThis + o['eval']",
            "async function f(rates = GetRates()) { const GetRates = await rates; return GetRates.length } return f()",
        ] {
            assert_eq!(functions(text), ["GetRates"], "{text}");
        }
        for text in [
            "return globalThis['Oth' + 'er']",
            "return (0, eval)('Other')()",
            "return new Function('return Other()')()",
            "const all = () => this; return all()",
            "typeof this.Other",
        ] {
            assert_eq!(functions(text), ["GetRates", "Other"], "{text}");
        }
    }

    #[test]
    fn refusals_say_where() {
        let cases = [
            ("let x = ;", 1, 9),
            ("\n  import a from 'b'", 2, 3),
            ("a\nexport * from 'b'", 2, 1),
            ("f();\nawait import('fs')", 2, 7),
            ("let a = 1;\nlet a = 2", 2, 5),
        ];
        for (text, line, column) in cases {
            let Answer::Refused { violations } = analyze(&submission(text)) else {
                panic!("{text} was accepted")
            };
            assert_eq!((violations[0].line, violations[0].column), (line, column), "{text}: {violations:?}");
        }
    }

    #[test]
    fn a_wrapper_cannot_be_closed_from_inside() {
        assert!(matches!(analyze(&submission("}); (function () {")), Answer::Refused { .. }));
    }

    #[test]
    fn what_a_program_becomes_is_guessed_right_where_it_looks_as_most_do() {
        let plain = |text: &str| submission(text);
        let with_input = |text: &str| Submission { has_input: true, ..submission(text) };
        let named = |name: &str, text: &str| Submission { entry: Some(name.to_owned()), ..submission(text) };
        let main = "async function main() {\n  const rates = await GetRates({});\n  return rates.length;\n}";
        let right = [
            plain(main),
            with_input(main),
            plain("const main = async () => (await GetRates()).length;"),
            plain("const rates = await GetRates();\nreturn rates.length"),
            plain("const a = [1, 2];\nreturn a.map((n) => n * 2)"),
            with_input("function execute(input) { return input.a }"),
            with_input("return input.a"),
            plain("return globalThis.GetRates"),
            plain("return this"),
            plain("const MyGetRates = 1; return MyGetRates + $GetRates; function $GetRates() {}"),
            named("second", "function second() { return 2 }\nfunction main() { return 1 }"),
        ];
        for submission in right {
            let likely = analyzer::likely(&submission).unwrap();
            assert!(likely.is(&program(&submission)), "{} is not {}", submission.source, likely.source);
        }
        let wrong = [
            "const rates = 1; /* GetRates */ return rates",
            "const x: number = 1; return x",
            "(() => 1)() // return 1",
        ];
        for text in wrong {
            assert!(!analyzer::likely(&plain(text)).unwrap().is(&program(&plain(text))), "{text}");
        }
        let none = ["1 + 1", "GetRates().then((rates) => rates.length)", "export default () => { return 1 }"];
        for text in none {
            assert!(analyzer::likely(&submission(text)).is_none(), "{text}");
        }
    }
}
