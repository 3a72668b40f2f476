//! What is promised when another process goes on with an app: what was asked for and not answered is asked for again,
//! and nothing else happens; in a salvage, what was under way is given up and said.

use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::BrokerId;
use shiftboss_core::spec::Ask;
use shiftboss_core::{Adoption, Command, Effect, What};

use crate::facts::{Facts, Process};
use crate::oracle::{Oracle, Step, Verdict, broken, events, told, told_by};

/// What a successor has to ask for again, however much of it was done.
pub(crate) fn owed(facts: &Facts, how: Adoption) -> Vec<Effect> {
    let mut owed = Vec::new();
    for (broker, of) in facts.ids().zip(&facts.brokers) {
        owed.extend(of.asked.map(|round| Effect::OpenListeners { broker, round }));
        // Whoever says "now" does not wait for the queues.
        let quieting = of.quieting.filter(|_| !facts.brutal);
        owed.extend(quieting.map(|round| Effect::QuietListeners { broker, round }));
        owed.extend(of.scheduled.then_some(Effect::WatchClock { broker }));
        owed.extend(of.shutting.map(|round| Effect::ShutListeners { broker, round }));
    }
    for (worker, process) in &facts.living {
        let worker = *worker;
        let Process { broker, slot, generation, launch, .. } = *process;
        let rung = process.rungs.last().filter(|_| how == Adoption::Whole);
        owed.extend(match (process.started, process.killed, rung) {
            (None, ..) => Some(Effect::Spawn { worker, broker, slot, generation, launch }),
            (Some(_), true, _) => Some(Effect::KillTree { worker }),
            (Some(_), false, Some(asked)) => {
                let rung = u32::try_from(asked.rung).unwrap_or(u32::MAX);
                Some(match asked.ask {
                    Ask::Notice => Effect::Notice { worker, rung },
                    Ask::Signal(signal) => Effect::Signal { worker, signal, rung },
                })
            }
            (Some(_), false, None) => {
                let unready = process.promoted.is_some() && process.is_starting();
                slot.filter(|_| unready).map(|slot| Effect::Promote { worker, slot })
            }
        });
    }
    owed.extend(facts.ended.then_some(Effect::Exit));
    owed
}

pub(crate) fn i42_an_adoption_is_complete(oracle: &Oracle, step: &Step) -> Verdict {
    let Some(how) = step.adopted else { return Ok(false) };
    let brokers = oracle.facts.brokers.len();
    let tells = |id: u32| {
        let event = step.effects.get(id as usize).and_then(told_by);
        event.is_some_and(|event| {
            event.broker == Some(BrokerId(id)) && matches!(event.what, What::BrokerAdopted { .. })
        })
    };
    if !(0..brokers).all(|id| u32::try_from(id).is_ok_and(tells)) {
        return broken("an adoption does not begin with each broker's event");
    }
    if let Some(missing) = oracle.owed.first() {
        return broken(format!("not asked for again: {missing:?}"));
    }
    match how {
        Adoption::Whole if step.effects.len() > brokers + oracle.repeated_effects => {
            broken("an adoption of the whole does more than was under way")
        }
        Adoption::Whole => Ok(oracle.repeated_effects > 0),
        Adoption::Salvage => is_given_up(oracle, step),
    }
}

fn is_given_up(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    if let Some((request, _)) = facts.open.iter().find(|(_, command)| **command != Command::Stop) {
        return broken(format!("command {request} waits on after a salvage"));
    }
    let asked = |process: &Process| process.leaving.is_some() && !process.killed;
    let left = facts.living.iter().find(|(_, process)| asked(process) && process.rungs.len() != 1);
    if let Some((worker, process)) = left {
        return broken(format!("worker {worker} has not begun its ladder anew: {:?}", process.rungs));
    }
    let goes_back =
        |what: &What| matches!(what, What::RecycleStarted { reason: RecycleReason::GoingBack, .. });
    let began = |id| events(step).any(|event| event.broker == Some(id) && goes_back(&event.what));
    match facts.ids().find(|id| facts.broker(*id).recycling && !began(*id)) {
        Some(id) => broken(format!("the recycle of broker {id} outlasts a salvage")),
        None => Ok(true),
    }
}

/// A broker is adopted in the step that says so, and with it those who run.
pub(crate) fn is_adopted(oracle: &Oracle, step: &Step, effect: &Effect) -> bool {
    let Some(What::BrokerAdopted { workers, drained, salvaged }) = told(effect) else { return false };
    let Some(id) = told_by(effect).and_then(|event| event.broker) else { return false };
    let running = oracle.facts.of(id).filter(|(_, process)| process.started.is_some()).count();
    step.adopted.is_some_and(|how| *salvaged == (how == Adoption::Salvage))
        && running == *workers as usize
        && *drained == oracle.facts.broker(id).held
}

impl Facts {
    /// Another process goes on. In a salvage the ladders begin anew.
    pub(crate) fn take_adoption(&mut self, how: Adoption) {
        self.forget_the_last_to_go();
        let now = self.now;
        if how == Adoption::Whole {
            return;
        }
        for broker in &mut self.brokers {
            broker.changes = None;
        }
        for process in self.living.values_mut().filter(|process| !process.killed) {
            process.rungs.clear();
            process.lateness = self.lateness;
            process.signalled = process.signalled.map(|_| now);
        }
    }
}
