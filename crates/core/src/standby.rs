//! Standbys: workers that are fully started and held at the door, without a slot, until one is needed. How many are
//! missing is looked at after every input; who is promoted, when a slot may have a worker at once.
//!
//! They count apart: their failures are no slot's, and nobody counts on them before they serve.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::backoff::DEGRADED_AT;
use crate::broker::{Broker, Phase};
use crate::budget::{Queue, Ticket};
use crate::effect::Effect;
use crate::event::What;
use crate::id::{Slot, WorkerId};
use crate::shared::{Key, Shared};
use crate::slots::Backoff;
use crate::time::Time;
use crate::worker::{Channel, State, Why, Worker};

/// What a broker knows of its standbys, beside the workers themselves.
#[derive(Clone, Default)]
pub(crate) struct Standbys {
    /// Every worker without a slot, also one that leaves; follows the workers.
    pub(crate) all: BTreeSet<WorkerId>,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// The wait before the next one; kept until that one runs.
    pub(crate) backoff: Option<Backoff>,
    /// The next one waits for the spawn budget.
    pub(crate) waits: Option<Ticket>,
}

impl Standbys {
    /// When the wait will be over, if it is not yet.
    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.backoff.filter(|wait| !wait.over).map(|wait| wait.until)
    }
}

impl Broker {
    /// Asks for the next standby, if one is missing and may come now.
    pub(crate) fn fill_standbys(&mut self, cx: &mut Shared) {
        if !self.wants_standby() || self.standbys.waits.is_some() {
            return;
        }
        let waits = match self.standbys.backoff {
            Some(Backoff { over, .. }) => !over || self.is_standby_being_started(),
            None => self.standbys.failures >= DEGRADED_AT && self.wait_for_standby(cx),
        };
        // After a wait they come one by one.
        if waits {
            return;
        }
        cx.changes.broker(self.id);
        self.standbys.waits = Some(cx.budget.ask((self.id, None), Queue::Standby));
    }

    /// Whether one is missing, and may be started. Those that leave count too: they take room.
    fn wants_standby(&self) -> bool {
        let missing = self.standbys.all.len() < self.spec.standby as usize;
        missing && self.phase == Phase::Open && self.may_try_target()
    }

    /// What is on trial is started by its recycle only.
    fn may_try_target(&self) -> bool {
        self.recycle.is_some() || self.target == self.generation
    }

    fn is_standby_being_started(&self) -> bool {
        let state = |id| self.workers.get(id).map(|worker: &Worker| worker.state);
        self.standbys.all.iter().any(|id| matches!(state(id), Some(State::Spawning { .. })))
    }

    /// Lets the next standby wait for as long as the failures in a row say; false if that is no time.
    fn wait_for_standby(&mut self, cx: &mut Shared) -> bool {
        let failures = self.standbys.failures;
        let delay = self.spec.backoff.delay(failures, &mut self.rng);
        if delay.is_zero() {
            return false;
        }
        let until = cx.now + delay;
        cx.changes.broker(self.id);
        self.drop_standby_ticket(cx);
        cx.rearm(Key::Standby(self.id), self.standbys.retry_at(), Some(until));
        self.standbys.backoff = Some(Backoff { until, over: false });
        self.emit(cx, None, What::WorkerBackoff { slot: None, retry_at: until, failures });
        true
    }

    pub(crate) fn standby_wait_over(&mut self) {
        if let Some(wait) = &mut self.standbys.backoff {
            wait.over = true;
        }
    }

    /// The spawn budget allows a standby; false if none is missing any longer.
    pub(crate) fn grant_standby(&mut self, cx: &mut Shared) -> bool {
        self.standbys.waits = None;
        if !self.wants_standby() {
            return false;
        }
        self.spawn(cx, None);
        self.fill_standbys(cx);
        true
    }

    /// A standby runs. If it is the one that was waited for, the wait is over; one that only runs to be stopped leaves
    /// it, and the event says so again.
    pub(crate) fn standby_runs(&mut self, cx: &mut Shared, stays: bool) {
        let failures = self.standbys.failures;
        match self.standbys.backoff {
            Some(_) if stays => {
                cx.rearm(Key::Standby(self.id), self.standbys.retry_at(), None);
                self.standbys.backoff = None;
            }
            Some(Backoff { until, .. }) => {
                self.emit(cx, None, What::WorkerBackoff { slot: None, retry_at: until, failures });
            }
            None => {}
        }
    }

