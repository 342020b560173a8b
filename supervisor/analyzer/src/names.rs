//! The names that a program uses and that stand for nothing: neither declared by it, nor a global of the guest,
//! nor a function of the environment.

use analyzer::{GLOBALS, Submission, UnknownName};
use oxc_ast::AstKind;
use oxc_semantic::{AstNodes, NodeId, Semantic};
use oxc_span::GetSpan;
use oxc_syntax::operator::UnaryOperator;

use crate::edits::Edits;
use crate::source::position;

/// The given names that a program uses.
pub fn used(semantic: &Semantic<'_>, submission: &Submission) -> Vec<String> {
    let unresolved = semantic.scoping().root_unresolved_references();
    let is_used = |name: &&str| unresolved.iter().any(|(used, _)| used.as_str() == *name);
    submission.known().filter(is_used).map(str::to_owned).collect()
}

/// More unknown names help nobody.
const TOLD_MAX: usize = 50;

/// Each with its first place, in the order of the source, up to `TOLD_MAX`. A name that is asked for with `typeof` anywhere is
/// left to run time, and so is a place in a `try` that has a `catch`.
pub fn unknown(source: &str, semantic: &Semantic<'_>, submission: &Submission) -> Vec<UnknownName> {
    let scoping = semantic.scoping();
    let mut found: Vec<(&str, NodeId)> = Vec::new();
    for (name, references) in scoping.root_unresolved_references() {
        let name = name.as_str();
        if GLOBALS.contains(&name) || submission.known().any(|known| known == name) {
            continue;
        }
        let places = || references.iter().map(|reference| scoping.get_reference(*reference).node_id());
        if places().any(|node| is_asked_for(semantic.nodes(), node)) {
            continue;
        }
        let undecided = places().filter(|node| !is_tried(semantic.nodes(), *node));
        let first = undecided.min_by_key(|node| semantic.nodes().kind(*node).span().start);
        found.extend(first.map(|node| (name, node)));
    }
    found.sort_by_key(|(_, node)| semantic.nodes().kind(*node).span().start);
    let told = |(name, node): (&str, NodeId)| {
        let (line, column) = position(source, semantic.nodes().kind(node).span().start as usize);
        let assigned = semantic.scoping().root_unresolved_references().iter().any(|(used, references)| {
            used.as_str() == name
                && references.iter().any(|reference| {
                    let reference = semantic.scoping().get_reference(*reference);
                    reference.node_id() == node && reference.is_write()
                })
        });
        let called = is_called(semantic.nodes(), node);
        UnknownName { name: name.to_owned(), called, assigned, line, column }
    };
    found.into_iter().take(TOLD_MAX).map(told).collect()
}

/// A name that is left to run time fails there as JavaScript says: SES gives `undefined` for what is not defined.
pub fn throw_where_tried(semantic: &Semantic<'_>, submission: &Submission, edits: &mut Edits) {
    let (scoping, nodes) = (semantic.scoping(), semantic.nodes());
    for (name, references) in scoping.root_unresolved_references() {
        let name = name.as_str();
        if GLOBALS.contains(&name) || submission.known().any(|known| known == name) {
            continue;
        }
        let places = || references.iter().map(|reference| scoping.get_reference(*reference));
        if places().any(|place| is_asked_for(nodes, place.node_id())) {
            continue;
        }
        for place in places().filter(|place| place.is_read() && !place.is_write()) {
            let node = place.node_id();
            if is_tried(nodes, node) {
                let is_short = matches!(nodes.parent_kind(node), AstKind::ObjectProperty(property) if property.shorthand);
                let before = if is_short { format!("{name}: ") } else { String::new() };
                let thrown =
                    format!("{before}((() => {{ throw new ReferenceError('{name} is not defined') }})())");
                edits.replace(nodes.kind(node).span(), thrown);
            }
        }
    }
}

/// `typeof name`
fn is_asked_for(nodes: &AstNodes<'_>, node: NodeId) -> bool {
    let parent = nodes.parent_kind(node);
    matches!(parent, AstKind::UnaryExpression(unary) if unary.operator == UnaryOperator::Typeof)
}

/// Inside of a `try` that has a `catch`.
fn is_tried(nodes: &AstNodes<'_>, node: NodeId) -> bool {
    let place = nodes.kind(node).span();
    nodes.ancestor_kinds(node).any(|kind| match kind {
        AstKind::TryStatement(statement) => {
            statement.handler.is_some() && statement.block.span.contains_inclusive(place)
        }
        _ => false,
    })
}

fn is_called(nodes: &AstNodes<'_>, node: NodeId) -> bool {
    let place = nodes.kind(node).span();
    matches!(nodes.parent_kind(node), AstKind::CallExpression(call) if call.callee.span() == place)
}
