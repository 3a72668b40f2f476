//! Part-time brokers: open inside of their windows, closed outside. When a window begins and ends is the shell's to say;
//! what that means to a broker, with what was asked by hand, is decided here. The way home and back is that of `drain`.

use crate::broker::{Broker, Phase};
use crate::effect::{Effect, Outcome};
use crate::event::What;
use crate::id::RequestId;
use crate::requests::Waits;
use crate::shared::Shared;

/// What clock and hands have said of a broker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Hours {
    /// Whether it is inside of its window, as last told; none = not told yet, or it has no schedule.
    pub(crate) window: Option<bool>,
    /// Opened by hand outside of its window: stays open until its next window has ended.
    pub(crate) early: bool,
    /// Sent home by hand: the clock does not call it back.
    pub(crate) by_hand: bool,
}

impl Broker {
    /// Asks to be told of its window, now and at each change.
    pub(crate) fn ask_clock(&self, cx: &mut Shared) {
        if self.spec.scheduled {
            cx.effects.push(Effect::WatchClock { broker: self.id });
        }
    }

    /// Whether the clock keeps it closed.
    pub(crate) fn is_outside(&self) -> bool {
        self.spec.scheduled && self.hours.window != Some(true) && !self.hours.early
    }

    /// What is told again changes nothing: a window begins once and ends once, however often the clock is read.
    pub(crate) fn window(&mut self, cx: &mut Shared, open: bool) {
        if !self.spec.scheduled || self.hours.window.replace(open) == Some(open) || self.closing {
            return;
        }
        self.hours.early &= !open;
        match (self.phase, open) {
            (Phase::Closed, true) => self.call_back(cx, None, false),
            (Phase::Draining(_), true) if !self.hours.by_hand => self.call_back(cx, None, false),
            // For the first time: it has been closed from its start.
            (Phase::Closed, false) => self.emit(cx, None, What::BrokerClosed),
            (Phase::Open | Phase::Waiting { .. }, false) if !self.hours.early => {
                self.begin_drain(cx, None, "its schedule has closed the broker");
            }
            (Phase::Open | Phase::Waiting { .. } | Phase::Draining(_) | Phase::Drained, _) => {}
        }
    }

    /// Resumed outside of its window: no longer held by hand, it answers when the clock has opened it.
    pub(crate) fn resume_later(&mut self, cx: &mut Shared, request: RequestId) {
        let by_hand = std::mem::replace(&mut self.hours.by_hand, false);
        if by_hand {
            let resumed = Outcome::Superseded("the broker was resumed".to_owned());
            cx.reply_all(Waits::Drained(self.id), &resumed);
        }
        if self.phase == Phase::Drained {
            self.phase = Phase::Closed;
            self.emit(cx, Some(request), What::BrokerClosed);
        }
        cx.park(request, Waits::Full(self.id));
    }
}
