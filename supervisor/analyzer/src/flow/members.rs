//! Properties, calls and their arguments: what the built-in methods do with what they hold and are given.

use oxc_ast::AstKind;
use oxc_ast::ast::{Argument, CallExpression, Expression, IdentifierReference, NewExpression};
use oxc_semantic::NodeId;
use oxc_span::{GetSpan as _, Span};

use super::{Flow, Layer, Shape, Uses};

/// What `[1, 2].name(…)` and the like do with what is held.
enum Method {
    /// The callback takes an element, and the result has nothing of it.
    Takes(usize),
    /// The same, and the result is an element.
    Finds,
    /// The callback takes an element, and the result holds the same.
    Keeps,
    /// The result holds the same.
    Passes,
    /// The result holds pairs of a key and an element.
    Pairs,
    /// The result is an element.
    Gives,
    /// Nothing is done with what is held.
    Ignores,
    /// Everything that is held becomes text.
    Shows,
}

fn method(name: &str) -> Option<Method> {
    Some(match name {
        "map" | "flatMap" | "forEach" | "some" | "every" | "findIndex" | "findLastIndex" => Method::Takes(0),
        "reduce" | "reduceRight" => Method::Takes(1),
        "find" | "findLast" => Method::Finds,
        "filter" | "sort" | "toSorted" => Method::Keeps,
        "slice" | "concat" | "flat" | "reverse" | "toReversed" | "values" | "splice" | "toSpliced"
        | "with" | "fill" => Method::Passes,
        "entries" => Method::Pairs,
        "at" | "pop" | "shift" | "get" => Method::Gives,
        "push" | "unshift" | "set" | "add" | "has" | "delete" | "clear" | "includes" | "indexOf" | "keys"
        | "hasOwnProperty" => Method::Ignores,
        "join" | "toString" | "toLocaleString" => Method::Shows,
        _ => return None,
    })
}

fn is_chain(name: &str) -> bool {
    matches!(name, "then" | "catch" | "finally")
}

