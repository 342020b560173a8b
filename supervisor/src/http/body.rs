//! Reads JSON bodies: bounded in size and time, and only when they say that they are JSON.

use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header;
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use super::problem::Problem;

/// Time to send a body, against slow clients.
const TIME_MAX: Duration = Duration::from_secs(30);

pub async fn read_json<T: DeserializeOwned>(request: Request, bytes_max: usize) -> Result<T, Problem> {
    let (head, body) = request.into_parts();
    let kind =
        head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    if !essence.eq_ignore_ascii_case("application/json") {
        return Err(Problem::unsupported_media_type());
    }
    let bytes =
        tokio::time::timeout(TIME_MAX, read(body, bytes_max)).await.map_err(|_| Problem::slow_body())??;
    serde_json::from_slice(&bytes).map_err(|error| Problem::invalid_json(&error))
}

async fn read(body: Body, bytes_max: usize) -> Result<bytes::Bytes, Problem> {
    match Limited::new(body, bytes_max).collect().await {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::body_too_large(bytes_max)),
        Err(error) => Err(Problem::broken_body(&error.to_string())),
    }
}
