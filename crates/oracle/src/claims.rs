//! What core says, against what happened: each event has its cause, each change its event, and all events together
//! tell what the operating system sees.

use std::collections::BTreeSet;

use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::BrokerId;
use shiftboss_core::spec::{Drained, MAX_WORKERS, Ready};
use shiftboss_core::status::WorkerState;
use shiftboss_core::{Command, Effect, Event, Input, Outcome, Verb, What};

use crate::adoption::is_adopted;
use crate::facts::{GARBLED, HUNG, HUNG_UP, LEAVES_WITHIN, Process, REFUSED, is_unready, says_ready};
use crate::oracle::{Oracle, Step, Verdict, broken, events, target, told_by};

/// A word of or about one broker changes no other; it may only make room in the spawn budget.
pub(crate) fn i26_what_happens_to_one_broker_stays_there(
    oracle: &Oracle,
    _: &Step,
    effect: &Effect,
) -> Verdict {
    let Some(subject) = oracle.subject else { return Ok(false) };
    let facts = &oracle.facts;
    let object = match effect {
        Effect::Notice { worker, .. }
        | Effect::Signal { worker, .. }
        | Effect::KillTree { worker }
        | Effect::Promote { worker, .. } => facts.living.get(worker).map(|process| process.broker),
        Effect::OpenListeners { broker, .. }
        | Effect::QuietListeners { broker, .. }
        | Effect::ShutListeners { broker, .. }
        | Effect::WatchClock { broker } => Some(*broker),
        Effect::Emit(event) => event.broker,
        Effect::Reply { request, .. } => match facts.open.get(request) {
            Some(Command::Broker(broker, _)) => Some(*broker),
            Some(Command::Stop) | None => None,
        },
        Effect::Spawn { .. } | Effect::Exit => None,
    };
    if object.is_some_and(|object| object != subject) {
        return broken(format!("broker {subject} was spoken of, and this happens elsewhere: {effect:?}"));
    }
    Ok(facts.brokers.len() > 1)
}

pub(crate) fn i27_a_stale_word_changes_nothing(oracle: &Oracle, step: &Step, effect: &Effect) -> Verdict {
    match effect {
        Effect::Spawn { .. } => Ok(false),
        _ if oracle.stale => broken(format!("{:?} speaks of what is gone, and yet: {effect:?}", step.input)),
        _ => Ok(false),
    }
}

pub(crate) fn i27_stale_words_come(oracle: &Oracle, _: &Step) -> Verdict {
    Ok(oracle.stale)
}

/// A call before anything is due.
pub(crate) fn i37_an_early_call_does_nothing(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    if step.input != Some(Input::Tick) || facts.deadline.is_some_and(|due| due <= facts.now) {
        return Ok(false);
    }
    match step.effects.first() {
        Some(effect) => broken(format!("nothing was due before {:?}, and yet: {effect:?}", facts.deadline)),
        None => Ok(true),
    }
}

pub(crate) fn i38_time_never_goes_back(oracle: &Oracle, step: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    if event.at != oracle.facts.now {
        return broken(format!("event {} is of {}, and it is {}", event.seq, event.at, oracle.facts.now));
    }
    Ok(step.now < oracle.facts.now)
}

pub(crate) fn i48_every_event_has_its_cause(oracle: &Oracle, step: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    if event.seq != oracle.seq + 1 {
        return broken(format!("event {} where {} was due", event.seq, oracle.seq + 1));
    }
    let of_broker = event.broker.filter(|id| (id.0 as usize) < oracle.facts.brokers.len());
    let caused = match (&event.what, of_broker) {
        (What::BrokerAdopted { .. }, _) => is_adopted(oracle, step, effect),
        (What::AppReady, _) => is_ready(oracle) && !oracle.claimed.ready,
        (What::AppStopping, _) => oracle.facts.stopping,
        (_, None) => false,
        (_, Some(id)) => is_caused(oracle, step, event, id),
    };
    if caused { Ok(true) } else { broken(format!("nothing has caused {event:?}")) }
}

/// Every broker has all its workers, or is drained.
fn is_ready(oracle: &Oracle) -> bool {
    let facts = &oracle.facts;
    facts.ids().all(|id| {
        let broker = facts.broker(id);
        broker.held || facts.available(id, broker.wanted).len() >= broker.wanted as usize
    })
}

