//! npm packages, from the real registry.

use std::path::Path;

use serde_json::{Value, json};

use crate::support::{Backend, Supervisor};

const USES_AXIOS: &str = "const axios = require('axios');
let http;
async function Initialize(agentId, backends) { http = axios.create({ baseURL: backends.backend }) }
async function Deinitialize() {}
// @endowment
async function Get(params = {}) { return (await http.get(params.path)).data }
";

#[test]
fn an_environment_with_a_real_package_is_provisioned_with_and_without_a_lockfile() {
    let backend = Backend::start();
    let supervisor = Supervisor::start();
    // The script would make the installation fail, if it were run.
    let package_json = json!({ "dependencies": { "axios": "1.21.1" }, "scripts": { "preinstall": "exit 1", "install": "exit 1" } });
    let created = supervisor.provision_with(json!({
        "codeImplementation": USES_AXIOS, "packageJson": package_json, "backendUrls": { "backend": backend.url() }
    }));
    let lock = created.body["packageLock"].clone();
    assert_eq!(lock["packages"]["node_modules/axios"]["version"], "1.21.1");
    assert_eq!(supervisor.result("return await Get({ path: '/by-axios' })"), json!({ "path": "/by-axios" }));

    let again = supervisor.provision_with(json!({
        "environmentName": "locked", "codeImplementation": USES_AXIOS, "packageJson": package_json, "packageLock": lock, "backendUrls": {}
    }));
    assert_eq!(again.body["packageLock"]["packages"]["node_modules/axios"]["version"], "1.21.1");
    let build = supervisor.data().join("builds").join(again.body["build"].as_str().unwrap());
    assert!(build.join("node_modules/axios/package.json").exists());
    assert_no_links_out(&build);
}

/// No link in a build leads out of it, and nothing of it can be changed by a jailed user.
fn assert_no_links_out(folder: &Path) {
    use std::os::unix::fs::MetadataExt as _;
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = path.symlink_metadata().unwrap();
        assert_eq!(metadata.uid(), 0, "{}", path.display());
        assert!(metadata.is_symlink() || metadata.mode() & 0o022 == 0, "{}", path.display());
        if metadata.is_dir() {
            assert_no_links_out(&path);
        }
    }
}

