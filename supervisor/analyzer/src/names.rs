//! The names that a program uses and that stand for nothing: neither declared by it, nor a global of the guest,
//! nor a function of the environment.

use analyzer::{GLOBALS, Submission, UnknownName, WAYS_TO_NAMES};
use oxc_ast::AstKind;
use oxc_ast::ast::Ident;
use oxc_semantic::{AstNodes, NodeId, Reference, Semantic};
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

/// The functions that a program can use. A name counts as mentioned whatever it stands for: a parameter's default is
/// outside of what the body declares, and this is no place to decide such things.
pub fn functions(semantic: &Semantic<'_>, submission: &Submission) -> Vec<String> {
    let scoping = semantic.scoping();
    let used = scoping.symbol_ids().filter(|symbol| !scoping.symbol_is_unused(*symbol));
    let mut own: Vec<&str> = used.map(|symbol| scoping.symbol_name(symbol)).collect();
    own.sort_unstable();
    let is_mentioned = |name: &str| {
        scoping.root_unresolved_references().contains_key(&Ident::from(name))
            || own.binary_search(&name).is_ok()
    };
    let all = WAYS_TO_NAMES.iter().any(|way| is_mentioned(way))
        || semantic.nodes().iter().any(|node| matches!(node.kind(), AstKind::ThisExpression(_)));
    submission.functions.iter().filter(|name| all || is_mentioned(name)).cloned().collect()
}

/// More unknown names help nobody.
const TOLD_MAX: usize = 50;

/// Each with its first place, in the order of the source, up to `TOLD_MAX`. A name that is asked for with `typeof`
/// anywhere is left to run time, and so is a place in a `try` that has a `catch`.
pub fn unknown(source: &str, semantic: &Semantic<'_>, undefined: &[Undefined<'_>]) -> Vec<UnknownName> {
    let nodes = semantic.nodes();
    let start = |reference: &Reference| nodes.kind(reference.node_id()).span().start;
    let first = |Undefined { name, references }: &Undefined<'_>| {
        let undecided = references.iter().filter(|reference| !is_tried(nodes, reference.node_id()));
        let first = undecided.min_by_key(|reference| start(reference))?;
        Some((start(first), (*name).to_owned(), first.node_id(), first.is_write()))
    };
    let mut found: Vec<_> = undefined.iter().filter_map(first).collect();
    found.sort();
    let told = |(start, name, node, assigned): (u32, String, NodeId, bool)| {
        let (line, column) = position(source, start as usize);
        UnknownName { name, called: is_called(nodes, node), assigned, line, column }
    };
    found.into_iter().take(TOLD_MAX).map(told).collect()
}

/// A name that is left to run time fails there as JavaScript says: SES gives `undefined` for what is not defined.
pub fn throw_where_tried(semantic: &Semantic<'_>, undefined: &[Undefined<'_>], edits: &mut Edits) {
    let nodes = semantic.nodes();
    for Undefined { name, references } in undefined {
        for place in references.iter().filter(|place| place.is_read() && !place.is_write()) {
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

/// A name that stands for nothing and that nothing asks for with `typeof`, with its places.
pub struct Undefined<'s> {
    name: &'s str,
    references: Vec<&'s Reference>,
}

pub fn undefined<'s>(semantic: &'s Semantic<'_>, submission: &Submission) -> Vec<Undefined<'s>> {
    let scoping = semantic.scoping();
    let is_known =
        |name: &str| GLOBALS.binary_search(&name).is_ok() || submission.known().any(|known| known == name);
    let mut found = Vec::new();
    for (name, references) in scoping.root_unresolved_references() {
        if is_known(name) {
            continue;
        }
        let references: Vec<_> =
            references.iter().map(|reference| scoping.get_reference(*reference)).collect();
        if !references.iter().any(|reference| is_asked_for(semantic.nodes(), reference.node_id())) {
            found.push(Undefined { name: name.as_str(), references });
        }
    }
    found
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
