//! The one loop that calls core: waits, turns what happened into an input, performs the effects.
//!
//! It decides nothing. The workers' processes are in `workers`, what can be done to them in `os`.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use shiftboss_api as api;
use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::spec::{Ready, Signal};
use shiftboss_core::time::Time;
use shiftboss_core::{Adoption, App, Command, Effect, Input, Verb};
use shiftboss_keeper::signals::SignalFd;
use shiftboss_keeper::wire::{ORDER_HANG_UP, ORDER_STOP, ORDER_STOP_NOW, ORDER_UPGRADE};
use tokio::sync::{mpsc, oneshot};

use crate::adopt;
use crate::children::exit_of;
use crate::convert;
use crate::feed::Feed;
use crate::handle::{Order, Pulse};
use crate::keeper::{Inherited, Keeper, Said};
use crate::keys::Key;
use crate::launch::Launch;
use crate::log::{Deaf, Log, Told};
use crate::os::{clock, heirs, memory, poll};
use crate::recorder::Recorder;
use crate::sockets::{Quieting, Sockets};
use crate::trace::Trace;
use crate::upgrade::{self, Checked, Estate, Upgrade};
use crate::workers::{self, News, Workers};

pub(crate) struct Driver {
    core: App,
    trace: Option<Trace>,
    recorder: Option<Recorder>,
    shells: Vec<Shell>,
    launches: BTreeMap<LaunchId, Launch>,
    workers: Workers,
    chief: Chief,
    quieting: BTreeMap<BrokerId, (u32, Quieting)>,
    feed: Feed,
    log: Box<dyn Log>,
    /// If the log does not note it itself.
    told: Option<Told>,
    orders: mpsc::Receiver<Order>,
    waiting: BTreeMap<RequestId, Vec<oneshot::Sender<api::Outcome>>>,
    inputs: VecDeque<Input>,
    /// What the keeper has told, and is not recorded yet.
    taken: Vec<Taken>,
    own_requests: u64,
    succession: Succession,
    /// By a signal.
    stop_asked: bool,
    hang_up_stops: bool,
    /// A keeper starts another process if this one fails.
    is_followed: bool,
    ended: bool,
}

/// What the driver keeps of a broker.
pub(crate) struct Shell {
    pub(crate) name: Arc<str>,
    pub(crate) ready: Ready,
    pub(crate) sockets: Sockets,
}

/// Who tells the app to end, and reaps its workers.
pub(crate) enum Chief {
    /// The operating system.
    Signals(SignalFd),
    /// The keeper above us.
    Keeper(Keeper),
}

/// Something that the keeper says again until it is told that it was recorded.
enum Taken {
    Order(u64),
    End(WorkerId),
}

/// How the driver begins.
pub(crate) enum Beginning {
    /// The app is new.
    Start,
    /// Another process has begun it.
    Adopt { how: Adoption, inherited: Inherited, told: u64, events: Vec<api::Event> },
}

/// Who may come after this process.
pub(crate) struct Succession {
    /// The program's file on disk.
    pub(crate) image: PathBuf,
    pub(crate) estate: Estate,
    pub(crate) upgrade: Upgrade,
}

/// All that a driver starts with.
pub(crate) struct Parts {
    pub(crate) core: App,
    pub(crate) trace: Option<Trace>,
    pub(crate) recorder: Option<Recorder>,
    pub(crate) shells: Vec<Shell>,
    pub(crate) launches: BTreeMap<LaunchId, Launch>,
    pub(crate) feed: Feed,
    pub(crate) log: Box<dyn Log>,
    pub(crate) chief: Chief,
    pub(crate) succession: Succession,
    /// What a hang-up means: an end, or as for most, new workers.
    pub(crate) hang_up_stops: bool,
}

