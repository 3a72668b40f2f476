//! One epoll set for everything the driver waits on (`epoll(7)`, level-triggered).
//!
//! It never blocks: its own descriptor becomes readable when something is ready, and the runtime waits for that one.
//! What a token means is the caller's.

use std::fmt;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::buffer::spare_capacity;
use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use tokio::io::unix::AsyncFd;

/// An epoll set with its buffer. It does not own what is in it: a descriptor is removed before it is closed, since a
/// duplicate elsewhere would keep it in the set.
///
/// Whoever waits for it in an edge-triggered set, as tokio's `AsyncFd` does, is told of *new* readiness only. What was
/// told and not read to its end is not new, and `modify` does not make it so: only after a [`wait_now`](Self::wait_now)
/// that told nothing may one wait again (`clear_ready` then and not before).
pub struct Poller {
    epoll: OwnedFd,
    events: Vec<Event>,
    ready: Vec<Ready>,
}

/// What is waited for. An end or error of the other side is always told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Interest(EventFlags);

/// A descriptor on which something can be done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ready {
    /// The caller's name for it.
    pub token: u64,
    /// There is something to read, a connection to accept, a process has ended.
    pub readable: bool,
    /// There is room to write.
    pub writable: bool,
    /// The other side is gone; what it wrote before may still be there to read.
    pub hangup: bool,
    /// Something is wrong with it; the next call on it says what.
    pub error: bool,
}

impl Interest {
    /// Something to read.
    pub const READ: Interest = Interest(EventFlags::IN);
    /// Room to write.
    pub const WRITE: Interest = Interest(EventFlags::OUT);
    /// Either.
    pub const READ_WRITE: Interest = Interest(EventFlags::IN.union(EventFlags::OUT));
    /// Neither, only the end: for one that is to be left alone for a while.
    pub const NONE: Interest = Interest(EventFlags::empty());
}

impl fmt::Debug for Poller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Poller").field("epoll", &self.epoll).finish_non_exhaustive()
    }
}

impl Poller {
    /// Makes an empty set.
    ///
    /// # Errors
    /// EMFILE or ENFILE at the limit of open files.
    pub fn new() -> io::Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC)?;
        Ok(Poller { epoll, events: Vec::with_capacity(AT_ONCE), ready: Vec::with_capacity(AT_ONCE) })
    }

    /// For the runtime to wait for.
    ///
    /// # Errors
    /// Those of the runtime, outside of one or at the limit of watches.
    #[allow(unsafe_code)]
    pub fn watched(self) -> io::Result<AsyncFd<Poller>> {
        // SAFETY: the poller owns its descriptor, always answers with that one, and closes it only when it is dropped.
        Ok(unsafe { AsyncFd::register(self) }?)
    }

    /// Begins to wait for a descriptor.
    ///
    /// # Errors
    /// EEXIST if it is in the set, EPERM if it is a file or directory, ENOSPC at `/proc/sys/fs/epoll/max_user_watches`.
    pub fn add(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, fd, EventData::new_u64(token), interest.0)?)
    }

    /// Changes token and interest.
    ///
    /// # Errors
    /// ENOENT if it is not in the set.
    pub fn modify(&self, fd: BorrowedFd<'_>, token: u64, interest: Interest) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, fd, EventData::new_u64(token), interest.0)?)
    }

    /// Waits for it no longer.
    ///
    /// # Errors
    /// ENOENT if it is not in the set.
    pub fn remove(&self, fd: BorrowedFd<'_>) -> io::Result<()> {
        Ok(epoll::delete(&self.epoll, fd)?)
    }

    /// What is ready at this moment, at most 256 descriptors, without waiting. The kernel puts what it told last, so
    /// that all get their turn.
    ///
    /// # Errors
    /// None in practice: an interruption reads as nothing ready.
    pub fn wait_now(&mut self) -> io::Result<&[Ready]> {
        let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
        self.events.clear();
        self.ready.clear();
        match epoll::wait(&self.epoll, spare_capacity(&mut self.events), Some(&no_wait)) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
        self.ready.extend(self.events.iter().map(Ready::from));
        Ok(&self.ready)
    }
}

impl AsFd for Poller {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.as_fd()
    }
}

