//! The demo's parts: a built-in worker, a load generator, and the HTTP they speak.

pub(crate) mod http;
pub(crate) mod load;
pub(crate) mod tour;
pub(crate) mod worker;
