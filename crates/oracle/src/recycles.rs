//! What is promised of a recycle: who is replaced, by whom, when, and what becomes of it if it fails.

use std::collections::BTreeSet;

use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::Slot;
use shiftboss_core::{Command, Effect, Event, Input, Verb, What};

use crate::facts::{Facts, Process};
use crate::oracle::{Oracle, Step, Verdict, broken, events, least, target, told, told_by};

pub(crate) fn i17_a_failed_generation_is_not_started_again(
    oracle: &Oracle,
    _: &Step,
    effect: &Effect,
) -> Verdict {
    let Effect::Spawn { broker, generation, .. } = effect else { return Ok(false) };
    let failed = &oracle.facts.broker(*broker).failed;
    if failed.contains(generation) {
        return broken(format!("generation {generation} of broker {broker} has failed and is started again"));
    }
    Ok(!failed.is_empty())
}

pub(crate) fn i17_nobody_is_retired_outside_of_a_recycle(
    oracle: &Oracle,
    _: &Step,
    effect: &Effect,
) -> Verdict {
    let Some(What::WorkerStopping { worker, reason, .. }) = told(effect) else { return Ok(false) };
    let Some(process) = oracle.facts.living.get(worker).filter(|_| reason == "recycled") else {
        return Ok(false);
    };
    // Of a standby I24.
    let moved = process.slot.is_some() && !process.doubtful;
    if moved && !oracle.facts.broker(process.broker).recycling {
        return broken(format!("worker {worker} is retired although no recycle runs"));
    }
    Ok(true)
}

/// A worker that serves is retired only for a successor that has been ready for long enough, or by `unavailable`.
pub(crate) fn i12_ready_before_retire(oracle: &Oracle, step: &Step, effect: &Effect) -> Verdict {
    let Some(What::WorkerStopping { worker, reason, .. }) = told(effect) else { return Ok(false) };
    let facts = &oracle.facts;
    let Some(process) = facts.living.get(worker).filter(|_| reason == "recycled") else {
        return Ok(false);
    };
    // Decided before it ran, perhaps by another recycle.
    if matches!(step.input, Some(Input::Spawned { .. })) {
        return Ok(false);
    }
    let broker = facts.broker(process.broker);
    let Some(slot) = process.slot else { return Ok(false) };
    if broker.only.is_some_and(|only| only != slot) {
        return broken(format!("worker {worker} is retired; only slot {:?} was to be recycled", broker.only));
    }
    let recycle = &target(broker, &oracle.specs).recycle;
    if !process.serves() || process.is_lost() || recycle.unavailable > 0 {
        return Ok(false);
    }
    let proved = facts.of(process.broker).any(|(other, successor)| {
        other > worker
            && successor.slot == process.slot
            && successor.serves()
            && !successor.is_lost()
            && successor.ready.is_some_and(|since| facts.now.since(since) >= recycle.min_ready)
    });
    if proved {
        Ok(true)
    } else {
        broken(format!("worker {worker} serves and is retired, and nobody has taken over"))
    }
}

/// A recycle by time comes when its time has come.
pub(crate) fn p1_recycles_by_time_keep_their_time(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    let (Some(id), What::RecycleStarted { reason: RecycleReason::ByTime, .. }) = (event.broker, &event.what)
    else {
        return Ok(false);
    };
    let broker = oracle.facts.broker(id);
    let recycle = &target(broker, &oracle.specs).recycle;
    let Some(every) = recycle.every else { return broken("nobody asked for recycles by time") };
    let waited = oracle.facts.now.since(broker.timed_since);
    if waited < every.mul_f64(0.999 - recycle.jitter) {
        return broken(format!("a recycle by time after {waited:?}; every {every:?} was asked for"));
    }
    Ok(true)
}

/// A specification counts as good only once a worker of it has been ready.
pub(crate) fn i17_good_is_what_has_worked(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    let (Some(id), What::RecycleFinished { generation, .. } | What::RecycleFailed { generation, .. }) =
        (event.broker, &event.what)
    else {
        return Ok(false);
    };
    let broker = oracle.facts.broker(id);
    let (before, now) = (broker.launches.get(&broker.generation), broker.launches.get(generation));
    match now {
        Some(launch) if before != now && !broker.worked.contains(launch) => broken(format!(
            "generation {generation} of broker {id} is called good, and no worker of it was ever ready"
        )),
        _ => Ok(before != now),
    }
}

pub(crate) fn i18_one_recycle_at_a_time(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Some((event, What::RecycleStarted { .. })) = told_by(effect).map(|event| (event, &event.what)) else {
        return Ok(false);
    };
    let Some(id) = event.broker else { return broken("a recycle of nobody") };
    if oracle.facts.broker(id).recycling {
        return broken(format!("a second recycle of broker {id} begins before the first has ended"));
    }
    Ok(true)
}

pub(crate) fn i19_a_spawn_runs_the_target(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { broker, generation, launch, .. } = effect else { return Ok(false) };
    let facts = oracle.facts.broker(*broker);
    if *generation != facts.target || facts.launches.get(generation) != Some(launch) {
        return broken(format!(
            "broker {broker} starts generation {generation}, but its target is {}",
            facts.target
        ));
    }
    Ok(true)
}

