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
#[allow(missing_debug_implementations, unreachable_pub, reason = "public for the fuzzers only")]
pub struct Control {
    runtime: Runtime,
    handle: Handle,
}

impl Default for Control {
    fn default() -> Self {
        Control::new()
    }
}

#[allow(unreachable_pub, reason = "as above")]
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
            let mut server = hyper::server::conn::http1::Builder::new();
            // The client is still there, it only says no more.
            server.half_close(true);
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

#[cfg(test)]
mod tests {
    use super::*;

    /// The code of the answer, and its body.
    fn answer(control: &Control, head: &str, body: &str) -> (u16, String) {
        let said = format!("{head} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        let answer = String::from_utf8(control.answer(said.as_bytes())).unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    #[test]
    fn what_cannot_be_meant_is_refused_in_words_and_the_next_client_is_answered() {
        let control = Control::new();
        let deep = format!("{{\"message\":{}}}", "[".repeat(10_000));
        for (head, body, code, word) in [
            ("POST /v1/brokers/api/scale", "", 400, "the body is wrong"),
            ("POST /v1/brokers/api/scale", "{}", 400, "missing field"),
            ("POST /v1/brokers/api/scale", "{\"workers\":\"4\"}", 400, "invalid type"),
            ("POST /v1/brokers/api/scale", "{\"workers\":-1}", 400, "invalid value"),
            ("POST /v1/brokers/api/scale", "{\"workers\":1e999}", 400, "the body is wrong"),
            (
                "POST /v1/brokers/api/scale",
                "{\"workers\":4,\"program\":\"sh\"}",
                400,
                "unknown field `program`",
            ),
            ("POST /v1/brokers/api/scale", "{\"workers\":4,\"workers\":5}", 400, "duplicate field `workers`"),
            ("POST /v1/brokers/api/scale", "{\"workers\":4} x", 400, "trailing characters"),
            ("POST /v1/brokers/api/recycle", "\0", 400, "the body is wrong"),
            ("POST /v1/brokers/api/send", &deep, 400, "the body is wrong"),
            ("POST /v1/brokers/api/eat", "", 404, "`eat` is not a verb"),
            ("POST /v1/brokers/%2e%2e%2fapi/drain", "", 404, "is not a type of this app"),
            ("POST /v1/brokers/API/drain", "", 404, "its types are: api, jobs"),
            ("GET /v1/brokers/api/drain", "", 405, ""),
            ("GET /v1/../etc/passwd", "", 404, "there is no"),
        ] {
            let (seen, said) = answer(&control, head, body);
            assert!(seen == code && said.contains(word), "{head} {body:.60}: {seen} {said}");
            assert_eq!(answer(&control, "GET /livez", ""), (200, "ok\n".to_owned()));
        }
        for said in [
            &b""[..],
            b"\r\n",
            b"\0",
            b"GET",
            b"GET /livez HTTP/9.9\r\n\r\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        ] {
            let answer = control.answer(said);
            assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 400"), "{said:?}");
        }
    }

    #[test]
    fn where_fuzzing_begins_everything_is_answered() {
        let control = Control::new();
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../../fuzz/corpus/control");
        for file in std::fs::read_dir(folder).unwrap() {
            let said = std::fs::read(file.unwrap().path()).unwrap();
            let answer = control.answer(&said);
            assert!(
                answer.is_empty() || answer.starts_with(b"HTTP/1."),
                "{}",
                String::from_utf8_lossy(&said)
            );
        }
    }
}
