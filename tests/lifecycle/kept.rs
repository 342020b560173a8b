//! Which processes stay between executions.

use std::collections::HashSet;

use nix::sys::signal::Signal;
use serde_json::json;

use crate::support::{Jailed, Supervisor, children, wait_for};

pub fn of_kind(supervisor: &Supervisor, kind: &str) -> Vec<Jailed> {
    children(supervisor.pid()).into_iter().filter(|child| child.kind() == kind).collect()
}

#[test]
fn an_environment_that_is_kept_warm_has_a_host_before_anybody_came() {
    for (keep_warm, hosts) in [(true, 2), (false, 0)] {
        let mut supervisor = Supervisor::with_settings("[execution]\nidle_seconds_max = 1\n");
        supervisor.provision_with(json!({ "keepWarm": keep_warm }));
        supervisor.signal(Signal::SIGTERM);
        supervisor.wait();
        supervisor.start_again();
        // Guests come for everybody, and the hosts beside them.
        wait_for("spares", || {
            let ready =
                of_kind(&supervisor, "guest").len() == 4 && of_kind(&supervisor, "host").len() == hosts;
            ready.then_some(())
        });
        if keep_warm {
            let pids = |hosts: Vec<Jailed>| hosts.iter().map(|host| host.pid).collect::<HashSet<_>>();
            let warm = pids(of_kind(&supervisor, "host"));
            supervisor.provision_with(json!({ "environmentName": "other" }));
            let left = wait_for("the other's host to retire", || {
                let hosts = of_kind(&supervisor, "host");
                (hosts.len() == 2).then_some(hosts)
            });
            assert_eq!(pids(left), warm, "they outlive the time of idle processes");
            assert_eq!(supervisor.get("/api/environments/test").body["keepWarm"], true);
        }
        assert_eq!(supervisor.result("return 7"), 7);
    }
}

#[test]
fn an_environment_that_loads_slowly_does_not_hold_up_the_others() {
    let settings = "[execution]\nspare_guests = 0\nspare_hosts = 0\nidle_processes_max = 0\n";
    let supervisor = Supervisor::with_settings(settings);
    supervisor.provision();
    let slow = "await new Promise((go) => setTimeout(go, 6000));\nexport async function Initialize(agentId, backends) {}\nexport async function Deinitialize() {}\n// @endowment\nexport async function Get(params = {}) { return 1 }\n";
    let body = json!({ "environmentName": "slow", "codeImplementation": slow });
    assert_eq!(supervisor.provision_with(body).status, 201);
    std::thread::scope(|scope| {
        for agent in 0..4 {
            let supervisor = &supervisor;
            let body = json!({ "environmentName": "slow", "userAgentId": format!("slow-{agent}"), "code": "return await Get()" });
            scope.spawn(move || assert_eq!(supervisor.post("/api/execute", &body).body["result"], 1));
        }
        wait_for("hosts that load", || (of_kind(&supervisor, "host").len() >= 3).then_some(()));
        let started = std::time::Instant::now();
        assert_eq!(supervisor.execute_for("quick", "return await Echo(1)")["result"], 1);
        assert!(started.elapsed() < std::time::Duration::from_secs(4), "{:?}", started.elapsed());
    });
}

#[test]
fn what_is_kept_is_bounded_by_its_memory_and_the_latest_stays() {
    let supervisor = Supervisor::with_settings("[execution]\nidle_megabytes_max = 50\nspare_guests = 1\n");
    supervisor.provision();
    let agents: Vec<String> = (0..8).map(|number| format!("agent-{number}")).collect();
    for agent in &agents {
        assert_eq!(supervisor.execute_for(agent, "return await Echo(1)")["result"], 1);
    }
    let host_of = |name: &str| supervisor.execute_for(name, "return await Who()")["result"]["pid"].clone();
    assert_eq!(host_of("agent-7"), host_of("agent-7"), "the latest host stays");
    wait_for("processes to retire", || (of_kind(&supervisor, "host").len() <= 5).then_some(()));
    assert_eq!(supervisor.execute_for("agent-0", "return await Echo(2)")["result"], 2);
}

