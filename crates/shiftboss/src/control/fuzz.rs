//! What the control API makes of bytes, without a socket and without an app behind it: every command is done at once.

use std::time::Duration;

use axum::extract::connect_info::MockConnectInfo;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use shiftboss_api::Outcome;
use shiftboss_core::id::WorkerId;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::Runtime;
use tokio::sync::mpsc;

use super::peer::Asker;
use super::routes;
use crate::feed::Feed;
use crate::handle::{Handle, Info, Names, Order, Pulse};
use crate::mail::Errand;

/// The API of an app with two brokers.
#[expect(missing_debug_implementations, reason = "for the fuzzers only")]
pub struct Control {
    runtime: Runtime,
    handle: Handle,
}

impl Default for Control {
    fn default() -> Self {
        Control::new()
    }
}

impl Control {
    /// # Panics
    /// If there is no descriptor for a runtime.
    #[must_use]
    pub fn new() -> Control {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build();
        let runtime = runtime.expect("a runtime needs two descriptors");
        let (orders, taken) = mpsc::channel(64);
        let brokers = Names::of(["api".to_owned(), "jobs".to_owned()].into());
        let info = Info {
            pid: 1,
            app: "fuzz".to_owned(),
            environment: "default".to_owned(),
            started_at: String::new(),
            brokers: brokers.clone(),
        };
        runtime.spawn(answer_all(taken, brokers));
        Control { runtime, handle: Handle::new(orders, info) }
    }

    /// What a client is told that says this and then no more.
    #[must_use]
    pub fn answer(&self, said: &[u8]) -> Vec<u8> {
        self.runtime.block_on(async {
            let (ours, mut theirs) = tokio::io::duplex(1 << 20);
            let asker = MockConnectInfo(Asker { uid: 0, pid: Some(1) });
            let service = TowerToHyperService::new(routes(self.handle.clone()).layer(asker));
            let server = hyper::server::conn::http1::Builder::new();
            let serve = server.serve_connection(TokioIo::new(ours), service);
            let ask = async {
                let mut heard = Vec::new();
                // It may be sent away before all is said.
                let _ = theirs.write_all(said).await;
                let _ = theirs.shutdown().await;
                let _ = theirs.read_to_end(&mut heard).await;
                heard
            };
            tokio::time::timeout(LONGEST, async { tokio::join!(serve, ask).1 }).await.expect("it ends")
        })
    }
}

async fn answer_all(mut orders: mpsc::Receiver<Order>, names: Names) {
    let mut feed = Feed::new(names);
    while let Some(order) = orders.recv().await {
        // Whoever asked may be gone.
        match order {
            Order::Command { reply, .. } | Order::Upgrade { reply, .. } => {
                let done = Outcome::Done { note: None, total: 0, replaced: 0, cut: 0, refused: 0 };
                let _ = reply.send(done);
            }
            Order::Status(reply) => drop(reply.send(Vec::new())),
            Order::Pulse(reply) => drop(reply.send(Pulse { ready: true })),
            Order::Subscribe { after, reply } => {
                let _ = reply.send(feed.subscribe(after));
                // Nothing comes any more: whoever watches is told so.
                feed = Feed::new(Names::default());
            }
            Order::Errand(Errand::Audience { reply, .. }) => {
                let _ = reply.send(vec![(WorkerId(1), 0), (WorkerId(2), 1)]);
            }
            Order::Errand(Errand::Tell { reply, .. }) => drop(reply.map(|reply| reply.send(Ok(())))),
            Order::Errand(Errand::Call { message, reply, .. }) => drop(reply.send(Ok(message))),
            Order::Errand(_)
            | Order::Note(_)
            | Order::Stop { .. }
            | Order::Checked { .. }
            | Order::Ending(_)
            | Order::Join { .. } => {}
        }
    }
}

const LONGEST: Duration = Duration::from_secs(30);
