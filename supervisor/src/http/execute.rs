//! `POST /api/execute` and `/api/analyze`.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::body::read_json;
use super::json;
use super::problem::Problem;
use crate::config::limits;
use crate::daemon::Daemon;
use crate::execution::{ExecutionRefusal, ExecutionRequest, WireExecution};

/// `POST /api/analyze`: the same request, and nothing is run.
pub async fn analyze(State(daemon): State<Arc<Daemon>>, request: Request) -> Result<Response, Problem> {
    let checked = read(&daemon, request).await?;
    let examination = daemon.executor.examine(&checked).await?;
    Ok(json(StatusCode::OK, &examination))
}

/// Runs in a task of its own: when the client goes away, the program is cancelled, and its record is
/// written all the same.
pub async fn execute(State(daemon): State<Arc<Daemon>>, request: Request) -> Result<Response, Problem> {
    let checked = read(&daemon, request).await?;
    let cancel = daemon.tasks.stop_token();
    let _cancel_when_dropped = cancel.clone().drop_guard();
    let (reply, answer) = tokio::sync::oneshot::channel();
    let tasks = daemon.tasks.clone();
    tasks.spawn(async move {
        let result = daemon.executor.execute(checked, cancel).await;
        // The client may have gone away.
        let _ = reply.send(result);
    });
    let lost = |_| Problem::internal(&std::io::Error::other("an execution ended without an answer"));
    let recorded = answer.await.map_err(lost)??;
    Ok(json(StatusCode::OK, &recorded.into_view()))
}

async fn read(daemon: &Daemon, request: Request) -> Result<ExecutionRequest, Problem> {
    let wire: WireExecution = read_json(request, limits::EXECUTE_BODY_BYTES_MAX).await?;
    Ok(ExecutionRequest::check(wire, &daemon.provisioner.catalogue).map_err(ExecutionRefusal::from)?)
}
