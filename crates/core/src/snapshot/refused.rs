//! Why records are not taken over.

use std::fmt;

use crate::id::{BrokerId, Generation};

/// Why an image gives no app. Nothing of it is used then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refused {
    /// It does not begin as records begin.
    NotRecords,
    /// Another version wrote it: the number of its format, and of the one that this version knows.
    Format {
        /// The image's.
        found: u32,
        /// Ours.
        known: u32,
    },
    /// It is shorter than it says.
    Truncated {
        /// Bytes there are.
        has: usize,
        /// Bytes there should be.
        needs: usize,
    },
    /// No step was ever committed.
    Empty,
    /// Something in it is not as it was written.
    Damaged {
        /// Which record: "the app's record", "worker 7".
        record: String,
        /// What is wrong with it.
        why: &'static str,
    },
    /// A specification that it names was not given.
    NoSpecification {
        /// Whose.
        broker: BrokerId,
        /// The generation that it came with.
        generation: Generation,
    },
    /// The addresses that a broker had bound are not among those that were given.
    Listeners {
        /// Whose.
        broker: BrokerId,
        /// Addresses it had.
        recorded: u32,
        /// Addresses given.
        given: usize,
    },
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refused::NotRecords => f.write_str("these are not the records of an app"),
            Refused::Format { found, known } if found > known => {
                write!(
                    f,
                    "the records have format {found}, of a newer version than this one, which knows format {known}"
                )
            }
            Refused::Format { found, known } => {
                write!(f, "the records have format {found}: this version knows format {known} only")
            }
            Refused::Truncated { has, needs } => {
                write!(f, "the records are cut off: {has} bytes instead of {needs}")
            }
            Refused::Empty => f.write_str("nothing was recorded yet"),
            Refused::Damaged { record, why } => write!(f, "{record} is damaged: {why}"),
            Refused::NoSpecification { broker, generation } => {
                write!(f, "broker {broker}: the specification of generation {generation} is missing")
            }
            Refused::Listeners { broker, recorded, given } => {
                write!(
                    f,
                    "broker {broker} had {recorded} bound addresses, and they are not among the {given} given"
                )
            }
        }
    }
}

impl std::error::Error for Refused {}
