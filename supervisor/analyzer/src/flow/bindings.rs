//! Variables, patterns, assignments and functions.

use oxc_ast::AstKind;
use oxc_ast::ast::{
    ArrowFunctionBody, AssignmentExpression, AssignmentOperator, AssignmentTarget, BindingPattern,
    ClassElement, Expression, ForOfStatement, ForStatementLeft, FormalParameters, MethodDefinition,
    MethodDefinitionKind, Statement,
};
use oxc_semantic::{NodeId, SymbolId};
use oxc_span::{GetSpan as _, Span};

use super::{Flow, Layer, Shape, Uses, key_name, own_function};

impl<'a> Flow<'_, 'a> {
    /// The uses of a variable.
    pub(super) fn symbol(&mut self, symbol: SymbolId, shape: &Shape<'a>) -> Uses {
        let scoping = self.scoping;
        let mut uses = Uses::NONE;
        for reference in scoping.get_resolved_references(symbol).filter(|reference| reference.is_read()) {
            uses = uses.and(self.follow(reference.node_id(), shape.clone()));
        }
        uses
    }

    /// The reads of every property of that name, whatever it belongs to.
    pub(super) fn named(&mut self, name: &str, shape: &Shape<'a>) -> Uses {
        self.members_of(name, shape, |flow, object| !flow.is_built_in(object))
    }

    /// The same of what `this` has.
    pub(super) fn named_of_this(&mut self, name: &str, shape: &Shape<'a>) -> Uses {
        self.members_of(name, shape, |_, object| matches!(object, Expression::ThisExpression(_)))
    }

    fn members_of(
        &mut self,
        name: &str,
        shape: &Shape<'a>,
        belongs: impl Fn(&Self, &Expression<'a>) -> bool,
    ) -> Uses {
        let mut uses = Uses::NONE;
        for pattern in self.properties().taken.get(name).cloned().unwrap_or_default() {
            uses = uses.and(self.pattern(pattern, shape));
        }
        for member in self.properties().members.get(name).cloned().unwrap_or_default() {
            let object = match self.nodes.kind(member) {
                AstKind::StaticMemberExpression(read) => Some(&read.object),
                AstKind::PrivateFieldExpression(read) => Some(&read.object),
                _ => None,
            };
            if !self.is_target(member) && object.is_some_and(|object| belongs(self, object)) {
                uses = uses.and(self.follow(member, shape.clone()));
            }
        }
        uses
    }

    /// Whether an object is certainly not one of the program's classes.
    fn is_built_in(&self, object: &Expression<'a>) -> bool {
        let Expression::Identifier(name) = object else { return false };
        let Some(symbol) = self.symbol_of(name) else { return false };
        match self.nodes.kind(self.scoping.symbol_declaration(symbol)) {
            AstKind::VariableDeclarator(declarator) => match &declarator.init {
                Some(Expression::NewExpression(new)) => match &new.callee {
                    Expression::Identifier(class) => self.symbol_of(class).is_none(),
                    _ => false,
                },
                Some(Expression::ArrayExpression(_)) => true,
                _ => false,
            },
            _ => false,
        }
    }

    fn is_target(&self, member: NodeId) -> bool {
        matches!(
            self.nodes.parent_kind(member),
            AstKind::AssignmentExpression(assignment)
                if assignment.operator == AssignmentOperator::Assign && assignment.left.span() == self.span(member)
        )
    }

    /// The uses of what a pattern takes apart.
    pub(super) fn pattern(&mut self, pattern: &BindingPattern<'a>, shape: &Shape<'a>) -> Uses {
        match pattern {
            BindingPattern::BindingIdentifier(name) => match name.symbol_id.get() {
                Some(symbol) => self.symbol(symbol, shape),
                None => Uses::NONE,
            },
            BindingPattern::AssignmentPattern(assignment) => self.pattern(&assignment.left, shape),
            BindingPattern::ObjectPattern(object) => {
                let Some(Layer::Holder(key)) = shape.outermost() else { return shape.tested() };
                let inner = shape.clone().inner();
                let fits = |name: Option<&str>| key.is_none() || name.is_none() || name == key;
                let mut uses = Uses::NONE;
                for property in object.properties.iter().filter(|property| fits(key_name(&property.key))) {
                    uses = uses.and(self.pattern(&property.value, &inner));
                }
                match &object.rest {
                    Some(rest) => uses.and(self.pattern(&rest.argument, shape)),
                    None => uses,
                }
            }
            BindingPattern::ArrayPattern(array) => {
                let elements = array.elements.iter();
                let Some(inner) = shape.clone().element() else { return shape.tested() };
                let taken: Vec<_> = match shape.outermost() {
                    Some(Layer::Entry) => elements.skip(1).take(1).flatten().collect(),
                    _ => elements.flatten().collect(),
                };
                let uses = taken
                    .into_iter()
                    .fold(Uses::NONE, |uses, element| uses.and(self.pattern(element, &inner)));
                match &array.rest {
                    Some(rest) => uses.and(self.pattern(&rest.argument, shape)),
                    None => uses,
                }
            }
        }
    }

    pub(super) fn assigned(
        &mut self,
        node: NodeId,
        assignment: &AssignmentExpression<'a>,
        span: Span,
        shape: Shape<'a>,
    ) -> Uses {
        if assignment.right.span() != span {
            // Read and written at once: what it was is used as `a + b` uses it.
            let is_used =
                assignment.operator != AssignmentOperator::Assign && !assignment.operator.is_logical();
            return if is_used { shape.tested() } else { Uses::NONE };
        }
        if assignment.operator != AssignmentOperator::Assign && !assignment.operator.is_logical() {
            return shape.tested();
        }
        let stored = self.target(&assignment.left, shape.clone());
        let is_statement = matches!(self.nodes.parent_kind(node), AstKind::ExpressionStatement(_));
        if is_statement { stored } else { stored.and(self.follow(node, shape)) }
    }

    fn target(&mut self, target: &AssignmentTarget<'a>, shape: Shape<'a>) -> Uses {
        match target {
            AssignmentTarget::AssignmentTargetIdentifier(name) => match self.symbol_of(name) {
                Some(symbol) => self.symbol(symbol, &shape),
                None => Uses::VALUE,
            },
            AssignmentTarget::StaticMemberExpression(member) => {
                let key = member.property.name.as_str();
                match &member.object {
                    Expression::Identifier(_) => {
                        self.stored(&member.object, shape.within(Layer::Holder(Some(key))))
                    }
                    _ => self.named(key, &shape),
                }
            }
            AssignmentTarget::ComputedMemberExpression(member) => {
                self.stored(&member.object, shape.within(Layer::Holder(None)))
            }
            AssignmentTarget::PrivateFieldExpression(member) => {
                self.named(member.field.name.as_str(), &shape)
            }
            AssignmentTarget::ArrayAssignmentTarget(array) => {
                let Some(inner) = shape.clone().element() else { return shape.tested() };
                let targets =
                    array.elements.iter().flatten().filter_map(|element| element.as_assignment_target());
                targets.fold(Uses::NONE, |uses, target| uses.and(self.target(target, inner.clone())))
            }
            _ => shape.tested(),
        }
    }

    /// The uses of an object into which something was put.
    pub(super) fn stored(&mut self, object: &Expression<'a>, shape: Shape<'a>) -> Uses {
        match object.without_parentheses() {
            Expression::Identifier(name) => match self.symbol_of(name) {
                Some(symbol) => self.symbol(symbol, &shape),
                None => Uses::VALUE,
            },
            Expression::StaticMemberExpression(member) => self.named(member.property.name.as_str(), &shape),
            Expression::PrivateFieldExpression(member) => self.named(member.field.name.as_str(), &shape),
            Expression::ComputedMemberExpression(member) => {
                self.stored(&member.object, shape.within(Layer::Holder(None)))
            }
            // `(lists[name] ||= []).push(…)`
            Expression::AssignmentExpression(assignment) => self.target(&assignment.left, shape),
            _ => Uses::VALUE,
        }
    }

    pub(super) fn iterated(&mut self, statement: &ForOfStatement<'a>, shape: Shape<'a>) -> Uses {
        let Some(inner) = shape.clone().element() else { return shape.tested() };
        if statement.r#await && inner.outermost().is_none() {
            return Uses::AWAITED;
        }
        match &statement.left {
            ForStatementLeft::VariableDeclaration(declaration) => {
                let patterns = declaration.declarations.iter().map(|declarator| &declarator.id);
                patterns.fold(Uses::NONE, |uses, pattern| uses.and(self.pattern(pattern, &inner)))
            }
            other => other.as_assignment_target().map_or(Uses::VALUE, |target| self.target(target, inner)),
        }
    }

    /// The uses of a function, wherever it goes.
    pub(super) fn function(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        match self.nodes.kind(node) {
            AstKind::Function(function) if function.is_declaration() => {
                let exported = match self.nodes.parent_kind(node) {
                    AstKind::ExportDefaultDeclaration(_) => shape.adopted(),
                    _ => Uses::NONE,
                };
                match function.id.as_ref().and_then(|id| id.symbol_id.get()) {
                    Some(symbol) => exported.and(self.symbol(symbol, &shape)),
                    None => exported,
                }
            }
            _ => self.follow(node, shape),
        }
    }

    pub(super) fn method(&mut self, method: &MethodDefinition<'a>, shape: Shape<'a>) -> Uses {
        let Some(name) = key_name(&method.key) else { return Uses::VALUE };
        match method.kind {
            MethodDefinitionKind::Get => self.named(name, &shape.inner()),
            MethodDefinitionKind::Method => self.named(name, &shape),
            MethodDefinitionKind::Constructor | MethodDefinitionKind::Set => Uses::NONE,
        }
    }

    /// The uses of what a function takes as its parameter of that number.
    pub(super) fn parameter(&mut self, function: NodeId, index: usize, shape: &Shape<'a>) -> Uses {
        let parameters: &FormalParameters<'a> = match self.nodes.kind(function) {
            AstKind::Function(function) => &function.params,
            AstKind::ArrowFunctionExpression(arrow) => &arrow.params,
            _ => return Uses::VALUE,
        };
        match (parameters.items.get(index), &parameters.rest) {
            (Some(parameter), _) => self.pattern(&parameter.pattern, shape),
            (None, Some(rest)) => {
                self.pattern(&rest.rest.argument, &shape.clone().within(Layer::Holder(None)))
            }
            (None, None) => Uses::NONE,
        }
    }

    /// The function that an expression stands for, if the program says which.
    pub(super) fn function_of(&self, expression: &Expression<'a>) -> Option<NodeId> {
        let Expression::Identifier(name) = expression.without_parentheses() else {
            return own_function(expression);
        };
        let symbol = self.symbol_of(name)?;
        let declaration = self.scoping.symbol_declaration(symbol);
        match self.nodes.kind(declaration) {
            AstKind::Function(_) => Some(declaration),
            AstKind::VariableDeclarator(declarator) => match declarator.init.as_ref()? {
                // What a function made.
                Expression::CallExpression(call) => self.returned_function(self.function_of(&call.callee)?),
                init => own_function(init),
            },
            _ => None,
        }
    }

    /// The function that a function gives back, if its body says so.
    fn returned_function(&self, function: NodeId) -> Option<NodeId> {
        let body = match self.nodes.kind(function) {
            AstKind::Function(function) => function.body.as_deref()?,
            AstKind::ArrowFunctionExpression(arrow) => match &arrow.body {
                ArrowFunctionBody::FunctionBody(body) => body,
                other => return own_function(other.as_expression()?),
            },
            _ => return None,
        };
        let returned = body.statements.iter().rev().find_map(|statement| match statement {
            Statement::ReturnStatement(returned) => returned.argument.as_ref(),
            _ => None,
        })?;
        own_function(returned).or_else(|| {
            let name = returned.get_identifier_reference()?;
            let symbol = self.symbol_of(name)?;
            let declaration = self.scoping.symbol_declaration(symbol);
            match self.nodes.kind(declaration) {
                AstKind::Function(_) => Some(declaration),
                AstKind::VariableDeclarator(declarator) => own_function(declarator.init.as_ref()?),
                _ => None,
            }
        })
    }

    /// The constructor of a class of the program.
    pub(super) fn constructor_of(&self, class: &Expression<'a>) -> Option<NodeId> {
        let name = class.get_identifier_reference()?;
        let symbol = self.symbol_of(name)?;
        let AstKind::Class(class) = self.nodes.kind(self.scoping.symbol_declaration(symbol)) else {
            return None;
        };
        class.body.body.iter().find_map(|element| match element {
            ClassElement::MethodDefinition(method) if method.kind == MethodDefinitionKind::Constructor => {
                Some(method.value.node_id())
            }
            _ => None,
        })
    }
}
