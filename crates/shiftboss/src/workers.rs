//! The workers' processes: started, heard, signalled, collected. What any of it means is core's.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_core::Input;
use shiftboss_core::id::{BrokerId, Generation, Pid, Slot, WorkerId};
use shiftboss_core::input::Exit;
use shiftboss_core::spec::{Ready, Signal};
use shiftboss_core::time::Time;
use tokio::io::unix::AsyncFd;

use crate::launch::{Launch, Particulars};
use crate::log::{Line, Log};
use crate::os::lines::{self, Reading};
use crate::os::notify::NotifySocket;
use crate::os::poll::{self, Interest, Poller};
use crate::os::reaper::{self, Reaper};
use crate::os::spawn::cannot;
use crate::os::{clock, pidfd};
use crate::output::{Output, Remains};
use crate::readiness::Probes;
use crate::sockets::Sockets;

/// All processes of the app, and the one poller that hears of them.
pub(crate) struct Workers {
    processes: BTreeMap<WorkerId, Process>,
    reaper: Reaper,
    poller: AsyncFd<Poller>,
    probes: Probes,
    remains: Remains,
    buffer: Vec<u8>,
    notify_dir: PathBuf,
    /// Ended, not reaped.
    held: BTreeSet<WorkerId>,
    next_try: Option<Time>,
}

struct Process {
    broker: Arc<str>,
    slot: Slot,
    output: Output,
    notify: Option<NotifySocket>,
}

/// An event that is not about a worker.
pub(crate) enum Told {
    /// The descriptor of [`Workers::also_wait_for`].
    Signal,
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
}

impl Workers {
    /// Must be called inside the runtime that will wait for them.
    pub(crate) fn new(notify_dir: PathBuf) -> io::Result<Self> {
        Ok(Workers {
            processes: BTreeMap::new(),
            reaper: Reaper::default(),
            poller: Poller::new()?.watched()?,
            probes: Probes::default(),
            remains: Remains::default(),
            buffer: vec![0; READ_AT_ONCE],
            notify_dir,
            held: BTreeSet::new(),
            next_try: None,
        })
    }

    /// Hears of a descriptor of the caller's, too.
    pub(crate) fn also_wait_for(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        self.poller.get_ref().add(fd, Token::SIGNALS, Interest::READ)
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
    ) -> Option<Told> {
        match Token::read(event.token) {
            (Token::EXIT, worker) => self.collect(worker, log, inputs),
            (Token::NOTIFY, worker) => self.hear(worker, inputs),
            (Token::STDOUT, worker) => self.read(worker, 0, log),
            (Token::STDERR, worker) => self.read(worker, 1, log),
            (Token::LISTENER, WorkerId(broker)) => {
                return Some(Told::Listener(BrokerId(u32::try_from(broker).unwrap_or(u32::MAX))));
            }
            _ => return Some(Told::Signal),
        }
        None
    }

    /// When the next look at a starting worker is due.
    pub(crate) fn deadline(&self) -> Option<Time> {
        [self.probes.deadline(), self.next_try].into_iter().flatten().min()
    }

    /// Looks at starting workers whose time has come, and for ended ones that could not be reaped.
    pub(crate) fn look(&mut self, now: Time) -> Vec<Input> {
        if self.next_try.is_some_and(|at| at <= now) {
            let reaper = &mut self.reaper;
            self.held.retain(|worker| reaper.reap(worker.0).is_none());
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
        if let Some(pidfd) = self.reaper.pidfd(worker.0) {
            // A process that is gone already says so through its pidfd.
            let _ = pidfd::signal(pidfd, signal.0);
        }
    }

    pub(crate) fn kill_tree(&self, worker: WorkerId) {
        self.reaper.kill_tree(worker.0);
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
        let child = order.launch.start(&Particulars {
            worker: order.worker,
            slot: order.slot,
            generation: order.generation,
            listeners: &order.sockets.descriptors(),
            stdout: write_stdout.as_fd(),
            stderr: write_stderr.as_fd(),
            notify: notify.as_ref().map(NotifySocket::path),
        });
        let child = child.map_err(|error| error.to_string())?;
        let (worker, pid) = (order.worker, child.pid);
        if order.ready == Ready::Accepting {
            self.probes.watch(clock::now(), worker, pid, order.sockets.keys());
        }
        self.reaper.watch(worker.0, child);
        let output = Output::new(stdout, stderr);
        let process = Process { broker: Arc::clone(order.broker), slot: order.slot, output, notify };
        let registered = self.register(worker, &process);
        self.processes.insert(worker, process);
        if let Err(error) = registered {
            // A worker whose end could not be seen must not live: its exit is awaited here.
            self.reaper.kill_tree(worker.0);
            self.reaper.await_end(worker.0);
            self.forget(worker, &mut Deaf);
            return Err(cannot("cannot watch it", &error));
        }
        Ok(Pid(pid))
    }

    fn register(&self, worker: WorkerId, process: &Process) -> io::Result<()> {
        let poller = self.poller.get_ref();
        if let Some(pidfd) = self.reaper.pidfd(worker.0) {
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

    /// A worker's process has ended: what it said last comes before the news.
    fn collect(&mut self, worker: WorkerId, log: &mut dyn Log, inputs: &mut VecDeque<Input>) {
        self.hear(worker, inputs);
        let exit = match self.reaper.reap(worker.0) {
            Some(death) => death.exit,
            None => self.hold(worker),
        };
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
    }

    /// It has ended and cannot be reaped: somebody traces it (ptrace(2)). The pid stays taken until that one lets go, so
    /// it is reaped later; how it ended is not waited for.
    fn hold(&mut self, worker: WorkerId) -> reaper::Exit {
        self.reaper.kill_tree(worker.0);
        if let Some(pidfd) = self.reaper.pidfd(worker.0) {
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
            if ready {
                inputs.push_back(Input::Ready { worker });
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

/// Hears nothing of a worker that never was one.
struct Deaf;

impl Log for Deaf {
    fn event(&mut self, _: &shiftboss_api::Event) {}
    fn line(&mut self, _: &Line<'_>) {}
    fn note(&mut self, _: &str) {}
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

    fn of(kind: u64, worker: WorkerId) -> u64 {
        worker.0 << 3 | kind
    }

    fn read(token: u64) -> (u64, WorkerId) {
        (token & 7, WorkerId(token >> 3))
    }
}

const READ_AT_ONCE: usize = 4 * 1024;
/// Between attempts to reap what is held by a tracer.
const TRY_AGAIN: Duration = Duration::from_secs(1);
/// Portions read from a dead worker's pipe: more than a pipe holds, unless somebody made it larger.
const LAST_PORTIONS: usize = 17;
