//! Commands by their own number: each is acted on once and answered once.

use std::collections::{BTreeSet, VecDeque};

use crate::effect::Outcome;
use crate::id::RequestId;

/// Whether a request was seen before.
pub(crate) enum Seen {
    New,
    /// Being worked on; its answer will serve both.
    Open,
    Answered(Outcome),
}

#[derive(Clone, Default)]
pub(crate) struct Requests {
    open: BTreeSet<RequestId>,
    answered: VecDeque<(RequestId, Outcome)>,
}

impl Requests {
    pub(crate) fn take(&mut self, request: RequestId) -> Seen {
        if let Some((_, outcome)) = self.answered.iter().find(|(known, _)| *known == request) {
            return Seen::Answered(outcome.clone());
        }
        if self.open.insert(request) { Seen::New } else { Seen::Open }
    }

    /// True if this is the first answer.
    pub(crate) fn answer(&mut self, request: RequestId, outcome: &Outcome) -> bool {
        if !self.open.remove(&request) {
            return false;
        }
        if self.answered.len() == REMEMBERED {
            self.answered.pop_front();
        }
        self.answered.push_back((request, outcome.clone()));
        true
    }

    pub(crate) fn open(&self) -> impl Iterator<Item = RequestId> {
        self.open.iter().copied()
    }
}

/// A client that repeats a command does so within seconds; this many later commands may come in between.
const REMEMBERED: usize = 256;
