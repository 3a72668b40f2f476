//! The listeners of one broker: bound once, opened, quieted and shut as core asks, never closed in between.

mod asked;

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use shiftboss_core::What;
use shiftboss_core::id::{BrokerId, Slot, WorkerId};
use shiftboss_core::input::ListenFailure;
use shiftboss_core::status::BrokerStatus;
use shiftboss_core::time::Time;

use crate::address::{Address, Balance, Listen};
use crate::attendance::Attendance;
use crate::keeper::{Inherited, Keeper};
use crate::keys::Key;
use crate::os::accepting::ListenerKey;
use crate::os::lanes::{self, Lanes};
use crate::os::listener::{BindError, Listener};

use asked::Asked;
pub(crate) use asked::{FIRST_ASKED, Wish};

pub(crate) struct Sockets {
    wanted: Vec<Listen>,
    bound: Vec<Bound>,
    attendance: Attendance,
    /// Those that workers have asked for, by their places.
    asked: BTreeMap<u32, Asked>,
    /// What the workers at a place have in common.
    shared: BTreeMap<u32, String>,
    /// Its workers wait for events, and would hang in a socket that waits by itself.
    nonblocking: bool,
}

/// One listener.
struct Bound {
    sockets: Kind,
    /// How many of its sockets the keeper holds, too.
    kept: usize,
}

enum Kind {
    Shared(Listener),
    Lanes(Lanes),
}

/// A wait for empty queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Quieting {
    since: Time,
    empty_since: Option<Time>,
    next: Time,
}

impl Sockets {
    /// For so many workers at first.
    pub(crate) fn new(wanted: Vec<Listen>, workers: u32, nonblocking: bool) -> Self {
        Sockets {
            wanted,
            bound: Vec::new(),
            attendance: Attendance::of(workers),
            asked: BTreeMap::new(),
            shared: BTreeMap::new(),
            nonblocking,
        }
    }

    /// Goes on with what another process has bound, as far as it got.
    pub(crate) fn adopt(
        wanted: Vec<Listen>,
        nonblocking: bool,
        broker: BrokerId,
        held: &mut Inherited,
    ) -> io::Result<Self> {
        let mut bound = Vec::new();
        for (place, listen) in (0..).zip(&wanted) {
            let (sockets, kept) = match listen.balance {
                Balance::Shared | Balance::RoundRobin => {
                    let Some(socket) = held.claim_socket(Key::Listener(broker, place.into()))? else { break };
                    // What nobody has noted is held again.
                    let is_noted = socket.file.is_some() || !matches!(listen.address, Address::Unix(_));
                    (Kind::Shared(Listener::adopt(socket, &listen.address)?), usize::from(is_noted))
                }
                Balance::Lanes => {
                    let all = (0..).map_while(|lane| held.claim_one(Key::Lane(broker, place, lane)));
                    let all: Vec<_> = all.collect();
                    if all.is_empty() {
                        break;
                    }
                    let (kept, order) = (all.len(), held.claim_one(Key::LaneOrder(broker, place)));
                    (Kind::Lanes(Lanes::adopt(&listen.address, all, order)?), kept)
                }
            };
            bound.push(Bound { sockets, kept });
        }
        Ok(Sockets { bound, attendance: Attendance::default(), ..Sockets::new(wanted, 0, nonblocking) })
    }

    /// The addresses as bound: of the declared ones, then of those that were asked for.
    pub(crate) fn addresses(&self) -> Vec<String> {
        let address = |bound: &Bound| match &bound.sockets {
            Kind::Shared(listener) => listener.address().to_string(),
            Kind::Lanes(lanes) => lanes.address().to_string(),
        };
        self.bound.iter().map(address).chain(self.asked().map(|(_, address)| address)).collect()
    }

    /// Has every socket held by the keeper that is not yet.
    pub(crate) fn deposit(&mut self, keeper: &Keeper, broker: BrokerId) -> io::Result<()> {
        for (place, Bound { sockets, kept }) in (0_u16..).zip(&mut self.bound) {
            match sockets {
                Kind::Shared(listener) if *kept == 0 => {
                    let key = Key::Listener(broker, place.into());
                    keeper.deposit_socket(key, listener.as_fd(), listener.file())?;
                    *kept = 1;
                }
                Kind::Shared(_) => {}
                Kind::Lanes(lanes) => {
                    if *kept == 0 {
                        keeper.deposit(Key::LaneOrder(broker, place), &[lanes.note()?], 0)?;
                    }
                    for (at, lane) in (0_u16..).zip(lanes.all()).skip(*kept) {
                        keeper.deposit(Key::Lane(broker, place, at), &[lane.as_fd()], 0)?;
                        *kept += 1;
                    }
                }
            }
        }
        Ok(())
    }

