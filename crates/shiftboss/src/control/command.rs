//! `POST /v1/brokers/{type}/{verb}`, `POST /v1/stop` and `POST /v1/upgrade`.

use std::convert::Infallible;

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::{ConnectInfo, Path, Query, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use shiftboss_api::{CommandReply, Outcome, Progress, Recycle, Resume, Scale, Upgrade};
use shiftboss_core::id::{BrokerId, RequestId, Slot};
use shiftboss_core::{Command, Verb};
use tokio::sync::{broadcast, mpsc, oneshot};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use super::failure;
use super::peer::Asker;
use crate::convert;
use crate::feed::Subscription;
use crate::handle::{Gone, Handle};
use crate::os::kill_points;
use crate::os::random::random;

type Pairs = Query<Vec<(String, String)>>;

pub(super) async fn broker(
    State(handle): State<Handle>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    Path((name, verb)): Path<(String, String)>,
    Query(query): Pairs,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let broker = match known(&handle, &name) {
        Ok(broker) => broker,
        Err(unknown) => return unknown,
    };
    let verb = match read_verb(&verb, &body) {
        Ok(verb) => verb,
        Err((status, error)) => return failure(status, error, None),
    };
    run(&handle, asker, Some(name), Asked::Command(Command::Broker(broker, verb)), &query, &headers).await
}

/// The broker of that type.
#[expect(clippy::result_large_err, reason = "the answer to a client, built once a request")]
pub(super) fn known(handle: &Handle, name: &str) -> Result<BrokerId, Response> {
    handle.broker(name).ok_or_else(|| {
        let error = format!("`{name}` is not a type of this app");
        let known = handle.info().brokers.now().join(", ");
        failure(StatusCode::NOT_FOUND, error, Some(format!("its types are: {known}")))
    })
}

pub(super) async fn stop(
    State(handle): State<Handle>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    Query(query): Pairs,
    headers: HeaderMap,
) -> Response {
    run(&handle, asker, None, Asked::Command(Command::Stop), &query, &headers).await
}

pub(super) async fn upgrade(
    State(handle): State<Handle>,
    ConnectInfo(asker): ConnectInfo<Asker>,
    Query(query): Pairs,
    headers: HeaderMap,
    body: Bytes,
) -> Response {
    let upgrade = if body.is_empty() { Ok(Upgrade::default()) } else { read_body(&body) };
    match upgrade {
        Ok(Upgrade { check }) => run(&handle, asker, None, Asked::Upgrade { check }, &query, &headers).await,
        Err((status, error)) => failure(status, error, None),
    }
}

/// Something that is answered with an outcome.
enum Asked {
    /// Of core.
    Command(Command),
    /// Of the process itself.
    Upgrade { check: bool },
}

impl Asked {
    /// As it is written on the command line.
    fn words(&self, broker: Option<&str>) -> String {
        let name = broker.unwrap_or_default();
        match self {
            Asked::Command(Command::Stop) => "stop".to_owned(),
            Asked::Command(Command::Broker(_, verb)) => match verb {
                Verb::Recycle(None) => format!("recycle {name}"),
                Verb::Recycle(Some(slot)) => format!("recycle {name}/{slot}"),
                Verb::Drain => format!("drain {name}"),
                Verb::Resume => format!("resume {name}"),
                Verb::ResumeNow => format!("resume {name} --now"),
                Verb::Scale(workers) => format!("scale {name} {workers}"),
                Verb::Respecify(_) => format!("apply {name}"),
            },
            Asked::Upgrade { check: false } => "upgrade".to_owned(),
            Asked::Upgrade { check: true } => "upgrade --check".to_owned(),
        }
    }

    /// What becomes of it when the app ends first.
    fn at_the_end(&self) -> Outcome {
        match self {
            // It has ended: that was asked for.
            Asked::Command(Command::Stop) => {
                Outcome::Done { note: None, total: 0, replaced: 0, cut: 0, refused: 0 }
            }
            Asked::Command(Command::Broker(..)) | Asked::Upgrade { .. } => {
                Outcome::Superseded { reason: "the app has ended".to_owned() }
            }
        }
    }

    async fn give(self, handle: &Handle, request: RequestId) -> Result<oneshot::Receiver<Outcome>, Gone> {
        match self {
            Asked::Command(command) => handle.command(request, command).await,
            Asked::Upgrade { check } => handle.upgrade(request, check).await,
        }
    }
}

fn read_verb(verb: &str, body: &[u8]) -> Result<Verb, (StatusCode, String)> {
    match verb {
        "recycle" if body.is_empty() => Ok(Verb::Recycle(None)),
        "recycle" => read_body::<Recycle>(body).map(|recycle| Verb::Recycle(recycle.slot.map(Slot))),
        "drain" => Ok(Verb::Drain),
        "resume" if body.is_empty() => Ok(Verb::Resume),
        "resume" => {
            read_body::<Resume>(body).map(|resume| if resume.now { Verb::ResumeNow } else { Verb::Resume })
        }
        "scale" => read_body::<Scale>(body).map(|scale| Verb::Scale(scale.workers)),
        other => Err((
            StatusCode::NOT_FOUND,
            format!("`{other}` is not a verb: expected recycle, drain, resume, scale, send or call"),
        )),
    }
}

pub(super) fn read_body<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, (StatusCode, String)> {
    serde_json::from_slice(body)
        .map_err(|error| (StatusCode::BAD_REQUEST, format!("the body is wrong: {error}")))
}

async fn run(
    handle: &Handle,
    asker: Asker,
    broker: Option<String>,
    asked: Asked,
    query: &[(String, String)],
    headers: &HeaderMap,
) -> Response {
    let key = match headers.get("idempotency-key").map(|key| key.to_str()) {
        None => format!("{:032x}", random()),
        Some(Ok(key)) if (1..=128).contains(&key.len()) => key.to_owned(),
        Some(_) => {
            let error = "Idempotency-Key must be 1 to 128 characters of ASCII".to_owned();
            return failure(StatusCode::BAD_REQUEST, error, None);
        }
    };
    let request: RequestId = convert::request_of(&key);
    let words = asked.words(broker.as_deref());
    if !handle.is_consistent(request, &words) {
        let error = "this Idempotency-Key was used for another command".to_owned();
        return failure(
            StatusCode::UNPROCESSABLE_ENTITY,
            error,
            Some("a new command needs a new key".to_owned()),
        );
    }
    // An app that has ended logs nothing, and says so below.
    let _ = handle.note(format!("{asker} asks: {words} (request {key})")).await;
    // Subscribed before the command is given, so that its first event is not missed.
    let waits = query.iter().any(|(key, value)| key == "wait" && value == "1");
    let at_the_end = asked.at_the_end();
    let subscription = match handle.subscribe(Some(u64::MAX)).await {
        Ok(subscription) => subscription,
        Err(gone) => return over(gone, key, at_the_end, waits),
    };
    let outcome = match asked.give(handle, request).await {
        Ok(outcome) => outcome,
        Err(gone) => return over(gone, key, at_the_end, waits),
    };
    if !waits {
        // Whoever is told so does not ask again: it is answered behind the command, which is recorded then.
        let _ = handle.pulse().await;
        kill_points::point("a command is about to be accepted");
        return (StatusCode::ACCEPTED, Json(CommandReply { request: key })).into_response();
    }
    let (lines, body) = mpsc::channel(16);
    tokio::spawn(async move {
        // The client has gone when nobody takes the lines any more; the command goes on.
        let _ = send_progress(key, broker, subscription, outcome, at_the_end, lines).await;
    });
    let body = Body::from_stream(ReceiverStream::new(body).map(Ok::<_, Infallible>));
    ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
}

/// The answer of an app that has ended before it was asked: whoever wanted just that has it, as the one that asks again
/// after the broker process was killed.
fn over(gone: Gone, key: String, at_the_end: Outcome, waits: bool) -> Response {
    match at_the_end {
        Outcome::Done { .. } if waits => {
            let body = line(&Progress::Request(key)) + &line(&Progress::Outcome(at_the_end));
            ([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response()
        }
        Outcome::Done { .. } => (StatusCode::ACCEPTED, Json(CommandReply { request: key })).into_response(),
        Outcome::Failed { .. } | Outcome::Superseded { .. } | Outcome::Refused { .. } => gone.into_response(),
    }
}

async fn send_progress(
    key: String,
    broker: Option<String>,
    subscription: Subscription,
    mut outcome: oneshot::Receiver<Outcome>,
    at_the_end: Outcome,
    lines: mpsc::Sender<String>,
) -> Result<(), mpsc::error::SendError<String>> {
    let mut live = subscription.live;
    lines.send(line(&Progress::Request(key))).await?;
    loop {
        let event = tokio::select! {
            biased;
            event = live.recv() => event,
            outcome = &mut outcome => {
                // Events that came before the outcome are sent before it.
                while let Ok(event) = live.try_recv() {
                    if event.broker == broker {
                        lines.send(line(&Progress::Event((*event).clone()))).await?;
                    }
                }
                return lines.send(line(&Progress::Outcome(outcome.unwrap_or(at_the_end)))).await;
            }
            () = lines.closed() => return Ok(()),
        };
        match event {
            Ok(event) if event.broker == broker => {
                lines.send(line(&Progress::Event((*event).clone()))).await?;
            }
            Ok(_) | Err(broadcast::error::RecvError::Lagged(_)) => {}
            Err(broadcast::error::RecvError::Closed) => {
                let outcome = outcome.await.unwrap_or(at_the_end);
                return lines.send(line(&Progress::Outcome(outcome))).await;
            }
        }
    }
}

fn line(progress: &Progress) -> String {
    let mut line = serde_json::to_string(progress).unwrap_or_default();
    line.push('\n');
    line
}
