//! Why an address could not be bound, in words that help.

use std::fmt;
use std::fs;
use std::io;

use rustix::io::Errno;

use super::super::holder::{self, Holder};
use crate::address::Address;

/// Why an address could not be bound.
#[derive(Debug)]
pub enum BindError {
    /// Somebody else listens there.
    InUse {
        /// Where.
        address: Address,
        /// Who, if that could be seen.
        holder: Option<Box<Holder>>,
    },
    /// A port below `net.ipv4.ip_unprivileged_port_start` needs CAP_NET_BIND_SERVICE (ip(7)); a path needs the right
    /// to write to its folder.
    NotPermitted {
        /// Where.
        address: Address,
        /// The lowest port that anybody may bind.
        unprivileged: u16,
    },
    /// The host has no such address, or not yet.
    NotAvailable {
        /// Where.
        address: Address,
    },
    /// There is a file that is no socket; it is left alone.
    NotASocket {
        /// Where.
        address: Address,
    },
    /// Any other answer of the kernel.
    Other {
        /// Where.
        address: Address,
        /// The answer.
        source: io::Error,
    },
}

impl BindError {
    /// Whether trying again later makes sense without anybody doing anything.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        match self {
            BindError::NotAvailable { .. } => true,
            BindError::InUse { .. }
            | BindError::NotPermitted { .. }
            | BindError::NotASocket { .. }
            | BindError::Other { .. } => false,
        }
    }
}

impl fmt::Display for BindError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BindError::InUse { address, holder: Some(holder) } => {
                write!(f, "{address} is in use: held by {holder}")
            }
            BindError::InUse { address, holder: None } => {
                write!(f, "{address} is in use; who holds it could not be seen")
            }
            BindError::NotPermitted { address: address @ Address::Unix(_), .. } => {
                write!(f, "{address} may not be bound: we may not write to its folder")
            }
            BindError::NotPermitted { address, unprivileged } => write!(
                f,
                "{address} may not be bound: ports below {unprivileged} need the capability CAP_NET_BIND_SERVICE"
            ),
            BindError::NotAvailable { address } => write!(f, "{address} is no address of this host"),
            BindError::NotASocket { address } => {
                write!(f, "{address} cannot be bound: the file there is no socket")
            }
            BindError::Other { address, source } => write!(f, "{address} cannot be bound: {source}"),
        }
    }
}

impl std::error::Error for BindError {}

pub(super) fn explain(address: &Address, error: io::Error) -> BindError {
    let address = address.clone();
    match Errno::from_io_error(&error) {
        Some(Errno::ADDRINUSE) => BindError::InUse { holder: holder::of(&address).map(Box::new), address },
        Some(Errno::ACCESS | Errno::PERM) => {
            BindError::NotPermitted { address, unprivileged: first_unprivileged_port() }
        }
        Some(Errno::ADDRNOTAVAIL | Errno::NODEV | Errno::NETUNREACH) => BindError::NotAvailable { address },
        _ => BindError::Other { address, source: error },
    }
}

fn first_unprivileged_port() -> u16 {
    let read = fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start");
    read.ok().and_then(|text| text.trim().parse().ok()).unwrap_or(1024)
}
