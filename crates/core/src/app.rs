//! The app: entry to the rules. Owns the brokers, what they share, and the end of all.

use crate::broker::Broker;
use crate::effect::{Done, Effect, Outcome, TOO_MANY};
use crate::event::What;
use crate::id::{BrokerId, RequestId, WorkerId};
use crate::input::{Command, Input, Verb};
use crate::requests::{MOST_OPEN, Seen, Waits};
use crate::rng::Rng;
use crate::shared::{Key, Shared};
use crate::spec::{BrokerSpec, MAX_WORKERS};
use crate::status::Status;
use crate::time::Time;

/// All brokers of one configuration.
#[derive(Clone)]
pub struct App {
    pub(crate) brokers: Vec<Broker>,
    pub(crate) shared: Shared,
    pub(crate) ready: bool,
    pub(crate) stopping: bool,
    pub(crate) exited: bool,
}

impl App {
    /// An app of these brokers, none of which has begun: see [`App::start`]. `seed` feeds the jitter.
    #[must_use]
    pub fn new(now: Time, seed: u64, specs: Vec<BrokerSpec>) -> Self {
        let of = |id: BrokerId| Rng::new(seed ^ (u64::from(id.0) << 32));
        let brokers =
            (0..).map(BrokerId).zip(specs).map(|(id, spec)| Broker::new(id, spec, of(id))).collect();
        let shared = Shared::new(now);
        App { brokers, shared, ready: false, stopping: false, exited: false }
    }

    /// Begins: opens the listeners, starts the workers. Called once.
    pub fn start(&mut self, now: Time) -> Vec<Effect> {
        self.shared.advance(now);
        for broker in &mut self.brokers {
            self.shared.changes.broker(broker.id);
            broker.start(&mut self.shared);
        }
        self.settle()
    }

    /// Takes in what happened and returns what to do, in order. A time before the last one counts as equal.
    pub fn handle(&mut self, now: Time, input: Input) -> Vec<Effect> {
        self.shared.advance(now);
        match input {
            Input::Tick => self.tick(),
            Input::Opened { broker, round, result } => {
                self.with(broker, |broker, cx| broker.opened(cx, round, result));
            }
            Input::Bound { broker, address } => self.with(broker, |broker, cx| broker.bound(cx, address)),
            Input::Unbound { broker, address } => {
                self.with(broker, |broker, cx| broker.unbound(cx, &address));
            }
            Input::Quiet { broker, round } => self.with(broker, |broker, cx| broker.quiet(cx, round)),
            Input::Shut { broker, round, refused } => {
                self.with(broker, |broker, cx| broker.shut(cx, round, refused));
            }
            Input::Spawned { worker, pid } => {
                self.with_owner(worker, |broker, cx| broker.spawned(cx, worker, pid));
            }
            Input::SpawnFailed { worker, reason } => {
                self.with_owner(worker, |broker, cx| broker.spawn_failed(cx, worker, reason));
            }
            Input::Standby { worker } => {
                self.with_owner(worker, |broker, cx| broker.told_standby(cx, worker));
            }
            Input::Unseen { worker } => self.with_owner(worker, |broker, cx| broker.told_unseen(cx, worker)),
            Input::Ready { worker } => self.with_owner(worker, |broker, cx| broker.told_ready(cx, worker)),
            Input::Spoke { worker } => self.with_owner(worker, |broker, cx| broker.spoke(cx, worker)),
            Input::HungUp { worker } => self.with_owner(worker, |broker, cx| broker.hung_up(cx, worker)),
            Input::Garbled { worker } => self.with_owner(worker, |broker, cx| broker.garbled(cx, worker)),
            Input::Hung { worker } => self.with_owner(worker, |broker, cx| broker.hung(cx, worker)),
            Input::Refused { worker } => self.with_owner(worker, |broker, cx| broker.refused(cx, worker)),
            Input::Begun { spec, seed } => self.begin(*spec, seed),
            Input::Exited { worker, exit } => {
                self.with_owner(worker, |broker, cx| broker.exited(cx, worker, exit));
            }
            Input::Window { broker, open } => self.with(broker, |broker, cx| broker.window(cx, open)),
            Input::Changed { broker } => self.with(broker, Broker::files_changed),
            Input::Command { request, command } => match self.shared.requests.seen(request) {
                Seen::New => self.command(request, command),
                Seen::Open => {}
                Seen::Answered(outcome) => self.shared.effects.push(Effect::Reply { request, outcome }),
            },
            Input::Stop { now } => self.stop(now),
        }
        self.settle()
    }

