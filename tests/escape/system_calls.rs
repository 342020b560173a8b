//! System calls that native code makes in each jail, as an attacker does who owns the process. Every
//! probe has its control: the same call of the same program succeeds outside.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};

use nix::libc;
use serde_json::{Value, json};

use crate::support::{Installation, RawPrograms, Supervisor, wait_for};

const SYSTEM_CALLS: &str = include_str!("../fixtures/system-calls.txt");

/// What a refused call returns: permission, access, no such call, no such path, a read-only file
/// system; and for the connection into another network namespace, that nobody listens.
const REFUSALS: [i64; 6] = [
    -(libc::EPERM as i64),
    -(libc::EACCES as i64),
    -(libc::ENOSYS as i64),
    -(libc::ENOENT as i64),
    -(libc::EROFS as i64),
    -(libc::ECONNREFUSED as i64),
];

/// What the probes are aimed at, outside of every jail.
struct World {
    victim: Child,
    folder: tempfile::TempDir,
    abstract_name: String,
    _listener: UnixListener,
}

impl World {
    fn new() -> World {
        let victim = Command::new("sleep").arg("600").stdin(Stdio::null()).spawn().unwrap();
        let folder = tempfile::tempdir().unwrap();
        for name in ["file", "removable", "renamed", "linked"] {
            std::fs::write(folder.path().join(name), "content").unwrap();
        }
        let abstract_name = format!("cloister-{}-{}", std::process::id(), victim.id());
        let address = SocketAddr::from_abstract_name(&abstract_name).unwrap();
        World { victim, folder, abstract_name, _listener: UnixListener::bind_addr(&address).unwrap() }
    }

    /// Each probe with its name and its line for `raw.c`.
    fn probes(&self, data: &str) -> Vec<(&'static str, String)> {
        let places = [
            ("{victim}", self.victim.id().to_string()),
            // The processor time of a process (`clock_getcpuclockid(3)`).
            ("{victim_clock}", ((!i64::from(self.victim.id()) << 3) | 2).to_string()),
            ("{parent}", std::process::id().to_string()),
            ("{data}", data.to_owned()),
            ("{folder}", self.folder.path().display().to_string()),
            ("{abstract}", self.abstract_name.bytes().map(|byte| format!("{byte:02x}")).collect()),
            ("{abstract_bytes}", (3 + self.abstract_name.len()).to_string()),
        ];
        let lines = SYSTEM_CALLS.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
        lines
            .map(|line| {
                let (name, call) = line.split_once(": ").unwrap();
                let fill = |text: String, (place, value): &(&str, String)| text.replace(place, value);
                (name, places.iter().fold(call.to_owned(), fill))
            })
            .collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.victim.kill().unwrap();
        self.victim.wait().unwrap();
    }
}

/// What became of a call.
enum Fate {
    Returned(i64),
    /// The process was ended for it.
    Killed,
    Other(String),
}

impl Fate {
    fn is_refusal(&self) -> bool {
        match self {
            Fate::Returned(value) => REFUSALS.contains(value),
            Fate::Killed => true,
            Fate::Other(_) => false,
        }
    }

    fn describe(&self) -> String {
        match self {
            Fate::Returned(value) => format!("returned {value}"),
            Fate::Killed => "was killed".to_owned(),
            Fate::Other(text) => text.clone(),
        }
    }
}

/// The call as root outside, in namespaces of its own so that nothing of it stays.
fn outside(line: &str) -> Fate {
    let mut command = Command::new("unshare");
    command.args(["--mount", "--ipc", "--uts", "--propagation", "private"]);
    let output = command.arg(&RawPrograms::built().program).arg(line).stdin(Stdio::null()).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    match (text.parse(), output.status.code()) {
        (Ok(value), Some(0)) => Fate::Returned(value),
        // It became another program, which ended well.
        (Err(_), Some(0)) if text.is_empty() => Fate::Returned(0),
        _ => Fate::Other(format!("{output:?}")),
    }
}

/// Tries every probe but those that the kind needs for its work, and gives back what was not refused.
fn not_refused(
    world: &World,
    data: &str,
    needed: &[&str],
    attempt: impl Fn(&str) -> Fate,
) -> BTreeMap<&'static str, String> {
    let getpid = attempt(&format!("{}", libc::SYS_getpid));
    assert!(matches!(getpid, Fate::Returned(1..)), "the jail makes system calls: {}", getpid.describe());
    let probes = world.probes(data).into_iter().filter(|(name, _)| !needed.contains(name));
    let tried = probes.map(|(name, line)| (name, attempt(&line)));
    tried.filter(|(_, fate)| !fate.is_refusal()).map(|(name, fate)| (name, fate.describe())).collect()
}

