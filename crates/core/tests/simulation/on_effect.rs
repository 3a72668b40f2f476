//! What the oracle asks of each effect, before it is taken in.

use shiftboss_core::spec::Ready;
use shiftboss_core::{Effect, Input, What};

use crate::facts::Facts;
use crate::oracle::{Specs, Step, Verdict, broken, told};
use crate::world::says_ready;

pub(crate) fn i4_one_end_for_each_exit(facts: &Facts, _: &Specs, step: &Step, effect: &Effect) -> Verdict {
    let Some(What::WorkerEnded { worker, .. } | What::WorkerDeath { worker, .. }) = told(effect) else {
        return Ok(false);
    };
    let cause = match &step.input {
        Input::Exited { worker, .. } | Input::SpawnFailed { worker, .. } => Some(worker),
        _ => None,
    };
    if facts.told.contains_key(worker) || cause != Some(worker) {
        return broken(format!("the end of worker {worker} is told twice, or without an exit"));
    }
    Ok(true)
}

pub(crate) fn i5_the_exit_told_is_the_exit_seen(
    _: &Facts,
    _: &Specs,
    step: &Step,
    effect: &Effect,
) -> Verdict {
    let seen = match &step.input {
        Input::Exited { exit, .. } => Some(*exit),
        _ => None,
    };
    match told(effect) {
        Some(What::WorkerEnded { exit, .. }) if seen != Some(*exit) => {
            broken(format!("told {exit}, was {seen:?}"))
        }
        Some(What::WorkerDeath { exit, .. }) if seen != *exit => {
            broken(format!("told {exit:?}, was {seen:?}"))
        }
        Some(What::WorkerEnded { .. } | What::WorkerDeath { .. }) => Ok(true),
        _ => Ok(false),
    }
}

pub(crate) fn i6_no_signal_to_the_dead(facts: &Facts, _: &Specs, _: &Step, effect: &Effect) -> Verdict {
    let (Effect::Signal { worker, .. } | Effect::KillTree { worker }) = effect else { return Ok(false) };
    match facts.living.get(worker) {
        Some(process) if process.started.is_some() => Ok(true),
        Some(_) => broken(format!("a signal to worker {worker}, which does not run yet")),
        None => broken(format!("a signal to worker {worker}, which is gone")),
    }
}

pub(crate) fn i8_held_means_held(facts: &Facts, _: &Specs, _: &Step, effect: &Effect) -> Verdict {
    match effect {
        Effect::Spawn { broker, worker, .. } if facts.broker(*broker).held => {
            broken(format!("worker {worker} is started while broker {broker} is drained"))
        }
        Effect::Spawn { .. } => Ok(true),
        _ => Ok(false),
    }
}

pub(crate) fn i9_no_spawn_once_the_app_stops(facts: &Facts, _: &Specs, _: &Step, effect: &Effect) -> Verdict {
    match effect {
        Effect::Spawn { worker, .. } if facts.stopping => {
            broken(format!("worker {worker} is started at the end"))
        }
        Effect::Spawn { .. } => Ok(false),
        _ => Ok(facts.stopping),
    }
}

pub(crate) fn i10_rungs_only_rise(facts: &Facts, specs: &Specs, step: &Step, effect: &Effect) -> Verdict {
    let (Effect::Signal { worker, .. } | Effect::KillTree { worker }) = effect else { return Ok(false) };
    let Some(process) = facts.living.get(worker) else { return Ok(false) };
    let ladder = &specs[&process.launch].stop.0;
    let done = process.rungs.len();
    if process.killed {
        return broken(format!("worker {worker} is signalled after its kill"));
    }
    if facts.brutal {
        return Ok(false);
    }
    if let Some(((signal, at), rung)) = process.rungs.last().zip(done.checked_sub(1).map(|last| ladder[last]))
        && step.now.since(*at) < rung.wait
    {
        return broken(format!("worker {worker} was given less than {:?} after {signal}", rung.wait));
    }
    match effect {
        Effect::Signal { signal, .. } if ladder.get(done).map(|rung| rung.signal) != Some(*signal) => {
            broken(format!("{signal} is not rung {done} of worker {worker}"))
        }
        Effect::KillTree { .. } if done != ladder.len() => {
            broken(format!("worker {worker} is killed at rung {done} of {}", ladder.len()))
        }
        _ => Ok(true),
    }
}