    /// When to call [`App::handle`] with [`Input::Tick`] at the latest; none = nothing is waited for.
    #[must_use]
    pub fn deadline(&self) -> Option<Time> {
        let timer = self.shared.timers.first().map(|(time, _)| *time);
        [timer, self.shared.budget.deadline()].into_iter().flatten().min()
    }

    /// The status from the state itself; equal to the fold of all events.
    #[must_use]
    pub fn status(&self) -> Status {
        Status {
            ready: self.ready,
            stopping: self.stopping,
            brokers: self.brokers.iter().map(Broker::status).collect(),
        }
    }

    /// Whether the app ends, or has ended.
    #[must_use]
    pub fn is_stopping(&self) -> bool {
        self.stopping
    }

    /// Whether what is kept beside the states (counts, owners, timers) agrees with them; for tests.
    #[must_use]
    pub fn is_consistent(&self) -> bool {
        let workers: usize = self.brokers.iter().map(|broker| broker.workers.len()).sum();
        self.brokers.iter().all(Broker::is_consistent)
            && workers == self.shared.owners.len()
            && self.shared.timers == self.brokers.iter().flat_map(Broker::deadlines).collect()
            && self.shared.budget.has_exactly(self.brokers.iter().flat_map(Broker::tickets))
    }

    /// One more broker. An app that ends takes in none.
    fn begin(&mut self, spec: BrokerSpec, seed: u64) {
        let number = u32::try_from(self.brokers.len());
        let (false, Ok(number)) = (self.stopping, number) else { return };
        let id = BrokerId(number);
        let broker = Broker::new(id, spec, Rng::new(seed));
        broker.slots().for_each(|slot| self.shared.changes.slot(id, slot));
        self.brokers.push(broker);
        self.with(id, Broker::start);
    }

    fn with(&mut self, id: BrokerId, act: impl FnOnce(&mut Broker, &mut Shared)) {
        if let Some(broker) = self.brokers.get_mut(id.0 as usize) {
            self.shared.changes.broker(id);
            act(broker, &mut self.shared);
        }
    }

    /// The one place where a stale worker id is dropped.
    fn with_owner(&mut self, id: WorkerId, act: impl FnOnce(&mut Broker, &mut Shared)) {
        if let Some(owner) = self.shared.owners.get(&id).copied() {
            self.with(owner, act);
        }
    }

    fn tick(&mut self) {
        while let Some((time, key)) = self.shared.timers.first().copied() {
            if time > self.shared.now {
                return;
            }
            self.due(time, key);
        }
    }

    /// What this timer was armed for is due.
    pub(crate) fn due(&mut self, time: Time, key: Key) {
        self.shared.timers.remove(&(time, key));
        match key {
            Key::Worker(broker, id) => self.with(broker, |broker, cx| broker.worker_due(cx, id)),
            Key::Slot(broker, slot) => self.with(broker, |broker, cx| broker.backoff_over(cx, slot)),
            Key::Standby(broker) => self.with(broker, |broker, _| broker.standby_wait_over()),
            Key::Move(broker, slot) => self.with(broker, |broker, cx| broker.move_due(cx, slot)),
            Key::Listen(broker) => self.with(broker, Broker::listen_again),
            Key::Recycle(broker) => self.with(broker, Broker::recycle_due),
            Key::Back(broker) => self.with(broker, Broker::back_due),
            Key::Changed(broker) => self.with(broker, Broker::change_due),
        }
    }

