//! What is promised of brokers that clock and files move: open inside of their windows only, recycled once for many
//! changes.

use shiftboss_core::event::RecycleReason;
use shiftboss_core::{Effect, Input, What};

use crate::facts::Facts;
use crate::oracle::{Oracle, Specs, Step, Verdict, broken, target, told_by};

/// Unless somebody has said "now".
pub(crate) fn i36_outside_of_its_window_nobody_is_started(
    oracle: &Oracle,
    _: &Step,
    effect: &Effect,
) -> Verdict {
    let Effect::Spawn { broker, worker, .. } = effect else { return Ok(false) };
    let facts = oracle.facts.broker(*broker);
    if facts.is_outside() {
        return broken(format!("worker {worker} is started outside of the window of broker {broker}"));
    }
    Ok(facts.scheduled)
}

/// A window opens a broker as it begins and closes it as it ends, and at no other moment: however often it is told.
pub(crate) fn i36_once_a_window(oracle: &Oracle, step: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    let Some(broker) = event.broker else { return Ok(false) };
    let opens = match &event.what {
        What::BrokerDraining if event.request.is_none() && !oracle.facts.stopping => false,
        What::BrokerWaiting { retry_at: None } if event.request.is_none() => true,
        _ => return Ok(false),
    };
    if step.input != Some(Input::Window { broker, open: opens }) || oracle.stale {
        return broken(format!("broker {broker} opens or closes, and neither hand nor window has changed"));
    }
    Ok(true)
}

/// Whoever was sent home by hand is not called back by a clock.
pub(crate) fn i36_a_hand_outlasts_the_clock(oracle: &Oracle, step: &Step) -> Verdict {
    let Some(Input::Window { broker, .. }) = step.input else { return Ok(false) };
    if !oracle.facts.brokers.get(broker.0 as usize).is_some_and(|broker| broker.sent_home) {
        return Ok(false);
    }
    let moves = |effect: &&Effect| match effect {
        Effect::OpenListeners { .. } | Effect::WatchClock { .. } => true,
        Effect::Spawn { broker: of, .. } => *of == broker,
        Effect::Emit(event) => event.broker == Some(broker),
        Effect::QuietListeners { .. }
        | Effect::ShutListeners { .. }
        | Effect::Notice { .. }
        | Effect::Promote { .. }
        | Effect::Signal { .. }
        | Effect::KillTree { .. }
        | Effect::Reply { .. }
        | Effect::Exit => true,
    };
    match step.effects.iter().find(moves) {
        Some(effect) => {
            broken(format!("broker {broker} was sent home by hand, and by the clock: {effect:?}"))
        }
        None => Ok(true),
    }
}

pub(crate) fn i36_the_clock_is_obeyed(oracle: &Oracle, step: &Step) -> Verdict {
    let Some(Input::Window { broker, .. }) = step.input else { return Ok(false) };
    let Some(facts) = oracle.facts.brokers.get(broker.0 as usize) else { return Ok(false) };
    if !facts.scheduled || facts.sent_home || oracle.facts.stopping {
        return Ok(false);
    }
    if facts.held != facts.is_outside() {
        let (outside, closed) = (facts.is_outside(), facts.held);
        return broken(format!("broker {broker} is outside of its window: {outside}, and closed: {closed}"));
    }
    Ok(true)
}

/// A recycle because of files follows changes that no other has answered, once they have been quiet or have gone on for
/// ten times as long.
pub(crate) fn i49_one_recycle_for_many_changes(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Some(event) = told_by(effect) else { return Ok(false) };
    let (Some(id), What::RecycleStarted { reason: RecycleReason::FilesChanged, .. }) =
        (event.broker, &event.what)
    else {
        return Ok(false);
    };
    let broker = oracle.facts.broker(id);
    let (Some(changes), Some(debounce)) = (broker.changes, target(broker, &oracle.specs).watch) else {
        return broken(format!("broker {id} is recycled and no file of it has changed since the last time"));
    };
    let now = oracle.facts.now;
    if now < changes.last + debounce && now < changes.first + debounce * 10 {
        return broken(format!("broker {id} is recycled while its files still change"));
    }
    Ok(true)
}

/// An open broker whose files have changed is recycled, or is being recycled and will be once more.
pub(crate) fn i49_no_change_is_forgotten(oracle: &Oracle, step: &Step) -> Verdict {
    let facts = &oracle.facts;
    let mut any = false;
    for id in facts.ids().filter(|id| is_overdue(facts, &oracle.specs, step, *id)) {
        let broker = facts.broker(id);
        let idle = !broker.recycling && broker.wanted > 0 && broker.is_open();
        if idle && broker.changes.is_some_and(|changes| changes.owed) {
            return broken(format!("files of broker {id} have changed and it is not recycled"));
        }
        any |= broker.recycling;
    }
    Ok(any)
}

/// Its changes have been quiet for long enough, and nothing more is waited for.
fn is_overdue(facts: &Facts, specs: &Specs, step: &Step, id: shiftboss_core::id::BrokerId) -> bool {
    let broker = facts.broker(id);
    let Some((changes, debounce)) = broker.changes.zip(target(broker, specs).watch) else { return false };
    facts.now >= changes.last + debounce && step.deadline.is_none_or(|at| at > facts.now)
}

impl Facts {
    /// Where nobody is wanted nobody is replaced.
    pub(crate) fn forget_vain_changes(&mut self, step: &Step, specs: &Specs) {
        for id in self.ids() {
            let broker = self.broker(id);
            if broker.wanted == 0
                && broker.is_open()
                && !broker.recycling
                && is_overdue(self, specs, step, id)
            {
                self.brokers[id.0 as usize].changes = None;
            }
        }
    }
}
