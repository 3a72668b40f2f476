//! How a command ended, in a sentence; or why it did not, and what is so instead.

use std::time::Duration;

use shiftboss_api::client::ClientError;
use shiftboss_api::{Outcome, Status};

use super::super::Session;
use super::until_gone;
use crate::exit::{Exit, Trouble};
use crate::progress::{Doing, Track};
use crate::text;

/// The end line, or the trouble.
pub(super) async fn of(
    session: &Session<'_>,
    track: &Track,
    ending: Result<Outcome, ClientError>,
    took: Duration,
    listens: bool,
) -> Result<String, Trouble> {
    let outcome = match ending {
        Ok(outcome) => outcome,
        // Gone without a last word, as was asked.
        Err(ClientError::NotRunning { .. }) if track.doing == Doing::Stop => GONE,
        Err(error) => return Err(interrupted(session, track, error)),
    };
    match outcome {
        Outcome::Done { note, total, replaced, cut, refused } => {
            if track.doing == Doing::Stop {
                until_gone(session).await;
            }
            let took = text::took(took);
            Ok(match note {
                Some(note) => format!("{}: {}.", track.name, text::clean(&note)),
                None => done(track, &Figures { total, replaced, cut, refused, listens }, &took),
            })
        }
        Outcome::Failed { reason, total, replaced, worker, slot: _, last_lines } => {
            let mut trouble = failed(track, &reason, total, replaced);
            if !last_lines.is_empty() {
                let whose = worker.map_or_else(|| "the worker".to_owned(), |id| format!("worker {id}"));
                trouble.details.push(format!("last lines of {whose}"));
                trouble.details.extend(last_lines.iter().map(|line| format!(" {}", text::clean(line))));
            }
            if let (Doing::Recycle(_), Ok(status)) = (track.doing, session.client.status().await) {
                trouble.details.extend(still_serving(&status, &track.name, replaced));
            }
            Err(trouble)
        }
        Outcome::Superseded { reason } => {
            let (what, reason) = (what(track), text::clean(&reason));
            Err(Trouble::new(
                Exit::Failed,
                format!("{what} was given up, something else came in between: {reason}"),
            ))
        }
        Outcome::Refused { reason, busy } => {
            let (what, reason) = (what(track), text::clean(&reason));
            let exit = if busy { Exit::Busy } else { Exit::Failed };
            Err(Trouble::new(exit, format!("{what} was refused: {reason}")))
        }
    }
}

/// What Ctrl-C leaves behind.
pub(super) fn goes_on(track: &Track) -> String {
    match waits(track) {
        Some(command) => format!("the {} goes on; {command} waits for it", what(track)),
        None => format!("the {} goes on", what(track)),
    }
}

struct Figures {
    total: u32,
    replaced: u32,
    cut: u32,
    refused: u64,
    listens: bool,
}

fn done(track: &Track, figures: &Figures, took: &str) -> String {
    let name = &track.name;
    let cut = match figures.cut {
        0 => String::new(),
        1 => "; 1 was cut off after the stop ladder".to_owned(),
        many => format!("; {many} were cut off after the stop ladder"),
    };
    match track.doing {
        Doing::Recycle(slot) => {
            let slot = slot.map(|slot| format!("/{slot}")).unwrap_or_default();
            let end =
                if figures.cut == 0 { "; none was stopped before it had finished".to_owned() } else { cut };
            format!("Recycled {name}{slot}: {} of {} in {took}{end}.", figures.replaced, figures.total)
        }
        Doing::Drain => format!("Drained {name} in {took}{cut}{}.", connections(figures)),
        Doing::Resume => format!("Resumed {name} in {took}."),
        Doing::Scale(workers) => {
            format!("Scaled {name} to {} in {took}{cut}.", text::count(workers, "worker"))
        }
        Doing::Stop => format!("Stopped {name} in {took}{cut}."),
        Doing::Upgrade { .. } => format!("Upgraded {name} in {took}."),
    }
}

/// What a drain did to those who knocked meanwhile.
fn connections(figures: &Figures) -> String {
    match (figures.listens, figures.refused) {
        (false, _) => String::new(),
        (true, 0) => "; no connection was reset while it drained".to_owned(),
        (true, 1) => "; new connections are refused (1 was reset while it drained)".to_owned(),
        (true, many) => format!("; new connections are refused ({many} were reset while it drained)"),
    }
}

fn failed(track: &Track, reason: &str, total: u32, replaced: u32) -> Trouble {
    let reason = text::clean(reason);
    match track.doing {
        Doing::Recycle(_) => {
            let at = replaced.saturating_add(1).min(total);
            let error = format!("{} stopped at worker {at} of {total}: {reason}", what(track));
            Trouble::new(Exit::Failed, error)
                .help(format!("fix the cause, then `shiftboss recycle {}`", track.name))
        }
        Doing::Drain | Doing::Resume | Doing::Scale(_) | Doing::Stop | Doing::Upgrade { .. } => {
            Trouble::new(Exit::Failed, format!("{} failed: {reason}", what(track)))
                .help("`shiftboss status` shows what is so now")
        }
    }
}

