//! Workers begin: a process is started here, or one that another broker process has started is taken over.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::Arc;

use shiftboss_core::id::{BrokerId, Generation, Pid, Slot, WorkerId};
use shiftboss_core::spec::Ready;

use super::{Process, Token, Workers};
use crate::channel::{Channel, Tongue};
use crate::extend::Launcher;
use crate::keys::Key;
use crate::launch::{Launch, Particulars};
use crate::log::Deaf;
use crate::node::Peer;
use crate::os::notify::NotifySocket;
use crate::os::poll::Interest;
use crate::os::spawn::{self, Child, cannot};
use crate::os::{clock, kill_points, lines};
use crate::output::Output;
use crate::sockets::Sockets;

/// Which worker is to be started, and with what.
pub(crate) struct Order<'a> {
    pub(crate) worker: WorkerId,
    /// None of a standby.
    pub(crate) slot: Option<Slot>,
    pub(crate) generation: Generation,
    pub(crate) of: BrokerId,
    pub(crate) broker: &'a Arc<str>,
    pub(crate) ready: Ready,
    pub(crate) launch: &'a Launch,
    pub(crate) launcher: Option<&'a dyn Launcher>,
    pub(crate) sockets: &'a Sockets,
    /// Under a keeper: where in the records its pid is to stand, and where that is in memory.
    pub(crate) word: Option<(usize, NonNull<u32>)>,
}

