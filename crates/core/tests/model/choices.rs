//! What can happen in a state. Each choice is one that the surroundings of the app, or time, can really make: faults
//! are few, and of deadlines that are equally long, the one that was armed earlier comes earlier where that matters.

use shiftboss_core::Exit;
use shiftboss_core::id::WorkerId;
use shiftboss_core::spec::Ready;

use crate::asks::BAD;
use crate::happening::{Answer, Due, Happening};
use crate::world::{Process, World};

/// What a happening is called in every state that it may be met in.
pub(crate) type Label = (&'static str, usize);

impl World<'_> {
    /// Everything that can happen next.
    pub(crate) fn choices(&self) -> Vec<Happening> {
        let mut choices = Vec::new();
        if self.ended {
            return choices;
        }
        for (id, process) in &self.processes {
            self.of_process(*id, process, &mut choices);
        }
        for answer in &self.owed {
            choices.push(Happening::Answer(*answer));
            if let Answer::Opened(round) = answer
                && self.left.listen_errors > 0
            {
                choices.push(Happening::Answer(Answer::NotOpened(*round)));
            }
        }
        for nth in 0..self.app.armed() {
            if let Some(due) = self.due(nth)
                && self.may_come(due)
            {
                choices.push(Happening::Due(nth, due));
            }
        }
        if self.left.commands > 0 {
            choices.extend(self.config.asks.iter().copied().map(Happening::Ask));
        }
        choices
    }

    /// What a happening is called in every state like this one: its kind, and the rank of the worker or the slot.
    pub(crate) fn label(&self, happening: Happening) -> Label {
        let rank = match happening {
            Happening::Due(_, Due::BackOff(_, slot) | Due::Trial(_, slot)) => slot.0 as usize,
            other => other.worker().map_or(0, |worker| self.processes.range(..worker).count()),
        };
        (happening.kind(), rank)
    }

    fn of_process(&self, id: WorkerId, process: &Process, choices: &mut Vec<Happening>) {
        if !process.runs {
            choices.push(Happening::Spawned(id));
            if self.left.spawn_errors > 0 {
                choices.push(Happening::SpawnFailed(id));
            }
            return;
        }
        if process.asked || process.killed {
            return choices.push(Happening::Leaves(id));
        }
        if process.slot.is_none() && !process.at_door {
            choices.push(Happening::Standby(id));
        }
        let says = !matches!(self.config.ready, Ready::After(_));
        if says && !process.ready && process.slot.is_some() {
            if process.launch != BAD {
                choices.push(Happening::Ready(id));
            }
            if self.config.ready == Ready::Accepting && (process.launch == BAD || self.may_be_odd(process)) {
                choices.push(Happening::Unseen(id));
            }
        }
        if self.left.deaths > 0 {
            choices.push(Happening::Dies(id, Exit::Code(1)));
            choices.push(Happening::Dies(id, Exit::Code(0)));
        }
    }

    fn due(&self, nth: usize) -> Option<Due> {
        let (word, broker, worker, slot) = self.app.armed_for(nth)?;
        Some(match (word, worker, slot) {
            ("worker", Some(worker), _) => Due::Worker(worker),
            ("back-off", _, Some(slot)) => Due::BackOff(broker, slot),
            ("trial", _, Some(slot)) => Due::Trial(broker, slot),
            ("listen", _, _) => Due::Broker("due: listen"),
            ("standby", _, _) => Due::Standby(broker),
            ("back", _, _) => Due::Broker("due: way back"),
            (_, _, _) => Due::Broker("due: other"),
        })
    }

    /// A good worker that is late is a fault, and so is one that leaves too late. In a slot nobody has proved itself
    /// before whoever was ready earlier.
    fn may_come(&self, due: Due) -> bool {
        let Due::Worker(id) = due else { return true };
        let Some(process) = self.processes.get(&id) else { return true };
        if process.asked {
            return self.may_be_odd(process);
        }
        if process.slot.is_none() {
            return process.at_door || self.may_be_odd(process);
        }
        if process.ready && !self.is_ready_by_time() {
            return !self
                .processes
                .range(..id)
                .any(|(earlier, other)| other.slot == process.slot && self.proves(*earlier));
        }
        process.launch == BAD || self.is_ready_by_time() || self.may_be_odd(process)
    }

    /// Whether it is ready and waited for until it has proved itself.
    fn proves(&self, id: WorkerId) -> bool {
        let serves = self.processes.get(&id).is_some_and(|process| process.ready && !process.asked);
        serves && (0..self.app.armed()).any(|nth| self.due(nth) == Some(Due::Worker(id)))
    }

    fn may_be_odd(&self, process: &Process) -> bool {
        process.odd || self.left.odd > 0
    }
}
