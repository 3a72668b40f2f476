//! What is promised of standbys: they take over at once, once each, are never old, and never count before they serve.

use shiftboss_core::{Effect, What};

use crate::brokers::is_crowded;
use crate::facts::Process;
use crate::oracle::{Oracle, Step, Verdict, broken, events, target, told_by};

// Of each effect.

/// Who is promoted waits at the door, and the slot has nobody; in a recycle at most the predecessor.
pub(crate) fn i23_a_promotion_fills_one_empty_slot(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Promote { worker, slot } = effect else { return Ok(false) };
    let facts = &oracle.facts;
    let Some(process) = facts.living.get(worker).filter(|process| process.is_spare()) else {
        return broken(format!("worker {worker} is promoted and does not wait at the door"));
    };
    let broker = facts.broker(process.broker);
    if broker.held || (broker.listens && !broker.listening) || slot.0 >= broker.wanted {
        return broken(format!("worker {worker} is promoted to slot {slot}, which is not to be filled"));
    }
    let here = |other: &Process| other.slot == Some(*slot) && other.stays();
    let others = facts.of(process.broker).filter(|(_, other)| here(other)).count();
    if others > usize::from(broker.recycling) {
        return broken(format!("worker {worker} is promoted to slot {slot}, where {others} are already"));
    }
    Ok(true)
}

/// Outside of a recycle a slot that keeps failing gets new workers after its back-off, and no standby.
pub(crate) fn i23_a_crash_loop_eats_no_standbys(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Promote { worker, slot } = effect else { return Ok(false) };
    let Some(process) = oracle.facts.living.get(worker) else { return Ok(false) };
    let broker = oracle.facts.broker(process.broker);
    let streak = broker.streaks.get(slot).map_or(0, |streak| streak.deaths);
    if streak >= 2 && !broker.recycling {
        return broken(format!("slot {slot} has failed {streak} times in a row and gets standby {worker}"));
    }
    Ok(streak == 1)
}

/// Standbys that fail in a row come more and more slowly.
pub(crate) fn i20_failing_standbys_back_off(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { worker, broker, slot: None, launch, .. } = effect else { return Ok(false) };
    let (facts, backoff) = (&oracle.facts, oracle.specs[launch].backoff);
    let streak = facts.broker(*broker).standby_streak.filter(|streak| streak.deaths >= 2);
    let Some(streak) = streak else { return Ok(false) };
    let doubled = backoff.base.saturating_mul(1 << (streak.deaths - 2).min(16));
    let least = doubled.min(backoff.cap).mul_f64(0.9);
    if facts.now.since(streak.last) < least {
        let times = streak.deaths;
        return broken(format!(
            "standby {worker} is started less than {least:?} after {times} failures in a row"
        ));
    }
    Ok(true)
}

/// With those that leave never more than there are to be.
pub(crate) fn i23_few_wait_at_the_door(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { worker, broker: id, slot: None, .. } = effect else { return Ok(false) };
    let standbys = oracle.facts.of(*id).filter(|(_, process)| process.slot.is_none()).count();
    let most = oracle.facts.broker(*id).standby as usize;
    if standbys >= most {
        return broken(format!(
            "standby {worker} of broker {id} is started beside {standbys}; {most} are wanted"
        ));
    }
    Ok(true)
}

/// A standby serves only what it was started for: the target, as it was when the last recycle began or later.
pub(crate) fn i24_nobody_stale_is_promoted(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Promote { worker, .. } = effect else { return Ok(false) };
    let Some(process) = oracle.facts.living.get(worker) else { return Ok(false) };
    let broker = oracle.facts.broker(process.broker);
    let (runs, wanted) = (process.generation, broker.target);
    if runs != wanted || *worker <= broker.newest_before {
        return broken(format!(
            "standby {worker} of generation {runs} is stale, and promoted; target {wanted}"
        ));
    }
    if broker.generation != wanted && !broker.recycling {
        return broken(format!("standby {worker} runs generation {runs}, which is not on trial"));
    }
    Ok(broker.recycles > 0)
}

// Of each step.

/// A worker that served, alone and unasked, is gone: a standby that waits has its slot in the same step, one of them.
pub(crate) fn i23_a_standby_takes_over_at_once(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let Some(end) = facts.end.as_ref().filter(|_| facts.served) else { return Ok(false) };
    let (id, Some(slot)) = (end.broker, end.slot) else { return Ok(false) };
    let promoted = |effect: &&Effect| matches!(effect, Effect::Promote { slot: to, worker } if *to == slot && is_of(oracle, *worker, id));
    let promotions = step.effects.iter().filter(promoted).count();
    if promotions > 1 {
        return broken(format!("{promotions} standbys are promoted for one worker of slot {slot}"));
    }
    let broker = facts.broker(id);
    let waits = events(step).any(|event| {
        event.broker == Some(id)
            && match &event.what {
                What::WorkerBackoff { slot: of, .. } => *of == Some(slot),
                // Then standbys are stale.
                What::RecycleStarted { .. } => true,
                _ => false,
            }
    });
    let judged = oracle.before(id).spares > 0
        && !broker.held
        && (!broker.listens || broker.listening)
        && slot.0 < broker.wanted
        && (broker.recycling || broker.generation == broker.target)
        && !target(broker, &oracle.specs).backoff.base.is_zero()
        && !is_crowded(oracle, id)
        && !waits;
    if judged && promotions == 0 {
        return broken(format!("slot {slot} of broker {id} lost its worker, and no standby takes over"));
    }
    Ok(judged)
}

fn is_of(oracle: &Oracle, worker: shiftboss_core::id::WorkerId, id: shiftboss_core::id::BrokerId) -> bool {
    oracle.facts.living.get(&worker).is_some_and(|process| process.broker == id)
}

/// Where a standby is missing one is coming.
pub(crate) fn i23_standbys_are_refilled(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for (id, broker) in facts.ids().zip(&facts.brokers).filter(|(_, broker)| broker.is_open()) {
        let on_trial = broker.recycling || broker.generation == broker.target;
        let standbys = facts.of(id).filter(|(_, process)| process.slot.is_none()).count();
        if !on_trial || standbys >= broker.standby as usize {
            continue;
        }
        any = true;
        // Whoever is being started, or leaves, is waited for.
        let moves =
            |process: &Process| process.slot.is_none() && !(process.started.is_some() && process.stays());
        if step.deadline.is_none() && !facts.of(id).any(|(_, process)| moves(process)) {
            return broken(format!("broker {id} has {standbys} standbys and waits for nothing"));
        }
    }
    Ok(any)
}

/// When a recycle begins those who wait at the door go.
pub(crate) fn i24_the_stale_leave(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let began = |effect: &Effect| {
        let event = told_by(effect)?;
        matches!(event.what, What::RecycleStarted { .. }).then_some(event.broker)?
    };
    let mut any = false;
    for id in step.effects.iter().filter_map(began) {
        let newest = facts.broker(id).newest_before;
        let old = facts.of(id).filter(|(worker, process)| **worker <= newest && process.slot.is_none());
        let old: Vec<_> = old.collect();
        if let Some((worker, _)) = old.iter().find(|(_, process)| process.is_spare()) {
            return broken(format!("standby {worker} is stale and stays"));
        }
        any |= !old.is_empty();
    }
    Ok(any)
}
