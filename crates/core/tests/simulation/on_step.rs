//! What the oracle asks of each step, after all its effects are taken in.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shiftboss_core::id::Slot;
use shiftboss_core::spec::Ready;
use shiftboss_core::{Effect, Input, What};

use crate::facts::Process;
use crate::oracle::{Oracle, Specs, Step, Verdict, broken, least, target, told_by};

pub(crate) fn i1_ceiling(oracle: &Oracle, specs: &Specs, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    for id in facts.ids() {
        let (broker, staying) =
            (facts.broker(id), facts.of(id).filter(|(_, process)| process.stays()).count());
        let surge = if broker.recycling { target(broker, specs).recycle.surge } else { 0 };
        if staying > (broker.wanted + surge) as usize {
            return broken(format!(
                "{staying} workers of broker {id}: {} are wanted, surge {surge}",
                broker.wanted
            ));
        }
    }
    Ok(true)
}

pub(crate) fn i2_one_worker_a_slot(oracle: &Oracle, _: &Specs, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    for id in facts.ids() {
        let mut slots: BTreeMap<Slot, usize> = BTreeMap::new();
        for (_, process) in facts.of(id).filter(|(_, process)| process.stays()) {
            *slots.entry(process.slot).or_insert(0) += 1;
        }
        let most = if facts.broker(id).recycling { 2 } else { 1 };
        if let Some((slot, many)) = slots.into_iter().find(|(_, many)| *many > most) {
            return broken(format!("{many} workers in slot {slot} of broker {id}"));
        }
    }
    Ok(true)
}

pub(crate) fn i3_nobody_is_lost(oracle: &Oracle, _: &Specs, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    let (told, living) = (facts.told.len() as u64, facts.living.len() as u64);
    if facts.spawns != told + living || told != facts.exits + facts.spawn_failures {
        return broken(format!("{} were started, {told} have left, {living} live", facts.spawns));
    }
    Ok(true)
}

pub(crate) fn i9_all_are_asked_to_leave(oracle: &Oracle, _: &Specs, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    if !facts.stopping {
        return Ok(false);
    }
    let idle = facts.living.iter().find(|(_, process)| {
        process.started.is_some()
            && process.leaving.is_none()
            && facts.broker(process.broker).quieting.is_none()
    });
    match idle {
        Some((worker, _)) => broken(format!("the app stops and nobody tells worker {worker}")),
        None => Ok(true),
    }
}

pub(crate) fn i11_the_ladder_ends_in_a_kill(oracle: &Oracle, specs: &Specs, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for (worker, process) in facts.living.iter().filter(|(_, process)| !process.killed) {
        let Some((since, _)) = process.leaving else { continue };
        any = true;
        let ladder: Duration = specs[&process.launch].stop.0.iter().map(|rung| rung.wait).sum();
        let end = since + ladder + (facts.lateness - process.lateness);
        let idle = step.deadline.is_none();
        if idle || (step.input == Input::Tick && step.now > end) {
            return broken(format!("worker {worker} was asked to leave at {since} and not killed at {end}"));
        }
    }
    Ok(any)
}

/// Nothing that core does by itself takes the last server from a slot, beyond what `unavailable` allows.
pub(crate) fn i12_capacity_is_kept(oracle: &Oracle, specs: &Specs, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for id in facts.ids() {
        let broker = facts.broker(id);
        if broker.held {
            continue;
        }
        // A step that changes number or target may act under both limits; one that lowers the number takes the
        // highest slots, whether the others serve or not.
        let before = &oracle.before[id.0 as usize];
        if broker.wanted < before.wanted {
            continue;
        }
        let least = least(broker, specs).min(before.least) as usize;
        let before = before.served.len();
        let after = facts.available(id, broker.wanted).len();
        if after < before.min(least) {
            return broken(format!("broker {id} served {before} slots, now {after}; {least} are promised"));
        }
        any |= broker.recycling;
    }
    Ok(any)
}

