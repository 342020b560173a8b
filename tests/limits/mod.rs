//! Every limit, tripped through `POST /api/execute`.

use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use crate::support::{Backend, Supervisor, children, wait_for};

#[test]
fn an_endless_program_ends_within_100_ms_of_its_limit_and_disturbs_nobody() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    supervisor.result("return 1");
    for code in ["for (;;) {}", "await new Promise(() => {})", "for (;;) { await null }"] {
        std::thread::scope(|scope| {
            let endless = scope.spawn(|| {
                let started = Instant::now();
                let body = json!({ "environmentName": "test", "userAgentId": "endless", "code": code, "timeout": 700 });
                (supervisor.post("/api/execute", &body).body, started.elapsed())
            });
            let others = (0..20).filter(|_| supervisor.result("return await Echo(1)") == 1).count();
            assert_eq!(others, 20);
            let (execution, _) = endless.join().unwrap();
            assert_eq!(execution["status"], "timeout", "{execution}");
            assert_eq!(execution["errorDetails"]["code"], "timeout");
            let late = execution["durationMs"].as_f64().unwrap() - 700.0;
            // The duration includes getting a guest and a host; the second time they are spare.
            assert!((0.0..400.0).contains(&late), "{late} ms late");
        });
        assert_eq!(supervisor.execute_for("endless", "return 1")["result"], 1);
    }
    let execution = supervisor.post("/api/execute", &json!({ "environmentName": "test", "userAgentId": "agent", "code": "for (;;) {}", "timeout": 500 })).body;
    let late = execution["durationMs"].as_f64().unwrap() - 500.0;
    assert!((0.0..100.0).contains(&late), "{late} ms late with a warm guest");
}

#[test]
fn a_memory_bomb_is_out_of_memory_whatever_it_is_made_of() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let bombs = [
        "const a = []; for (;;) a.push(new Array(100000).fill(1.5))",
        "const a = []; for (;;) a.push(new Uint8Array(10000000).fill(1))",
        "let s = 'x'; for (;;) s += s + JSON.stringify(s)",
    ];
    for code in &bombs[..2] {
        let execution = supervisor.execute(code);
        assert_eq!(execution["status"], "out_of_memory", "{execution}");
        assert_eq!(execution["errorDetails"]["code"], "memory_limit");
        assert_eq!(supervisor.result("return await Echo(1)"), 1);
    }
    // A string has a largest length, so this one may also end as an ordinary RangeError.
    let execution = supervisor.execute(bombs[2]);
    assert!(["out_of_memory", "error"].contains(&execution["status"].as_str().unwrap()), "{execution}");
    assert_eq!(supervisor.result("return 1"), 1);
}

#[test]
fn calls_parameters_results_and_logs_are_bounded() {
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "limits": { "maxApiCalls": 5 } }));
    let cases = [
        ("for (let i = 0; i < 9; i += 1) await Echo(i)", "api_call_limit"),
        ("await Echo('x'.repeat(1024 * 1024))", "result_too_large"),
        ("return 'x'.repeat(1024 * 1024)", "result_too_large"),
        ("return new Array(4e9 / 2)", "result_too_large"),
        ("await Large({ bytes: 1024 * 1024 })", "api_result_too_large"),
    ];
    for (code, expected) in cases {
        let execution = supervisor.execute(code);
        assert_eq!(
            (&execution["status"], &execution["errorDetails"]["code"]),
            (&json!("error"), &json!(expected)),
            "{code}: {execution}"
        );
    }
    assert_eq!(supervisor.execute(cases[0].0)["apiCallCount"], 5);
    let execution =
        supervisor.execute("for (let i = 0; i < 200; i += 1) console.log('x'.repeat(5000)); return 1");
    let logs = execution["logs"].as_array().unwrap();
    assert_eq!(logs.len(), 101);
    assert!(
        logs[0]["text"].as_str().unwrap().len() < 1100
            && logs[0]["text"].as_str().unwrap().ends_with("(5000 characters)")
    );
    assert!(logs[100]["text"].as_str().unwrap().contains("dropped"));
}

