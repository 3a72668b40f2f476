//! What an onlooker knows: facts gathered naively from the trace of inputs and effects, nothing from core's state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::{BrokerId, Generation, LaunchId, RequestId, Slot, WorkerId};
use shiftboss_core::spec::{BrokerSpec, Signal};
use shiftboss_core::{Command, Effect, Input, Outcome, Time, Verb, What};

use crate::oracle::Step;

#[derive(Default)]
pub(crate) struct Facts {
    pub(crate) brokers: Vec<Broker>,
    /// Every process asked for and not gone.
    pub(crate) living: BTreeMap<WorkerId, Process>,
    /// The last to go was missed: it had its slot for itself and nobody had asked it to leave.
    missed: bool,
    /// Since when the last to go had been ready.
    pub(crate) last_ready: Option<Time>,
    pub(crate) spawns: u64,
    pub(crate) spawn_failures: u64,
    pub(crate) exits: u64,
    /// Ends told by events.
    pub(crate) told: BTreeMap<WorkerId, u32>,
    pub(crate) open: BTreeSet<RequestId>,
    pub(crate) answered: BTreeMap<RequestId, Outcome>,
    pub(crate) stopping: bool,
    /// Somebody said "now".
    pub(crate) brutal: bool,
    pub(crate) ended: bool,
    /// When workers were started in the last seconds.
    pub(crate) starts: VecDeque<Time>,
    /// By how much the clock has come late so far.
    pub(crate) lateness: Duration,
}

pub(crate) struct Broker {
    pub(crate) wanted: u32,
    pub(crate) listens: bool,
    /// The request to the listeners that is not answered yet.
    pub(crate) asked: Option<u32>,
    /// The last answer of the listeners was "open", and no drain has come since.
    pub(crate) listening: bool,
    /// Sent home by hand and not called back.
    pub(crate) held: bool,
    /// The request by which its queues are being emptied: workers are not asked to leave yet.
    pub(crate) quieting: Option<u32>,
    pub(crate) recycling: bool,
    pub(crate) recycled_since: Time,
    pub(crate) generation: Generation,
    pub(crate) target: Generation,
    pub(crate) launches: BTreeMap<Generation, LaunchId>,
    /// Generations that a failed recycle has given up.
    pub(crate) failed: BTreeSet<Generation>,
    pub(crate) streaks: BTreeMap<Slot, Streak>,
    /// Slots in back-off, and until when.
    pub(crate) waits: BTreeMap<Slot, Time>,
}

/// Deaths of a slot without a worker that was ready, or a command, in between.
#[derive(Clone, Copy)]
pub(crate) struct Streak {
    pub(crate) deaths: u32,
    pub(crate) last: Time,
}

pub(crate) struct Process {
    pub(crate) broker: BrokerId,
    pub(crate) slot: Slot,
    pub(crate) launch: LaunchId,
    pub(crate) started: Option<Time>,
    pub(crate) ready: Option<Time>,
    /// Told to leave, and why.
    pub(crate) leaving: Option<(Time, String)>,
    pub(crate) rungs: Vec<(Signal, Time)>,
    pub(crate) killed: bool,
    /// What the clock had lost when it was told to leave, or was started.
    pub(crate) lateness: Duration,
    /// Asked for, and since then something has happened that may mean it is stopped as soon as it runs.
    pub(crate) doubtful: bool,
    /// Its slot was scaled away while it was leaving.
    pub(crate) dropped: bool,
}

impl Facts {
    pub(crate) fn new(specs: &[BrokerSpec]) -> Facts {
        let broker = |spec: &BrokerSpec| Broker {
            wanted: spec.workers,
            listens: spec.listens,
            asked: None,
            listening: false,
            held: false,
            quieting: None,
            recycling: false,
            recycled_since: Time(0),
            generation: Generation(1),
            target: Generation(1),
            launches: BTreeMap::from([(Generation(1), spec.launch)]),
            failed: BTreeSet::new(),
            streaks: BTreeMap::new(),
            waits: BTreeMap::new(),
        };
        Facts { brokers: specs.iter().map(broker).collect(), ..Facts::default() }
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
            .filter(|(_, process)| process.serves() && process.slot.0 < slots)
            .map(|(_, process)| process.slot)
            .collect()
    }

