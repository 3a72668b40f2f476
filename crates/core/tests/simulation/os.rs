//! The simulated operating system: processes of every misbehaviour, slow and failing spawns and listeners, process
//! numbers that are used again at once.

use std::time::Duration;

use shiftboss_core::id::{LaunchId, Pid, WorkerId};
use shiftboss_core::spec::Signal;
use shiftboss_core::{Effect, Exit, Input, ListenFailure};

use crate::options::{Faults, millis};
use crate::world::{Failure, Plan, World, says_ready};

pub(crate) struct Process {
    launch: LaunchId,
    pid: Option<u32>,
    ignores_signals: bool,
    stops_in: Duration,
    leaving: bool,
}

impl World {
    pub(crate) fn happen(&mut self, plan: Plan) -> Result<(), Failure> {
        match plan {
            Plan::Now(input) => self.feed(input),
            Plan::Spawned(worker, false) => {
                self.bury(worker);
                self.feed(Input::SpawnFailed { worker, reason: "no such file".to_owned() })
            }
            Plan::Spawned(worker, true) => {
                let pid = self.free_pids.pop().unwrap_or_else(|| {
                    self.last_pid += 1;
                    self.last_pid
                });
                self.behave(worker, pid);
                self.feed(Input::Spawned { worker, pid: Pid(pid) })
            }
            Plan::Ready(worker) => {
                let says = |process: &Process| says_ready(&self.specs[&process.launch]);
                if self.processes.get(&worker).is_some_and(says) {
                    self.feed(Input::Ready { worker })?;
                }
                Ok(())
            }
            Plan::Crash(worker, exit) if self.faults.kill() && self.processes.contains_key(&worker) => {
                self.bury(worker);
                self.feed(Input::Exited { worker, exit })
            }
            Plan::Leave(worker, exit) if self.processes.contains_key(&worker) => {
                self.bury(worker);
                self.feed(Input::Exited { worker, exit })
            }
            Plan::Crash(..) | Plan::Leave(..) => Ok(()),
        }
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
        let running = |process: &Process| process.pid.is_some();
        let all = self.processes.iter().filter(|(_, process)| running(process));
        for worker in all.map(|(worker, _)| *worker).collect::<Vec<_>>() {
            self.plan(Duration::ZERO, Plan::Crash(worker, Exit::Signal(Signal::KILL)));
        }
    }

    pub(crate) fn perform(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn { worker, launch, .. } => {
                let process = Process {
                    launch: *launch,
                    pid: None,
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
                let refused = self.rng.below(4);
                self.answer_listeners(Input::Shut { broker: *broker, round: *round, refused });
            }
            Effect::Emit(_) | Effect::Reply { .. } | Effect::Exit => {}
        }
    }

    /// Asked for again by a successor, and done already.
    pub(crate) fn is_done(&self, effect: &Effect) -> bool {
        match effect {
            Effect::Spawn { worker, .. } => self.processes.contains_key(worker),
            Effect::Signal { worker, .. } => {
                self.processes.get(worker).is_some_and(|process| process.leaving)
            }
            Effect::OpenListeners { .. } | Effect::QuietListeners { .. } | Effect::ShutListeners { .. } => {
                true
            }
            Effect::KillTree { .. } | Effect::Emit(_) | Effect::Reply { .. } | Effect::Exit => false,
        }
    }

    fn answer_listeners(&mut self, answer: Input) {
        let slow = self.rng.chance(self.faults.listen_slow);
        let wait = if slow { millis(&mut self.rng, 1, 2000) } else { Duration::ZERO };
        self.plan(wait, Plan::Now(answer));
    }

    fn signal(&mut self, worker: WorkerId, signal: Signal) {
        let Some(process) = self.processes.get_mut(&worker) else { return };
        if process.pid.is_some() && !process.ignores_signals && !process.leaving {
            process.leaving = true;
            let wait = process.stops_in;
            let exit = if self.rng.chance(0.5) { Exit::Code(0) } else { Exit::Signal(signal) };
            self.plan(wait, Plan::Leave(worker, exit));
        }
    }
}

impl Faults {
    /// Whether there is still a fault phase: then processes may crash.
    fn kill(&self) -> bool {
        self.dies_at_start + self.exits_zero + self.crashes + self.storm + self.massacres > 0.0
    }
}
