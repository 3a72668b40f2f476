//! What all brokers of an app share while they act: the present moment, the effects so far, timers, numbers.

use std::collections::BTreeSet;

use crate::budget::Budget;
use crate::changes::Changes;
use crate::effect::{Effect, Outcome};
use crate::event::{Event, What};
use crate::id::{BrokerId, RequestId, Slot, WorkerId};
use crate::requests::{Requests, Waits};
use crate::table::Table;
use crate::time::Time;

/// Whose deadline it is. The time itself lives in the state that waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Key {
    /// A worker's state.
    Worker(BrokerId, WorkerId),
    /// A slot's back-off.
    Slot(BrokerId, Slot),
    /// The back-off of the next standby.
    Standby(BrokerId),
    /// A successor's `min_ready`.
    Move(BrokerId, Slot),
    /// The next try of the listeners.
    Listen(BrokerId),
    /// The next recycle by time.
    Recycle(BrokerId),
    /// The next try to go back.
    Back(BrokerId),
    /// Quiet after changes of files.
    Changed(BrokerId),
}

#[derive(Clone)]
pub(crate) struct Shared {
    pub(crate) now: Time,
    pub(crate) effects: Vec<Effect>,
    pub(crate) timers: BTreeSet<(Time, Key)>,
    pub(crate) budget: Budget,
    pub(crate) requests: Requests,
    /// Whose a worker is, from the wish to start it until it is gone.
    pub(crate) owners: Table<BrokerId>,
    pub(crate) changes: Changes,
    pub(crate) next_worker: u64,
    pub(crate) seq: u64,
}

impl Shared {
    pub(crate) fn new(now: Time) -> Self {
        Shared {
            now,
            effects: Vec::new(),
            timers: BTreeSet::new(),
            budget: Budget::new(now),
            requests: Requests::default(),
            owners: Table::new(),
            changes: Changes::default(),
            next_worker: 0,
            seq: 0,
        }
    }

    /// Time has passed; it never goes back.
    pub(crate) fn advance(&mut self, now: Time) {
        self.now = self.now.max(now);
    }

    pub(crate) fn next_worker(&mut self, broker: BrokerId) -> WorkerId {
        self.next_worker += 1;
        let id = WorkerId(self.next_worker);
        self.owners.insert(id, broker);
        id
    }

    /// Moves a deadline; `None` is no deadline. One that has just come may come again at the same time.
    pub(crate) fn rearm(&mut self, key: Key, before: Option<Time>, after: Option<Time>) {
        if let Some(time) = before {
            self.timers.remove(&(time, key));
        }
        if let Some(time) = after {
            self.timers.insert((time, key));
        }
    }

    pub(crate) fn emit(&mut self, broker: Option<BrokerId>, request: Option<RequestId>, what: What) {
        self.seq += 1;
        self.effects.push(Effect::Emit(Event { seq: self.seq, at: self.now, broker, request, what }));
    }

    /// Answers a command: the one at hand, or one that waits.
    pub(crate) fn reply(&mut self, request: RequestId, outcome: Outcome) {
        let outcome = outcome.bounded();
        self.changes.command(request);
        if let Some(forgotten) = self.requests.answer(request, outcome.clone()) {
            self.changes.command(forgotten);
        }
        self.effects.push(Effect::Reply { request, outcome });
    }

    /// Answers all commands that wait for this.
    pub(crate) fn reply_all(&mut self, waits: Waits, outcome: &Outcome) {
        for request in self.requests.waiting(waits) {
            self.reply(request, outcome.clone());
        }
    }

    /// Lets a command wait.
    pub(crate) fn park(&mut self, request: RequestId, waits: Waits) {
        self.changes.command(request);
        self.requests.park(request, waits);
    }

    /// Lets all commands that wait for one thing wait for another.
    pub(crate) fn go_on_waiting(&mut self, before: Waits, after: Waits) {
        for (request, open) in &mut self.requests.open {
            if open.waits == before {
                open.waits = after;
                self.changes.command(*request);
            }
        }
    }
}
