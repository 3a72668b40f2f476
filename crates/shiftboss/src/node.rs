//! Plays the primary of Node's `cluster` for its workers: what each was given, and when it counts as ready.
//!
//! Which socket a query is about is for `sockets::asked` to find, the lines are `shiftboss_channel::node`'s; what is done
//! about either is in `driver::node`.

mod note;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use shiftboss_channel::node::Query;
use shiftboss_core::id::{BrokerId, Slot};
use shiftboss_core::time::Time;

use note::Note;

use crate::address::Address;
use crate::os::connections::Doors;

/// A listener: whose, and its place there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Place {
    pub(crate) broker: u32,
    pub(crate) place: u32,
}

/// A worker as its primary knows it.
pub(crate) struct Peer {
    known: Known,
    /// Where a successor finds that; none without a keeper.
    note: Option<Note>,
    /// Core knows that it is ready.
    pub(crate) is_ready: bool,
    /// Core knows that it waits at the door.
    pub(crate) is_at_door: bool,
    /// Core has asked it to leave, by whatever step of its ladder.
    pub(crate) is_to_leave: bool,
    /// When it is taken for one that never listens; none until its event loop has turned.
    silent_at: Option<Time>,
    /// The number of a question to which only a turning event loop has the answer.
    asked: Option<u64>,
    /// One whose event loop has not turned for so long hangs; none = that is not looked at.
    pub(crate) hung_after: Option<Duration>,
}

/// All that a successor has to know.
#[derive(Debug, Default, Serialize, Deserialize)]
struct Known {
    /// Servers that it was given, by their keys.
    servers: BTreeMap<String, Server>,
    keys_given: u64,
    /// It was told to leave, which may be said once.
    disconnected: bool,
    /// Those that it waits for the answers of, at the door.
    #[serde(default)]
    held: Vec<Query>,
    /// What it was told and has not gone out: whatever it was told before has not arrived.
    #[serde(default)]
    owed: Vec<Owed>,
    /// Ports and paths at which it was ever given a listener.
    #[serde(default)]
    ports: BTreeSet<u16>,
    #[serde(default)]
    paths: BTreeSet<String>,
    /// When it last asked to listen, or did.
    #[serde(default)]
    changed_at: Option<Time>,
    /// If it is ready as well its start is over: what it asks for from then on is no part of that.
    #[serde(default)]
    is_steady: bool,
    /// It has said that it is ready: once, perhaps at the door.
    #[serde(default)]
    said_ready: bool,
}

/// What a successor has to say again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) enum Owed {
    /// The answer to this.
    Query(Query),
    /// That it may leave, under the number of what it has said.
    Leave(u64),
    /// That it is to leave.
    Disconnect,
}

#[derive(Debug, Serialize, Deserialize)]
struct Server {
    place: Place,
    /// The number of the query that it answers.
    query: u64,
    listens: bool,
    /// It is no part of the worker's start.
    #[serde(default)]
    is_late: bool,
}

/// What becomes of a query.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Grant {
    /// It is given what is there under this key.
    Key(String),
    /// It has that already, for another query.
    Twice,
}

impl Peer {
    /// One that has not said anything; under a keeper with memory that it is to be given before the worker is there.
    pub(crate) fn new(is_kept: bool) -> io::Result<Peer> {
        let note = if is_kept { Some(Note::new()?) } else { None };
        Ok(Peer::of(Known::default(), note, false))
    }

    /// Goes on with what another process knew.
    pub(crate) fn adopt(note: Option<OwnedFd>, is_ready: bool) -> io::Result<Peer> {
        let Some(file) = note else { return Ok(Peer::of(Known::default(), None, is_ready)) };
        let (note, known) = Note::adopt(file)?;
        Ok(Peer::of(known.unwrap_or_default(), Some(note), is_ready))
    }

    fn of(known: Known, note: Option<Note>, is_ready: bool) -> Peer {
        Peer {
            known,
            note,
            is_ready,
            is_at_door: false,
            is_to_leave: false,
            silent_at: None,
            asked: None,
            hung_after: None,
        }
    }

