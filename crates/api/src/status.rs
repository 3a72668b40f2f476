//! `GET /v1/status`.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// All of an app, as `shiftboss status --json` prints it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The app's name.
    pub app: String,
    /// The keeper's pid, or the broker process's when there is none.
    pub pid: u32,
    /// The pid of the process that runs the brokers.
    pub broker_pid: u32,
    /// Version of that process.
    pub version: String,
    /// The environment that was chosen.
    pub environment: String,
    /// Since when the app runs.
    pub started_at: String,
    /// Every broker, in order of declaration.
    pub brokers: Vec<Broker>,
}

/// One broker.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Broker {
    /// The type of its workers.
    #[serde(rename = "type")]
    pub name: String,
    /// Whether it works, and why not.
    pub state: BrokerState,
    /// How many workers are asked for.
    pub wanted: u32,
    /// How many are ready.
    pub ready: u32,
    /// How many stand by.
    pub standby: u32,
    /// The specification its workers run.
    pub generation: u32,
    /// The specification its workers shall run.
    pub target_generation: u32,
    /// Its workers keep failing.
    pub degraded: bool,
    /// A recycle is under way.
    pub recycling: bool,
    /// Deaths since the app started.
    pub deaths: u64,
    /// Why a worker last failed.
    pub last_failure: Option<String>,
    /// Addresses it listens on, as bound.
    pub listen: Vec<String>,
    /// When its schedule opens or closes it next; none without a schedule.
    #[serde(default)]
    pub next_change_at: Option<String>,
    /// Every worker and every slot that waits for one, by slot, then id.
    pub workers: Vec<Worker>,
}

/// Whether a broker works, and why not.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BrokerState {
    /// Keeps its workers alive.
    Open,
    /// Sending its workers home.
    Draining,
    /// No workers, until resumed.
    Drained,
    /// Outside its schedule.
    Closed,
    /// For a listener or another broker.
    Waiting,
    /// Its one-shot work is done.
    Finished,
}

/// One worker, or a slot that waits for its next one.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Worker {
    /// Unique in the app's life; none while in back-off.
    pub id: Option<String>,
    /// Its place; none for a standby.
    pub slot: Option<u32>,
    /// Its process; none while in back-off.
    pub pid: Option<u32>,
    /// Where it is in its life.
    pub state: WorkerState,
    /// The specification it was started from.
    pub generation: u32,
    /// When it was started.
    pub started_at: Option<String>,
    /// From its start until it was ready, in milliseconds.
    pub ready_ms: Option<f64>,
    /// When its slot gets its next worker; only in back-off.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_at: Option<String>,
    /// Resident memory of its process.
    pub rss_bytes: Option<u64>,
    /// CPU used by its process since the last look, 100 = one core.
    pub cpu_percent: Option<f64>,
    /// What it last said of itself on its channel, if it ever did.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub numbers: Option<Numbers>,
}

/// What a worker says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Numbers {
    /// Pieces of work in hand.
    pub busy: u64,
    /// Numbers of its own, by name.
    pub counters: BTreeMap<String, u64>,
}

/// Where a worker is in its life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum WorkerState {
    /// Started, not ready yet.
    Starting,
    /// Serving.
    Ready,
    /// Fully started and waiting to be promoted.
    Standby,
    /// Asked to leave.
    Stopping,
    /// Its slot waits before the next worker.
    Backoff,
}
