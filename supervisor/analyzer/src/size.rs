//! How deep a program is nested, and how much of everything it has: one walk tells both.

use std::cell::Cell;

use oxc_ast::AstKind;
use oxc_ast::ast::{BindingIdentifier, IdentifierReference, Program};
use oxc_ast_visit::{Visit, walk};
use oxc_semantic::Stats;
use oxc_syntax::scope::{ScopeFlags, ScopeId};

/// Levels of the syntax tree; each bracket, operator or `else if` is about one. Readers of JavaScript work
/// recursively, this one's and the guest's, and some of their checks look at everything around a place.
const LEVELS_MAX: u32 = 1000;

#[derive(Default)]
pub struct Size {
    depth: u32,
    deepest: u32,
    /// What the semantic analysis makes room for.
    pub stats: Stats,
}

impl Size {
    pub fn of(program: &Program<'_>) -> Size {
        let mut size = Size::default();
        size.visit_program(program);
        size
    }

    /// Whether no part of the program lies too deep.
    pub fn is_bearable(&self) -> bool {
        self.deepest <= LEVELS_MAX
    }
}

impl<'a> Visit<'a> for Size {
    fn enter_node(&mut self, _: AstKind<'a>) {
        self.stats.nodes += 1;
        self.depth += 1;
        self.deepest = self.deepest.max(self.depth);
    }

    fn leave_node(&mut self, _: AstKind<'a>) {
        self.depth -= 1;
    }

    fn enter_scope(&mut self, _: ScopeFlags, _: &Cell<Option<ScopeId>>) {
        self.stats.scopes += 1;
    }

    fn visit_binding_identifier(&mut self, it: &BindingIdentifier<'a>) {
        self.stats.symbols += 1;
        walk::walk_binding_identifier(self, it);
    }

    fn visit_identifier_reference(&mut self, it: &IdentifierReference<'a>) {
        self.stats.references += 1;
        walk::walk_identifier_reference(self, it);
    }
}

#[cfg(test)]
mod tests {
    use oxc_allocator::Allocator;
    use oxc_parser::Parser;
    use oxc_span::SourceType;

    use super::*;

    /// As much stack as the analyzer's own thread has; one of the tests' has less.
    fn with_stack(act: impl FnOnce() + Send + 'static) {
        std::thread::Builder::new().stack_size(8 * 1024 * 1024).spawn(act).unwrap().join().unwrap();
    }

    fn bearable(text: &str) -> bool {
        let allocator = Allocator::default();
        Size::of(&Parser::new(&allocator, text, SourceType::mjs()).parse().program).is_bearable()
    }

    #[test]
    fn depth_counts_and_length_does_not() {
        with_stack(|| {
            assert!(bearable(&"f();".repeat(10_000)));
            assert!(bearable(&format!("{}1", "1,".repeat(10_000))));
            for (open, close) in
                [("[", "]"), ("(1+", ")"), ("`${", "}`"), ("a=>", ""), ("if(1);else ", ""), ("1+", "")]
            {
                let nested = |levels: usize| format!("{}1{}", open.repeat(levels), close.repeat(levels));
                assert!(bearable(&nested(200)), "{open}");
                assert!(!bearable(&nested(1200)), "{open}");
            }
        });
    }
}