    pub(crate) fn note(&self) -> Option<BorrowedFd<'_>> {
        self.note.as_ref().map(AsFd::as_fd)
    }

    /// Finds or makes the key under which it has this listener.
    pub(crate) fn grant(&mut self, query: &Query, place: Place, at: &Address) -> Grant {
        // Said again to a successor of the process that has answered it.
        if let Some((key, _)) = self.known.servers.iter().find(|(_, server)| server.query == query.seq) {
            return Grant::Key(key.clone());
        }
        if self.known.servers.values().any(|server| server.place == place) {
            return Grant::Twice;
        }
        self.known.keys_given += 1;
        let key = format!("{}.{}.{}", place.broker, place.place, self.known.keys_given);
        let is_late = self.is_ready && self.known.is_steady;
        let server = Server { place, query: query.seq, listens: false, is_late };
        self.known.servers.insert(key.clone(), server);
        match at {
            Address::Tcp(host) => {
                self.known.ports.insert(host.port());
            }
            Address::Unix(path) => {
                self.known.paths.insert(path.to_string_lossy().into_owned());
            }
            Address::Udp(_) => {}
        }
        self.write_down();
        Grant::Key(key)
    }

    /// It is to wait for the answer until it is promoted; false if it waits for too many.
    pub(crate) fn hold(&mut self, query: &Query) -> bool {
        let held = &mut self.known.held;
        if held.iter().any(|held| held.seq == query.seq) {
            return true;
        }
        let has_room = held.len() < MOST_OWED;
        if has_room {
            held.push(query.clone());
            self.write_down();
        }
        has_room
    }

    /// Whether it waits at the door.
    pub(crate) fn waits(&self) -> bool {
        !self.known.held.is_empty()
    }

    /// What it waits for the answers of. They are there until [`Peer::was_let_in`].
    pub(crate) fn held(&self) -> &[Query] {
        &self.known.held
    }

    /// All of that is answered.
    pub(crate) fn was_let_in(&mut self) {
        self.known.held.clear();
        self.write_down();
    }

    /// It listens at one of these; nothing if that is not its own.
    pub(crate) fn listens(&mut self, at: impl Fn(Place) -> bool) {
        let server = self.known.servers.values_mut().find(|server| !server.listens && at(server.place));
        if let Some(server) = server {
            server.listens = true;
            self.write_down();
        }
    }

    /// It has said that it is ready.
    pub(crate) fn says_ready(&mut self) {
        if !std::mem::replace(&mut self.known.said_ready, true) {
            self.write_down();
        }
    }

    pub(crate) fn said_ready(&self) -> bool {
        self.known.said_ready
    }

    /// It has closed that server.
    pub(crate) fn closes(&mut self, key: &str) {
        if self.known.servers.remove(key).is_some() {
            self.write_down();
        }
    }

    /// It is told to leave. Said before: it is not to be said again.
    pub(crate) fn disconnects(&mut self) -> bool {
        let before = std::mem::replace(&mut self.known.disconnected, true);
        if !before {
            self.write_down();
        }
        before
    }

    /// Through which doors whoever it serves has come.
    pub(crate) fn doors(&self) -> Doors<'_> {
        Doors { ports: &self.known.ports, paths: &self.known.paths }
    }

    /// It was told this, which has not gone out.
    pub(crate) fn is_owed(&mut self, what: Owed) {
        if self.known.owed.len() < MOST_OWED {
            self.known.owed.push(what);
            self.write_down();
        }
    }

    /// All that it was told has gone out.
    pub(crate) fn is_owed_nothing(&mut self) {
        if !self.known.owed.is_empty() {
            self.known.owed.clear();
            self.write_down();
        }
    }

    /// What a process before this one has told it, and could not send.
    pub(crate) fn owed(&self) -> &[Owed] {
        &self.known.owed
    }

    /// Whether it was told to leave: it gets nothing any more.
    pub(crate) fn is_leaving(&self) -> bool {
        self.known.disconnected
    }

    /// Whether nobody has asked it to leave.
    pub(crate) fn stays(&self) -> bool {
        !(self.is_to_leave || self.is_leaving())
    }

    /// Whether it was given this listener and has not closed it.
    pub(crate) fn uses(&self, place: Place) -> bool {
        self.known.servers.values().any(|server| server.place == place)
    }

    /// Under which key it was given this listener.
    pub(crate) fn key_of(&self, place: Place) -> Option<String> {
        let found = self.known.servers.iter().find(|(_, server)| server.place == place);
        found.map(|(key, _)| key.clone())
    }

    /// Which listener it was given under this key.
    pub(crate) fn place_of(&self, key: &str) -> Option<Place> {
        self.known.servers.get(key).map(|server| server.place)
    }

    /// All that it was given.
    pub(crate) fn places(&self) -> impl Iterator<Item = Place> {
        self.known.servers.values().map(|server| server.place)
    }

    /// Where it listens.
    pub(crate) fn listening(&self) -> BTreeSet<Place> {
        self.known.servers.values().filter(|server| server.listens).map(|server| server.place).collect()
    }

    /// It is asked something that only its event loop can answer.
    pub(crate) fn is_asked(&mut self, number: u64) {
        self.asked = Some(number);
    }

    /// It has answered; whether that was to what it was asked last.
    pub(crate) fn answers(&mut self, number: u64) -> bool {
        self.asked.take_if(|asked| *asked == number).is_some()
    }

    /// The number of what it was asked last and has not answered.
    pub(crate) fn question(&self) -> Option<u64> {
        self.asked
    }

    /// Whether it still owes the answer.
    pub(crate) fn owes_answer(&self) -> bool {
        self.asked.is_some()
    }

    /// Its event loop turns, so all of its script has run: from when on it is one that never listens.
    pub(crate) fn turns(&mut self, now: Time) -> Time {
        *self.silent_at.get_or_insert(now + SILENT_FOR)
    }

    /// Whether its event loop has turned once.
    pub(crate) fn has_turned(&self) -> bool {
        self.silent_at.is_some()
    }

    /// It is about to be given something, or to listen, with which this is noted.
    pub(crate) fn changes(&mut self, now: Time) {
        let known = &mut self.known;
        known.is_steady |= known.changed_at.is_some_and(|at| now.since(at) >= STEADY_AFTER);
        known.changed_at = Some(now);
    }

    /// Whether it counts as ready: as whoever was in its place before it, which listened on these, or as the first there.
    /// One that does otherwise does so as soon as it has settled for so long.
    pub(crate) fn counts_as_ready(&self, before: &BTreeSet<Place>, otherwise: Duration, now: Time) -> bool {
        let listening = self.listening();
        if before.is_empty() {
            // One that has asked and not yet said that it listens is about to.
            let is_silent = self.known.servers.is_empty() && self.silent_at.is_some_and(|at| at <= now);
            return !listening.is_empty() || is_silent;
        }
        before.is_subset(&listening) || self.settles_at(otherwise).is_some_and(|at| at <= now)
    }

    /// From when on it has listened on all that it has asked for, and on no more, for so long; none if that is not to be seen.
    pub(crate) fn settles_at(&self, time: Duration) -> Option<Time> {
        let servers = &self.known.servers;
        let all_listen = !servers.is_empty() && servers.values().all(|server| server.listens);
        let turned = self.silent_at.filter(|_| all_listen)?;
        Some(self.known.changed_at.map_or(turned, |at| turned.max(at + time)))
    }

    /// Where it listens since its start.
    fn habit(&self) -> BTreeSet<Place> {
        let of_start = self.known.servers.values().filter(|server| server.listens && !server.is_late);
        of_start.map(|server| server.place).collect()
    }

    fn write_down(&mut self) {
        // What cannot be noted costs a successor this worker's listeners: it is then recycled.
        if let Some(note) = &mut self.note {
            let _ = note.write(&self.known);
        }
    }
}

