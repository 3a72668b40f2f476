//! What is seen: the fold of the events. Whoever has all events of an app has its status.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::event::{Event, What};
use crate::id::{Generation, Pid, Slot, WorkerId};
use crate::time::Time;

/// An app as its events tell it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Status {
    /// Every broker has had all its workers ready.
    pub ready: bool,
    /// The app is ending.
    pub stopping: bool,
    /// Every broker, in order of declaration.
    pub brokers: Vec<BrokerStatus>,
}

/// One broker.
#[derive(Clone, Debug, PartialEq)]
pub struct BrokerStatus {
    /// Whether it works, and why not.
    pub state: BrokerState,
    /// How many workers are asked for.
    pub wanted: u32,
    /// The specification that last became ready everywhere.
    pub generation: Generation,
    /// The specification new workers run.
    pub target: Generation,
    /// Its workers keep failing.
    pub degraded: bool,
    /// A recycle is under way.
    pub recycling: bool,
    /// Deaths so far.
    pub deaths: u64,
    /// Why a worker last died, or left before it was ready.
    pub last_failure: Option<String>,
    /// Addresses as bound.
    pub listen: Vec<String>,
    /// Its processes.
    pub workers: BTreeMap<WorkerId, WorkerStatus>,
    /// Slots in back-off, and until when.
    pub backoff: BTreeMap<Slot, Time>,
    /// Until when the next standby waits, if it does.
    pub standby_backoff: Option<Time>,
}

/// Whether a broker works, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerState {
    /// For its listeners.
    Waiting,
    /// Keeps its workers alive.
    Open,
    /// Sends them home.
    Draining,
    /// Has none until resumed.
    Drained,
    /// Has none until its schedule opens it.
    Closed,
}

/// One process.
#[derive(Clone, Debug, PartialEq)]
pub struct WorkerStatus {
    /// Its place; none for a standby.
    pub slot: Option<Slot>,
    /// Its process.
    pub pid: Pid,
    /// Where it is in its life.
    pub state: WorkerState,
    /// The specification it runs.
    pub generation: Generation,
    /// When it was started.
    pub started_at: Time,
    /// How long it took to become ready.
    pub ready_after: Option<Duration>,
}

/// Where a process is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WorkerState {
    /// Not ready yet.
    Starting,
    /// Serving.
    Ready,
    /// Fully started, and waiting to be promoted.
    Standby,
    /// Asked to leave.
    Stopping,
}

impl Status {
    /// Takes in the next event.
    pub fn apply(&mut self, event: &Event) {
        match &event.what {
            What::AppReady => self.ready = true,
            What::AppStopping => self.stopping = true,
            What::BrokerStarted { wanted, generation, listens, scheduled } => {
                let state = match (scheduled, listens) {
                    (true, _) => BrokerState::Closed,
                    (false, true) => BrokerState::Waiting,
                    (false, false) => BrokerState::Open,
                };
                self.brokers.push(BrokerStatus::new(*wanted, *generation, state));
            }
            what => {
                let broker = event.broker.and_then(|id| self.brokers.get_mut(id.0 as usize));
                if let Some(broker) = broker {
                    broker.apply(event.at, what);
                }
            }
        }
    }
}

impl BrokerStatus {
    fn new(wanted: u32, generation: Generation, state: BrokerState) -> Self {
        BrokerStatus {
            state,
            wanted,
            generation,
            target: generation,
            degraded: false,
            recycling: false,
            deaths: 0,
            last_failure: None,
            listen: Vec::new(),
            workers: BTreeMap::new(),
            backoff: BTreeMap::new(),
            standby_backoff: None,
        }
    }

    /// How many workers are ready.
    #[must_use]
    pub fn ready(&self) -> u32 {
        self.count(WorkerState::Ready)
    }

    /// How many standbys wait to be promoted.
    #[must_use]
    pub fn standby(&self) -> u32 {
        self.count(WorkerState::Standby)
    }

