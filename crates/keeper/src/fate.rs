//! How an upgrade went, as one number.

use std::fmt;

use crate::wire::{BY_SIGNAL, LOST};

/// What became of a new image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It runs the app now.
    TookOver,
    /// It could not be executed: the kernel's number for the reason.
    NotExecuted(i32),
    /// It ended before it was ready, with this status as in [`crate::wire::EXIT`].
    EndedEarly(u64),
    /// It was not ready in time.
    NotReady,
    /// It was ready, and ended before it had proved itself.
    EndedSoon(u64),
}

impl Fate {
    /// As it is sent.
    #[must_use]
    pub fn value(self) -> u64 {
        match self {
            Fate::TookOver => 1,
            Fate::NotExecuted(errno) => 2 | u64::from(errno.unsigned_abs()) << 8,
            Fate::EndedEarly(status) => 3 | status << 8,
            Fate::NotReady => 4,
            Fate::EndedSoon(status) => 5 | status << 8,
        }
    }

    /// What was sent; none if it is not known here.
    #[must_use]
    pub fn of(value: u64) -> Option<Fate> {
        let number = value >> 8;
        match value & 0xff {
            1 => Some(Fate::TookOver),
            2 => i32::try_from(number).ok().map(Fate::NotExecuted),
            3 => Some(Fate::EndedEarly(number)),
            4 => Some(Fate::NotReady),
            5 => Some(Fate::EndedSoon(number)),
            _ => None,
        }
    }
}

impl fmt::Display for Fate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Fate::TookOver => f.write_str("it took over"),
            Fate::NotExecuted(errno) => {
                write!(f, "it cannot be executed: {}", std::io::Error::from_raw_os_error(*errno))
            }
            Fate::EndedEarly(status) => write!(f, "it {} before it was ready", Ended(*status)),
            Fate::NotReady => f.write_str("it was not ready in time"),
            Fate::EndedSoon(status) => write!(f, "it was ready, then {}", Ended(*status)),
        }
    }
}

/// A status in words.
pub(crate) struct Ended(pub(crate) u64);

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            LOST => f.write_str("ended, nobody knows how"),
            status if status >= BY_SIGNAL => write!(f, "was ended by signal {}", status - BY_SIGNAL),
            code => write!(f, "exited with {code}"),
        }
    }
}
