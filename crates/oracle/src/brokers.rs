//! What is promised of a broker: how many workers, which, when, and in whose place.

use std::collections::{BTreeMap, BTreeSet};

use shiftboss_core::id::{BrokerId, Slot};
use shiftboss_core::spec::Drained;
use shiftboss_core::{Command, Effect, Input, Outcome, Time, Verb, What};

use crate::facts::WINDOW;
use crate::oracle::{Oracle, Step, Verdict, broken, events, target, told, told_by};

// Of each effect.

pub(crate) fn i8_held_means_held(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { broker, worker, .. } = effect else { return Ok(false) };
    let facts = oracle.facts.broker(*broker);
    if facts.held || facts.sent_home {
        return broken(format!("worker {worker} is started while broker {broker} is drained"));
    }
    Ok(true)
}

/// However slowly workers leave: twice as many processes as slots that are wanted or have one, and surge, is the most; beside
/// standbys.
pub(crate) fn i1_hard_ceiling(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { broker: id, worker, slot, .. } = effect else { return Ok(false) };
    let Some(_) = slot else { return Ok(false) };
    if is_crowded(oracle, *id) {
        let living = oracle.facts.of(*id).count();
        return broken(format!("worker {worker} is started beside {living} others of broker {id}"));
    }
    Ok(true)
}

/// No room for another one among those that are leaving.
pub(crate) fn is_crowded(oracle: &Oracle, id: BrokerId) -> bool {
    let broker = oracle.facts.broker(id);
    let taken: Vec<Slot> = oracle.facts.of(id).filter_map(|(_, process)| process.slot).collect();
    let slots = taken.iter().fold(broker.wanted, |slots, slot| slots.max(slot.0 + 1));
    let most = 2 * slots + target(broker, &oracle.specs).recycle.surge;
    taken.len() >= most as usize
}

pub(crate) fn i9_no_spawn_once_the_app_stops(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    match effect {
        Effect::Spawn { worker, .. } if oracle.facts.stopping => {
            broken(format!("worker {worker} is started at the end"))
        }
        Effect::Spawn { .. } => Ok(false),
        _ => Ok(oracle.facts.stopping),
    }
}

/// A broker whose listeners cannot be opened tries again, more and more slowly.
pub(crate) fn i35_listeners_back_off(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    let (Some(id), What::BrokerWaiting { retry_at: Some(at) }) = (event.broker, &event.what) else {
        return Ok(false);
    };
    let broker = oracle.facts.broker(id);
    let backoff = target(broker, &oracle.specs).backoff;
    let doubled = backoff.base.saturating_mul(1 << broker.unopened.saturating_sub(1).min(16));
    let (plain, wait) = (doubled.min(backoff.cap), at.since(oracle.facts.now));
    if wait < plain.mul_f64(0.899) || wait > plain.mul_f64(1.101) {
        let times = broker.unopened;
        return broken(format!(
            "broker {id} waits {wait:?} after {times} failures to listen; {plain:?} is the rule"
        ));
    }
    Ok(true)
}

pub(crate) fn i20_failing_slots_back_off(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { broker, slot: Some(slot), launch, .. } = effect else { return Ok(false) };
    let (facts, backoff) = (&oracle.facts, oracle.specs[launch].backoff);
    let broker = facts.broker(*broker);
    let Some(streak) = broker.streaks.get(slot).filter(|streak| streak.deaths >= 2 && !broker.recycling)
    else {
        return Ok(false);
    };
    let doubled = backoff.base.saturating_mul(1 << (streak.deaths - 2).min(16));
    let least = doubled.min(backoff.cap).mul_f64(0.9);
    if facts.now.since(streak.last) < least {
        return broken(format!("slot {slot} waited less than {least:?} after {} deaths", streak.deaths));
    }
    if broker.waits.get(slot).is_some_and(|until| facts.now < *until) {
        return broken(format!("slot {slot} was filled before its back-off was over"));
    }
    Ok(true)
}

/// Of a back-off that begins with an exit.
pub(crate) fn i20_a_back_off_is_bounded(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    let (Some(id), What::WorkerBackoff { slot, retry_at, failures }) = (event.broker, &event.what) else {
        return Ok(false);
    };
    let whose = slot.map_or("the next standby".to_owned(), |slot| format!("slot {slot}"));
    let facts = &oracle.facts;
    if facts.end.as_ref().map(|end| end.slot) != Some(*slot) {
        return Ok(false);
    }
    let backoff = target(facts.broker(id), &oracle.specs).backoff;
    let plain = backoff.base.saturating_mul(1 << failures.saturating_sub(2).min(16)).min(backoff.cap);
    let wait = retry_at.since(facts.now);
    if *failures < 2 || wait < plain.mul_f64(0.899) || wait > plain.mul_f64(1.101) {
        return broken(format!("{whose} waits {wait:?} after {failures} failures; {plain:?} is the rule"));
    }
    Ok(true)
}

