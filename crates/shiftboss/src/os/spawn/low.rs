//! Low numbers for what a child is to have.
//!
//! A child's table of descriptors is made from ours, up to the highest number that it needs, and what it does not need
//! is closed again: with a few descriptors for each of ten thousand workers that would be most of the cost of a start.
//! So what the next child is to have is put under low numbers first, which are held for that from the first start on at
//! which there are many. A process that has just taken over thousands of workers finds none that are low; there a start
//! takes longer, and does the same.

use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use rustix::fs::{Mode, OFlags, open};
use rustix::io::{DupFlags, Errno, dup3, fcntl_dupfd_cloexec};

use super::child::Move;

/// The numbers, while one child is started. There are as many sets as children were ever started at the same moment.
pub(super) struct Low(Option<Places>);

struct Places {
    null: OwnedFd,
    /// `/dev/null` while no child is started.
    held: Vec<OwnedFd>,
}

impl Low {
    pub(super) fn take() -> Result<Low, Errno> {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Ok(Low(Some(idle.map_or_else(Places::hold, Ok)?)))
    }

    /// Moves as many sources as there are places. They must be open.
    pub(super) fn put(&mut self, moves: &mut [Move]) -> Result<(), Errno> {
        let places = self.0.iter_mut().flat_map(|places| &mut places.held);
        for (place, Move { source, .. }) in places.zip(moves) {
            // SAFETY: a descriptor that the caller has borrowed for as long as the child is started.
            dup3(unsafe { BorrowedFd::borrow_raw(*source) }, place, DupFlags::CLOEXEC)?;
            *source = place.as_raw_fd();
        }
        Ok(())
    }
}

impl Places {
    fn hold() -> Result<Places, Errno> {
        let null = open(c"/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?;
        let held = (0..PLACED).map(|_| fcntl_dupfd_cloexec(&null, ABOVE_STANDARD));
        let held = held.collect::<Result<_, _>>()?;
        Ok(Places { null, held })
    }
}

impl Drop for Low {
    /// Nothing of the child's stays open here.
    fn drop(&mut self) {
        let Some(mut places) = self.0.take() else { return };
        let Places { null, held } = &mut places;
        if held.iter_mut().all(|place| dup3(&*null, place, DupFlags::CLOEXEC).is_ok()) {
            IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(places);
        }
    }
}

static IDLE: Mutex<Vec<Places>> = Mutex::new(Vec::new());
/// Standard ones, a channel and four listeners; a child with more is started all the same.
const PLACED: usize = 8;
const ABOVE_STANDARD: RawFd = 3;