    /// Binds what is not bound yet, in order.
    pub(crate) fn bind(&mut self) -> Result<(), BindError> {
        while let Some(listen) = self.wanted.get(self.bound.len()) {
            let sockets = match listen.balance {
                Balance::Shared | Balance::RoundRobin => {
                    let listener = Listener::bind(&listen.address, self.nonblocking)?;
                    listener.answers_at_once()?;
                    Kind::Shared(listener)
                }
                Balance::Lanes => Kind::Lanes(Lanes::bind(&listen.address, self.attendance.wanted())?),
            };
            let bound = Bound { sockets, kept: 0 };
            bound.wait_for_events(self.nonblocking)?;
            self.bound.push(bound);
        }
        Ok(())
    }

    /// All bound and letting connections in; the addresses as bound.
    pub(crate) fn open(&mut self) -> Result<Vec<String>, ListenFailure> {
        self.bind().map_err(|error| self.failure(self.bound.len(), error.to_string()))?;
        for (at, bound) in self.bound.iter_mut().enumerate() {
            let opened = match &mut bound.sockets {
                Kind::Shared(listener) => listener.reopen(),
                Kind::Lanes(lanes) => lanes.reopen(),
            };
            if let Err(error) = opened {
                return Err(self.failure(at, error.to_string()));
            }
        }
        for asked in self.asked.values_mut() {
            asked.is_left = false;
            if let Err(error) = asked.listener.reopen() {
                let address = asked.listener.address().to_string();
                return Err(ListenFailure { address, reason: error.to_string() });
            }
        }
        Ok(self.addresses())
    }

