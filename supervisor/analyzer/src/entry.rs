//! Decides where a program starts, on its syntax tree, and wraps it so.

use std::borrow::Cow;

use analyzer::{EntryKind, Submission, calling, wrapped};
use oxc_ast::AstKind;
use oxc_ast::ast::{
    BindingPattern, Declaration, ExportDefaultDeclarationKind, Expression, Program as Tree, Statement,
    VariableDeclaration,
};
use oxc_semantic::{NodeId, Semantic};
use oxc_span::{GetSpan, Span};

use crate::edits::Edits;

/// Where a program starts.
pub struct Start {
    pub kind: EntryKind,
    /// The last expression is the result.
    pub completes: bool,
    /// The function to call, or the exported value.
    name: Option<Cow<'static, str>>,
    has_input: bool,
    /// Something outside of every function is awaited, or may be.
    awaits: bool,
}

impl Start {
    fn at(kind: EntryKind, name: Option<Cow<'static, str>>) -> Start {
        Start { kind, completes: false, name, has_input: false, awaits: false }
    }

    /// The name is one that `declares_function` knows.
    pub fn decide(
        submission: &Submission,
        tree: &Tree<'_>,
        semantic: &Semantic<'_>,
        exported: Option<Cow<'static, str>>,
    ) -> Start {
        let body = Body::of(semantic);
        let start = Start::find(submission, tree, semantic, exported, &body);
        Start { has_input: submission.has_input, awaits: body.awaits, ..start }
    }

    fn find(
        submission: &Submission,
        tree: &Tree<'_>,
        semantic: &Semantic<'_>,
        exported: Option<Cow<'static, str>>,
        body: &Body,
    ) -> Start {
        if let Some(name) = &submission.entry {
            return Start::at(EntryKind::Entry, Some(Cow::Owned(name.clone())));
        }
        if exported.is_some() {
            return Start::at(EntryKind::ExportDefault, exported);
        }
        let starts =
            |name| declares_function(tree, name) && !matches!(own_call(semantic, name), OwnCall::Other);
        if submission.has_input && starts("execute") {
            return Start::at(EntryKind::Execute, Some(Cow::Borrowed("execute")));
        }
        if starts("main") {
            return Start::at(EntryKind::Main, Some(Cow::Borrowed("main")));
        }
        if is_one_function(tree) {
            return Start::at(EntryKind::Function, None);
        }
        let kind = if body.returns || body.awaits { EntryKind::Body } else { EntryKind::Script };
        Start { completes: !body.returns, ..Start::at(kind, None) }
    }

    /// What has to change in the source for this start.
    pub fn prepare(&self, text: &str, tree: &Tree<'_>, semantic: &Semantic<'_>, edits: &mut Edits) {
        match self.kind {
            // It is called with the input instead, and once.
            EntryKind::Entry | EntryKind::Execute | EntryKind::Main => {
                if let OwnCall::Plain(span) =
                    self.name.as_deref().map_or(OwnCall::None, |name| own_call(semantic, name))
                {
                    edits.blank_statement(text, span);
                }
            }
            EntryKind::Function => {
                // Nothing but the expression may stand between the parentheses that call it.
                let end = tree.body.first().map_or(0, expression_end);
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                edits.blank(text, Span::new(end, length));
            }
            EntryKind::Body if self.completes => {
                if let Some(last) = completion(&tree.body) {
                    return_completion(last, edits);
                }
            }
            EntryKind::Body | EntryKind::ExportDefault | EntryKind::Script => {}
        }
    }

    /// The source as the guest evaluates it, the head of a wrapping function on a line of its own.
    pub fn wrap(&self, source: String) -> String {
        let name = self.name.as_deref().unwrap_or_default();
        let given = if self.has_input { "input" } else { "" };
        let ending = match self.kind {
            EntryKind::Script => return source,
            EntryKind::Function => {
                return format!("(function () {{return (\n{}\n)({given});\n}})", source.trim_end());
            }
            EntryKind::Body => String::new(),
            EntryKind::ExportDefault => {
                format!("return (typeof {name} === 'function' ? {name}({given}) : {name});\n")
            }
            EntryKind::Entry | EntryKind::Execute | EntryKind::Main => calling(name, self.has_input),
        };
        wrapped(self.awaits, &source, &ending)
    }
}

/// What a program does with a function at its top level.
enum OwnCall {
    None,
    /// A statement that calls it without arguments, and nothing else.
    Plain(Span),
    Other,
}

fn own_call(semantic: &Semantic<'_>, name: &str) -> OwnCall {
    let scoping = semantic.scoping();
    let Some(symbol) = scoping.get_root_binding(name.into()) else { return OwnCall::None };
    let outside: Vec<NodeId> = semantic
        .symbol_references(symbol)
        .map(|reference| reference.node_id())
        .filter(|node| semantic.nodes().ancestor_kinds(*node).all(|kind| !kind.is_function_like()))
        .filter(|node| !matches!(semantic.nodes().parent_kind(*node), AstKind::ExportSpecifier(_)))
        .collect();
    match outside.as_slice() {
        [] => OwnCall::None,
        [node] => plain_call(semantic, *node).map_or(OwnCall::Other, OwnCall::Plain),
        _ => OwnCall::Other,
    }
}

