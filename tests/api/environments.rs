//! `/api/environments`.

use serde_json::{Value, json};

use crate::support::{IMPLEMENTATION, Supervisor};

#[test]
fn an_environment_is_created_read_replaced_and_removed() {
    let supervisor = Supervisor::start();
    let created = supervisor.provision_with(json!({ "policy": "strict", "limits": { "maxApiCalls": 3 } }));
    let etag = created.etag.expect("an ETag");
    let shown = supervisor.get("/api/environments/test");
    assert_eq!((shown.status, shown.etag.as_deref()), (200, Some(etag.as_str())));
    assert_eq!(
        (&shown.body["policy"], &shown.body["status"], &shown.body["limits"]["maxApiCalls"]),
        (&json!("strict"), &json!("ready"), &json!(3))
    );
    assert!(shown.body["endowments"].as_array().unwrap().contains(&json!("Echo")));
    assert_eq!(supervisor.get_if_none_match("/api/environments/test", &etag).status, 304);
    let list = supervisor.get("/api/environments").body;
    assert_eq!(list["environments"][0]["environmentName"], "test");

    let changed = IMPLEMENTATION.replace("return params;", "return { changed: params };");
    let definition = json!({ "backendUrls": {}, "packageJson": "{}", "codeImplementation": changed });
    assert_eq!(supervisor.put("/api/environments/test", &definition, Some("\"other\"")).status, 412);
    let replaced = supervisor.put("/api/environments/test", &definition, Some(&etag));
    assert_eq!(replaced.status, 200, "{replaced:?}");
    assert_ne!(replaced.etag.as_deref(), Some(etag.as_str()));
    assert_eq!(supervisor.result("return await Echo({ a: 1 })"), json!({ "changed": { "a": 1 } }));
    assert_eq!(replaced.body["createdAt"], created.body["createdAt"]);

    assert_eq!(supervisor.delete("/api/environments/test").status, 204);
    assert_eq!(supervisor.get("/api/environments/test").status, 404);
    assert_eq!(supervisor.delete("/api/environments/test").status, 404);
    assert_eq!(supervisor.get("/api/environments").body["environments"], json!([]));
}

#[test]
fn a_name_in_use_is_a_conflict_and_changes_nothing() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let before = supervisor.get("/api/environments/test").etag;
    let definition =
        json!({ "environmentName": "test", "backendUrls": {}, "packageJson": {}, "codeImplementation": "x" });
    let answer = supervisor.post("/api/environments", &definition);
    assert_eq!((answer.status, &answer.body["code"]), (409, &json!("environment_exists")));
    assert_eq!(supervisor.get("/api/environments/test").etag, before);
}

#[test]
fn a_put_creates_what_is_not_there_unless_it_must_be() {
    let supervisor = Supervisor::start();
    let definition = json!({ "backendUrls": {}, "packageJson": {}, "codeImplementation": IMPLEMENTATION });
    let absent = supervisor.put("/api/environments/test", &definition, Some("*"));
    assert_eq!((absent.status, &absent.body["code"]), (404, &json!("environment_not_found")));
    assert_eq!(supervisor.put("/api/environments/test", &definition, None).status, 201);
    assert_eq!(supervisor.put("/api/environments/test", &definition, Some("*")).status, 200);
    assert_eq!(supervisor.result("return 1"), 1);
}

#[test]
fn both_module_systems_are_loaded() {
    let supervisor = Supervisor::start();
    let module = "import { basename } from 'node:path';\nexport async function Initialize(agentId, backends) {}\nasync function Deinitialize() {}\n/** @endowment */\nexport async function Base(params = {}) { return basename(params.path) }\n";
    supervisor.provision_with(json!({ "codeImplementation": module }));
    assert_eq!(supervisor.result("return await Base({ path: '/a/b' })"), "b");
}

#[test]
fn a_dry_run_validates_and_changes_nothing() {
    let supervisor = Supervisor::start();
    let definition = json!({ "environmentName": "dry", "backendUrls": {}, "packageJson": {}, "codeImplementation": IMPLEMENTATION });
    let answer = supervisor.post("/api/environments?dryRun=true", &definition);
    assert_eq!((answer.status, &answer.body["valid"]), (200, &json!(true)));
    assert_eq!(supervisor.get("/api/environments/dry").status, 404);
}

#[test]
fn every_violation_of_an_implementation_is_listed_with_function_and_line() {
    let supervisor = Supervisor::start();
    let code = "async function Initialize(agentId) {}\nasync function Deinitialize(now) {}\n// @endowment\nfunction A(params = {}) {}\n// @endowment\nasync function B(p) {}\n";
    let answer = refused(&supervisor, json!({ "codeImplementation": code }));
    assert_eq!((answer["status"].as_u64(), &answer["code"]), (Some(400), &json!("invalid_implementation")));
    let found: Vec<(u64, &str)> = answer["violations"]
        .as_array()
        .unwrap()
        .iter()
        .map(|v| (v["line"].as_u64().unwrap(), v["message"].as_str().unwrap()))
        .collect();
    assert_eq!(found.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 2, 4, 6], "{found:?}");
    for ((_, message), name) in found.iter().zip(["Initialize", "Deinitialize", "A", "B"]) {
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn an_implementation_that_does_not_load_leaves_nothing_behind() {
    let supervisor = Supervisor::start();
    let cases = [
        ("throw new Error('broken at the top');\n", "broken at the top"),
        ("require('no-such-package');\n", "no-such-package"),
        ("process.exit(5);\n", "ended with code 5"),
    ];
    for (line, reason) in cases {
        let answer = refused(&supervisor, json!({ "codeImplementation": format!("{line}{IMPLEMENTATION}") }));
        assert_eq!(
            (answer["status"].as_u64(), &answer["code"]),
            (Some(422), &json!("load_failed")),
            "{answer}"
        );
        assert!(answer["detail"].as_str().unwrap().contains(reason), "{answer}");
    }
    assert_eq!(std::fs::read_dir(supervisor.data().join("builds")).unwrap().count(), 0);
    assert_eq!(supervisor.get("/api/environments").body["environments"], json!([]));
}

#[test]
fn hostile_nesting_costs_its_request_and_nothing_else() {
    let supervisor = Supervisor::start();
    let deep = format!("{}{}{IMPLEMENTATION}", "[".repeat(100_000), "]".repeat(100_000));
    let answer = refused(&supervisor, json!({ "codeImplementation": deep }));
    assert_eq!(answer["code"], "code_too_complex", "{answer}");
    supervisor.provision();
    let body = json!({ "environmentName": "test", "userAgentId": "a", "code": format!("return {}1{}", "(".repeat(100_000), ")".repeat(100_000)) });
    assert_eq!(supervisor.post("/api/execute", &body).body["code"], "code_too_complex");
    assert_eq!(supervisor.result("return 1"), 1);
}

fn refused(supervisor: &Supervisor, changes: Value) -> Value {
    let mut definition = json!({ "environmentName": "refused", "backendUrls": {}, "packageJson": {}, "codeImplementation": IMPLEMENTATION });
    for (field, value) in changes.as_object().unwrap() {
        definition[field] = value.clone();
    }
    let answer = supervisor.post("/api/environments", &definition);
    assert!(answer.status >= 400, "{answer:?}");
    assert_eq!(answer.content_type, "application/problem+json");
    assert_eq!(supervisor.get("/api/environments/refused").status, 404);
    answer.body
}
