//! Traces: what happens to a drawn app, step by step, and what it did then without ever being cut.

use std::collections::BTreeMap;
use std::time::Duration;

use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, Drained, Ready, RecycleSpec, Rung, Signal, StopLadder};
use shiftboss_core::{App, Command, Effect, Exit, Input, ListenFailure, Status, Time, Verb, snapshot};

use crate::rng::Rng;

/// A drawn life of an app.
pub(crate) struct Trace {
    pub(crate) seed: u64,
    pub(crate) specs: Vec<BrokerSpec>,
    pub(crate) steps: Vec<Step>,
    /// Every specification that was ever accepted.
    pub(crate) accepted: BTreeMap<(BrokerId, Generation), BrokerSpec>,
}

/// One step, and what follows from it.
pub(crate) struct Step {
    /// None: the app starts.
    pub(crate) input: Option<(Time, Input)>,
    pub(crate) effects: Vec<Effect>,
    pub(crate) after: Vec<u8>,
    pub(crate) status: Status,
    pub(crate) deadline: Option<Time>,
}

impl Trace {
    pub(crate) fn draw(seed: u64, length: usize) -> Trace {
        let mut drawn = Drawing::new(seed);
        let mut app = drawn.trace.app();
        let length = length + drawn.starving;
        for at in 0..length {
            let begun = at.checked_sub(1);
            let input = begun.map(|at| drawn.next(&app, at < drawn.starving, at * 8 > length * 7));
            let effects = perform(&mut app, input.as_ref());
            for effect in &effects {
                drawn.took(effect);
            }
            let (after, status) = (snapshot::written(&app), app.status());
            drawn.trace.steps.push(Step { input, effects, after, status, deadline: app.deadline() });
        }
        drawn.trace
    }

    /// The app as it was before the first step.
    pub(crate) fn app(&self) -> App {
        App::new(START, self.seed, self.specs.clone())
    }
}

impl Step {
    /// The app as an image tells it, given what the shell knows after this step.
    pub(crate) fn restore(&self, trace: &Trace, image: &[u8]) -> Result<App, snapshot::Refused> {
        let listens = |broker: BrokerId| self.status.brokers[broker.0 as usize].listen.clone();
        snapshot::restore(image, |broker, since| trace.accepted.get(&(broker, since)).cloned(), listens)
    }
}

pub(crate) fn perform(app: &mut App, input: Option<&(Time, Input)>) -> Vec<Effect> {
    match input {
        None => app.start(START),
        Some((now, input)) => app.handle(*now, input.clone()),
    }
}

/// Everything the world owes the app.
struct Drawing {
    rng: Rng,
    trace: Trace,
    now: Time,
    spawning: Vec<WorkerId>,
    alive: Vec<WorkerId>,
    asked_to_leave: Vec<WorkerId>,
    listeners: Vec<Input>,
    requests: u128,
    /// For so many steps all spawns fail at once, which empties the spawn budget.
    starving: usize,
}

impl Drawing {
    fn new(seed: u64) -> Drawing {
        let mut rng = Rng(seed);
        let mut specs: Vec<BrokerSpec> = (0..1 + rng.below(3)).map(|_| spec(&mut rng)).collect();
        let starving = if rng.one_in(12) { 110 } else { 0 };
        if starving > 0 {
            specs.truncate(2);
            specs[0].backoff.base = Duration::ZERO;
            specs[0].listens = false;
            specs[0].workers = 4;
        }
        let first = |(id, spec): (u32, &BrokerSpec)| ((BrokerId(id), Generation(1)), spec.clone());
        let accepted = (0..).zip(&specs).map(first).collect();
        let trace = Trace { seed, specs, steps: Vec::new(), accepted };
        let (spawning, alive, asked_to_leave) = (Vec::new(), Vec::new(), Vec::new());
        let listeners = Vec::new();
        Drawing { rng, trace, now: START, spawning, alive, asked_to_leave, listeners, requests: 0, starving }
    }

    fn took(&mut self, effect: &Effect) {
        match effect {
            Effect::OpenListeners { broker, round } => {
                let failure = ListenFailure { address: "tcp://:1".to_owned(), reason: "in use".to_owned() };
                let addresses = vec!["tcp://:1".to_owned(), "tcp://:2".to_owned()];
                let result = if self.rng.one_in(4) { Err(failure) } else { Ok(addresses) };
                self.listeners.push(Input::Opened { broker: *broker, round: *round, result });
            }
            Effect::QuietListeners { broker, round } => {
                self.listeners.push(Input::Quiet { broker: *broker, round: *round });
            }
            Effect::ShutListeners { broker, round } => {
                let refused = self.rng.next() % 3;
                self.listeners.push(Input::Shut { broker: *broker, round: *round, refused });
            }
            Effect::Spawn { worker, .. } => self.spawning.push(*worker),
            Effect::Notice { worker, .. } | Effect::Signal { worker, .. } | Effect::KillTree { worker } => {
                self.asked_to_leave.push(*worker);
            }
            Effect::WatchClock { broker } => {
                let open = self.rng.one_in(2);
                self.listeners.push(Input::Window { broker: *broker, open });
            }
            Effect::Promote { .. } | Effect::Emit(_) | Effect::Reply { .. } | Effect::Exit => {}
        }
    }

    fn next(&mut self, app: &App, starve: bool, late: bool) -> (Time, Input) {
        if let Some(worker) = self.spawning.pop_if(|_| starve) {
            return (self.now, Input::SpawnFailed { worker, reason: "no such file".to_owned() });
        }
        if self.rng.one_in(3) {
            self.now = self.now + Duration::from_millis(self.rng.next() % 700);
        }
        let input = self.input(app, late);
        (self.now, input)
    }

