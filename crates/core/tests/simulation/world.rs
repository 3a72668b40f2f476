//! The simulated operating system and clients of one seed: processes of every misbehaviour, slow and failing
//! listeners, commands at random, late clocks. It performs core's effects and hands every step to the oracle.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use shiftboss_core::id::{BrokerId, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::spec::{BrokerSpec, Ready, Signal};
use shiftboss_core::{App, Command, Effect, Exit, Input, ListenFailure, Time, Verb};
use shiftboss_oracle::{Broken, Oracle, Step};

use crate::options::{Faults, Options, millis, redraw};
use crate::rng::Rng;

pub(crate) struct World {
    app: App,
    now: Time,
    rng: Rng,
    options: Options,
    faults: Faults,
    queue: BTreeMap<(Time, u64), Plan>,
    planned: u64,
    processes: BTreeMap<WorkerId, Process>,
    /// Lately dead, to be spoken of again.
    dead: VecDeque<WorkerId>,
    specs: BTreeMap<LaunchId, BrokerSpec>,
    /// Versions whose workers never become ready.
    bad: BTreeSet<LaunchId>,
    sent: VecDeque<Input>,
    requests: u128,
    exited: bool,
    pub(crate) steps: u64,
    pub(crate) oracle: Oracle,
    pub(crate) tail: VecDeque<Step>,
    hash: Option<DefaultHasher>,
}

struct Process {
    launch: LaunchId,
    runs: bool,
    ignores_signals: bool,
    stops_in: Duration,
    leaving: bool,
}

/// Something that will happen.
enum Plan {
    Now(Input),
    Spawned(WorkerId, bool),
    Ready(WorkerId),
    /// Unasked; does not happen once the world has healed.
    Crash(WorkerId, Exit),
    /// As asked for by a signal.
    Leave(WorkerId, Exit),
}

pub(crate) type Failure = Vec<Broken>;

impl World {
    pub(crate) fn new(seed: u64, hashed: bool) -> World {
        let mut rng = Rng::new(seed);
        let options = Options::draw(&mut rng);
        let now = Time(rng.below(1 << 40));
        let specs: BTreeMap<_, _> = options.specs.iter().map(|spec| (spec.launch, spec.clone())).collect();
        World {
            app: App::new(now, rng.next(), options.specs.clone()),
            now,
            faults: options.faults.clone(),
            oracle: Oracle::new(&options.specs),
            options,
            rng,
            queue: BTreeMap::new(),
            planned: 0,
            processes: BTreeMap::new(),
            dead: VecDeque::new(),
            specs,
            bad: BTreeSet::new(),
            sent: VecDeque::new(),
            requests: 0,
            exited: false,
            steps: 0,
            tail: VecDeque::new(),
            hash: hashed.then(DefaultHasher::new),
        }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn trace_hash(&self) -> Option<u64> {
        self.hash.as_ref().map(Hasher::finish)
    }

    /// Faults, then perhaps rest, then the end.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        let effects = self.app.start(self.now);
        self.took_in(None, effects)?;
        for _ in 0..self.options.steps {
            if !self.advance(None)? {
                self.now = self.now + millis(&mut self.rng, 1, 1000);
            }
            self.meddle()?;
        }
        if self.options.heals {
            self.heal()?;
        }
        self.end()
    }

    /// The faults are over: within a bounded time everything is as wanted, and rests.
    fn heal(&mut self) -> Result<(), Failure> {
        self.faults = Faults::default();
        self.bad.clear();
        let until = self.now + self.convergence();
        while self.advance(Some(until))? {}
        self.now = self.now.max(until);
        let (status, deadline) = (self.app.status(), self.app.deadline());
        self.oracle.l1_converged(&status)?;
        self.oracle.l4_rest_is_quiet(&status, deadline)
    }

