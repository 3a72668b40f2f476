//! The simulated operating system: processes of every misbehaviour, slow and failing spawns and listeners, process
//! numbers that are used again at once.

use std::time::Duration;

use shiftboss_core::id::{BrokerId, LaunchId, Pid, WorkerId};
use shiftboss_core::spec::Signal;
use shiftboss_core::{Effect, Exit, Input, ListenFailure};

use crate::options::{Faults, millis};
use crate::world::{Failure, Plan, World, says_ready};

pub(crate) struct Process {
    launch: LaunchId,
    /// It has no slot yet.
    standby: bool,
    pid: Option<u32>,
    ignores_signals: bool,
    stops_in: Duration,
    leaving: bool,
    /// Core has heard that it runs.
    told: bool,
    /// Nobody is spoken of before: what has happened to it meanwhile.
    untold: Vec<Plan>,
    /// Up to which rung of its ladder it was asked, from 1.
    rungs: u32,
}

impl World {
    pub(crate) fn happen(&mut self, plan: Plan) -> Result<(), Failure> {
        if let Some(process) = plan.is_of().and_then(|worker| self.processes.get_mut(&worker))
            && !process.told
        {
            process.untold.push(plan);
            return Ok(());
        }
        match plan {
            Plan::Now(
                Input::HungUp { .. } | Input::Garbled { .. } | Input::Hung { .. } | Input::Refused { .. },
            ) if !self.faults.kill() => Ok(()),
            Plan::Now(input) => self.feed(input),
            Plan::Spawned(worker, false) => {
                self.feed(Input::SpawnFailed { worker, reason: "no such file".to_owned() })
            }
            Plan::Spawned(worker, true) => {
                let pid = self.runs(worker);
                self.feed(Input::Spawned { worker, pid: Pid(pid) })
            }
            Plan::Ready(worker) => {
                let Some(process) = self.processes.get(&worker) else { return Ok(()) };
                if process.standby {
                    self.feed(Input::Standby { worker })?;
                } else if says_ready(&self.specs[&process.launch]) {
                    self.feed(Input::Ready { worker })?;
                }
                Ok(())
            }
            Plan::Crash(worker, exit) if self.faults.kill() && self.processes.contains_key(&worker) => {
                self.feed(Input::Exited { worker, exit })
            }
            Plan::Leave(worker, exit) if self.processes.contains_key(&worker) => {
                self.feed(Input::Exited { worker, exit })
            }
            Plan::Crash(..) | Plan::Leave(..) => Ok(()),
        }
    }

    /// A process begins.
    fn runs(&mut self, worker: WorkerId) -> u32 {
        let pid = self.free_pids.pop().unwrap_or_else(|| {
            self.last_pid += 1;
            self.last_pid
        });
        self.doubled |= !self.ran.insert(worker);
        self.behave(worker, pid);
        pid
    }

    fn bury(&mut self, worker: WorkerId) {
        let gone = self.processes.remove(&worker);
        self.free_pids.extend(gone.and_then(|process| process.pid));
        self.dead.push_back(worker);
        if self.dead.len() > 16 {
            self.dead.pop_front();
        }
    }

    /// Decides how a new process will behave.
    fn behave(&mut self, worker: WorkerId, pid: u32) {
        let ignores_signals = self.rng.chance(self.faults.ignores_signals);
        let slow = self.rng.chance(self.faults.stops_slowly);
        let stops_in = if slow { millis(&mut self.rng, 100, 5000) } else { millis(&mut self.rng, 0, 20) };
        let Some(process) = self.processes.get_mut(&worker) else { return };
        process.pid = Some(pid);
        process.ignores_signals = ignores_signals;
        process.stops_in = stops_in;
        let never = self.bad.contains(&process.launch) || self.rng.chance(self.faults.never_ready);
        let stormy = process.launch == LaunchId(0) && self.rng.chance(self.faults.storm);
        if stormy || self.rng.chance(self.faults.dies_at_start) {
            let wait = millis(&mut self.rng, 0, if stormy { 5 } else { 50 });
            self.plan(wait, Plan::Crash(worker, Exit::Code(1)));
        } else if self.rng.chance(self.faults.exits_zero) {
            let wait = millis(&mut self.rng, 0, 5000);
            self.plan(wait, Plan::Crash(worker, Exit::Code(0)));
        } else if self.rng.chance(self.faults.crashes) {
            let wait = millis(&mut self.rng, 0, 5000);
            self.plan(wait, Plan::Crash(worker, Exit::Signal(Signal(11))));
        }
        if self.rng.chance(self.faults.channels) {
            let wait = millis(&mut self.rng, 0, 100);
            self.plan(wait, Plan::Now(Input::Spoke { worker }));
            let wait = millis(&mut self.rng, 0, 5000);
            match self.rng.below(8) {
                0 => self.plan(wait, Plan::Now(Input::HungUp { worker })),
                1 => self.plan(wait, Plan::Now(Input::Garbled { worker })),
                2 => self.plan(wait / 8, Plan::Now(Input::Refused { worker })),
                3 => self.plan(wait, Plan::Now(Input::Hung { worker })),
                _ => {}
            }
        }
        if !never {
            let wait = millis(&mut self.rng, 1, 300);
            self.plan(wait, Plan::Ready(worker));
        } else if self.rng.chance(0.5) {
            let wait = millis(&mut self.rng, 1, 300);
            self.plan(wait, Plan::Now(Input::Unseen { worker }));
        }
    }

