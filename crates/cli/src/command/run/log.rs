//! What `run` prints: events and worker output, for people on a terminal, one JSON object a line otherwise.
//!
//! The brokers' thread never waits for whoever reads it: a thread of its own writes, and what it cannot take is
//! counted and said.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
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
    /// Lines not yet handed to the writer, and how many.
    batch: String,
    lines: u64,
    /// Lines that the writer could not take since the last ones that it took.
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
        RunLog { writer: Writer::default(), form, batch: String::new(), lines: 0, lost: 0 }
    }

    fn put(&mut self, line: &str) {
        self.batch.push_str(line);
        self.batch.push('\n');
        self.lines += 1;
        if self.batch.len() >= BATCH {
            self.flush();
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
        self.put(&line);
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
        self.put(&text);
    }

    fn note(&mut self, text: &str) {
        let line = self.noted("note", text);
        self.put(&line);
    }

    fn flush(&mut self) {
        if self.batch.is_empty() {
            return;
        }
        let lines = std::mem::take(&mut self.lines);
        let mut batch = std::mem::take(&mut self.batch);
        if self.lost > 0 {
            let said = format!("{} lines lost here: standard output was read too slowly", self.lost);
            batch.insert_str(0, &(self.noted("lines_lost", &said) + "\n"));
        }
        match self.writer.send(batch) {
            Ok(()) => self.lost = 0,
            Err(Full) => self.lost += lines,
        }
    }
}

fn json(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}

fn now() -> String {
    format!("{:.3}", Timestamp::now())
}

/// Text on its way to standard output.
#[derive(Default)]
struct Writer {
    /// None before the first text: the thread inherits the signal mask of the one that starts it.
    thread: Option<Thread>,
    /// Bytes that wait to be written.
    waiting: Arc<AtomicUsize>,
}

struct Thread {
    texts: Sender<String>,
    /// Disconnects when all is written.
    done: Receiver<()>,
}

/// Too much waits already.
struct Full;

impl Writer {
    fn send(&mut self, text: String) -> Result<(), Full> {
        let length = text.len();
        if self.waiting.load(Ordering::Relaxed) + length > MOST {
            return Err(Full);
        }
        let waiting = Arc::clone(&self.waiting);
        let Some(thread) = self.thread() else { return Err(Full) };
        waiting.fetch_add(length, Ordering::Relaxed);
        // A reader that has gone for good misses nothing.
        let _ = thread.texts.send(text);
        Ok(())
    }

    fn thread(&mut self) -> Option<&Thread> {
        if self.thread.is_none() {
            let (texts, taken) = channel();
            let (end, done) = channel();
            let waiting = Arc::clone(&self.waiting);
            let builder = std::thread::Builder::new().name("log".to_owned()).stack_size(STACK);
            // Without a thread now, the next text tries again.
            builder.spawn(move || write_all(&taken, &waiting, end)).ok()?;
            self.thread = Some(Thread { texts, done });
        }
        self.thread.as_ref()
    }
}

impl Drop for Writer {
    /// Lets the last lines out, but does not wait for ever.
    fn drop(&mut self) {
        if let Some(Thread { texts, done }) = self.thread.take() {
            drop(texts);
            // Only ever disconnects or runs out of time; both end the wait.
            let _ = done.recv_timeout(LAST_LINES);
        }
    }
}

/// Writes until nobody sends any more, or nobody reads. `_end` lives as long as the work does.
fn write_all(texts: &Receiver<String>, waiting: &AtomicUsize, _end: Sender<()>) {
    let mut out = io::stdout();
    while let Ok(text) = texts.recv() {
        let written = out.write_all(text.as_bytes()).and_then(|()| out.flush());
        waiting.fetch_sub(text.len(), Ordering::Relaxed);
        if written.is_err() {
            return;
        }
    }
}

const NAME: usize = 6;
/// Bytes collected before they are handed over, however busy it is.
const BATCH: usize = 32 * 1024;
/// Bytes that may wait for a slow reader; more are lost and counted.
const MOST: usize = 1024 * 1024;
const STACK: usize = 64 * 1024;
const LAST_LINES: Duration = Duration::from_secs(1);