pub(crate) fn i13_surge_is_a_bound(oracle: &Oracle, specs: &Specs, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for id in facts.ids().filter(|id| facts.broker(*id).recycling) {
        let broker = facts.broker(id);
        let counts = |process: &Process| match &process.leaving {
            None => !process.doubtful,
            Some((at, reason)) => {
                reason == "recycled" && *at > broker.recycled_since && !process.dropped && !process.doubtful
            }
        };
        let alive = facts.of(id).filter(|(_, process)| counts(process)).count();
        let most = broker.wanted + target(broker, specs).recycle.surge;
        any = true;
        if alive > most as usize {
            return broken(format!("{alive} workers of broker {id} in a recycle; {most} are allowed"));
        }
    }
    Ok(any)
}

pub(crate) fn i16_nobody_starts_for_ever(oracle: &Oracle, specs: &Specs, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for (worker, process) in &facts.living {
        let (Some(started), None, None) = (process.started, process.ready, &process.leaving) else {
            continue;
        };
        any = true;
        let spec = &specs[&process.launch];
        let due = match spec.ready {
            Ready::After(wait) => started + wait,
            Ready::Notify | Ready::Accepting => started + spec.recycle.deadline,
        };
        if step.deadline.is_none_or(|at| at > due) || (step.input == Input::Tick && step.now >= due) {
            return broken(format!("worker {worker} has been starting since {started}"));
        }
    }
    Ok(any)
}

/// A slot of an open broker that has nobody has somebody coming: something is armed.
pub(crate) fn i22_never_given_up(oracle: &Oracle, _: &Specs, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for id in facts.ids() {
        let broker = facts.broker(id);
        if broker.held || (broker.listens && !broker.listening) {
            continue;
        }
        let taken: BTreeSet<Slot> = facts.of(id).map(|(_, process)| process.slot).collect();
        let empty = (0..broker.wanted).map(Slot).find(|slot| !taken.contains(slot));
        any |= empty.is_some();
        if let Some(slot) = empty
            && step.deadline.is_none()
        {
            return broken(format!("slot {slot} of broker {id} is empty and nothing is waited for"));
        }
    }
    Ok(any)
}

/// Promise 4; a busy spawn budget may delay it, so it is judged where few have been started lately.
pub(crate) fn p4_a_first_death_is_repaired_at_once(oracle: &Oracle, specs: &Specs, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for event in step.effects.iter().filter_map(told_by) {
        let (Some(id), What::WorkerDeath { slot, .. }) = (event.broker, &event.what) else { continue };
        let broker = facts.broker(id);
        let healthy_after = target(broker, specs).backoff.healthy_after;
        let proved = facts.last_ready.is_some_and(|since| step.now.since(since) >= healthy_after);
        if !proved
            || (broker.listens && !broker.listening)
            || !broker.streaks.contains_key(slot)
            || broker.held
            || facts.starts.len() > FEW
            || slot.0 >= broker.wanted
        {
            continue;
        }
        any = true;
        if !facts.of(id).any(|(_, process)| process.slot == *slot && process.stays()) {
            return broken(format!("slot {slot} of broker {id} lost its worker and was not filled at once"));
        }
    }
    Ok(any)
}

pub(crate) fn i30_a_repeated_command_acts_once(oracle: &Oracle, _: &Specs, step: &Step) -> Verdict {
    let Input::Command { request, .. } = &step.input else { return Ok(false) };
    if !oracle.repeated {
        return Ok(false);
    }
    let acted = step.effects.iter().any(|effect| match effect {
        Effect::Emit(event) => event.request == Some(*request),
        Effect::Signal { .. } | Effect::KillTree { .. } => true,
        Effect::QuietListeners { .. } | Effect::OpenListeners { .. } | Effect::ShutListeners { .. } => true,
        Effect::Spawn { .. } | Effect::Reply { .. } | Effect::Exit => false,
    });
    if acted { broken(format!("request {request} came twice and acted twice")) } else { Ok(true) }
}

/// So many starts within 10 s are far from emptying any spawn budget.
const FEW: usize = 32;
