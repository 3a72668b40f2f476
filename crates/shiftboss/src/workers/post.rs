//! What workers say on their channels, and what is said to them. What a message means is for those who subscribe.

mod hear;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd as _;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_api::Numbers;
use shiftboss_channel::{NotTaken, Rest};
use shiftboss_core::Input;
use shiftboss_core::id::{BrokerId, Slot, WorkerId};
use shiftboss_core::time::Time;

use super::{Token, Workers};
use crate::channel::Word;
use crate::keeper::Keeper;
use crate::keys::Key;
use crate::log::Log;
use crate::mail::Untold;
use crate::os::clock;
use crate::os::poll::{self, Interest};
use crate::sockets::Sockets;

/// What is on its way between workers and subscribers.
#[derive(Default)]
pub(super) struct Post {
    buffer: Vec<u8>,
    /// Said, and not yet handed on.
    mail: Vec<Mail>,
    /// Heard, and not yet recorded.
    unrecorded: Vec<WorkerId>,
    /// Not listened to: nobody takes what they say quickly enough.
    paused: BTreeSet<WorkerId>,
    try_at: Option<Time>,
    /// Brokers whose subscribers have no room.
    full: BTreeSet<BrokerId>,
    /// Wait for room to write.
    writing: BTreeSet<WorkerId>,
    /// Bytes that wait, of each worker that has any.
    waiting: BTreeMap<WorkerId, u64>,
    /// The keeper holds the beginning of a message of theirs.
    rests: BTreeSet<WorkerId>,
    /// They have half a line of a process before this one.
    cut: Vec<WorkerId>,
    /// What they last said of themselves.
    numbers: BTreeMap<WorkerId, Numbers>,
    /// Of these it was told that what they say of themselves is not taken.
    refused_numbers: BTreeSet<WorkerId>,
}

/// What one worker has said, in order.
pub(crate) struct Mail {
    pub(crate) worker: WorkerId,
    pub(crate) broker: BrokerId,
    pub(crate) pid: u32,
    /// None of a standby.
    pub(crate) slot: Option<u32>,
    pub(crate) is_node: bool,
    pub(crate) words: Vec<Word>,
}

impl Post {
    pub(super) fn try_at(&self) -> Option<Time> {
        self.try_at
    }

    pub(super) fn has_rest(&mut self, worker: WorkerId) {
        self.rests.insert(worker);
    }

    pub(super) fn had_rest(&mut self, worker: WorkerId) -> bool {
        self.rests.remove(&worker)
    }

    /// Memory for what an heir has to know of a channel: the keeper has it before anything is in it.
    pub(super) fn rest(&mut self, keeper: Option<&Keeper>, worker: WorkerId) -> Option<Rest> {
        let keeper = keeper?;
        let rest = Rest::new().ok()?;
        keeper.deposit(Key::Rest(worker), &[rest.as_fd()], 0).ok()?;
        self.rests.insert(worker);
        Some(rest)
    }

    pub(super) fn is_cut(&mut self, worker: WorkerId) {
        self.cut.push(worker);
    }

    pub(super) fn forget(&mut self, worker: WorkerId) {
        self.paused.remove(&worker);
        self.writing.remove(&worker);
        self.waiting.remove(&worker);
        self.numbers.remove(&worker);
        self.refused_numbers.remove(&worker);
        self.unrecorded.retain(|other| *other != worker);
    }
}

impl Workers {
    /// What has been said since the last time.
    pub(crate) fn take_mail(&mut self) -> Vec<Mail> {
        std::mem::take(&mut self.post.mail)
    }

    /// Workers of these brokers are not listened to for a while.
    pub(crate) fn are_full(&mut self, brokers: BTreeSet<BrokerId>) {
        self.post.full = brokers;
    }

    /// Whether it is not listened to.
    pub(super) fn is_paused(&self, worker: WorkerId) -> bool {
        self.post.paused.contains(&worker)
    }

    /// Those that cannot be spoken to, since a process before this one has left half a line.
    pub(crate) fn take_cut(&mut self) -> Vec<WorkerId> {
        std::mem::take(&mut self.post.cut)
    }

    /// The broker, slot and process of a worker; none of a standby.
    pub(crate) fn place_of(&self, worker: WorkerId) -> Option<(BrokerId, u32, u32)> {
        let process = self.processes.get(&worker)?;
        Some((process.of, process.slot?.0, process.pid))
    }

    /// The broker of a worker.
    pub(crate) fn owner_of(&self, worker: WorkerId) -> Option<BrokerId> {
        self.processes.get(&worker).map(|process| process.of)
    }

    /// The type of a worker.
    pub(crate) fn broker_of(&self, worker: WorkerId) -> Option<Arc<str>> {
        self.processes.get(&worker).map(|process| Arc::clone(&process.broker))
    }

    /// What was on its way to or from a worker that is gone is of no use.
    pub(super) fn forget_post(&mut self, worker: WorkerId) {
        self.post.forget(worker);
        self.in_flight.waits(self.post.waiting.values().sum());
    }

    /// It is said what another process has lost.
    pub(crate) fn loss_is_told(&mut self) {
        self.in_flight.is_told();
    }

    /// What a worker last said of itself.
    pub(crate) fn numbers(&self, worker: WorkerId) -> Option<&Numbers> {
        self.post.numbers.get(&worker)
    }

