//! The rules of shiftboss, and nothing else.
//!
//! [`App::handle`] takes what happened ([`Input`]) and returns what to do ([`Effect`]); [`App::deadline`] says when
//! to call it again with [`Input::Tick`]. Time is an argument, randomness a seed, a worker's process somebody
//! else's. The caller performs the effects in order and feeds their results back as inputs; nothing here waits.
//!
//! ```text
//!            Input                                  Effect
//!   signal, exit, ready, ──▶  App ─▶ Broker ─▶ Worker  ──▶  spawn, signal, listeners,
//!   command, deadline          (order,  (one    (one         event, reply
//!                              budget)  shift)  life)
//! ```
#![forbid(unsafe_code)]

mod adopt;
mod app;
mod backoff;
mod broker;
mod budget;
mod changes;
mod drain;
pub mod effect;
pub mod event;
mod generation;
pub mod id;
pub mod input;
mod life;
mod model;
mod recycle;
mod requests;
mod rng;
mod schedule;
mod shared;
mod slots;
pub mod snapshot;
pub mod spec;
mod standby;
pub mod status;
mod stop;
mod table;
mod text;
pub mod time;
mod verdict;
mod watch;
mod worker;

pub use adopt::{Adoption, Present};
pub use app::App;
pub use effect::{Effect, Outcome};
pub use event::{Event, What};
pub use input::{Command, Exit, Input, ListenFailure, Verb};
pub use status::Status;
pub use time::Time;
