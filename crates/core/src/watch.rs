//! Recycles because files have changed. Which files, and how that is seen, is the shell's; here: when, and how often.

use std::time::Duration;

use crate::broker::{Broker, Phase};
use crate::drain::Step;
use crate::event::RecycleReason;
use crate::recycle::Scope;
use crate::shared::{Key, Shared};
use crate::time::Time;

/// Changes of files that are not answered by a recycle yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Changed {
    /// When it has been quiet for long enough, if nothing more comes.
    pub(crate) due: Option<Time>,
    /// No later than then, even if files never stop changing.
    pub(crate) latest: Time,
    /// They came during a recycle, or before it was open again: one follows.
    pub(crate) again: bool,
}

impl Broker {
    /// Files have changed: waits until they have been quiet for the debounce.
    pub(crate) fn files_changed(&mut self, cx: &mut Shared) {
        let Some(debounce) = self.spec.watch else { return };
        let concerns = match self.phase {
            Phase::Open => true,
            // Who has not been asked to leave may be called back.
            Phase::Waiting { .. } | Phase::Draining(Step::Quieting) => !self.workers.is_empty(),
            // Whoever starts next is new anyway.
            Phase::Draining(Step::Leaving | Step::Shutting) | Phase::Drained | Phase::Closed => false,
        };
        if !concerns {
            return;
        }
        let latest = match self.changed.due {
            Some(_) => self.changed.latest,
            None => cx.now + longest(debounce),
        };
        self.arm_change(cx, Some((cx.now + debounce).min(latest)));
        self.changed.latest = latest;
    }

    /// It has been quiet.
    pub(crate) fn change_due(&mut self, cx: &mut Shared) {
        self.arm_change(cx, None);
        if self.recycle.is_some() || self.phase != Phase::Open {
            self.changed.again = true;
        } else if self.wanted > 0 {
            self.start_recycle(cx, Scope::All, RecycleReason::FilesChanged);
        }
    }

    /// After a recycle, or once open again: the one for changes that came during it. One that still waits to be quiet
    /// will do for both.
    pub(crate) fn recycle_for_changes(&mut self, cx: &mut Shared) -> bool {
        let again = std::mem::replace(&mut self.changed.again, false);
        let now = again && self.changed.due.is_none() && self.phase == Phase::Open && self.wanted > 0;
        if now {
            self.start_recycle(cx, Scope::All, RecycleReason::FilesChanged);
        }
        now
    }

    /// All workers go: none is left that has seen the files as they were.
    pub(crate) fn forget_changes(&mut self, cx: &mut Shared) {
        self.changed.again = false;
        self.arm_change(cx, None);
    }

    fn arm_change(&mut self, cx: &mut Shared, due: Option<Time>) {
        cx.rearm(Key::Changed(self.id), self.changed.due, due);
        self.changed.due = due;
        self.changed.latest = Time(0);
    }
}

/// The longest wait for quiet.
fn longest(debounce: Duration) -> Duration {
    debounce.saturating_mul(10)
}
