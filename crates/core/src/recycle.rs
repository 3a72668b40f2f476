//! Recycle: replaces workers by new ones, ready before retire, a few at a time, and stops when the new ones fail.
//!
//! A slot under way is a [`Move`]. With `surge` the successor starts first; with `unavailable` alone the
//! predecessor leaves first. A predecessor counts against the limit until it is gone, so `surge` bounds memory too.
//! How a recycle ends is in `verdict`.

use std::collections::{BTreeMap, BTreeSet};

use crate::broker::{Broker, Phase};
use crate::effect::{Done, Note, Outcome};
use crate::event::{RecycleReason, What};
use crate::id::{BrokerId, RequestId, Slot, WorkerId};
use crate::requests::Waits;
use crate::shared::{Key, Shared};
use crate::slots::Place;
use crate::time::Time;
use crate::worker::{Why, Worker};

/// A recycle under way, to the broker's target.
#[derive(Clone)]
pub(crate) struct Recycle {
    pub(crate) pending: BTreeSet<Slot>,
    pub(crate) under_way: BTreeMap<Slot, Move>,
    pub(crate) total: u32,
    pub(crate) replaced: u32,
    pub(crate) cut: u32,
    /// It undoes a failed one: if it fails too, nothing more is tried.
    pub(crate) back: bool,
}

/// A slot whose worker is being replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Move {
    pub(crate) limit: Limit,
    pub(crate) stage: Stage,
}

/// Which limit it counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Limit {
    Surge,
    Unavailable,
    /// None: the slot was empty.
    Free,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// The predecessor must go first.
    Retiring(WorkerId),
    /// Waits for the spawn budget.
    Queued,
    /// Not ready yet.
    Starting(WorkerId),
    /// Ready, and must stay so until then.
    Proving(WorkerId, Time),
    /// The successor serves; the predecessor is leaving.
    Leaving(WorkerId),
}

/// Which slots a recycle is about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    All,
    Some(BTreeSet<Slot>),
}

impl Recycle {
    /// Whether a move decides over the slot's next worker. Once the successor serves, it no longer does: a successor
    /// that dies is replaced at once, however long its predecessor takes to leave.
    pub(crate) fn holds(&self, slot: Slot) -> bool {
        self.under_way.get(&slot).is_some_and(|moved| !matches!(moved.stage, Stage::Leaving(_)))
    }

    /// Whether it neither is to touch a slot any more nor is about to.
    pub(crate) fn is_elsewhere(&self, slot: Slot) -> bool {
        !self.pending.contains(&slot) && !self.holds(slot)
    }

    pub(crate) fn succeeds(&self, slot: Slot, worker: WorkerId) -> bool {
        self.under_way.get(&slot).is_some_and(|moved| moved.successor() == Some(worker))
    }

    /// Whether a move of this slot waits for its spawn.
    pub(crate) fn wants_successor(&self, slot: Slot) -> bool {
        self.under_way.get(&slot).is_some_and(|moved| moved.stage == Stage::Queued)
    }

    /// Whether the next worker of this slot is part of this recycle: also that of an empty slot whose turn comes.
    pub(crate) fn concerns(&self, slot: Slot) -> bool {
        self.holds(slot) || self.pending.contains(&slot)
    }

    pub(crate) fn successor_asked(&mut self, slot: Slot, successor: WorkerId) {
        let limit = self.under_way.get(&slot).map_or(Limit::Free, |moved| moved.limit);
        self.pending.remove(&slot);
        self.under_way.insert(slot, Move { limit, stage: Stage::Starting(successor) });
    }

    fn count(&self, limit: Limit) -> usize {
        self.under_way.values().filter(|moved| moved.limit == limit).count()
    }

    fn proving(&self) -> u32 {
        let proving =
            self.under_way.values().filter(|moved| matches!(moved.stage, Stage::Proving(..))).count();
        u32::try_from(proving).unwrap_or(u32::MAX)
    }

    fn is_done(&self) -> bool {
        self.pending.is_empty() && self.under_way.is_empty()
    }

    /// All its slots change: it begins or ends.
    pub(crate) fn mark(&self, cx: &mut Shared, broker: BrokerId) {
        for slot in self.pending.iter().chain(self.under_way.keys()) {
            cx.changes.slot(broker, *slot);
        }
    }
}

impl Scope {
    /// The slots it names change.
    pub(crate) fn mark(&self, cx: &mut Shared, broker: BrokerId) {
        if let Scope::Some(slots) = self {
            for slot in slots {
                cx.changes.slot(broker, *slot);
            }
        }
    }
}