    /// Everybody who runs dies, one after the other at one moment.
    pub(crate) fn kill_all(&mut self) {
        let running = |process: &Process| process.told;
        let all = self.processes.iter().filter(|(_, process)| running(process));
        for worker in all.map(|(worker, _)| *worker).collect::<Vec<_>>() {
            self.plan(Duration::ZERO, Plan::Crash(worker, Exit::Signal(Signal::KILL)));
        }
    }

    pub(crate) fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn { worker, launch, slot, .. } => {
                let process = Process {
                    launch: *launch,
                    standby: slot.is_none(),
                    pid: None,
                    ignores_signals: false,
                    stops_in: Duration::ZERO,
                    leaving: false,
                    told: false,
                    untold: Vec::new(),
                    rungs: 0,
                };
                self.processes.insert(*worker, process);
                let slow = self.rng.chance(self.faults.spawn_slow);
                let wait = if slow { millis(&mut self.rng, 1, 3000) } else { Duration::ZERO };
                let works = !self.rng.chance(self.faults.spawn_fails);
                self.plan(wait, Plan::Spawned(*worker, works));
            }
            Effect::Promote { worker, .. } => {
                let Some(process) = self.processes.get_mut(worker) else { return };
                process.standby = false;
                let bad = self.bad.contains(&process.launch);
                if !bad && !self.rng.chance(self.faults.never_ready) {
                    let wait = millis(&mut self.rng, 0, 100);
                    self.plan(wait, Plan::Ready(*worker));
                }
            }
            Effect::Notice { worker, rung } => self.ask(*worker, Signal::TERM, *rung),
            Effect::Signal { worker, signal, rung } => self.ask(*worker, *signal, *rung),
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
                let refused = self.rng.below(4);
                self.answer_listeners(Input::Shut { broker: *broker, round: *round, refused });
            }
            Effect::WatchClock { broker } => {
                let open = self.rng.chance(0.5);
                self.answer_listeners(Input::Window { broker: *broker, open });
            }
            Effect::Emit(_) | Effect::Reply { .. } | Effect::Exit => {}
        }
    }

    /// The next change of a window, if none lies ahead; sometimes the clock is only read again.
    fn clock_goes_on(&mut self, broker: BrokerId, open: bool) {
        let ahead = self
            .has_plan(|plan| matches!(plan, Plan::Now(Input::Window { broker: of, .. }) if *of == broker));
        if !ahead && self.rng.chance(self.faults.windows) {
            let open = if self.rng.chance(0.1) { open } else { !open };
            let wait = millis(&mut self.rng, 1, 8000);
            self.plan(wait, Plan::Now(Input::Window { broker, open }));
        }
    }

    /// Asked for by a successor, perhaps for the second time: the operating system and the keeper know what was done.
    pub(crate) fn perform_again(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn { worker, .. } => {
                match self.processes.get(worker).and_then(|process| process.pid) {
                    Some(pid) => {
                        let answer = Input::Spawned { worker: *worker, pid: Pid(pid) };
                        self.plan(Duration::ZERO, Plan::Now(answer));
                    }
                    None => self.perform(effect),
                }
            }
            Effect::Notice { worker, rung } | Effect::Signal { worker, rung, .. } => {
                let asked = self.processes.get(worker).map_or(0, |process| process.rungs);
                if asked <= *rung {
                    self.perform(effect);
                }
            }
            Effect::Promote { .. }
            | Effect::KillTree { .. }
            | Effect::OpenListeners { .. }
            | Effect::QuietListeners { .. }
            | Effect::ShutListeners { .. }
            | Effect::WatchClock { .. }
            | Effect::Emit(_)
            | Effect::Reply { .. }
            | Effect::Exit => self.perform(effect),
        }
    }

    /// Core has recorded what it was told of a worker.
    pub(crate) fn acknowledge(&mut self, input: &Input) {
        match input {
            Input::Spawned { worker, .. } => {
                let Some(process) = self.processes.get_mut(worker) else { return };
                process.told = true;
                for plan in std::mem::take(&mut process.untold) {
                    self.plan(Duration::ZERO, plan);
                }
            }
            Input::SpawnFailed { worker, .. } | Input::Exited { worker, .. }
                if self.processes.contains_key(worker) =>
            {
                self.bury(*worker);
            }
            Input::Window { broker, open } => self.clock_goes_on(*broker, *open),
            Input::SpawnFailed { .. }
            | Input::Exited { .. }
            | Input::Changed { .. }
            | Input::Tick
            | Input::Opened { .. }
            | Input::Quiet { .. }
            | Input::Shut { .. }
            | Input::Ready { .. }
            | Input::Standby { .. }
            | Input::Unseen { .. }
            | Input::Spoke { .. }
            | Input::HungUp { .. }
            | Input::Garbled { .. }
            | Input::Hung { .. }
            | Input::Bound { .. }
            | Input::Unbound { .. }
            | Input::Refused { .. }
            | Input::Begun { .. }
            | Input::Command { .. }
            | Input::Stop { .. } => {}
        }
    }

    /// The broker process is gone, and with it what it was about to do or to tell. Of the workers that it was about to
    /// start, some run.
    pub(crate) fn shell_is_gone(&mut self) {
        for plan in self.take_plans(|plan| match plan {
            Plan::Spawned(..) => true,
            Plan::Now(input) => match input {
                Input::Opened { .. }
                | Input::Bound { .. }
                | Input::Unbound { .. }
                | Input::Quiet { .. }
                | Input::Shut { .. }
                | Input::Window { .. }
                | Input::Changed { .. }
                | Input::Spawned { .. } => true,
                Input::Tick
                | Input::SpawnFailed { .. }
                | Input::Ready { .. }
                | Input::Standby { .. }
                | Input::Unseen { .. }
                | Input::Spoke { .. }
                | Input::HungUp { .. }
                | Input::Garbled { .. }
                | Input::Hung { .. }
                | Input::Refused { .. }
                | Input::Begun { .. }
                | Input::Exited { .. }
                | Input::Command { .. }
                | Input::Stop { .. } => false,
            },
            Plan::Ready(_) | Plan::Crash(..) | Plan::Leave(..) => false,
        }) {
            if let Plan::Spawned(worker, true) = plan
                && self.rng.chance(0.5)
            {
                self.runs(worker);
            }
        }
        self.processes.retain(|_, process| process.pid.is_some());
    }

    /// The broker process was away, its successors may ask everybody anew, and listeners and spawns take their time.
    pub(crate) fn deaths_cost(&mut self) {
        let ladders = self.specs.values().map(|spec| spec.stop.0.iter().map(|rung| rung.wait).sum());
        self.grace += ladders.max().unwrap_or(Duration::ZERO) + Duration::from_secs(10);
    }

    /// A salvage begins every ladder anew.
    pub(crate) fn forget_rungs(&mut self) {
        for process in self.processes.values_mut() {
            process.rungs = 0;
        }
    }

    /// The app and the operating system know of the same workers; each has had the signals of its rungs, once (I42).
    pub(crate) fn all_are_known(&mut self) -> Result<(), Failure> {
        let roll = self.app.roll();
        let strange = roll.iter().find(|one| match self.processes.get(&one.worker) {
            Some(process) => {
                let known = one.pid.map(|pid| pid.0) == process.pid.filter(|_| process.told);
                !known
                    || self
                        .oracle
                        .rungs_asked_for(one.worker)
                        .is_some_and(|asked| process.rungs as usize != asked)
                    || one.rung.is_some_and(|rung| process.rungs != rung + 1)
            }
            None => true,
        });
        let lost = self.processes.keys().find(|worker| !roll.iter().any(|one| one.worker == **worker));
        let what = format!("not as it is: {strange:?}; forgotten: {lost:?}; started twice: {}", self.doubled);
        let whole = strange.is_none() && lost.is_none() && !self.doubled;
        self.require("I42b", whole, || what)
    }

    fn answer_listeners(&mut self, answer: Input) {
        let slow = self.rng.chance(self.faults.listen_slow);
        let wait = if slow { millis(&mut self.rng, 1, 2000) } else { Duration::ZERO };
        self.plan(wait, Plan::Now(answer));
    }

    fn ask(&mut self, worker: WorkerId, signal: Signal, rung: u32) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        self.doubled |= process.rungs > rung;
        process.rungs = rung + 1;
        if process.pid.is_some() && !process.ignores_signals && !process.leaving {
            process.leaving = true;
            let wait = process.stops_in;
            let exit = if self.rng.chance(0.5) { Exit::Code(0) } else { Exit::Signal(signal) };
            self.plan(wait, Plan::Leave(worker, exit));
        }
    }
}

impl Plan {
    /// What a process does that runs.
    fn is_of(&self) -> Option<WorkerId> {
        match self {
            Plan::Ready(worker)
            | Plan::Crash(worker, _)
            | Plan::Leave(worker, _)
            | Plan::Now(
                Input::Unseen { worker }
                | Input::Spoke { worker }
                | Input::HungUp { worker }
                | Input::Garbled { worker }
                | Input::Hung { worker }
                | Input::Refused { worker },
            ) => Some(*worker),
            Plan::Spawned(..) | Plan::Now(_) => None,
        }
    }
}

impl Faults {
    /// Whether there is still a fault phase: then processes may crash.
    fn kill(&self) -> bool {
        let crashes = self.dies_at_start + self.exits_zero + self.crashes + self.storm + self.massacres;
        crashes + self.channels > 0.0
    }
}
