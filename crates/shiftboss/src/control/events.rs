//! `GET /v1/events`: the kept events, then the live ones, as server-sent events.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use serde_json::value::RawValue;
use shiftboss_api::{Event, EventsLost, MessageName};
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
    let (lines, body) = mpsc::channel(1);
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
        // A message may be long, and a client slow: nothing is made for one that has not taken what came before.
        let place = lines.reserve().await.map_err(|_| mpsc::error::SendError(String::new()))?;
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
        place.send(line);
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
    let mut lines = Vec::new();
    for message in &said.messages {
        let event = match message.kind {
            Kind::Message => MessageName::WorkerMessage,
            Kind::Ops => MessageName::WorkerOps,
            // A question is between the worker and whoever answers it.
            Kind::Call(_) => continue,
        };
        let length = message.letter.get().len() + AROUND;
        if lines.is_empty() {
            lines.reserve_exact(length);
        } else {
            lines.reserve(length);
        }
        lines.extend(b"event: ");
        lines.extend(event.as_str().as_bytes());
        lines.extend(b"\ndata: ");
        let live = Live {
            at: &at,
            broker: names.get(said.broker.0 as usize).map_or("", String::as_str),
            event,
            worker: said.worker.to_string(),
            slot: said.slot,
            pid: said.pid,
            message: &message.letter,
        };
        let data = lines.len();
        // Writing to memory does not fail.
        let _ = serde_json::to_writer(&mut lines, &live);
        // White space to JSON, the end of a line to readers of events.
        lines[data..].iter_mut().filter(|byte| **byte == b'\r').for_each(|byte| *byte = b' ');
        lines.extend(b"\n\n");
    }
    String::from_utf8(lines).unwrap_or_default()
}

/// A [`shiftboss_api::MessageEvent`] that owns no message: one may be long.
#[derive(Serialize)]
struct Live<'a> {
    at: &'a str,
    broker: &'a str,
    event: MessageName,
    worker: String,
    slot: Option<u32>,
    pid: u32,
    message: &'a RawValue,
}

fn lost_line(events_lost: u64) -> String {
    let data = serde_json::to_string(&EventsLost { events_lost }).unwrap_or_default();
    format!("event: events_lost\ndata: {data}\n\n")
}

/// What an event has around its message.
const AROUND: usize = 512;

#[cfg(test)]
mod tests {
    use shiftboss_api::MessageEvent;
    use shiftboss_core::id::{BrokerId, WorkerId};

    use super::*;
    use crate::mail::Message;

    #[test]
    fn a_message_is_an_event_of_one_line_and_a_question_is_none() {
        let message = |text: &str, kind| {
            let letter = RawValue::from_string(text.to_owned()).unwrap();
            Message { letter, kind }
        };
        let messages = vec![
            message("{\"a\":\r1}", Kind::Message),
            message("7", Kind::Call(1)),
            message("{\"type\":\"ops\"}", Kind::Ops),
        ];
        let said = Said { broker: BrokerId(1), worker: WorkerId(7), pid: 12, slot: Some(3), messages };
        let lines = said_lines(&said, &["api".to_owned(), "jobs".to_owned()]);
        let events: Vec<&str> = lines.split_terminator("\n\n").collect();
        assert_eq!(events.len(), 2);
        for (event, (name, message)) in
            events.iter().zip([("worker_message", "{\"a\": 1}"), ("worker_ops", "{\"type\":\"ops\"}")])
        {
            let data = event.strip_prefix(&format!("event: {name}\ndata: ")).unwrap();
            let read: MessageEvent = serde_json::from_str(data).unwrap();
            assert_eq!((read.broker.as_str(), read.worker.as_str(), read.slot), ("jobs", "7", Some(3)));
            assert_eq!(read.message.get(), message);
        }
    }
}