impl Move {
    pub(crate) fn successor(self) -> Option<WorkerId> {
        match self.stage {
            Stage::Starting(id) | Stage::Proving(id, _) => Some(id),
            Stage::Retiring(_) | Stage::Queued | Stage::Leaving(_) => None,
        }
    }

    pub(crate) fn deadline(self) -> Option<Time> {
        match self.stage {
            Stage::Proving(_, until) => Some(until),
            Stage::Retiring(_) | Stage::Queued | Stage::Starting(_) | Stage::Leaving(_) => None,
        }
    }
}

impl Broker {
    // Beginning.

    pub(crate) fn ask_recycle(&mut self, cx: &mut Shared, request: RequestId, slot: Option<Slot>) {
        if let Some(slot) = slot
            && slot.0 >= self.wanted
        {
            let reason =
                format!("`{}` has no slot {slot}: it keeps {}, from slot 0 on", self.spec.name, self.wanted);
            return cx.reply(request, Outcome::Refused(reason));
        }
        let note = match self.phase {
            Phase::Waiting { .. } => Some(Note::NothingToRecycleWaiting),
            Phase::Closed => Some(Note::NothingToRecycleClosed),
            Phase::Draining(_) if !self.hours.by_hand => Some(Note::NothingToRecycleClosed),
            Phase::Draining(_) | Phase::Drained => Some(Note::NothingToRecycleDrained),
            Phase::Open if self.wanted == 0 => Some(Note::NothingToRecycleNoWorkers),
            Phase::Open => None,
        };
        if note.is_some() {
            return cx.reply(request, Outcome::Done(Done { note, ..Done::default() }));
        }
        let scope = slot.map_or(Scope::All, |slot| Scope::Some(BTreeSet::from([slot])));
        if self.recycle.is_some() {
            cx.park(request, Waits::NextRecycle(self.id));
            self.queue_recycle(cx, scope);
        } else {
            cx.park(request, Waits::Recycle(self.id));
            self.start_recycle(cx, scope, RecycleReason::Asked);
        }
    }

    fn queue_recycle(&mut self, cx: &mut Shared, scope: Scope) {
        scope.mark(cx, self.id);
        self.queued = Some(match (self.queued.take(), scope) {
            (None, scope) => scope,
            (Some(Scope::Some(mut slots)), Scope::Some(more)) => {
                slots.extend(more);
                Scope::Some(slots)
            }
            (Some(before), _) => {
                before.mark(cx, self.id);
                Scope::All
            }
        });
    }

    pub(crate) fn arm_recycle(&mut self, cx: &mut Shared) {
        // "Every nothing" would be due again as soon as it was done.
        let every = self.spec.recycle.every.filter(|every| !every.is_zero());
        let at = every.map(|every| cx.now + self.rng.jitter(every, self.spec.recycle.jitter));
        cx.rearm(Key::Recycle(self.id), self.recycle_at, at);
        self.recycle_at = at;
    }

    pub(crate) fn recycle_due(&mut self, cx: &mut Shared) {
        self.recycle_at = None;
        self.arm_recycle(cx);
        if self.recycle.is_none() && self.wanted > 0 {
            self.start_recycle(cx, Scope::All, RecycleReason::ByTime);
        }
    }

    /// Begins a recycle, for the commands that wait for it.
    pub(crate) fn start_recycle(&mut self, cx: &mut Shared, scope: Scope, why: RecycleReason) {
        let open = self.phase == Phase::Open;
        let pending: BTreeSet<Slot> = match scope {
            _ if !open => BTreeSet::new(),
            Scope::All => self.slots().collect(),
            Scope::Some(slots) => slots.into_iter().filter(|slot| slot.0 < self.wanted).collect(),
        };
        let total = u32::try_from(pending.len()).unwrap_or(u32::MAX);
        let (target, first) = (self.target, cx.requests.first(Waits::Recycle(self.id)));
        self.emit(cx, first, What::RecycleStarted { target, total, reason: why });
        self.renew_standbys(cx);
        let slots: Vec<Slot> = pending.iter().copied().collect();
        let recycle = Recycle {
            pending,
            under_way: BTreeMap::new(),
            total,
            replaced: 0,
            cut: 0,
            back: why == RecycleReason::GoingBack,
        };
        recycle.mark(cx, self.id);
        self.recycle = Some(recycle);
        for slot in slots {
            self.retry_now(cx, slot);
        }
        self.recycle_on(cx);
    }

