//! Who stands above the app: tells it to end, and reaps its workers.

use std::os::fd::{AsFd as _, BorrowedFd};

use crate::keeper::Keeper;
use crate::os::signals::Signals;

/// Who tells the app to end, and reaps its workers.
pub(crate) enum Chief {
    /// The operating system.
    Signals(Signals),
    /// The keeper above us.
    Keeper(Keeper),
    /// The program that the app is embedded in; it says so by an order.
    Host,
}

impl Chief {
    /// The process that is the app to others.
    pub(crate) fn pid(&self) -> u32 {
        let keeper = self.keeper().and_then(|keeper| u32::try_from(keeper.pid()).ok());
        keeper.unwrap_or_else(std::process::id)
    }

    pub(crate) fn keeper(&self) -> Option<&Keeper> {
        match self {
            Chief::Signals(_) | Chief::Host => None,
            Chief::Keeper(keeper) => Some(keeper),
        }
    }
}

impl Chief {
    pub(super) fn to_wait_for(&self) -> Option<BorrowedFd<'_>> {
        match self {
            Chief::Signals(signals) => Some(signals.as_fd()),
            Chief::Keeper(keeper) => Some(keeper.as_fd()),
            Chief::Host => None,
        }
    }
}
