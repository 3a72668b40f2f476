//! What subscribers get: every event, numbered, the last ones kept; and the status, which is their fold.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use shiftboss_api as api;
use shiftboss_core::id::{BrokerId, WorkerId};
use shiftboss_core::status::{BrokerState, WorkerState};
use shiftboss_core::{Event, Status};
use tokio::sync::broadcast;

use crate::convert::{self, Moment};
use crate::handle::Names;
use crate::mail::Said;
use crate::usages::Usages;

pub(crate) struct Feed {
    names: Names,
    status: Status,
    kept: VecDeque<Arc<api::Event>>,
    /// The number of the next event.
    next: u64,
    live: broadcast::Sender<Arc<api::Event>>,
    /// Messages, for whoever watches.
    said: broadcast::Sender<Arc<Said>>,
    usages: Usages,
}

/// Events from a certain one on: the kept ones now, the later ones as they come.
pub(crate) struct Subscription {
    /// Events that are asked for and no longer kept.
    pub(crate) lost: u64,
    pub(crate) kept: Vec<Arc<api::Event>>,
    pub(crate) live: broadcast::Receiver<Arc<api::Event>>,
    pub(crate) said: broadcast::Receiver<Arc<Said>>,
}

impl Feed {
    pub(crate) fn new(names: Names) -> Self {
        Feed {
            names,
            status: Status::default(),
            kept: VecDeque::new(),
            next: 1,
            live: broadcast::Sender::new(LIVE),
            said: broadcast::Sender::new(SAID),
            usages: Usages::default(),
        }
    }

    /// Goes on with the status and the last events of another process.
    pub(crate) fn adopt(
        &mut self,
        status: Status,
        events: impl IntoIterator<Item = api::Event>,
        last_event: u64,
    ) {
        (self.status, self.next) = (status, last_event + 1);
        self.kept = events.into_iter().map(Arc::new).collect();
        let surplus = self.kept.len().saturating_sub(KEPT);
        self.kept.drain(..surplus);
    }

    /// An event as the wire has it.
    pub(crate) fn convert(&self, event: &Event) -> api::Event {
        let names = self.names.now();
        let broker = event.broker.and_then(|BrokerId(at)| names.get(at as usize));
        convert::event(event, broker.map(String::as_str), Moment::now())
    }

    /// Takes in an event and tells all who listen.
    pub(crate) fn publish(&mut self, event: &Event, wire: api::Event) -> Arc<api::Event> {
        self.status.apply(event);
        self.next = event.seq + 1;
        let event = Arc::new(wire);
        if self.kept.len() == KEPT {
            self.kept.pop_front();
        }
        self.kept.push_back(Arc::clone(&event));
        // Nobody listening is no failure.
        let _ = self.live.send(Arc::clone(&event));
        event
    }

    /// Tells those who watch what a worker said; they may miss some.
    pub(crate) fn publish_said(&self, said: &Arc<Said>) {
        if self.said.receiver_count() == 0 {
            return;
        }
        let weight: usize = said.messages.iter().map(|message| message.letter.get().len() + AROUND).sum();
        // A slow watcher has so much held for it.
        if weight.saturating_mul(self.said.len()) > HELD {
            return;
        }
        // Nobody watching is no failure.
        let _ = self.said.send(Arc::clone(said));
    }

    /// Events after that number; none = all that are kept.
    pub(crate) fn subscribe(&self, after: Option<u64>) -> Subscription {
        let first = self.kept.front().map_or(self.next, |event| event.seq);
        let after = after.unwrap_or(first - 1);
        Subscription {
            lost: first.saturating_sub(after.saturating_add(1)),
            kept: self.kept.iter().filter(|event| event.seq > after).cloned().collect(),
            live: self.live.subscribe(),
            said: self.said.subscribe(),
        }
    }

    /// Every broker as it is now.
    pub(crate) fn brokers(&mut self) -> Vec<api::Broker> {
        let moment = Moment::now();
        self.usages.begin();
        self.status
            .brokers
            .iter()
            .zip(self.names.now().iter())
            .map(|(status, name)| convert::broker(name, status, &mut self.usages, moment))
            .collect()
    }

    /// Of each slot of a broker the worker that is ready, else one that is to be, else the one that leaves; the newest.
    pub(crate) fn audience(&self, broker: BrokerId) -> Vec<(WorkerId, u32)> {
        let rank = |state| match state {
            WorkerState::Ready => 2,
            WorkerState::Starting => 1,
            WorkerState::Standby | WorkerState::Stopping => 0,
        };
        let mut nearest = BTreeMap::new();
        let workers = self.status.brokers.get(broker.0 as usize).map(|broker| &broker.workers);
        for (worker, status) in workers.into_iter().flatten() {
            let Some(slot) = status.slot else { continue };
            let this = (rank(status.state), *worker);
            let known = nearest.entry(slot.0).or_insert(this);
            *known = this.max(*known);
        }
        nearest.into_iter().map(|(slot, (_, worker))| (worker, slot)).collect()
    }

    /// Whether this broker keeps workers alive.
    pub(crate) fn is_open(&self, BrokerId(at): BrokerId) -> bool {
        self.status.brokers.get(at as usize).is_some_and(|broker| broker.state == BrokerState::Open)
    }

    /// Every broker is open with as many workers ready as it wants, or closed by its schedule, and the app is not
    /// ending.
    pub(crate) fn is_ready(&self) -> bool {
        let all = self.status.brokers.iter().all(|broker| match broker.state {
            BrokerState::Open => broker.ready() >= broker.wanted,
            BrokerState::Closed => true,
            BrokerState::Waiting | BrokerState::Draining | BrokerState::Drained => false,
        });
        self.status.ready && !self.status.stopping && all
    }
}

/// Events kept for those who come later.
const KEPT: usize = 1024;
/// Portions of messages that a slow watcher may lag behind.
const SAID: usize = 64;
/// Bytes of messages that are held for slow watchers, about, and what one takes beside its own.
const HELD: usize = 16 << 20;
const AROUND: usize = 64;
/// Events a slow subscriber may lag behind before it loses some; it is told how many.
const LIVE: usize = 1024;

#[cfg(test)]
mod tests {
    use serde_json::value::RawValue;
    use shiftboss_core::id::WorkerId;

    use super::*;
    use crate::mail::{Kind, Message};

    /// How many of these portions are held for a watcher that does not look.
    fn held(messages: usize, length: usize) -> usize {
        let feed = Feed::new(Names::of(Arc::new(["api".to_owned()])));
        let watcher = feed.subscribe(None);
        let letter = RawValue::from_string("1".repeat(length)).unwrap();
        let message = || Message { letter: letter.clone(), kind: Kind::Message };
        let messages = std::iter::repeat_with(message).take(messages).collect();
        let said =
            Arc::new(Said { broker: BrokerId(0), worker: WorkerId(1), pid: 1, slot: Some(0), messages });
        for _ in 0..SAID {
            feed.publish_said(&said);
        }
        watcher.said.len()
    }

    #[test]
    fn little_is_held_for_a_watcher_that_is_slow() {
        assert_eq!(held(10, 1000), SAID);
        assert_eq!(held(1, 10 << 20), 2);
        assert!(held(32_768, 1) < 10);
    }
}