    pub(crate) fn take_input(&mut self, step: &Step) {
        match &step.input {
            Input::Spawned { worker, .. } => {
                let lateness = self.lateness;
                if let Some(process) = self.living.get_mut(worker) {
                    process.started.get_or_insert(step.now);
                    process.lateness = lateness;
                }
            }
            Input::SpawnFailed { worker, .. } => {
                if self.leaves(*worker) {
                    self.spawn_failures += 1;
                }
            }
            Input::Exited { worker, .. } => {
                if self.leaves(*worker) {
                    self.exits += 1;
                }
            }
            Input::Opened { broker, round, result } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize)
                    && broker.asked == Some(*round)
                {
                    broker.asked = None;
                    broker.listening = result.is_ok();
                }
            }
            Input::Quiet { broker, round } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize) {
                    broker.quieting.take_if(|asked| asked == round);
                }
            }
            Input::Command { request, command } => {
                if !self.answered.contains_key(request) {
                    self.open.insert(*request);
                }
                if let Command::Broker(id, Verb::Recycle(_) | Verb::Resume | Verb::Respecify(_)) = command {
                    self.brokers[id.0 as usize].forgive();
                }
            }
            Input::Stop { now } => self.brutal |= now,
            Input::Tick | Input::Ready { .. } | Input::Unseen { .. } | Input::Shut { .. } => {}
        }
    }

    fn leaves(&mut self, worker: WorkerId) -> bool {
        let Some(gone) = self.living.remove(&worker) else { return false };
        let asked = gone.leaving.as_ref().is_some_and(|(_, reason)| !reason.starts_with("was not ready"));
        let alone = !self.of(gone.broker).any(|(_, other)| other.slot == gone.slot);
        self.last_ready = gone.ready;
        self.missed = alone && !asked && !gone.doubtful && !gone.dropped;
        true
    }

    pub(crate) fn take_effect(&mut self, step: &Step, effect: &Effect) {
        match effect {
            Effect::Spawn { worker, broker, slot, launch, .. } => {
                self.spawns += 1;
                self.starts.push_back(step.now);
                self.starts.retain(|at| step.now.since(*at) < Duration::from_secs(10));
                self.brokers[broker.0 as usize].waits.remove(slot);
                let process = Process {
                    broker: *broker,
                    slot: *slot,
                    launch: *launch,
                    started: None,
                    ready: None,
                    leaving: None,
                    rungs: Vec::new(),
                    killed: false,
                    lateness: self.lateness,
                    doubtful: false,
                    dropped: false,
                };
                self.living.insert(*worker, process);
            }
            Effect::Signal { worker, signal } => {
                if let Some(process) = self.living.get_mut(worker) {
                    process.rungs.push((*signal, step.now));
                }
            }
            Effect::KillTree { worker } => {
                if let Some(process) = self.living.get_mut(worker) {
                    process.killed = true;
                }
            }
            Effect::QuietListeners { broker, round } => {
                self.brokers[broker.0 as usize].quieting = Some(*round);
            }
            Effect::OpenListeners { broker, round } => {
                let broker = &mut self.brokers[broker.0 as usize];
                broker.quieting = None;
                broker.asked = Some(*round);
            }
            Effect::ShutListeners { .. } => {}
            Effect::Reply { request, outcome } => {
                self.open.remove(request);
                self.answered.insert(*request, outcome.clone());
            }
            Effect::Exit => self.ended = true,
            Effect::Emit(event) => self.take_event(step, event.broker, &event.what),
        }
    }

    fn take_event(&mut self, step: &Step, broker: Option<BrokerId>, what: &What) {
        self.doubt(broker, what);
        match what {
            What::AppStopping => self.stopping = true,
            What::WorkerReady { worker, .. } => {
                if let Some(process) = self.living.get_mut(worker) {
                    process.ready = Some(step.now);
                }
            }
            What::WorkerStopping { worker, reason, .. } => {
                let lateness = self.lateness;
                if let Some(process) = self.living.get_mut(worker) {
                    process.leaving = Some((step.now, reason.clone()));
                    process.lateness = lateness;
                }
            }
            What::WorkerEnded { worker, .. } | What::WorkerDeath { worker, .. } => {
                *self.told.entry(*worker).or_insert(0) += 1;
            }
            What::AppReady
            | What::BrokerStarted { .. }
            | What::ListenerBound { .. }
            | What::ListenerFailed { .. }
            | What::BrokerWaiting { .. }
            | What::BrokerOpened
            | What::BrokerResumed
            | What::BrokerDraining
            | What::BrokerDrained { .. }
            | What::BrokerScaled { .. }
            | What::BrokerDegraded { .. }
            | What::BrokerRecovered
            | What::WorkerStarted { .. }
            | What::WorkerBackoff { .. }
            | What::RecycleStarted { .. }
            | What::RecycleFinished { .. }
            | What::RecycleFailed { .. } => {}
        }
        if let (What::WorkerDeath { .. }, false) = (what, self.missed) {
            return;
        }
        if let Some(id) = broker {
            self.brokers[id.0 as usize].take_event(step, what);
        }
    }

    /// After some events a worker that was asked for and does not run yet may be stopped as soon as it does.
    fn doubt(&mut self, broker: Option<BrokerId>, what: &What) {
        let wanted = match what {
            What::BrokerScaled { wanted } => Some(*wanted),
            _ => None,
        };
        let all = matches!(what, What::BrokerDraining | What::RecycleFailed { .. });
        if !all && wanted.is_none() {
            return;
        }
        for process in self.living.values_mut().filter(|process| Some(process.broker) == broker) {
            let beyond = wanted.is_some_and(|wanted| process.slot.0 >= wanted);
            process.doubtful |= process.started.is_none() && (all || beyond);
            process.dropped |= beyond;
        }
    }
}

