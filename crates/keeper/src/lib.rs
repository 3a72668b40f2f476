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
#![deny(unsafe_code)]

mod children;
mod ends;
mod inherit;
mod keeper;
pub mod link;
mod renew;
pub mod signals;
mod start;
mod table;
pub mod wire;

pub use inherit::link;
pub use keeper::{SAME_SIGNAL, keep};
pub use start::command;

/// Which code this is: equal in images whose keepers are the same.
pub const CODE: u64 = match u64::from_str_radix(env!("KEEPER_CODE"), 10) {
    Ok(code) => code,
    Err(_) => panic!("build.rs writes a number"),
};

/// The format of what a keeper writes down for the image that it executes.
pub const STATE_FORMAT: u64 = 2;

/// The environment variable in which an image that a keeper has executed finds the number of the descriptor that holds
/// its state.
pub const STATE: &str = "SHIFTBOSS_KEEPER_STATE";

/// The environment variable in which a broker process finds the number of its link's descriptor.
pub const LINK: &str = "SHIFTBOSS_KEEPER";
