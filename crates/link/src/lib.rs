//! What a keeper and the broker process below it have in common: the link between them, its words, how one image of the
//! program starts another; and signals that are read instead of delivered, as workers read theirs too.
#![deny(unsafe_code)]

mod image;
mod inherit;
pub mod signals;
mod socket;
pub mod wire;

pub use image::{command, start_linked};
pub use inherit::{inherited, number_in, take};
pub use socket::{Link, Packet};

/// The environment variable in which a broker process finds the number of its link's descriptor.
pub const LINK: &str = "SHIFTBOSS_KEEPER";

#[cfg(test)]
#[path = "../tests/inside/mod.rs"]
mod inside;
