//! Workers that are to be started. Of many at once, some in each round of the loop: whatever else happens is not kept
//! waiting for them, nor is a broker by the many of another one. After an adoption those of a broker that has extensions
//! wait for them.

use std::collections::VecDeque;
use std::time::Duration;

use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, Slot, WorkerId};
use shiftboss_core::status::{BrokerState, BrokerStatus};
use shiftboss_core::{Input, Time};

use super::Driver;
use super::hear::Taken;
use crate::os::clock;
use crate::os::spawn::cannot;
use crate::workers;

/// Those that wait to be started: of each broker in order, and the brokers by turns.
#[derive(Default)]
pub(super) struct Starts {
    waiting: VecDeque<(BrokerId, VecDeque<Start>)>,
    /// When this round is to end.
    until: Time,
    /// When a program that goes on is to have started all its brokers again.
    joined_by: Time,
}

/// What is to be started for a broker.
#[derive(Clone, Copy)]
pub(super) struct Start {
    pub(super) worker: WorkerId,
    pub(super) slot: Option<Slot>,
    pub(super) generation: Generation,
    pub(super) launch: LaunchId,
}

impl Starts {
    pub(super) fn add(&mut self, broker: BrokerId, start: Start) {
        match self.waiting.iter_mut().find(|(other, _)| *other == broker) {
            Some((_, starts)) => starts.push_back(start),
            None => self.waiting.push_back((broker, VecDeque::from([start]))),
        }
    }

    /// The program's brokers are known, and not yet what it puts in place of what they do.
    pub(super) fn expect_joins(&mut self, now: Time) {
        self.joined_by = now + UNTIL_JOINED;
    }

    fn next(&mut self, held: &[BrokerId]) -> Option<(BrokerId, Start)> {
        let at = self.waiting.iter().position(|(broker, _)| !held.contains(broker))?;
        let (broker, mut starts) = self.waiting.remove(at)?;
        let start = starts.pop_front()?;
        if !starts.is_empty() {
            self.waiting.push_back((broker, starts));
        }
        Some((broker, start))
    }
}

impl Driver {
    pub(super) fn begin_round(&mut self) {
        self.starts.until = clock::now() + ROUND;
    }

    /// Whether some can be started in another round.
    pub(super) fn has_starts(&self) -> bool {
        let held = self.held();
        self.may_start() && self.starts.waiting.iter().any(|(broker, _)| !held.contains(broker))
    }

    fn may_start(&self) -> bool {
        !self.starts.waiting.is_empty() && !self.is_ending
    }

    /// Brokers of which nobody is started before their extensions are there.
    fn held(&self) -> Vec<BrokerId> {
        if self.core.is_stopping() || clock::now() >= self.starts.joined_by {
            return Vec::new();
        }
        let all = (0..).map(BrokerId).zip(&self.shells);
        all.filter(|(_, shell)| shell.awaits_extensions).map(|(broker, _)| broker).collect()
    }

    /// When those that are held are not waited for any more.
    pub(super) fn starts_deadline(&self) -> Option<Time> {
        self.may_start().then_some(self.starts.joined_by)
    }

    /// Starts the next one, if the round has time for it. Nobody is started while the program around seems about to end.
    pub(super) fn start_next(&mut self) {
        if self.starts.waiting.is_empty() || !self.is_ending && clock::now() >= self.starts.until {
            return;
        }
        if self.is_ending {
            return self.give_up_starts();
        }
        let held = self.held();
        let Some((broker, start)) = self.starts.next(&held) else { return };
        let started = if self.shells.get(broker.0 as usize).is_some_and(|shell| shell.awaits_extensions) {
            Err("the program has not started this broker again, with which its extensions come".to_owned())
        } else {
            self.spawn(broker, start)
        };
        self.is_started(start.worker, started);
    }

