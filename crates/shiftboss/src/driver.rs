//! The one loop that calls core: waits, turns what happened into an input, performs the effects.
//!
//! It decides nothing. The workers' processes are in `workers`, what can be done to them in `os`.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_api as api;
use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::spec::{Ready, Signal};
use shiftboss_core::time::Time;
use shiftboss_core::{App, Command, Effect, Input, Verb};
use tokio::sync::{mpsc, oneshot};

use crate::convert;
use crate::feed::Feed;
use crate::handle::{Order, Pulse};
use crate::launch::Launch;
use crate::log::Log;
use crate::os::clock;
use crate::os::poll;
use crate::os::signals::SignalFd;
use crate::sockets::{Quieting, Sockets};
use crate::trace::{Heard, Trace};
use crate::workers::{self, Told, Workers};

pub(crate) struct Driver {
    core: App,
    trace: Option<Trace>,
    shells: Vec<Shell>,
    launches: Vec<Launch>,
    workers: Workers,
    signals: Option<SignalFd>,
    quieting: BTreeMap<BrokerId, (u32, Quieting)>,
    feed: Feed,
    log: Box<dyn Log>,
    orders: mpsc::Receiver<Order>,
    waiting: BTreeMap<RequestId, Vec<oneshot::Sender<api::Outcome>>>,
    inputs: VecDeque<Input>,
    own_requests: u128,
    /// By a signal.
    stop_asked: bool,
    hang_up_stops: bool,
    ended: bool,
}

/// What the driver keeps of a broker.
pub(crate) struct Shell {
    pub(crate) name: Arc<str>,
    pub(crate) ready: Ready,
    pub(crate) sockets: Sockets,
}

/// All that a driver starts with.
pub(crate) struct Parts {
    pub(crate) core: App,
    pub(crate) trace: Option<Trace>,
    pub(crate) shells: Vec<Shell>,
    pub(crate) launches: Vec<Launch>,
    pub(crate) feed: Feed,
    pub(crate) log: Box<dyn Log>,
    pub(crate) orders: mpsc::Receiver<Order>,
    pub(crate) signals: Option<SignalFd>,
    /// What a hang-up means: an end, or as for most, new workers.
    pub(crate) hang_up_stops: bool,
    pub(crate) notify_dir: PathBuf,
}

impl Driver {
    /// Must be called inside the runtime that will run it.
    pub(crate) fn new(parts: Parts) -> std::io::Result<Self> {
        let workers = Workers::new(parts.notify_dir)?;
        if let Some(signals) = &parts.signals {
            workers.also_wait_for(signals.as_fd())?;
        }
        Ok(Driver {
            core: parts.core,
            trace: parts.trace,
            shells: parts.shells,
            launches: parts.launches,
            workers,
            signals: parts.signals,
            quieting: BTreeMap::new(),
            feed: parts.feed,
            log: parts.log,
            orders: parts.orders,
            waiting: BTreeMap::new(),
            inputs: VecDeque::new(),
            own_requests: 0,
            stop_asked: false,
            hang_up_stops: parts.hang_up_stops,
            ended: false,
        })
    }

    /// Runs the app until it has ended: all workers gone, all commands answered.
    pub(crate) async fn run(mut self) -> std::io::Result<()> {
        let now = clock::now();
        let effects = self.core.start(now);
        self.record(now, None, &effects);
        self.perform(effects);
        loop {
            self.feed_core();
            // After the effects: a successor is started before its predecessor's death is written down.
            self.log.flush();
            if self.ended {
                return Ok(());
            }
            // Whoever asks gets an answer, however much the workers have to say.
            tokio::task::yield_now().await;
            let now = clock::now();
            match self.deadline() {
                Some(at) if at <= now => {
                    // What has happened meanwhile comes first.
                    let events = self.workers.events()?;
                    self.take_events(&events);
                    while let Ok(order) = self.orders.try_recv() {
                        self.take_order(order);
                    }
                    self.tick();
                }
                deadline => self.wait(deadline.map(|at| at.since(now))).await?,
            }
        }
    }

    async fn wait(&mut self, at_most: Option<Duration>) -> std::io::Result<()> {
        let due = async {
            match at_most {
                Some(wait) => tokio::time::sleep(wait).await,
                None => std::future::pending().await,
            }
        };
        let events = tokio::select! {
            events = self.workers.wait() => events?,
            Some(order) = self.orders.recv() => {
                self.take_order(order);
                return Ok(());
            }
            // The loop sees to it: what has happened meanwhile comes first.
            () = due => return Ok(()),
        };
        self.take_events(&events);
        Ok(())
    }

