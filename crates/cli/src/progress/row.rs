//! One slot of a recycle: a worker and its successor.

use jiff::Timestamp;
use shiftboss_api::{Event, EventName};

use super::milliseconds;
use crate::text;

/// A worker that is to be replaced, and how far it is.
pub(super) struct Row {
    old: u32,
    old_is: Old,
    new: Option<(u32, New)>,
}

enum Old {
    Serving,
    Leaving { since: Option<Timestamp> },
    Left { words: String },
}

enum New {
    Starting { since: Option<Timestamp> },
    Ready { ms: Option<f64> },
    Failed { reason: String },
}

impl Row {
    pub(super) fn new(old: u32) -> Self {
        Row { old, old_is: Old::Serving, new: None }
    }

    /// Takes in what happened to the worker of that pid in this slot.
    pub(super) fn take(&mut self, pid: u32, event: &Event) {
        let at: Option<Timestamp> = event.at.parse().ok();
        match event.event {
            EventName::WorkerStarted | EventName::WorkerPromoted => {
                self.new = Some((pid, New::Starting { since: at }));
            }
            EventName::WorkerReady if self.is_new(pid) => {
                self.new = Some((pid, New::Ready { ms: event.ready_ms }));
            }
            EventName::WorkerStopping if pid == self.old => self.old_is = Old::Leaving { since: at },
            EventName::WorkerEnded | EventName::WorkerDeath if pid == self.old => {
                self.old_is = Old::Left { words: self.parting(event, at) };
            }
            EventName::WorkerEnded | EventName::WorkerDeath if self.is_new(pid) => {
                let reason = text::clean(event.reason.as_deref().unwrap_or("left before it was ready"));
                self.new = Some((pid, New::Failed { reason }));
            }
            _ => {}
        }
    }

    /// The successor serves and the predecessor is gone.
    pub(super) fn is_done(&self) -> bool {
        matches!((&self.old_is, &self.new), (Old::Left { .. }, Some((_, New::Ready { .. }))))
    }

    /// The successor is gone.
    pub(super) fn has_failed(&self) -> bool {
        matches!(self.new, Some((_, New::Failed { .. })))
    }

    /// Neither waiting nor done.
    pub(super) fn is_busy(&self) -> bool {
        !self.is_done() && (self.new.is_some() || !matches!(self.old_is, Old::Serving))
    }

    /// "10161 → 11042".
    pub(super) fn pids(&self) -> String {
        match self.new {
            Some((new, _)) => format!("{} → {new}", self.old),
            None => self.old.to_string(),
        }
    }

    /// "ready in 812 ms, old one is finishing".
    pub(super) fn words(&self) -> String {
        let new = match &self.new {
            None => None,
            Some((_, New::Starting { .. })) => Some("starting".to_owned()),
            Some((_, New::Ready { ms: Some(ms) })) => Some(format!("ready in {}", milliseconds(*ms))),
            Some((_, New::Ready { ms: None })) => Some("ready".to_owned()),
            Some((_, New::Failed { reason })) => Some(reason.clone()),
        };
        let old = match &self.old_is {
            Old::Serving => None,
            Old::Leaving { .. } => Some("old one is finishing".to_owned()),
            Old::Left { words } => Some(words.clone()),
        };
        match (new, old) {
            (None, None) => "waiting".to_owned(),
            (Some(only), None) | (None, Some(only)) => only,
            (Some(new), Some(old)) => format!("{new}, {old}"),
        }
    }

    /// "done", "FAILED", or how long it has been at it.
    pub(super) fn state(&self, now: Timestamp) -> String {
        if self.is_done() {
            return "done".to_owned();
        }
        let since = match (&self.old_is, &self.new) {
            (_, Some((_, New::Failed { .. }))) => return "FAILED".to_owned(),
            (_, Some((_, New::Starting { since }))) | (Old::Leaving { since }, _) => *since,
            (Old::Serving | Old::Left { .. }, _) => None,
        };
        since.map(|since| text::took(span(since, now))).unwrap_or_default()
    }

    fn is_new(&self, pid: u32) -> bool {
        self.new.as_ref().is_some_and(|(new, _)| *new == pid)
    }

    /// How the predecessor left.
    fn parting(&self, event: &Event, at: Option<Timestamp>) -> String {
        let since = match self.old_is {
            Old::Leaving { since } => since,
            Old::Serving | Old::Left { .. } => return "old one died".to_owned(),
        };
        let took = since.zip(at).map(|(since, at)| text::took(span(since, at)));
        match (event.forced, took) {
            (false, Some(took)) => format!("old one finished in {took}"),
            (false, None) => "old one finished".to_owned(),
            (true, Some(took)) => format!("old one was cut off after {took}"),
            (true, None) => "old one was cut off".to_owned(),
        }
    }
}

fn span(from: Timestamp, to: Timestamp) -> std::time::Duration {
    std::time::Duration::try_from(to.duration_since(from)).unwrap_or_default()
}
