//! Results, parameters, thrown and logged values: what becomes of each, and that none of them can harm.

use serde_json::{Value, json};

use super::run;
use crate::support::Supervisor;

#[test]
fn every_value_has_one_form_as_json() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let cases = [
        ("undefined", json!(null)),
        ("[undefined, NaN, Infinity, -Infinity]", json!([null, null, null, null])),
        ("({ a: undefined, b: NaN })", json!({ "b": null })),
        ("[12345678901234567890n, -0, 1e21]", json!(["12345678901234567890", 0, 1e21])),
        ("new Date(0)", json!("1970-01-01T00:00:00.000Z")),
        ("new Date(NaN)", json!(null)),
        ("new Map([['a', 1], ['b', [2]]])", json!({ "a": 1, "b": [2] })),
        ("new Map([[1, 'a']])", json!([[1, "a"]])),
        ("new Set([1, [2]])", json!([1, [2]])),
        (
            "[new Uint8Array([1]), new Float16Array([1.5]), new Float32Array([1.5]), new BigInt64Array(1)]",
            json!([[1], [1.5], [1.5], ["0"]]),
        ),
        (
            "Object.assign(new RangeError('far'), { code: 1 })",
            json!({ "name": "RangeError", "message": "far" }),
        ),
        ("[new String('a'), new Number(1), new Boolean(false), Object(1n)]", json!(["a", 1, false, "1"])),
        ("new URL('http://a/b?c=1')", json!("http://a/b?c=1")),
        ("Array(2)", json!([null, null])),
        ("'a\\ud800b'", json!("a\u{fffd}b")),
        ("new (class Point { x = 1; #y = 2; get z() { return 3 } scale() {} })()", json!({ "x": 1 })),
        ("Object.defineProperty({ a: 1, [Symbol('s')]: 2 }, 'hidden', { value: 3 })", json!({ "a": 1 })),
        ("Object.create({ inherited: 1 }, { own: { value: 2, enumerable: true } })", json!({ "own": 2 })),
    ];
    for (value, expected) in cases {
        assert_eq!(run(&supervisor, &format!("return {value}"), json!({}))["result"], expected, "{value}");
        // The same on the way to a function. A parameter that is not given is an empty object.
        if value != "undefined" {
            let sent = run(&supervisor, &format!("return await Echo({value})"), json!({}));
            assert_eq!(sent["result"], expected, "{value}: {sent}");
        }
    }
    let refused = [
        ("() => 1", "result is a function"),
        ("({ a: [1, Symbol('s')] })", "result.a[1] is a symbol"),
        ("Object(Symbol('s'))", "result is a symbol"),
        ("(() => { const a = { list: [] }; a.list.push(a); return a })()", "result.list[0] refers back"),
        ("[Promise.resolve(1)]", "result[0] is a promise"),
        ("({ 'a b': { f() {} } })", "result[\"a b\"].f is a function"),
    ];
    for (value, message) in refused {
        let details = run(&supervisor, &format!("return {value}"), json!({}))["errorDetails"].clone();
        assert_eq!(details["code"], "not_serialisable", "{value}: {details}");
        assert!(details["message"].as_str().unwrap().starts_with(message), "{value}: {details}");
        let sent = run(&supervisor, &format!("await Echo({value})"), json!({}))["errorDetails"].clone();
        assert_eq!(sent["message"], details["message"].as_str().unwrap().replace("result", "params"));
    }
}

/// Values that try to be something else than they are, or to run code where they are read.
const HOSTILE: [(&str, &str, Option<i64>); 17] = [
    ("({ toJSON: undefined, a: 1 })", "completed", None),
    ("({ then(resolve) { resolve({ then(again) { again(5) } }) } })", "completed", Some(5)),
    ("({ get a() { throw new Error('from a getter') } })", "error", None),
    ("new Proxy({}, { ownKeys() { throw new Error('from a trap') } })", "error", None),
    ("new Proxy({}, { get() { throw 1 }, getPrototypeOf() { throw 2 } })", "error", None),
    ("new Proxy([], { get: (target, key) => (key === 'length' ? 2 ** 32 : 1) })", "error", None),
    (
        "(() => { let reads = 0; return new Proxy([1], { get: (target, key) => (key === 'length' ? (reads++ ? 2 ** 32 : 1) : 1) }) })()",
        "completed",
        None,
    ),
    (
        "new Proxy([], { get: (target, key) => (key === 'length' ? { valueOf() { throw new Error('no number') } } : 1) })",
        "error",
        None,
    ),
    (
        "(() => { const { proxy, revoke } = Proxy.revocable({}, {}); revoke(); return [proxy] })()",
        "error",
        None,
    ),
    ("Object.setPrototypeOf({ a: 1 }, Date.prototype)", "completed", None),
    ("Object.setPrototypeOf([1], Map.prototype)", "completed", None),
    (
        "(() => { const list = new Uint8Array(2); list[Symbol.iterator] = function* () { for (;;) yield 1 }; return list })()",
        "completed",
        None,
    ),
    ("Object.defineProperty(new Error('m'), 'message', { get() { throw 1 } })", "completed", None),
    ("new (class extends Map { entries() { for (;;) {} } })([['a', 1]])", "completed", None),
    ("({ constructor: null, __proto__: null, hasOwnProperty: 1 })", "completed", None),
    ("(() => { const deep = () => ({ get more() { return deep() } }); return deep() })()", "error", None),
    ("JSON.parse('{\"__proto__\": 1, \"constructor\": { \"prototype\": 2 }}')", "completed", None),
];

