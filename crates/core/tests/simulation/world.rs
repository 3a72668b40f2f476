//! One seed: the clock and what lies ahead. Lets things happen, hands every step to the oracle, and asks what must be
//! so after faults have stopped and when the app has ended. Processes are in `os`, commands in `operators`.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use shiftboss_core::id::{BrokerId, Generation, LaunchId, RequestId, WorkerId};
use shiftboss_core::snapshot::Records;
use shiftboss_core::spec::{BrokerSpec, Ready};
use shiftboss_core::{Adoption, App, Command, Effect, Exit, Input, Time};
use shiftboss_oracle::{Broken, Oracle, Step};

use crate::heap;
use crate::memory::Memory;
use crate::options::{Faults, Options, millis};
use crate::os::Process;
use crate::rng::Rng;
use crate::shrink::Cut;
use crate::takeover::{self, Twin};

pub(crate) struct World {
    pub(crate) app: App,
    /// What the app's jitter is drawn from.
    pub(crate) app_seed: u64,
    pub(crate) begun: Time,
    pub(crate) now: Time,
    pub(crate) rng: Rng,
    options: Options,
    pub(crate) faults: Faults,
    queue: BTreeMap<(Time, u64), Plan>,
    planned: u64,
    pub(crate) processes: BTreeMap<WorkerId, Process>,
    /// Everybody who has ever run.
    pub(crate) ran: BTreeSet<WorkerId>,
    /// Somebody was started twice.
    pub(crate) doubled: bool,
    /// Time that deaths of the broker process may cost.
    pub(crate) grace: Duration,
    /// Numbers of processes that have ended: to be used again at once.
    pub(crate) free_pids: Vec<u32>,
    pub(crate) last_pid: u32,
    /// Lately dead, to be spoken of again.
    pub(crate) dead: VecDeque<WorkerId>,
    pub(crate) specs: BTreeMap<LaunchId, BrokerSpec>,
    /// What each broker began with.
    pub(crate) brokers: Vec<BrokerSpec>,
    /// Versions whose workers never become ready.
    pub(crate) bad: BTreeSet<LaunchId>,
    pub(crate) sent: VecDeque<Input>,
    pub(crate) requests: u128,
    exited: bool,
    /// Calls because of the clock, one after the other at the same moment.
    ticks: u32,
    pub(crate) steps: u64,
    pub(crate) oracle: Oracle,
    premises: BTreeMap<&'static str, u64>,
    pub(crate) tail: VecDeque<Step>,
    /// Everything that was handed to core, to be replayed.
    pub(crate) inputs: Vec<(Time, Input)>,
    hash: Option<DefaultHasher>,
    /// Each specification, by the generation it came with.
    pub(crate) accepted: BTreeMap<(BrokerId, Generation), BrokerSpec>,
    pub(crate) records: Option<Records<Memory>>,
    pub(crate) twin: Option<Twin>,
}

/// Something that will happen.
pub(crate) enum Plan {
    Now(Input),
    Spawned(WorkerId, bool),
    Ready(WorkerId),
    /// Unasked; does not happen once the world has healed.
    Crash(WorkerId, Exit),
    /// As asked for by a signal.
    Leave(WorkerId, Exit),
}

/// What core was told: an input, the start, or that another process goes on.
pub(crate) struct Told {
    pub(crate) input: Option<Input>,
    pub(crate) adopted: Option<Adoption>,
}

pub(crate) type Failure = Vec<Broken>;
/// What is judged here, beside the oracle.
pub(crate) const NAMES: [&str; 12] =
    ["I30b", "I31", "I37b", "I39", "I40", "I41", "I42b", "I43", "I44", "I47", "I48d", "L5"];

impl World {
    pub(crate) fn new(seed: u64, hashed: bool) -> World {
        World::cut(seed, hashed, &[])
    }

