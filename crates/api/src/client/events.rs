//! The event stream: server-sent events, as in the HTML standard (§9.2), of which `id`, `event`, `data` and
//! comments are used.

use super::away::Away;
use super::connection::{Answer, Ask};
use super::{Client, ClientError};
use crate::{Event, EventsLost, MessageEvent, MessageName};

/// The app's events as they come, each once, for as long as the app lives: a lost connection is opened again and the
/// events go on after the last one. Made by [`Client::events`](super::Client::events).
#[derive(Debug)]
pub struct EventStream {
    client: Client,
    ask: Ask,
    /// None while it is lost.
    answer: Option<Answer>,
    away: Away,
    over: bool,
    /// What comes was asked for by the last event's number and is not live yet.
    again: bool,
    partial: Partial,
}

/// An event that has not come as a whole.
#[derive(Debug, Default)]
struct Partial {
    id: Option<u64>,
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
    /// What a worker said. Some may be missing, and nothing says which: nobody waits for a slow reader.
    Message {
        /// Who said what.
        message: Box<MessageEvent>,
        /// As the server wrote it.
        json: String,
    },
    /// Events are missing here.
    Lost(EventsLost),
    /// An event whose name this version does not know, as the server wrote it.
    Other(String),
    /// The kept events have been told; those that follow happen now. It comes again after every lost connection.
    Live,
}

impl EventStream {
    pub(super) async fn open(client: Client, last_event_id: Option<u64>) -> Result<Self, ClientError> {
        let (mut away, mut ask) = (Away::default(), Ask::get("/v1/events"));
        ask.last_event_id = last_event_id;
        let answer = Some(client.open(&mut away, &ask, EVENTS).await?);
        let partial = Partial::default();
        Ok(EventStream { client, ask, answer, away, over: false, again: false, partial })
    }

    /// Number of the last event seen: what to ask for in another stream.
    #[must_use]
    pub fn last_id(&self) -> Option<u64> {
        self.ask.last_event_id
    }

    /// The next item; none when the app is gone. A future that is dropped loses nothing.
    ///
    /// # Errors
    /// When what comes makes no sense, or an app that was lost does not answer for 60 s. There is no further item then.
    pub async fn next(&mut self) -> Result<Option<Item>, ClientError> {
        let next = self.advance().await;
        if matches!(next, Ok(None) | Err(_)) {
            self.over = true;
            self.answer = None;
        }
        next
    }

