//! Calls that nothing awaits, as models write them: each gives its value where that is wanted, and stays a promise
//! where a promise is.

use serde_json::{Value, json};

use super::run;
use crate::support::Supervisor;

/// Programs that would fail, or give a promise, if the call were not waited for.
fn values() -> Vec<(&'static str, Value)> {
    vec![
        (
            "const s = Echo([1, 2]); if (s.length === 0) return 'none'; let sum = 0; for (const r of s) sum += r; return sum",
            json!(3),
        ),
        ("return Echo({ a: { b: 1 } }).a.b", json!(1)),
        ("return Echo([5, 6])[1]", json!(6)),
        ("const { a, ...rest } = Echo({ a: 1, b: 2 }); return [a, rest]", json!([1, { "b": 2 }])),
        ("const [a, b] = Echo([1, 2]); return a + b", json!(3)),
        ("return `It is ${Echo('warm')}.`", json!("It is warm.")),
        ("if (Echo(false)) return 'yes'; return 'no'", json!("no")),
        ("return !Echo(true)", json!(false)),
        ("return Echo(20) * 2 + Echo(2)", json!(42)),
        ("console.log(Echo('logged')); return 1", json!(1)),
        ("return { rates: Echo([1]), name: Echo('x') }", json!({ "rates": [1], "name": "x" })),
        ("return [Echo(1), Echo(2)]", json!([1, 2])),
        ("return [...Echo([1, 2]), 3]", json!([1, 2, 3])),
        ("return { ...Echo({ a: 1 }), b: 2 }", json!({ "a": 1, "b": 2 })),
        ("const out = []; for (const x of Echo([1, 2])) out.push(x * 2); return out", json!([2, 4])),
        ("const list = Echo(null) || [7]; return list[0]", json!(7)),
        ("const name = Echo({}).name ?? 'nobody'; return name", json!("nobody")),
        ("let r; r = Echo({ a: 4 }); return r.a", json!(4)),
        ("return [1, 2, 3].map((i) => Echo({ n: i }).n)", json!([1, 2, 3])),
        ("return [1, 2].map((i) => Echo(i))", json!([1, 2])),
        ("return [{ id: 1 }, { id: 2 }].map(Echo).map((r) => r.id)", json!([1, 2])),
        ("const all = [1, 2].map((i) => { return Echo({ i }) }); return all.length + all[1].i", json!(4)),
        ("return [1, 2, 3, 4].filter((i) => Echo(i % 2 === 0))", json!([2, 4])),
        ("return [1, 2, 3].reduce((sum, i) => sum + Echo(i), 0)", json!(6)),
        (
            "const out = []; [1, 2].forEach((i) => { const r = Echo({ i }); out.push(r.i) }); return out",
            json!([1, 2]),
        ),
        ("return [3, 1, 2].sort((a, b) => Echo(a) - Echo(b))", json!([1, 2, 3])),
        ("return [1, 2].find((i) => Echo(i === 2))", json!(2)),
        ("function rate(n) { return Echo({ n }) }\nreturn rate(1).n + rate(2).n", json!(3)),
        ("const rate = (n) => Echo({ n });\nreturn rate(1).n", json!(1)),
        ("class Client { rate(n) { return Echo({ n }) } }\nreturn new Client().rate(5).n", json!(5)),
        ("const api = { rate: (n) => Echo({ n }) };\nreturn api.rate(5).n", json!(5)),
        ("const get = Echo; return get({ n: 6 }).n", json!(6)),
        ("return JSON.stringify(Echo({ a: 1 }))", json!("{\"a\":1}")),
        ("return Object.keys(Echo({ a: 1, b: 2 }))", json!(["a", "b"])),
        ("const rows = await [1, 2].map((i) => Echo({ i })); return rows.map((r) => r.i)", json!([1, 2])),
        (
            "async function safe() { try { return Fail() } catch (error) { return error.message } }\nreturn await safe()",
            json!("the backend said no"),
        ),
        ("try { const r = Fail(); return r } catch (error) { return error.code }", json!("E_NO")),
        (
            "const user = Echo({ id: 7 }); const order = Echo({ of: user.id }); return order",
            json!({ "of": 7 }),
        ),
        ("const user = Echo({ id: 7 }); return Echo(user)", json!({ "id": 7 })),
        ("switch (Echo('b')) { case 'a': return 1; case 'b': return 2 }", json!(2)),
        ("return Echo(true) ? 'yes' : 'no'", json!("yes")),
        ("const seen = new Map(); seen.set('k', Echo({ a: 1 })); return seen.get('k').a", json!(1)),
        ("const cache = {}; cache.x = Echo({ a: 1 }); return cache.x.a", json!(1)),
        ("function* all() { yield Echo(1); yield Echo(2) } return [...all()]", json!([1, 2])),
        ("async function main() { const r = Echo({ a: 1 }); return r.a }", json!(1)),
        ("const r = Echo({ a: 9 });\nr.a", json!(9)),
        ("let text = ''; text += Echo('a'); text += Echo('b'); return text", json!("ab")),
        ("const r = Echo?.({ a: 1 }); return r?.a", json!(1)),
        ("return new Set(Echo([1, 1, 2])).size", json!(2)),
        ("let i = 0; while (Echo(i < 3)) i += 1; return i", json!(3)),
    ]
}

