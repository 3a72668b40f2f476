//! Workers that count aloud, some of which leave in the middle, under a keeper; a subscriber notes what it hears. The
//! broker process may be killed at any moment: the notes of all of them tell what nobody has heard.
//!
//! In the folder: `broker`, the process that runs the brokers; `heard`, a line `PROCESS WORKER NUMBER` for each message;
//! `sent-WORKER`, how many messages were sent; `enough`, from which on nobody sends any more.

use std::fs::{self, File, OpenOptions};
use std::io::Write as _;
use std::os::unix::fs::FileExt as _;
use std::path::Path;
use std::thread;
use std::time::Duration;

use shiftboss::options::BackoffSpec;
use shiftboss::{App, Broker, BrokerEvent, BrokerOptions, WorkerContext};

use crate::Done;

pub(crate) fn note(app: &App, folder: &Path, workers: u32) -> Done {
    let mut heard = OpenOptions::new().create(true).append(true).open(folder.join("heard"))?;
    let soon = Duration::from_millis(1);
    let backoff = BackoffSpec { base: soon, cap: soon, ..BackoffSpec::default() };
    let options = BrokerOptions { workers, backoff, ..BrokerOptions::default() };
    let broker = Broker::start(app, "counter", options)?;
    let mut happens = broker.subscribe();
    let own = std::process::id();
    fs::write(folder.join("new"), own.to_string())?;
    fs::rename(folder.join("new"), folder.join("broker"))?;
    while let Some(event) = happens.blocking_recv() {
        if let BrokerEvent::WorkerMessage { message, worker } = event {
            let number: u64 = message.parse()?;
            // One write for each: a killed process leaves no half line.
            heard.write_all(format!("{own} {} {number}\n", worker.id()).as_bytes())?;
        }
    }
    app.wait()?;
    Ok(())
}

pub(crate) fn send(context: &WorkerContext, folder: &Path) -> Done {
    let sent = File::create(folder.join(format!("sent-{}", context.id())))?;
    let id: u64 = context.id().parse()?;
    // In every second slot they leave soon, each after another number of messages.
    let last = if context.slot().is_multiple_of(2) { id % 300 + 1 } else { u64::MAX };
    context.ready()?;
    for number in 0..last {
        if folder.join("enough").exists() || context.is_leaving() {
            break;
        }
        context.send(&number)?;
        sent.write_all_at(&(number + 1).to_le_bytes(), 0)?;
        if number % 8 == 7 {
            thread::sleep(Duration::from_millis(3));
        }
    }
    if last == u64::MAX {
        context.wait_until_leaving();
    }
    std::process::exit(0);
}