fn of_execution(execution: &Value) -> Fate {
    match (&execution["result"], execution["errorDetails"]["code"].as_str()) {
        (Value::Number(value), None) => Fate::Returned(value.as_i64().unwrap()),
        (_, Some("forbidden_system_call")) => Fate::Killed,
        (_, Some("worker_lost"))
            if execution["error"].as_str().unwrap().contains("forbidden system call") =>
        {
            Fate::Killed
        }
        _ => Fate::Other(execution.to_string()),
    }
}

const HOST_WITH_RAW_CALLS: &str = include_str!("../fixtures/raw-host.js");

#[test]
fn every_forbidden_system_call_has_a_control_that_succeeds() {
    let world = World::new();
    let supervisor = Supervisor::start();
    supervisor.provision();
    let probes = world.probes(supervisor.data().to_str().unwrap());
    assert!(probes.len() >= 100, "{}", probes.len());
    let failed: Vec<_> = probes
        .iter()
        .map(|(name, line)| (name, outside(line)))
        .filter(|(_, fate)| !matches!(fate, Fate::Returned(0..)))
        .map(|(name, fate)| (name, fate.describe()))
        .collect();
    assert!(failed.is_empty(), "these fail outside too, and prove nothing: {failed:?}");
    std::fs::remove_file("/tmp/cloister-probe-file").unwrap();
    // The control of what says that no file is open: outside, one that is open is counted.
    let opened = std::fs::File::open("/etc/passwd").unwrap();
    let counted = Command::new(&RawPrograms::built().program).arg("files").stdin(opened).output().unwrap();
    assert_ne!(String::from_utf8_lossy(&counted.stdout).trim(), "0");
}

#[test]
fn native_code_in_a_guest_is_refused_every_forbidden_system_call() {
    let world = World::new();
    let supervisor = Supervisor::of_installation(Installation::copy().with_raw_system_calls());
    supervisor.provision();
    let found = not_refused(&world, supervisor.data().to_str().unwrap(), &[], |line| {
        of_execution(&supervisor.execute(&format!("return Number(syscall({}))", json!(line))))
    });
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(supervisor.result("return Number(syscall('files'))"), 0, "no file or other socket is open");
}

/// A guest cannot tell another process something, or see it, through what it does with its own memory and clocks.
#[test]
fn native_code_in_a_guest_meets_no_other_process_at_a_futex_or_in_the_scheduler() {
    let world = World::new();
    let supervisor = Supervisor::of_installation(Installation::copy().with_raw_system_calls());
    supervisor.provision();
    let inside =
        |line: &str| of_execution(&supervisor.execute(&format!("return Number(syscall({}))", json!(line))));
    let wake = |operation: i32| format!("{} b:4096 {operation} 1", libc::SYS_futex);
    let shared = wake(libc::FUTEX_WAKE);
    assert!(matches!(outside(&shared), Fate::Returned(0)), "the control");
    assert!(matches!(inside(&shared), Fate::Killed), "{}", inside(&shared).describe());
    let own = wake(libc::FUTEX_WAKE | libc::FUTEX_PRIVATE_FLAG);
    assert!(matches!(inside(&own), Fate::Returned(0)), "{}", inside(&own).describe());
    for call in [libc::SYS_sched_getscheduler, libc::SYS_sched_getparam, libc::SYS_sched_getaffinity] {
        let rest = if call == libc::SYS_sched_getaffinity { " 128 b:128" } else { " b:16" };
        let other = format!("{call} {}{rest}", world.victim.id());
        assert!(matches!(outside(&other), Fate::Returned(0..)), "the control");
        let fate = inside(&other);
        assert!(
            matches!(fate, Fate::Returned(value) if value == -i64::from(libc::EPERM)),
            "{}",
            fate.describe()
        );
        assert!(matches!(inside(&format!("{call} 0{rest}")), Fate::Returned(0..)));
    }
}

#[test]
fn native_code_in_a_host_is_refused_every_forbidden_system_call() {
    let world = World::new();
    let supervisor = Supervisor::of_installation(Installation::copy().with_raw_system_calls());
    supervisor.provision_with(json!({ "environmentName": "raw", "codeImplementation": HOST_WITH_RAW_CALLS }));
    // Through an owned guest: `call` is the frame that any guest may send.
    let call = "frame({ call: { executionId, callId: 1, name: 'Raw', params: { line: LINE } } }); while (!received.length) await new Promise((go) => setTimeout(go, 1)); const [{ return: answer, throw: thrown }] = received; if (thrown) throw new Error(JSON.stringify(thrown)); return answer.value";
    let run = |line: &str| {
        let code = call.replace("LINE", &json!(line).to_string());
        let body = json!({ "environmentName": "raw", "userAgentId": "agent", "code": format!("received.length = 0; {code}") });
        supervisor.post("/api/execute", &body).body
    };
    let found =
        not_refused(&world, supervisor.data().to_str().unwrap(), &[], |line| of_execution(&run(line)));
    assert!(found.is_empty(), "{found:?}");
    assert_eq!(run("files")["result"], 0, "no file or other socket is open");
}