/// Programs whose promises run at the same time; one after the other, they would never end.
const PARALLEL: &[&str] = &[
    "const [a, b] = await Promise.all([Meet({ count: 2 }), Meet({ count: 2 })]); return a.met + b.met",
    "const a = Meet({ count: 2 }); const b = Meet({ count: 2 }); return (await a).met + (await b).met",
    "const all = [1, 2].map(() => Meet({ count: 2 })); const done = await Promise.all(all); return done[0].met + done[1].met",
    "const all = []; for (const i of [1, 2]) all.push(Meet({ count: 2 })); return (await Promise.all(all)).reduce((sum, r) => sum + r.met, 0)",
    "const done = await Promise.all([{ count: 2 }, { count: 2 }].map(Meet)); return done[0].met + done[1].met",
    "const done = await Promise.all([1, 2].map(async () => Meet({ count: 2 }))); return done[0].met + done[1].met",
    "const load = (count) => Meet({ count }); const [a, b] = await Promise.all([load(2), load(2)]); return a.met + b.met",
    "async function load(count) { return Meet({ count }) } const [a, b] = await Promise.all([load(2), load(2)]); return a.met + b.met",
    "const jobs = { a: Meet({ count: 2 }), b: Meet({ count: 2 }) }; return (await jobs.a).met + (await jobs.b).met",
    "const jobs = { a: Meet({ count: 2 }), b: Meet({ count: 2 }) }; let sum = 0; for (const [name, job] of Object.entries(jobs)) sum += (await job).met + name.length - 1; return sum",
    "let sum = 0; for await (const r of [1, 2].map(() => Meet({ count: 2 }))) sum += r.met; return sum",
    "const other = Meet({ count: 2 }); return Meet({ count: 2 }).then(async (a) => a.met + (await other).met)",
    "const done = await Promise.allSettled([Meet({ count: 2 }), Meet({ count: 2 })]); return done[0].value.met + done[1].value.met",
    "const p = Meet({ count: 2 }).catch(() => 0); const q = Meet({ count: 2 }).finally(() => 0); return (await p).met + (await q).met",
    "const cache = new Map(); const load = (k) => { if (!cache.has(k)) cache.set(k, Meet({ count: 2 })); return cache.get(k) }; const [a, b] = await Promise.all([load('a'), load('b')]); return a.met + b.met",
    "const retry = async (fn) => { try { return await fn() } catch { return await fn() } }; const [a, b] = await Promise.all([retry(() => Meet({ count: 2 })), retry(() => Meet({ count: 2 }))]); return a.met + b.met",
];

#[test]
fn a_call_whose_value_is_wanted_gives_its_value() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    for (code, expected) in values() {
        let execution = run(&supervisor, code, json!({}));
        assert_eq!(execution["result"], expected, "{code}: {execution}");
        assert!(execution["apiCallCount"].as_u64() >= Some(1), "{code}: {execution}");
    }
}

#[test]
fn promises_stay_promises_and_run_at_the_same_time() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    for code in PARALLEL {
        let execution = run(&supervisor, code, json!({ "timeout": 5_000 }));
        assert_eq!(execution["result"], 4, "{code}: {execution}");
        assert_eq!(execution["warnings"], json!([]), "{code}");
    }
    let race = "return await Promise.race([Wait({ ms: 20000 }), Echo('first')])";
    assert_eq!(run(&supervisor, race, json!({}))["result"], "first");
    let any = "return await Promise.any([Fail(), Echo('second')])";
    assert_eq!(run(&supervisor, any, json!({}))["result"], "second");
    // The control: one after the other they do not meet.
    let apart = "const a = Meet({ count: 2 }).met; const b = Meet({ count: 2 }).met; return a + b";
    assert_eq!(run(&supervisor, apart, json!({ "timeout": 500 }))["status"], "timeout");
}

#[test]
fn what_is_used_as_both_is_waited_for_and_told() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let code = "const r = Echo({ a: 1 });\nif (r.a === 1) console.log('one');\nreturn (await r).a";
    let execution = run(&supervisor, code, json!({}));
    assert_eq!(
        (&execution["result"], &execution["logs"][0]["text"]),
        (&json!(1), &json!("one")),
        "{execution}"
    );
    let warning = execution["warnings"][0].as_str().unwrap();
    assert!(warning.contains("the result of Echo (line 1, column 11)"), "{warning}");
    let failing = run(&supervisor, "const before = 'x'; const r = Echo(null); return r.a", json!({}));
    let details = &failing["errorDetails"];
    assert_eq!((&details["name"], &details["column"]), (&json!("TypeError"), &json!(52)), "{failing}");
}
