//! The one loop that calls core: waits, turns what happened into an input, performs the effects.
//!
//! It decides nothing. What it may know of a worker is in [`Process`]; what it may do is in `os`.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd};
use std::path::PathBuf;
use std::time::Duration;

use shiftboss_api as api;
use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::input::Exit;
use shiftboss_core::spec::{Ready, Signal};
use shiftboss_core::time::Time;
use shiftboss_core::{App, Command, Effect, Input, Verb};
use tokio::io::unix::AsyncFd;
use tokio::sync::{mpsc, oneshot};

use crate::convert;
use crate::feed::Feed;
use crate::handle::{Order, Seen};
use crate::launch::{Launch, Particulars};
use crate::log::{Line, Log};
use crate::os::lines::{self, Reading};
use crate::os::notify::{Message, NotifySocket};
use crate::os::poll::{self, Interest, Poller};
use crate::os::reaper::{self, Reaper};
use crate::os::signals::SignalFd;
use crate::os::spawn::cannot;
use crate::os::{clock, pidfd};
use crate::output::{Output, Remains};
use crate::readiness::Probes;
use crate::sockets::{Quieting, Sockets};

pub(crate) struct Driver {
    core: App,
    shells: Vec<Shell>,
    launches: Vec<Launch>,
    processes: BTreeMap<WorkerId, Process>,
    reaper: Reaper,
    poller: AsyncFd<Poller>,
    signals: Option<SignalFd>,
    probes: Probes,
    quieting: BTreeMap<BrokerId, (u32, Quieting)>,
    feed: Feed,
    log: Box<dyn Log>,
    orders: mpsc::Receiver<Order>,
    waiting: BTreeMap<RequestId, Vec<oneshot::Sender<api::Outcome>>>,
    remains: Remains,
    inputs: VecDeque<Input>,
    buffer: Vec<u8>,
    notify_dir: PathBuf,
    own_requests: u128,
    stop_asked: bool,
    ended: bool,
}

/// What the driver keeps of a broker.
pub(crate) struct Shell {
    pub(crate) name: String,
    pub(crate) ready: Ready,
    pub(crate) sockets: Sockets,
}

/// What the driver keeps of a worker.
struct Process {
    broker: BrokerId,
    slot: Slot,
    output: Output,
    notify: Option<NotifySocket>,
}

/// All that a driver starts with.
pub(crate) struct Parts {
    pub(crate) core: App,
    pub(crate) shells: Vec<Shell>,
    pub(crate) launches: Vec<Launch>,
    pub(crate) feed: Feed,
    pub(crate) log: Box<dyn Log>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) signals: Option<SignalFd>,
    pub(crate) notify_dir: PathBuf,
}

impl Driver {
    /// Must be called inside the runtime that will run it.
    pub(crate) fn new(parts: Parts) -> std::io::Result<Self> {
        let poller = Poller::new()?;
        if let Some(signals) = &parts.signals {
            poller.add(signals.as_fd(), Token::SIGNALS, Interest::READ)?;
        }
        Ok(Driver {
            core: parts.core,
            shells: parts.shells,
            launches: parts.launches,
            processes: BTreeMap::new(),
            reaper: Reaper::default(),
            poller: poller.watched()?,
            signals: parts.signals,
            probes: Probes::default(),
            quieting: BTreeMap::new(),
            feed: parts.feed,
            log: parts.log,
            orders: parts.orders,
            waiting: BTreeMap::new(),
            remains: Remains::default(),
            inputs: VecDeque::new(),
            buffer: vec![0; READ_AT_ONCE],
            notify_dir: parts.notify_dir,
            own_requests: 0,
            stop_asked: false,
            ended: false,
        })
    }

