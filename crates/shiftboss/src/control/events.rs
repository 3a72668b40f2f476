//! `GET /v1/events`: the kept events, then the live ones, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use shiftboss_api::{Event, EventsLost, MessageEvent, MessageName};
use tokio::sync::{broadcast, mpsc};
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;

use crate::convert::Moment;
use crate::feed::Subscription;
use crate::handle::{Gone, Handle, Names};
use crate::mail::{Kind, Said};
use crate::os::clock;

pub(super) async fn events(State(handle): State<Handle>, headers: HeaderMap) -> Result<Response, Gone> {
    let after = headers.get("last-event-id").and_then(|id| id.to_str().ok()).and_then(|id| id.parse().ok());
    let subscription = handle.subscribe(after).await?;
    let (lines, body) = mpsc::channel(16);
    tokio::spawn(async move {
        // The client has gone when nobody takes the lines any more.
        let _ = send_all(subscription, &handle.info().brokers, lines).await;
    });
    let body = Body::from_stream(ReceiverStream::new(body).map(Ok::<_, Infallible>));
    let headers = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((headers, body).into_response())
}

type Lines = mpsc::Sender<String>;

async fn send_all(
    subscription: Subscription,
    names: &Names,
    lines: Lines,
) -> Result<(), mpsc::error::SendError<String>> {
    let Subscription { lost, kept, mut live, mut said } = subscription;
    if lost > 0 {
        lines.send(lost_line(lost)).await?;
    }
    for event in kept {
        lines.send(event_line(&event)).await?;
    }
    lines.send(": live\n\n".to_owned()).await?;
    loop {
        let line = tokio::select! {
            event = live.recv() => match event {
                Ok(event) => event_line(&event),
                Err(broadcast::error::RecvError::Lagged(lost)) => lost_line(lost),
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            said = said.recv() => match said {
                Ok(said) => said_lines(&said, &names.now()),
                // Messages may be missed, and nobody counts on them.
                Err(broadcast::error::RecvError::Lagged(_)) => continue,
                Err(broadcast::error::RecvError::Closed) => return Ok(()),
            },
            () = lines.closed() => return Ok(()),
        };
        lines.send(line).await?;
    }
}

fn event_line(event: &Arc<Event>) -> String {
    let data = serde_json::to_string(&**event).unwrap_or_default();
    format!("id: {}\nevent: {}\ndata: {data}\n\n", event.seq, event.event)
}

/// Messages as they are told: live only, without a number.
fn said_lines(said: &Said, names: &[String]) -> String {
    let moment = Moment::now();
    let at = moment.wall(clock::now());
    let mut lines = String::new();
    for message in &said.messages {
        let event = match message.kind {
            Kind::Message => MessageName::WorkerMessage,
            Kind::Ops => MessageName::WorkerOps,
            // A question is between the worker and whoever answers it.
            Kind::Call(_) => continue,
        };
        let live = MessageEvent {
            at: at.clone(),
            broker: names.get(said.broker.0 as usize).cloned().unwrap_or_default(),
            event,
            worker: said.worker.to_string(),
            slot: said.slot,
            pid: said.pid,
            message: message.letter.clone(),
        };
        let data = serde_json::to_string(&live).unwrap_or_default();
        lines.push_str(&format!("event: {}\ndata: {}\n\n", event.as_str(), data.replace('\r', " ")));
    }
    lines
}

fn lost_line(events_lost: u64) -> String {
    let data = serde_json::to_string(&EventsLost { events_lost }).unwrap_or_default();
    format!("event: events_lost\ndata: {data}\n\n")
}
