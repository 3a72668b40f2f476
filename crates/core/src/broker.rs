//! One broker: keeps the workers of one type alive, in slots 0..N-1.
//!
//! Here: slots, the life of workers, scaling. The rules for replacing are in `recycle`, for sending home in `drain`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::backoff::DEGRADED_AT;
use crate::drain::Step as DrainStep;
use crate::effect::{Done, Effect, Outcome};
use crate::event::What;
use crate::id::{BrokerId, Generation, Pid, RequestId, Slot, WorkerId};
use crate::input::{Exit, ListenFailure};
use crate::recycle::{Queued, Recycle};
use crate::shared::{Key, Shared};
use crate::spec::{BrokerSpec, Ready};
use crate::status::{self, BrokerState, BrokerStatus, WorkerState, WorkerStatus};
use crate::stop::Step;
use crate::time::Time;
use crate::worker::{State, Why, Worker};

pub(crate) struct Broker {
    pub(crate) id: BrokerId,
    /// What new workers run: the specification of `target`.
    pub(crate) spec: Arc<BrokerSpec>,
    /// Every generation that a worker runs or a recycle may go back to.
    pub(crate) specs: BTreeMap<Generation, Arc<BrokerSpec>>,
    /// The generation that last became ready everywhere.
    pub(crate) generation: Generation,
    pub(crate) target: Generation,
    pub(crate) wanted: u32,
    pub(crate) phase: Phase,
    /// Number of the last request to the listeners; answers to older ones are stale.
    pub(crate) round: u32,
    pub(crate) places: Vec<Place>,
    pub(crate) workers: BTreeMap<WorkerId, Worker>,
    pub(crate) counts: Counts,
    /// Slots with so many failures in a row that the broker is degraded.
    failing: u32,
    pub(crate) recycle: Option<Recycle>,
    pub(crate) queued: Option<Queued>,
    pub(crate) recycle_at: Option<Time>,
    /// Commands that wait for a state of this broker.
    pub(crate) goals: Vec<(RequestId, Goal)>,
    /// Workers killed by the present drain because they did not leave in time.
    pub(crate) cut: u32,
    /// The app ends: no way back.
    pub(crate) closing: bool,
    /// No more asking: every stop is a kill.
    pub(crate) brutal: bool,
    deaths: u64,
    last_failure: Option<String>,
    listen: Vec<String>,
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
}

/// A slot: its serving worker, or why it has none.
#[derive(Default)]
pub(crate) struct Place {
    pub(crate) worker: Option<WorkerId>,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// The wait before the next worker; kept until that one runs.
    pub(crate) backoff: Option<Backoff>,
    /// Waits for the spawn budget.
    pub(crate) queued: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Backoff {
    until: Time,
    over: bool,
}

impl Place {
    /// Lets the wait be over; its deadline, if it was still armed.
    pub(crate) fn end_backoff(&mut self) -> Option<Time> {
        let wait = self.backoff.as_mut().filter(|wait| !wait.over)?;
        wait.over = true;
        Some(wait.until)
    }
}

/// What a command waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Goal {
    /// As many workers ready as wanted, and none too many.
    Full,
    /// All are home.
    Drained,
}

/// Workers by state, kept in [`Broker::set_state`] and [`Broker::remove`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    pub(crate) ready: u32,
    /// Leaving because fewer are wanted.
    pub(crate) surplus: u32,
}

impl Broker {
    pub(crate) fn new(id: BrokerId, spec: BrokerSpec) -> Self {
        let generation = Generation(1);
        let spec = Arc::new(spec);
        Broker {
            id,
            specs: BTreeMap::from([(generation, Arc::clone(&spec))]),
            generation,
            target: generation,
            wanted: spec.workers,
            phase: Phase::Open,
            round: 0,
            places: (0..spec.workers).map(|_| Place::default()).collect(),
            workers: BTreeMap::new(),
            counts: Counts::default(),
            failing: 0,
            recycle: None,
            queued: None,
            recycle_at: None,
            goals: Vec::new(),
            cut: 0,
            closing: false,
            brutal: false,
            deaths: 0,
            last_failure: None,
            listen: Vec::new(),
            spec,
        }
    }

