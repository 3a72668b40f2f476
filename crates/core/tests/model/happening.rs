//! What can happen in a state.

use std::fmt;

use shiftboss_core::Exit;
use shiftboss_core::id::{BrokerId, Slot, WorkerId};

use crate::asks::Ask;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Happening {
    Spawned(WorkerId),
    SpawnFailed(WorkerId),
    Ready(WorkerId),
    /// A standby is at the door.
    Standby(WorkerId),
    /// It may not be looked at.
    Unseen(WorkerId),
    /// Unasked.
    Dies(WorkerId, Exit),
    /// As it was asked to, or killed.
    Leaves(WorkerId),
    /// The answer to a request to the listeners.
    Answer(Answer),
    /// The nth deadline comes.
    Due(usize, Due),
    Ask(Ask),
}

/// An answer of the listeners, to the request of this round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Answer {
    Opened(u32),
    NotOpened(u32),
    Quiet(u32),
    Shut(u32),
}

/// Whose deadline it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Worker(WorkerId),
    BackOff(BrokerId, Slot),
    Trial(BrokerId, Slot),
    /// The back-off of the next standby.
    Standby(BrokerId),
    /// Listeners, or the way back.
    Broker(&'static str),
}

impl Happening {
    /// Whether it happens sooner or later, unlike faults and commands.
    pub(crate) fn must(self) -> bool {
        match self {
            Happening::Spawned(_)
            | Happening::Ready(_)
            | Happening::Standby(_)
            | Happening::Leaves(_)
            | Happening::Due(..)
            | Happening::Answer(Answer::Opened(_) | Answer::Quiet(_) | Answer::Shut(_)) => true,
            Happening::SpawnFailed(_)
            | Happening::Unseen(_)
            | Happening::Dies(..)
            | Happening::Answer(Answer::NotOpened(_))
            | Happening::Ask(_) => false,
        }
    }

    /// The worker that it is about.
    pub(crate) fn worker(self) -> Option<WorkerId> {
        match self {
            Happening::Spawned(worker)
            | Happening::SpawnFailed(worker)
            | Happening::Ready(worker)
            | Happening::Standby(worker)
            | Happening::Unseen(worker)
            | Happening::Dies(worker, _)
            | Happening::Leaves(worker)
            | Happening::Due(_, Due::Worker(worker)) => Some(worker),
            Happening::Due(..) | Happening::Answer(_) | Happening::Ask(_) => None,
        }
    }

    pub(crate) fn kind(self) -> &'static str {
        match self {
            Happening::Spawned(_) => "spawned",
            Happening::SpawnFailed(_) => "spawn failed",
            Happening::Ready(_) => "ready",
            Happening::Standby(_) => "standby",
            Happening::Unseen(_) => "unseen",
            Happening::Dies(_, Exit::Code(0)) => "ends by itself",
            Happening::Dies(..) => "dies",
            Happening::Leaves(_) => "leaves",
            Happening::Answer(Answer::Opened(_)) => "opened",
            Happening::Answer(Answer::NotOpened(_)) => "not opened",
            Happening::Answer(Answer::Quiet(_)) => "quiet",
            Happening::Answer(Answer::Shut(_)) => "shut",
            Happening::Due(_, Due::Worker(_)) => "due: worker",
            Happening::Due(_, Due::BackOff(..)) => "due: back-off",
            Happening::Due(_, Due::Trial(..)) => "due: trial",
            Happening::Due(_, Due::Standby(_)) => "due: standby",
            Happening::Due(_, Due::Broker(word)) => word,
            Happening::Ask(ask) => ask.kind(),
        }
    }
}

impl fmt::Display for Happening {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Happening::Spawned(worker) => write!(f, "worker {worker} runs"),
            Happening::SpawnFailed(worker) => write!(f, "worker {worker} cannot be started"),
            Happening::Ready(worker) => write!(f, "worker {worker} is ready"),
            Happening::Standby(worker) => write!(f, "worker {worker} is at the door"),
            Happening::Unseen(worker) => write!(f, "worker {worker} may not be looked at"),
            Happening::Dies(worker, exit) => write!(f, "worker {worker} {exit}, unasked"),
            Happening::Leaves(worker) => write!(f, "worker {worker} leaves"),
            Happening::Answer(answer) => write!(f, "the listeners answer: {answer:?}"),
            Happening::Due(_, Due::Worker(worker)) => write!(f, "the deadline of worker {worker} comes"),
            Happening::Due(_, Due::BackOff(_, slot)) => write!(f, "the back-off of slot {slot} is over"),
            Happening::Due(_, Due::Trial(_, slot)) => write!(f, "the trial of slot {slot} is over"),
            Happening::Due(_, Due::Standby(_)) => f.write_str("the back-off of the next standby is over"),
            Happening::Due(_, Due::Broker(word)) => write!(f, "the broker's deadline comes ({word})"),
            Happening::Ask(ask) => write!(f, "command: {ask}"),
        }
    }
}
