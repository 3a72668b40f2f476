//! One state: the app, what its surroundings owe it, what may still go wrong, and the oracle that has followed it here.
//! What can happen in it is in `choices`.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::Hash;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, Slot, WorkerId};
use shiftboss_core::snapshot::written;
use shiftboss_core::spec::{BrokerSpec, Ready, Signal};
use shiftboss_core::{Adoption, App, Command, Effect, Exit, Input, ListenFailure, Time, Verb, What};
use shiftboss_oracle::{Broken, Oracle, Step};

use crate::asks::{BAD, spec};
use crate::configs::{Budget, Config};
use crate::happening::{Answer, Due, Happening};
use crate::seen::{Key, Print};
use crate::stats::Stats;
use crate::takeover::restored;

#[derive(Clone)]
pub(crate) struct World<'a> {
    pub(crate) config: &'a Config,
    pub(crate) app: App,
    /// What another process would make of the app's records.
    twin: Option<Box<App>>,
    pub(crate) oracle: Oracle,
    pub(crate) processes: BTreeMap<WorkerId, Process>,
    pub(crate) owed: BTreeSet<Answer>,
    pub(crate) left: Budget,
    /// Commands with a number so far.
    pub(crate) asked: Arc<Vec<Input>>,
    /// Each specification, by the generation it came with.
    accepted: Arc<BTreeMap<Generation, BrokerSpec>>,
    pub(crate) ended: bool,
}

#[derive(Clone, Copy)]
pub(crate) struct Process {
    /// None of a standby.
    pub(crate) slot: Option<Slot>,
    pub(crate) at_door: bool,
    pub(crate) launch: LaunchId,
    pub(crate) runs: bool,
    pub(crate) ready: bool,
    pub(crate) asked: bool,
    pub(crate) killed: bool,
    /// It has kept somebody waiting in vain, as few may.
    pub(crate) odd: bool,
}

pub(crate) type Failure = Vec<Broken>;

impl<'a> World<'a> {
    /// The app as it is once it has been started.
    pub(crate) fn begin(config: &'a Config, stats: &mut Stats) -> Result<Self, Failure> {
        let first = spec(config);
        let mut world = World {
            config,
            app: App::new(NOW, 1, vec![first.clone()]),
            twin: None,
            oracle: Oracle::new(std::slice::from_ref(&first)),
            processes: BTreeMap::new(),
            owed: BTreeSet::new(),
            left: config.budget,
            asked: Arc::new(Vec::new()),
            accepted: Arc::new(BTreeMap::from([(Generation(1), first)])),
            ended: false,
        };
        let effects = world.app.start(NOW);
        world.took_in(None, effects, stats)?;
        Ok(world)
    }

    /// What makes it another state than others.
    pub(crate) fn key(&self) -> Key {
        let mut print = Print::default();
        self.app.identity().hash(&mut print);
        self.oracle.identify(&mut print);
        for process in self.processes.values() {
            let Process { slot: _, at_door: _, launch: _, runs, ready, asked, killed, odd } = *process;
            // Whoever is killed only leaves; whoever is asked to leave no longer becomes ready.
            (runs, killed, asked && !killed, ready && !asked, odd && !killed).hash(&mut print);
        }
        let round = self.app.round(BROKER);
        for answer in &self.owed {
            match answer {
                Answer::Opened(of) => (0, round - of).hash(&mut print),
                Answer::NotOpened(of) => (1, round - of).hash(&mut print),
                Answer::Quiet(of) => (2, round - of).hash(&mut print),
                Answer::Shut(of) => (3, round - of).hash(&mut print),
            }
        }
        self.left.hash(&mut print);
        print.key()
    }

    pub(crate) fn is_ready_by_time(&self) -> bool {
        matches!(self.config.ready, Ready::After(_))
    }

    /// Lets it happen, and judges.
    pub(crate) fn happens(&mut self, happening: Happening, stats: &mut Stats) -> Result<(), Failure> {
        let (shapes, lives) = (self.app.shapes(), self.app.lives());
        stats.meets(&shapes, happening.kind());
        let input = self.input(happening);
        let before = self.twin.take().map(|twin| std::mem::replace(&mut self.app, *twin));
        let effects = feed(&mut self.app, happening, input.clone())?;
        if let Some(mut before) = before {
            let would = feed(&mut before, happening, input.clone())?;
            let same = would == effects && written(&before) == written(&self.app);
            require("I41", same, || format!("after a takeover {effects:?}\ninstead of {would:?}"))?;
        }
        self.took_in(Some(input), effects, stats)?;
        stats.moved(&lives, &self.app.lives());
        Ok(())
    }

