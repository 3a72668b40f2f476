//! Children of this process: which has ended, how, and what is left of its group. Whose child it was is the caller's
//! to know.
//!
//! A process number stays its own until the process is reaped (wait(2)), so all that is done by number is done before.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

use rustix::io::retry_on_intr;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid};

use crate::wire::{BY_SIGNAL, LOST};

/// Some child that has ended and is not reaped; the same one until it is.
pub(crate) fn ended() -> Option<Pid> {
    let mut found = MaybeUninit::<libc::siginfo_t>::zeroed();
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes at most one record into memory of its type, for which all zero is valid; with no child
    // to tell of it writes none, and the number stays 0.
    let pid = unsafe {
        while libc::waitid(libc::P_ALL, 0, found.as_mut_ptr(), how) != 0
            && io::Error::last_os_error().kind() == io::ErrorKind::Interrupted
        {}
        found.assume_init_ref().si_pid()
    };
    Pid::from_raw(pid)
}

/// Whether this child has ended; it is not reaped. An error if it is no child of ours.
pub(crate) fn has_ended(pid: Pid) -> io::Result<bool> {
    let how = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    Ok(retry_on_intr(|| waitid(WaitId::Pid(pid), how))?.is_some())
}

/// Reaps a child that has ended: its code, or its signal and [`BY_SIGNAL`], or [`LOST`].
pub(crate) fn reap(pid: Pid) -> u64 {
    let wait = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    let Ok(Some(status)) = retry_on_intr(wait) else { return LOST };
    let code = status.exit_status().map(|code| u64::from(code.unsigned_abs()));
    let signal = || status.terminating_signal().map(|signal| BY_SIGNAL | u64::from(signal.unsigned_abs()));
    code.or_else(signal).unwrap_or(LOST)
}

/// Kills what is left of the group that a worker leads; to be called while it is not reaped.
pub(crate) fn kill_group(leader: Pid) {
    // An empty group is ESRCH, one that runs as somebody else EPERM.
    let _ = kill_process_group(leader, Signal::KILL);
}

/// Kills one child that is not reaped.
pub(crate) fn kill(pid: Pid) {
    let _ = kill_process(pid, Signal::KILL);
}

/// Sends a signal to one child that is not reaped, and continues it if it is stopped, so that it acts on it; STOP and
/// CONT are meant as they are.
pub(crate) fn signal(pid: Pid, signal: i32) {
    let pid = pid.as_raw_nonzero().get();
    // SAFETY: takes numbers only. Whatever is refused is seen as a child that goes on.
    unsafe { libc::kill(pid, signal) };
    if !matches!(signal, 0 | libc::SIGKILL | libc::SIGSTOP | libc::SIGCONT) {
        // SAFETY: the same.
        unsafe { libc::kill(pid, libc::SIGCONT) };
    }
}

/// All children, as the kernel lists them (`/proc/PID/task/TID/children`, proc_pid_task(5)); none where it does not, or by
/// the numbers of another namespace.
pub(crate) fn all() -> Vec<Pid> {
    let ours = || std::fs::read_link("/proc/self").ok()?.to_str()?.parse().ok();
    if ours() != Some(std::process::id()) {
        return Vec::new();
    }
    let text = std::fs::read_to_string("/proc/thread-self/children").unwrap_or_default();
    text.split_ascii_whitespace().filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
}
