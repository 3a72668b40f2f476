//! The workers' processes: started, heard, signalled, collected. What any of it means is core's.

mod begin;
mod end;
mod node;
mod node_start;
mod post;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_core::Input;
use shiftboss_core::id::{BrokerId, Slot, WorkerId};
use shiftboss_core::spec::Signal;
use shiftboss_core::time::Time;
use tokio::io::unix::AsyncFd;

use crate::channel::Channel;
use crate::children::Children;
use crate::in_flight::InFlight;
use crate::keeper::Keeper;
use crate::keys::Key;
use crate::log::{Line, Log};
use crate::node::Peer;
use crate::os::kill_points;
use crate::os::lines::{Piece, Reading};
use crate::os::notify::NotifySocket;
use crate::os::poll::{self, Interest, Poller};
use crate::os::reaper::{self, Reaper};
use crate::output::{Output, Remains};
use crate::readiness::Probes;
use crate::sockets::Sockets;

pub(crate) use begin::{Found, Order};
pub(crate) use node_start::Started;
pub(crate) use post::Mail;
use post::Post;

/// All processes of the app, and the one poller that hears of them.
pub(crate) struct Workers {
    processes: BTreeMap<WorkerId, Process>,
    children: Children,
    keeper: Option<Keeper>,
    poller: AsyncFd<Poller>,
    probes: Probes,
    remains: Remains,
    in_flight: InFlight,
    buffer: Vec<u8>,
    post: Post,
    stage: node::Stage,
    notify_dir: PathBuf,
    /// Whose word of being ready is not recorded yet.
    heard: Vec<WorkerId>,
    /// Who has said that it is ready, and is not believed yet: the keeper holds that.
    said_ready: BTreeSet<WorkerId>,
    /// Ended, not reaped.
    held: BTreeSet<WorkerId>,
    next_try: Option<Time>,
    /// Ended, and the keeper's word on how is awaited: when that is looked at next, and how often more.
    awaited: BTreeMap<WorkerId, (Time, u32)>,
}

struct Process {
    pid: u32,
    of: BrokerId,
    broker: Arc<str>,
    /// None of a standby.
    slot: Option<Slot>,
    output: Output,
    notify: Option<NotifySocket>,
    /// None of a worker whose channel could not be held.
    channel: Option<Channel>,
    /// Of a worker of Node's `cluster`.
    peer: Option<Peer>,
    /// Its message `"ready"` means that.
    says_ready: bool,
}

/// An event that is not about a worker.
pub(crate) enum News {
    /// The descriptor of [`Workers::also_wait_for`].
    Chief,
    /// The descriptor of [`Workers::also_watch`].
    Image,
    /// The descriptor of [`Workers::also_hear_clock`].
    Clock,
    /// A listener of this broker listens no more.
    Listener(BrokerId),
}

impl Workers {
    /// Must be called inside the runtime that will wait for them.
    pub(crate) fn new(notify_dir: PathBuf, keeper: Option<Keeper>, in_flight: InFlight) -> io::Result<Self> {
        let children = match keeper {
            Some(_) => Children::Kept(BTreeMap::new()),
            None => Children::Own(Reaper::default()),
        };
        Ok(Workers {
            processes: BTreeMap::new(),
            children,
            keeper,
            poller: Poller::new()?.watched()?,
            probes: Probes::default(),
            remains: Remains::default(),
            in_flight,
            buffer: vec![0; READ_AT_ONCE],
            post: Post::default(),
            stage: node::Stage::default(),
            notify_dir,
            heard: Vec::new(),
            said_ready: BTreeSet::new(),
            held: BTreeSet::new(),
            next_try: None,
            awaited: BTreeMap::new(),
        })
    }

    /// Hears of a descriptor of the caller's, too.
    pub(crate) fn also_wait_for(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poller.get_ref().add(fd, Token::SIGNALS, Interest::READ)
    }

    /// Hears of one more.
    pub(crate) fn also_watch(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poller.get_ref().add(fd, Token::IMAGE, Interest::READ)
    }

    /// Hears of the wall clock.
    #[cfg(feature = "schedule")]
    pub(crate) fn also_hear_clock(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poller.get_ref().add(fd, Token::CLOCK, Interest::READ)
    }

    /// Waits for something to happen; may tell that nothing has. Dropping it loses nothing.
    pub(crate) async fn wait(&mut self) -> io::Result<Vec<poll::Ready>> {
        let mut guard = self.poller.readable_mut().await?;
        let events = guard.get_inner_mut().wait_now()?.to_vec();
        if events.is_empty() {
            // Only now: news is told once, and what had been told before would be waited for in vain.
            guard.clear_ready();
        }
        Ok(events)
    }

    /// What has happened already.
    pub(crate) fn events(&mut self) -> io::Result<Vec<poll::Ready>> {
        Ok(self.poller.get_mut().wait_now()?.to_vec())
    }

    /// Hears of it when a worker has shut one of these for everybody, and of connections that could be handed over.
    pub(crate) fn watch_listeners(&self, broker: BrokerId, sockets: &Sockets) {
        for (place, listener) in sockets.watched() {
            self.watch_listener(broker, place, listener);
        }
    }

