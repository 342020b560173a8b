//! How supervisors end, and what the next one finds.

mod announced;
mod faults;
mod kept;
mod ordinary_user;

use std::collections::HashSet;

use nix::sys::signal::Signal;
use serde_json::{Value, json};

use crate::support::{Backend, Installation, Supervisor, children, control_groups, wait_for};

/// The folder of a supervisor's control groups has its own name in it.
fn own_groups(supervisor: &Supervisor) -> Vec<std::path::PathBuf> {
    let pids: Vec<String> = children(supervisor.pid()).iter().map(|child| child.pid.to_string()).collect();
    control_groups("cloister-")
        .into_iter()
        .filter(|folder| {
            let below = std::fs::read_dir(folder).into_iter().flatten().flatten();
            below
                .map(|entry| std::fs::read_to_string(entry.path().join("cgroup.procs")).unwrap_or_default())
                .any(|procs| procs.lines().any(|pid| pids.contains(&pid.to_owned())))
        })
        .collect()
}

#[test]
fn a_sigterm_leaves_no_process_no_group_and_no_socket() {
    let backend = Backend::start();
    let mut supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    supervisor.execute_for("tidy", "return await Echo(1)");
    let pids: Vec<i32> = children(supervisor.pid()).iter().map(|child| child.pid).collect();
    let groups = own_groups(&supervisor);
    assert!(!pids.is_empty() && !groups.is_empty());
    supervisor.signal(Signal::SIGTERM);
    assert_eq!(supervisor.wait(), Some(0));
    for pid in pids {
        assert!(!std::path::Path::new(&format!("/proc/{pid}")).exists(), "process {pid} is still there");
    }
    for group in groups {
        assert!(!group.exists(), "{} is still there", group.display());
    }
    assert!(!supervisor.data().join("admin.sock").exists());
    assert!(!supervisor.data().join("run").exists());
    assert!(backend.was_asked("/deinitialized/tidy"), "the host could not clean up");
}

#[test]
fn a_sigterm_lets_running_programs_end_and_takes_no_new_ones() {
    let backend = Backend::start();
    let mut supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            supervisor
                .execute_for("slow", "await Fetch({ path: \'/started\' }); return await Wait({ ms: 4000 })")
        });
        wait_for("the program to start", || backend.was_asked("/started").then_some(()));
        supervisor.signal(Signal::SIGTERM);
        let late = json!({ "environmentName": "test", "userAgentId": "late", "code": "return 1" });
        let refused = wait_for("the drain to begin", || {
            Some(supervisor.post("/api/execute", &late)).filter(|answer| answer.status != 200)
        });
        assert_eq!(
            (refused.status, &refused.body["code"], refused.retry_after.as_deref()),
            (503, &json!("shutting_down"), Some("5"))
        );
        assert_eq!(supervisor.delete("/api/environments/test").status, 503);
        assert_eq!(supervisor.get("/readyz").status, 503);
        assert_eq!(supervisor.get("/livez").status, 200);
        assert_eq!(running.join().unwrap()["result"], 4000);
    });
    assert_eq!(supervisor.wait(), Some(0));
}

#[test]
fn a_drain_that_takes_too_long_cancels_what_runs_and_records_it() {
    let backend = Backend::start();
    let mut supervisor = Supervisor::with_settings("[execution]\ndrain_seconds_max = 1\n");
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    std::thread::scope(|scope| {
        let running = scope.spawn(|| {
            supervisor
                .execute_for("slow", "await Fetch({ path: \'/started\' }); return await Wait({ ms: 12000 })")
        });
        wait_for("the program to start", || backend.was_asked("/started").then_some(()));
        supervisor.signal(Signal::SIGTERM);
        assert_eq!(running.join().unwrap()["status"], "cancelled");
    });
    assert_eq!(supervisor.wait(), Some(0));
    let rows = supervisor.records();
    assert_eq!(rows.iter().find(|row| row["agent"] == "slow").unwrap()["status"], "cancelled");
}

