//! Commands given and followed to their ends, several at once; or given and left.

mod ending;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use shiftboss_api::Progress;
use shiftboss_api::client::{Call, ClientError};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::{AWAY, Session};
use crate::exit::{Exit, Trouble};
use crate::progress::{Board, Doing, Track};

/// A command to give, and the picture of it.
pub(super) struct Job {
    pub(super) call: Call,
    pub(super) track: Track,
    /// It has listeners: a drain has something to say of connections.
    pub(super) listens: bool,
}

/// What a job knows of its end: its last line, or why there is none.
type Line = Result<Option<Progress>, ClientError>;

/// Gives the commands and prints their request ids, in order; the first that is not taken ends it.
pub(super) async fn leave(session: &Session<'_>, jobs: Vec<Job>) -> Result<Exit, Trouble> {
    for job in jobs {
        let reply = session.telling(job.call.send()).await?;
        if session.output.json {
            let name = &job.track.name;
            session
                .output
                .line(&serde_json::json!({"broker": name, "request": reply.request}).to_string())?;
        } else {
            session.output.line(&reply.request)?;
        }
    }
    Ok(Exit::Done)
}

/// Gives all commands at once and follows each to its end, which it says. The exit code is that of the first that
/// failed.
pub(super) async fn follow(session: &Session<'_>, jobs: Vec<Job>) -> Result<Exit, Trouble> {
    let began = Instant::now();
    let listens: Vec<bool> = jobs.iter().map(|job| job.listens).collect();
    let (lines, mut came) = mpsc::channel(64);
    let mut tasks = JoinSet::new();
    let mut tracks = Vec::new();
    for (at, job) in jobs.into_iter().enumerate() {
        tasks.spawn(forward(at, job.call, lines.clone()));
        tracks.push(job.track);
    }
    drop(lines);
    let mut board = Board::new(session.output, tracks);
    let mut worst = Exit::Done;
    let mut told = BTreeSet::new();
    let mut tick = tokio::time::interval(REDRAW);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let (at, line) = tokio::select! {
            line = came.recv() => match line {
                Some(line) => line,
                None => return Ok(worst),
            },
            _ = tick.tick(), if board.is_drawn() => {
                board.redraw(Timestamp::now());
                continue;
            }
            () = session.away.notified() => {
                board.erase();
                session.output.say(AWAY);
                continue;
            }
            _ = tokio::signal::ctrl_c() => {
                board.erase();
                return Ok(left(session, &board));
            }
        };
        print_json(session, &board, at, &line, &mut told)?;
        let ending = match line {
            Ok(Some(Progress::Request(_)) | None) => continue,
            Ok(Some(Progress::Event(event))) => {
                board.take(at, &event);
                continue;
            }
            Ok(Some(Progress::Outcome(outcome))) => Ok(outcome),
            Err(error) => Err(error),
        };
        let Some(track) = board.track(at) else { continue };
        let ending = ending::of(session, track, ending, began.elapsed(), listens[at]).await;
        let exit = board.finish(at, &ending)?;
        if worst == Exit::Done {
            worst = exit;
        }
    }
}

async fn forward(at: usize, call: Call, lines: mpsc::Sender<(usize, Line)>) {
    let mut stream = call.wait();
    loop {
        let line = stream.next().await;
        let over = matches!(line, Ok(None) | Err(_));
        // Nobody follows any more.
        if lines.send((at, line)).await.is_err() || over {
            return;
        }
    }
}

/// With `--json` each line says whose it is. Commands to one broker hear the same events, which are told once, by their
/// numbers.
fn print_json(
    session: &Session<'_>,
    board: &Board<'_>,
    at: usize,
    line: &Line,
    told: &mut BTreeSet<u64>,
) -> Result<(), Trouble> {
    let (true, Some(track), Ok(Some(progress))) = (session.output.json, board.track(at), line) else {
        return Ok(());
    };
    let name = match track.doing {
        Doing::Stop | Doing::Upgrade { .. } => None,
        Doing::Recycle(_) | Doing::Drain | Doing::Resume | Doing::Scale(_) => Some(&track.name),
    };
    let json = match progress {
        Progress::Request(request) => serde_json::json!({"broker": name, "request": request}),
        Progress::Event(event) if !told.insert(event.seq) => return Ok(()),
        Progress::Event(event) => serde_json::json!({"broker": name, "event": event}),
        Progress::Outcome(outcome) => serde_json::json!({"broker": name, "outcome": outcome}),
    };
    session.output.line(&json.to_string())
}

/// Ctrl-C ends the looking on, not the commands.
fn left(session: &Session<'_>, board: &Board<'_>) -> Exit {
    for track in board.open() {
        session.output.say(&ending::goes_on(track));
    }
    Exit::Interrupted
}

