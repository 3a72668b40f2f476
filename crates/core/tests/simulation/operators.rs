//! Those who give commands, and a shell that speaks late, early or twice.

use shiftboss_core::id::{BrokerId, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::spec::MAX_WORKERS;
use shiftboss_core::{Command, Exit, Input, Verb};

use crate::options::{draw_spec, millis, redraw};
use crate::world::{Failure, Plan, World};

impl World {
    pub(crate) fn meddle(&mut self) -> Result<(), Failure> {
        if self.rng.chance(self.faults.commands) {
            let command = self.command();
            self.twins(&command)?;
            self.requests += 1;
            let input = Input::Command { request: RequestId(self.requests), command };
            self.sent.push_back(input.clone());
            if self.sent.len() > 8 {
                self.sent.pop_front();
            }
            self.feed(input)?;
        }
        if self.rng.chance(self.faults.joins) && self.brokers.len() < MOST_BROKERS {
            self.join()?;
        }
        if self.rng.chance(self.faults.floods) {
            let broker = BrokerId(self.rng.below(self.brokers.len() as u64) as u32);
            // Answers to what was asked before are forgotten: a late repetition would be a new command.
            self.sent.clear();
            for _ in 0..FLOOD {
                self.requests += 1;
                let command = Command::Broker(broker, Verb::Recycle(None));
                self.feed(Input::Command { request: RequestId(self.requests), command })?;
            }
        }
        if self.rng.chance(self.faults.repeats * 0.1) && !self.sent.is_empty() {
            let nth = self.rng.below(self.sent.len() as u64) as usize;
            self.feed(self.sent[nth].clone())?;
        }
        if self.rng.chance(self.faults.stale_inputs * 0.2) {
            let stale = self.stale();
            self.feed(stale)?;
        }
        if self.rng.chance(self.faults.changes) {
            let broker = BrokerId(self.rng.below(self.options().specs.len() as u64) as u32);
            for _ in 0..self.rng.below(4) {
                let wait = millis(&mut self.rng, 0, 300);
                self.plan(wait, Plan::Now(Input::Changed { broker }));
            }
        }
        if self.rng.chance(self.faults.binds) {
            let broker = BrokerId(self.rng.below(self.brokers.len() as u64) as u32);
            let address = format!("tcp://:{}", 3000 + self.rng.below(3));
            let bound = self.rng.chance(0.6);
            self.feed(match bound {
                true => Input::Bound { broker, address },
                false => Input::Unbound { broker, address },
            })?;
        }
        if self.rng.chance(self.faults.massacres) {
            self.kill_all();
        }
        if self.rng.chance(self.faults.early_ticks * 0.2) {
            self.feed(Input::Tick)?;
        }
        Ok(())
    }

    pub(crate) fn command(&mut self) -> Command {
        let broker = self.rng.below(self.brokers.len() as u64);
        let spec = self.brokers[broker as usize].clone();
        let verb = match self.rng.below(20) {
            0..=5 => Verb::Recycle(None),
            6 | 7 => Verb::Recycle(Some(Slot(self.rng.below(5) as u32))),
            8 | 9 => Verb::Drain,
            10 => Verb::Resume,
            11 | 12 => Verb::ResumeNow,
            13 | 14 => Verb::Scale(self.rng.below(9) as u32),
            15 => Verb::Scale(MAX_WORKERS + 1),
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

    fn join(&mut self) -> Result<(), Failure> {
        let launch = LaunchId(self.specs.len() as u32);
        let spec = draw_spec(&mut self.rng, launch.0, false);
        self.specs.insert(launch, spec.clone());
        let seed = self.rng.below(u64::MAX);
        let before = self.app.status().brokers.len();
        let added = Input::Begun { spec: Box::new(spec.clone()), seed };
        self.feed(added)?;
        if self.app.status().brokers.len() > before {
            self.brokers.push(spec);
        }
        Ok(())
    }

    fn stale(&mut self) -> Input {
        let nth = self.rng.below(self.dead.len().max(1) as u64) as usize;
        let worker = self.dead.get(nth).copied().unwrap_or(WorkerId(u64::MAX));
        let broker = BrokerId(self.rng.below(6) as u32);
        // A round that is long over, or one that may just have been answered.
        let round = self.rng.below(3) as u32;
        match self.rng.below(15) {
            14 => Input::Standby { worker },
            12 => Input::Hung { worker },
            13 => Input::Unbound { broker, address: "tcp://:1".to_owned() },
            11 => Input::Refused { worker },
            8 => Input::Spoke { worker },
            9 => Input::HungUp { worker },
            10 => Input::Garbled { worker },
            0 => Input::Exited { worker, exit: Exit::Code(0) },
            1 => Input::Ready { worker },
            2 => Input::Spawned { worker, pid: Pid(1) },
            3 => Input::SpawnFailed { worker, reason: "late".to_owned() },
            4 => Input::Unseen { worker },
            5 if self.oracle.is_answered(broker, round) => Input::Quiet { broker, round },
            6 if self.oracle.is_answered(broker, round) => Input::Shut { broker, round, refused: 7 },
            7 if self.oracle.is_answered(broker, round) => {
                Input::Opened { broker, round, result: Ok(Vec::new()) }
            }
            _ => Input::Ready { worker },
        }
    }
}

const MOST_BROKERS: usize = 4;
/// More than may wait.
const FLOOD: usize = 520;
