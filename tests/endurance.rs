//! What holds for longer: under constant kills, after many executions, environments and agents, and through floods. A
//! target of its own, so that nothing else runs beside it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::disallowed_methods, reason = "the tests start the supervisor and connect to it")]
#![allow(
    dead_code,
    unused_imports,
    reason = "the support of all tests is shared, and not all of it is used here"
)]

mod support;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use support::{Supervisor, children, control_groups, wait_for};

/// One at a time: each measures the machine.
static TURN: Mutex<()> = Mutex::new(());

fn execute(supervisor: &Supervisor, agent: &str, code: &str) -> support::Answer {
    supervisor.post("/api/execute", &json!({ "environmentName": "test", "userAgentId": agent, "code": code }))
}

#[test]
fn a_minute_of_kills_loses_no_acknowledged_execution() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    const LASTS: Duration = Duration::from_secs(60);
    let supervisor = Supervisor::start();
    supervisor.provision();
    let over = AtomicBool::new(false);
    let killed = AtomicU64::new(0);
    let acknowledged = Mutex::new(Vec::<Value>::new());
    std::thread::scope(|scope| {
        for client in 0..4 {
            let (supervisor, over, acknowledged) = (&supervisor, &over, &acknowledged);
            scope.spawn(move || {
                for number in 0_u64.. {
                    if over.load(Ordering::Relaxed) {
                        return;
                    }
                    let agent = format!("agent-{client}-{}", number % 3);
                    let mine = format!("{client}-{number}");
                    let code =
                        format!("const own = await Echo('{mine}'); await Wait({{ ms: 5 }}); return own");
                    let answer = execute(supervisor, &agent, &code);
                    // A process that is killed while it starts is the one failure without an outcome.
                    assert!([200, 500].contains(&answer.status), "{answer:?}");
                    if answer.body["status"] == "completed" {
                        assert_eq!(answer.body["result"], mine, "an answer of another execution");
                    }
                    if answer.status == 200 {
                        acknowledged.lock().unwrap().push(answer.body);
                    }
                }
            });
        }
        let (supervisor, over, killed) = (&supervisor, &over, &killed);
        scope.spawn(move || {
            let end = Instant::now() + LASTS;
            let mut state = 88_172_645_463_325_252_u64;
            while Instant::now() < end {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                let alive = children(supervisor.pid());
                if !alive.is_empty() {
                    let victim = &alive[usize::try_from(state % alive.len() as u64).unwrap()];
                    // It may have ended in this moment.
                    killed.fetch_add(
                        u64::from(kill(Pid::from_raw(victim.pid), Signal::SIGKILL).is_ok()),
                        Ordering::Relaxed,
                    );
                }
                std::thread::park_timeout(Duration::from_millis(100 + state % 200));
            }
            over.store(true, Ordering::Relaxed);
        });
    });
    let acknowledged = acknowledged.into_inner().unwrap();
    let completed = acknowledged.iter().filter(|execution| execution["status"] == "completed").count();
    let lost = acknowledged.iter().filter(|execution| execution["status"] == "worker_lost").count();
    assert!(killed.load(Ordering::Relaxed) > 100, "{killed:?} processes were killed");
    assert!(completed > 500 && lost > 0, "{completed} completed, {lost} lost their process");
    let others: HashSet<String> = acknowledged
        .iter()
        .map(|execution| execution["status"].as_str().unwrap().to_owned())
        .filter(|status| !["completed", "worker_lost"].contains(&status.as_str()))
        .collect();
    assert!(others.iter().all(|status| status == "error"), "Initialize may have been cut off: {others:?}");
    let records = supervisor.records();
    let statuses: std::collections::HashMap<&str, &Value> =
        records.iter().map(|record| (record["id"].as_str().unwrap(), &record["status"])).collect();
    for execution in &acknowledged {
        let id = execution["id"].as_str().unwrap();
        assert_eq!(statuses.get(id), Some(&&execution["status"]), "{id} was acknowledged");
    }
    assert_eq!(supervisor.running(), [Value::Null; 0]);
    for agent in 0..5 {
        assert_eq!(execute(&supervisor, &format!("after-{agent}"), "return await Echo(1)").body["result"], 1);
    }
}

