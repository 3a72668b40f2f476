//! What a command does while it is waited for: the fold of its events, as a table that is redrawn or as lines.

mod board;
mod row;

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use shiftboss_api::{Broker, Event, EventName};

pub(crate) use board::Board;
use row::Row;

use crate::text;

/// What is being done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Doing {
    /// Of one slot, or of all.
    Recycle(Option<u32>),
    Drain,
    Resume,
    Scale(u32),
    Stop,
    /// Or only asking whether it could be done.
    Upgrade {
        check: bool,
    },
}

/// One command on its way.
pub(crate) struct Track {
    /// The broker's type, or the app's name.
    pub(crate) name: String,
    pub(crate) doing: Doing,
    /// Workers that live, by pid.
    alive: BTreeMap<u32, Alive>,
    wanted: u32,
    /// What to say when its schedule keeps it closed.
    pub(crate) if_closed: Option<String>,
    closed: bool,
    /// The slots of a recycle, once it has begun.
    rows: BTreeMap<u32, Row>,
    total: Option<u32>,
}

struct Alive {
    slot: u32,
    ready: bool,
}

impl Doing {
    /// "Recycling".
    pub(crate) fn present(self) -> &'static str {
        match self {
            Doing::Recycle(_) => "Recycling",
            Doing::Drain => "Draining",
            Doing::Resume => "Resuming",
            Doing::Scale(_) => "Scaling",
            Doing::Stop => "Stopping",
            Doing::Upgrade { check: false } => "Upgrading",
            Doing::Upgrade { check: true } => "Checking the upgrade of",
        }
    }

    /// "recycle".
    pub(crate) fn noun(self) -> &'static str {
        match self {
            Doing::Recycle(_) => "recycle",
            Doing::Drain => "drain",
            Doing::Resume => "resume",
            Doing::Scale(_) => "scale",
            Doing::Stop => "stop",
            Doing::Upgrade { .. } => "upgrade",
        }
    }
}

impl Track {
    /// A command that is about to be given to a broker that looks like this.
    pub(crate) fn new(doing: Doing, broker: &Broker) -> Self {
        let alive = broker.workers.iter().filter_map(|worker| {
            let ready = worker.state == shiftboss_api::WorkerState::Ready;
            Some((worker.pid?, Alive { slot: worker.slot?, ready }))
        });
        let wanted = match doing {
            Doing::Scale(workers) => workers,
            Doing::Recycle(_) | Doing::Drain | Doing::Resume | Doing::Stop | Doing::Upgrade { .. } => {
                broker.wanted
            }
        };
        Track {
            name: broker.name.clone(),
            doing,
            alive: alive.collect(),
            wanted,
            if_closed: None,
            closed: false,
            rows: BTreeMap::new(),
            total: None,
        }
    }

    /// The stop or upgrade of a whole app.
    pub(crate) fn of_app(app: &str, doing: Doing) -> Self {
        let (alive, rows) = (BTreeMap::new(), BTreeMap::new());
        let name = app.to_owned();
        Track { name, doing, alive, wanted: 0, if_closed: None, closed: false, rows, total: None }
    }

    /// Takes in an event; a line for those who do not see the table, if it finishes something.
    pub(crate) fn take(&mut self, event: &Event) -> Option<String> {
        if event.event == EventName::RecycleStarted {
            self.begin(event.total);
        }
        if event.event == EventName::BrokerClosed {
            self.closed = true;
            return self.if_closed.clone();
        }
        self.closed &= event.event != EventName::BrokerOpened;
        let (slot, pid) = (event.slot?, event.pid?);
        let row = self.rows.get_mut(&slot);
        let was_done = row.as_ref().is_some_and(|row| row.is_done());
        if let Some(row) = row {
            row.take(pid, event);
        }
        match event.event {
            EventName::WorkerStarted | EventName::WorkerPromoted => {
                self.alive.insert(pid, Alive { slot, ready: false });
            }
            EventName::WorkerReady => {
                self.alive.insert(pid, Alive { slot, ready: true });
            }
            EventName::WorkerStopping => {
                self.alive.insert(pid, Alive { slot, ready: false });
            }
            EventName::WorkerEnded | EventName::WorkerDeath => {
                self.alive.remove(&pid);
            }
            _ => return None,
        }
        self.line(slot, pid, event, was_done)
    }

