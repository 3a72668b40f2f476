//! One worker of a broker, as the program that has the broker sees it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde_json::value::RawValue;
use shiftboss_core::id::WorkerId;
use shiftboss_core::spec::Signal;
use tokio::sync::oneshot;

use crate::answer::{Answer, AskError, Call};
use crate::broker::{Broker, json, question};
use crate::handle::Order;
use crate::mail::{CallError, Errand};

/// A worker of a [`Broker`]. It may be gone: then what is asked of it says so.
#[derive(Clone, Debug)]
pub struct Member {
    broker: Broker,
    worker: WorkerId,
    pid: u32,
    slot: Option<u32>,
}

impl Member {
    pub(crate) fn of(broker: Broker, worker: WorkerId, pid: u32, slot: Option<u32>) -> Member {
        Member { broker, worker, pid, slot }
    }

    pub(crate) fn number(&self) -> WorkerId {
        self.worker
    }

    /// Its id, unique in the app's life.
    #[must_use]
    pub fn id(&self) -> String {
        self.worker.to_string()
    }

    /// The id of its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Its slot: a place that is kept, from 0. A successor has the number of its predecessor. None of a standby.
    #[must_use]
    pub fn slot(&self) -> Option<u32> {
        self.slot
    }

    /// The broker that it is of.
    #[must_use]
    pub fn broker(&self) -> &Broker {
        &self.broker
    }

    /// Sends it a message: any value that serialises to JSON, of up to 16 MiB. It is on its way when the answer is there;
    /// whether it is read nobody knows. To be dropped if that does not matter: a failure is then reported.
    pub fn send<T: Serialize + ?Sized>(&self, message: &T) -> Answer<()> {
        let message = match json(message) {
            Ok(message) => message,
            Err(error) => return Answer::unspeakable(&error),
        };
        let (reply, told) = oneshot::channel();
        let line = message.get().as_bytes().to_vec();
        self.broker.run(Errand::Tell { worker: self.worker, line, reply: Some(reply) });
        Answer::of(told, |told| told.map_err(AskError::from))
    }

    /// Asks it something: see [`WorkerContext::on_call`](crate::WorkerContext::on_call) for its side.
    pub fn call<T: Serialize + ?Sized, R>(&self, message: &T) -> Call<R> {
        Call::to_worker(self.clone(), question(message))
    }

    pub(crate) async fn ask(
        &self,
        message: Box<RawValue>,
        within: Duration,
    ) -> Result<Box<RawValue>, CallError> {
        let (reply, answer) = oneshot::channel();
        self.broker.run(Errand::Call { worker: self.worker, message, within, reply });
        answer.await.unwrap_or(Err(CallError::AppEnded))
    }

    /// Sends its process a signal, as [`Signal::TERM`]. It is replaced like any that leaves unasked.
    pub fn kill(&self, signal: Signal) {
        self.broker.run(Errand::Signal { worker: self.worker, signal: signal.0 });
    }

    /// Ends its channel, once what it has said is heard: it sees that, and has a second to leave before it is asked to by
    /// its ladder.
    pub fn disconnect(&self) {
        self.broker.run(Errand::HangUp { worker: self.worker });
    }
}

/// Equal if they are the same worker of the same app.
impl PartialEq for Member {
    fn eq(&self, other: &Member) -> bool {
        let (engine, others) = (&self.broker.shared.engine, &other.broker.shared.engine);
        self.worker == other.worker && Arc::ptr_eq(engine, others)
    }
}

impl Eq for Member {}

impl Hash for Member {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.worker.0.hash(state);
    }
}

/// All of a broker.
pub(crate) struct Members;

impl Members {
    pub(crate) fn of(broker: Broker) -> Answer<Vec<Member>> {
        let (reply, status) = oneshot::channel();
        broker.shared.engine.give(Order::Status(reply));
        Answer::of(status, move |brokers: Vec<shiftboss_api::Broker>| {
            let own = brokers.into_iter().find(|status| status.name == broker.worker_type());
            let workers = own.map(|own| own.workers).unwrap_or_default();
            let member = |worker: shiftboss_api::Worker| {
                let id = WorkerId(worker.id?.parse().ok()?);
                Some(Member::of(broker.clone(), id, worker.pid?, Some(worker.slot?)))
            };
            Ok(workers.into_iter().filter_map(member).collect())
        })
    }
}
