//! The oracle itself: follows one app step by step. A check is a function for one promise, named by its number in the
//! list of invariants; it says whether there was anything to judge, so that a promise never tested is noticed.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use shiftboss_core::id::{BrokerId, LaunchId, Slot, WorkerId};
use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::{Adoption, Command, Effect, Event, Input, Status, Time, Verb, What};

use crate::facts::{Broker, Facts, MOST_OPEN};
use crate::{adoption, brokers, claims, clock, commands, recycles, standbys, workers};

/// Follows one app from its start.
#[derive(Clone)]
pub struct Oracle {
    pub(crate) facts: Facts,
    pub(crate) specs: Specs,
    /// How often each promise was put to the test.
    pub premises: BTreeMap<&'static str, u64>,
    /// What the events claim, all together.
    pub(crate) claimed: Status,
    pub(crate) seq: u64,
    /// The step's command was seen before.
    pub(crate) repeated: bool,
    /// Nobody that the step's input speaks of exists any more.
    pub(crate) stale: bool,
    /// What an adoption still has to ask for again.
    pub(crate) owed: Vec<Effect>,
    /// How much it has asked for again.
    pub(crate) repeated_effects: usize,
    /// The broker that the step's input speaks of, if it is one.
    pub(crate) subject: Option<BrokerId>,
    /// Of each broker before the step.
    pub(crate) before: Vec<Before>,
}

/// How a broker stood before the effects of a step.
#[derive(Clone)]
pub(crate) struct Before {
    pub(crate) served: BTreeSet<Slot>,
    pub(crate) wanted: u32,
    /// How many slots must be served.
    pub(crate) least: u32,
    pub(crate) held: bool,
    /// Standbys that could serve at once.
    pub(crate) spares: usize,
}

/// One call of core.
#[derive(Clone, Debug)]
pub struct Step {
    /// When.
    pub now: Time,
    /// What happened; none at the start and at an adoption.
    pub input: Option<Input>,
    /// Another process goes on here, and with how much.
    pub adopted: Option<Adoption>,
    /// What core asked for.
    pub effects: Vec<Effect>,
    /// When core wants to be called again at the latest.
    pub deadline: Option<Time>,
}

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Broken {
    /// Its number in the list of invariants.
    pub invariant: &'static str,
    /// What was seen.
    pub what: String,
}

pub(crate) type Specs = BTreeMap<LaunchId, BrokerSpec>;
/// Whether there was anything to judge; an error is a broken promise.
pub(crate) type Verdict = Result<bool, String>;
type OnEffect = fn(&Oracle, &Step, &Effect) -> Verdict;
type OnStep = fn(&Oracle, &Step) -> Verdict;

/// Judged before the effect is taken in.
const ON_EFFECT: [(&str, OnEffect); 38] = [
    ("I1b", brokers::i1_hard_ceiling),
    ("I4", workers::i4_one_end_for_each_exit),
    ("I5", workers::i5_the_end_told_is_the_end_seen),
    ("I6", workers::i6_no_signal_to_the_dead),
    ("I7", workers::i7_no_identity_is_used_twice),
    ("I8", brokers::i8_held_means_held),
    ("I9", brokers::i9_no_spawn_once_the_app_stops),
    ("I10", workers::i10_rungs_only_rise),
    ("I12b", recycles::i12_ready_before_retire),
    ("I15", workers::i15_ready_is_earned),
    ("I17", recycles::i17_a_failed_generation_is_not_started_again),
    ("I17b", recycles::i17_nobody_is_retired_outside_of_a_recycle),
    ("I17d", recycles::i17_good_is_what_has_worked),
    ("I18", recycles::i18_one_recycle_at_a_time),
    ("I19", recycles::i19_a_spawn_runs_the_target),
    ("I19b", recycles::i19_generations_rise),
    ("I19c", recycles::i19_a_new_generation_is_on_trial),
    ("I20", brokers::i20_failing_slots_back_off),
    ("I20b", brokers::i20_a_back_off_is_bounded),
    ("I20c", standbys::i20_failing_standbys_back_off),
    ("I21b", brokers::i21_first_come_first_served),
    ("I23", standbys::i23_a_promotion_fills_one_empty_slot),
    ("I23b", standbys::i23_a_crash_loop_eats_no_standbys),
    ("I23c", standbys::i23_few_wait_at_the_door),
    ("I24", standbys::i24_nobody_stale_is_promoted),
    ("I26", claims::i26_what_happens_to_one_broker_stays_there),
    ("I27", claims::i27_a_stale_word_changes_nothing),
    ("I29", commands::i29_one_answer),
    ("I29b", commands::i29_the_answer_is_true),
    ("I35", brokers::i35_listeners_before_workers),
    ("I35b", brokers::i35_listeners_back_off),
    ("I36", clock::i36_outside_of_its_window_nobody_is_started),
    ("I36b", clock::i36_once_a_window),
    ("I38", claims::i38_time_never_goes_back),
    ("I48", claims::i48_every_event_has_its_cause),
    ("I49", clock::i49_one_recycle_for_many_changes),
    ("P1", recycles::p1_recycles_by_time_keep_their_time),
    ("P3", brokers::p3_queues_are_emptied_before_workers_leave),
];

