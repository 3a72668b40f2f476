//! Signals sent to us, as something to read (`signalfd(2)`), and the dispositions we were started with.
//!
//! Only for a process of our own: masks and dispositions belong to a host program otherwise. What a signal means is
//! the driver's to say. SIGPIPE stays ignored, as Rust has it.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use std::ptr;
use std::thread::{self, ThreadId};

/// The chosen signals, blocked and read from a descriptor. Dropped on its own thread it restores the mask from before;
/// signals that came in between and were not read are forgotten.
pub struct SignalFd {
    descriptor: OwnedFd,
    before: libc::sigset_t,
    thread: ThreadId,
    ignored: Vec<i32>,
}

impl SignalFd {
    /// Blocks these signals in the calling thread, and so in the threads it starts later: to be called before any other
    /// thread exists, or they are still delivered there. One that was ignored when we were started (as HUP by
    /// `nohup(1)`, INT and QUIT by a shell's `&`) stays ignored, except TERM: somebody must be able to end us.
    ///
    /// # Errors
    /// EINVAL for a number that is no signal, EMFILE or ENFILE at the limit of open files; the mask is then unchanged.
    pub fn new(numbers: &[i32]) -> io::Result<Self> {
        let (ignored, heard): (Vec<i32>, Vec<i32>) =
            numbers.iter().partition(|number| **number != libc::SIGTERM && is_ignored(**number));
        let set = set_of(&heard)?;
        // SAFETY: `set` is an initialised signal set.
        let descriptor =
            unsafe { libc::signalfd(-1, &raw const set, libc::SFD_CLOEXEC | libc::SFD_NONBLOCK) };
        if descriptor < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, known to nobody else.
        let descriptor = unsafe { OwnedFd::from_raw_fd(descriptor) };
        let mut before = empty_set();
        // SAFETY: both sets live until the call returns.
        let failed = unsafe { libc::pthread_sigmask(libc::SIG_BLOCK, &raw const set, &raw mut before) };
        if failed != 0 {
            return Err(io::Error::from_raw_os_error(failed));
        }
        Ok(SignalFd { descriptor, before, thread: thread::current().id(), ignored })
    }

