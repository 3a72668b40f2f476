//! What happens before the program around has begun to listen: kept for whoever comes first. A worker may be quicker than
//! the line after `Broker::start`, and in a successor it has been there before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_core::id::{BrokerId, WorkerId};
use shiftboss_core::time::Time;

use crate::mail::{Happening, Kind, Said};

/// Nothing is kept before [`Early::begin`].
#[derive(Default)]
pub(super) struct Early {
    is_on: bool,
    brokers: BTreeMap<BrokerId, Kept>,
}

/// Of one broker.
#[derive(Default)]
struct Kept {
    /// For the first subscriber.
    happened: Portion,
    is_heard: bool,
    /// For the first who answers, who has to come in time: somebody waits.
    asked: Portion,
    /// From the first question on.
    until: Option<Time>,
    is_answered: bool,
    is_over: bool,
}

/// What happened, up to [`MOST`].
#[derive(Default)]
struct Portion {
    happenings: Vec<Happening>,
    size: usize,
}

/// A question, and who asks.
type Asked = (WorkerId, u64);

impl Early {
    /// A program is around that may listen.
    pub(super) fn begin(&mut self) {
        self.is_on = true;
    }

    pub(super) fn is_on(&self) -> bool {
        self.is_on
    }

    /// Whether the first who answers may still come.
    pub(super) fn may_be_answered(&self, broker: BrokerId) -> bool {
        self.is_on && self.brokers.get(&broker).is_none_or(Kept::may_be_answered)
    }

    /// Keeps it if nobody has heard of this broker yet.
    pub(super) fn keep(&mut self, broker: BrokerId, happening: &Happening) {
        if !self.is_on {
            return;
        }
        let kept = self.brokers.entry(broker).or_default();
        if !kept.is_heard {
            kept.happened.keep(happening);
        }
    }

    /// Keeps the questions in it if nobody has answered any of this broker yet. Returns those that there is no room for.
    pub(super) fn keep_questions(&mut self, said: &Arc<Said>, now: Time) -> Vec<Asked> {
        if !self.is_on || !questions(said).any(|_| true) {
            return Vec::new();
        }
        let kept = self.brokers.entry(said.broker).or_default();
        if !kept.may_be_answered() {
            return Vec::new();
        }
        kept.until.get_or_insert(now + FOR);
        let has_room = kept.asked.keep(&Happening::Said(Arc::clone(said)));
        if has_room { Vec::new() } else { questions(said).collect() }
    }

    /// What the first who listens in this way gets.
    pub(super) fn take(&mut self, broker: BrokerId, answers: bool) -> Vec<Happening> {
        if !self.is_on {
            return Vec::new();
        }
        let kept = self.brokers.entry(broker).or_default();
        let portion = if answers {
            kept.is_answered = true;
            &mut kept.asked
        } else {
            kept.is_heard = true;
            &mut kept.happened
        };
        std::mem::take(portion).happenings
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.brokers.values().filter(|kept| kept.may_be_answered()).filter_map(|kept| kept.until).min()
    }

    /// Ends what is due. Returns what nobody will answer.
    pub(super) fn end(&mut self, now: Time) -> Vec<Asked> {
        let mut unanswered = Vec::new();
        for kept in self.brokers.values_mut() {
            if kept.may_be_answered() && kept.until.is_some_and(|until| until <= now) {
                kept.is_over = true;
                for happening in std::mem::take(&mut kept.asked).happenings {
                    match happening {
                        Happening::Said(said) => unanswered.extend(questions(&said)),
                        Happening::Event(_) | Happening::Missed(_) => {}
                    }
                }
            }
        }
        unanswered
    }
}

impl Kept {
    fn may_be_answered(&self) -> bool {
        !self.is_answered && !self.is_over
    }
}

impl Portion {
    /// Whether there is room for it; once there is none, there is none for what comes later.
    fn keep(&mut self, happening: &Happening) -> bool {
        self.size = self.size.saturating_add(happening.size());
        let has_room = self.size <= MOST;
        if has_room {
            self.happenings.push(happening.clone());
        }
        has_room
    }
}

fn questions(said: &Said) -> impl Iterator<Item = Asked> + '_ {
    said.messages.iter().filter_map(|message| match message.kind {
        Kind::Call(id) => Some((said.worker, id)),
        Kind::Message | Kind::Ops => None,
    })
}

/// For a program to come to its `on_call`.
const FOR: Duration = Duration::from_secs(5);
/// Bytes of one broker.
const MOST: usize = 1 << 20;

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::mail::Message;

    const BROKER: BrokerId = BrokerId(0);
    const WORKER: WorkerId = WorkerId(7);

    fn says(early: &mut Early, kind: Kind, bytes: usize, now: Time) -> Vec<Asked> {
        let letter = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes))).unwrap();
        let messages = vec![Message { letter, kind }];
        let said = Arc::new(Said { broker: BROKER, worker: WORKER, pid: 1, slot: Some(0), messages });
        let refused = early.keep_questions(&said, now);
        early.keep(BROKER, &Happening::Said(said));
        refused
    }

    fn begun() -> Early {
        let mut early = Early::default();
        early.begin();
        early
    }

    #[test]
    fn the_first_of_each_kind_gets_what_was_before() {
        let mut early = begun();
        assert!(says(&mut early, Kind::Message, 1, Time(0)).is_empty());
        assert!(says(&mut early, Kind::Call(3), 1, Time(0)).is_empty());
        assert_eq!(early.take(BROKER, true).len(), 1);
        assert!(!early.may_be_answered(BROKER) && early.deadline().is_none());
        assert_eq!(early.take(BROKER, false).len(), 2);
        says(&mut early, Kind::Message, 1, Time(0));
        assert!(early.take(BROKER, false).is_empty() && early.take(BROKER, true).is_empty());
    }

    #[test]
    fn a_question_that_nobody_comes_for_is_refused_in_time_and_what_was_said_stays() {
        let mut early = begun();
        says(&mut early, Kind::Call(3), 1, Time(5));
        let due = early.deadline().unwrap();
        assert!(early.end(Time(due.0 - 1)).is_empty());
        assert_eq!(early.end(due), [(WORKER, 3)]);
        assert!(early.deadline().is_none() && !early.may_be_answered(BROKER));
        assert!(early.take(BROKER, true).is_empty());
        assert_eq!(early.take(BROKER, false).len(), 1);
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut early = begun();
        says(&mut early, Kind::Message, 1, Time(0));
        assert_eq!(says(&mut early, Kind::Call(3), MOST, Time(0)), [(WORKER, 3)]);
        says(&mut early, Kind::Message, 1, Time(0));
        assert_eq!(early.take(BROKER, false).len(), 1);
    }

    #[test]
    fn without_a_program_nothing_is_kept() {
        let mut early = Early::default();
        says(&mut early, Kind::Message, 1, Time(0));
        assert!(early.take(BROKER, false).is_empty() && !early.may_be_answered(BROKER));
    }
}