    pub(crate) fn start(&mut self, cx: &mut Shared) {
        let (wanted, generation, listens) = (self.wanted, self.generation, self.spec.listens);
        self.emit(cx, None, What::BrokerStarted { wanted, generation, listens });
        if listens {
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
                    if !self.listen.contains(&address) {
                        self.listen.push(address.clone());
                        self.emit(cx, None, What::ListenerBound { address });
                    }
                }
                self.emit(cx, None, if resumed { What::BrokerResumed } else { What::BrokerOpened });
                self.begin(cx);
            }
            Err(ListenFailure { address, reason }) => {
                let attempts = attempts.saturating_add(1);
                let retry_at = cx.now + self.spec.backoff.delay(attempts.saturating_add(1), &mut cx.rng);
                self.phase = Phase::Waiting { attempts, retry_at: Some(retry_at), resumed };
                cx.rearm(Key::Listen(self.id), None, Some(retry_at));
                self.emit(cx, None, What::ListenerFailed { address, reason });
                self.emit(cx, None, What::BrokerWaiting { retry_at: Some(retry_at) });
            }
        }
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
        for slot in self.slots() {
            self.fill(cx, slot);
        }
        self.check_goals(cx);
    }

    // Slots.

    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..u32::try_from(self.places.len()).unwrap_or(u32::MAX)).map(Slot)
    }

    pub(crate) fn place(&mut self, slot: Slot) -> Option<&mut Place> {
        self.places.get_mut(slot.0 as usize)
    }

    fn serves(&self, slot: Slot, worker: WorkerId) -> bool {
        self.places.get(slot.0 as usize).is_some_and(|place| place.worker == Some(worker))
    }

    /// Gets an empty slot its next worker, at once or after its back-off; does nothing if that is under way.
    pub(crate) fn fill(&mut self, cx: &mut Shared, slot: Slot) {
        if self.phase != Phase::Open || self.recycle.as_ref().is_some_and(|recycle| recycle.moves(slot)) {
            return;
        }
        let (id, backoff) = (self.id, self.spec.backoff);
        let Some(place) = self.place(slot) else { return };
        if place.worker.is_some() || place.queued || place.backoff.is_some_and(|wait| !wait.over) {
            return;
        }
        let delay = backoff.delay(place.failures, &mut cx.rng);
        if delay.is_zero() {
            place.queued = true;
            cx.budget.ask(id, slot, false);
            return;
        }
        let until = cx.now + delay;
        place.backoff = Some(Backoff { until, over: false });
        let failures = place.failures;
        cx.rearm(Key::Slot(id, slot), None, Some(until));
        self.emit(cx, None, What::WorkerBackoff { slot, retry_at: until, failures });
    }

    pub(crate) fn backoff_over(&mut self, cx: &mut Shared, slot: Slot) {
        let id = self.id;
        let Some(place) = self.place(slot) else { return };
        if let Some(wait) = &mut place.backoff {
            wait.over = true;
            place.queued = true;
            cx.budget.ask(id, slot, true);
        }
    }

    /// Forgets a slot's wait; the event that makes it void says so.
    pub(crate) fn cancel_backoff(&mut self, cx: &mut Shared, slot: Slot) {
        let id = self.id;
        let Some(place) = self.place(slot) else { return };
        place.queued = false;
        if let Some(Backoff { until, over: false }) = place.backoff.take() {
            cx.rearm(Key::Slot(id, slot), Some(until), None);
        }
    }

    /// The spawn budget allows a worker for this slot; false if it no longer needs one.
    pub(crate) fn grant(&mut self, cx: &mut Shared, slot: Slot) -> bool {
        let open = self.phase == Phase::Open;
        let Some(place) = self.place(slot) else { return false };
        place.queued = false;
        if !open {
            return false;
        }
        let serving = place.worker;
        match self.recycle.as_ref().map(|recycle| recycle.wants_spawn(slot, serving)) {
            Some(Some(true)) => {
                let successor = self.spawn(cx, slot);
                if let Some(recycle) = &mut self.recycle {
                    recycle.successor_asked(slot, successor);
                }
                return true;
            }
            Some(Some(false)) => return false,
            Some(None) | None => {}
        }
        if serving.is_some() {
            return false;
        }
        let worker = self.spawn(cx, slot);
        if let Some(place) = self.place(slot) {
            place.worker = Some(worker);
        }
        true
    }

    fn spawn(&mut self, cx: &mut Shared, slot: Slot) -> WorkerId {
        let id = cx.next_worker(self.id);
        self.workers.insert(
            id,
            Worker {
                slot,
                generation: self.target,
                pid: None,
                started_at: cx.now,
                ready_after: None,
                state: State::Spawning { then_stop: None },
            },
        );
        cx.effects.push(Effect::Spawn {
            worker: id,
            broker: self.id,
            slot,
            generation: self.target,
            launch: self.spec.launch,
        });
        id
    }

    // A worker's life.

    /// The one place where a worker's state changes: counts and timers follow.
    pub(crate) fn set_state(&mut self, cx: &mut Shared, id: WorkerId, state: State) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (deadline, counted) = (worker.deadline(), counted(worker));
        worker.state = state;
        cx.rearm(Key::Worker(self.id, id), deadline, worker.deadline());
        self.counts = self.counts.minus(counted).plus(self::counted(worker));
    }

    fn remove(&mut self, cx: &mut Shared, id: WorkerId) -> Option<Worker> {
        let worker = self.workers.remove(&id)?;
        cx.owners.remove(&id);
        cx.rearm(Key::Worker(self.id, id), worker.deadline(), None);
        self.counts = self.counts.minus(counted(&worker));
        let generation = worker.generation;
        if generation != self.target
            && generation != self.generation
            && !self.workers.values().any(|other| other.generation == generation)
        {
            self.specs.remove(&generation);
        }
        Some(worker)
    }

    pub(crate) fn spec_of(&self, worker: &Worker) -> &BrokerSpec {
        self.specs.get(&worker.generation).unwrap_or(&self.spec)
    }

    pub(crate) fn spawned(&mut self, cx: &mut Shared, id: WorkerId, pid: Pid) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let State::Spawning { then_stop } = worker.state else { return };
        worker.pid = Some(pid);
        worker.started_at = cx.now;
        let (slot, generation) = (worker.slot, worker.generation);
        let spec = &self.specs.get(&generation).unwrap_or(&self.spec);
        let wait = match spec.ready {
            Ready::After(wait) => wait,
            Ready::Notify | Ready::Accepting => spec.recycle.deadline,
        };
        self.emit(cx, None, What::WorkerStarted { worker: id, slot, pid, generation });
        if let Some(place) = self.place(slot) {
            place.backoff = None;
        }
        self.set_state(cx, id, State::Starting { due: cx.now + wait });
        if let Some(why) = then_stop {
            self.stop(cx, id, why);
        }
    }

    pub(crate) fn spawn_failed(&mut self, cx: &mut Shared, id: WorkerId, reason: String) {
        let Some(worker) = self.workers.get(&id) else { return };
        let State::Spawning { then_stop } = worker.state else { return };
        let Some(worker) = self.remove(cx, id) else { return };
        let slot = worker.slot;
        self.note_death(id, slot, &reason);
        let what = What::WorkerDeath {
            worker: id,
            slot,
            pid: None,
            exit: None,
            forced: false,
            reason: reason.clone(),
        };
        self.emit(cx, None, what);
        let failure = then_stop.is_none().then_some(Failure { reason, proved: false });
        self.gone(cx, id, slot, failure.as_ref(), false);
    }

    pub(crate) fn told_ready(&mut self, cx: &mut Shared, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let by_time = matches!(self.spec_of(worker).ready, Ready::After(_));
        if matches!(worker.state, State::Starting { .. }) && !by_time {
            self.become_ready(cx, id);
        }
    }

    fn become_ready(&mut self, cx: &mut Shared, id: WorkerId) {
        let now = cx.now;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let Some(pid) = worker.pid else { return };
        let (slot, after) = (worker.slot, now.since(worker.started_at));
        worker.ready_after = Some(after);
        let failures = self.places.get(slot.0 as usize).map_or(0, |place| place.failures);
        let proven_at = (failures > 0).then_some(now + self.spec.backoff.healthy_after);
        self.set_state(cx, id, State::Ready { since: now, proven_at });
        self.emit(cx, None, What::WorkerReady { worker: id, slot, pid, after });
        self.successor_ready(cx, id, slot);
        self.check_goals(cx);
    }

    /// A worker's deadline has come.
    pub(crate) fn worker_due(&mut self, cx: &mut Shared, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let slot = worker.slot;
        match worker.state {
            State::Spawning { .. } => {}
            State::Starting { .. } => match self.spec_of(worker).ready {
                Ready::After(_) => self.become_ready(cx, id),
                ready @ (Ready::Notify | Ready::Accepting) => {
                    let deadline = self.spec_of(worker).recycle.deadline;
                    let why = Why::NotReady { deadline, ready };
                    self.stop(cx, id, why);
                    self.successor_failed(cx, id, slot, &why.to_string());
                }
            },
            State::Ready { since, .. } => {
                self.set_state(cx, id, State::Ready { since, proven_at: None });
                if self.serves(slot, id) {
                    self.set_failures(cx, slot, 0, "");
                }
            }
            State::Stopping { why, rung, .. } => self.climb(cx, id, why, rung + 1),
        }
    }

    /// Asks a worker to leave; one that is leaving already is left to its ladder.
    pub(crate) fn stop(&mut self, cx: &mut Shared, id: WorkerId, why: Why) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        match (worker.state, worker.pid) {
            (State::Spawning { then_stop: None }, _) => {
                self.set_state(cx, id, State::Spawning { then_stop: Some(why) });
            }
            (State::Starting { .. } | State::Ready { .. }, Some(pid)) => {
                let (slot, reason) = (worker.slot, why.to_string());
                self.emit(cx, None, What::WorkerStopping { worker: id, slot, pid, reason });
                self.climb(cx, id, why, 0);
            }
            (
                State::Spawning { .. }
                | State::Starting { .. }
                | State::Ready { .. }
                | State::Stopping { .. },
                _,
            ) => {}
        }
    }

    fn climb(&mut self, cx: &mut Shared, id: WorkerId, why: Why, rung: usize) {
        let Some(worker) = self.workers.get(&id) else { return };
        match self.spec_of(worker).stop.step(rung) {
            Step::Signal(asked) if !self.brutal => {
                cx.effects.push(Effect::Signal { worker: id, signal: asked.signal });
                let escalate_at = Some(cx.now + asked.wait);
                self.set_state(cx, id, State::Stopping { why, rung, escalate_at, forced: false });
            }
            Step::Signal(_) | Step::Kill => {
                cx.effects.push(Effect::KillTree { worker: id });
                self.set_state(cx, id, State::Stopping { why, rung, escalate_at: None, forced: true });
            }
        }
    }

    /// Kills every worker now.
    pub(crate) fn kill_all(&mut self, cx: &mut Shared) {
        self.brutal = true;
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            match self.workers.get(&id).map(|worker| worker.state) {
                Some(State::Stopping { why, rung, forced: false, .. }) => self.climb(cx, id, why, rung),
                Some(State::Spawning { .. } | State::Starting { .. } | State::Ready { .. }) => {
                    self.stop(cx, id, Why::AppStops);
                }
                Some(State::Stopping { forced: true, .. }) | None => {}
            }
        }
    }

    pub(crate) fn exited(&mut self, cx: &mut Shared, id: WorkerId, exit: Exit) {
        let Some(worker) = self.remove(cx, id) else { return };
        let (slot, pid) = (worker.slot, worker.pid.unwrap_or_default());
        let forced = matches!(worker.state, State::Stopping { forced: true, .. });
        let home = matches!(self.phase, Phase::Draining(_) | Phase::Drained);
        let proved = worker.proved(cx.now, self.spec.backoff.healthy_after);
        let (death, reason) = match worker.leaving() {
            Some(why @ Why::NotReady { .. }) => (true, why.to_string()),
            Some(why) => (false, why.to_string()),
            None if home => (false, exit.to_string()),
            None if exit == Exit::Code(0) => (false, "left by itself".to_owned()),
            None => (true, exit.to_string()),
        };
        let failed = match worker.leaving() {
            Some(Why::NotReady { .. }) => true,
            Some(_) => false,
            // A worker that proved itself and leaves by itself with 0 has done its work.
            None => !home && (death || !proved),
        };
        if forced {
            self.cut += 1;
        }
        if death {
            self.note_death(id, slot, &reason);
            let what = What::WorkerDeath {
                worker: id,
                slot,
                pid: Some(pid),
                exit: Some(exit),
                forced,
                reason: reason.clone(),
            };
            self.emit(cx, None, what);
        } else {
            let what = What::WorkerEnded { worker: id, slot, pid, exit, forced, reason: reason.clone() };
            self.emit(cx, None, what);
        }
        let reason = if death { reason } else { exit.to_string() };
        self.gone(cx, id, slot, failed.then_some(Failure { reason, proved }).as_ref(), forced);
    }

    fn note_death(&mut self, id: WorkerId, slot: Slot, reason: &str) {
        self.deaths += 1;
        self.last_failure = Some(status::last_failure(id, slot, reason));
    }

    /// A worker has left the table: its slot, the recycle and the drain go on without it.
    fn gone(&mut self, cx: &mut Shared, id: WorkerId, slot: Slot, failure: Option<&Failure>, forced: bool) {
        let served = self.serves(slot, id);
        if served && let Some(place) = self.place(slot) {
            place.worker = None;
        }
        let succeeded = self.recycle.as_ref().is_some_and(|recycle| recycle.succeeds(slot, id));
        let empty = self.places.get(slot.0 as usize).is_some_and(|place| place.worker.is_none());
        if let Some(failure) = failure
            && (served || (succeeded && empty))
        {
            let before = self.places.get(slot.0 as usize).map_or(0, |place| place.failures);
            let failures = if failure.proved { 1 } else { before.saturating_add(1) };
            self.set_failures(cx, slot, failures, &failure.reason);
        }
        self.recycle_gone(cx, id, slot, failure.map(|failure| failure.reason.as_str()), forced);
        self.fill(cx, slot);
        self.drain_on(cx);
        self.check_goals(cx);
    }

    /// Sets a slot's failures in a row; the broker is degraded while any slot has two or more.
    pub(crate) fn set_failures(&mut self, cx: &mut Shared, slot: Slot, failures: u32, reason: &str) {
        let Some(place) = self.place(slot) else { return };
        let (was, is) = (place.failures >= DEGRADED_AT, failures >= DEGRADED_AT);
        place.failures = failures;
        match (was, is) {
            (false, true) => {
                self.failing += 1;
                if self.failing == 1 {
                    self.emit(cx, None, What::BrokerDegraded { reason: format!("slot {slot}: {reason}") });
                }
            }
            (true, false) => {
                self.failing -= 1;
                if self.failing == 0 {
                    self.emit(cx, None, What::BrokerRecovered);
                }
            }
            (true, true) | (false, false) => {}
        }
        if is {
            self.target_fails(cx, slot, reason);
        }
    }

    // Scaling and goals.

    pub(crate) fn scale(&mut self, cx: &mut Shared, request: Option<RequestId>, workers: u32) {
        self.wanted = workers;
        self.emit(cx, request, What::BrokerScaled { wanted: workers });
        while self.places.len() > workers as usize {
            let slot = Slot(u32::try_from(self.places.len() - 1).unwrap_or(u32::MAX));
            self.cancel_backoff(cx, slot);
            self.set_failures(cx, slot, 0, "");
            let serving = self.places.pop().and_then(|place| place.worker);
            if let Some(id) = serving {
                self.stop(cx, id, Why::Scaled);
            }
            self.recycle_drops(cx, slot);
        }
        while self.places.len() < workers as usize {
            let slot = Slot(u32::try_from(self.places.len()).unwrap_or(u32::MAX));
            self.places.push(Place::default());
            self.fill(cx, slot);
        }
        self.recycle_on(cx);
        if let Some(request) = request {
            if self.phase == Phase::Open {
                self.goals.push((request, Goal::Full));
            } else {
                let note = Some("takes effect when the broker is open");
                cx.reply(request, Outcome::Done(Done { note, ..Done::default() }));
            }
        }
        self.check_goals(cx);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.phase == Phase::Open && self.counts.ready >= self.wanted && self.counts.surplus == 0
    }

    /// Open and full, or closed by hand: nothing is missing.
    pub(crate) fn is_settled(&self) -> bool {
        self.is_full() || self.phase == Phase::Drained
    }

    pub(crate) fn check_goals(&mut self, cx: &mut Shared) {
        if self.goals.is_empty() || !self.is_full() {
            return;
        }
        self.answer_goals(cx, Goal::Full, &Outcome::Done(Done::default()));
    }

    pub(crate) fn answer_goals(&mut self, cx: &mut Shared, reached: Goal, outcome: &Outcome) {
        self.goals.retain(|(request, goal)| {
            if *goal == reached {
                cx.reply(*request, outcome.clone());
            }
            *goal != reached
        });
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
            },
            wanted: self.wanted,
            generation: self.generation,
            target: self.target,
            degraded: self.failing > 0,
            recycling: self.recycle.is_some(),
            deaths: self.deaths,
            last_failure: self.last_failure.clone(),
            listen: self.listen.clone(),
            workers,
            backoff,
        }
    }

    /// What the counts must be, from the states themselves.
    pub(crate) fn recount(&self) -> (Counts, u32) {
        let counts =
            self.workers.values().fold(Counts::default(), |counts, worker| counts.plus(counted(worker)));
        let failing = self.places.iter().filter(|place| place.failures >= DEGRADED_AT).count();
        (counts, u32::try_from(failing).unwrap_or(u32::MAX))
    }

    /// Whether what is kept beside the states agrees with them.
    pub(crate) fn is_consistent(&self) -> bool {
        self.recount() == (self.counts, self.failing)
    }
}

/// Why a slot lost its worker without anybody asking for it.
struct Failure {
    reason: String,
    /// It had been ready long enough to start counting anew.
    proved: bool,
}

fn counted(worker: &Worker) -> Counts {
    Counts {
        ready: u32::from(matches!(worker.state, State::Ready { .. })),
        surplus: u32::from(worker.leaving() == Some(Why::Scaled)),
    }
}

fn seen(worker: &Worker) -> Option<WorkerStatus> {
    let state = match worker.state {
        State::Spawning { .. } => return None,
        State::Starting { .. } => WorkerState::Starting,
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
    fn plus(self, other: Counts) -> Counts {
        Counts { ready: self.ready + other.ready, surplus: self.surplus + other.surplus }
    }

    fn minus(self, other: Counts) -> Counts {
        Counts { ready: self.ready - other.ready, surplus: self.surplus - other.surplus }
    }
}
