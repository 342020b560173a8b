//! `POST /api/execute` for programs that run.

use serde_json::{Value, json};

use crate::support::{Backend, Supervisor, wait_for};

#[test]
fn every_form_of_program_runs() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let programs = [
        "async function main() { return await Echo({ a: 1 }) } // end",
        "const main = async () => Echo({ a: 1 });",
        "async () => await Echo({ a: 1 })",
        "(async function () { return Echo({ a: 1 }) });",
        "const value = await Echo({ a: 1 });\nreturn value;",
        "return Echo({ a: 1 })",
        "Echo({ a: 1 })",
    ];
    for program in programs {
        assert_eq!(supervisor.result(program), json!({ "a": 1 }), "{program}");
    }
}

#[test]
fn the_answer_has_every_field() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let body = json!({
        "environmentName": "test", "userAgentId": "agent-7", "input": { "n": 2 }, "timeout": 99_999_999, "metadata": { "run": "r1" },
        "code": "async function main(input) { console.log('n is', input.n); console.error({ a: [1] }); await Echo({}); return 'text' }",
    });
    let answer = supervisor.post("/api/execute", &body);
    assert_eq!((answer.status, answer.content_type.as_str()), (200, "application/json"));
    let mut execution = answer.body;
    assert!(execution["id"].as_str().unwrap().starts_with("exec_"));
    assert!(execution["durationMs"].as_f64().unwrap() > 0.0);
    assert!(execution["usage"]["cpuMs"].as_f64().unwrap() > 0.0);
    assert!(execution["usage"]["peakMemoryBytes"].as_u64().unwrap() > 1_000_000);
    assert!(execution["effects"][0]["durationMs"].as_f64().unwrap() > 0.0);
    assert_eq!(execution["warnings"][0], "timeout was lowered to 15000 ms, which the environment allows");
    for measured in ["id", "durationMs", "usage", "warnings"] {
        execution.as_object_mut().unwrap().remove(measured);
    }
    execution["effects"][0].as_object_mut().unwrap().remove("durationMs");
    let expected = json!({
        "status": "completed", "isError": false, "result": "text", "resultType": "string", "executionResult": "text",
        "logs": [{ "level": "log", "text": "n is 2" }, { "level": "error", "text": "{ a: [ 1 ] }" }],
        "output": "n is 2\n{ a: [ 1 ] }", "error": null, "errorDetails": null, "apiCallCount": 1,
        "effects": [{ "seq": 1, "name": "Echo", "state": "returned" }],
        "environmentName": "test", "userAgentId": "agent-7", "engine": "v8", "policy": "standard",
        "logsTruncated": false, "egress": [], "entryKind": "main", "isolation": { "guest": "agent", "host": "agent" },
    });
    assert_eq!(execution, expected);
}

#[test]
fn an_error_is_placed_in_the_submitted_source() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let execution = supervisor.execute("const a = 1;\n\n  throw new TypeError('not good');\nawait 1;");
    assert_eq!(execution["status"], "error");
    assert_eq!(execution["error"], "TypeError: not good");
    assert_eq!(execution["executionResult"], "TypeError: not good");
    let details = &execution["errorDetails"];
    assert_eq!(
        (&details["name"], &details["line"], &details["column"]),
        (&json!("TypeError"), &json!(3), &json!(9)),
        "{details}"
    );
    assert!(!details["stack"].as_str().unwrap().contains('/'), "no path of the host: {details}");
}

#[test]
fn an_unknown_function_is_named_with_those_that_exist() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let details = supervisor.execute("const x = 1;\nreturn await GetRates({})")["errorDetails"].clone();
    assert_eq!((&details["code"], &details["line"]), (&json!("api_not_provisioned"), &json!(2)), "{details}");
    assert!(details["message"].as_str().unwrap().contains("GetRates"));
    assert!(details["hint"].as_str().unwrap().contains("Echo, Who, Fetch"), "{details}");
    assert_eq!(details["column"], 14, "{details}");
    let own = supervisor.execute("const rates = [1]; rates()")["errorDetails"].clone();
    assert_eq!((&own["message"], own.get("code")), (&json!("rates is not a function"), None), "{own}");
}

#[test]
fn an_error_of_a_function_can_be_caught_and_the_program_goes_on() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let code = "try { await Fail() } catch (e) { return [e instanceof Error, e.name, e.message, e.code, await Echo({ on: 1 })] }";
    assert_eq!(
        supervisor.result(code),
        json!([true, "RangeError", "the backend said no", "E_NO", { "on": 1 }])
    );
    assert_eq!(supervisor.execute("await Fail()")["errorDetails"]["code"], "E_NO");
}

