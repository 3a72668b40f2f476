//! One event for each change of state. The status is their fold (`status`), so an event carries all it changes.

use std::fmt;
use std::time::Duration;

use crate::id::{BrokerId, Generation, Pid, RequestId, Slot, WorkerId};
use crate::input::Exit;
use crate::time::Time;

/// Something changed.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Event {
    /// Rises by one with each event of an app.
    pub seq: u64,
    /// When.
    pub at: Time,
    /// Whose; none for the app's own.
    pub broker: Option<BrokerId>,
    /// The command that caused it.
    pub request: Option<RequestId>,
    /// What.
    pub what: What,
}

/// What changed.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
#[expect(missing_docs, reason = "the fields are those of the wire format, documented there")]
pub enum What {
    /// A broker exists; it waits for its schedule or its listeners, or is open if it has none.
    BrokerStarted {
        wanted: u32,
        generation: Generation,
        listens: bool,
        #[cfg_attr(feature = "serde", serde(default))]
        scheduled: bool,
    },
    /// A listener is bound.
    ListenerBound { address: String },
    /// A listener is closed: nobody asks for it any longer.
    ListenerClosed { address: String },
    /// A listener could not be opened.
    ListenerFailed { address: String, reason: String },
    /// The broker waits for its listeners: asked for now, or tried again later.
    BrokerWaiting { retry_at: Option<Time> },
    /// The broker keeps its workers alive from now on.
    BrokerOpened,
    /// The same, after a drain.
    BrokerResumed,
    /// The broker sends its workers home.
    BrokerDraining,
    /// All are home.
    BrokerDrained { refused: u64, cut: u32 },
    /// They stay there until its schedule opens it.
    BrokerClosed,
    /// Another number of workers is wanted.
    BrokerScaled { wanted: u32 },
    /// Another process keeps it from now on, with so many running workers; `drained`: it is, or is being drained, by
    /// its schedule too; `salvaged`: without what was under way.
    BrokerAdopted { workers: u32, drained: bool, salvaged: bool },
    /// Its workers keep failing.
    BrokerDegraded { reason: String },
    /// They no longer do.
    BrokerRecovered,
    /// A worker's process runs; a standby has no slot.
    WorkerStarted { worker: WorkerId, slot: Option<Slot>, pid: Pid, generation: Generation },
    /// It serves.
    WorkerReady { worker: WorkerId, slot: Slot, pid: Pid, after: Duration },
    /// A standby is fully started, and waits to be promoted.
    WorkerStandby { worker: WorkerId, pid: Pid, after: Duration },
    /// A standby has a slot from now on, and is to serve.
    WorkerPromoted { worker: WorkerId, slot: Slot, pid: Pid },
    /// It was asked to leave.
    WorkerStopping { worker: WorkerId, slot: Option<Slot>, pid: Pid, reason: String },
    /// It left as asked, or by itself with code 0.
    WorkerEnded { worker: WorkerId, slot: Option<Slot>, pid: Pid, exit: Exit, forced: bool, reason: String },
    /// It went in any other way, or never ran (then without pid and exit).
    WorkerDeath {
        worker: WorkerId,
        slot: Option<Slot>,
        pid: Option<Pid>,
        exit: Option<Exit>,
        forced: bool,
        reason: String,
    },
    /// The slot waits before its next worker; without a slot: the broker before its next standby.
    WorkerBackoff { slot: Option<Slot>, retry_at: Time, failures: u32 },
    /// Workers are being replaced.
    RecycleStarted { target: Generation, total: u32, reason: RecycleReason },
    /// All are.
    RecycleFinished { target: Generation, generation: Generation, total: u32, replaced: u32, cut: u32 },
    /// It stopped; no further worker is retired by it.
    RecycleFailed {
        target: Generation,
        generation: Generation,
        total: u32,
        replaced: u32,
        worker: Option<WorkerId>,
        slot: Option<Slot>,
        reason: String,
    },
    /// Every broker has all its workers for the first time.
    AppReady,
    /// The app is ending.
    AppStopping,
}

/// Why a recycle began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum RecycleReason {
    /// By a command.
    Asked,
    /// By time: `every` has passed.
    ByTime,
    /// Files have changed.
    FilesChanged,
    /// There is a new specification.
    NewSpecification,
    /// It undoes a failed one.
    GoingBack,
}

impl fmt::Display for RecycleReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            RecycleReason::Asked => "asked",
            RecycleReason::ByTime => "by time",
            RecycleReason::FilesChanged => "files changed",
            RecycleReason::NewSpecification => "new specification",
            RecycleReason::GoingBack => "going back",
        })
    }
}
