//! The slots of a broker: how an empty one gets its next worker, how failures in a row are counted, how many
//! slots there are. What a worker does once it is asked for is in `life`.

use std::sync::Arc;

use crate::backoff::DEGRADED_AT;
use crate::broker::{Broker, Phase};
use crate::budget::{Queue, Ticket};
use crate::effect::{Done, Effect, Note, Outcome};
use crate::event::What;
use crate::id::{RequestId, Slot, WorkerId};
use crate::requests::Waits;
use crate::shared::{Key, Shared};
use crate::time::Time;
use crate::worker::{Channel, State, Why, Worker};

/// A slot: its serving worker, or why it has none.
#[derive(Clone, Default)]
pub(crate) struct Place {
    pub(crate) worker: Option<WorkerId>,
    /// Failures in a row.
    pub(crate) failures: u32,
    /// The wait before the next worker; kept until that one runs.
    pub(crate) backoff: Option<Backoff>,
    /// Waits for the spawn budget, for its next worker or for the successor in a recycle.
    pub(crate) waits: Option<Ticket>,
}

#[derive(Clone, Copy)]
pub(crate) struct Backoff {
    pub(crate) until: Time,
    /// The next worker is asked for; it does not run yet.
    pub(crate) over: bool,
}

impl Place {
    /// When the wait will be over, if it is not yet.
    pub(crate) fn retry_at(&self) -> Option<Time> {
        self.backoff.filter(|wait| !wait.over).map(|wait| wait.until)
    }

    /// Lets the wait be over; its deadline, if it was still armed.
    pub(crate) fn end_backoff(&mut self) -> Option<Time> {
        let wait = self.backoff.as_mut().filter(|wait| !wait.over)?;
        wait.over = true;
        Some(wait.until)
    }
}