pub(crate) fn i15_ready_is_earned(facts: &Facts, specs: &Specs, step: &Step, effect: &Effect) -> Verdict {
    let Some(What::WorkerReady { worker, .. }) = told(effect) else { return Ok(false) };
    let Some(process) = facts.living.get(worker) else {
        return broken(format!("worker {worker} is ready and gone"));
    };
    let spec = &specs[&process.launch];
    let earned = match (&step.input, process.started, spec.ready) {
        (Input::Ready { worker: said }, Some(_), _) if says_ready(spec) => said == worker,
        (Input::Tick, Some(started), Ready::After(wait)) => step.now >= started + wait,
        _ => false,
    };
    if !earned || process.ready.is_some() || process.leaving.is_some() {
        return broken(format!("worker {worker} is called ready and is not"));
    }
    Ok(true)
}

pub(crate) fn i17_a_failed_generation_is_not_started_again(
    facts: &Facts,
    _: &Specs,
    _: &Step,
    effect: &Effect,
) -> Verdict {
    let Effect::Spawn { broker, generation, .. } = effect else { return Ok(false) };
    let failed = &facts.broker(*broker).failed;
    if failed.contains(generation) {
        return broken(format!("generation {generation} of broker {broker} has failed and is started again"));
    }
    Ok(!failed.is_empty())
}

pub(crate) fn i19_a_spawn_runs_the_target(facts: &Facts, _: &Specs, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Spawn { broker, generation, launch, .. } = effect else { return Ok(false) };
    let facts = facts.broker(*broker);
    if *generation != facts.target || facts.launches.get(generation) != Some(launch) {
        return broken(format!(
            "broker {broker} starts generation {generation}, but its target is {}",
            facts.target
        ));
    }
    Ok(true)
}

pub(crate) fn i20_failing_slots_back_off(
    facts: &Facts,
    specs: &Specs,
    step: &Step,
    effect: &Effect,
) -> Verdict {
    let Effect::Spawn { broker, slot, launch, .. } = effect else { return Ok(false) };
    let (broker, backoff) = (facts.broker(*broker), specs[launch].backoff);
    let Some(streak) = broker.streaks.get(slot).filter(|streak| streak.deaths >= 2 && !broker.recycling)
    else {
        return Ok(false);
    };
    let doubled = backoff.base.saturating_mul(1 << (streak.deaths - 2).min(16));
    let least = doubled.min(backoff.cap).mul_f64(0.9);
    if step.now.since(streak.last) < least {
        return broken(format!("slot {slot} waited less than {least:?} after {} deaths", streak.deaths));
    }
    if broker.waits.get(slot).is_some_and(|until| step.now < *until) {
        return broken(format!("slot {slot} was filled before its back-off was over"));
    }
    Ok(true)
}

/// Promise 3: while the queues are being emptied nobody is sent home; "now" does not wait for them.
pub(crate) fn p3_queues_are_emptied_before_workers_leave(
    facts: &Facts,
    _: &Specs,
    _: &Step,
    effect: &Effect,
) -> Verdict {
    let Some(What::WorkerStopping { worker, reason, .. }) = told(effect) else { return Ok(false) };
    let Some(process) = facts.living.get(worker).filter(|process| !process.doubtful) else {
        return Ok(false);
    };
    let home = reason == "drained" || reason == "the app stops";
    if home && facts.broker(process.broker).quieting.is_some() && !facts.brutal {
        return broken(format!("worker {worker} is sent home while its queues are being emptied"));
    }
    Ok(home)
}

pub(crate) fn i35_listeners_before_workers(facts: &Facts, _: &Specs, _: &Step, effect: &Effect) -> Verdict {
    match effect {
        Effect::Spawn { broker, worker, .. } if facts.broker(*broker).listens => {
            let open = facts.broker(*broker).listening;
            if open {
                Ok(true)
            } else {
                broken(format!("worker {worker} is started before its listeners are open"))
            }
        }
        _ => Ok(false),
    }
}
