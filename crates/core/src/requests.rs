//! Commands by their own number: each is acted on once and answered once. Those that wait are kept here, and for what.

use std::collections::{BTreeMap, VecDeque};

use crate::effect::Outcome;
use crate::id::{BrokerId, RequestId};

/// Whether a request was seen before.
pub(crate) enum Seen {
    New,
    /// Being worked on; its answer will serve both.
    Open,
    Answered(Outcome),
}

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Waits {
    /// The end of the recycle under way.
    Recycle(BrokerId),
    /// The end of the one after it.
    NextRecycle(BrokerId),
    /// As many workers ready as wanted, and none too many.
    Full(BrokerId),
    /// All are home.
    Drained(BrokerId),
    /// The end of the app.
    Exit,
}

/// A command that waits.
#[derive(Clone, Copy)]
pub(crate) struct Open {
    /// Rises from command to command.
    pub(crate) order: u64,
    pub(crate) waits: Waits,
}

/// A command that was answered, and how.
#[derive(Clone)]
pub(crate) struct Answered {
    pub(crate) request: RequestId,
    /// Rises from answer to answer.
    pub(crate) order: u64,
    pub(crate) outcome: Outcome,
}

#[derive(Clone, Default)]
pub(crate) struct Requests {
    pub(crate) open: BTreeMap<RequestId, Open>,
    /// The oldest first.
    pub(crate) answered: VecDeque<Answered>,
    pub(crate) next_order: u64,
}

impl Requests {
    pub(crate) fn seen(&self, request: RequestId) -> Seen {
        if self.open.contains_key(&request) {
            return Seen::Open;
        }
        self.answer_to(request).map_or(Seen::New, |known| Seen::Answered(known.outcome.clone()))
    }

    pub(crate) fn answer_to(&self, request: RequestId) -> Option<&Answered> {
        self.answered.iter().find(|known| known.request == request)
    }

    /// Whether as many commands wait as may.
    pub(crate) fn are_too_many(&self) -> bool {
        self.open.len() >= MOST_OPEN
    }

    pub(crate) fn park(&mut self, request: RequestId, waits: Waits) {
        let order = self.count();
        self.open.insert(request, Open { order, waits });
    }

    /// Remembers the answer, in place of the oldest one; which that was.
    pub(crate) fn answer(&mut self, request: RequestId, outcome: Outcome) -> Option<RequestId> {
        self.open.remove(&request);
        let order = self.count();
        self.answered.push_back(Answered { request, order, outcome });
        if self.answered.len() > REMEMBERED { self.answered.pop_front().map(|old| old.request) } else { None }
    }

    /// Those that wait for this, in the order in which they came.
    pub(crate) fn waiting(&self, waits: Waits) -> Vec<RequestId> {
        let mut waiting: Vec<(u64, RequestId)> = self
            .open
            .iter()
            .filter(|(_, open)| open.waits == waits)
            .map(|(request, open)| (open.order, *request))
            .collect();
        waiting.sort_unstable();
        waiting.into_iter().map(|(_, request)| request).collect()
    }

    /// The first of them.
    pub(crate) fn first(&self, waits: Waits) -> Option<RequestId> {
        self.waiting(waits).first().copied()
    }

    /// Counts the orders anew, those of the open before those of the answered.
    pub(crate) fn rank(&mut self) {
        let mut open: Vec<&mut Open> = self.open.values_mut().collect();
        open.sort_unstable_by_key(|open| open.order);
        let answered = self.answered.iter_mut().map(|answered| &mut answered.order);
        let orders = open.into_iter().map(|open| &mut open.order).chain(answered);
        self.next_order = 0;
        for order in orders {
            *order = self.next_order;
            self.next_order += 1;
        }
    }

    fn count(&mut self) -> u64 {
        let order = self.next_order;
        self.next_order += 1;
        order
    }
}

/// A client that repeats a command does so within seconds; this many answers may come in between. More than may wait
/// at once, since all that wait can be answered in one step.
pub(crate) const REMEMBERED: usize = 1024;
/// More commands than this do not wait at once.
pub(crate) const MOST_OPEN: usize = 512;
