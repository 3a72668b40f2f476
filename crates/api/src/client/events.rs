//! The event stream: server-sent events, as in the HTML standard (§9.2), of which `id`, `event`, `data` and
//! comments are used.

use super::ClientError;
use super::connection::Answer;
use crate::{Event, EventsLost};

/// The app's events as they come. Made by [`Client::events`](super::Client::events).
#[derive(Debug)]
pub struct EventStream {
    answer: Answer,
    last_id: Option<u64>,
    name: String,
    data: String,
}

/// What a stream of events holds.
#[derive(Clone, Debug, PartialEq)]
pub enum Item {
    /// One event.
    Event {
        /// The event.
        event: Box<Event>,
        /// As the server wrote it, with the fields that this version does not know.
        json: String,
    },
    /// Events are missing here.
    Lost(EventsLost),
    /// An event whose name this version does not know, as the server wrote it.
    Other(String),
    /// The kept events have been told; those that follow happen now.
    Live,
}

impl EventStream {
    pub(super) fn new(answer: Answer, last_id: Option<u64>) -> Self {
        EventStream { answer, last_id, name: String::new(), data: String::new() }
    }

    /// Number of the last event seen: what to ask for after a lost connection.
    #[must_use]
    pub fn last_id(&self) -> Option<u64> {
        self.last_id
    }

    /// The next item; none when the app has ended the stream. A future that is dropped loses nothing.
    ///
    /// # Errors
    /// When the connection is lost or what comes makes no sense.
    pub async fn next(&mut self) -> Result<Option<Item>, ClientError> {
        while let Some(line) = self.answer.line().await? {
            if let Some(item) = self.read(&line)? {
                return Ok(Some(item));
            }
        }
        Ok(None)
    }

    /// One line; an item when the line completes one.
    fn read(&mut self, line: &str) -> Result<Option<Item>, ClientError> {
        if line.is_empty() {
            return self.complete();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if value == LIVE => return Ok(Some(Item::Live)),
            "id" => self.last_id = value.parse().ok().or(self.last_id),
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if !self.data.is_empty() {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Comments, and fields that the standard says to ignore.
            _ => {}
        }
        Ok(None)
    }

    fn complete(&mut self) -> Result<Option<Item>, ClientError> {
        let (name, json) = (std::mem::take(&mut self.name), std::mem::take(&mut self.data));
        if json.is_empty() {
            return Ok(None);
        }
        let wrong = |error| self.answer.protocol(format!("not an event: {error}"));
        if name == LOST {
            return serde_json::from_str(&json).map(|lost| Some(Item::Lost(lost))).map_err(wrong);
        }
        match serde_json::from_str(&json) {
            Ok(event) => Ok(Some(Item::Event { event: Box::new(event), json })),
            Err(error) if crate::EventName::ALL.iter().any(|known| known.as_str() == name) => {
                Err(wrong(error))
            }
            Err(_) => Ok(Some(Item::Other(json))),
        }
    }
}

const LIVE: &str = "live";
const LOST: &str = "events_lost";

#[cfg(test)]
mod tests {
    use super::super::Client;
    use super::super::fake::{Fake, answer};
    use super::*;

    const DEATH: &str = r#"{"seq":7,"at":"2026-11-24T14:21:58Z","broker":"api","event":"worker_death","worker":"3","slot":2,"pid":130,"code":null,"signal":"SIGKILL","forced":false,"reason":"killed","request":null,"later":1}"#;

    fn stream(body: &str) -> String {
        answer(200, "text/event-stream", body)
    }

    #[tokio::test]
    async fn kept_events_the_mark_and_live_events_come_in_order() {
        let body = format!(
            "event: events_lost\ndata: {{\"events_lost\":3}}\n\nid: 7\nevent: worker_death\ndata: {DEATH}\n\n\
             : live\n\n: another comment\n\nid: 8\nevent: later_event\ndata: {{\"seq\":8}}\n\n"
        );
        let fake = Fake::serve(vec![stream(&body)]);
        let mut events = Client::new(fake.socket()).events(Some(3)).await.unwrap();
        assert_eq!(events.next().await.unwrap(), Some(Item::Lost(EventsLost { events_lost: 3 })));
        let Some(Item::Event { event, json }) = events.next().await.unwrap() else { panic!("no event") };
        assert_eq!((event.seq, event.signal.as_deref(), json.as_str()), (7, Some("SIGKILL"), DEATH));
        assert_eq!(events.next().await.unwrap(), Some(Item::Live));
        assert_eq!(events.next().await.unwrap(), Some(Item::Other(r#"{"seq":8}"#.to_owned())));
        assert_eq!(events.next().await.unwrap(), None);
        assert_eq!(events.last_id(), Some(8));
        assert!(fake.asked()[0].contains("last-event-id: 3\r\n"));
    }

    #[tokio::test]
    async fn a_known_event_that_cannot_be_read_is_a_protocol_error() {
        let fake = Fake::serve(vec![stream("event: worker_death\ndata: {\"seq\":true}\n\n")]);
        let mut events = Client::new(fake.socket()).events(None).await.unwrap();
        assert!(matches!(events.next().await, Err(ClientError::Protocol { .. })));
        assert!(!fake.asked()[0].contains("last-event-id"));
    }

    #[tokio::test]
    async fn an_answer_of_another_kind_is_a_protocol_error() {
        let fake = Fake::serve(vec![super::super::fake::json(200, "{}")]);
        let error = Client::new(fake.socket()).events(None).await.unwrap_err();
        assert!(matches!(error, ClientError::Protocol { .. }), "{error}");
    }
}