impl Broker {
    pub(crate) fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..u32::try_from(self.places.len()).unwrap_or(u32::MAX)).map(Slot)
    }

    /// A slot, to be changed.
    pub(crate) fn place(&mut self, cx: &mut Shared, slot: Slot) -> Option<&mut Place> {
        cx.changes.slot(self.id, slot);
        self.places.get_mut(slot.0 as usize)
    }

    pub(crate) fn has_worker(&self, slot: Slot) -> bool {
        self.places.get(slot.0 as usize).is_some_and(|place| place.worker.is_some())
    }

    pub(crate) fn serves(&self, slot: Slot, worker: WorkerId) -> bool {
        self.places.get(slot.0 as usize).is_some_and(|place| place.worker == Some(worker))
    }

    /// Gets an empty slot its next worker, at once or after its back-off; does nothing if that is under way.
    pub(crate) fn fill(&mut self, cx: &mut Shared, slot: Slot) {
        if self.phase != Phase::Open || self.recycle.as_ref().is_some_and(|recycle| recycle.holds(slot)) {
            return;
        }
        let id = self.id;
        let Some(place) = self.places.get(slot.0 as usize) else { return };
        if place.worker.is_some() || place.waits.is_some() || place.backoff.is_some_and(|wait| !wait.over) {
            return;
        }
        let failures = place.failures;
        let delay = self.spec.backoff.delay(failures, &mut self.rng);
        if delay.is_zero() {
            return self.seek(cx, slot, failures < DEGRADED_AT);
        }
        let until = cx.now + delay;
        if let Some(place) = self.place(cx, slot) {
            place.backoff = Some(Backoff { until, over: false });
        }
        cx.rearm(Key::Slot(id, slot), None, Some(until));
        self.emit(cx, None, What::WorkerBackoff { slot: Some(slot), retry_at: until, failures });
    }

    pub(crate) fn backoff_over(&mut self, cx: &mut Shared, slot: Slot) {
        let Some(place) = self.place(cx, slot) else { return };
        if let Some(wait) = &mut place.backoff {
            wait.over = true;
            self.ask_budget(cx, slot, true);
        }
    }

    /// Gets a slot that may have it now its next worker: a standby, or one from the spawn budget. A slot that keeps
    /// failing gets no standby.
    pub(crate) fn seek(&mut self, cx: &mut Shared, slot: Slot, healthy: bool) {
        if !(healthy && self.promote_standby(cx, slot)) {
            self.ask_budget(cx, slot, false);
        }
    }

    /// Lets a slot wait for the spawn budget, if it does not yet.
    pub(crate) fn ask_budget(&mut self, cx: &mut Shared, slot: Slot, failing: bool) {
        let id = self.id;
        if let Some(place) = self.place(cx, slot) {
            let queue = if failing { Queue::Failing } else { Queue::Urgent };
            place.waits.get_or_insert_with(|| cx.budget.ask((id, Some(slot)), queue));
        }
    }

    /// Lets a slot wait for the spawn budget no longer.
    pub(crate) fn cancel_ticket(&mut self, cx: &mut Shared, slot: Slot) {
        if let Some(ticket) = self.place(cx, slot).and_then(|place| place.waits.take()) {
            cx.budget.cancel(ticket);
        }
    }

    /// A worker of this slot runs. If it is the one that was waited for, the wait is over; one that only runs to be
    /// stopped leaves it, and the event says so again.
    pub(crate) fn backoff_ends(&mut self, cx: &mut Shared, slot: Slot, stays: bool) {
        let Some(place) = self.place(cx, slot) else { return };
        let failures = place.failures;
        match place.backoff {
            Some(_) if stays => place.backoff = None,
            Some(Backoff { until, .. }) => {
                self.emit(cx, None, What::WorkerBackoff { slot: Some(slot), retry_at: until, failures });
            }
            None => {}
        }
    }

    /// Forgets a slot's waits; the event that makes them void says so.
    pub(crate) fn cancel_backoff(&mut self, cx: &mut Shared, slot: Slot) {
        let id = self.id;
        self.cancel_ticket(cx, slot);
        let Some(place) = self.place(cx, slot) else { return };
        if let Some(Backoff { until, over: false }) = place.backoff.take() {
            cx.rearm(Key::Slot(id, slot), Some(until), None);
        }
    }

    /// The spawn budget allows a worker for this slot; false if it no longer needs one.
    pub(crate) fn grant(&mut self, cx: &mut Shared, slot: Slot) -> bool {
        let open = self.phase == Phase::Open;
        let Some(place) = self.place(cx, slot) else { return false };
        place.waits = None;
        if !open {
            return false;
        }
        let (serving, healthy) = (place.worker, place.failures < DEGRADED_AT);
        let (held, moved) = self
            .recycle
            .as_ref()
            .map_or((false, false), |recycle| (recycle.holds(slot), recycle.wants_successor(slot)));
        // Whoever asked may have been overtaken since: by a drain, a scale, a back-off.
        let wanted = if held { moved } else { serving.is_none() };
        if !wanted {
            return false;
        }
        if self.is_crowded() {
            self.crowded = true;
            return false;
        }
        if (moved || healthy) && self.promote_standby(cx, slot) {
            return false;
        }
        let worker = self.spawn(cx, Some(slot));
        self.take_place(cx, slot, worker);
        true
    }

    /// This is the slot's next worker: its server, or the successor in a recycle.
    pub(crate) fn take_place(&mut self, cx: &mut Shared, slot: Slot, worker: WorkerId) {
        cx.changes.slot(self.id, slot);
        match &mut self.recycle {
            Some(recycle) if recycle.concerns(slot) => recycle.successor_asked(slot, worker),
            Some(_) | None => {
                if let Some(place) = self.place(cx, slot) {
                    place.worker = Some(worker);
                }
            }
        }
    }

    /// As many processes as the slots of a broker may have, those that are leaving included: whoever calls everybody back, or
    /// recycles again and again, while the workers before take their time to leave, must not fill the memory with them. Slots
    /// count as long as somebody is in them: after a scale-down those that stay are not held back by those that leave.
    pub(crate) fn is_crowded(&self) -> bool {
        let processes = self.workers.len() - self.standbys.all.len();
        let has_most = |slots: u32| processes >= 2 * slots as usize + self.spec.recycle.surge as usize;
        has_most(self.wanted) && {
            let slots = self.workers.values().filter_map(|worker| worker.slot);
            has_most(slots.map(|slot| slot.0 + 1).max().unwrap_or(0))
        }
    }

    /// Somebody may have left: the slots that found no room ask again.
    pub(crate) fn ask_again(&mut self, cx: &mut Shared) {
        if !self.crowded || self.is_crowded() {
            return;
        }
        self.crowded = false;
        cx.changes.broker(self.id);
        if self.phase != Phase::Open {
            return;
        }
        for slot in self.slots() {
            let Some(place) = self.places.get(slot.0 as usize) else { return };
            let failing = place.worker.is_none() && place.backoff.is_some_and(|wait| wait.over);
            if self.recycle.as_ref().is_some_and(|recycle| recycle.wants_successor(slot)) {
                self.seek(cx, slot, true);
            } else if failing {
                self.ask_budget(cx, slot, true);
            } else {
                self.fill(cx, slot);
            }
        }
    }

    /// Asks for a worker, or without a slot for a standby.
    pub(crate) fn spawn(&mut self, cx: &mut Shared, slot: Option<Slot>) -> WorkerId {
        let id = cx.next_worker(self.id);
        cx.changes.worker(self.id, id);
        if slot.is_none() {
            self.standbys.all.insert(id);
        }
        self.workers.insert(
            id,
            Worker {
                channel: Channel::Silent,
                slot,
                promoted: false,
                generation: self.target,
                spec: Arc::clone(&self.spec),
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

    /// Sets a slot's failures in a row; the broker is degraded while any slot has two or more.
    pub(crate) fn set_failures(&mut self, cx: &mut Shared, slot: Slot, failures: u32, reason: &str) {
        let Some(before) = self.places.get(slot.0 as usize).map(|place| place.failures) else { return };
        let (was, is) = (before >= DEGRADED_AT, failures >= DEGRADED_AT);
        if before != failures
            && let Some(place) = self.place(cx, slot)
        {
            place.failures = failures;
        }
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
            self.slot_fails(cx, slot, reason);
        }
    }

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
            cx.changes.slot(self.id, slot);
            self.fill(cx, slot);
        }
        self.recycle_on(cx);
        if let Some(request) = request {
            if self.phase == Phase::Open {
                self.try_target(cx);
                cx.park(request, Waits::Full(self.id));
            } else {
                let note = Some(Note::EffectiveOnceOpen);
                cx.reply(request, Outcome::Done(Done { note, ..Done::default() }));
            }
        }
        self.check_goals(cx);
    }
}
