//! What an onlooker knows: facts gathered naively from the trace of inputs and effects, nothing from core's state.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::spec::{BrokerSpec, Ready, Rung, Signal};
use shiftboss_core::{Command, Effect, Exit, Input, Outcome, Status, Time, Verb, What};

use crate::oracle::{Specs, Step, target};

#[derive(Clone, Default)]
pub(crate) struct Facts {
    pub(crate) brokers: Vec<Broker>,
    /// Every process asked for and not gone.
    pub(crate) living: BTreeMap<WorkerId, Process>,
    /// The last to go was missed: it had its slot for itself and nobody had asked it to leave.
    missed: bool,
    /// It had been ready for long enough to start counting failures anew.
    proved: bool,
    /// Since when the last to go had been ready.
    pub(crate) last_ready: Option<Time>,
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

/// How the end of a worker is to be told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) worker: WorkerId,
    pub(crate) broker: BrokerId,
    pub(crate) slot: Slot,
    pub(crate) pid: Option<Pid>,
    pub(crate) death: bool,
    pub(crate) exit: Option<Exit>,
    pub(crate) forced: bool,
}

/// A worker was started.
#[derive(Clone, Copy)]
pub(crate) struct Start {
    pub(crate) at: Time,
    /// After a back-off.
    pub(crate) failing: bool,
}

#[derive(Clone)]
pub(crate) struct Broker {
    pub(crate) wanted: u32,
    pub(crate) most_wanted: u32,
    /// By how many more workers were wanted lately.
    pub(crate) grown: Vec<(Time, u64)>,
    pub(crate) listens: bool,
    /// The request to the listeners that is not answered yet.
    pub(crate) asked: Option<u32>,
    /// The last answer of the listeners was "open", and no drain has come since.
    pub(crate) listening: bool,
    /// Sent home by command and not called back by one.
    pub(crate) sent_home: bool,
    /// As events tell it: sent home, by hand or because the app ends, and not called back.
    pub(crate) held: bool,
    /// The request by which its queues are being emptied: workers are not asked to leave yet.
    pub(crate) quieting: Option<u32>,
    /// The request by which what is left in its queues is being reset.
    pub(crate) shutting: Option<u32>,
    /// Failures in a row to open its listeners.
    pub(crate) unopened: u32,
    /// Connections reset by the last one.
    pub(crate) refused: u64,
    pub(crate) recycling: bool,
    /// Recycles begun so far.
    pub(crate) recycles: u64,
    /// The newest worker when the last one began.
    pub(crate) newest_before: WorkerId,
    /// Who lived when the recycle began and is to be replaced by it, if that is everybody.
    pub(crate) to_go: BTreeSet<WorkerId>,
    /// Recycles that were asked for while one ran.
    pub(crate) queued: bool,
    /// The only slot that the recycle may touch, if it was asked for one.
    pub(crate) only: Option<Slot>,
    /// Workers killed because they did not leave in time: retired by this recycle, of any kind during it, in this drain.
    pub(crate) cut_by_recycle: u32,
    pub(crate) cut_during_recycle: u32,
    pub(crate) cut_by_drain: u32,
    /// Since when the next recycle by time is waited for.
    pub(crate) timed_since: Time,
    pub(crate) generation: Generation,
    pub(crate) target: Generation,
    pub(crate) launches: BTreeMap<Generation, LaunchId>,
    /// Generations that a failed recycle has given up.
    pub(crate) failed: BTreeSet<Generation>,
    pub(crate) streaks: BTreeMap<Slot, Streak>,
    /// Ends that nobody asked for, of each slot, since somebody mended something.
    pub(crate) failures: BTreeMap<Slot, u32>,
    pub(crate) deaths: u64,
    /// Slots in back-off, and until when.
    pub(crate) waits: BTreeMap<Slot, Time>,
}

/// Deaths of a slot without a worker that was ready, or a command, in between.
#[derive(Clone, Copy)]
pub(crate) struct Streak {
    pub(crate) deaths: u32,
    pub(crate) last: Time,
}

