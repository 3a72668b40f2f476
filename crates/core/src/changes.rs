//! What a step has changed, so that only that needs to be recorded.

use crate::id::{BrokerId, RequestId, Slot, WorkerId};

/// Names of what was changed since the last record, possibly more than once each. Nothing is noted unless somebody
/// records.
#[derive(Clone, Default)]
pub(crate) struct Changes {
    pub(crate) recorded: bool,
    pub(crate) brokers: Vec<BrokerId>,
    pub(crate) slots: Vec<(BrokerId, Slot)>,
    pub(crate) workers: Vec<(BrokerId, WorkerId)>,
    pub(crate) commands: Vec<RequestId>,
}

impl Changes {
    pub(crate) fn broker(&mut self, broker: BrokerId) {
        if self.recorded {
            self.brokers.push(broker);
        }
    }

    pub(crate) fn slot(&mut self, broker: BrokerId, slot: Slot) {
        if self.recorded {
            self.slots.push((broker, slot));
        }
    }

    pub(crate) fn worker(&mut self, broker: BrokerId, worker: WorkerId) {
        if self.recorded {
            self.workers.push((broker, worker));
        }
    }

    pub(crate) fn command(&mut self, request: RequestId) {
        if self.recorded {
            self.commands.push(request);
        }
    }

    /// Each name once, in order.
    pub(crate) fn sort(&mut self) {
        self.brokers.sort_unstable();
        self.brokers.dedup();
        self.slots.sort_unstable();
        self.slots.dedup();
        self.workers.sort_unstable();
        self.workers.dedup();
        self.commands.sort_unstable();
        self.commands.dedup();
    }

    /// All is recorded.
    pub(crate) fn clear(&mut self) {
        self.recorded = true;
        self.brokers.clear();
        self.slots.clear();
        self.workers.clear();
        self.commands.clear();
    }
}
