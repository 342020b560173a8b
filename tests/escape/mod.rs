//! What a jailed process cannot do. Each act is a pair: it succeeds outside and fails inside.

mod liars;
mod system_calls;

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Jailed, Supervisor, children, node, probe_script, wait_for};

/// Where each act of the pairs is tried.
struct Targets {
    folder: tempfile::TempDir,
    listener: TcpListener,
    victim: Child,
}

impl Targets {
    fn new() -> Targets {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("secret"), "secret").unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let victim = Command::new("sleep").arg("60").stdin(Stdio::null()).spawn().unwrap();
        Targets { folder, listener, victim }
    }

    /// The act's name for the probe, the host function that does the same, and what it is done to.
    fn acts(&self) -> [(&'static str, &'static str, String); 5] {
        let path = |name: &str| self.folder.path().join(name).to_string_lossy().into_owned();
        [
            ("read", "ReadFile", path("secret")),
            ("write", "WriteFile", path("written")),
            ("connect", "Connect", self.listener.local_addr().unwrap().to_string()),
            ("spawn", "Spawn", "/bin/true".to_owned()),
            ("signal", "Signal", self.victim.id().to_string()),
        ]
    }
}

impl Drop for Targets {
    fn drop(&mut self) {
        self.victim.kill().unwrap();
        self.victim.wait().unwrap();
    }
}

/// The act in an ordinary Node process.
fn outside(act: &str, target: &str) -> Value {
    let output = Command::new(node()).arg(probe_script()).args([act, target]).output().unwrap();
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn a_host_cannot_do_what_the_same_code_does_outside() {
    let targets = Targets::new();
    let supervisor = Supervisor::start();
    supervisor.provision();
    for (act, function, target) in targets.acts() {
        assert_eq!(outside(act, &target)["succeeded"], true, "the control of {act}");
        let code = format!("return await {function}({{ target: {} }})", json!(target));
        let execution = supervisor.execute(&code);
        assert_eq!(execution["status"], "error", "{act} succeeded in a host: {execution}");
        let code = execution["errorDetails"]["code"].as_str().unwrap_or_default();
        assert!(
            ["ENOENT", "EROFS", "EACCES", "EPERM"].contains(&code),
            "{act} failed for another reason: {execution}"
        );
    }
}

#[test]
fn nothing_that_a_host_sees_can_be_written() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    for target in [
        "/written",
        "/environment/written",
        "/environment/package.json",
        "/harness/src/written",
        "/egress/written",
        "/node",
    ] {
        let execution = supervisor.execute(&format!("await WriteFile({{ target: '{target}' }})"));
        let code = execution["errorDetails"]["code"].as_str().unwrap_or_default();
        assert!(["EROFS", "EACCES", "ETXTBSY"].contains(&code), "{target}: {execution}");
    }
}

/// The guest's half of the pairs: not SES but the kernel must refuse, so SES is not there.
#[test]
fn an_owned_guest_cannot_do_what_the_same_code_does_outside() {
    let targets = Targets::new();
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    assert_eq!(supervisor.result("return node('node:path').sep.length"), 1, "the guest has all of Node");
    let bodies = [
        ("read", "return node('node:fs').readFileSync(TARGET).length"),
        ("write", "node('node:fs').writeFileSync(TARGET, 'written')"),
        (
            "connect",
            "const [host, port] = TARGET.split(':'); await new Promise((ok, no) => node('node:net').connect(Number(port), host).on('connect', ok).on('error', no))",
        ),
        ("spawn", "const { error } = node('node:child_process').spawnSync(TARGET); if (error) throw error"),
        ("signal", "process.kill(Number(TARGET), 0)"),
    ];
    for ((act, _, target), (name, body)) in targets.acts().into_iter().zip(bodies) {
        assert_eq!(act, name);
        assert_eq!(outside(act, &target)["succeeded"], true, "the control of {act}");
        let execution = supervisor.execute(&body.replace("TARGET", &json!(target).to_string()));
        // An error, or the end of the process by the filter.
        let refused = execution["status"] == "worker_lost"
            || ["ENOENT", "EROFS", "EACCES", "EPERM"]
                .contains(&execution["errorDetails"]["code"].as_str().unwrap_or_default());
        assert!(refused, "{act} in a guest: {execution}");
        assert_eq!(supervisor.result("return 1"), 1);
    }
}

/// The root is there and only Landlock keeps it from being listed.
#[test]
fn landlock_refuses_what_the_private_root_still_shows() {
    assert!(std::fs::read_dir("/").is_ok(), "the control");
    let supervisor = Supervisor::start();
    supervisor.provision();
    assert_eq!(supervisor.result("return await List({ target: '/environment' })"), true);
    let refused = supervisor.execute("return await List({ target: '/' })");
    assert_eq!(refused["errorDetails"]["code"], "EACCES", "{refused}");
}

