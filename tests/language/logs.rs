//! The program's console.

use serde_json::{Value, json};

use super::run;
use crate::support::Supervisor;

/// The entries of a program, as level and text.
fn logged(supervisor: &Supervisor, code: &str) -> Vec<(String, String)> {
    let execution = run(supervisor, code, json!({}));
    assert_eq!(execution["status"], "completed", "{execution}");
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let logs = execution["logs"].as_array().unwrap();
    logs.iter().map(|entry| (text(&entry["level"]), text(&entry["text"]))).collect()
}

#[test]
fn every_method_of_the_console_prints_as_node_does() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let cases: &[(&str, &[(&str, &str)])] = &[
        (
            "console.log('%s is %d', 'a', 2, { b: [1, { c: { d: {} } }] })",
            &[("log", "a is 2 { b: [ 1, { c: [Object] } ] }")],
        ),
        (
            "console.info(1n, null, undefined, Symbol('s')); console.warn([1, , 'x']); console.error(new Map([['k', 1]])); console.debug(class A {})",
            &[
                ("info", "1n null undefined Symbol(s)"),
                ("warn", "[ 1, <1 empty item>, 'x' ]"),
                ("error", "Map(1) { 'k' => 1 }"),
                ("debug", "[class A]"),
            ],
        ),
        (
            "console.table([{ a: 1 }])",
            &[("log", "┌─────────┬───┐\n│ (index) │ a │\n├─────────┼───┤\n│ 0       │ 1 │\n└─────────┴───┘")],
        ),
        ("console.dir({ a: { b: { c: 1 } } }, { depth: 0 })", &[("log", "{ a: [Object] }")]),
        (
            "console.assert(true, 'no'); console.assert(false, 'a %s', 'b'); console.assert(false)",
            &[("error", "Assertion failed: a b"), ("error", "Assertion failed")],
        ),
        (
            "console.group('G'); console.log('in\\nner'); console.groupCollapsed('H'); console.warn('deep'); console.groupEnd(); console.groupEnd(); console.log('out')",
            &[("log", "G"), ("log", "  in\n  ner"), ("log", "  H"), ("warn", "    deep"), ("log", "out")],
        ),
        (
            "console.count(); console.count('x'); console.count(); console.countReset(); console.count()",
            &[("log", "default: 1"), ("log", "x: 1"), ("log", "default: 2"), ("log", "default: 1")],
        ),
        ("console.trace('here')", &[("debug", "Trace: here\n    at <program> (program.js:1:9)")]),
        ("console.log()", &[("log", "")]),
        (
            "const cycle = {}; cycle.me = cycle; console.log(cycle)",
            &[("log", "<ref *1> { me: [Circular *1] }")],
        ),
    ];
    for (code, expected) in cases {
        let expected: Vec<_> =
            expected.iter().map(|(level, text)| ((*level).to_owned(), (*text).to_owned())).collect();
        assert_eq!(logged(&supervisor, &format!("{code}; return 1")), expected, "{code}");
    }
    let timed = logged(
        &supervisor,
        "console.time('t'); console.timeLog('t', 'so far'); console.timeEnd('t'); return 1",
    );
    assert!(
        timed.len() == 2 && timed.iter().all(|(_, text)| text.starts_with("t: ") && text.contains("ms")),
        "{timed:?}"
    );
}

#[test]
fn no_method_of_a_logged_value_is_called() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let code = "
        let called = 0;
        const spy = { [Symbol.for('nodejs.util.inspect.custom')]() { called += 1 }, get a() { called += 1 }, toJSON() { called += 1 } };
        console.log(spy); console.dir(spy, { customInspect: true, getters: true }); console.error(new Proxy(spy, { get() { called += 1 } }));
        return called";
    let execution = run(&supervisor, code, json!({}));
    assert_eq!(
        (&execution["result"], execution["logs"].as_array().unwrap().len()),
        (&json!(0), 3),
        "{execution}"
    );
}

#[test]
fn logs_are_bounded_and_say_so() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let many = run(&supervisor, "for (let i = 0; i < 500; i++) console.table([i]); return 1", json!({}));
    let logs = many["logs"].as_array().unwrap();
    assert_eq!((logs.len(), &many["logsTruncated"]), (101, &json!(true)));
    assert!(logs[100]["text"].as_str().unwrap().contains("the rest is dropped"));
    let long = run(&supervisor, "console.log('x'.repeat(5000)); return 1", json!({}));
    assert_eq!((&long["logs"][0]["truncated"], &long["logsTruncated"]), (&json!(true), &json!(true)));
    let few = run(&supervisor, "console.log('x'); return 1", json!({}));
    assert_eq!((&few["logsTruncated"], &few["output"]), (&json!(false), &json!("x")));
}
