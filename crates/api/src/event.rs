//! `GET /v1/events`: one event for each change of state.

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

/// One change. Fields that do not apply are null; those of one event only are left out elsewhere.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Event {
    /// Rises by one with each event; never repeats in an app's life.
    pub seq: u64,
    /// When.
    pub at: String,
    /// Which broker; null for the app's own.
    pub broker: Option<String>,
    /// What.
    pub event: EventName,
    /// Which worker.
    pub worker: Option<String>,
    /// Its slot.
    pub slot: Option<u32>,
    /// Its process.
    pub pid: Option<u32>,
    /// Exit code of a worker that has gone.
    pub code: Option<i32>,
    /// Signal that ended it, as "SIGKILL".
    pub signal: Option<String>,
    /// It did not leave in time when asked and was killed.
    pub forced: bool,
    /// Why, in words.
    pub reason: Option<String>,
    /// The command that caused it.
    pub request: Option<String>,
    /// Specification of the worker, or target of a recycle.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub generation: Option<u32>,
    /// Workers asked for, in `broker_started` and `broker_scaled`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub wanted: Option<u32>,
    /// From start to ready, in `worker_ready`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub ready_ms: Option<f64>,
    /// When the slot gets its next worker, in `worker_backoff`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub retry_at: Option<String>,
    /// Workers a recycle has to replace, in `recycle_*`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub total: Option<u32>,
    /// Workers it has replaced.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub replaced: Option<u32>,
    /// Workers that were killed because they did not leave in time: by this recycle or drain.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub cut: Option<u32>,
    /// Connections reset because nobody was left to take them, in `broker_drained`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub refused: Option<u64>,
    /// The address, in `listener_*`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub address: Option<String>,
    /// Workers that were running and go on, in `broker_adopted`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub workers: Option<u32>,
    /// It is drained or being drained, by its schedule too, in `broker_adopted`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub drained: Option<bool>,
    /// What was under way was given up, in `broker_adopted`.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub salvaged: Option<bool>,
}

impl Event {
    /// An event to which nothing else applies.
    #[must_use]
    pub fn new(seq: u64, at: impl Into<String>, event: EventName) -> Self {
        Event {
            seq,
            at: at.into(),
            event,
            broker: None,
            worker: None,
            slot: None,
            pid: None,
            code: None,
            signal: None,
            forced: false,
            reason: None,
            request: None,
            generation: None,
            wanted: None,
            ready_ms: None,
            retry_at: None,
            total: None,
            replaced: None,
            cut: None,
            refused: None,
            address: None,
            workers: None,
            drained: None,
            salvaged: None,
        }
    }
}

/// A message of a worker, in the same stream: live only, never numbered, kept or told again.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct MessageEvent {
    /// When it was heard.
    pub at: String,
    /// Which broker's.
    pub broker: String,
    /// Which kind of message.
    pub event: MessageName,
    /// Whose.
    pub worker: String,
    /// Its slot; null of a standby.
    pub slot: Option<u32>,
    /// Its process.
    pub pid: u32,
    /// The JSON as the worker wrote it.
    pub message: Box<RawValue>,
}

impl PartialEq for MessageEvent {
    fn eq(&self, other: &MessageEvent) -> bool {
        let words = |event: &MessageEvent| (event.event, event.slot, event.pid);
        let texts = |event: &MessageEvent| [event.at.clone(), event.broker.clone(), event.worker.clone()];
        words(self) == words(other)
            && texts(self) == texts(other)
            && self.message.get() == other.message.get()
    }
}

/// What kind of message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MessageName {
    /// `worker_message`
    #[serde(rename = "worker_message")]
    WorkerMessage,
    /// `worker_ops`: an object whose `type` is `"ops"`.
    #[serde(rename = "worker_ops")]
    WorkerOps,
}

impl MessageName {
    /// The name on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            MessageName::WorkerMessage => "worker_message",
            MessageName::WorkerOps => "worker_ops",
        }
    }
}

macro_rules! names {
    ($($variant:ident $text:literal),* $(,)?) => {
        /// What an event tells.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum EventName {
            $(#[doc = concat!("`", $text, "`")] #[serde(rename = $text)] $variant,)*
        }

        impl EventName {
            /// Every name.
            pub const ALL: &'static [EventName] = &[$(EventName::$variant),*];

            /// The name on the wire.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(EventName::$variant => $text),* }
            }
        }
    };
}

names! {
    WorkerStarted "worker_started",
    WorkerReady "worker_ready",
    WorkerStandby "worker_standby",
    WorkerPromoted "worker_promoted",
    WorkerStopping "worker_stopping",
    WorkerEnded "worker_ended",
    WorkerDeath "worker_death",
    WorkerBackoff "worker_backoff",
    RecycleStarted "recycle_started",
    RecycleFinished "recycle_finished",
    RecycleFailed "recycle_failed",
    BrokerStarted "broker_started",
    BrokerWaiting "broker_waiting",
    BrokerOpened "broker_opened",
    BrokerClosed "broker_closed",
    BrokerDraining "broker_draining",
    BrokerDrained "broker_drained",
    BrokerResumed "broker_resumed",
    BrokerScaled "broker_scaled",
    BrokerDegraded "broker_degraded",
    BrokerRecovered "broker_recovered",
    BrokerAdopted "broker_adopted",
    BrokerFinished "broker_finished",
    BrokerRemoved "broker_removed",
    ListenerBound "listener_bound",
    ListenerClosed "listener_closed",
    ListenerFailed "listener_failed",
    ConfigApplied "config_applied",
    ConfigRefused "config_refused",
    AppReady "app_ready",
    AppStopping "app_stopping",
}

impl std::fmt::Display for EventName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Sent in the stream where events are missing: the client was too slow or asked for what is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EventsLost {
    /// How many.
    pub events_lost: u64,
}
