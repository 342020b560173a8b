//! npm, in its own jail: it writes one folder and reaches the registry, and runs no scripts. The
//! install scripts of packages that an environment lists are run afterwards, one by one, in the same
//! kind of jail, which then has the build folder and nothing else: no configuration, no registry.
//!
//! The operator's npm configuration is honoured: the user's and the global npmrc, `npm_config_*`,
//! CA files and proxies. npm itself is asked what they amount to, before it has seen anything of the
//! contributor's, so that its answer is the operator's.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tokio::time::Instant;

use jail::{Access, Grant, Kind};
use serde_json::Value;

use super::lockfile::folders_of;
use crate::config::{Operator, limits};
use crate::egress::{EgressError, EgressEvent, EgressState};
use crate::worker::{
    Exit, ExitCause, Launch, LaunchError, Launcher, Process, Program, TreeError, TreeLimits, check_tree,
    node_arguments, node_environment, places, read_untrusted, write_fresh,
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
    #[error("it did not end within {} s", limits::INSTALL_TIME_MAX.as_secs())]
    Slow,
    #[error("what it wrote is too much: {0}")]
    TooLarge(TreeError),
    #[error("the {event} script of {package} did what the jail refuses, or failed: {reason}")]
    Script { package: String, event: &'static str, reason: String },
    #[error("installScripts names {0}, which is not among the packages of the lockfile")]
    NoSuchPackage(String),
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

/// What runs in the jail.
#[derive(Clone, Copy)]
enum Tool {
    Npm,
    /// `node-harness/src/installer`
    Script,
}

/// The scripts that npm would run when it installs a package, in its order (`npm help scripts`).
const SCRIPT_EVENTS: [&str; 3] = ["preinstall", "install", "postinstall"];

/// npm with the operator's configuration, working in a staging folder:
/// `build/` becomes the build, `config/` is npm's own.
pub struct Npm<'a> {
    launcher: &'a Launcher,
    operator: &'a Operator,
    staging: &'a Path,
    environment: BTreeMap<String, String>,
    reachable: Vec<String>,
    /// When the whole installation must have ended.
    deadline: Instant,
}

impl<'a> Npm<'a> {
    pub async fn prepare(
        launcher: &'a Launcher,
        operator: &'a Operator,
        staging: &'a Path,
    ) -> Result<Npm<'a>, NpmError> {
        let mut npm = Npm {
            launcher,
            operator,
            staging,
            environment: BTreeMap::new(),
            reachable: Vec::new(),
            deadline: Instant::now() + limits::INSTALL_TIME_MAX,
        };
        npm.copy_configuration()?;
        let printed = npm.run(Tool::Npm, Scope::Configuration, &["config", "list", "--json"]).await?;
        let settings: Value = serde_json::from_slice(&printed.stdout)
            .map_err(|error| NpmError::Configuration(error.to_string()))?;
        npm.reachable = reachable(&settings);
        npm.reachable.extend(operator.proxies().cloned());
        if let Some(file) = settings.get("cafile").and_then(Value::as_str) {
            npm.copy(Path::new(file), "ca.pem", "npm_config_cafile")?;
        }
        Ok(npm)
    }

    /// Writes `package-lock.json`.
    pub async fn resolve(&self) -> Result<(), NpmError> {
        let arguments = [&["install", "--package-lock-only"], FLAGS.as_slice()].concat();
        self.run(Tool::Npm, Scope::Build, &arguments).await.map(drop)
    }

    /// Installs exactly what the lockfile says.
    pub async fn install(&self) -> Result<(), NpmError> {
        self.run(Tool::Npm, Scope::Build, &[&["ci"], FLAGS.as_slice()].concat()).await.map(drop)
    }

    /// Runs the install scripts of one package, wherever the lockfile has put it. A script that fails,
    /// or asks for an address that it may not reach, refuses the installation.
    pub async fn run_scripts(&self, package: &str, package_lock: &str) -> Result<(), NpmError> {
        let folders = folders_of(package, package_lock);
        if folders.is_empty() {
            return Err(NpmError::NoSuchPackage(package.to_owned()));
        }
        let build = self.launcher.inside(&self.build_folder(), BUILD);
        for folder in folders {
            let inside = build.join(&folder).to_string_lossy().into_owned();
            for event in self.events_of(&folder)? {
                let failed = |reason| NpmError::Script { package: package.to_owned(), event, reason };
                let ran = self.run(Tool::Script, Scope::Build, &[&inside, package, event]).await;
                let refused = match ran {
                    Ok(ran) => ran.egress.into_iter().find(|event| event.state == EgressState::Refused),
                    Err(NpmError::Refused(reason)) => return Err(failed(reason)),
                    Err(NpmError::Slow) => return Err(failed(NpmError::Slow.to_string())),
                    Err(error) => return Err(error),
                };
                if let Some(event) = refused {
                    return Err(failed(format!("it asked for {}", event.backend)));
                }
            }
        }
        Ok(())
    }

    /// The scripts that a package has; what its package.json says is the package's own.
    fn events_of(&self, folder: &str) -> Result<Vec<&'static str>, NpmError> {
        let file = self.build_folder().join(folder).join("package.json");
        let manifest: Value = serde_json::from_slice(&read_untrusted(&file, limits::PACKAGE_JSON_BYTES_MAX)?)
            .unwrap_or_default();
        let has = |event: &&str| manifest.pointer(&format!("/scripts/{event}")).is_some();
        Ok(SCRIPT_EVENTS.into_iter().filter(has).collect())
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

    fn build_folder(&self) -> PathBuf {
        self.staging.join("build")
    }

    /// Runs a tool to its end.
    async fn run(&self, tool: Tool, scope: Scope, arguments: &[&str]) -> Result<Ran, NpmError> {
        let folder = self.launcher.worker_folder()?;
        let egress_folder = folder.path().join("egress");
        // A package must neither learn the operator's credentials nor use them.
        let (reachable, mut environment) = match tool {
            Tool::Npm => (self.reachable.as_slice(), self.environment.clone()),
            Tool::Script => (&[] as &[String], BTreeMap::new()),
        };
        let egress = self.launcher.open_egress(&egress_folder, reachable.iter())?;
        let egress_inside = self.launcher.inside(&egress_folder, places::EGRESS);
        environment.insert("CLOISTER_EGRESS".to_owned(), egress_inside.to_string_lossy().into_owned());
        environment.extend(node_environment());
        let npm = self.launcher.installation().npm();
        let mut fixed = node_arguments(limits::INSTALLER_HEAP_MEGABYTES_MAX);
        fixed.push(self.launcher.egress_preload());
        fixed.push(match tool {
            Tool::Npm => {
                let script = self.launcher.inside(&npm, places::NPM).join("bin/npm-cli.js");
                script.to_string_lossy().into_owned()
            }
            Tool::Script => self.launcher.script("src/installer/main.js"),
        });
        let (config, build) = (self.config_folder(), self.build_folder());
        let mut grants = self.launcher.harness_grants();
        if let Tool::Npm = tool {
            grants.push(Grant::new(npm, places::NPM, Access::Read));
            grants.push(Grant::new(&config, CONFIG, Access::Write));
        }
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
        let exit = self.watched(process).await?;
        match exit.cause {
            ExitCause::Code(0) => Ok(Ran { stdout: exit.stdout.clone(), egress: egress.take_events() }),
            ExitCause::Code(code) => {
                tracing::debug!(code, stderr = exit.stderr, "an installation failed");
                let refused = egress.take_failure().map(|reason| format!("\n({reason})"));
                Err(NpmError::Refused(reason(&exit.stderr) + &refused.unwrap_or_default()))
            }
            ExitCause::Signal(_) => Err(NpmError::Refused(exit.diagnosis())),
        }
    }

    /// Waits for the end, and ends a process that takes too long or writes too much.
    async fn watched(&self, process: Process) -> Result<Arc<Exit>, NpmError> {
        let deadline = tokio::time::sleep_until(self.deadline);
        tokio::pin!(deadline);
        let mut checks = tokio::time::interval(limits::BUILD_CHECK_PERIOD);
        loop {
            tokio::select! {
                exit = process.ended() => {
                    self.check_size().await?;
                    return Ok(exit);
                }
                _ = checks.tick() => {
                    if let Err(error) = self.check_size().await {
                        // What it goes on writing would be in the way of its removal.
                        drop(process.kill().await);
                        return Err(error);
                    }
                }
                () = &mut deadline => {
                    drop(process.kill().await);
                    return Err(NpmError::Slow);
                }
            }
        }
    }

    async fn check_size(&self) -> Result<(), NpmError> {
        const LIMITS: TreeLimits = TreeLimits {
            bytes_max: limits::BUILD_BYTES_MAX,
            entries_max: limits::BUILD_ENTRIES_MAX,
            depth_max: limits::BUILD_DEPTH_MAX,
        };
        let staging = self.staging.to_owned();
        let checked = tokio::task::spawn_blocking(move || check_tree(&staging, LIMITS)).await;
        checked.map_err(io::Error::other)?.map_err(NpmError::TooLarge)
    }
}

/// A tool that ended well.
struct Ran {
    stdout: Vec<u8>,
    egress: Vec<EgressEvent>,
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