#[test]
fn an_installation_that_fails_leaves_nothing_and_says_what_npm_said() {
    let supervisor = Supervisor::start();
    let cases = [
        (json!({ "dependencies": { "no-such-package-of-cloister-tests": "1.0.0" } }), Value::Null, "E404"),
        (json!({ "dependencies": { "ms": "999.0.0" } }), Value::Null, "ETARGET"),
        (json!({ "dependencies": { "ms": "git+https://github.com/vercel/ms.git" } }), Value::Null, "git"),
        (json!({ "dependencies": { "ms": "file:../../../etc" } }), Value::Null, "file"),
        (
            json!({ "dependencies": { "ms": "2.1.3" } }),
            json!({ "lockfileVersion": 3, "packages": {} }),
            "EUSAGE",
        ),
    ];
    for (package_json, lock, reason) in cases {
        let mut body = json!({ "environmentName": "broken", "backendUrls": {}, "packageJson": package_json, "codeImplementation": USES_AXIOS });
        if !lock.is_null() {
            body["packageLock"] = lock;
        }
        let answer = supervisor.post("/api/environments", &body);
        assert_eq!((answer.status, &answer.body["code"]), (422, &json!("install_failed")), "{answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains(reason), "{reason}: {answer:?}");
    }
    assert_eq!(supervisor.get("/api/environments/broken").status, 404);
    assert_eq!(std::fs::read_dir(supervisor.data().join("builds")).unwrap().count(), 0);
}

#[test]
fn provisioning_shows_how_many_packages_it_installs() {
    let supervisor = Supervisor::start();
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in [
        ("environment.toml", "name = 'counted'\n"),
        ("package.json", r#"{"dependencies":{"axios":"1.21.1"}}"#),
        ("index.js", USES_AXIOS),
    ] {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    let output = supervisor.run(&["provision", folder.path().to_str().unwrap()]);
    let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
    let lines: Vec<&str> = stderr.lines().collect();
    let [validate, resolve, install, load, ready] = lines.as_slice() else { panic!("{stderr}") };
    assert_eq!([*validate, *resolve, *load, *ready], ["validate", "resolve packages", "load", "ready"]);
    let count = install.strip_prefix("install ").and_then(|rest| rest.strip_suffix(" packages")).unwrap();
    assert!(count.parse::<u32>().unwrap() >= 5, "{install}");
}

#[test]
fn the_operator_s_registry_and_proxy_are_used() {
    let body = json!({ "environmentName": "x", "backendUrls": {}, "packageJson": { "dependencies": { "ms": "2.1.3" } }, "codeImplementation": USES_AXIOS });
    let registry = Backend::start();
    let supervisor = Supervisor::with_variables(&[
        ("npm_config_registry", &registry.url()),
        ("npm_config_fetch_retries", "0"),
    ]);
    // The backend is no registry, so the installation fails; but it was asked.
    assert_eq!(supervisor.post("/api/environments", &body).body["code"], "install_failed");
    assert!(registry.was_asked("/ms"));

    let proxy = Backend::start();
    let variables = [
        ("npm_config_registry", "http://registry.invalid/"),
        ("HTTP_PROXY", &proxy.url()),
        ("http_proxy", &proxy.url()),
        ("npm_config_fetch_retries", "0"),
    ];
    let supervisor = Supervisor::with_variables(&variables);
    assert_eq!(supervisor.post("/api/environments", &body).body["code"], "install_failed");
    assert!(proxy.was_asked("http://registry.invalid/ms"));
}

/// `fixtures/registry.js`, ended with the test.
struct Registry {
    child: std::process::Child,
    url: String,
}

impl Registry {
    fn start() -> Registry {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/fixtures/registry.js");
        let mut command = std::process::Command::new(crate::support::node());
        let mut child = command.arg(script).stdout(std::process::Stdio::piped()).spawn().unwrap();
        let mut line = String::new();
        let mut output = std::io::BufReader::new(child.stdout.take().unwrap());
        std::io::BufRead::read_line(&mut output, &mut line).unwrap();
        Registry { child, url: line.trim().to_owned() }
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

const USES_NOTHING: &str = "const fs = require('node:fs');
async function Initialize(agentId, backends) {}
async function Deinitialize() {}
// @endowment
async function Made(params = {}) { return fs.existsSync('node_modules/harmless/made') }
";

#[test]
fn install_scripts_run_for_listed_packages_only_and_what_they_try_refuses_the_package_by_name() {
    let registry = Registry::start();
    let secret = ("npm_config__auth", "c2VjcmV0OnRva2Vu");
    let supervisor = Supervisor::with_variables(&[("npm_config_registry", &registry.url), secret]);
    let provision = |name: &str, package: &str, listed: &[&str]| {
        let packages = json!({ "dependencies": { package: "1.0.0" } });
        let body = json!({ "environmentName": name, "backendUrls": {}, "packageJson": packages, "codeImplementation": USES_NOTHING, "installScripts": listed });
        supervisor.post("/api/environments", &body)
    };
    let made = |name: &str| {
        let body = json!({ "environmentName": name, "userAgentId": "a", "code": "return await Made()" });
        supervisor.post("/api/execute", &body).body["result"].clone()
    };
    let silent = provision("silent", "harmless", &[]);
    assert_eq!((silent.status, &silent.body["skippedScripts"]), (201, &json!(["harmless"])), "{silent:?}");
    assert_eq!(made("silent"), false);
    let listed = provision("listed", "harmless", &["harmless"]);
    assert_eq!((listed.status, &listed.body["skippedScripts"]), (201, &json!([])), "{listed:?}");
    assert_eq!(made("listed"), true, "the control: a script that is listed has run");
    let attempts = [
        ("connecting", "evil.example:9"),
        ("reading", "ENOENT"),
        ("writing", "ENOENT"),
        ("spawning", "EPERM"),
        ("shell", "only `node FILE`"),
        ("stealing", "nothing to steal"),
        ("calling", "127.0.0.1"),
    ];
    for (package, reason) in attempts {
        assert_eq!(provision(&format!("without-{package}"), package, &[]).status, 201, "it runs no script");
        let answer = provision(package, package, &[package]);
        assert_eq!((answer.status, &answer.body["code"]), (422, &json!("install_failed")), "{answer:?}");
        let detail = answer.body["detail"].as_str().unwrap();
        assert!(
            detail.contains(&format!("postinstall script of {package}")) && detail.contains(reason),
            "{detail}"
        );
        assert_eq!(supervisor.get(&format!("/api/environments/{package}")).status, 404);
    }
    assert!(!Path::new("/tmp/cloister-written-by-a-package").exists());
    // An alias takes the place of the package that is listed, and is another one.
    let packages = json!({ "dependencies": { "harmless": "npm:reading@1.0.0" } });
    let body = json!({ "environmentName": "alias", "backendUrls": {}, "packageJson": packages, "codeImplementation": USES_NOTHING, "installScripts": ["harmless"] });
    let alias = supervisor.post("/api/environments", &body);
    assert!(alias.body["detail"].as_str().unwrap().contains("names harmless"), "{alias:?}");
    let unknown = provision("unknown", "harmless", &["other"]);
    assert!(unknown.body["detail"].as_str().unwrap().contains("names other"), "{unknown:?}");
}

#[test]
fn what_an_installation_may_write_is_bounded() {
    let registry = Registry::start();
    let supervisor = Supervisor::with_variables(&[("npm_config_registry", &registry.url)]);
    for (package, reason) in [("filling", "bytes"), ("nesting", "nested")] {
        let packages = json!({ "dependencies": { package: "1.0.0" } });
        let body = json!({ "environmentName": package, "backendUrls": {}, "packageJson": packages, "codeImplementation": USES_NOTHING, "installScripts": [package] });
        let answer = supervisor.post("/api/environments", &body);
        assert_eq!((answer.status, &answer.body["code"]), (422, &json!("install_failed")), "{answer:?}");
        assert!(answer.body["detail"].as_str().unwrap().contains(reason), "{answer:?}");
    }
    assert_eq!(std::fs::read_dir(supervisor.data().join("builds")).unwrap().count(), 0);
}