    /// The same seed with less in it.
    pub(crate) fn cut(seed: u64, hashed: bool, cuts: &[Cut]) -> World {
        let mut rng = Rng::new(seed);
        let mut options = Options::draw(&mut rng);
        cuts.iter().for_each(|cut| cut.apply(&mut options));
        let begun = Time(rng.below(1 << 40));
        let app_seed = rng.next();
        let first = |(id, spec): (BrokerId, &BrokerSpec)| ((id, Generation(1)), spec.clone());
        let accepted = (0..).map(BrokerId).zip(&options.specs).map(first).collect();
        let records = takeover::records(options.faults.takeovers);
        World {
            app: App::new(begun, app_seed, options.specs.clone()),
            app_seed,
            begun,
            now: begun,
            faults: options.faults.clone(),
            oracle: Oracle::new(&options.specs),
            specs: options.specs.iter().map(|spec| (spec.launch, spec.clone())).collect(),
            brokers: options.specs.clone(),
            options,
            rng,
            queue: BTreeMap::new(),
            planned: 0,
            processes: BTreeMap::new(),
            ran: BTreeSet::new(),
            doubled: false,
            grace: Duration::ZERO,
            free_pids: Vec::new(),
            last_pid: 100,
            dead: VecDeque::new(),
            bad: BTreeSet::new(),
            sent: VecDeque::new(),
            requests: 0,
            exited: false,
            ticks: 0,
            steps: 0,
            premises: BTreeMap::new(),
            tail: VecDeque::new(),
            inputs: Vec::new(),
            hash: hashed.then(DefaultHasher::new),
            accepted,
            records,
            twin: None,
        }
    }

    pub(crate) fn options(&self) -> &Options {
        &self.options
    }

    pub(crate) fn trace_hash(&self) -> Option<u64> {
        self.hash.as_ref().map(Hasher::finish)
    }

    pub(crate) fn premises(&self) -> impl Iterator<Item = (&'static str, u64)> {
        self.oracle.premises.iter().chain(&self.premises).map(|(name, times)| (*name, *times))
    }

