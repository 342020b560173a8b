//! What a jailed process cannot do. Each act is a pair: it succeeds outside and fails inside.

use std::net::TcpListener;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Supervisor, children, node, probe_script, wait_for};

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

#[test]
fn every_jail_refuses_what_succeeds_outside() {
    let targets = Targets::new();
    for (act, _, target) in targets.acts() {
        assert_eq!(outside(act, &target)["succeeded"], true, "the control of {act}");
    }
    let supervisor = Supervisor::start();
    let output = supervisor.run(&["doctor", "-o", "json"]);
    let report: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &report["safe"]), (Some(0), &json!(true)), "{report}");
    let probes = report["probes"].as_array().unwrap();
    for jail in ["guest", "host"] {
        for (act, _, _) in targets.acts() {
            let probe =
                probes.iter().find(|probe| probe["jail"] == jail && probe["act"] == act).expect("a probe");
            assert_eq!(probe["refused"], true, "{probe}");
        }
    }
}

#[test]
fn guest_and_host_are_held_by_every_layer() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    supervisor.result("return await Echo({})");
    let own_network = std::fs::read_link("/proc/self/ns/net").unwrap().to_string_lossy().into_owned();
    let mut users = Vec::new();
    let jailed = wait_for("guests and hosts", || {
        let all: Vec<_> =
            children(supervisor.pid()).into_iter().filter(|child| child.kind() != "other").collect();
        let has = |kind: &str| all.iter().any(|child| child.kind() == kind && child.status("Seccomp") == "2");
        (has("guest") && has("host")).then_some(all)
    });
    for process in jailed.iter().filter(|process| process.status("Seccomp") == "2") {
        assert_eq!(process.status("NoNewPrivs"), "1", "{process:?}");
        assert!(process.status("Seccomp_filters").parse::<u32>().unwrap() >= 3, "{process:?}");
        for set in ["CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"] {
            assert_eq!(process.status(set), "0000000000000000", "{set} of {process:?}");
        }
        let uid: u32 = process.status("Uid").split_whitespace().next().unwrap().parse().unwrap();
        assert!((61_000..65_000).contains(&uid), "{process:?}");
        users.push(uid);
        let groups = process.groups();
        assert!(groups.contains("/cloister-"), "{groups}");
        assert_ne!(process.network(), own_network);
        assert_eq!(process.inet_sockets(), 0);
        let expected: &[&str] = match process.kind() {
            "guest" => &["etc", "harness", "lib", "lib64", "node"],
            _ => &["egress", "environment", "etc", "harness", "lib", "lib64", "node"],
        };
        assert!(process.root().iter().all(|name| expected.contains(&name.as_str())), "{:?}", process.root());
    }
    let count = users.len();
    users.sort_unstable();
    users.dedup();
    assert_eq!(users.len(), count, "two processes share a user id");
}

#[test]
fn every_process_has_a_memory_limit_of_its_own() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    supervisor.result("return 1");
    let limited = wait_for("groups with limits", || {
        let pids: Vec<i32> = children(supervisor.pid()).iter().map(|child| child.pid).collect();
        let groups: Vec<_> =
            crate::support::control_groups("cloister-").into_iter().flat_map(subfolders).collect();
        let limits: Vec<u64> = groups
            .iter()
            .filter(|group| {
                let procs = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
                procs.lines().filter_map(|line| line.parse().ok()).any(|pid: i32| pids.contains(&pid))
            })
            .filter_map(|group| {
                ["memory.limit_in_bytes", "memory.max"]
                    .iter()
                    .find_map(|file| std::fs::read_to_string(group.join(file)).ok())
            })
            .map(|text| text.trim().parse().unwrap())
            .collect();
        (limits.len() >= 2).then_some(limits)
    });
    assert!(limited.iter().all(|limit| *limit <= 1 << 30), "{limited:?}");
}

fn subfolders(folder: std::path::PathBuf) -> Vec<std::path::PathBuf> {
    std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| path.is_dir())
        .collect()
}

#[test]
fn a_host_inherits_nothing_of_the_operator_s_environment() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let found = supervisor.result("return await Environment()");
    assert_eq!(found["variables"], json!(["CLOISTER_EGRESS", "OPENSSL_CONF", "UV_THREADPOOL_SIZE"]));
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
