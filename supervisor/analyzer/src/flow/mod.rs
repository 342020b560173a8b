//! Where the result of a call goes, and whether it is used there as a promise or as a value.
//!
//! A result is followed from the call outwards: through variables, holders (arrays, objects, maps), the functions
//! that return it and the callbacks that take it. What wraps it on the way is its shape. Nothing is proved here: a
//! use that is not understood counts as a use of the value, which is right for a promise as well, since the program
//! then waits for the value before.

mod bindings;
mod members;
mod shape;

use std::cell::OnceCell;
use std::collections::{HashMap, HashSet};

use oxc_ast::AstKind;
use oxc_ast::ast::{
    BindingPattern, Expression, IdentifierReference, LogicalOperator, ObjectProperty, PropertyKey,
    PropertyKind,
};
use oxc_semantic::{AstNodes, NodeId, Scoping, Semantic, SymbolId};
use oxc_span::{GetSpan, Span};
use oxc_syntax::operator::{BinaryOperator, UnaryOperator};

use crate::entry::completion;

pub use shape::{Layer, Shape, Uses};

/// Steps that one program may cost; what is not reached counts as a use of the value.
const STEPS_MAX: u32 = 200_000;

pub struct Flow<'s, 'a> {
    nodes: &'s AstNodes<'a>,
    scoping: &'s Scoping,
    /// Made when something is followed through a property.
    properties: OnceCell<Properties<'a>>,
    /// The program's last expression is its result.
    completes: bool,
    steps_left: u32,
    /// The call itself.
    site: Span,
    /// The block of a `try` around the call, and the function of both: what fails elsewhere in that is not caught where
    /// the program meant it.
    tried: Option<(Span, Option<NodeId>)>,
    /// What is being followed already: a circle adds nothing.
    seen: HashSet<(NodeId, Shape<'a>)>,
}

/// What a program has by the names of properties.
#[derive(Default)]
struct Properties<'a> {
    /// Reads of them.
    members: HashMap<&'a str, Vec<NodeId>>,
    /// Methods of classes and objects.
    methods: HashMap<&'a str, Vec<NodeId>>,
    /// What is taken out of `this`.
    taken: HashMap<&'a str, Vec<&'a BindingPattern<'a>>>,
}

impl<'a> Properties<'a> {
    fn of(nodes: &AstNodes<'a>) -> Properties<'a> {
        let mut properties = Properties::default();
        let Properties { members, methods, taken } = &mut properties;
        for node in nodes {
            match node.kind() {
                AstKind::StaticMemberExpression(member) => {
                    members.entry(member.property.name.as_str()).or_default().push(node.id());
                }
                AstKind::PrivateFieldExpression(member) => {
                    members.entry(member.field.name.as_str()).or_default().push(node.id());
                }
                AstKind::MethodDefinition(method) => {
                    let name = key_name(&method.key).unwrap_or_default();
                    methods.entry(name).or_default().push(method.value.node_id());
                }
                AstKind::ObjectProperty(property) => {
                    if let Some((name, function)) = key_name(&property.key).zip(own_function(&property.value))
                    {
                        methods.entry(name).or_default().push(function);
                    }
                }
                AstKind::VariableDeclarator(declarator) => {
                    // `const { name } = this`
                    if let (BindingPattern::ObjectPattern(object), Some(Expression::ThisExpression(_))) =
                        (&declarator.id, &declarator.init)
                    {
                        for property in &object.properties {
                            let name = key_name(&property.key).unwrap_or_default();
                            taken.entry(name).or_default().push(&property.value);
                        }
                    }
                }
                _ => {}
            }
        }
        properties
    }
}

impl<'s, 'a> Flow<'s, 'a> {
    /// `completes`: the last expression of the program is its result.
    pub fn new(semantic: &'s Semantic<'a>, completes: bool) -> Flow<'s, 'a> {
        Flow {
            nodes: semantic.nodes(),
            scoping: semantic.scoping(),
            properties: OnceCell::new(),
            completes,
            steps_left: STEPS_MAX,
            site: Span::default(),
            tried: None,
            seen: HashSet::new(),
        }
    }

    fn properties(&self) -> &Properties<'a> {
        self.properties.get_or_init(|| Properties::of(self.nodes))
    }

    /// How the result of the call at `node` is used.
    pub fn of_result(&mut self, node: NodeId) -> Uses {
        self.seen.clear();
        self.site = self.span(node);
        self.tried = self.tried_around(node).map(|block| (block, self.function_around(node)));
        self.follow(node, Shape::default())
    }

    /// How the results of the function that `node` stands for are used.
    pub fn of_function(&mut self, node: NodeId) -> Uses {
        self.seen.clear();
        self.site = self.span(node);
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
        if (uses.awaited || uses.either) && self.leaves_try(node) { uses.and(Uses::VALUE) } else { uses }
    }