    /// Runs the app until it has ended: all workers gone, all commands answered.
    pub(crate) async fn run(mut self) -> std::io::Result<()> {
        let effects = self.core.start(clock::now());
        self.perform(effects);
        while !self.ended {
            self.feed_core();
            // After the effects: a successor is started before its predecessor's death is written down.
            self.log.flush();
            if self.ended {
                break;
            }
            // Whoever asks gets an answer, however much the workers have to say.
            tokio::task::yield_now().await;
            let now = clock::now();
            match self.deadline() {
                Some(at) if at <= now => {
                    // What has happened meanwhile comes first.
                    let events = self.poller.get_mut().wait_now()?.to_vec();
                    self.take_events(&events);
                    while let Ok(order) = self.orders.try_recv() {
                        self.take_order(order);
                    }
                    self.tick();
                }
                deadline => self.wait(deadline.map(|at| at.since(now))).await?,
            }
        }
        Ok(())
    }

    async fn wait(&mut self, at_most: Option<Duration>) -> std::io::Result<()> {
        let due = async {
            match at_most {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let events = tokio::select! {
            guard = self.poller.readable_mut() => {
                let mut guard = guard?;
                let events = guard.get_inner_mut().wait_now()?.to_vec();
                if events.is_empty() {
                    // Only now: news is told once, and what had been told before would be waited for in vain.
                    guard.clear_ready();
                }
                events
            }
            Some(order) = self.orders.recv() => {
                self.take_order(order);
                return Ok(());
            }
            () = due => {
                self.tick();
                return Ok(());
            }
        };
        self.take_events(&events);
        Ok(())
    }

    fn deadline(&self) -> Option<Time> {
        let quieting = self.quieting.values().map(|(_, quieting)| quieting.deadline()).min();
        [self.core.deadline(), self.probes.deadline(), quieting].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = clock::now();
        self.inputs.extend(self.probes.look(now));
        let shells = &self.shells;
        let inputs = &mut self.inputs;
        self.quieting.retain(|broker, (round, quieting)| {
            let Some(shell) = shells.get(broker.0 as usize) else { return false };
            let quiet = quieting.deadline() <= now && shell.sockets.is_quiet(quieting, now);
            if quiet {
                inputs.push_back(Input::Quiet { broker: *broker, round: *round });
            }
            !quiet
        });
        if self.core.deadline().is_some_and(|at| at <= now) {
            self.inputs.push_back(Input::Tick);
        }
    }

    /// Gives core what has happened, with what its own effects bring about, until nothing is left.
    fn feed_core(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            let effects = self.core.handle(clock::now(), input);
            self.perform(effects);
        }
    }

    // What has happened.

    fn take_events(&mut self, events: &[poll::Ready]) {
        for event in events {
            match Token::read(event.token) {
                (Token::EXIT, worker) => self.collect(worker),
                (Token::NOTIFY, worker) => self.hear(worker),
                (Token::STDOUT, worker) => self.read(worker, 0),
                (Token::STDERR, worker) => self.read(worker, 1),
                _ => self.take_signals(),
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.as_ref().and_then(SignalFd::read) {
            match Signal(signal) {
                Signal::HUP if hang_up_stops() => self.stop(),
                Signal::HUP => self.recycle_all(),
                _ => self.stop(),
            }
        }
    }

    fn stop(&mut self) {
        let now = std::mem::replace(&mut self.stop_asked, true);
        self.inputs.push_back(Input::Stop { now });
    }

    fn recycle_all(&mut self) {
        for broker in (0..).map(BrokerId).take(self.shells.len()) {
            self.own_requests += 1;
            let request = RequestId(self.own_requests);
            let command = Command::Broker(broker, Verb::Recycle(None));
            self.inputs.push_back(Input::Command { request, command });
        }
    }

    fn take_order(&mut self, order: Order) {
        match order {
            Order::Command { request, command, reply } => {
                self.stop_asked |= command == Command::Stop;
                self.waiting.entry(request).or_default().push(reply);
                self.inputs.push_back(Input::Command { request, command });
            }
            // Whoever has stopped listening needs no answer.
            Order::Status(reply) => {
                let status = self.feed.status();
                let ready = status.ready && !status.stopping;
                let _ = reply.send(Seen { brokers: self.feed.brokers(), ready });
            }
            Order::Subscribe { after, reply } => {
                let _ = reply.send(self.feed.subscribe(after));
            }
        }
    }

    /// A worker's process has ended: what it said last comes before the news.
    fn collect(&mut self, worker: WorkerId) {
        self.hear(worker);
        let Some(death) = self.reaper.reap(worker.0) else { return };
        for stream in 0..2 {
            for _ in 0..LAST_PORTIONS {
                if self.read_portion(worker, stream) != Reading::More {
                    break;
                }
            }
        }
        self.forget(worker);
        let exit = match death.exit {
            reaper::Exit::Code(code) => Exit::Code(code),
            reaper::Exit::Signal(number) => Exit::Signal(Signal(number)),
        };
        self.inputs.push_back(Input::Exited { worker, exit });
    }

    fn forget(&mut self, worker: WorkerId) {
        self.probes.forget(worker);
        self.end_stream(worker, 0);
        self.end_stream(worker, 1);
        let Some(process) = self.processes.remove(&worker) else { return };
        self.remains.keep(worker, &process.output);
        if let Some(notify) = &process.notify {
            self.leave_poller(notify.as_fd());
        }
    }

    /// Gives a pipe up; what was not yet a whole line is said as it is.
    fn end_stream(&mut self, worker: WorkerId, stream: usize) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        let say = say(&self.shells, &mut self.log, worker, process.broker, process.slot, stream);
        if let Some(lines) = process.output.end(stream, say) {
            self.leave_poller(lines.as_fd());
        }
    }

    /// Before a descriptor is closed: its description may live on elsewhere, and would stay in the poller with it.
    fn leave_poller(&self, fd: BorrowedFd<'_>) {
        // Not registered is as good as removed.
        let _ = self.poller.get_ref().remove(fd);
    }

    fn hear(&mut self, worker: WorkerId) {
        let Some(notify) = self.processes.get_mut(&worker).and_then(|process| process.notify.as_mut()) else {
            return;
        };
        while let Some(messages) = notify.receive() {
            if messages.contains(&Message::Ready) {
                self.inputs.push_back(Input::Ready { worker });
            }
        }
    }

    fn read(&mut self, worker: WorkerId, stream: usize) {
        if self.read_portion(worker, stream) == Reading::Ended {
            self.end_stream(worker, stream);
        }
    }

    fn read_portion(&mut self, worker: WorkerId, stream: usize) -> Reading {
        let Some(process) = self.processes.get_mut(&worker) else { return Reading::Empty };
        let say = say(&self.shells, &mut self.log, worker, process.broker, process.slot, stream);
        process.output.read(stream, &mut self.buffer, say)
    }

    // What is to be done.

    fn perform(&mut self, effects: Vec<Effect>) {
        for effect in effects {
            match effect {
                Effect::Spawn { worker, broker, slot, generation, launch } => {
                    let result = self.spawn(worker, broker, slot, generation, launch);
                    self.inputs.push_back(match result {
                        Ok(pid) => Input::Spawned { worker, pid },
                        Err(reason) => Input::SpawnFailed { worker, reason },
                    });
                }
                Effect::Signal { worker, signal } => {
                    if let Some(pidfd) = self.reaper.pidfd(worker.0) {
                        // A process that is gone already says so through its pidfd.
                        let _ = pidfd::signal(pidfd, signal.0);
                    }
                }
                Effect::KillTree { worker } => self.reaper.kill_tree(worker.0),
                Effect::OpenListeners { broker, round } => {
                    let Some(shell) = self.shells.get_mut(broker.0 as usize) else { continue };
                    let result = shell.sockets.open();
                    self.quieting.remove(&broker);
                    self.inputs.push_back(Input::Opened { broker, round, result });
                }
                Effect::QuietListeners { broker, round } => {
                    let Some(shell) = self.shells.get_mut(broker.0 as usize) else { continue };
                    let quieting = shell.sockets.quiet(clock::now());
                    self.quieting.insert(broker, (round, quieting));
                }
                Effect::ShutListeners { broker, round } => {
                    let Some(shell) = self.shells.get_mut(broker.0 as usize) else { continue };
                    self.quieting.remove(&broker);
                    let refused = shell.sockets.shut();
                    self.inputs.push_back(Input::Shut { broker, round, refused });
                }
                Effect::Emit(event) => {
                    if let (shiftboss_core::What::WorkerReady { .. }, Some(broker)) =
                        (&event.what, event.broker)
                        && let Some(shell) = self.shells.get_mut(broker.0 as usize)
                    {
                        shell.sockets.assert_backlog();
                    }
                    let event = self.feed.publish(&event);
                    self.log.event(&event);
                }
                Effect::Reply { request, outcome } => self.reply(request, outcome),
                Effect::Exit => self.ended = true,
            }
        }
    }

    fn reply(&mut self, request: RequestId, outcome: shiftboss_core::Outcome) {
        let outcome = convert::outcome(outcome, |worker| match self.processes.get(&worker) {
            Some(process) => process.output.last(),
            None => self.remains.of(worker),
        });
        for reply in self.waiting.remove(&request).unwrap_or_default() {
            // Whoever has stopped listening needs no answer.
            let _ = reply.send(outcome.clone());
        }
    }

    fn spawn(
        &mut self,
        worker: WorkerId,
        broker: BrokerId,
        slot: Slot,
        generation: Generation,
        launch: LaunchId,
    ) -> Result<Pid, String> {
        let shell = self.shells.get(broker.0 as usize).ok_or("its broker is gone")?;
        let launch = self.launches.get(launch.0 as usize).ok_or("its specification is gone")?;
        let failed = |what: &'static str| move |error: std::io::Error| cannot(what, &error);
        let (stdout, write_stdout) = lines::pipe().map_err(failed("no pipe for its output"))?;
        let (stderr, write_stderr) = lines::pipe().map_err(failed("no pipe for its output"))?;
        let notify = launch
            .notifies()
            .then(|| NotifySocket::bind(&self.notify_dir, worker.0))
            .transpose()
            .map_err(failed("no notify socket"))?;
        let descriptors = shell.sockets.descriptors();
        let particulars = Particulars {
            worker,
            slot,
            generation,
            listeners: &descriptors,
            stdout: write_stdout.as_fd(),
            stderr: write_stderr.as_fd(),
            notify: notify.as_ref().map(NotifySocket::path),
        };
        let child = launch.start(&particulars).map_err(|error| error.to_string())?;
        let pid = child.pid;
        if shell.ready == Ready::Accepting {
            self.probes.watch(clock::now(), worker, pid, shell.sockets.keys());
        }
        self.reaper.watch(worker.0, child);
        let process = Process { broker, slot, output: Output::new(stdout, stderr), notify };
        let registered = self.register(worker, &process);
        self.processes.insert(worker, process);
        if let Err(error) = registered {
            // A worker whose end could not be seen must not live: its exit is awaited here.
            self.reaper.kill_tree(worker.0);
            self.reaper.await_end(worker.0);
            self.forget(worker);
            return Err(cannot("cannot watch it", &error));
        }
        Ok(Pid(pid))
    }

    fn register(&self, worker: WorkerId, process: &Process) -> std::io::Result<()> {
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
}

/// Says a line of a worker's output to the log.
fn say<'a>(
    shells: &'a [Shell],
    log: &'a mut Box<dyn Log>,
    worker: WorkerId,
    broker: BrokerId,
    slot: Slot,
    stream: usize,
) -> impl FnMut(&str) + 'a {
    let broker = shells.get(broker.0 as usize).map_or("", |shell| shell.name.as_str());
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

    fn of(kind: u64, worker: WorkerId) -> u64 {
        worker.0 << 3 | kind
    }

    fn read(token: u64) -> (u64, WorkerId) {
        (token & 7, WorkerId(token >> 3))
    }
}

/// A hang-up means "stop" only for somebody who sits at a terminal; for everybody else it means "renew".
fn hang_up_stops() -> bool {
    std::io::IsTerminal::is_terminal(&std::io::stdin())
}

const READ_AT_ONCE: usize = 64 * 1024;
/// Portions read from a dead worker's pipe: more than a pipe holds.
const LAST_PORTIONS: usize = 17;
