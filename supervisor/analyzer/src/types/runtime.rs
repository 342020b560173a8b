//! What TypeScript has at run time: parameter properties and enums.

use oxc_ast::ast::{
    Expression, FormalParameter, FormalParameters, FunctionBody, Statement, TSEnumDeclaration,
    TSEnumMemberName,
};
use oxc_span::{GetSpan, Span};

use super::Eraser;

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
        let mut members: Vec<String> = Vec::new();
        let mut code = format!("var {name} = (({name}) => {{ let value = -1;");
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
                Some(initializer) => self.with_members(initializer, name, &members),
                None => "value + 1".to_owned(),
            };
            code.push_str(&format!(
                " value = {name}[{quoted}] = ({value}); if (typeof value === 'number') {name}[value] = {quoted};"
            ));
            members.push(key);
        }
        code.push_str(&format!(" return {name}; }})({{}});"));
        // As many lines as before.
        code.extend(self.text(it.span).chars().filter(|character| *character == '\n'));
        self.edits.replace(it.span, code);
    }

    /// An initializer on one line, in which the names of earlier members mean the members.
    fn with_members(&self, initializer: &Expression<'_>, name: &str, members: &[String]) -> String {
        let text = self.text(initializer.span()).replace(['\n', '\r'], " ");
        match members.contains(&text) {
            true => format!("{name}.{text}"),
            false => text
                .split(' ')
                .map(|word| {
                    if members.iter().any(|member| member == word) {
                        format!("{name}.{word}")
                    } else {
                        word.to_owned()
                    }
                })
                .collect::<Vec<_>>()
                .join(" "),
        }
    }
}

fn is_super_call(statement: &Statement<'_>) -> bool {
    let Statement::ExpressionStatement(statement) = statement else { return false };
    matches!(&statement.expression, Expression::CallExpression(call) if matches!(call.callee, Expression::Super(_)))
}
