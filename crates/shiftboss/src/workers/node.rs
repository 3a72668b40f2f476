//! Workers of Node's `cluster`: what they have said to their primary, and what it says to them.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::Duration;

use shiftboss_channel::node::{self, Query, Said};
use shiftboss_channel::socket;
use shiftboss_core::Input;
use shiftboss_core::id::{BrokerId, WorkerId};
use shiftboss_core::time::Time;

use super::node_start::Started;
use super::{Process, Token, Workers};
use crate::node::{Habits, Owed, Peer, Place};
use crate::os::clock;
use crate::os::connections;
use crate::os::instance::PRELOAD;
use crate::os::poll::Interest;
use crate::turns::Turns;

/// What is between Node programs and whoever plays their primary.
#[derive(Default)]
pub(super) struct Stage {
    said: VecDeque<(WorkerId, Said)>,
    /// What Node programs load first, once it is written.
    preload: Option<PathBuf>,
    pub(super) habits: Habits,
    /// Whose start is over, or has failed: what is to be said of where they listen.
    pub(super) started: VecDeque<Started>,
    /// Declared listeners of which it was said that nobody listens there.
    pub(super) unserved: BTreeSet<Place>,
    /// Who takes turns at which listener.
    turns: BTreeMap<Place, Turns<OwnedFd>>,
    /// Of which broker the last worker was that does not use it any more.
    last_users: BTreeMap<Place, BrokerId>,
    /// Connections that were handed over under these numbers, and from where.
    handed: BTreeMap<(WorkerId, u64), Place>,
    /// When somebody's silence means that it never listens.
    pub(super) silent: BTreeSet<(Time, WorkerId)>,
    /// When it is looked at next whether somebody's event loop has turned.
    pulses: BTreeSet<(Time, WorkerId)>,
    /// When it is looked at whether somebody that has closed its channel still serves.
    finishing: BTreeSet<(Time, WorkerId)>,
}

impl Stage {
    /// A worker that was told to leave has closed its channel.
    pub(super) fn finishes(&mut self, worker: WorkerId) {
        self.finishing.insert((clock::now() + LOOK_EVERY, worker));
    }

    pub(super) fn hear(&mut self, worker: WorkerId, said: Said) {
        self.said.push_back((worker, said));
    }

    pub(super) fn deadline(&self) -> Option<Time> {
        let due = [&self.silent, &self.pulses, &self.finishing]
            .into_iter()
            .filter_map(|due| due.first())
            .map(|(at, _)| *at);
        due.chain(self.turns.values().filter_map(Turns::deadline)).min()
    }
}

impl Workers {
    /// What Node programs have said and nobody has answered.
    pub(crate) fn next_said(&mut self) -> Option<(WorkerId, Said)> {
        self.stage.said.pop_front()
    }

    /// Whether it has no slot yet.
    pub(crate) fn is_standby(&self, worker: WorkerId) -> bool {
        self.processes.get(&worker).is_some_and(|process| process.slot.is_none())
    }

    pub(crate) fn peer(&mut self, worker: WorkerId) -> Option<&mut Peer> {
        self.processes.get_mut(&worker)?.peer.as_mut()
    }

    /// Says something to a Node program in its primary's words, with the number that it is given; with a descriptor that
    /// belongs to it. What has no room is lost: it is a worker that does not read.
    pub(crate) fn reply(
        &mut self,
        worker: WorkerId,
        descriptor: Option<OwnedFd>,
        line: impl FnOnce(u64) -> String,
    ) -> Option<u64> {
        let channel = self.processes.get_mut(&worker)?.channel.as_mut()?;
        let number = channel.next_number();
        let line = line(number);
        let said = match descriptor {
            Some(descriptor) => channel.say_with(line.as_bytes(), descriptor),
            None => channel.say(line.as_bytes(), || self.post.rest(self.keeper.as_ref(), worker)),
        };
        self.wait_for_room(worker);
        said.ok().map(|()| number)
    }

    /// What it was just told is said again by a successor, unless it has gone out: the question is taken off the channel.
    pub(crate) fn owe(&mut self, worker: WorkerId, what: Owed) {
        let Some(Process { channel: Some(channel), peer: Some(peer), .. }) = self.processes.get_mut(&worker)
        else {
            return;
        };
        if channel.waiting() > 0 {
            peer.is_owed(what);
        }
    }

    /// Notes that it is owed nothing, if that is so.
    pub(super) fn look_at_debts(&mut self, worker: WorkerId) {
        if let Some(Process { channel: Some(channel), peer: Some(peer), .. }) =
            self.processes.get_mut(&worker)
            && channel.waiting() == 0
        {
            peer.is_owed_nothing();
        }
    }

