//! Wrong input: each kind has its own clear refusal, as problem+json.

use std::io::{Read as _, Write as _};

use serde_json::json;

use crate::support::Supervisor;

#[test]
fn wrong_requests_are_refused_each_in_its_own_way() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let execute = |body: serde_json::Value| supervisor.post("/api/execute", &body);
    let code = |text: &str| json!({ "environmentName": "test", "userAgentId": "a", "code": text });
    let cases = [
        (supervisor.get("/api/nothing"), 404, "not_found", "NotFound"),
        (supervisor.get("/api/execute"), 405, "method_not_allowed", "InvalidRequest"),
        (
            supervisor.post_text("/api/execute", "text/plain", "{}"),
            415,
            "unsupported_media_type",
            "InvalidRequest",
        ),
        (
            supervisor.post_text("/api/execute", "application/json", "{"),
            400,
            "invalid_json",
            "InvalidRequest",
        ),
        (
            supervisor.post_text("/api/execute", "application/json", "[]"),
            400,
            "invalid_request",
            "InvalidRequest",
        ),
        (execute(json!({})), 400, "invalid_request", "InvalidRequest"),
        (
            execute(json!({ "environmentName": "test", "userAgentId": "a", "code": 5 })),
            400,
            "invalid_request",
            "InvalidRequest",
        ),
        (
            execute(json!({ "environmentName": "test", "userAgentId": "a", "code": "1", "colour": 1 })),
            400,
            "invalid_request",
            "InvalidRequest",
        ),
        (
            execute(json!({ "environmentName": "none", "userAgentId": "a", "code": "1" })),
            404,
            "environment_not_found",
            "EnvironmentNotFound",
        ),
        (execute(code("const = 1")), 400, "code_syntax_error", "CodeSyntaxError"),
        (execute(code("import a from 'b'")), 400, "code_syntax_error", "CodeSyntaxError"),
        (execute(code(&format!("//{}", "x".repeat(256 * 1024)))), 413, "code_too_large", "InvalidRequest"),
        (execute(code(&"x".repeat(2 * 1024 * 1024))), 413, "body_too_large", "InvalidRequest"),
        (
            supervisor.post("/api/environments?dryRun=perhaps", &json!({})),
            400,
            "invalid_request",
            "InvalidRequest",
        ),
        (supervisor.post("/api/environments?colour=1", &json!({})), 400, "invalid_request", "InvalidRequest"),
        (
            supervisor.post("/api/environments", &json!({ "environmentName": "a" })),
            400,
            "invalid_request",
            "InvalidRequest",
        ),
        (
            supervisor.put("/api/environments/x", &json!({ "environmentName": "y" }), None),
            400,
            "invalid_request",
            "InvalidRequest",
        ),
        (
            supervisor.put("/api/environments/test", &json!({}), Some("no-quotes")),
            400,
            "invalid_request",
            "InvalidRequest",
        ),
    ];
    for (answer, status, code, error_type) in cases {
        assert_eq!((answer.status, answer.body["code"].as_str()), (status, Some(code)), "{answer:?}");
        assert_eq!(answer.body["errorType"], error_type, "{answer:?}");
        assert_eq!(answer.content_type, "application/problem+json");
        assert!(!answer.body["error"].as_str().unwrap().is_empty());
        assert_eq!(answer.body["status"], status);
    }
}

#[test]
fn a_syntax_error_says_where() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let body = json!({ "environmentName": "test", "userAgentId": "a", "code": "const a = 1;\nconst b = ;" });
    let violation = supervisor.post("/api/execute", &body).body["violations"][0].clone();
    assert_eq!((&violation["line"], &violation["column"]), (&json!(2), &json!(11)));
}

#[test]
fn wrong_fields_are_named_by_pointer() {
    let supervisor = Supervisor::start();
    let body = json!({ "environmentName": "a", "backendUrls": { "x": "/relative" }, "packageJson": "{", "codeImplementation": "x" });
    let errors = supervisor.post("/api/environments", &body).body["errors"].clone();
    let pointers: Vec<&str> =
        errors.as_array().unwrap().iter().map(|error| error["pointer"].as_str().unwrap()).collect();
    assert_eq!(pointers, ["/backendUrls/x", "/packageJson"]);
}

#[test]
fn a_name_that_leads_here_from_a_web_page_is_refused() {
    let supervisor = Supervisor::start();
    let status = |host: &str| {
        let mut stream = std::net::TcpStream::connect(supervisor.address()).unwrap();
        write!(stream, "GET /livez HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n").unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).unwrap();
        text.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!(status("localhost"), "200");
    assert_eq!(status("evil.example"), "421");
}

#[test]
fn health_and_version_are_told() {
    let supervisor = Supervisor::start();
    assert_eq!(supervisor.get("/livez").body["status"], "ok");
    assert_eq!(supervisor.get("/readyz").body["status"], "ready");
    assert_eq!(supervisor.get("/readyz?verbose").body["layers"]["landlock"], "enforced");
    assert_eq!(supervisor.get("/api/version").body["version"], env!("CARGO_PKG_VERSION"));
}