fn is_caused(oracle: &Oracle, step: &Step, event: &Event, id: BrokerId) -> bool {
    let facts = &oracle.facts;
    let broker = facts.broker(id);
    let verb = match &step.input {
        Some(Input::Command { command: Command::Broker(of, verb), .. }) if *of == id && !oracle.repeated => {
            Some(verb)
        }
        _ => None,
    };
    let opened = match &step.input {
        Some(Input::Opened { broker, result, .. }) if *broker == id && !oracle.stale => Some(result),
        _ => None,
    };
    let joins = matches!(step.input, Some(Input::Begun { .. })) && id.0 as usize + 1 == facts.brokers.len();
    let begins = step.is_start() || joins;
    let begun = step.input == Some(Input::Window { broker: id, open: true }) && !oracle.stale;
    let called = begun || matches!(verb, Some(Verb::Resume | Verb::ResumeNow));
    let resumed = called || opened.is_some_and(Result::is_ok);
    let failed = |event: &Event| event.broker == Some(id) && matches!(event.what, What::RecycleFailed { .. });
    match &event.what {
        What::BrokerStarted { .. } => begins,
        What::BrokerOpened => begins || begun || opened.is_some_and(Result::is_ok),
        What::ListenerBound { address } => {
            let asked = Input::Bound { broker: id, address: address.clone() };
            let joins = step.input.as_ref() == Some(&asked) && !oracle.stale;
            joins || opened.is_some_and(|result| result.as_ref().is_ok_and(|bound| bound.contains(address)))
        }
        What::ListenerClosed { address } => {
            let asked = Input::Unbound { broker: id, address: address.clone() };
            step.input.as_ref() == Some(&asked) && !oracle.stale
        }
        What::ListenerFailed { .. } => opened.is_some_and(Result::is_err),
        What::BrokerWaiting { .. } => opened.is_some_and(Result::is_err) || called,
        What::BrokerResumed => resumed,
        What::BrokerDraining => {
            facts.stopping || ((broker.sent_home || broker.is_outside()) && !oracle.before(id).held)
        }
        // A closed one is only no longer the clock's.
        What::BrokerDrained { refused, cut } if verb == Some(&Verb::Drain) && oracle.before(id).held => {
            facts.of(id).next().is_none() && (*refused, *cut) == (0, 0)
        }
        What::BrokerClosed => {
            broker.is_outside() && !broker.sent_home && !facts.stopping && facts.of(id).next().is_none()
        }
        What::BrokerDrained { refused, cut } => {
            let spec = target(broker, &oracle.specs);
            let refuses = broker.listens && (spec.drained == Drained::Refuse || facts.stopping);
            let shut =
                matches!(&step.input, Some(Input::Shut { broker, .. }) if *broker == id && !oracle.stale);
            facts.of(id).next().is_none()
                && broker.shutting.is_none()
                && (shut || !refuses)
                && *cut == broker.cut_by_drain
                && *refused == if shut { broker.refused } else { 0 }
        }
        What::BrokerScaled { wanted } => match verb {
            Some(Verb::Scale(asked)) => asked == wanted,
            Some(Verb::Respecify(spec)) => spec.workers == *wanted,
            _ => events(step).any(failed),
        },
        What::BrokerDegraded { .. } => broker.failures.values().any(|failures| *failures >= 2),
        What::BrokerRecovered => oracle.claimed.brokers[id.0 as usize].degraded,
        What::WorkerStarted { worker, pid, .. } => {
            step.input == Some(Input::Spawned { worker: *worker, pid: *pid }) && !oracle.stale
        }
        What::WorkerStandby { worker, .. } => {
            step.input == Some(Input::Standby { worker: *worker }) && !oracle.stale
        }
        // I23 judges it.
        What::WorkerPromoted { worker, slot, .. } => {
            step.effects.contains(&Effect::Promote { worker: *worker, slot: *slot })
        }
        What::RecycleStarted { reason, .. } => match reason {
            RecycleReason::Asked => matches!(verb, Some(Verb::Recycle(_))) || broker.queued,
            RecycleReason::ByTime => {
                step.input == Some(Input::Tick) && target(broker, &oracle.specs).recycle.every.is_some()
            }
            // I49 judges it.
            RecycleReason::FilesChanged => true,
            RecycleReason::NewSpecification => {
                matches!(verb, Some(Verb::Respecify(_) | Verb::Scale(_))) || resumed || step.is_start()
            }
            RecycleReason::GoingBack => events(step).any(failed) || step.input == Some(Input::Tick),
        },
        What::RecycleFinished { total, replaced, cut, .. } => {
            let left = broker.to_go.iter().filter_map(|worker| facts.living.get(worker));
            broker.recycling
                && replaced == total
                && (broker.cut_by_recycle..=broker.cut_during_recycle).contains(cut)
                && left.into_iter().all(|process| process.dropped)
        }
        What::RecycleFailed { .. } => broker.recycling,
        What::AppReady | What::AppStopping | What::BrokerAdopted { .. } => false,
        What::WorkerStopping { worker, reason, .. } => facts.living.get(worker).is_some_and(|process| {
            let spec = &oracle.specs[&process.launch];
            let late =
                process.late || process.begun().is_some_and(|at| facts.now >= at + spec.recycle.deadline);
            match (is_unready(reason), &step.input) {
                (false, _) if reason.starts_with(HUNG_UP) => {
                    process.hung_up.is_some_and(|at| facts.now >= at + LEAVES_WITHIN)
                }
                (false, _) if reason.starts_with(HUNG) => process.hung,
                (false, _) => {
                    process.garbled || !(reason.starts_with(GARBLED) || reason.starts_with(REFUSED))
                }
                (true, Some(Input::Unseen { .. })) => spec.ready == Ready::Accepting,
                (true, _) => late && (says_ready(spec) || process.slot.is_none()),
            }
        }),
        // These have a check of their own: I15, I20, I4.
        What::WorkerReady { .. }
        | What::WorkerBackoff { .. }
        | What::WorkerEnded { .. }
        | What::WorkerDeath { .. } => true,
    }
}

