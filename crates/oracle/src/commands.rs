//! What is promised to whoever gives a command.

use shiftboss_core::effect::Done;
use shiftboss_core::{Command, Effect, Event, Input, Outcome, Verb, What};

use crate::facts::{MOST_OPEN, Process};
use crate::oracle::{Oracle, Step, Verdict, broken, events};

pub(crate) fn i29_one_answer(oracle: &Oracle, _: &Step, effect: &Effect) -> Verdict {
    let Effect::Reply { request, outcome } = effect else { return Ok(false) };
    match oracle.facts.answered.get(request) {
        None if oracle.facts.open.contains_key(request) => Ok(true),
        None => broken(format!("an answer to {request}, which nobody asked")),
        Some(before) if oracle.repeated && before == outcome => Ok(true),
        Some(_) => broken(format!("a second answer to {request}")),
    }
}

/// What an answer says is so at that moment.
pub(crate) fn i29_the_answer_is_true(oracle: &Oracle, step: &Step, effect: &Effect) -> Verdict {
    let Effect::Reply { request, outcome: Outcome::Done(done) } = effect else { return Ok(false) };
    let facts = &oracle.facts;
    let Some(command) = facts.open.get(request) else { return Ok(false) };
    let Command::Broker(id, verb) = command else {
        return if facts.living.is_empty() { Ok(true) } else { broken("the app has ended and workers live") };
    };
    match verb {
        Verb::Drain if facts.of(*id).next().is_some() => {
            broken(format!("broker {id} is drained and has workers"))
        }
        Verb::Resume | Verb::ResumeNow | Verb::Scale(_) if done.note.is_none() => {
            let wanted = facts.broker(*id).wanted as usize;
            let serving = facts.available(*id, facts.broker(*id).wanted).len();
            let surplus =
                |process: &Process| matches!(&process.leaving, Some((_, why)) if why == "scaled down");
            if serving < wanted || facts.of(*id).any(|(_, process)| surplus(process)) {
                return broken(format!("broker {id} is as wanted, with {serving} workers ready of {wanted}"));
            }
            Ok(true)
        }
        Verb::Recycle(_) | Verb::Respecify(_) if done.note.is_none() => {
            let to_replace = facts.to_replace.get(request).into_iter().flatten();
            let mut left = to_replace.filter_map(|worker| facts.living.get_key_value(worker));
            if let Some((worker, _)) = left.find(|(_, process)| process.stays()) {
                return broken(format!(
                    "{request} is done and worker {worker}, who was to be replaced, is there"
                ));
            }
            let Done { total, replaced, cut, .. } = done;
            let said = |event: &Event| match &event.what {
                What::RecycleFinished { total: all, replaced: new, cut: killed, .. } => {
                    event.broker == Some(*id) && (all, new, killed) == (total, replaced, cut)
                }
                _ => false,
            };
            match events(step).any(said) {
                true => Ok(true),
                false => broken(format!("{request} is done and no recycle has finished")),
            }
        }
        Verb::Drain
        | Verb::Resume
        | Verb::ResumeNow
        | Verb::Scale(_)
        | Verb::Recycle(_)
        | Verb::Respecify(_) => Ok(true),
    }
}

/// At most so many commands wait at once; the next are refused.
pub(crate) fn i28_few_commands_wait(oracle: &Oracle, step: &Step) -> Verdict {
    let open = oracle.facts.open.len();
    if open > MOST_OPEN {
        return broken(format!("{open} commands wait; {MOST_OPEN} are allowed"));
    }
    Ok(matches!(step.input, Some(Input::Command { .. })))
}

pub(crate) fn i30_a_repeated_command_acts_once(oracle: &Oracle, step: &Step) -> Verdict {
    let Some(Input::Command { request, .. }) = &step.input else { return Ok(false) };
    if !oracle.repeated {
        return Ok(false);
    }
    let acted = step.effects.iter().any(|effect| match effect {
        Effect::Spawn { .. } | Effect::Promote { .. } => false,
        Effect::Reply { request: answered, .. } => answered != request,
        Effect::Emit(_) | Effect::Notice { .. } | Effect::Signal { .. } => true,
        Effect::KillTree { .. } | Effect::Exit => true,
        Effect::QuietListeners { .. } | Effect::OpenListeners { .. } | Effect::ShutListeners { .. } => true,
        Effect::WatchClock { .. } => true,
    });
    if acted { broken(format!("request {request} came twice and acted twice")) } else { Ok(true) }
}

pub(crate) fn i33_refused_is_nothing_done(_: &Oracle, step: &Step) -> Verdict {
    let Some(Input::Command { request: asked, .. }) = &step.input else { return Ok(false) };
    let refused = |effect: &Effect| matches!(effect, Effect::Reply { request, outcome: Outcome::Refused(_) } if request == asked);
    if !step.effects.iter().any(refused) {
        return Ok(false);
    }
    let others = |effect: &&Effect| !refused(effect) && !matches!(effect, Effect::Spawn { .. });
    match step.effects.iter().find(others) {
        Some(effect) => broken(format!("request {asked} was refused, and yet: {effect:?}")),
        None => Ok(true),
    }
}
