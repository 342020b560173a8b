//! The calls of the environment's functions that nothing awaits: a call whose value is wanted at once becomes one that
//! waits for it.
//!
//! `const s = GetRates(p); s.length` becomes `const s = GetRates.sync(p); s.length`; a promise that is awaited, chained
//! or collected for `Promise.all` stays one, so that calls still run at the same time.

use analyzer::Submission;
use oxc_ast::AstKind;
use oxc_ast::ast::Expression;
use oxc_semantic::{NodeId, Semantic};
use oxc_span::{GetSpan as _, Span};

use crate::edits::Edits;
use crate::flow::{Flow, Uses};
use crate::source::position;

/// How a function is reached that waits for its value.
const WAITING: &str = ".sync";

/// More warnings than these help nobody.
const WARNINGS_MAX: usize = 20;

/// What a function that is handed on takes; no function of an environment may have the name.
const ONLY: &str = "__only";

/// Array methods that call a function with more than the element.
const PASSES_MORE: [&str; 12] = [
    "map",
    "forEach",
    "filter",
    "flatMap",
    "find",
    "findLast",
    "findIndex",
    "findLastIndex",
    "some",
    "every",
    "from",
    "fromAsync",
];

/// Adds the rewriting to the edits, and gives a warning for each place where the use of a result is not plain.
/// `completes`: the last expression of the program is its result.
pub fn rewrite(
    text: &str,
    semantic: &Semantic<'_>,
    submission: &Submission,
    completes: bool,
    edits: &mut Edits,
) -> Vec<String> {
    let scoping = semantic.scoping();
    let mut sites: Vec<(NodeId, &str)> = Vec::new();
    for (name, references) in scoping.root_unresolved_references() {
        if submission.functions.iter().any(|function| function == name.as_str()) {
            let places = references.iter().map(|reference| scoping.get_reference(*reference).node_id());
            sites.extend(places.map(|place| (place, name.as_str())));
        }
    }
    sites.extend(global_members(semantic, submission));
    sites.sort_by_key(|(place, _)| semantic.nodes().kind(*place).span().start);
    if sites.is_empty() {
        return Vec::new();
    }
    let mut calls =
        Calls { text, semantic, flow: Flow::new(semantic, completes), edits, warnings: Vec::new() };
    for (place, name) in sites {
        calls.site(place, name);
    }
    calls.warnings
}

/// `globalThis.GetRates`
fn global_members<'s>(semantic: &'s Semantic<'_>, submission: &'s Submission) -> Vec<(NodeId, &'s str)> {
    let global = |node: NodeId| match semantic.nodes().kind(node) {
        AstKind::StaticMemberExpression(member) => {
            let name = submission.functions.iter().find(|name| member.property.name == name.as_str())?;
            let object = member.object.get_identifier_reference()?;
            let is_global = object.name == "globalThis"
                && semantic.scoping().get_reference(object.reference_id()).symbol_id().is_none();
            is_global.then_some((node, name.as_str()))
        }
        _ => None,
    };
    semantic.nodes().iter().filter_map(|node| global(node.id())).collect()
}

struct Calls<'s, 'a, 'e> {
    text: &'s str,
    semantic: &'s Semantic<'a>,
    flow: Flow<'s, 'a>,
    edits: &'e mut Edits,
    warnings: Vec<String>,
}

impl Calls<'_, '_, '_> {
    /// One place where a function is named.
    fn site(&mut self, place: NodeId, name: &str) {
        let nodes = self.semantic.nodes();
        let span = nodes.kind(place).span();
        let parent = nodes.parent_id(place);
        match nodes.kind(parent) {
            AstKind::CallExpression(call) if call.callee.span() == span => {
                let uses = self.flow.of_result(parent);
                if self.waits(uses, name, span) {
                    self.edits.append(span, WAITING);
                }
            }
            // `GetRates.call(…)` and the like.
            AstKind::StaticMemberExpression(member)
                if member.object.span() == span
                    && ["call", "apply", "bind"].contains(&member.property.name.as_str()) =>
            {
                let uses = self.flow.of_function(place);
                if uses.value && self.waits(uses, name, span) {
                    self.edits.append(span, WAITING);
                }
            }
            AstKind::StaticMemberExpression(_)
            | AstKind::ComputedMemberExpression(_)
            | AstKind::NewExpression(_) => {}
            AstKind::ObjectProperty(property) if property.shorthand => {
                let uses = self.flow.of_function(place);
                if uses.value && self.waits(uses, name, span) {
                    self.edits.replace(after(span), format!(": {name}{WAITING}"));
                }
            }
            other => {
                let uses = self.flow.of_function(place);
                let waits = uses.value && self.waits(uses, name, span);
                let called = if waits { format!("{name}{WAITING}") } else { name.to_owned() };
                if passes_more(other, span) {
                    self.edits.replace(span, format!("(({ONLY}) => {called}({ONLY}))"));
                } else if waits {
                    self.edits.append(span, WAITING);
                }
            }
        }
    }

    /// Whether the value is wanted. Where a promise is wanted as well, that is said.
    fn waits(&mut self, uses: Uses, name: &str, span: Span) -> bool {
        let waits = !uses.chained && (uses.value || !(uses.awaited || uses.either));
        if uses.value && (uses.chained || uses.awaited) && self.warnings.len() < WARNINGS_MAX {
            let (line, column) = position(self.text, span.start as usize);
            let decided = if waits { "the program waits for its value here" } else { "it stays a promise" };
            self.warnings.push(format!(
                "It is not plain whether the result of {name} (line {line}, column {column}) is wanted as a promise or as a value, so {decided}. Write `await` before the call to make it plain."
            ));
        }
        waits
    }
}

