//! Recycle: replaces workers by new ones, ready before retire, a few at a time, and stops when the new ones fail.
//!
//! A slot under way is a [`Move`]. With `surge` the successor starts first; with `unavailable` alone the
//! predecessor leaves first. A predecessor counts against the limit until it is gone, so `surge` bounds memory too.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::broker::{Broker, Phase};
use crate::effect::{Done, Failed, Outcome};
use crate::event::What;
use crate::id::{Generation, RequestId, Slot, WorkerId};
use crate::shared::{Key, Shared};
use crate::spec::BrokerSpec;
use crate::time::Time;
use crate::worker::{State, Why};

pub(crate) struct Recycle {
    requests: Vec<RequestId>,
    target: Generation,
    pending: BTreeSet<Slot>,
    under_way: BTreeMap<Slot, Move>,
    total: u32,
    replaced: u32,
    cut: u32,
    /// It undoes a failed one: if it fails too, nothing more is tried.
    back: bool,
}

/// A slot whose worker is being replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Move {
    limit: Limit,
    stage: Stage,
}

/// Which limit it counts against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Limit {
    Surge,
    Unavailable,
    /// None: the slot was empty.
    Free,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
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

/// The recycle after this one.
pub(crate) struct Queued {
    requests: Vec<RequestId>,
    scope: Scope,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Scope {
    All,
    Some(BTreeSet<Slot>),
}

impl Recycle {
    pub(crate) fn moves(&self, slot: Slot) -> bool {
        self.under_way.contains_key(&slot)
    }

    pub(crate) fn succeeds(&self, slot: Slot, worker: WorkerId) -> bool {
        self.under_way.get(&slot).is_some_and(|moved| moved.successor() == Some(worker))
    }

    /// Whether the slot's turn has come: `None` if it is not this recycle's business, else whether to spawn.
    pub(crate) fn wants_spawn(&self, slot: Slot, serving: Option<WorkerId>) -> Option<bool> {
        match self.under_way.get(&slot) {
            Some(moved) => Some(moved.stage == Stage::Queued),
            None => (serving.is_none() && self.pending.contains(&slot)).then_some(true),
        }
    }

    pub(crate) fn successor_asked(&mut self, slot: Slot, successor: WorkerId) {
        let limit = self.under_way.get(&slot).map_or(Limit::Free, |moved| moved.limit);
        self.pending.remove(&slot);
        self.under_way.insert(slot, Move { limit, stage: Stage::Starting(successor) });
    }

    fn count(&self, limit: Limit) -> usize {
        self.under_way.values().filter(|moved| moved.limit == limit).count()
    }

    fn is_done(&self) -> bool {
        self.pending.is_empty() && self.under_way.is_empty()
    }
}

impl Move {
    fn successor(self) -> Option<WorkerId> {
        match self.stage {
            Stage::Starting(id) | Stage::Proving(id, _) => Some(id),
            Stage::Retiring(_) | Stage::Queued | Stage::Leaving(_) => None,
        }
    }

    fn deadline(self) -> Option<Time> {
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
            let reason = format!("`{}` has no slot {slot}: it has {} workers", self.spec.name, self.wanted);
            return cx.reply(request, Outcome::Refused(reason));
        }
        let note = match self.phase {
            Phase::Waiting { .. } => Some("nothing to recycle: waits for its listeners"),
            Phase::Draining(_) | Phase::Drained => Some("nothing to recycle: drained"),
            Phase::Open if self.wanted == 0 => Some("nothing to recycle: no workers are wanted"),
            Phase::Open => None,
        };
        if note.is_some() {
            return cx.reply(request, Outcome::Done(Done { note, ..Done::default() }));
        }
        let scope = slot.map_or(Scope::All, |slot| Scope::Some(BTreeSet::from([slot])));
        if self.recycle.is_some() {
            self.queue_recycle(request, scope);
        } else {
            self.start_recycle(cx, vec![request], scope, "asked");
        }
    }

