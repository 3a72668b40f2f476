//! When a worker of Node's `cluster` is ready, and what is said of where it listens.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use shiftboss_core::Input;
use shiftboss_core::id::{BrokerId, Slot, WorkerId};
use shiftboss_core::time::Time;

use super::{Process, Workers};
use crate::node::{OTHERWISE_AFTER, Peer, Place, SILENT_FOR};

/// What is to be said of where a worker listens.
pub(crate) enum Started {
    /// It does not listen on these, though its predecessor did, and is ready all the same or has failed.
    Otherwise { worker: WorkerId, broker: BrokerId, lacks: BTreeSet<Place>, is_ready: bool },
    /// It is ready, and has had time to listen wherever it does.
    Settled { worker: WorkerId, broker: BrokerId },
}

impl Workers {
    /// Tells core of a worker that has become ready, and remembers what those who are ready do.
    pub(crate) fn judge(&mut self, worker: WorkerId, now: Time, inputs: &mut VecDeque<Input>) {
        let Some(Process { of, slot, peer: Some(peer), says_ready, .. }) = self.processes.get_mut(&worker)
        else {
            return;
        };
        if !peer.stays() {
            return;
        }
        let Some(slot) = slot else {
            if peer.waits() && !std::mem::replace(&mut peer.is_at_door, true) {
                inputs.push_back(Input::Standby { worker });
            }
            return;
        };
        let (of, slot, says_ready) = (*of, *slot, *says_ready);
        if peer.is_ready {
            if self.stage.habits.are_other(of, slot, peer)
                && self.serving(of, slot) == Some(worker)
                && let Some(Process { peer: Some(peer), .. }) = self.processes.get(&worker)
            {
                self.stage.habits.are(of, slot, peer);
            }
            return;
        }
        let before = self.stage.habits.of(of, slot);
        let otherwise = if self.serving(of, slot).is_some() { OTHERWISE_AFTER } else { SILENT_FOR };
        let Some(peer) = self.peer(worker) else { return };
        // One that says when it is ready is, wherever it listens.
        let is_ready =
            if says_ready { peer.said_ready() } else { peer.counts_as_ready(&before, otherwise, now) };
        if is_ready {
            peer.is_ready = true;
            inputs.push_back(Input::Ready { worker });
            let lacks = &before - &peer.listening();
            if !lacks.is_empty() && !says_ready {
                self.stage.started.push_back(Started::Otherwise {
                    worker,
                    broker: of,
                    lacks,
                    is_ready: true,
                });
            }
            self.stage.silent.insert((now + UNSERVED_AFTER, worker));
            if let Some(Process { peer: Some(peer), .. }) = self.processes.get(&worker) {
                self.stage.habits.are(of, slot, peer);
            }
        } else if let Some(at) = peer.settles_at(otherwise) {
            self.stage.silent.insert((at, worker));
        }
    }

    /// The ready worker that has this slot and stays; of two the one that was started later.
    fn serving(&self, broker: BrokerId, slot: Slot) -> Option<WorkerId> {
        let in_slot = self.processes.iter().filter(|(_, of)| (of.of, of.slot) == (broker, Some(slot)));
        let mut serving =
            in_slot.filter(|(_, of)| of.peer.as_ref().is_some_and(|peer| peer.is_ready && peer.stays()));
        serving.next_back().map(|(worker, _)| *worker)
    }

    /// Core asks it to leave, in whatever words.
    pub(crate) fn is_to_leave(&mut self, worker: WorkerId) {
        if let Some(peer) = self.peer(worker) {
            peer.is_to_leave = true;
        }
    }

    pub(crate) fn next_started(&mut self) -> Option<Started> {
        self.stage.started.pop_front()
    }

    /// Which of so many declared listeners nobody has asked for, and of which that was not said before.
    pub(crate) fn unserved(&mut self, broker: BrokerId, declared: u32) -> Vec<Place> {
        let all = (0..declared).map(|place| Place { broker: broker.0, place });
        let (served, unserved): (Vec<Place>, Vec<Place>) = all.partition(|place| self.is_used(*place));
        served.iter().for_each(|place| _ = self.stage.unserved.remove(place));
        unserved.into_iter().filter(|place| self.stage.unserved.insert(*place)).collect()
    }

    /// It is gone. What was expected of it in vain is expected of nobody, unless somebody in its slot does that still.
    pub(super) fn has_left(&mut self, worker: WorkerId, broker: BrokerId, slot: Slot, peer: &Peer) {
        if peer.is_ready {
            return;
        }
        let lacks = &self.stage.habits.of(broker, slot) - &peer.listening();
        // Others have failed before they could listen.
        if peer.has_turned() && !lacks.is_empty() {
            self.stage.started.push_back(Started::Otherwise { worker, broker, lacks, is_ready: false });
        }
        if self.serving(broker, slot).is_none() {
            self.stage.habits.forget_slot(broker, slot);
        }
    }

    /// Looks at those whose silence is long enough, and at those who have had time to listen wherever they do.
    pub(super) fn look_at_silent(&mut self, now: Time, inputs: &mut VecDeque<Input>) {
        while let Some((at, worker)) = self.stage.silent.first().copied().filter(|(at, _)| *at <= now) {
            self.stage.silent.remove(&(at, worker));
            self.judge(worker, now, inputs);
            let Some(Process { of, peer: Some(peer), .. }) = self.processes.get(&worker) else { continue };
            match peer.settles_at(UNSERVED_AFTER) {
                _ if !peer.is_ready => {}
                Some(at) if at > now => _ = self.stage.silent.insert((at, worker)),
                _ => self.stage.started.push_back(Started::Settled { worker, broker: *of }),
            }
        }
    }
}

/// For a ready worker to listen on all that it does.
const UNSERVED_AFTER: Duration = Duration::from_secs(3);
