//! Takes the types out of TypeScript, so that every line and column stays where it was. What has a meaning
//! at run time (enums, parameter properties) becomes JavaScript in its place; namespaces are refused.

mod runtime;

use analyzer::Violation;
use oxc_ast::ast::{
    Class, ClassElement, Declaration, ExportAllDeclaration, ExportDeclaration, ExportFromDeclaration,
    ExportNamedDeclaration, FormalParameter, Function, FunctionType, ImportDeclaration,
    ImportDeclarationSpecifier, ImportOrExportKind, MethodDefinition, Program, PropertyDefinition,
    PropertyDefinitionType, TSAsExpression, TSEnumDeclaration, TSExternalModuleDeclaration,
    TSGlobalDeclaration, TSImportEqualsDeclaration, TSIndexSignature, TSInstantiationExpression,
    TSInterfaceDeclaration, TSNamespaceDeclaration, TSNonNullExpression, TSSatisfiesExpression,
    TSThisParameter, TSTypeAliasDeclaration, TSTypeAnnotation, TSTypeAssertion, TSTypeParameterDeclaration,
    TSTypeParameterInstantiation, VariableDeclaration, VariableDeclarator,
};
use oxc_ast_visit::{Visit, walk};
use oxc_span::{GetSpan, Span};
use oxc_syntax::scope::ScopeFlags;

use crate::edits::Edits;
use crate::source::refuse;

/// The same program without types, or what cannot be run.
pub fn without_types(source: &str, program: &Program<'_>) -> Result<String, Vec<Violation>> {
    let mut eraser = Eraser { source, edits: Edits::default(), refused: Vec::new() };
    eraser.visit_program(program);
    match eraser.refused.is_empty() {
        true => Ok(eraser.edits.apply(source).text),
        false => Err(eraser.refused),
    }
}

struct Eraser<'s> {
    source: &'s str,
    edits: Edits,
    refused: Vec<Violation>,
}

impl Eraser<'_> {
    fn blank(&mut self, span: Span) {
        self.edits.blank(self.source, span);
    }

    fn blank_statement(&mut self, span: Span) {
        self.edits.blank_statement(self.source, span);
    }

    fn text(&self, span: Span) -> &str {
        &self.source[span.start as usize..span.end as usize]
    }

    /// Blanks the one mark (`?` or `!`) that follows an offset.
    fn blank_mark(&mut self, after: u32, mark: char) {
        if let Some(distance) = self.source[after as usize..].find(mark) {
            let start = after + u32::try_from(distance).unwrap_or(0);
            self.blank(Span::new(start, start + 1));
        }
    }

    /// Blanks those words of a stretch that are modifiers of TypeScript.
    fn blank_modifiers(&mut self, stretch: Span) {
        const MODIFIERS: [&str; 7] =
            ["public", "private", "protected", "readonly", "abstract", "override", "declare"];
        let text = self.text(stretch).to_owned();
        let is_word = |character: char| character.is_alphanumeric() || character == '_' || character == '$';
        let mut start = 0;
        while let Some(found) = text[start..].find(is_word) {
            let begin = start + found;
            let end = text[begin..]
                .find(|character| !is_word(character))
                .map_or(text.len(), |length| begin + length);
            if MODIFIERS.contains(&&text[begin..end]) {
                let offset = |place: usize| stretch.start + u32::try_from(place).unwrap_or(0);
                self.blank(Span::new(offset(begin), offset(end)));
            }
            start = end;
        }
    }

    fn refuse(&mut self, span: Span, what: &str) {
        refuse(&mut self.refused, self.source, span.start, what);
    }
}

