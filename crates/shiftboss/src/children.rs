//! The workers' processes as somebody's children: ours, or under a keeper the keeper's.

use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::process::Signal;
use shiftboss_core::id::WorkerId;
use shiftboss_link::wire::{BY_SIGNAL, LOST};

use crate::os::pidfd;
use crate::os::reaper::{self, Exit, Reaper};
use crate::os::spawn::Child;

/// All processes that were started and whose end is not known yet.
pub(crate) enum Children {
    /// Ended and reaped here.
    Own(Reaper),
    /// The keeper reaps them, kills what is left of their groups then, and sends the signals of their stop ladders. Held to
    /// hear of their ends, and to kill them.
    Kept(BTreeMap<u64, OwnedFd>),
}

impl Children {
    pub(crate) fn watch(&mut self, worker: WorkerId, child: Child) {
        match self {
            Children::Own(reaper) => reaper.watch(worker.0, child),
            Children::Kept(held) => {
                held.insert(worker.0, child.pidfd);
            }
        }
    }

    /// Becomes readable with a child's end.
    pub(crate) fn pidfd(&self, worker: WorkerId) -> Option<BorrowedFd<'_>> {
        match self {
            Children::Own(reaper) => reaper.pidfd(worker.0),
            Children::Kept(held) => held.get(&worker.0).map(OwnedFd::as_fd),
        }
    }

    pub(crate) fn signal(&self, worker: WorkerId, signal: i32) {
        // A process that is gone already is heard of.
        let _ = self.pidfd(worker).map(|pidfd| pidfd::signal(pidfd, signal));
    }

    /// Kills it and, at its end, its group.
    pub(crate) fn kill_tree(&self, worker: WorkerId) {
        match self {
            Children::Own(reaper) => reaper.kill_tree(worker.0),
            Children::Kept(_) => self.signal(worker, Signal::KILL.as_raw()),
        }
    }

    /// Whether the keeper reaps them.
    pub(crate) fn are_kept(&self) -> bool {
        matches!(self, Children::Kept(_))
    }

    /// Reaps a child of ours that has ended.
    pub(crate) fn reap(&mut self, worker: WorkerId) -> Option<Exit> {
        match self {
            Children::Own(reaper) => reaper.reap(worker.0).map(|death| death.exit),
            Children::Kept(_) => None,
        }
    }

    /// The same, but waits for its end.
    pub(crate) fn await_end(&mut self, worker: WorkerId) {
        match self {
            Children::Own(reaper) => {
                reaper.await_end(worker.0);
            }
            Children::Kept(held) => {
                held.remove(&worker.0);
            }
        }
    }

    /// The keeper has reaped it.
    pub(crate) fn is_gone(&mut self, worker: WorkerId) {
        if let Children::Kept(held) = self {
            held.remove(&worker.0);
        }
    }
}

/// How a worker ended, in the keeper's words.
pub(crate) fn exit_of(status: u64) -> Exit {
    let number = |value: u64| i32::try_from(value).unwrap_or(reaper::LOST);
    match status {
        LOST => Exit::Code(reaper::LOST),
        BY_SIGNAL.. => Exit::Signal(number(status - BY_SIGNAL)),
        code => Exit::Code(number(code)),
    }
}