    fn count(&self, state: WorkerState) -> u32 {
        let count = self.workers.values().filter(|worker| worker.state == state).count();
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    fn apply(&mut self, at: Time, what: &What) {
        match what {
            What::ListenerBound { address } => self.listen.push(address.clone()),
            What::ListenerClosed { address } => self.listen.retain(|bound| bound != address),
            What::BrokerWaiting { .. } => self.state = BrokerState::Waiting,
            What::BrokerOpened | What::BrokerResumed => self.state = BrokerState::Open,
            What::BrokerDraining => {
                self.state = BrokerState::Draining;
                self.backoff.clear();
                self.standby_backoff = None;
            }
            What::BrokerDrained { .. } => self.state = BrokerState::Drained,
            What::BrokerClosed => self.state = BrokerState::Closed,
            What::BrokerScaled { wanted } => {
                self.wanted = *wanted;
                self.backoff.retain(|slot, _| slot.0 < *wanted);
            }
            What::BrokerDegraded { .. } => self.degraded = true,
            What::BrokerRecovered => self.degraded = false,
            What::WorkerStarted { worker, slot, pid, generation } => {
                self.forget_backoff(*slot);
                let status = WorkerStatus {
                    slot: *slot,
                    pid: *pid,
                    state: WorkerState::Starting,
                    generation: *generation,
                    started_at: at,
                    ready_after: None,
                };
                self.workers.insert(*worker, status);
            }
            What::WorkerStandby { worker, .. } => {
                if let Some(status) = self.workers.get_mut(worker) {
                    status.state = WorkerState::Standby;
                }
            }
            What::WorkerPromoted { worker, slot, .. } => {
                self.backoff.remove(slot);
                if let Some(status) = self.workers.get_mut(worker) {
                    (status.slot, status.state) = (Some(*slot), WorkerState::Starting);
                }
            }
            What::WorkerReady { worker, after, .. } => {
                if let Some(status) = self.workers.get_mut(worker) {
                    status.state = WorkerState::Ready;
                    status.ready_after = Some(*after);
                }
            }
            What::WorkerStopping { worker, .. } => {
                if let Some(status) = self.workers.get_mut(worker) {
                    status.state = WorkerState::Stopping;
                }
            }
            What::WorkerEnded { worker, slot, exit, .. } => {
                let unready = |status: WorkerStatus| status.state == WorkerState::Starting;
                // No death, and not what it was started for, unless all go home.
                if self.workers.remove(worker).is_some_and(unready)
                    && !matches!(self.state, BrokerState::Draining | BrokerState::Drained)
                {
                    let reason = format!("{exit} before it was ready");
                    self.last_failure = Some(last_failure(*worker, *slot, &reason));
                }
            }
            What::WorkerDeath { worker, slot, reason, .. } => {
                self.workers.remove(worker);
                self.deaths += 1;
                self.last_failure = Some(last_failure(*worker, *slot, reason));
            }
            What::WorkerBackoff { slot, retry_at, .. } => match slot {
                Some(slot) => drop(self.backoff.insert(*slot, *retry_at)),
                None => self.standby_backoff = Some(*retry_at),
            },
            What::RecycleStarted { target, .. } => {
                self.recycling = true;
                self.standby_backoff = None;
                self.target = *target;
            }
            What::RecycleFinished { generation, .. } | What::RecycleFailed { generation, .. } => {
                self.recycling = false;
                self.generation = *generation;
            }
            What::ListenerFailed { .. }
            | What::BrokerStarted { .. }
            | What::BrokerAdopted { .. }
            | What::AppReady
            | What::AppStopping => {}
        }
    }

    fn forget_backoff(&mut self, slot: Option<Slot>) {
        match slot {
            Some(slot) => drop(self.backoff.remove(&slot)),
            None => self.standby_backoff = None,
        }
    }
}

/// How a death is remembered.
pub(crate) fn last_failure(worker: WorkerId, slot: Option<Slot>, reason: &str) -> String {
    match slot {
        Some(slot) => format!("worker {worker} (slot {slot}) {reason}"),
        None => format!("worker {worker} (standby) {reason}"),
    }
}
