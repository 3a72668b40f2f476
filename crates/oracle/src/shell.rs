//! The shell's side of the bargain: core may rely on these of whoever calls it, and only a trace of the real one can tell
//! whether it may. What core makes of it is left to the oracle.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use shiftboss_core::id::{BrokerId, Pid, WorkerId};
use shiftboss_core::{Effect, Input, Time};

use crate::oracle::{Broken, Step, Verdict, broken};

/// Follows one shell from the start of its app.
#[derive(Clone, Debug, Default)]
pub(crate) struct Shell {
    /// Whoever was asked for and is not gone; a pid once that was answered.
    workers: BTreeMap<WorkerId, Option<Pid>>,
    /// The last request to each broker's listeners, until it is answered.
    asked: BTreeMap<BrokerId, Request>,
    /// Requests that a later one came in between of; an answer may still be under way.
    superseded: BTreeSet<(BrokerId, Request)>,
    /// Brokers whose clock is to be watched.
    clocks: BTreeSet<BrokerId>,
    begun: bool,
    ended: bool,
    now: Time,
    deadline: Option<Time>,
    /// By how much core was called late, at most. A busy machine is late without anybody's fault: told, not judged.
    pub(crate) latest: Duration,
    /// How often each promise was put to the test.
    pub(crate) premises: BTreeMap<&'static str, u64>,
}

/// What was asked of listeners, and in which round.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Request {
    Open(u32),
    Quiet(u32),
    Shut(u32),
}

type Check = fn(&Shell, &Step) -> Verdict;

/// Judged before the step is taken in.
const CHECKS: [(&str, Check); 9] = [
    ("C1", c1_a_spawn_is_answered_once_and_first),
    ("C2", c2_nothing_is_said_of_the_gone),
    ("C3", c3_listeners_answer_once),
    ("C4", c4_a_tick_only_when_due),
    ("C5", c5_time_never_goes_back),
    ("C6", c6_no_two_have_one_pid),
    ("C7", c7_an_ended_app_only_answers),
    ("C8", c8_it_starts_once),
    ("C10", c10_a_clock_is_read_for_who_asks),
];

/// Every promise of the shell that is judged from a trace.
pub(crate) fn names() -> impl Iterator<Item = &'static str> {
    CHECKS.iter().map(|(name, _)| *name).chain(["C9"])
}

impl Shell {
    /// Judges one step: all promises that it breaks.
    pub(crate) fn judge(&mut self, step: &Step) -> Vec<Broken> {
        let mut all = Vec::new();
        for (name, check) in CHECKS {
            match check(self, step) {
                Ok(true) => *self.premises.entry(name).or_insert(0) += 1,
                Ok(false) => {}
                Err(what) => all.push(Broken { invariant: name, what }),
            }
        }
        self.take_time(step);
        if let Some(input) = &step.input {
            self.take_input(input);
        }
        step.effects.iter().for_each(|effect| self.take_effect(effect));
        all
    }

    /// The app has come to its end (C9): everybody who was started was seen to leave, and what was to be shut is.
    pub(crate) fn is_over(&mut self) -> Option<Broken> {
        *self.premises.entry("C9").or_insert(0) += 1;
        let open = |(broker, request): (&BrokerId, &Request)| match request {
            Request::Shut(_) => Some(*broker),
            Request::Open(_) | Request::Quiet(_) => None,
        };
        let what = if let Some(worker) = self.workers.keys().next() {
            format!("the app has ended, and nobody has said what became of worker {worker}")
        } else {
            let broker = self.asked.iter().find_map(open)?;
            format!("the app has ended, and the listeners of broker {broker} are not said to be shut")
        };
        Some(Broken { invariant: "C9", what })
    }

    fn take_time(&mut self, step: &Step) {
        if let Some(due) = self.deadline {
            self.latest = self.latest.max(step.now.since(due));
        }
        self.begun = true;
        self.now = self.now.max(step.now);
        self.deadline = step.deadline;
    }

    fn take_input(&mut self, input: &Input) {
        match input {
            Input::Spawned { worker, pid } => {
                if let Some(known) = self.workers.get_mut(worker) {
                    *known = Some(*pid);
                }
            }
            Input::SpawnFailed { worker, .. } | Input::Exited { worker, .. } => {
                self.workers.remove(worker);
            }
            Input::Opened { .. } | Input::Quiet { .. } | Input::Shut { .. } => {
                if let Some((broker, request)) = answered(input)
                    && !self.superseded.remove(&(broker, request))
                {
                    self.asked.remove(&broker);
                }
            }
            Input::Tick
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
            | Input::Window { .. }
            | Input::Changed { .. }
            | Input::Command { .. }
            | Input::Stop { .. } => {}
        }
    }

    fn take_effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Spawn { worker, .. } => {
                self.workers.insert(*worker, None);
            }
            Effect::OpenListeners { broker, round } => self.ask(*broker, Request::Open(*round)),
            Effect::QuietListeners { broker, round } => self.ask(*broker, Request::Quiet(*round)),
            Effect::ShutListeners { broker, round } => self.ask(*broker, Request::Shut(*round)),
            Effect::WatchClock { broker } => {
                self.clocks.insert(*broker);
            }
            Effect::Exit => self.ended = true,
            Effect::Notice { .. }
            | Effect::Promote { .. }
            | Effect::Signal { .. }
            | Effect::KillTree { .. }
            | Effect::Emit(_)
            | Effect::Reply { .. } => {}
        }
    }

    fn ask(&mut self, broker: BrokerId, request: Request) {
        // A successor asks again for the same.
        if let Some(before) = self.asked.insert(broker, request).filter(|before| *before != request) {
            self.superseded.insert((broker, before));
        }
    }
}

