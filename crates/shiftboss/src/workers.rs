//! The workers' processes: started, heard, signalled, collected. What any of it means is core's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::ptr::NonNull;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_core::Input;
use shiftboss_core::id::{BrokerId, Generation, Pid, Slot, WorkerId};
use shiftboss_core::input::Exit;
use shiftboss_core::spec::{Ready, Signal};
use shiftboss_core::time::Time;
use tokio::io::unix::AsyncFd;

use crate::children::Children;
use crate::keeper::Keeper;
use crate::keys::Key;
use crate::launch::{Launch, Particulars};
use crate::log::{Deaf, Line, Log};
use crate::os::clock;
use crate::os::kill_points;
use crate::os::lines::{self, Reading};
use crate::os::notify::NotifySocket;
use crate::os::poll::{self, Interest, Poller};
use crate::os::reaper::{self, Reaper};
use crate::os::spawn::{self, Child, cannot};
use crate::output::{Output, Remains};
use crate::readiness::Probes;
use crate::sockets::Sockets;

/// All processes of the app, and the one poller that hears of them.
pub(crate) struct Workers {
    processes: BTreeMap<WorkerId, Process>,
    children: Children,
    keeper: Option<Keeper>,
    poller: AsyncFd<Poller>,
    probes: Probes,
    remains: Remains,
    buffer: Vec<u8>,
    notify_dir: PathBuf,
    /// Whose word of being ready is not recorded yet.
    heard: Vec<WorkerId>,
    /// Ended, not reaped.
    held: BTreeSet<WorkerId>,
    next_try: Option<Time>,
    /// Ended, and until then the keeper's word on how is awaited.
    awaited: BTreeMap<WorkerId, Time>,
}

struct Process {
    broker: Arc<str>,
    slot: Slot,
    output: Output,
    notify: Option<NotifySocket>,
}

/// An event that is not about a worker.
pub(crate) enum News {
    /// The descriptor of [`Workers::also_wait_for`].
    Chief,
    /// The descriptor of [`Workers::also_watch`].
    Image,
    /// A listener of this broker listens no more.
    Listener(BrokerId),
}

/// Which worker is to be started, and with what.
pub(crate) struct Order<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) slot: Slot,
    pub(crate) generation: Generation,
    pub(crate) broker: &'a Arc<str>,
    pub(crate) ready: Ready,
    pub(crate) launch: &'a Launch,
    pub(crate) sockets: &'a Sockets,
    /// Under a keeper: where in the records its pid is to stand, and where that is in memory.
    pub(crate) word: Option<(usize, NonNull<u32>)>,
}