#[test]
fn what_is_kept_and_what_is_spare_is_as_many_as_the_operator_says() {
    let settings = "[execution]\nidle_processes_max = 4\nspare_guests = 3\nspare_hosts = 1\n";
    let supervisor = Supervisor::with_settings(settings);
    supervisor.provision();
    for agent in 0..6 {
        assert_eq!(supervisor.execute_for(&format!("agent-{agent}"), "return await Echo(1)")["result"], 1);
    }
    // Two of each kind stay of twelve that were used, beside the spares.
    let counts = || (of_kind(&supervisor, "guest").len(), of_kind(&supervisor, "host").len());
    wait_for("the others to retire", || (counts() == (2 + 3, 2 + 1)).then_some(()));
    let pid = |agent: &str| supervisor.execute_for(agent, "return await Who()")["result"]["pid"].clone();
    assert_eq!(pid("agent-5"), pid("agent-5"), "the latest stay");
}

#[test]
fn a_guest_that_waits_for_its_first_program_has_little_memory_of_its_own() {
    let supervisor = Supervisor::with_settings("[execution]\nspare_guests = 4\n");
    let guests = wait_for("four spare guests", || {
        let guests = of_kind(&supervisor, "guest");
        (guests.len() == 4).then_some(guests)
    });
    let mut before = Vec::new();
    let kilobytes = wait_for("them to write to no more memory", || {
        let now: Vec<u64> = guests.iter().map(Jailed::own_memory).collect();
        let last = std::mem::replace(&mut before, now.clone());
        (now == last && now.iter().all(|own| *own > 300)).then_some(now)
    });
    // About 600. Where each of them collects what its zygote freed it is 730, and where each plays a program 850.
    assert!(kilobytes.iter().all(|own| *own < 700), "{kilobytes:?}");
    supervisor.provision();
    assert_eq!(supervisor.result("return 1"), 1);
}

#[test]
fn a_guest_that_has_grown_is_replaced() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let largest = || {
        let resident =
            |guest: &Jailed| guest.status("VmRSS").trim_end_matches(" kB").parse::<u64>().unwrap_or(0);
        of_kind(&supervisor, "guest").iter().map(resident).max().unwrap_or(0)
    };
    let ordinary = wait_for("a spare", || Some(largest()).filter(|kilobytes| *kilobytes > 0));
    let grow = "const held = []; for (let i = 0; i < 52; i += 1) { held.push(new Array(125000).fill(i)) } return held.length";
    assert_eq!(supervisor.result(grow), 52);
    wait_for("the large guest to be gone", || (largest() < ordinary + 40_000).then_some(()));
    assert_eq!(supervisor.result("return 1"), 1);
}

#[test]
fn a_host_that_has_grown_is_replaced_and_one_that_holds_less_is_not() {
    let supervisor = Supervisor::start();
    let hold = "const held = [];\nasync function Initialize(agentId, backends) {}\nasync function Deinitialize() {}\n// @endowment\nasync function Hold(params = {}) { held.push(Buffer.alloc(params.megabytes * 1024 * 1024, 1)); return process.pid }\n";
    let body = json!({ "environmentName": "holds", "codeImplementation": hold });
    assert_eq!(supervisor.provision_with(body).status, 201);
    let pid_after = |megabytes: u32| {
        let code = format!("return await Hold({{ megabytes: {megabytes} }})");
        let body = json!({ "environmentName": "holds", "userAgentId": "agent", "code": code });
        supervisor.post("/api/execute", &body).body["result"].clone()
    };
    let first = pid_after(0);
    assert_eq!(pid_after(100), first);
    assert_eq!(pid_after(120), first, "it was below the limit until here");
    assert_ne!(pid_after(0), first);
}

#[test]
fn guests_have_the_code_of_node_in_memory_where_a_compiler_may_write_code() {
    let asked = std::fs::read_to_string("/sys/kernel/mm/transparent_hugepage/enabled").unwrap_or_default();
    let large_pages = asked.contains("[always]") || asked.contains("[madvise]");
    let supervisor = Supervisor::with_settings("[execution]\nspare_guests = 0\n");
    for policy in ["standard", "strict"] {
        supervisor.provision_with(json!({ "environmentName": policy, "policy": policy }));
        let body = json!({ "environmentName": policy, "userAgentId": "agent", "code": "return 1" });
        assert_eq!(supervisor.post("/api/execute", &body).body["result"], 1);
    }
    let mut kilobytes: Vec<u64> =
        of_kind(&supervisor, "guest").iter().map(Jailed::executable_memory).collect();
    kilobytes.sort_unstable();
    let [strict, standard] = kilobytes[..] else { panic!("{kilobytes:?}") };
    assert_eq!(strict, 0);
    assert_eq!(standard > 30 * 1024, large_pages, "{standard} kilobytes");
}
