//! `supervisor bench`: how fast this host is, measured through the running supervisor.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use axum::http::Method;
use serde::Serialize;
use serde_json::{Value, json};

use super::client::Client;
use super::output::{Failure, Format, complain, print, print_json};
use crate::clock::milliseconds;
use crate::config::Settings;
use crate::environment::WireDefinition;

const OWN_FUNCTIONS: &str = "
async function Initialize(agentId, backends) {}
async function Deinitialize() {}
// @endowment
async function GetRates(params = {}) { return [{ product: 'MySQL', ok: 12, failed: 3 }] }
";
const OWN_PROGRAM: &str =
    "async function main() { const rates = await GetRates({}); return rates[0].ok / rates.length }";

/// The first executions start processes and warm compilers up; they are not counted.
const WARM_UP: Duration = Duration::from_secs(1);

#[derive(clap::Args)]
pub struct Arguments {
    /// An environment; without one, one with one function is provisioned and removed again
    #[arg(long, value_name = "NAME")]
    environment: Option<String>,
    /// The program [default: one call of the function; with an environment, `1`]
    #[arg(short = 'e', long = "eval", value_name = "CODE")]
    code: Option<String>,
    /// Programs at the same time
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=512))]
    clients: u32,
    /// Agents among whom the clients are divided; 0 is a new one for each program
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(0..=10_000))]
    agents: u32,
    /// Seconds
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=600))]
    duration: u64,
}

/// What was measured; times are milliseconds, from the request to the whole answer.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Report {
    environment: String,
    clients: u32,
    agents: u32,
    seconds: f64,
    executions: usize,
    per_second: f64,
    p50_ms: f64,
    p90_ms: f64,
    p99_ms: f64,
    max_ms: f64,
    /// How many ended how.
    statuses: BTreeMap<String, usize>,
    /// Programs that did not run, by the reason.
    refusals: BTreeMap<String, usize>,
}

/// What one client measured.
#[derive(Default)]
struct Measured {
    times: Vec<f64>,
    statuses: BTreeMap<String, usize>,
    refusals: BTreeMap<String, usize>,
}

pub async fn run(settings: Settings, arguments: Arguments, format: Format) -> Result<ExitCode, Failure> {
    let mut client = Client::running(&settings).await?;
    let own = format!("bench-{}", std::process::id());
    let name = match &arguments.environment {
        Some(name) => {
            let path = format!("/api/environments/{name}");
            client.call::<Value>(Method::GET, &path, None::<&Value>).await?;
            name.clone()
        }
        None => {
            provision(&mut client, &own).await?;
            own.clone()
        }
    };
    let measured = tokio::select! {
        measured = measure(&settings, &arguments, &name) => measured,
        _ = tokio::signal::ctrl_c() => Err(Failure::new("interrupted")),
    };
    if arguments.environment.is_none() {
        let path = format!("/api/environments/{own}");
        client.call::<Value>(Method::DELETE, &path, None::<&Value>).await?;
    }
    let report = measured?;
    match format {
        Format::Json => print_json(&report)?,
        Format::Text => show(&report),
    }
    let all_completed =
        report.refusals.is_empty() && report.statuses.keys().all(|status| status == "completed");
    Ok(if all_completed { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

async fn provision(client: &mut Client, name: &str) -> Result<(), Failure> {
    let wire = WireDefinition {
        environment_name: Some(name.to_owned()),
        backend_urls: Some(BTreeMap::new()),
        package_json: Some(json!({})),
        code_implementation: Some(OWN_FUNCTIONS.to_owned()),
        ..WireDefinition::default()
    };
    client.call::<Value>(Method::POST, "/api/environments", Some(&wire)).await.map(drop)
}

async fn measure(settings: &Settings, arguments: &Arguments, name: &str) -> Result<Report, Failure> {
    let default = if arguments.environment.is_some() { "1" } else { OWN_PROGRAM };
    let code = arguments.code.as_deref().unwrap_or(default);
    let from = Instant::now() + WARM_UP;
    let until = from + Duration::from_secs(arguments.duration);
    let clients = (0..arguments.clients).map(|number| async move {
        let mut client = Client::running(settings).await?;
        let mut measured = Measured::default();
        let mut turn = 0_u64;
        while Instant::now() < until {
            let agent = match number.checked_rem(arguments.agents) {
                Some(agent) => format!("bench-{agent}"),
                None => format!("bench-{}-{number}-{turn}", std::process::id()),
            };
            turn += 1;
            let body = json!({ "environmentName": name, "userAgentId": agent, "code": code });
            let started = Instant::now();
            let answer = client.call::<Value>(Method::POST, "/api/execute", Some(&body)).await;
            if started >= from {
                measured.note(started.elapsed(), answer);
            }
        }
        Ok(measured)
    });
    let all: Vec<Result<Measured, Failure>> = futures_util::future::join_all(clients).await;
    let mut sum = Measured::default();
    for measured in all {
        sum.add(measured?);
    }
    Ok(sum.report(arguments, name, from.elapsed()))
}

impl Measured {
    fn note(&mut self, time: Duration, answer: Result<Value, Failure>) {
        match answer {
            Ok(answer) => {
                let status = answer.get("status").and_then(Value::as_str).unwrap_or("unknown");
                *self.statuses.entry(status.to_owned()).or_default() += 1;
                self.times.push(milliseconds(time));
            }
            Err(failure) => *self.refusals.entry(failure.to_string()).or_default() += 1,
        }
    }

    fn add(&mut self, other: Measured) {
        self.times.extend(other.times);
        for (sum, counts) in [(&mut self.statuses, other.statuses), (&mut self.refusals, other.refusals)] {
            for (reason, count) in counts {
                *sum.entry(reason).or_default() += count;
            }
        }
    }

    fn report(mut self, arguments: &Arguments, name: &str, time: Duration) -> Report {
        self.times.sort_by(f64::total_cmp);
        let seconds = time.as_secs_f64();
        let executions = self.times.len();
        let at = |thousandths: usize| {
            let place = (executions * thousandths / 1000).min(executions.saturating_sub(1));
            self.times.get(place).copied().unwrap_or(0.0)
        };
        Report {
            environment: name.to_owned(),
            clients: arguments.clients,
            agents: arguments.agents,
            seconds,
            executions,
            per_second: f64::from(u32::try_from(executions).unwrap_or(u32::MAX)) / seconds,
            p50_ms: at(500),
            p90_ms: at(900),
            p99_ms: at(990),
            max_ms: at(1000),
            statuses: self.statuses,
            refusals: self.refusals,
        }
    }
}

fn show(report: &Report) {
    let Report { clients, agents, seconds, executions, per_second, .. } = report;
    let agents = if *agents == 0 { "a new agent each".to_owned() } else { format!("{agents} agents") };
    print(&format!(
        "{executions} executions in {seconds:.1} s, {clients} clients, {agents}: {per_second:.0} per second"
    ));
    print(&format!(
        "p50 {:.2} ms, p90 {:.2} ms, p99 {:.2} ms, max {:.2} ms",
        report.p50_ms, report.p90_ms, report.p99_ms, report.max_ms
    ));
    for (status, count) in report.statuses.iter().filter(|(status, _)| *status != "completed") {
        complain(&format!("{count} ended with {status}"));
    }
    for (reason, count) in &report.refusals {
        complain(&format!("{count} refused: {reason}"));
    }
}
