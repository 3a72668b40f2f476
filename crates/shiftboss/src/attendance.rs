//! Who is there to take connections from lanes: the workers of a broker, folded from its events.

use std::collections::{BTreeMap, BTreeSet};

use shiftboss_core::What;
use shiftboss_core::id::{Slot, WorkerId};
use shiftboss_core::status::{BrokerStatus, WorkerState};

/// As far as lanes are concerned.
#[derive(Debug, Default)]
pub(crate) struct Attendance {
    wanted: u32,
    workers: BTreeMap<WorkerId, Attendant>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Attendant {
    slot: Slot,
    ready: bool,
    /// It was seen to be asked to leave.
    asked: bool,
}

impl Attendance {
    /// Nobody yet, and so many are wanted.
    pub(crate) fn of(wanted: u32) -> Attendance {
        Attendance { wanted, workers: BTreeMap::new() }
    }

    /// As another process has left it.
    pub(crate) fn seen(status: &BrokerStatus) -> Attendance {
        let workers = status.workers.iter().filter_map(|(worker, status)| {
            let ready = status.state == WorkerState::Ready;
            Some((*worker, Attendant { slot: status.slot?, ready, asked: false }))
        });
        Attendance { wanted: status.wanted, workers: workers.collect() }
    }

    /// Whether that changes anything.
    pub(crate) fn hear(&mut self, what: &What) -> bool {
        match what {
            What::BrokerStarted { wanted, .. } | What::BrokerScaled { wanted } => {
                std::mem::replace(&mut self.wanted, *wanted) != *wanted
            }
            What::WorkerStarted { worker, slot: Some(slot), .. }
            | What::WorkerPromoted { worker, slot, .. } => {
                self.workers.insert(*worker, Attendant { slot: *slot, ready: false, asked: false });
                true
            }
            What::WorkerReady { worker, .. } => self.is_ready(*worker, true),
            What::WorkerStopping { worker, .. } => self.is_ready(*worker, false),
            What::WorkerEnded { worker, .. } | What::WorkerDeath { worker, .. } => {
                self.workers.remove(worker).is_some()
            }
            _ => false,
        }
    }

    fn is_ready(&mut self, worker: WorkerId, ready: bool) -> bool {
        let known = self.workers.get_mut(&worker);
        known.is_some_and(|known| std::mem::replace(&mut known.ready, ready) != ready)
    }

    pub(crate) fn wanted(&self) -> u32 {
        self.wanted
    }

    /// Whether the slot has a worker, of whatever state.
    pub(crate) fn has(&self, slot: Slot) -> bool {
        self.workers.values().any(|worker| worker.slot == slot)
    }

    /// The slots with somebody who is ready; if nobody is, those that wait for somebody.
    pub(crate) fn attended(&self) -> impl Iterator<Item = u32> + use<> {
        let ready: BTreeSet<u32> =
            self.workers.values().filter(|worker| worker.ready).map(|worker| worker.slot.0).collect();
        let all = if ready.is_empty() { 0..self.wanted.max(1) } else { 0..0 };
        ready.into_iter().chain(all)
    }

    /// The slot of a worker that is asked to leave for the first time, if that slot is not wanted any more.
    pub(crate) fn leaves_for_good(&mut self, worker: WorkerId) -> Option<Slot> {
        let known = self.workers.get_mut(&worker)?;
        let is_first = !std::mem::replace(&mut known.asked, true);
        (is_first && known.slot.0 >= self.wanted).then_some(known.slot)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use shiftboss_core::id::{Generation, Pid};

    use super::*;

    fn started(worker: u64, slot: u32) -> What {
        let generation = Generation(1);
        What::WorkerStarted { worker: WorkerId(worker), slot: Some(Slot(slot)), pid: Pid(1), generation }
    }

    fn ready(worker: u64, slot: u32) -> What {
        let after = Duration::ZERO;
        What::WorkerReady { worker: WorkerId(worker), slot: Slot(slot), pid: Pid(1), after }
    }

    fn stopping(worker: u64, slot: u32) -> What {
        let reason = String::new();
        What::WorkerStopping { worker: WorkerId(worker), slot: Some(Slot(slot)), pid: Pid(1), reason }
    }

    fn attended(attendance: &Attendance) -> Vec<u32> {
        attendance.attended().collect()
    }

    #[test]
    fn a_slot_is_attended_as_long_as_anybody_in_it_is_ready() {
        let mut attendance = Attendance::of(3);
        assert_eq!(attended(&attendance), [0, 1, 2]);
        assert!(attendance.hear(&started(1, 0)) && attendance.hear(&started(2, 1)));
        assert_eq!(attended(&attendance), [0, 1, 2]);
        assert!(attendance.hear(&ready(2, 1)) && !attendance.hear(&ready(2, 1)));
        assert_eq!(attended(&attendance), [1]);
        // A successor shares the slot.
        attendance.hear(&started(3, 1));
        attendance.hear(&ready(3, 1));
        attendance.hear(&stopping(2, 1));
        assert_eq!(attended(&attendance), [1]);
        attendance.hear(&stopping(3, 1));
        assert_eq!(attended(&attendance), [0, 1, 2]);
        assert_eq!(Attendance::of(0).attended().collect::<Vec<_>>(), [0]);
    }

    #[test]
    fn whoever_leaves_for_good_is_told_apart_once() {
        let mut attendance = Attendance::of(3);
        for slot in 0..3 {
            attendance.hear(&started(u64::from(slot) + 1, slot));
        }
        attendance.hear(&What::BrokerScaled { wanted: 2 });
        assert_eq!(attendance.leaves_for_good(WorkerId(1)), None);
        assert_eq!(attendance.leaves_for_good(WorkerId(3)), Some(Slot(2)));
        assert_eq!(attendance.leaves_for_good(WorkerId(3)), None);
        assert_eq!(attendance.leaves_for_good(WorkerId(9)), None);
    }
}
