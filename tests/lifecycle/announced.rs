//! Programs that a guest compiles before it is known whether they run.

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::kept::of_kind;
use crate::support::{Supervisor, wait_for};

#[test]
fn a_guest_hears_beforehand_what_its_own_agent_asks_for_and_nothing_of_others() {
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    // Of all that the guest was sent before the program ran, the sources that it was announced, and whether the last
    // of them was confirmed.
    let heard = |agent: &str, code: &str| -> (Vec<String>, bool) {
        let execution = supervisor.execute_for(agent, code);
        let received = execution["result"].as_array().unwrap();
        let sources = received.iter().filter_map(|message| message["announce"]["source"].as_str());
        let confirmed = received.last().is_some_and(|last| last["confirm"]["executionId"] == execution["id"]);
        (sources.map(str::to_owned).collect(), confirmed)
    };
    let nothing = (Vec::new(), false);
    let program = |number: u32| format!("return received.splice(0) // {number}");
    let expect_itself = |agent: &str, number: u32| {
        let (sources, confirmed) = heard(agent, &program(number));
        assert!(matches!(sources.as_slice(), [source] if source.contains(&program(number))), "{sources:?}");
        assert!(confirmed, "{sources:?}");
    };
    for agent in ["one", "other"] {
        assert_eq!(heard(agent, &program(0)), nothing, "{agent} has no guest yet");
    }
    expect_itself("one", 1);
    assert_eq!(heard("one", &program(1)), nothing, "what it becomes is known");
    assert_eq!(heard("other", &program(1)), nothing, "known as well, and the first one's is the first one's");
    let long = format!("{} {}", program(2), "x".repeat(8 * 1024));
    assert_eq!(heard("one", &long), nothing);
    expect_itself("other", 2);
    // Nor is one that much is given to, be it in values or in their names.
    let given = |number: u32, field: &str, value: Value| {
        let mut body = json!({ "environmentName": "test", "userAgentId": "other", "code": program(number) });
        body[field] = value;
        supervisor.post("/api/execute", &body).body["result"].clone()
    };
    let (few, many) = ("x".repeat(30 * 1024), "x".repeat(33 * 1024));
    let names = |length: usize| json!({ "a".repeat(length): 0 });
    for (number, field, short, long) in
        [(20, "input", json!(few), json!(many)), (30, "context", names(few.len()), names(many.len()))]
    {
        let heard = given(number, field, short);
        assert!(heard[0]["announce"]["source"].is_string(), "{field}: {heard}");
        assert_eq!(given(number + 1, field, long), json!([]), "{field}");
    }
    // It was taken for JavaScript.
    let (sources, confirmed) = heard("other", "const none: number = 0; return received.splice(none)");
    assert!(sources.len() == 1 && !confirmed, "{sources:?}");
    // What was refused was announced too, and then nothing more before an execution.
    for number in [3, 4] {
        assert_eq!(refusal(&supervisor, "one", &format!("return ] // {number}")), "code_syntax_error");
    }
    let (sources, confirmed) = heard("one", &program(5));
    assert!(matches!(sources.as_slice(), [source] if source.contains("return ] // 3")), "{sources:?}");
    assert!(!confirmed);
    expect_itself("one", 6);
}

#[test]
fn nothing_is_announced_to_a_guest_that_serves_several_agents() {
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision_with(json!({ "isolation": { "guest": "environment" } }));
    for (agent, code) in
        [("one", "return received // 1"), ("other", "return received // 2"), ("one", "return received // 3")]
    {
        assert_eq!(supervisor.execute_for(agent, code)["result"], json!([]));
    }
}

#[test]
fn what_is_refused_has_not_run_although_its_guest_had_it() {
    let supervisor = Supervisor::with_settings("[execution]\nspare_guests = 0\n");
    supervisor.provision();
    assert_eq!(supervisor.result("return 1"), 1);
    let guests = guests_of(&supervisor);
    // One that says anything, or is busy, does not serve again.
    for breakout in [
        "}); console.log('ran'); (function () { return 1",
        "}); void Echo(1); (function () { return 1",
        "}); for (;;); (function () { return 1",
        "}, console.log('ran'), function () { return 1",
    ] {
        assert_eq!(refusal(&supervisor, "agent", breakout), "code_syntax_error", "{breakout}");
        assert_eq!(supervisor.result("return await Echo(2)"), 2);
        assert_eq!(guests_of(&supervisor), guests, "{breakout}: the guest that heard of it has served again");
    }
}