impl Driver {
    /// Must be called inside the runtime that will run it.
    pub(crate) fn new(
        mut parts: Parts,
        orders: mpsc::Receiver<Order>,
        notify_dir: PathBuf,
    ) -> std::io::Result<Self> {
        let workers = Workers::new(notify_dir, parts.chief.keeper().cloned())?;
        workers.also_wait_for(parts.chief.as_fd())?;
        let told = parts.recorder.as_ref().map(Recorder::told).transpose()?;
        let told = told.and_then(|told| parts.log.takes_note(told));
        Ok(Driver {
            core: parts.core,
            trace: parts.trace,
            recorder: parts.recorder,
            shells: parts.shells,
            launches: parts.launches,
            workers,
            chief: parts.chief,
            quieting: BTreeMap::new(),
            feed: parts.feed,
            log: parts.log,
            told,
            orders,
            waiting: BTreeMap::new(),
            inputs: VecDeque::new(),
            taken: Vec::new(),
            own_requests: 0,
            succession: parts.succession,
            stop_asked: false,
            hang_up_stops: parts.hang_up_stops,
            is_followed: false,
            ended: false,
        })
    }

    /// Runs the app until it has ended: all workers gone, all commands answered. If it cannot, whoever the keeper starts
    /// next goes on.
    pub(crate) async fn run(mut self, beginning: Beginning) -> std::io::Result<()> {
        let result = self.go(beginning).await;
        heirs::expect(result.is_err() && self.is_followed);
        result
    }

