//! Serves the control API on the app's UNIX socket: checks, converts, passes on to the driver.

mod command;
mod events;
#[cfg(any(test, feature = "fuzz"))]
pub(crate) mod fuzz;
mod message;
mod peer;
mod status;

use std::future::Future;
use std::os::unix::net::UnixListener;

use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};
use shiftboss_api::Failure;

use crate::handle::{Gone, Handle};

/// Serves until `shutdown` resolves, then lets open answers finish.
pub(crate) async fn serve(
    listener: UnixListener,
    handle: Handle,
    shutdown: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let service = routes(handle).into_make_service_with_connect_info::<peer::Asker>();
    axum::serve(peer::Peers::new(listener)?, service).with_graceful_shutdown(shutdown).await
}

fn routes(handle: Handle) -> Router {
    Router::new()
        .route("/v1/status", get(status::status))
        .route("/v1/events", get(events::events))
        .route("/v1/brokers/{name}/send", post(message::send))
        .route("/v1/brokers/{name}/call", post(message::call))
        .route("/v1/brokers/{name}/{verb}", post(command::broker))
        .route("/v1/stop", post(command::stop))
        .route("/v1/upgrade", post(command::upgrade))
        .route("/livez", get(status::livez))
        .route("/readyz", get(status::readyz))
        .fallback(unknown)
        .layer(axum::middleware::map_response(one_answer))
        .with_state(handle)
}

/// One answer a connection: nobody holds a place that asks nothing.
async fn one_answer(mut response: Response) -> Response {
    response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
    response
}

async fn unknown(uri: axum::http::Uri) -> Response {
    failure(StatusCode::NOT_FOUND, format!("there is no `{}` here", uri.path()), None)
}

fn failure(status: StatusCode, error: String, help: Option<String>) -> Response {
    (status, Json(Failure { error, help })).into_response()
}

impl IntoResponse for Gone {
    fn into_response(self) -> Response {
        failure(StatusCode::SERVICE_UNAVAILABLE, "the app has ended".to_owned(), None)
    }
}