/// Who serves after a recycle that stopped: none if the broker is not known any more.
fn still_serving(status: &Status, name: &str, replaced: u32) -> Option<String> {
    let broker = status.brokers.iter().find(|broker| broker.name == name)?;
    let new = replaced.min(broker.ready);
    let old = match broker.ready - new {
        1 => "1 old one".to_owned(),
        old => format!("{old} old ones"),
    };
    let missing =
        if broker.ready < broker.wanted { format!(" ({} wanted)", broker.wanted) } else { String::new() };
    Some(format!("still serving: {}, {old}{missing}", text::count(new, "new worker")))
}

/// The wait ended before the command did.
fn interrupted(session: &Session<'_>, track: &Track, error: ClientError) -> Trouble {
    match error {
        ClientError::Timeout { after, .. } if Some(after) == session.timeout => {
            let error = format!("{} is not done after {}", what(track), text::took(after));
            Trouble::new(Exit::Busy, error).help(match waits(track) {
                Some(command) => format!("it goes on; {command} waits for it"),
                None => "it goes on".to_owned(),
            })
        }
        ClientError::NotRunning { .. }
        | ClientError::NotPermitted { .. }
        | ClientError::Server { .. }
        | ClientError::Protocol { .. }
        | ClientError::Io { .. }
        | ClientError::Unanswered { .. }
        | ClientError::Timeout { .. } => error.into(),
    }
}

/// "recycle of api".
fn what(track: &Track) -> String {
    format!("{} of {}", track.doing.noun(), track.name)
}

/// The command that waits for the same.
fn waits(track: &Track) -> Option<String> {
    let goal = match track.doing {
        Doing::Recycle(_) => "recycled",
        Doing::Drain => "drained",
        Doing::Resume | Doing::Scale(_) => "ready",
        Doing::Stop | Doing::Upgrade { .. } => return None,
    };
    Some(format!("`shiftboss wait {} --for {goal}`", track.name))
}

/// The end of an app that said nothing further.
const GONE: Outcome = Outcome::Done { note: None, total: 0, replaced: 0, cut: 0, refused: 0 };

#[cfg(test)]
mod tests {
    use super::*;
    use crate::table::tests::{broker, status, worker};

    fn end(doing: Doing, cut: u32, refused: u64, listens: bool) -> String {
        let track = Track::new(doing, &broker("api", vec![worker(0, 5)]));
        done(&track, &Figures { total: 4, replaced: 4, cut, refused, listens }, "1.9 s")
    }

    #[test]
    fn an_end_line_claims_no_more_than_is_known() {
        let lines = [
            end(Doing::Recycle(None), 0, 0, true),
            end(Doing::Recycle(Some(2)), 1, 0, true),
            end(Doing::Drain, 0, 3, true),
            end(Doing::Drain, 2, 0, true),
            end(Doing::Drain, 0, 0, false),
            end(Doing::Resume, 0, 0, true),
            end(Doing::Scale(6), 0, 0, true),
            end(Doing::Scale(1), 1, 0, true),
        ];
        let expected = [
            "Recycled api: 4 of 4 in 1.9 s; none was stopped before it had finished.",
            "Recycled api/2: 4 of 4 in 1.9 s; 1 was cut off after the stop ladder.",
            "Drained api in 1.9 s; new connections are refused (3 were reset while it drained).",
            "Drained api in 1.9 s; 2 were cut off after the stop ladder; no connection was reset while it drained.",
            "Drained api in 1.9 s.",
            "Resumed api in 1.9 s.",
            "Scaled api to 6 workers in 1.9 s.",
            "Scaled api to 1 worker in 1.9 s; 1 was cut off after the stop ladder.",
        ];
        assert_eq!(lines, expected);
    }

    #[test]
    fn who_still_serves_is_counted_and_not_guessed() {
        let mut api = broker("api", vec![worker(0, 5), worker(1, 6), worker(2, 7)]);
        (api.wanted, api.ready) = (4, 2);
        let line = still_serving(&status(vec![api]), "api", 1);
        assert_eq!(line.as_deref(), Some("still serving: 1 new worker, 1 old one (4 wanted)"));
        assert_eq!(still_serving(&status(vec![]), "api", 1), None);
    }

    #[test]
    fn leaving_says_how_to_come_back() {
        let track = Track::new(Doing::Drain, &broker("api", vec![]));
        let expected = "the drain of api goes on; `shiftboss wait api --for drained` waits for it";
        assert_eq!(goes_on(&track), expected);
        assert_eq!(goes_on(&Track::of_app("shop", Doing::Stop)), "the stop of shop goes on");
    }
}
