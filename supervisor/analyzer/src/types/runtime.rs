//! What TypeScript has at run time: parameter properties and enums.

use std::collections::HashSet;

use oxc_ast::ast::{
    Expression, FormalParameter, FormalParameters, FunctionBody, IdentifierReference, Statement,
    TSEnumDeclaration, TSEnumMemberName,
};
use oxc_ast_visit::Visit;
use oxc_span::{GetSpan, Span};

use super::Eraser;
use crate::edits::Edits;

impl Eraser<'_> {
    /// `constructor(private x: number)` assigns its parameters, after `super` where there is one.
    pub(super) fn assign_properties(&mut self, params: &FormalParameters<'_>, body: &FunctionBody<'_>) {
        let is_property = |param: &&FormalParameter<'_>| {
            param.accessibility.is_some() || param.readonly || param.r#override
        };
        let names: Vec<String> = params
            .items
            .iter()
            .filter(is_property)
            .filter_map(|param| param.pattern.get_identifier_name())
            .map(|name| format!(" this.{name} = {name};"))
            .collect();
        if names.is_empty() {
            return;
        }
        let after_super = body.statements.iter().find(|statement| is_super_call(statement));
        let place = after_super.map_or(body.span.start + 1, |statement| statement.span().end);
        let separator = if after_super.is_some() { ";" } else { "" };
        self.edits.replace(Span::new(place, place), format!("{separator}{}", names.concat()));
    }

    /// An object with names and, for numbers, the way back (TypeScript Handbook, "Reverse mappings").
    pub(super) fn replace_enum(&mut self, it: &TSEnumDeclaration<'_>) {
        let name = it.id.name.as_str();
        let used = names_of(it);
        let mut code = format!("var {name} = (({name}) => {{ let __value = -1;");
        for member in &it.body.members {
            let key = match &member.id {
                TSEnumMemberName::Identifier(id) => id.name.to_string(),
                TSEnumMemberName::String(text) | TSEnumMemberName::ComputedString(text) => {
                    text.value.to_string()
                }
                TSEnumMemberName::ComputedTemplateString(_) => {
                    self.refuse(member.span, "the name of an enum's member must be a word or a string");
                    return;
                }
            };
            let quoted = serde_json::Value::from(key.as_str()).to_string();
            let value = match &member.initializer {
                Some(initializer) => self.on_one_line(initializer),
                None => "__value + 1".to_owned(),
            };
            code.push_str(&format!(
                " __value = {name}[{quoted}] = ({value}); if (typeof __value === 'number') {name}[__value] = {quoted};"
            ));
            // Later members mean it by its name.
            if used.contains(&key) {
                code.push_str(&format!(" const {key} = __value;"));
            }
        }
        code.push_str(&format!(" return {name}; }})({{}});"));
        // As many lines as before.
        code.extend(self.text(it.span).chars().filter(|character| *character == '\n'));
        self.edits.replace(it.span, code);
    }

    /// An initializer without types, on one line.
    fn on_one_line(&mut self, initializer: &Expression<'_>) -> String {
        let span = initializer.span();
        let mut inner = Eraser { source: self.source, edits: Edits::default(), refused: Vec::new() };
        inner.visit_expression(initializer);
        self.refused.append(&mut inner.refused);
        // Nothing before it is changed, so it still begins where it did.
        let text = inner.edits.apply(&self.source[..span.end as usize]).text;
        text[span.start as usize..].replace(['\n', '\r'], " ")
    }
}

/// The names that the initializers of an enum use.
fn names_of(it: &TSEnumDeclaration<'_>) -> HashSet<String> {
    struct Names(HashSet<String>);
    impl<'a> Visit<'a> for Names {
        fn visit_identifier_reference(&mut self, it: &IdentifierReference<'a>) {
            self.0.insert(it.name.to_string());
        }
    }
    let mut names = Names(HashSet::new());
    names.visit_ts_enum_declaration(it);
    names.0
}

fn is_super_call(statement: &Statement<'_>) -> bool {
    let Statement::ExpressionStatement(statement) = statement else { return false };
    matches!(&statement.expression, Expression::CallExpression(call) if matches!(call.callee, Expression::Super(_)))
}