#[test]
fn a_killed_supervisor_takes_its_children_along_and_the_next_one_goes_on() {
    let mut supervisor = Supervisor::start();
    supervisor.provision();
    supervisor.result("return 1");
    let pids: Vec<i32> = children(supervisor.pid()).iter().map(|child| child.pid).collect();
    let groups = own_groups(&supervisor);
    assert!(!pids.is_empty() && !groups.is_empty());
    supervisor.signal(Signal::SIGKILL);
    supervisor.wait();
    wait_for("the children to end", || pids.iter().all(|pid| is_gone(*pid)).then_some(()));
    let left = groups_below(&groups);
    assert!(!left.is_empty(), "the groups of the killed supervisor are the ones that must be cleaned up");
    supervisor.start_again();
    assert_eq!(supervisor.result("return await Echo({ a: 1 })"), json!({ "a": 1 }));
    let now = groups_below(&groups);
    assert!(left.iter().all(|group| !now.contains(group)), "{left:?} {now:?}");
}

/// The inode numbers of the groups below: a new group may have the name of an old one.
fn groups_below(folders: &[std::path::PathBuf]) -> Vec<(std::path::PathBuf, u64)> {
    use std::os::unix::fs::MetadataExt as _;
    let entries = folders.iter().flat_map(|folder| std::fs::read_dir(folder).into_iter().flatten().flatten());
    let groups = entries.map(|entry| entry.path()).filter(|path| path.is_dir());
    groups.filter_map(|path| Some((path.clone(), path.metadata().ok()?.ino()))).collect()
}

/// Ended and reaped, or waiting for whoever took it over to reap it.
fn is_gone(pid: i32) -> bool {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.is_empty() || stat.rsplit(')').next().is_some_and(|rest| rest.trim_start().starts_with('Z'))
}

#[test]
fn an_environment_is_there_after_a_restart() {
    let mut supervisor = Supervisor::start();
    supervisor.provision();
    let before = supervisor.get("/api/environments/test");
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
    supervisor.start_again();
    let after = supervisor.get("/api/environments/test");
    assert_eq!((before.body, before.etag), (after.body, after.etag));
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
}

#[test]
fn a_data_directory_has_one_supervisor() {
    let supervisor = Supervisor::start();
    let output = supervisor.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("another supervisor uses the data directory"));
}

#[test]
fn a_folder_with_other_files_is_not_taken_for_a_data_directory() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::create_dir(folder.path().join("run")).unwrap();
    std::fs::write(folder.path().join("run/precious"), "kept").unwrap();
    let mode =
        || std::os::unix::fs::PermissionsExt::mode(&std::fs::metadata(folder.path()).unwrap().permissions());
    let before = mode();
    let output = std::process::Command::new(crate::support::program("supervisor"))
        .args(["serve", "--listen", "127.0.0.1:0", "--data-dir"])
        .arg(folder.path())
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not Cloister's"));
    assert_eq!(std::fs::read_to_string(folder.path().join("run/precious")).unwrap(), "kept");
    assert_eq!(mode(), before);
}

#[test]
fn a_start_that_fails_leaves_no_group_and_no_folder() {
    let mut supervisor = Supervisor::start();
    let groups = wait_for("groups", || Some(own_groups(&supervisor)).filter(|groups| !groups.is_empty()));
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
    std::fs::write(supervisor.data().join("cloister.db"), "no database".repeat(1000)).unwrap();
    let log = supervisor.data().join("cloister.db-wal");
    assert!(!log.exists(), "the database was closed, so that its file is complete");
    let output = supervisor.run(&["serve", "--listen", "127.0.0.1:0"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("cannot be opened"));
    assert!(!supervisor.data().join("run").exists());
    assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
}

#[test]
fn a_part_that_is_broken_stops_the_start_by_name() {
    let broken: [(&str, &[u8], &str); 3] = [
        ("bin/libseal.so", b"no library", "libseal.so"),
        ("bin/jail-exec", b"#!/bin/sh\nexit 3\n", "cannot be started at all"),
        ("node-harness/src/probe/main.js", b"throw new Error('no probe')", "the probe itself failed"),
    ];
    let mut supervisor = Supervisor::start();
    let groups = wait_for("groups", || Some(own_groups(&supervisor)).filter(|groups| !groups.is_empty()));
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
    for (file, content, reason) in broken {
        supervisor.install(Installation::copy().with(file, content));
        let output = supervisor.run(&["serve", "--listen", "127.0.0.1:0"]);
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(78), "{file}: {stderr}");
        assert!(stderr.contains(reason), "{file}: {stderr}");
        assert!(!supervisor.data().join("run").exists(), "{file}");
        assert!(groups.iter().all(|group| !group.exists()), "{file}: {groups:?}");
    }
}