#[test]
fn threads_of_a_process_are_bounded() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    assert_eq!(supervisor.result("return await Threads({ count: 2 })"), 2);
    let execution = supervisor.execute("return await Threads({ count: 40 })");
    assert_ne!(execution["status"], "completed", "{execution}");
    assert!(
        execution["error"].as_str().unwrap().contains("ERR_WORKER_INIT_FAILED")
            || execution["error"].as_str().unwrap().contains("EAGAIN"),
        "{execution}"
    );
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
}

#[test]
fn a_process_that_sends_garbage_is_ended_and_the_execution_is_lost() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let garbage: [&[u8]; 4] =
        [b"garbage garbage", b"\xff\xff\xff\xff", b"\0\0\0\x02[]", b"\0\0\0\x0d{\"returned\":0}"];
    for bytes in garbage {
        let execution = supervisor.execute(&format!("await Garbage({{ bytes: {} }})", json!(bytes)));
        assert_eq!(
            (&execution["status"], &execution["errorDetails"]["code"]),
            (&json!("worker_lost"), &json!("worker_lost")),
            "{execution}"
        );
        assert_eq!(supervisor.result("return await Echo(1)"), 1);
    }
}

#[test]
fn a_process_that_dies_loses_its_own_execution_only() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let execution = supervisor.execute("await Exit()");
    assert_eq!(execution["status"], "worker_lost", "{execution}");
    assert!(execution["error"].as_str().unwrap().contains("ended with code 7"), "{execution}");
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    std::thread::scope(|scope| {
        let doomed = scope.spawn(|| supervisor.execute_for("doomed", "for (;;) {}"));
        // The busy guest is the one that uses the processor.
        let guest = wait_for("the guest to be busy", || busiest_guest(&supervisor));
        kill(Pid::from_raw(guest), Signal::SIGKILL).unwrap();
        assert_eq!(doomed.join().unwrap()["status"], "worker_lost");
    });
    assert_eq!(supervisor.execute_for("doomed", "return 1")["result"], 1);
}

/// A guest that has used more than 300 ms of processor time since its start.
fn busiest_guest(supervisor: &Supervisor) -> Option<i32> {
    let ticks = |pid: i32| {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let fields: Vec<&str> = stat.rsplit(')').next()?.split_whitespace().collect();
        fields.get(11)?.parse::<u64>().ok()
    };
    let guests = children(supervisor.pid()).into_iter().filter(|child| child.kind() == "guest");
    guests.map(|child| child.pid).find(|pid| ticks(*pid).is_some_and(|ticks| ticks > 30))
}

#[test]
fn a_guest_that_never_gets_idle_is_not_used_again() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let execution =
        supervisor.execute("const again = () => Promise.resolve().then(again); again(); return 1");
    assert_eq!(execution["status"], "completed");
    assert_eq!(supervisor.result("return 2"), 2);
}

#[test]
fn a_full_supervisor_refuses_at_once_and_finishes_what_it_took() {
    let backend = Backend::start();
    let supervisor = Supervisor::with_settings("[execution]\nconcurrent_max = 1\nqueued_max = 0\n");
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            supervisor.execute("await Fetch({ path: '/started' }); return await Wait({ ms: 1500 })")
        });
        wait_for("the program to start", || backend.was_asked("/started").then_some(()));
        let started = Instant::now();
        let body = json!({ "environmentName": "test", "userAgentId": "late", "code": "return 1" });
        let answer = supervisor.post("/api/execute", &body);
        assert_eq!(
            (answer.status, &answer.body["code"], answer.retry_after.as_deref()),
            (503, &json!("overloaded"), Some("1"))
        );
        assert!(started.elapsed() < Duration::from_millis(200), "{:?}", started.elapsed());
        assert_eq!(running.join().unwrap()["result"], Value::from(1500));
    });
    assert_eq!(supervisor.result("return 1"), 1);
}