/// A worker that another process has started.
pub(crate) struct Found<'a> {
    pub(crate) worker: WorkerId,
    /// None of a standby.
    pub(crate) slot: Option<Slot>,
    pub(crate) of: BrokerId,
    pub(crate) broker: &'a Arc<str>,
    pub(crate) ready: Ready,
    pub(crate) launch: Option<&'a Launch>,
    /// It has not been ready yet.
    pub(crate) starting: bool,
    /// It waits at the door.
    pub(crate) at_door: bool,
    /// It has been ready.
    pub(crate) was_ready: bool,
    /// It is asked to leave.
    pub(crate) leaves: bool,
    /// What it was given as a Node program.
    pub(crate) note: Option<OwnedFd>,
    /// It has said something on its channel.
    pub(crate) spoke: bool,
    /// What was left of an unfinished message.
    pub(crate) rest: Option<OwnedFd>,
    /// None if it is gone already, and reaped.
    pub(crate) pid: Option<u32>,
    pub(crate) sockets: &'a Sockets,
    /// Its output pipes, its channel and its notify socket, as they were deposited.
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Workers {
    /// Goes on with a worker that another process has started.
    pub(crate) fn adopt(&mut self, found: Found<'_>) -> io::Result<()> {
        let Found { worker, slot, of, broker, ready, starting, spoke, pid, sockets, .. } = found;
        let (rest, descriptors) = (found.rest, found.descriptors);
        let notice = found.launch.map_or("", Launch::notice);
        let tongue = found.launch.map_or(Tongue::Ours, Launch::tongue);
        let peer = match tongue {
            Tongue::Node | Tongue::NodeAdvanced => {
                let mut peer = Peer::adopt(found.note, found.was_ready)?;
                peer.is_at_door = found.at_door;
                peer.is_to_leave = found.leaves;
                peer.hung_after = found.launch.and_then(Launch::hung_after);
                Some(peer)
            }
            Tongue::Ours => None,
        };
        kill_points::point("a worker is adopted");
        if rest.is_some() {
            self.post.has_rest(worker);
        }
        // Those that the keeper could not hold are lost, and with them what the worker would have said.
        let mut descriptors = descriptors.into_iter();
        let (stdout, stderr) = (descriptors.next(), descriptors.next());
        let channel =
            descriptors.next().map(|socket| Channel::adopt(socket, rest, notice, tongue)).transpose()?;
        let channel = channel.map(|mut channel| {
            if spoke {
                channel.has_spoken();
            }
            if channel.is_cut() {
                // The worker has half a line of ours: it could not understand the next one.
                self.post.is_cut(worker);
                channel.end();
            }
            channel
        });
        let notify = descriptors.next().map(|socket| NotifySocket::adopt(socket, &self.notify_dir, worker.0));
        let process = Process {
            pid: pid.unwrap_or_default(),
            of,
            broker: Arc::clone(broker),
            slot,
            output: Output::new(stdout, stderr),
            notify,
            channel,
            says_ready: peer.is_some() && ready == Ready::Notify,
            peer,
        };
        if let Some(pid) = pid {
            // The keeper reaps nobody until we are ready, so the number is still its own.
            let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            let number = number.ok_or(io::ErrorKind::InvalidData)?;
            let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty())?;
            self.children.watch(worker, Child { pid, pidfd });
            if starting && ready == Ready::Accepting {
                self.probes.watch(clock::now(), worker, pid, sockets.keys(slot));
            }
        }
        self.register(worker, &process)?;
        let waits = process.channel.as_ref().is_some_and(Channel::waits);
        self.processes.insert(worker, process);
        if waits {
            self.wait_for_room(worker);
        }
        Ok(())
    }

    /// Starts a process and hears of it from then on; otherwise nothing is left, and the text says why.
    pub(crate) fn start(&mut self, order: &Order<'_>) -> Result<Pid, String> {
        let failed = |what: &'static str| move |error: io::Error| cannot(what, &error);
        let (stdout, write_stdout) = lines::pipe().map_err(failed("no pipe for its output"))?;
        let (stderr, write_stderr) = lines::pipe().map_err(failed("no pipe for its output"))?;
        let (channel, their_channel) =
            Channel::pair(order.launch.notice(), order.launch.tongue(), self.keeper.is_some())
                .map_err(failed("no channel"))?;
        let peer = match order.launch.tongue() {
            Tongue::Node | Tongue::NodeAdvanced => {
                let mut peer = Peer::new(self.keeper.is_some()).map_err(failed("no memory for it"))?;
                peer.hung_after = order.launch.hung_after();
                Some(peer)
            }
            Tongue::Ours => None,
        };
        let notify = order
            .launch
            .notifies()
            .then(|| NotifySocket::bind(&self.notify_dir, order.worker.0))
            .transpose()
            .map_err(failed("no notify socket"))?;
        let notify_fd = notify.as_ref().map(AsFd::as_fd);
        let descriptors = [Some(stdout.as_fd()), Some(stderr.as_fd()), Some(channel.as_fd()), notify_fd];
        let keeper = self
            .deposit(order, peer.as_ref(), &descriptors.into_iter().flatten().collect::<Vec<_>>())
            .map_err(failed("the keeper does not take its descriptors"))?;
        let preload = if order.launch.preloads() { self.preload() } else { None };
        kill_points::point("a worker is cloned");
        let child = order.launch.start(&Particulars {
            launcher: order.launcher,
            broker: order.broker,
            keeper,
            worker: order.worker,
            slot: order.slot,
            generation: order.generation,
            listeners: &order.sockets.descriptors(order.slot),
            stdout: write_stdout.as_fd(),
            stderr: write_stderr.as_fd(),
            notify: notify.as_ref().map(NotifySocket::path),
            preload: preload.as_deref(),
            channel: their_channel.as_fd(),
        });
        kill_points::point("a worker was cloned");
        let child = child?;
        let (worker, pid) = (order.worker, child.pid);
        if order.ready == Ready::Accepting && order.slot.is_some() {
            self.probes.watch(clock::now(), worker, pid, order.sockets.keys(order.slot));
        }
        self.children.watch(worker, child);
        let output = Output::new(Some(stdout), Some(stderr));
        // Its end is seen only if nobody else has it.
        drop(their_channel);
        let (of, broker, slot) = (order.of, Arc::clone(order.broker), order.slot);
        let says_ready = peer.is_some() && order.ready == Ready::Notify;
        let channel = Some(channel);
        let process = Process { pid, of, broker, slot, output, notify, channel, peer, says_ready };
        let registered = self.register(worker, &process);
        self.processes.insert(worker, process);
        if let Err(error) = registered {
            // A worker whose end could not be seen must not live: its exit is awaited here.
            self.children.kill_tree(worker);
            self.children.await_end(worker);
            self.forget(worker, &mut Deaf);
            return Err(cannot("cannot watch it", &error));
        }
        Ok(Pid(pid))
    }

    /// What a successor of ours needs of a worker is with the keeper before the worker is.
    fn deposit(
        &self,
        order: &Order<'_>,
        peer: Option<&Peer>,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Option<spawn::Keeper>> {
        let (Some(keeper), Some((at, word))) = (&self.keeper, order.word) else { return Ok(None) };
        peer.map_or(Ok(()), |peer| self.deposit_note(order.worker, peer))?;
        keeper.deposit(Key::Worker(order.worker), descriptors, at as u64)?;
        Ok(Some(spawn::Keeper { pid: keeper.pid(), word }))
    }

    fn register(&self, worker: WorkerId, process: &Process) -> io::Result<()> {
        let poller = self.poller.get_ref();
        if let Some(pidfd) = self.children.pidfd(worker) {
            poller.add(pidfd, Token::of(Token::EXIT, worker), Interest::READ)?;
        }
        for (stream, kind) in [(0, Token::STDOUT), (1, Token::STDERR)] {
            if let Some(pipe) = process.output.pipe(stream) {
                poller.add(pipe, Token::of(kind, worker), Interest::READ)?;
            }
        }
        if let Some(notify) = &process.notify {
            poller.add(notify.as_fd(), Token::of(Token::NOTIFY, worker), Interest::READ)?;
        }
        if let Some(channel) = process.channel.as_ref().filter(|channel| !channel.has_ended()) {
            poller.add(channel.as_fd(), Token::of(Token::CHANNEL, worker), Interest::READ)?;
        }
        Ok(())
    }
}
