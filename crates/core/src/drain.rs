//! Drain and resume: everybody home, and back. The end of the app is a drain without a way back.

use crate::broker::{Broker, Phase};
use crate::effect::{Done, Effect, Note, Outcome};
use crate::event::What;
use crate::id::{RequestId, WorkerId};
use crate::requests::Waits;
use crate::shared::{Key, Shared};
use crate::spec::Drained;
use crate::worker::Why;

/// How far a drain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// New connections are held back; the workers empty the queues.
    Quieting,
    /// The workers are asked to leave.
    Leaving,
    /// All have left; what is still queued is being reset.
    Shutting,
}

impl Broker {
    pub(crate) fn drain(&mut self, cx: &mut Shared, request: RequestId) {
        match self.phase {
            Phase::Drained => {
                let note = Some(Note::DrainedAlready);
                cx.reply(request, Outcome::Done(Done { note, ..Done::default() }));
            }
            Phase::Closed => {
                self.hold_by_hand(cx);
                self.phase = Phase::Drained;
                self.emit(cx, Some(request), What::BrokerDrained { refused: 0, cut: 0 });
                cx.reply(request, Outcome::Done(Done::default()));
            }
            Phase::Draining(_) => {
                self.hold_by_hand(cx);
                cx.park(request, Waits::Drained(self.id));
            }
            Phase::Waiting { .. } | Phase::Open => {
                cx.park(request, Waits::Drained(self.id));
                self.hold_by_hand(cx);
                self.begin_drain(cx, Some(request), DRAINED);
            }
        }
    }

    /// Only a hand calls it back from now on.
    fn hold_by_hand(&mut self, cx: &mut Shared) {
        self.hours.by_hand = true;
        self.hours.early = false;
        cx.reply_all(Waits::Full(self.id), &Outcome::Superseded(DRAINED.to_owned()));
    }

    pub(crate) fn begin_drain(&mut self, cx: &mut Shared, request: Option<RequestId>, why: &str) {
        cx.reply_all(Waits::Full(self.id), &Outcome::Superseded(why.to_owned()));
        self.abandon_recycles(cx, why);
        if let Phase::Waiting { retry_at: Some(at), .. } = self.phase {
            cx.rearm(Key::Listen(self.id), Some(at), None);
        }
        cx.rearm(Key::Recycle(self.id), self.recycle_at.take(), None);
        self.arm_back(cx, None);
        for slot in self.slots() {
            self.cancel_backoff(cx, slot);
        }
        self.forget_standby_waits(cx);
        self.cut = 0;
        self.round += 1;
        self.emit(cx, request, What::BrokerDraining);
        if self.refuses() && !self.workers.is_empty() {
            self.phase = Phase::Draining(Step::Quieting);
            cx.effects.push(Effect::QuietListeners { broker: self.id, round: self.round });
        } else {
            self.send_home(cx);
        }
    }

    /// Whether connections that come while drained are refused.
    pub(crate) fn refuses(&self) -> bool {
        self.listens() && (self.spec.drained == Drained::Refuse || self.closing)
    }

    pub(crate) fn quiet(&mut self, cx: &mut Shared, round: u32) {
        if self.phase == Phase::Draining(Step::Quieting) && round == self.round {
            self.send_home(cx);
        }
    }

    fn send_home(&mut self, cx: &mut Shared) {
        self.phase = Phase::Draining(Step::Leaving);
        self.forget_changes(cx);
        for slot in self.slots() {
            if let Some(place) = self.place(cx, slot) {
                place.worker = None;
            }
        }
        let why = if self.closing { Why::AppStops } else { Why::Drained };
        let ids: Vec<WorkerId> = self.workers.keys().copied().collect();
        for id in ids {
            self.stop(cx, id, why);
        }
        self.drain_on(cx);
    }

