//! What an app of a program tells is written by a thread of its own, so that whoever does not read it holds up nobody.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::Duration;

use serde_json::json;
use shiftboss_api::Event;

use crate::app::{App, Report};

/// The way to that thread. Dropped it waits until all is written, but not for ever.
pub(crate) struct Printer {
    items: Option<SyncSender<Item>>,
    over: Receiver<()>,
}

enum Item {
    Line { stderr: bool, text: String },
    Report(App, Report),
}

impl Printer {
    pub(crate) fn new() -> io::Result<Printer> {
        let (items, taken) = sync_channel(WAITING);
        let (end, over) = sync_channel(1);
        let print = move || {
            print(&taken);
            // Nobody may wait any longer.
            let _ = end.send(());
        };
        std::thread::Builder::new().name("shiftboss-log".to_owned()).spawn(print)?;
        Ok(Printer { items: Some(items), over })
    }

    /// A line as it is. One that there is no room for is dropped.
    pub(crate) fn line(&self, stderr: bool, text: &str) {
        self.put(Item::Line { stderr, text: text.to_owned() });
    }

    /// A worker has died.
    pub(crate) fn death(&self, app: App, event: &Event) {
        let broker = event.broker.clone().unwrap_or_default();
        let id = event.worker.clone().unwrap_or_default();
        let report = Report::new(format!("{broker} worker id={id} died!"))
            .context("broker", broker)
            .context("worker_id", id)
            .context("code", json!(event.code))
            .context("signal", json!(event.signal))
            .context("reason", json!(event.reason));
        self.put(Item::Report(app, report));
    }

    /// A worker could not be spoken to, or talks nonsense.
    pub(crate) fn channel_error(&self, app: App, broker: &str, worker: u64, error: &str) {
        let report = Report::new(format!("{broker}: Worker error! {error}"))
            .context("broker", broker)
            .context("worker_id", worker.to_string());
        self.put(Item::Report(app, report));
    }

    fn put(&self, item: Item) {
        // What there is no room for is dropped.
        let _ = self.items.as_ref().map(|items| items.try_send(item));
    }
}

impl Drop for Printer {
    fn drop(&mut self) {
        self.items = None;
        let _ = self.over.recv_timeout(LAST);
    }
}

fn print(items: &Receiver<Item>) {
    for item in items {
        match item {
            // Nobody is left who could be told that it cannot be written.
            Item::Line { stderr: false, text } => {
                let mut out = io::stdout().lock();
                let _ = writeln!(out, "{text}").and_then(|()| out.flush());
            }
            Item::Line { stderr: true, text } => drop(writeln!(io::stderr(), "{text}")),
            Item::Report(app, report) => drop(app.report_of_broker(report)),
        }
    }
}

/// For what was said last to be written.
const LAST: Duration = Duration::from_secs(1);
/// So much may wait to be written.
const WAITING: usize = 4096;