    async fn advance(&mut self) -> Result<Option<Item>, ClientError> {
        while !self.over {
            let Some(answer) = &mut self.answer else {
                match self.client.open(&mut self.away, &self.ask, EVENTS).await {
                    Ok(answer) => self.answer = Some(answer),
                    Err(ClientError::NotRunning { .. }) => return Ok(None),
                    Err(error) => return Err(error),
                }
                continue;
            };
            match answer.line().await {
                Ok(Some(line)) => {
                    if let Some(item) = self.read(&line)? {
                        return Ok(Some(item));
                    }
                }
                Ok(None) => self.lost(),
                Err(error) if error.is_a_loss() => self.lost(),
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    fn lost(&mut self) {
        self.answer = None;
        self.partial = Partial::default();
        self.again = true;
        self.away.lost();
    }

    /// One line; an item when the line completes one that is new.
    fn read(&mut self, line: &str) -> Result<Option<Item>, ClientError> {
        if line.is_empty() {
            return self.complete();
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        let partial = &mut self.partial;
        match field {
            "" if value == LIVE => {
                self.again = false;
                self.away.over(&self.client);
                return Ok(Some(Item::Live));
            }
            "id" => partial.id = value.parse().ok(),
            "event" => value.clone_into(&mut partial.name),
            "data" => {
                if !partial.data.is_empty() {
                    partial.data.push('\n');
                }
                partial.data.push_str(value);
            }
            // Comments, and fields that the standard says to ignore.
            _ => {}
        }
        Ok(None)
    }

    fn complete(&mut self) -> Result<Option<Item>, ClientError> {
        let Partial { id, name, data } = std::mem::take(&mut self.partial);
        if data.is_empty() {
            return Ok(None);
        }
        // Once it is live the numbers may be those of another app at the same place, and count from 1 again.
        if self.again && id.is_some() && id <= self.ask.last_event_id {
            return Ok(None);
        }
        let item =
            item(&name, data).map_err(|error| self.client.protocol(format!("not an event: {error}")))?;
        self.ask.last_event_id = id.or(self.ask.last_event_id);
        self.away.over(&self.client);
        Ok(Some(item))
    }
}

fn item(name: &str, json: String) -> serde_json::Result<Item> {
    if name == LOST {
        return serde_json::from_str(&json).map(Item::Lost);
    }
    if [MessageName::WorkerMessage, MessageName::WorkerOps].iter().any(|known| known.as_str() == name) {
        return serde_json::from_str(&json).map(|message| Item::Message { message: Box::new(message), json });
    }
    match serde_json::from_str(&json) {
        Ok(event) => Ok(Item::Event { event: Box::new(event), json }),
        Err(error) if crate::EventName::ALL.iter().any(|known| known.as_str() == name) => Err(error),
        Err(_) => Ok(Item::Other(json)),
    }
}

const EVENTS: &str = "text/event-stream";
const LIVE: &str = "live";
const LOST: &str = "events_lost";

#[cfg(test)]
mod tests {
    use super::super::Client;
    use super::super::fake::{Fake, Turn, answer};
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
        let fake = Fake::serve_and_leave(vec![stream(&body)]);
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
    async fn a_message_of_any_length_has_no_number_and_is_had_as_it_was_written() {
        let long = "x".repeat(2 << 20);
        let said = format!(
            r#"{{"at":"2026-11-24T14:21:58Z","broker":"api","event":"worker_message","worker":"3","slot":2,"pid":130,"message":{{"a" : "{long}"}}}}"#
        );
        let body = format!(
            "id: 7\nevent: worker_death\ndata: {DEATH}\n\n: live\n\nevent: worker_message\ndata: {said}\n\n"
        );
        let fake = Fake::serve_and_leave(vec![stream(&body)]);
        let mut events = Client::new(fake.socket()).events(None).await.unwrap();
        while events.next().await.unwrap() != Some(Item::Live) {}
        let Some(Item::Message { message, json }) = events.next().await.unwrap() else {
            panic!("no message")
        };
        assert!(json == said && message.message.get() == format!("{{\"a\" : \"{long}\"}}"));
        assert_eq!((message.slot, events.last_id()), (Some(2), Some(7)));
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

    fn told(seqs: &[u64]) -> String {
        let one = |seq| {
            let death = DEATH.replacen("\"seq\":7", &format!("\"seq\":{seq}"), 1);
            format!("id: {seq}\nevent: worker_death\ndata: {death}\n\n")
        };
        seqs.iter().map(one).collect()
    }

    /// What comes of those answers: numbers, lost ones negative; and what was asked for.
    async fn followed(turns: Vec<Turn>) -> (Vec<i64>, Vec<Option<u64>>) {
        let fake = Fake::turns_and_leave(turns);
        let mut events = Client::new(fake.socket()).events(None).await.unwrap();
        let mut seqs = Vec::new();
        while let Some(item) = events.next().await.unwrap() {
            match item {
                Item::Event { event, .. } => seqs.push(event.seq.cast_signed()),
                Item::Lost(lost) => seqs.push(-lost.events_lost.cast_signed()),
                Item::Other(json) | Item::Message { json, .. } => panic!("{json}"),
                Item::Live => {}
            }
        }
        assert!(matches!(events.next().await, Ok(None)), "nothing comes after the end");
        let after = |asked: &String| {
            let id = asked.lines().find_map(|line| line.strip_prefix("last-event-id: "))?;
            Some(id.parse().unwrap())
        };
        (seqs, fake.asked().iter().map(after).collect())
    }

    #[tokio::test]
    async fn events_go_on_after_the_last_one_and_none_comes_twice() {
        let first = stream(&(told(&[1, 2]) + ": live\n\n" + &told(&[3])));
        let second = stream(&(told(&[2, 3, 4]) + ": live\n\n"));
        let (seqs, asked) = followed(vec![Turn::Answer(first), Turn::Answer(second)]).await;
        assert_eq!((seqs, asked), (vec![1, 2, 3, 4], vec![None, Some(3)]));
    }

    #[tokio::test]
    async fn half_an_event_is_not_told_and_comes_again_whole() {
        let both = told(&[1, 2]);
        for cut in told(&[1]).len()..both.len() {
            let turns = vec![Turn::Answer(stream(&both[..cut])), Turn::Answer(stream(&told(&[2])))];
            let (seqs, asked) = followed(turns).await;
            assert_eq!((seqs, asked), (vec![1, 2], vec![None, Some(1)]), "cut at {cut}");
        }
    }

    #[tokio::test]
    async fn before_the_first_event_all_that_are_kept_are_asked_for_again() {
        let whole = stream(&told(&[1, 2]));
        let turns = vec![Turn::Deaf, Turn::FirstLine, Turn::Answer(stream("id: 1\n")), Turn::Answer(whole)];
        let (seqs, asked) = followed(turns).await;
        assert_eq!((seqs, asked.last()), (vec![1, 2], Some(&None)));
    }

    #[tokio::test]
    async fn what_was_missed_meanwhile_is_said() {
        let gap = "event: events_lost\ndata: {\"events_lost\":5}\n\n".to_owned();
        let turns = vec![
            Turn::Answer(stream(&told(&[1]))),
            Turn::Answer(stream(&(gap + &told(&[7]) + ": live\n\n"))),
        ];
        assert_eq!(followed(turns).await.0, [1, -5, 7]);
    }

    #[tokio::test]
    async fn another_app_at_the_same_place_counts_anew() {
        let turns = vec![
            Turn::Answer(stream(&told(&[8, 9]))),
            Turn::Answer(stream(&(": live\n\n".to_owned() + &told(&[1, 2])))),
            Turn::Answer(stream(&told(&[3]))),
        ];
        let (seqs, asked) = followed(turns).await;
        assert_eq!((seqs, asked), (vec![8, 9, 1, 2, 3], vec![None, Some(9), Some(2)]));
    }
}