#[test]
fn a_hostile_value_ends_at_most_its_own_program() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let pid = || supervisor.result("return (await Who()).pid");
    let host = pid();
    for (value, status, result) in HOSTILE {
        let returned = run(&supervisor, &format!("return {value}"), json!({}));
        assert_eq!(returned["status"], status, "{value}: {returned}");
        if let Some(result) = result {
            assert_eq!(returned["result"], result, "{value}");
        }
        for use_of in [
            "throw X",
            "console.log(X); return 1",
            "console.table([X])",
            "await Echo(X)",
            "Promise.reject(X); await Wait({ ms: 1 })",
        ] {
            let code = use_of.replace('X', &format!("({value})"));
            let execution = run(&supervisor, &code, json!({ "timeout": 3000 }));
            let ended = execution["status"].as_str().unwrap();
            assert!(["completed", "error"].contains(&ended), "{code}: {execution}");
            assert!(!execution.to_string().contains("/harness"), "{code}: {execution}");
        }
        assert_eq!(supervisor.result("return [1].map((x) => x + 1)"), json!([2]));
    }
    assert_eq!(pid(), host, "no process was lost");
    // An array that grows while it is read ends by its size.
    let endless = "const list = []; for (let i = 0; i < 3; i++) Object.defineProperty(list, i, { enumerable: true, get() { for (;;) {} } }); return list";
    let execution = run(&supervisor, endless, json!({ "timeout": 500 }));
    assert_eq!(execution["status"], "timeout", "{execution}");
}

#[test]
fn what_is_thrown_is_told_in_words() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let cases = [
        ("throw new TypeError('no')", "TypeError", "no"),
        (
            "class RateError extends Error { constructor(m) { super(m); this.name = 'RateError' } }\nthrow new RateError('stale')",
            "RateError",
            "stale",
        ),
        ("throw 'text'", "Error", "text"),
        ("throw 42", "Error", "42"),
        ("throw null", "Error", "null"),
        ("throw undefined", "Error", "undefined"),
        ("throw Symbol('s')", "Error", "a symbol"),
        ("throw () => 1", "Error", "a function"),
        ("throw { status: 404, reason: 'gone' }", "Error", "{\"status\":404,\"reason\":\"gone\"}"),
        ("throw { message: 'plain' }", "Error", "plain"),
        (
            "throw Object.assign(new Error('x'), { stack: 'Error: x\\n    at f (program.js:99999999999999999999:1)' })",
            "Error",
            "x",
        ),
        ("await Promise.reject(new RangeError('late'))", "RangeError", "late"),
        ("setTimeout(() => { throw new Error('timer') }, 1); await new Promise(() => {})", "Error", "timer"),
    ];
    let long = run(
        &supervisor,
        "throw { name: 'n'.repeat(2e6), message: 'm'.repeat(2e6), code: 'c'.repeat(2e6), stack: 'at f (program.js:1:2)\\n'.repeat(1e5) }",
        json!({}),
    );
    assert_eq!(long["status"], "error", "what is thrown is cut before it is sent");
    assert!(long.to_string().len() < 40_000);
    for (code, name, message) in cases {
        let details = run(&supervisor, code, json!({}))["errorDetails"].clone();
        assert_eq!(
            (&details["name"], &details["message"]),
            (&json!(name), &json!(message)),
            "{code}: {details}"
        );
    }
}