impl<'a> Visit<'a> for Eraser<'_> {
    fn visit_ts_type_annotation(&mut self, it: &TSTypeAnnotation<'a>) {
        self.blank(it.span);
    }

    fn visit_ts_type_parameter_declaration(&mut self, it: &TSTypeParameterDeclaration<'a>) {
        self.blank(it.span);
    }

    fn visit_ts_type_parameter_instantiation(&mut self, it: &TSTypeParameterInstantiation<'a>) {
        self.blank(it.span);
    }

    fn visit_ts_interface_declaration(&mut self, it: &TSInterfaceDeclaration<'a>) {
        self.blank_statement(it.span);
    }

    fn visit_ts_type_alias_declaration(&mut self, it: &TSTypeAliasDeclaration<'a>) {
        self.blank_statement(it.span);
    }

    fn visit_export_declaration(&mut self, it: &ExportDeclaration<'a>) {
        match is_of_types(&it.declaration) {
            true => self.blank_statement(it.span),
            false => self.visit_declaration(&it.declaration),
        }
    }

    fn visit_export_named_declaration(&mut self, it: &ExportNamedDeclaration<'a>) {
        let of_types =
            it.specifiers.iter().any(|specifier| specifier.export_kind == ImportOrExportKind::Type);
        if of_types || it.export_kind == ImportOrExportKind::Type {
            self.blank_statement(it.span);
        }
    }

    fn visit_export_from_declaration(&mut self, it: &ExportFromDeclaration<'a>) {
        if it.export_kind == ImportOrExportKind::Type {
            self.blank_statement(it.span);
        }
    }

    fn visit_export_all_declaration(&mut self, it: &ExportAllDeclaration<'a>) {
        if it.export_kind == ImportOrExportKind::Type {
            self.blank_statement(it.span);
        }
    }

    fn visit_import_declaration(&mut self, it: &ImportDeclaration<'a>) {
        let is_type = |specifier: &ImportDeclarationSpecifier<'_>| match specifier {
            ImportDeclarationSpecifier::ImportSpecifier(one) => one.import_kind == ImportOrExportKind::Type,
            _ => false,
        };
        let specifiers = it.specifiers.as_ref().filter(|specifiers| !specifiers.is_empty());
        let all = specifiers.is_some_and(|specifiers| specifiers.iter().all(is_type));
        if all || it.import_kind == ImportOrExportKind::Type {
            self.blank_statement(it.span);
        }
    }

    fn visit_ts_import_equals_declaration(&mut self, it: &TSImportEqualsDeclaration<'a>) {
        match it.import_kind == ImportOrExportKind::Type {
            true => self.blank_statement(it.span),
            false => self.refuse(
                it.span,
                "`import` is not available: the functions of the environment are already defined",
            ),
        }
    }

    fn visit_ts_index_signature(&mut self, it: &TSIndexSignature<'a>) {
        self.blank(it.span);
    }

    fn visit_ts_namespace_declaration(&mut self, it: &TSNamespaceDeclaration<'a>) {
        match it.declare {
            true => self.blank_statement(it.span),
            false => self.refuse(it.span, "namespaces are not available: use plain functions and objects"),
        }
    }

    fn visit_ts_external_module_declaration(&mut self, it: &TSExternalModuleDeclaration<'a>) {
        self.blank_statement(it.span);
    }

    fn visit_ts_global_declaration(&mut self, it: &TSGlobalDeclaration<'a>) {
        self.blank_statement(it.span);
    }

    fn visit_ts_as_expression(&mut self, it: &TSAsExpression<'a>) {
        self.visit_expression(&it.expression);
        self.blank(Span::new(it.expression.span().end, it.span.end));
    }

    fn visit_ts_satisfies_expression(&mut self, it: &TSSatisfiesExpression<'a>) {
        self.visit_expression(&it.expression);
        self.blank(Span::new(it.expression.span().end, it.span.end));
    }

    fn visit_ts_type_assertion(&mut self, it: &TSTypeAssertion<'a>) {
        self.blank(Span::new(it.span.start, it.expression.span().start));
        self.visit_expression(&it.expression);
    }

    fn visit_ts_non_null_expression(&mut self, it: &TSNonNullExpression<'a>) {
        self.visit_expression(&it.expression);
        self.blank(Span::new(it.span.end - 1, it.span.end));
    }

    fn visit_ts_instantiation_expression(&mut self, it: &TSInstantiationExpression<'a>) {
        self.visit_expression(&it.expression);
        self.blank(it.type_arguments.span);
    }

    fn visit_ts_this_parameter(&mut self, it: &TSThisParameter<'a>) {
        // With the comma behind it, if parameters follow.
        let rest = &self.source[it.span.end as usize..];
        let comma = rest.trim_start().starts_with(',').then(|| rest.find(',')).flatten();
        let end =
            comma.map_or(it.span.end, |distance| it.span.end + u32::try_from(distance).unwrap_or(0) + 1);
        self.blank(Span::new(it.span.start, end));
    }

    fn visit_variable_declaration(&mut self, it: &VariableDeclaration<'a>) {
        match it.declare {
            true => self.blank_statement(it.span),
            false => walk::walk_variable_declaration(self, it),
        }
    }

    fn visit_variable_declarator(&mut self, it: &VariableDeclarator<'a>) {
        if it.definite {
            self.blank_mark(it.id.span().end, '!');
        }
        walk::walk_variable_declarator(self, it);
    }

    fn visit_function(&mut self, it: &Function<'a>, flags: ScopeFlags) {
        let is_declared_only = it.declare
            || it.body.is_none()
            || matches!(
                it.r#type,
                FunctionType::TSDeclareFunction | FunctionType::TSEmptyBodyFunctionExpression
            );
        match is_declared_only {
            true => self.blank_statement(it.span),
            false => walk::walk_function(self, it, flags),
        }
    }

    fn visit_formal_parameter(&mut self, it: &FormalParameter<'a>) {
        self.blank_modifiers(Span::new(it.span.start, it.pattern.span().start));
        if it.optional {
            self.blank_mark(it.pattern.span().end, '?');
        }
        walk::walk_formal_parameter(self, it);
    }

    fn visit_class(&mut self, it: &Class<'a>) {
        if it.declare {
            self.blank_statement(it.span);
            return;
        }
        if it.r#abstract
            && let Some(distance) = self.text(it.span).find("abstract")
        {
            let start = it.span.start + u32::try_from(distance).unwrap_or(0);
            self.blank(Span::new(start, start + 8));
        }
        if let (Some(first), Some(last)) = (it.implements.first(), it.implements.last()) {
            let before = self.source[..first.span.start as usize].rfind("implements").unwrap_or(0);
            let start = u32::try_from(before).unwrap_or(first.span.start);
            self.blank(Span::new(start, last.span.end));
        }
        walk::walk_class(self, it);
    }

    fn visit_class_element(&mut self, it: &ClassElement<'a>) {
        let has_no_body = matches!(it, ClassElement::MethodDefinition(method) if method.value.body.is_none());
        match has_no_body {
            true => self.blank(it.span()),
            false => walk::walk_class_element(self, it),
        }
    }

    fn visit_method_definition(&mut self, it: &MethodDefinition<'a>) {
        self.blank_modifiers(Span::new(it.span.start, it.key.span().start));
        if it.optional {
            self.blank_mark(it.key.span().end, '?');
        }
        if let (true, Some(body)) = (it.kind.is_constructor(), &it.value.body) {
            self.assign_properties(&it.value.params, body);
        }
        walk::walk_method_definition(self, it);
    }

    fn visit_property_definition(&mut self, it: &PropertyDefinition<'a>) {
        if it.declare || it.r#type == PropertyDefinitionType::TSAbstractPropertyDefinition {
            self.blank(it.span);
            return;
        }
        self.blank_modifiers(Span::new(it.span.start, it.key.span().start));
        if it.optional {
            self.blank_mark(it.key.span().end, '?');
        }
        if it.definite {
            self.blank_mark(it.key.span().end, '!');
        }
        walk::walk_property_definition(self, it);
    }

    fn visit_ts_enum_declaration(&mut self, it: &TSEnumDeclaration<'a>) {
        match it.declare {
            true => self.blank_statement(it.span),
            false => self.replace_enum(it),
        }
    }
}

