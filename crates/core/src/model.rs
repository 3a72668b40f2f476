//! For whoever explores all states: when two states are the same, and which deadlines could come next.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::app::App;
use crate::backoff::DEGRADED_AT;
use crate::broker::{Broker, Phase};
use crate::drain::Step;
use crate::effect::Effect;
use crate::generation::Accepted;
use crate::id::{BrokerId, Generation, Pid, RequestId, Slot, WorkerId};
use crate::recycle::{Move, Stage};
use crate::rng::Rng;
use crate::shared::Key;
use crate::snapshot;
use crate::spec::BackoffSpec;
use crate::table::Table;
use crate::worker::{State, Worker};

impl App {
    /// The records of the whole state without what steers nothing: what only counts (events, jitter, rounds, deaths)
    /// or is only told (the last failure, answers that were given, pids); turns, orders, commands, workers and generations
    /// by their rank; failures beyond the longest back-off; how much of the spawn budget is used, so that an explorer
    /// must see for itself that it holds nobody up.
    #[doc(hidden)]
    #[must_use]
    pub fn identity(&self) -> Vec<u8> {
        let mut app = self.clone();
        app.shared.seq = 0;
        app.shared.budget.rank();
        app.shared.budget.tokens = app.shared.budget.capacity;
        app.shared.requests.answered.clear();
        app.shared.requests.rank();
        let open = std::mem::take(&mut app.shared.requests.open);
        app.shared.requests.open = (1..).map(RequestId).zip(open.into_values()).collect();
        let ranks: BTreeMap<WorkerId, WorkerId> =
            app.shared.owners.keys().copied().zip((1..).map(WorkerId)).collect();
        let rank = |id: WorkerId| ranks.get(&id).copied().unwrap_or(GONE);
        app.shared.owners = std::mem::replace(&mut app.shared.owners, Table::new()).renamed(rank);
        app.shared.next_worker = 0;
        for broker in &mut app.brokers {
            broker.forget_what_counts(&ranks);
            broker.rank_generations();
            if let Some(ticket) = &mut broker.standbys.waits {
                ticket.number = self.shared.budget.rank_of(*ticket);
            }
            for place in &mut broker.places {
                if let Some(ticket) = &mut place.waits {
                    ticket.number = self.shared.budget.rank_of(*ticket);
                }
            }
        }
        snapshot::written(&app)
    }

    /// The number of the last request to a broker's listeners; 0 if there is no such broker.
    #[doc(hidden)]
    #[must_use]
    pub fn round(&self, broker: BrokerId) -> u32 {
        self.brokers.get(broker.0 as usize).map_or(0, |broker| broker.round)
    }

    /// How many deadlines are waited for.
    #[doc(hidden)]
    #[must_use]
    pub fn armed(&self) -> usize {
        self.shared.timers.len()
    }

    /// What one of them is for, by its place in order of time: a word, and of which broker, worker and slot.
    #[doc(hidden)]
    #[must_use]
    pub fn armed_for(&self, nth: usize) -> Option<(&'static str, BrokerId, Option<WorkerId>, Option<Slot>)> {
        let (_, key) = self.shared.timers.iter().nth(nth)?;
        Some(match *key {
            Key::Worker(broker, id) => ("worker", broker, Some(id), None),
            Key::Slot(broker, slot) => ("back-off", broker, None, Some(slot)),
            Key::Standby(broker) => ("standby", broker, None, None),
            Key::Move(broker, slot) => ("trial", broker, None, Some(slot)),
            Key::Listen(broker) => ("listen", broker, None, None),
            Key::Recycle(broker) => ("recycle", broker, None, None),
            Key::Back(broker) => ("back", broker, None, None),
            Key::Changed(broker) => ("changed", broker, None, None),
        })
    }

    /// Lets one of them come, by its place in order of time, without moving the clock; none if there is no such one.
    #[doc(hidden)]
    pub fn fire(&mut self, nth: usize) -> Option<Vec<Effect>> {
        let (time, key) = self.shared.timers.iter().nth(nth).copied()?;
        self.due(time, key);
        Some(self.settle())
    }

    /// A word for the state of each broker, worker and slot under way.
    #[doc(hidden)]
    #[must_use]
    pub fn shapes(&self) -> Vec<&'static str> {
        self.brokers.iter().flat_map(Broker::shapes).collect()
    }

    /// A word for the state of each worker.
    #[doc(hidden)]
    #[must_use]
    pub fn lives(&self) -> Vec<(WorkerId, &'static str)> {
        let workers = self.brokers.iter().flat_map(|broker| broker.workers.iter());
        workers.map(|(id, worker)| (*id, life(worker))).collect()
    }
}