    /// What a process before this one has told workers, and could not send.
    pub(crate) fn owed(&self) -> Vec<(WorkerId, Owed)> {
        let peers =
            self.processes.iter().filter_map(|(worker, process)| Some((worker, process.peer.as_ref()?)));
        peers.flat_map(|(worker, peer)| peer.owed().iter().map(|owed| (*worker, owed.clone()))).collect()
    }

    /// The file that Node programs load first; without it they leave later.
    pub(super) fn preload(&mut self) -> Option<PathBuf> {
        if self.stage.preload.is_none() {
            let path = self.notify_dir.join(PRELOAD);
            let is_there = std::fs::read(&path).is_ok_and(|text| text == LEAVE);
            if !is_there {
                // Beside it first: nobody ever loads a half.
                let new = self.notify_dir.join("leave.new");
                std::fs::write(&new, LEAVE).and_then(|()| std::fs::rename(&new, &path)).ok()?;
            }
            self.stage.preload = Some(path);
        }
        self.stage.preload.clone()
    }

    /// Asks what only a turning event loop answers: a connection for a server that nobody has is refused, and nothing else
    /// comes of it.
    pub(crate) fn ask_event_loop(&mut self, worker: WorkerId) {
        let Ok((connection, _)) = socket::pair() else { return };
        let number = self.reply(worker, Some(connection), |number| node::new_connection("nobody", number));
        if let (Some(number), Some(peer)) = (number, self.peer(worker)) {
            peer.is_asked(number);
        }
    }

    /// An answer of a worker's event loop.
    pub(crate) fn event_loop_turns(&mut self, worker: WorkerId, number: u64) {
        let now = clock::now();
        let Some(peer) = self.peer(worker) else { return };
        if !peer.answers(number) {
            return;
        }
        let (hung_after, is_known) = (peer.hung_after, peer.has_turned());
        let silent_at = peer.turns(now);
        self.stage.silent.insert((silent_at, worker));
        // From the first time on: how long it takes to start is another matter.
        if let (Some(wait), false) = (hung_after, is_known) {
            self.stage.pulses.insert((now + wait, worker));
        }
    }

    /// What came instead of an answer says that as well.
    pub(crate) fn event_loop_turns_without_room(&mut self, worker: WorkerId) {
        if let Some(number) = self.peer(worker).and_then(|peer| peer.question()) {
            self.event_loop_turns(worker, number);
        }
    }

    /// Asks event loops again, and tells of those that have not turned since they were asked last.
    pub(super) fn look_at_pulses(&mut self, now: Time, inputs: &mut VecDeque<Input>) {
        while let Some((at, worker)) = self.stage.pulses.first().copied().filter(|(at, _)| *at <= now) {
            self.stage.pulses.remove(&(at, worker));
            let Some(peer) = self.peer(worker).filter(|peer| !peer.is_leaving()) else { continue };
            let (Some(wait), owes) = (peer.hung_after, peer.owes_answer()) else { continue };
            // Late ourselves, or slow to hand on what workers say, we have not heard what it said meanwhile.
            if owes && now.since(at) < LATE && !self.is_paused(worker) {
                inputs.push_back(Input::Hung { worker });
                continue;
            }
            if !owes {
                self.ask_event_loop(worker);
            }
            self.stage.pulses.insert((now + wait, worker));
        }
    }

    /// A program that closes its servers by itself when it is told to leave has closed its channel at once, and may be
    /// serving: it is one that does not leave only when it serves nobody.
    pub(super) fn look_at_finishing(&mut self, now: Time, inputs: &mut VecDeque<Input>) {
        while let Some((at, worker)) = self.stage.finishing.first().copied().filter(|(at, _)| *at <= now) {
            self.stage.finishing.remove(&(at, worker));
            let Some(Process { pid, peer: Some(peer), .. }) = self.processes.get(&worker) else { continue };
            // Who may not be looked at is taken for idle.
            if connections::has_any(*pid, &peer.doors()).unwrap_or(false) {
                self.stage.finishing.insert((now + LOOK_EVERY, worker));
            } else {
                inputs.push_back(Input::HungUp { worker });
            }
        }
    }

    /// A worker is to close its servers, finish, and leave. Once: it would fail at a second one.
    pub(super) fn disconnect(&mut self, worker: WorkerId) {
        if self.peer(worker).is_some_and(|peer| !peer.is_leaving()) {
            self.reply(worker, None, node::disconnect);
            self.owe(worker, Owed::Disconnect);
            let places: Vec<Place> = self.peer(worker).map_or_else(Vec::new, |peer| peer.places().collect());
            for place in places {
                if let Some(turns) = self.stage.turns.get_mut(&place) {
                    turns.retire(worker);
                }
            }
            // Only now: one that is told twice has no worse fate than a wrong exit code, one that is not told stays.
            if let Some(peer) = self.peer(worker) {
                peer.disconnects();
            }
        }
    }

