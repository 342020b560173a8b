//! `supervisor environments list|show|rm`.

use std::process::ExitCode;

use axum::http::Method;
use serde::Deserialize;

use super::client::Client;
use super::output::{Failure, Format, print, print_json, print_table};
use crate::config::Settings;
use crate::environment::EnvironmentView;
use crate::http::EnvironmentSummary;

#[derive(clap::Subcommand)]
pub enum Action {
    /// All environments
    List,
    /// One environment
    Show { name: String },
    /// Remove an environment
    Rm { name: String },
}

#[derive(serde::Serialize, Deserialize)]
struct List {
    environments: Vec<EnvironmentSummary>,
}

const NO_BODY: Option<&()> = None;

pub async fn run(settings: Settings, action: Action, format: Format) -> Result<ExitCode, Failure> {
    let mut client = Client::open(settings).await?;
    let result = act(&mut client, action, format).await;
    client.close().await;
    result.map(|()| ExitCode::SUCCESS)
}

async fn act(client: &mut Client, action: Action, format: Format) -> Result<(), Failure> {
    match action {
        Action::List => {
            let list: List = client.call(Method::GET, "/api/environments", NO_BODY).await?;
            if format == Format::Json {
                return print_json(&list);
            }
            let row = |summary: EnvironmentSummary| {
                vec![summary.environment_name, summary.policy, summary.endowments.join(" ")]
            };
            print_table(&["NAME", "POLICY", "FUNCTIONS"], list.environments.into_iter().map(row).collect());
        }
        Action::Show { name } => {
            let view: EnvironmentView =
                client.call(Method::GET, &format!("/api/environments/{}", in_path(&name)), NO_BODY).await?;
            if format == Format::Json {
                return print_json(&view);
            }
            let backends = view
                .definition
                .backend_urls
                .iter()
                .map(|(name, url)| format!("{name}={url}"))
                .collect::<Vec<_>>();
            print_table(
                &["FIELD", "VALUE"],
                vec![
                    vec!["name".into(), view.definition.environment_name.to_string()],
                    vec!["status".into(), view.status],
                    vec!["policy".into(), view.definition.policy.as_str().into()],
                    vec!["functions".into(), view.endowments.join(" ")],
                    vec!["backends".into(), backends.join(" ")],
                    vec!["build".into(), view.build],
                ],
            );
        }
        Action::Rm { name } => {
            let () = client
                .call(Method::DELETE, &format!("/api/environments/{}", in_path(&name)), NO_BODY)
                .await?;
            if format == Format::Json {
                return print_json(&serde_json::json!({ "removed": name }));
            }
            print(&format!("{name} is removed"));
        }
    }
    Ok(())
}

/// A name as a path segment; what cannot be one is refused by the supervisor.
fn in_path(name: &str) -> String {
    url::form_urlencoded::byte_serialize(name.as_bytes()).collect()
}