impl<'a> Flow<'_, 'a> {
    /// `node` reads a property of what is followed.
    pub(super) fn member(&mut self, node: NodeId, name: &'a str, shape: Shape<'a>) -> Uses {
        let call = self.call_of(node);
        match shape.outermost() {
            None if is_chain(name) => {
                if call.is_some() {
                    Uses::CHAINED
                } else {
                    Uses::NONE
                }
            }
            None => Uses::VALUE,
            Some(Layer::Promise) => match call {
                Some((_, call)) if name == "then" => self.callback(call, 0, 0, &shape.inner()),
                Some((node, _)) if is_chain(name) => self.follow(node, shape),
                _ => Uses::NONE,
            },
            Some(Layer::Function) => match call {
                Some((node, _)) if matches!(name, "call" | "apply") => self.called(node, shape),
                Some((node, _)) if name == "bind" => self.follow(node, shape),
                _ => Uses::NONE,
            },
            Some(Layer::Entry) => {
                if call.is_some() {
                    shape.tested()
                } else {
                    self.element(node, shape)
                }
            }
            Some(Layer::Holder(Some(key))) => {
                if name == key {
                    self.follow(node, shape.inner())
                } else {
                    Uses::NONE
                }
            }
            Some(Layer::Table) => match (name, call) {
                ("get", Some((node, _))) => self.follow(node, shape.inner()),
                ("values", Some((node, _))) => self.follow(node, shape.inner().within(Layer::Holder(None))),
                ("entries", Some((node, _))) => {
                    self.follow(node, shape.inner().within(Layer::Entry).within(Layer::Holder(None)))
                }
                ("forEach", Some((_, call))) => self.callback(call, 0, 0, &shape.inner()),
                _ => Uses::NONE,
            },
            Some(Layer::Holder(None)) => match call {
                Some((called, call)) => match method(name) {
                    Some(method) => self.held(&method, called, call, shape),
                    None => self.follow(node, shape.inner()),
                },
                None if matches!(name, "length" | "size") => Uses::NONE,
                None => self.follow(node, shape.inner()),
            },
        }
    }

    fn held(&mut self, method: &Method, node: NodeId, call: &CallExpression<'a>, shape: Shape<'a>) -> Uses {
        let inner = shape.clone().inner();
        match method {
            Method::Takes(index) => self.callback(call, 0, *index, &inner),
            Method::Finds => self.callback(call, 0, 0, &inner).and(self.follow(node, inner)),
            Method::Keeps => self.callback(call, 0, 0, &inner).and(self.follow(node, shape)),
            Method::Passes => self.follow(node, shape),
            Method::Pairs => self.follow(node, inner.within(Layer::Entry).within(Layer::Holder(None))),
            Method::Gives => self.follow(node, inner),
            Method::Ignores => Uses::NONE,
            Method::Shows => Uses::VALUE,
        }
    }

    /// The call of which the member is the callee.
    fn call_of(&self, member: NodeId) -> Option<(NodeId, &'a CallExpression<'a>)> {
        let parent = self.nodes.parent_id(member);
        match self.nodes.kind(parent) {
            AstKind::CallExpression(call) if call.callee.span() == self.span(member) => Some((parent, call)),
            _ => None,
        }
    }

    /// `node` reads an element of what is followed.
    pub(super) fn element(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        match shape.outermost() {
            Some(Layer::Holder(_) | Layer::Table | Layer::Entry) => self.follow(node, shape.inner()),
            _ => shape.tested(),
        }
    }

    /// `node` calls what is followed.
    pub(super) fn called(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        match shape.outermost() {
            Some(Layer::Function) => self.follow(node, shape.inner()),
            _ => shape.tested(),
        }
    }

    /// An argument that is a function gets what is followed as its parameter of that number.
    fn callback(
        &mut self,
        call: &CallExpression<'a>,
        argument: usize,
        parameter: usize,
        shape: &Shape<'a>,
    ) -> Uses {
        let function = call.arguments.get(argument).and_then(Argument::as_expression);
        match function.and_then(|function| self.function_of(function)) {
            Some(function) => self.parameter(function, parameter, shape),
            // `filter(Boolean)`: a function that is not of the program.
            None => Uses::NONE,
        }
    }

    /// What is followed is given to a call.
    pub(super) fn argument(
        &mut self,
        node: NodeId,
        call: &CallExpression<'a>,
        span: Span,
        shape: Shape<'a>,
    ) -> Uses {
        let index = index_of(&call.arguments, span);
        if let Some(function) = self.function_of(&call.callee) {
            return self.parameter(function, index, &shape);
        }
        match call.callee.without_parentheses() {
            Expression::StaticMemberExpression(member) => {
                let name = member.property.name.as_str();
                match &member.object {
                    Expression::Identifier(object) if self.is_global(object) => {
                        self.given_to_global(node, call, (&member.object, name), index, shape)
                    }
                    object => self.given_to_method(node, call, object, name, index, shape),
                }
            }
            Expression::Identifier(name) if self.settles_promise(name) => shape.adopted(),
            Expression::Identifier(name)
                if matches!(name.name.as_str(), "setTimeout" | "setInterval" | "queueMicrotask") =>
            {
                // What a timer's function returns is dropped.
                self.dropped(shape)
            }
            _ => self.unknown(&shape),
        }
    }

    /// Something that nothing is known of: a function is called for its value.
    fn unknown(&self, shape: &Shape<'a>) -> Uses {
        match shape.outermost() {
            Some(Layer::Function) => shape.clone().inner().tested(),
            _ => shape.tested(),
        }
    }

    fn dropped(&self, shape: Shape<'a>) -> Uses {
        match shape.outermost() {
            Some(Layer::Function) => shape.inner().tested(),
            _ => Uses::NONE,
        }
    }

    fn is_global(&self, name: &IdentifierReference<'a>) -> bool {
        self.symbol_of(name).is_none()
    }

    /// `resolve` of `new Promise((resolve) => …)`.
    fn settles_promise(&self, name: &IdentifierReference<'a>) -> bool {
        let Some(symbol) = self.symbol_of(name) else { return false };
        let declaration = self.scoping.symbol_declaration(symbol);
        let mut ancestors =
            self.nodes.ancestor_kinds(declaration).skip_while(|kind| !kind.is_function_like());
        let is_parameter = matches!(self.nodes.kind(declaration), AstKind::FormalParameter(_));
        let takes = |kind| match kind {
            AstKind::NewExpression(new) => {
                matches!(&new.callee, Expression::Identifier(callee) if callee.name == "Promise")
            }
            _ => false,
        };
        is_parameter && ancestors.next().is_some() && ancestors.next().is_some_and(takes)
    }

    fn given_to_global(
        &mut self,
        node: NodeId,
        call: &CallExpression<'a>,
        (object, name): (&Expression<'a>, &'a str),
        index: usize,
        shape: Shape<'a>,
    ) -> Uses {
        let global = object.get_identifier_reference().map_or("", |global| global.name.as_str());
        match (global, name, shape.outermost()) {
            ("Promise", "all" | "allSettled" | "race" | "any", Some(Layer::Holder(_) | Layer::Table))
            | ("Array", "fromAsync", Some(Layer::Holder(_) | Layer::Table)) => {
                let Some(inner) = shape.element() else { return Uses::VALUE };
                match inner.outermost() {
                    None => Uses::AWAITED,
                    Some(Layer::Promise) if name != "allSettled" => {
                        self.follow(node, inner.inner().within(Layer::Holder(None)).within(Layer::Promise))
                    }
                    Some(_) => Uses::NONE,
                }
            }
            ("Promise", "resolve", _) => shape.adopted(),
            ("Object", "values", Some(Layer::Holder(_))) => {
                self.follow(node, shape.inner().within(Layer::Holder(None)))
            }
            ("Object", "entries", Some(Layer::Holder(_))) => {
                self.follow(node, shape.inner().within(Layer::Entry).within(Layer::Holder(None)))
            }
            ("Object", "fromEntries", Some(Layer::Holder(_))) => self.paired(node, shape),
            ("Object", "keys", Some(Layer::Holder(_))) => Uses::NONE,
            ("Object", "assign" | "freeze", Some(Layer::Holder(_))) => self.follow(node, shape),
            ("Array" | "Iterator", "from", Some(Layer::Holder(_) | Layer::Table)) if index == 0 => {
                let Some(element) = shape.element() else { return Uses::VALUE };
                match call.arguments.len() > 1 {
                    true => self.callback(call, 1, 0, &element),
                    false => self.follow(node, element.within(Layer::Holder(None))),
                }
            }
            ("Object", "fromEntries", Some(Layer::Table)) => {
                self.follow(node, shape.inner().within(Layer::Holder(None)))
            }
            ("Array", "from", Some(Layer::Function)) => {
                self.follow(node, shape.inner().within(Layer::Holder(None)))
            }
            ("Array", "of", _) => self.follow(node, shape.within(Layer::Holder(None))),
            _ => self.given_to_method(node, call, object, name, index, shape),
        }
    }

    /// What is followed is given to a method of something.
    fn given_to_method(
        &mut self,
        node: NodeId,
        call: &CallExpression<'a>,
        object: &Expression<'a>,
        name: &'a str,
        index: usize,
        shape: Shape<'a>,
    ) -> Uses {
        if self.properties().methods.contains_key(name) {
            return self.given_to_named(name, index, &shape);
        }
        match (name, shape.outermost()) {
            ("push" | "unshift" | "add", _) => self.stored(object, shape.within(Layer::Holder(None))),
            ("set", _) if index == 1 => self.stored(object, shape.within(Layer::Table)),
            ("concat", Some(Layer::Holder(_))) => self.follow(node, shape),
            ("concat", _) => self.follow(node, shape.within(Layer::Holder(None))),
            ("map", Some(Layer::Function)) => self.follow(node, shape.inner().within(Layer::Holder(None))),
            ("flatMap", Some(Layer::Function)) => {
                let inner = shape.inner();
                let flat = matches!(inner.outermost(), Some(Layer::Holder(_)));
                self.follow(node, if flat { inner } else { inner.within(Layer::Holder(None)) })
            }
            ("then" | "catch" | "finally", Some(Layer::Function)) => match shape.inner() {
                inner if inner.outermost().is_none() => Uses::AWAITED,
                inner if inner.outermost() == Some(Layer::Promise) => self.follow(node, inner),
                inner => self.follow(node, inner.within(Layer::Promise)),
            },
            ("reduce" | "reduceRight", Some(Layer::Function)) => {
                // What one step gives, the next one takes.
                let inner = shape.inner();
                self.callback(call, 0, 0, &inner).and(self.follow(node, inner))
            }
            ("forEach", Some(Layer::Function)) => self.dropped(shape),
            _ => self.given_to_named(name, index, &shape),
        }
    }

    /// A method that the program defines, found by its name.
    fn given_to_named(&mut self, name: &str, index: usize, shape: &Shape<'a>) -> Uses {
        let defined = self.properties().methods.get(name).cloned().unwrap_or_default();
        if defined.is_empty() {
            return self.unknown(shape);
        }
        defined
            .into_iter()
            .fold(Uses::NONE, |uses, function| uses.and(self.parameter(function, index, shape)))
    }

    /// `new Name(…)` with what is followed.
    pub(super) fn constructed(
        &mut self,
        node: NodeId,
        new: &NewExpression<'a>,
        span: Span,
        shape: Shape<'a>,
    ) -> Uses {
        if let Some(constructor) = self.constructor_of(&new.callee) {
            let index = index_of(&new.arguments, span);
            return self.parameter(constructor, index, &shape);
        }
        let Expression::Identifier(name) = &new.callee else { return self.unknown(&shape) };
        match (name.name.as_str(), shape.outermost()) {
            _ if new.callee.span() == span => self.unknown(&shape),
            ("Map" | "WeakMap", Some(Layer::Holder(_))) => self.paired(node, shape),
            ("Set" | "WeakSet" | "Array", Some(Layer::Holder(_))) => self.follow(node, shape),
            // What its function returns is dropped.
            ("Promise", Some(Layer::Function)) => self.dropped(shape),
            _ => self.unknown(&shape),
        }
    }

    /// Pairs become the fields of one holder.
    fn paired(&mut self, node: NodeId, shape: Shape<'a>) -> Uses {
        let inner = shape.inner();
        match inner.outermost() {
            Some(Layer::Holder(_) | Layer::Entry) => {
                let is_map = matches!(self.nodes.kind(node), AstKind::NewExpression(_));
                let layer = if is_map { Layer::Table } else { Layer::Holder(None) };
                self.follow(node, inner.inner().within(layer))
            }
            _ => Uses::VALUE,
        }
    }
}

fn index_of(arguments: &[Argument<'_>], span: Span) -> usize {
    arguments.iter().position(|argument| argument.span() == span).unwrap_or(0)
}