    /// All servers of those that have not been told to leave.
    pub(crate) fn servers(&self) -> Vec<(WorkerId, Place)> {
        let peers =
            self.processes.iter().filter_map(|(worker, process)| Some((*worker, process.peer.as_ref()?)));
        let stay = peers.filter(|(_, peer)| !peer.is_leaving());
        stay.flat_map(|(worker, peer)| peer.places().map(move |place| (worker, place))).collect()
    }

    /// Who takes turns there.
    pub(crate) fn turns(&mut self, place: Place) -> &mut Turns<OwnedFd> {
        self.stage.turns.entry(place).or_default()
    }

    /// Whether connections pass through our hands.
    pub(crate) fn has_turns(&self) -> bool {
        !self.stage.turns.is_empty()
    }

    pub(crate) fn places_with_turns(&self) -> Vec<Place> {
        self.stage.turns.keys().copied().collect()
    }

    /// So many connections more than those that are left over are about to be with no worker; should we end, it is told.
    pub(crate) fn holds_connections(&mut self, more: usize) {
        let left: usize = self.stage.turns.values().map(Turns::left).sum();
        self.in_flight.holds(left + more);
    }

    /// How many connections to this broker were accepted and are with no worker.
    pub(crate) fn left_over(&self, of: BrokerId) -> u32 {
        let turns = self.stage.turns.iter().filter(|(place, _)| place.broker == of.0);
        u32::try_from(turns.map(|(_, turns)| turns.left()).sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// Resets them, since nobody is there any more; how many that were.
    pub(crate) fn reset_left_over(&mut self, of: BrokerId) -> u64 {
        let mut count = 0;
        self.stage.turns.retain(|place, turns| {
            if place.broker == of.0 {
                for connection in turns.take_left() {
                    connections::reset(connection);
                    count += 1;
                }
            }
            place.broker != of.0 || !turns.is_empty()
        });
        self.holds_connections(0);
        count
    }

    /// A connection was handed over.
    pub(crate) fn has_handed(&mut self, worker: WorkerId, number: u64, place: Place) {
        self.stage.handed.insert((worker, number), place);
    }

    /// The numbers of what it was handed and has not answered for.
    pub(crate) fn handed(&self, worker: WorkerId) -> Vec<u64> {
        let of_worker = self.stage.handed.range((worker, 0)..=(worker, u64::MAX));
        of_worker.map(|((_, number), _)| *number).collect()
    }

    /// Which listener's connection is answered for; none if it was another question, or another process's.
    pub(crate) fn take_handed(&mut self, worker: WorkerId, number: u64) -> Option<Place> {
        self.stage.handed.remove(&(worker, number))
    }

    /// A worker has closed that server, or leaves.
    pub(crate) fn leaves_turns(&mut self, worker: WorkerId, place: Place) {
        if let Some(turns) = self.stage.turns.get_mut(&place) {
            turns.leave(worker);
        }
    }

    /// Hears of new connections at this listener as long as somebody could be given one.
    pub(crate) fn wait_for_connections(&mut self, broker: BrokerId, place: Place, listener: BorrowedFd<'_>) {
        if self.stage.turns.get(&place).is_some_and(Turns::is_empty) {
            self.stage.turns.remove(&place);
        }
        self.watch_listener(broker, place.place, listener);
    }

    pub(super) fn watch_listener(&self, broker: BrokerId, place: u32, listener: BorrowedFd<'_>) {
        let turns = self.stage.turns.get(&Place { broker: broker.0, place });
        let interest =
            if turns.is_some_and(Turns::wants_connection) { Interest::READ } else { Interest::NONE };
        let (poller, token) = (self.poller.get_ref(), Token::LISTENER | u64::from(broker.0) << 3);
        // There already, it is changed. One that cannot be watched is mended when the next worker is ready, and looked at
        // whenever somebody answers.
        let _ = poller.add(listener, token, interest).or_else(|_| poller.modify(listener, token, interest));
    }

    /// Whether no worker has this listener any more, and the last that had it was this broker's.
    pub(crate) fn was_last_used_by(&self, broker: BrokerId, place: Place) -> bool {
        let last = self.stage.last_users.get(&place).copied().unwrap_or(BrokerId(place.broker));
        last == broker && !self.is_used(place)
    }

    /// Whether any worker has this listener and has not closed it.
    pub(crate) fn is_used(&self, place: Place) -> bool {
        self.processes.values().any(|process| process.peer.as_ref().is_some_and(|peer| peer.uses(place)))
    }

    /// What those at the door wait for the answers of, with their brokers; whoever is to leave gets none.
    pub(crate) fn held(&self) -> impl Iterator<Item = (BrokerId, &Query)> {
        let peers = self.processes.values().filter_map(|process| Some((process.of, process.peer.as_ref()?)));
        let stay = peers.filter(|(_, peer)| peer.stays());
        stay.flat_map(|(broker, peer)| peer.held().iter().map(move |query| (broker, query)))
    }

    /// Whether a worker of another broker has it, and is to stay.
    pub(crate) fn is_lent(&self, place: Place) -> bool {
        self.is_lent_beside(place, &[])
    }

    /// The same, of a broker that is none of these.
    pub(crate) fn is_lent_beside(&self, place: Place, these: &[BrokerId]) -> bool {
        self.has_user(place, |of| of.0 != place.broker && !these.contains(&of))
    }

    /// Whether a worker of this broker has it, and is to stay.
    pub(crate) fn is_lent_to(&self, place: Place, broker: BrokerId) -> bool {
        self.has_user(place, |of| of == broker)
    }

    fn has_user(&self, place: Place, is_meant: impl Fn(BrokerId) -> bool) -> bool {
        let uses = |peer: &Peer| peer.uses(place) && !peer.is_leaving();
        let mut meant = self.processes.values().filter(|process| is_meant(process.of));
        meant.any(|process| process.peer.as_ref().is_some_and(uses))
    }

    /// A worker has closed it.
    pub(crate) fn has_used(&mut self, worker: WorkerId, place: Place) {
        if let Some(process) = self.processes.get(&worker) {
            self.stage.last_users.insert(place, process.of);
        }
    }

    /// A listener is closed.
    pub(crate) fn is_closed(&mut self, broker: BrokerId, place: u32) {
        self.stage.last_users.remove(&Place { broker: broker.0, place });
        self.stage.habits.forget(Place { broker: broker.0, place });
    }

    /// Those of another process, as far as it got: who is not ready yet is looked at again.
    pub(crate) fn look_at_peers(&mut self, inputs: &mut VecDeque<Input>) {
        let peers = self.processes.iter().filter(|(_, process)| process.peer.is_some());
        let workers: Vec<WorkerId> = peers.map(|(worker, _)| *worker).collect();
        // Those who are ready first: they tell what is expected of the others.
        for ready in [true, false] {
            for worker in &workers {
                let Some(peer) = self.peer(*worker).filter(|peer| peer.is_ready == ready) else { continue };
                if !peer.is_leaving() {
                    self.ask_event_loop(*worker);
                }
                self.judge(*worker, clock::now(), inputs);
            }
        }
    }

    /// What was on its way to or from a worker that is gone is of no use. But a connection that it has taken is nobody
    /// else's: it may have read of it.
    pub(super) fn forget_peer(&mut self, worker: WorkerId, of: BrokerId, peer: Option<&Peer>) {
        let places = peer.into_iter().flat_map(Peer::places);
        self.stage.last_users.extend(places.map(|place| (place, of)));
        for (other, said) in std::mem::take(&mut self.stage.said) {
            match said {
                _ if other != worker => self.stage.said.push_back((other, said)),
                Said::Answer { ack, accepted: true } => {
                    if let Some(place) = self.take_handed(worker, ack) {
                        self.turns(place).answers(worker, true);
                    }
                }
                _ => {}
            }
        }
        self.stage.turns.values_mut().for_each(|turns| turns.leave(worker));
        self.stage.handed.retain(|(other, _), _| *other != worker);
        self.stage.silent.retain(|(_, other)| *other != worker);
        self.stage.pulses.retain(|(_, other)| *other != worker);
        self.stage.finishing.retain(|(_, other)| *other != worker);
    }

    /// The memory in which a successor finds what a worker was given; the keeper has it before the worker is there.
    pub(super) fn deposit_note(&self, worker: WorkerId, peer: &Peer) -> std::io::Result<()> {
        let (Some(keeper), Some(note)) = (&self.keeper, peer.note()) else { return Ok(()) };
        keeper.deposit(crate::keys::Key::Node(worker), &[note.as_fd()], 0)
    }
}

const LEAVE: &[u8] = include_bytes!("../node/leave.cjs");
/// Between two looks at one that finishes.
const LOOK_EVERY: Duration = Duration::from_millis(200);
/// Somebody who is so late has been stopped or starved, and judges nobody.
const LATE: Duration = Duration::from_secs(1);
