//! Programs as models really write them, through the real service.

mod blocking;
mod hostile;
mod logs;
mod programs;
mod unawaited;
mod values;

use serde_json::{Value, json};

use crate::support::Supervisor;

/// Runs a request with the usual environment and agent, and the given fields beside.
fn run(supervisor: &Supervisor, code: &str, fields: Value) -> Value {
    let mut body = json!({ "environmentName": "test", "userAgentId": "agent", "code": code });
    for (field, value) in fields.as_object().unwrap() {
        body[field] = value.clone();
    }
    let answer = supervisor.post("/api/execute", &body);
    assert_eq!(answer.status, 200, "{code}: {answer:?}");
    answer.body
}

#[test]
fn the_entry_of_every_form_is_found_and_told() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let none = json!({});
    let input = json!({ "input": { "n": 20 } });
    let cases = [
        ("export default 42", &none, "export_default", json!(42)),
        ("export default async function (i) { return i.n + 1 }", &input, "export_default", json!(21)),
        (
            "const helper = (x) => x * 2;\nexport default (i) => helper(i.n);",
            &input,
            "export_default",
            json!(40),
        ),
        ("export { b as default };\nfunction b() { return 5 }", &none, "export_default", json!(5)),
        ("async function main({ limit = 5 } = {}) { return limit }", &none, "main", json!(5)),
        ("({ limit = 6 } = {}) => limit", &none, "function", json!(6)),
        (
            "const r = await Echo({ n: 1 });\nshow(r.n);\nfunction show(n) { return `n is ${n}` }\n;",
            &none,
            "body",
            json!("n is 1"),
        ),
        (
            "async function execute(i) { return i.n } function main() { return 'main' }",
            &input,
            "execute",
            json!(20),
        ),
        (
            "async function execute(i) { return i } function main() { return 'main' }",
            &none,
            "main",
            json!("main"),
        ),
        ("export const main = async () => Echo({ a: 1 });", &none, "main", json!({ "a": 1 })),
        ("async (i) => (await Echo(i)).n", &input, "function", json!(20)),
        ("const r = await Echo(input);\nreturn r.n", &input, "body", json!(20)),
        ("const input = 5; input + 1", &none, "script", json!(6)),
        ("// nothing but a value\n[1, 2].length; // end", &none, "script", json!(2)),
        ("(i) => 'import(' + i.n + ')' // a --> b", &input, "function", json!("import(20)")),
        ("const r = await Echo(input);\nr.n // the last expression", &input, "body", json!(20)),
        (
            "const r = await Echo(input);\nif (r.n > 5) {\n  try { r.none.n } catch { 'caught' }\n} else { 'small' }",
            &input,
            "body",
            json!("caught"),
        ),
        ("await Echo(1); if (!input) { return 1 }", &input, "body", Value::Null),
        ("async function main(i) { return (await Echo(i)).n }\n\nmain();", &input, "main", json!(20)),
        ("const main = async (i) => (await Echo(i)).n\nawait main()", &input, "main", json!(20)),
        (
            "async function main() { return Echo('own') }\nmain().then((r) => r + '!').catch(console.error);",
            &input,
            "script",
            json!("own!"),
        ),
    ];
    for (code, fields, kind, expected) in cases {
        let execution = run(&supervisor, code, fields.clone());
        let calls = execution["apiCallCount"].as_u64();
        assert!(calls <= Some(1), "{code} ran more than once: {execution}");
        let seen = (&execution["entryKind"], &execution["result"]);
        assert_eq!(seen, (&json!(kind), &expected), "{code}: {execution}");
    }
    let second = "function main() { return 1 } function second(i) { return i.n }";
    let named = run(&supervisor, second, json!({ "entry": "second", "input": { "n": 7 } }));
    assert_eq!((&named["entryKind"], &named["result"]), (&json!("entry"), &json!(7)));
    let body = json!({ "environmentName": "test", "userAgentId": "a", "code": second, "entry": "third" });
    let missing = supervisor.post("/api/execute", &body);
    assert_eq!(missing.status, 400);
    assert!(
        missing.body["detail"].as_str().unwrap().contains("third is not a top-level function"),
        "{missing:?}"
    );
}