    fn command(&mut self, request: RequestId, command: Command) {
        let cx = &mut self.shared;
        let (id, verb) = match command {
            Command::Broker(id, verb) => (id, verb),
            Command::Stop => {
                if self.exited {
                    return cx.reply(request, Outcome::Done(Done::default()));
                }
                self.stop(false);
                return self.wait_for_exit(request);
            }
        };
        if self.stopping {
            return cx.reply(request, Outcome::Refused("the app is stopping".to_owned()));
        }
        if cx.requests.are_too_many() {
            return cx.reply(request, too_many());
        }
        let Some(broker) = self.brokers.get_mut(id.0 as usize) else {
            return cx.reply(request, Outcome::Refused(format!("there is no broker {id}")));
        };
        cx.changes.broker(id);
        match verb {
            Verb::Recycle(slot) => broker.ask_recycle(cx, request, slot),
            Verb::Drain => broker.drain(cx, request),
            Verb::Resume => broker.resume(cx, request, false),
            Verb::ResumeNow => broker.resume(cx, request, true),
            Verb::Scale(workers) if workers > MAX_WORKERS => {
                let reason = format!("{workers} workers are too many: at most {MAX_WORKERS}");
                cx.reply(request, Outcome::Refused(reason));
            }
            Verb::Scale(workers) => broker.scale(cx, Some(request), workers),
            Verb::Respecify(spec) => broker.respecify(cx, request, *spec),
        }
    }

    fn wait_for_exit(&mut self, request: RequestId) {
        if self.shared.requests.are_too_many() {
            self.shared.reply(request, too_many());
        } else {
            self.shared.park(request, Waits::Exit);
        }
    }

    fn stop(&mut self, now: bool) {
        let again = std::mem::replace(&mut self.stopping, true);
        if !again {
            self.shared.emit(None, None, What::AppStopping);
        }
        for broker in &mut self.brokers {
            self.shared.changes.broker(broker.id);
            broker.close(&mut self.shared, now);
        }
        if !again {
            let open = &self.shared.requests.open;
            let others: Vec<RequestId> = open.keys().copied().collect();
            for request in others {
                self.shared.reply(request, Outcome::Superseded("the app stops".to_owned()));
            }
        }
    }

    /// After every input: starts the workers that may start, and sees whether this was the last thing.
    pub(crate) fn settle(&mut self) -> Vec<Effect> {
        for broker in &mut self.brokers {
            broker.ask_again(&mut self.shared);
            broker.fill_standbys(&mut self.shared);
        }
        self.spawn_granted();
        let cx = &mut self.shared;
        if !self.ready && !self.stopping && self.brokers.iter().all(Broker::is_settled) {
            self.ready = true;
            cx.emit(None, None, What::AppReady);
        }
        if self.stopping && !self.exited && self.brokers.iter().all(Broker::is_closed) {
            self.exited = true;
            cx.reply_all(Waits::Exit, &Outcome::Done(Done::default()));
            cx.effects.push(Effect::Exit);
        }
        std::mem::take(&mut cx.effects)
    }

    /// Starts the workers that the budget allows, a few in one step so that exits and commands get their turn.
    fn spawn_granted(&mut self) {
        let all = |broker: &Broker| u64::from(broker.wanted) + u64::from(broker.spec.standby);
        let wanted = self.brokers.iter().map(all).sum();
        self.shared.budget.size_for(wanted);
        let mut left = SPAWNS_A_STEP;
        while left > 0 {
            let Some((id, slot)) = self.shared.budget.next(self.shared.now) else { return };
            self.shared.changes.broker(id);
            let broker = self.brokers.get_mut(id.0 as usize);
            let cx = &mut self.shared;
            let started = broker.is_some_and(|broker| match slot {
                Some(slot) => broker.grant(cx, slot),
                None => broker.grant_standby(cx),
            });
            if started {
                left -= 1;
            } else {
                self.shared.budget.refund();
            }
        }
    }
}

fn too_many() -> Outcome {
    Outcome::Refused(format!("{TOO_MANY} ({MOST_OPEN}): try again when some are answered"))
}

/// A spawn blocks for the time of an exec; after this many the caller gets its turn.
const SPAWNS_A_STEP: u32 = 16;
