//! The command line, as a user types it.

use std::path::Path;
use std::process::Output;

use serde_json::{Value, json};

use crate::support::{IMPLEMENTATION, Supervisor};

fn folder(environment: &str) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in
        [("environment.toml", environment), ("package.json", "{}"), ("index.js", IMPLEMENTATION)]
    {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    folder
}

fn text(output: &Output) -> (Option<i32>, String, String) {
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

fn path(folder: &Path) -> &str {
    folder.to_str().unwrap()
}

#[test]
fn provision_shows_its_phases_and_update_replaces() {
    let supervisor = Supervisor::start();
    let folder = folder(
        "name = 'cli'\npolicy = 'strict'\n[backendUrls]\na = 'http://127.0.0.1:1'\n[limits]\nmaxApiCalls = 2\n[isolation]\nguest = 'execution'\n",
    );
    let dir = path(folder.path());
    let (code, stdout, _) = text(&supervisor.run(&["provision", dir, "--dry-run"]));
    assert_eq!(code, Some(0));
    assert!(stdout.contains("nothing was changed"), "{stdout}");
    assert_eq!(supervisor.get("/api/environments/cli").status, 404);
    let (code, stdout, stderr) = text(&supervisor.run(&["provision", dir]));
    assert_eq!((code, stderr.as_str()), (Some(0), "validate\nload\nready\n"));
    assert!(stdout.starts_with("cli is ready: Echo"), "{stdout}");
    let shown = supervisor.get("/api/environments/cli").body;
    assert_eq!(
        (&shown["policy"], &shown["isolation"]["guest"], &shown["backendUrls"]["a"]),
        (&json!("strict"), &json!("execution"), &json!("http://127.0.0.1:1"))
    );
    let (code, _, stderr) = text(&supervisor.run(&["provision", dir]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("exists already"), "{stderr}");
    assert_eq!(text(&supervisor.run(&["provision", dir, "--update"])).0, Some(0));
    let (code, stdout, _) = text(&supervisor.run(&["provision", dir, "--name", "second", "-o", "json"]));
    assert_eq!(
        (code, serde_json::from_str::<Value>(&stdout).unwrap()["environmentName"].as_str()),
        (Some(0), Some("second"))
    );
}

#[test]
fn a_folder_that_cannot_be_used_is_explained() {
    let supervisor = Supervisor::start();
    let unknown = folder("name = 'x'\ncolour = 1\n");
    let (code, _, stderr) = text(&supervisor.run(&["provision", path(unknown.path())]));
    assert_eq!(code, Some(65));
    assert!(stderr.contains("colour"), "{stderr}");
    let wrong = folder("name = 'x'\n");
    std::fs::write(wrong.path().join("index.js"), "async function Initialize(a) {}").unwrap();
    let (code, _, stderr) = text(&supervisor.run(&["provision", path(wrong.path())]));
    assert_eq!(code, Some(65));
    assert!(stderr.contains("line 1: Initialize must have exactly two parameters"), "{stderr}");
    assert_eq!(text(&supervisor.run(&["provision", "/nonexistent"])).0, Some(65));
}

#[test]
fn environments_are_listed_shown_and_removed() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let (_, stdout, _) = text(&supervisor.run(&["environments", "list"]));
    assert!(stdout.contains("test") && stdout.contains("standard") && stdout.contains("Echo"), "{stdout}");
    let (_, stdout, _) = text(&supervisor.run(&["environments", "show", "test", "-o", "json"]));
    assert_eq!(serde_json::from_str::<Value>(&stdout).unwrap()["environmentName"], "test");
    let (code, stdout, _) = text(&supervisor.run(&["environments", "rm", "test", "-o", "json"]));
    assert_eq!(
        (code, serde_json::from_str::<Value>(&stdout).unwrap()),
        (Some(0), json!({ "removed": "test" }))
    );
    let (code, _, stderr) = text(&supervisor.run(&["environments", "show", "test"]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("does not exist"), "{stderr}");
}

#[test]
fn exec_prints_the_result_and_ends_as_the_program_did() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let exec = |arguments: &[&str]| text(&supervisor.run(&[&["exec", "test"], arguments].concat()));
    assert_eq!(
        exec(&["-e", "console.log('note'); return { a: 1 }"]),
        (Some(0), "{\"a\":1}\n".to_owned(), "note\n".to_owned())
    );
    assert_eq!(
        exec(&["-e", "throw new Error('no')"]),
        (Some(1), String::new(), "error: Error: no\n".to_owned())
    );
    assert_eq!(exec(&["-e", "for (;;) {}", "--timeout", "200"]).0, Some(124));
    assert_eq!(exec(&["-e", "const a = []; for (;;) a.push(new Array(100000).fill(1.5))"]).0, Some(137));
    assert_eq!(exec(&["-e", "const ="]).0, Some(65));
    let (code, stdout, _) = exec(&["-e", "return (await Who()).agent", "--agent", "somebody", "-o", "json"]);
    assert_eq!(
        (code, serde_json::from_str::<Value>(&stdout).unwrap()["result"].clone()),
        (Some(0), json!("somebody"))
    );
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "return 'from a file'").unwrap();
    assert_eq!(exec(&[path(file.path())]).1, "from a file\n");
}

#[test]
fn without_a_supervisor_the_data_directory_is_used_itself() {
    let mut supervisor = Supervisor::start();
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.wait();
    let folder = folder("name = 'test'\n");
    let (code, _, stderr) = text(&supervisor.run(&["exec", "test", "-e", "return 1"]));
    assert_eq!(code, Some(69));
    assert!(stderr.contains("supervisor serve --data-dir"), "{stderr}");
    let (code, _, stderr) = text(&supervisor.run(&["provision", path(folder.path())]));
    assert_eq!((code, stderr.as_str()), (Some(0), "validate\nload\nready\n"));
    assert!(text(&supervisor.run(&["environments", "list"])).1.contains("test"));
    supervisor.start_again();
    assert_eq!(supervisor.result("return await Echo(1)"), 1);
}

#[test]
fn the_admin_socket_and_the_database_are_for_the_operator_alone() {
    use std::os::unix::fs::PermissionsExt as _;
    let supervisor = Supervisor::start();
    supervisor.provision();
    for name in ["admin.sock", "cloister.db", "cloister.db-wal", "cloister.db-shm"] {
        let mode = std::fs::metadata(supervisor.data().join(name)).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{name}");
    }
}

#[test]
fn bench_measures_in_an_environment_of_its_own_and_says_what_was_refused() {
    let supervisor = Supervisor::start();
    let measured = supervisor.run(&["bench", "--clients", "2", "--duration", "1", "-o", "json"]);
    assert!(measured.status.success(), "{measured:?}");
    let report: Value = serde_json::from_slice(&measured.stdout).unwrap();
    let executions = report["executions"].as_u64().unwrap();
    assert!(executions > 10 && report["statuses"]["completed"] == executions, "{report}");
    assert!(report["p50Ms"].as_f64() > Some(0.0) && report["p99Ms"].as_f64() >= report["p50Ms"].as_f64());
    assert_eq!(supervisor.get("/api/environments").body["environments"], json!([]));
    assert_eq!(supervisor.run(&["bench", "--environment", "none"]).status.code(), Some(1));
    supervisor.provision();
    let failing = supervisor.run(&["bench", "--environment", "test", "--duration", "1", "-e", "throw 1"]);
    assert_eq!(failing.status.code(), Some(1), "{failing:?}");
}
