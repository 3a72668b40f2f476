//! Signals sent to us, as something to read (`signalfd(2)`).
//!
//! Only for a process of our own: its mask belongs to a host program otherwise. What a signal means is its reader's to
//! say.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;

/// Those that mean nothing to a keeper, which reads them only because they would end it; below it they are the program's own.
pub const UNMEANT: [i32; 2] = [libc::SIGUSR1, libc::SIGALRM];

/// The chosen signals, blocked and read from a descriptor. They stay blocked.
pub struct SignalFd(OwnedFd);

impl SignalFd {
    /// Blocks these signals in the calling thread, and so in the threads it starts later: to be called before any other
    /// thread exists, or they are still delivered there. One that was ignored when we were started (as HUP by
    /// `nohup(1)`, INT and QUIT by a shell's `&`) stays ignored, except TERM: somebody must be able to end us.
    ///
    /// # Errors
    /// EINVAL for a number that is no signal, EMFILE or ENFILE at the limit of open files; the mask is then unchanged.
    pub fn new(numbers: &[i32]) -> io::Result<Self> {
        let mut set = MaybeUninit::uninit();
        // SAFETY: initialises the whole set and cannot fail.
        let mut set = unsafe {
            libc::sigemptyset(set.as_mut_ptr());
            set.assume_init()
        };
        for &number in numbers.iter().filter(|number| **number == libc::SIGTERM || !is_ignored(**number)) {
            // SAFETY: `set` is initialised; a wrong number is refused.
            if unsafe { libc::sigaddset(&raw mut set, number) } != 0 {
                return Err(io::Error::last_os_error());
            }
        }
        // SAFETY: `set` is an initialised signal set.
        let number = unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if number < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: the set lives until the call returns, which refuses nothing but another first argument.
        unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, ptr::null_mut()) };
        // SAFETY: just opened, known to nobody else.
        Ok(SignalFd(unsafe { OwnedFd::from_raw_fd(number) }))
    }

    /// The next signal's number; none if there is no more. The same signal twice before it is read is told once, except
    /// for real-time signals (`signal(7)`).
    #[must_use]
    pub fn read(&self) -> Option<i32> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        // It does not wait, so nothing interrupts it.
        rustix::io::read(&self.0, &mut record).ok()?;
        // The record begins with the number, in the machine's byte order.
        i32::try_from(u32::from_ne_bytes(*record.first_chunk()?)).ok()
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// Has writes to a pipe that nobody reads, and beyond the limit of a file's size (`RLIMIT_FSIZE`), fail instead of ending
/// this process and those that it executes.
pub fn writes_fail() {
    for number in [libc::SIGPIPE, libc::SIGXFSZ] {
        // SAFETY: sets no handler, and both numbers are signals that may be ignored.
        unsafe { libc::signal(number, libc::SIG_IGN) };
    }
}

/// Whether this process ignores a signal; false for a number that is no signal.
#[must_use]
pub fn is_ignored(number: i32) -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only reads the disposition, into memory of the right type; all zero is a valid value of it.
    let action = unsafe {
        libc::sigaction(number, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::inside::is_inside;

    /// To this thread only: other tests run in this process.
    fn raise(number: i32) {
        // SAFETY: this thread exists.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), number) }, 0);
    }

    fn blocked(number: i32) -> bool {
        let mut mask = MaybeUninit::zeroed();
        // SAFETY: reads this thread's mask into `mask`, which is then an initialised set.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr());
            libc::sigismember(mask.as_ptr(), number) == 1
        }
    }

    #[test]
    fn a_signal_is_read_instead_of_delivered() {
        let signals = SignalFd::new(&[libc::SIGTERM, libc::SIGUSR2]).unwrap();
        assert_eq!(signals.read(), None);
        raise(libc::SIGTERM);
        raise(libc::SIGTERM);
        assert!(readable(signals.as_fd()));
        assert_eq!((signals.read(), signals.read()), (Some(libc::SIGTERM), None));
        raise(libc::SIGUSR2);
        assert_eq!(signals.read(), Some(libc::SIGUSR2));
    }

    #[test]
    fn a_number_that_is_no_signal_changes_nothing() {
        assert!(SignalFd::new(&[libc::SIGTERM, 1000]).is_err());
        assert!(!blocked(libc::SIGTERM));
        assert!(!is_ignored(1000));
    }

    #[test]
    fn what_was_ignored_at_start_stays_ignored_but_not_term() {
        if !is_inside("signals::tests::what_was_ignored_at_start_stays_ignored_but_not_term") {
            return;
        }
        // INT too: a shell's `&` may have started the tests.
        let start =
            [(libc::SIGHUP, libc::SIG_IGN), (libc::SIGTERM, libc::SIG_IGN), (libc::SIGINT, libc::SIG_DFL)];
        for (number, disposition) in start {
            // SAFETY: sets no handler.
            unsafe { libc::signal(number, disposition) };
        }
        let signals = SignalFd::new(&[libc::SIGHUP, libc::SIGTERM, libc::SIGINT]).unwrap();
        for number in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
            raise(number);
        }
        assert_eq!([(); 3].map(|()| signals.read()), [Some(libc::SIGINT), Some(libc::SIGTERM), None]);
    }

    fn readable(fd: BorrowedFd<'_>) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap() == 1
    }
}