    fn deadline(&self) -> Option<Time> {
        let quieting = self.quieting.values().map(|(_, quieting)| quieting.deadline()).min();
        [self.core.deadline(), self.workers.deadline(), quieting].into_iter().flatten().min()
    }

    fn tick(&mut self) {
        let now = clock::now();
        self.inputs.extend(self.workers.look(now));
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
        // What has happened may have changed what is due.
        self.feed_core();
        if self.core.deadline().is_some_and(|at| at <= now) {
            self.inputs.push_back(Input::Tick);
        }
    }

    /// Gives core what has happened, with what its own effects bring about, until nothing is left.
    fn feed_core(&mut self) {
        while let Some(input) = self.inputs.pop_front() {
            // An app that has ended only answers.
            if self.ended && !matches!(input, Input::Command { .. }) {
                continue;
            }
            let now = clock::now();
            let heard = self.trace.is_some().then(|| Trace::hear(&input));
            let effects = self.core.handle(now, input);
            self.record(now, heard, &effects);
            self.perform(effects);
        }
    }

    /// Writes a call of core down, if that is asked for and as long as it can be done.
    fn record(&mut self, now: Time, heard: Option<Heard>, effects: &[Effect]) {
        let Some(trace) = &mut self.trace else { return };
        if let Err(error) = trace.step(now, heard, effects, self.core.deadline()) {
            self.trace = None;
            self.log.note(&format!("the trace cannot be written and ends here: {error}"));
        }
    }

    // What has happened.

    /// What workers write waits for the next round once this one has taken long: it is told again.
    fn take_events(&mut self, events: &[poll::Ready]) {
        let until = clock::now() + ROUND;
        for event in events {
            if Workers::can_wait(*event) && clock::now() > until {
                continue;
            }
            match self.workers.take(*event, &mut *self.log, &mut self.inputs) {
                Some(Told::Signal) => self.take_signals(),
                Some(Told::Listener(broker)) => {
                    if let Some(shell) = self.shells.get_mut(broker.0 as usize) {
                        shell.sockets.assert_backlog();
                    }
                }
                None => {}
            }
        }
    }

    fn take_signals(&mut self) {
        while let Some(signal) = self.signals.as_ref().and_then(SignalFd::read) {
            match Signal(signal) {
                Signal::HUP if self.hang_up_stops => self.stop(),
                Signal::HUP => self.recycle_all(),
                _ => self.stop(),
            }
        }
    }

    /// The first signal asks, whatever commands have asked before; the second does not.
    fn stop(&mut self) {
        let now = std::mem::replace(&mut self.stop_asked, true);
        if !now {
            self.log
                .note("stopping: every worker finishes what it has; the same signal again ends them at once");
        }
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
                self.waiting.entry(request).or_default().push(reply);
                self.inputs.push_back(Input::Command { request, command });
            }
            // Whoever has stopped listening needs no answer.
            Order::Status(reply) => {
                let _ = reply.send(self.feed.brokers());
            }
            Order::Pulse(reply) => {
                let _ = reply.send(Pulse { ready: self.feed.is_ready() });
            }
            Order::Subscribe { after, reply } => {
                let _ = reply.send(self.feed.subscribe(after));
            }
        }
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
                Effect::Signal { worker, signal } => self.workers.signal(worker, signal),
                Effect::KillTree { worker } => self.workers.kill_tree(worker),
                Effect::OpenListeners { broker, round } => {
                    let Some(shell) = self.shells.get_mut(broker.0 as usize) else { continue };
                    let result = shell.sockets.open();
                    self.workers.watch_listeners(broker, &shell.sockets);
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
                    self.workers.leave_listeners(&shell.sockets);
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
        let outcome = convert::outcome(outcome, |worker| self.workers.last_lines(worker));
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
        let (broker, ready, sockets) = (&shell.name, shell.ready, &shell.sockets);
        self.workers.start(&workers::Order { worker, slot, generation, broker, ready, launch, sockets })
    }
}

/// How long output of workers may keep everything else waiting.
const ROUND: Duration = Duration::from_millis(5);