    /// Those of a broker that can be spoken to, with their processes and slots. A standby does not take messages: it is
    /// told nothing but its slot.
    pub(crate) fn listeners(&self, broker: BrokerId) -> Vec<(WorkerId, u32, u32)> {
        let hears = |process: &&super::Process| {
            process.of == broker && process.channel.as_ref().is_some_and(|channel| !channel.has_ended())
        };
        let all = self.processes.iter().filter(|(_, process)| hears(process));
        all.filter_map(|(worker, process)| Some((*worker, process.pid, process.slot?.0))).collect()
    }

    /// Tells a worker something: one line of JSON.
    pub(crate) fn tell(&mut self, worker: WorkerId, line: &[u8]) -> Result<(), Untold> {
        let channel = self.processes.get_mut(&worker).and_then(|process| process.channel.as_mut());
        if channel.as_ref().is_none_or(|channel| channel.is_deaf()) {
            return Err(Untold::Gone);
        }
        let rest = || self.post.rest(self.keeper.as_ref(), worker);
        let said = channel.map_or(Err(Untold::Gone), |channel| match channel.say(line, rest) {
            Err(NotTaken::QueueFull) => Err(Untold::Full),
            Err(NotTaken::Unsendable(why)) => Err(Untold::Unsendable(why.words())),
            // That shows when it is written.
            Ok(()) if channel.is_deaf() => Err(Untold::Gone),
            Ok(()) => Ok(()),
        });
        self.wait_for_room(worker);
        said
    }

    /// Tells a worker to leave, in the words of its specification.
    pub(crate) fn tell_to_leave(&mut self, worker: WorkerId) {
        let channel = self.processes.get_mut(&worker).and_then(|process| process.channel.as_mut());
        if let Some(channel) = channel {
            channel.tell_to_leave(|| self.post.rest(self.keeper.as_ref(), worker));
        }
        self.disconnect(worker);
        self.wait_for_room(worker);
    }

    /// Tells a standby its slot, and watches it for its readiness. Told again it changes nothing.
    pub(crate) fn promote(&mut self, worker: WorkerId, slot: Slot, probed: Option<&Sockets>) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        process.slot = Some(slot);
        if let Some(sockets) = probed {
            self.probes.watch(clock::now(), worker, process.pid, sockets.keys(Some(slot)));
        }
        if let Some(channel) = &mut process.channel {
            // One whose queue is full is late, and that is its failure.
            let rest = || self.post.rest(self.keeper.as_ref(), worker);
            let _ = channel.say(shiftboss_channel::promoted(slot.0).as_bytes(), rest);
        }
        self.wait_for_room(worker);
    }

    /// Something can be read or written.
    pub(super) fn use_channel(
        &mut self,
        worker: WorkerId,
        event: poll::Ready,
        log: &mut dyn Log,
        inputs: &mut VecDeque<Input>,
    ) {
        if event.writable && self.post.writing.contains(&worker) {
            if let Some(channel) =
                self.processes.get_mut(&worker).and_then(|process| process.channel.as_mut())
            {
                channel.write();
            }
            self.wait_for_room(worker);
        }
        if event.readable || event.hangup || event.error {
            self.hear_channel(worker, log, inputs);
        }
    }

    pub(super) fn wait_for_room(&mut self, worker: WorkerId) {
        self.look_at_debts(worker);
        let Some(channel) = self.processes.get(&worker).and_then(|process| process.channel.as_ref()) else {
            return;
        };
        let waiting = channel.waiting() as u64;
        let before = if waiting > 0 {
            self.post.waiting.insert(worker, waiting)
        } else {
            self.post.waiting.remove(&worker)
        };
        if before.unwrap_or(0) != waiting {
            self.in_flight.waits(self.post.waiting.values().sum());
        }
        let (waits, waited) = (channel.waits(), self.post.writing.contains(&worker));
        if waits == waited || self.post.paused.contains(&worker) || channel.has_ended() {
            return;
        }
        let interest = if waits { Interest::READ_WRITE } else { Interest::READ };
        // What is not waited for is written with the next line.
        let _ = self.poller.get_ref().modify(channel.as_fd(), Token::of(Token::CHANNEL, worker), interest);
        if waits {
            self.post.writing.insert(worker)
        } else {
            self.post.writing.remove(&worker)
        };
    }

    /// A worker is not listened to until there is room: it waits as soon as its socket is full.
    fn pause(&mut self, worker: WorkerId) {
        let channel = self.processes.get(&worker).and_then(|process| process.channel.as_ref());
        if let Some(channel) = channel {
            self.leave_poller(channel.as_fd());
            self.post.writing.remove(&worker);
            self.post.paused.insert(worker);
            self.post.try_at.get_or_insert(clock::now() + SOON);
        }
    }

    pub(super) fn listen_again(&mut self, now: Time) {
        if self.post.try_at.is_none_or(|at| at > now) {
            return;
        }
        self.post.try_at = None;
        for worker in std::mem::take(&mut self.post.paused) {
            let Some(process) = self.processes.get(&worker) else { continue };
            let Some(channel) = &process.channel else { continue };
            if self.post.full.contains(&process.of) {
                self.post.paused.insert(worker);
                self.post.try_at = Some(now + SOON);
                continue;
            }
            let (token, waits) = (Token::of(Token::CHANNEL, worker), channel.waits());
            let interest = if waits { Interest::READ_WRITE } else { Interest::READ };
            if self.poller.get_ref().add(channel.as_fd(), token, interest).is_ok() && waits {
                self.post.writing.insert(worker);
            }
        }
    }
}

/// Until those who were too slow are looked at again.
const SOON: Duration = Duration::from_millis(10);