/// Judged after all effects are taken in.
const ON_STEP: [(&str, OnStep); 31] = [
    ("I1", brokers::i1_ceiling),
    ("I2", brokers::i2_one_worker_a_slot),
    ("I3", workers::i3_nobody_is_lost),
    ("I9b", brokers::i9_all_are_asked_to_leave),
    ("I11", workers::i11_the_ladder_ends_in_a_kill),
    ("I11b", workers::i11_nobody_waits_for_one_that_is_lost),
    ("I12", recycles::i12_capacity_is_kept),
    ("I13", recycles::i13_surge_is_a_bound),
    ("I14", recycles::i14_few_slots_change_at_once),
    ("I16", workers::i16_nobody_starts_for_ever),
    ("I17c", recycles::i17_the_way_back_goes_all_the_way),
    ("I21", brokers::i21_spawns_have_a_budget),
    ("I22", brokers::i22_never_given_up),
    ("I23d", standbys::i23_a_standby_takes_over_at_once),
    ("I23e", standbys::i23_standbys_are_refilled),
    ("I24b", standbys::i24_the_stale_leave),
    ("I27", claims::i27_stale_words_come),
    ("I28", commands::i28_few_commands_wait),
    ("I30", commands::i30_a_repeated_command_acts_once),
    ("I33", commands::i33_refused_is_nothing_done),
    ("I36c", clock::i36_a_hand_outlasts_the_clock),
    ("I36d", clock::i36_the_clock_is_obeyed),
    ("I37", claims::i37_an_early_call_does_nothing),
    ("I42", adoption::i42_an_adoption_is_complete),
    ("I48b", claims::i48_a_change_has_its_event),
    ("I48c", claims::i48_the_claims_are_the_facts),
    ("I49b", clock::i49_no_change_is_forgotten),
    ("L7", brokers::l7_one_brokers_failures_delay_no_other),
    ("P3b", brokers::p3_a_drain_begins_with_the_queues),
    ("P4b", brokers::p4_who_asks_does_not_wait),
    ("P4", brokers::p4_a_first_death_is_repaired_at_once),
];

/// Every promise that this oracle judges from a trace.
pub fn names() -> impl Iterator<Item = &'static str> {
    let on_effect = ON_EFFECT.iter().map(|(name, _)| *name);
    on_effect.chain(ON_STEP.iter().map(|(name, _)| *name)).chain(["L1", "L2", "L3", "L4", "L6"])
}

impl Oracle {
    /// For an app of these brokers, before its start.
    #[must_use]
    pub fn new(specs: &[BrokerSpec]) -> Oracle {
        Oracle {
            facts: Facts::new(specs),
            specs: specs.iter().map(|spec| (spec.launch, spec.clone())).collect(),
            premises: BTreeMap::new(),
            claimed: Status::default(),
            seq: 0,
            repeated: false,
            stale: false,
            owed: Vec::new(),
            repeated_effects: 0,
            subject: None,
            before: Vec::new(),
        }
    }