#[test]
fn timers_work_and_end_with_the_program() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let code = "setInterval(() => Echo({ late: true }), 1); return await new Promise((done) => setTimeout(done, 20, 'waited'))";
    assert_eq!(supervisor.result(code), "waited");
    let quiet = |execution: Value| {
        let seen = (&execution["status"], &execution["logs"], &execution["apiCallCount"]);
        assert_eq!(
            seen,
            (&json!("completed"), &json!([]), &json!(0)),
            "an ended program went on: {execution}"
        );
    };
    quiet(supervisor.execute("await new Promise((done) => setTimeout(done, 30)); return 1"));
    let thrown =
        supervisor.execute("setTimeout(() => { throw new Error('late') }, 1); await new Promise(() => {})");
    assert_eq!(thrown["error"], "Error: late");
}

#[test]
fn values_that_json_lacks_are_rebuilt_or_refused_with_their_path() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let code = "return { u: [undefined, NaN], b: 10n, d: new Date(0), m: new Map([['k', 1]]), s: new Set([1]), t: new Uint8Array(2), e: new Error('x') }";
    let expected = json!({ "u": [null, null], "b": "10", "d": "1970-01-01T00:00:00.000Z", "m": { "k": 1 }, "s": [1], "t": [0, 0], "e": { "name": "Error", "message": "x" } });
    assert_eq!(supervisor.result(code), expected);
    for (code, path) in [
        ("return { a: [() => 1] }", "result.a[0]"),
        ("const o = {}; o.o = o; return o", "result.o"),
        ("return { p: Promise.resolve(1) }", "result.p"),
    ] {
        let details = supervisor.execute(code)["errorDetails"].clone();
        assert_eq!(details["code"], "not_serialisable", "{details}");
        assert!(details["message"].as_str().unwrap().contains(path), "{details}");
    }
}

#[test]
fn one_program_leaves_nothing_to_the_next() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let first =
        supervisor.execute("globalThis.left = 1; try { Object.prototype.left = 1 } catch (e) {} return 1");
    assert_eq!(first["status"], "completed");
    assert_eq!(
        supervisor.result("return [typeof left, typeof ({}).left]"),
        json!(["undefined", "undefined"])
    );
}

#[test]
fn a_host_is_initialized_once_for_each_agent_and_never_shared() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let who = |agent: &str| supervisor.execute_for(agent, "return await Who()")["result"].clone();
    let (first, again, other) = (who("one"), who("one"), who("two"));
    assert_eq!(first, again, "the same process, initialized once");
    assert_eq!(
        (&first["agent"], &first["initialized"], &other["agent"], &other["initialized"]),
        (&json!("one"), &json!(1), &json!("two"), &json!(1))
    );
    assert_ne!(first["pid"], other["pid"]);
}

#[test]
fn an_initialize_that_throws_is_the_execution_s_error() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let execution = supervisor.execute_for("initialize-throws", "return 1");
    assert_eq!(
        (&execution["status"], &execution["errorDetails"]["code"]),
        (&json!("error"), &json!("initialize_failed"))
    );
    assert!(execution["error"].as_str().unwrap().contains("no token for this agent"));
    assert_eq!(supervisor.result("return 1"), 1);
}

#[test]
fn a_backend_is_reached_and_its_absence_is_explained() {
    let backend = Backend::start();
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    assert_eq!(supervisor.result("return await Fetch({ path: '/rates' })"), json!({ "path": "/rates" }));

    let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", closed.local_addr().unwrap());
    drop(closed);
    supervisor.provision_with(json!({ "environmentName": "down", "backendUrls": { "backend": url } }));
    let body =
        json!({ "environmentName": "down", "userAgentId": "a", "code": "return await Fetch({ path: '/' })" });
    let execution = supervisor.post("/api/execute", &body).body;
    assert_eq!(execution["status"], "error");
    assert!(execution["error"].as_str().unwrap().contains("refused"), "{execution}");
}

#[test]
fn a_caller_that_goes_away_cancels_its_program_and_leaves_a_record() {
    let backend = Backend::start();
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    let code = "await Fetch({ path: '/started' }); await Wait({ ms: 10000 })";
    let stream = supervisor.begin("gone", code);
    wait_for("the program to start", || backend.was_asked("/started").then_some(()));
    drop(stream);
    let row = wait_for("the record", || supervisor.records().into_iter().find(|row| row["agent"] == "gone"));
    assert_eq!(row["status"], "cancelled");
}

