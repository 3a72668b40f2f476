//! A new image on trial: the old one is held until the new one has proved itself.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

/// How far an upgrade is.
pub(crate) enum Trial {
    /// None is under way.
    None,
    /// The old broker process has said its last word and is to be gone by then.
    Yielding { key: u64, image: OwnedFd, until: Instant },
    /// The new image is to be ready by then.
    Starting { key: u64, old: OwnedFd, until: Instant },
    /// It is, and has to stay alive until then.
    Proving { key: u64, old: OwnedFd, until: Instant },
}

impl Trial {
    pub(crate) fn wait_until(&mut self, at: Instant) {
        match self {
            Trial::None => {}
            Trial::Yielding { until, .. } | Trial::Starting { until, .. } | Trial::Proving { until, .. } => {
                *until = at;
            }
        }
    }

    pub(crate) fn deadline(&self) -> Option<Instant> {
        match self {
            Trial::None => None,
            Trial::Yielding { until, .. } | Trial::Starting { until, .. } | Trial::Proving { until, .. } => {
                Some(*until)
            }
        }
    }
}

/// For the old one to go, and for the new one to become ready.
pub(crate) const AT_MOST: Duration = Duration::from_secs(10);
/// For the new one to stay alive once it is ready.
pub(crate) const PROOF: Duration = Duration::from_secs(2);
