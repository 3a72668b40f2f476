//! Descriptors that were left to us under numbers that we were told: by our parent, or by the image that executed us.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::{FdFlags, fcntl_getfd, fcntl_setfd};
use rustix::net::{SocketType, sockopt::socket_type};

use crate::Link;

/// In a broker process its end of the link; none in a process that no keeper has started.
///
/// # Errors
/// `InvalidInput` if what [`crate::LINK`] numbers is no link, or somebody's already: what was left to us is not closed on
/// exec.
pub fn inherited() -> io::Result<Option<Link>> {
    let Some(number) = number_in(crate::LINK) else { return Ok(None) };
    let socket = take(number)?;
    if socket_type(&socket) == Ok(SocketType::SEQPACKET) { Ok(Some(Link(socket))) } else { Err(nothing()) }
}

/// The number that this environment variable holds.
#[must_use]
pub fn number_in(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// Takes over the descriptor of this number; what we start does not inherit it.
///
/// # Errors
/// `InvalidInput` as for [`inherited`].
pub fn take(number: u64) -> io::Result<OwnedFd> {
    let number = RawFd::try_from(number).ok().filter(|number| *number > 2).ok_or_else(nothing)?;
    // SAFETY: borrowed for these two calls only, which refuse a number that is not open.
    let looked_at = unsafe { BorrowedFd::borrow_raw(number) };
    if fcntl_getfd(looked_at).map_or(true, |flags| flags.contains(FdFlags::CLOEXEC)) {
        return Err(nothing());
    }
    fcntl_setfd(looked_at, FdFlags::CLOEXEC)?;
    // SAFETY: open, and nobody's: all that this process has opened is closed on exec, which this one was not.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}

fn nothing() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "nothing like it was left under this number")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    #[test]
    fn what_is_ours_already_is_not_taken_twice() {
        let file = std::fs::File::open("/dev/null").unwrap();
        for number in [file.as_raw_fd().unsigned_abs().into(), 1_000_000, 1] {
            assert_eq!(take(number).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        }
    }
}
