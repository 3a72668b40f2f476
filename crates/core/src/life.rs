//! The life of a worker: spawned, ready, asked to leave, exited; and what each step means for its slot.
//!
//! A worker that was asked for lives in the table until its process is gone and reaped, or could not be started.

use std::time::Duration;

use crate::broker::{Broker, LastFailure, Phase, counted};
use crate::effect::Effect;
use crate::event::What;
use crate::id::{Pid, Slot, WorkerId};
use crate::input::Exit;
use crate::shared::{Key, Shared};
use crate::spec::Ready;
use crate::stop::{Ear, Step};
use crate::text::bounded;
use crate::worker::{Channel, State, Why, Worker};

impl Broker {
    /// The one place where a worker's state changes: counts and timers follow.
    pub(crate) fn set_state(&mut self, cx: &mut Shared, id: WorkerId, state: State) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (deadline, counted) = (worker.deadline(), counted(worker));
        worker.state = state;
        cx.changes.worker(self.id, id);
        cx.rearm(Key::Worker(self.id, id), deadline, worker.deadline());
        self.counts = self.counts.minus(counted).plus(self::counted(worker));
    }

    fn remove(&mut self, cx: &mut Shared, id: WorkerId) -> Option<Worker> {
        let worker = self.workers.remove(&id)?;
        cx.owners.remove(&id);
        cx.rearm(Key::Worker(self.id, id), worker.deadline(), None);
        cx.changes.worker(self.id, id);
        self.counts = self.counts.minus(counted(&worker));
        self.standbys.all.remove(&id);
        Some(worker)
    }

    pub(crate) fn spawned(&mut self, cx: &mut Shared, id: WorkerId, pid: Pid) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let State::Spawning { then_stop } = worker.state else { return };
        worker.pid = Some(pid);
        worker.started_at = cx.now;
        let (slot, generation) = (worker.slot, worker.generation);
        let wait = worker.until_ready();
        self.emit(cx, None, What::WorkerStarted { worker: id, slot, pid, generation });
        match slot {
            Some(slot) => self.backoff_ends(cx, slot, then_stop.is_none()),
            None => self.standby_runs(cx, then_stop.is_none()),
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
        let (slot, reason) = (worker.slot, bounded(reason));
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
        let failure = (then_stop.is_none() && !self.goes_home()).then_some(Failure { reason, proved: false });
        self.gone(cx, id, slot, failure.as_ref(), false);
    }

    pub(crate) fn told_ready(&mut self, cx: &mut Shared, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        if !matches!(worker.spec.ready, Ready::After(_)) {
            self.become_ready(cx, id);
        }
    }

    pub(crate) fn told_unseen(&mut self, cx: &mut Shared, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let watched = worker.slot.is_some() && worker.spec.ready == Ready::Accepting;
        if matches!(worker.state, State::Starting { .. }) && watched {
            self.never_ready(cx, id, Why::Unseen);
        }
    }

    fn never_ready(&mut self, cx: &mut Shared, id: WorkerId, why: Why) {
        self.stop(cx, id, why);
        if let Some(slot) = self.slot_of(id) {
            self.successor_failed(cx, id, slot, &why.to_string());
        }
    }

    fn slot_of(&self, id: WorkerId) -> Option<Slot> {
        self.workers.get(&id)?.slot
    }

    /// Whoever starts in a slot; of others it means nothing.
    fn become_ready(&mut self, cx: &mut Shared, id: WorkerId) {
        let now = cx.now;
        let Some(worker) = self.workers.get_mut(&id) else { return };
        let (Some(pid), Some(slot), Some(due)) = (worker.pid, worker.slot, worker.is_due()) else {
            return;
        };
        let after = worker.took(now, due);
        worker.ready_after = Some(after);
        worker.promoted = false;
        self.set_state(cx, id, State::Ready { since: now, proven_at: None });
        self.prove(cx, slot, id);
        self.emit(cx, None, What::WorkerReady { worker: id, slot, pid, after });
        self.successor_ready(cx, id, slot);
        self.check_goals(cx);
    }

    /// Lets a ready worker clear its slot's failures, if there are any, once it has stayed for `healthy_after`.
    pub(crate) fn prove(&mut self, cx: &mut Shared, slot: Slot, id: WorkerId) {
        let failures = self.places.get(slot.0 as usize).map_or(0, |place| place.failures);
        let state = self.workers.get(&id).map(|worker| worker.state);
        if let Some(State::Ready { since, .. }) = state {
            let proven_at = (failures > 0).then_some(since + self.spec.backoff.healthy_after);
            self.set_state(cx, id, State::Ready { since, proven_at });
        }
    }

    /// A worker's deadline has come.
    pub(crate) fn worker_due(&mut self, cx: &mut Shared, id: WorkerId) {
        let Some(worker) = self.workers.get(&id) else { return };
        let slot = worker.slot;
        match worker.state {
            State::Spawning { .. } => {}
            State::Starting { .. } | State::Standby { .. } | State::Ready { .. }
                if worker.should_have_left(cx.now) =>
            {
                self.fails(cx, id, Why::HungUp);
            }
            State::Starting { .. } if slot.is_none() => {
                let deadline = worker.spec.recycle.deadline;
                self.never_ready(cx, id, Why::NotAtTheDoor { deadline });
            }
            State::Standby { since, .. } => self.standby_proved(cx, id, since),
            State::Starting { .. } => match worker.spec.ready {
                Ready::After(_) => self.become_ready(cx, id),
                ready @ (Ready::Notify | Ready::Accepting | Ready::Listening) => {
                    let deadline = worker.spec.recycle.deadline;
                    self.never_ready(cx, id, Why::NotReady { deadline, ready });
                }
            },
            State::Ready { since, .. } => {
                self.set_state(cx, id, State::Ready { since, proven_at: None });
                if let Some(slot) = slot.filter(|slot| self.serves(*slot, id)) {
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
            (State::Starting { .. } | State::Standby { .. } | State::Ready { .. }, Some(pid)) => {
                let (slot, reason) = (worker.slot, why.to_string());
                self.emit(cx, None, What::WorkerStopping { worker: id, slot, pid, reason });
                self.climb(cx, id, why, 0);
            }
            (
                State::Spawning { .. }
                | State::Starting { .. }
                | State::Standby { .. }
                | State::Ready { .. }
                | State::Stopping { .. },
                _,
            ) => {}
        }
    }

    /// Takes this rung of its ladder or the next one that it has, or kills it.
    pub(crate) fn climb(&mut self, cx: &mut Shared, id: WorkerId, why: Why, rung: usize) {
        let Some(worker) = self.workers.get(&id) else { return };
        let ear = match (why, worker.channel) {
            (Why::Hung, _) => Ear::Hung,
            (_, Channel::Open) => Ear::Hears,
            (_, Channel::Silent | Channel::Closed { .. }) => Ear::Deaf,
        };
        let (rung, step) = worker.spec.stop.step(rung, ear);
        let number = u32::try_from(rung).unwrap_or(u32::MAX);
        let (effect, wait) = match step {
            Step::Notice(wait) if !self.brutal => (Effect::Notice { worker: id, rung: number }, Some(wait)),
            Step::Signal(signal, wait) if !self.brutal => {
                (Effect::Signal { worker: id, signal, rung: number }, Some(wait))
            }
            Step::Notice(_) | Step::Signal(..) | Step::Kill => (Effect::KillTree { worker: id }, None),
        };
        cx.effects.push(effect);
        let (forced, escalate_at) = (wait.is_none(), wait.map(|wait| cx.now + wait));
        self.set_state(cx, id, State::Stopping { why, rung, escalate_at, forced });
    }

    /// A worker has said something on its channel.
    pub(crate) fn spoke(&mut self, cx: &mut Shared, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.channel == Channel::Silent {
            worker.channel = Channel::Open;
            cx.changes.worker(self.id, id);
        }
    }

    /// A worker has closed its channel: it is leaving, or has lost its way. One that was asked by a message has no more
    /// time than one that was not asked.
    pub(crate) fn hung_up(&mut self, cx: &mut Shared, id: WorkerId) {
        let Some(worker) = self.workers.get_mut(&id) else { return };
        if worker.channel != Channel::Open {
            return;
        }
        let leave_by = cx.now + AFTER_HANG_UP;
        let (before, counts) = (worker.deadline(), counted(worker));
        worker.channel = Channel::Closed { leave_by };
        if let State::Stopping { rung, escalate_at: Some(at), .. } = &mut worker.state
            && worker.spec.stop.is_notice(*rung)
        {
            let at_most = leave_by.min(*at);
            *at = at_most;
        }
        let (slot, after) = (worker.slot, worker.deadline());
        self.counts = self.counts.minus(counts).plus(counted(worker));
        cx.changes.worker(self.id, id);
        cx.rearm(Key::Worker(self.id, id), before, after);
        if let Some(slot) = slot {
            self.give_way(cx, slot, id);
        }
    }

    /// Nobody listens to a worker any more: it is of no use.
    pub(crate) fn garbled(&mut self, cx: &mut Shared, id: WorkerId) {
        self.fails(cx, id, Why::Garbled);
    }

    /// Nobody wants it.
    pub(crate) fn refused(&mut self, cx: &mut Shared, id: WorkerId) {
        self.fails(cx, id, Why::Refused);
    }

    /// It hears nothing.
    pub(crate) fn hung(&mut self, cx: &mut Shared, id: WorkerId) {
        self.fails(cx, id, Why::Hung);
    }

    /// A worker that nobody has asked to leave is, since it does not do what it should.
    fn fails(&mut self, cx: &mut Shared, id: WorkerId, why: Why) {
        let Some(worker) = self.workers.get(&id) else { return };
        match worker.state {
            State::Starting { .. } => self.never_ready(cx, id, why),
            State::Ready { .. } => {
                let Some(slot) = worker.slot else { return };
                // What it has proved counts, though it is told only when it is gone.
                if self.serves(slot, id) && worker.proved(cx.now, self.spec.backoff.healthy_after) {
                    self.set_failures(cx, slot, 0, "");
                }
                self.stop(cx, id, why);
                let reason = why.to_string();
                self.successor_failed(cx, id, slot, &reason);
                self.give_way(cx, slot, id);
            }
            State::Spawning { .. } | State::Standby { .. } => self.stop(cx, id, why),
            State::Stopping { .. } => {}
        }
    }

    /// Kills every worker that is not killed yet, wherever it is on its ladder.
    pub(crate) fn kill_all(&mut self, cx: &mut Shared) {
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            match self.workers.get(&id).map(|worker| worker.state) {
                Some(State::Stopping { why, rung, forced: false, .. }) => self.climb(cx, id, why, rung),
                Some(
                    State::Spawning { .. }
                    | State::Starting { .. }
                    | State::Standby { .. }
                    | State::Ready { .. },
                ) => {
                    self.stop(cx, id, Why::AppStops);
                }
                Some(State::Stopping { forced: true, .. }) | None => {}
            }
        }
    }

    pub(crate) fn exited(&mut self, cx: &mut Shared, id: WorkerId, exit: Exit) {
        let Some(worker) = self.remove(cx, id) else { return };
        let slot = worker.slot;
        let forced = matches!(worker.state, State::Stopping { forced: true, .. });
        let unready = matches!(worker.state, State::Starting { .. });
        let home = self.goes_home();
        let proved = worker.proved(cx.now, self.spec.backoff.healthy_after);
        let (death, reason) = match worker.leaving() {
            Some(why) if why.is_failure() => (true, why.to_string()),
            Some(why) => (false, why.to_string()),
            None if home => (false, exit.to_string()),
            None if exit == Exit::Code(0) => (false, "left by itself".to_owned()),
            None => (true, exit.to_string()),
        };
        let failed = match worker.leaving() {
            Some(why) => why.is_failure(),
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
                pid: worker.pid,
                exit: Some(exit),
                forced,
                reason: reason.clone(),
            };
            self.emit(cx, None, what);
        } else {
            let pid = worker.pid.unwrap_or_default();
            let what = What::WorkerEnded { worker: id, slot, pid, exit, forced, reason: reason.clone() };
            self.emit(cx, None, what);
        }
        let reason = if death { reason } else { exit.to_string() };
        let reason = if unready { format!("{reason} before it was ready") } else { reason };
        if unready && failed && !death {
            self.note_failure(id, slot, &reason);
        }
        self.gone(cx, id, slot, failed.then_some(Failure { reason, proved }).as_ref(), forced);
    }

    /// Whether every exit is one that was asked for.
    fn goes_home(&self) -> bool {
        matches!(self.phase, Phase::Draining(_) | Phase::Drained)
    }

    fn note_death(&mut self, id: WorkerId, slot: Option<Slot>, reason: &str) {
        self.deaths += 1;
        self.note_failure(id, slot, reason);
    }

    fn note_failure(&mut self, id: WorkerId, slot: Option<Slot>, reason: &str) {
        self.last_failure = Some(LastFailure { worker: id, slot, reason: reason.to_owned() });
    }

    /// A worker has left the table: its slot, the recycle and the drain go on without it.
    fn gone(
        &mut self,
        cx: &mut Shared,
        id: WorkerId,
        slot: Option<Slot>,
        failure: Option<&Failure>,
        forced: bool,
    ) {
        let Some(slot) = slot else { return self.standby_gone(cx, failure.is_some()) };
        let served = self.serves(slot, id);
        if served && let Some(place) = self.place(cx, slot) {
            place.worker = None;
            self.serve_if_empty(cx, slot);
        }
        // A successor that fails is the slot's failure only if it was all that the slot had.
        let empty = self.places.get(slot.0 as usize).is_some_and(|place| place.worker.is_none());
        if let Some(failure) = failure
            && (served || empty)
        {
            let before = self.places.get(slot.0 as usize).map_or(0, |place| place.failures);
            let failures = if failure.proved { 1 } else { before.saturating_add(1) };
            self.set_failures(cx, slot, failures, &failure.reason);
        }
        // A successor on trial may have taken over: what it now has to outlive is the slot's failures.
        if let Some(server) = self.places.get(slot.0 as usize).and_then(|place| place.worker) {
            self.prove(cx, slot, server);
        }
        if served {
            // Before the recycle takes what is there for another slot.
            self.fill(cx, slot);
        }
        self.recycle_gone(cx, id, slot, failure.map(|failure| failure.reason.as_str()), forced);
        self.fill(cx, slot);
        self.drain_on(cx);
        self.check_goals(cx);
    }
}

/// Why a slot lost its worker without anybody asking for it.
struct Failure {
    reason: String,
    /// It had been ready long enough to start counting anew.
    proved: bool,
}

/// For one that has closed its channel to leave (okanjo-app-broker asks again after this time).
const AFTER_HANG_UP: Duration = Duration::from_secs(1);