    /// The next signal's number; none if there is no more. The same signal twice before it is read is told once, except
    /// for real-time signals (`signal(7)`).
    #[must_use]
    pub fn read(&self) -> Option<i32> {
        let mut record = [0; size_of::<libc::signalfd_siginfo>()];
        loop {
            match rustix::io::read(&self.descriptor, &mut record) {
                // The record begins with the number, in the machine's byte order.
                Ok(_) => {
                    return i32::try_from(u32::from_ne_bytes(*record.first_chunk()?))
                        .ok()
                        .filter(|it| *it > 0);
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return None,
            }
        }
    }

    /// Those of the wanted signals that were ignored when we were started and so are not heard.
    #[must_use]
    pub fn ignored(&self) -> &[i32] {
        &self.ignored
    }
}

impl AsFd for SignalFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for SignalFd {
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

/// Whether signal `number` is ignored by this process; false for a number that is no signal.
#[must_use]
pub fn is_ignored(number: i32) -> bool {
    disposition(number).is_some_and(|action| action.sa_sigaction == libc::SIG_IGN)
}

/// Whether exit statuses of children are thrown away before we can read them: SIGCHLD is ignored or has SA_NOCLDWAIT
/// (`wait(2)`, notes). A host program must change that before workers are started in it.
#[must_use]
pub fn child_signal_is_ignored() -> bool {
    disposition(libc::SIGCHLD).is_some_and(|action| {
        action.sa_sigaction == libc::SIG_IGN || action.sa_flags & libc::SA_NOCLDWAIT != 0
    })
}

/// Undoes an ignored SIGCHLD, which is inherited through `execve(2)`; leaves any other disposition alone.
pub fn restore_child_signal() {
    if child_signal_is_ignored() {
        // SAFETY: sets no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_DFL) };
    }
}

fn disposition(number: i32) -> Option<libc::sigaction> {
    let mut action = MaybeUninit::<libc::sigaction>::zeroed();
    // SAFETY: only reads the disposition, into memory of the right type; all zero is a valid value of it.
    unsafe { (libc::sigaction(number, ptr::null(), action.as_mut_ptr()) == 0).then(|| action.assume_init()) }
}

fn set_of(numbers: &[i32]) -> io::Result<libc::sigset_t> {
    let mut set = empty_set();
    for number in numbers {
        // SAFETY: `set` is initialised; a wrong number is refused.
        if unsafe { libc::sigaddset(&raw mut set, *number) } != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(set)
}

fn empty_set() -> libc::sigset_t {
    let mut set = MaybeUninit::uninit();
    // SAFETY: initialises the whole set and cannot fail.
    unsafe {
        libc::sigemptyset(set.as_mut_ptr());
        set.assume_init()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// To this thread only: other tests run in this process.
    fn raise(number: i32) {
        // SAFETY: this thread exists.
        assert_eq!(unsafe { libc::pthread_kill(libc::pthread_self(), number) }, 0);
    }

    fn blocked(number: i32) -> bool {
        let mut mask = empty_set();
        // SAFETY: reads this thread's mask into `mask`, which is then an initialised set.
        unsafe {
            libc::pthread_sigmask(libc::SIG_BLOCK, ptr::null(), &raw mut mask);
            libc::sigismember(&raw const mask, number) == 1
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
    fn the_old_mask_is_restored_and_what_was_unread_does_not_kill() {
        assert!(!blocked(libc::SIGTERM));
        let signals = SignalFd::new(&[libc::SIGTERM]).unwrap();
        assert!(blocked(libc::SIGTERM));
        raise(libc::SIGTERM);
        drop(signals);
        assert!(!blocked(libc::SIGTERM));
    }

    #[test]
    fn a_number_that_is_no_signal_changes_nothing() {
        assert!(SignalFd::new(&[libc::SIGTERM, 1000]).is_err());
        assert!(!blocked(libc::SIGTERM));
        assert!(!is_ignored(1000));
    }

    #[test]
    fn what_was_ignored_at_start_stays_ignored_but_not_term() {
        if elsewhere("what_was_ignored_at_start_stays_ignored_but_not_term") {
            return;
        }
        for number in [libc::SIGHUP, libc::SIGTERM] {
            // SAFETY: sets no handler.
            unsafe { libc::signal(number, libc::SIG_IGN) };
        }
        let signals = SignalFd::new(&[libc::SIGHUP, libc::SIGTERM, libc::SIGINT]).unwrap();
        assert_eq!(signals.ignored(), [libc::SIGHUP]);
        for number in [libc::SIGHUP, libc::SIGTERM, libc::SIGINT] {
            raise(number);
        }
        assert_eq!([(); 3].map(|()| signals.read()), [Some(libc::SIGINT), Some(libc::SIGTERM), None]);
    }

    #[test]
    fn an_ignored_sigchld_is_restored() {
        if elsewhere("an_ignored_sigchld_is_restored") {
            return;
        }
        assert!(!child_signal_is_ignored());
        // SAFETY: sets no handler.
        unsafe { libc::signal(libc::SIGCHLD, libc::SIG_IGN) };
        assert!(child_signal_is_ignored());
        restore_child_signal();
        assert!(!child_signal_is_ignored());
    }

    fn readable(fd: BorrowedFd<'_>) -> bool {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let mut fds = [PollFd::new(&fd, PollFlags::IN)];
        poll(&mut fds, Some(&Timespec { tv_sec: 10, tv_nsec: 0 })).unwrap() == 1
    }

    /// Runs the calling test again in a process of its own; false inside that one.
    fn elsewhere(test: &str) -> bool {
        if std::env::var_os(INSIDE).is_some() {
            return false;
        }
        let output = std::process::Command::new(std::env::current_exe().unwrap())
            .args([&format!("signals::tests::{test}"), "--exact", "--nocapture", "--test-threads=1"])
            .env(INSIDE, "1")
            .output()
            .unwrap();
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && text.contains("1 passed"), "{text}");
        true
    }

    const INSIDE: &str = "SHIFTBOSS_TEST_INSIDE";
}
