//! The operating system, one fact a file: each says where the behaviour it relies on is written down.
//!
//! Public for the `shiftboss` command, and for the errors that come from here; everything else in it may change in any version.

pub mod accepting;
pub mod activation;
pub mod clock;
pub mod code;
pub mod connections;
pub mod file_id;
#[cfg(feature = "watch")]
pub mod file_watch;
pub mod filter;
pub mod heirs;
pub mod holder;
pub mod image;
pub mod instance;
pub mod kernel;
pub(crate) mod kill_points;
pub mod lanes;
pub mod leftovers;
pub mod lines;
pub mod listener;
pub mod memory;
pub mod notify;
pub mod owner;
pub mod parent;
pub mod pidfd;
pub mod poll;
pub mod random;
pub mod reaper;
pub mod rlimit;
pub mod signals;
pub mod spawn;
pub mod usage;
#[cfg(feature = "schedule")]
pub mod wall_timer;