/// Whether nothing of a declaration is left at run time.
fn is_of_types(declaration: &Declaration<'_>) -> bool {
    match declaration {
        Declaration::TSInterfaceDeclaration(_) | Declaration::TSTypeAliasDeclaration(_) => true,
        Declaration::VariableDeclaration(variables) => variables.declare,
        Declaration::FunctionDeclaration(function) => function.declare || function.body.is_none(),
        Declaration::ClassDeclaration(class) => class.declare,
        Declaration::TSEnumDeclaration(numbers) => numbers.declare,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use oxc_allocator::Allocator;
    use oxc_parser::Parser;
    use oxc_span::SourceType;

    use super::*;

    fn erased(text: &str) -> String {
        let allocator = Allocator::default();
        let parsed = Parser::new(&allocator, text, SourceType::ts()).parse();
        assert!(parsed.diagnostics.is_empty(), "{text}");
        let result = without_types(text, &parsed.program).unwrap();
        let javascript = Parser::new(&allocator, allocator.alloc_str(&result), SourceType::mjs()).parse();
        assert!(javascript.diagnostics.is_empty(), "{result}");
        assert_eq!(result.lines().count(), text.lines().count(), "{result}");
        result
    }

    #[test]
    fn types_become_spaces() {
        let cases = [
            ("let a: number = 1;", "let a         = 1;"),
            ("const f = <T,>(x?: T): x is string => x!;", "const f =     (x    )              => x ;"),
            ("interface A { b: string }\nf();", ";                        \nf();"),
            ("type A = 'b' | 'c'; f()", ";                   f()"),
            ("f<string>(a as B, c satisfies D)", "f        (a     , c            )"),
            (
                "declare namespace A { const b: 1 }\ndeclare module 'c' {}",
                ";                                 \n;                    ",
            ),
            ("function f(this: A, b) {}", "function f(         b) {}"),
            ("declare const a: string; f()", ";                        f()"),
            ("function f(a: 1): void;\nfunction f(a) {}", ";                      \nfunction f(a) {}"),
            ("let g = f\ntype A = 1\n(() => 1)", "let g = f\n;         \n(() => 1)"),
            (
                "export interface A { b: 1 }\nexport const c: A = 1",
                ";                          \nexport const c    = 1",
            ),
            (
                "import type { A } from './a'; import { type B } from 'b'; f()",
                ";                             ;                           f()",
            ),
            (
                "export type { A }; export { type B, c }; export declare const d: 1; f()",
                ";                  ;                     ;                          f()",
            ),
            (
                "class A<T> extends B<T> implements C, D { private readonly x?: T; static z = 1; y!: T }",
                "class A    extends B                    {                  x    ; static z = 1; y     }",
            ),
            (
                "abstract class A { abstract f(): void; g(): void {} }",
                "         class A {                     g()       {} }",
            ),
            ("try {} catch (e: unknown) {}", "try {} catch (e         ) {}"),
            ("let x!: number", "let x         "),
            ("for (const x of y as any[]) {}", "for (const x of y         ) {}"),
        ];
        for (text, expected) in cases {
            assert_eq!(erased(text), expected);
        }
    }

    #[test]
    fn what_has_a_meaning_at_run_time_becomes_javascript() {
        let properties =
            erased("class A extends B {\n constructor(private x: number, y = 2) { super(); f() }\n}");
        assert!(properties.contains("super();; this.x = x; f()"), "{properties}");
        let plain = erased("class A { constructor(readonly x: number) {} }");
        assert!(plain.contains("{ this.x = x;}"), "{plain}");
        let made = erased("enum E {\n A,\n B = 5,\n C = B << 1,\n D = 'd'\n}\nf()");
        assert!(made.starts_with("var E = ((E) => {") && made.ends_with("\nf()"), "{made}");
        assert!(made.contains("const B = __value;") && made.contains("(B << 1)"), "{made}");
        let cast = erased("enum F { A = 1, B = A|4, C = 's'.length as any, value = (<number>B) }");
        assert!(cast.contains("(A|4)") && !cast.contains("any") && !cast.contains("<number>"), "{cast}");
    }

    #[test]
    fn namespaces_are_refused_with_their_place() {
        let allocator = Allocator::default();
        let text = "f();\nnamespace N { export const a = 1 }";
        let parsed = Parser::new(&allocator, text, SourceType::ts()).parse();
        let refused = without_types(text, &parsed.program).unwrap_err();
        assert_eq!((refused[0].line, refused[0].column), (2, 1));
    }
}