    /// Judges one step: all promises that it breaks.
    pub fn judge(&mut self, step: &Step) -> Result<(), Vec<Broken>> {
        let mut broken = Vec::new();
        self.take_input(step);
        for effect in &step.effects {
            if self.is_asked_again(effect) {
                continue;
            }
            for (name, check) in ON_EFFECT {
                let verdict = check(self, step, effect);
                self.note(name, verdict, &mut broken);
            }
            if let Effect::Emit(event) = effect {
                self.seq = event.seq;
                self.claimed.apply(event);
            }
            self.facts.take_effect(&self.specs, step, effect);
        }
        for (name, check) in ON_STEP {
            let verdict = check(self, step);
            self.note(name, verdict, &mut broken);
        }
        let crowded: Vec<BrokerId> = self.facts.ids().filter(|id| brokers::is_crowded(self, *id)).collect();
        self.facts.queue.retain(|(broker, _)| !crowded.contains(broker));
        self.facts.take_turn(&self.claimed);
        self.facts.forget_vain_changes(step, &self.specs);
        self.facts.deadline = step.deadline;
        if broken.is_empty() { Ok(()) } else { Err(broken) }
    }

    /// Whether an adoption only asks again for what was asked for and is not answered.
    fn is_asked_again(&mut self, effect: &Effect) -> bool {
        let Some(at) = self.owed.iter().position(|owed| owed == effect) else { return false };
        drop(self.owed.swap_remove(at));
        self.repeated_effects += 1;
        true
    }

    /// Of whom a step speaks that this app does not have, in words; a trace of another hand may be nonsense.
    pub(crate) fn does_not_know(&self, step: &Step) -> Option<String> {
        let joins = matches!(step.input, Some(Input::Begun { .. }));
        let brokers = self.facts.brokers.len() + usize::from(joins);
        let new = match &step.input {
            Some(Input::Command { command: Command::Broker(_, Verb::Respecify(spec)), .. }) => {
                Some(spec.launch)
            }
            Some(Input::Begun { spec, .. }) => Some(spec.launch),
            _ => None,
        };
        step.effects.iter().find_map(|effect| {
            let (broker, launch) = match effect {
                Effect::Spawn { broker, launch, .. } => (Some(*broker), Some(*launch)),
                Effect::OpenListeners { broker, .. }
                | Effect::QuietListeners { broker, .. }
                | Effect::ShutListeners { broker, .. }
                | Effect::WatchClock { broker } => (Some(*broker), None),
                Effect::Emit(event) => (event.broker, None),
                Effect::Notice { .. }
                | Effect::Promote { .. }
                | Effect::Signal { .. }
                | Effect::KillTree { .. }
                | Effect::Reply { .. }
                | Effect::Exit => (None, None),
            };
            let launch = launch.filter(|launch| new != Some(*launch) && !self.specs.contains_key(launch));
            match (broker.filter(|broker| broker.0 as usize >= brokers), launch) {
                (Some(broker), _) => Some(format!("there is no broker {broker}")),
                (None, Some(launch)) => Some(format!("nothing is known of what is launched: {launch}")),
                (None, None) => None,
            }
        })
    }

    /// What the events claim, all together.
    #[must_use]
    pub fn claimed(&self) -> &Status {
        &self.claimed
    }