    /// A standby is fully started, and waits at the door.
    pub(crate) fn told_standby(&mut self, cx: &mut Shared, id: WorkerId) {
        let (now, healthy_after) = (cx.now, self.spec.backoff.healthy_after);
        let failures = self.standbys.failures;
        let Some(worker) = self.workers.get(&id) else { return };
        let (State::Starting { due }, None, Some(pid)) = (worker.state, worker.slot, worker.pid) else {
            return;
        };
        let after = worker.took(now, due);
        let proven_at = (failures > 0).then_some(now + healthy_after);
        self.set_state(cx, id, State::Standby { since: now, proven_at });
        self.emit(cx, None, What::WorkerStandby { worker: id, pid, after });
        // Whoever waits for the spawn budget need not wait any longer.
        if let Some(slot) = cx.budget.first_of(self.id)
            && self.spare().is_some()
        {
            self.cancel_ticket(cx, slot);
            self.grant(cx, slot);
        }
    }

    /// It has stayed at the door for `healthy_after`.
    pub(crate) fn standby_proved(&mut self, cx: &mut Shared, id: WorkerId, since: Time) {
        self.set_state(cx, id, State::Standby { since, proven_at: None });
        self.standbys.failures = 0;
    }

    /// A standby that may serve at once. Whoever is stale was asked to leave when it became so, or is about to be.
    fn spare(&self) -> Option<WorkerId> {
        let serves = |id: &&WorkerId| {
            self.workers.get(id).is_some_and(|worker| {
                let hears = !matches!(worker.channel, Channel::Closed { .. });
                matches!(worker.state, State::Standby { .. }) && worker.generation == self.target && hears
            })
        };
        self.standbys.all.iter().filter(|_| self.may_try_target()).find(serves).copied()
    }

    /// Gives a slot a standby as its next worker; false if there is none, or no room.
    pub(crate) fn promote_standby(&mut self, cx: &mut Shared, slot: Slot) -> bool {
        let Some(id) = self.spare().filter(|_| !self.is_crowded()) else { return false };
        let Some(worker) = self.workers.get_mut(&id) else { return false };
        let Some(pid) = worker.pid else { return false };
        worker.slot = Some(slot);
        worker.promoted = true;
        let due = cx.now + worker.until_ready();
        self.standbys.all.remove(&id);
        self.standbys.failures = 0;
        self.set_state(cx, id, State::Starting { due });
        self.cancel_backoff(cx, slot);
        self.emit(cx, None, What::WorkerPromoted { worker: id, slot, pid });
        cx.effects.push(Effect::Promote { worker: id, slot });
        self.take_place(cx, slot, id);
        true
    }

    /// Those who are there may be stale from now on: they go, and whoever comes after them has all that is new. Somebody
    /// may have mended what made them fail.
    pub(crate) fn renew_standbys(&mut self, cx: &mut Shared) {
        self.forget_standby_waits(cx);
        for id in self.standbys.all.clone() {
            self.stop(cx, id, Why::Recycled);
        }
    }

    /// Lets the next standby come without waiting.
    pub(crate) fn retry_standby_now(&mut self, cx: &mut Shared) {
        cx.rearm(Key::Standby(self.id), self.standbys.retry_at(), None);
        self.standbys.failures = 0;
        self.standby_wait_over();
    }

    /// Forgets what the next standby waits for; the event that makes it void says so.
    pub(crate) fn forget_standby_waits(&mut self, cx: &mut Shared) {
        self.drop_standby_ticket(cx);
        cx.rearm(Key::Standby(self.id), self.standbys.retry_at(), None);
        self.standbys.backoff = None;
        self.standbys.failures = 0;
    }

    fn drop_standby_ticket(&mut self, cx: &mut Shared) {
        if let Some(ticket) = self.standbys.waits.take() {
            cx.budget.cancel(ticket);
        }
    }

    /// A standby has left the table.
    pub(crate) fn standby_gone(&mut self, cx: &mut Shared, failed: bool) {
        // Whoever was given up before a drain says nothing of those who come after it.
        if failed && self.phase == Phase::Open {
            self.standbys.failures = self.standbys.failures.saturating_add(1);
            if self.standbys.failures >= DEGRADED_AT {
                self.wait_for_standby(cx);
            }
        }
        self.drain_on(cx);
    }
}

impl Worker {
    /// How long it may take to serve once it is asked to, or takes by its specification.
    pub(crate) fn until_ready(&self) -> Duration {
        match (self.slot, self.spec.ready) {
            (Some(_), crate::spec::Ready::After(wait)) => wait,
            (_, _) => self.spec.recycle.deadline,
        }
    }

    /// How long it has taken, of the time that ends when it is due.
    pub(crate) fn took(&self, now: Time, due: Time) -> Duration {
        let wait = u64::try_from(self.until_ready().as_nanos()).unwrap_or(u64::MAX);
        now.since(Time(due.0.saturating_sub(wait)))
    }
}
