//! `events`: what happened, as far as it is kept; with `-f` also what happens.

use std::collections::VecDeque;

use jiff::tz::TimeZone;
use shiftboss_api::EventsLost;
use shiftboss_api::client::{EventStream, Item};

use super::Session;
use crate::args::EventsArgs;
use crate::event_line;
use crate::exit::{Exit, Trouble};
use crate::text;

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &EventsArgs) -> Result<Exit, Trouble> {
    tokio::select! {
        exit = session.telling(tell(session, asked)) => exit,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

async fn tell(session: &Session<'_>, asked: &EventsArgs) -> Result<Exit, Trouble> {
    let mut lines = Lines::new(session);
    let mut events = session.in_time(session.client.events(None)).await?;
    let mut kept = VecDeque::new();
    loop {
        match session.in_time(events.next()).await? {
            Some(Item::Live) | None => break,
            Some(item) => {
                kept.push_back(item);
                if asked.last.is_some_and(|last| kept.len() > last) {
                    kept.pop_front();
                }
            }
        }
    }
    for item in &kept {
        lines.print(item)?;
    }
    if asked.follow { follow(session, &mut lines, events).await } else { Ok(Exit::Done) }
}

/// Tells what happens from now on, until the app or the time ends.
async fn follow(
    session: &Session<'_>,
    lines: &mut Lines<'_>,
    mut events: EventStream,
) -> Result<Exit, Trouble> {
    let began = tokio::time::Instant::now();
    loop {
        let next = match session.timeout {
            None => events.next().await,
            Some(limit) => match tokio::time::timeout_at(began + limit, events.next()).await {
                Ok(next) => next,
                Err(_) => return Ok(Exit::Busy),
            },
        };
        match next? {
            Some(item) => lines.print(&item)?,
            // The app has ended, and with it its events.
            None => return Ok(Exit::Done),
        }
    }
}

/// Prints items as they come.
struct Lines<'a> {
    session: &'a Session<'a>,
    zone: TimeZone,
    /// Columns of the longest type so far.
    name: usize,
}

impl<'a> Lines<'a> {
    fn new(session: &'a Session<'a>) -> Self {
        Lines { session, zone: TimeZone::system(), name: NAME }
    }

    fn print(&mut self, item: &Item) -> Result<(), Trouble> {
        let output = self.session.output;
        let line = match item {
            Item::Live => return Ok(()),
            Item::Event { json, .. } | Item::Message { json, .. } | Item::Other(json) if output.json => {
                json.clone()
            }
            Item::Lost(lost) if output.json => {
                serde_json::json!({"events_lost": lost.events_lost}).to_string()
            }
            Item::Event { event, .. } => {
                self.name = self.name.max(event.broker.as_ref().map_or(0, |name| name.chars().count()));
                event_line::human(event, self.name, &self.zone, output.out)
            }
            Item::Message { message, .. } => event_line::message(message, &self.zone, output.out),
            Item::Lost(EventsLost { events_lost }) => {
                format!(
                    "         {} missing here: no longer kept, or read too slowly",
                    text::count(*events_lost, "event")
                )
            }
            Item::Other(json) => text::clean(json),
        };
        output.line(&line)
    }
}

const NAME: usize = 6;

#[cfg(test)]
mod tests {
    use shiftboss_api::{Event, EventName};

    use super::super::fake::{Fake, answer};
    use super::*;
    use crate::output::capture;
    use crate::progress::tests::event;

    fn death(seq: u64) -> Event {
        Event {
            seq,
            worker: Some("3".into()),
            signal: Some("SIGKILL".into()),
            reason: Some("killed\u{7}".into()),
            ..event("58", EventName::WorkerDeath, Some(2), Some(130))
        }
    }

    fn stream(ids: std::ops::RangeInclusive<u64>, end: &str) -> String {
        let events = ids.map(|id| {
            let event = death(id);
            format!("id: {id}\nevent: {}\ndata: {}\n\n", event.event, serde_json::to_string(&event).unwrap())
        });
        answer("text/event-stream", &(events.collect::<String>() + end))
    }

    async fn seqs(answers: Vec<String>, follow: bool, last: Option<usize>) -> Vec<u64> {
        let (mut output, written) = capture::output();
        output.json = true;
        let fake = Fake::serve(answers);
        let session = Session::new(fake.client(), None, &output);
        assert_eq!(run(&session, &EventsArgs { follow, last }).await, Ok(Exit::Done));
        let seq = |line: &str| serde_json::from_str::<Event>(line).unwrap().seq;
        written.data().lines().map(seq).collect()
    }

    #[tokio::test]
    async fn without_following_it_ends_with_what_is_kept() {
        assert_eq!(seqs(vec![stream(1..=3, ": live\n\n")], false, None).await, [1, 2, 3]);
        assert_eq!(seqs(vec![stream(1..=3, ": live\n\n")], false, Some(2)).await, [2, 3]);
        assert_eq!(seqs(vec![stream(1..=3, ": live\n\n")], false, Some(0)).await, [0; 0]);
    }

    #[tokio::test]
    async fn following_goes_on_after_a_lost_connection_and_ends_with_the_app() {
        let answers = vec![stream(1..=2, ": live\n\n"), stream(3..=4, ": live\n\n")];
        assert_eq!(seqs(answers, true, None).await, [1, 2, 3, 4]);
    }

    #[tokio::test]
    async fn a_connection_that_breaks_within_an_event_costs_no_event_and_repeats_none() {
        let whole = stream(1..=4, ": live\n\n");
        for cut in [0, 20, whole.len() / 2, whole.len() - 3] {
            let answers = || vec![whole[..cut].to_owned(), whole.clone()];
            assert_eq!(seqs(answers(), true, None).await, [1, 2, 3, 4], "followed, cut at {cut}");
            assert_eq!(seqs(answers(), false, None).await, [1, 2, 3, 4], "kept, cut at {cut}");
        }
    }
}