/// What has not become ready everywhere is run by a recycle only, which can fail and be taken back.
pub(crate) fn i19_a_new_generation_is_on_trial(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { broker: id, worker, .. } = effect else { return Ok(false) };
    let broker = oracle.facts.broker(*id);
    if broker.generation == broker.target {
        return Ok(false);
    }
    if !broker.recycling {
        let target = broker.target;
        return broken(format!(
            "worker {worker} of broker {id} runs generation {target}, which is not on trial"
        ));
    }
    Ok(true)
}

pub(crate) fn i19_generations_rise(oracle: &Oracle, step: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    let (Some(id), What::RecycleStarted { target, reason, .. }) = (event.broker, &event.what) else {
        return Ok(false);
    };
    let broker = oracle.facts.broker(id);
    let respecified = matches!(&step.input,
        Some(Input::Command { command: Command::Broker(_, Verb::Respecify(_)), .. }) if event.request.is_some());
    let new = match reason {
        RecycleReason::NewSpecification => respecified,
        RecycleReason::GoingBack => {
            let failed =
                |event: &Event| event.broker == Some(id) && matches!(event.what, What::RecycleFailed { .. });
            events(step).take_while(|earlier| earlier.seq < event.seq).any(failed)
        }
        RecycleReason::Asked | RecycleReason::ByTime | RecycleReason::FilesChanged => false,
    };
    if if new { *target <= broker.target } else { *target != broker.target } {
        return broken(format!("generation {target} of broker {id} follows {}", broker.target));
    }
    Ok(new)
}

/// Whoever takes back a specification takes back its number of workers, unless another was asked for by hand since.
pub(crate) fn i17_the_way_back_goes_all_the_way(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for event in events(step) {
        let (Some(id), What::RecycleFailed { target, generation, slot: Some(_), .. }) =
            (event.broker, &event.what)
        else {
            continue;
        };
        let broker = facts.broker(id);
        let wanted = |generation| broker.launches.get(generation).map(|launch| oracle.specs[launch].workers);
        let (Some(bad), Some(good)) = (wanted(target), wanted(generation)) else { continue };
        if target != generation && oracle.before(id).wanted == bad {
            any = true;
            if broker.wanted != good {
                let is = broker.wanted;
                return broken(format!(
                    "broker {id} goes back to {generation}, which had {good} workers, with {is}"
                ));
            }
        }
    }
    Ok(any)
}

/// Nothing that core does by itself takes the last server from a slot, beyond what `unavailable` allows.
pub(crate) fn i12_capacity_is_kept(oracle: &Oracle, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for id in facts.ids() {
        let (broker, before) = (facts.broker(id), oracle.before(id));
        // A step that changes number or target may act under both limits; one that lowers the number takes the
        // highest slots, whether the others serve or not.
        if broker.held || broker.wanted < before.wanted {
            continue;
        }
        let least = least(broker, &oracle.specs).min(before.least) as usize;
        let before = before.served.len();
        let after = facts.available(id, broker.wanted).len();
        if after < before.min(least) {
            return broken(format!("broker {id} served {before} slots, now {after}; {least} are promised"));
        }
        any |= broker.recycling;
    }
    Ok(any)
}

pub(crate) fn i13_surge_is_a_bound(oracle: &Oracle, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for id in facts.ids().filter(|id| facts.broker(*id).recycling) {
        let broker = facts.broker(id);
        let counts = |process: &Process| {
            let stays = process.leaving.is_none() || moves(facts, process);
            process.slot.is_some() && !process.doubtful && stays
        };
        let alive = facts.of(id).filter(|(_, process)| counts(process)).count();
        let most = broker.wanted + target(broker, &oracle.specs).recycle.surge;
        any = true;
        if alive > most as usize {
            return broken(format!("{alive} workers of broker {id} in a recycle; {most} are allowed"));
        }
    }
    Ok(any)
}

/// A slot changes while it has a worker that the recycle retires, or a successor that is not ready beside another.
pub(crate) fn i14_few_slots_change_at_once(oracle: &Oracle, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for id in facts.ids().filter(|id| facts.broker(*id).recycling) {
        let broker = facts.broker(id);
        let successors = facts.of(id).filter(|(worker, process)| {
            **worker > broker.newest_before && process.ready.is_none() && process.stays()
        });
        let beside = |slot: Slot| {
            facts.of(id).any(|(worker, process)| {
                process.slot == Some(slot) && process.stays() && *worker <= broker.newest_before
            })
        };
        let coming = successors.filter_map(|(_, process)| process.slot).filter(|slot| beside(*slot));
        let going =
            facts.of(id).filter(|(_, process)| moves(facts, process)).filter_map(|(_, process)| process.slot);
        let changing: BTreeSet<Slot> = coming.chain(going).collect();
        let recycle = &target(broker, &oracle.specs).recycle;
        any |= !changing.is_empty();
        if changing.len() > (recycle.surge + recycle.unavailable) as usize {
            return broken(format!("the slots {changing:?} of broker {id} change at once"));
        }
    }
    Ok(any)
}

/// Being retired by the recycle that runs.
fn moves(facts: &Facts, process: &Process) -> bool {
    let recycle = facts.broker(process.broker).recycles;
    let retired = process.leaving.as_ref().is_some_and(|(_, reason)| reason == "recycled");
    retired && process.slot.is_some() && process.left_in == recycle && !process.dropped && !process.doubtful
}