impl Broker {
    /// Somebody has mended something: failures no longer count.
    fn forgive(&mut self) {
        self.streaks.clear();
        self.waits.clear();
    }

    fn take_event(&mut self, step: &Step, what: &What) {
        match what {
            What::BrokerDraining => {
                self.held = true;
                self.listening = false;
                self.asked = None;
                self.forgive();
            }
            What::BrokerResumed | What::BrokerOpened => self.held = false,
            What::BrokerWaiting { .. } => {
                self.held = false;
                self.listening = false;
            }
            What::BrokerScaled { wanted } => {
                self.wanted = *wanted;
                self.forgive();
            }
            What::WorkerDeath { slot, .. } => {
                let streak = self.streaks.entry(*slot).or_insert(Streak { deaths: 0, last: step.now });
                streak.deaths += 1;
                streak.last = step.now;
            }
            What::WorkerReady { slot, .. } => {
                self.streaks.remove(slot);
            }
            What::WorkerBackoff { slot, retry_at, .. } => {
                self.waits.insert(*slot, *retry_at);
            }
            What::RecycleStarted { target, reason, .. } => {
                self.recycling = true;
                self.recycled_since = step.now;
                self.target = *target;
                self.forgive();
                let launch = match &step.input {
                    _ if *reason == RecycleReason::GoingBack => self.launches.get(&self.generation).copied(),
                    Input::Command { command: Command::Broker(_, Verb::Respecify(spec)), .. } => {
                        Some(spec.launch)
                    }
                    _ => None,
                };
                if let Some(launch) = launch {
                    self.launches.entry(*target).or_insert(launch);
                }
            }
            What::RecycleFinished { target, .. } => {
                self.recycling = false;
                self.generation = *target;
                self.forgive();
            }
            What::RecycleFailed { target, generation, slot, .. } => {
                self.recycling = false;
                self.generation = *generation;
                self.forgive();
                if slot.is_some() && target != generation {
                    self.failed.insert(*target);
                }
            }
            _ => {}
        }
    }
}

impl Process {
    pub(crate) fn serves(&self) -> bool {
        self.ready.is_some() && self.leaving.is_none()
    }

    /// It counts: nobody has asked it to leave, as far as can be seen.
    pub(crate) fn stays(&self) -> bool {
        self.leaving.is_none() && !self.doubtful
    }
}