    fn queue_recycle(&mut self, request: RequestId, scope: Scope) {
        match &mut self.queued {
            None => self.queued = Some(Queued { requests: vec![request], scope }),
            Some(queued) => {
                queued.requests.push(request);
                match (&mut queued.scope, scope) {
                    (Scope::Some(slots), Scope::Some(more)) => slots.extend(more),
                    (all, _) => *all = Scope::All,
                }
            }
        }
    }

    pub(crate) fn arm_recycle(&mut self, cx: &mut Shared) {
        let at = self.spec.recycle.every.map(|every| cx.now + cx.rng.jitter(every, self.spec.recycle.jitter));
        cx.rearm(Key::Recycle(self.id), self.recycle_at, at);
        self.recycle_at = at;
    }

    pub(crate) fn recycle_due(&mut self, cx: &mut Shared) {
        self.recycle_at = None;
        self.arm_recycle(cx);
        if self.recycle.is_none() && self.wanted > 0 {
            self.start_recycle(cx, Vec::new(), Scope::All, "by time");
        }
    }

    /// Runs another specification from now on: a new generation.
    pub(crate) fn respecify(&mut self, cx: &mut Shared, request: RequestId, spec: BrokerSpec) {
        if self.recycle.is_some() {
            let reason = format!("`{}` is being recycled; try again when that has ended", self.spec.name);
            return cx.reply(request, Outcome::Refused(reason));
        }
        if spec.listens != self.spec.listens || spec.name != self.spec.name {
            let reason = format!("`{}`: name and listeners cannot change while it runs", self.spec.name);
            return cx.reply(request, Outcome::Refused(reason));
        }
        let workers = spec.workers;
        self.adopt_spec(Arc::new(spec));
        if workers != self.wanted {
            self.scale(cx, None, workers);
        }
        if self.phase == Phase::Open {
            self.arm_recycle(cx);
        }
        // While drained there is nothing to replace: the recycle is over as soon as it has begun.
        self.start_recycle(cx, vec![request], Scope::All, "new specification");
    }

    fn adopt_spec(&mut self, spec: Arc<BrokerSpec>) {
        let newest = self.specs.keys().next_back().copied().unwrap_or_default().max(self.target);
        self.target = Generation(newest.0 + 1);
        self.specs.insert(self.target, Arc::clone(&spec));
        self.spec = spec;
    }

    fn start_recycle(&mut self, cx: &mut Shared, requests: Vec<RequestId>, scope: Scope, why: &'static str) {
        let open = self.phase == Phase::Open;
        let pending: BTreeSet<Slot> = match scope {
            _ if !open => BTreeSet::new(),
            Scope::All => self.slots().collect(),
            Scope::Some(slots) => slots.into_iter().filter(|slot| slot.0 < self.wanted).collect(),
        };
        let total = u32::try_from(pending.len()).unwrap_or(u32::MAX);
        let (target, first) = (self.target, requests.first().copied());
        self.emit(cx, first, What::RecycleStarted { target, total, reason: why });
        let slots: Vec<Slot> = pending.iter().copied().collect();
        self.recycle = Some(Recycle {
            requests,
            target,
            pending,
            under_way: BTreeMap::new(),
            total,
            replaced: 0,
            cut: 0,
            back: why == GOING_BACK,
        });
        // Whoever asks for a recycle has mended something: empty slots do not wait for their back-off.
        for slot in slots {
            if self.place(slot).is_some_and(|place| place.worker.is_none()) {
                self.retry_now(cx, slot);
            }
        }
        self.recycle_on(cx);
    }

    fn retry_now(&mut self, cx: &mut Shared, slot: Slot) {
        let id = self.id;
        self.set_failures(cx, slot, 0, "");
        let Some(place) = self.place(slot) else { return };
        if let Some(until) = place.end_backoff() {
            cx.rearm(Key::Slot(id, slot), Some(until), None);
        }
        self.fill(cx, slot);
    }