#[test]
fn a_sealed_guest_opens_nothing_and_starts_no_thread() {
    use std::os::unix::fs::MetadataExt as _;
    let acts = [
        "node('node:fs').readFileSync(process.argv[1])",
        "node('node:fs').readFileSync(process.execPath)",
        "node('node:fs').statSync('/')",
        "node('node:fs').readdirSync('/harness/src')",
        "const { Worker } = node('node:worker_threads'); await new Promise((ok, no) => new Worker('1', { eval: true }).on('exit', ok).on('error', no))",
    ];
    // The control: the same acts in a host, which reads its own files and starts threads.
    let control = Supervisor::start();
    control.provision();
    assert_eq!(control.result("return await List({ target: '/harness/src' })"), true);
    assert_eq!(control.result("return await Threads({ count: 1 })"), 1);
    let supervisor = Supervisor::with_owned_guests();
    supervisor.provision();
    for act in acts {
        let execution = supervisor.execute(act);
        let code = execution["errorDetails"]["code"].as_str().unwrap_or_default();
        let refused =
            execution["status"] == "worker_lost" || ["EACCES", "ERR_WORKER_INIT_FAILED"].contains(&code);
        assert!(refused, "{act}: {execution}");
    }
    assert_eq!(supervisor.result("return 1"), 1);
    // Not even the guest's own user may look into it: what /proc has of it belongs to root.
    wait_for("every guest to be sealed", || {
        let guests = children(supervisor.pid()).into_iter().filter(|child| child.kind() == "guest");
        let owner =
            |pid: i32| std::fs::metadata(format!("/proc/{pid}/environ")).ok().map(|found| found.uid());
        guests.map(|guest| owner(guest.pid)).all(|owner| owner == Some(0)).then_some(())
    });
}

#[test]
fn every_jail_that_runs_node_refuses_what_succeeds_outside() {
    let supervisor = Supervisor::start();
    let output = supervisor.run(&["doctor", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["safe"]), (Some(0), &json!(true)), "{report}");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    for probe in report["probes"].as_array().unwrap() {
        assert_eq!(probe["outcome"], "refused", "{probe}");
        let act = probe["act"].as_str().unwrap();
        // What the doctor listened on, and its own process, are gone.
        let own = std::process::id().to_string();
        let own_environment = format!("/proc/{own}/environ");
        let target = match (act, probe["target"].as_str().unwrap()) {
            ("connect", _) => &address,
            ("signal", _) => &own,
            ("read", target) if target.starts_with("/proc") => &own_environment,
            (_, target) => target,
        };
        assert_eq!(outside(act, target)["succeeded"], true, "the control of {probe}");
    }
    for jail in ["guest", "host", "installer", "analyzer"] {
        let count = report["probes"].as_array().unwrap().iter().filter(|probe| probe["jail"] == jail).count();
        assert_eq!(count, 6, "{jail}");
    }
    std::fs::remove_file("/tmp/cloister-probe").unwrap();
}

/// The programs of a filter: at the least two answers and the allow-list.
const FILTERS: u32 = 3;
/// A guest's own filter and its zygote's.
const GUEST_FILTERS: u32 = 2 * FILTERS;

fn filters_of(process: &Jailed) -> u32 {
    process.status("Seccomp_filters").parse().unwrap()
}

#[test]
fn guest_and_host_are_held_by_every_layer() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    supervisor.result("return await Echo({})");
    let own_network = std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned();
    let mut users = Vec::new();
    let jailed = wait_for("guests and hosts", || {
        let all: Vec<_> = children(supervisor.pid())
            .into_iter()
            .filter(|child| ["guest", "host"].contains(&child.kind()))
            .collect();
        let has = |kind: &str| all.iter().any(|child| child.kind() == kind);
        // A spare guest may just be starting.
        let sealed = |child: &Jailed| child.kind() != "guest" || filters_of(child) >= GUEST_FILTERS;
        (has("guest") && has("host") && all.iter().all(sealed)).then_some(all)
    });
    for process in &jailed {
        assert_eq!(process.status("Seccomp"), "2", "{process:?}");
        assert_eq!(process.status("NoNewPrivs"), "1", "{process:?}");
        assert!(filters_of(process) >= FILTERS, "{process:?}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(process.status(set), "0000000000000000", "{set} of {process:?}");
        }
        let uid: u32 = process.status("Uid").split_whitespace().next().unwrap().parse().unwrap();
        assert!((61_000..65_000).contains(&uid), "{process:?}");
        users.push(uid);
        let rlimits = process.rlimits();
        for (name, value) in [("Max core file size", "0"), ("Max file size", "0"), ("Max locked memory", "0")]
        {
            let line = rlimits.lines().find(|line| line.starts_with(name)).unwrap();
            let values: Vec<&str> = line[name.len()..].split_whitespace().take(2).collect();
            assert_eq!(values, [value, value], "{line}");
        }
        let groups = process.groups();
        assert!(groups.contains("/cloister-"), "{groups}");
        assert_ne!(process.network(), own_network);
        assert_eq!(process.inet_sockets(), 0);
        let expected: &[&str] = match process.kind() {
            "guest" => &["etc", "guest.blob", "harness", "lib", "lib64", "node", "seal.so", "sys"],
            _ => &["egress", "environment", "etc", "harness", "lib", "lib64", "node"],
        };
        assert!(process.root().iter().all(|name| expected.contains(&name.as_str())), "{:?}", process.root());
    }
    let count = users.len();
    users.sort_unstable();
    users.dedup();
    assert_eq!(users.len(), count, "two processes share a user id");
}

