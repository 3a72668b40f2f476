//! One process, as the operating system sees it, and what was told of it.

use std::time::Duration;

use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, Slot, WorkerId};
use shiftboss_core::spec::{BrokerSpec, Ready, Rung, Signal};
use shiftboss_core::{Exit, Time};

#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) broker: BrokerId,
    pub(crate) slot: Slot,
    pub(crate) launch: LaunchId,
    pub(crate) generation: Generation,
    pub(crate) pid: Option<Pid>,
    pub(crate) started: Option<Time>,
    pub(crate) ready: Option<Time>,
    /// Its time to become ready is over, whatever the clock says; for whoever explores all orders of deadlines.
    pub(crate) late: bool,
    /// An event has called it ready.
    pub(crate) called_ready: bool,
    /// Told to leave, and why.
    pub(crate) leaving: Option<(Time, String)>,
    /// In which recycle of its broker, counted from 1, it was told to leave.
    pub(crate) left_in: u64,
    /// First asked to leave by a signal.
    pub(crate) signalled: Option<Time>,
    pub(crate) rungs: Vec<(Signal, Time)>,
    pub(crate) killed: bool,
    /// What the clock had lost when it was told to leave, or was started.
    pub(crate) lateness: Duration,
    /// Asked for, and since then something has happened that may mean it is stopped as soon as it runs.
    pub(crate) doubtful: bool,
    /// Its slot was scaled away while it was leaving.
    pub(crate) dropped: bool,
}

/// How the end of a worker is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) worker: WorkerId,
    pub(crate) broker: BrokerId,
    pub(crate) slot: Slot,
    pub(crate) pid: Option<Pid>,
    pub(crate) death: bool,
    pub(crate) exit: Option<Exit>,
    pub(crate) forced: bool,
}

impl Process {
    /// Runs, and neither serves nor was asked to leave.
    pub(crate) fn is_starting(&self) -> bool {
        self.started.is_some() && self.ready.is_none() && self.signalled.is_none()
    }

    pub(crate) fn serves(&self) -> bool {
        self.ready.is_some() && self.leaving.is_none()
    }

    /// It counts: nobody has asked it to leave, as far as can be seen.
    pub(crate) fn stays(&self) -> bool {
        self.leaving.is_none() && !self.doubtful
    }
}

/// Whether a worker of this specification is known to be ready by a sign of its own.
pub(crate) fn says_ready(spec: &BrokerSpec) -> bool {
    match spec.ready {
        Ready::Notify | Ready::Accepting => true,
        Ready::After(_) => false,
    }
}

/// Whether a worker was asked to leave for not having become ready, which is a failure.
pub(crate) fn is_unready(reason: &str) -> bool {
    reason.starts_with("was not ready") || reason.starts_with("may not be looked at")
}

/// The rungs that ask; after them it is killed.
pub(crate) fn ladder(spec: &BrokerSpec) -> &[Rung] {
    let rungs = &spec.stop.0;
    let kill = rungs.iter().position(|rung| rung.signal == Signal::KILL);
    &rungs[..kill.unwrap_or(rungs.len())]
}