    fn input(&mut self, app: &App, late: bool) -> Input {
        match self.rng.below(25) {
            22 | 23 => Input::Window { broker: self.broker(), open: self.rng.one_in(2) },
            24 => Input::Changed { broker: self.broker() },
            0..4 if !self.spawning.is_empty() => self.spawn_answered(),
            4..7 if !self.listeners.is_empty() => {
                let which = self.rng.below(self.listeners.len());
                self.listeners.swap_remove(which)
            }
            7..10 if !self.alive.is_empty() => {
                let worker = self.rng.pick(&self.alive.clone());
                if self.rng.one_in(3) { Input::Standby { worker } } else { Input::Ready { worker } }
            }
            10..13 | 20 | 21 if !self.asked_to_leave.is_empty() => {
                let worker = self.rng.pick(&self.asked_to_leave.clone());
                self.exited(worker)
            }
            13 if !self.alive.is_empty() => {
                let worker = self.rng.pick(&self.alive.clone());
                if self.rng.one_in(6) { Input::Unseen { worker } } else { self.exited(worker) }
            }
            14..17 => {
                self.now = app.deadline().map_or(self.now, |at| self.now.max(at));
                Input::Tick
            }
            17 if late && self.rng.one_in(5) => Input::Stop { now: self.rng.one_in(3) },
            17..20 => self.command(app, late),
            _ if !self.spawning.is_empty() => self.spawn_answered(),
            _ => Input::Tick,
        }
    }

    fn broker(&mut self) -> BrokerId {
        BrokerId(u32::try_from(self.rng.below(self.trace.specs.len())).unwrap_or(0))
    }

    fn spawn_answered(&mut self) -> Input {
        let which = self.rng.below(self.spawning.len());
        let worker = self.spawning.swap_remove(which);
        if self.rng.one_in(6) {
            let reason = "cannot execute ".to_owned() + &"é".repeat(self.rng.below(400));
            return Input::SpawnFailed { worker, reason };
        }
        self.alive.push(worker);
        Input::Spawned { worker, pid: Pid(u32::try_from(worker.0).unwrap_or(0) + 1000) }
    }

    fn exited(&mut self, worker: WorkerId) -> Input {
        self.alive.retain(|other| *other != worker);
        self.asked_to_leave.retain(|other| *other != worker);
        let exit = self.rng.pick(&[Exit::Code(0), Exit::Code(1), Exit::Signal(Signal::KILL)]);
        Input::Exited { worker, exit }
    }

    fn command(&mut self, app: &App, late: bool) -> Input {
        if self.requests > 0 && self.rng.one_in(10) {
            let request = RequestId(1 + u128::from(self.rng.next()) % self.requests);
            return Input::Command { request, command: Command::Broker(BrokerId(0), Verb::Drain) };
        }
        self.requests += 1;
        let request = RequestId(self.requests);
        if late && self.rng.one_in(8) {
            return Input::Command { request, command: Command::Stop };
        }
        let broker = self.broker();
        let status = &app.status().brokers[broker.0 as usize];
        let verb = match self.rng.below(10) {
            0..3 => Verb::Recycle(None),
            3..5 => Verb::Recycle(Some(Slot(u32::try_from(self.rng.below(5)).unwrap_or(0)))),
            5 => Verb::Drain,
            6 if self.rng.one_in(3) => Verb::ResumeNow,
            6 => Verb::Resume,
            7 => Verb::Scale(u32::try_from(self.rng.below(6)).unwrap_or(0)),
            _ => {
                let before = &self.trace.specs[broker.0 as usize];
                let BrokerSpec { name, listens, scheduled, .. } = before.clone();
                let spec = BrokerSpec { name, listens, scheduled, ..spec(&mut self.rng) };
                if !status.recycling {
                    let since = Generation(status.target.0 + 1);
                    self.trace.accepted.insert((broker, since), spec.clone());
                }
                Verb::Respecify(Box::new(spec))
            }
        };
        Input::Command { request, command: Command::Broker(broker, verb) }
    }
}

fn spec(rng: &mut Rng) -> BrokerSpec {
    let (surge, unavailable) = rng.pick(&[(1, 0), (0, 1), (2, 1), (1, 2), (0, 2)]);
    let rung = Rung::signal(Signal::TERM, rng.pick(&WAITS));
    BrokerSpec {
        name: "api".to_owned(),
        workers: u32::try_from(rng.below(5)).unwrap_or(0),
        launch: LaunchId(u32::try_from(rng.below(9)).unwrap_or(0)),
        listens: rng.one_in(2),
        ready: rng.pick(&[Ready::Notify, Ready::Accepting, Ready::After(Duration::from_millis(300))]),
        recycle: RecycleSpec {
            every: rng.pick(&[None, None, Some(Duration::from_secs(5))]),
            jitter: 0.1,
            surge,
            unavailable,
            min_ready: rng.pick(&[Duration::ZERO, Duration::from_millis(400)]),
            deadline: Duration::from_secs(2),
        },
        stop: StopLadder(vec![rung; rng.below(3)]),
        backoff: BackoffSpec {
            base: rng.pick(&WAITS),
            cap: Duration::from_secs(1),
            healthy_after: rng.pick(&WAITS),
        },
        drained: rng.pick(&[Drained::Refuse, Drained::Hold]),
        scheduled: rng.one_in(3),
        watch: rng.pick(&[None, Some(Duration::from_millis(300))]),
        standby: u32::try_from(rng.below(3)).unwrap_or(0),
    }
}

const WAITS: [Duration; 3] = [Duration::ZERO, Duration::from_millis(200), Duration::from_secs(1)];
const START: Time = Time(1_000_000_000);