#[test]
fn an_unused_build_is_removed() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    supervisor.result("return await Echo(1)");
    let count = || std::fs::read_dir(supervisor.data().join("builds")).unwrap().count();
    assert_eq!(count(), 1);
    assert_eq!(supervisor.delete("/api/environments/test").status, 204);
    wait_for("the build to be removed", || (count() == 0).then_some(()));
}

#[test]
fn a_remote_address_and_a_broken_settings_file_are_refused() {
    let supervisor = Supervisor::start();
    let output = supervisor.run(&["serve", "--listen", "0.0.0.0:0"]);
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("not a loopback address"));
    let folder = tempfile::tempdir().unwrap();
    let broken = folder.path().join("broken.toml");
    std::fs::write(&broken, "lisen = 1").unwrap();
    let output = std::process::Command::new(crate::support::program("supervisor"))
        .args(["doctor", "--config"])
        .arg(&broken)
        .output()
        .unwrap();
    assert_eq!(output.status.code(), Some(78));
    assert!(String::from_utf8_lossy(&output.stderr).contains("lisen"));
}

#[test]
fn a_missing_layer_stops_the_start_unless_the_operator_accepts_it() {
    let without_groups = |arguments: &[&str], settings: &str| {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), settings).unwrap();
        let data = tempfile::tempdir().unwrap();
        let program = crate::support::program("supervisor");
        let line = format!(
            "for mount in $(grep cgroup /proc/self/mountinfo | cut -d' ' -f5 | sort -r); do umount -l $mount; done; exec {} {} --data-dir {} --config {}",
            program.display(),
            arguments.join(" "),
            data.path().display(),
            file.path().display()
        );
        let output =
            std::process::Command::new("unshare").args(["--mount", "sh", "-c", &line]).output().unwrap();
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    };
    let (code, _, stderr) = without_groups(&["serve", "--listen", "127.0.0.1:0"], "");
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("layer cgroup is missing") && stderr.contains("Delegate="), "{stderr}");
    let (code, _, stderr) = without_groups(
        &["provision", concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/provisioning-statistics")],
        "",
    );
    assert_eq!(code, Some(78), "{stderr}");
    assert!(stderr.contains("layer cgroup is missing"), "{stderr}");
    let (code, stdout, _) = without_groups(&["doctor"], "");
    assert_eq!(code, Some(1));
    assert!(stdout.contains("must NOT be run"), "{stdout}");
    let (code, stdout, _) = without_groups(&["doctor"], "[jail]\nallow_missing = ['cgroup']");
    assert_eq!(code, Some(0), "{stdout}");
}

#[test]
fn guests_start_from_one_snapshot_and_share_no_random_number() {
    let mut supervisor = Supervisor::start();
    supervisor.provision();
    let made = |supervisor: &Supervisor| {
        let folders = std::fs::read_dir(supervisor.data().join("snapshots")).unwrap();
        let blobs: Vec<_> = folders.map(|folder| folder.unwrap().path().join("guest.blob")).collect();
        assert_eq!(blobs.len(), 1);
        std::fs::metadata(&blobs[0]).unwrap().modified().unwrap()
    };
    let first = made(&supervisor);
    let draw = "const bytes = crypto.getRandomValues(new Uint8Array(16)); return [Math.random(), crypto.randomUUID(), [...bytes].join()]";
    let drawn: Vec<Value> =
        (0..4).map(|agent| supervisor.execute_for(&format!("agent-{agent}"), draw)).collect();
    for place in 0..3 {
        let distinct: HashSet<String> = drawn.iter().map(|one| one["result"][place].to_string()).collect();
        assert_eq!(distinct.len(), drawn.len(), "{distinct:?}");
    }
    supervisor.signal(Signal::SIGTERM);
    supervisor.wait();
    supervisor.start_again();
    assert_eq!(supervisor.execute_for("agent-0", "return 1")["result"], 1);
    assert_eq!(made(&supervisor), first, "the snapshot of the first start is used again");
}