pub(crate) fn i48_a_change_has_its_event(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let silent =
        facts.living.iter().find(|(_, process)| process.signalled.is_some() != process.leaving.is_some());
    if let Some((worker, process)) = silent {
        let (told, asked) = (process.leaving.is_some(), process.signalled.is_some());
        return broken(format!("worker {worker} is told to be leaving: {told}, was asked to: {asked}"));
    }
    for (id, broker) in facts.ids().zip(&facts.brokers) {
        let sent_home = broker.sent_home || broker.is_outside();
        if broker.held != (sent_home || facts.stopping) {
            let held = broker.held;
            return broken(format!("broker {id} is told to be sent home: {held}, was: {sent_home}"));
        }
    }
    if let Some(Input::Command { command: Command::Broker(id, Verb::Scale(wanted)), .. }) = &step.input
        && *wanted <= MAX_WORKERS
        && !oracle.repeated
        && !facts.stopping
        && facts.brokers.get(id.0 as usize).is_some_and(|broker| broker.wanted != *wanted)
        && !step
            .effects
            .iter()
            .any(|effect| matches!(effect, Effect::Reply { outcome: Outcome::Refused(_), .. }))
    {
        return broken(format!("broker {id} was scaled to {wanted} and nobody says so"));
    }
    if oracle.stale {
        return Ok(false);
    }
    match &step.input {
        Some(Input::Exited { worker, .. } | Input::SpawnFailed { worker, .. })
            if !facts.told.contains_key(worker) =>
        {
            broken(format!("worker {worker} is gone and nobody says so"))
        }
        Some(Input::Ready { worker }) => match facts.living.get(worker) {
            Some(process)
                if process.slot.is_some()
                    && says_ready(&oracle.specs[&process.launch])
                    && !process.called_ready =>
            {
                broken(format!("worker {worker} is ready and nobody says so"))
            }
            Some(_) | None => Ok(true),
        },
        Some(Input::Standby { worker }) if !told_standby(step, *worker) => {
            broken(format!("worker {worker} is at the door and nobody says so"))
        }
        Some(_) => Ok(true),
        None => Ok(false),
    }
}

fn told_standby(step: &Step, worker: shiftboss_core::id::WorkerId) -> bool {
    events(step).any(|event| matches!(event.what, What::WorkerStandby { worker: told, .. } if told == worker))
}

pub(crate) fn i48_the_claims_are_the_facts(oracle: &Oracle, _: &Step) -> Verdict {
    let facts = &oracle.facts;
    if facts.brokers.len() != oracle.claimed.brokers.len() {
        return broken("not every broker is told");
    }
    for (id, claimed) in facts.ids().zip(&oracle.claimed.brokers) {
        let running = facts.of(id).filter(|(_, process)| process.started.is_some());
        let mut told = claimed.workers.iter();
        for (worker, process) in running {
            let state = seen(process);
            let same = told.next().is_some_and(|(told, claim)| {
                told == worker
                    && (Some(claim.pid), claim.slot, claim.state) == (process.pid, process.slot, state)
                    && (claim.generation, Some(claim.started_at)) == (process.generation, process.started)
            });
            if !same {
                return broken(format!("worker {worker} of broker {id} is {state:?}; told: {claimed:#?}"));
            }
        }
        if let Some((worker, _)) = told.next() {
            return broken(format!("worker {worker} of broker {id} does not run and is told to"));
        }
        let addresses: BTreeSet<&String> = claimed.listen.iter().collect();
        if addresses.len() != claimed.listen.len() {
            return broken(format!("broker {id} is told to listen twice: {:?}", claimed.listen));
        }
        if addresses.into_iter().ne(&facts.broker(id).bound) {
            return broken(format!("broker {id} is told to listen at {:?}", claimed.listen));
        }
        let deaths = facts.broker(id).deaths;
        if claimed.deaths != deaths {
            return broken(format!("broker {id}: {} deaths are told, {deaths} were seen", claimed.deaths));
        }
    }
    Ok(true)
}

fn seen(process: &Process) -> WorkerState {
    match (process.signalled, process.ready) {
        (Some(_), _) => WorkerState::Stopping,
        (None, None) if process.at_door => WorkerState::Standby,
        (None, Some(_)) => WorkerState::Ready,
        (None, None) => WorkerState::Starting,
    }
}
