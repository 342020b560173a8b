//! System calls that native code makes in each jail, as an attacker does who owns the process. Every
//! probe has its control: the same call of the same program succeeds outside.

use std::collections::BTreeMap;
use std::os::linux::net::SocketAddrExt as _;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::process::{Child, Command, Stdio};

use nix::libc;
use serde_json::{Value, json};

use crate::support::{Installation, RawPrograms, Supervisor};

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

    /// Each probe with its name, its system call and its arguments.
    fn probes(&self, data: &str) -> Vec<(&'static str, String)> {
        let victim = self.victim.id();
        let supervisor = std::process::id();
        let path = |name: &str| format!("s:{}", self.folder.path().join(name).display());
        let file = path("file");
        let abstract_address: String =
            self.abstract_name.bytes().map(|byte| format!("{byte:02x}")).collect::<String>();
        let abstract_bytes = 3 + self.abstract_name.len();
        let calls: Vec<(&'static str, i64, String)> = vec![
            // Sockets of every family, and what could be done with one.
            ("socket inet stream", libc::SYS_socket, "2 1 0".into()),
            ("socket inet datagram", libc::SYS_socket, "2 2 0".into()),
            ("socket inet raw icmp", libc::SYS_socket, "2 3 1".into()),
            ("socket inet mptcp", libc::SYS_socket, "2 1 262".into()),
            ("socket inet6 stream", libc::SYS_socket, "10 1 0".into()),
            ("socket inet6 datagram", libc::SYS_socket, "10 2 0".into()),
            ("socket netlink", libc::SYS_socket, "16 3 0".into()),
            ("socket packet", libc::SYS_socket, "17 3 0".into()),
            ("socket unix datagram", libc::SYS_socket, "1 2 0".into()),
            ("socketpair", libc::SYS_socketpair, "1 1 0 b:8".into()),
            ("bind abstract", libc::SYS_bind, "k:1,1 x:010000636c6f69737465722d62696e64 16".into()),
            (
                "connect abstract",
                libc::SYS_connect,
                format!("k:1,1 x:010000{abstract_address} {abstract_bytes}"),
            ),
            // Other programs and processes.
            ("execve", libc::SYS_execve, "s:/bin/true a:true b:8".into()),
            ("execveat", libc::SYS_execveat, "-100 s:/bin/true a:true b:8 0".into()),
            ("fork", libc::SYS_fork, String::new()),
            ("clone as fork", libc::SYS_clone, format!("{} 0 0 0 0", libc::SIGCHLD)),
            ("clone into a user namespace", libc::SYS_clone, format!("{} 0 0 0 0", 0x1000_0000 | libc::SIGCHLD)),
            ("clone into a network namespace", libc::SYS_clone, format!("{} 0 0 0 0", 0x4000_0000 | libc::SIGCHLD)),
            ("clone3", libc::SYS_clone3, "x:00000000000000000000000000000000000000000000000000000000000000001100000000000000000000000000000000000000000000000000000000000000 64".into()),
            ("memfd_create", libc::SYS_memfd_create, "s:x 0".into()),
            ("kill another", libc::SYS_kill, format!("{victim} 0")),
            ("kill the supervisor's parent", libc::SYS_kill, format!("{supervisor} 0")),
            ("tgkill another", libc::SYS_tgkill, format!("{victim} {victim} 0")),
            ("tkill another", libc::SYS_tkill, format!("{victim} 0")),
            ("pidfd_open", libc::SYS_pidfd_open, format!("{victim} 0")),
            ("ptrace traceme", libc::SYS_ptrace, "0 0 0 0".into()),
            ("ptrace seize", libc::SYS_ptrace, format!("0x4206 {victim} 0 0")),
            ("process_vm_readv", libc::SYS_process_vm_readv, format!("{victim} b:16 1 b:16 1 0")),
            ("process_vm_writev", libc::SYS_process_vm_writev, format!("{victim} b:16 1 b:16 1 0")),
            ("kcmp", libc::SYS_kcmp, format!("{victim} {victim} 1 0 0")),
            ("prlimit of another", libc::SYS_prlimit64, format!("{victim} 7 0 b:16")),
            ("setrlimit", libc::SYS_setrlimit, "4 b:16".into()),
            ("setpriority of another", libc::SYS_setpriority, format!("0 {victim} 5")),
            ("sched_setaffinity of another", libc::SYS_sched_setaffinity, format!("{victim} 8 x:0300000000000000")),
            ("sched_setscheduler of another", libc::SYS_sched_setscheduler, format!("{victim} 0 b:4")),
            ("ioprio_set of another", libc::SYS_ioprio_set, format!("1 {victim} 0x6007")),
            ("setpgid", libc::SYS_setpgid, "0 0".into()),
            // Namespaces, mounts and roots.
            ("unshare user", libc::SYS_unshare, "0x10000000".into()),
            ("unshare network", libc::SYS_unshare, "0x40000000".into()),
            ("unshare mount", libc::SYS_unshare, "0x20000".into()),
            ("unshare pid", libc::SYS_unshare, "0x20000000".into()),
            ("setns", libc::SYS_setns, "o:/proc/self/ns/uts 0".into()),
            ("mount", libc::SYS_mount, "s:none s:/tmp s:tmpfs 0 0".into()),
            ("chroot", libc::SYS_chroot, "s:/".into()),
            ("open_tree", libc::SYS_open_tree, "-100 s:/ 1".into()),
            ("fsopen", libc::SYS_fsopen, "s:tmpfs 0".into()),
            ("fspick", libc::SYS_fspick, "-100 s:/ 0".into()),
            // Identities and privileges.
            ("setuid", libc::SYS_setuid, "0".into()),
            ("setresuid", libc::SYS_setresuid, "0 0 0".into()),
            ("setresgid", libc::SYS_setresgid, "0 0 0".into()),
            ("setgroups", libc::SYS_setgroups, "0 0".into()),
            ("prctl dumpable", libc::SYS_prctl, "4 1 0 0 0".into()),
            ("prctl no death signal", libc::SYS_prctl, "1 0 0 0 0".into()),
            ("prctl keep capabilities", libc::SYS_prctl, "8 0 0 0 0".into()),
            ("prctl seccomp state", libc::SYS_prctl, "21 0 0 0 0".into()),
            ("seccomp action", libc::SYS_seccomp, "2 0 b:4".into()),
            ("landlock_create_ruleset", libc::SYS_landlock_create_ruleset, "0 0 1".into()),
            ("personality", libc::SYS_personality, "0xffffffff".into()),
            ("modify_ldt", libc::SYS_modify_ldt, "0 b:16 16".into()),
            ("arch_prctl gs", libc::SYS_arch_prctl, "0x1004 b:8".into()),
            // Interfaces with a history of holes.
            ("keyctl", libc::SYS_keyctl, "0 -2 1".into()),
            ("add_key", libc::SYS_add_key, "s:user s:x s:y 1 -2".into()),
            ("bpf", libc::SYS_bpf, "0 x:020000000400000004000000010000000000000000000000000000000000000000000000000000000000000000000000 48".into()),
            ("userfaultfd", libc::SYS_userfaultfd, "0".into()),
            ("perf_event_open", libc::SYS_perf_event_open, format!("x:0100000070000000{} 0 -1 -1 0", "0".repeat(208))),
            ("io_uring_setup", libc::SYS_io_uring_setup, "1 b:120".into()),
            ("fanotify_init", libc::SYS_fanotify_init, "0 0".into()),
            ("inotify_init1", libc::SYS_inotify_init1, "0".into()),
            ("signalfd4", libc::SYS_signalfd4, "-1 b:8 8 0".into()),
            ("timerfd_create", libc::SYS_timerfd_create, "1 0".into()),
            ("timer_create", libc::SYS_timer_create, "1 0 b:8".into()),
            ("msgget", libc::SYS_msgget, "0 0600".into()),
            ("shmget", libc::SYS_shmget, "0 4096 0600".into()),
            ("semget", libc::SYS_semget, "0 1 0600".into()),
            ("mq_open", libc::SYS_mq_open, "s:cloister-probe 0102 0600 0".into()),
            ("io_setup", libc::SYS_io_setup, "1 b:8".into()),
            ("set_mempolicy", libc::SYS_set_mempolicy, "0 0 0".into()),
            ("mlockall", libc::SYS_mlockall, "1".into()),
            ("sethostname", libc::SYS_sethostname, "s:x 1".into()),
            ("syslog", libc::SYS_syslog, "10 0 0".into()),
            ("adjtimex", libc::SYS_adjtimex, "b:208".into()),
            ("fcntl owner", libc::SYS_fcntl, format!("0 8 {victim}")),
            ("fcntl signal", libc::SYS_fcntl, "0 10 9".into()),
            ("dup2", libc::SYS_dup2, "1 60".into()),
            ("close_range", libc::SYS_close_range, "100 200 0".into()),
            // Files: reading, looking, changing and making.
            ("open shadow", libc::SYS_openat, "-100 s:/etc/shadow 0".into()),
            ("open by the old call", libc::SYS_open, "s:/etc/passwd 0".into()),
            ("openat2", libc::SYS_openat2, "-100 s:/etc/passwd b:24 24".into()),
            ("open the host's home", libc::SYS_openat, "-100 s:/root 0".into()),
            ("open the environ of another", libc::SYS_openat, format!("-100 s:/proc/{victim}/environ 0")),
            ("open the memory of another", libc::SYS_openat, format!("-100 s:/proc/{victim}/mem 0")),
            ("open its own memory", libc::SYS_openat, "-100 s:/proc/self/mem 2".into()),
            ("open the kernel's log", libc::SYS_openat, "-100 s:/dev/kmsg 0".into()),
            ("open sysfs", libc::SYS_openat, "-100 s:/sys/kernel 0".into()),
            ("open the database", libc::SYS_openat, format!("-100 s:{data}/cloister.db 0")),
            ("open the builds", libc::SYS_openat, format!("-100 s:{data}/builds 0")),
            ("open the folders of others", libc::SYS_openat, format!("-100 s:{data}/run 0")),
            ("look at the admin socket", libc::SYS_statx, format!("-100 s:{data}/admin.sock 0 0x7ff b:256")),
            ("look at shadow", libc::SYS_statx, "-100 s:/etc/shadow 0 0x7ff b:256".into()),
            ("access root's home", libc::SYS_access, "s:/root 0".into()),
            ("read a link of another", libc::SYS_readlink, format!("s:/proc/{victim}/exe b:256 256")),
            ("create", libc::SYS_openat, format!("-100 {} 0102 0600", path("created"))),
            ("open to write", libc::SYS_openat, format!("-100 {file} 1")),
            ("create in tmp", libc::SYS_openat, "-100 s:/tmp/cloister-probe-file 0102 0600".into()),
            ("create without a name", libc::SYS_openat, "-100 s:/tmp 020200002 0600".into()),
            ("truncate", libc::SYS_truncate, format!("{file} 1")),
            ("chmod", libc::SYS_chmod, format!("{file} 0600")),
            ("chown", libc::SYS_chown, format!("{file} 0 0")),
            ("utimensat", libc::SYS_utimensat, format!("-100 {file} 0 0")),
            ("unlink", libc::SYS_unlink, path("removable")),
            ("rename", libc::SYS_rename, format!("{} {}", path("renamed"), path("renamed-to"))),
            ("link", libc::SYS_link, format!("{} {}", path("linked"), path("linked-to"))),
            ("symlink", libc::SYS_symlink, format!("s:/etc/shadow {}", path("symlinked"))),
            ("mkdir", libc::SYS_mkdir, format!("{} 0700", path("made"))),
            ("mknod", libc::SYS_mknod, format!("{} 020600 0x103", path("node"))),
            ("chdir", libc::SYS_chdir, "s:/".into()),
            ("statfs", libc::SYS_statfs, "s:/ b:120".into()),
            ("umask", libc::SYS_umask, "0".into()),
            ("flock", libc::SYS_flock, "0 1".into()),
            ("listxattr", libc::SYS_listxattr, "s:/ b:100 100".into()),
            ("name_to_handle_at", libc::SYS_name_to_handle_at, "-100 s:/etc x:80000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000000 b:4 0".into()),
        ];
        let numbered = calls.into_iter().map(|(name, number, rest)| (name, format!("{number} {rest}")));
        let others =
            [("32-bit getpid", "int80 20".to_owned()), ("32-bit socket", "int80 359 2 1 0".to_owned())];
        numbered.chain(others).collect()
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

const HOST_WITH_RAW_CALLS: &str = "async function Initialize(agentId, backends) {}
async function Deinitialize() {}
// @endowment
async function Raw(params = {}) {
  const addon = { exports: {} };
  process.dlopen(addon, '/harness/src/raw.node');
  return addon.exports(params.line);
}
";

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
    let found = not_refused(&world, &data, &[], |line| {
        let body = json!({ "environmentName": "test", "userAgentId": "a", "code": format!("@{line}@") });
        let answer = supervisor.post("/api/execute", &body).body;
        let message = answer["violations"][0]["message"].as_str().unwrap_or_default();
        match (message.strip_prefix("returned "), answer["code"].as_str()) {
            (Some(value), _) => Fate::Returned(value.parse().unwrap()),
            (None, Some("code_too_complex")) => Fate::Killed,
            _ => Fate::Other(answer.to_string()),
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
