//! Everything that can happen, in the past tense.

use std::fmt;

use crate::id::{BrokerId, Pid, RequestId, Slot, WorkerId};
use crate::spec::{BrokerSpec, Signal};

/// One thing that happened.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Input {
    /// The time named by [`crate::App::deadline`] has come.
    Tick,
    /// The listeners of a broker are open (with their addresses as bound), or one could not be.
    Opened {
        /// Whose.
        broker: BrokerId,
        /// The round of the effect this answers.
        round: u32,
        /// Addresses in order, or which one failed.
        result: Result<Vec<String>, ListenFailure>,
    },
    /// One more listener of a broker is bound, because a worker asked for it. While the broker refuses connections the
    /// shell refuses them there too. One that is known already changes nothing.
    Bound {
        /// Whose.
        broker: BrokerId,
        /// As bound.
        address: String,
    },
    /// A listener of a broker is about to be closed: nobody asks for it any longer. One that is not known changes nothing.
    Unbound {
        /// Whose.
        broker: BrokerId,
        /// As it was told.
        address: String,
    },
    /// New connections are held back and the queues have been emptied, or that was waited for long enough.
    Quiet {
        /// Whose listeners.
        broker: BrokerId,
        /// The round of the effect this answers.
        round: u32,
    },
    /// The listeners refuse; so many connections were left in their queues and are reset.
    Shut {
        /// Whose listeners.
        broker: BrokerId,
        /// The round of the effect this answers.
        round: u32,
        /// Connections reset.
        refused: u64,
    },
    /// The worker's process runs.
    Spawned {
        /// Which.
        worker: WorkerId,
        /// Its process.
        pid: Pid,
    },
    /// The worker's process could not be started.
    SpawnFailed {
        /// Which.
        worker: WorkerId,
        /// The failing step and its error, in words.
        reason: String,
    },
    /// The worker said, or was seen, to be ready.
    Ready {
        /// Which.
        worker: WorkerId,
    },
    /// The worker, a standby, is fully started and waits at the door; it serves when it is told to: see
    /// [`crate::Effect::Promote`]. Of one that has a slot nothing follows.
    Standby {
        /// Which.
        worker: WorkerId,
    },
    /// The worker is watched from outside for its readiness, and may not be looked at.
    Unseen {
        /// Which.
        worker: WorkerId,
    },
    /// The worker has said something on its channel, for the first time: it can be told things.
    Spoke {
        /// Which.
        worker: WorkerId,
    },
    /// A worker that has spoken has closed its channel.
    HungUp {
        /// Which.
        worker: WorkerId,
    },
    /// The worker has said so much that means nothing that nobody listens any more.
    Garbled {
        /// Which.
        worker: WorkerId,
    },
    /// The worker runs and its event loop does not turn: it hears and answers nothing.
    Hung {
        /// Which.
        worker: WorkerId,
    },
    /// The worker has said that it is ready, and whoever was asked about it does not want it.
    Refused {
        /// Which.
        worker: WorkerId,
    },
    /// The worker's process is gone, reaped, and so is what was left of its group.
    Exited {
        /// Which.
        worker: WorkerId,
        /// How.
        exit: Exit,
    },
    /// Whether a broker that has a schedule is inside of its window: answers [`crate::Effect::WatchClock`], and comes
    /// again at each change. What is known already changes nothing.
    Window {
        /// Whose.
        broker: BrokerId,
        /// Inside.
        open: bool,
    },
    /// Files have changed that a broker's workers are made of; of one that does not ask for it, nothing follows.
    Changed {
        /// Whose.
        broker: BrokerId,
    },
    /// Somebody asks for something. The same request again changes nothing and has the same outcome.
    Command {
        /// The command's own number.
        request: RequestId,
        /// What is asked.
        command: Command,
    },
    /// Another broker joins the app, with the next number.
    Begun {
        /// What is asked of it.
        spec: Box<BrokerSpec>,
        /// Feeds its jitter.
        seed: u64,
    },
    /// The app shall end: gracefully, or now. Asked gracefully again it goes on as it does.
    Stop {
        /// Kill instead of asking.
        now: bool,
    },
}

/// What can be asked of the running app.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Command {
    /// Something of one broker.
    Broker(BrokerId, Verb),
    /// End the app gracefully.
    Stop,
}

/// What can be asked of one broker.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Verb {
    /// Replace the workers by new ones, or only that of one slot.
    Recycle(Option<Slot>),
    /// Send all workers home and start none.
    Drain,
    /// Start them again; outside of its schedule, once that opens it.
    Resume,
    /// The same at once; outside of its schedule it stays open until its next window has ended.
    ResumeNow,
    /// Keep so many workers from now on; at most [`crate::spec::MAX_WORKERS`].
    Scale(u32),
    /// Run a new specification: a new generation, reached by a recycle, given up if it does not become ready.
    /// Name and `listens` must be as before.
    Respecify(Box<BrokerSpec>),
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Exit {
    /// It returned this code.
    Code(i32),
    /// This signal ended it.
    Signal(Signal),
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Exit::Code(code) => write!(f, "exited with {code}"),
            Exit::Signal(signal) => write!(f, "ended by {signal}"),
        }
    }
}

/// Which listener could not be opened, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct ListenFailure {
    /// The address as asked for.
    pub address: String,
    /// Why, in words.
    pub reason: String,
}
