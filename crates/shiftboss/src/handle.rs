//! The way to a running app from other threads and tasks: orders to its driver.

use std::sync::Arc;

use shiftboss_api as api;
use shiftboss_core::Command;
use shiftboss_core::id::{BrokerId, RequestId};
use tokio::sync::{mpsc, oneshot};

use crate::feed::Subscription;

/// Gives orders to the app; cheap to clone.
#[derive(Clone)]
pub(crate) struct Handle {
    orders: mpsc::Sender<Order>,
    info: Arc<Info>,
}

/// What never changes while the app runs.
pub(crate) struct Info {
    pub(crate) app: String,
    pub(crate) environment: String,
    pub(crate) started_at: String,
    /// Types in order of declaration: the position is the broker's id.
    pub(crate) brokers: Arc<[String]>,
}

/// One order.
pub(crate) enum Order {
    Command { request: RequestId, command: Command, reply: oneshot::Sender<api::Outcome> },
    Status(oneshot::Sender<Seen>),
    Subscribe { after: Option<u64>, reply: oneshot::Sender<Subscription> },
}

/// What a look at the app shows.
pub(crate) struct Seen {
    pub(crate) brokers: Vec<api::Broker>,
    /// Every broker has had all its workers ready, and the app is not ending.
    pub(crate) ready: bool,
}

/// The app has ended, or is too busy to take the order.
#[derive(Debug)]
pub(crate) struct Gone;

impl Handle {
    pub(crate) fn new(orders: mpsc::Sender<Order>, info: Info) -> Self {
        Handle { orders, info: Arc::new(info) }
    }

    pub(crate) fn info(&self) -> &Info {
        &self.info
    }

    pub(crate) fn broker(&self, name: &str) -> Option<BrokerId> {
        let at = self.info.brokers.iter().position(|known| known == name)?;
        u32::try_from(at).ok().map(BrokerId)
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

    pub(crate) async fn status(&self) -> Result<api::Status, Gone> {
        let seen = self.look().await?;
        let pid = std::process::id();
        Ok(api::Status {
            app: self.info.app.clone(),
            pid,
            broker_pid: pid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            environment: self.info.environment.clone(),
            started_at: self.info.started_at.clone(),
            brokers: seen.brokers,
        })
    }

    pub(crate) async fn look(&self) -> Result<Seen, Gone> {
        let (reply, seen) = oneshot::channel();
        self.send(Order::Status(reply)).await?;
        seen.await.map_err(|_| Gone)
    }

    pub(crate) async fn subscribe(&self, after: Option<u64>) -> Result<Subscription, Gone> {
        let (reply, subscription) = oneshot::channel();
        self.send(Order::Subscribe { after, reply }).await?;
        subscription.await.map_err(|_| Gone)
    }

    async fn send(&self, order: Order) -> Result<(), Gone> {
        self.orders.send(order).await.map_err(|_| Gone)
    }
}
