//! Generations: a broker's specification is replaced by a new one, and by the last good one if the new one fails.
//! The replacing of workers is a recycle like any other.

use std::collections::BTreeSet;
use std::ops::Deref;
use std::sync::Arc;

use crate::broker::{Broker, Phase};
use crate::effect::Outcome;
use crate::event::RecycleReason;
use crate::id::{Generation, RequestId, Slot};
use crate::recycle::Scope;
use crate::requests::Waits;
use crate::shared::{Key, Shared};
use crate::slots::Place;
use crate::spec::BrokerSpec;
use crate::time::Time;

/// A specification and the generation it came with. A later generation that goes back to it shares it.
pub(crate) struct Accepted {
    pub(crate) since: Generation,
    pub(crate) spec: BrokerSpec,
}

impl Deref for Accepted {
    type Target = BrokerSpec;

    fn deref(&self) -> &BrokerSpec {
        &self.spec
    }
}

impl Broker {
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
        if spec.scheduled != self.spec.scheduled {
            let reason = format!("`{}`: a schedule cannot come or go while it runs", self.spec.name);
            return cx.reply(request, Outcome::Refused(reason));
        }
        let workers = spec.workers;
        self.target = self.next_generation();
        self.spec = Arc::new(Accepted { since: self.target, spec });
        if workers != self.wanted {
            self.scale(cx, None, workers);
        }
        if self.phase == Phase::Open {
            self.arm_recycle(cx);
        }
        self.ask_clock(cx);
        // While drained there is nothing to replace: the recycle is over as soon as it has begun.
        cx.park(request, Waits::Recycle(self.id));
        self.start_recycle(cx, Scope::All, RecycleReason::NewSpecification);
    }

    /// A drain may have come between a new specification and its workers. Once open again, slots that are empty or
    /// run another specification are brought to it by a recycle, which can still fail and go back.
    pub(crate) fn take_up_target(&mut self, cx: &mut Shared) {
        let new = self.target != self.generation;
        let behind = self.behind(new);
        if new || !behind.is_empty() {
            self.start_recycle(cx, Scope::Some(behind), RecycleReason::NewSpecification);
        }
    }

    /// A new specification that nobody was there to run is on trial as soon as somebody is.
    pub(crate) fn try_target(&mut self, cx: &mut Shared) {
        if self.recycle.is_none() && self.wanted > 0 && self.target != self.generation {
            self.take_up_target(cx);
        }
    }

    /// Slots whose worker does not run the present specification; if it is new, those without a worker that is ready
    /// too.
    fn behind(&self, new: bool) -> BTreeSet<Slot> {
        let is_behind = |place: &Place| match place.worker.and_then(|id| self.workers.get(&id)) {
            Some(worker) => worker.spec.since != self.spec.since || new && !worker.is_ready(),
            None => new,
        };
        let behind = self.slots().zip(&self.places).filter(|(_, place)| is_behind(place));
        behind.map(|(slot, _)| slot).collect()
    }

    /// Whether a slot is served by a worker of the present specification.
    pub(crate) fn target_serves(&self) -> bool {
        let servers = self.places.iter().filter_map(|place| self.workers.get(&place.worker?));
        servers.into_iter().any(|worker| worker.is_ready() && worker.spec.since == self.spec.since)
    }

    /// Even going back can fail, and leave workers of the bad specification: it is tried again after the longest
    /// back-off.
    pub(crate) fn go_back_later(&mut self, cx: &mut Shared) {
        let behind = self.phase == Phase::Open && !self.behind(false).is_empty();
        let at = behind.then(|| cx.now + self.spec.backoff.cap);
        self.arm_back(cx, at);
    }

    /// The time has come to go back once more.
    pub(crate) fn back_due(&mut self, cx: &mut Shared) {
        self.back_at = None;
        // A recycle under way asks again when it ends.
        if self.recycle.is_none() {
            let behind = self.behind(false);
            if !behind.is_empty() {
                self.start_recycle(cx, Scope::Some(behind), RecycleReason::GoingBack);
            }
        }
    }

    pub(crate) fn arm_back(&mut self, cx: &mut Shared, at: Option<Time>) {
        cx.rearm(Key::Back(self.id), self.back_at, at);
        self.back_at = at;
    }

    fn next_generation(&self) -> Generation {
        Generation(self.target.0 + 1)
    }

    /// All workers run the target, or nothing else is left to be tried: there is no way back from it.
    pub(crate) fn settle_on_target(&mut self) {
        self.generation = self.target;
        self.good = Arc::clone(&self.spec);
    }

    /// Returns to the last good specification, under a new number.
    pub(crate) fn go_back(&mut self, cx: &mut Shared, failed: Generation) {
        let by_hand = self.wanted != self.spec.workers;
        self.target = self.next_generation();
        self.spec = Arc::clone(&self.good);
        self.arm_recycle(cx);
        if self.spec.workers != self.wanted && !by_hand {
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
        self.start_recycle(cx, Scope::Some(slots), RecycleReason::GoingBack);
    }
}