#[test]
fn every_form_of_source_runs_and_errors_keep_their_place() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let cases = [
        "```js\nreturn await Echo({ a: 1 })\n```",
        "Sure, here it is:\n\n```javascript\nconst r = await Echo({ a: 1 });\nreturn r;\n```\n\nIt echoes.",
        "```ts\nconst r: { a: number } = await Echo({ a: 1 });\nreturn r as unknown;\n```",
        "~~~\nreturn await Echo({ a: 1 })\n~~~",
        "```js\nreturn await Echo({ a: 1 })",
        "\u{feff}return await Echo({ a: 1 })",
        "#!/usr/bin/env node\nreturn await Echo({ a: 1 })",
        "const r = await Echo({ a: 1 });\r\n\r\nreturn r;\r\n",
        "'use strict';\nreturn await Echo({ a: 1 })",
        "const text = 'a\u{2028}b';\nreturn await Echo({ a: text.length - 2 })",
        "interface R { a: number }\nconst r = (await Echo({ a: 1 })) as R;\nreturn r!;",
        "enum Level { Low, High = 5, Top }\nreturn await Echo({ a: Level.Top - Level.High } satisfies object)",
        "class Box<T> { constructor(private readonly value: T) {} get(): T { return this.value } }\nreturn await Echo({ a: new Box<number>(1).get() })",
        "async function main<T>(input?: T): Promise<unknown> { return Echo({ a: 1 }) }",
        "import type { A } from './a';\nexport interface B { a: number }\nexport type { A };\nconst r: B = await Echo({ a: 1 });\nreturn r",
        "/*\n```js\nexample()\n```\n*/\nreturn await Echo({ a: 1 })",
        "```js return await Echo({ a: 1 }) ```",
        "let f = Echo\ntype A = { a: number }\n(() => 1)\nreturn f({ a: 1 })",
        "enum Flag { A = 1, B = 2, Both = A|B, Length = 's'.length as any }\nreturn await Echo({ a: Flag.Both - Flag.B + Flag.Length - 1 })",
        "type Pair = [string, number];\nconst pairs: Pair[] = [['a', 1]];\nreturn Object.fromEntries(pairs)",
    ];
    for code in cases {
        assert_eq!(run(&supervisor, code, json!({}))["result"], json!({ "a": 1 }), "{code}");
    }
    let placed = [
        ("Text\n```ts\nconst a: number = 1;\n  throw new TypeError('no');\n```", 4, 9),
        (
            "interface A { b: string }\nconst f = (x: A): never => { throw new TypeError('no') };\nf({ b: '' })",
            2,
            36,
        ),
        ("export default () => {\n  null.a;\n}", 2, 8),
    ];
    for (code, line, column) in placed {
        let details = run(&supervisor, code, json!({}))["errorDetails"].clone();
        assert_eq!(
            (&details["line"], &details["column"]),
            (&json!(line), &json!(column)),
            "{code}: {details}"
        );
    }
    let said = json!({ "language": "typescript" });
    assert_eq!(run(&supervisor, "const a = <number>1; return a", said)["result"], 1);
}

#[test]
fn what_a_request_gives_is_found_by_its_name() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let fields = json!({ "input": { "n": 1 }, "context": { "region": "eu", "limits": [1, 2], "$x": null } });
    let code = "return [input.n, region, limits.length, $x, __agentId, __env]";
    assert_eq!(run(&supervisor, code, fields)["result"], json!([1, "eu", 2, null, "agent", "test"]));
    assert_eq!(run(&supervisor, "return typeof region", json!({}))["result"], "undefined");
    let body = json!({ "environmentName": "test", "userAgentId": "a", "code": "1", "context": { "a-b": 1, "Map": 2 } });
    let refused = supervisor.post("/api/execute", &body);
    assert_eq!((refused.status, refused.body["errors"].as_array().unwrap().len()), (400, 2), "{refused:?}");
    let shadow =
        json!({ "environmentName": "test", "userAgentId": "a", "code": "1", "context": { "Echo": 1 } });
    let refused = supervisor.post("/api/execute", &shadow);
    assert_eq!((refused.status, &refused.body["errors"][0]["pointer"]), (400, &json!("/context/Echo")));
}

