//! Programs that a guest compiles before it is known whether they run.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::kept::of_kind;
use crate::support::Supervisor;

#[test]
fn a_guest_hears_beforehand_what_its_own_agent_asks_for_and_nothing_of_others() {
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    // Of all that the guest was sent before the program, the sources that it was announced.
    let heard = |agent: &str, code: &str| -> Vec<String> {
        let received = supervisor.execute_for(agent, code)["result"].clone();
        let sources = received.as_array().unwrap().iter().map(|message| &message["announce"]["source"]);
        sources.map(|source| source.as_str().unwrap().to_owned()).collect()
    };
    let program = |number: u32| format!("return received.splice(0) // {number}");
    let expect_itself = |agent: &str, number: u32| {
        let sources = heard(agent, &program(number));
        assert!(matches!(sources.as_slice(), [source] if source.contains(&program(number))), "{sources:?}");
    };
    for agent in ["one", "other"] {
        assert!(heard(agent, &program(0)).is_empty(), "{agent} has no guest yet");
    }
    expect_itself("one", 1);
    assert!(heard("one", &program(1)).is_empty(), "what it becomes is known");
    assert!(heard("other", &program(1)).is_empty(), "known as well, and the first one's is the first one's");
    let long = format!("{} {}", program(2), "x".repeat(16 * 1024));
    assert!(heard("one", &long).is_empty());
    expect_itself("other", 2);
}

#[test]
fn what_is_refused_has_not_run_although_its_guest_had_it() {
    let supervisor = Supervisor::with_settings("[execution]\nspare_guests = 0\n");
    supervisor.provision();
    assert_eq!(supervisor.result("return 1"), 1);
    let guests = guests_of(&supervisor);
    for breakout in [
        "}); globalThis.ran = 1; (function () { return 1",
        "}); for (;;); (function () { return 1",
        "}); throw 1; (function () { return 1",
        "}, globalThis.ran = 1, function () { return 1",
    ] {
        assert_eq!(refusal(&supervisor, breakout), "code_syntax_error", "{breakout}");
    }
    assert_eq!(
        supervisor.result("return [typeof ran, Object.keys(globalThis).includes('ran')]"),
        json!(["undefined", false])
    );
    assert_eq!(guests_of(&supervisor), guests, "the guest that heard of them has served again");
}

#[test]
fn a_program_that_was_announced_ends_as_one_that_was_not() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    for code in [
        "function deep() {\n  return unknownThing.x;\n}\nreturn deep() || typeof unknownThing",
        "async function main() {\n  const a = await Echo({ b: 1 });\n  throw new TypeError(`on ${JSON.stringify(a)}`);\n}",
        "return Missing()",
        "return [typeof arguments, arguments.length, this === undefined]",
        "const x: number = 1;\nreturn x",
        "return (0, eval)('1 + 1')",
        "await Echo(1);\nnull.x\nreturn 1",
    ] {
        let of = |agent: &str| {
            let execution = supervisor.execute_for(agent, code);
            ["status", "result", "errorDetails", "warnings"].map(|field| execution[field].clone())
        };
        assert_eq!(supervisor.execute_for("one", "return 0 // a guest")["result"], 0);
        assert_eq!(of("one"), of("other"), "{code}");
    }
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
    let started = Instant::now();
    // Several times what its socket holds.
    for number in 0..60 {
        let code = format!("return ]; // {number} {}", "x".repeat(15_000));
        assert_eq!(refusal(&supervisor, &code), "code_syntax_error");
    }
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    signal(Signal::SIGCONT);
    assert_eq!(supervisor.result("return 2"), 2);
    assert_eq!(guests_of(&supervisor), guests, "it has served again, whatever it was told meanwhile");
}

fn guests_of(supervisor: &Supervisor) -> Vec<i32> {
    let mut pids: Vec<i32> = of_kind(supervisor, "guest").iter().map(|guest| guest.pid).collect();
    pids.sort_unstable();
    pids
}

fn refusal(supervisor: &Supervisor, code: &str) -> Value {
    let body = json!({ "environmentName": "test", "userAgentId": "agent", "code": code });
    let answer = supervisor.post("/api/execute", &body);
    assert_eq!(answer.status, 400, "{answer:?}");
    answer.body["code"].clone()
}
