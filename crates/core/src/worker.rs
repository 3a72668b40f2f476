//! One worker: a process from the wish to start it until it is reaped.
//!
//! It knows nothing of its siblings; the broker compares it with what is wanted.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::generation::Accepted;
use crate::id::{Generation, Pid, Slot};
use crate::spec::Ready;
use crate::time::Time;

#[derive(Clone)]
pub(crate) struct Worker {
    /// Its place; none for a standby.
    pub(crate) slot: Option<Slot>,
    /// It has waited at the door, was told its slot, and is not ready yet.
    pub(crate) promoted: bool,
    pub(crate) generation: Generation,
    /// What it runs: the specification of its generation.
    pub(crate) spec: Arc<Accepted>,
    /// Known from the moment it runs.
    pub(crate) pid: Option<Pid>,
    pub(crate) started_at: Time,
    /// How long it took to become ready, if it ever did.
    pub(crate) ready_after: Option<Duration>,
    pub(crate) channel: Channel,
    pub(crate) state: State,
}

/// Whether a worker can be told things.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Channel {
    /// It has never spoken: perhaps it knows of no channel.
    Silent,
    /// It has spoken.
    Open,
    /// It has closed it, and has until then to leave by itself.
    Closed { leave_by: Time },
}

/// Where a worker is in its life. A state that waits holds its own deadline, so leaving it cancels the wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// The spawn is asked for and not answered. A stop that comes now is kept until there is a process to stop.
    Spawning { then_stop: Option<Why> },
    /// Runs; at `due` it is ready (by time) or late (by any other sign), as its specification says. A standby is at the
    /// door by then or late.
    Starting { due: Time },
    /// Fully started, without a slot. At `proven_at` the failures of standbys are forgotten, if there are any.
    Standby { since: Time, proven_at: Option<Time> },
    /// Serves. At `proven_at` its slot's failures are forgotten, if there are any.
    Ready { since: Time, proven_at: Option<Time> },
    /// Was asked to leave. After the last rung there is nothing to wait for but the exit.
    Stopping { why: Why, rung: usize, escalate_at: Option<Time>, forced: bool },
}

/// Why a worker is asked to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Why {
    /// Its successor serves, or may only start when it is gone.
    Recycled,
    /// Fewer workers are wanted.
    Scaled,
    /// All are sent home.
    Drained,
    /// The app ends.
    AppStops,
    /// It did not become ready in this time, by this sign.
    NotReady { deadline: Duration, ready: Ready },
    /// It was not at the door in this time.
    NotAtTheDoor { deadline: Duration },
    /// Whether it is ready cannot be seen.
    Unseen,
    /// It is the successor in a recycle that failed.
    RecycleFailed,
    /// It has closed its channel and stayed.
    HungUp,
    /// It says what means nothing.
    Garbled,
    /// Whoever was asked about it does not want it.
    Refused,
    /// Its event loop does not turn.
    Hung,
}

impl Worker {
    pub(crate) fn deadline(&self) -> Option<Time> {
        let leave_by = self.leave_by();
        match self.state {
            State::Spawning { .. } => None,
            State::Starting { due } => Some(leave_by.map_or(due, |at| at.min(due))),
            State::Standby { proven_at, .. } | State::Ready { proven_at, .. } => {
                [proven_at, leave_by].into_iter().flatten().min()
            }
            State::Stopping { escalate_at, .. } => escalate_at,
        }
    }

    /// Until when it may be starting, if it is.
    pub(crate) fn is_due(&self) -> Option<Time> {
        match self.state {
            State::Starting { due } => Some(due),
            State::Spawning { .. } | State::Standby { .. } | State::Ready { .. } | State::Stopping { .. } => {
                None
            }
        }
    }

    /// It has closed its channel, and is to be gone by then.
    pub(crate) fn leave_by(&self) -> Option<Time> {
        match self.channel {
            Channel::Closed { leave_by } => Some(leave_by),
            Channel::Silent | Channel::Open => None,
        }
    }

    /// It has closed its channel, and was given time enough to leave.
    pub(crate) fn should_have_left(&self, now: Time) -> bool {
        matches!(self.channel, Channel::Closed { leave_by } if leave_by <= now)
    }

    /// Asked to leave, or about to be.
    pub(crate) fn leaving(&self) -> Option<Why> {
        match self.state {
            State::Spawning { then_stop } => then_stop,
            State::Starting { .. } | State::Standby { .. } | State::Ready { .. } => None,
            State::Stopping { why, .. } => Some(why),
        }
    }

    pub(crate) fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready { .. })
    }

    /// Ready, and not leaving by itself.
    pub(crate) fn serves(&self) -> bool {
        self.is_ready() && !matches!(self.channel, Channel::Closed { .. })
    }

    /// Ready for at least `healthy_after`.
    pub(crate) fn proved(&self, now: Time, healthy_after: Duration) -> bool {
        matches!(self.state, State::Ready { since, .. } if now.since(since) >= healthy_after)
    }
}

impl Why {
    /// Whether the worker was at fault.
    pub(crate) fn is_failure(self) -> bool {
        match self {
            Why::NotReady { .. }
            | Why::NotAtTheDoor { .. }
            | Why::Unseen
            | Why::HungUp
            | Why::Garbled
            | Why::Refused
            | Why::Hung => true,
            Why::Recycled | Why::Scaled | Why::Drained | Why::AppStops | Why::RecycleFailed => false,
        }
    }
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Why::Recycled => f.write_str("recycled"),
            Why::Scaled => f.write_str("scaled down"),
            Why::Drained => f.write_str("drained"),
            Why::AppStops => f.write_str("the app stops"),
            Why::NotReady { deadline, ready } => {
                write!(f, "was not ready within {deadline:?}")?;
                match ready {
                    Ready::Notify => f.write_str(
                        ": it never said so (READY=1 to its NOTIFY_SOCKET, or on its channel SHIFTBOSS_READY; of Node \
                         process.send('ready'))",
                    ),
                    Ready::Accepting => f.write_str(
                        ": it was never seen waiting for connections; one that does so by io_uring, or that may not \
                         be traced, cannot be seen: set ready = { after = \"1s\" }",
                    ),
                    Ready::Listening => f.write_str(": it did not listen by then"),
                    Ready::After(_) => Ok(()),
                }
            }
            Why::NotAtTheDoor { deadline } => {
                write!(
                    f,
                    "was not ready within {deadline:?} to be a standby: it never came to where it would serve"
                )
            }
            Why::Unseen => f.write_str(
                "may not be looked at, so nobody can see whether it is ready: set ready = { after = \"1s\" }",
            ),
            Why::RecycleFailed => f.write_str("the recycle failed"),
            Why::HungUp => f.write_str("closed its channel and did not leave"),
            Why::Refused => f.write_str("was refused by a hook"),
            Why::Hung => f.write_str("hung: its event loop has not turned for too long"),
            Why::Garbled => f.write_str("wrote too much on its channel that is no message"),
        }
    }
}
