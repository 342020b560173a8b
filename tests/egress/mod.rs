//! Connections of hosts: real clients that know nothing of Cloister, and addresses that are refused.

use std::io::{BufRead as _, BufReader};
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};

use crate::support::{Backend, Supervisor, node, wait_for};

/// Backends of every protocol, with a certificate of their own for `localhost`.
struct Backends {
    child: Child,
    ports: Value,
    certificate: String,
}

impl Backends {
    fn start() -> Backends {
        let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let (certificate, key) = (folder.path().join("certificate.pem"), folder.path().join("key.pem"));
        std::fs::write(&certificate, made.cert.pem()).unwrap();
        std::fs::write(&key, made.signing_key.serialize_pem()).unwrap();
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/backends.js");
        let mut child = Command::new(node())
            .arg(script)
            .arg(certificate)
            .arg(key)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        Backends { child, ports: serde_json::from_str(&line).unwrap(), certificate: made.cert.pem() }
    }

    /// `host:port` of one, as URLs and the ledger name it.
    fn address(&self, scheme: &str) -> String {
        let host = if matches!(scheme, "https" | "postgres") { "localhost" } else { "127.0.0.1" };
        format!("{host}:{}", self.ports[scheme])
    }

    fn urls(&self) -> Value {
        json!({
            "http": format!("http://{}", self.address("http")),
            "https": format!("https://{}", self.address("https")),
            "redis": format!("redis://{}", self.address("redis")),
            "postgres": format!("postgres://user:secret@{}/sales", self.address("postgres")),
        })
    }

    /// What the ledger of an execution says of one. Others may be there as well: a client that ends its
    /// connection after it has answered does so while the next execution runs.
    fn event<'a>(&self, execution: &'a Value, scheme: &str) -> &'a Value {
        let address = self.address(scheme);
        let mut events = execution["egress"].as_array().unwrap().iter();
        events.find(|event| event["backend"] == *address).unwrap_or_else(|| panic!("{address}: {execution}"))
    }
}