    // Going on.

    /// Starts as many moves as the limits allow; ends the recycle when none is left.
    pub(crate) fn recycle_on(&mut self, cx: &mut Shared) {
        let id = self.id;
        let (surge, unavailable) = (self.spec.recycle.surge, self.spec.recycle.unavailable);
        while let Some(recycle) = &mut self.recycle {
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
            if surging {
                recycle.pending.remove(&slot);
                recycle.under_way.insert(slot, Move { limit: Limit::Surge, stage: Stage::Queued });
                cx.budget.ask(id, slot, false);
                continue;
            }
            let serving =
                self.workers.get(&old).is_some_and(|worker| matches!(worker.state, State::Ready { .. }));
            if serving && self.counts.ready <= self.wanted.saturating_sub(unavailable) {
                return;
            }
            recycle.pending.remove(&slot);
            recycle.under_way.insert(slot, Move { limit: Limit::Unavailable, stage: Stage::Retiring(old) });
            if let Some(place) = self.place(slot) {
                place.worker = None;
            }
            self.stop(cx, old, Why::Recycled);
        }
    }

    pub(crate) fn successor_ready(&mut self, cx: &mut Shared, id: WorkerId, slot: Slot) {
        let min_ready = self.spec.recycle.min_ready;
        let Some(recycle) = &mut self.recycle else { return };
        let Some(moved) = recycle.under_way.get_mut(&slot) else { return self.recycle_on(cx) };
        if moved.stage != Stage::Starting(id) {
            return;
        }
        if min_ready.is_zero() {
            return self.promote(cx, slot, id);
        }
        let until = cx.now + min_ready;
        moved.stage = Stage::Proving(id, until);
        cx.rearm(Key::Move(self.id, slot), None, Some(until));
    }

    /// A successor has stayed ready for `min_ready`.
    pub(crate) fn move_due(&mut self, cx: &mut Shared, slot: Slot) {
        let moved = self.recycle.as_ref().and_then(|recycle| recycle.under_way.get(&slot));
        if let Some(Move { stage: Stage::Proving(id, _), .. }) = moved {
            let id = *id;
            self.promote(cx, slot, id);
        }
    }