impl AsRawFd for Poller {
    fn as_raw_fd(&self) -> RawFd {
        self.epoll.as_raw_fd()
    }
}

impl From<&Event> for Ready {
    fn from(event: &Event) -> Self {
        // A copy: the kernel's structure is packed on some architectures.
        let (flags, data) = (event.flags, event.data);
        Ready {
            token: data.u64(),
            readable: flags.contains(EventFlags::IN),
            writable: flags.contains(EventFlags::OUT),
            hangup: flags.contains(EventFlags::HUP),
            error: flags.contains(EventFlags::ERR),
        }
    }
}

/// Events told by one call.
const AT_ONCE: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::lines::pipe;
    use rustix::io::write;

    fn tokens(poller: &mut Poller) -> Vec<u64> {
        poller.wait_now().unwrap().iter().map(|ready| ready.token).collect()
    }

    #[test]
    fn only_what_is_ready_is_told_and_until_it_is_read() {
        let mut poller = Poller::new().unwrap();
        let ((first, _quiet), (second, writer)) = (pipe().unwrap(), pipe().unwrap());
        poller.add(first.as_fd(), 1, Interest::READ).unwrap();
        poller.add(second.as_fd(), 2, Interest::READ).unwrap();
        assert_eq!(tokens(&mut poller), [0u64; 0]);
        write(&writer, b"x").unwrap();
        assert_eq!(tokens(&mut poller), [2]);
        assert_eq!(tokens(&mut poller), [2]);
        rustix::io::read(&second, &mut [0; 8]).unwrap();
        assert_eq!(tokens(&mut poller), [0u64; 0]);
    }

    #[test]
    fn the_end_of_the_other_side_is_told_without_interest() {
        let mut poller = Poller::new().unwrap();
        let (reader, writer) = pipe().unwrap();
        poller.add(reader.as_fd(), u64::MAX, Interest::NONE).unwrap();
        drop(writer);
        let ready = poller.wait_now().unwrap();
        assert_eq!((ready.len(), ready[0].token, ready[0].hangup), (1, u64::MAX, true));
    }

    #[test]
    fn what_was_removed_is_told_no_more() {
        let mut poller = Poller::new().unwrap();
        let (reader, writer) = pipe().unwrap();
        poller.add(reader.as_fd(), 1, Interest::READ).unwrap();
        write(&writer, b"x").unwrap();
        poller.remove(reader.as_fd()).unwrap();
        assert_eq!(tokens(&mut poller), [0u64; 0]);
        assert!(poller.remove(reader.as_fd()).is_err());
    }

    #[test]
    fn more_than_one_call_can_tell_is_told_by_the_next() {
        let mut poller = Poller::new().unwrap();
        let pipes: Vec<_> = (0..300).map(|_| pipe().unwrap()).collect();
        for (token, (reader, writer)) in (0..).zip(&pipes) {
            poller.add(reader.as_fd(), token, Interest::READ).unwrap();
            write(writer, b"x").unwrap();
        }
        let mut told = tokens(&mut poller);
        assert_eq!(told.len(), 256);
        told.extend(tokens(&mut poller));
        told.sort_unstable();
        told.dedup();
        assert_eq!(told.len(), 300);
    }

    #[test]
    fn an_edge_triggered_set_around_it_hears_only_of_what_is_new() {
        let mut poller = Poller::new().unwrap();
        let (reader, writer) = pipe().unwrap();
        let mut around = Poller::new().unwrap();
        around.add(poller.as_fd(), 9, Interest(EventFlags::IN | EventFlags::ET)).unwrap();
        poller.add(reader.as_fd(), 1, Interest::READ).unwrap();
        write(&writer, b"xy").unwrap();
        assert_eq!((tokens(&mut around), tokens(&mut poller)), (vec![9], vec![1]));
        assert_eq!(tokens(&mut around), [0u64; 0], "what was left unread is not told again");
        poller.modify(reader.as_fd(), 1, Interest::READ).unwrap();
        assert_eq!(tokens(&mut around), [0u64; 0], "not even after a change");
        write(&writer, b"z").unwrap();
        assert_eq!(tokens(&mut around), [9], "what is new is told, whatever is left");
    }
}
