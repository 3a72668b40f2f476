//! What `run` prints: events and worker output, for people on a terminal, one JSON object a line otherwise.
//!
//! The brokers' thread never waits for whoever reads it: a thread of its own writes, and what it cannot take is
//! counted and said.

use std::io::{self, Write as _};
use std::sync::mpsc::{Receiver, Sender, SyncSender, TrySendError, channel, sync_channel};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Serialize;
use shiftboss::log::{Line, Log};
use shiftboss::os::lines::printable;
use shiftboss_api::Event;

use crate::event_line;
use crate::output::{FAINT, Look, Output};

/// The log on standard output.
pub(super) struct RunLog {
    writer: Writer,
    form: Form,
    /// Lines that the writer could not take since the last one that it took.
    lost: u64,
}

enum Form {
    Json,
    People { look: Look, zone: TimeZone, name: usize },
}

#[derive(Serialize)]
struct WorkerOutput<'a> {
    at: String,
    broker: &'a str,
    event: &'static str,
    worker: String,
    slot: u32,
    stream: &'static str,
    line: &'a str,
}

#[derive(Serialize)]
struct Note<'a> {
    at: String,
    event: &'static str,
    text: &'a str,
}

impl RunLog {
    pub(super) fn standard(output: &Output) -> Self {
        let people = output.out.redraw && !output.json;
        let form = if people {
            Form::People { look: output.out, zone: TimeZone::system(), name: NAME }
        } else {
            Form::Json
        };
        RunLog { writer: Writer::default(), form, lost: 0 }
    }

    fn put(&mut self, line: String) {
        if self.lost > 0 {
            let said = format!("{} lines lost here: standard output was read too slowly", self.lost);
            let said = self.noted("lines_lost", &said);
            if self.writer.send(said).is_ok() {
                self.lost = 0;
            }
        }
        if self.lost > 0 || self.writer.send(line).is_err() {
            self.lost += 1;
        }
    }

    fn noted(&self, event: &'static str, text: &str) -> String {
        match &self.form {
            Form::Json => json(&Note { at: now(), event, text }),
            Form::People { zone, .. } => format!("{} {text}", Self::clock(zone)),
        }
    }

    fn clock(zone: &TimeZone) -> String {
        Timestamp::now().to_zoned(zone.clone()).strftime("%H:%M:%S").to_string()
    }
}

impl Log for RunLog {
    fn event(&mut self, event: &Event) {
        let line = match &mut self.form {
            Form::Json => json(event),
            Form::People { look, zone, name } => {
                *name = event.broker.as_ref().map_or(0, |broker| broker.chars().count()).max(*name);
                event_line::human(event, *name, zone, *look)
            }
        };
        self.put(line);
    }

    fn line(&mut self, line: &Line<'_>) {
        let text = match &mut self.form {
            Form::Json => json(&WorkerOutput {
                at: now(),
                broker: line.broker,
                event: "worker_output",
                worker: line.worker.to_string(),
                slot: line.slot,
                stream: if line.stderr { "stderr" } else { "stdout" },
                line: line.text,
            }),
            Form::People { look, zone, name } => {
                let head =
                    format!("{} {:name$} {}/{} │", Self::clock(zone), line.broker, line.worker, line.slot);
                format!("{} {}", look.paint(&head, FAINT), printable(line.text))
            }
        };
        self.put(text);
    }

    fn note(&mut self, text: &str) {
        let line = self.noted("note", text);
        self.put(line);
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// Lines on their way to standard output.
#[derive(Default)]
struct Writer {
    /// None before the first line: the thread inherits the signal mask of the one that starts it.
    thread: Option<Thread>,
}

struct Thread {
    lines: SyncSender<String>,
    /// Disconnects when all is written.
    done: Receiver<()>,
}

impl Writer {
    /// A reader that has gone for good is no reason to count.
    fn send(&mut self, line: String) -> Result<(), ()> {
        match self.thread().map(|thread| thread.lines.try_send(line)) {
            Some(Err(TrySendError::Full(_))) | None => Err(()),
            Some(Ok(()) | Err(TrySendError::Disconnected(_))) => Ok(()),
        }
    }

    fn thread(&mut self) -> Option<&Thread> {
        if self.thread.is_none() {
            let (lines, taken) = sync_channel(QUEUE);
            let (end, done) = channel();
            let builder = std::thread::Builder::new().name("log".to_owned()).stack_size(STACK);
            // Without a thread now, the next line tries again.
            builder.spawn(move || write_all(&taken, end)).ok()?;
            self.thread = Some(Thread { lines, done });
        }
        self.thread.as_ref()
    }
}

impl Drop for Writer {
    /// Lets the last lines out, but does not wait for ever.
    fn drop(&mut self) {
        if let Some(Thread { lines, done }) = self.thread.take() {
            drop(lines);
            // Only ever disconnects or runs out of time; both end the wait.
            let _ = done.recv_timeout(LAST_LINES);
        }
    }
}

/// Writes line by line, flushes when nothing more waits. `_end` lives as long as the work does.
fn write_all(lines: &Receiver<String>, _end: Sender<()>) {
    let mut out = io::BufWriter::with_capacity(BUFFER, io::stdout());
    let mut next = lines.recv().ok();
    while let Some(line) = next {
        if writeln!(out, "{line}").is_err() {
            return;
        }
        next = match lines.try_recv() {
            Ok(line) => Some(line),
            Err(_) if out.flush().is_err() => return,
            Err(_) => lines.recv().ok(),
        };
    }
}

const NAME: usize = 6;
/// Lines that may wait; more are lost and counted.
const QUEUE: usize = 4096;
const BUFFER: usize = 32 * 1024;
const STACK: usize = 64 * 1024;
const LAST_LINES: Duration = Duration::from_secs(1);