    /// Goes on once the last worker has left.
    pub(crate) fn drain_on(&mut self, cx: &mut Shared) {
        if self.phase != Phase::Draining(Step::Leaving) || !self.workers.is_empty() {
            return;
        }
        if self.refuses() {
            self.phase = Phase::Draining(Step::Shutting);
            cx.effects.push(Effect::ShutListeners { broker: self.id, round: self.round });
        } else {
            self.drained(cx, 0);
        }
    }

    pub(crate) fn shut(&mut self, cx: &mut Shared, round: u32, refused: u64) {
        if self.phase == Phase::Draining(Step::Shutting) && round == self.round {
            self.drained(cx, refused);
        }
    }

    fn drained(&mut self, cx: &mut Shared, refused: u64) {
        let closed = self.is_outside() && !self.hours.by_hand && !self.closing;
        self.phase = if closed { Phase::Closed } else { Phase::Drained };
        let cut = self.cut;
        self.emit(cx, None, What::BrokerDrained { refused, cut });
        if closed {
            self.emit(cx, None, What::BrokerClosed);
        }
        let done = Done { cut, refused, ..Done::default() };
        cx.reply_all(Waits::Drained(self.id), &Outcome::Done(done));
    }

    /// `now` = whatever its schedule says.
    pub(crate) fn resume(&mut self, cx: &mut Shared, request: RequestId, now: bool) {
        self.hours.early |= now && self.is_outside();
        if self.is_outside() {
            return self.resume_later(cx, request);
        }
        self.hours.by_hand = false;
        match self.phase {
            Phase::Open if self.is_full() => {
                let note = Some(Note::OpenAlready);
                cx.reply(request, Outcome::Done(Done { note, ..Done::default() }));
            }
            Phase::Open => {
                cx.park(request, Waits::Full(self.id));
                for slot in self.slots() {
                    self.retry_now(cx, slot);
                }
                self.retry_standby_now(cx);
            }
            Phase::Waiting { retry_at, .. } => {
                cx.park(request, Waits::Full(self.id));
                cx.rearm(Key::Listen(self.id), retry_at, None);
                self.listen_again(cx);
            }
            Phase::Draining(_) | Phase::Drained | Phase::Closed => {
                let resumed = Outcome::Superseded("the broker was resumed".to_owned());
                cx.reply_all(Waits::Drained(self.id), &resumed);
                cx.park(request, Waits::Full(self.id));
                self.call_back(cx, Some(request), true);
            }
        }
    }

    /// Ends a drain, also one under way; `resumed` = by hand.
    pub(crate) fn call_back(&mut self, cx: &mut Shared, request: Option<RequestId>, resumed: bool) {
        for slot in self.slots() {
            self.set_failures(cx, slot, 0, "");
        }
        // Workers that were not asked to leave yet (`Step::Quieting`) stay.
        if self.listens() {
            self.emit(cx, request, What::BrokerWaiting { retry_at: None });
            self.ask_for_listeners(cx, 0, resumed);
        } else {
            self.emit(cx, request, if resumed { What::BrokerResumed } else { What::BrokerOpened });
            self.begin(cx);
        }
    }

    /// The app ends: drains for good. `now` = without waiting for anybody.
    pub(crate) fn close(&mut self, cx: &mut Shared, now: bool) {
        self.brutal |= now;
        if !self.closing {
            self.closing = true;
            match self.phase {
                Phase::Waiting { .. } | Phase::Open => self.begin_drain(cx, None, "the app stops"),
                Phase::Drained | Phase::Closed if self.refuses() && self.spec.drained == Drained::Hold => {
                    self.begin_drain(cx, None, "the app stops");
                }
                Phase::Draining(_) | Phase::Drained | Phase::Closed => {}
            }
        }
        if now {
            self.kill_all(cx);
            if self.phase == Phase::Draining(Step::Quieting) {
                self.send_home(cx);
            }
        }
    }

    /// Nothing is left to wait for.
    pub(crate) fn is_closed(&self) -> bool {
        self.closing && matches!(self.phase, Phase::Drained | Phase::Closed)
    }
}

const DRAINED: &str = "the broker was drained";