#[test]
fn a_stack_shows_the_program_alone() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let code = "```ts\nconst inner = (n: number): never => { throw new TypeError(`no ${n}`) };\nasync function outer() {\n  await null;\n  inner(1);\n}\nawait outer();\n```";
    let thrown = run(&supervisor, code, json!({}));
    assert_eq!(
        thrown["errorDetails"]["stack"],
        "TypeError: no 1\n    at inner (program.js:2:45)\n    at outer (program.js:5:3)\n    at <program> (program.js:7:1)",
        "{thrown}"
    );
    let seen = run(&supervisor, "const e = new Error('mine');\nconsole.log(e);\nreturn e.stack", json!({}));
    let stack = "Error: mine\n    at <program> (program.js:1:11)";
    assert_eq!((&seen["result"], &seen["logs"][0]["text"]), (&json!(stack), &json!(stack)));
    for (code, message, column) in [
        ("const a = Fail(); return a.b", "the backend said no", 11),
        ("const b = await Fail()", "the backend said no", 17),
        ("return Echo({ a: 1 }).foo()", "Echo(...).foo is not a function", 23),
        ("class Own extends Error { constructor(m) { super(m) } }\nthrow new Own('bad')", "bad", 7),
    ] {
        let details = run(&supervisor, code, json!({}))["errorDetails"].clone();
        assert_eq!(
            (&details["message"], &details["column"]),
            (&json!(message), &json!(column)),
            "{code}: {details}"
        );
        assert!(details["stack"].as_str().unwrap().contains("at <program>"), "{details}");
    }
    let caught = "try { await Fail() } catch (error) { return [error instanceof RangeError || error instanceof Error, error.name, error.message, error.code, error.stack.includes('/')] }";
    assert_eq!(
        run(&supervisor, caught, json!({}))["result"],
        json!([true, "RangeError", "the backend said no", "E_NO", false])
    );
    let on = "const out = []; for (const f of [Fail, Echo]) { try { out.push(await f({ a: 1 })) } catch (error) { out.push(error.message) } } return out";
    assert_eq!(run(&supervisor, on, json!({}))["result"], json!(["the backend said no", { "a": 1 }]));
}

#[test]
fn an_error_says_what_to_do() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let cases = [
        ("return () => 1", "Return data alone"),
        ("return 'x'.repeat(2e6)", "Return less"),
        ("const r = await Echo(null); return r.rates.length", "Log the value"),
        ("Array.prototype.last = function () {}", "are frozen"),
        ("Math.left = 1", "are frozen"),
        ("return performance.now()", "Date.now()"),
        ("const _ = require('lodash')", "Modules cannot be loaded"),
    ];
    for (code, hint) in cases {
        let details = run(&supervisor, code, json!({}))["errorDetails"].clone();
        assert!(details["hint"].as_str().is_some_and(|text| text.contains(hint)), "{code}: {details}");
    }
}

#[test]
fn ordinary_assignments_work_and_nothing_is_left_to_the_next_program() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let ordinary = "
        const object = {}; object.toString = () => 'mine'; object.constructor = 1; object.hasOwnProperty = 2; object.valueOf = () => 3;
        const error = new Error('a'); error.name = 'Own'; error.message = 'b'; error.toString = () => 'c'; error.code = 1;
        class Model { constructor() { this.toString = () => 'model' } } Model.prototype.constructor = Model; Model.prototype.extra = 1;
        const list = []; list.toString = () => 'list'; const map = new Map(); map.get = () => 1;
        function Old() {} Old.prototype.name = 'old'; Old.prototype.toString = () => 'o';
        return [`${object}`, `${error}`, `${new Model()}`, `${list}`, map.get(), `${new Old()}`]";
    assert_eq!(
        run(&supervisor, ordinary, json!({}))["result"],
        json!(["mine", "c", "model", "list", 1, "o"])
    );
    let traces = [
        "globalThis.left = 1",
        "Echo.left = 1",
        "Echo.sync.left = 1",
        "console.left = 1",
        "Math.left = 1",
        "URL.prototype.left = 1",
        "Object.prototype.left = 1",
        "Intl.left = 1",
        "Float16Array.prototype.left = 1",
        "AbortSignal.left = 1",
        "(async () => {}).constructor.prototype.left = 1",
        "console.group('left')",
        "console.count()",
        "Symbol.for('left').description.left = 1",
    ];
    let look = "console.count(); return [typeof left, Echo.left, Echo.sync.left, console.left, Math.left, URL.prototype.left, ({}).left, Intl.left, Float16Array.prototype.left, AbortSignal.left, (async () => {}).left].filter((found) => found !== undefined && found !== 'undefined')";
    for code in traces {
        run(&supervisor, code, json!({}));
        let next = run(&supervisor, look, json!({}));
        assert_eq!((&next["result"], &next["logs"][0]["text"]), (&json!([]), &json!("default: 1")), "{code}");
    }
}

