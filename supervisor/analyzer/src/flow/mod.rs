//! Where the result of a call goes, and whether it is used there as a promise or as a value.
//!
//! A result is followed from the call outwards: through variables, holders (arrays, objects, maps), the functions
//! that return it and the callbacks that take it. What wraps it on the way is its shape. Nothing is proved here: a
//! use that is not understood counts as a use of the value, which is right for a promise as well, since the program
//! then waits for the value before.

mod bindings;
mod members;
mod shape;

use std::collections::{HashMap, HashSet};

use oxc_ast::AstKind;
use oxc_ast::ast::{Expression, LogicalOperator, PropertyKey};
use oxc_semantic::{AstNodes, NodeId, Scoping, Semantic};
use oxc_span::{GetSpan, Span};
use oxc_syntax::operator::{BinaryOperator, UnaryOperator};

use crate::entry::completion;

pub use shape::{Layer, Shape, Uses};

/// Steps that one program may cost; what is not reached counts as a use of the value.
const STEPS_MAX: u32 = 200_000;

pub struct Flow<'s, 'a> {
    nodes: &'s AstNodes<'a>,
    scoping: &'s Scoping,
    /// Reads of properties, by their names.
    members: HashMap<&'a str, Vec<NodeId>>,
    /// Methods of classes and objects, by their names; the last of each.
    methods: HashMap<&'a str, NodeId>,
    /// The program's last expression is its result.
    completes: bool,
    steps_left: u32,
    /// The block of a `try` around the call: what fails elsewhere is not caught where the program meant it.
    tried: Option<Span>,
    /// What is being followed already: a circle adds nothing.
    seen: HashSet<(NodeId, Shape<'a>)>,
}

impl<'s, 'a> Flow<'s, 'a> {
    /// `completes`: the last expression of the program is its result.
    pub fn new(semantic: &'s Semantic<'a>, completes: bool) -> Flow<'s, 'a> {
        let mut members: HashMap<&'a str, Vec<NodeId>> = HashMap::new();
        let mut methods = HashMap::new();
        for node in semantic.nodes().iter() {
            match node.kind() {
                AstKind::StaticMemberExpression(member) => {
                    members.entry(member.property.name.as_str()).or_default().push(node.id());
                }
                AstKind::PrivateFieldExpression(member) => {
                    members.entry(member.field.name.as_str()).or_default().push(node.id());
                }
                AstKind::MethodDefinition(method) => {
                    methods.extend(key_name(&method.key).map(|name| (name, method.value.node_id())));
                }
                AstKind::ObjectProperty(property) => {
                    let function = own_function(&property.value);
                    methods.extend(key_name(&property.key).zip(function));
                }
                _ => {}
            }
        }
        Flow {
            nodes: semantic.nodes(),
            scoping: semantic.scoping(),
            members,
            methods,
            completes,
            steps_left: STEPS_MAX,
            tried: None,
            seen: HashSet::new(),
        }
    }

    /// How the result of the call at `node` is used.
    pub fn of_result(&mut self, node: NodeId) -> Uses {
        self.seen.clear();
        self.tried = self.tried_around(node);
        self.follow(node, Shape::default())
    }

    /// How the results of the function that `node` stands for are used.
    pub fn of_function(&mut self, node: NodeId) -> Uses {
        self.seen.clear();
        self.tried = None;
        self.follow(node, Shape::default().within(Layer::Function))
    }

    /// The uses of the expression at `node`, in which the result lies as the shape says.
    fn follow(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        if self.steps_left == 0 || shape.is_too_deep() {
            return Uses::VALUE;
        }
        self.steps_left -= 1;
        if !self.seen.insert((node, shape.clone())) {
            return Uses::NONE;
        }
        let uses = self.step(node, shape);
        let leaves = |tried: Span| !tried.contains_inclusive(self.nodes.kind(node).span());
        if uses.awaited && self.tried.is_some_and(leaves) { uses.and(Uses::VALUE) } else { uses }
    }

