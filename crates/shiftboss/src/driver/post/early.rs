//! What workers say before the program around has begun to listen: kept for a short time for whoever comes first. A worker
//! may be quicker than the line after `Broker::start`, and in a successor it has been there before.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_core::id::{BrokerId, WorkerId};
use shiftboss_core::time::Time;

use crate::mail::{Kind, Said};

/// Nothing is kept before [`Early::begin`].
#[derive(Default)]
pub(super) struct Early {
    is_on: bool,
    brokers: BTreeMap<BrokerId, Kept>,
}

/// Of one broker. What both kinds of listeners have had, or nobody wanted in time, is not kept.
#[derive(Default)]
struct Kept {
    /// From the first word on.
    until: Option<Time>,
    said: Vec<Arc<Said>>,
    size: usize,
    is_heard: bool,
    is_answered: bool,
    is_over: bool,
}

/// A question, and who asks.
type Asked = (WorkerId, u64);

impl Early {
    /// A program is around that may listen.
    pub(super) fn begin(&mut self) {
        self.is_on = true;
    }

    /// Whether somebody who answers may still come.
    pub(super) fn may_be_answered(&self, broker: BrokerId) -> bool {
        self.is_on && self.brokers.get(&broker).is_none_or(|kept| !kept.is_over)
    }

    /// Keeps it if that is of use. Returns what nobody will answer, since there is no room for more.
    pub(super) fn keep(&mut self, said: &Arc<Said>, now: Time) -> Vec<Asked> {
        if !self.is_on {
            return Vec::new();
        }
        let kept = self.brokers.entry(said.broker).or_default();
        if kept.is_over {
            return Vec::new();
        }
        kept.until.get_or_insert(now + FOR);
        kept.size += said.messages.iter().map(|message| message.letter.get().len() + OVERHEAD).sum::<usize>();
        kept.said.push(Arc::clone(said));
        if kept.size > MOST { kept.end() } else { Vec::new() }
    }

    /// What the first who listens in this way gets.
    pub(super) fn take(&mut self, broker: BrokerId, answers: bool) -> Vec<Arc<Said>> {
        if !self.is_on {
            return Vec::new();
        }
        let kept = self.brokers.entry(broker).or_default();
        let had = std::mem::replace(if answers { &mut kept.is_answered } else { &mut kept.is_heard }, true);
        let said = if had { Vec::new() } else { kept.said.clone() };
        if kept.is_heard && kept.is_answered {
            kept.end();
        }
        said
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        self.brokers.values().filter(|kept| !kept.is_over).filter_map(|kept| kept.until).min()
    }

    /// Ends what is due. Returns what nobody will answer.
    pub(super) fn end(&mut self, now: Time) -> Vec<Asked> {
        let due = |kept: &&mut Kept| !kept.is_over && kept.until.is_some_and(|until| until <= now);
        self.brokers.values_mut().filter(due).flat_map(Kept::end).collect()
    }
}

impl Kept {
    fn end(&mut self) -> Vec<Asked> {
        self.is_over = true;
        let said = std::mem::take(&mut self.said);
        let calls = said.iter().flat_map(|said| {
            let call = |kind| match kind {
                Kind::Call(id) => Some((said.worker, id)),
                Kind::Message | Kind::Ops => None,
            };
            said.messages.iter().filter_map(move |message| call(message.kind))
        });
        if self.is_answered { Vec::new() } else { calls.collect() }
    }
}

const FOR: Duration = Duration::from_secs(5);
/// Bytes of one broker's workers.
const MOST: usize = 1 << 20;
/// What a short message costs besides.
const OVERHEAD: usize = 64;

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;

    use super::*;
    use crate::mail::Message;

    fn said(kind: Kind, bytes: usize) -> Arc<Said> {
        let letter = RawValue::from_string(format!("\"{}\"", "x".repeat(bytes))).unwrap();
        let messages = vec![Message { letter, kind }];
        Arc::new(Said { broker: BrokerId(0), worker: WorkerId(7), pid: 1, slot: 0, messages })
    }

    fn begun() -> Early {
        let mut early = Early::default();
        early.begin();
        early
    }

    #[test]
    fn the_first_of_each_kind_gets_what_was_said_before() {
        let mut early = begun();
        assert!(early.keep(&said(Kind::Message, 1), Time(0)).is_empty());
        assert!(early.keep(&said(Kind::Call(3), 1), Time(0)).is_empty());
        assert_eq!(early.take(BrokerId(0), false).len(), 2);
        assert_eq!(early.take(BrokerId(0), false).len(), 0);
        assert_eq!(early.take(BrokerId(1), true).len(), 0);
        assert_eq!(early.take(BrokerId(0), true).len(), 2);
        assert!(!early.may_be_answered(BrokerId(0)) && early.deadline().is_none());
    }

    #[test]
    fn what_nobody_comes_for_is_refused_in_time() {
        let mut early = begun();
        early.keep(&said(Kind::Call(3), 1), Time(5));
        let due = early.deadline().unwrap();
        assert!(early.end(Time(due.0 - 1)).is_empty());
        assert_eq!(early.end(due), [(WorkerId(7), 3)]);
        assert!(early.deadline().is_none() && early.take(BrokerId(0), true).is_empty());
        assert!(early.keep(&said(Kind::Message, 1), due).is_empty() && early.deadline().is_none());
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let mut early = begun();
        early.keep(&said(Kind::Call(3), 1), Time(0));
        assert_eq!(early.keep(&said(Kind::Message, MOST), Time(0)), [(WorkerId(7), 3)]);
        assert!(!early.may_be_answered(BrokerId(0)));
    }

    #[test]
    fn without_a_program_nothing_is_kept() {
        let mut early = Early::default();
        assert!(early.keep(&said(Kind::Message, 1), Time(0)).is_empty());
        assert!(early.take(BrokerId(0), false).is_empty() && !early.may_be_answered(BrokerId(0)));
    }
}
