//! `wait`: for scripts that go on when brokers are ready, drained or recycled.

use std::time::{Duration, Instant};

use shiftboss_api::client::{ClientError, EventStream, Item};
use shiftboss_api::{Broker, BrokerState, EventName, Status};

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
                    let error = format!("{} after {}", is_not(asked), text::took(limit));
                    let status = ["shiftboss status".to_owned(), asked.types.join(" ")].join(" ");
                    Err(Trouble::new(Exit::Busy, error).help(format!("`{}` shows why", status.trim_end())))
                }),
        }
    };
    tokio::select! {
        exit = waiting => exit,
        _ = tokio::signal::ctrl_c() => Ok(Exit::Interrupted),
    }
}

/// Looks once the stream is live, so that no change falls between the look and the first event, and again after
/// every event of the brokers.
async fn wait(session: &Session<'_>, asked: &WaitArgs) -> Result<Exit, Trouble> {
    let patience = if session.timeout.is_some() { Duration::MAX } else { ABSENCE };
    let mut events = begin(session, patience).await?;
    let mut live = false;
    loop {
        match next(&mut events, &asked.types).await? {
            Some(News::Live) => live = true,
            Some(News::Other) => {}
            Some(News::RecycleFailed(failure)) => {
                if live && asked.goal == Goal::Recycled {
                    return Err(failure);
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
            Ok(status) if is_reached(asked, &status)? => {
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
        match next(&mut events, &asked.types).await? {
            Some(News::RecycleFailed(failure)) => return Err(failure),
            Some(News::Other) => {}
            Some(News::Live) | None => return Ok(Exit::Done),
        }
    }
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
    RecycleFailed(Trouble),
    /// Something about these brokers, or events that may have been about it are missing.
    Other,
}

async fn next(events: &mut EventStream, types: &[String]) -> Result<Option<News>, ClientError> {
    loop {
        match events.next().await? {
            None => return Ok(None),
            Some(Item::Live) => return Ok(Some(News::Live)),
            Some(Item::Lost(_)) => return Ok(Some(News::Other)),
            Some(Item::Event { event, .. }) => {
                let Some(name) = event.broker.filter(|name| types.is_empty() || types.contains(name)) else {
                    continue;
                };
                return Ok(Some(match event.event {
                    EventName::RecycleFailed => {
                        let reason = event.reason.unwrap_or_default();
                        let error = format!("the recycle of {name} failed: {}", text::clean(&reason));
                        News::RecycleFailed(Trouble::new(Exit::Failed, error))
                    }
                    _ => News::Other,
                }));
            }
            Some(Item::Message { .. } | Item::Other(_)) => {}
        }
    }
}

/// An app that has nobody yet has not reached anything.
fn is_reached(asked: &WaitArgs, status: &Status) -> Result<bool, Trouble> {
    let named = asked.types.iter().map(|name| targets::find(status, name)).collect::<Result<Vec<_>, _>>()?;
    let all: Vec<&Broker> = if named.is_empty() { status.brokers.iter().collect() } else { named };
    let is_there = |broker: &&Broker| match (asked.goal, broker.state) {
        (Goal::Ready | Goal::Drained, BrokerState::Closed) => asked.types.is_empty(),
        (Goal::Ready, state) => state == BrokerState::Open && table::is_as_wanted(broker),
        (Goal::Drained, state) => state == BrokerState::Drained,
        (Goal::Recycled, _) => !broker.recycling,
    };
    Ok(!all.is_empty() && all.iter().all(is_there))
}

fn is_not(asked: &WaitArgs) -> String {
    let goal = word(asked.goal);
    match &asked.types[..] {
        [] => format!("not everything is {goal}"),
        [name] => format!("{name} is not {goal}"),
        names => format!("not all of {} are {goal}", names.join(", ")),
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
        waited_for(&["api"], fake, goal, timeout).await
    }

    async fn waited_for(
        types: &[&str],
        fake: &Fake,
        goal: Goal,
        timeout: Option<Duration>,
    ) -> Result<Exit, Trouble> {
        let (output, _) = capture::output();
        let session = Session::new(fake.client(), timeout, &output);
        let types = types.iter().map(|name| (*name).to_owned()).collect();
        run(&session, &WaitArgs { types, goal }).await
    }

    #[tokio::test]
    async fn without_a_name_all_are_waited_for_and_who_is_closed_may_be_so() {
        let opened = |name| Event { broker: Some(name), ..event("01", EventName::BrokerOpened, None, None) };
        let (mut api, mut jobs) = (broker("api", vec![worker(0, 5)]), broker("jobs", vec![]));
        jobs.state = BrokerState::Closed;
        api.state = BrokerState::Draining;
        let draining = json(&status(vec![api.clone(), jobs.clone()]));
        api.state = BrokerState::Open;
        let both = json(&status(vec![api, jobs]));
        let stream = stream(&[opened("api".into()), opened("jobs".into())]);
        let fake = Fake::serve(vec![stream, json(&status(vec![])), draining, both]);
        assert_eq!(waited_for(&[], &fake, Goal::Ready, None).await, Ok(Exit::Done));
        let limit = Some(Duration::from_millis(30));
        for (types, error) in [
            (&[][..], "not everything is drained after 30 ms"),
            (&["api", "jobs"], "not all of api, jobs are drained after 30 ms"),
        ] {
            let trouble = waited_for(types, &Fake::silent(), Goal::Drained, limit).await.unwrap_err();
            assert_eq!((trouble.exit, trouble.error.as_str()), (Exit::Busy, error));
        }
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