    fn step(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        let span = self.nodes.kind(node).span();
        let parent = self.nodes.parent_id(node);
        match self.nodes.kind(parent) {
            AstKind::ParenthesizedExpression(_) | AstKind::ChainExpression(_) => self.follow(parent, shape),
            AstKind::AwaitExpression(_) => self.awaited(parent, shape),
            AstKind::StaticMemberExpression(member) if member.object.span() == span => {
                self.member(parent, member.property.name.as_str(), shape)
            }
            AstKind::PrivateFieldExpression(member) if member.object.span() == span => {
                self.member(parent, member.field.name.as_str(), shape)
            }
            AstKind::ComputedMemberExpression(member) if member.object.span() == span => {
                match &member.expression {
                    Expression::StringLiteral(name) => self.member(parent, name.value.as_str(), shape),
                    _ => self.element(parent, shape),
                }
            }
            AstKind::CallExpression(call) if call.callee.span() == span => self.called(parent, shape),
            AstKind::CallExpression(call) => self.argument(parent, call, span, shape),
            AstKind::NewExpression(new) => self.constructed(parent, new, span, shape),
            AstKind::ArrayExpression(_) => self.follow(parent, shape.within(Layer::Holder(None))),
            AstKind::SpreadElement(_) => self.spread(parent, shape),
            AstKind::ObjectProperty(property) if property.value.span() == span => self
                .follow(self.nodes.parent_id(parent), shape.within(Layer::Holder(key_name(&property.key)))),
            AstKind::PropertyDefinition(property) => match key_name(&property.key) {
                Some(name) => self.named(name, &shape),
                None => Uses::VALUE,
            },
            AstKind::MethodDefinition(method) => self.method(method, shape),
            AstKind::AssignmentExpression(assignment) => self.assigned(parent, assignment, span, shape),
            AstKind::VariableDeclarator(declarator) => self.pattern(&declarator.id, &shape),
            AstKind::FormalParameter(parameter) => self.pattern(&parameter.pattern, &shape),
            AstKind::AssignmentPattern(pattern) => self.pattern(&pattern.left, &shape),
            AstKind::ConditionalExpression(choice) if choice.test.span() != span => {
                self.follow(parent, shape)
            }
            AstKind::LogicalExpression(logical) => {
                self.alternative(parent, logical.operator, logical.right.span() == span, shape)
            }
            AstKind::SequenceExpression(sequence) => {
                let is_last = sequence.expressions.last().is_some_and(|last| last.span() == span);
                if is_last { self.follow(parent, shape) } else { shape.tested() }
            }
            AstKind::UnaryExpression(unary) => match unary.operator {
                UnaryOperator::Void => Uses::AWAITED,
                UnaryOperator::Typeof | UnaryOperator::Delete => Uses::NONE,
                _ => Uses::VALUE,
            },
            AstKind::BinaryExpression(binary) if binary.operator == BinaryOperator::Instanceof => Uses::NONE,
            AstKind::ReturnStatement(_) => self.returned(parent, shape),
            AstKind::ArrowFunctionExpression(_) => self.returned(node, shape),
            AstKind::YieldExpression(_) => self.yielded(parent, &shape),
            AstKind::ForOfStatement(statement) if statement.right.span() == span => {
                self.iterated(statement, shape)
            }
            AstKind::ExportDefaultDeclaration(_) => shape.adopted(),
            AstKind::ExpressionStatement(_) => self.stated(parent, &shape),
            _ => shape.tested(),
        }
    }

    fn awaited(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        match shape.outermost() {
            None => Uses::AWAITED,
            Some(Layer::Promise) => self.follow(node, shape.inner()),
            // `await` gives anything else back as it is.
            Some(_) => self.follow(node, shape),
        }
    }

