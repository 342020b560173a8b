//! `supervisor provision DIR`.

use std::collections::BTreeMap;
use std::io::IsTerminal as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use axum::http::Method;
use http_body_util::BodyExt as _;
use indicatif::{ProgressBar, ProgressStyle};
use serde::Deserialize;

use super::client::Client;
use super::output::{Failure, Format, complain, print, print_json};
use crate::config::{Isolation, Settings};
use crate::environment::{EnvironmentView, Limits, Phase, WireDefinition};
use crate::http::ProvisionEvent;

#[derive(clap::Args)]
pub struct Arguments {
    /// A folder with environment.toml, package.json, index.js and perhaps package-lock.json
    dir: PathBuf,
    /// The environment's name, instead of the one in environment.toml
    #[arg(long)]
    name: Option<String>,
    /// Replace the environment if the name is in use
    #[arg(long)]
    update: bool,
    /// Check the folder and change nothing
    #[arg(long)]
    dry_run: bool,
}

/// `environment.toml`: the same words as in REST.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct File {
    name: Option<String>,
    policy: Option<String>,
    #[serde(default)]
    backend_urls: BTreeMap<String, String>,
    limits: Option<Limits>,
    isolation: Option<Isolation>,
    install_scripts: Option<Vec<String>>,
    keep_warm: Option<bool>,
}

pub async fn run(settings: Settings, arguments: Arguments, format: Format) -> Result<ExitCode, Failure> {
    let wire = read_folder(&arguments.dir, arguments.name)?;
    let mut client = Client::open(settings).await?;
    let result = send(&mut client, &wire, arguments.update, arguments.dry_run, format).await;
    client.close().await;
    result.map(|()| ExitCode::SUCCESS)
}

async fn send(
    client: &mut Client,
    wire: &WireDefinition,
    update: bool,
    dry_run: bool,
    format: Format,
) -> Result<(), Failure> {
    let name = wire.environment_name.as_deref().unwrap_or_default();
    let (method, path) = match update {
        true => (Method::PUT, format!("/api/environments/{name}")),
        false => (Method::POST, "/api/environments".to_owned()),
    };
    if dry_run {
        let answer: serde_json::Value =
            client.call(method, &format!("{path}?dryRun=true"), Some(wire)).await?;
        if format == Format::Json {
            return print_json(&answer);
        }
        print(&format!("the definition of {name} is valid; nothing was changed"));
        return Ok(());
    }
    let response = client.send(method, &path, Some(wire), "application/x-ndjson").await?;
    let view = follow(response.into_body()).await?;
    if format == Format::Json {
        return print_json(&view);
    }
    for package in &view.skipped_scripts {
        complain(&format!(
            "the install scripts of {package} were not run: name it in installScripts if it needs them"
        ));
    }
    print(&format!("{name} is ready: {}", view.endowments.join(", ")));
    Ok(())
}

/// Shows the phases as they come, until the environment or the problem does.
async fn follow(mut body: axum::body::Body) -> Result<EnvironmentView, Failure> {
    let display = Display::new();
    let mut pending = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Failure::unavailable(format!("the supervisor went away: {error}")))?;
        pending.extend_from_slice(frame.data_ref().map_or(&[], |data| data.as_ref()));
        while let Some(end) = pending.iter().position(|byte| *byte == b'\n') {
            let line: Vec<u8> = pending.drain(..=end).collect();
            match serde_json::from_slice(&line).map_err(Failure::internal)? {
                ProvisionEvent::Phase(phase) => display.show(&phase),
                ProvisionEvent::Environment(view) => return Ok(*view),
                ProvisionEvent::Problem(problem) => return Err(Failure::problem(&problem)),
            }
        }
    }
    Err(Failure::unavailable("the supervisor went away before it answered"))
}

/// A spinner on a terminal, plain lines elsewhere; both on the standard error.
struct Display(Option<ProgressBar>);

impl Display {
    fn new() -> Display {
        let spinner = std::io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(std::time::Duration::from_millis(100));
            bar
        });
        Display(spinner)
    }

    fn show(&self, phase: &Phase) {
        let text = match phase {
            Phase::Validate => "validate".to_owned(),
            Phase::Resolve => "resolve packages".to_owned(),
            Phase::Install(packages) => format!("install {packages} packages"),
            Phase::Load => "load".to_owned(),
            Phase::Ready => "ready".to_owned(),
        };
        match &self.0 {
            Some(bar) => bar.set_message(text),
            None => complain(&text),
        }
    }
}

impl Drop for Display {
    fn drop(&mut self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}

fn read_folder(folder: &Path, name: Option<String>) -> Result<WireDefinition, Failure> {
    let read = |file: &str| {
        let path = folder.join(file);
        std::fs::read_to_string(&path).map_err(|error| Failure::data(format!("{}: {error}", path.display())))
    };
    let file: File = toml::from_str(&read("environment.toml")?)
        .map_err(|error| Failure::data(format!("environment.toml: {error}")))?;
    let lock = folder.join("package-lock.json").exists().then(|| read("package-lock.json")).transpose()?;
    let name = name
        .or(file.name)
        .ok_or_else(|| Failure::data("environment.toml has no name: add one, or use --name"))?;
    Ok(WireDefinition {
        environment_name: Some(name),
        backend_urls: Some(file.backend_urls),
        package_json: Some(read("package.json")?.into()),
        code_implementation: Some(read("index.js")?),
        package_lock: lock.map(Into::into),
        policy: file.policy,
        limits: file.limits,
        isolation: file.isolation,
        install_scripts: file.install_scripts,
        keep_warm: file.keep_warm,
    })
}
