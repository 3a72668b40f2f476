//! The stop ladder: which rung comes next.

use crate::spec::{Rung, Signal, StopLadder};

/// What a rung asks for.
pub(crate) enum Step {
    /// A signal to the worker, and how long it may take.
    Signal(Rung),
    /// The end: its tree is killed.
    Kill,
}

impl StopLadder {
    /// The rung of this number; past the last, always a kill.
    pub(crate) fn step(&self, rung: usize) -> Step {
        match self.0.get(rung) {
            Some(rung) if rung.signal != Signal::KILL => Step::Signal(*rung),
            Some(_) | None => Step::Kill,
        }
    }
}
