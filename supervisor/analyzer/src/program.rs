//! Decides how a program starts, and wraps it so that its lines and columns stay as submitted.
//!
//! In this order: a top-level `main`; the whole program is one function expression; a body with
//! top-level `return` or `await`; else a script whose completion value is the result.

use std::collections::BTreeSet;

use analyzer::{Answer, Entry, Program, Violation};
use oxc_allocator::Allocator;
use oxc_ast::ast::{
    ArrowFunctionExpression, AwaitExpression, BindingIdentifier, BindingPattern, CallExpression, Class,
    Declaration, Expression, ForOfStatement, Function, ModuleDeclaration, Program as Tree, ReturnStatement,
    Statement, VariableDeclaration,
};
use oxc_ast_visit::Visit;
use oxc_parser::{ParseOptions, Parser};
use oxc_span::{GetSpan, SourceType};
use oxc_syntax::scope::ScopeFlags;

use crate::source::{syntax_errors, violation};

/// A call is wrapped in one function whose head stands on a line of its own.
const LINES_BEFORE_CALL: u32 = 1;

pub fn analyze(text: &str) -> Answer {
    let allocator = Allocator::default();
    let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
    let parsed = Parser::new(&allocator, text, SourceType::mjs()).with_options(options).parse();
    let mut violations = syntax_errors(text, &parsed);
    violations.extend(parsed.program.body.iter().filter_map(|statement| module_syntax(text, statement)));
    if !violations.is_empty() {
        return Answer::Refused { violations };
    }
    Answer::Program(Program { unbound_calls: unbound_calls(&parsed.program), ..wrap(text, &parsed.program) })
}

fn wrap(text: &str, tree: &Tree<'_>) -> Program {
    if declares_main(tree) {
        call("", text, "\nreturn await main(input);")
    } else if is_one_function(tree) {
        let end = tree.body.first().map_or(text.len(), |statement| expression_end(statement) as usize);
        call("return await (", &text[..end], "\n)(input);")
    } else if is_body(tree) {
        call("", text, "")
    } else {
        Program { source: text.to_owned(), entry: Entry::Script, lines_before: 0, unbound_calls: Vec::new() }
    }
}

fn call(before: &str, text: &str, after: &str) -> Program {
    Program {
        source: format!("(async function (input) {{{before}\n{text}{after}\n}})"),
        entry: Entry::Call,
        lines_before: LINES_BEFORE_CALL,
        unbound_calls: Vec::new(),
    }
}

fn module_syntax(text: &str, statement: &Statement<'_>) -> Option<Violation> {
    let declaration = statement.as_module_declaration()?;
    let message = match declaration {
        ModuleDeclaration::ImportDeclaration(_) => {
            "`import` is not available: the functions of the environment are already defined"
        }
        _ => "`export` is not available: declare `async function main()` instead",
    };
    Some(violation(text, declaration.span().start, message))
}

fn declares_main(tree: &Tree<'_>) -> bool {
    tree.body.iter().any(|statement| match statement.as_declaration() {
        Some(Declaration::FunctionDeclaration(function)) => {
            function.id.as_ref().is_some_and(|id| id.name == "main")
        }
        Some(Declaration::VariableDeclaration(declaration)) => binds_main_to_function(declaration),
        _ => false,
    })
}

fn binds_main_to_function(declaration: &VariableDeclaration<'_>) -> bool {
    declaration.declarations.iter().any(|declarator| {
        let named = matches!(&declarator.id, BindingPattern::BindingIdentifier(id) if id.name == "main");
        named && declarator.init.as_ref().is_some_and(is_function)
    })
}

fn is_function(expression: &Expression<'_>) -> bool {
    matches!(
        expression.without_parentheses(),
        Expression::FunctionExpression(_) | Expression::ArrowFunctionExpression(_)
    )
}

fn is_one_function(tree: &Tree<'_>) -> bool {
    let [Statement::ExpressionStatement(statement)] = tree.body.as_slice() else { return false };
    tree.directives.is_empty() && is_function(&statement.expression)
}

fn expression_end(statement: &Statement<'_>) -> u32 {
    match statement {
        Statement::ExpressionStatement(statement) => statement.expression.span().end,
        other => other.span().end,
    }
}

fn is_body(tree: &Tree<'_>) -> bool {
    let mut finder = BodyFinder { found: false };
    finder.visit_program(tree);
    finder.found
}