#[test]
fn every_execution_is_recorded_before_its_answer() {
    let supervisor = Supervisor::start();
    supervisor.provision();
    let code = "return await Echo({ a: 1 })";
    let execution = supervisor.execute_for("auditor", code);
    let rows = supervisor.records();
    let row =
        rows.iter().find(|row| row["id"] == execution["id"]).expect("the row is there when the answer is");
    assert_eq!(
        (&row["agent"], &row["environment"], &row["status"], &row["code"]),
        (&json!("auditor"), &json!("test"), &json!("completed"), &json!(code))
    );
    assert_eq!(row["code_sha256"], "0254c6aef861be1d0ae7b011af6d7e0fd60998fbfc58e9cde92beaf474d114b9");
    assert_eq!(row["build"], supervisor.get("/api/environments/test").body["build"]);
    let effects: Value = serde_json::from_str(row["effects"].as_str().unwrap()).unwrap();
    assert_eq!((&effects[0]["name"], &effects[0]["state"]), (&json!("Echo"), &json!("returned")));
}

#[test]
fn the_operator_bounds_the_dials_of_isolation() {
    let mut supervisor = Supervisor::start();
    let shared = json!({ "isolation": { "guest": "environment", "host": "environment" } });
    supervisor.provision_with(shared.clone());
    let held = |supervisor: &Supervisor| supervisor.execute("return 1")["isolation"].clone();
    assert_eq!(held(&supervisor), shared["isolation"], "the control");
    supervisor.signal(nix::sys::signal::Signal::SIGTERM);
    supervisor.wait();
    supervisor.configure("[isolation]\nguest = 'agent'\nhost = 'agent'\n");
    supervisor.start_again();
    assert_eq!(held(&supervisor), json!({ "guest": "agent", "host": "agent" }));
    for (dial, value) in [("guest", "environment"), ("host", "environment")] {
        let definition = json!({ "environmentName": "weak", "backendUrls": {}, "packageJson": {}, "codeImplementation": crate::support::IMPLEMENTATION, "isolation": { dial: value } });
        let answer = supervisor.post("/api/environments", &definition);
        let error = &answer.body["errors"][0];
        assert_eq!(
            (answer.status, &error["pointer"]),
            (400, &json!(format!("/isolation/{dial}"))),
            "{answer:?}"
        );
        assert!(error["detail"].as_str().unwrap().contains("the operator allows agent"), "{error}");
    }
    supervisor.provision_with(json!({ "environmentName": "fresh", "isolation": { "guest": "execution" } }));
}

#[test]
fn the_dials_of_isolation_decide_which_process_serves_whom() {
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "environmentName": "fresh", "isolation": { "guest": "execution" } }));
    supervisor.provision_with(json!({ "environmentName": "shared", "isolation": { "guest": "environment", "host": "environment" } }));
    let run = |environment: &str, agent: &str, code: &str| {
        let body = json!({ "environmentName": environment, "userAgentId": agent, "code": code });
        let answer = supervisor.post("/api/execute", &body);
        assert_eq!(answer.body["status"], "completed", "{answer:?}");
        answer.body
    };
    let who =
        |environment: &str, agent: &str| run(environment, agent, "return await Who()")["result"].clone();
    // A host that serves agents one after another is initialized anew for each.
    let (first, second) = (who("shared", "one"), who("shared", "two"));
    assert_eq!(first["pid"], second["pid"]);
    assert_eq!((&second["agent"], &second["initialized"]), (&json!("two"), &json!(2)));
    assert!(run("shared", "one", "return 1")["warnings"][0].as_str().unwrap().contains("SES alone"));
    // A guest that served an execution is gone after it.
    let guests = || {
        crate::support::children(supervisor.pid())
            .into_iter()
            .filter(|child| child.kind() == "guest")
            .map(|child| child.pid)
            .collect::<Vec<_>>()
    };
    let before = guests();
    for _ in 0..4 {
        run("fresh", "one", "return 1");
    }
    wait_for("the guests of fresh executions to be gone", || {
        before.iter().any(|pid| !guests().contains(pid)).then_some(())
    });
    assert_eq!(who("fresh", "one")["pid"], who("fresh", "one")["pid"], "the host stays with its agent");
}