/// After a stop the app may be at its very end still: waits until nobody answers, so that the next start finds its
/// place free.
pub(super) async fn until_gone(session: &Session<'_>) {
    let gone = async {
        while !matches!(session.client.status().await, Err(ClientError::NotRunning { .. })) {
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    };
    // The stop itself is done: an app that lingers is no failure of it.
    let _ = tokio::time::timeout(LONGEST_END, gone).await;
}

const REDRAW: Duration = Duration::from_millis(100);
const LOOK_AGAIN: Duration = Duration::from_millis(20);
const LONGEST_END: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use shiftboss_api::client::{Client, Options};
    use shiftboss_api::{Event, EventName, Outcome, Recycle};

    use super::super::fake::{Fake, answer, json, progress};
    use super::*;
    use crate::output::{Output, capture};
    use crate::progress::tests::event;
    use crate::table::tests::{broker, status, worker};

    fn request() -> Progress {
        Progress::Request("k".into())
    }

    fn done() -> Progress {
        Progress::Outcome(Outcome::Done { note: None, total: 2, replaced: 2, cut: 0, refused: 0 })
    }

    fn job(client: &Client, name: &str, timeout: Option<Duration>) -> Job {
        let options = Options { timeout, key: Some("k".into()) };
        let call = client.recycle(name, &Recycle::default(), &options).unwrap();
        let broker = broker(name, vec![worker(0, 5), worker(1, 6)]);
        Job { call, track: Track::new(Doing::Recycle(None), &broker), listens: true }
    }

    async fn run(fake: &Fake, output: &Output, names: &[&str], timeout: Option<Duration>) -> Exit {
        let session = Session::new(fake.client(), timeout, output);
        let jobs = names.iter().map(|name| job(&session.client, name, timeout)).collect();
        follow(&session, jobs).await.unwrap()
    }

    fn without_time(line: &str) -> String {
        let Some((before, rest)) = line.split_once(" in ") else { return line.to_owned() };
        let after = rest.find(';').or_else(|| rest.rfind('.')).map_or("", |at| &rest[at..]);
        format!("{before} in T{after}")
    }

    #[tokio::test]
    async fn every_command_says_how_it_ended() {
        let (output, written) = capture::output();
        let fake = Fake::serve(vec![progress(&[request(), done()]), progress(&[request(), done()])]);
        assert_eq!(run(&fake, &output, &["api", "jobs"], None).await, Exit::Done);
        let mut lines: Vec<String> = written.data().lines().map(without_time).collect();
        lines.sort();
        let end = |name| format!("Recycled {name}: 2 of 2 in T; none was stopped before it had finished.");
        assert_eq!(lines, [end("api"), end("jobs")]);
    }

    #[tokio::test]
    async fn a_failed_recycle_tells_the_workers_last_words_and_who_still_serves() {
        let (output, written) = capture::output();
        let failed = Outcome::Failed {
            reason: "the new worker exited with 1 before it was ready".into(),
            total: 4,
            replaced: 1,
            worker: Some("7".into()),
            slot: Some(1),
            last_lines: vec![
                "Error: Cannot find module './routes/orders'".into(),
                "    at load\u{1b}[2J".into(),
            ],
        };
        let now = status(vec![broker("api", (0..4).map(|slot| worker(slot, slot + 5)).collect())]);
        let fake = Fake::serve(vec![progress(&[request(), Progress::Outcome(failed)]), json(&now)]);
        assert_eq!(run(&fake, &output, &["api"], None).await, Exit::Failed);
        let expected = "\
error: recycle of api stopped at worker 2 of 4: the new worker exited with 1 before it was ready
   ├ last lines of worker 7
   │   Error: Cannot find module './routes/orders'
   │       at load\u{fffd}[2J
   ├ still serving: 1 new worker, 3 old ones
   └ help: fix the cause, then `shiftboss recycle api`
";
        assert_eq!((written.talk().as_str(), written.data().as_str()), (expected, ""));
    }

    #[tokio::test]
    async fn the_exit_code_is_that_of_the_one_that_failed() {
        let (output, written) = capture::output();
        let superseded = Progress::Outcome(Outcome::Superseded { reason: "drained".into() });
        let fake = Fake::serve(vec![progress(&[request(), superseded]), progress(&[request(), done()])]);
        assert_eq!(run(&fake, &output, &["api", "jobs"], None).await, Exit::Failed);
        assert_eq!(written.data().lines().count(), 1);
        assert!(written.talk().contains("came in between: drained"), "{}", written.talk());
    }

    #[tokio::test]
    async fn events_are_lines_and_with_json_everything_is() {
        let events: Vec<Progress> = [
            Event { total: Some(2), ..event("00", EventName::RecycleStarted, None, None) },
            Event { seq: 2, ..event("00", EventName::WorkerStarted, Some(0), Some(9)) },
            Event {
                seq: 3,
                ready_ms: Some(800.0),
                ..event("00.8", EventName::WorkerReady, Some(0), Some(9))
            },
            Event { seq: 4, ..event("00.8", EventName::WorkerStopping, Some(0), Some(5)) },
            Event { seq: 5, ..event("01.1", EventName::WorkerEnded, Some(0), Some(5)) },
        ]
        .map(Progress::Event)
        .into();
        let lines = [vec![request()], events, vec![done()]].concat();
        let (output, written) = capture::output();
        run(&Fake::serve(vec![progress(&lines)]), &output, &["api"], None).await;
        assert_eq!(written.talk(), "api/0: 5 → 9, ready in 800 ms, old one finished in 300 ms\n");

        let (mut output, written) = capture::output();
        output.json = true;
        run(&Fake::serve(vec![progress(&lines)]), &output, &["api"], None).await;
        assert_eq!((written.talk().as_str(), written.data().lines().count()), ("", 7));
        assert!(written.data().starts_with(r#"{"broker":"api","request":"k"}"#));
    }

    #[tokio::test]
    async fn a_refusal_beside_something_else_is_busy_and_any_other_a_failure() {
        for (busy, exit) in [(true, Exit::Busy), (false, Exit::Failed)] {
            let (output, written) = capture::output();
            let refused = Outcome::Refused { reason: "another upgrade is under way".into(), busy };
            let fake = Fake::serve(vec![progress(&[request(), Progress::Outcome(refused)])]);
            assert_eq!(run(&fake, &output, &["api"], None).await, exit);
            assert!(written.talk().contains("was refused: another upgrade is under way"));
        }
    }

    #[tokio::test]
    async fn an_event_that_two_commands_hear_is_told_once() {
        let (mut output, written) = capture::output();
        output.json = true;
        let event = Progress::Event(event("00", EventName::WorkerReady, Some(0), Some(9)));
        let both = vec![progress(&[request(), event, done()]); 2];
        run(&Fake::serve(both), &output, &["api", "api"], None).await;
        let data = written.data();
        assert_eq!((data.matches("\"seq\":1").count(), data.lines().count()), (1, 5), "{data}");
    }

    #[tokio::test]
    async fn a_time_limit_is_exit_75_and_says_that_the_command_goes_on() {
        let (output, written) = capture::output();
        let fake = Fake::silent();
        assert_eq!(run(&fake, &output, &["api"], Some(Duration::from_millis(30))).await, Exit::Busy);
        let expected = "error: recycle of api is not done after 30 ms\nhelp: it goes on; \
            `shiftboss wait api --for recycled` waits for it\n";
        assert_eq!(written.talk(), expected);
    }

    #[tokio::test]
    async fn without_waiting_only_the_ids_are_printed() {
        let (output, written) = capture::output();
        let reply = answer("application/json", r#"{"request":"k"}"#).replacen("200 OK", "202 Accepted", 1);
        let fake = Fake::serve(vec![reply]);
        let session = Session::new(fake.client(), None, &output);
        let exit = leave(&session, vec![job(&session.client, "api", None)]).await.unwrap();
        assert_eq!((exit, written.data().as_str()), (Exit::Done, "k\n"));
    }

    #[tokio::test]
    async fn nothing_is_seen_of_a_broker_process_that_is_replaced() {
        let (output, written) = capture::output();
        let whole = progress(&[request(), done()]);
        let broken = [0, 30, whole.len() - 60, whole.len() - 1].map(|cut| whole[..cut].to_owned());
        let answers = broken.into_iter().chain([whole]).collect();
        assert_eq!(run(&Fake::serve(answers), &output, &["api"], None).await, Exit::Done);
        // Unless it takes long.
        let talk = written.talk().replace(&format!("{AWAY}\n"), "");
        assert_eq!((talk.as_str(), written.data().lines().count()), ("", 1));
    }

    #[tokio::test]
    async fn a_long_absence_is_told_between_the_pictures() {
        let (mut output, written) = capture::output();
        output.err.redraw = true;
        let fake = Fake::serve(vec![progress(&[request(), done()])]);
        let session = Session::new(fake.client(), None, &output);
        session.away.notify_one();
        follow(&session, vec![job(&session.client, "api", None)]).await.unwrap();
        let talk = written.talk();
        let said = talk.find(&format!("{AWAY}\n")).unwrap();
        assert!(said == 0 || talk[..said].ends_with("\u{1b}[1A\r\u{1b}[J"), "{talk:?}");
    }

    #[tokio::test]
    async fn an_app_that_ends_without_a_word_was_stopped_only_if_that_was_asked() {
        for (name, exit) in [("stop", Exit::Done), ("recycle", Exit::NoApp)] {
            let (output, _) = capture::output();
            let fake = Fake::serve(vec![progress(&[request()])]);
            let session = Session::new(fake.client(), None, &output);
            let job = match name {
                "stop" => {
                    let call = session.client.stop(&session.options()).unwrap();
                    Job { call, track: Track::of_app("shop", Doing::Stop), listens: false }
                }
                _ => job(&session.client, "api", None),
            };
            assert_eq!(follow(&session, vec![job]).await.unwrap(), exit, "{name}");
        }
    }
}