/// What a supervisor holds of the machine.
#[derive(Debug)]
struct Holdings {
    descriptors: usize,
    processes: usize,
    groups: usize,
    resident_kilobytes: u64,
}

impl Holdings {
    fn of(supervisor: &Supervisor) -> Holdings {
        let pid = supervisor.pid();
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        Holdings {
            descriptors: std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count(),
            processes: children(pid).len(),
            groups: control_groups("cloister-").iter().map(|folder| count(folder)).sum(),
            resident_kilobytes: resident.trim().trim_end_matches(" kB").parse().unwrap(),
        }
    }

    /// When what was used last has been given back.
    fn settled(supervisor: &Supervisor) -> Holdings {
        let mut last = Holdings::of(supervisor);
        wait_for("the supervisor to settle", || {
            std::thread::park_timeout(Duration::from_millis(500));
            let before = std::mem::replace(&mut last, Holdings::of(supervisor));
            let same = (before.processes, before.groups, before.descriptors)
                == (last.processes, last.groups, last.descriptors);
            // The file of executions that have begun goes within a second of the last of them.
            let begun = std::fs::read_dir(supervisor.data().join("begun")).unwrap().count();
            (same && begun == 0).then_some(())
        });
        last
    }
}

fn count(folder: &std::path::Path) -> usize {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).count()
}

#[test]
fn a_hundred_thousand_executions_leave_nothing_behind() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let supervisor = Supervisor::start();
    supervisor.provision();
    let run = |executions: usize| {
        let next = AtomicU64::new(0);
        std::thread::scope(|scope| {
            for client in 0..4 {
                let (supervisor, next) = (&supervisor, &next);
                scope.spawn(move || {
                    while next.fetch_add(1, Ordering::Relaxed) < executions as u64 {
                        let answer = execute(
                            supervisor,
                            &format!("agent-{client}"),
                            "return await Echo({ a: [1, 2, 3] })",
                        );
                        assert_eq!(answer.body["status"], "completed", "{answer:?}");
                    }
                });
            }
        });
    };
    run(5_000);
    let before = Holdings::settled(&supervisor);
    run(100_000);
    let after = Holdings::settled(&supervisor);
    assert_eq!(
        (before.descriptors, before.processes, before.groups),
        (after.descriptors, after.processes, after.groups),
        "{before:?} {after:?}"
    );
    assert!(after.resident_kilobytes * 10 <= before.resident_kilobytes * 11, "{before:?} {after:?}");
}

#[test]
fn two_hundred_environments_and_a_thousand_agents_slow_nobody_down() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    const RESIDENT_KILOBYTES_MAX: u64 = 40 * 1024;
    let supervisor = Supervisor::start();
    let fresh = Supervisor::start();
    supervisor.provision();
    fresh.provision();
    let one = |supervisor: &Supervisor, agent: &str| {
        let started = Instant::now();
        let answer = execute(supervisor, agent, "return await Echo(1)");
        assert_eq!(answer.body["result"], 1, "{answer:?}");
        started.elapsed().as_secs_f64()
    };
    // What the machine gives changes by the minute, so one that has seen nobody is asked in turns.
    let slower_than_fresh = || {
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..300 {
            for (supervisor, times) in [&supervisor, &fresh].into_iter().zip(&mut times) {
                times.push(one(supervisor, "regular"));
            }
        }
        let [laden, unladen] = times.map(|mut times| {
            times.sort_by(f64::total_cmp);
            times[150]
        });
        laden / unladen
    };
    for number in 1..200 {
        let answer = supervisor.provision_with(json!({ "environmentName": format!("environment-{number}") }));
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let next = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                while let number @ 0..1_000 = next.fetch_add(1, Ordering::Relaxed) {
                    one(&supervisor, &format!("agent-{number}"));
                }
            });
        }
    });
    let held = Holdings::settled(&supervisor);
    slower_than_fresh();
    let mut ratios: Vec<f64> = (0..7).map(|_| slower_than_fresh()).collect();
    ratios.sort_by(f64::total_cmp);
    assert!(ratios[3] < 1.3, "{ratios:?}");
    assert!(held.resident_kilobytes < RESIDENT_KILOBYTES_MAX, "{held:?}");
    // A guest for each of them: more than one zygote may fork.
    wait_for("a zygote to be replaced", || {
        supervisor.log().iter().any(|line| line.contains("has forked enough guests")).then_some(())
    });
}