    /// Sees to it that clients find the UNIX listeners, which others can remove and workers can shut: those that are
    /// open, or all if they are to be opened. Tells of each that was bound anew, with the socket from before.
    pub(crate) fn mend(
        &mut self,
        opens: bool,
        keeper: Option<&Keeper>,
        broker: BrokerId,
        mut mended: impl FnMut(&Address, OwnedFd),
    ) -> Result<(), ListenFailure> {
        let mut result = Ok(());
        for (place, bound) in (0..).zip(&mut self.bound) {
            let Kind::Shared(listener) = &mut bound.sockets else { continue };
            if !opens && !listener.is_to_listen() {
                continue;
            }
            let hold = |socket: BorrowedFd<'_>, file| {
                let key = Key::Listener(broker, place);
                keeper.map_or(Ok(()), |keeper| keeper.deposit_socket(key, socket, file))
            };
            match listener.mend(self.nonblocking, 0, hold) {
                Ok(before) => before.into_iter().for_each(|before| mended(listener.address(), before)),
                Err(error) => result = Err((listener.address().to_string(), error)),
            }
        }
        // All of them, also after one that cannot.
        let asked = self.mend_asked(opens, keeper, broker, &mut mended);
        result.and(asked).map_err(|(address, error)| ListenFailure { address, reason: error.to_string() })
    }

    /// The keeper could not hold them.
    pub(crate) fn not_held(&self, error: &io::Error) -> ListenFailure {
        let at = self.bound.iter().position(|bound| bound.kept < bound.count()).unwrap_or(0);
        self.failure(at, format!("the keeper does not take it: {error}"))
    }

    fn failure(&self, at: usize, reason: String) -> ListenFailure {
        let address = self.wanted.get(at).map(|listen| listen.address.to_string()).unwrap_or_default();
        ListenFailure { address, reason }
    }

    /// Holds new connections back; those in the queue are still taken by the workers. What was asked for and is lent to
    /// workers of other brokers stays open.
    pub(crate) fn quiet(&mut self, now: Time, is_lent: impl Fn(u32) -> bool) -> Quieting {
        for bound in &mut self.bound {
            match &mut bound.sockets {
                // A listener that cannot be filtered drains with its door open; what is queued then is counted by `shut`.
                Kind::Shared(listener) => drop(listener.refuse_new()),
                Kind::Lanes(lanes) => lanes.refuse_new(),
            }
        }
        for (_, asked) in self.asked.iter_mut().filter(|(place, _)| !is_lent(**place)) {
            let _ = asked.listener.refuse_new();
        }
        Quieting::since(now)
    }

    /// How many connections wait in the queues of those that are held back.
    pub(crate) fn queued(&self) -> u32 {
        let queued = self.bound.iter().map(|bound| match &bound.sockets {
            Kind::Shared(listener) => listener.queued().unwrap_or(0),
            Kind::Lanes(lanes) => lanes.queued(),
        });
        queued.chain(self.asked.keys().map(|place| self.queued_at(*place))).sum()
    }

    /// Whether there is no listener.
    pub(crate) fn is_empty(&self) -> bool {
        self.bound.is_empty() && self.asked.is_empty()
    }

    /// Refuses new connections and resets what is queued; returns how many. What is lent stays open, as above.
    pub(crate) fn shut(&mut self, is_lent: impl Fn(u32) -> bool) -> u64 {
        let shut = |bound: &mut Bound| match &mut bound.sockets {
            Kind::Shared(listener) => u64::from(listener.shut().unwrap_or(0)),
            Kind::Lanes(lanes) => u64::from(lanes.shut()),
        };
        let declared: u64 = self.bound.iter_mut().map(shut).sum();
        self.leave_asked();
        declared + self.shut_left(is_lent)
    }

    /// A worker may have called `listen` with a shorter queue on the shared socket, or shut it for everybody. Whether all
    /// are as they should be.
    pub(crate) fn assert_backlog(&mut self) -> bool {
        let assert = |bound: &mut Bound| match &mut bound.sockets {
            Kind::Shared(listener) => listener.assert_backlog(),
            Kind::Lanes(lanes) => lanes.assert_backlog(),
        };
        // All of them, also after one that cannot.
        let declared = self.bound.iter_mut().filter_map(|bound| assert(bound).err()).count();
        let asked = self.asked_mut().filter_map(|listener| listener.assert_backlog().err()).count();
        declared + asked == 0
    }

    /// The open sockets of which something is to be heard, with their places: that a worker has shut one for everybody, or
    /// that there is a connection to hand over.
    pub(crate) fn watched(&self) -> impl Iterator<Item = (u32, BorrowedFd<'_>)> {
        let declared = (0..).zip(&self.bound);
        let declared =
            declared.flat_map(|(place, bound)| bound.all().iter().map(move |listener| (place, listener)));
        let asked = self.asked.iter().map(|(place, asked)| (*place, &asked.listener));
        declared
            .chain(asked)
            .filter(|(_, listener)| listener.tells_of_its_end())
            .map(|(place, listener)| (place, listener.as_fd()))
    }

    /// How many are declared: their places are below that.
    pub(crate) fn declared_places(&self) -> u32 {
        u32::try_from(self.bound.len()).unwrap_or(u32::MAX)
    }

    /// What the worker of a slot is given, in the order of the specification.
    pub(crate) fn descriptors(&self, slot: Option<Slot>) -> Vec<BorrowedFd<'_>> {
        (0..self.bound.len()).filter_map(|place| self.descriptor_for(place, slot)).collect()
    }

    /// What it is given of the listener at this place; none if that is not bound, or the slot has no lane there yet.
    pub(crate) fn descriptor_for(&self, place: usize, slot: Option<Slot>) -> Option<BorrowedFd<'_>> {
        self.bound.get(place)?.for_slot(slot).map(AsFd::as_fd)
    }

    /// What `accepting` looks for: every listener of the slot at which connections wait.
    pub(crate) fn keys(&self, slot: Option<Slot>) -> Vec<ListenerKey> {
        self.descriptors(slot).into_iter().filter_map(|listener| ListenerKey::of(listener).ok()).collect()
    }

    // Lanes.

    /// Sees to it that this slot has its lanes; whether there are new ones, which the keeper has to hold.
    pub(crate) fn make_lanes(&mut self, slot: Slot) -> Result<bool, BindError> {
        let mut any = false;
        for bound in &mut self.bound {
            if let Kind::Lanes(lanes) = &mut bound.sockets {
                any |= lanes.make(slot.0)?;
            }
            bound.wait_for_events(self.nonblocking)?;
        }
        Ok(any)
    }

    pub(crate) fn has_lanes(&self) -> bool {
        self.wanted.iter().any(|listen| listen.balance == Balance::Lanes)
    }

    /// Who attends to lanes is as it is seen.
    pub(crate) fn are_attended_as(&mut self, status: &BrokerStatus) -> io::Result<()> {
        self.attendance = Attendance::seen(status);
        self.attend()
    }

    /// Something happened to the broker: new connections go where somebody is ready from now on. What waits where nobody
    /// will be is reset; returns how many connections that were.
    pub(crate) fn hear(&mut self, what: &What) -> io::Result<u64> {
        if !self.has_lanes() || !self.attendance.hear(what) {
            return Ok(0);
        }
        self.attend()?;
        let mut reset = 0;
        for lanes in self.bound.iter_mut().filter_map(Bound::lanes) {
            let count = u32::try_from(lanes.all().len()).unwrap_or(lanes::MOST);
            // The first one waits for somebody, even if nobody is wanted now.
            for lane in self.attendance.wanted().max(1)..count {
                if !self.attendance.has(Slot(lane)) {
                    reset += u64::from(lanes.reset(lane)?);
                }
            }
        }
        Ok(reset)
    }

    fn attend(&mut self) -> io::Result<()> {
        let slots: Vec<u32> = self.attendance.attended().collect();
        let mut lanes = self.bound.iter_mut().filter_map(Bound::lanes);
        lanes.try_for_each(|lanes| lanes.attend(slots.iter().copied()))
    }

    /// Whether this worker is to go on for a while when it is asked to leave, since nobody comes after it who would take
    /// what waits in its lanes.
    pub(crate) fn empties_lanes_first(&mut self, worker: WorkerId) -> Option<Slot> {
        if self.has_lanes() { self.attendance.leaves_for_good(worker) } else { None }
    }

    /// Whether the lanes of a slot, to which nobody is sent any more, have stayed empty for long enough, or that was
    /// waited for long enough.
    pub(crate) fn are_lanes_quiet(&self, slot: Slot, quieting: &mut Quieting, now: Time) -> bool {
        let queued = self.bound.iter().filter_map(|bound| match &bound.sockets {
            Kind::Shared(_) => None,
            Kind::Lanes(lanes) => lanes.lane(slot.0)?.queued().ok(),
        });
        quieting.is_over(queued.sum(), now)
    }
}

