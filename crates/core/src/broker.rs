//! One broker: keeps the workers of one type alive, in slots 0..N-1.
//!
//! Here: what a broker is, its listeners, what commands wait for, what is seen. The rules are in `slots` (filling
//! and scaling), `life` (a worker from spawn to exit), `recycle` and `verdict` (replacing), `drain` (sending home),
//! `schedule` and `watch` (what clock and files ask for).

use std::collections::BTreeSet;
use std::sync::Arc;

use crate::backoff::DEGRADED_AT;
use crate::budget::{Asked, Ticket};
use crate::drain::Step as DrainStep;
use crate::effect::{Done, Effect, Outcome};
use crate::event::What;
use crate::generation::Accepted;
use crate::id::{BrokerId, Generation, RequestId, Slot, WorkerId};
use crate::input::ListenFailure;
use crate::recycle::{Move, Recycle, Scope, Stage};
use crate::requests::Waits;
use crate::rng::Rng;
use crate::schedule::Hours;
use crate::shared::{Key, Shared};
use crate::slots::Place;
use crate::spec::BrokerSpec;
use crate::standby::Standbys;
use crate::status::{self, BrokerState, BrokerStatus, WorkerState, WorkerStatus};
use crate::table::Table;
use crate::time::Time;
use crate::watch::Changed;
use crate::worker::{State, Why, Worker};

#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    /// What new workers run: the specification of `target`.
    pub(crate) spec: Arc<Accepted>,
    /// The generation that last became ready everywhere.
    pub(crate) generation: Generation,
    /// Its specification, to which a recycle that fails goes back.
    pub(crate) good: Arc<Accepted>,
    /// The newest generation.
    pub(crate) target: Generation,
    pub(crate) wanted: u32,
    pub(crate) phase: Phase,
    /// Number of the last request to the listeners; answers to older ones are stale.
    pub(crate) round: u32,
    pub(crate) places: Vec<Place>,
    pub(crate) workers: Table<Worker>,
    pub(crate) standbys: Standbys,
    pub(crate) counts: Counts,
    /// A slot found no room for its next worker among those that are leaving.
    pub(crate) crowded: bool,
    /// Slots with so many failures in a row that the broker is degraded.
    pub(crate) failing: u32,
    pub(crate) recycle: Option<Recycle>,
    /// The recycle after this one.
    pub(crate) queued: Option<Scope>,
    pub(crate) recycle_at: Option<Time>,
    /// When to go back once more from a specification that failed.
    pub(crate) back_at: Option<Time>,
    pub(crate) hours: Hours,
    pub(crate) changed: Changed,
    /// Workers killed by the present drain because they did not leave in time.
    pub(crate) cut: u32,
    /// The app ends: no way back.
    pub(crate) closing: bool,
    /// No more asking: every stop is a kill.
    pub(crate) brutal: bool,
    pub(crate) deaths: u64,
    pub(crate) last_failure: Option<LastFailure>,
    /// Addresses as bound, in the order in which they were told.
    pub(crate) listen: Vec<String>,
    /// A worker has asked for a listener: there are some, though its specification may name none.
    pub(crate) binds: bool,
    /// Its own, so that no broker's fate changes the delays of another.
    pub(crate) rng: Rng,
}

/// What a broker is doing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// For its listeners: asked for, or to be tried again at `retry_at`.
    Waiting { attempts: u32, retry_at: Option<Time>, resumed: bool },
    /// Keeping its workers alive.
    Open,
    /// Sending them home.
    Draining(DrainStep),
    /// None is left; none is started.
    Drained,
    /// The same, by its schedule, which will open it.
    Closed,
}

/// The last death.
#[derive(Clone)]
pub(crate) struct LastFailure {
    pub(crate) worker: WorkerId,
    /// None for a standby's.
    pub(crate) slot: Option<Slot>,
    pub(crate) reason: String,
}

/// Workers by state, kept in [`Broker::set_state`] and [`Broker::remove`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ready: u32,
    /// Leaving because fewer are wanted.
    pub(crate) surplus: u32,
}

impl Broker {
    pub(crate) fn new(id: BrokerId, spec: BrokerSpec, rng: Rng) -> Self {
        let mut broker = Self::with(id, Arc::new(Accepted { since: Generation(1), spec }), rng);
        broker.places = (0..broker.wanted).map(|_| Place::default()).collect();
        broker
    }

    /// A broker without slots yet.
    pub(crate) fn with(id: BrokerId, spec: Arc<Accepted>, rng: Rng) -> Self {
        Broker {
            id,
            generation: spec.since,
            good: Arc::clone(&spec),
            target: spec.since,
            wanted: spec.workers,
            phase: if spec.scheduled { Phase::Closed } else { Phase::Open },
            round: 0,
            places: Vec::new(),
            workers: Table::new(),
            standbys: Standbys::default(),
            counts: Counts::default(),
            crowded: false,
            failing: 0,
            recycle: None,
            queued: None,
            recycle_at: None,
            back_at: None,
            hours: Hours::default(),
            changed: Changed::default(),
            cut: 0,
            closing: false,
            brutal: false,
            deaths: 0,
            last_failure: None,
            listen: Vec::new(),
            binds: false,
            rng,
            spec,
        }
    }