#[test]
fn native_code_in_an_analyzer_is_refused_every_forbidden_system_call() {
    let world = World::new();
    let supervisor = Supervisor::of_installation(Installation::copy().with_raw_system_calls());
    supervisor.provision();
    let installation = Installation::copy().with_raw_system_calls().with_owned_analyzer();
    let data = supervisor.data().to_str().unwrap().to_owned();
    let mut supervisor = supervisor;
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.wait();
    supervisor.install(installation);
    supervisor.start_again();
    let seen = Cell::new(0);
    let found = not_refused(&world, &data, &[], |line| {
        let body = json!({ "environmentName": "test", "userAgentId": "a", "code": format!("@{line}@") });
        let answer = supervisor.post("/api/execute", &body).body;
        let message = answer["violations"][0]["message"].as_str().unwrap_or_default();
        if let Some(value) = message.strip_prefix("returned ") {
            return Fate::Returned(value.parse().unwrap());
        }
        // What the answer does not tell, the log does: how the analyzer ended.
        let end = wait_for("the log to say how the analyzer ended", || {
            let ends: Vec<String> =
                supervisor.log().into_iter().filter(|line| line.contains("gave up on a source")).collect();
            (ends.len() > seen.get()).then(|| {
                seen.set(ends.len());
                ends.last().unwrap().clone()
            })
        });
        match end.contains("forbidden system call") {
            true => Fate::Killed,
            false => Fate::Other(end),
        }
    });
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn native_code_in_an_installer_is_refused_every_forbidden_system_call() {
    let world = World::new();
    let supervisor = Supervisor::of_installation(Installation::copy().with_raw_system_calls());
    // What npm does in its own folders; outside of them every path is refused above.
    let needed = ["chdir", "flock", "statfs", "umask"];
    let found = not_refused(&world, supervisor.data().to_str().unwrap(), &needed, |line| {
        let package_json = json!({ "dependencies": { "x": "1.0.0" }, "cloisterProbe": line });
        let body = json!({ "environmentName": "raw", "backendUrls": {}, "packageJson": package_json, "codeImplementation": HOST_WITH_RAW_CALLS });
        let answer = supervisor.post("/api/environments", &body).body;
        let detail = answer["detail"].as_str().unwrap_or_default();
        match detail.rsplit_once("returned ") {
            Some((_, value)) => Fate::Returned(value.trim().parse().unwrap()),
            None if detail.contains("forbidden system call") => Fate::Killed,
            None => Fate::Other(answer.to_string()),
        }
    });
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn a_tier_without_a_compiler_has_no_executable_memory() {
    let supervisor = Supervisor::of_installation(Installation::copy().with_raw_system_calls());
    for policy in ["standard", "strict"] {
        supervisor.provision_with(json!({ "environmentName": policy, "policy": policy }));
    }
    let attempt = |policy: &str, line: &str| {
        let code = format!("return Number(syscall({}))", json!(line));
        let body = json!({ "environmentName": policy, "userAgentId": "a", "code": code });
        of_execution(&supervisor.post("/api/execute", &body).body)
    };
    const ANONYMOUS: i32 = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS;
    for protection in
        [libc::PROT_READ | libc::PROT_EXEC, libc::PROT_READ | libc::PROT_WRITE | libc::PROT_EXEC]
    {
        let map = format!("{} 0 4096 {protection} {ANONYMOUS} -1 0", libc::SYS_mmap);
        let change = format!("{} 0 4096 {protection}", libc::SYS_mprotect);
        assert!(matches!(attempt("standard", &map), Fate::Returned(1..)), "the control");
        let unmapped = attempt("standard", &change);
        assert!(
            matches!(unmapped, Fate::Returned(value) if value == -i64::from(libc::ENOMEM)),
            "the control"
        );
        for line in [map, change] {
            let fate = attempt("strict", &line);
            assert!(matches!(fate, Fate::Killed), "{line}: {}", fate.describe());
        }
    }
}

/// This kernel may lack the x32 way (it then answers ENOSYS); a filter that looked at numbers alone would let
/// it through where it exists. In the jail it is the filter that answers.
#[test]
fn a_number_of_the_x32_way_is_refused_by_the_filter_and_not_by_the_kernel() {
    let x32_getpid = format!("{}", 0x4000_0000 + libc::SYS_getpid);
    assert!(
        !matches!(outside(&x32_getpid), Fate::Killed | Fate::Other(_)),
        "the control: it is only unknown"
    );
    let supervisor = Supervisor::of_installation(Installation::copy().with_raw_system_calls());
    supervisor.provision();
    let fate = of_execution(&supervisor.execute(&format!("return Number(syscall('{x32_getpid}'))")));
    assert!(matches!(fate, Fate::Killed), "{}", fate.describe());
}
