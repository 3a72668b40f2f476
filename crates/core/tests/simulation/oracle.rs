//! The oracle: judges a trace by the facts an onlooker has. One function for each promise, named by its number in
//! the list of invariants; it says whether there was anything to judge, so that a promise never tested is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use shiftboss_core::id::{LaunchId, Slot};
use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::status::BrokerState;
use shiftboss_core::{Effect, Event, Input, Status, Time, What};

use crate::facts::{Broker, Facts};
use crate::{on_effect, on_step};

pub(crate) struct Oracle {
    pub(crate) facts: Facts,
    /// How often each promise was put to the test.
    pub(crate) premises: BTreeMap<&'static str, u64>,
    seq: u64,
    /// The step's command was seen before.
    pub(crate) repeated: bool,
    /// Some broker recycles by time, so that something is always waited for.
    timed: bool,
    /// Of each broker before the step.
    pub(crate) before: Vec<Before>,
}

/// How a broker stood.
pub(crate) struct Before {
    pub(crate) served: BTreeSet<Slot>,
    pub(crate) wanted: u32,
    /// How many slots must be served.
    pub(crate) least: u32,
}

/// One call of core.
#[derive(Clone, Debug)]
pub(crate) struct Step {
    pub(crate) now: Time,
    pub(crate) input: Input,
    pub(crate) effects: Vec<Effect>,
    pub(crate) deadline: Option<Time>,
}

pub(crate) type Specs = BTreeMap<LaunchId, BrokerSpec>;
/// Whether there was anything to judge; an error is a broken promise.
pub(crate) type Verdict = Result<bool, String>;
type OnEffect = fn(&Facts, &Specs, &Step, &Effect) -> Verdict;
type OnStep = fn(&Oracle, &Specs, &Step) -> Verdict;

/// Judged before the effect is taken in.
const ON_EFFECT: [(&str, OnEffect); 12] = [
    ("I4", on_effect::i4_one_end_for_each_exit),
    ("I5", on_effect::i5_the_exit_told_is_the_exit_seen),
    ("I6", on_effect::i6_no_signal_to_the_dead),
    ("I8", on_effect::i8_held_means_held),
    ("I9", on_effect::i9_no_spawn_once_the_app_stops),
    ("I10", on_effect::i10_rungs_only_rise),
    ("I15", on_effect::i15_ready_is_earned),
    ("I17", on_effect::i17_a_failed_generation_is_not_started_again),
    ("I19", on_effect::i19_a_spawn_runs_the_target),
    ("I20", on_effect::i20_failing_slots_back_off),
    ("P3", on_effect::p3_queues_are_emptied_before_workers_leave),
    ("I35", on_effect::i35_listeners_before_workers),
];

/// Judged after all effects are taken in.
const ON_STEP: [(&str, OnStep); 11] = [
    ("I1", on_step::i1_ceiling),
    ("I2", on_step::i2_one_worker_a_slot),
    ("I3", on_step::i3_nobody_is_lost),
    ("I9b", on_step::i9_all_are_asked_to_leave),
    ("I11", on_step::i11_the_ladder_ends_in_a_kill),
    ("I12", on_step::i12_capacity_is_kept),
    ("I13", on_step::i13_surge_is_a_bound),
    ("I16", on_step::i16_nobody_starts_for_ever),
    ("I22", on_step::i22_never_given_up),
    ("P4", on_step::p4_a_first_death_is_repaired_at_once),
    ("I30", on_step::i30_a_repeated_command_acts_once),
];

/// Every promise that a long run must have put to the test.
pub(crate) const NAMES: [&str; 29] = [
    "I1", "I2", "I3", "I4", "I5", "I6", "I8", "I9", "I9b", "I10", "I11", "I12", "I13", "I15", "I16", "I17",
    "I19", "I20", "I22", "I29", "I30", "I35", "I37", "I39", "L1", "L2", "L4", "P3", "P4",
];

impl Oracle {
    pub(crate) fn new(specs: &[BrokerSpec]) -> Oracle {
        let facts = Facts::new(specs);
        Oracle {
            before: Vec::new(),
            timed: specs.iter().any(|spec| spec.recycle.every.is_some()),
            facts,
            premises: BTreeMap::new(),
            seq: 0,
            repeated: false,
        }
    }

    /// Judges one step.
    pub(crate) fn judge(&mut self, step: &Step, specs: &Specs) -> Result<(), String> {
        self.repeated = match &step.input {
            Input::Command { request, .. } => {
                self.facts.answered.contains_key(request) || self.facts.open.contains(request)
            }
            _ => false,
        };
        // Whoever has left by itself is not missed through anything that core did: counted after the input.
        self.facts.take_input(step);
        let facts = &self.facts;
        let before = facts.ids().map(|id| (id, facts.broker(id))).map(|(id, broker)| Before {
            served: facts.available(id, broker.wanted),
            wanted: broker.wanted,
            least: least(broker, specs),
        });
        self.before = before.collect();
        for effect in &step.effects {
            for (name, check) in ON_EFFECT {
                let held =
                    check(&self.facts, specs, step, effect).map_err(|broken| format!("{name}: {broken}"))?;
                self.count(name, held);
            }
            let held = self.i29_one_answer(step, effect)?;
            self.count("I29", held);
            self.i48_no_gap(effect)?;
            self.facts.take_effect(step, effect);
        }
        for (name, check) in ON_STEP {
            let held = check(self, specs, step).map_err(|broken| format!("{name}: {broken}"))?;
            self.count(name, held);
        }
        Ok(())
    }

