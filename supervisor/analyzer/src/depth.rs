//! How deep a source may be nested. Readers of JavaScript work recursively, this one's and the guest's, and some of
//! their checks look at everything around a place.

use oxc_ast::AstKind;
use oxc_ast::ast::Program;
use oxc_ast_visit::Visit;

/// Levels of the syntax tree; each bracket, operator or `else if` is about one.
const LEVELS_MAX: u32 = 1000;

/// Whether no part of the program lies deeper than that.
pub fn is_bearable(program: &Program<'_>) -> bool {
    let mut depth = Depth { now: 0, most: 0 };
    depth.visit_program(program);
    depth.most <= LEVELS_MAX
}

struct Depth {
    now: u32,
    most: u32,
}

impl<'a> Visit<'a> for Depth {
    fn enter_node(&mut self, _: AstKind<'a>) {
        self.now += 1;
        self.most = self.most.max(self.now);
    }

    fn leave_node(&mut self, _: AstKind<'a>) {
        self.now -= 1;
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
        is_bearable(&Parser::new(&allocator, text, SourceType::mjs()).parse().program)
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