    async fn go(&mut self, beginning: Beginning) -> std::io::Result<()> {
        match beginning {
            Beginning::Start => self.start(),
            Beginning::Adopt { how, inherited, told, events } => {
                self.is_followed = true;
                self.adopt(how, inherited, told, events)?;
            }
        }
        self.feed_core()?;
        if let Some(keeper) = self.chief.keeper() {
            keeper.ready()?;
            self.is_followed = true;
        }
        loop {
            self.feed_core()?;
            // After the effects: a successor is started before its predecessor's death is written down.
            self.log.flush();
            if self.ended {
                return self.chief.keeper().map_or(Ok(()), |keeper| keeper.end(0));
            }
            // Whoever asks gets an answer, however much the workers have to say.
            tokio::task::yield_now().await;
            let now = clock::now();
            match self.deadline() {
                Some(at) if at <= now => {
                    // What has happened meanwhile comes first.
                    let events = self.workers.events()?;
                    self.take_events(&events)?;
                    while let Ok(order) = self.orders.try_recv() {
                        self.take_order(order);
                    }
                    self.tick()?;
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
            checked = self.succession.upgrade.checked() => match checked {
                Checked::TakesOver(request, image) => return self.hand_over(request, &image),
                Checked::Over(words) => {
                    self.log.note(&words);
                    return Ok(());
                }
            },
            // The loop sees to it: what has happened meanwhile comes first.
            () = due => return Ok(()),
        };
        self.take_events(&events)
    }

    fn deadline(&self) -> Option<Time> {
        let quieting = self.quieting.values().map(|(_, quieting)| quieting.deadline()).min();
        let core = self.core.deadline().filter(|_| !self.workers.is_news_due());
        [core, self.workers.deadline(), quieting].into_iter().flatten().min()
    }

    fn tick(&mut self) -> std::io::Result<()> {
        let now = clock::now();
        let late = self.workers.wait_no_longer(now, &mut *self.log, &mut self.inputs);
        self.taken.extend(late.into_iter().map(Taken::End));
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
        self.feed_core()?;
        if self.core.deadline().is_some_and(|at| at <= now) && !self.workers.is_news_due() {
            self.inputs.push_back(Input::Tick);
        }
        Ok(())
    }

    fn start(&mut self) {
        let now = clock::now();
        let effects = self.core.start(now);
        let deadline = self.core.deadline();
        self.trace(|trace| trace.step(now, None, &effects, deadline));
        let events = self.record(&effects);
        self.perform(effects, events);
    }

    /// Goes on where another process ended.
    fn adopt(
        &mut self,
        how: Adoption,
        mut inherited: Inherited,
        told: u64,
        events: Vec<api::Event>,
    ) -> std::io::Result<()> {
        let (Some(keeper), Some(recorder)) = (self.chief.keeper(), &mut self.recorder) else { return Ok(()) };
        // What was recorded and not told is told first.
        for event in events.iter().filter(|event| event.seq > told) {
            self.log.event(event);
            if let Some(told) = &mut self.told {
                told.up_to(event.seq);
            }
        }
        #[cfg(debug_assertions)]
        if how == Adoption::Whole {
            events.iter().for_each(panic_if_asked);
        }
        self.feed.adopt(self.core.status(), events);
        let roll = self.core.roll();
        adopt::take_workers(&mut self.workers, &roll, &mut inherited, keeper, recorder, &self.shells)?;
        // All of it is ours.
        heirs::expect(false);
        if how == Adoption::Salvage {
            roll.iter().for_each(|present| recorder.forget_signals(present.worker));
        }
        let now = clock::now();
        let effects = self.core.adopt(now, how);
        let deadline = self.core.deadline();
        self.trace(|trace| trace.adopt(now, how, &effects, deadline));
        let events = self.record(&effects);
        if let Some(recorder) = &self.recorder {
            let (effects, known) = adopt::still_to_do(effects, &roll, &self.workers, recorder);
            self.inputs.extend(known);
            self.perform(effects, events);
        }
        for (key, status) in std::mem::take(&mut inherited.exits) {
            self.take_exit(key, status);
        }
        Ok(())
    }

    /// Gives core what has happened, with what its own effects bring about, until nothing is left.
    fn feed_core(&mut self) -> std::io::Result<()> {
        while let Some(input) = self.inputs.pop_front() {
            // An app that has ended only answers.
            if self.ended && !matches!(input, Input::Command { .. }) {
                continue;
            }
            let now = clock::now();
            let heard = self.trace.is_some().then(|| Trace::hear(&input));
            let effects = self.core.handle(now, input);
            let deadline = self.core.deadline();
            self.trace(|trace| trace.step(now, heard, &effects, deadline));
            let events = self.record(&effects);
            self.perform(effects, events);
        }
        self.all_is_recorded()
    }

    /// Writes a call of core down, if that is asked for and as long as it can be done.
    fn trace(&mut self, write: impl FnOnce(&mut Trace) -> std::io::Result<()>) {
        if let Some(Err(error)) = self.trace.as_mut().map(write) {
            self.trace = None;
            self.log.note(&format!("the trace cannot be written and ends here: {error}"));
        }
    }

    /// Records a step before its effects are performed, and returns the events among them.
    fn record(&mut self, effects: &[Effect]) -> VecDeque<api::Event> {
        let events = effects.iter().filter_map(|effect| match effect {
            Effect::Emit(event) => Some(self.feed.convert(event)),
            _ => None,
        });
        let mut events: VecDeque<api::Event> = events.collect();
        if let Some(recorder) = &mut self.recorder
            && let Err(full) = recorder.step(&mut self.core, events.make_contiguous())
        {
            self.log.note(&format!("cannot record what happens, so a successor would not know it: {full}"));
        }
        events
    }

    /// Nothing that was told needs to be told again.
    fn all_is_recorded(&mut self) -> std::io::Result<()> {
        self.workers.heard_is_recorded();
        let Some(keeper) = self.chief.keeper() else { return Ok(()) };
        for taken in self.taken.drain(..) {
            match taken {
                Taken::Order(number) => keeper.done(number),
                Taken::End(worker) => self.workers.is_recorded_gone(worker),
            }
        }
        keeper.flush()
    }

    // What has happened.

    /// What workers write waits for the next round once this one has taken long: it is told again.
    fn take_events(&mut self, events: &[poll::Ready]) -> std::io::Result<()> {
        let until = clock::now() + ROUND;
        for event in events {
            if Workers::can_wait(*event) && clock::now() > until {
                continue;
            }
            match self.workers.take(*event, &mut *self.log, &mut self.inputs) {
                Some(News::Chief) => self.hear_chief()?,
                Some(News::Listener(broker)) => {
                    if let Some(shell) = self.shells.get_mut(broker.0 as usize) {
                        shell.sockets.assert_backlog();
                    }
                }
                None => {}
            }
        }
        Ok(())
    }

    fn hear_chief(&mut self) -> std::io::Result<()> {
        let said = match &self.chief {
            Chief::Signals(signals) => {
                let signals: Vec<Signal> = std::iter::from_fn(|| signals.read()).map(Signal).collect();
                signals.into_iter().for_each(|signal| match signal {
                    Signal::HUP => self.hang_up(None),
                    _ => self.stop(),
                });
                return Ok(());
            }
            Chief::Keeper(keeper) => keeper.hear()?,
        };
        for said in said {
            match said {
                Said::Exit { key, status } => self.take_exit(key, status),
                Said::Order { number, what } => self.take_keepers_order(number, what),
                Said::Lacks { key } => self.is_not_held(key),
                Said::Fate(fate) => {
                    if let Some(words) = self.succession.upgrade.ended(fate) {
                        self.log.note(&words);
                    }
                }
            }
        }
        Ok(())
    }

    /// A worker is gone, and reaped by the keeper.
    fn take_exit(&mut self, key: u64, status: u64) {
        if let Some(Key::Worker(worker)) = Key::of(key) {
            if self.workers.has(worker) {
                self.workers.ended(worker, exit_of(status), &mut *self.log, &mut self.inputs);
            }
            self.taken.push(Taken::End(worker));
        }
    }

    /// A worker that nobody could go on with makes way for one that somebody can.
    fn is_not_held(&mut self, key: u64) {
        let full = "its limit of open files is reached";
        if let Some(Key::Worker(worker)) = Key::of(key) {
            self.log.note(&format!("the keeper cannot hold what belongs to worker {}: {full}", worker.0));
            self.workers.kill_tree(worker);
        } else {
            self.log.note(&format!("the keeper cannot hold all that a successor needs: {full}"));
        }
    }

    fn take_keepers_order(&mut self, number: u64, what: u64) {
        match what {
            ORDER_STOP => self.stop(),
            ORDER_STOP_NOW => self.inputs.push_back(Input::Stop { now: true }),
            ORDER_HANG_UP => self.hang_up(Some(number)),
            ORDER_UPGRADE => {
                let request = RequestId(u128::from(number << 32 | u64::from(u32::MAX)));
                self.upgrade(request, false, oneshot::channel().0);
            }
            // One of a newer keeper.
            _ => {}
        }
        self.taken.push(Taken::Order(number));
    }

    /// The same order told twice is one command.
    fn hang_up(&mut self, order: Option<u64>) {
        if self.hang_up_stops {
            return self.stop();
        }
        self.own_requests += 1;
        let number = order.unwrap_or(self.own_requests) & MOST_ORDERS;
        for broker in (0..).take(self.shells.len()) {
            let request = RequestId(u128::from(number << 32 | u64::from(broker)));
            let command = Command::Broker(BrokerId(broker), Verb::Recycle(None));
            self.inputs.push_back(Input::Command { request, command });
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

    fn take_order(&mut self, order: Order) {
        match order {
            Order::Command { request, command, reply } => {
                self.waiting.entry(request).or_default().push(reply);
                self.inputs.push_back(Input::Command { request, command });
            }
            Order::Upgrade { request, check, reply } => self.upgrade(request, check, reply),
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

    // Another image.

    fn upgrade(&mut self, request: RequestId, only: bool, reply: oneshot::Sender<api::Outcome>) {
        let Some(reply) = self.succession.upgrade.ask(request, reply) else { return };
        let refused = if self.recorder.is_none() {
            Some("it runs without a keeper, which an upgrade needs")
        } else if self.core.status().stopping {
            Some("the app is stopping")
        } else {
            None
        };
        if let Some(reason) = refused {
            let _ = reply.send(upgrade::refused(reason));
            return;
        }
        let Some(recorder) = &self.recorder else { return };
        let (say, answer) = oneshot::channel();
        let image = self.succession.image.clone();
        match adopt::to_read(&self.succession.estate, recorder, &self.shells) {
            Ok(estate) => {
                // Nobody waits for it once the app ends.
                let ask = move || drop(say.send(upgrade::check(&image, &estate)));
                drop(std::thread::Builder::new().name("upgrade".to_owned()).spawn(ask));
            }
            Err(error) => drop(say.send(Err(format!("nothing can be handed over: {error}")))),
        }
        self.succession.upgrade.begin(request, only, Some(reply), answer);
    }

    /// The last thing that this process does, unless it fails.
    fn hand_over(&mut self, request: RequestId, image: &OwnedFd) -> std::io::Result<()> {
        let Some(keeper) = self.chief.keeper() else { return Ok(()) };
        let handed = memory::sealed("shiftboss-upgrade", &request.0.to_le_bytes())
            .and_then(|note| keeper.yield_to(image.as_fd(), note.as_fd()));
        if let Err(error) = handed {
            let words =
                self.succession.upgrade.fail(request, format!("the keeper does not take it: {error}"));
            self.log.note(&words);
            return Ok(());
        }
        // Its last lines are written; nothing else is given up, all of it is the successor's.
        self.log = Box::new(Deaf);
        std::process::exit(0)
    }

    // What is to be done.

    fn perform(&mut self, effects: Vec<Effect>, mut events: VecDeque<api::Event>) {
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
                    self.workers.signal(worker, signal);
                    if let Some(recorder) = &mut self.recorder {
                        recorder.signalled(worker);
                    }
                }
                Effect::KillTree { worker } => self.workers.kill_tree(worker),
                Effect::OpenListeners { broker, round } => {
                    let Some(shell) = self.shells.get_mut(broker.0 as usize) else { continue };
                    let mut result = shell.sockets.open();
                    if let (Ok(_), Some(keeper)) = (&result, self.chief.keeper())
                        && let Err(error) = shell.sockets.deposit(keeper, broker)
                    {
                        result = Err(shell.sockets.not_held(&error));
                    }
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
                    let Some(wire) = events.pop_front() else { continue };
                    #[cfg(debug_assertions)]
                    panic_if_asked(&wire);
                    let seq = event.seq;
                    let event = self.feed.publish(&event, wire);
                    self.log.event(&event);
                    if let Some(told) = &mut self.told {
                        told.up_to(seq);
                    }
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
        let launch = self.launches.get(&launch).ok_or("its specification is gone")?;
        let (broker, ready, sockets) = (&shell.name, shell.ready, &shell.sockets);
        let word = self.recorder.as_ref().and_then(|recorder| recorder.word(worker));
        let order = workers::Order { worker, slot, generation, broker, ready, launch, sockets, word };
        self.workers.start(&order)
    }
}

impl Chief {
    /// The process that is the app to others.
    pub(crate) fn pid(&self) -> u32 {
        let keeper = self.keeper().and_then(|keeper| u32::try_from(keeper.pid()).ok());
        keeper.unwrap_or_else(std::process::id)
    }

    pub(crate) fn keeper(&self) -> Option<&Keeper> {
        match self {
            Chief::Signals(_) => None,
            Chief::Keeper(keeper) => Some(keeper),
        }
    }
}

impl AsFd for Chief {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Chief::Signals(signals) => signals.as_fd(),
            Chief::Keeper(keeper) => keeper.as_fd(),
        }
    }
}

/// For tests of what follows a panic: one comes with the event that `SHIFTBOSS_PANIC_ON` names, and again in whoever
/// finds it among the last ones, until whatever was under way is dropped.
#[cfg(debug_assertions)]
fn panic_if_asked(event: &api::Event) {
    let asked = std::env::var("SHIFTBOSS_PANIC_ON").unwrap_or_default();
    let is_meant = !asked.is_empty() && serde_json::to_value(event.event).is_ok_and(|name| name == asked);
    assert!(!is_meant, "asked to panic on {asked}");
}

/// Requests of our own have numbers of 64 bits, an order's above the broker's.
const MOST_ORDERS: u64 = u32::MAX as u64;
/// How long output of workers may keep everything else waiting.
const ROUND: Duration = Duration::from_millis(5);
