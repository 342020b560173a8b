//! Who gets a processor first.

use nix::libc::{SCHED_BATCH, SCHED_OTHER};

use crate::support::{Supervisor, children, scheduling_policy, wait_for};

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
fn a_program_that_computes_for_long_steps_back_until_it_ends() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let stepped_back = || -> Vec<i32> {
        let back = children(supervisor.pid()).into_iter().filter(|child| child.has_stepped_back());
        back.map(|child| child.pid).collect()
    };
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
    assert!(stepped_back().is_empty());
    let long = "const end = Date.now() + 1000; while (Date.now() < end) {} return await Echo(2)";
    std::thread::scope(|scope| {
        let computing = scope.spawn(|| supervisor.execute_for("long", long));
        let back = wait_for("a guest that has stepped back", || stepped_back().first().copied());
        assert_eq!(supervisor.result("return await Echo(1)"), 1);
        assert_eq!(stepped_back(), [back], "and no other");
        assert_eq!(computing.join().unwrap()["result"], 2);
        assert!(stepped_back().is_empty(), "it has ended");
        let kept: Vec<i32> = children(supervisor.pid()).iter().map(|child| child.pid).collect();
        assert!(kept.contains(&back), "its guest serves on");
    });
}