/// The statement `name()`, `await name()` or `void name()`.
fn plain_call(semantic: &Semantic<'_>, callee: NodeId) -> Option<Span> {
    let mut ancestors = semantic.nodes().ancestor_kinds(callee);
    let AstKind::CallExpression(call) = ancestors.next()? else { return None };
    let mut around = ancestors.skip_while(|kind| {
        matches!(
            kind,
            AstKind::AwaitExpression(_) | AstKind::UnaryExpression(_) | AstKind::ParenthesizedExpression(_)
        )
    });
    let statement = around.next()?;
    let is_plain = call.arguments.is_empty()
        && call.callee.span() == semantic.nodes().kind(callee).span()
        && matches!(statement, AstKind::ExpressionStatement(_))
        && matches!(around.next()?, AstKind::Program(_));
    is_plain.then(|| statement.span())
}

/// Whether a top-level name stands for a function.
pub fn declares_function(tree: &Tree<'_>, name: &str) -> bool {
    let declares = |declaration: &Declaration<'_>| match declaration {
        Declaration::FunctionDeclaration(function) => function.id.as_ref().is_some_and(|id| id.name == name),
        Declaration::VariableDeclaration(declaration) => binds_to_function(declaration, name),
        _ => false,
    };
    tree.body.iter().any(|statement| match statement {
        Statement::ExportDeclaration(export) => declares(&export.declaration),
        Statement::ExportDefaultDeclaration(export) => matches!(
            &export.declaration,
            ExportDefaultDeclarationKind::FunctionDeclaration(function)
                if function.id.as_ref().is_some_and(|id| id.name == name)
        ),
        other => other.as_declaration().is_some_and(declares),
    })
}

fn binds_to_function(declaration: &VariableDeclaration<'_>, name: &str) -> bool {
    declaration.declarations.iter().any(|declarator| {
        let named = matches!(&declarator.id, BindingPattern::BindingIdentifier(id) if id.name == name);
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

/// Makes the last expression of a statement what its function returns, as a script would give it.
fn return_completion(statement: &Statement<'_>, edits: &mut Edits) {
    match statement {
        Statement::ExpressionStatement(statement) => {
            edits.replace(Span::new(statement.span.start, statement.span.start), "return ");
        }
        Statement::BlockStatement(block) => {
            if let Some(last) = completion(&block.body) {
                return_completion(last, edits);
            }
        }
        Statement::IfStatement(choice) => {
            return_completion(&choice.consequent, edits);
            if let Some(other) = &choice.alternate {
                return_completion(other, edits);
            }
        }
        Statement::TryStatement(tried) => {
            let handled = tried.handler.as_ref().and_then(|handler| completion(&handler.body.body));
            for last in completion(&tried.block.body).into_iter().chain(handled) {
                return_completion(last, edits);
            }
        }
        Statement::LabeledStatement(labelled) => return_completion(&labelled.body, edits),
        _ => {}
    }
}

/// The statement whose value is that of a list: declarations have none.
pub fn completion<'t, 'a>(statements: &'t [Statement<'a>]) -> Option<&'t Statement<'a>> {
    let has_none = |statement: &Statement<'_>| match statement {
        Statement::ExportDeclaration(export) => {
            matches!(
                export.declaration,
                Declaration::FunctionDeclaration(_) | Declaration::ClassDeclaration(_)
            )
        }
        Statement::FunctionDeclaration(_)
        | Statement::ClassDeclaration(_)
        | Statement::EmptyStatement(_)
        | Statement::ExportNamedDeclaration(_) => true,
        _ => false,
    };
    statements.iter().rev().find(|statement| !has_none(statement))
}

/// What stands outside of every function.
#[derive(Default)]
struct Body {
    returns: bool,
    awaits: bool,
}

impl Body {
    fn of(semantic: &Semantic<'_>) -> Body {
        let nodes = semantic.nodes();
        let mut body = Body::default();
        for node in nodes {
            let (returns, awaits) = match node.kind() {
                AstKind::ReturnStatement(_) => (true, false),
                AstKind::AwaitExpression(_) => (false, true),
                AstKind::ForOfStatement(statement) => (false, statement.r#await),
                AstKind::VariableDeclaration(declaration) => (false, declaration.kind.is_await()),
                _ => continue,
            };
            // Of a class, what it extends and the names of its members stand outside of its functions.
            if (returns || awaits) && !nodes.ancestor_kinds(node.id()).any(|kind| kind.is_function_like()) {
                body.returns |= returns;
                body.awaits |= awaits;
            }
        }
        body
    }
}
