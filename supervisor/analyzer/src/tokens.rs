//! Rewrites what SES would refuse wherever it merely stands in the text: `import(`, `eval(`, `<!--` and `-->`
//! in strings, templates, regular expressions, comments and names, and as operators. The program keeps its
//! meaning; real direct `eval` is refused by name, and so is syntax that the guest's V8 does not have.
//!
//! SES looks at the text alone (`ses/src/transforms.js`), because it has no parser.

use analyzer::Violation;
use oxc_ast::AstKind;
use oxc_ast::ast::{Expression, TemplateLiteral};
use oxc_semantic::Semantic;
use oxc_span::{GetSpan as _, Span};

use crate::edits::Edits;
use crate::source::refuse;

/// What must not stand in the text, and how it stands where escapes have a meaning.
const REFUSED: [(&str, &str); 4] =
    [("import", "\\x69mport"), ("eval", "\\x65val"), ("<!--", "<\\x21--"), ("-->", "--\\x3e")];

/// Adds the rewriting of a program to its edits.
pub fn rewrite(source: &str, semantic: &Semantic<'_>, edits: &mut Edits, violations: &mut Vec<Violation>) {
    let mut literals = Literals { source, edits, violations, spans: Vec::new() };
    for node in semantic.nodes() {
        literals.node(node.kind(), semantic.nodes().parent_kind(node.id()));
    }
    let mut spans = std::mem::take(&mut literals.spans);
    for comment in semantic.comments() {
        spans.push(comment.span);
        if holds_any(text_of(source, comment.span)) {
            edits.blank(source, comment.span);
        }
    }
    spans.sort_unstable_by_key(|span| span.start);
    rewrite_operators(source, &spans, edits);
}

fn text_of(source: &str, span: Span) -> &str {
    &source[span.start as usize..span.end as usize]
}

fn holds_any(text: &str) -> bool {
    REFUSED.iter().any(|(refused, _)| text.contains(refused))
}

/// `n-->0` and `a<!--b` mean the same with a space inside.
fn rewrite_operators(source: &str, literals: &[Span], edits: &mut Edits) {
    for (refused, keeps) in [("-->", 2), ("<!--", 1)] {
        for (place, _) in source.match_indices(refused) {
            let start = u32::try_from(place).unwrap_or(u32::MAX);
            // They do not overlap, so the last one that begins before is the only one that may hold it.
            let before = literals.partition_point(|literal| literal.start <= start);
            let inside = before.checked_sub(1).is_some_and(|last| start < literals[last].end);
            if !inside {
                let at = start + keeps;
                edits.replace(Span::new(at, at), " ");
            }
        }
    }
}

struct Literals<'s, 'e> {
    source: &'s str,
    edits: &'e mut Edits,
    violations: &'e mut Vec<Violation>,
    spans: Vec<Span>,
}

impl Literals<'_, '_> {
    fn node(&mut self, kind: AstKind<'_>, parent: AstKind<'_>) {
        match kind {
            AstKind::StringLiteral(literal) => self.escape(literal.span),
            // An escape would show in `source`.
            AstKind::RegExpLiteral(literal) => {
                self.spans.push(literal.span);
                if holds_any(text_of(self.source, literal.span)) {
                    let pattern = quoted(literal.regex.pattern.text.as_str());
                    let made = format!("new RegExp({pattern}, '{}')", literal.regex.flags);
                    self.edits.replace(literal.span, made);
                }
            }
            AstKind::IdentifierName(name) => self.escape_name(name.span, name.span.start),
            AstKind::PrivateIdentifier(name) => self.escape_name(name.span, name.span.start + 1),
            AstKind::TemplateLiteral(template) if !is_tagged(template, parent) => {
                for quasi in &template.quasis {
                    self.escape(quasi.span);
                }
            }
            AstKind::TaggedTemplateExpression(tagged) => {
                self.spans.extend(tagged.quasi.quasis.iter().map(|quasi| quasi.span));
                if tagged.quasi.quasis.iter().any(|quasi| holds_any(text_of(self.source, quasi.span))) {
                    self.call_tag(&tagged.quasi);
                }
            }
            AstKind::Decorator(decorator) => {
                let message = "decorators are not available: call the function instead";
                refuse(self.violations, self.source, decorator.span.start, message);
            }
            AstKind::AccessorProperty(property) => {
                let message = "`accessor` is not available: write a getter and a setter";
                refuse(self.violations, self.source, property.span.start, message);
            }
            AstKind::CallExpression(call) => {
                if matches!(&call.callee, Expression::Identifier(callee) if callee.name == "eval") {
                    let message = "direct `eval` is not available: write the code itself";
                    refuse(self.violations, self.source, call.span.start, message);
                }
            }
            _ => {}
        }
    }

    /// Writes the first character of what is refused (or the one that makes it so) as an escape.
    fn escape(&mut self, span: Span) {
        self.spans.push(span);
        let text = text_of(self.source, span);
        for (refused, escaped) in REFUSED {
            for (place, _) in text.match_indices(refused) {
                // A backslash before it would make something else of the escape, and has no meaning of its own
                // before any of these characters.
                let backslashes = text[..place].bytes().rev().take_while(|byte| *byte == b'\\').count();
                let begin = place - backslashes % 2;
                let offset = |place: usize| span.start + u32::try_from(place).unwrap_or(0);
                self.edits.replace(Span::new(offset(begin), offset(place + refused.len())), escaped);
            }
        }
    }