    /// `a || b` and the like.
    fn alternative(
        &mut self,
        node: NodeId,
        operator: LogicalOperator,
        is_right: bool,
        shape: Shape<'a>,
    ) -> Uses {
        let passes = is_right || operator != LogicalOperator::And;
        match shape.outermost() {
            None if !is_right => Uses::VALUE,
            _ if passes => self.follow(node, shape),
            _ => Uses::NONE,
        }
    }

    fn spread(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        let Some(Layer::Holder(_) | Layer::Entry) = shape.outermost() else { return shape.tested() };
        let parent = self.nodes.parent_id(node);
        match self.nodes.kind(parent) {
            AstKind::ArrayExpression(_) | AstKind::ObjectExpression(_) => self.follow(parent, shape),
            AstKind::CallExpression(call) => {
                self.argument(parent, call, self.nodes.kind(node).span(), shape.inner())
            }
            _ => Uses::VALUE,
        }
    }

    /// What a function gives back.
    fn returned(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        if shape.outermost().is_none() && self.tried_around(node).is_some() {
            // Only what has failed here can be caught here.
            return Uses::VALUE.and(Uses::AWAITED);
        }
        let function =
            self.nodes.ancestor_ids(node).find(|ancestor| self.nodes.kind(*ancestor).is_function_like());
        let Some(function) = function else { return shape.adopted() };
        let (is_async, is_generator) = match self.nodes.kind(function) {
            AstKind::Function(function) => (function.r#async, function.generator),
            AstKind::ArrowFunctionExpression(arrow) => (arrow.r#async, false),
            _ => (false, false),
        };
        match (is_async, shape.outermost()) {
            _ if is_generator => shape.tested(),
            (true, None) => Uses::AWAITED,
            (true, Some(layer)) if layer != Layer::Promise => {
                self.function(function, shape.within(Layer::Promise).within(Layer::Function))
            }
            _ => self.function(function, shape.within(Layer::Function)),
        }
    }

    fn yielded(&mut self, node: NodeId, shape: &Shape<'a>) -> Uses {
        let function = self.nodes.ancestor_kinds(node).find(|kind| kind.is_function_like());
        match function {
            Some(AstKind::Function(function)) if function.r#async && shape.outermost().is_none() => {
                Uses::AWAITED
            }
            _ => shape.tested(),
        }
    }

    /// An expression that is a statement: dropped, unless it is the program's result.
    fn stated(&mut self, node: NodeId, shape: &Shape<'a>) -> Uses {
        let is_last = || match self.nodes.parent_kind(node) {
            AstKind::Program(program) => {
                completion(&program.body).is_some_and(|last| last.span() == self.nodes.kind(node).span())
            }
            _ => false,
        };
        if self.completes && is_last() { shape.adopted() } else { shape.tested() }
    }

    /// The block of a `try` that has a `catch`, within the same function.
    fn tried_around(&self, node: NodeId) -> Option<Span> {
        let place = self.nodes.kind(node).span();
        let mut around = self.nodes.ancestor_kinds(node).take_while(|kind| !kind.is_function_like());
        around.find_map(|kind| match kind {
            AstKind::TryStatement(tried) if tried.handler.is_some() => {
                Some(tried.block.span).filter(|block| block.contains_inclusive(place))
            }
            _ => None,
        })
    }

    fn span(&self, node: NodeId) -> Span {
        self.nodes.kind(node).span()
    }
}

/// The name of a property, where the source says it.
fn key_name<'a>(key: &PropertyKey<'a>) -> Option<&'a str> {
    match key {
        PropertyKey::StaticIdentifier(name) => Some(name.name.as_str()),
        PropertyKey::PrivateIdentifier(name) => Some(name.name.as_str()),
        PropertyKey::StringLiteral(text) => Some(text.value.as_str()),
        _ => None,
    }
}

/// The function that an expression is.
fn own_function(expression: &Expression<'_>) -> Option<NodeId> {
    match expression.without_parentheses() {
        Expression::FunctionExpression(function) => Some(function.node_id()),
        Expression::ArrowFunctionExpression(arrow) => Some(arrow.node_id()),
        _ => None,
    }
}
