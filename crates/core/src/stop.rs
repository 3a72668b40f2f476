//! The stop ladder: which rung comes next.

use std::time::Duration;

use crate::spec::{Ask, Signal, StopLadder};

/// What a rung asks for, and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// A message to the worker.
    Notice(Duration),
    /// A signal to the worker.
    Signal(Signal, Duration),
    /// The end: its tree is killed.
    Kill,
}

/// Whether a message reaches a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ear {
    Hears,
    /// It cannot be told, and loses no time by that.
    Deaf,
    /// It does nothing that would take time.
    Hung,
}

impl StopLadder {
    /// The rung to take from this number on, and its number; past the last, always a kill. One that cannot be told has the
    /// time of a message with the next rung, unless it hangs.
    pub(crate) fn step(&self, from: usize, ear: Ear) -> (usize, Step) {
        let mut owed = Duration::ZERO;
        for (number, rung) in self.0.iter().enumerate().skip(from) {
            match rung.ask {
                Ask::Signal(Signal::KILL) => return (number, Step::Kill),
                Ask::Signal(signal) => return (number, Step::Signal(signal, rung.wait.max(owed))),
                Ask::Notice => match ear {
                    Ear::Hears => return (number, Step::Notice(rung.wait)),
                    Ear::Deaf => owed = owed.max(rung.wait),
                    Ear::Hung => {}
                },
            }
        }
        (self.0.len(), Step::Kill)
    }

    /// Whether this rung is a message.
    pub(crate) fn is_notice(&self, rung: usize) -> bool {
        self.0.get(rung).is_some_and(|rung| rung.ask == Ask::Notice)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::Rung;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn who_cannot_be_told_has_the_time_with_the_next_rung() {
        let ladder = StopLadder::default();
        assert_eq!(ladder.step(0, Ear::Hears), (0, Step::Notice(secs(30))));
        assert_eq!(ladder.step(0, Ear::Deaf), (1, Step::Signal(Signal::TERM, secs(30))));
        assert_eq!(ladder.step(1, Ear::Deaf), (1, Step::Signal(Signal::TERM, secs(5))));
        assert_eq!(ladder.step(2, Ear::Hears), (2, Step::Kill));
        assert_eq!(
            ladder.step(0, Ear::Hung),
            (1, Step::Signal(Signal::TERM, secs(5))),
            "it would not use it"
        );
        let only = StopLadder(vec![Rung::notice(secs(9))]);
        assert_eq!((only.step(0, Ear::Deaf), only.step(1, Ear::Hears)), ((1, Step::Kill), (1, Step::Kill)));
    }
}
