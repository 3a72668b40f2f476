//! What a broker can be asked for: the options of the library, and what a configuration file is read into.

pub(crate) mod check;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub use shiftboss_core::spec::{
    Ask, BackoffSpec, Drained, MAX_WORKERS, Ready, RecycleSpec, Rung, Signal, StopLadder,
};

pub use check::OptionsError;

use crate::address::{Address, Listen};
#[cfg(feature = "schedule")]
use crate::schedule::Schedule;
#[cfg(feature = "watch")]
use crate::watch::Watch;

/// An app as asked for: its name and its brokers, in order of declaration.
#[derive(Clone, Debug, PartialEq)]
pub struct AppOptions {
    /// The app's name; also names its control socket.
    pub app: String,
    /// Type and options of each broker.
    pub brokers: Vec<(String, BrokerOptions)>,
    /// When another image of the program takes over; default [`UpgradeWhen::Asked`].
    pub upgrade: UpgradeWhen,
}

/// When another image of the program takes over. It needs a keeper.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum UpgradeWhen {
    /// On command.
    #[default]
    Asked,
    /// Also whenever the program's file on disk is another one (`inotify(7)`; not on network file systems).
    Auto,
}

/// How a worker takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// Speaks `sd_notify(3)`: gets a `NOTIFY_SOCKET` and says `READY=1`.
    Notify,
    /// Any program.
    Plain,
    /// Written for Node's `cluster`: asks for its listeners, and speaks Node's protocol on its channel.
    Node,
    /// One that uses this library: it says on its channel that it is ready.
    Worker,
}

/// How Node programs write what they say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Serialization {
    /// Lines of JSON.
    #[default]
    Json,
    /// Node's structured clone (`serialization: 'advanced'`). What of it JSON cannot hold is not heard.
    Advanced,
}

/// One broker's options. [`BrokerOptions::default`] is for workers that are the program itself, [`BrokerOptions::new`] for any
/// command; what differs is said over one of them:
///
/// ```
/// use shiftboss::{BrokerOptions, Listen};
///
/// let options = BrokerOptions {
///     workers: 4,
///     listen: vec![Listen::new("web", "tcp://127.0.0.1:3000")?],
///     ..BrokerOptions::default()
/// };
/// # Ok::<(), shiftboss::address::AddressError>(())
/// ```
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerOptions {
    /// Program and arguments; no shell is involved. A bare name is looked up in `PATH` once, at load. Empty = this very
    /// program, with the same arguments.
    pub command: Vec<String>,
    /// How a worker takes part; default worker without a command, plain with one.
    pub kind: Kind,
    /// How many workers are kept alive; default 1, 0 allowed.
    pub workers: u32,
    /// So many workers more, fully started and held at the door until one is needed; default 0. They are workers that wait
    /// there: of this library ([`WorkerContext::listener`](crate::WorkerContext::listener)), or any that say so on their
    /// channel.
    pub standby: u32,
    /// Sockets bound once by the broker and given to every worker, in this order.
    pub listen: Vec<Listen>,
    /// When a worker counts as ready; none = the kind's default (see [`BrokerOptions::effective_ready`]).
    pub ready: Option<Ready>,
    /// Limits of a recycle.
    pub recycle: RecycleSpec,
    /// How a worker is asked to leave; default a message to one that speaks on its channel, 30 s, TERM, 5 s, KILL of the
    /// tree; all others TERM, 30 s, KILL of the tree.
    pub stop: StopLadder,
    /// What the messages of the ladder say; default `"suicide"`, as with okanjo-app-broker.
    pub notice: serde_json::Value,
    /// Delays before a respawn.
    pub backoff: BackoffSpec,
    /// New connections while drained; default refused.
    pub drained: Drained,
    /// When it works; default always.
    #[cfg(feature = "schedule")]
    pub schedule: Option<Schedule>,
    /// How Node programs write what they say; default JSON, as with Node.
    pub serialization: Serialization,
    /// A Node program loads a few lines of ours first (`--require` in `NODE_OPTIONS`), which do nothing until it is told to
    /// leave: then its HTTP servers end kept connections with the next response, or once they are idle for a second. Without
    /// them a client that keeps its connection busy keeps the worker until the end of its ladder. Default true.
    pub preload: bool,
    /// A Node program whose event loop has not turned for so long is replaced; default 60 s, none = never. It is asked once in
    /// that time, and found after one to two of them. Others cannot be asked.
    pub hung_after: Option<Duration>,
    /// Files that recycle it when they change; default none.
    #[cfg(feature = "watch")]
    pub watch: Option<Watch>,
    /// Working directory of the workers; default ours.
    pub cwd: Option<PathBuf>,
    /// Added to the inherited environment, except for what is ours to set. Never shown in any output.
    pub environment: BTreeMap<String, String>,
    /// Start from an empty environment instead of ours; default false.
    pub clean_environment: bool,
}