/// Looks for `return` and `await` outside of every function.
struct BodyFinder {
    found: bool,
}

impl<'a> Visit<'a> for BodyFinder {
    fn visit_return_statement(&mut self, _: &ReturnStatement<'a>) {
        self.found = true;
    }

    fn visit_await_expression(&mut self, _: &AwaitExpression<'a>) {
        self.found = true;
    }

    fn visit_for_of_statement(&mut self, statement: &ForOfStatement<'a>) {
        self.found |= statement.r#await;
        oxc_ast_visit::walk::walk_for_of_statement(self, statement);
    }

    fn visit_function(&mut self, _: &Function<'a>, _: ScopeFlags) {}

    fn visit_arrow_function_expression(&mut self, _: &ArrowFunctionExpression<'a>) {}

    fn visit_class(&mut self, _: &Class<'a>) {}
}

fn unbound_calls(tree: &Tree<'_>) -> Vec<String> {
    let mut names = Names::default();
    names.visit_program(tree);
    names.called.difference(&names.declared).cloned().collect()
}

/// The names that a program declares anywhere, and those that it calls.
#[derive(Default)]
struct Names {
    declared: BTreeSet<String>,
    called: BTreeSet<String>,
}

impl<'a> Visit<'a> for Names {
    fn visit_binding_identifier(&mut self, identifier: &BindingIdentifier<'a>) {
        self.declared.insert(identifier.name.to_string());
    }

    fn visit_call_expression(&mut self, call: &CallExpression<'a>) {
        if let Expression::Identifier(callee) = call.callee.without_parentheses() {
            self.called.insert(callee.name.to_string());
        }
        oxc_ast_visit::walk::walk_call_expression(self, call);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(text: &str) -> (Entry, String) {
        match analyze(text) {
            Answer::Program(program) => (program.entry, program.source),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn the_entry_is_decided_on_the_syntax_tree() {
        let main = "\nreturn await main(input);";
        let cases = [
            ("async function main() { return 1 } // end", Some(("", main))),
            ("const main = async () => 1;", Some(("", main))),
            ("const x = await f();", Some(("", ""))),
            ("return 1", Some(("", ""))),
            ("for await (const x of y) {}", Some(("", ""))),
            ("if (x) { return }", Some(("", ""))),
            ("const f = async () => { await g() }; f()", None),
            ("1 + 1", None),
            ("const main = 3;", None),
        ];
        for (text, expected) in cases {
            let (kind, source) = entry(text);
            match expected {
                Some((before, after)) => assert_eq!(
                    source,
                    format!("(async function (input) {{{before}\n{text}{after}\n}})"),
                    "{text}"
                ),
                None => assert_eq!((kind, source.as_str()), (Entry::Script, text), "{text}"),
            }
        }
    }

    #[test]
    fn one_function_expression_is_called_whatever_stands_around_it() {
        for text in [
            "async () => 1",
            "(async function () { return 1 });",
            "// a\n(x) => x // b\n",
            "/* c */ (async () => 1) ;",
        ] {
            let (kind, source) = entry(text);
            assert_eq!(kind, Entry::Call, "{text}");
            assert!(source.starts_with("(async function (input) {return await (\n"), "{source}");
            assert!(source.ends_with("\n)(input);\n})"), "{source}");
        }
    }

    #[test]
    fn calls_of_names_that_are_nowhere_declared_are_listed() {
        let text = "const a = 1; a(); b(); function c() { c(d(), e.f()) } try {} catch (g) { g() } (h)(); b(); ({ i }) => i()";
        let Answer::Program(program) = analyze(text) else { panic!("{text} was refused") };
        assert_eq!(program.unbound_calls, ["b", "d", "h"]);
    }

    #[test]
    fn refusals_say_where() {
        let cases = [("let x = ;", 1, 9), ("\n  import a from 'b'", 2, 3), ("a\nexport const b = 1", 2, 1)];
        for (text, line, column) in cases {
            let Answer::Refused { violations } = analyze(text) else { panic!("{text} was accepted") };
            assert_eq!((violations[0].line, violations[0].column), (line, column), "{text}: {violations:?}");
        }
    }

    #[test]
    fn a_wrapper_cannot_be_closed_from_inside() {
        assert!(matches!(analyze("}); (function () {"), Answer::Refused { .. }));
    }
}