fn c1_a_spawn_is_answered_once_and_first(shell: &Shell, step: &Step) -> Verdict {
    match &step.input {
        Some(Input::Spawned { worker, .. } | Input::SpawnFailed { worker, .. }) => {
            match shell.workers.get(worker) {
                Some(None) => Ok(true),
                Some(Some(pid)) => broken(format!("worker {worker} is started again; it runs as {pid}")),
                None => broken(format!("worker {worker} is started, or is not, and nobody asked for it")),
            }
        }
        Some(input) => match of_a_process(input) {
            Some(worker) if shell.workers.get(&worker) == Some(&None) => {
                broken(format!("worker {worker} is spoken of before it is said to run: {input:?}"))
            }
            Some(_) | None => Ok(false),
        },
        None => Ok(false),
    }
}

fn c2_nothing_is_said_of_the_gone(shell: &Shell, step: &Step) -> Verdict {
    let Some(worker) = step.input.as_ref().and_then(of_a_process) else { return Ok(false) };
    if shell.workers.contains_key(&worker) {
        return Ok(true);
    }
    broken(format!("worker {worker} is gone or never was, and yet: {:?}", step.input))
}

fn c3_listeners_answer_once(shell: &Shell, step: &Step) -> Verdict {
    let Some((broker, request)) = step.input.as_ref().and_then(answered) else { return Ok(false) };
    if shell.asked.get(&broker) == Some(&request) || shell.superseded.contains(&(broker, request)) {
        return Ok(true);
    }
    broken(format!("broker {broker}: nobody waits for this answer (any more): {:?}", step.input))
}

fn c4_a_tick_only_when_due(shell: &Shell, step: &Step) -> Verdict {
    match (&step.input, shell.deadline) {
        (Some(Input::Tick), Some(due)) if due <= step.now => Ok(true),
        (Some(Input::Tick), due) => broken(format!("a tick, and due is: {due:?}")),
        (Some(_) | None, _) => Ok(false),
    }
}

fn c5_time_never_goes_back(shell: &Shell, step: &Step) -> Verdict {
    if step.now < shell.now { broken(format!("{} comes after {}", step.now, shell.now)) } else { Ok(true) }
}

fn c6_no_two_have_one_pid(shell: &Shell, step: &Step) -> Verdict {
    let Some(Input::Spawned { worker, pid }) = &step.input else { return Ok(false) };
    let holder = shell.workers.iter().find(|(other, known)| *other != worker && **known == Some(*pid));
    match holder {
        Some((other, _)) => broken(format!("worker {worker} has the pid {pid} of worker {other}")),
        None => Ok(shell.workers.len() > 1),
    }
}

fn c7_an_ended_app_only_answers(shell: &Shell, step: &Step) -> Verdict {
    match &step.input {
        _ if !shell.ended => Ok(false),
        Some(Input::Command { .. }) => Ok(true),
        Some(input) => broken(format!("the app has ended, and yet: {input:?}")),
        // Judged by C8.
        None => Ok(false),
    }
}

fn c8_it_starts_once(shell: &Shell, step: &Step) -> Verdict {
    match (&step.input, shell.begun) {
        (None, false) if step.is_start() => Ok(true),
        (None, false) => broken("the app has not started, and is taken over"),
        (Some(_), true) => Ok(false),
        (None, true) if !step.is_start() => Ok(true),
        (None, true) => broken("the app starts again"),
        (Some(input), false) => broken(format!("the app has not started, and yet: {input:?}")),
    }
}

/// Whose process an input speaks of, if it runs.
fn of_a_process(input: &Input) -> Option<WorkerId> {
    match input {
        Input::Ready { worker }
        | Input::Standby { worker }
        | Input::Unseen { worker }
        | Input::Spoke { worker }
        | Input::HungUp { worker }
        | Input::Garbled { worker }
        | Input::Hung { worker }
        | Input::Refused { worker }
        | Input::Exited { worker, .. } => Some(*worker),
        Input::Spawned { .. }
        | Input::SpawnFailed { .. }
        | Input::Opened { .. }
        | Input::Quiet { .. }
        | Input::Shut { .. }
        | Input::Tick
        | Input::Bound { .. }
        | Input::Unbound { .. }
        | Input::Command { .. }
        | Input::Begun { .. }
        | Input::Window { .. }
        | Input::Changed { .. }
        | Input::Stop { .. } => None,
    }
}

fn c10_a_clock_is_read_for_who_asks(shell: &Shell, step: &Step) -> Verdict {
    let Some(Input::Window { broker, .. }) = &step.input else { return Ok(false) };
    if shell.clocks.contains(broker) {
        return Ok(true);
    }
    broken(format!("a window of broker {broker} is told, and nobody asked"))
}

/// The request to listeners that an input answers.
fn answered(input: &Input) -> Option<(BrokerId, Request)> {
    match input {
        Input::Opened { broker, round, .. } => Some((*broker, Request::Open(*round))),
        Input::Quiet { broker, round } => Some((*broker, Request::Quiet(*round))),
        Input::Shut { broker, round, .. } => Some((*broker, Request::Shut(*round))),
        Input::Tick
        | Input::Spawned { .. }
        | Input::SpawnFailed { .. }
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
        | Input::Exited { .. }
        | Input::Window { .. }
        | Input::Changed { .. }
        | Input::Command { .. }
        | Input::Stop { .. } => None,
    }
}