pub(crate) fn i35_listeners_before_workers(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { broker, worker, .. } = effect else { return Ok(false) };
    let facts = oracle.facts.broker(*broker);
    if facts.listens && !facts.listening {
        return broken(format!("worker {worker} is started before its listeners are open"));
    }
    Ok(facts.listens)
}

/// Promise 3: while the queues are being emptied nobody is sent home; "now" does not wait for them.
pub(crate) fn p3_queues_are_emptied_before_workers_leave(
    oracle: &Oracle,
    _: &Step,
    effect: &Effect,
) -> Verdict {
    let Some(What::WorkerStopping { worker, reason, .. }) = told(effect) else { return Ok(false) };
    let facts = &oracle.facts;
    let Some(process) = facts.living.get(worker).filter(|process| !process.doubtful) else {
        return Ok(false);
    };
    let home = reason == "drained" || reason == "the app stops";
    if home && facts.broker(process.broker).quieting.is_some() && !facts.brutal {
        return broken(format!("worker {worker} is sent home while its queues are being emptied"));
    }
    Ok(home)
}

// Of each step.

pub(crate) fn i1_ceiling(oracle: &Oracle, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    for id in facts.ids() {
        let broker = facts.broker(id);
        let staying = facts.of(id).filter(|(_, process)| process.slot.is_some() && process.stays()).count();
        let surge = if broker.recycling { target(broker, &oracle.specs).recycle.surge } else { 0 };
        if staying > (broker.wanted + surge) as usize {
            let wanted = broker.wanted;
            return broken(format!("{staying} workers of broker {id}: {wanted} are wanted, surge {surge}"));
        }
    }
    Ok(true)
}

pub(crate) fn i2_one_worker_a_slot(oracle: &Oracle, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    for id in facts.ids() {
        let mut slots: BTreeMap<Slot, usize> = BTreeMap::new();
        let staying = facts.of(id).filter(|(_, process)| process.stays());
        for slot in staying.filter_map(|(_, process)| process.slot) {
            *slots.entry(slot).or_insert(0) += 1;
        }
        let broker = facts.broker(id);
        let most = if broker.recycling { 2 } else { 1 };
        if let Some((slot, many)) =
            slots.into_iter().find(|(slot, many)| *many > most || slot.0 >= broker.wanted)
        {
            return broken(format!(
                "{many} workers in slot {slot} of broker {id}, which has {}",
                broker.wanted
            ));
        }
    }
    Ok(true)
}

/// Promise 3: a drain that refuses new connections first lets its workers empty the queues.
pub(crate) fn p3_a_drain_begins_with_the_queues(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for event in events(step) {
        let (Some(id), What::BrokerDraining) = (event.broker, &event.what) else { continue };
        let spec = target(facts.broker(id), &oracle.specs);
        let refuses = facts.broker(id).listens && (spec.drained == Drained::Refuse || facts.stopping);
        if !refuses || facts.brutal || facts.of(id).next().is_none() {
            continue;
        }
        any = true;
        let asked =
            |effect: &Effect| matches!(effect, Effect::QuietListeners { broker, .. } if *broker == id);
        if !step.effects.iter().any(asked) {
            return broken(format!("broker {id} is drained and its queues are not emptied first"));
        }
    }
    Ok(any)
}

/// Whoever resumes or recycles has mended something: no empty slot waits any longer.
pub(crate) fn p4_who_asks_does_not_wait(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let Some(Input::Command { command: Command::Broker(id, verb), .. }) = &step.input else {
        return Ok(false);
    };
    let Some(broker) = facts.brokers.get(id.0 as usize) else { return Ok(false) };
    let refused = |effect: &Effect| matches!(effect, Effect::Reply { outcome: Outcome::Refused(_), .. });
    let taken = !oracle.repeated && !facts.stopping && !step.effects.iter().any(refused);
    let asked = taken && matches!(verb, Verb::Resume | Verb::ResumeNow | Verb::Recycle(None));
    let open = !broker.held && !oracle.before(*id).held && (broker.listening || !broker.listens);
    let queued = matches!(verb, Verb::Recycle(_)) && broker.queued;
    if !asked || !open || queued || facts.starts.len() > FEW / 2 || is_crowded(oracle, *id) {
        return Ok(false);
    }
    let filled = |slot: &Slot| facts.of(*id).any(|(_, process)| process.slot == Some(*slot));
    match (0..broker.wanted).map(Slot).find(|slot| !filled(slot)) {
        Some(slot) => broken(format!("slot {slot} of broker {id} still waits")),
        None => Ok(true),
    }
}

