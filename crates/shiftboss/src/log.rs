//! Where a running app tells what happens: implemented by whoever runs it.

use shiftboss_api::Event;

use crate::os::kill_points;
use crate::os::memory::Memory;
use crate::ring::TOLD_AT;

/// One line that a worker wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line<'a> {
    /// Its broker.
    pub broker: &'a str,
    /// The worker's id.
    pub worker: u64,
    /// Its slot.
    pub slot: u32,
    /// Whether it came on standard error.
    pub stderr: bool,
    /// The line without its end; text of the worker's own making, control characters and all.
    pub text: &'a str,
}

/// Receives events and worker output. Called on the thread that runs the brokers: it must not block.
pub trait Log: Send {
    /// Something changed.
    fn event(&mut self, event: &Event);
    /// A worker wrote a line.
    fn line(&mut self, line: &Line<'_>);
    /// Something that is no event and that somebody should read.
    fn note(&mut self, text: &str);
    /// All is said for now: what was held back, to be written at once, is to be written. Default: nothing.
    fn flush(&mut self) {}
    /// A log that writes later takes this and notes the events that are written, so that a successor of a killed process
    /// tells those that are not. Default: gives it back, and every event counts as told as soon as it was given.
    fn takes_note(&mut self, told: Told) -> Option<Told> {
        Some(told)
    }
}

/// Up to which event all were told, in memory that outlives this process.
#[derive(Debug)]
pub struct Told(pub(crate) Memory);

impl Told {
    /// All events up to this number are told.
    pub fn up_to(&mut self, seq: u64) {
        kill_points::point("it is noted what was told");
        self.0.write(TOLD_AT, &seq.to_le_bytes());
        kill_points::point("it was noted what was told");
    }
}

/// Writes nothing.
pub(crate) struct Deaf;

impl Log for Deaf {
    fn event(&mut self, _: &Event) {}
    fn line(&mut self, _: &Line<'_>) {}
    fn note(&mut self, _: &str) {}
}