    fn line(&self, slot: u32, pid: u32, event: &Event, was_done: bool) -> Option<String> {
        let name = &self.name;
        match self.doing {
            Doing::Upgrade { .. } => None,
            Doing::Recycle(_) => {
                let row = self.rows.get(&slot)?;
                let news = (row.is_done() && !was_done) || row.has_failed();
                news.then(|| format!("{name}/{slot}: {}, {}", row.pids(), row.words()))
            }
            Doing::Drain | Doing::Stop => match event.event {
                EventName::WorkerEnded | EventName::WorkerDeath if event.forced => {
                    Some(format!("{name}/{slot}: {pid} was cut off after the stop ladder"))
                }
                EventName::WorkerEnded | EventName::WorkerDeath => {
                    Some(format!("{name}/{slot}: {pid} has left"))
                }
                _ => None,
            },
            Doing::Resume | Doing::Scale(_) => match event.event {
                EventName::WorkerReady => {
                    let after = event.ready_ms.map(|ms| format!(" in {}", milliseconds(ms)));
                    Some(format!("{name}/{slot}: {pid} is ready{}", after.unwrap_or_default()))
                }
                EventName::WorkerEnded => Some(format!("{name}/{slot}: {pid} has left")),
                EventName::WorkerDeath => {
                    let reason = text::clean(event.reason.as_deref().unwrap_or("died"));
                    Some(format!("{name}/{slot}: {pid} failed: {reason}"))
                }
                _ => None,
            },
        }
    }

    /// The table as it looks now, at most so many lines.
    pub(crate) fn frame(&self, now: Timestamp, height: usize) -> Vec<String> {
        let (name, doing) = (&self.name, self.doing.present());
        match self.doing {
            Doing::Recycle(_) => match self.total {
                Some(total) => self.recycle_frame(total, now, height),
                None => vec![format!("{doing} {name}: waits for its turn")],
            },
            Doing::Drain => {
                let left = u32::try_from(self.alive.len()).unwrap_or(u32::MAX);
                vec![format!("{doing} {name}: {} to leave", text::count(left, "worker"))]
            }
            Doing::Resume if self.closed && self.if_closed.is_some() => {
                self.if_closed.clone().into_iter().collect()
            }
            Doing::Resume | Doing::Scale(_) => {
                let ready = self.alive.values().filter(|worker| worker.ready).count();
                vec![format!("{doing} {name}: {ready} of {} ready", self.wanted)]
            }
            Doing::Stop => vec![format!("{doing} {name}: every worker finishes what it has")],
            Doing::Upgrade { .. } => vec![format!("{doing} {name}: the workers go on")],
        }
    }

    fn recycle_frame(&self, total: u32, now: Timestamp, height: usize) -> Vec<String> {
        let mut lines =
            vec![format!("Recycling {}: {}", self.name, text::count(total, "worker")), String::new()];
        // Title, bar and two empty lines are always there.
        let room = height.saturating_sub(4).max(1);
        let all = self.rows.len() <= room;
        let shown = self.rows.iter().filter(|(_, row)| all || row.is_busy()).take(room);
        let shown: Vec<_> = shown.collect();
        let pids = shown.iter().map(|(_, row)| row.pids().chars().count()).max().unwrap_or_default();
        for (slot, row) in shown {
            let line =
                format!("{slot:>3}  {:pids$}   {:WORDS$}  {}", row.pids(), row.words(), row.state(now));
            lines.push(line.trim_end().to_owned());
        }
        let done = u32::try_from(self.rows.values().filter(|row| row.is_done()).count()).unwrap_or(u32::MAX);
        lines.push(String::new());
        let bar = bar(done, total);
        lines.push(format!("  {bar}   {done} of {total}   (Ctrl-C leaves; the recycle goes on)"));
        lines
    }

    /// A recycle begins: every worker that lives has a successor to come, or only the one of a slot.
    fn begin(&mut self, total: Option<u32>) {
        let only = match self.doing {
            Doing::Recycle(slot) if total == Some(1) => slot,
            Doing::Recycle(_)
            | Doing::Drain
            | Doing::Resume
            | Doing::Scale(_)
            | Doing::Stop
            | Doing::Upgrade { .. } => None,
        };
        let meant = self.alive.iter().filter(|(_, alive)| only.is_none_or(|slot| slot == alive.slot));
        self.rows = meant.map(|(pid, alive)| (alive.slot, Row::new(*pid))).collect();
        self.total = Some(total.unwrap_or(self.wanted));
    }
}

/// "812 ms".
fn milliseconds(ms: f64) -> String {
    text::took(Duration::from_secs_f64((ms / 1e3).clamp(0.0, 1e9)))
}

