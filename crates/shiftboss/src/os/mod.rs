//! The operating system, one fact a file: each says where the behaviour it relies on is written down.

pub mod accepting;
pub mod activation;
pub mod clock;
pub mod filter;
pub mod holder;
pub mod instance;
pub mod kernel;
pub mod leftovers;
pub mod lines;
pub mod listener;
pub mod notify;
pub mod pidfd;
pub mod poll;
pub mod reaper;
pub mod rlimit;
pub mod signals;
pub mod spawn;
pub mod usage;
