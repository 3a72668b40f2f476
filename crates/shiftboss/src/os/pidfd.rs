//! Signals to one process through its pidfd, so that never a stranger is hit who got the number of somebody dead
//! (`pidfd_send_signal(2)`). Killing a whole group is left to `reaper`, which knows when that is safe.
#![allow(unsafe_code)]

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};

/// Sends signal `number` to the process; false if it is gone already. A stopped process is continued, so that it
/// acts on the signal; KILL needs no help and STOP and CONT are meant as they are.
///
/// # Errors
/// EINVAL for a number that is no signal, EPERM if the process runs as somebody else, EBADF for what is no pidfd.
pub fn signal(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<bool> {
    let alive = send(pidfd, number)?;
    if alive && !matches!(number, 0 | libc::SIGKILL | libc::SIGSTOP | libc::SIGCONT) {
        return send(pidfd, libc::SIGCONT).map(|_| true);
    }
    Ok(alive)
}

fn send(pidfd: BorrowedFd<'_>, number: i32) -> io::Result<bool> {
    let (no_info, no_flags) = (std::ptr::null::<libc::siginfo_t>(), 0);
    // SAFETY: takes a descriptor that is open for the whole call, numbers, and no pointer.
    let result =
        unsafe { libc::syscall(libc::SYS_pidfd_send_signal, pidfd.as_raw_fd(), number, no_info, no_flags) };
    if result == 0 {
        return Ok(true);
    }
    let error = io::Error::last_os_error();
    if error.raw_os_error() == Some(libc::ESRCH) { Ok(false) } else { Err(error) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::reaper::{Exit, Reaper};
    use crate::os::spawn::trial;

    #[test]
    fn a_stopped_process_acts_on_term() {
        let mut reaper = Reaper::default();
        reaper.watch(1, trial::shell("kill -STOP $$; exit 9"));
        let pidfd = reaper.pidfd(1).unwrap();
        trial::wait_until_stopped(pidfd);
        assert!(signal(pidfd, libc::SIGTERM).unwrap());
        assert_eq!(reaper.await_end(1).unwrap().exit, Exit::Signal(libc::SIGTERM));
    }

    #[test]
    fn a_process_that_is_gone_is_not_an_error() {
        let child = trial::shell("exit 0");
        let pidfd = child.pidfd.try_clone().unwrap();
        let mut reaper = Reaper::default();
        reaper.watch(1, child);
        reaper.await_end(1).unwrap();
        use std::os::fd::AsFd;
        assert!(!signal(pidfd.as_fd(), libc::SIGTERM).unwrap());
    }

    #[test]
    fn a_number_that_is_no_signal_is_refused() {
        let mut reaper = Reaper::default();
        reaper.watch(1, trial::shell("kill -STOP $$"));
        let error = signal(reaper.pidfd(1).unwrap(), 65).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        reaper.kill_tree(1);
        assert_eq!(reaper.await_end(1).unwrap().exit, Exit::Signal(libc::SIGKILL));
    }
}