/// A bar of [`BAR`] columns, in eighths.
fn bar(done: u32, total: u32) -> String {
    let eighths = u64::from(done.min(total)) * BAR * 8 / u64::from(total.max(1));
    let full = usize::try_from(eighths / 8).unwrap_or_default();
    let mut bar = "█".repeat(full);
    let part = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉'][usize::try_from(eighths % 8).unwrap_or_default()];
    if full < BAR as usize {
        bar.push(part);
        bar.push_str(&" ".repeat(BAR as usize - full - 1));
    }
    bar
}

const BAR: u64 = 24;
/// Columns of a row's words.
const WORDS: usize = 43;

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::table::tests::{broker, worker};

    pub(crate) fn event(second: &str, name: EventName, slot: Option<u32>, pid: Option<u32>) -> Event {
        let at = format!("2026-11-24T08:00:{second}Z");
        Event { broker: Some("api".into()), slot, pid, ..Event::new(1, at, name) }
    }

    fn ready(second: &str, slot: u32, pid: u32, ms: f64) -> Event {
        Event { ready_ms: Some(ms), ..event(second, EventName::WorkerReady, Some(slot), Some(pid)) }
    }

    fn recycle(events: &[Event]) -> (Track, Vec<String>) {
        let api = broker("api", vec![worker(0, 10161), worker(1, 10250), worker(2, 10262), worker(3, 10273)]);
        let mut track = Track::new(Doing::Recycle(None), &api);
        let begun = Event { total: Some(4), ..event("00", EventName::RecycleStarted, None, None) };
        let lines = [&begun].into_iter().chain(events).filter_map(|event| track.take(event)).collect();
        (track, lines)
    }

    fn half_way() -> Vec<Event> {
        use EventName::{WorkerEnded, WorkerStarted, WorkerStopping};
        vec![
            event("00", WorkerStarted, Some(0), Some(11042)),
            ready("00.812", 0, 11042, 812.0),
            event("00.812", WorkerStopping, Some(0), Some(10161)),
            event("01.2", WorkerEnded, Some(0), Some(10161)),
            event("01.2", WorkerStarted, Some(1), Some(11043)),
            ready("02.1", 1, 11043, 900.0),
            event("02.1", WorkerStopping, Some(1), Some(10250)),
            event("02.2", WorkerStarted, Some(2), Some(11044)),
        ]
    }

    #[test]
    fn the_table_of_a_recycle_at_eighty_columns() {
        let (track, _) = recycle(&half_way());
        let frame = track.frame("2026-11-24T08:00:04.2Z".parse().unwrap(), 24);
        let expected = "\
Recycling api: 4 workers

  0  10161 → 11042   ready in 812 ms, old one finished in 388 ms  done
  1  10250 → 11043   ready in 900 ms, old one is finishing        2.1 s
  2  10262 → 11044   starting                                     2.0 s
  3  10273           waiting

  ██████                     1 of 4   (Ctrl-C leaves; the recycle goes on)";
        assert_eq!(frame.join("\n"), expected);
        assert!(frame.iter().all(|line| line.chars().count() <= 80));
    }

    #[test]
    fn a_finished_worker_makes_one_line() {
        let (_, lines) = recycle(&half_way());
        assert_eq!(lines, ["api/0: 10161 → 11042, ready in 812 ms, old one finished in 388 ms"]);
    }

    #[test]
    fn a_worker_that_was_killed_is_not_said_to_have_finished() {
        let mut events = half_way();
        events.truncate(3);
        events.push(Event { forced: true, ..event("30.812", EventName::WorkerEnded, Some(0), Some(10161)) });
        let (_, lines) = recycle(&events);
        assert_eq!(lines, ["api/0: 10161 → 11042, ready in 812 ms, old one was cut off after 30 s"]);
    }

    #[test]
    fn a_successor_that_dies_is_shown_as_failed() {
        let died = Event {
            reason: Some("exited with 1".into()),
            ..event("00.3", EventName::WorkerDeath, Some(0), Some(11042))
        };
        let (track, lines) = recycle(&[event("00", EventName::WorkerStarted, Some(0), Some(11042)), died]);
        assert_eq!(lines, ["api/0: 10161 → 11042, exited with 1"]);
        let frame = track.frame("2026-11-24T08:00:04Z".parse().unwrap(), 24);
        assert_eq!(
            frame[2].trim_end(),
            "  0  10161 → 11042   exited with 1                                FAILED"
        );
    }

    #[test]
    fn a_predecessor_that_leaves_first_is_followed_too() {
        use EventName::{WorkerEnded, WorkerStarted, WorkerStopping};
        let (track, lines) = recycle(&[
            event("00", WorkerStopping, Some(0), Some(10161)),
            event("00.5", WorkerEnded, Some(0), Some(10161)),
            event("00.5", WorkerStarted, Some(0), Some(11042)),
            ready("01.3", 0, 11042, 800.0),
        ]);
        assert_eq!(lines, ["api/0: 10161 → 11042, ready in 800 ms, old one finished in 500 ms"]);
        assert!(track.frame(Timestamp::UNIX_EPOCH, 24)[2].ends_with("done"));
    }

    #[test]
    fn a_promoted_standby_is_the_successor() {
        let mut track = Track::new(Doing::Recycle(None), &broker("api", vec![worker(0, 100)]));
        let started = Event { total: Some(1), ..event("00", EventName::RecycleStarted, None, None) };
        for happened in [
            started,
            event("01", EventName::WorkerStandby, None, Some(101)),
            event("02", EventName::WorkerPromoted, Some(0), Some(101)),
            ready("03", 0, 101, 5.0),
            event("04", EventName::WorkerStopping, Some(0), Some(100)),
        ] {
            assert_eq!(track.take(&happened), None);
        }
        let last = track.take(&event("05", EventName::WorkerEnded, Some(0), Some(100)));
        assert!(last.expect("it is done").starts_with("api/0: 100 → 101"));
    }

    #[test]
    fn the_recycle_of_a_slot_has_one_row() {
        let mut track = Track::new(Doing::Recycle(Some(1)), &broker("api", vec![worker(0, 5), worker(1, 6)]));
        assert_eq!(track.frame(Timestamp::UNIX_EPOCH, 24), ["Recycling api: waits for its turn"]);
        track.take(&Event { total: Some(1), ..event("00", EventName::RecycleStarted, None, None) });
        let frame = track.frame(Timestamp::UNIX_EPOCH, 24);
        assert_eq!((frame.len(), frame[2].as_str()), (5, "  1  6   waiting"));
    }

    #[test]
    fn a_shift_larger_than_the_terminal_shows_those_that_move() {
        let many = (0..200).map(|slot| worker(slot, 10_000 + slot)).collect();
        let mut track = Track::new(Doing::Recycle(None), &broker("api", many));
        track.take(&Event { total: Some(200), ..event("00", EventName::RecycleStarted, None, None) });
        track.take(&event("00", EventName::WorkerStarted, Some(7), Some(20_007)));
        let frame = track.frame("2026-11-24T08:00:01Z".parse().unwrap(), 24);
        assert_eq!(frame.len(), 5, "{frame:?}");
        assert!(frame[2].contains("10007 → 20007"));
    }

    #[test]
    fn the_bar_moves_by_eighths_and_keeps_its_width() {
        assert_eq!(bar(1, 4).trim_end(), "██████");
        assert_eq!(bar(1, 128).trim_end(), "▏");
        assert!((0..=7).all(|done| bar(done, 7).chars().count() == 24));
        assert_eq!(bar(9, 4), bar(4, 4));
        assert_eq!(bar(0, 0).trim_end(), "");
    }

    #[test]
    fn a_resume_that_waits_for_the_schedule_says_so_in_a_line_and_in_the_picture() {
        let mut track = Track::new(Doing::Resume, &broker("api", vec![worker(0, 5)]));
        let why = "api is closed by its schedule, which opens it; `--now` opens it at once";
        track.if_closed = Some(why.to_owned());
        assert_eq!(track.frame(Timestamp::UNIX_EPOCH, 24), ["Resuming api: 1 of 1 ready"]);
        let line = track.take(&event("01", EventName::BrokerClosed, None, None));
        assert_eq!(line.as_deref(), Some(why));
        assert_eq!(track.frame(Timestamp::UNIX_EPOCH, 24), [why]);
        track.take(&event("02", EventName::BrokerOpened, None, None));
        assert_eq!(track.frame(Timestamp::UNIX_EPOCH, 24), ["Resuming api: 1 of 1 ready"]);
    }

    #[test]
    fn a_drain_counts_down() {
        let mut track = Track::new(Doing::Drain, &broker("api", vec![worker(0, 5), worker(1, 6)]));
        let line = track.take(&event("01", EventName::WorkerEnded, Some(0), Some(5)));
        assert_eq!(line.as_deref(), Some("api/0: 5 has left"));
        assert_eq!(track.frame(Timestamp::UNIX_EPOCH, 24), ["Draining api: 1 worker to leave"]);
    }
}