    fn convergence(&self) -> Duration {
        let one = |spec: &BrokerSpec| {
            let ladder: Duration = spec.stop.0.iter().map(|rung| rung.wait).sum();
            let turn = ladder + spec.recycle.deadline + spec.recycle.min_ready + SECOND;
            // One recycle under way, one that goes back, one that waits; and the slots that were failing before.
            spec.backoff.cap * 2 + spec.backoff.healthy_after + turn * (3 * 8 + 3)
        };
        let slowest = self.specs.values().map(one).max().unwrap_or_default();
        slowest + Duration::from_secs(20)
    }

    /// The app is asked to stop: within a bounded time nothing is left.
    fn end(&mut self) -> Result<(), Failure> {
        self.requests += 1;
        let stop = Input::Command { request: RequestId(self.requests), command: Command::Stop };
        let at_once = self.rng.chance(0.2);
        let ladder = self.specs.values().map(|spec| spec.stop.0.iter().map(|rung| rung.wait).sum()).max();
        // Two seconds for the queues, three for a slow spawn, two for slow listeners.
        let until = self.now + ladder.unwrap_or(Duration::ZERO) + 8 * SECOND;
        self.faults.late_ticks = 0.0;
        self.feed(stop)?;
        if at_once {
            self.feed(Input::Stop { now: true })?;
        }
        while !self.exited && self.advance(Some(until))? {}
        let left: Vec<_> = self.processes.keys().collect();
        self.oracle.l2_shutdown_ends(self.exited && left.is_empty())?;
        self.feed(Input::Tick)?;
        self.oracle.i29_every_command_is_answered()?;
        self.oracle.i37_no_timer_after_the_end(self.app.deadline())
    }

    /// Lets the next thing happen; false if nothing will (before `until`).
    fn advance(&mut self, until: Option<Time>) -> Result<bool, Failure> {
        let deadline = self.app.deadline();
        let planned = self.queue.keys().next().copied();
        let next = deadline.into_iter().chain(planned.map(|(at, _)| at)).min();
        let Some(at) = next.filter(|at| until.is_none_or(|until| *at <= until)) else { return Ok(false) };
        self.now = self.now.max(at);
        if self.rng.chance(self.faults.late_ticks) {
            let late = millis(&mut self.rng, 1, 5000);
            self.now = self.now + late;
        }
        match planned {
            Some(key)
                if key.0 <= self.now && (deadline.is_none_or(|at| at > self.now) || self.rng.chance(0.5)) =>
            {
                if let Some(plan) = self.queue.remove(&key) {
                    self.happen(plan)?;
                }
            }
            _ => self.feed(Input::Tick)?,
        }
        Ok(true)
    }

    fn happen(&mut self, plan: Plan) -> Result<(), Failure> {
        match plan {
            Plan::Now(input) => self.feed(input),
            Plan::Spawned(worker, false) => {
                self.bury(worker);
                self.feed(Input::SpawnFailed { worker, reason: "no such file".to_owned() })
            }
            Plan::Spawned(worker, true) => {
                self.behave(worker);
                self.feed(Input::Spawned { worker, pid: Pid(worker.0 as u32 + 1000) })
            }
            Plan::Ready(worker) if self.processes.contains_key(&worker) => self.feed(Input::Ready { worker }),
            Plan::Crash(worker, exit) if self.faults.alive() && self.processes.contains_key(&worker) => {
                self.bury(worker);
                self.feed(Input::Exited { worker, exit })
            }
            Plan::Leave(worker, exit) if self.processes.contains_key(&worker) => {
                self.bury(worker);
                self.feed(Input::Exited { worker, exit })
            }
            Plan::Ready(_) | Plan::Crash(..) | Plan::Leave(..) => Ok(()),
        }
    }

    fn bury(&mut self, worker: WorkerId) {
        self.processes.remove(&worker);
        self.dead.push_back(worker);
        if self.dead.len() > 16 {
            self.dead.pop_front();
        }
    }

