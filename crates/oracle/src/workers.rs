//! What is promised of each worker, judged from what the operating system saw of it.

use std::time::Duration;

use shiftboss_core::spec::{Ask, Ready};
use shiftboss_core::{Effect, Input, What};

use crate::facts::{End, LEAVES_WITHIN, ladder, says_ready};
use crate::oracle::{Oracle, Step, Verdict, broken, told, told_by};

pub(crate) fn i3_nobody_is_lost(oracle: &Oracle, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    let (told, living) = (facts.told.len() as u64, facts.living.len() as u64);
    if facts.spawns != told + living || told != facts.exits + facts.spawn_failures {
        return broken(format!("{} were started, {told} have left, {living} live", facts.spawns));
    }
    Ok(true)
}

pub(crate) fn i4_one_end_for_each_exit(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Some(What::WorkerEnded { worker, .. } | What::WorkerDeath { worker, .. }) = told(effect) else {
        return Ok(false);
    };
    let facts = &oracle.facts;
    if facts.told.contains_key(worker) || facts.end.as_ref().map(|end| end.worker) != Some(*worker) {
        return broken(format!("the end of worker {worker} is told twice, or without an exit"));
    }
    Ok(true)
}

pub(crate) fn i5_the_end_told_is_the_end_seen(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    let broker = event.broker.unwrap_or_default();
    let told = match &event.what {
        What::WorkerEnded { worker, slot, pid, exit, forced, .. } => {
            let (pid, exit) = (Some(*pid), Some(*exit));
            End { worker: *worker, broker, slot: *slot, pid, death: false, exit, forced: *forced }
        }
        What::WorkerDeath { worker, slot, pid, exit, forced, .. } => {
            let (pid, exit) = (*pid, *exit);
            End { worker: *worker, broker, slot: *slot, pid, death: true, exit, forced: *forced }
        }
        _ => return Ok(false),
    };
    match &oracle.facts.end {
        Some(end) if *end != told => broken(format!("told {told:?}, was {end:?}")),
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

pub(crate) fn i6_no_signal_to_the_dead(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let (Effect::Notice { worker, .. } | Effect::Signal { worker, .. } | Effect::KillTree { worker }) =
        effect
    else {
        return Ok(false);
    };
    match oracle.facts.living.get(worker) {
        Some(process) if process.started.is_some() => Ok(true),
        Some(_) => broken(format!("a signal to worker {worker}, which does not run yet")),
        None => broken(format!("a signal to worker {worker}, which is gone")),
    }
}

/// Ids rise for ever; a pid is told only with the worker that has it.
pub(crate) fn i7_no_identity_is_used_twice(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let facts = &oracle.facts;
    if let Effect::Spawn { worker, .. } = effect {
        if *worker <= facts.newest {
            return broken(format!("worker {worker} is started, and {} was before", facts.newest));
        }
        return Ok(true);
    }
    let (worker, slot, pid) = match told(effect) {
        Some(
            What::WorkerStarted { worker, slot, pid, .. } | What::WorkerStopping { worker, slot, pid, .. },
        ) => (worker, *slot, pid),
        Some(What::WorkerReady { worker, slot, pid, .. }) => (worker, Some(*slot), pid),
        // It has none before, and is told one in this step.
        Some(What::WorkerStandby { worker, pid, .. } | What::WorkerPromoted { worker, pid, .. }) => {
            (worker, None, pid)
        }
        _ => return Ok(false),
    };
    match facts.living.get(worker) {
        Some(process) if process.pid == Some(*pid) && process.slot == slot => Ok(true),
        _ => {
            broken(format!("worker {worker} is told with pid {pid} in slot {slot:?}, which are not its own"))
        }
    }
}

pub(crate) fn i10_rungs_only_rise(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let (worker, asked) = match effect {
        Effect::Notice { worker, rung } => (worker, Some((*rung as usize, Ask::Notice))),
        Effect::Signal { worker, signal, rung } => (worker, Some((*rung as usize, Ask::Signal(*signal)))),
        Effect::KillTree { worker } => (worker, None),
        _ => return Ok(false),
    };
    let facts = &oracle.facts;
    let Some(process) = facts.living.get(worker) else { return Ok(false) };
    if process.killed {
        return broken(format!("worker {worker} is signalled after its kill"));
    }
    if facts.brutal {
        return match effect {
            Effect::KillTree { .. } => Ok(true),
            _ => broken(format!("worker {worker} is asked, although all were to be killed")),
        };
    }
    if let Some(last) = process.rungs.last() {
        let sooner = process.hung_up.filter(|_| last.ask == Ask::Notice).map(|at| at + LEAVES_WITHIN);
        let until = sooner.map_or(last.until, |sooner| sooner.min(last.until));
        if facts.now < until {
            return broken(format!("worker {worker} had until {until} after {last:?}"));
        }
    }
    let next = process.next_rung(&oracle.specs[&process.launch]).map(|(number, rung)| (number, rung.ask));
    if next != asked {
        return broken(format!("worker {worker} is asked by {asked:?}, and its next rung is {next:?}"));
    }
    Ok(true)
}

pub(crate) fn i11_the_ladder_ends_in_a_kill(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for (worker, process) in facts.living.iter().filter(|(_, process)| !process.killed) {
        let Some(since) = process.signalled else { continue };
        any = true;
        let waits: Duration = ladder(&oracle.specs[&process.launch]).iter().map(|rung| rung.wait).sum();
        let end = since + waits + (facts.lateness - process.lateness);
        let idle = step.deadline.is_none();
        if idle || (step.input == Some(Input::Tick) && facts.now > end) {
            return broken(format!("worker {worker} was asked to leave at {since} and not killed at {end}"));
        }
    }
    Ok(any)
}

/// One that has closed its channel has a second more to leave; one that talks nonsense is asked to at once.
pub(crate) fn i11_nobody_waits_for_one_that_is_lost(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for (worker, process) in facts.living.iter().filter(|(_, process)| process.started.is_some()) {
        if process.garbled && process.leaving.is_none() {
            return broken(format!("worker {worker} talks nonsense and stays"));
        }
        // Of one that hangs nothing more is to be hoped.
        let asked = process.rungs.last().filter(|_| process.is_given_up() && !process.killed);
        if let Some(until) = asked.map(|asked| asked.until) {
            any = true;
            let over = step.input == Some(Input::Tick) && facts.now >= until;
            if over || step.deadline.is_none_or(|at| at > until.max(facts.now)) {
                return broken(format!("worker {worker} hangs and is waited for beyond {until}"));
            }
        }
        let Some(since) = process.hung_up else { continue };
        let due = match process.rungs.last() {
            None if process.leaving.is_none() => since + LEAVES_WITHIN,
            Some(asked) if asked.ask == Ask::Notice => asked.until.min(since.max(asked.at) + LEAVES_WITHIN),
            None | Some(_) => continue,
        };
        any |= !process.killed;
        let over = step.input == Some(Input::Tick) && facts.now >= due;
        if !process.killed && (over || step.deadline.is_none_or(|at| at > due.max(facts.now))) {
            return broken(format!("worker {worker} has closed its channel and stays beyond {due}"));
        }
    }
    Ok(any)
}

pub(crate) fn i15_ready_is_earned(oracle: &Oracle, step: &Step, effect: &Effect) -> Verdict {
    let Some(What::WorkerReady { worker, .. }) = told(effect) else { return Ok(false) };
    let Some(process) = oracle.facts.living.get(worker) else {
        return broken(format!("worker {worker} is ready and gone"));
    };
    let (spec, now) = (&oracle.specs[&process.launch], oracle.facts.now);
    let earned = match (&step.input, process.begun(), spec.ready) {
        (Some(Input::Ready { worker: said }), Some(_), _) if says_ready(spec) => {
            said == worker && process.ready == Some(now)
        }
        (Some(Input::Tick), Some(started), Ready::After(wait)) => now >= started + wait,
        _ => false,
    };
    if !earned || process.slot.is_none() || process.called_ready || process.signalled.is_some() {
        return broken(format!("worker {worker} is called ready and is not"));
    }
    Ok(true)
}

pub(crate) fn i16_nobody_starts_for_ever(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for (worker, process) in facts.living.iter().filter(|(_, process)| process.is_starting()) {
        let Some(started) = process.begun() else { continue };
        any = true;
        let spec = &oracle.specs[&process.launch];
        let due = match spec.ready {
            Ready::After(wait) if process.slot.is_some() => started + wait,
            Ready::After(_) | Ready::Notify | Ready::Accepting | Ready::Listening => {
                started + spec.recycle.deadline
            }
        };
        if step.deadline.is_none_or(|at| at > due) || (step.input == Some(Input::Tick) && facts.now >= due) {
            return broken(format!("worker {worker} has been starting since {started}"));
        }
    }
    Ok(any)
}