/// On what the worker of each slot has listened at its start, once it was ready: the same is expected of the next one.
#[derive(Debug, Default)]
pub(crate) struct Habits(BTreeMap<(BrokerId, Slot), BTreeSet<Place>>);

impl Habits {
    /// The worker that serves this slot listens so.
    pub(crate) fn are(&mut self, broker: BrokerId, slot: Slot, peer: &Peer) {
        self.0.insert((broker, slot), peer.habit());
    }

    /// Whether that is news.
    pub(crate) fn are_other(&self, broker: BrokerId, slot: Slot, peer: &Peer) -> bool {
        self.0.get(&(broker, slot)) != Some(&peer.habit())
    }

    pub(crate) fn of(&self, broker: BrokerId, slot: Slot) -> BTreeSet<Place> {
        self.0.get(&(broker, slot)).cloned().unwrap_or_default()
    }

    /// Nothing is expected of the next worker there.
    pub(crate) fn forget_slot(&mut self, broker: BrokerId, slot: Slot) {
        self.0.remove(&(broker, slot));
    }

    /// Nobody is expected to listen there any more.
    pub(crate) fn forget(&mut self, place: Place) {
        self.0.values_mut().for_each(|places| {
            places.remove(&place);
        });
    }
}

/// As many answers may wait to go out, and as many be waited for at the door.
const MOST_OWED: usize = 256;
/// From when on a program whose event loop turns and that has not asked to listen is one that never does.
pub(crate) const SILENT_FOR: Duration = Duration::from_secs(1);
/// What it begins to listen on after so long without anything new does not belong to its start.
const STEADY_AFTER: Duration = Duration::from_secs(10);
/// Who listens otherwise than its predecessor, which still serves, is given so long to do as that one did.
pub(crate) const OTHERWISE_AFTER: Duration = Duration::from_secs(10);