    /// Decides how a new process will behave.
    fn behave(&mut self, worker: WorkerId) {
        let ignores_signals = self.rng.chance(self.faults.ignores_signals);
        let slow = self.rng.chance(self.faults.stops_slowly);
        let stops_in = if slow { millis(&mut self.rng, 100, 5000) } else { millis(&mut self.rng, 0, 20) };
        let Some(process) = self.processes.get_mut(&worker) else { return };
        process.runs = true;
        process.ignores_signals = ignores_signals;
        process.stops_in = stops_in;
        let launch = process.launch;
        let never = self.bad.contains(&launch) || self.rng.chance(self.faults.never_ready);
        if self.rng.chance(self.faults.dies_at_start) {
            let wait = millis(&mut self.rng, 0, 50);
            self.plan(wait, Plan::Crash(worker, Exit::Code(1)));
        } else if self.rng.chance(self.faults.exits_zero) {
            let wait = millis(&mut self.rng, 0, 5000);
            self.plan(wait, Plan::Crash(worker, Exit::Code(0)));
        } else if self.rng.chance(self.faults.crashes) {
            let wait = millis(&mut self.rng, 0, 5000);
            self.plan(wait, Plan::Crash(worker, Exit::Signal(Signal(11))));
        }
        if !never {
            let wait = millis(&mut self.rng, 1, 300);
            self.plan(wait, Plan::Ready(worker));
        } else if self.rng.chance(0.5) {
            let wait = millis(&mut self.rng, 1, 300);
            self.plan(wait, Plan::Now(Input::Unseen { worker }));
        }
    }

    fn plan(&mut self, wait: Duration, plan: Plan) {
        self.planned += 1;
        self.queue.insert((self.now + wait, self.planned), plan);
    }

    /// Operators, and a shell that speaks late or twice.
    fn meddle(&mut self) -> Result<(), Failure> {
        if self.rng.chance(self.faults.commands) {
            let command = self.command();
            self.requests += 1;
            let input = Input::Command { request: RequestId(self.requests), command };
            self.sent.push_back(input.clone());
            if self.sent.len() > 8 {
                self.sent.pop_front();
            }
            self.feed(input)?;
        }
        if self.rng.chance(self.faults.repeats * 0.1) && !self.sent.is_empty() {
            let nth = self.rng.below(self.sent.len() as u64) as usize;
            self.feed(self.sent[nth].clone())?;
        }
        if self.rng.chance(self.faults.stale_inputs * 0.2) {
            let stale = self.stale();
            self.feed(stale)?;
        }
        Ok(())
    }

    fn command(&mut self) -> Command {
        let broker = self.rng.below(self.options.specs.len() as u64);
        let spec = self.options.specs[broker as usize].clone();
        let verb = match self.rng.below(10) {
            0..=2 => Verb::Recycle(None),
            3 => Verb::Recycle(Some(Slot(self.rng.below(5) as u32))),
            4 => Verb::Drain,
            5 | 6 => Verb::Resume,
            7 => Verb::Scale(self.rng.below(9) as u32),
            _ => {
                let launch = LaunchId(self.specs.len() as u32);
                let spec = redraw(&mut self.rng, &spec, launch);
                self.specs.insert(launch, spec.clone());
                if self.rng.chance(self.faults.bad_versions) {
                    self.bad.insert(launch);
                }
                Verb::Respecify(Box::new(spec))
            }
        };
        Command::Broker(BrokerId(broker as u32), verb)
    }

    fn stale(&mut self) -> Input {
        let nth = self.rng.below(self.dead.len().max(1) as u64) as usize;
        let worker = self.dead.get(nth).copied().unwrap_or(WorkerId(u64::MAX));
        let broker = BrokerId(self.rng.below(4) as u32);
        match self.rng.below(8) {
            0 => Input::Exited { worker, exit: Exit::Code(0) },
            1 => Input::Ready { worker },
            2 => Input::Spawned { worker, pid: Pid(1) },
            3 => Input::SpawnFailed { worker, reason: "late".to_owned() },
            6 => Input::Unseen { worker },
            4 => Input::Quiet { broker, round: 0 },
            5 => Input::Shut { broker, round: 0, refused: 7 },
            _ => Input::Opened { broker, round: 0, result: Ok(Vec::new()) },
        }
    }

