//! Whether the supervisor lives, is ready, and which version it is.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::response::Response;

use super::json;
use super::problem::Problem;
use crate::daemon::Daemon;
use crate::worker::LayerState;

pub async fn live() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "status": "ok" }))
}

/// With `?verbose`, the layers that hold jailed processes.
pub async fn ready(
    State(daemon): State<Arc<Daemon>>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    if daemon.tasks.is_shutting_down() {
        return Err(Problem::not_ready("the supervisor is shutting down"));
    }
    if query.as_deref() != Some("verbose") {
        return Ok(json(StatusCode::OK, &serde_json::json!({ "status": "ready" })));
    }
    let layers: serde_json::Map<String, serde_json::Value> = daemon
        .launcher
        .layers()
        .states()
        .map(|(layer, state)| {
            (layer.to_string(), if *state == LayerState::Enforced { "enforced" } else { "missing" }.into())
        })
        .collect();
    let accepted: Vec<String> = daemon.accepted_missing.iter().map(ToString::to_string).collect();
    let environments = daemon.provisioner.catalogue.count();
    Ok(json(
        StatusCode::OK,
        &serde_json::json!({ "status": "ready", "layers": layers, "allowMissing": accepted, "environments": environments }),
    ))
}

pub async fn version() -> Response {
    json(StatusCode::OK, &serde_json::json!({ "name": "cloister", "version": env!("CARGO_PKG_VERSION") }))
}
