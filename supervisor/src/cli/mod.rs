//! The command line. Results go to the standard output, everything else to the standard error.

mod bench;
mod client;
mod doctor;
mod environments;
mod exec;
mod output;
mod provision;
mod serve;

use std::io;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use tokio::runtime::{Builder, Runtime};

use crate::config::{Flags, Settings, limits};
use output::{Failure, Format};

/// Runs AI-written JavaScript in jailed Node processes.
#[derive(Parser)]
#[command(name = "supervisor", version, propagate_version = true)]
struct Arguments {
    #[command(flatten)]
    flags: Flags,
    /// How results are printed
    #[arg(short = 'o', long = "output", value_enum, default_value_t, global = true)]
    format: Format,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the REST interface
    Serve(serve::Arguments),
    /// Provision an environment from a folder
    Provision(provision::Arguments),
    /// List, show or remove environments
    #[command(subcommand)]
    Environments(environments::Action),
    /// Run a program in an environment
    Exec(exec::Arguments),
    /// Measure how fast the running supervisor is
    Bench(bench::Arguments),
    /// Show what this host can enforce
    Doctor,
}

pub fn run() -> ExitCode {
    let arguments = Arguments::parse();
    let listen = match &arguments.command {
        Command::Serve(serve) => serve.listen,
        _ => None,
    };
    let result = Settings::load(&arguments.flags, listen)
        .map_err(Failure::configuration)
        .and_then(|settings| start(arguments, settings));
    match result {
        Ok(code) => code,
        Err(failure) => failure.report(),
    }
}

/// Half of the processors: the guests and hosts that the supervisor waits for need the others, and a message that
/// wakes a second thread is slower than one that does not.
fn runtime_threads() -> usize {
    limits::processors().div_ceil(2)
}

/// One thread alone needs no scheduler for several.
fn runtime() -> io::Result<Runtime> {
    match runtime_threads() {
        1 => Builder::new_current_thread().enable_all().build(),
        threads => Builder::new_multi_thread().worker_threads(threads).enable_all().build(),
    }
}

fn start(arguments: Arguments, settings: Settings) -> Result<ExitCode, Failure> {
    let runtime = runtime().map_err(Failure::internal)?;
    let format = arguments.format;
    let result = runtime.block_on(async {
        match arguments.command {
            Command::Serve(_) => serve::run(settings).await,
            Command::Provision(provision) => provision::run(settings, provision, format).await,
            Command::Environments(action) => environments::run(settings, action, format).await,
            Command::Exec(exec) => exec::run(settings, exec, format).await,
            Command::Bench(bench) => bench::run(settings, bench, format).await,
            Command::Doctor => doctor::run(settings, format).await,
        }
    });
    // Reading a standard input that nobody closes must not keep the process.
    runtime.shutdown_background();
    result
}