    /// Whether the app has said that it may end.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        self.facts.ended
    }

    /// Whether this request to the listeners of a broker is not waiting for an answer.
    #[must_use]
    pub fn is_answered(&self, broker: BrokerId, round: u32) -> bool {
        let asked = |broker: &Broker| [broker.asked, broker.quieting, broker.shutting].contains(&Some(round));
        self.facts.brokers.get(broker.0 as usize).is_none_or(|broker| !asked(broker))
    }

    /// Up to which rung core has asked this worker, from 1, since the last salvage; none for one that is not leaving, is
    /// killed, or is not there.
    #[must_use]
    pub fn rungs_asked_for(&self, worker: WorkerId) -> Option<usize> {
        let process = self.facts.living.get(&worker)?;
        (process.leaving.is_some() && !process.killed)
            .then(|| process.rungs.last().map_or(0, |asked| asked.rung + 1))
    }

    /// Whether so few workers were started lately, and so few commands wait, that nobody is held up by others.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.facts.starts.len() < 16 && self.facts.open.len() < MOST_OPEN - 2
    }

    /// The app has ended: nobody lives, every command is answered (L2, L3).
    pub fn is_over(&mut self) -> Result<(), Broken> {
        let (left, open) = (self.facts.living.len(), self.facts.open.len());
        *self.premises.entry("L2").or_insert(0) += 1;
        *self.premises.entry("L3").or_insert(0) += 1;
        if left > 0 || !self.facts.ended {
            let what = format!("the app has not ended in time, or left {left} workers behind");
            return Err(Broken { invariant: "L2", what });
        }
        if open > 0 {
            let what = format!("never answered: {:?}", self.facts.open);
            return Err(Broken { invariant: "L3", what });
        }
        Ok(())
    }

    fn take_input(&mut self, step: &Step) {
        let facts = &mut self.facts;
        facts.take_time(step);
        (self.owed, self.repeated_effects) = (Vec::new(), 0);
        if let Some(how) = step.adopted {
            self.owed = adoption::owed(facts, how);
            facts.take_adoption(how);
        }
        self.repeated = matches!(&step.input, Some(Input::Command { request, .. })
            if facts.answered.contains_key(request) || facts.open.contains_key(request));
        self.subject = step.input.as_ref().and_then(|input| facts.subject(input));
        self.stale = step.input.as_ref().is_some_and(|input| facts.is_stale(input));
        if let Some(Input::Command { command: Command::Broker(_, Verb::Respecify(spec)), .. }) = &step.input {
            self.specs.entry(spec.launch).or_insert_with(|| (**spec).clone());
        }
        if let Some(Input::Begun { spec, .. }) = &step.input {
            self.specs.entry(spec.launch).or_insert_with(|| (**spec).clone());
        }
        // Whoever has left by itself is not missed through anything that core did: counted after the input.
        if let Some(input) = &step.input {
            facts.take_input(&self.specs, input);
        }
        let (facts, specs) = (&self.facts, &self.specs);
        let before = facts.ids().map(|id| (id, facts.broker(id))).map(|(id, broker)| Before {
            served: facts.available(id, broker.wanted),
            wanted: broker.wanted,
            least: least(broker, specs),
            held: broker.held,
            spares: facts.of(id).filter(|(_, process)| process.is_spare()).count(),
        });
        self.before = before.collect();
    }

    fn note(&mut self, name: &'static str, verdict: Verdict, broken: &mut Vec<Broken>) {
        match verdict {
            Ok(true) => *self.premises.entry(name).or_insert(0) += 1,
            Ok(false) => {}
            Err(what) => broken.push(Broken { invariant: name, what }),
        }
    }

    pub(crate) fn before(&self, id: BrokerId) -> &Before {
        &self.before[id.0 as usize]
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
    told_by(effect).map(|event| &event.what)
}

/// The events of a step.
pub(crate) fn events(step: &Step) -> impl Iterator<Item = &Event> {
    step.effects.iter().filter_map(told_by)
}

pub(crate) fn broken(what: impl Into<String>) -> Verdict {
    Err(what.into())
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.invariant, self.what)
    }
}

impl Step {
    /// Whether the app begins.
    pub(crate) fn is_start(&self) -> bool {
        self.input.is_none() && self.adopted.is_none()
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.input {
            Some(input) => writeln!(f, "{} {input:?}", self.now)?,
            None if self.adopted == Some(Adoption::Whole) => writeln!(f, "{} the adoption", self.now)?,
            None if self.adopted == Some(Adoption::Salvage) => writeln!(f, "{} the salvage", self.now)?,
            None => writeln!(f, "{} the start", self.now)?,
        }
        for effect in &self.effects {
            match effect {
                Effect::Emit(event) => {
                    let broker = event.broker.map(|id| id.0);
                    writeln!(f, "      event {} broker {broker:?} {:?}", event.seq, event.what)?;
                }
                effect => writeln!(f, "      {effect:?}")?,
            }
        }
        Ok(())
    }
}