fn after(span: Span) -> Span {
    Span::new(span.end, span.end)
}

/// Whether the function is given to a method that calls it with more than the one argument that it takes.
fn passes_more(parent: AstKind<'_>, span: Span) -> bool {
    let AstKind::CallExpression(call) = parent else { return false };
    let Expression::StaticMemberExpression(member) = &call.callee else { return false };
    call.callee.span() != span && PASSES_MORE.contains(&member.property.name.as_str())
}

#[cfg(test)]
mod tests {
    use oxc_allocator::Allocator;
    use oxc_parser::{ParseOptions, Parser};
    use oxc_semantic::SemanticBuilder;
    use oxc_span::SourceType;

    use super::*;

    /// The rewritten text, and how many warnings there are.
    fn rewritten(text: &str) -> (String, usize) {
        let allocator = Allocator::default();
        let options = ParseOptions { allow_return_outside_function: true, ..ParseOptions::default() };
        let parsed = Parser::new(&allocator, text, SourceType::mjs()).with_options(options).parse();
        assert!(parsed.diagnostics.is_empty(), "{text}: {:?}", parsed.diagnostics);
        let built = SemanticBuilder::new().with_build_nodes(true).build(&parsed.program);
        let submission =
            Submission { functions: ["Get", "Put"].map(str::to_owned).into(), ..Submission::default() };
        let mut edits = Edits::default();
        let completes = !text.contains("return ");
        let warnings = rewrite(text, &built.semantic, &submission, completes, &mut edits);
        (edits.apply(text).text, warnings.len())
    }

    /// One letter for each place where a function is named: `v` waits for the value, `p` stays a promise.
    fn decided(text: &str) -> String {
        let (text, _) = rewritten(text);
        let places = text.match_indices("Get").map(|(place, name)| place + name.len());
        places.map(|end| if text[end..].starts_with(WAITING) { 'v' } else { 'p' }).collect()
    }