    pub(crate) fn start(&mut self, cx: &mut Shared) {
        let (wanted, generation) = (self.wanted, self.generation);
        let (listens, scheduled) = (self.spec.listens, self.spec.scheduled);
        self.emit(cx, None, What::BrokerStarted { wanted, generation, listens, scheduled });
        if scheduled {
            self.ask_clock(cx);
        } else if listens {
            self.ask_for_listeners(cx, 0, false);
        } else {
            self.begin(cx);
        }
    }

    pub(crate) fn emit(&self, cx: &mut Shared, request: Option<RequestId>, what: What) {
        cx.emit(Some(self.id), request, what);
    }

    // Listeners.

    pub(crate) fn ask_for_listeners(&mut self, cx: &mut Shared, attempts: u32, resumed: bool) {
        self.round += 1;
        self.phase = Phase::Waiting { attempts, retry_at: None, resumed };
        cx.effects.push(Effect::OpenListeners { broker: self.id, round: self.round });
    }

    pub(crate) fn opened(&mut self, cx: &mut Shared, round: u32, result: Result<Vec<String>, ListenFailure>) {
        let Phase::Waiting { attempts, retry_at: None, resumed } = self.phase else { return };
        if round != self.round {
            return;
        }
        match result {
            Ok(addresses) => {
                for address in addresses {
                    self.note_bound(cx, address);
                }
                self.emit(cx, None, if resumed { What::BrokerResumed } else { What::BrokerOpened });
                self.begin(cx);
            }
            Err(ListenFailure { address, reason }) => {
                let attempts = attempts.saturating_add(1);
                let retry_at = cx.now + self.spec.backoff.delay(attempts.saturating_add(1), &mut self.rng);
                self.phase = Phase::Waiting { attempts, retry_at: Some(retry_at), resumed };
                cx.rearm(Key::Listen(self.id), None, Some(retry_at));
                self.emit(cx, None, What::ListenerFailed { address, reason });
                self.emit(cx, None, What::BrokerWaiting { retry_at: Some(retry_at) });
            }
        }
    }

    fn note_bound(&mut self, cx: &mut Shared, address: String) {
        if !self.listen.contains(&address) {
            self.listen.push(address.clone());
            self.emit(cx, None, What::ListenerBound { address });
        }
    }

    /// One more, because a worker asked for it.
    pub(crate) fn bound(&mut self, cx: &mut Shared, address: String) {
        self.binds = true;
        self.note_bound(cx, address);
    }

    /// One less.
    pub(crate) fn unbound(&mut self, cx: &mut Shared, address: &str) {
        if let Some(place) = self.listen.iter().position(|bound| bound == address) {
            let address = self.listen.remove(place);
            self.emit(cx, None, What::ListenerClosed { address });
        }
    }

    /// Whether it has listeners, or may have some.
    pub(crate) fn listens(&self) -> bool {
        self.spec.listens || self.binds
    }

    pub(crate) fn listen_again(&mut self, cx: &mut Shared) {
        if let Phase::Waiting { attempts, retry_at: Some(_), resumed } = self.phase {
            self.ask_for_listeners(cx, attempts, resumed);
        }
    }

    /// Starts the shift.
    pub(crate) fn begin(&mut self, cx: &mut Shared) {
        self.phase = Phase::Open;
        self.arm_recycle(cx);
        self.take_up_target(cx);
        if self.recycle.is_none() {
            self.recycle_for_changes(cx);
        }
        for slot in self.slots() {
            self.fill(cx, slot);
        }
        self.check_goals(cx);
    }

    // Goals.

    pub(crate) fn is_full(&self) -> bool {
        let on_trial = self.recycle.as_ref().map_or(0, |recycle| self.second_servers(recycle));
        self.phase == Phase::Open
            && self.counts.ready.saturating_sub(on_trial) >= self.wanted
            && self.counts.surplus == 0
    }

    /// Successors on trial beside a predecessor that serves: both are ready, for one slot.
    fn second_servers(&self, recycle: &Recycle) -> u32 {
        let second = |(slot, moved): &(&Slot, &Move)| match moved.stage {
            Stage::Proving(id, _) => !self.serves(**slot, id),
            Stage::Retiring(_) | Stage::Queued | Stage::Starting(_) | Stage::Leaving(_) => false,
        };
        u32::try_from(recycle.under_way.iter().filter(second).count()).unwrap_or(u32::MAX)
    }

    /// Open and full, or sent home by hand or schedule: nothing is missing.
    pub(crate) fn is_settled(&self) -> bool {
        let closed = self.phase == Phase::Closed && self.hours.window.is_some();
        self.is_full() || self.phase == Phase::Drained || closed
    }

