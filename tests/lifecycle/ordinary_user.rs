//! A supervisor of an ordinary user: unprivileged user namespaces, and no control group.

use serde_json::{Value, json};

use crate::support::{Supervisor, children};

const NOBODY: u32 = 65_534;

fn doctor(supervisor: &Supervisor) -> (Option<i32>, Value) {
    let output = supervisor.run(&["doctor", "-o", "json"]);
    (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
}

#[test]
fn an_ordinary_user_is_told_what_is_missing_and_may_accept_it_by_name() {
    let mut supervisor = Supervisor::of_user(NOBODY, "");
    let (code, report) = doctor(&supervisor);
    assert_eq!((code, &report["safe"]), (Some(1), &json!(false)), "{report}");
    let layer = |name: &str| {
        let layers = report["layers"].as_array().unwrap();
        layers.iter().find(|layer| layer["layer"] == name).unwrap().clone()
    };
    for enforced in ["landlock", "namespaces", "private_root"] {
        assert_eq!(layer(enforced)["enforced"], true, "{report}");
    }
    let cgroup = layer("cgroup");
    assert_eq!((&cgroup["enforced"], &cgroup["required"]), (&json!(false), &json!(true)));
    assert!(cgroup["remedy"].as_str().unwrap().contains("Delegate="), "{cgroup}");
    assert_eq!(
        (&layer("user_id")["enforced"], &layer("user_id")["required"]),
        (&json!(false), &json!(false))
    );
    for probe in report["probes"].as_array().unwrap() {
        assert_eq!(probe["outcome"], "refused", "what remains is enforced: {probe}");
    }
    let output = supervisor.run(&["serve", "--listen", "127.0.0.1:0"]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(78), "{stderr}");
    assert!(stderr.contains("layer cgroup is missing") && stderr.contains("jail.allow_missing"), "{stderr}");

    supervisor.configure("[jail]\nallow_missing = ['cgroup']\n");
    assert_eq!(doctor(&supervisor).0, Some(0));
    supervisor.start_again();
    let ready = supervisor.get("/readyz?verbose").body;
    assert_eq!((&ready["layers"]["cgroup"], &ready["allowMissing"]), (&json!("missing"), &json!(["cgroup"])));
    supervisor.provision();
    assert_eq!(supervisor.result("return await Echo({ a: 1 })"), json!({ "a": 1 }));
    let slower = |line: &String| line.contains("idle processors are not kept awake");
    assert!(supervisor.log().iter().any(slower), "only root asks that of the kernel: {:?}", supervisor.log());
    for process in children(supervisor.pid()).iter().filter(|child| child.kind() != "other") {
        let seen = (process.status("Seccomp"), process.status("NoNewPrivs"), process.inet_sockets());
        assert_eq!(seen, ("2", "1", 0), "{process:?}");
        assert!(
            process
                .rlimits()
                .lines()
                .any(|line| line.starts_with("Max data size") && !line.contains("unlimited"))
        );
    }
    // Without a control group, V8's heap and RLIMIT_DATA bound the memory.
    for bomb in [
        "const a = []; for (;;) a.push(new Array(100000).fill(1.5))",
        "const a = []; for (;;) a.push(new Uint8Array(10000000).fill(1))",
    ] {
        let execution = supervisor.execute(bomb);
        assert!(["out_of_memory", "error"].contains(&execution["status"].as_str().unwrap()), "{execution}");
        assert_eq!(supervisor.result("return 1"), 1);
    }
    let endless =
        json!({ "environmentName": "test", "userAgentId": "a", "code": "for (;;) {}", "timeout": 500 });
    assert_eq!(supervisor.post("/api/execute", &endless).body["status"], "timeout");
    supervisor.provision_with(json!({ "environmentName": "short", "limits": { "cpuMs": 300 } }));
    let endless = json!({ "environmentName": "short", "userAgentId": "a", "code": "for (;;) {}" });
    let execution = supervisor.post("/api/execute", &endless).body;
    assert_eq!(execution["errorDetails"]["code"], "cpu_time_limit", "{execution}");
    assert!(supervisor.records().iter().all(|record| record["missing_layers"] == "cgroup"));
}
