//! The keeper: the process above a broker process. It is the parent of all workers and holds a duplicate of every
//! descriptor, so that the broker process can die, and another goes on where it was.
//!
//! ```text
//!   keeper ── starts, hands over ──▶ broker process ── clones ──▶ workers (children of the keeper)
//!     ▲  deposits, FORGET, READY, END     │                           │
//!     └───────────── link ────────────────┘      ends, reaped here ◀──┘
//! ```
//!
//! It decides nothing but when to start a broker process, and from which image. What descriptors mean, what a worker's
//! end means and what a signal means is the broker process's to say. It does nothing until somebody ends or speaks.
//!
//! The words on the link are `shiftboss-link`'s.
#![deny(unsafe_code)]

mod broker;
mod children;
mod keeper;
mod renew;
mod table;

pub use keeper::{Execute, SAME_SIGNAL, keep};

/// Which code this is, the link's included: equal in images whose keepers are the same.
pub const CODE: u64 = include!(concat!(env!("OUT_DIR"), "/code"));

/// The format of what a keeper writes down for the image that it executes.
pub const STATE_FORMAT: u64 = 2;

/// The environment variable in which an image that a keeper has executed finds the number of the descriptor that holds
/// its state.
pub const STATE: &str = "SHIFTBOSS_KEEPER_STATE";

#[cfg(test)]
#[path = "../../link/tests/inside/mod.rs"]
mod inside;
