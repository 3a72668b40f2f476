//! One process, as the operating system sees it, and what was told of it.

use std::time::Duration;

use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, Slot, WorkerId};
use shiftboss_core::spec::{Ask, BrokerSpec, Ready, Rung, Signal};
use shiftboss_core::{Exit, Time};

#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) broker: BrokerId,
    /// None of a standby.
    pub(crate) slot: Option<Slot>,
    pub(crate) launch: LaunchId,
    pub(crate) generation: Generation,
    pub(crate) pid: Option<Pid>,
    pub(crate) started: Option<Time>,
    /// A standby, fully started.
    pub(crate) at_door: bool,
    /// Since when.
    pub(crate) stood: Option<Time>,
    /// When it was told its slot, if it was a standby.
    pub(crate) promoted: Option<Time>,
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
    pub(crate) rungs: Vec<Asked>,
    /// It has said something on its channel.
    pub(crate) spoke: bool,
    /// It has closed that.
    pub(crate) hung_up: Option<Time>,
    /// Nobody listens to it any more.
    pub(crate) garbled: bool,
    /// Its event loop was seen not to turn.
    pub(crate) hung: bool,
    /// It had been ready for long enough to start counting failures anew when it was asked to leave.
    pub(crate) proved: bool,
    pub(crate) killed: bool,
    /// What the clock had lost when it was told to leave, or was started.
    pub(crate) lateness: Duration,
    /// Asked for, and since then something has happened that may mean it is stopped as soon as it runs.
    pub(crate) doubtful: bool,
    /// Its slot was scaled away while it was leaving.
    pub(crate) dropped: bool,
}

/// One request to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// The number on its ladder.
    pub(crate) rung: usize,
    pub(crate) ask: Ask,
    pub(crate) at: Time,
    /// When the next may follow at the earliest.
    pub(crate) until: Time,
}

/// How the end of a worker is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) worker: WorkerId,
    pub(crate) broker: BrokerId,
    pub(crate) slot: Option<Slot>,
    pub(crate) pid: Option<Pid>,
    pub(crate) death: bool,
    pub(crate) exit: Option<Exit>,
    pub(crate) forced: bool,
}

impl Process {
    /// Runs, and neither serves nor was asked to leave.
    pub(crate) fn is_starting(&self) -> bool {
        self.started.is_some() && self.ready.is_none() && self.signalled.is_none() && !self.at_door
    }

    /// Since when it is waited for: to serve, or, a standby, to be at the door.
    pub(crate) fn begun(&self) -> Option<Time> {
        self.promoted.or(self.started)
    }

    /// A standby that has waited at the door for so long.
    pub(crate) fn has_stood(&self, now: Time, healthy_after: Duration) -> bool {
        self.slot.is_none() && self.stood.is_some_and(|since| now.since(since) >= healthy_after)
    }

    /// It could serve at once.
    pub(crate) fn is_spare(&self) -> bool {
        self.at_door && self.leaving.is_none() && !self.is_lost()
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
        Ready::Notify | Ready::Accepting | Ready::Listening => true,
        Ready::After(_) => false,
    }
}

/// Whether a worker was asked to leave for not having become ready, which is a failure.
pub(crate) fn is_unready(reason: &str) -> bool {
    reason.starts_with("was not ready") || reason.starts_with("may not be looked at")
}

/// The same for any failing of the worker's own.
pub(crate) fn is_fault(reason: &str) -> bool {
    is_unready(reason) || [HUNG_UP, GARBLED, REFUSED, HUNG].iter().any(|fault| reason.starts_with(fault))
}

/// It has closed its channel, and stayed.
pub(crate) const HUNG_UP: &str = "closed its channel";
/// So long one that has closed its channel has to leave.
pub(crate) const LEAVES_WITHIN: Duration = Duration::from_secs(1);
/// Nobody wants it.
pub(crate) const REFUSED: &str = "was refused";
/// Its event loop does not turn.
pub(crate) const HUNG: &str = "hung:";
/// What it says means nothing.
pub(crate) const GARBLED: &str = "wrote too much";

/// The rungs that ask; after them it is killed.
pub(crate) fn ladder(spec: &BrokerSpec) -> &[Rung] {
    let rungs = &spec.stop.0;
    let kill = rungs.iter().position(|rung| rung.ask == Ask::Signal(Signal::KILL));
    &rungs[..kill.unwrap_or(rungs.len())]
}

impl Process {
    /// Whether a message can reach it.
    pub(crate) fn hears(&self) -> bool {
        self.spoke && self.hung_up.is_none()
    }

    /// It leaves by itself, or is of no use.
    pub(crate) fn is_lost(&self) -> bool {
        self.garbled || self.hung_up.is_some()
    }

    /// It is asked to leave because it hangs.
    pub(crate) fn is_given_up(&self) -> bool {
        self.leaving.as_ref().is_some_and(|(_, reason)| reason.starts_with(HUNG))
    }

    /// The rung that is its next, and how long it has there; none if that is the kill. Messages to one that does not hear
    /// are left out, and their time is not lost, unless it hangs.
    pub(crate) fn next_rung(&self, spec: &BrokerSpec) -> Option<(usize, Rung)> {
        let first = self.rungs.last().map_or(0, |asked| asked.rung + 1);
        let mut least = Duration::ZERO;
        for (number, rung) in ladder(spec).iter().enumerate().skip(first) {
            if rung.ask == Ask::Notice && self.is_given_up() {
                continue;
            }
            if rung.ask == Ask::Notice && !self.hears() {
                least = least.max(rung.wait);
            } else {
                return Some((number, Rung { wait: rung.wait.max(least), ..*rung }));
            }
        }
        None
    }
}
