//! The oracle: a second, naive reading of what an app did. It takes the trace of core (what happened, what was asked
//! for) and judges it by facts and arithmetic.
//!
//! It shares the words of core (the types of inputs and effects) and none of its rules: whether a worker runs, serves
//! or leaves it takes from what the operating system and the clients saw; what core says in events and status are
//! claims, compared with that. One checker serves the simulation and the real binary.
#![forbid(unsafe_code)]

mod adoption;
mod brokers;
mod claims;
mod clock;
mod commands;
mod facts;
mod model;
mod oracle;
mod recycles;
mod rest;
mod shell;
mod standbys;
pub mod trace;
mod workers;

pub use oracle::{Broken, Oracle, Step, names};
