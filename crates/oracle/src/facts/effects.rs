//! What was asked for and told.

use shiftboss_core::id::BrokerId;
use shiftboss_core::{Command, Effect, Input, Outcome, Status, Verb, What};

use crate::facts::{Asked, End, Facts, Process, Start};
use crate::oracle::{Specs, Step, target};

impl Facts {
    pub(crate) fn take_effect(&mut self, specs: &Specs, step: &Step, effect: &Effect) {
        match effect {
            Effect::Spawn { worker, broker, slot, launch, generation } => {
                self.spawns += 1;
                self.newest = self.newest.max(*worker);
                let now = self.now;
                let waits = &mut self.brokers[broker.0 as usize].waits;
                // Standbys hold nobody up: they wait for the upper half of the budget like those that keep failing.
                let failing = slot.is_none_or(|slot| waits.remove(&slot).is_some());
                self.starts.push_back(Start { at: now, failing });
                self.queue.retain(|(of, waits)| (*of, Some(*waits)) != (*broker, *slot));
                let process = Process {
                    broker: *broker,
                    slot: *slot,
                    launch: *launch,
                    generation: *generation,
                    pid: None,
                    started: None,
                    at_door: false,
                    stood: None,
                    promoted: None,
                    ready: None,
                    late: false,
                    called_ready: false,
                    leaving: None,
                    left_in: 0,
                    signalled: None,
                    rungs: Vec::new(),
                    spoke: false,
                    hung_up: None,
                    garbled: false,
                    hung: false,
                    proved: false,
                    killed: false,
                    lateness: self.lateness,
                    doubtful: false,
                    dropped: false,
                };
                self.living.insert(*worker, process);
            }
            Effect::Promote { worker, slot } => {
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker) {
                    (process.slot, process.at_door) = (Some(*slot), false);
                    (process.promoted, process.late) = (Some(now), false);
                    let id = process.broker;
                    self.brokers[id.0 as usize].standby_streak = None;
                    self.brokers[id.0 as usize].waits.remove(slot);
                    self.queue.retain(|waits| *waits != (id, *slot));
                }
            }
            Effect::Notice { worker, rung } | Effect::Signal { worker, rung, .. } => {
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker)
                    && let Some((_, next)) = process.next_rung(&specs[&process.launch])
                {
                    let (rung, until) = (*rung as usize, now + next.wait);
                    process.rungs.push(Asked { rung, ask: next.ask, at: now, until });
                    process.signalled.get_or_insert(now);
                }
            }
            Effect::KillTree { worker } => {
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker) {
                    process.killed = true;
                    process.signalled.get_or_insert(now);
                }
            }
            Effect::QuietListeners { broker, round } => {
                self.brokers[broker.0 as usize].quieting = Some(*round);
            }
            Effect::OpenListeners { broker, round } => {
                let broker = &mut self.brokers[broker.0 as usize];
                broker.quieting = None;
                broker.shutting = None;
                broker.asked = Some(*round);
            }
            Effect::ShutListeners { broker, round } => {
                self.brokers[broker.0 as usize].shutting = Some(*round);
            }
            Effect::Reply { request, outcome } => {
                if let Some(Command::Broker(id, Verb::Recycle(_))) = self.open.remove(request)
                    && let Some(broker) = self.brokers.get_mut(id.0 as usize)
                {
                    broker.queued &= !matches!(outcome, Outcome::Superseded(_));
                }
                self.to_replace.remove(request);
                self.answered.insert(*request, outcome.clone());
            }
            Effect::WatchClock { .. } => {}
            Effect::Exit => self.ended = true,
            Effect::Emit(event) => self.take_event(specs, step, event.broker, &event.what),
        }
    }

    fn take_event(&mut self, specs: &Specs, step: &Step, broker: Option<BrokerId>, what: &What) {
        self.doubt(broker, what);
        match what {
            What::WorkerStopping { worker, reason, .. } => {
                let (now, lateness) = (self.now, self.lateness);
                if let Some(process) = self.living.get_mut(worker) {
                    let broker = &self.brokers[process.broker.0 as usize];
                    let healthy_after = target(broker, specs).backoff.healthy_after;
                    process.proved = process.ready.is_some_and(|since| now.since(since) >= healthy_after);
                    process.leaving = Some((now, reason.clone()));
                    // Told as soon as it runs, that was decided before, perhaps by another recycle.
                    let decided = !matches!(step.input, Some(Input::Spawned { .. }));
                    process.left_in = u64::from(decided) * self.brokers[process.broker.0 as usize].recycles;
                    process.lateness = lateness;
                }
            }
            What::WorkerEnded { worker, .. } | What::WorkerDeath { worker, .. } => {
                *self.told.entry(*worker).or_insert(0) += 1;
            }
            What::WorkerReady { worker, .. } => {
                // By time: there is no word of its own.
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker) {
                    process.ready.get_or_insert(now);
                    process.called_ready = true;
                    self.brokers[process.broker.0 as usize].worked.insert(process.launch);
                }
            }
            What::AppReady
            | What::AppStopping
            | What::BrokerStarted { .. }
            | What::ListenerBound { .. }
            | What::ListenerClosed { .. }
            | What::ListenerFailed { .. }
            | What::BrokerWaiting { .. }
            | What::BrokerOpened
            | What::BrokerResumed
            | What::BrokerDraining
            | What::BrokerDrained { .. }
            | What::BrokerClosed
            | What::BrokerScaled { .. }
            | What::BrokerAdopted { .. }
            | What::BrokerDegraded { .. }
            | What::BrokerRecovered
            | What::WorkerStarted { .. }
            | What::WorkerStandby { .. }
            | What::WorkerPromoted { .. }
            | What::WorkerBackoff { .. }
            | What::RecycleStarted { .. }
            | What::RecycleFinished { .. }
            | What::RecycleFailed { .. } => {}
        }
        let Some(id) = broker else { return };
        let now = self.now;
        if let What::WorkerDeath { slot: Some(slot), .. } | What::WorkerEnded { slot: Some(slot), .. } = what
        {
            self.brokers[id.0 as usize].count(*slot, now, self.proved, self.missed);
        }
        if let What::WorkerDeath { slot: None, .. } | What::WorkerEnded { slot: None, .. } = what
            && self.standby_failed
            && self.broker(id).is_open()
        {
            let healthy_after = target(self.broker(id), specs).backoff.healthy_after;
            let proved = self.of(id).any(|(_, process)| process.has_stood(now, healthy_after));
            self.brokers[id.0 as usize].count_standby(now, proved);
        }
        self.take_turns(id, what);
        if let What::RecycleStarted { total, .. } = what {
            let all = *total == self.broker(id).wanted;
            let to_go = self
                .of(id)
                .filter(|(_, process)| process.slot.is_some() && process.leaving.is_none())
                .filter(|(_, process)| all && process.started.is_some());
            let to_go = to_go.map(|(worker, _)| *worker).collect();
            let newest = self.newest;
            let broker = &mut self.brokers[id.0 as usize];
            (broker.to_go, broker.newest_before) = (to_go, newest);
            // Standbys that do not run yet are stopped as soon as they do.
            let unstarted = |process: &&mut Process| process.broker == id && process.started.is_none();
            for process in self.living.values_mut().filter(unstarted) {
                process.doubtful |= process.slot.is_none();
            }
        }
        let broker = &mut self.brokers[id.0 as usize];
        broker.take_event(now, step.input.as_ref(), what);
        let standby = target(broker, specs).standby;
        broker.wants_standbys(now, standby);
    }

    /// After some events nobody of a broker waits any longer, or in another order.
    fn take_turns(&mut self, id: BrokerId, what: &What) {
        match what {
            What::RecycleStarted { .. }
            | What::RecycleFailed { .. }
            | What::RecycleFinished { .. }
            | What::BrokerScaled { .. }
            | What::BrokerDraining => self.queue.retain(|(broker, _)| *broker != id),
            What::WorkerBackoff { slot: Some(slot), .. } => self.queue.retain(|waits| *waits != (id, *slot)),
            _ => {}
        }
    }

    /// Who has lost its only worker in this step, and was told no back-off, waits from now on.
    pub(crate) fn take_turn(&mut self, claimed: &Status) {
        let Some(End { slot: Some(slot), broker: id, .. }) = self.end else { return };
        let broker = self.broker(id);
        let empty = !self.of(id).any(|(_, process)| process.slot == Some(slot));
        let waits = empty
            && self.missed
            && !broker.held
            && !broker.recycling
            && (broker.listening || !broker.listens)
            && slot.0 < broker.wanted
            && !claimed.brokers[id.0 as usize].backoff.contains_key(&slot)
            && !self.queue.contains(&(id, slot));
        if waits {
            self.queue.push((id, slot));
        }
    }

    /// After some events a worker that was asked for and does not run yet may be stopped as soon as it does.
    fn doubt(&mut self, broker: Option<BrokerId>, what: &What) {
        let wanted = match what {
            What::BrokerScaled { wanted } => Some(*wanted),
            _ => None,
        };
        let all = matches!(what, What::BrokerDraining | What::RecycleFailed { .. });
        if !all && wanted.is_none() {
            return;
        }
        for process in self.living.values_mut().filter(|process| Some(process.broker) == broker) {
            let has_place = |wanted| process.slot.is_none_or(|slot| slot.0 < wanted);
            let beyond = wanted.is_some_and(|wanted| !has_place(wanted));
            // A failed recycle ends no standby; if one follows that goes back, that does.
            let all = all && (process.slot.is_some() || matches!(what, What::BrokerDraining));
            process.doubtful |= process.started.is_none() && (all || beyond);
            process.dropped |= beyond;
        }
    }
}