#[test]
fn what_is_refused_was_not_interrupted_when_the_supervisor_is_killed() {
    let mut supervisor = Supervisor::start();
    supervisor.provision();
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    // While one is under way, what has begun stands in its file.
    let _waiting = supervisor.begin("waiting", "await Wait({ ms: 60000 })");
    let begun = || {
        let files = std::fs::read_dir(supervisor.data().join("begun")).unwrap();
        // One may be gone already.
        files.filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok()).collect::<String>()
    };
    wait_for("the waiting one's beginning", || begun().contains("Wait").then_some(()));
    // Nothing begins before it was read where no processor is idle, as while others begin.
    wait_for("one that began and was withdrawn", || {
        assert_eq!(refusal(&supervisor, "agent", "return ]"), "code_syntax_error");
        assert_eq!(supervisor.result("return await Echo(2)"), 2);
        let begun = begun();
        let (refused, withdrawn) = (begun.matches("return ]").count(), begun.matches("withdrawn").count());
        (refused > 0 && refused == withdrawn).then_some(())
    });
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait();
    supervisor.start_again();
    let records = supervisor.records();
    let interrupted: Vec<_> = records.iter().filter(|record| record["status"] == "interrupted").collect();
    assert!(matches!(interrupted.as_slice(), [one] if one["agent"] == "waiting"), "{interrupted:?}");
}

#[test]
fn a_program_that_was_announced_ends_as_one_that_was_not() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    for code in [
        "return [input, region, __env, __agentId.length > 0, typeof Echo, typeof globalThis.Wait]",
        "function deep() {\n  return unknownThing.x;\n}\nreturn deep() || typeof unknownThing",
        "async function main() {\n  const a = await Echo({ b: 1 });\n  throw new TypeError(`on ${JSON.stringify(a)}`);\n}",
        "return Missing()",
        "return [typeof arguments, arguments.length, this === undefined]",
        "const x: number = 1;\nreturn x",
        "return (0, eval)('1 + 1')",
        "await Echo(1);\nnull.x\nreturn 1",
    ] {
        let of = |agent: &str| {
            let mut body = json!({ "environmentName": "test", "userAgentId": agent, "code": code });
            body["input"] = json!({ "day": 1 });
            body["context"] = json!({ "region": ["eu"] });
            let answer = supervisor.post("/api/execute", &body);
            assert_eq!(answer.status, 200, "{code}: {answer:?}");
            let execution = answer.body;
            ["status", "result", "errorDetails", "warnings"].map(|field| execution[field].clone())
        };
        assert_eq!(supervisor.execute_for("one", "return 0 // a guest")["result"], 0);
        assert_eq!(of("one"), of("other"), "{code}");
    }
}

/// A script is not wrapped, so its text may be that of a wrapped program which breaks out of its wrapper.
#[test]
fn a_script_does_not_pass_for_a_program_that_was_announced() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let inner = "}); console.log('return '); const f = (x) => x; f({ a: typeof Echo";
    let script = format!("(function () {{\n{inner}\n}})");
    let run = |agent: &str| {
        let execution = supervisor.execute_for(agent, &script);
        ["status", "result", "output", "errorDetails"].map(|field| execution[field].clone())
    };
    let expected = run("other");
    assert_eq!(expected[1], json!({ "a": "function" }), "{expected:?}");
    assert_eq!(supervisor.execute_for("one", "return 1")["result"], 1);
    assert_eq!(refusal(&supervisor, "one", inner), "code_syntax_error");
    assert_eq!(run("one"), expected);
}

#[test]
fn a_guest_that_does_not_read_what_is_announced_holds_nobody_up() {
    let supervisor = Supervisor::with_settings("[execution]\nspare_guests = 0\n");
    supervisor.provision();
    assert_eq!(supervisor.result("return 1"), 1);
    let guests = guests_of(&supervisor);
    let [guest] = guests.as_slice() else { panic!("{guests:?}") };
    let signal = |signal: Signal| kill(Pid::from_raw(*guest), signal).unwrap();
    signal(Signal::SIGSTOP);
    for number in 0..20 {
        let code = format!("return ]; // {number} {}", "x".repeat(7_000));
        assert_eq!(refusal(&supervisor, "agent", &code), "code_syntax_error");
    }
    signal(Signal::SIGCONT);
    assert_eq!(supervisor.result("return 2"), 2);
    assert_eq!(guests_of(&supervisor), guests, "it has served again, whatever it was told meanwhile");
}

fn guests_of(supervisor: &Supervisor) -> Vec<i32> {
    let mut pids: Vec<i32> = of_kind(supervisor, "guest").iter().map(|guest| guest.pid).collect();
    pids.sort_unstable();
    pids
}

fn refusal(supervisor: &Supervisor, agent: &str, code: &str) -> Value {
    let body = json!({ "environmentName": "test", "userAgentId": agent, "code": code });
    let answer = supervisor.post("/api/execute", &body);
    assert_eq!(answer.status, 400, "{answer:?}");
    answer.body["code"].clone()
}
