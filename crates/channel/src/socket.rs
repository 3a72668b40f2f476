//! The system calls of a channel (unix(7)): bytes with descriptors, never waiting.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, Shutdown, SocketFlags, SocketType, recvmsg, send, sendmsg, shutdown,
    socketpair,
};

/// Both ends: the broker's, which never blocks, and the worker's, which does as programs expect. The flag belongs to
/// each end alone.
///
/// # Errors
/// EMFILE or ENFILE at the limit of open files.
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?;
    fcntl_setfl(&ours, fcntl_getfl(&ours)? | OFlags::NONBLOCK)?;
    Ok((ours, theirs))
}

/// Takes what has come, with its descriptors; 0 is the end.
///
/// # Errors
/// EAGAIN if nothing has come. An end by error (ECONNRESET) is an end.
pub fn take(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
    wait: bool,
) -> io::Result<usize> {
    receive(socket, buffer, descriptors, if wait { RecvFlags::empty() } else { RecvFlags::DONTWAIT })
}

/// Looks at what has come, with duplicates of its descriptors, and leaves it there; 0 is the end.
///
/// # Errors
/// EAGAIN if nothing has come.
pub(crate) fn look(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
) -> io::Result<usize> {
    receive(socket, buffer, descriptors, RecvFlags::DONTWAIT | RecvFlags::PEEK)
}

fn receive(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    descriptors: &mut VecDeque<OwnedFd>,
    how: RecvFlags,
) -> io::Result<usize> {
    crate::step()?;
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let flags = RecvFlags::CMSG_CLOEXEC | how;
    let got = loop {
        match recvmsg(socket, &mut [IoSliceMut::new(buffer)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            Err(Errno::CONNRESET) => return Ok(0),
            got => break got?,
        }
    };
    for message in ancillary.drain() {
        if let RecvAncillaryMessage::ScmRights(rights) = message {
            // Whoever hoards loses what is more; the kernel has closed what did not even fit (MSG_CTRUNC).
            let room = AT_ONCE.saturating_sub(descriptors.len());
            descriptors.extend(rights.take(room));
        }
    }
    Ok(got.bytes)
}

/// Writes, without a signal if nobody reads. Up to [`WHOLE`] bytes go whole or not at all.
///
/// # Errors
/// EAGAIN if there is no room, EPIPE if the other side is gone.
pub fn write(socket: BorrowedFd<'_>, bytes: &[u8], wait: bool) -> io::Result<usize> {
    let flags = SendFlags::NOSIGNAL | if wait { SendFlags::empty() } else { SendFlags::DONTWAIT };
    loop {
        match send(socket, bytes, flags) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// The same with descriptors, which go with the first byte.
///
/// # Errors
/// As [`write()`]; ETOOMANYREFS if too many descriptors are on their way.
pub fn write_with(
    socket: BorrowedFd<'_>,
    bytes: &[u8],
    descriptors: &[BorrowedFd<'_>],
    wait: bool,
) -> io::Result<usize> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(AT_ONCE))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !ancillary.push(SendAncillaryMessage::ScmRights(descriptors)) {
        return Err(Errno::TOOMANYREFS.into());
    }
    let flags = SendFlags::NOSIGNAL | if wait { SendFlags::empty() } else { SendFlags::DONTWAIT };
    loop {
        match sendmsg(socket, &[IoSlice::new(bytes)], &mut ancillary, flags) {
            Err(Errno::INTR) => {}
            sent => return Ok(sent?),
        }
    }
}

/// Ends a channel for both sides, whoever else has descriptors of it; what was written before can still be read.
pub fn end(socket: impl AsFd) {
    // One that has ended is ended.
    let _ = shutdown(socket, Shutdown::Both);
}

/// So many bytes are one piece to the kernel (a socket buffer's data, `net/unix/af_unix.c`): all of it or nothing.
pub const WHOLE: usize = 32 * 1024;
/// Descriptors held for lines to come, and taken by one call.
const AT_ONCE: usize = 16;