    /// `eval` and `import` as names of properties and methods: written with an escape, they are the same names.
    fn escape_name(&mut self, span: Span, start: u32) {
        let escaped = match text_of(self.source, Span::new(start, span.end)) {
            "eval" => "\\u0065",
            "import" => "\\u0069",
            _ => return,
        };
        self.edits.replace(Span::new(start, start + 1), escaped);
    }

    /// A tag such as `String.raw` sees the text itself, which an escape would change; so it is called as the template
    /// would call it.
    fn call_tag(&mut self, template: &TemplateLiteral<'_>) {
        let list = |texts: Vec<String>| format!("[{}]", texts.join(", "));
        let cooked = template.quasis.iter().map(|quasi| quasi.value.cooked);
        let cooked =
            list(cooked.map(|text| text.map_or("undefined".to_owned(), |text| quoted(&text))).collect());
        let raw = list(template.quasis.iter().map(|quasi| quoted(&quasi.value.raw)).collect());
        let strings = format!("Object.freeze(Object.assign({cooked}, {{ raw: Object.freeze({raw}) }}))");
        let mut start = template.span.start;
        let mut before = format!("({strings}");
        for expression in &template.expressions {
            let span = expression.span();
            self.replace_keeping_lines(Span::new(start, span.start), &format!("{before}, ("));
            before = ")".to_owned();
            start = span.end;
        }
        self.replace_keeping_lines(Span::new(start, template.span.end), &format!("{before})"));
    }

    fn replace_keeping_lines(&mut self, span: Span, text: &str) {
        let lines = text_of(self.source, span).chars().filter(|character| *character == '\n');
        let replacement = text.chars().chain(lines).collect::<String>();
        self.edits.replace(span, replacement);
    }
}

/// Whether a template is handed to a tag, which sees its text.
fn is_tagged(template: &TemplateLiteral<'_>, parent: AstKind<'_>) -> bool {
    matches!(parent, AstKind::TaggedTemplateExpression(tagged) if tagged.quasi.span == template.span)
}

/// A string literal in which nothing stands that SES refuses.
fn quoted(text: &str) -> String {
    let mut quoted = serde_json::Value::from(text).to_string();
    for (refused, escaped) in REFUSED {
        quoted = quoted.replace(refused, escaped);
    }
    quoted
}

#[cfg(test)]
mod tests {
    use oxc_allocator::Allocator;
    use oxc_parser::Parser;
    use oxc_semantic::SemanticBuilder;
    use oxc_span::SourceType;

    use super::*;

    fn rewritten(text: &str) -> Result<String, Vec<Violation>> {
        let allocator = Allocator::default();
        let parsed = Parser::new(&allocator, text, SourceType::mjs()).parse();
        assert!(parsed.diagnostics.is_empty(), "{text}: {:?}", parsed.diagnostics);
        let built = SemanticBuilder::new().with_build_nodes(true).build(&parsed.program);
        let (mut edits, mut violations) = (Edits::default(), Vec::new());
        rewrite(text, &built.semantic, &mut edits, &mut violations);
        if violations.is_empty() { Ok(edits.apply(text).text) } else { Err(violations) }
    }

    #[test]
    fn what_merely_stands_in_the_text_keeps_its_meaning() {
        let cases = [
            ("f('import(x)')", r"f('\x69mport(x)')"),
            (r"f('\import(x)')", r"f('\x69mport(x)')"),
            (r"f('\\import(x)')", r"f('\\\x69mport(x)')"),
            ("f(`eval(${a} -->`)", r"f(`\x65val(${a} --\x3e`)"),
            ("f(/import(a)|<!--\"/gi)", r#"f(new RegExp("\x69mport(a)|<\x21--\"", 'gi'))"#),
            ("const o = { eval(x) {}, import: 1 }", r"const o = { \u0065val(x) {}, \u0069mport: 1 }"),
            ("class A { #eval() { this.#eval() } }", r"class A { #\u0065val() { this.#\u0065val() } }"),
            (
                "t`a<!--\n${b, c}\\x`",
                "t(Object.freeze(Object.assign([\"a<\\x21--\\n\", undefined], { raw: Object.freeze([\"a<\\x21--\\n\", \"\\\\x\"]) })), (\nb, c))",
            ),
            ("t`a${`eval(`}`", r"t`a${`\x65val(`}`"),
            (
                "`eval(``import(`",
                "`\\x65val(`(Object.freeze(Object.assign([\"\\x69mport(\"], { raw: Object.freeze([\"\\x69mport(\"]) })))",
            ),
            ("f() // import('a')", "f()               "),
            ("/* <!-- \n --> */ f()", "        \n        f()"),
            ("while (n-->0) f()", "while (n-- >0) f()"),
            ("f(a<!--b)", "f(a< !--b)"),
            ("const important = 1", "const important = 1"),
        ];
        for (text, expected) in cases {
            assert_eq!(rewritten(text).unwrap(), expected, "{text}");
        }
    }

    #[test]
    fn real_eval_and_what_v8_does_not_have_are_refused_by_name() {
        for text in ["eval('1')", "@dec class A {}", "class A { accessor x = 1 }"] {
            assert!(rewritten(text).is_err(), "{text}");
        }
        assert!(rewritten("o.eval('1')").is_ok());
    }
}
