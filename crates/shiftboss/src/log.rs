//! Where a running app tells what happens: implemented by whoever runs it.

use shiftboss_api::Event;

use crate::os::kill_points;
use crate::os::memory::Memory;
use crate::ring::{PUT_OUT_AT, TOLD_AT};

/// One line that a worker wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its broker.
    pub broker: &'a str,
    /// The worker's id.
    pub worker: u64,
    /// Its slot; none of a standby.
    pub slot: Option<u32>,
    /// Whether it came on standard error.
    pub stderr: bool,
    /// The line without its end; text of the worker's own making, control characters and all.
    pub text: &'a str,
    /// How many bytes of output all lines were made of up to this one, over all workers: see [`Told::output_up_to`].
    pub up_to: u64,
}

/// Receives events and worker output. Called on the thread that runs the brokers: it must not block.
pub trait Log: Send {
    /// Something changed.
    fn event(&mut self, event: &Event);
    /// A worker wrote a line.
    fn line(&mut self, line: &Line<'_>);
    /// Something that is no event and that somebody should read.
    fn note(&mut self, text: &str);
    /// A worker could not be spoken to, or talks nonsense. Default: a note.
    fn channel_error(&mut self, broker: &str, worker: u64, error: &str) {
        self.note(&format!("{broker}: worker {worker}: {error}"));
    }
    /// All is said for now: what was held back, to be written at once, is to be written. Default: nothing.
    fn flush(&mut self) {}
    /// A log that writes later takes this and notes what is written, so that a successor of a killed process tells the
    /// events that are not, and how much output is lost. Default: gives it back, and all counts as told once it was given.
    fn takes_note(&mut self, told: Told) -> Option<Told> {
        Some(told)
    }
}

/// Up to where all was told, in memory that outlives this process.
#[derive(Debug)]
pub struct Told {
    pub(crate) memory: Memory,
    /// Where output begins that is ours: what a predecessor had taken of it is told, if only as lost.
    pub(crate) output: u64,
}

impl Told {
    /// All events up to this number are told.
    pub fn up_to(&mut self, seq: u64) {
        kill_points::point("it is noted what was told");
        self.memory.write(TOLD_AT, &seq.to_le_bytes());
        kill_points::point("it was noted what was told");
    }

    /// All output lines up to this one ([`Line::up_to`]) are told; 0 if there was none, and with it all notes that came
    /// before.
    pub fn output_up_to(&mut self, up_to: u64) {
        self.output = self.output.max(up_to);
        self.memory.write(PUT_OUT_AT, &self.output.to_le_bytes());
    }
}

/// Writes nothing.
pub(crate) struct Deaf;

impl Log for Deaf {
    fn event(&mut self, _: &Event) {}
    fn line(&mut self, _: &Line<'_>) {}
    fn note(&mut self, _: &str) {}
}
