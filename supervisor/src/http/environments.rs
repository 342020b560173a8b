//! `/api/environments`.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use bytes::Bytes;
use serde::{Deserialize, Serialize};
use tokio::sync::mpsc;

use super::body::read_json;
use super::json;
use super::problem::Problem;
use crate::config::limits;
use crate::daemon::Daemon;
use crate::environment::{
    Condition, Environment, EnvironmentView, Phase, Progress, ProvisionRefusal, WireDefinition,
};
use crate::fields::FieldError;
use crate::ids::EnvironmentName;

/// A line of a provisioning that is followed (`Accept: application/x-ndjson`).
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum ProvisionEvent {
    Phase(Phase),
    Environment(Box<EnvironmentView>),
    Problem(Box<Problem>),
}

/// One line of the list.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct EnvironmentSummary {
    pub environment_name: String,
    pub policy: String,
    pub endowments: Vec<String>,
    pub build: String,
    pub updated_at: i64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Options {
    /// Validate only; change nothing.
    dry_run: bool,
}

const NDJSON: &str = "application/x-ndjson";

/// Lines that wait for a slow reader.
const EVENTS_MAX: usize = 16;

pub async fn list(State(daemon): State<Arc<Daemon>>) -> Response {
    let summary = |environment: &Arc<Environment>| EnvironmentSummary {
        environment_name: environment.name().to_string(),
        policy: environment.definition.policy.as_str().to_owned(),
        endowments: environment.endowments.clone(),
        build: environment.build.digest().to_string(),
        updated_at: environment.updated_at,
    };
    let environments: Vec<EnvironmentSummary> =
        daemon.provisioner.catalogue.list().iter().map(summary).collect();
    json(StatusCode::OK, &serde_json::json!({ "environments": environments }))
}

pub async fn show(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let name = parse_name(name)?;
    let environment = daemon.provisioner.catalogue.get(&name).ok_or(ProvisionRefusal::Unknown(name))?;
    let current = format!("\"{}\"", environment.etag);
    if headers.get(header::IF_NONE_MATCH).is_some_and(|value| value.as_bytes() == current.as_bytes()) {
        return Ok((StatusCode::NOT_MODIFIED, [(header::ETAG, current)]).into_response());
    }
    Ok(with_etag(StatusCode::OK, &environment))
}

pub async fn create(
    State(daemon): State<Arc<Daemon>>,
    query: Result<Query<Options>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let dry_run_wanted = options(query)?.dry_run;
    let followed = wants_events(request.headers());
    let wire: WireDefinition = read_json(request, limits::ENVIRONMENT_BODY_BYTES_MAX).await?;
    if dry_run_wanted {
        return dry_run(&daemon, wire).await;
    }
    provision(daemon, wire, Condition::Absent, followed).await
}

pub async fn replace(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    query: Result<Query<Options>, QueryRejection>,
    request: Request,
) -> Result<Response, Problem> {
    let dry_run_wanted = options(query)?.dry_run;
    let followed = wants_events(request.headers());
    let condition = condition(request.headers())?;
    let mut wire: WireDefinition = read_json(request, limits::ENVIRONMENT_BODY_BYTES_MAX).await?;
    match &wire.environment_name {
        Some(inside) if *inside != name => {
            let error = FieldError::new(
                "/environmentName",
                format!("environmentName must be {name}, as in the path"),
            );
            return Err(ProvisionRefusal::Invalid(vec![error]).into());
        }
        _ => wire.environment_name = Some(name),
    }
    if dry_run_wanted {
        return dry_run(&daemon, wire).await;
    }
    provision(daemon, wire, condition, followed).await
}