    /// Faults, then perhaps rest, then the end.
    pub(crate) fn run(&mut self) -> Result<(), Failure> {
        let effects = self.app.start(self.now);
        self.record()?;
        let done = effects.len();
        self.took_in_at(self.now, Told { input: None, adopted: None }, effects, done)?;
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
        self.oracle.is_at_rest(self.app.deadline()).map_err(|broken| vec![broken])?;
        self.weigh()
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

    /// The state's memory is bounded by what there is to keep (I28, I47): whatever has happened before.
    fn weigh(&mut self) -> Result<(), Failure> {
        let status = self.app.status();
        let slots: usize = status.brokers.iter().map(|broker| broker.wanted as usize).sum();
        let workers: usize = status.brokers.iter().map(|broker| broker.workers.len()).sum();
        let held = heap::held_by(self.app.clone());
        let most = A_LITTLE + PER_BROKER * status.brokers.len() + PER_WORKER * (workers + slots);
        self.require("I47", held <= most, || {
            format!("{held} bytes for {workers} workers; {most} are allowed")
        })
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
        self.grace = Duration::ZERO;
        while !self.exited && self.advance(Some(until + self.grace))? {
            // Whoever asks now is told that it is too late.
            if self.rng.chance(self.faults.commands) {
                self.requests += 1;
                let input = Input::Command { request: RequestId(self.requests), command: self.command() };
                self.feed(input)?;
            }
        }
        self.oracle.is_over().map_err(|broken| vec![broken])?;
        self.feed(Input::Tick)?;
        let deadline = self.app.deadline();
        self.require("I37b", deadline.is_none(), || format!("a timer for {deadline:?} after the end"))?;
        self.weigh()
    }

    /// Lets the next thing happen; false if nothing will (before `until`).
    fn advance(&mut self, until: Option<Time>) -> Result<bool, Failure> {
        let deadline = self.app.deadline();
        let planned = self.queue.keys().next().copied();
        let next = deadline.into_iter().chain(planned.map(|(at, _)| at)).min();
        let Some(at) = next.filter(|at| until.is_none_or(|until| *at <= until)) else { return Ok(false) };
        self.now = self.now.max(at);
        if self.rng.chance(self.faults.late_ticks) {
            self.now = self.now + millis(&mut self.rng, 1, 5000);
        }
        match planned {
            Some(key)
                if key.0 <= self.now && (deadline.is_none_or(|at| at > self.now) || self.rng.chance(0.5)) =>
            {
                if let Some(plan) = self.queue.remove(&key) {
                    self.happen(plan)?;
                }
            }
            _ => {
                self.ticks += 1;
                self.feed(Input::Tick)?;
                let again = self.ticks;
                let quiet = self.app.deadline().is_none_or(|at| at > self.now);
                self.require("L5", quiet || again < MOST_TICKS, || format!("{again} calls at one moment"))?;
                if quiet {
                    self.ticks = 0;
                }
            }
        }
        Ok(true)
    }

    pub(crate) fn plan(&mut self, wait: Duration, plan: Plan) {
        self.planned += 1;
        self.queue.insert((self.now + wait, self.planned), plan);
    }

    /// Whether something lies ahead.
    pub(crate) fn has_plan(&self, which: impl Fn(&Plan) -> bool) -> bool {
        self.queue.values().any(which)
    }

    /// Takes back some of what lies ahead.
    pub(crate) fn take_plans(&mut self, which: impl Fn(&Plan) -> bool) -> Vec<Plan> {
        let all = std::mem::take(&mut self.queue);
        let (taken, left): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, plan)| which(plan));
        self.queue = left.into_iter().collect();
        taken.into_iter().map(|(_, plan)| plan).collect()
    }

    pub(crate) fn feed(&mut self, input: Input) -> Result<(), Failure> {
        // A clock that goes back is one that stands still.
        let back = self.rng.chance(self.faults.time_goes_back);
        let now = if back { Time(self.now.0.saturating_sub(self.rng.below(1 << 31))) } else { self.now };
        self.inputs.push((now, input.clone()));
        if self.dies() {
            return self.die(now, input);
        }
        let (app, told) = (&mut self.app, input.clone());
        match catch_unwind(AssertUnwindSafe(|| app.handle(now, told))) {
            Ok(effects) => {
                self.compare(now, &input, &effects)?;
                self.record()?;
                let done = effects.len();
                self.took_in_at(now, Told { input: Some(input), adopted: None }, effects, done)
            }
            Err(_) => Err(vec![Broken { invariant: "I27", what: format!("core panicked at {input:?}") }]),
        }
    }

    /// Performs the first effects, all if nobody dies, and lets the oracle judge the step.
    pub(crate) fn took_in_at(
        &mut self,
        now: Time,
        told: Told,
        effects: Vec<Effect>,
        done: usize,
    ) -> Result<(), Failure> {
        self.steps += 1;
        let Told { input, adopted } = told;
        for effect in &effects[..done] {
            match adopted {
                Some(_) => self.perform_again(effect),
                None => self.perform(effect),
            }
        }
        if let Some(input) = &input {
            self.acknowledge(input);
        }
        let step = Step { now, input, adopted, effects, deadline: self.app.deadline() };
        if let Some(hash) = &mut self.hash {
            format!("{step:?}").hash(hash);
        }
        self.exited |= step.effects.contains(&Effect::Exit);
        let judged = self.oracle.judge(&step);
        self.note_specs(&step);
        if self.tail.len() == TAIL {
            self.tail.pop_front();
        }
        self.tail.push_back(step);
        judged?;
        let same = *self.oracle.claimed() == self.app.status();
        self.require("I48d", same, || "the fold of the events is not the status".to_owned())?;
        let consistent = self.app.is_consistent();
        self.require("I37b", consistent, || "counts, owners or timers left their states".to_owned())
    }

    /// Counts a promise that is judged here, or tells how it was broken.
    pub(crate) fn require(
        &mut self,
        invariant: &'static str,
        holds: bool,
        what: impl FnOnce() -> String,
    ) -> Result<(), Failure> {
        *self.premises.entry(invariant).or_insert(0) += 1;
        if holds { Ok(()) } else { Err(vec![Broken { invariant, what: what() }]) }
    }
}

/// Whether a worker of this specification says itself that it is ready.
pub(crate) fn says_ready(spec: &BrokerSpec) -> bool {
    match spec.ready {
        Ready::Notify | Ready::Accepting | Ready::Listening => true,
        Ready::After(_) => false,
    }
}

const SECOND: Duration = Duration::from_secs(1);
/// Steps shown when a seed fails.
const TAIL: usize = 40;
/// Calls that one moment may need: a few workers are started with each.
const MOST_TICKS: u32 = 100;
/// Bytes that the state may hold: the answers to the last commands, and what each broker and worker needs.
const A_LITTLE: usize = 256 << 10;
const PER_BROKER: usize = 8 << 10;
const PER_WORKER: usize = 2 << 10;
