//! The listeners of one broker: bound once, opened, quieted and shut as core asks, never closed in between.

mod asked;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use shiftboss_core::id::BrokerId;
use shiftboss_core::input::ListenFailure;
use shiftboss_core::time::Time;

use crate::address::Listen;
use crate::keeper::Keeper;
use crate::keys::Key;
use crate::os::accepting::ListenerKey;
use crate::os::listener::{BindError, Listener};

use asked::Asked;
pub(crate) use asked::{FIRST_ASKED, Wish};

pub(crate) struct Sockets {
    wanted: Vec<Listen>,
    bound: Vec<Listener>,
    /// How many of them the keeper holds, too.
    kept: usize,
    /// Those that workers have asked for, by their places.
    asked: BTreeMap<u32, Asked>,
    /// What the workers at a place have in common.
    shared: BTreeMap<u32, String>,
    /// Its workers wait for events, and would hang in a socket that waits by itself.
    nonblocking: bool,
}

/// A wait for empty queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quieting {
    since: Time,
    empty_since: Option<Time>,
    next: Time,
}

impl Sockets {
    pub(crate) fn new(wanted: Vec<Listen>, nonblocking: bool) -> Self {
        let (asked, shared) = (BTreeMap::new(), BTreeMap::new());
        Sockets { wanted, bound: Vec::new(), kept: 0, asked, shared, nonblocking }
    }

    /// Goes on with what another process has bound, as far as it got.
    pub(crate) fn adopt(
        wanted: Vec<Listen>,
        nonblocking: bool,
        mut descriptor: impl FnMut(u32) -> Option<OwnedFd>,
    ) -> io::Result<Self> {
        let mut bound = Vec::new();
        for (place, listen) in (0..).zip(&wanted) {
            let Some(descriptor) = descriptor(place) else { break };
            bound.push(Listener::adopt(descriptor, &listen.address)?);
        }
        let kept = bound.len();
        Ok(Sockets { bound, kept, ..Sockets::new(wanted, nonblocking) })
    }

    /// The addresses as bound: of the declared ones, then of those that were asked for.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.all().map(|listener| listener.address().to_string()).collect()
    }

    fn all(&self) -> impl Iterator<Item = &Listener> {
        self.bound.iter().chain(self.asked.values().map(|asked| &asked.listener))
    }

    fn all_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        self.bound.iter_mut().chain(self.asked.values_mut().map(|asked| &mut asked.listener))
    }

    /// Has every socket held by the keeper that is not yet.
    pub(crate) fn deposit(&mut self, keeper: &Keeper, broker: BrokerId) -> io::Result<()> {
        while let Some(listener) = self.bound.get(self.kept) {
            let place = u32::try_from(self.kept).unwrap_or(u32::MAX);
            keeper.deposit(Key::Listener(broker, place), &[listener.as_fd()], 0)?;
            self.kept += 1;
        }
        Ok(())
    }

    /// Binds what is not bound yet, in order.
    pub(crate) fn bind(&mut self) -> Result<(), BindError> {
        while let Some(listen) = self.wanted.get(self.bound.len()) {
            self.bound.push(Listener::bind(&listen.address, self.nonblocking)?);
        }
        Ok(())
    }

    /// All bound and letting connections in; the addresses as bound.
    pub(crate) fn open(&mut self) -> Result<Vec<String>, ListenFailure> {
        self.bind().map_err(|error| self.failure(self.bound.len(), error.to_string()))?;
        for listener in self.all_mut() {
            if let Err(error) = listener.reopen() {
                let address = listener.address().to_string();
                return Err(ListenFailure { address, reason: error.to_string() });
            }
        }
        Ok(self.addresses())
    }

    /// The keeper could not hold them.
    pub(crate) fn not_held(&self, error: &io::Error) -> ListenFailure {
        self.failure(self.kept, format!("the keeper does not take it: {error}"))
    }

    fn failure(&self, at: usize, reason: String) -> ListenFailure {
        let address = self.wanted.get(at).map(|listen| listen.address.to_string()).unwrap_or_default();
        ListenFailure { address, reason }
    }

    /// Holds new connections back; those in the queue are still taken by the workers.
    pub(crate) fn quiet(&mut self, now: Time) -> Quieting {
        for listener in self.all_mut() {
            // A listener that cannot be filtered drains with its door open; what is queued then is counted by `shut`.
            let _ = listener.refuse_new();
        }
        Quieting { since: now, empty_since: None, next: now }
    }

    /// Whether the queues have stayed empty for long enough, or that was waited for long enough.
    pub(crate) fn is_quiet(&self, quieting: &mut Quieting, now: Time) -> bool {
        let queued: u32 = self.all().map(|listener| listener.queued().unwrap_or(0)).sum();
        quieting.empty_since = match (queued, quieting.empty_since) {
            (0, since) => since.or(Some(now)),
            (_, _) => None,
        };
        quieting.next = now + LOOK_EVERY;
        let empty = quieting.empty_since.is_some_and(|since| now.since(since) >= EMPTY_FOR);
        empty || self.all().next().is_none() || now.since(quieting.since) >= AT_MOST
    }

    /// Refuses new connections and resets what is queued; returns how many.
    pub(crate) fn shut(&mut self) -> u64 {
        self.all_mut().map(|listener| u64::from(listener.shut().unwrap_or(0))).sum()
    }

    /// A worker may have called `listen` with a shorter queue on the shared socket, or shut it for everybody. Whether all
    /// are as they should be.
    pub(crate) fn assert_backlog(&mut self) -> bool {
        // All of them, also after one that cannot.
        self.all_mut().filter_map(|listener| listener.assert_backlog().err()).count() == 0
    }

    /// The sockets that a worker can shut for everybody, and we can open again.
    pub(crate) fn mendable(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        self.all().filter(|listener| listener.can_be_mended()).map(AsFd::as_fd)
    }

    /// The declared ones, to be passed to a worker from its start.
    pub(crate) fn descriptors(&self) -> Vec<BorrowedFd<'_>> {
        self.bound.iter().map(AsFd::as_fd).collect()
    }

    /// What `accepting` looks for: every listener at which connections wait.
    pub(crate) fn keys(&self) -> Vec<ListenerKey> {
        self.bound.iter().filter_map(|listener| ListenerKey::of(listener.as_fd()).ok()).collect()
    }
}

impl Quieting {
    pub(crate) fn deadline(&self) -> Time {
        self.next
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A queue that has been empty this long has no handshake under way either.
const EMPTY_FOR: Duration = Duration::from_millis(200);
const AT_MOST: Duration = Duration::from_secs(2);
