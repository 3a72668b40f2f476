//! What an onlooker knows: facts gathered naively from the trace of inputs and effects, nothing from core's state.
//!
//! `inputs` takes in what happened, `effects` what was asked for and told; `broker` and `process` are what is known of
//! each.

mod broker;
mod effects;
mod inputs;
mod process;

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shiftboss_core::id::{BrokerId, RequestId, Slot, WorkerId};
use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::{Command, Input, Outcome, Time};

pub(crate) use broker::{Broker, Changes};
pub(crate) use process::{
    Asked, End, GARBLED, HUNG, HUNG_UP, LEAVES_WITHIN, Process, REFUSED, is_fault, is_unready, ladder,
    says_ready,
};

use crate::oracle::Step;

#[derive(Clone, Default)]
pub(crate) struct Facts {
    pub(crate) brokers: Vec<Broker>,
    /// Every process asked for and not gone.
    pub(crate) living: BTreeMap<WorkerId, Process>,
    /// The last to go was missed: it had its slot for itself and nobody had asked it to leave.
    missed: bool,
    /// It had been ready for long enough to start counting failures anew.
    pub(crate) proved: bool,
    /// It was a standby that failed.
    pub(crate) standby_failed: bool,
    /// It served, had its slot for itself, and nobody had asked it to leave.
    pub(crate) served: bool,
    pub(crate) spawns: u64,
    pub(crate) spawn_failures: u64,
    pub(crate) exits: u64,
    /// Ends told by events.
    pub(crate) told: BTreeMap<WorkerId, u32>,
    pub(crate) open: BTreeMap<RequestId, Command>,
    /// Whom a command to recycle is to replace.
    pub(crate) to_replace: BTreeMap<RequestId, Vec<WorkerId>>,
    /// Slots that lost their worker and need not wait for the next, in order.
    pub(crate) queue: Vec<(BrokerId, Slot)>,
    pub(crate) answered: BTreeMap<RequestId, Outcome>,
    pub(crate) stopping: bool,
    /// Somebody said "now".
    pub(crate) brutal: bool,
    pub(crate) ended: bool,
    /// When workers were started in the last seconds.
    pub(crate) starts: VecDeque<Start>,
    /// The moment; it never goes back.
    pub(crate) now: Time,
    /// When core wanted to be called, as it said in the step before.
    pub(crate) deadline: Option<Time>,
    /// By how much core has been called late so far.
    pub(crate) lateness: Duration,
    /// The highest id of a worker so far.
    pub(crate) newest: WorkerId,
    /// What the end of the last to go should be called.
    pub(crate) end: Option<End>,
}

/// A worker was started.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) at: Time,
    /// After a back-off.
    pub(crate) failing: bool,
}

impl Facts {
    pub(crate) fn new(specs: &[BrokerSpec]) -> Facts {
        Facts { brokers: specs.iter().map(Broker::new).collect(), ..Facts::default() }
    }

    pub(crate) fn broker(&self, id: BrokerId) -> &Broker {
        &self.brokers[id.0 as usize]
    }

    pub(crate) fn ids(&self) -> impl Iterator<Item = BrokerId> + use<> {
        (0..self.brokers.len() as u32).map(BrokerId)
    }

    pub(crate) fn of(&self, id: BrokerId) -> impl Iterator<Item = (&WorkerId, &Process)> {
        self.living.iter().filter(move |(_, process)| process.broker == id)
    }

    /// The slots below `slots` that somebody serves.
    pub(crate) fn available(&self, id: BrokerId, slots: u32) -> BTreeSet<Slot> {
        self.of(id)
            .filter(|(_, process)| process.serves() && !process.is_lost())
            .filter_map(|(_, process)| process.slot.filter(|slot| slot.0 < slots))
            .collect()
    }

    /// The clock: how late core is called, and that time never goes back.
    pub(crate) fn take_time(&mut self, step: &Step) {
        self.now = self.now.max(step.now);
        if let Some(due) = self.deadline {
            self.lateness += self.now.since(due);
        }
        while self.starts.front().is_some_and(|start| self.now.since(start.at) >= WINDOW) {
            self.starts.pop_front();
        }
    }

    /// The broker that an input is of or about.
    pub(crate) fn subject(&self, input: &Input) -> Option<BrokerId> {
        match input {
            Input::Spawned { worker, .. }
            | Input::SpawnFailed { worker, .. }
            | Input::Ready { worker }
            | Input::Standby { worker }
            | Input::Unseen { worker }
            | Input::Spoke { worker }
            | Input::HungUp { worker }
            | Input::Garbled { worker }
            | Input::Hung { worker }
            | Input::Refused { worker }
            | Input::Exited { worker, .. } => self.living.get(worker).map(|process| process.broker),
            Input::Opened { broker, .. }
            | Input::Quiet { broker, .. }
            | Input::Shut { broker, .. }
            | Input::Window { broker, .. }
            | Input::Bound { broker, .. }
            | Input::Unbound { broker, .. }
            | Input::Changed { broker } => Some(*broker),
            Input::Command { command: Command::Broker(broker, _), .. } => Some(*broker),
            Input::Begun { .. } => u32::try_from(self.brokers.len()).ok().map(BrokerId),
            Input::Command { command: Command::Stop, .. } | Input::Tick | Input::Stop { .. } => None,
        }
    }

    /// Whether what an input speaks of is gone, was never there, or is answered already.
    pub(crate) fn is_stale(&self, input: &Input) -> bool {
        let of_round = |id: &BrokerId, asked: fn(&Broker) -> Option<u32>, round: &u32| {
            self.brokers.get(id.0 as usize).is_none_or(|broker| asked(broker) != Some(*round))
        };
        let unstarted = |process: &Process| process.started.is_none();
        match input {
            Input::Spawned { worker, .. } | Input::SpawnFailed { worker, .. } => {
                !self.living.get(worker).is_some_and(unstarted)
            }
            Input::Ready { worker } | Input::Unseen { worker } => {
                let waited_for = |process: &Process| process.is_starting() && process.slot.is_some();
                !self.living.get(worker).is_some_and(waited_for)
            }
            Input::Standby { worker } => {
                let waited_for = |process: &Process| process.is_starting() && process.slot.is_none();
                !self.living.get(worker).is_some_and(waited_for)
            }
            Input::Spoke { worker }
            | Input::HungUp { worker }
            | Input::Garbled { worker }
            | Input::Hung { worker }
            | Input::Refused { worker } => !self.living.contains_key(worker),
            Input::Exited { worker, .. } => !self.living.contains_key(worker),
            Input::Opened { broker, round, .. } => of_round(broker, |broker| broker.asked, round),
            Input::Quiet { broker, round } => of_round(broker, |broker| broker.quieting, round),
            Input::Shut { broker, round, .. } => of_round(broker, |broker| broker.shutting, round),
            Input::Tick
            | Input::Changed { .. }
            | Input::Command { .. }
            | Input::Stop { .. }
            | Input::Begun { .. } => false,
            Input::Bound { broker, address } => {
                self.brokers.get(broker.0 as usize).is_none_or(|of| of.bound.contains(address))
            }
            Input::Unbound { broker, address } => {
                self.brokers.get(broker.0 as usize).is_none_or(|of| !of.bound.contains(address))
            }
            Input::Window { broker, open } => {
                let known = |broker: &Broker| !broker.scheduled || broker.window == Some(*open);
                self.brokers.get(broker.0 as usize).is_none_or(known)
            }
        }
    }
}

/// Commands that may wait at once.
pub(crate) const MOST_OPEN: usize = 512;
/// How long a start is remembered.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);
