//! Where a running app tells what happens: implemented by whoever runs it.

use shiftboss_api::Event;

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
}