impl Bound {
    fn all(&self) -> &[Listener] {
        match &self.sockets {
            Kind::Shared(listener) => std::slice::from_ref(listener),
            Kind::Lanes(lanes) => lanes.all(),
        }
    }

    fn count(&self) -> usize {
        self.all().len()
    }

    /// Lets its sockets not wait by themselves, if that is asked for.
    fn wait_for_events(&self, is_asked: bool) -> Result<(), BindError> {
        if is_asked { self.all().iter().try_for_each(Listener::wait_for_events) } else { Ok(()) }
    }

    fn lanes(&mut self) -> Option<&mut Lanes> {
        match &mut self.sockets {
            Kind::Shared(_) => None,
            Kind::Lanes(lanes) => Some(lanes),
        }
    }

    fn for_slot(&self, slot: Option<Slot>) -> Option<&Listener> {
        match &self.sockets {
            Kind::Shared(listener) => Some(listener),
            Kind::Lanes(lanes) => lanes.lane(slot?.0),
        }
    }
}

impl Quieting {
    pub(crate) fn since(now: Time) -> Quieting {
        Quieting { since: now, empty_since: None, next: now }
    }

    pub(crate) fn deadline(&self) -> Time {
        self.next
    }

    /// Whether the queues have stayed empty for long enough, or that was waited for long enough.
    pub(crate) fn is_over(&mut self, queued: u32, now: Time) -> bool {
        self.empty_since = match (queued, self.empty_since) {
            (0, since) => since.or(Some(now)),
            (_, _) => None,
        };
        self.next = now + LOOK_EVERY;
        let empty = self.empty_since.is_some_and(|since| now.since(since) >= EMPTY_FOR);
        empty || now.since(self.since) >= AT_MOST
    }
}

const LOOK_EVERY: Duration = Duration::from_millis(20);
/// A queue that has been empty this long has no handshake under way either.
const EMPTY_FOR: Duration = Duration::from_millis(200);
const AT_MOST: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_open_listeners_are_watched_for_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let unix = format!("unix://{}/s", folder.path().display());
        let wanted = [unix.as_str(), "127.0.0.1:0"].map(|at| Listen::new("", at).unwrap()).to_vec();
        let mut sockets = Sockets::new(wanted, 1, false);
        assert_eq!((sockets.open().unwrap().len(), sockets.watched().count()), (2, 2));
        sockets.shut(|_| false);
        assert_eq!(sockets.watched().count(), 0);
        std::fs::remove_file(folder.path().join(".s.drained")).unwrap();
        sockets.open().unwrap_err();
        assert_eq!(sockets.watched().count(), 0);
        sockets.mend(true, None, BrokerId(0), |_, _| ()).unwrap();
        assert_eq!((sockets.open().unwrap().len(), sockets.watched().count()), (2, 2));
    }
}