    /// The input of what happens, after its consequences for the surroundings.
    fn input(&mut self, happening: Happening) -> Input {
        match happening {
            Happening::Spawned(worker) => {
                self.change(worker, |process| process.runs = true);
                Input::Spawned { worker, pid: Pid(u32::try_from(worker.0).unwrap_or(0)) }
            }
            Happening::SpawnFailed(worker) => {
                self.left.spawn_errors -= 1;
                self.processes.remove(&worker);
                Input::SpawnFailed { worker, reason: "no such file".to_owned() }
            }
            Happening::Ready(worker) => {
                self.change(worker, |process| process.ready = true);
                Input::Ready { worker }
            }
            Happening::Standby(worker) => {
                self.change(worker, |process| process.at_door = true);
                Input::Standby { worker }
            }
            Happening::Unseen(worker) => {
                if self.processes.get(&worker).is_some_and(|process| process.launch != BAD) {
                    self.is_odd(worker);
                }
                Input::Unseen { worker }
            }
            Happening::Dies(worker, exit) => {
                self.left.deaths -= 1;
                self.processes.remove(&worker);
                Input::Exited { worker, exit }
            }
            Happening::Leaves(worker) => {
                let killed = self.processes.remove(&worker).is_some_and(|process| process.killed);
                let signal = if killed { Signal::KILL } else { Signal::TERM };
                Input::Exited { worker, exit: Exit::Signal(signal) }
            }
            Happening::Answer(answer) => self.answered(answer),
            Happening::Due(_, due) => {
                self.comes(due);
                Input::Tick
            }
            Happening::Ask(ask) => {
                self.left.commands -= 1;
                let input = ask.input(self.config, self.asked.len());
                if matches!(input, Input::Command { .. }) {
                    Arc::make_mut(&mut self.asked).push(input.clone());
                }
                input
            }
        }
    }

    fn answered(&mut self, answer: Answer) -> Input {
        let broker = BROKER;
        match answer {
            Answer::Opened(round) => {
                self.owed.remove(&answer);
                Input::Opened { broker, round, result: Ok(vec![ADDRESS.to_owned()]) }
            }
            Answer::NotOpened(round) => {
                self.left.listen_errors -= 1;
                self.owed.remove(&Answer::Opened(round));
                let failure = ListenFailure { address: ADDRESS.to_owned(), reason: "in use".to_owned() };
                Input::Opened { broker, round, result: Err(failure) }
            }
            Answer::Quiet(round) => {
                self.owed.remove(&answer);
                Input::Quiet { broker, round }
            }
            Answer::Shut(round) => {
                self.owed.remove(&answer);
                Input::Shut { broker, round, refused: 1 }
            }
        }
    }

    /// The clock stands still; the oracle is told that this one wait is over.
    fn comes(&mut self, due: Due) {
        match due {
            Due::Worker(id) => {
                let by_time = self.is_ready_by_time();
                let process = self.processes.get(&id).copied();
                if process.is_some_and(|process| {
                    let good = !(process.ready || by_time || process.launch == BAD);
                    process.asked || (good || process.slot.is_none()) && !process.at_door
                }) {
                    self.is_odd(id);
                }
                if by_time {
                    self.change(id, |process| process.ready = process.slot.is_some());
                }
                self.oracle.worker_has_waited(id);
            }
            Due::BackOff(broker, slot) => self.oracle.slot_has_waited(broker, slot),
            Due::Trial(broker, slot) => self.oracle.successor_has_waited(broker, slot),
            Due::Standby(broker) => self.oracle.standby_has_waited(broker),
            Due::Broker(_) => {}
        }
    }

    /// It keeps somebody waiting in vain: only few may.
    fn is_odd(&mut self, worker: WorkerId) {
        if let Some(process) = self.processes.get_mut(&worker)
            && !std::mem::replace(&mut process.odd, true)
        {
            self.left.odd -= 1;
        }
    }

    fn change(&mut self, worker: WorkerId, change: impl FnOnce(&mut Process)) {
        if let Some(process) = self.processes.get_mut(&worker) {
            change(process);
        }
    }

    fn took_in(
        &mut self,
        input: Option<Input>,
        effects: Vec<Effect>,
        stats: &mut Stats,
    ) -> Result<(), Failure> {
        for effect in &effects {
            self.perform(effect);
        }
        self.note_specs(input.as_ref(), &effects);
        let step = Step { now: NOW, input, adopted: None, effects, deadline: self.deadline() };
        let broken = stats.judge(&mut self.oracle, &step).err().unwrap_or_default();
        let broken: Failure =
            broken.into_iter().filter(|broken| !self.is_about_time(broken.invariant)).collect();
        if !broken.is_empty() {
            return Err(broken);
        }
        let same = *self.oracle.claimed() == self.app.status();
        require("I48d", same, || "the fold of the events is not the status".to_owned())?;
        let consistent = self.app.is_consistent();
        require("I37b", consistent, || "counts, owners or timers left their states".to_owned())?;
        let starved = self.app.deadline().is_some() && self.app.armed() == 0;
        require("budget", !starved, || "the spawn budget holds somebody up".to_owned())?;
        if self.config.cuts {
            let twin = restored(&self.app, &self.accepted);
            let twin = twin.map_err(|what| vec![Broken { invariant: "I40", what }])?;
            self.adopted(&twin, stats)?;
            self.twin = Some(Box::new(twin));
        }
        stats.state(&self.app.shapes());
        Ok(())
    }