#[test]
fn a_name_that_stands_for_nothing_fails_before_anything_runs() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let cases = [
        ("await Echo({}); return await Ecko({})", "api_not_provisioned", 1, 30, "Did you mean Echo?"),
        (
            "await Echo({});\nreturn total",
            "reference_error",
            2,
            8,
            "Functions of this environment: Echo, Who",
        ),
        ("await Echo({});\n\n  const r = await fetch('http://a')", "not_available", 3, 19, "no network here"),
        ("const fs = require('fs'); await Echo({})", "not_available", 1, 12, "Modules cannot be loaded"),
        ("await Echo({}); undeclared = 5", "reference_error", 1, 17, "Declare it: `let undeclared`"),
    ];
    for (code, expected, line, column, hint) in cases {
        let execution = run(&supervisor, code, json!({}));
        let details = &execution["errorDetails"];
        let seen = (&details["code"], &details["line"], &details["column"]);
        assert_eq!(seen, (&json!(expected), &json!(line), &json!(column)), "{code}: {execution}");
        assert!(details["hint"].as_str().unwrap().contains(hint), "{details}");
        assert_eq!(execution["apiCallCount"], 0, "nothing has run: {execution}");
    }
    for (code, expected) in [
        ("return typeof process === 'undefined' ? 'none' : process.pid", json!("none")),
        (
            "try { missing() } catch (error) { return `${error}` }",
            json!("ReferenceError: missing is not defined"),
        ),
        (
            "let cfg; try { cfg = CONFIG } catch { cfg = 'default' } return [cfg, (() => { try { return { CONFIG } } catch { return 1 } })()]",
            json!(["default", 1]),
        ),
        ("const { a: b, ...rest } = { a: 1, c: 2 }; return ((d = b) => [d, rest])()", json!([1, { "c": 2 }])),
        (
            "label: for (const x of [1, 2]) { continue label }\nreturn function named() { return typeof named }()",
            json!("function"),
        ),
    ] {
        assert_eq!(run(&supervisor, code, json!({}))["result"], expected, "{code}");
    }
    let records = supervisor.records();
    assert_eq!(records.iter().filter(|record| record["status"] == "error").count(), cases.len());
}

#[test]
fn what_ses_would_refuse_in_a_text_keeps_its_meaning() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let cases = [
        ("return 'import(' + \"eval('1')\" + '<!-- -->'", json!("import(eval('1')<!-- -->")),
        ("return `import(${1}) eval(2) <!-- -->`", json!("import(1) eval(2) <!-- -->")),
        ("return [/import(x)|eval(y)/.test('evaly'), /<!--|-->/.test('a --> b')]", json!([true, true])),
        ("// import('a')\n/* eval('b') <!-- --> */ return 1", json!(1)),
        ("let n = 3; let s = 0; while (n-->0) s += n; return s", json!(3)),
        ("let b = 2; return 1<!--b", json!(false)),
        ("const o = { eval: 1, import: 2 }; return o.eval + o.import", json!(3)),
        ("const s = \"<script>import('x')</script>\"; return s.length", json!(28)),
        ("return '\\\\import(' + '\\import('", json!("\\import(import(")),
        (
            "return [/<!--.*?-->/g.source, '<!--a-->b'.replace(/<!--.*?-->/, ''), /import\\(\"/.test('import(\"')]",
            json!(["<!--.*?-->", "b", true]),
        ),
        (
            "const tag = (strings, ...values) => strings.raw.join('|') + values.join(); return [String.raw`\\n import(${1} <!-- -->`, tag`a<!--${1}\n${2}-->`]",
            json!(["\\n import(1 <!-- -->", "a<!--|\n|-->1,2"]),
        ),
        (
            "class A { static eval(x) { return x } import() { return 2 } #eval() { return 3 } own() { return this.#eval() } } const a = new A(); return [A.eval(1), a.import(), a.own(), { eval(x) { return x } }.eval(4)]",
            json!([1, 2, 3, 4]),
        ),
    ];
    for (code, expected) in cases {
        assert_eq!(run(&supervisor, code, json!({}))["result"], expected, "{code}");
    }
    let moved = run(&supervisor, "const a = 'import(x)'; null.b", json!({}))["errorDetails"].clone();
    assert_eq!((&moved["line"], &moved["column"]), (&json!(1), &json!(29)), "{moved}");
    let body = json!({ "environmentName": "test", "userAgentId": "a", "code": "return eval('1')" });
    let refused = supervisor.post("/api/execute", &body);
    assert!(
        refused.body["detail"].as_str().unwrap().contains("direct `eval` is not available"),
        "{refused:?}"
    );
}

#[test]
fn modules_are_refused_by_name() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    for (code, word) in [
        ("import axios from 'axios'; return 1", "Functions of this environment: Echo, Who, Fetch"),
        ("const fs = await import('fs'); return 1", "`import()` is not available"),
        ("export * from 'a'", "`export … from`"),
        ("export default class A {}", "the default export is a class"),
        ("@dec class A {}", "decorators are not available"),
        ("```json\n{}\n```", "none of the fences holds a program"),
    ] {
        let body = json!({ "environmentName": "test", "userAgentId": "a", "code": code });
        let answer = supervisor.post("/api/execute", &body);
        assert_eq!((answer.status, &answer.body["code"]), (400, &json!("code_syntax_error")), "{code}");
        assert!(answer.body["detail"].as_str().unwrap().contains(word), "{answer:?}");
    }
}