impl Drop for Backends {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

const CLIENTS: &str = include_str!("../fixtures/clients.js");

#[test]
fn ordinary_clients_work_unchanged() {
    let backends = Backends::start();
    let supervisor = Supervisor::start();
    let packages = json!({ "dependencies": {
        "axios": "1.21.1", "got": "14", "ioredis": "5", "node-fetch": "3", "pg": "8", "undici": "7", "ws": "8"
    } });
    supervisor.provision_with(
        json!({ "codeImplementation": CLIENTS, "packageJson": packages, "backendUrls": backends.urls() }),
    );
    let call = |function: &str, params: Value| {
        let execution = supervisor.execute(&format!("return await {function}({params})"));
        assert_eq!(execution["status"], "completed", "{function} {params}: {execution}");
        execution
    };
    let ca = &backends.certificate;
    for client in ["fetch", "http", "axios", "undici", "got", "nodeFetch"] {
        let execution = call("Get", json!({ "client": client, "scheme": "http" }));
        assert_eq!(execution["result"]["path"], format!("/by-{client}"));
    }
    for client in ["https", "axios", "undici", "got", "nodeFetch"] {
        let execution = call("Get", json!({ "client": client, "scheme": "https", "ca": ca }));
        assert_eq!(execution["result"]["path"], format!("/by-{client}"));
        let event = backends.event(&execution, "https");
        assert!(event["bytesIn"].as_u64() > Some(100) && event["bytesOut"].as_u64() > Some(100), "{event}");
    }
    for scheme in ["http", "https"] {
        assert_eq!(call("Socket", json!({ "scheme": scheme, "ca": ca }))["result"], "hello");
    }
    assert_eq!(call("Query", json!({}))["result"], json!([{ "name": "MySQL" }]));
    assert_eq!(call("Cached", json!({}))["result"], "hello");
    let kept = call("KeepAlive", json!({ "count": 5 }));
    assert_eq!(backends.event(&kept, "http")["connections"], 1, "{kept}");
    let again = call("KeepAlive", json!({ "count": 2 }));
    let event = backends.event(&again, "http");
    assert_eq!(event["connections"], 0, "the connection of the last execution: {again}");
    assert!(event["bytesIn"].as_u64() > Some(100), "{again}");
    let streamed = call("Stream", json!({}));
    assert_eq!(streamed["result"]["uploaded"], 1_000_000);
    assert!(streamed["result"]["chunks"].as_u64() > Some(5), "{streamed}");
    assert!(backends.event(&streamed, "http")["bytesOut"].as_u64() > Some(1_000_000), "{streamed}");
    // A self-signed certificate is not trusted because it passes through here.
    let untrusted = supervisor.execute("return await Get({ client: 'https', scheme: 'https' })");
    assert_eq!(untrusted["errorDetails"]["code"], "DEPTH_ZERO_SELF_SIGNED_CERT", "{untrusted}");
}

#[test]
fn tls_is_loaded_where_an_address_may_speak_it() {
    const IMPLEMENTATION: &str = r#"
        async function Initialize(agentId, backends) {}
        async function Deinitialize() {}
        /** @endowment */
        async function Speak(params = {}) {
            return new Promise((done) => require('node:tls').connect(9, '127.0.0.1').on('error', (error) => done(error.message)));
        }
        /** @endowment */
        async function HasTls(params = {}) { return process.moduleLoadList.includes('NativeModule tls'); }
    "#;
    let supervisor = Supervisor::start();
    let cases = [
        ("none", vec![], false),
        ("plain", vec!["http", "ws"], false),
        ("some", vec!["http", "https"], true),
    ];
    for (name, schemes, expected) in cases {
        let urls: serde_json::Map<String, Value> = schemes
            .iter()
            .map(|scheme| ((*scheme).to_owned(), json!(format!("{scheme}://127.0.0.1:9"))))
            .collect();
        supervisor.provision_with(
            json!({ "environmentName": name, "backendUrls": urls, "codeImplementation": IMPLEMENTATION }),
        );
        let body = json!({ "environmentName": name, "userAgentId": "a", "code": "return await HasTls()" });
        assert_eq!(supervisor.post("/api/execute", &body).body["result"], expected, "{name}");
    }
    let body = json!({ "environmentName": "plain", "userAgentId": "a", "code": "return await Speak()" });
    let told = supervisor.post("/api/execute", &body).body;
    assert!(told["result"].as_str().is_some_and(|message| message.contains("speaks no TLS")), "{told}");
}

/// Names that a resolver could be made to give, whatever the address is.
const HOSTS: &str = "127.0.0.1 localhost\n127.0.0.1 rebound.example\n169.254.169.254 metadata.example\n";

fn fetch_by_name(supervisor: &Supervisor, name: &str, port: &str) -> Value {
    let url = format!("http://{name}:{port}");
    let environment = name.split('.').next().unwrap();
    supervisor.provision_with(json!({ "environmentName": environment, "backendUrls": { "backend": url } }));
    let code = "return await Fetch({ path: '/named' })";
    let body = json!({ "environmentName": environment, "userAgentId": "a", "code": code });
    supervisor.post("/api/execute", &body).body
}

#[test]
fn a_name_that_leads_to_a_special_address_is_refused_unless_the_operator_allows_it() {
    let backend = Backend::start();
    let port = backend.address().rsplit(':').next().unwrap();
    let allowing = Supervisor::with_hosts(HOSTS, "[egress]\nallow = ['127.0.0.0/8']\n");
    assert_eq!(fetch_by_name(&allowing, "rebound.example", port)["result"], json!({ "path": "/named" }));
    let supervisor = Supervisor::with_hosts(HOSTS, "");
    assert_eq!(fetch_by_name(&supervisor, "localhost", port)["result"], json!({ "path": "/named" }));
    for (name, address) in [("rebound.example", "127.0.0.1"), ("metadata.example", "169.254.169.254")] {
        let execution = fetch_by_name(&supervisor, name, port);
        let event = &execution["egress"][0];
        assert_eq!(
            (&event["backend"], &event["state"]),
            (&json!(format!("{name}:{port}")), &json!("refused"))
        );
        let reason = event["reason"].as_str().unwrap();
        assert!(reason.contains(address) && reason.contains("special"), "{reason}");
        assert!(execution["error"].as_str().unwrap().contains(reason), "{execution}");
    }
}

#[test]
fn every_connection_is_in_the_ledger_and_in_the_record() {
    let (backend, other) = (Backend::start(), Backend::start());
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    let execution = supervisor.execute(&format!(
        "await Fetch({{ path: '/one' }}); try {{ await Connect({{ target: '{}' }}) }} catch (error) {{ return error.code }}",
        other.address()
    ));
    assert_eq!(execution["result"], "EACCES");
    let events = &execution["egress"];
    assert_eq!(
        (&events[0]["backend"], &events[0]["state"], &events[0]["connections"]),
        (&json!(backend.address()), &json!("connected"), &json!(1))
    );
    assert!(
        events[0]["bytesIn"].as_u64() > Some(50) && events[0]["bytesOut"].as_u64() > Some(50),
        "{events}"
    );
    assert_eq!((&events[1]["backend"], &events[1]["state"]), (&json!(other.address()), &json!("refused")));
    assert!(events[1]["reason"].as_str().unwrap().contains("backendUrls"), "{events}");
    let records = supervisor.records();
    let record = records.iter().find(|record| record["id"] == execution["id"]).unwrap();
    assert_eq!(serde_json::from_str::<Value>(record["egress"].as_str().unwrap()).unwrap(), *events);
    assert_eq!(supervisor.result("return 1"), 1);
    assert_eq!(supervisor.execute("return await Echo(1)")["egress"], json!([]));
}

#[test]
fn what_a_host_does_after_an_execution_is_recorded_too() {
    let backend = Backend::start();
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    let execution = supervisor.execute("void Later({ ms: 200, path: '/late' }); return 'not waited'");
    assert_eq!((&execution["result"], &execution["egress"]), (&json!("not waited"), &json!([])));
    let late = wait_for("the late connection to be recorded", || {
        supervisor.egress_after().into_iter().find(|(id, _)| execution["id"] == id.as_str())
    });
    assert_eq!(
        (&late.1[0]["backend"], &late.1[0]["state"]),
        (&json!(backend.address()), &json!("connected"))
    );
}

#[test]
fn a_flood_of_reports_hides_no_connection() {
    let backend = Backend::start();
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    let code = "for (let port = 1; port < 80; port += 1) { try { await Connect({ target: `nowhere.example:${port}` }) } catch {} if (port === 49) break }
        return await Fetch({ path: '/seen' })";
    let execution = supervisor.execute(code);
    assert_eq!(execution["result"], json!({ "path": "/seen" }), "{execution}");
    let connected =
        execution["egress"].as_array().unwrap().iter().find(|event| event["state"] == "connected");
    assert_eq!(connected.unwrap()["backend"], backend.address(), "{execution}");
    let refused = execution["egress"].as_array().unwrap().iter().filter(|event| event["state"] == "refused");
    assert_eq!(refused.map(|event| event["connections"].as_u64().unwrap()).sum::<u64>(), 49);
}

#[test]
fn connections_at_the_same_time_are_bounded() {
    let backend = Backend::start();
    let supervisor = Supervisor::start();
    supervisor.provision_with(json!({ "backendUrls": { "backend": backend.url() } }));
    let execution = supervisor.execute("return await Connections({ count: 70 })");
    assert_eq!(execution["result"], 64, "{execution}");
    let refused = &execution["egress"][1];
    assert_eq!((&refused["state"], &refused["connections"]), (&json!("refused"), &json!(6)), "{execution}");
    assert!(refused["reason"].as_str().unwrap().contains("more than 64 connections"), "{refused}");
}
