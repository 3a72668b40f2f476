//! `wait`: for scripts that go on when a broker is ready, drained or recycled.

use std::time::{Duration, Instant};

use shiftboss_api::client::{ClientError, EventStream, Item};
use shiftboss_api::{Broker, BrokerState, EventName};

use super::{Session, targets};
use crate::args::{Goal, WaitArgs};
use crate::exit::{Exit, Trouble};
use crate::table;
use crate::text;

/// Runs the verb.
pub(crate) async fn run(session: &Session<'_>, asked: &WaitArgs) -> Result<Exit, Trouble> {
    let waiting = async {
        match session.timeout {
            None => session.telling(wait(session, asked)).await,
            Some(limit) => tokio::time::timeout(limit, session.telling(wait(session, asked)))
                .await
                .unwrap_or_else(|_| {
                    let (name, goal) = (&asked.broker, word(asked.goal));
                    Err(Trouble::new(Exit::Busy, format!("{name} is not {goal} after {}", text::took(limit)))
                        .help(format!("`shiftboss status {name}` shows why")))
                }),
        }
    };
    tokio::select! {
        exit = waiting => exit,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

/// Looks once the stream is live, so that no change falls between the look and the first event, and again after
/// every event of the broker.
async fn wait(session: &Session<'_>, asked: &WaitArgs) -> Result<Exit, Trouble> {
    let patience = if session.timeout.is_some() { Duration::MAX } else { ABSENCE };
    let mut events = begin(session, patience).await?;
    let mut live = false;
    loop {
        match next(&mut events, &asked.broker).await? {
            Some(News::Live) => live = true,
            Some(News::Other) => {}
            Some(News::RecycleFailed(reason)) => {
                if live && asked.goal == Goal::Recycled {
                    return Err(failed(asked, &reason));
                }
            }
            // It has ended; whoever waits may just have started it again.
            None => {
                events = begin(session, ABSENCE).await?;
                live = false;
            }
        }
        if !live {
            continue;
        }
        match session.client.status().await {
            Ok(status) if is_reached(asked.goal, targets::find(&status, &asked.broker)?) => {
                return reached(session, asked, events.last_id()).await;
            }
            // The stream ends, too, and says what is to be done about it.
            Ok(_) | Err(ClientError::NotRunning { .. } | ClientError::Io { .. }) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// The status may be ahead of the events: that a recycle is over does not say how it ended. Whatever came before it is
/// told to whoever asks now for what follows the last event that was read.
async fn reached(session: &Session<'_>, asked: &WaitArgs, last: Option<u64>) -> Result<Exit, Trouble> {
    if asked.goal != Goal::Recycled {
        return Ok(Exit::Done);
    }
    let mut events = session.client.events(last).await?;
    loop {
        match next(&mut events, &asked.broker).await? {
            Some(News::RecycleFailed(reason)) => return Err(failed(asked, &reason)),
            Some(News::Other) => {}
            Some(News::Live) | None => return Ok(Exit::Done),
        }
    }
}

fn failed(asked: &WaitArgs, reason: &str) -> Trouble {
    let error = format!("the recycle of {} failed: {}", asked.broker, text::clean(reason));
    Trouble::new(Exit::Failed, error)
}

/// The app may just be starting: it is waited for, too, so long.
async fn begin(session: &Session<'_>, patience: Duration) -> Result<EventStream, ClientError> {
    let began = Instant::now();
    loop {
        match session.client.events(None).await {
            Err(ClientError::NotRunning { .. }) if began.elapsed() < patience => {
                tokio::time::sleep(PAUSE).await;
            }
            stream => return stream,
        }
    }
}

/// What is of interest in the stream.
enum News {
    Live,
    RecycleFailed(String),
    /// Something about the broker, or events that may have been about it are missing.
    Other,
}

async fn next(events: &mut EventStream, broker: &str) -> Result<Option<News>, ClientError> {
    loop {
        match events.next().await? {
            None => return Ok(None),
            Some(Item::Live) => return Ok(Some(News::Live)),
            Some(Item::Lost(_)) => return Ok(Some(News::Other)),
            Some(Item::Event { event, .. }) if event.broker.as_deref() == Some(broker) => {
                return Ok(Some(match event.event {
                    EventName::RecycleFailed => News::RecycleFailed(event.reason.unwrap_or_default()),
                    _ => News::Other,
                }));
            }
            Some(Item::Event { .. } | Item::Message { .. } | Item::Other(_)) => {}
        }
    }
}

fn is_reached(goal: Goal, broker: &Broker) -> bool {
    match goal {
        Goal::Ready => broker.state == BrokerState::Open && table::is_as_wanted(broker),
        Goal::Drained => broker.state == BrokerState::Drained,
        Goal::Recycled => !broker.recycling,
    }
}

fn word(goal: Goal) -> &'static str {
    match goal {
        Goal::Ready => "ready",
        Goal::Drained => "drained",
        Goal::Recycled => "recycled",
    }
}

const PAUSE: Duration = Duration::from_millis(50);
/// How long the app may be away before it counts as gone.
const ABSENCE: Duration = Duration::from_secs(10);

#[cfg(test)]
mod tests {
    use shiftboss_api::Event;

    use super::super::fake::{Fake, answer, json};
    use super::*;
    use crate::output::capture;
    use crate::progress::tests::event;
    use crate::table::tests::{broker, status, worker};

    fn stream(after_live: &[Event]) -> String {
        answer("text/event-stream", &(": live\n\n".to_owned() + &lines(after_live)))
    }

    fn lines(events: &[Event]) -> String {
        let lines = events.iter().map(|event| {
            format!(
                "id: {}\nevent: {}\ndata: {}\n\n",
                event.seq,
                event.event,
                serde_json::to_string(event).unwrap()
            )
        });
        lines.collect()
    }

    fn now(change: impl FnOnce(&mut Broker)) -> String {
        let mut api = broker("api", vec![worker(0, 5)]);
        change(&mut api);
        json(&status(vec![api]))
    }

    async fn waited(goal: Goal, answers: Vec<String>) -> Result<Exit, Trouble> {
        waited_at(&Fake::serve(answers), goal, None).await
    }

    async fn waited_at(fake: &Fake, goal: Goal, timeout: Option<Duration>) -> Result<Exit, Trouble> {
        let (output, _) = capture::output();
        let session = Session::new(fake.client(), timeout, &output);
        run(&session, &WaitArgs { broker: "api".into(), goal }).await
    }

    #[tokio::test]
    async fn what_is_so_already_is_not_waited_for() {
        assert_eq!(waited(Goal::Ready, vec![stream(&[]), now(|_| {})]).await, Ok(Exit::Done));
        let unknown = vec![stream(&[]), json(&status(vec![]))];
        assert_eq!(waited(Goal::Ready, unknown).await.unwrap_err().exit, Exit::Usage);
    }

    #[tokio::test]
    async fn every_event_of_the_broker_is_a_reason_to_look_again() {
        let drained = event("01", EventName::BrokerDrained, None, None);
        let other = Event { broker: Some("jobs".into()), ..drained.clone() };
        let answers = vec![
            stream(&[other, drained]),
            now(|api| api.state = BrokerState::Draining),
            now(|api| api.state = BrokerState::Drained),
        ];
        assert_eq!(waited(Goal::Drained, answers).await, Ok(Exit::Done));
    }

    #[tokio::test]
    async fn a_recycle_that_fails_is_not_waited_for_any_longer() {
        let failed =
            Event { reason: Some("exit 1".into()), ..event("01", EventName::RecycleFailed, None, None) };
        let answers = vec![stream(&[failed]), now(|api| api.recycling = true)];
        let trouble = waited(Goal::Recycled, answers).await.unwrap_err();
        assert_eq!(
            (trouble.exit, trouble.error.as_str()),
            (Exit::Failed, "the recycle of api failed: exit 1")
        );
    }

    #[tokio::test]
    async fn a_status_that_is_ahead_of_the_events_hides_no_failure() {
        let died = event("01", EventName::WorkerDeath, Some(0), Some(9));
        let failed = Event {
            seq: 2,
            reason: Some("exit 3".into()),
            ..event("01", EventName::RecycleFailed, None, None)
        };
        let finished = Event { seq: 2, ..event("01", EventName::RecycleFinished, None, None) };
        for (end, exit) in [(failed, Exit::Failed), (finished, Exit::Done)] {
            let answers = vec![
                stream(&[died.clone(), end.clone()]),
                now(|api| api.recycling = true),
                now(|_| {}),
                answer("text/event-stream", &(lines(&[end]) + ": live\n\n")),
            ];
            let waited = waited(Goal::Recycled, answers).await;
            assert_eq!(waited.unwrap_or_else(|trouble| trouble.exit), exit);
        }
    }

    #[tokio::test]
    async fn a_time_limit_is_exit_75() {
        let trouble =
            waited_at(&Fake::silent(), Goal::Ready, Some(Duration::from_millis(30))).await.unwrap_err();
        assert_eq!((trouble.exit, trouble.error.as_str()), (Exit::Busy, "api is not ready after 30 ms"));
    }

    #[tokio::test]
    async fn a_broker_process_that_is_replaced_meanwhile_is_asked_again() {
        let drained = event("01", EventName::BrokerDrained, None, None);
        let whole = stream(&[drained]);
        let answers = vec![
            String::new(),
            whole[..whole.len() - 9].to_owned(),
            now(|api| api.state = BrokerState::Draining),
            whole,
            now(|api| api.state = BrokerState::Drained)[..30].to_owned(),
            now(|api| api.state = BrokerState::Drained),
        ];
        assert_eq!(waited(Goal::Drained, answers).await, Ok(Exit::Done));
    }
}