    #[test]
    fn each_place_wants_a_promise_or_a_value() {
        let cases = [
            // At once.
            ("const s = Get(); if (s.length) 1; for (const r of s) r;", "v"),
            ("Get().name", "v"),
            ("Get()[0]", "v"),
            ("const { a } = Get();", "v"),
            ("const [a] = Get();", "v"),
            ("`${Get()}`", "v"),
            ("if (Get()) 1", "v"),
            ("return !Get()", "v"),
            ("return Get() + 1", "v"),
            ("console.log(Get())", "v"),
            ("return { a: Get(), b: 1 }", "v"),
            ("return [Get(), Get()]", "vv"),
            ("return [...Get()]", "v"),
            ("for (const x of Get()) x", "v"),
            ("const x = Get() || []; x.length", "v"),
            ("let x; x = Get(); return x.a", "v"),
            ("items.map((i) => Get(i).name)", "v"),
            ("return items.map((i) => Get(i))", "v"),
            ("return items.map(Get)", "v"),
            ("const all = items.map((i) => { return Get(i) }); return all.length + all[0].a", "v"),
            ("items.filter((i) => Get(i))", "v"),
            ("items.reduce((sum, i) => sum + Get(i), 0)", "v"),
            ("items.forEach((i) => { const r = Get(i); out.push(r.a) })", "v"),
            ("function f(i) { return Get(i) } return f(1).a", "v"),
            ("const f = (i) => Get(i); return f(1).a + f(2).a", "v"),
            ("class C { get(i) { return Get(i) } } return new C().get(1).a", "v"),
            ("class C { r = Get(); read() { return this.r.a } }", "v"),
            ("class C { #r = Get(); async read() { return (await this.#r).a } }", "p"),
            ("const o = { a: Get() }; return o.a.b", "v"),
            ("const get = Get; return get(1).a", "v"),
            ("Get(); return 1", "v"),
            ("JSON.stringify(Get())", "v"),
            ("const rows = await items.map((i) => Get(i)); return rows[0].a", "v"),
            ("async function f() { try { return Get() } catch { return 0 } } await f()", "v"),
            ("const r = Get(); return Put(r)", "v"),
            ("switch (Get()) {}", "v"),
            ("return Get() ? 1 : 2", "v"),
            ("throw Get()", "v"),
            ("const x = new Map(); x.set(1, Get()); return x.get(1).a", "v"),
            ("function* g() { yield Get() } for (const r of g()) r.a", "v"),
            ("new Thing(Get())", "v"),
            ("const api = { rates: (i) => Get(i) }; return api.rates(1).a", "v"),
            ("const r = Get(); await Put(1); return r.a", "v"),
            ("let r; try { r = Get() } catch { r = 0 } return r", "v"),
            (
                "const pipe = (...fns) => (x) => fns.reduce((v, f) => f(v), x); return pipe((id) => Get(id), (r) => r.a)(1)",
                "v",
            ),
            ("[1, 2].reduce((best, id) => best && best.a > 1 ? best : Get(id), null)", "v"),
            (
                "class A { async load() { this.u = Get(); return this.u } show() { const { u } = this; return u.a } } const a = new A(); await a.load(); a.show()",
                "v",
            ),
            (
                "class A { save(u) { return u.a } } class B { async save(p) { return (await p).b } } return [new A().save(Get(1)), await new B().save(Get(2))]",
                "vv",
            ),
            (
                "class Api { get(id) { return Get(id) } } const m = new Map([['k', f()]]); await m.get('k').then(g); return new Api().get(1).a",
                "v",
            ),
            ("return Get.call(null, 1).a + Get.apply(null, [1]).a + Get.bind(null, 1)().a", "vvv"),
            ("const u = Get(); console.log(u.a); return u", "v"),
            ("return globalThis.Get(1).a", "v"),
            ("globalThis.Get = 1; return await globalThis.Get(1)", "pp"),
            // Later.
            (
                "const late = (p) => Promise.race([p, new Promise((_, no) => setTimeout(no, 9))]); try { return await late(Get(), 50) } catch (e) { return e }",
                "p",
            ),
            ("const j = {}; j.a = Get(); j.b = Get(); await Promise.all([j.a, j.b])", "pp"),
            ("const ps = []; for (const i in xs) ps[i] = Get(i); await Promise.all(ps)", "p"),
            (
                "function pLimit(n) { return (fn) => new Promise((go, no) => fn().then(go, no)) } const limit = pLimit(3); await Promise.all([1, 2].map(() => limit(() => Get())))",
                "p",
            ),
            (
                "class Q { add(f) { return f() } } const q = new Q(); await Promise.all([q.add(() => Get()), q.add(() => Get())])",
                "pp",
            ),
            (
                "class R { #fns = []; reg(f) { this.#fns.push(f) } all() { return Promise.all(this.#fns.map((f) => f())) } } const r = new R(); r.reg(() => Get()); await r.all()",
                "p",
            ),
            (
                "class T { constructor(fn) { this.fn = fn } } const ts = [new T(() => Get())]; await Promise.all(ts.map((t) => t.fn()))",
                "p",
            ),
            ("const m = new Map(); m.set(1, Get()); for (const [k, p] of m) { k.a; await p }", "p"),
            (
                "const m = new Map(); m.set(1, Get()); await Promise.all([...m].map(async ([k, p]) => [k, await p]))",
                "p",
            ),
            (
                "const api = { one() { return Get() }, async both() { return Promise.all([this.one(), this.one()]) } }; await api.both()",
                "p",
            ),
            ("function* g() { yield Get(); yield Get() } await Promise.all(g())", "pp"),
            ("await Array.fromAsync([Get(), Get()])", "pp"),
            ("let a, b; [a, b] = [Get(), Get()]; await a; await b", "pp"),
            (
                "const c = new Map(); const load = (k) => { let p = c.get(k); if (!p) { p = Get(k); c.set(k, p) } return p }; await Promise.all([load(1), load(1)])",
                "p",
            ),
            ("try { const p = Get(); const q = Get(); await Promise.all([p, q]) } catch {}", "pp"),
            ("try { await Promise.all(items.map((i) => Get(i))) } catch {}", "p"),
            ("try { Get().then(f) } catch {}", "p"),
            ("await Get()", "p"),
            ("(await Get()).name", "p"),
            ("Get().then((r) => r.a)", "p"),
            ("const p = Get(); p.then(f).catch(g)", "p"),
            ("Get().catch(() => 0)", "p"),
            ("const p = Get(); const q = Get(); return (await p) + (await q)", "pp"),
            ("await Promise.all([Get(), Get()])", "pp"),
            ("const [a, b] = await Promise.all([Get(), Get()]); a.x + b.x", "pp"),
            ("await Promise.allSettled(items.map((i) => Get(i)))", "p"),
            ("await Promise.race([Get(), Get()])", "pp"),
            ("const all = items.map((i) => Get(i)); await Promise.all(all)", "p"),
            ("await Promise.all(items.map(Get))", "p"),
            ("await Promise.any(items.map(async (i) => Get(i)))", "p"),
            ("const all = []; for (const i of items) all.push(Get(i)); await Promise.all(all)", "p"),
            ("const all = [Get(), Get()]; for (const p of all) { const r = await p; r.a }", "pp"),
            ("for await (const r of items.map((i) => Get(i))) r.a", "p"),
            ("for await (const r of [Get(), Get()]) r.a", "pp"),
            ("const jobs = { a: Get(), b: Get() }; return [await jobs.a, await jobs.b]", "pp"),
            ("const jobs = { a: Get() }; await Promise.all(Object.values(jobs))", "p"),
            (
                "const jobs = { a: Get() }; for (const [k, p] of Object.entries(jobs)) { k.length; await p }",
                "p",
            ),
            ("const m = new Map(items.map((i) => [i, Get(i)])); await m.get(1)", "p"),
            ("const cache = {}; const load = (k) => cache[k] ??= Get(k); await load(1); await load(1)", "p"),
            ("async function f(i) { return Get(i) } await Promise.all(items.map(f))", "p"),
            ("const f = (i) => Get(i); await f(1)", "p"),
            ("function f(i) { return Get(i) } await Promise.all([f(1), f(2)])", "p"),
            ("async function retry(fn) { return await fn() } await retry(() => Get(1))", "p"),
            ("async function retry(fn) { return await fn() } await retry(Get)", "p"),
            ("const g = async function* () { yield Get() }; for await (const r of g()) r.a", "p"),
            ("new Promise((resolve) => resolve(Get()))", "p"),
            ("Promise.resolve(Get())", "p"),
            ("items.reduce((p, i) => p.then(() => Get(i)), Promise.resolve())", "p"),
            ("a().then(() => Get()).then((r) => r.a)", "p"),
            ("void Get()", "p"),
            ("Get()", "p"),
            ("return Get()", "p"),
            ("export default Get()", "p"),
            ("const r = ok ? Get(1) : Get(2); await r", "pp"),
            ("const p = Get(1) ; const c = p; await c", "p"),
            ("class C { get(i) { return Get(i) } } await new C().get(1)", "p"),
            ("await Promise.all(Array.from({ length: 3 }, (_, i) => Get(i)))", "p"),
            ("await Promise.all([...items.map((i) => Get(i)), Get(1)])", "pp"),
            ("await Promise.all(a.flatMap((x) => x.map((i) => Get(i))))", "p"),
            ("const { a, b } = { a: Get(), b: Get() }; await a; await b", "pp"),
        ];
        let wrong: Vec<_> = cases
            .into_iter()
            .filter(|(text, expected)| decided(text) != *expected)
            .map(|(text, _)| rewritten(text))
            .collect();
        assert!(wrong.is_empty(), "{wrong:#?}");
    }