    /// The opposite, before they are shut by ourselves.
    pub(crate) fn leave_listeners(&self, sockets: &Sockets) {
        sockets.watched().for_each(|(_, listener)| self.leave_poller(listener));
    }

    /// Whether the event is of a kind that is told again until it is dealt with, and is no news of life or death.
    pub(crate) fn can_wait(event: poll::Ready) -> bool {
        matches!(Token::read(event.token).0, Token::STDOUT | Token::STDERR | Token::CHANNEL)
    }

    /// Turns an event into lines and inputs; tells of one that is the caller's.
    pub(crate) fn take(
        &mut self,
        event: poll::Ready,
        log: &mut dyn Log,
        inputs: &mut VecDeque<Input>,
    ) -> Option<News> {
        match Token::read(event.token) {
            (Token::EXIT, worker) if self.children.are_kept() => self.has_ended(worker),
            (Token::EXIT, worker) => self.collect(worker, log, inputs),
            (Token::NOTIFY, worker) => self.hear(worker, inputs),
            (Token::CHANNEL, worker) => self.use_channel(worker, event, log, inputs),
            (Token::STDOUT, worker) => self.read(worker, 0, log),
            (Token::STDERR, worker) => self.read(worker, 1, log),
            (Token::LISTENER, WorkerId(broker)) => {
                return Some(News::Listener(BrokerId(u32::try_from(broker).unwrap_or(u32::MAX))));
            }
            (Token::IMAGE, _) if event.token == Token::CLOCK => return Some(News::Clock),
            (Token::IMAGE, _) => return Some(News::Image),
            _ => return Some(News::Chief),
        }
        None
    }

    /// When the next look at a starting worker is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let awaited = self.awaited.values().map(|(next, _)| *next).min();
        let others = [self.probes.deadline(), self.next_try, self.post.try_at(), self.stage.deadline()];
        others.into_iter().chain([awaited]).flatten().min()
    }

    /// Whether somebody has ended and nobody has told how: until that is known no time has passed.
    pub(crate) fn is_news_due(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Takes those for gone whom the keeper does not tell of: somebody traces them (ptrace(2)), so they cannot be reaped; or it
    /// has not run for long.
    pub(crate) fn wait_no_longer(&mut self, now: Time, log: &mut dyn Log, inputs: &mut VecDeque<Input>) {
        let mut lost = Vec::new();
        for (worker, (next, looks)) in self.awaited.iter_mut().filter(|(_, (next, _))| *next <= now) {
            let is_traced = self.processes.get(worker).is_none_or(|process| reaper::is_traced(process.pid));
            match looks.checked_sub(1).filter(|_| !is_traced) {
                Some(left) => (*next, *looks) = (now + TRY_AGAIN, left),
                None => lost.push(*worker),
            }
        }
        for worker in lost {
            self.children.kill_tree(worker);
            self.ended(worker, reaper::Exit::Code(reaper::LOST), log, inputs);
        }
    }

    /// Looks at starting workers whose time has come, and for ended ones that could not be reaped.
    pub(crate) fn look(&mut self, now: Time, inputs: &mut VecDeque<Input>) {
        if self.next_try.is_some_and(|at| at <= now) {
            let children = &mut self.children;
            self.held.retain(|worker| children.reap(*worker).is_none());
            self.next_try = (!self.held.is_empty()).then(|| now + TRY_AGAIN);
        }
        self.listen_again(now);
        inputs.extend(self.probes.look(now));
        self.look_at_silent(now, inputs);
        self.look_at_pulses(now, inputs);
        self.look_at_finishing(now, inputs);
    }

    /// What the worker wrote last, also if it has gone a while ago.
    pub(crate) fn last_lines(&self, worker: WorkerId) -> Vec<String> {
        match self.processes.get(&worker) {
            Some(process) => process.output.last(),
            None => self.remains.of(worker),
        }
    }

    pub(crate) fn signal(&self, worker: WorkerId, signal: Signal) {
        self.children.signal(worker, signal.0);
    }

    pub(crate) fn kill_tree(&self, worker: WorkerId) {
        self.children.kill_tree(worker);
    }

    /// Whose it is, and its slot.
    pub(crate) fn place(&self, worker: WorkerId) -> Option<(BrokerId, Option<Slot>)> {
        self.processes.get(&worker).map(|process| (process.of, process.slot))
    }

    /// Whether its process was started.
    pub(crate) fn has(&self, worker: WorkerId) -> bool {
        self.processes.contains_key(&worker)
    }

    /// Up to which position in all output lines were said.
    pub(crate) fn said(&self) -> u64 {
        self.in_flight.said()
    }

    /// Leaves the pipes to a successor: what was read and is not yet a whole line is said as it is.
    pub(crate) fn leave_output(&mut self, log: &mut dyn Log) {
        for (worker, process) in &mut self.processes {
            for stream in 0..2 {
                let say = say(*worker, &process.broker, process.slot, stream, log, &mut self.in_flight);
                process.output.leave(stream, say);
            }
        }
    }

    /// Its end is recorded: nobody needs to be told of it again, nor what it left.
    pub(crate) fn is_recorded_gone(&mut self, worker: WorkerId) {
        if let Some(keeper) = &self.keeper {
            keeper.forget(Key::Worker(worker));
            if self.post.had_rest(worker) {
                keeper.forget(Key::Rest(worker));
            }
            keeper.forget(Key::Node(worker));
        }
        self.is_believed(worker);
    }

    /// That it is ready is not told to core yet, and its word is dropped: a successor hears of it all the same.
    pub(crate) fn keep_ready(&mut self, worker: WorkerId) {
        if self.said_ready.insert(worker)
            && let Some(keeper) = &self.keeper
        {
            // Without a keeper there is no successor.
            let _ = keeper.deposit(Key::Ready(worker), &[], 0);
        }
    }

    /// Another process has kept that.
    pub(crate) fn has_said_ready(&mut self, worker: WorkerId) {
        self.said_ready.insert(worker);
    }

    /// All whose word is kept.
    pub(crate) fn said_ready(&self) -> impl Iterator<Item = WorkerId> {
        self.said_ready.iter().copied()
    }

    /// It is recorded that it is ready, or gone.
    pub(crate) fn is_believed(&mut self, worker: WorkerId) {
        if self.said_ready.remove(&worker)
            && let Some(keeper) = &self.keeper
        {
            keeper.forget(Key::Ready(worker));
        }
    }

    /// What was heard is recorded: nobody needs to hear it again.
    pub(crate) fn heard_is_recorded(&mut self) {
        for worker in self.heard.drain(..) {
            if let Some(notify) = self.processes.get_mut(&worker).and_then(|process| process.notify.as_mut())
            {
                kill_points::point("a word of readiness is dropped");
                notify.take();
                kill_points::point("a word of readiness was dropped");
            }
        }
        self.post_is_recorded();
    }

    /// Before a descriptor is closed: its description may live on elsewhere, and would stay in the poller with it.
    pub(crate) fn leave_poller(&self, fd: BorrowedFd<'_>) {
        // Not registered is as good as removed.
        let _ = self.poller.get_ref().remove(fd);
    }

    fn hear(&mut self, worker: WorkerId, inputs: &mut VecDeque<Input>) {
        let process = self.processes.get_mut(&worker);
        let Some(notify) = process.and_then(|process| process.notify.as_mut()) else { return };
        while let Some(ready) = notify.receive() {
            if ready && !self.heard.contains(&worker) {
                inputs.push_back(Input::Ready { worker });
                self.heard.push(worker);
            }
            if ready {
                return;
            }
        }
    }

    fn read(&mut self, worker: WorkerId, stream: usize, log: &mut dyn Log) {
        if self.read_portion(worker, stream, log) == Reading::Ended {
            self.end_stream(worker, stream, log);
        }
    }

    fn read_portion(&mut self, worker: WorkerId, stream: usize, log: &mut dyn Log) -> Reading {
        let Some(process) = self.processes.get_mut(&worker) else { return Reading::Empty };
        let say = say(worker, &process.broker, process.slot, stream, log, &mut self.in_flight);
        process.output.read(stream, &mut self.buffer, say)
    }
}

