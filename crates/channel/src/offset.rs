//! How far a socket was looked into and not read, as the kernel keeps it (`SO_PEEK_OFF`, socket(7)): a look moves it
//! forward, reading moves it back. It lives as long as the socket, whoever holds that.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd};
use std::ptr;

/// Sets it: the next look begins there.
pub(crate) fn set(socket: BorrowedFd<'_>, offset: i32) -> io::Result<()> {
    // SAFETY: the kernel reads one int from memory of that size.
    let failed = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            ptr::from_ref(&offset).cast(),
            SIZE,
        )
    };
    if failed == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Where it is; below 0 if it is not kept.
pub(crate) fn get(socket: BorrowedFd<'_>) -> io::Result<i32> {
    let (mut offset, mut size) = (0_i32, SIZE);
    // SAFETY: the kernel writes one int into memory of that size.
    let failed = unsafe {
        libc::getsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_PEEK_OFF,
            ptr::from_mut(&mut offset).cast(),
            &raw mut size,
        )
    };
    if failed == 0 { Ok(offset) } else { Err(io::Error::last_os_error()) }
}

#[allow(clippy::cast_possible_truncation)]
const SIZE: libc::socklen_t = size_of::<i32>() as libc::socklen_t;
