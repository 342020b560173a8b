//! `supervisor exec ENVIRONMENT`.

use std::io::Read as _;
use std::path::PathBuf;
use std::process::ExitCode;

use axum::http::Method;
use serde_json::Value;

use super::client::Client;
use super::output::{Failure, Format, complain, print, print_json};
use crate::config::{Settings, limits};
use crate::execution::WireExecution;

#[derive(clap::Args)]
pub struct Arguments {
    environment: String,
    /// A file with the program; - or nothing is the standard input
    file: Option<PathBuf>,
    /// The program itself
    #[arg(short = 'e', long = "eval", value_name = "CODE", conflicts_with = "file")]
    code: Option<String>,
    /// The agent for whom it runs
    #[arg(long, default_value = "cli")]
    agent: String,
    /// Who goes first when executions wait: high, normal or low
    #[arg(long)]
    priority: Option<String>,
    /// Wall time in milliseconds
    #[arg(long, value_name = "MS")]
    timeout: Option<u64>,
}

pub async fn run(settings: Settings, arguments: Arguments, format: Format) -> Result<ExitCode, Failure> {
    let code = match (arguments.code, &arguments.file) {
        (Some(code), _) => code,
        (None, Some(file)) if file.as_os_str() != "-" => std::fs::read_to_string(file)
            .map_err(|error| Failure::data(format!("{}: {error}", file.display())))?,
        _ => read_stdin()?,
    };
    let wire = WireExecution {
        environment_name: Some(arguments.environment),
        code: Some(code),
        user_agent_id: Some(arguments.agent),
        priority: arguments.priority,
        timeout: arguments.timeout.map(Value::from),
        ..WireExecution::default()
    };
    let mut client = Client::running(&settings).await?;
    let answer: Value = client.call(Method::POST, "/api/execute", Some(&wire)).await?;
    let text = |field: &str| answer.get(field).and_then(Value::as_str).unwrap_or_default().to_owned();
    let status = text("status");
    match format {
        Format::Json => print_json(&answer)?,
        Format::Text => {
            for line in text("output").lines() {
                complain(line);
            }
            match status.as_str() {
                "completed" => print(&text("executionResult")),
                _ => complain(&format!("{status}: {}", text("error"))),
            }
        }
    }
    Ok(ExitCode::from(match status.as_str() {
        "completed" => 0,
        "timeout" => 124,
        "out_of_memory" => 137,
        _ => 1,
    }))
}

fn read_stdin() -> Result<String, Failure> {
    let mut code = String::new();
    let bytes_max = limits::CODE_BYTES_MAX as u64 + 1;
    std::io::stdin().take(bytes_max).read_to_string(&mut code)?;
    Ok(code)
}