#[derive(Clone)]
pub(crate) struct Process {
    pub(crate) broker: BrokerId,
    pub(crate) slot: Slot,
    pub(crate) launch: LaunchId,
    pub(crate) generation: Generation,
    pub(crate) pid: Option<Pid>,
    pub(crate) started: Option<Time>,
    pub(crate) ready: Option<Time>,
    /// An event has called it ready.
    pub(crate) called_ready: bool,
    /// Told to leave, and why.
    pub(crate) leaving: Option<(Time, String)>,
    /// In which recycle of its broker, counted from 1, it was told to leave.
    pub(crate) left_in: u64,
    /// First asked to leave by a signal.
    pub(crate) signalled: Option<Time>,
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
            most_wanted: spec.workers,
            grown: Vec::new(),
            listens: spec.listens,
            asked: None,
            listening: false,
            sent_home: false,
            held: false,
            quieting: None,
            shutting: None,
            unopened: 0,
            refused: 0,
            recycling: false,
            recycles: 0,
            newest_before: WorkerId(0),
            to_go: BTreeSet::new(),
            queued: false,
            only: None,
            cut_by_recycle: 0,
            cut_during_recycle: 0,
            cut_by_drain: 0,
            timed_since: Time(0),
            generation: Generation(1),
            target: Generation(1),
            launches: BTreeMap::from([(Generation(1), spec.launch)]),
            failed: BTreeSet::new(),
            streaks: BTreeMap::new(),
            failures: BTreeMap::new(),
            deaths: 0,
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
            | Input::Unseen { worker }
            | Input::Exited { worker, .. } => self.living.get(worker).map(|process| process.broker),
            Input::Opened { broker, .. } | Input::Quiet { broker, .. } | Input::Shut { broker, .. } => {
                Some(*broker)
            }
            Input::Command { command: Command::Broker(broker, _), .. } => Some(*broker),
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
                !self.living.get(worker).is_some_and(Process::is_starting)
            }
            Input::Exited { worker, .. } => !self.living.contains_key(worker),
            Input::Opened { broker, round, .. } => of_round(broker, |broker| broker.asked, round),
            Input::Quiet { broker, round } => of_round(broker, |broker| broker.quieting, round),
            Input::Shut { broker, round, .. } => of_round(broker, |broker| broker.shutting, round),
            Input::Tick | Input::Command { .. } | Input::Stop { .. } => false,
        }
    }

    pub(crate) fn take_input(&mut self, specs: &Specs, input: &Input) {
        self.missed = false;
        self.end = None;
        match input {
            Input::Spawned { worker, pid } => {
                let (now, lateness) = (self.now, self.lateness);
                if let Some(process) = self.living.get_mut(worker).filter(|process| process.started.is_none())
                {
                    process.started = Some(now);
                    process.pid = Some(*pid);
                    process.lateness = lateness;
                }
            }
            Input::SpawnFailed { worker, .. } => {
                if self.living.get(worker).is_some_and(|process| process.started.is_none()) {
                    self.leaves(specs, *worker, None);
                    self.spawn_failures += 1;
                }
            }
            Input::Exited { worker, exit } => {
                if self.living.contains_key(worker) {
                    self.leaves(specs, *worker, Some(*exit));
                    self.exits += 1;
                }
            }
            Input::Ready { worker } => {
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker)
                    && process.is_starting()
                    && says_ready(&specs[&process.launch])
                {
                    process.ready = Some(now);
                }
            }
            Input::Opened { broker, round, result } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize)
                    && broker.asked == Some(*round)
                {
                    broker.asked = None;
                    broker.listening = result.is_ok();
                    broker.unopened = if result.is_ok() { 0 } else { broker.unopened + 1 };
                }
            }
            Input::Quiet { broker, round } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize) {
                    broker.quieting.take_if(|asked| asked == round);
                }
            }
            Input::Shut { broker, round, refused } => {
                if let Some(broker) = self.brokers.get_mut(broker.0 as usize)
                    && broker.shutting.take_if(|asked| asked == round).is_some()
                {
                    broker.refused = *refused;
                }
            }
            Input::Command { request, command } => self.take_command(*request, command),
            Input::Stop { now } => {
                self.stopping = true;
                self.brutal |= now;
            }
            Input::Tick | Input::Unseen { .. } => {}
        }
    }

    fn take_command(&mut self, request: RequestId, command: &Command) {
        if self.answered.contains_key(&request) || self.open.contains_key(&request) {
            return;
        }
        self.open.insert(request, command.clone());
        // It is to be refused.
        if self.open.len() > MOST_OPEN && *command != Command::Stop {
            return;
        }
        match command {
            Command::Stop => self.stopping = true,
            Command::Broker(..) if self.stopping => {}
            Command::Broker(id, verb) => {
                let Some(broker) = self.brokers.get_mut(id.0 as usize) else { return };
                match verb {
                    Verb::Drain => broker.sent_home = true,
                    Verb::Resume => {
                        broker.sent_home = false;
                        broker.forgive();
                    }
                    Verb::Recycle(slot) => {
                        let slot = *slot;
                        let asked = |process: &Process| {
                            process.broker == *id
                                && process.started.is_some()
                                && process.stays()
                                && slot.is_none_or(|slot| process.slot == slot)
                        };
                        let to_replace = self.living.iter().filter(|(_, process)| asked(process));
                        self.to_replace.insert(request, to_replace.map(|(worker, _)| *worker).collect());
                        broker.queued |= broker.recycling;
                        broker.forgive();
                    }
                    Verb::Respecify(_) => broker.forgive(),
                    Verb::Scale(_) => {}
                }
            }
        }
    }

    /// A worker is gone, or was never there.
    fn leaves(&mut self, specs: &Specs, worker: WorkerId, exit: Option<Exit>) {
        let Some(gone) = self.living.remove(&worker) else { return };
        let reason = gone.leaving.as_ref().map(|(_, reason)| reason.as_str());
        let unready = reason.is_some_and(is_unready);
        let asked = reason.is_some() && !unready;
        let alone = !self.of(gone.broker).any(|(_, other)| other.slot == gone.slot);
        let home = self.broker(gone.broker).held;
        self.last_ready = gone.ready;
        let healthy_after = target(self.broker(gone.broker), specs).backoff.healthy_after;
        self.proved = gone.ready.is_some_and(|since| self.now.since(since) >= healthy_after);
        let clean = exit == Some(Exit::Code(0)) && !unready;
        let failed = !(asked || home || clean && self.proved);
        self.missed = alone && failed && !gone.doubtful && !gone.dropped;
        let death = match exit {
            None => true,
            Some(exit) => unready || (!asked && !home && exit != Exit::Code(0)),
        };
        let broker = &mut self.brokers[gone.broker.0 as usize];
        broker.deaths += u64::from(death);
        broker.cut_by_drain += u32::from(gone.killed);
        let retired = reason == Some("recycled") && gone.left_in == broker.recycles && !gone.dropped;
        broker.cut_by_recycle += u32::from(gone.killed && retired);
        broker.cut_during_recycle += u32::from(gone.killed);
        *broker.failures.entry(gone.slot).or_insert(0) += u32::from(!asked);
        self.end = Some(End {
            worker,
            broker: gone.broker,
            slot: gone.slot,
            pid: gone.pid,
            death,
            exit,
            forced: gone.killed,
        });
    }

    pub(crate) fn take_effect(&mut self, step: &Step, effect: &Effect) {
        match effect {
            Effect::Spawn { worker, broker, slot, launch, generation } => {
                self.spawns += 1;
                self.newest = self.newest.max(*worker);
                let now = self.now;
                let failing = self.brokers[broker.0 as usize].waits.remove(slot).is_some();
                self.starts.push_back(Start { at: now, failing });
                self.queue.retain(|waits| *waits != (*broker, *slot));
                let process = Process {
                    broker: *broker,
                    slot: *slot,
                    launch: *launch,
                    generation: *generation,
                    pid: None,
                    started: None,
                    ready: None,
                    called_ready: false,
                    leaving: None,
                    left_in: 0,
                    signalled: None,
                    rungs: Vec::new(),
                    killed: false,
                    lateness: self.lateness,
                    doubtful: false,
                    dropped: false,
                };
                self.living.insert(*worker, process);
            }
            Effect::Signal { worker, signal } => {
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker) {
                    process.rungs.push((*signal, now));
                    process.signalled.get_or_insert(now);
                }
            }
            Effect::KillTree { worker } => {
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker) {
                    process.killed = true;
                    process.signalled.get_or_insert(now);
                }
            }
            Effect::QuietListeners { broker, round } => {
                self.brokers[broker.0 as usize].quieting = Some(*round);
            }
            Effect::OpenListeners { broker, round } => {
                let broker = &mut self.brokers[broker.0 as usize];
                broker.quieting = None;
                broker.shutting = None;
                broker.asked = Some(*round);
            }
            Effect::ShutListeners { broker, round } => {
                self.brokers[broker.0 as usize].shutting = Some(*round);
            }
            Effect::Reply { request, outcome } => {
                if let Some(Command::Broker(id, Verb::Recycle(_))) = self.open.remove(request)
                    && let Some(broker) = self.brokers.get_mut(id.0 as usize)
                {
                    broker.queued &= !matches!(outcome, Outcome::Superseded(_));
                }
                self.to_replace.remove(request);
                self.answered.insert(*request, outcome.clone());
            }
            Effect::Exit => self.ended = true,
            Effect::Emit(event) => self.take_event(step, event.broker, &event.what),
        }
    }

    fn take_event(&mut self, step: &Step, broker: Option<BrokerId>, what: &What) {
        self.doubt(broker, what);
        match what {
            What::WorkerStopping { worker, reason, .. } => {
                let (now, lateness) = (self.now, self.lateness);
                if let Some(process) = self.living.get_mut(worker) {
                    process.leaving = Some((now, reason.clone()));
                    // Told as soon as it runs, that was decided before, perhaps by another recycle.
                    let decided = !matches!(step.input, Some(Input::Spawned { .. }));
                    process.left_in = u64::from(decided) * self.brokers[process.broker.0 as usize].recycles;
                    process.lateness = lateness;
                }
            }
            What::WorkerEnded { worker, .. } | What::WorkerDeath { worker, .. } => {
                *self.told.entry(*worker).or_insert(0) += 1;
            }
            What::WorkerReady { worker, .. } => {
                // By time: there is no word of its own.
                let now = self.now;
                if let Some(process) = self.living.get_mut(worker) {
                    process.ready.get_or_insert(now);
                    process.called_ready = true;
                }
            }
            What::AppReady
            | What::AppStopping
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
        let Some(id) = broker else { return };
        let now = self.now;
        if let What::WorkerDeath { slot, .. } | What::WorkerEnded { slot, .. } = what {
            self.brokers[id.0 as usize].count(*slot, now, self.proved, self.missed);
        }
        self.take_turns(id, what);
        if let What::RecycleStarted { total, .. } = what {
            let all = *total == self.broker(id).wanted;
            let to_go = self
                .of(id)
                .filter(|(_, process)| all && process.started.is_some() && process.leaving.is_none());
            let to_go = to_go.map(|(worker, _)| *worker).collect();
            let newest = self.newest;
            let broker = &mut self.brokers[id.0 as usize];
            (broker.to_go, broker.newest_before) = (to_go, newest);
        }
        self.brokers[id.0 as usize].take_event(now, step.input.as_ref(), what);
    }

    /// After some events nobody of a broker waits any longer, or in another order.
    fn take_turns(&mut self, id: BrokerId, what: &What) {
        match what {
            What::RecycleStarted { .. }
            | What::RecycleFailed { .. }
            | What::RecycleFinished { .. }
            | What::BrokerScaled { .. }
            | What::BrokerDraining => self.queue.retain(|(broker, _)| *broker != id),
            What::WorkerBackoff { slot, .. } => self.queue.retain(|waits| *waits != (id, *slot)),
            _ => {}
        }
    }

    /// Who has lost its only worker in this step, and was told no back-off, waits from now on.
    pub(crate) fn take_turn(&mut self, claimed: &Status) {
        let Some(End { slot, broker: id, .. }) = self.end else { return };
        let broker = self.broker(id);
        let empty = !self.of(id).any(|(_, process)| process.slot == slot);
        let waits = empty
            && self.missed
            && !broker.held
            && !broker.recycling
            && (broker.listening || !broker.listens)
            && slot.0 < broker.wanted
            && !claimed.brokers[id.0 as usize].backoff.contains_key(&slot)
            && !self.queue.contains(&(id, slot));
        if waits {
            self.queue.push((id, slot));
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
    /// Counts a failure of a slot; a worker that has proved itself starts the count anew.
    fn count(&mut self, slot: Slot, now: Time, proved: bool, failed: bool) {
        if proved {
            self.streaks.remove(&slot);
        }
        if failed {
            let streak = self.streaks.entry(slot).or_insert(Streak { deaths: 0, last: now });
            streak.deaths += 1;
            streak.last = now;
        }
    }

    /// Somebody has mended something: failures no longer count.
    fn forgive(&mut self) {
        self.streaks.clear();
        self.waits.clear();
    }

    fn take_event(&mut self, now: Time, input: Option<&Input>, what: &What) {
        match what {
            What::BrokerDraining => {
                self.held = true;
                self.unopened = 0;
                self.cut_by_drain = 0;
                self.listening = false;
                self.asked = None;
                self.forgive();
            }
            What::BrokerResumed | What::BrokerOpened => {
                self.held = false;
                self.timed_since = now;
            }
            What::BrokerStarted { .. } => self.timed_since = now,
            What::BrokerWaiting { .. } => {
                self.held = false;
                self.listening = false;
            }
            What::BrokerScaled { wanted } => {
                let more = wanted.saturating_sub(self.wanted);
                self.grown.retain(|(at, _)| now.since(*at) < WINDOW);
                self.grown.push((now, u64::from(more)));
                self.wanted = *wanted;
                self.most_wanted = self.most_wanted.max(*wanted);
                self.forgive();
            }
            What::WorkerBackoff { slot, retry_at, .. } => {
                self.waits.insert(*slot, *retry_at);
            }
            What::RecycleStarted { target, reason, .. } => {
                self.recycling = true;
                self.recycles += 1;
                (self.cut_by_recycle, self.cut_during_recycle) = (0, 0);
                self.only = match input {
                    Some(Input::Command { command: Command::Broker(_, Verb::Recycle(only)), .. }) => *only,
                    _ => None,
                };
                if *reason == RecycleReason::ByTime || *target > self.target {
                    self.timed_since = now;
                }
                self.queued &= *reason != RecycleReason::Asked;
                self.target = *target;
                self.forgive();
                let launch = match input {
                    _ if *reason == RecycleReason::GoingBack => self.launches.get(&self.generation).copied(),
                    Some(Input::Command { command: Command::Broker(_, Verb::Respecify(spec)), .. }) => {
                        Some(spec.launch)
                    }
                    _ => None,
                };
                if let Some(launch) = launch {
                    self.launches.entry(*target).or_insert(launch);
                }
            }
            What::RecycleFinished { generation, .. } => {
                self.recycling = false;
                self.generation = *generation;
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
    /// Runs, and neither serves nor was asked to leave.
    pub(crate) fn is_starting(&self) -> bool {
        self.started.is_some() && self.ready.is_none() && self.signalled.is_none()
    }

    pub(crate) fn serves(&self) -> bool {
        self.ready.is_some() && self.leaving.is_none()
    }

    /// It counts: nobody has asked it to leave, as far as can be seen.
    pub(crate) fn stays(&self) -> bool {
        self.leaving.is_none() && !self.doubtful
    }
}

/// Whether a worker of this specification is known to be ready by a sign of its own.
pub(crate) fn says_ready(spec: &BrokerSpec) -> bool {
    match spec.ready {
        Ready::Notify | Ready::Accepting => true,
        Ready::After(_) => false,
    }
}

/// Whether a worker was asked to leave for not having become ready, which is a failure.
pub(crate) fn is_unready(reason: &str) -> bool {
    reason.starts_with("was not ready") || reason.starts_with("may not be looked at")
}

/// Commands that may wait at once.
pub(crate) const MOST_OPEN: usize = 512;
/// How long a start is remembered.
pub(crate) const WINDOW: Duration = Duration::from_secs(10);

/// The rungs that ask; after them it is killed.
pub(crate) fn ladder(spec: &BrokerSpec) -> &[Rung] {
    let rungs = &spec.stop.0;
    let kill = rungs.iter().position(|rung| rung.signal == Signal::KILL);
    &rungs[..kill.unwrap_or(rungs.len())]
}
