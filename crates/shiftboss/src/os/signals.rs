//! Signals of a process of our own that has no keeper: read instead of delivered as long as the app runs; and whether we
//! are told of children at all. What a signal means is the driver's to say. SIGPIPE stays ignored, as Rust has it.
#![allow(unsafe_code)]

use std::fmt;
use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::ptr;
use std::thread::{self, ThreadId};

use shiftboss_link::signals::SignalFd;

/// The chosen signals, as a [`SignalFd`]. Dropped on its own thread it restores the mask from before; signals that came
/// in between and were not read are forgotten.
pub struct Signals {
    signals: SignalFd,
    before: libc::sigset_t,
    thread: ThreadId,
}

impl fmt::Debug for Signals {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Signals").finish_non_exhaustive()
    }
}

impl Signals {
    /// To be called before any other thread exists.
    ///
    /// # Errors
    /// Those of [`SignalFd::new`].
    pub fn new(numbers: &[i32]) -> io::Result<Self> {
        let before = mask();
        Ok(Signals { signals: SignalFd::new(numbers)?, before, thread: thread::current().id() })
    }

    /// The next signal's number; none if there is no more.
    #[must_use]
    pub fn read(&self) -> Option<i32> {
        self.signals.read()
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.signals.as_fd()
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        if thread::current().id() != self.thread {
            return;
        }
        // One still pending would be delivered now, and end us on our way out.
        while self.read().is_some() {}
        // SAFETY: the mask this very thread had.
        unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const self.before, ptr::null_mut()) };
    }
}

/// Starts a thread that no signal is ever delivered to: whoever else is there gets them. Not even one that comes before
/// the thread has done anything, since it inherits its mask.
///
/// # Errors
/// EAGAIN at the limit of threads.
pub fn undisturbed(name: &str, act: impl FnOnce() + Send + 'static) -> io::Result<()> {
    let mut all = MaybeUninit::<libc::sigset_t>::uninit();
    let before = mask();
    // SAFETY: initialises the whole set, which the next call reads.
    unsafe {
        libc::sigfillset(all.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, all.as_ptr(), ptr::null_mut());
    }
    let thread = thread::Builder::new().name(name.to_owned()).spawn(act);
    // SAFETY: the mask this very thread had.
    unsafe { libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, ptr::null_mut()) };
    thread.map(drop)
}

/// Whether exit statuses of children are thrown away before we can read them: SIGCHLD is ignored or has SA_NOCLDWAIT
/// (`wait(2)`, notes). A host program must change that before workers are started in it.
#[must_use]
pub fn child_signal_is_ignored() -> bool {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only reads the disposition, into memory of the right type; all zero is a valid value of it.
    let action = unsafe {
        libc::sigaction(libc::SIGCHLD, ptr::null(), action.as_mut_ptr());
        action.assume_init()
    };
    action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0
}

/// Undoes an ignored SIGCHLD, which is inherited through `execve(2)`; leaves any other disposition alone.
pub fn restore_child_signal() {
    if child_signal_is_ignored() {
        // SAFETY: sets no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    }
}

/// Unblocks signals that we have inherited as blocked.
pub fn let_through(numbers: &[i32]) {
    let mut set = MaybeUninit::uninit();
    // SAFETY: initialises the whole set, which the next calls change and read; a wrong number is refused.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        for number in numbers {
            libc::sigaddset(set.as_mut_ptr(), *number);
        }
        libc::pthread_sigmask(libc::SIG_UNBLOCK, set.as_ptr(), ptr::null_mut());
    }
}

/// The signals that this thread blocks.
fn mask() -> libc::sigset_t {
    let mut mask = MaybeUninit::uninit();
    // SAFETY: initialises the whole set, then writes this thread's mask into it.
    unsafe {
        libc::sigemptyset(mask.as_mut_ptr());
        libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), mask.as_mut_ptr());
        mask.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::spawn::trial::elsewhere;

    fn blocked(number: i32) -> bool {
        let mask = mask();
        // SAFETY: `mask` is an initialised set.
        unsafe { libc::sigismember(&raw const mask, number) == 1 }
    }

    #[test]
    fn the_old_mask_is_restored_and_what_was_unread_does_not_kill() {
        assert!(!blocked(libc::SIGTERM));
        let signals = Signals::new(&[libc::SIGTERM]).unwrap();
        assert!(blocked(libc::SIGTERM));
        // SAFETY: this thread exists; other tests run in this process.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), libc::SIGTERM) }, 0);
        drop(signals);
        assert!(!blocked(libc::SIGTERM));
    }

    #[test]
    fn an_ignored_sigchld_is_restored() {
        if elsewhere(module_path!(), "an_ignored_sigchld_is_restored") {
            return;
        }
        assert!(!child_signal_is_ignored());
        // SAFETY: sets no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        assert!(child_signal_is_ignored());
        restore_child_signal();
        assert!(!child_signal_is_ignored());
    }
}
