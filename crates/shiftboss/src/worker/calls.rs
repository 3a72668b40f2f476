//! What this worker has asked, until it is answered or nobody waits for it any more.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::mail::{Answer, CallError};

#[derive(Default)]
pub(super) struct Calls {
    open: BTreeMap<u64, Open>,
    last: u64,
    /// With so many those are dropped that nobody waits for any more.
    tidies_at: usize,
    /// The hearing thread waits until then at the latest; for ever if there is none. It may be too early.
    looks_at: Option<Instant>,
    /// There is no hearing thread any more.
    is_over: bool,
}

struct Open {
    reply: oneshot::Sender<Answer>,
    within: Duration,
    /// None if it is beyond what a clock can tell.
    until: Option<Instant>,
}

impl Calls {
    /// One more. Returns its number, and whether the hearing thread has to learn of it.
    pub(super) fn begin(
        &mut self,
        reply: oneshot::Sender<Answer>,
        within: Duration,
        now: Instant,
    ) -> (u64, bool) {
        self.last += 1;
        if self.is_over {
            return (self.last, false);
        }
        let until = now.checked_add(within);
        self.open.insert(self.last, Open { reply, within, until });
        if self.open.len() >= self.tidies_at.max(USUAL) {
            self.open.retain(|_, open| !open.reply.is_closed());
            self.tidies_at = 2 * self.open.len();
        }
        let is_sooner = until.is_some_and(|until| self.looks_at.is_none_or(|looks_at| until < looks_at));
        if is_sooner {
            self.looks_at = until;
        }
        (self.last, is_sooner)
    }

    pub(super) fn answer(&mut self, id: u64, answer: Answer) {
        if let Some(open) = self.open.remove(&id) {
            let _ = open.reply.send(answer);
        }
    }

    /// Nobody answers any more: not these, and none that is to come.
    pub(super) fn end(&mut self) {
        self.is_over = true;
        self.open.clear();
    }

    /// Ends what is due. Returns how long to wait at most.
    pub(super) fn look(&mut self, now: Instant) -> Option<Duration> {
        if self.looks_at.is_some_and(|looks_at| looks_at <= now) {
            let is_due = |open: &Open| open.until.is_some_and(|until| until <= now);
            let due: Vec<_> = self.open.iter().filter(|(_, open)| is_due(open)).map(|(id, _)| *id).collect();
            for open in due.iter().filter_map(|id| self.open.remove(id)) {
                let _ = open.reply.send(Err(CallError::TimedOut(open.within)));
            }
            self.looks_at = self.open.values().filter_map(|open| open.until).min();
        }
        self.looks_at.map(|looks_at| looks_at.saturating_duration_since(now))
    }
}

/// So many may be open without a look at who still waits.
const USUAL: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn begin(calls: &mut Calls, within: Duration, now: Instant) -> (bool, oneshot::Receiver<Answer>) {
        let (reply, answer) = oneshot::channel();
        (calls.begin(reply, within, now).1, answer)
    }

    #[test]
    fn the_hearing_thread_learns_of_what_is_due_before_it_looks_only() {
        let (mut calls, now) = (Calls::default(), Instant::now());
        assert_eq!(calls.look(now), None);
        assert!(begin(&mut calls, 3 * SECOND, now).0);
        assert!(!begin(&mut calls, 3 * SECOND, now + SECOND).0);
        assert_eq!(calls.look(now + SECOND), Some(2 * SECOND));
        assert!(begin(&mut calls, SECOND, now + SECOND).0);
        assert!(!begin(&mut calls, Duration::MAX, now).0);
    }

    #[test]
    fn those_that_nobody_waits_for_any_more_do_not_pile_up() {
        let (mut calls, now) = (Calls::default(), Instant::now());
        let waits: Vec<_> = (0..100).map(|_| begin(&mut calls, Duration::MAX, now).1).collect();
        for _ in 0..10_000 {
            drop(begin(&mut calls, Duration::MAX, now));
            assert!(calls.open.len() <= 3 * waits.len());
        }
        for id in 1..=100 {
            calls.answer(id, Ok(serde_json::value::RawValue::NULL.to_owned()));
        }
        assert!(waits.into_iter().all(|mut answer| answer.try_recv().is_ok()));
    }

    #[test]
    fn each_ends_when_it_is_due_and_not_before() {
        let (mut calls, now) = (Calls::default(), Instant::now());
        let (_, mut late) = begin(&mut calls, 2 * SECOND, now);
        let (_, mut soon) = begin(&mut calls, SECOND, now);
        let (_, mut never) = begin(&mut calls, Duration::MAX, now);
        assert_eq!(calls.look(now + SECOND), Some(SECOND));
        assert!(matches!(soon.try_recv(), Ok(Err(CallError::TimedOut(SECOND)))));
        assert!(late.try_recv().is_err());
        assert_eq!(calls.look(now + 2 * SECOND), None);
        assert!(late.try_recv().is_ok());
        calls.end();
        let (_, mut more) = begin(&mut calls, SECOND, now);
        for ended in [&mut never, &mut more] {
            assert_eq!(ended.try_recv().err(), Some(oneshot::error::TryRecvError::Closed));
        }
    }
}
