//! Two copies of the app that must not differ: the same command twice is one command (I30), and commands to different
//! brokers may come in either order (I31).

use std::collections::BTreeMap;

use shiftboss_core::id::{BrokerId, RequestId, WorkerId};
use shiftboss_core::{App, Command, Effect, Input, Verb};

use crate::world::{Failure, World};

impl World {
    /// Tries on copies what this command would do twice, or before another.
    pub(crate) fn twins(&mut self, command: &Command) -> Result<(), Failure> {
        // What is due already would happen between the two; with a scarce spawn budget, or too many commands, whoever
        // comes first is served first.
        if !self.oracle.has_room() || self.app.deadline().is_some_and(|at| at <= self.now) {
            return Ok(());
        }
        self.twice(command)?;
        if self.rng.chance(0.5) {
            let other = self.command();
            self.in_either_order(command, &other)?;
        }
        Ok(())
    }

    fn twice(&mut self, command: &Command) -> Result<(), Failure> {
        let Command::Broker(_, Verb::Drain | Verb::Resume | Verb::Scale(_)) = command else { return Ok(()) };
        let mut app = self.app.clone();
        let first = self.give(&mut app, FIRST, command);
        let again = self.give(&mut app, SECOND, command);
        let acts = again.iter().find(|effect| !matches!(effect, Effect::Emit(_) | Effect::Reply { .. }));
        self.require("I30b", acts.is_none(), || {
            format!("{command:?} acts a second time: {acts:?}; at first: {first:?}")
        })
    }

    fn in_either_order(&mut self, one: &Command, other: &Command) -> Result<(), Failure> {
        let (Command::Broker(first, _), Command::Broker(second, _)) = (one, other) else { return Ok(()) };
        if first == second {
            return Ok(());
        }
        let (mut here, mut there) = (self.app.clone(), self.app.clone());
        let mut effects = self.give(&mut here, FIRST, one);
        effects.extend(self.give(&mut here, SECOND, other));
        let mut swapped = self.give(&mut there, SECOND, other);
        swapped.extend(self.give(&mut there, FIRST, one));
        for id in [*first, *second] {
            let (is, would_be) = (seen_by(id, &effects, &self.app), seen_by(id, &swapped, &self.app));
            let what = || {
                format!("{one:?} and {other:?}, for broker {id}: {is:?}\nthe other way round: {would_be:?}")
            };
            self.require("I31", is == would_be, what)?;
        }
        Ok(())
    }

    fn give(&self, app: &mut App, request: RequestId, command: &Command) -> Vec<Effect> {
        let mut effects = app.handle(self.now, Input::Command { request, command: command.clone() });
        // A few workers are started with each call.
        while app.deadline().is_some_and(|at| at <= self.now) {
            effects.extend(app.handle(self.now, Input::Tick));
        }
        effects
    }
}

/// What one broker sees of these effects. Numbers that all brokers share (of events and new workers) do not count.
fn seen_by(id: BrokerId, effects: &[Effect], before: &App) -> Vec<String> {
    let known: BTreeMap<WorkerId, BrokerId> = (0..)
        .map(BrokerId)
        .zip(before.status().brokers)
        .flat_map(|(id, broker)| broker.workers.into_keys().map(move |worker| (worker, id)))
        .collect();
    let own = effects.iter().filter_map(|effect| match effect {
        Effect::Emit(event) if event.broker == Some(id) => Some(format!("{:?}", event.what)),
        Effect::Spawn { broker, slot, generation, launch, .. } if *broker == id => {
            Some(format!("spawn {slot:?} {generation} {launch}"))
        }
        Effect::Signal { worker, .. } | Effect::KillTree { worker } if known.get(worker) == Some(&id) => {
            Some(format!("{effect:?}"))
        }
        Effect::OpenListeners { broker, .. }
        | Effect::QuietListeners { broker, .. }
        | Effect::ShutListeners { broker, .. }
            if *broker == id =>
        {
            Some(format!("{effect:?}"))
        }
        _ => None,
    });
    own.collect()
}

/// Requests that nobody else makes.
const FIRST: RequestId = RequestId(u128::MAX);
const SECOND: RequestId = RequestId(u128::MAX - 1);