    /// Fills an empty slot without waiting for its back-off: somebody has mended what made it fail.
    pub(crate) fn retry_now(&mut self, cx: &mut Shared, slot: Slot) {
        let id = self.id;
        if self.places.get(slot.0 as usize).is_none_or(|place| place.worker.is_some()) {
            return;
        }
        self.set_failures(cx, slot, 0, "");
        if let Some(until) = self.place(cx, slot).and_then(Place::end_backoff) {
            cx.rearm(Key::Slot(id, slot), Some(until), None);
        }
        self.fill(cx, slot);
    }

    // Going on.

    /// Starts as many moves as the limits allow; ends the recycle when none is left.
    pub(crate) fn recycle_on(&mut self, cx: &mut Shared) {
        let (surge, unavailable) = (self.spec.recycle.surge, self.spec.recycle.unavailable);
        loop {
            let may_miss_one = self.may_miss_one();
            let Some(recycle) = &mut self.recycle else { return };
            if recycle.is_done() {
                return self.finish_recycle(cx);
            }
            let surging = recycle.count(Limit::Surge) < surge as usize;
            let retiring = unavailable > 0 && recycle.count(Limit::Unavailable) < unavailable as usize;
            if !surging && !retiring {
                return;
            }
            let places = &self.places;
            let next = recycle
                .pending
                .iter()
                .find_map(|slot| Some((*slot, places.get(slot.0 as usize).and_then(|place| place.worker)?)));
            let Some((slot, old)) = next else { return };
            cx.changes.slot(self.id, slot);
            if surging {
                recycle.pending.remove(&slot);
                recycle.under_way.insert(slot, Move { limit: Limit::Surge, stage: Stage::Queued });
                self.seek(cx, slot, true);
                continue;
            }
            let serving = self.workers.get(&old).is_some_and(Worker::serves);
            if serving && !may_miss_one {
                return self.fail_if_blocked(cx);
            }
            recycle.pending.remove(&slot);
            recycle.under_way.insert(slot, Move { limit: Limit::Unavailable, stage: Stage::Retiring(old) });
            if let Some(place) = self.place(cx, slot) {
                place.worker = None;
            }
            self.stop(cx, old, Why::Recycled);
        }
    }

    /// Whether a worker more may be missing.
    pub(crate) fn may_miss_one(&self) -> bool {
        // A successor that is still proving itself makes nobody dispensable: its predecessor goes in its favour.
        let proving = self.recycle.as_ref().map_or(0, Recycle::proving);
        let available = self.counts.ready.saturating_sub(proving);
        available > self.wanted.saturating_sub(self.spec.recycle.unavailable)
    }

    pub(crate) fn successor_ready(&mut self, cx: &mut Shared, id: WorkerId, slot: Slot) {
        let min_ready = self.spec.recycle.min_ready;
        let leave_by = self.workers.get(&id).and_then(Worker::leave_by);
        let Some(recycle) = &mut self.recycle else { return };
        let Some(moved) = recycle.under_way.get_mut(&slot).filter(|moved| moved.stage == Stage::Starting(id))
        else {
            return self.recycle_on(cx);
        };
        // Nobody is lost with a predecessor that does not serve.
        let old = self.places.get(slot.0 as usize).and_then(|place| self.workers.get(&place.worker?));
        let waits = !min_ready.is_zero() && old.is_none_or(Worker::serves);
        if !waits && leave_by.is_none() {
            return self.promote(cx, slot, id);
        }
        let until = leave_by.unwrap_or(cx.now + min_ready);
        moved.stage = Stage::Proving(id, until);
        cx.changes.slot(self.id, slot);
        cx.rearm(Key::Move(self.id, slot), None, Some(until));
        self.serve_if_empty(cx, slot);
    }

    /// A slot that has nobody is served by its successor at once, even while that is still proving itself: then it
    /// is missed, and stays if the recycle fails.
    pub(crate) fn serve_if_empty(&mut self, cx: &mut Shared, slot: Slot) {
        let moved = self.recycle.as_ref().and_then(|recycle| recycle.under_way.get(&slot));
        let Some(Move { stage: Stage::Proving(id, _), .. }) = moved else { return };
        let id = *id;
        let lives = self.workers.contains_key(&id);
        if let Some(place) = self.place(cx, slot).filter(|_| lives) {
            place.worker.get_or_insert(id);
        }
    }