#[test]
fn the_analyzer_knows_what_a_guest_has() {
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "limits": { "maxApiCalls": 0 } }));
    // What cannot be changed is inherited.
    let names = "return [globalThis, Object.getPrototypeOf(globalThis)].flatMap(Object.getOwnPropertyNames)";
    let found = supervisor.result(names);
    let found: Vec<&str> = found.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
    let functions = supervisor.get("/api/environments/test").body["endowments"].clone();
    let own = |name: &&&str| !functions.as_array().unwrap().contains(&json!(name));
    let unknown: Vec<_> = found.iter().filter(own).filter(|name| !analyzer::GLOBALS.contains(name)).collect();
    assert!(unknown.is_empty(), "the analyzer would refuse these: {unknown:?}");
    // `arguments` is a name of functions, not of the global object.
    let missing: Vec<_> =
        analyzer::GLOBALS.iter().filter(|name| !found.contains(name) && **name != "arguments").collect();
    assert!(missing.is_empty(), "the analyzer would let these pass: {missing:?}");
    let random = "return [crypto.randomUUID().length, crypto.getRandomValues(new Uint8Array(4)).length]";
    assert_eq!(supervisor.result(random), json!([36, 4]));
}

#[test]
fn functions_are_found_without_being_mentioned() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    for code in [
        "return (await globalThis['Ec' + 'ho']({ a: 1 })).a",
        "return (await (0, eval)('Ec' + 'ho')({ a: 1 })).a",
        "return (await new Function(`return Ec${'ho'}({ a: 1 })`)()).a",
        "Reflect.get(this, 'Ec' + 'ho')({ a: 1 }).then((echo) => echo.a)",
        "async function f(echo = Echo({ a: 1 })) { const Echo = await echo; return Echo.a } return f()",
    ] {
        assert_eq!(supervisor.result(code), json!(1), "{code}");
    }
}

#[test]
fn a_program_can_be_examined_without_being_run() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let examine = |code: &str| {
        let body = json!({ "environmentName": "test", "userAgentId": "a", "code": code, "input": 1, "context": { "region": "eu" } });
        let answer = supervisor.post("/api/analyze", &body);
        (answer.status, answer.body)
    };
    let (status, good) =
        examine("```ts\nasync function execute(i: number) { return Echo({ i, region }) }\n```");
    assert_eq!(status, 200);
    assert_eq!(
        (&good["valid"], &good["entryKind"], &good["language"], &good["functions"]),
        (&json!(true), &json!("execute"), &json!("typescript"), &json!(["Echo", "region"]))
    );
    let (status, unknown) = examine("return await Ecko()");
    assert_eq!((status, &unknown["valid"]), (200, &json!(false)));
    assert_eq!(unknown["errorDetails"]["code"], "api_not_provisioned", "{unknown}");
    let (status, broken) = examine("let = ;");
    assert_eq!((status, &broken["code"]), (400, &json!("code_syntax_error")));
    assert_eq!(supervisor.records().len(), 0, "nothing was run");
}

#[test]
fn the_result_says_what_it_was_and_an_error_shows_its_lines() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    for (value, expected) in [
        ("undefined", "undefined"),
        ("null", "null"),
        ("1n", "bigint"),
        ("'a'", "string"),
        ("[1]", "array"),
        ("({})", "object"),
        ("new Date(0)", "date"),
        ("new Map()", "map"),
        ("new Set()", "set"),
        ("new Uint8Array(1)", "typed_array"),
        ("new Error('x')", "error"),
        ("true", "boolean"),
        ("1.5", "number"),
    ] {
        assert_eq!(
            run(&supervisor, &format!("return {value}"), json!({}))["resultType"],
            expected,
            "{value}"
        );
    }
    let thrown = run(&supervisor, "```js\nconst a = 1;\nthrow new Error('x')\n```", json!({}));
    assert_eq!(thrown["errorDetails"]["frame"], "  2 | const a = 1;\n> 3 | throw new Error('x')\n  4 | ```");
    assert_eq!(thrown["resultType"], Value::Null);
    let unknown = run(&supervisor, "return nothing", json!({}));
    assert_eq!(unknown["errorDetails"]["frame"], "> 1 | return nothing");
}
