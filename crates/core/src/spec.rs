//! What is asked of one broker: limits and waits, valid by construction where a type can say it.
//!
//! How a worker is launched is the shell's; core knows it as a [`LaunchId`].

use std::time::Duration;

use crate::id::LaunchId;

/// The most workers one broker may have, and the most standbys.
pub const MAX_WORKERS: u32 = 100_000;

/// One broker as asked for.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BrokerSpec {
    /// The type of its workers: the broker's name ("api").
    pub name: String,
    /// How many workers are wanted; 0 is allowed.
    pub workers: u32,
    /// What the shell starts.
    pub launch: LaunchId,
    /// Whether it has listeners, which must be open before the first worker is started.
    pub listens: bool,
    /// When a worker counts as ready.
    pub ready: Ready,
    /// How workers are replaced by new ones.
    pub recycle: RecycleSpec,
    /// How a worker is asked to leave, rung by rung.
    pub stop: StopLadder,
    /// How long to wait before a worker that died is replaced.
    pub backoff: BackoffSpec,
    /// What becomes of new connections while drained.
    pub drained: Drained,
    /// It has windows outside of which it is closed: see [`crate::Input::Window`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub scheduled: bool,
    /// Recycle when files have changed and been quiet for so long: see [`crate::Input::Changed`]; none = never.
    #[cfg_attr(feature = "serde", serde(default))]
    pub watch: Option<Duration>,
    /// So many workers more, fully started and held at the door until one is needed: see [`crate::Input::Standby`].
    #[cfg_attr(feature = "serde", serde(default))]
    pub standby: u32,
}

/// When a worker counts as ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Ready {
    /// It says so itself: `READY=1` on its notify socket (`sd_notify(3)`).
    Notify,
    /// It waits for connections: an epoll set in its process tree holds the broker's listener.
    Accepting,
    /// It listens on all that its predecessor listened on: the shell sees to that, and says so.
    Listening,
    /// It has lived for this long.
    After(Duration),
}

/// Limits of a recycle, in Kubernetes' words.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct RecycleSpec {
    /// Recycle all workers each time this has passed; none = only when asked. Varied by `jitter`.
    pub every: Option<Duration>,
    /// Share of `every` by which it is shortened or lengthened, 0.0 to 1.0; default 0.1.
    pub jitter: f64,
    /// Processes allowed beyond N while recycling, leaving predecessors included; default 1.
    pub surge: u32,
    /// Workers that may be missing from N while recycling; default 0. Not 0 together with `surge`.
    pub unavailable: u32,
    /// How long a successor must have been ready before its predecessor is retired; default 0.
    pub min_ready: Duration,
    /// How long a worker may take to become ready, in a recycle or not; default 60 s.
    pub deadline: Duration,
}

impl Default for RecycleSpec {
    fn default() -> Self {
        RecycleSpec {
            every: None,
            jitter: 0.1,
            surge: 1,
            unavailable: 0,
            min_ready: Duration::ZERO,
            deadline: Duration::from_secs(60),
        }
    }
}

/// The rungs by which a worker is asked to leave. After the last one, always, its whole tree is killed.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct StopLadder(pub Vec<Rung>);

/// One rung: how it is asked, and how long it may take to act before the next rung.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Rung {
    /// How.
    pub ask: Ask,
    /// How long the worker may take to leave after it.
    pub wait: Duration,
}

/// How a worker is asked to leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Ask {
    /// By a message on its channel; its words are the shell's. One that has never spoken on its channel, or has closed
    /// it, cannot be told: it goes to the next rung at once, and has there at least the time that it would have had here.
    Notice,
    /// By a signal to its own process. KILL goes to its tree and ends the ladder.
    Signal(Signal),
}

impl Rung {
    /// A message.
    #[must_use]
    pub const fn notice(wait: Duration) -> Rung {
        Rung { ask: Ask::Notice, wait }
    }

    /// A signal.
    #[must_use]
    pub const fn signal(signal: Signal, wait: Duration) -> Rung {
        Rung { ask: Ask::Signal(signal), wait }
    }
}

