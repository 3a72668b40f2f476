//! Listeners as a whole: UNIX ones that somebody has removed, or a worker has shut for good, are bound anew before somebody
//! is to use them; those that several brokers use are shut with the last.

use std::os::fd::AsFd as _;

use shiftboss_core::Input;
use shiftboss_core::id::BrokerId;
use shiftboss_core::input::ListenFailure;
use shiftboss_core::time::Time;

use super::Driver;
use crate::node::Place;
use crate::os::clock;
use crate::sockets::Quieting;

/// New connections to a broker are held back until its queues are empty.
pub(super) struct Drain {
    /// Of the effect that this answers.
    round: u32,
    quieting: Quieting,
    /// With them listeners of others, which let nobody in any more.
    borrowed: Vec<Place>,
}

impl Drain {
    pub(super) fn deadline(&self) -> Time {
        self.quieting.deadline()
    }
}

impl Driver {
    /// Sees to it that clients find the open ones of a broker; whether they do. That one cannot be had is said once.
    pub(super) fn mend_open_listeners(&mut self, broker: BrokerId) -> bool {
        let Err(ListenFailure { address, reason }) = self.mend_listeners(broker, false) else {
            self.unmended.remove(&broker);
            return true;
        };
        if self.unmended.insert(broker) {
            self.log.note(&format!("{address}: no client can come, and it cannot be bound anew: {reason}"));
        }
        false
    }

    /// The same of all of them, which are to be opened.
    pub(super) fn mend_listeners(&mut self, broker: BrokerId, all: bool) -> Result<(), ListenFailure> {
        let Some(shell) = self.shells.get_mut(broker.0 as usize) else { return Ok(()) };
        let (workers, log) = (&self.workers, &mut self.log);
        let mut any = false;
        let result = shell.sockets.mend(all, self.chief.keeper(), broker, |address, before| {
            workers.leave_poller(before.as_fd());
            log.note(&format!(
                "{}: {address} was removed, or a worker has shut it: it is bound anew, for workers that start from now on",
                shell.name
            ));
            any = true;
        });
        if any {
            self.workers.watch_listeners(broker, &shell.sockets);
            self.pass_on_all(broker);
        }
        result
    }

    /// Holds new connections to a broker back, also where it uses listeners of others that let nobody in any more: those
    /// of which nobody else who stays has the use.
    pub(super) fn quiet_listeners(&mut self, broker: BrokerId, round: u32) {
        // It is one of them.
        let refusing = self.core.refusing();
        let mut borrowed = Vec::new();
        for owner in &refusing {
            let Some(shell) = self.shells.get_mut(owner.0 as usize).filter(|_| *owner != broker) else {
                continue;
            };
            for place in shell.sockets.asked_places() {
                let at = Place { broker: owner.0, place };
                if self.workers.is_lent_to(at, broker) && !self.workers.is_lent_beside(at, &refusing) {
                    shell.sockets.quiet_asked(place);
                    borrowed.push(at);
                }
            }
        }
        let Some(shell) = self.shells.get_mut(broker.0 as usize) else { return };
        let is_lent = |place| self.workers.is_lent_beside(Place { broker: broker.0, place }, &refusing);
        let quieting = shell.sockets.quiet(clock::now(), is_lent);
        self.quieting.insert(broker, Drain { round, quieting, borrowed });
    }

    /// A broker whose drain is over, or is given up, finds open what it uses of others.
    pub(super) fn open_lent_listeners(&mut self, broker: BrokerId) {
        for owner in self.core.refusing() {
            let Some(shell) = self.shells.get_mut(owner.0 as usize) else { continue };
            for place in shell.sockets.asked_places() {
                if self.workers.is_lent_to(Place { broker: owner.0, place }, broker) {
                    shell.sockets.lend(place);
                }
            }
        }
    }

    /// Tells core whose queues have stayed empty for long enough.
    pub(super) fn look_at_queues(&mut self, now: Time) {
        let (shells, workers, inputs) = (&self.shells, &self.workers, &mut self.inputs);
        self.quieting.retain(|broker, Drain { round, quieting, borrowed }| {
            let Some(shell) = shells.get(broker.0 as usize) else { return false };
            if quieting.deadline() > now {
                return true;
            }
            let of_others = borrowed.iter().filter_map(|at| {
                let owner = shells.get(at.broker as usize)?;
                Some(owner.sockets.queued_at(at.place))
            });
            let queued = shell.sockets.queued() + of_others.sum::<u32>() + workers.left_over(*broker);
            let quiet = quieting.is_over(queued, now) || shell.sockets.is_empty() && borrowed.is_empty();
            if quiet {
                inputs.push_back(Input::Quiet { broker: *broker, round: *round });
            }
            !quiet
        });
    }

    /// Shuts the listeners of a broker, and those that other drained brokers have left open for it; how many connections
    /// were reset, with those that nobody has taken in round-robin.
    pub(super) fn shut_listeners(&mut self, broker: BrokerId) -> u64 {
        let mut refused = self.workers.reset_left_over(broker);
        for (owner, shell) in (0..).map(BrokerId).zip(&mut self.shells) {
            let is_lent = |place| self.workers.is_lent(Place { broker: owner.0, place });
            if owner == broker {
                self.workers.leave_listeners(&shell.sockets);
                refused += shell.sockets.shut(is_lent);
            } else if shell.sockets.has_left() {
                self.workers.leave_listeners(&shell.sockets);
                refused += shell.sockets.shut_left(is_lent);
            } else {
                continue;
            }
            self.workers.watch_listeners(owner, &shell.sockets);
        }
        refused
    }
}
