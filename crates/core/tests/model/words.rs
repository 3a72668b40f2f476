//! Words that must change nothing: said late, early or twice, in every state.

use shiftboss_core::effect::Effect;
use shiftboss_core::id::{BrokerId, Pid, WorkerId};
use shiftboss_core::spec::Signal;
use shiftboss_core::{Exit, Input};
use shiftboss_oracle::{Broken, Step};

use crate::stats::Stats;
use crate::world::{BROKER, Failure, NOW, World};

impl World<'_> {
    /// Says each of them to a copy of the app.
    pub(crate) fn hears_idle_words(&mut self, stats: &mut Stats) -> Result<(), Failure> {
        let before = self.app.identity();
        for input in self.idle_words() {
            let mut app = self.app.clone();
            let effects = app.handle(NOW, input.clone());
            let repeats = |effect: &Effect| match (effect, &input) {
                (Effect::Reply { request, .. }, Input::Command { request: again, .. }) => request == again,
                _ => false,
            };
            if !effects.iter().all(repeats) || app.identity() != before {
                let what = format!("{input:?} changes something: {effects:?}");
                return Err(vec![Broken { invariant: "I27c", what }]);
            }
            let step =
                Step { now: NOW, input: Some(input), adopted: None, effects, deadline: self.deadline() };
            stats.judge(&mut self.oracle.clone(), &step)?;
        }
        Ok(())
    }

    fn idle_words(&self) -> Vec<Input> {
        let gone = WorkerId(u64::MAX);
        let killed = Exit::Signal(Signal::KILL);
        let mut words = vec![
            Input::Exited { worker: gone, exit: killed },
            Input::Ready { worker: gone },
            Input::SpawnFailed { worker: gone, reason: String::new() },
        ];
        for (id, process) in &self.processes {
            let worker = *id;
            if process.runs {
                words.push(Input::Spawned { worker, pid: Pid(1) });
                words.push(Input::SpawnFailed { worker, reason: String::new() });
            } else {
                words.push(Input::Ready { worker });
            }
            if process.runs && (process.slot.is_some() || process.at_door) {
                words.push(Input::Standby { worker });
            }
            if process.runs
                && (process.ready
                    || process.slot.is_none()
                    || process.asked
                    || process.killed
                    || self.is_ready_by_time())
            {
                words.extend([Input::Ready { worker }, Input::Unseen { worker }]);
            }
        }
        words.extend(self.asked.iter().cloned());
        words.extend(self.answers_nobody_waits_for());
        if self.app.deadline().is_none_or(|at| at > NOW) {
            words.push(Input::Tick);
        }
        words
    }

    fn answers_nobody_waits_for(&self) -> [Input; 3] {
        // A round that has not begun.
        let round = self.app.round(BROKER) + 1;
        let broker: BrokerId = BROKER;
        [
            Input::Opened { broker, round, result: Ok(Vec::new()) },
            Input::Quiet { broker, round },
            Input::Shut { broker, round, refused: 7 },
        ]
    }
}
