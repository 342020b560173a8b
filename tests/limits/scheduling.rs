//! Who gets a processor first.

use nix::libc::{SCHED_BATCH, SCHED_OTHER};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde_json::json;

use crate::support::{IMPLEMENTATION, Jailed, Supervisor, children, scheduling_policy, wait_for};

#[test]
fn a_jailed_process_takes_no_processor_from_another_when_it_wakes() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    assert_eq!(scheduling_policy(supervisor.pid()), Some(SCHED_OTHER));
    // Elsewhere a batch process would wait beside one that has stepped back.
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let version: Vec<u32> = release.split(['.', '-']).take(2).map(|number| number.parse().unwrap()).collect();
    let expected = if version >= vec![6, 12] { SCHED_BATCH } else { SCHED_OTHER };
    let kinds = ["zygote", "guest", "host", "other"];
    // One that was just started is not a batch process before it is told so.
    wait_for("all kinds of children, and all of them scheduled so", || {
        let children = children(supervisor.pid());
        let all = kinds.iter().all(|kind| children.iter().any(|child| child.kind() == *kind));
        let batch = children.iter().all(|child| scheduling_policy(child.pid) == Some(expected));
        (all && batch).then_some(())
    });
}

#[test]
fn a_process_that_computes_for_long_steps_back_until_the_program_ends() {
    let supervisor = with_compute();
    for (kind, code) in
        [("guest", format!("{COMPUTES} return 2")), ("host", "return await Compute()".to_owned())]
    {
        std::thread::scope(|scope| {
            let computing = scope.spawn(|| supervisor.execute_for("long", &code));
            let back = wait_for("one that has stepped back", || stepped_back(&supervisor).first().cloned());
            assert_eq!(back.0, kind);
            assert_eq!(supervisor.result("return await Echo(1)"), 1);
            assert_eq!(stepped_back(&supervisor), std::slice::from_ref(&back), "and no other");
            assert_eq!(computing.join().unwrap()["result"], 2);
            assert!(stepped_back(&supervisor).is_empty(), "the program has ended");
            let kept = children(supervisor.pid()).iter().any(|child| child.pid == back.1);
            assert!(kept, "the {kind} serves on");
        });
    }
}

#[test]
fn a_host_that_computes_for_a_program_that_has_ended_steps_back_until_it_has_answered() {
    let supervisor = with_compute();
    assert_eq!(supervisor.result("void Compute(); return 1"), 1);
    let back = wait_for("one that has stepped back", || stepped_back(&supervisor).first().cloned());
    assert_eq!(back.0, "host");
    wait_for("nobody who has stepped back", || stepped_back(&supervisor).is_empty().then_some(()));
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
}

#[test]
fn many_who_compute_at_once_all_step_back() {
    let supervisor = with_compute();
    let endless: Vec<_> =
        (0..8).map(|number| supervisor.begin(&format!("endless-{number}"), "for (;;) {}")).collect();
    wait_for("all of them to have stepped back", || (stepped_back(&supervisor).len() == 8).then_some(()));
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    drop(endless);
    wait_for("nobody who has stepped back", || stepped_back(&supervisor).is_empty().then_some(()));
}

#[test]
fn an_analyzer_is_kept_where_it_is_asked_while_its_guest_has_the_other_processor() {
    let (supervisor, one, both) = on_two_processors();
    supervisor.provision();
    let processors = || {
        let children = children(supervisor.pid());
        let analyzer = children.iter().find(|child| child.status("Name") == "analyzer");
        analyzer.map(|analyzer| analyzer.status("Cpus_allowed_list").to_owned()).unwrap()
    };
    assert_eq!(supervisor.result("return 'the first'"), "the first");
    assert!(both.contains(&processors()), "no guest was there to be told of the program: {}", processors());
    for round in 0..2 {
        assert_eq!(supervisor.result(&format!("return await Echo({round})")), round);
        assert!(one.contains(&processors()), "a guest was told: {}", processors());
        let examined = format!("return await Echo({round}) + 1");
        let body = json!({ "environmentName": "test", "userAgentId": "a", "code": examined });
        assert_eq!(supervisor.post("/api/analyze", &body).status, 200);
        assert!(both.contains(&processors()), "one that is not to run: {}", processors());
    }
}

#[test]
fn the_records_thread_is_kept_off_the_supervisors_processor_while_programs_run_one_by_one() {
    let (supervisor, one, both) = on_two_processors();
    supervisor.provision();
    let processors = || {
        let threads = std::fs::read_dir(format!("/proc/{}/task", supervisor.pid())).unwrap();
        let mut statuses =
            threads.filter_map(|thread| std::fs::read_to_string(thread.unwrap().path().join("status")).ok());
        let store = statuses.find(|status| status.starts_with("Name:\tstore\n")).unwrap();
        let list = store.lines().find_map(|line| line.strip_prefix("Cpus_allowed_list:")).unwrap();
        list.trim().to_owned()
    };
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    assert!(both.contains(&processors()), "none was kept before: {}", processors());
    for _ in 0..2 {
        for round in 0..30 {
            assert_eq!(supervisor.result("return await Echo(1)"), 1, "{round}");
        }
        assert!(one.contains(&processors()), "one after the other: {}", processors());
        wait_for("programs that run at once", || {
            let _several: Vec<_> = (0..8)
                .map(|number| supervisor.begin(&format!("of-{number}"), "return await Echo(1)"))
                .collect();
            both.contains(&processors()).then_some(())
        });
    }
}

/// A supervisor that has two processors, their numbers, and what the kernel may call both of them.
fn on_two_processors() -> (Supervisor, [String; 2], [String; 2]) {
    let this_thread = Pid::from_raw(0);
    let anywhere = sched_getaffinity(this_thread).unwrap();
    let all: Vec<usize> = (0..CpuSet::count()).filter(|&at| anywhere.is_set(at).unwrap()).collect();
    let &[first, second, ..] = &*all else { panic!("this test needs two processors, and has {all:?}") };
    let mut two = CpuSet::new();
    two.set(first).unwrap();
    two.set(second).unwrap();
    // What a thread starts inherits its processors.
    sched_setaffinity(this_thread, &two).unwrap();
    let supervisor = Supervisor::start();
    sched_setaffinity(this_thread, &anywhere).unwrap();
    let both = [format!("{first}-{second}"), format!("{first},{second}")];
    (supervisor, [first.to_string(), second.to_string()], both)
}

/// A supervisor whose environment has a function that computes for long, and nobody who has stepped back.
fn with_compute() -> Supervisor {
    let supervisor = Supervisor::start();
    let compute = format!("// @endowment\nasync function Compute(params = {{}}) {{ {COMPUTES} return 2 }}");
    supervisor.provision_with(json!({ "codeImplementation": format!("{IMPLEMENTATION}\n{compute}") }));
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    assert!(stepped_back(&supervisor).is_empty());
    supervisor
}

/// The kinds and ids of processes that have stepped back.
fn stepped_back(supervisor: &Supervisor) -> Vec<(String, i32)> {
    let back = children(supervisor.pid()).into_iter().filter(Jailed::has_stepped_back);
    back.map(|child| (child.kind().to_owned(), child.pid)).collect()
}

/// Longer than it takes until somebody looks, and to see what comes of it.
const COMPUTES: &str = "const end = Date.now() + 1000; while (Date.now() < end) {}";