    fn count(&mut self, name: &'static str, held: bool) {
        *self.premises.entry(name).or_insert(0) += u64::from(held);
    }

    fn i29_one_answer(&self, step: &Step, effect: &Effect) -> Verdict {
        let Effect::Reply { request, outcome } = effect else { return Ok(false) };
        match self.facts.answered.get(request) {
            None if self.facts.open.contains(request) => Ok(true),
            None => broken(format!("I29: an answer to {request}, which nobody asked")),
            Some(before) if self.repeated && before == outcome => Ok(true),
            Some(_) => broken(format!("I29: a second answer to {request} at {}", step.now)),
        }
    }

    pub(crate) fn i29_every_command_is_answered(&mut self) -> Result<(), String> {
        if self.facts.open.is_empty() {
            return Ok(());
        }
        Err(format!("I29: never answered: {:?}", self.facts.open))
    }

    fn i48_no_gap(&mut self, effect: &Effect) -> Result<(), String> {
        let Effect::Emit(event) = effect else { return Ok(()) };
        self.seq += 1;
        if event.seq == self.seq {
            Ok(())
        } else {
            Err(format!("I48: event {} where {} was due", event.seq, self.seq))
        }
    }

    pub(crate) fn i48_status_is_the_fold_of_the_events(
        &mut self,
        folded: &Status,
        status: &Status,
    ) -> Result<(), String> {
        if folded == status {
            Ok(())
        } else {
            Err(format!("I48: the fold is {folded:#?}\nthe state is {status:#?}"))
        }
    }

    pub(crate) fn i37_no_timer_after_the_end(&mut self, deadline: Option<Time>) -> Result<(), String> {
        self.count("I37", true);
        deadline.map_or(Ok(()), |at| Err(format!("I37: a timer for {at} after the end")))
    }

    /// After the faults: every open broker has exactly its workers, all ready, and no recycle runs.
    pub(crate) fn l1_converged(&mut self, status: &Status) -> Result<(), String> {
        for (id, broker) in self.facts.ids().zip(&status.brokers) {
            let (ready, all) = (broker.ready(), broker.workers.len());
            let rests = match broker.state {
                // One by time is under way.
                BrokerState::Open if broker.recycling => self.timed,
                BrokerState::Open => {
                    ready == broker.wanted
                        && all == broker.wanted as usize
                        && !broker.degraded
                        && broker.generation == broker.target
                }
                BrokerState::Drained => all == 0,
                BrokerState::Draining | BrokerState::Waiting => false,
            };
            if !rests {
                return Err(format!("L1: broker {id} is not as wanted: {broker:#?}"));
            }
        }
        self.count("L1", true);
        Ok(())
    }

    pub(crate) fn l2_shutdown_ends(&mut self, ended: bool) -> Result<(), String> {
        self.count("L2", true);
        if ended {
            Ok(())
        } else {
            Err("L2: the app has not ended in time, or left processes behind".to_owned())
        }
    }

    /// Nothing is waited for but the next recycle by time.
    pub(crate) fn l4_rest_is_quiet(&mut self, status: &Status, deadline: Option<Time>) -> Result<(), String> {
        let timed = self.timed;
        self.count("L4", !timed);
        match deadline {
            Some(at) if !timed => Err(format!("L4: at rest, but a timer is armed for {at}: {status:#?}")),
            Some(_) | None => Ok(()),
        }
    }
}

/// What new workers of this broker run.
pub(crate) fn target<'a>(broker: &Broker, specs: &'a Specs) -> &'a BrokerSpec {
    &specs[&broker.launches[&broker.target]]
}

/// How many slots must be served during a recycle.
pub(crate) fn least(broker: &Broker, specs: &Specs) -> u32 {
    broker.wanted.saturating_sub(target(broker, specs).recycle.unavailable)
}

pub(crate) fn told_by(effect: &Effect) -> Option<&Event> {
    match effect {
        Effect::Emit(event) => Some(event),
        _ => None,
    }
}

pub(crate) fn told(effect: &Effect) -> Option<&What> {
    match effect {
        Effect::Emit(event) => Some(&event.what),
        _ => None,
    }
}

pub(crate) fn broken(what: String) -> Verdict {
    Err(what)
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{} {:?}", self.now, self.input)?;
        for effect in &self.effects {
            match effect {
                Effect::Emit(event) => {
                    writeln!(
                        f,
                        "      event {} broker {:?} {:?}",
                        event.seq,
                        event.broker.map(|id| id.0),
                        event.what
                    )?;
                }
                effect => writeln!(f, "      {effect:?}")?,
            }
        }
        Ok(())
    }
}
