//! Who gets a processor first.

use nix::libc::{SCHED_BATCH, SCHED_OTHER};
use serde_json::json;

use crate::support::{IMPLEMENTATION, Supervisor, children, scheduling_policy, wait_for};

#[test]
fn a_jailed_process_takes_no_processor_from_another_when_it_wakes() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    assert_eq!(scheduling_policy(supervisor.pid()), Some(SCHED_OTHER));
    let kinds = ["zygote", "guest", "host", "other"];
    // One that was just started is not a batch process before it is told so.
    wait_for("all kinds of children, and all of them batch processes", || {
        let children = children(supervisor.pid());
        let all = kinds.iter().all(|kind| children.iter().any(|child| child.kind() == *kind));
        let batch = children.iter().all(|child| scheduling_policy(child.pid) == Some(SCHED_BATCH));
        (all && batch).then_some(())
    });
}

#[test]
fn a_process_that_computes_for_long_steps_back_until_the_program_ends() {
    let supervisor = Supervisor::start();
    let compute = format!("// @endowment\nasync function Compute(params = {{}}) {{ {COMPUTES} return 2 }}");
    supervisor.provision_with(json!({ "codeImplementation": format!("{IMPLEMENTATION}\n{compute}") }));
    let stepped_back = || -> Vec<(String, i32)> {
        let back = children(supervisor.pid()).into_iter().filter(|child| child.has_stepped_back());
        back.map(|child| (child.kind().to_owned(), child.pid)).collect()
    };
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    assert!(stepped_back().is_empty());
    for (kind, code) in
        [("guest", format!("{COMPUTES} return 2")), ("host", "return await Compute()".to_owned())]
    {
        std::thread::scope(|scope| {
            let computing = scope.spawn(|| supervisor.execute_for("long", &code));
            let back = wait_for("one that has stepped back", || stepped_back().first().cloned());
            assert_eq!(back.0, kind);
            assert_eq!(supervisor.result("return await Echo(1)"), 1);
            assert_eq!(stepped_back(), std::slice::from_ref(&back), "and no other");
            assert_eq!(computing.join().unwrap()["result"], 2);
            assert!(stepped_back().is_empty(), "the program has ended");
            let kept = children(supervisor.pid()).iter().any(|child| child.pid == back.1);
            assert!(kept, "the {kind} serves on");
        });
    }
}

/// Longer than it takes until somebody looks, and to see what comes of it.
const COMPUTES: &str = "const end = Date.now() + 1000; while (Date.now() < end) {}";