impl Default for StopLadder {
    /// A message, 30 s, TERM, 5 s, then KILL of the tree; who cannot be told: TERM, 30 s, KILL.
    fn default() -> Self {
        let (notice, term) = (Duration::from_secs(30), Duration::from_secs(5));
        StopLadder(vec![Rung::notice(notice), Rung::signal(Signal::TERM, term)])
    }
}

/// A signal's number, as Linux counts (`signal(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct Signal(pub i32);

impl Signal {
    /// Hang-up.
    pub const HUP: Signal = Signal(1);
    /// Interrupt.
    pub const INT: Signal = Signal(2);
    /// Quit.
    pub const QUIT: Signal = Signal(3);
    /// Kill; cannot be caught.
    pub const KILL: Signal = Signal(9);
    /// User-defined 1.
    pub const USR1: Signal = Signal(10);
    /// User-defined 2.
    pub const USR2: Signal = Signal(12);
    /// Terminate.
    pub const TERM: Signal = Signal(15);
    /// Continue.
    pub const CONT: Signal = Signal(18);

    const NAMES: [(&'static str, i32); 31] = [
        ("HUP", 1),
        ("INT", 2),
        ("QUIT", 3),
        ("ILL", 4),
        ("TRAP", 5),
        ("ABRT", 6),
        ("BUS", 7),
        ("FPE", 8),
        ("KILL", 9),
        ("USR1", 10),
        ("SEGV", 11),
        ("USR2", 12),
        ("PIPE", 13),
        ("ALRM", 14),
        ("TERM", 15),
        ("STKFLT", 16),
        ("CHLD", 17),
        ("CONT", 18),
        ("STOP", 19),
        ("TSTP", 20),
        ("TTIN", 21),
        ("TTOU", 22),
        ("URG", 23),
        ("XCPU", 24),
        ("XFSZ", 25),
        ("VTALRM", 26),
        ("PROF", 27),
        ("WINCH", 28),
        ("IO", 29),
        ("PWR", 30),
        ("SYS", 31),
    ];

    /// The signal of a name, with or without `SIG`, in any case: "TERM", "sigterm".
    #[must_use]
    pub fn named(name: &str) -> Option<Signal> {
        let upper = name.to_ascii_uppercase();
        let bare = upper.strip_prefix("SIG").unwrap_or(&upper);
        Self::NAMES.iter().find(|(known, _)| *known == bare).map(|(_, number)| Signal(*number))
    }

    /// All names that [`Signal::named`] knows, without `SIG`.
    pub fn names() -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().map(|(name, _)| *name)
    }
}

impl std::fmt::Display for Signal {
    /// "SIGTERM"; a number without a name is "SIG34".
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match Self::NAMES.iter().find(|(_, number)| *number == self.0) {
            Some((name, _)) => write!(f, "SIG{name}"),
            None => write!(f, "SIG{}", self.0),
        }
    }
}

/// Delays before a respawn: the first is immediate, the k-th failure in a row waits `base`·2^(k-2), at most `cap`.
#[derive(Clone, Copy, Debug, PartialEq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub struct BackoffSpec {
    /// Delay after the second failure in a row; default 100 ms.
    pub base: Duration,
    /// Longest delay; default 30 s.
    pub cap: Duration,
    /// A worker that has been ready this long has proved itself: its slot's failures are forgotten; default 10 s.
    pub healthy_after: Duration,
}

impl Default for BackoffSpec {
    fn default() -> Self {
        BackoffSpec {
            base: Duration::from_millis(100),
            cap: Duration::from_secs(30),
            healthy_after: Duration::from_secs(10),
        }
    }
}

/// What becomes of new connections while a broker is drained.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[cfg_attr(feature = "serde", derive(serde::Serialize, serde::Deserialize))]
pub enum Drained {
    /// They are refused, so that a client or load balancer goes elsewhere at once.
    #[default]
    Refuse,
    /// They wait in the kernel's queue until resume.
    Hold,
}