    #[test]
    fn a_name_of_the_programs_own_is_left_alone() {
        for text in [
            "const Get = (a) => a; Get(1).a",
            "function f(Get) { return Get().a }",
            "o.Get().a",
            "typeof Get",
        ] {
            assert_eq!(rewritten(text), (text.to_owned(), 0));
        }
    }

    #[test]
    fn a_function_that_is_handed_on_gets_one_argument() {
        assert_eq!(rewritten("return items.map(Get)").0, "return items.map(((__only) => Get.sync(__only)))");
        assert_eq!(
            rewritten("await Promise.all(items.map(Get))").0,
            "await Promise.all(items.map(((__only) => Get(__only))))"
        );
        assert_eq!(rewritten("const o = { Get }; o.Get(1).a").0, "const o = { Get: Get.sync }; o.Get(1).a");
    }

    #[test]
    fn what_is_not_plain_is_decided_for_the_value_and_told() {
        let (text, warnings) = rewritten("const r = Get(); if (r.a) 1; await r");
        assert!(text.contains(WAITING) && warnings == 1, "{text}");
        let (text, warnings) = rewritten("const r = Get(); if (r) r.then(f)");
        assert!(!text.contains(WAITING) && warnings == 1, "{text}");
        assert_eq!(rewritten("const r = Get(); r.a").1, 0);
        assert_eq!(rewritten("const r = Get(); r.a; return r").1, 0, "to return a value says nothing");
    }
}