/// Says the lines of a worker's output to the log, and counts what is not said yet.
fn say<'a>(
    worker: WorkerId,
    broker: &'a str,
    slot: Option<Slot>,
    stream: usize,
    log: &'a mut dyn Log,
    in_flight: &'a mut InFlight,
) -> impl FnMut(Piece<'_>) + 'a {
    move |piece| match piece {
        Piece::Read(bytes) => in_flight.take(bytes),
        Piece::PassedOver(bytes) => in_flight.pass_over(bytes),
        Piece::Line(text, bytes) => {
            let up_to = in_flight.say(bytes);
            let slot = slot.map(|slot| slot.0);
            log.line(&Line { broker, worker: worker.0, slot, stderr: stream == 1, text, up_to });
        }
    }
}

/// What a descriptor in the poller is: its kind in the low bits, its worker above.
struct Token;

impl Token {
    const SIGNALS: u64 = 0;
    const EXIT: u64 = 1;
    const NOTIFY: u64 = 2;
    const STDOUT: u64 = 3;
    const STDERR: u64 = 4;
    /// With its broker instead of a worker.
    const LISTENER: u64 = 5;
    const IMAGE: u64 = 6;
    const CHANNEL: u64 = 7;
    /// Beside it, with what would be a worker.
    const CLOCK: u64 = 1 << 3 | Token::IMAGE;

    fn of(kind: u64, worker: WorkerId) -> u64 {
        worker.0 << 3 | kind
    }

    fn read(token: u64) -> (u64, WorkerId) {
        (token & 7, WorkerId(token >> 3))
    }
}

const READ_AT_ONCE: usize = 4 * 1024;
/// For an ended worker to be reaped; then again.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// More looks for the word of a keeper that is slow to say how a worker ended. In looks, so that a stop of our own is none of its.
const LOOKS: u32 = 9;