pub async fn remove(
    State(daemon): State<Arc<Daemon>>,
    Path(name): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    daemon.remove(&parse_name(name)?, &condition(&headers)?).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

async fn dry_run(daemon: &Daemon, wire: WireDefinition) -> Result<Response, Problem> {
    let implementation = daemon.provisioner.validate(wire).await?;
    Ok(json(StatusCode::OK, &serde_json::json!({ "valid": true, "endowments": implementation.endowments })))
}

/// Provisions in a task of its own, so that a client that goes away leaves nothing half done.
async fn provision(
    daemon: Arc<Daemon>,
    wire: WireDefinition,
    condition: Condition,
    followed: bool,
) -> Result<Response, Problem> {
    let (phases, mut reported) = mpsc::channel(EVENTS_MAX);
    let (reply, answer) = tokio::sync::oneshot::channel();
    let progress = if followed { Progress::to(phases) } else { Progress::none() };
    let tasks = daemon.tasks.clone();
    let working = Arc::clone(&daemon);
    tasks.spawn(async move {
        let stop = working.tasks.stop_token();
        let result = tokio::select! {
            result = working.provision(wire, &condition, &progress) => result,
            () = stop.cancelled() => Err(ProvisionRefusal::ShuttingDown),
        };
        drop(progress);
        // The client may have gone away; the environment stays.
        let _ = reply.send(result.map_err(Problem::from));
    });
    let lost = || Problem::internal(&std::io::Error::other("a provisioning ended without an answer"));
    if !followed {
        let environment = answer.await.map_err(|_| lost())??;
        let created = environment.created_at == environment.updated_at;
        let status = if created { StatusCode::CREATED } else { StatusCode::OK };
        return Ok(with_etag(status, &environment));
    }
    let (lines, body) = mpsc::channel::<Bytes>(EVENTS_MAX);
    tasks.spawn(async move {
        while let Some(phase) = reported.recv().await {
            if lines.send(line(&ProvisionEvent::Phase(phase))).await.is_err() {
                return;
            }
        }
        let last = match answer.await.unwrap_or_else(|_| Err(lost())) {
            Ok(environment) => ProvisionEvent::Environment(Box::new(environment.view())),
            Err(problem) => ProvisionEvent::Problem(Box::new(problem)),
        };
        // A client that went away does not read it.
        let _ = lines.send(line(&last)).await;
    });
    Ok(([(header::CONTENT_TYPE, NDJSON)], stream(body)).into_response())
}

fn stream(receiver: mpsc::Receiver<Bytes>) -> Body {
    let lines = futures_util::stream::unfold(receiver, |mut receiver| async move {
        let line = receiver.recv().await?;
        Some((Ok::<_, Infallible>(line), receiver))
    });
    Body::from_stream(lines)
}

fn line(event: &ProvisionEvent) -> Bytes {
    let mut text = serde_json::to_vec(event).unwrap_or_default();
    text.push(b'\n');
    Bytes::from(text)
}

fn with_etag(status: StatusCode, environment: &Environment) -> Response {
    let mut response = json(status, &environment.view());
    if let Ok(etag) = format!("\"{}\"", environment.etag).parse() {
        response.headers_mut().insert(header::ETAG, etag);
    }
    if status == StatusCode::CREATED
        && let Ok(location) = format!("/api/environments/{}", environment.name()).parse()
    {
        response.headers_mut().insert(header::LOCATION, location);
    }
    response
}

fn options(query: Result<Query<Options>, QueryRejection>) -> Result<Options, Problem> {
    query
        .map(|Query(options)| options)
        .map_err(|rejection| Problem::invalid_parameter(&rejection.body_text()))
}

fn wants_events(headers: &HeaderMap) -> bool {
    headers.get(header::ACCEPT).is_some_and(|value| value.as_bytes() == NDJSON.as_bytes())
}

fn condition(headers: &HeaderMap) -> Result<Condition, Problem> {
    let Some(value) = headers.get(header::IF_MATCH) else { return Ok(Condition::Any) };
    match value.to_str().map(str::trim) {
        Ok("*") => Ok(Condition::Present),
        Ok(text) if text.len() > 2 && text.starts_with('"') && text.ends_with('"') && !text.contains(',') => {
            Ok(Condition::Unchanged(text.trim_matches('"').to_owned()))
        }
        _ => Err(Problem::invalid_parameter("If-Match must be one quoted ETag, or *")),
    }
}

fn parse_name(text: String) -> Result<EnvironmentName, Problem> {
    let refused = |detail| Problem::from(ProvisionRefusal::Invalid(vec![FieldError::new("", detail)]));
    EnvironmentName::try_from(text).map_err(refused)
}