    /// Says of those who are not wanted any longer that nobody was started.
    fn give_up_starts(&mut self) {
        let (stopping, status) = (self.core.is_stopping(), self.core.status());
        let mut given_up = Vec::new();
        for (broker, starts) in &mut self.starts.waiting {
            let of = status.brokers.get(broker.0 as usize);
            let is_wanted = |start: &Start| {
                let has_slot = |of: &&BrokerStatus| start.slot.is_none_or(|slot| slot.0 < of.wanted);
                let is_open =
                    |of: &&BrokerStatus| matches!(of.state, BrokerState::Open | BrokerState::Waiting);
                !stopping && of.filter(has_slot).filter(is_open).is_some()
            };
            given_up.extend(starts.iter().copied().filter(|start| !is_wanted(start)));
            starts.retain(is_wanted);
        }
        self.starts.waiting.retain(|(_, starts)| !starts.is_empty());
        for start in given_up {
            self.is_started(start.worker, Err("the program is about to end".to_owned()));
        }
    }

    fn is_started(&mut self, worker: WorkerId, started: Result<Pid, String>) {
        self.inputs.push_back(match started {
            Ok(pid) => Input::Spawned { worker, pid },
            Err(reason) => {
                self.taken.push(Taken::End(worker));
                Input::SpawnFailed { worker, reason }
            }
        });
    }

    /// Sees to it that a slot has its lanes before it has a worker.
    pub(super) fn make_lanes(&mut self, broker: BrokerId, slot: Slot) -> Result<(), String> {
        let shell = self.shells.get_mut(broker.0 as usize).ok_or("its broker is gone")?;
        if shell.sockets.make_lanes(slot).map_err(|error| format!("no lane for it: {error}"))? {
            self.workers.watch_listeners(broker, &shell.sockets);
        }
        // What is held already is not said again.
        if let Some(keeper) = self.chief.keeper() {
            let held = shell.sockets.deposit(keeper, broker);
            held.map_err(|error| cannot("the keeper does not take its lane", &error))?;
        }
        Ok(())
    }

    fn spawn(&mut self, of: BrokerId, start: Start) -> Result<Pid, String> {
        let Start { worker, slot, generation, launch } = start;
        self.mend_open_listeners(of);
        if let Some(slot) = slot {
            self.make_lanes(of, slot)?;
        }
        let shell = self.shells.get(of.0 as usize).ok_or("its broker is gone")?;
        let launch = self.launches.get(&launch).ok_or("its specification is gone")?;
        let (broker, ready, sockets) = (&shell.name, shell.ready, &shell.sockets);
        let word = self.recorder.as_mut().and_then(|recorder| recorder.word(worker));
        let launcher = shell.extensions.launcher.as_deref();
        let order =
            workers::Order { launcher, worker, slot, generation, of, broker, ready, launch, sockets, word };
        self.workers.start(&order)
    }
}

/// For a program that goes on after another to start its brokers again.
const UNTIL_JOINED: Duration = Duration::from_secs(10);
/// How long a round may take for starts: a start takes a fraction of a millisecond.
const ROUND: Duration = Duration::from_millis(5);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn brokers_start_by_turns_and_those_that_are_held_keep_nobody_waiting() {
        let mut starts = Starts::default();
        for (broker, worker) in [(0, 1), (0, 2), (1, 3), (1, 4), (2, 5)] {
            let (slot, generation, launch) = (None, Generation(1), LaunchId(0));
            starts.add(BrokerId(broker), Start { worker: WorkerId(worker), slot, generation, launch });
        }
        let mut next = |held: &[BrokerId]| starts.next(held).map(|(_, start)| start.worker.0);
        let some = [next(&[BrokerId(0)]), next(&[BrokerId(0)]), next(&[BrokerId(0)]), next(&[BrokerId(0)])];
        assert_eq!(some, [Some(3), Some(5), Some(4), None]);
        assert_eq!([next(&[]), next(&[]), next(&[])], [Some(1), Some(2), None]);
    }
}