    /// Whether a place lies in the function of the call, and not in the `try` around that.
    fn leaves_try(&self, node: NodeId) -> bool {
        self.tried.is_some_and(|(block, function)| {
            !block.contains_inclusive(self.span(node)) && self.function_around(node) == function
        })
    }

    fn function_around(&self, node: NodeId) -> Option<NodeId> {
        self.nodes.ancestor_ids(node).find(|ancestor| self.nodes.kind(*ancestor).is_function_like())
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
            AstKind::ObjectProperty(property) if property.value.span() == span => {
                self.field(parent, property, shape)
            }
            AstKind::PropertyDefinition(property) => match key_name(&property.key) {
                Some(name) => self.named(name, &shape),
                None => Uses::VALUE,
            },
            AstKind::MethodDefinition(method) => self.method(method, shape),
            AstKind::AssignmentExpression(assignment) => self.assigned(parent, assignment, span, shape),
            AstKind::VariableDeclarator(declarator) => self.pattern(&declarator.id, &shape),
            AstKind::FormalParameter(parameter) => self.pattern(&parameter.pattern, &shape),
            AstKind::AssignmentPattern(pattern) => self.pattern(&pattern.left, &shape),
            _ if shape.outermost().is_none() && self.asks_before(parent, span) => Uses::NONE,
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
            // Its keys alone are read.
            AstKind::ForInStatement(_) if shape.outermost().is_some() => Uses::NONE,
            AstKind::ExportDefaultDeclaration(_) => shape.adopted(),
            AstKind::ExpressionStatement(_) => self.stated(parent, &shape),
            _ => shape.tested(),
        }
    }

    /// `if (!cached) { … the call … }` asks for what was there before.
    fn asks_before(&self, parent: NodeId, span: Span) -> bool {
        let is_test = |kind: AstKind<'_>, span: Span| match kind {
            AstKind::IfStatement(choice) => {
                choice.test.span().contains_inclusive(span) && choice.span.contains_inclusive(self.site)
            }
            _ => false,
        };
        let mut around = self.nodes.ancestor_kinds(parent);
        match self.nodes.kind(parent) {
            AstKind::UnaryExpression(unary) if unary.operator == UnaryOperator::LogicalNot => {
                around.next().is_some_and(|kind| is_test(kind, span))
            }
            kind => is_test(kind, span),
        }
    }

    /// The value of a property of an object.
    fn field(&mut self, node: NodeId, property: &ObjectProperty<'a>, shape: Shape<'a>) -> Uses {
        let key = key_name(&property.key);
        let object = self.nodes.parent_id(node);
        if property.kind == PropertyKind::Get {
            return self.follow(object, shape.inner().within(Layer::Holder(key)));
        }
        // Methods of the object find it as `this.name`.
        let own = match key {
            Some(name) => self.named_of_this(name, &shape),
            None => Uses::NONE,
        };
        own.and(self.follow(object, shape.within(Layer::Holder(key))))
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
        let Some(element) = shape.clone().element() else { return shape.tested() };
        let parent = self.nodes.parent_id(node);
        match self.nodes.kind(parent) {
            AstKind::ArrayExpression(_) => self.follow(parent, element.within(Layer::Holder(None))),
            AstKind::ObjectExpression(_) => self.follow(parent, shape),
            AstKind::CallExpression(call) => self.argument(parent, call, self.span(node), element),
            _ => Uses::VALUE,
        }
    }

    /// What a function gives back.
    fn returned(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        if shape.outermost().is_none() && self.tried_around(node).is_some() {
            // Only what has failed here can be caught here.
            return Uses::VALUE;
        }
        let Some(function) = self.function_around(node) else { return shape.adopted() };
        let (is_async, is_generator) = match self.nodes.kind(function) {
            AstKind::Function(function) => (function.r#async, function.generator),
            AstKind::ArrowFunctionExpression(arrow) => (arrow.r#async, false),
            _ => (false, false),
        };
        match (is_async, shape.outermost()) {
            _ if is_generator => Uses::NONE,
            (true, None) => Uses::EITHER,
            (true, Some(layer)) if layer != Layer::Promise => {
                self.function(function, shape.within(Layer::Promise).within(Layer::Function))
            }
            _ => self.function(function, shape.within(Layer::Function)),
        }
    }

    /// What a generator gives one by one.
    fn yielded(&mut self, node: NodeId, shape: &Shape<'a>) -> Uses {
        let Some(function) = self.function_around(node) else { return shape.tested() };
        let is_async = matches!(self.nodes.kind(function), AstKind::Function(function) if function.r#async);
        match shape.outermost() {
            None if is_async => Uses::AWAITED,
            _ if is_async => shape.tested(),
            _ => self.function(function, shape.clone().within(Layer::Holder(None)).within(Layer::Function)),
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

    /// The variable of the program that a name stands for; none is a global.
    fn symbol_of(&self, name: &IdentifierReference<'a>) -> Option<SymbolId> {
        self.scoping.get_reference(name.reference_id()).symbol_id()
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
