//! `POST /v1/brokers/{type}/send` and `POST /v1/brokers/{type}/call`: messages to workers.

use std::convert::Infallible;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shiftboss_api::{ANSWER_MS, Answer, Message, Question, Told, Untold};
use shiftboss_channel::{LONGEST, is_too_long_to_ask, one_line};
use shiftboss_core::id::{BrokerId, WorkerId};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::command::{known, read_body};
use super::failure;
use crate::channel::Letter;
use crate::handle::Handle;
use crate::mail::{CallError, Errand};

pub(super) async fn send(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let broker = known(&handle, &name)?;
    let _place = place(&headers).await;
    let Message { message, slot } = read(body).await?;
    let line = line(&message)?;
    let mut answer = Told::default();
    for (worker, slot) in audience(&handle, broker, &name, slot).await? {
        let (reply, told) = oneshot::channel();
        let line = line.clone().into_bytes();
        give(&handle, Errand::Tell { worker, line, reply: Some(reply) }).await?;
        match told.await {
            Ok(Ok(())) => answer.told += 1,
            Ok(Err(untold)) => {
                answer.untold.push(Untold { worker: worker.to_string(), slot, reason: untold.to_string() });
            }
            Err(_) => return Err(crate::handle::Gone.into_response()),
        }
    }
    if answer.told == 0 { Err(nobody(&name, &answer.untold)) } else { Ok(Json(answer).into_response()) }
}

pub(super) async fn call(
    State(handle): State<Handle>,
    Path(name): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    let broker = known(&handle, &name)?;
    let place = place(&headers).await;
    let Question { message, slot, timeout_ms } = read(body).await?;
    let within = Duration::from_millis(timeout_ms.unwrap_or(ANSWER_MS));
    if within > LONGEST_WAIT {
        let error = "timeout_ms: expected at most 86400000, a day".to_owned();
        return Err(failure(StatusCode::BAD_REQUEST, error, None));
    }
    if is_too_long_to_ask(&message) {
        return Err(too_long());
    }
    let mut asked = Vec::new();
    for (worker, slot) in audience(&handle, broker, &name, slot).await? {
        let (reply, answer) = oneshot::channel();
        give(&handle, Errand::Call { worker, message: message.clone(), within, reply }).await?;
        asked.push((worker, slot, answer));
    }
    drop(place);
    // The head goes out before the answers are there: whoever waits knows that it was heard.
    let (pieces, body) = mpsc::channel(1);
    tokio::spawn(async move {
        // The client has gone when nobody takes the pieces any more.
        let _ = tell_answers(asked, pieces).await;
    });
    let body = Body::from_stream(ReceiverStream::new(body).map(Ok::<_, Infallible>));
    Ok(([(header::CONTENT_TYPE, "application/json")], body).into_response())
}

type Asked = (WorkerId, u32, oneshot::Receiver<Result<Letter, CallError>>);

async fn tell_answers(
    asked: Vec<Asked>,
    pieces: mpsc::Sender<String>,
) -> Result<(), mpsc::error::SendError<String>> {
    pieces.send("{\"answers\":[".to_owned()).await?;
    for (at, (worker, slot, answer)) in asked.into_iter().enumerate() {
        let answer = tokio::select! {
            answer = answer => answer.unwrap_or(Err(CallError::AppEnded)),
            () = pieces.closed() => return Ok(()),
        };
        let timed_out = matches!(answer, Err(CallError::TimedOut(_)));
        let (answer, error) = match answer {
            Ok(letter) => (Some(letter), None),
            Err(error) => (None, Some(error.to_string())),
        };
        let answer = Answer { worker: worker.to_string(), slot, answer, error, timed_out };
        let comma = if at == 0 { "" } else { "," };
        pieces.send(comma.to_owned() + &serde_json::to_string(&answer).unwrap_or_default()).await?;
    }
    pieces.send("]}\n".to_owned()).await
}

/// Those that it is for: of each slot the one that serves it, or is nearest to that.
async fn audience(
    handle: &Handle,
    broker: BrokerId,
    name: &str,
    slot: Option<u32>,
) -> Result<Vec<(WorkerId, u32)>, Response> {
    let (reply, audience) = oneshot::channel();
    give(handle, Errand::Audience { broker, reply }).await?;
    let mut audience = audience.await.map_err(|_| crate::handle::Gone.into_response())?;
    audience.retain(|(_, of)| slot.is_none_or(|slot| slot == *of));
    if audience.is_empty() {
        let place = slot.map_or_else(String::new, |slot| format!(" in slot {slot}"));
        let error = format!("`{name}` has no worker{place} at the moment");
        return Err(failure(StatusCode::CONFLICT, error, Some(SEE.to_owned())));
    }
    Ok(audience)
}

async fn give(handle: &Handle, errand: Errand) -> Result<(), Response> {
    handle.errand(errand).await.map_err(IntoResponse::into_response)
}

fn nobody(name: &str, untold: &[Untold]) -> Response {
    let reasons: Vec<String> = untold
        .iter()
        .take(REASONS)
        .map(|Untold { worker, slot, reason }| format!("worker {worker} (slot {slot}): {reason}"))
        .collect();
    let more = if untold.len() > REASONS { ", and so on" } else { "" };
    let error = format!("no worker of `{name}` could be told: {}{more}", reasons.join(", "));
    failure(StatusCode::CONFLICT, error, Some(SEE.to_owned()))
}

/// As it goes to a worker.
#[expect(clippy::result_large_err, reason = "the answer to a client, built once a request")]
fn line(message: &Letter) -> Result<String, Response> {
    if message.get().len() > LONGEST {
        return Err(too_long());
    }
    Ok(one_line(message).into_owned())
}

/// A long body is read when few others are.
async fn place(headers: &HeaderMap) -> Option<tokio::sync::SemaphorePermit<'static>> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|length| length.to_str().ok()?.parse().ok());
    if length.is_some_and(|length: usize| length <= SHORT) {
        return None;
    }
    PLACES.acquire().await.ok()
}

/// One that is too long is read to its end and not kept: a client that still writes would never see why.
async fn read<T: serde::de::DeserializeOwned>(body: Body) -> Result<T, Response> {
    let (mut stream, mut bytes, mut passed) = (body.into_data_stream(), Vec::new(), 0_usize);
    while let Some(piece) = stream.next().await {
        let piece = piece.map_err(|error| {
            failure(StatusCode::BAD_REQUEST, format!("the body was not read to its end: {error}"), None)
        })?;
        passed += piece.len();
        if passed > LONGEST_READ {
            break;
        } else if passed > LONGEST + AROUND {
            bytes = Vec::new();
        } else {
            bytes.extend_from_slice(&piece);
        }
    }
    if passed > LONGEST + AROUND {
        return Err(too_long());
    }
    read_body(&bytes).map_err(|(status, error)| failure(status, error, None))
}

fn too_long() -> Response {
    let error = "the message is longer than 16 MiB, the most that a channel takes".to_owned();
    failure(StatusCode::PAYLOAD_TOO_LARGE, error, None)
}

/// Bodies of any length that are read at once; those up to `SHORT` are not counted.
static PLACES: Semaphore = Semaphore::const_new(2);
const SHORT: usize = 64 * 1024;
/// What a body has around its message.
const AROUND: usize = 1024;
/// Nobody sends so much by mistake.
const LONGEST_READ: usize = 256 << 20;
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);
/// Workers whose reason is given when none could be told.
const REASONS: usize = 3;
const SEE: &str = "`shiftboss status` shows its workers";
