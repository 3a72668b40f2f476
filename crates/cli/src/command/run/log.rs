//! What `run` prints: events and worker output, for people on a terminal, one JSON object a line otherwise.
//!
//! The brokers' thread never waits for whoever reads it: a thread of its own writes, and what it cannot take is
//! counted and said.

use std::io::{self, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;
use serde::Serialize;
use shiftboss::log::{Line, Log, Told};
use shiftboss::os::lines::printable;
use shiftboss_api::Event;

use crate::event_line;
use crate::output::{FAINT, Look, Output};

/// The log on standard output.
pub(super) struct RunLog {
    writer: Writer,
    form: Form,
    /// Lines not yet handed to the writer, how many, and the number of the last event among them.
    batch: String,
    lines: u64,
    last: u64,
    /// Up to which all output is among them or was handed over.
    output: u64,
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
    slot: Option<u32>,
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
        let writer = Writer::default();
        RunLog { writer, form, batch: String::new(), lines: 0, last: 0, output: 0, lost: 0 }
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
        self.last = event.seq;
        self.put(&line);
    }

    fn takes_note(&mut self, told: Told) -> Option<Told> {
        self.writer.told = Some(told);
        None
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
                let head = format!(
                    "{} {:name$} #{} {} │",
                    Self::clock(zone),
                    line.broker,
                    line.worker,
                    line.slot.map_or("standby".to_owned(), |slot| format!("slot {slot}"))
                );
                format!("{} {}", look.paint(&head, FAINT), printable(line.text))
            }
        };
        self.output = line.up_to;
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
        self.lost += self.writer.shared.lost.swap(0, Ordering::Relaxed);
        if self.lost > 0 {
            let said = format!("{} lines lost here: standard output was full, or read too slowly", self.lost);
            batch.insert_str(0, &(self.noted("lines_lost", &said) + "\n"));
        }
        match self.writer.send(Batch { text: batch, last: self.last, output: self.output }) {
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
    shared: Arc<Shared>,
    /// Taken by the thread.
    told: Option<Told>,
}

/// What is written at once, the number of the last event that is in it or was before, and the same of output.
struct Batch {
    text: String,
    last: u64,
    output: u64,
}

/// What both ends count.
#[derive(Default)]
struct Shared {
    /// Bytes that wait to be written.
    waiting: AtomicUsize,
    /// Lines that could not be written, not yet told.
    lost: AtomicU64,
}

struct Thread {
    texts: Sender<Batch>,
    /// Disconnects when all is written.
    done: Receiver<()>,
}

/// Too much waits already.
struct Full;

impl Writer {
    fn send(&mut self, batch: Batch) -> Result<(), Full> {
        let length = batch.text.len();
        if self.shared.waiting.load(Ordering::Relaxed) + length > MOST {
            return Err(Full);
        }
        let shared = Arc::clone(&self.shared);
        let Some(thread) = self.thread() else { return Err(Full) };
        shared.waiting.fetch_add(length, Ordering::Relaxed);
        // Where standard output is closed nobody misses anything.
        let _ = thread.texts.send(batch);
        Ok(())
    }

    fn thread(&mut self) -> Option<&Thread> {
        if self.thread.is_none() {
            let (texts, taken) = channel();
            let (end, done) = channel();
            let (shared, told) = (Arc::clone(&self.shared), self.told.take());
            let builder = std::thread::Builder::new().name("log".to_owned()).stack_size(STACK);
            // Without a thread now, the next text tries again.
            builder.spawn(move || write_all(&taken, &shared, told, end)).ok()?;
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

/// Writes until nobody sends any more, or there is nothing to write to. `_end` lives as long as the work does.
fn write_all(texts: &Receiver<Batch>, shared: &Shared, mut told: Option<Told>, _end: Sender<()>) {
    let mut torn = false;
    let mut complained = false;
    while let Ok(Batch { text, last, output }) = texts.recv() {
        let mut bytes = text.as_bytes();
        // A line that was cut short by a failure ends here.
        let written = if torn { put(&mut &b"\n"[..]) } else { Ok(()) }.and_then(|()| put(&mut bytes));
        shared.waiting.fetch_sub(text.len(), Ordering::Relaxed);
        // What cannot be written is lost, and counted: it is not told again.
        if let Some(told) = &mut told {
            told.up_to(last);
            if written.is_ok() {
                told.output_up_to(output);
            }
        }
        let Err(error) = written else {
            torn = false;
            continue;
        };
        if error == Errno::BADF {
            return;
        }
        // A full disk, or nobody who reads: what is written there may be deleted one day, and a FIFO read again.
        torn = torn
            || (bytes.len() < text.len() && !text.as_bytes()[..text.len() - bytes.len()].ends_with(b"\n"));
        let lost = bytes.iter().filter(|byte| **byte == b'\n').count();
        shared.lost.fetch_add(lost as u64, Ordering::Relaxed);
        if !std::mem::replace(&mut complained, true) {
            // Whoever reads neither standard output nor this cannot be told.
            let _ = writeln!(io::stderr(), "standard output cannot be written, lines are lost: {error}");
        }
        // Without a reader an attempt costs nothing, and the end need not wait.
        if error != Errno::PIPE {
            std::thread::sleep(PAUSE);
        }
    }
}

/// Writes all of it, however slowly it is taken; what is left in `bytes` was not written.
fn put(bytes: &mut &[u8]) -> Result<(), Errno> {
    let out = rustix::stdio::stdout();
    while !bytes.is_empty() {
        match rustix::io::write(out, bytes) {
            Ok(count) => *bytes = &bytes[count..],
            Err(Errno::INTR) => {}
            // Somebody else's choice for a shared descriptor.
            Err(Errno::AGAIN) => {
                let _ = rustix::event::poll(&mut [PollFd::new(&out, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

const NAME: usize = 6;
/// Bytes collected before they are handed over, however busy it is.
const BATCH: usize = 32 * 1024;
/// Bytes that may wait for a slow reader; more are lost and counted.
const MOST: usize = 1024 * 1024;
const STACK: usize = 64 * 1024;
const LAST_LINES: Duration = Duration::from_secs(1);
/// Between attempts to write to what is full.
const PAUSE: Duration = Duration::from_millis(200);
