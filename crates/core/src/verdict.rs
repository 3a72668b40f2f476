//! How a recycle ends: finished, failed and taken back, or given up because all workers are sent home.

use crate::backoff::DEGRADED_AT;
use crate::broker::{Broker, Phase};
use crate::effect::{Done, Failed, Note, Outcome};
use crate::event::{RecycleReason, What};
use crate::id::{Slot, WorkerId};
use crate::recycle::{Recycle, Scope, Stage};
use crate::requests::Waits;
use crate::shared::{Key, Shared};
use crate::worker::{Why, Worker};

impl Broker {
    pub(crate) fn finish_recycle(&mut self, cx: &mut Shared) {
        let Some(Recycle { total, replaced, cut, .. }) = self.recycle.take() else { return };
        // With nobody replaced, only those who run it already can have shown that a new specification works.
        let proved = replaced > 0 || self.spec.since == self.good.since || self.target_serves();
        if proved {
            self.settle_on_target();
        }
        let (target, generation, waits) = (self.target, self.generation, Waits::Recycle(self.id));
        let first = cx.requests.first(waits);
        self.emit(cx, first, What::RecycleFinished { target, generation, total, replaced, cut });
        let note = match self.phase {
            Phase::Open if proved => None,
            Phase::Open => Some(Note::NothingToRecycleNoWorkers),
            Phase::Waiting { .. } | Phase::Draining(_) | Phase::Drained | Phase::Closed => {
                Some(Note::EffectiveOnceOpen)
            }
        };
        cx.reply_all(waits, &Outcome::Done(Done { note, total, replaced, cut, ..Done::default() }));
        self.next_recycle(cx);
    }

    fn next_recycle(&mut self, cx: &mut Shared) {
        match self.queued.take() {
            Some(scope) => {
                // Whoever is started by it has all changes.
                self.changed.again &= scope != Scope::All;
                scope.mark(cx, self.id);
                cx.go_on_waiting(Waits::NextRecycle(self.id), Waits::Recycle(self.id));
                self.start_recycle(cx, scope, RecycleReason::Asked);
            }
            None => {
                if !self.recycle_for_changes(cx) {
                    self.go_back_later(cx);
                }
            }
        }
    }

    /// A successor will not become ready.
    pub(crate) fn successor_failed(&mut self, cx: &mut Shared, id: WorkerId, slot: Slot, reason: &str) {
        if self.recycle.as_ref().is_some_and(|recycle| recycle.succeeds(slot, id)) {
            self.fail_recycle(cx, Some(id), Some(slot), reason);
        }
    }

    /// A slot keeps failing. If this recycle has filled it, what it brings in is bad.
    pub(crate) fn slot_fails(&mut self, cx: &mut Shared, slot: Slot, reason: &str) {
        let Some(recycle) = self.recycle.as_ref().filter(|recycle| recycle.is_elsewhere(slot)) else {
            return;
        };
        if recycle.replaced > 0 {
            self.fail_recycle(cx, None, Some(slot), reason);
        } else if self.spec.recycle.surge == 0 && !self.may_miss_one() {
            self.fail_if_blocked(cx);
        }
    }

    /// Nobody may be missed now. A recycle does not wait for a slot that keeps failing and is none of its own.
    pub(crate) fn fail_if_blocked(&mut self, cx: &mut Shared) {
        let Some(recycle) = self.recycle.as_ref().filter(|recycle| recycle.under_way.is_empty()) else {
            return;
        };
        let serves = |id: WorkerId| self.workers.get(&id).is_some_and(Worker::serves);
        let fails = |slot: &Slot| {
            let place = self.places.get(slot.0 as usize);
            place.is_some_and(|place| place.failures >= DEGRADED_AT && !place.worker.is_some_and(serves))
        };
        if let Some(slot) = self.slots().find(|slot| recycle.is_elsewhere(*slot) && fails(slot)) {
            let reason = format!("no worker may be missed, since slot {slot} keeps failing");
            self.fail_recycle(cx, None, Some(slot), &reason);
        }
    }

    /// Stops the recycle: no further predecessor is retired, successors that do not serve yet are ended. A new
    /// generation is given up: its workers are replaced by workers of the last good specification.
    pub(crate) fn fail_recycle(
        &mut self,
        cx: &mut Shared,
        worker: Option<WorkerId>,
        slot: Option<Slot>,
        reason: &str,
    ) {
        let Some(recycle) = self.recycle.take() else { return };
        self.end_moves(cx, &recycle, Why::RecycleFailed);
        let Recycle { total, replaced, under_way, back, .. } = recycle;
        if back {
            self.settle_on_target();
        }
        let waits = Waits::Recycle(self.id);
        let (first, target, generation) = (cx.requests.first(waits), self.target, self.generation);
        let reason = reason.to_owned();
        let what =
            What::RecycleFailed { target, generation, total, replaced, worker, slot, reason: reason.clone() };
        self.emit(cx, first, what);
        cx.reply_all(waits, &Outcome::Failed(Failed { reason, total, replaced, worker, slot }));
        if target != self.generation {
            self.go_back(cx, target);
        } else {
            self.next_recycle(cx);
        }
        // A slot that was only queued has nobody whose exit would fill it.
        for (at, moved) in under_way {
            if moved.stage == Stage::Queued {
                self.fill(cx, at);
            }
        }
        self.check_goals(cx);
    }

    /// Ends the successors that do not serve yet.
    fn end_moves(&mut self, cx: &mut Shared, recycle: &Recycle, why: Why) {
        recycle.mark(cx, self.id);
        for (slot, moved) in &recycle.under_way {
            if moved.stage == Stage::Queued && self.has_worker(*slot) {
                self.cancel_ticket(cx, *slot);
            }
            cx.rearm(Key::Move(self.id, *slot), moved.deadline(), None);
            if let Some(successor) = moved.successor()
                && !self.serves(*slot, successor)
            {
                self.stop(cx, successor, why);
            }
        }
    }

    /// Ends this recycle and the next, because all workers are sent home.
    pub(crate) fn abandon_recycles(&mut self, cx: &mut Shared, why: &str) {
        if let Some(recycle) = self.recycle.take() {
            self.end_moves(cx, &recycle, Why::Drained);
            let Recycle { total, replaced, back, .. } = recycle;
            if back {
                self.settle_on_target();
            }
            let waits = Waits::Recycle(self.id);
            let (first, reason) = (cx.requests.first(waits), why.to_owned());
            let (target, generation) = (self.target, self.generation);
            let what =
                What::RecycleFailed { target, generation, total, replaced, worker: None, slot: None, reason };
            self.emit(cx, first, what);
            cx.reply_all(waits, &Outcome::Superseded(why.to_owned()));
        }
        if let Some(scope) = self.queued.take() {
            scope.mark(cx, self.id);
            cx.reply_all(Waits::NextRecycle(self.id), &Outcome::Superseded(why.to_owned()));
        }
    }
}