    /// Whoever serves a slot is lost, though its process lives: a successor on trial need not wait any longer.
    pub(crate) fn give_way(&mut self, cx: &mut Shared, slot: Slot, old: WorkerId) {
        let moved = self.recycle.as_ref().and_then(|recycle| recycle.under_way.get(&slot));
        if let Some(Move { stage: Stage::Proving(id, until), .. }) = moved
            && self.serves(slot, old)
            && self.workers.get(id).is_some_and(Worker::serves)
        {
            let (id, until) = (*id, *until);
            cx.rearm(Key::Move(self.id, slot), Some(until), None);
            self.promote(cx, slot, id);
        }
    }

    /// A successor has stayed ready for `min_ready`.
    pub(crate) fn move_due(&mut self, cx: &mut Shared, slot: Slot) {
        let moved = self.recycle.as_ref().and_then(|recycle| recycle.under_way.get(&slot));
        let Some(Move { stage: Stage::Proving(id, _), .. }) = moved else { return };
        let id = *id;
        // Nobody makes way for one that leaves by itself; it fails if it does not.
        let Some(leave_by) = self.workers.get(&id).and_then(Worker::leave_by) else {
            return self.promote(cx, slot, id);
        };
        if let Some(moved) = self.recycle.as_mut().and_then(|recycle| recycle.under_way.get_mut(&slot)) {
            moved.stage = Stage::Proving(id, leave_by);
            cx.changes.slot(self.id, slot);
            cx.rearm(Key::Move(self.id, slot), None, Some(leave_by));
        }
    }

    /// The successor serves from now on; its predecessor is asked to leave.
    fn promote(&mut self, cx: &mut Shared, slot: Slot, successor: WorkerId) {
        let old = self.place(cx, slot).and_then(|place| place.worker.replace(successor));
        let old = old.filter(|old| *old != successor);
        self.prove(cx, slot, successor);
        let Some(recycle) = &mut self.recycle else { return };
        recycle.replaced += 1;
        match (old, recycle.under_way.get_mut(&slot)) {
            (Some(old), Some(moved)) => {
                moved.stage = Stage::Leaving(old);
                self.stop(cx, old, Why::Recycled);
            }
            (Some(_) | None, _) => {
                recycle.under_way.remove(&slot);
            }
        }
        self.recycle_on(cx);
        self.check_goals(cx);
    }

    /// A worker is gone: the move it belongs to goes on, or fails with it.
    pub(crate) fn recycle_gone(
        &mut self,
        cx: &mut Shared,
        id: WorkerId,
        slot: Slot,
        failure: Option<&str>,
        forced: bool,
    ) {
        let Some(recycle) = &mut self.recycle else { return };
        let Some(moved) = recycle.under_way.get_mut(&slot) else { return self.recycle_on(cx) };
        cx.changes.slot(self.id, slot);
        match moved.stage {
            Stage::Leaving(old) if old == id => {
                recycle.under_way.remove(&slot);
                recycle.cut += u32::from(forced);
                self.recycle_on(cx);
            }
            Stage::Retiring(old) if old == id => {
                moved.stage = Stage::Queued;
                recycle.cut += u32::from(forced);
                self.seek(cx, slot, true);
            }
            Stage::Starting(successor) | Stage::Proving(successor, _) if successor == id => {
                let reason = failure.unwrap_or("left while it was on trial").to_owned();
                self.fail_recycle(cx, Some(id), Some(slot), &reason);
            }
            Stage::Leaving(_)
            | Stage::Retiring(_)
            | Stage::Queued
            | Stage::Starting(_)
            | Stage::Proving(..) => self.recycle_on(cx),
        }
    }

    /// A slot no longer exists.
    pub(crate) fn recycle_drops(&mut self, cx: &mut Shared, slot: Slot) {
        if let Some(Scope::Some(slots)) = &mut self.queued {
            slots.remove(&slot);
        }
        let Some(recycle) = &mut self.recycle else { return };
        let moved = recycle.under_way.remove(&slot);
        if (recycle.pending.remove(&slot)
            || moved.is_some_and(|moved| !matches!(moved.stage, Stage::Leaving(_))))
            && recycle.total > 0
        {
            recycle.total -= 1;
        }
        if let Some(moved) = moved {
            cx.rearm(Key::Move(self.id, slot), moved.deadline(), None);
            if let Some(successor) = moved.successor() {
                self.stop(cx, successor, Why::Scaled);
            }
        }
    }
}
