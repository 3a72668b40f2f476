//! The real binary with real processes, sockets and signals: a file for each promise, one for bad input, one for
//! servers of others.

mod app;
mod load;

mod ready_before_retire;
