//! Everything core may ask for, in the imperative. Effects are performed in order.

use std::fmt;

use crate::event::Event;
use crate::id::{BrokerId, Generation, LaunchId, RequestId, Slot, WorkerId};
use crate::spec::Signal;
use crate::text::bounded;

/// One thing to do.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[must_use]
pub enum Effect {
    /// Bind what is not bound yet, let new connections in (again); answer [`crate::Input::Opened`].
    OpenListeners {
        /// Whose.
        broker: BrokerId,
        /// To be repeated in the answer.
        round: u32,
    },
    /// Hold new connections back, wait until the queues are empty or 2 s; answer [`crate::Input::Quiet`].
    QuietListeners {
        /// Whose.
        broker: BrokerId,
        /// To be repeated in the answer.
        round: u32,
    },
    /// Refuse new connections, reset what is queued; answer [`crate::Input::Shut`].
    ShutListeners {
        /// Whose.
        broker: BrokerId,
        /// To be repeated in the answer.
        round: u32,
    },
    /// Watch the clock for a broker that has a schedule; answer [`crate::Input::Window`] now and at each change. Asked
    /// again of a clock that is watched, answer again.
    WatchClock {
        /// Whose.
        broker: BrokerId,
    },
    /// Start a worker and watch for its readiness; answer `Spawned` or `SpawnFailed`. A standby is told no slot, and
    /// watched until it is at the door; answer `Standby`.
    Spawn {
        /// Its id.
        worker: WorkerId,
        /// Its broker.
        broker: BrokerId,
        /// Its place; none for a standby.
        slot: Option<Slot>,
        /// Its specification's number.
        generation: Generation,
        /// What to start.
        launch: LaunchId,
    },
    /// Tell a standby its slot, open the door, and watch for its readiness; answer [`crate::Input::Ready`]. Told again
    /// it changes nothing.
    Promote {
        /// Which worker.
        worker: WorkerId,
        /// Its place from now on.
        slot: Slot,
    },
    /// Tell the worker on its channel that it should leave.
    Notice {
        /// Which worker.
        worker: WorkerId,
        /// The number of the rung, whose words these are.
        rung: u32,
    },
    /// Send a signal to the worker's own process.
    Signal {
        /// Which worker.
        worker: WorkerId,
        /// Which signal.
        signal: Signal,
        /// The number of the rung.
        rung: u32,
    },
    /// Kill the worker and all its descendants.
    KillTree {
        /// Which worker.
        worker: WorkerId,
    },
    /// Tell everybody.
    Emit(Event),
    /// The one final answer to a command.
    Reply {
        /// Which command.
        request: RequestId,
        /// How it ended.
        outcome: Outcome,
    },
    /// Nothing is left to keep: the process may end.
    Exit,
}

/// How a command ended.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Outcome {
    /// What was asked for is so.
    Done(Done),
    /// It ran and did not reach what was asked for.
    Failed(Failed),
    /// Another command came in between; says which.
    Superseded(String),
    /// Not taken; says why.
    Refused(String),
}

impl Outcome {
    /// Refused only since too much else is under way: it makes sense to ask again.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        matches!(self, Outcome::Refused(why) if why.starts_with(TOO_MANY))
    }

    /// The same, its text short enough to be recorded.
    pub(crate) fn bounded(self) -> Outcome {
        match self {
            Outcome::Done(done) => Outcome::Done(done),
            Outcome::Failed(failed) => Outcome::Failed(Failed { reason: bounded(failed.reason), ..failed }),
            Outcome::Superseded(by) => Outcome::Superseded(bounded(by)),
            Outcome::Refused(why) => Outcome::Refused(bounded(why)),
        }
    }
}

/// How the refusal of a command begins beside which too many others wait.
pub(crate) const TOO_MANY: &str = "too many commands wait";

/// What a command has reached; numbers that do not apply are 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Done {
    /// A remark.
    pub note: Option<Note>,
    /// Workers that were to be replaced.
    pub total: u32,
    /// Workers replaced.
    pub replaced: u32,
    /// Workers killed because they did not leave in time.
    pub cut: u32,
    /// Connections reset because nobody was left to take them.
    pub refused: u64,
}

/// Why there was nothing to do, or not yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Note {
    /// A recycle of a broker without listeners yet.
    NothingToRecycleWaiting,
    /// A recycle of a drained broker.
    NothingToRecycleDrained,
    /// A recycle of a closed broker.
    NothingToRecycleClosed,
    /// A recycle of a broker of which 0 workers are wanted.
    NothingToRecycleNoWorkers,
    /// A drain of a drained broker.
    DrainedAlready,
    /// A resume of an open one.
    OpenAlready,
    /// A scale of a broker that is not open.
    EffectiveOnceOpen,
}

impl fmt::Display for Note {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Note::NothingToRecycleWaiting => "nothing to recycle: waits for its listeners",
            Note::NothingToRecycleDrained => "nothing to recycle: drained",
            Note::NothingToRecycleClosed => "nothing to recycle: closed by its schedule",
            Note::NothingToRecycleNoWorkers => "nothing to recycle: no workers are wanted",
            Note::DrainedAlready => "was drained already",
            Note::OpenAlready => "was open already",
            Note::EffectiveOnceOpen => "takes effect when the broker is open",
        })
    }
}

/// Where and why a recycle stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Failed {
    /// Why.
    pub reason: String,
    /// Workers that were to be replaced.
    pub total: u32,
    /// Workers replaced before.
    pub replaced: u32,
    /// The worker that failed.
    pub worker: Option<WorkerId>,
    /// Its place.
    pub slot: Option<Slot>,
}