    /// What a successor does first, with all or only a part of the state; nobody goes on from there.
    fn adopted(&self, twin: &App, stats: &mut Stats) -> Result<(), Failure> {
        for how in [Adoption::Whole, Adoption::Salvage] {
            let (mut app, mut oracle) = (twin.clone(), self.oracle.clone());
            let effects = app.adopt(NOW, how);
            let deadline = app.deadline().map(|at| at.min(NOW));
            let step = Step { now: NOW, input: None, adopted: Some(how), effects, deadline };
            stats.judge(&mut oracle, &step)?;
            let same = *oracle.claimed() == app.status() && app.is_consistent();
            require("I42", same, || format!("not as it is told, or not consistent, after {how:?}"))?;
        }
        Ok(())
    }

    /// For an onlooker a deadline lies ahead as long as the clock stands still, and yet it may come.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.app.deadline().map(|at| at.min(NOW))
    }

    /// With a clock that stands still, whoever becomes ready by time never has waited long enough.
    fn is_about_time(&self, invariant: &str) -> bool {
        self.is_ready_by_time() && invariant == "I16"
    }

    fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn { worker, slot, launch, .. } => {
                let process = Process {
                    slot: *slot,
                    at_door: false,
                    launch: *launch,
                    runs: false,
                    ready: false,
                    asked: false,
                    killed: false,
                    odd: false,
                };
                self.processes.insert(*worker, process);
            }
            Effect::Notice { worker, .. } | Effect::Signal { worker, .. } => {
                self.change(*worker, |process| process.asked = true);
            }
            Effect::Promote { worker, slot } => {
                let slot = *slot;
                self.change(*worker, |process| (process.slot, process.at_door) = (Some(slot), false));
            }
            Effect::KillTree { worker } => self.change(*worker, |process| process.killed = true),
            Effect::OpenListeners { round, .. } => drop(self.owed.insert(Answer::Opened(*round))),
            Effect::QuietListeners { round, .. } => drop(self.owed.insert(Answer::Quiet(*round))),
            Effect::ShutListeners { round, .. } => drop(self.owed.insert(Answer::Shut(*round))),
            Effect::Exit => self.ended = true,
            Effect::WatchClock { .. } | Effect::Emit(_) | Effect::Reply { .. } => {}
        }
    }

    fn note_specs(&mut self, input: Option<&Input>, effects: &[Effect]) {
        let Some(Input::Command { command: Command::Broker(_, Verb::Respecify(spec)), .. }) = input else {
            return;
        };
        for effect in effects {
            if let Effect::Emit(event) = effect
                && let What::RecycleStarted { target, reason: RecycleReason::NewSpecification, .. } =
                    event.what
            {
                Arc::make_mut(&mut self.accepted).insert(target, (**spec).clone());
            }
        }
    }

    /// Nothing is left that must happen: everything is as wanted (L1), or ended (L2), and answered (L3).
    pub(crate) fn rests(&mut self, stats: &mut Stats) -> Result<(), Failure> {
        std::mem::swap(&mut self.oracle.premises, &mut stats.premises);
        let stops = self.app.status().stopping;
        let rest = if stops { self.oracle.is_over() } else { self.oracle.is_at_rest(self.app.deadline()) };
        std::mem::swap(&mut self.oracle.premises, &mut stats.premises);
        rest.map_err(|broken| vec![broken])
    }
}

fn feed(app: &mut App, happening: Happening, input: Input) -> Result<Vec<Effect>, Failure> {
    let run = || match happening {
        Happening::Due(nth, _) => app.fire(nth).unwrap_or_default(),
        _ => app.handle(NOW, input),
    };
    catch_unwind(AssertUnwindSafe(run))
        .map_err(|_| vec![Broken { invariant: "I27", what: format!("core panicked: {happening}") }])
}

fn require(invariant: &'static str, holds: bool, what: impl FnOnce() -> String) -> Result<(), Failure> {
    if holds { Ok(()) } else { Err(vec![Broken { invariant, what: what() }]) }
}

pub(crate) const NOW: Time = Time(1_000_000_000);
pub(crate) const BROKER: BrokerId = BrokerId(0);
const ADDRESS: &str = "tcp://:80";