/// What a zygote keeps is what it needs to confine its guests (CAP_SETGID, CAP_SETUID, CAP_SETPCAP, CAP_SYS_ADMIN).
#[test]
fn a_zygote_is_held_as_well_and_its_guests_share_nothing_of_it_that_can_be_written() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    supervisor.result("return await Echo({})");
    let of_kind = |kind: &str| -> Vec<Jailed> {
        children(supervisor.pid()).into_iter().filter(|child| child.kind() == kind).collect()
    };
    // A guest has its zygote's name until it is told to be one.
    let (zygotes, guests) = wait_for("one zygote, and sealed spares", || {
        let sealed = |guest: &Jailed| filters_of(guest) >= GUEST_FILTERS;
        let (zygotes, guests) = (of_kind("zygote"), of_kind("guest"));
        (zygotes.len() == 1 && guests.len() >= 4 && guests.iter().all(sealed)).then_some((zygotes, guests))
    });
    let own_network = std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned();
    for zygote in &zygotes {
        assert_eq!((zygote.status("Seccomp"), zygote.status("NoNewPrivs")), ("2", "1"));
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(zygote.status(set), "00000000002001c0", "{set}");
        }
        assert_ne!(zygote.network(), own_network);
        let uid: u32 = zygote.status("Uid").split_whitespace().next().unwrap().parse().unwrap();
        assert!((61_000..65_000).contains(&uid), "{uid}");
    }
    let mut seen = std::collections::HashMap::new();
    let mut networks = std::collections::HashSet::new();
    for process in zygotes.iter().chain(&guests) {
        assert!(networks.insert(process.network()), "two processes share a network namespace");
        for (number, file) in process.open_files() {
            let other = seen.insert(file.clone(), process.pid);
            assert!(other.is_none_or(|pid| pid == process.pid), "{number} ({file}) is {other:?}'s too");
        }
    }
}

#[test]
fn every_process_has_a_memory_limit_of_its_own() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    supervisor.result("return 1");
    let mut seen = std::collections::HashSet::new();
    let jailed: Vec<_> =
        children(supervisor.pid()).into_iter().filter(|child| child.kind() != "other").collect();
    assert!(jailed.len() >= 2);
    for process in jailed {
        let group = wait_for("its memory group", || memory_group(process.pid));
        let limit = ["memory.limit_in_bytes", "memory.max"]
            .iter()
            .find_map(|file| std::fs::read_to_string(group.join(file)).ok());
        let limit: u64 = limit.unwrap().trim().parse().unwrap();
        assert!(limit <= 1 << 30, "{limit} in {}", group.display());
        assert!(seen.insert(group), "two processes share a group");
    }
}

/// The group with a memory limit that holds the process and nothing else.
fn memory_group(pid: i32) -> Option<std::path::PathBuf> {
    let folders = crate::support::control_groups("cloister-");
    let groups =
        folders.into_iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    groups.map(|entry| entry.path()).find(|group| {
        let limited = ["memory.limit_in_bytes", "memory.max"].iter().any(|file| group.join(file).exists());
        limited
            && std::fs::read_to_string(group.join("cgroup.procs"))
                .is_ok_and(|procs| procs.trim() == pid.to_string())
    })
}

#[test]
fn a_host_inherits_nothing_of_the_operator_s_environment() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let found = supervisor.result("return await Environment()");
    assert_eq!(
        found["variables"],
        json!(["CLOISTER_EGRESS", "CLOISTER_EGRESS_TLS", "OPENSSL_CONF", "UV_THREADPOOL_SIZE"])
    );
    assert_eq!(found["cwd"], "/environment");
}

#[test]
fn a_host_reaches_its_backends_and_no_other_address() {
    let backend = crate::support::Backend::start();
    let other = crate::support::Backend::start();
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    let fetch = |url: String| supervisor.execute(&format!("return await Fetch({{ url: {} }})", json!(url)));
    assert_eq!(fetch(format!("{}/allowed", backend.url()))["result"], json!({ "path": "/allowed" }));
    let refused = fetch(format!("{}/forbidden", other.url()));
    assert!(refused["error"].as_str().unwrap().contains("EACCES"), "{refused}");
    assert!(!other.was_asked("/forbidden"));
    let raw = supervisor.execute(&format!("return await Connect({{ target: {} }})", json!(other.address())));
    assert_eq!(raw["errorDetails"]["code"], "EACCES", "{raw}");
}