impl Broker {
    fn forget_what_counts(&mut self, ranks: &BTreeMap<WorkerId, WorkerId>) {
        let rank = |id: WorkerId| ranks.get(&id).copied().unwrap_or(GONE);
        self.rng = Rng::new(0);
        self.round = 0;
        self.deaths = 0;
        self.last_failure = None;
        if !matches!(self.phase, Phase::Draining(_)) {
            self.cut = 0;
        }
        let most = most_failures(&self.spec.backoff);
        for place in &mut self.places {
            place.worker = place.worker.map(rank);
            place.failures = place.failures.min(most);
        }
        self.standbys.failures = self.standbys.failures.min(most);
        self.standbys.all = std::mem::take(&mut self.standbys.all).into_iter().map(rank).collect();
        for worker in self.workers.values_mut() {
            worker.pid = worker.pid.map(|_| Pid(0));
        }
        self.workers = std::mem::replace(&mut self.workers, Table::new()).renamed(rank);
        for moved in self.recycle.iter_mut().flat_map(|recycle| recycle.under_way.values_mut()) {
            moved.stage = match moved.stage {
                Stage::Retiring(id) => Stage::Retiring(rank(id)),
                Stage::Queued => Stage::Queued,
                Stage::Starting(id) => Stage::Starting(rank(id)),
                Stage::Proving(id, until) => Stage::Proving(rank(id), until),
                Stage::Leaving(id) => Stage::Leaving(rank(id)),
            };
        }
    }

    fn rank_generations(&mut self) {
        let own = [self.generation, self.target, self.good.since, self.spec.since];
        let runs = self.workers.values().flat_map(|worker| [worker.generation, worker.spec.since]);
        let used: BTreeSet<Generation> = own.into_iter().chain(runs).collect();
        let rank = |of: Generation| Generation(u32::try_from(used.range(..=of).count()).unwrap_or(u32::MAX));
        let ranked = |of: &Arc<Accepted>| match rank(of.since) {
            since if since == of.since => Arc::clone(of),
            since => Arc::new(Accepted { since, spec: of.spec.clone() }),
        };
        (self.generation, self.target) = (rank(self.generation), rank(self.target));
        (self.good, self.spec) = (ranked(&self.good), ranked(&self.spec));
        for worker in self.workers.values_mut() {
            worker.generation = rank(worker.generation);
            worker.spec = ranked(&worker.spec);
        }
    }

    fn shapes(&self) -> impl Iterator<Item = &'static str> + '_ {
        let phase = match self.phase {
            Phase::Waiting { retry_at: None, .. } => "waiting",
            Phase::Waiting { retry_at: Some(_), .. } => "waiting to retry",
            Phase::Open => "open",
            Phase::Draining(Step::Quieting) => "quieting",
            Phase::Draining(Step::Leaving) => "leaving",
            Phase::Draining(Step::Shutting) => "shutting",
            Phase::Drained => "drained",
            Phase::Closed => "closed",
        };
        let workers = self.workers.values().map(life);
        let moves = self.recycle.iter().flat_map(|recycle| recycle.under_way.values());
        std::iter::once(phase).chain(workers).chain(moves.map(stage))
    }
}

fn life(worker: &Worker) -> &'static str {
    match worker.state {
        State::Spawning { then_stop: None } => "spawning",
        State::Spawning { then_stop: Some(_) } => "spawning, to be stopped",
        State::Starting { .. } => "starting",
        State::Standby { .. } => "standby",
        State::Ready { proven_at: None, .. } => "ready",
        State::Ready { proven_at: Some(_), .. } => "ready, on trial",
        State::Stopping { forced: false, .. } => "stopping",
        State::Stopping { forced: true, .. } => "killed",
    }
}

fn stage(moved: &Move) -> &'static str {
    match moved.stage {
        Stage::Retiring(_) => "move: retiring",
        Stage::Queued => "move: queued",
        Stage::Starting(_) => "move: starting",
        Stage::Proving(..) => "move: proving",
        Stage::Leaving(_) => "move: leaving",
    }
}

/// With more failures in a row than this a slot behaves the same.
fn most_failures(backoff: &BackoffSpec) -> u32 {
    let reaches = |failures: &u32| backoff.base.saturating_mul(1 << failures) >= backoff.cap;
    DEGRADED_AT + (0..31).find(reaches).unwrap_or(u32::MAX - DEGRADED_AT)
}

/// The rank of whoever is no longer there.
const GONE: WorkerId = WorkerId(0);
