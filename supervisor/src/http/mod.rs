//! The REST interface: the one place that knows paths, headers and status codes.

mod body;
mod environments;
mod execute;
mod health;
mod problem;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};

pub use environments::{EnvironmentSummary, ProvisionEvent};
pub use problem::Problem;
pub use server::serve;

use crate::daemon::Daemon;

/// All routes, without a transport: the server and the command line share it.
pub fn router(daemon: Arc<Daemon>) -> Router {
    Router::new()
        .route("/api/environments", get(environments::list).post(environments::create))
        .route(
            "/api/environments/{name}",
            get(environments::show).put(environments::replace).delete(environments::remove),
        )
        .route("/api/execute", post(execute::execute))
        .route("/api/analyze", post(execute::analyze))
        .route("/api/version", get(health::version))
        .route("/livez", get(health::live))
        .route("/readyz", get(health::ready))
        .fallback(|| async { Problem::not_found("there is nothing at this path").into_response() })
        .method_not_allowed_fallback(|| async { Problem::method_not_allowed().into_response() })
        .layer(middleware::from_fn_with_state(Arc::clone(&daemon), refuse_work_while_draining))
        .layer(tower_http::catch_panic::CatchPanicLayer::custom(problem::of_panic))
        .with_state(daemon)
}

/// A supervisor that shuts down finishes what it has, and tells its callers to go elsewhere.
async fn refuse_work_while_draining(
    State(daemon): State<Arc<Daemon>>,
    request: Request,
    next: Next,
) -> Response {
    match daemon.tasks.is_shutting_down() && !request.method().is_safe() {
        true => Problem::shutting_down().into_response(),
        false => next.run(request).await,
    }
}

/// Refuses requests whose Host is a name that leads to the loopback address from outside (DNS
/// rebinding): a web page could otherwise reach the interface through a browser on this machine.
pub fn guard_loopback(router: Router, listen: SocketAddr) -> Router {
    if !listen.ip().is_loopback() {
        return router;
    }
    router.layer(middleware::from_fn(|request: Request, next: Next| async move {
        match is_local(request.headers()) {
            true => next.run(request).await,
            false => Problem::wrong_host().into_response(),
        }
    }))
}

fn is_local(headers: &HeaderMap) -> bool {
    let Some(host) = headers.get(header::HOST).and_then(|value| value.to_str().ok()) else { return false };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    };
    name.eq_ignore_ascii_case("localhost")
        || name.trim_matches(['[', ']']).parse().is_ok_and(|address: std::net::IpAddr| address.is_loopback())
}

/// A JSON body with a status.
fn json(status: axum::http::StatusCode, value: &impl serde::Serialize) -> Response {
    match serde_json::to_vec(value) {
        Ok(body) => (status, [(header::CONTENT_TYPE, "application/json")], body).into_response(),
        Err(error) => Problem::internal(&error).into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_names_are_local() {
        let local = |host: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::HOST, host.parse().unwrap());
            is_local(&headers)
        };
        for host in ["localhost", "LOCALHOST:3000", "127.0.0.1:3000", "[::1]:3000", "127.8.9.1"] {
            assert!(local(host), "{host}");
        }
        for host in ["evil.example", "evil.example:3000", "localhost.evil.example", "192.0.2.1", ""] {
            assert!(!local(host), "{host}");
        }
    }
}
