//! Speaks HTTP to the supervisor of a data directory: over its admin socket when it runs, else in
//! this process, under the directory's lock.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::http::{Method, Request, Response, StatusCode, header};
use http_body_util::BodyExt as _;
use hyper_util::rt::TokioIo;
use interprocess::local_socket::tokio::Stream;
use interprocess::local_socket::traits::tokio::Stream as _;
use interprocess::local_socket::{GenericFilePath, ToFsName as _};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tower::ServiceExt as _;

use super::output::Failure;
use super::serve::admin_socket;
use crate::config::Settings;
use crate::daemon::{Daemon, DataDirectory};
use crate::http::{self, Problem};

/// What commands may read of an answer.
const ANSWER_BYTES_MAX: usize = 64 * 1024 * 1024;

pub enum Client {
    Remote(hyper::client::conn::http1::SendRequest<Body>),
    Local(Box<Local>),
}

/// A supervisor in this process, which serves nobody else.
pub struct Local {
    router: Router,
    daemon: Arc<Daemon>,
    _data: DataDirectory,
}

impl Client {
    /// The running supervisor, or one in this process.
    pub async fn open(settings: Settings) -> Result<Client, Failure> {
        match connect(&settings).await? {
            Some(sender) => Ok(Client::Remote(sender)),
            None => Client::local(settings).await,
        }
    }

    /// The running supervisor only.
    pub async fn running(settings: &Settings) -> Result<Client, Failure> {
        let missing = || {
            let directory = settings.data_dir.display();
            Failure::unavailable(format!(
                "no supervisor runs for {directory}: start one with `supervisor serve --data-dir {directory}`"
            ))
        };
        connect(settings).await?.map(Client::Remote).ok_or_else(missing)
    }

    async fn local(settings: Settings) -> Result<Client, Failure> {
        let data = DataDirectory::open(&settings.data_dir).map_err(Failure::configuration)?;
        let daemon = Daemon::start(settings, &data).await.map_err(Failure::configuration)?;
        Ok(Client::Local(Box::new(Local { router: http::router(Arc::clone(&daemon)), daemon, _data: data })))
    }

    /// Sends a request and returns the whole answer, or its problem.
    pub async fn call<T: DeserializeOwned>(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
    ) -> Result<T, Failure> {
        let response = self.send(method, path, body, "application/json").await?;
        let bytes = read(response).await?;
        // An empty answer (204) reads as null.
        serde_json::from_slice(if bytes.is_empty() { b"null" } else { &bytes }).map_err(Failure::internal)
    }

    /// Sends a request; an answer that is a problem is a failure.
    pub async fn send(
        &mut self,
        method: Method,
        path: &str,
        body: Option<&impl Serialize>,
        accept: &str,
    ) -> Result<Response<Body>, Failure> {
        let bytes = body.map(serde_json::to_vec).transpose().map_err(Failure::internal)?;
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, "localhost")
            .header(header::CONTENT_TYPE, "application/json")
            .header(header::ACCEPT, accept)
            .body(bytes.map_or_else(Body::empty, Body::from))
            .map_err(Failure::internal)?;
        let response = match self {
            Client::Remote(sender) => {
                // The answer before may have ended a moment ago.
                sender.ready().await.map_err(lost)?;
                sender.send_request(request).await.map_err(lost)?.map(Body::new)
            }
            Client::Local(local) => match local.router.clone().oneshot(request).await {
                Ok(response) => response,
                Err(impossible) => match impossible {},
            },
        };
        if response.status() < StatusCode::BAD_REQUEST {
            return Ok(response);
        }
        let bytes = read(response).await?;
        let problem: Problem = serde_json::from_slice(&bytes).map_err(Failure::internal)?;
        Err(Failure::problem(&problem))
    }

    /// Ends what this process started.
    pub async fn close(self) {
        if let Client::Local(local) = self {
            local.daemon.shut_down().await;
        }
    }
}

fn lost(error: hyper::Error) -> Failure {
    Failure::unavailable(format!("the supervisor went away: {error}"))
}

async fn read(response: Response<Body>) -> Result<bytes::Bytes, Failure> {
    let body = http_body_util::Limited::new(response.into_body(), ANSWER_BYTES_MAX);
    body.collect()
        .await
        .map(|collected| collected.to_bytes())
        .map_err(|error| Failure::unavailable(error.to_string()))
}

async fn connect(
    settings: &Settings,
) -> Result<Option<hyper::client::conn::http1::SendRequest<Body>>, Failure> {
    let path = admin_socket(&settings.data_dir);
    let name = path.clone().to_fs_name::<GenericFilePath>()?;
    let stream = match Stream::connect(name).await {
        Ok(stream) => stream,
        Err(error)
            if matches!(
                error.kind(),
                std::io::ErrorKind::NotFound | std::io::ErrorKind::ConnectionRefused
            ) =>
        {
            return Ok(None);
        }
        Err(error) => return Err(Failure::unavailable(format!("{}: {error}", path.display()))),
    };
    let (sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await.map_err(lost)?;
    #[expect(
        clippy::disallowed_methods,
        reason = "ends with the command, which waits for the answer and nothing else"
    )]
    tokio::spawn(async move {
        // The sender learns of a broken connection by itself.
        let _ = connection.await;
    });
    Ok(Some(sender))
}
