//! For whoever explores all states with a clock that stands still: what of the facts can still influence a verdict,
//! and how one wait is over although no time has passed.

use std::collections::BTreeMap;
use std::hash::{Hash, Hasher};
use std::mem::discriminant;
use std::time::Duration;

use shiftboss_core::id::{BrokerId, Slot, WorkerId};
use shiftboss_core::{Command, Time, Verb};

use crate::facts::{Broker, Process};
use crate::oracle::{Oracle, target};

impl Oracle {
    /// Takes in all facts on which later verdicts depend, workers and commands by their rank. Left out is what only
    /// counts, what is compared with core's own state after every step anyway, and how often a slot has failed in all
    /// (I48's cause of "degraded").
    #[doc(hidden)]
    pub fn identify(&self, into: &mut impl Hasher) {
        let facts = &self.facts;
        (facts.stopping, facts.brutal, facts.ended, facts.living.len(), facts.open.len()).hash(into);
        let ranks: BTreeMap<WorkerId, usize> = facts.living.keys().copied().zip(1..).collect();
        for process in facts.living.values() {
            process.identify(facts.broker(process.broker), into);
        }
        for broker in &facts.brokers {
            broker.identify(&ranks, into);
        }
        facts.queue.hash(into);
        for (request, command) in &facts.open {
            let to_replace = facts.to_replace.get(request).into_iter().flatten();
            to_replace.filter_map(|worker| ranks.get(worker).copied()).collect::<Vec<_>>().hash(into);
            discriminant(command).hash(into);
            if let Command::Broker(_, verb) = command {
                discriminant::<Verb>(verb).hash(into);
            }
        }
    }

    /// The wait of this worker is over: for its next rung, or until it has proved itself, which nobody can beside a
    /// predecessor that serves.
    #[doc(hidden)]
    pub fn worker_has_waited(&mut self, worker: WorkerId) {
        let facts = &self.facts;
        let Some(process) = facts.living.get(&worker) else { return };
        let beside = |(other, of): (&WorkerId, &Process)| {
            *other < worker && of.slot == process.slot && of.leaving.is_none()
        };
        let on_trial = facts.of(process.broker).any(beside);
        let healthy_after = self.specs[&process.launch].backoff.healthy_after;
        let since = Time(facts.now.0.saturating_sub(nanos(healthy_after)));
        let Some(process) = self.facts.living.get_mut(&worker) else { return };
        process.late = process.is_starting();
        if process.at_door && process.rungs.is_empty() {
            process.stood = Some(since);
        }
        if let Some(asked) = process.rungs.last_mut() {
            asked.until = Time::default();
        } else if let Some(ready) = process.ready.as_mut().filter(|_| !on_trial) {
            *ready = since;
        }
    }

    /// The back-off of the next standby is over.
    #[doc(hidden)]
    pub fn standby_has_waited(&mut self, broker: BrokerId) {
        if let Some(streak) =
            self.facts.brokers.get_mut(broker.0 as usize).and_then(|of| of.standby_streak.as_mut())
        {
            streak.last = Time::default();
        }
    }

    /// The back-off of this slot is over.
    #[doc(hidden)]
    pub fn slot_has_waited(&mut self, broker: BrokerId, slot: Slot) {
        let Some(broker) = self.facts.brokers.get_mut(broker.0 as usize) else { return };
        broker.waits.remove(&slot);
        if let Some(streak) = broker.streaks.get_mut(&slot) {
            streak.last = Time::default();
        }
    }

    /// Whoever is ready in this slot has been so for `min_ready`.
    #[doc(hidden)]
    pub fn successor_has_waited(&mut self, broker: BrokerId, slot: Slot) {
        let Some(of) = self.facts.brokers.get(broker.0 as usize) else { return };
        let min_ready = target(of, &self.specs).recycle.min_ready;
        let since = Time(self.facts.now.0.saturating_sub(nanos(min_ready)));
        for process in self.facts.living.values_mut() {
            if let Some(ready) =
                process.ready.as_mut().filter(|_| process.broker == broker && process.slot == Some(slot))
            {
                *ready = since.min(*ready);
            }
        }
    }
}

impl Process {
    fn identify(&self, of: &Broker, into: &mut impl Hasher) {
        (self.broker, self.slot, self.launch, self.generation == of.target).hash(into);
        (self.started.is_some(), self.ready, self.called_ready).hash(into);
        (self.at_door, self.stood, self.promoted.is_some()).hash(into);
        let reason = self.leaving.as_ref().map(|(_, reason)| reason.as_str());
        let moved = of.recycling && reason == Some("recycled") && self.left_in == of.recycles;
        (reason, moved, self.signalled.is_some(), self.killed, self.doubtful, self.dropped).hash(into);
        if !self.killed {
            let rung = self.rungs.last().map(|asked| (asked.rung, asked.until));
            (rung, self.spoke, self.hung_up.is_some()).hash(into);
        }
    }
}

impl Broker {
    fn identify(&self, ranks: &BTreeMap<WorkerId, usize>, into: &mut impl Hasher) {
        (self.wanted, self.listens, self.listening, self.sent_home, self.held).hash(into);
        (self.window, self.early).hash(into);
        (self.asked.is_some(), self.quieting.is_some(), self.shutting.is_some(), self.unopened).hash(into);
        (self.recycling, self.queued, self.cut_by_drain * u32::from(self.held)).hash(into);
        if self.recycling {
            ranks.range(..=self.newest_before).count().hash(into);
            let to_go: Vec<usize> =
                self.to_go.iter().filter_map(|worker| ranks.get(worker).copied()).collect();
            to_go.hash(into);
            (self.only, self.cut_by_recycle, self.cut_during_recycle).hash(into);
        }
        let launch = |generation| self.launches.get(&generation);
        (self.generation == self.target, launch(self.generation), launch(self.target)).hash(into);
        self.failed.contains(&self.target).hash(into);
        launch(self.target).is_some_and(|launch| self.worked.contains(launch)).hash(into);
        self.streaks.len().hash(into);
        for (slot, streak) in &self.streaks {
            let failing = streak.deaths >= FAILING;
            (slot, streak.deaths.min(FAILING), failing.then_some(streak.last)).hash(into);
        }
        self.waits.hash(into);
        self.standby_streak.map(|streak| (streak.deaths.min(FAILING), streak.last)).hash(into);
    }
}

fn nanos(wait: Duration) -> u64 {
    u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX)
}

/// More deaths than this change no verdict as long as the base of the back-off is its cap.
const FAILING: u32 = 2;
