//! Calls for whose values a program blocks.

use serde_json::json;

use super::run;
use crate::support::{Supervisor, wait_for};

#[test]
fn a_blocking_call_gives_the_value_and_throws_the_error() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let cases = [
        ("return Echo.sync({ a: 1 }).a", json!(1)),
        ("return [1, 2, 3].map((n) => Echo.sync(n) * 2)", json!([2, 4, 6])),
        (
            "try { Fail.sync() } catch (error) { return [error instanceof Error, error.name, error.message, error.code] }",
            json!([true, "RangeError", "the backend said no", "E_NO"]),
        ),
        (
            "const slow = Wait({ ms: 30 }); const fast = Echo.sync('fast'); return [fast, await slow]",
            json!(["fast", 30]),
        ),
        ("setTimeout(() => console.log('timer'), 0); Wait.sync({ ms: 20 }); return 'first'", json!("first")),
    ];
    for (code, expected) in cases {
        let execution = run(&supervisor, code, json!({}));
        assert_eq!(execution["result"], expected, "{code}: {execution}");
        assert!(execution["apiCallCount"].as_u64() >= Some(1), "{execution}");
    }
}

#[test]
fn answers_that_the_program_cannot_read_yet_do_not_hold_up_the_one_that_it_waits_for() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let code = "const all = Array.from({ length: 12 }, () => Large({ bytes: 1000000 })); await Wait({ ms: 1 }); const sync = [1, 2, 3].map((n) => Wait.sync({ ms: 30 * n })); return [sync, (await Promise.all(all)).map((text) => text.length)]";
    let execution = run(&supervisor, code, json!({ "timeout": 10_000 }));
    assert_eq!(execution["result"], json!([[30, 60, 90], vec![1_000_000; 12]]), "{execution}");
}

#[test]
fn a_blocking_call_obeys_deadline_cancellation_and_budgets() {
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "limits": { "maxApiCalls": 5 } }));
    let late = run(&supervisor, "Wait.sync({ ms: 60000 }); return 1", json!({ "timeout": 400 }));
    assert_eq!(
        (&late["status"], &late["effects"][0]["state"]),
        (&json!("timeout"), &json!("pending")),
        "{late}"
    );
    assert!(late["durationMs"].as_f64() < Some(1500.0), "{late}");
    for (code, expected) in [
        ("for (let i = 0; i < 9; i += 1) Echo.sync(i)", "api_call_limit"),
        ("Echo.sync('x'.repeat(1024 * 1024))", "params_too_large"),
        ("Large.sync({ bytes: 1024 * 1024 })", "api_result_too_large"),
        ("Exit.sync()", "worker_lost"),
    ] {
        let execution = run(&supervisor, code, json!({}));
        assert_eq!(execution["errorDetails"]["code"], expected, "{code}: {execution}");
    }
    let waiting = supervisor.begin("gone", "Wait.sync({ ms: 60000 })");
    wait_for("the program to begin", || {
        supervisor.running().into_iter().find(|begun| begun["agent"] == "gone")
    });
    drop(waiting);
    let record =
        wait_for("its record", || supervisor.records().into_iter().find(|row| row["agent"] == "gone"));
    assert_eq!(record["status"], "cancelled");
    assert_eq!(supervisor.result("return Echo.sync(7)"), 7);
}

#[test]
fn what_a_program_does_not_read_is_not_held_by_the_supervisor() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let before = resident(&supervisor);
    // The program computes while 31 answers of a megabyte are ready for it, and only then takes them.
    let code = "const all = Array.from({ length: 31 }, () => Large({ bytes: 1000000 })); await Wait({ ms: 1 }); const end = Date.now() + 700; while (Date.now() < end); const ended = await Promise.all(all); return ended.length";
    for agent in ["a", "b", "c", "d"] {
        let execution = run(&supervisor, code, json!({ "timeout": 10_000, "userAgentId": agent }));
        assert_eq!(execution["result"], 31, "{execution}");
    }
    let kept = resident(&supervisor).saturating_sub(before);
    assert!(kept < 40 * 1024, "{kept} KiB more are held after four agents");
}

/// The supervisor's resident memory in KiB (`proc_pid_status(5)`).
fn resident(supervisor: &Supervisor) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", supervisor.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
