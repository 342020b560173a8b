//! npm, in its own jail: it writes one folder and reaches the registry, and runs no scripts.
//!
//! The operator's npm configuration is honoured: the user's and the global npmrc, `npm_config_*`,
//! CA files and proxies. npm itself is asked what they amount to, before it has seen anything of the
//! contributor's, so that its answer is the operator's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};

use jail::{Access, Grant, Kind};
use serde_json::Value;

use crate::config::{Operator, limits};
use crate::egress::EgressError;
use crate::worker::{
    ExitCause, Launch, LaunchError, Launcher, Program, node_arguments, node_environment, places, write_fresh,
};

/// Where the folders of an installation are inside the jail.
const BUILD: &str = "/build";
const CONFIG: &str = "/config";

/// Sources other than the registry would reach other hosts or run other programs.
const FLAGS: [&str; 11] = [
    "--ignore-scripts",
    "--no-audit",
    "--no-fund",
    "--no-update-notifier",
    "--no-progress",
    "--omit=dev",
    "--allow-git=none",
    "--allow-remote=none",
    "--allow-file=none",
    "--allow-directory=none",
    "--logs-max=0",
];

#[derive(Debug, thiserror::Error)]
pub enum NpmError {
    /// npm ran and refused; its own words.
    #[error("npm: {0}")]
    Refused(String),
    #[error("npm did not end within {} s", limits::INSTALL_TIME_MAX.as_secs())]
    Slow,
    #[error(transparent)]
    Launch(#[from] LaunchError),
    #[error("the way to the registry cannot be opened: {0}")]
    Egress(#[from] EgressError),
    #[error("npm's folder cannot be prepared: {0}")]
    Io(#[from] io::Error),
    #[error("npm's configuration cannot be read: {0}")]
    Configuration(String),
}

/// What a run of npm sees and may write.
#[derive(Clone, Copy)]
enum Scope {
    /// Its own folder only.
    Configuration,
    /// And the build.
    Build,
}

/// npm with the operator's configuration, working in a staging folder:
/// `build/` becomes the build, `config/` is npm's own.
pub struct Npm<'a> {
    launcher: &'a Launcher,
    operator: &'a Operator,
    staging: &'a Path,
    environment: BTreeMap<String, String>,
    reachable: Vec<String>,
}

impl<'a> Npm<'a> {
    pub async fn prepare(
        launcher: &'a Launcher,
        operator: &'a Operator,
        staging: &'a Path,
    ) -> Result<Npm<'a>, NpmError> {
        let mut npm =
            Npm { launcher, operator, staging, environment: BTreeMap::new(), reachable: Vec::new() };
        npm.copy_configuration()?;
        let printed = npm.run(Scope::Configuration, &["config", "list", "--json"]).await?;
        let settings: Value =
            serde_json::from_slice(&printed).map_err(|error| NpmError::Configuration(error.to_string()))?;
        npm.reachable = reachable(&settings);
        npm.reachable.extend(operator.proxies().cloned());
        if let Some(file) = settings.get("cafile").and_then(Value::as_str) {
            npm.copy(Path::new(file), "ca.pem", "npm_config_cafile")?;
        }
        Ok(npm)
    }

    /// Writes `package-lock.json`.
    pub async fn resolve(&self) -> Result<(), NpmError> {
        self.run(Scope::Build, &[&["install", "--package-lock-only"], FLAGS.as_slice()].concat())
            .await
            .map(drop)
    }

    /// Installs exactly what the lockfile says.
    pub async fn install(&self) -> Result<(), NpmError> {
        self.run(Scope::Build, &[&["ci"], FLAGS.as_slice()].concat()).await.map(drop)
    }

    /// The jailed user cannot read the operator's files in place, so npm gets copies.
    fn copy_configuration(&mut self) -> io::Result<()> {
        let operator = self.operator;
        self.environment.extend(operator.npm_variables.clone());
        let inside = self.launcher.inside(&self.config_folder(), CONFIG);
        for (file, name, variable) in [
            (&operator.user_npmrc, "user.npmrc", "npm_config_userconfig"),
            (&operator.global_npmrc, "global.npmrc", "npm_config_globalconfig"),
            (&operator.extra_ca_file, "extra-ca.pem", "NODE_EXTRA_CA_CERTS"),
        ] {
            match file {
                Some(file) => self.copy(file, name, variable)?,
                // Without a name npm would look for files outside.
                None if variable.starts_with("npm") => self.set(variable, &inside.join("none")),
                None => {}
            }
        }
        self.set("HOME", &inside);
        self.set("npm_config_prefix", &inside.join("prefix"));
        self.set("npm_config_cache", &inside.join("cache"));
        Ok(())
    }

    fn copy(&mut self, file: &Path, name: &str, variable: &str) -> io::Result<()> {
        let named = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", file.display()));
        let content = std::fs::read(file).map_err(named)?;
        write_fresh(&self.config_folder().join(name), &content)?;
        let inside = self.launcher.inside(&self.config_folder(), CONFIG).join(name);
        self.set(variable, &inside);
        Ok(())
    }

    fn set(&mut self, variable: &str, path: &Path) {
        // npm reads its variables whatever their case; the operator's own spelling must not win.
        self.environment.retain(|name, _| !name.eq_ignore_ascii_case(variable));
        self.environment.insert(variable.to_owned(), path.to_string_lossy().into_owned());
    }

    fn config_folder(&self) -> PathBuf {
        self.staging.join("config")
    }

    /// Runs npm to its end and returns what it printed.
    async fn run(&self, scope: Scope, arguments: &[&str]) -> Result<Vec<u8>, NpmError> {
        let folder = self.launcher.worker_folder()?;
        let egress_folder = folder.0.join("egress");
        let _egress = self.launcher.open_egress(&egress_folder, self.reachable.iter())?;
        let build = self.staging.join("build");
        let npm = self.launcher.installation().npm();
        let mut environment = self.environment.clone();
        let egress_inside = self.launcher.inside(&egress_folder, places::EGRESS);
        environment.insert("CLOISTER_EGRESS".to_owned(), egress_inside.to_string_lossy().into_owned());
        environment.extend(node_environment());
        let script = self.launcher.inside(&npm, places::NPM).join("bin/npm-cli.js");
        let mut fixed = node_arguments(limits::INSTALLER_HEAP_MEGABYTES_MAX);
        fixed.push(format!("--import={}", self.launcher.script("egress/preload.js")));
        fixed.push(script.to_string_lossy().into_owned());
        let mut grants = self.launcher.harness_grants();
        grants.push(Grant::new(npm, places::NPM, Access::Read));
        let config = self.config_folder();
        grants.push(Grant::new(&config, CONFIG, Access::Write));
        let directory = match scope {
            Scope::Configuration => self.launcher.inside(&config, CONFIG),
            Scope::Build => {
                grants.push(Grant::new(&build, BUILD, Access::Write));
                self.launcher.inside(&build, BUILD)
            }
        };
        grants.push(Grant::new(&egress_folder, places::EGRESS, Access::Connect));
        let launch = Launch {
            kind: Kind::Installer,
            program: Program::Node,
            arguments: fixed
                .into_iter()
                .chain(arguments.iter().map(|&argument| argument.to_owned()))
                .collect(),
            environment,
            grants,
            directory,
            program_memory_bytes: 0,
            jit: true,
            stdout_bytes_max: limits::INSTALLER_STDOUT_BYTES_MAX,
            folder: Some(folder),
        };
        let (process, _socket) = self.launcher.launch(launch).await?;
        let ended = tokio::time::timeout(limits::INSTALL_TIME_MAX, process.ended()).await;
        let exit = ended.map_err(|_| NpmError::Slow)?;
        match exit.cause {
            ExitCause::Code(0) => Ok(exit.stdout.clone()),
            ExitCause::Code(code) => {
                tracing::debug!(code, stderr = exit.stderr, "npm failed");
                Err(NpmError::Refused(reason(&exit.stderr)))
            }
            ExitCause::Signal(_) => Err(NpmError::Refused(exit.diagnosis())),
        }
    }
}

/// The URLs that npm has to reach: every registry, or the proxies before them.
fn reachable(settings: &Value) -> Vec<String> {
    let Some(settings) = settings.as_object() else { return Vec::new() };
    settings
        .iter()
        .filter(|(key, _)| {
            matches!(key.as_str(), "registry" | "proxy" | "https-proxy") || key.ends_with(":registry")
        })
        .filter_map(|(_, value)| value.as_str().map(str::to_owned))
        .collect()
}

/// npm's own reason, without its prefix and its hint at a log file that will be gone.
fn reason(stderr: &str) -> String {
    let lines = stderr.lines().filter_map(|line| line.strip_prefix("npm error"));
    let kept: Vec<&str> = lines
        .map(str::trim)
        .filter(|line| !line.is_empty() && !line.starts_with("A complete log") && !line.contains("/_logs/"))
        .collect();
    if kept.is_empty() { stderr.trim().to_owned() } else { kept.join("\n") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn npms_reason_is_what_it_said() {
        let stderr = "npm warn x\nnpm error code E404\nnpm error 404 Not Found - GET https://r/no\nnpm error\nnpm error A complete log of this run can be found in: /config/cache/_logs/1-debug-0.log\n";
        assert_eq!(reason(stderr), "code E404\n404 Not Found - GET https://r/no");
        assert_eq!(reason("Killed\n"), "Killed");
    }

    #[test]
    fn registries_and_proxies_are_reachable_and_nothing_else() {
        let settings = serde_json::json!({
            "registry": "https://r/", "@scope:registry": "https://s/", "https-proxy": null, "proxy": "http://p:1", "cafile": "/x",
            "//r/:_authToken": "(protected)"
        });
        let mut found = reachable(&settings);
        found.sort();
        assert_eq!(found, ["http://p:1", "https://r/", "https://s/"]);
    }
}