/// A worker that another process has started.
pub(crate) struct Found<'a> {
    pub(crate) worker: WorkerId,
    pub(crate) slot: Slot,
    pub(crate) broker: &'a Arc<str>,
    /// None if it is gone already, and reaped.
    pub(crate) pid: Option<u32>,
    /// It is still to be watched for its readiness.
    pub(crate) probed: bool,
    pub(crate) sockets: &'a Sockets,
    /// Its output pipes and its notify socket, as they were deposited.
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Workers {
    /// Must be called inside the runtime that will wait for them.
    pub(crate) fn new(notify_dir: PathBuf, keeper: Option<Keeper>) -> io::Result<Self> {
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
            buffer: vec![0; READ_AT_ONCE],
            notify_dir,
            heard: Vec::new(),
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

    /// Hears of it when a worker has shut one of these for everybody.
    pub(crate) fn watch_listeners(&self, broker: BrokerId, sockets: &Sockets) {
        for listener in sockets.mendable() {
            // There already is as good; what cannot be watched is mended when the next worker is ready.
            let _ = self.poller.get_ref().add(
                listener,
                Token::LISTENER | u64::from(broker.0) << 3,
                Interest::NONE,
            );
        }
    }

    /// The opposite, before they are shut by ourselves.
    pub(crate) fn leave_listeners(&self, sockets: &Sockets) {
        sockets.mendable().for_each(|listener| self.leave_poller(listener));
    }

    /// Whether the event is of a kind that is told again until it is dealt with, and is no news of life or death.
    pub(crate) fn can_wait(event: poll::Ready) -> bool {
        matches!(Token::read(event.token).0, Token::STDOUT | Token::STDERR)
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
            (Token::STDOUT, worker) => self.read(worker, 0, log),
            (Token::STDERR, worker) => self.read(worker, 1, log),
            (Token::LISTENER, WorkerId(broker)) => {
                return Some(News::Listener(BrokerId(u32::try_from(broker).unwrap_or(u32::MAX))));
            }
            (Token::IMAGE, _) => return Some(News::Image),
            _ => return Some(News::Chief),
        }
        None
    }

    /// When the next look at a starting worker is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let awaited = self.awaited.values().min().copied();
        [self.probes.deadline(), self.next_try, awaited].into_iter().flatten().min()
    }

    /// Whether somebody has ended and nobody has told how: until that is known no time has passed.
    pub(crate) fn is_news_due(&self) -> bool {
        !self.awaited.is_empty()
    }

    /// Takes those for gone whom the keeper does not tell of: somebody traces them (ptrace(2)), so they cannot be reaped.
    pub(crate) fn wait_no_longer(
        &mut self,
        now: Time,
        log: &mut dyn Log,
        inputs: &mut VecDeque<Input>,
    ) -> Vec<WorkerId> {
        let late: Vec<WorkerId> =
            self.awaited.iter().filter(|(_, until)| **until <= now).map(|(worker, _)| *worker).collect();
        for worker in &late {
            self.ended(*worker, reaper::Exit::Code(reaper::LOST), log, inputs);
        }
        late
    }

    /// Looks at starting workers whose time has come, and for ended ones that could not be reaped.
    pub(crate) fn look(&mut self, now: Time) -> Vec<Input> {
        if self.next_try.is_some_and(|at| at <= now) {
            let children = &mut self.children;
            self.held.retain(|worker| children.reap(*worker).is_none());
            self.next_try = (!self.held.is_empty()).then(|| now + TRY_AGAIN);
        }
        self.probes.look(now)
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

    /// Goes on with a worker that another process has started.
    pub(crate) fn adopt(&mut self, found: Found<'_>) -> io::Result<()> {
        let Found { worker, slot, broker, pid, probed, sockets, descriptors } = found;
        kill_points::point("a worker is adopted");
        // Those that the keeper could not hold are lost, and with them what the worker would have said.
        let mut descriptors = descriptors.into_iter();
        let (stdout, stderr) = (descriptors.next(), descriptors.next());
        let notify = descriptors.next().map(|socket| NotifySocket::adopt(socket, &self.notify_dir, worker.0));
        let process =
            Process { broker: Arc::clone(broker), slot, output: Output::new(stdout, stderr), notify };
        if let Some(pid) = pid {
            // The keeper reaps nobody until we are ready, so the number is still its own.
            let number = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
            let number = number.ok_or(io::ErrorKind::InvalidData)?;
            let pidfd = rustix::process::pidfd_open(number, rustix::process::PidfdFlags::empty())?;
            self.children.watch(worker, Child { pid, pidfd });
            if probed {
                self.probes.watch(clock::now(), worker, pid, sockets.keys());
            }
        }
        self.register(worker, &process)?;
        self.processes.insert(worker, process);
        Ok(())
    }

    /// Whether its process was started.
    pub(crate) fn has(&self, worker: WorkerId) -> bool {
        self.processes.contains_key(&worker)
    }

    /// Starts a process and hears of it from then on; otherwise nothing is left, and the text says why.
    pub(crate) fn start(&mut self, order: &Order<'_>) -> Result<Pid, String> {
        let failed = |what: &'static str| move |error: io::Error| cannot(what, &error);
        let (stdout, write_stdout) = lines::pipe().map_err(failed("no pipe for its output"))?;
        let (stderr, write_stderr) = lines::pipe().map_err(failed("no pipe for its output"))?;
        let notify = order
            .launch
            .notifies()
            .then(|| NotifySocket::bind(&self.notify_dir, order.worker.0))
            .transpose()
            .map_err(failed("no notify socket"))?;
        let descriptors = [Some(stdout.as_fd()), Some(stderr.as_fd()), notify.as_ref().map(AsFd::as_fd)];
        let keeper = self
            .deposit(order, &descriptors.into_iter().flatten().collect::<Vec<_>>())
            .map_err(failed("the keeper does not take its descriptors"))?;
        kill_points::point("a worker is cloned");
        let child = order.launch.start(&Particulars {
            keeper,
            worker: order.worker,
            slot: order.slot,
            generation: order.generation,
            listeners: &order.sockets.descriptors(),
            stdout: write_stdout.as_fd(),
            stderr: write_stderr.as_fd(),
            notify: notify.as_ref().map(NotifySocket::path),
        });
        kill_points::point("a worker was cloned");
        let child = child.map_err(|error| {
            self.is_recorded_gone(order.worker);
            error.to_string()
        })?;
        let (worker, pid) = (order.worker, child.pid);
        if order.ready == Ready::Accepting {
            self.probes.watch(clock::now(), worker, pid, order.sockets.keys());
        }
        self.children.watch(worker, child);
        let output = Output::new(Some(stdout), Some(stderr));
        let process = Process { broker: Arc::clone(order.broker), slot: order.slot, output, notify };
        let registered = self.register(worker, &process);
        self.processes.insert(worker, process);
        if let Err(error) = registered {
            // A worker whose end could not be seen must not live: its exit is awaited here.
            self.children.kill_tree(worker);
            self.children.await_end(worker);
            self.forget(worker, &mut Deaf);
            self.is_recorded_gone(worker);
            return Err(cannot("cannot watch it", &error));
        }
        Ok(Pid(pid))
    }

    /// What a successor of ours needs of a worker is with the keeper before the worker is.
    fn deposit(
        &self,
        order: &Order<'_>,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<Option<spawn::Keeper>> {
        let (Some(keeper), Some((at, word))) = (&self.keeper, order.word) else { return Ok(None) };
        keeper.deposit(Key::Worker(order.worker), descriptors, at as u64)?;
        Ok(Some(spawn::Keeper { pid: keeper.pid(), word }))
    }

    /// Its end is recorded: nobody needs to be told of it again, nor what it left.
    pub(crate) fn is_recorded_gone(&self, worker: WorkerId) {
        if let Some(keeper) = &self.keeper {
            keeper.forget(Key::Worker(worker));
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
        Ok(())
    }

    /// A worker's process has ended.
    fn collect(&mut self, worker: WorkerId, log: &mut dyn Log, inputs: &mut VecDeque<Input>) {
        let exit = self.children.reap(worker).unwrap_or_else(|| self.hold(worker));
        self.ended(worker, exit, log, inputs);
    }

    /// A worker's process has ended; the keeper reaps it and says how.
    fn has_ended(&mut self, worker: WorkerId) {
        if let Some(pidfd) = self.children.pidfd(worker) {
            self.leave_poller(pidfd);
            self.awaited.insert(worker, clock::now() + TRY_AGAIN);
        }
    }

    /// A worker's process is gone, and reaped: what it said last comes before the news.
    pub(crate) fn ended(
        &mut self,
        worker: WorkerId,
        exit: reaper::Exit,
        log: &mut dyn Log,
        inputs: &mut VecDeque<Input>,
    ) {
        self.hear(worker, inputs);
        self.awaited.remove(&worker);
        if let Some(pidfd) = self.children.pidfd(worker).filter(|_| self.children.are_kept()) {
            self.leave_poller(pidfd);
        }
        self.children.is_gone(worker);
        for stream in 0..2 {
            for _ in 0..LAST_PORTIONS {
                if self.read_portion(worker, stream, log) != Reading::More {
                    break;
                }
            }
        }
        self.forget(worker, log);
        let exit = match exit {
            reaper::Exit::Code(code) => Exit::Code(code),
            reaper::Exit::Signal(number) => Exit::Signal(Signal(number)),
        };
        inputs.push_back(Input::Exited { worker, exit });
        kill_points::point("an exit was heard");
    }

    /// It has ended and cannot be reaped: somebody traces it (ptrace(2)). The pid stays taken until that one lets go, so
    /// it is reaped later; how it ended is not waited for.
    fn hold(&mut self, worker: WorkerId) -> reaper::Exit {
        self.children.kill_tree(worker);
        if let Some(pidfd) = self.children.pidfd(worker) {
            self.leave_poller(pidfd);
        }
        self.held.insert(worker);
        self.next_try = Some(clock::now() + TRY_AGAIN);
        reaper::Exit::Code(reaper::LOST)
    }

    fn forget(&mut self, worker: WorkerId, log: &mut dyn Log) {
        self.probes.forget(worker);
        self.end_stream(worker, 0, log);
        self.end_stream(worker, 1, log);
        let Some(process) = self.processes.remove(&worker) else { return };
        self.remains.keep(worker, &process.output);
        if let Some(notify) = &process.notify {
            self.leave_poller(notify.as_fd());
        }
    }

    /// Gives a pipe up; what was not yet a whole line is said as it is.
    fn end_stream(&mut self, worker: WorkerId, stream: usize, log: &mut dyn Log) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let say = say(worker, &process.broker, process.slot, stream, log);
        if let Some(lines) = process.output.end(stream, say) {
            self.leave_poller(lines.as_fd());
        }
    }

    /// Before a descriptor is closed: its description may live on elsewhere, and would stay in the poller with it.
    fn leave_poller(&self, fd: BorrowedFd<'_>) {
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
        let say = say(worker, &process.broker, process.slot, stream, log);
        process.output.read(stream, &mut self.buffer, say)
    }
}

/// Says a line of a worker's output to the log.
fn say<'a>(
    worker: WorkerId,
    broker: &'a str,
    slot: Slot,
    stream: usize,
    log: &'a mut dyn Log,
) -> impl FnMut(&str) + 'a {
    move |text| log.line(&Line { broker, worker: worker.0, slot: slot.0, stderr: stream == 1, text })
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
/// Portions read from a dead worker's pipe: more than a pipe holds, unless somebody made it larger.
const LAST_PORTIONS: usize = 17;
