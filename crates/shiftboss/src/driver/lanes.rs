//! Lanes: where new connections go follows who is ready, in the step in which that changes; and whoever leaves for good
//! takes what waits in its lane first.

use std::collections::VecDeque;

use shiftboss_core::Effect;
use shiftboss_core::id::{BrokerId, Slot, WorkerId};
use shiftboss_core::spec::Signal;
use shiftboss_core::time::Time;

use super::Driver;
use crate::os::clock;
use crate::sockets::Quieting;

/// A word to a worker that waits until its lanes are empty.
pub(super) struct HeldBack {
    worker: WorkerId,
    broker: BrokerId,
    slot: Slot,
    quieting: Quieting,
    ask: Effect,
}

impl Driver {
    /// Before anything else of a step is done.
    pub(super) fn attend_to_lanes(&mut self, effects: &[Effect]) {
        for effect in effects {
            let Effect::Emit(event) = effect else { continue };
            let Some(broker) = event.broker else { continue };
            let Some(shell) = self.shells.get_mut(broker.0 as usize) else { continue };
            match shell.sockets.hear(&event.what) {
                Ok(0) => {}
                Ok(count) => self.log.note(&format!(
                    "{}: {count} connections were reset: they waited in lanes that nobody attends any more",
                    shell.name
                )),
                Err(error) => {
                    self.log.note(&format!("{}: cannot choose among its lanes: {error}", shell.name));
                }
            }
        }
    }

    /// The same for all brokers, as another process has left them.
    pub(super) fn attend_to_all_lanes(&mut self) {
        for (shell, status) in self.shells.iter_mut().zip(self.core.status().brokers) {
            if let Err(error) = shell.sockets.are_attended_as(&status) {
                self.log.note(&format!("{}: cannot choose among its lanes: {error}", shell.name));
            }
        }
    }

    /// The effect, unless it has to wait; what waits for the same worker comes before it.
    pub(super) fn hold_back(&mut self, effect: Effect) -> Option<Effect> {
        let worker = match &effect {
            Effect::Notice { worker, .. } | Effect::Signal { worker, .. } | Effect::KillTree { worker } => {
                *worker
            }
            _ => return Some(effect),
        };
        if let Some(at) = self.held_back.iter().position(|held| held.worker == worker) {
            let ask = self.held_back.swap_remove(at).ask;
            self.perform(vec![ask], VecDeque::new());
        }
        let can_wait =
            !matches!(effect, Effect::KillTree { .. } | Effect::Signal { signal: Signal::KILL, .. });
        let (broker, slot) = match self.workers.place(worker) {
            Some((broker, Some(slot))) if can_wait => (broker, slot),
            _ => return Some(effect),
        };
        let shell = self.shells.get_mut(broker.0 as usize);
        if shell.and_then(|shell| shell.sockets.empties_lanes_first(worker)).is_none() {
            return Some(effect);
        }
        let quieting = Quieting::since(clock::now());
        self.held_back.push(HeldBack { worker, broker, slot, quieting, ask: effect });
        None
    }

    /// When the next look at such lanes is due.
    pub(super) fn lanes_deadline(&self) -> Option<Time> {
        self.held_back.iter().map(|held| held.quieting.deadline()).min()
    }

    /// Says what has waited long enough.
    pub(super) fn look_at_lanes(&mut self, now: Time) {
        let shells = &self.shells;
        let is_over = |held: &mut HeldBack| {
            let Some(shell) = shells.get(held.broker.0 as usize) else { return true };
            let quieting = &mut held.quieting;
            quieting.deadline() <= now && shell.sockets.are_lanes_quiet(held.slot, quieting, now)
        };
        let over: Vec<HeldBack> = self.held_back.extract_if(.., is_over).collect();
        for held in over {
            if self.workers.has(held.worker) {
                self.perform(vec![held.ask], VecDeque::new());
            }
        }
    }
}