    fn feed(&mut self, input: Input) -> Result<(), Failure> {
        let effects = self.app.handle(self.now, input.clone());
        self.took_in(Some(input), effects)
    }

    /// Performs the effects and lets the oracle judge the step.
    fn took_in(&mut self, input: Option<Input>, effects: Vec<Effect>) -> Result<(), Failure> {
        self.steps += 1;
        for effect in &effects {
            self.perform(effect);
        }
        let step = Step { now: self.now, input, effects, deadline: self.app.deadline() };
        if let Some(hash) = &mut self.hash {
            format!("{step:?}").hash(hash);
        }
        self.tail.push_back(step.clone());
        if self.tail.len() > TAIL {
            self.tail.pop_front();
        }
        self.oracle.judge(&step)?;
        require("I48", *self.oracle.claimed() == self.app.status(), || "the fold of the events is not the status")?;
        require("I37", self.app.is_consistent(), || "counts, owners or timers left their states")
    }

    fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn { worker, launch, .. } => {
                let process = Process {
                    launch: *launch,
                    runs: false,
                    ignores_signals: false,
                    stops_in: Duration::ZERO,
                    leaving: false,
                };
                self.processes.insert(*worker, process);
                let slow = self.rng.chance(self.faults.spawn_slow);
                let wait = if slow { millis(&mut self.rng, 1, 3000) } else { Duration::ZERO };
                let works = !self.rng.chance(self.faults.spawn_fails);
                self.plan(wait, Plan::Spawned(*worker, works));
            }
            Effect::Signal { worker, signal } => self.signal(*worker, *signal),
            Effect::KillTree { worker } => {
                let wait = millis(&mut self.rng, 0, 5);
                self.plan(wait, Plan::Leave(*worker, Exit::Signal(Signal::KILL)));
            }
            Effect::OpenListeners { broker, round } => {
                let (broker, round) = (*broker, *round);
                let result = if self.rng.chance(self.faults.listen_fails) {
                    Err(ListenFailure { address: "tcp://:80".to_owned(), reason: "in use".to_owned() })
                } else {
                    Ok(vec!["tcp://:80".to_owned()])
                };
                self.answer_listeners(Input::Opened { broker, round, result });
            }
            Effect::QuietListeners { broker, round } => {
                let wait = millis(&mut self.rng, 0, 2000);
                self.plan(wait, Plan::Now(Input::Quiet { broker: *broker, round: *round }));
            }
            Effect::ShutListeners { broker, round } => {
                self.answer_listeners(Input::Shut { broker: *broker, round: *round, refused: 0 });
            }
            Effect::Exit => self.exited = true,
            Effect::Emit(_) | Effect::Reply { .. } => {}
        }
    }

    fn answer_listeners(&mut self, answer: Input) {
        let slow = self.rng.chance(self.faults.listen_slow);
        let wait = if slow { millis(&mut self.rng, 1, 2000) } else { Duration::ZERO };
        self.plan(wait, Plan::Now(answer));
    }

    fn signal(&mut self, worker: WorkerId, signal: Signal) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if process.runs && !process.ignores_signals && !process.leaving {
            process.leaving = true;
            let wait = process.stops_in;
            let exit = if self.rng.chance(0.5) { Exit::Code(0) } else { Exit::Signal(signal) };
            self.plan(wait, Plan::Leave(worker, exit));
        }
    }
}

impl Faults {
    /// Whether there is still a fault phase: then processes may crash.
    fn alive(&self) -> bool {
        self.dies_at_start + self.exits_zero + self.crashes > 0.0
    }
}

/// Whether a worker of this specification says itself that it is ready.
pub(crate) fn says_ready(spec: &BrokerSpec) -> bool {
    match spec.ready {
        Ready::Notify | Ready::Accepting => true,
        Ready::After(_) => false,
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// Steps shown when a seed fails.
const TAIL: usize = 40;