impl Default for BrokerOptions {
    /// One worker, which is this very program started again with the same arguments, and says on its channel when it is
    /// ready: see [`WorkerContext`](crate::WorkerContext).
    fn default() -> Self {
        BrokerOptions { kind: Kind::Worker, ..BrokerOptions::new([""; 0]) }
    }
}

impl BrokerOptions {
    /// As okanjo-app-broker has it: a worker that is told to leave has 2 s, then TERM, and 1 s later it is killed. It cuts
    /// requests that take longer.
    #[must_use]
    pub fn seed() -> Self {
        let rungs =
            vec![Rung::notice(Duration::from_secs(2)), Rung::signal(Signal::TERM, Duration::from_secs(1))];
        BrokerOptions { stop: StopLadder(rungs), ..BrokerOptions::default() }
    }

    /// Without a command it is this program.
    pub(crate) fn of_this_program(mut self) -> std::io::Result<Self> {
        if self.command.is_empty() {
            let program = std::env::current_exe()?.to_string_lossy().into_owned();
            let arguments = std::env::args_os().skip(1).map(|word| word.to_string_lossy().into_owned());
            self.command = [program].into_iter().chain(arguments).collect();
            self.kind = Kind::Worker;
        }
        Ok(self)
    }

    /// One plain worker of this command, every other option at its default.
    #[must_use]
    pub fn new<S: Into<String>>(command: impl IntoIterator<Item = S>) -> Self {
        BrokerOptions {
            command: command.into_iter().map(Into::into).collect(),
            kind: Kind::Plain,
            workers: 1,
            standby: 0,
            listen: Vec::new(),
            ready: None,
            recycle: RecycleSpec::default(),
            stop: StopLadder::default(),
            notice: NOTICE.into(),
            backoff: BackoffSpec::default(),
            drained: Drained::default(),
            serialization: Serialization::default(),
            preload: true,
            hung_after: Some(Duration::from_secs(60)),
            #[cfg(feature = "schedule")]
            schedule: None,
            #[cfg(feature = "watch")]
            watch: None,
            cwd: None,
            environment: BTreeMap::new(),
            clean_environment: false,
        }
    }

    /// When a worker of these options counts as ready: what was asked, else notify: `READY=1`; plain with
    /// stream listeners: accepting; plain without: alive for 1 s.
    #[must_use]
    pub fn effective_ready(&self) -> Ready {
        match (self.ready, self.kind) {
            (Some(asked), _) => asked,
            (None, Kind::Node) => Ready::Listening,
            (None, Kind::Notify | Kind::Worker) => Ready::Notify,
            (None, Kind::Plain) if self.accepts_connections() => Ready::Accepting,
            (None, Kind::Plain) => Ready::After(Duration::from_secs(1)),
        }
    }

    /// Whether one of the listeners is for connections: datagrams are not accepted.
    #[must_use]
    pub fn accepts_connections(&self) -> bool {
        self.listen.iter().any(|listen| match listen.address {
            Address::Tcp(_) | Address::Unix(_) => true,
            Address::Udp(_) => false,
        })
    }

    /// Whether command or environment differ from slot to slot.
    pub(crate) fn names_slot(&self) -> bool {
        let words = self.command.iter().chain(self.environment.values());
        words.into_iter().any(|word| word.contains("{slot}"))
    }

    pub(crate) fn is_scheduled(&self) -> bool {
        #[cfg(feature = "schedule")]
        return self.schedule.is_some();
        #[cfg(not(feature = "schedule"))]
        false
    }

    /// How long changed files must have been quiet; none = nothing is watched.
    pub(crate) fn debounce(&self) -> Option<Duration> {
        #[cfg(feature = "watch")]
        return self.watch.as_ref().map(Watch::quiet_for);
        #[cfg(not(feature = "watch"))]
        None
    }

    /// What is watched, whoever runs in whichever folder.
    #[cfg(feature = "watch")]
    pub(crate) fn settled_watch(&self) -> Option<Watch> {
        self.watch.as_ref().map(|watch| watch.settled(self.cwd.as_deref()))
    }
}

pub(crate) const NOTICE: &str = "suicide";