    /// The successor serves from now on; its predecessor is asked to leave.
    fn promote(&mut self, cx: &mut Shared, slot: Slot, successor: WorkerId) {
        let old = self.place(slot).and_then(|place| place.worker.replace(successor));
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
        match moved.stage {
            Stage::Leaving(old) if old == id => {
                recycle.under_way.remove(&slot);
                recycle.cut += u32::from(forced);
                self.recycle_on(cx);
            }
            Stage::Retiring(old) if old == id => {
                moved.stage = Stage::Queued;
                recycle.cut += u32::from(forced);
                cx.budget.ask(self.id, slot, false);
            }
            Stage::Starting(successor) | Stage::Proving(successor, _) if successor == id => {
                let reason = failure.unwrap_or("left before it was ready").to_owned();
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

    // Ending.

    fn finish_recycle(&mut self, cx: &mut Shared) {
        let Some(Recycle { requests, target, total, replaced, cut, .. }) = self.recycle.take() else {
            return;
        };
        self.generation = target;
        self.specs.retain(|generation, _| {
            *generation == target || self.workers.values().any(|worker| worker.generation == *generation)
        });
        let first = requests.first().copied();
        self.emit(cx, first, What::RecycleFinished { target, total, replaced, cut });
        for request in requests {
            cx.reply(request, Outcome::Done(Done { total, replaced, cut, ..Done::default() }));
        }
        self.next_recycle(cx);
    }

    fn next_recycle(&mut self, cx: &mut Shared) {
        if let Some(Queued { requests, scope }) = self.queued.take() {
            self.start_recycle(cx, requests, scope, "asked");
        }
    }

    /// A successor will not become ready.
    pub(crate) fn successor_failed(&mut self, cx: &mut Shared, id: WorkerId, slot: Slot, reason: &str) {
        if self.recycle.as_ref().is_some_and(|recycle| recycle.succeeds(slot, id)) {
            self.fail_recycle(cx, Some(id), Some(slot), reason);
        }
    }

    /// A slot that this recycle has filled keeps failing: what it brings in is bad.
    pub(crate) fn target_fails(&mut self, cx: &mut Shared, slot: Slot, reason: &str) {
        let filled = self.recycle.as_ref().is_some_and(|recycle| {
            !recycle.pending.contains(&slot) && !recycle.moves(slot) && recycle.replaced > 0
        });
        if filled {
            self.fail_recycle(cx, None, Some(slot), reason);
        }
    }

    /// Stops the recycle: no further predecessor is retired, successors that do not serve yet are ended. A new
    /// generation is given up: its workers are replaced by workers of the last good specification.
    fn fail_recycle(&mut self, cx: &mut Shared, worker: Option<WorkerId>, slot: Option<Slot>, reason: &str) {
        let Some(recycle) = self.recycle.take() else { return };
        self.end_moves(cx, &recycle, Why::RecycleFailed);
        let Recycle { requests, target, total, replaced, under_way, back, .. } = recycle;
        if back {
            self.generation = target;
        }
        let (first, generation) = (requests.first().copied(), self.generation);
        let reason = reason.to_owned();
        let what =
            What::RecycleFailed { target, generation, total, replaced, worker, slot, reason: reason.clone() };
        self.emit(cx, first, what);
        for request in requests {
            let failed = Failed { reason: reason.clone(), total, replaced, worker, slot };
            cx.reply(request, Outcome::Failed(failed));
        }
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
    }

    /// Ends the successors that do not serve yet.
    fn end_moves(&mut self, cx: &mut Shared, recycle: &Recycle, why: Why) {
        for (slot, moved) in &recycle.under_way {
            cx.rearm(Key::Move(self.id, *slot), moved.deadline(), None);
            if let Some(successor) = moved.successor() {
                self.stop(cx, successor, why);
            }
        }
    }

    /// Returns to the last good specification, under a new number.
    fn go_back(&mut self, cx: &mut Shared, failed: Generation) {
        let Some(good) = self.specs.get(&self.generation).cloned() else { return };
        self.adopt_spec(good);
        if self.spec.workers != self.wanted {
            let workers = self.spec.workers;
            self.scale(cx, None, workers);
        }
        let slots = self
            .slots()
            .zip(&self.places)
            .filter(|(_, place)| {
                let serving = place.worker.and_then(|id| self.workers.get(&id));
                serving.is_some_and(|worker| worker.generation == failed)
            })
            .map(|(slot, _)| slot)
            .collect();
        self.start_recycle(cx, Vec::new(), Scope::Some(slots), GOING_BACK);
    }

    /// Ends this recycle and the next, because all workers are sent home.
    pub(crate) fn abandon_recycles(&mut self, cx: &mut Shared, why: &str) {
        if let Some(recycle) = self.recycle.take() {
            self.end_moves(cx, &recycle, Why::Drained);
            let Recycle { requests, target, total, replaced, back, .. } = recycle;
            if back {
                self.generation = target;
            }
            let (first, generation, reason) = (requests.first().copied(), self.generation, why.to_owned());
            let what =
                What::RecycleFailed { target, generation, total, replaced, worker: None, slot: None, reason };
            self.emit(cx, first, what);
            for request in requests {
                cx.reply(request, Outcome::Superseded(why.to_owned()));
            }
        }
        if let Some(Queued { requests, .. }) = self.queued.take() {
            for request in requests {
                cx.reply(request, Outcome::Superseded(why.to_owned()));
            }
        }
    }
}

/// The reason of a recycle that undoes a failed one.
const GOING_BACK: &str = "going back";
