//! `GET /v1/status`, `/livez`, `/readyz`.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use shiftboss_api::Status;

use crate::handle::{Gone, Handle};

pub(super) async fn status(State(handle): State<Handle>) -> Result<Json<Status>, Gone> {
    handle.status().await.map(Json)
}

/// The driver answers: the app lives.
pub(super) async fn livez(State(handle): State<Handle>) -> Result<&'static str, Gone> {
    handle.pulse().await.map(|_| "ok\n")
}

/// Every broker has what it wants: open with all workers ready.
pub(super) async fn readyz(State(handle): State<Handle>) -> Result<(StatusCode, &'static str), Gone> {
    let ready = handle.pulse().await?.ready;
    Ok(if ready { (StatusCode::OK, "ok\n") } else { (StatusCode::SERVICE_UNAVAILABLE, "not ready\n") })
}