#[test]
fn floods_of_hostile_guests_do_not_fill_the_supervisor() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    let floods = [
        "for (;;) frame({ log: { executionId, level: 'log', text: 'x'.repeat(3000) } })",
        "for (;;) raw(Buffer.alloc(1 << 20))",
        "frame({ completed: { executionId, value: 'x'.repeat(1000000) } }); await new Promise(() => {})",
        "for (let callId = 1; ; callId += 1) frame({ call: { executionId, callId, name: 'Echo', params: 'x'.repeat(1000000) } })",
        "raw([0, 16, 0, 0]); await new Promise(() => {})",
        "process.stderr.write('x'.repeat(1 << 20)); process.stdout.write('x'.repeat(1 << 20)); await new Promise(() => {})",
    ];
    let flood = || {
        std::thread::scope(|scope| {
            for (agent, code) in floods.iter().enumerate() {
                let supervisor = &supervisor;
                scope.spawn(move || {
                    let body = json!({ "environmentName": "test", "userAgentId": format!("a{agent}"), "code": code, "timeout": 500 });
                    assert_eq!(supervisor.post("/api/execute", &body).status, 200);
                });
            }
        });
    };
    flood();
    let before = Holdings::settled(&supervisor);
    for _ in 0..10 {
        flood();
        let honest = execute(&supervisor, "honest", "return 7");
        assert_eq!(honest.body["result"], 7, "{honest:?}");
    }
    let after = Holdings::settled(&supervisor);
    const GROWTH_MAX: u64 = 64 * 1024;
    assert!(after.resident_kilobytes < before.resident_kilobytes + GROWTH_MAX, "{before:?} {after:?}");
}

/// Microseconds that processors may take to wake, as the kernel has it from all who ask; nothing where it
/// cannot be asked.
fn wake_latency() -> Option<i32> {
    let read = std::fs::read("/dev/cpu_dma_latency").ok()?;
    Some(i32::from_ne_bytes(read.try_into().unwrap()))
}

#[test]
fn idle_processors_are_awake_while_programs_exchange_messages_and_no_longer() {
    let _turn = TURN.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
    const AWAKE_MAX: i32 = 2;
    let supervisor = Supervisor::start();
    supervisor.provision();
    let Some(asleep) = wake_latency() else {
        let told = |line: &String| line.contains("idle processors are not kept awake");
        assert!(supervisor.log().iter().any(told), "{:?}", supervisor.log());
        return;
    };
    assert!(asleep > AWAKE_MAX, "nothing runs, and nobody else on this machine asks");
    std::thread::scope(|scope| {
        let waits = scope.spawn(|| execute(&supervisor, "a", "await Wait({ ms: 2000 }); return 7"));
        while wake_latency() > Some(AWAKE_MAX) {
            assert!(!waits.is_finished(), "processors never stayed awake");
        }
        wait_for("processors that may sleep", || (wake_latency() == Some(asleep)).then_some(()));
        assert!(!waits.is_finished(), "a program that waits for long keeps nothing awake");
        assert_eq!(waits.join().unwrap().body["result"], 7);
    });
    std::thread::scope(|scope| {
        let code = "for (let i = 0; i < 40; i += 1) await Wait({ ms: 3 }); return 7";
        let talks = scope.spawn(|| execute(&supervisor, "a", code));
        let (mut looks, mut awake) = (0, 0);
        while !talks.is_finished() {
            looks += 1;
            awake += usize::from(wake_latency() <= Some(AWAKE_MAX));
        }
        assert_eq!(talks.join().unwrap().body["result"], 7);
        assert!(awake * 2 > looks, "awake in {awake} of {looks} looks while messages come and go");
    });
    drop(supervisor);
    let supervisor = Supervisor::with_settings("[execution]\nkeep_awake = false\n");
    supervisor.provision();
    std::thread::scope(|scope| {
        let busy = scope.spawn(|| {
            for _ in 0..200 {
                assert_eq!(execute(&supervisor, "a", "return await Echo(7)").body["result"], 7);
            }
        });
        while !busy.is_finished() {
            assert_eq!(wake_latency(), Some(asleep), "the operator does not want it");
        }
    });
}