#[test]
fn nothing_that_a_program_finds_can_be_changed() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let execution = run(&supervisor, include_str!("../fixtures/walk.js"), json!({}));
    assert_eq!(execution["result"], json!([true, []]), "{execution}");
}

#[test]
fn the_globals_of_a_program_are_there_and_work() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let cases: [(&str, Value); 14] = [
        (
            "[Object.groupBy([1, 2], (n) => n % 2 ? 'odd' : 'even'), [3, 1].toSorted(), [1, 2].findLast(() => true), 'a-a'.replaceAll('-', ''), [1].at(-1)]",
            json!([{ "odd": [1], "even": [2] }, [1, 3], 2, "aa", 1]),
        ),
        (
            "[...new Set([1, 2]).union(new Set([3]))].concat(Iterator.from([4]).map((n) => n * 2).toArray())",
            json!([1, 2, 3, 8]),
        ),
        (
            "[new Date(0).toLocaleDateString('de-DE', { timeZone: 'UTC' }), (1234.5).toLocaleString('de-DE'), 'ä'.localeCompare('z', 'de'), new Intl.NumberFormat('en-US', { style: 'currency', currency: 'USD' }).format(3)]",
            json!(["1.1.1970", "1.234,5", -1, "$3.00"]),
        ),
        (
            "[typeof Date.now(), Math.random() < 1, Math.max(1, 2), new Date().getTime() > 1.7e12]",
            json!(["number", true, 2, true]),
        ),
        (
            "[Int8Array, Uint8Array, Uint8ClampedArray, Int16Array, Uint16Array, Int32Array, Uint32Array, Float16Array, Float32Array, Float64Array].map((Kind) => new Kind([1])[0])",
            json!([1, 1, 1, 1, 1, 1, 1, 1, 1, 1]),
        ),
        (
            "[new BigInt64Array([1n])[0], new BigUint64Array([1n])[0], new DataView(new ArrayBuffer(8)).getFloat64(0)]",
            json!(["1", "1", 0]),
        ),
        (
            "[new URL('http://a/?x=1').searchParams.get('x'), `${new URLSearchParams({ a: 1 })}`, new TextDecoder().decode(new TextEncoder().encode('ä')), atob(btoa('x'))]",
            json!(["1", "a=1", "ä", "x"]),
        ),
        (
            "[structuredClone({ d: [1] }), crypto.randomUUID().length, crypto.getRandomValues(new Uint8Array(3)).length]",
            json!([{ "d": [1] }, 36, 3]),
        ),
        (
            "await (async () => { const c = new AbortController(); c.signal.addEventListener('abort', () => { throw new Error('heard') }); c.abort('why'); await Wait({ ms: 1 }); return [c.signal.reason, AbortSignal.any([c.signal]).aborted, AbortSignal.abort().reason.name] })()",
            json!(["why", true, "AbortError"]),
        ),
        (
            "(() => { const u = new URL('/a?b=1', 'http://h'); u.searchParams.append('c', 2); u.hash = 'x'; return [u.href, [...u.searchParams.keys()], URL.canParse('no'), `${new URLSearchParams(u.searchParams)}`, JSON.stringify({ u })] })()",
            json!(["http://h/a?b=1&c=2#x", ["b", "c"], false, "b=1&c=2", "{\"u\":\"http://h/a?b=1&c=2#x\"}"]),
        ),
        (
            "await (async () => { const c = new AbortController(); let heard = 0; c.signal.addEventListener('abort', () => { heard += 1 }); c.abort(); return [heard, c.signal.aborted] })()",
            json!([1, true]),
        ),
        (
            "await (async () => { const seen = []; queueMicrotask(() => seen.push(1)); const id = setInterval(() => { seen.push(2); clearInterval(id) }, 1); clearTimeout(setTimeout(() => seen.push('no'), 5)); await new Promise((go) => setTimeout((x) => { seen.push(x); go() }, 20, 3)); return seen })()",
            json!([1, 2, 3]),
        ),
        ("await Array.fromAsync([Promise.resolve(1), 2])", json!([1, 2])),
        (
            "(() => { try { __env = 'other' } catch {} return [__agentId, __env] })()",
            json!(["agent", "test"]),
        ),
    ];
    for (value, expected) in cases {
        let execution = run(&supervisor, &format!("return {value}"), json!({}));
        assert_eq!(execution["result"], expected, "{value}: {execution}");
    }
}
