//! The channel between a broker and a worker: lines of JSON on a UNIX stream pair, some with descriptors.
//!
//! ```text
//!   worker ──── one JSON value a line, LF ────▶ broker      SHIFTBOSS_CHANNEL_FD names the worker's end
//!          ◀─── the same ─────────────────────
//! ```
//!
//! The framing is that of Node's `child_process` (its `json` serialization). An object whose `cmd` begins with `NODE_` or
//! `SHIFTBOSS_` is for the broker or the worker's library; everything else is the program's own.
//!
//! * [`Framer`] cuts bytes into lines; [`Message`] says what a line is; both know no socket.
//! * [`advanced`] makes lines of Node's other serialization, and the other way round.
//! * [`Incoming`] reads a socket, so that nothing is lost if the reader dies in between.
//! * [`Outgoing`] writes to one without ever waiting, and holds a bounded amount.
//! * [`socket`] has the system calls.
#![deny(unsafe_code)]

pub mod advanced;
mod framer;
#[cfg(test)]
mod fuse;
mod incoming;
mod message;
pub mod node;
mod offset;
mod outgoing;
mod receipts;
mod rest;
pub mod socket;

/// A moment at which the process may be killed.
#[cfg(not(test))]
fn step() -> std::io::Result<()> {
    Ok(())
}
#[cfg(test)]
use fuse::step;

pub use framer::{Framer, Framing, Heard};
pub use incoming::{Descriptors, Incoming, Reading};
pub use message::{
    BadLine, Message, add_line, call, error_reply, is_too_long_to_ask, numbers, one_line, promoted, ready,
    reply, standby, too_long,
};
pub use outgoing::{Going, NotTaken, Outgoing};
pub use rest::Rest;

/// The longest line that is taken, its end not counted: 16 MiB.
pub const LONGEST: usize = 16 << 20;
/// The environment variable in which a worker finds the number of its end's descriptor.
pub const VARIABLE: &str = "SHIFTBOSS_CHANNEL_FD";
