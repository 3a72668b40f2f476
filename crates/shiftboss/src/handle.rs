//! The way to a running app from other threads and tasks: orders to its driver.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};

use shiftboss_api as api;
use shiftboss_core::Command;
use shiftboss_core::id::{BrokerId, RequestId, WorkerId};
use tokio::sync::{mpsc, oneshot};

use crate::extend::Extensions;
use crate::feed::Subscription;
use crate::mail::Errand;
use crate::options::BrokerOptions;
use crate::run::RunError;

/// Gives orders to the app; cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    orders: mpsc::Sender<Order>,
    info: Arc<Info>,
    /// What the last requests were about.
    asked: Arc<Mutex<VecDeque<(RequestId, String)>>>,
}

/// What never changes while the app runs.
pub(crate) struct Info {
    /// The process that is the app to others.
    pub(crate) pid: u32,
    pub(crate) app: String,
    pub(crate) environment: String,
    pub(crate) started_at: String,
    /// Types in order of declaration: the position is the broker's id.
    pub(crate) brokers: Names,
}

/// The brokers' types, as they are now: one may join.
#[derive(Clone, Default)]
pub(crate) struct Names(Arc<Mutex<Arc<[String]>>>);

impl Names {
    pub(crate) fn of(names: Arc<[String]>) -> Names {
        Names(Arc::new(Mutex::new(names)))
    }

    pub(crate) fn now(&self) -> Arc<[String]> {
        Arc::clone(&self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn join(&self, name: &str) {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *names = names.iter().map(String::as_str).chain([name]).map(str::to_owned).collect();
    }
}

/// One order.
pub(crate) enum Order {
    Command {
        request: RequestId,
        command: Command,
        reply: oneshot::Sender<api::Outcome>,
    },
    /// Hand over to the image on disk, or only ask it whether it could take over.
    Upgrade {
        request: RequestId,
        check: bool,
        reply: oneshot::Sender<api::Outcome>,
    },
    /// The host of an embedded app wants its end.
    Stop {
        now: bool,
    },
    /// A line for the log.
    Note(String),
    /// Something with the workers' channels.
    Errand(Errand),
    /// Hooks have been asked about a worker.
    Checked {
        worker: WorkerId,
        result: Result<(), String>,
    },
    /// The program around the app is about to end, or is not.
    Ending(bool),
    /// One more broker; the one of that type if there is one already.
    Join {
        name: String,
        options: Box<BrokerOptions>,
        extensions: Extensions,
        reply: oneshot::Sender<Result<BrokerId, RunError>>,
    },
    Status(oneshot::Sender<Vec<api::Broker>>),
    Pulse(oneshot::Sender<Pulse>),
    Subscribe {
        after: Option<u64>,
        reply: oneshot::Sender<Subscription>,
    },
}

/// How the app is, without a look at its processes.
pub(crate) struct Pulse {
    /// Every broker is open with as many workers ready as it wants, and the app is not ending.
    pub(crate) ready: bool,
}

/// The app has ended, or is too busy to take the order.
#[derive(Debug)]
pub(crate) struct Gone;

impl Handle {
    pub(crate) fn new(orders: mpsc::Sender<Order>, info: Info) -> Self {
        Handle { orders, info: Arc::new(info), asked: Arc::default() }
    }

    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    pub(crate) fn broker(&self, name: &str) -> Option<BrokerId> {
        let at = self.info.brokers.now().iter().position(|known| known == name)?;
        u32::try_from(at).ok().map(BrokerId)
    }

    /// Whether this request is new, or the same command as before, by its words: a number is good for one command only.
    pub(crate) fn is_consistent(&self, request: RequestId, command: &str) -> bool {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, before)) = asked.iter().find(|(known, _)| *known == request) {
            return before == command;
        }
        if asked.len() == REMEMBERED {
            asked.pop_front();
        }
        asked.push_back((request, command.to_owned()));
        true
    }

    /// Asks for something; the outcome comes when it has been reached or given up.
    pub(crate) async fn command(
        &self,
        request: RequestId,
        command: Command,
    ) -> Result<oneshot::Receiver<api::Outcome>, Gone> {
        let (reply, outcome) = oneshot::channel();
        self.send(Order::Command { request, command, reply }).await?;
        Ok(outcome)
    }

    /// Asks for an upgrade; the outcome comes from whoever runs the app then.
    pub(crate) async fn upgrade(
        &self,
        request: RequestId,
        check: bool,
    ) -> Result<oneshot::Receiver<api::Outcome>, Gone> {
        let (reply, outcome) = oneshot::channel();
        self.send(Order::Upgrade { request, check, reply }).await?;
        Ok(outcome)
    }

    pub(crate) async fn status(&self) -> Result<api::Status, Gone> {
        let brokers = self.brokers().await?;
        Ok(api::Status {
            app: self.info.app.clone(),
            pid: self.info.pid,
            broker_pid: std::process::id(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: self.info.environment.clone(),
            started_at: self.info.started_at.clone(),
            brokers,
        })
    }

    async fn brokers(&self) -> Result<Vec<api::Broker>, Gone> {
        let (reply, brokers) = oneshot::channel();
        self.send(Order::Status(reply)).await?;
        brokers.await.map_err(|_| Gone)
    }

    pub(crate) async fn pulse(&self) -> Result<Pulse, Gone> {
        let (reply, pulse) = oneshot::channel();
        self.send(Order::Pulse(reply)).await?;
        pulse.await.map_err(|_| Gone)
    }

    pub(crate) async fn subscribe(&self, after: Option<u64>) -> Result<Subscription, Gone> {
        let (reply, subscription) = oneshot::channel();
        self.send(Order::Subscribe { after, reply }).await?;
        subscription.await.map_err(|_| Gone)
    }

    /// A line for the log.
    pub(crate) async fn note(&self, text: String) -> Result<(), Gone> {
        self.send(Order::Note(text)).await
    }

    /// Something with the workers' channels.
    pub(crate) async fn errand(&self, errand: Errand) -> Result<(), Gone> {
        self.send(Order::Errand(errand)).await
    }

    async fn send(&self, order: Order) -> Result<(), Gone> {
        self.orders.send(order).await.map_err(|_| Gone)
    }
}

/// As many as core remembers, answered and not: a key whose command is forgotten here must be forgotten there.
const REMEMBERED: usize = 1024 + 512;