pub(crate) fn i9_all_are_asked_to_leave(oracle: &Oracle, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    if !facts.stopping {
        return Ok(false);
    }
    let idle = facts.living.iter().find(|(_, process)| {
        process.started.is_some()
            && process.signalled.is_none()
            && (facts.brutal || facts.broker(process.broker).quieting.is_none())
            || (facts.brutal && process.started.is_some() && !process.killed)
    });
    match idle {
        Some((worker, _)) => broken(format!("the app stops and nobody tells worker {worker}")),
        None => Ok(true),
    }
}

/// First come, first served: of slots that lost their workers and need not wait, the first is filled first.
pub(crate) fn i21_first_come_first_served(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { broker, slot, .. } = effect else { return Ok(false) };
    let queue = &oracle.facts.queue;
    let Some(slot) = slot else {
        return match queue.iter().find(|(of, _)| !is_crowded(oracle, *of)) {
            Some(first) => broken(format!("a standby of broker {broker} is started before {first:?}")),
            None => Ok(false),
        };
    };
    match queue.iter().position(|waits| *waits == (*broker, *slot)) {
        Some(0) => Ok(true),
        Some(_) => broken(format!("slot {slot} of broker {broker} is filled before {:?}", queue[0])),
        None => Ok(false),
    }
}

/// Within 10 s: a full bucket and its refill, and what was added to it because more were wanted.
pub(crate) fn i21_spawns_have_a_budget(oracle: &Oracle, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    let most: u64 = facts.brokers.iter().map(|broker| u64::from(broker.most_wanted)).sum();
    let lately = |at: Time| facts.now.since(at) < WINDOW;
    let grown = facts.brokers.iter().flat_map(|broker| &broker.grown).filter(|(at, _)| lately(*at));
    let allowed = 2 * (64 + 4 * most) + 4 * grown.map(|(_, more)| more).sum::<u64>();
    let started = facts.starts.len() as u64;
    if started > allowed {
        return broken(format!("{started} workers were started within {WINDOW:?}; {allowed} are allowed"));
    }
    Ok(started > allowed / 2)
}

/// A slot of an open broker that has nobody has somebody coming; a broker that waits tries again.
pub(crate) fn i22_never_given_up(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for id in facts.ids().filter(|id| !facts.broker(*id).held) {
        let broker = facts.broker(id);
        if broker.listens && !broker.listening {
            any = true;
            if broker.asked.is_none() && step.deadline.is_none() {
                return broken(format!("broker {id} waits for its listeners and never tries again"));
            }
            continue;
        }
        let taken: BTreeSet<Slot> = facts.of(id).filter_map(|(_, process)| process.slot).collect();
        let empty = (0..broker.wanted).map(Slot).find(|slot| !taken.contains(slot));
        any |= empty.is_some();
        if let Some(slot) = empty
            && step.deadline.is_none()
            && !is_crowded(oracle, id)
        {
            return broken(format!("slot {slot} of broker {id} is empty and nothing is waited for"));
        }
    }
    Ok(any)
}

/// Promise 4; a busy spawn budget may delay it, so it is judged where few have been started lately.
pub(crate) fn p4_a_first_death_is_repaired_at_once(oracle: &Oracle, step: &Step) -> Verdict {
    if oracle.facts.starts.len() > FEW { Ok(false) } else { first_deaths(oracle, step) }
}

/// The same, however many workers of other brokers are started again and again after failures.
pub(crate) fn l7_one_brokers_failures_delay_no_other(oracle: &Oracle, step: &Step) -> Verdict {
    let failing = oracle.facts.starts.iter().filter(|start| start.failing).count();
    if failing < FEW / 2 || oracle.facts.starts.len() - failing > FEW {
        return Ok(false);
    }
    first_deaths(oracle, step)
}

fn first_deaths(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for event in events(step) {
        let (Some(id), What::WorkerDeath { slot: Some(slot), .. }) = (event.broker, &event.what) else {
            continue;
        };
        let broker = facts.broker(id);
        // Whoever took so long to leave that its slot has failed and waits since is no first death.
        let now = events(step).any(|event| {
            event.broker == Some(id)
                && matches!(event.what, What::WorkerBackoff { slot: of, .. } if of == Some(*slot))
        });
        let judged = facts.proved
            && (now || !broker.waits.contains_key(slot))
            && (!broker.listens || broker.listening)
            && broker.streaks.contains_key(slot)
            && !broker.held
            && !is_crowded(oracle, id)
            && slot.0 < broker.wanted;
        if !judged {
            continue;
        }
        any = true;
        if !facts.of(id).any(|(_, process)| process.slot == Some(*slot) && process.stays()) {
            return broken(format!("slot {slot} of broker {id} lost its worker and was not filled at once"));
        }
    }
    Ok(any)
}

/// So many starts within [`WINDOW`] are far from emptying any spawn budget.
const FEW: usize = 32;