    pub(crate) fn check_goals(&self, cx: &mut Shared) {
        if self.is_full() {
            cx.reply_all(Waits::Full(self.id), &Outcome::Done(Done::default()));
        }
    }

    // What is seen.

    pub(crate) fn status(&self) -> BrokerStatus {
        let workers = self.workers.iter().filter_map(|(id, worker)| Some((*id, seen(worker)?))).collect();
        let backoff = self
            .slots()
            .zip(&self.places)
            .filter_map(|(slot, place)| Some((slot, place.backoff?.until)))
            .collect();
        BrokerStatus {
            state: match self.phase {
                Phase::Waiting { .. } => BrokerState::Waiting,
                Phase::Open => BrokerState::Open,
                Phase::Draining(_) => BrokerState::Draining,
                Phase::Drained => BrokerState::Drained,
                Phase::Closed => BrokerState::Closed,
            },
            wanted: self.wanted,
            generation: self.generation,
            target: self.target,
            degraded: self.failing > 0,
            recycling: self.recycle.is_some(),
            deaths: self.deaths,
            last_failure: self
                .last_failure
                .as_ref()
                .map(|last| status::last_failure(last.worker, last.slot, &last.reason)),
            listen: self.listen.clone(),
            workers,
            backoff,
            standby_backoff: self.standbys.backoff.map(|wait| wait.until),
        }
    }

    /// What the counts must be, from the states themselves.
    pub(crate) fn recount(&self) -> (Counts, u32) {
        let counts =
            self.workers.values().fold(Counts::default(), |counts, worker| counts.plus(counted(worker)));
        let failing = self.places.iter().filter(|place| place.failures >= DEGRADED_AT).count();
        (counts, u32::try_from(failing).unwrap_or(u32::MAX))
    }

    /// Every deadline that a state of this broker waits for.
    pub(crate) fn deadlines(&self) -> impl Iterator<Item = (Time, Key)> + '_ {
        let workers = self.workers.iter().map(|(id, worker)| (worker.deadline(), Key::Worker(self.id, *id)));
        let slots = self.slots().zip(&self.places);
        let slots = slots.map(|(slot, place)| (place.retry_at(), Key::Slot(self.id, slot)));
        let moves = self.recycle.iter().flat_map(|recycle| &recycle.under_way);
        let moves = moves.map(|(slot, moved)| (moved.deadline(), Key::Move(self.id, *slot)));
        let listen = match self.phase {
            Phase::Waiting { retry_at, .. } => retry_at,
            Phase::Open | Phase::Draining(_) | Phase::Drained | Phase::Closed => None,
        };
        let own = [
            (listen, Key::Listen(self.id)),
            (self.recycle_at, Key::Recycle(self.id)),
            (self.back_at, Key::Back(self.id)),
            (self.changed.due, Key::Changed(self.id)),
            (self.standbys.retry_at(), Key::Standby(self.id)),
        ];
        workers.chain(slots).chain(moves).chain(own).filter_map(|(at, key)| Some((at?, key)))
    }

    /// Every turn in the queues of the spawn budget.
    pub(crate) fn tickets(&self) -> impl Iterator<Item = (Ticket, Asked)> + '_ {
        let slots = self.slots().zip(&self.places);
        let slots = slots.filter_map(|(slot, place)| Some((place.waits?, (self.id, Some(slot)))));
        slots.chain(self.standbys.waits.map(|ticket| (ticket, (self.id, None))))
    }

    /// Every worker without a slot.
    pub(crate) fn without_slot(&self) -> BTreeSet<WorkerId> {
        self.workers.iter().filter(|(_, worker)| worker.slot.is_none()).map(|(id, _)| *id).collect()
    }

    /// Whether what is kept beside the states agrees with them.
    pub(crate) fn is_consistent(&self) -> bool {
        self.recount() == (self.counts, self.failing)
            && self.standbys.all == self.without_slot()
            && self.places.len() == self.wanted as usize
    }
}

/// What a worker adds to the counts.
pub(crate) fn counted(worker: &Worker) -> Counts {
    Counts { ready: u32::from(worker.serves()), surplus: u32::from(worker.leaving() == Some(Why::Scaled)) }
}

fn seen(worker: &Worker) -> Option<WorkerStatus> {
    let state = match worker.state {
        State::Spawning { .. } => return None,
        State::Starting { .. } => WorkerState::Starting,
        State::Standby { .. } => WorkerState::Standby,
        State::Ready { .. } => WorkerState::Ready,
        State::Stopping { .. } => WorkerState::Stopping,
    };
    Some(WorkerStatus {
        slot: worker.slot,
        pid: worker.pid?,
        state,
        generation: worker.generation,
        started_at: worker.started_at,
        ready_after: worker.ready_after,
    })
}

impl Counts {
    pub(crate) fn plus(self, other: Counts) -> Counts {
        Counts { ready: self.ready + other.ready, surplus: self.surplus + other.surplus }
    }

    pub(crate) fn minus(self, other: Counts) -> Counts {
        Counts { ready: self.ready - other.ready, surplus: self.surplus - other.surplus }
    }
}
