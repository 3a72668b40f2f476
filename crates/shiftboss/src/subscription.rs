//! What a broker's workers say, and what happens to them, in one order.

use std::sync::Arc;

use serde::{Deserialize, Serialize, Serializer};
use serde_json::value::RawValue;
use shiftboss_api::{Event, EventName};
use shiftboss_core::id::WorkerId;
use tokio::sync::mpsc;

use crate::broker::Broker;
use crate::mail::{Happening, Kind, Said};
use crate::members::Member;

/// Everything that happens to a [`Broker`] from a moment on: to be awaited in any runtime, or waited for outside of one.
/// One that is not read slows the workers down, and misses events in the end: see [`BrokerEvent::Missed`]. Drop what is not
/// needed.
pub struct Subscription {
    broker: Broker,
    happenings: mpsc::Receiver<Happening>,
    portion: Option<Portion>,
    answers: bool,
}

/// What one worker has said, as far as it is not taken.
struct Portion {
    said: Arc<Said>,
    worker: Member,
    next: usize,
}

/// One thing that happened.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BrokerEvent {
    /// A worker left as it was asked to, or by itself with 0.
    WorkerEnded(WorkerExit),
    /// A worker ended in any other way. It is replaced, and was reported.
    WorkerDeath(WorkerExit),
    /// A worker said something.
    WorkerMessage {
        /// What.
        message: Message,
        /// Which worker.
        worker: Member,
    },
    /// A worker said how it does: a message whose `type` is `"ops"`.
    WorkerOps {
        /// What.
        message: Message,
        /// Which worker.
        worker: Member,
    },
    /// A worker asks something; only for those who answer.
    #[doc(hidden)]
    Call {
        /// The number of the question.
        id: u64,
        /// What.
        message: Message,
        /// Which worker.
        worker: Member,
    },
    /// So many events and messages were dropped here, since this subscription was not read while 16 MiB waited for it.
    Missed(u64),
    /// Something else that has changed: see [`EventName`]. Events that are told in this way are those of
    /// `shiftboss events`.
    Other(Arc<Event>),
}

/// How a worker ended.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct WorkerExit {
    /// Its id.
    pub id: String,
    /// Its exit code, if it had one.
    pub code: Option<i32>,
    /// The signal that ended it, as "SIGKILL".
    pub signal: Option<String>,
    /// Why, in words.
    pub reason: Option<String>,
    /// The worker, which is gone.
    pub worker: Member,
}

/// A JSON value that was said, as it was written. It can be said again: as a message it is this value.
#[derive(Clone)]
pub struct Message(Inner);

#[derive(Clone)]
enum Inner {
    /// One of those that came together.
    Of(Arc<Said>, usize),
    Alone(Arc<RawValue>),
}

impl Message {
    pub(crate) fn alone(raw: Box<RawValue>) -> Message {
        Message(Inner::Alone(raw.into()))
    }

    /// Its JSON.
    #[must_use]
    pub fn get(&self) -> &str {
        self.raw().get()
    }

    fn raw(&self) -> &RawValue {
        match &self.0 {
            Inner::Of(said, at) => said.messages.get(*at).map_or(RawValue::NULL, |message| &message.letter),
            Inner::Alone(raw) => raw,
        }
    }

    /// The value, in a form of the caller's.
    ///
    /// # Errors
    /// If it is of another form.
    pub fn parse<'m, T: Deserialize<'m>>(&'m self) -> serde_json::Result<T> {
        serde_json::from_str(self.get())
    }
}

impl Serialize for Message {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.raw().serialize(serializer)
    }
}

impl std::fmt::Debug for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.get())
    }
}

impl std::fmt::Display for Message {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.get())
    }
}

impl std::fmt::Debug for Subscription {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Subscription").field("broker", &self.broker).finish_non_exhaustive()
    }
}

impl Subscription {
    pub(crate) fn new(broker: Broker, happenings: mpsc::Receiver<Happening>, answers: bool) -> Self {
        Subscription { broker, happenings, portion: None, answers }
    }

    /// The next event; none once the app has ended. Dropping the future loses nothing.
    pub async fn recv(&mut self) -> Option<BrokerEvent> {
        loop {
            if let Some(event) = self.next_of_portion() {
                return Some(event);
            }
            let happening = self.happenings.recv().await?;
            if let Some(event) = self.take(happening) {
                return Some(event);
            }
        }
    }

    /// The same, blocking: not to be called from asynchronous code.
    pub fn blocking_recv(&mut self) -> Option<BrokerEvent> {
        match self.try_recv() {
            Some(event) => Some(event),
            None => crate::engine::block_on(self.recv()),
        }
    }

    /// The next event if there is one already.
    pub fn try_recv(&mut self) -> Option<BrokerEvent> {
        loop {
            if let Some(event) = self.next_of_portion() {
                return Some(event);
            }
            let happening = self.happenings.try_recv().ok()?;
            if let Some(event) = self.take(happening) {
                return Some(event);
            }
        }
    }

    /// The event, or none yet: see [`Subscription::next_of_portion`].
    fn take(&mut self, happening: Happening) -> Option<BrokerEvent> {
        match happening {
            Happening::Event(event) => Some(self.event(event)),
            Happening::Missed(count) => Some(BrokerEvent::Missed(count)),
            Happening::Said(said) => {
                let worker = Member::of(self.broker.clone(), said.worker, said.pid, said.slot);
                self.portion = Some(Portion { said, worker, next: 0 });
                None
            }
        }
    }

    fn next_of_portion(&mut self) -> Option<BrokerEvent> {
        let Portion { said, worker, next } = self.portion.as_mut()?;
        while let Some(one) = said.messages.get(*next) {
            let message = Message(Inner::Of(Arc::clone(said), *next));
            *next += 1;
            let worker = worker.clone();
            match one.kind {
                Kind::Message => return Some(BrokerEvent::WorkerMessage { message, worker }),
                Kind::Ops => return Some(BrokerEvent::WorkerOps { message, worker }),
                Kind::Call(id) if self.answers => return Some(BrokerEvent::Call { id, message, worker }),
                Kind::Call(_) => {}
            }
        }
        self.portion = None;
        None
    }

    fn event(&self, event: Arc<Event>) -> BrokerEvent {
        let exit = || {
            let id = event.worker.clone()?;
            let number = WorkerId(id.parse().ok()?);
            let pid = event.pid.unwrap_or_default();
            let worker = Member::of(self.broker.clone(), number, pid, event.slot);
            let (code, signal, reason) = (event.code, event.signal.clone(), event.reason.clone());
            Some(WorkerExit { id, code, signal, reason, worker })
        };
        let is_ending = self.broker.app().graceful_shutdown();
        match (event.event, exit()) {
            (EventName::WorkerEnded, Some(exit)) => BrokerEvent::WorkerEnded(exit),
            // Whoever ends has asked for it.
            (EventName::WorkerDeath, Some(exit)) if is_ending => BrokerEvent::WorkerEnded(exit),
            (EventName::WorkerDeath, Some(exit)) => BrokerEvent::WorkerDeath(exit),
            _ => BrokerEvent::Other(event),
        }
    }
}
