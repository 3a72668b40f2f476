//! Children of this process: which has ended, how, and what is left of its group. Whose child it was is the caller's
//! to know.
//!
//! A process number stays its own until the process is reaped (wait(2)), so all that is done by number is done before.
#![allow(unsafe_code)]

use std::io;
use std::mem::MaybeUninit;

use rustix::io::{Errno, retry_on_intr};
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, kill_process_group, waitid};
use shiftboss_link::wire::{BY_SIGNAL, LOST};

/// Some child, or only this one, if it has ended and is not reaped; the same one until it is.
///
/// # Errors
/// ECHILD if there is none, ended or not.
pub(crate) fn ended(only: Option<Pid>) -> io::Result<Option<Pid>> {
    let (kind, number) = only.map_or((libc::P_ALL, 0), |pid| (libc::P_PID, pid.as_raw_nonzero().get()));
    let mut found = MaybeUninit::<libc::siginfo_t>::zeroed();
    let how = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: the kernel writes at most one record into memory of its type.
    retry_on_intr(|| match unsafe { libc::waitid(kind, number.unsigned_abs(), found.as_mut_ptr(), how) } {
        0 => Ok(()),
        _ => Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::CHILD)),
    })?;
    // SAFETY: all zero is valid; with none to tell of the number stays 0.
    Ok(Pid::from_raw(unsafe { found.assume_init_ref().si_pid() }))
}

/// Reaps a child that has ended: its code, or its signal and [`BY_SIGNAL`], or [`LOST`].
pub(crate) fn reap(pid: Pid) -> u64 {
    let wait = || waitid(WaitId::Pid(pid), WaitIdOptions::EXITED);
    let Ok(Some(status)) = retry_on_intr(wait) else { return LOST };
    let code = status.exit_status().map(|code| u64::from(code.unsigned_abs()));
    let signal = || status.terminating_signal().map(|signal| BY_SIGNAL | u64::from(signal.unsigned_abs()));
    code.or_else(signal).unwrap_or(LOST)
}

/// Kills a worker and what is left of the group that it leads; to be called while it is not reaped.
pub(crate) fn kill_group(leader: Pid) {
    // An empty group is ESRCH, one that runs as somebody else EPERM.
    let _ = kill_process_group(leader, Signal::KILL);
    signal(leader, libc::SIGKILL);
}

/// Sends a signal to one child that is not reaped, and continues it if it is stopped, so that it acts on it; STOP and
/// CONT are meant as they are.
pub(crate) fn signal(pid: Pid, signal: i32) {
    let pid = pid.as_raw_nonzero().get();
    let is_meant_so = matches!(signal, 0 | libc::SIGKILL | libc::SIGSTOP | libc::SIGCONT);
    let then = if is_meant_so { 0 } else { libc::SIGCONT };
    // SAFETY: takes numbers only, and 0 sends nothing. Whatever is refused is seen as a child that goes on.
    unsafe {
        libc::kill(pid, signal);
        libc::kill(pid, then);
    }
}

/// All children, as the kernel lists them (`/proc/PID/task/TID/children`, proc_pid_task(5)); none where it does not, or by
/// the numbers of another namespace.
pub(crate) fn all() -> Vec<Pid> {
    let ours = std::process::id().to_string();
    let is_ours = std::fs::read_link("/proc/self").is_ok_and(|number| number.as_os_str() == &*ours);
    let text = is_ours.then(|| std::fs::read_to_string("/proc/thread-self/children").ok()).flatten();
    let words = text.iter().flat_map(|text| text.split_ascii_whitespace());
    words.filter_map(|word| Pid::from_raw(word.parse().ok()?)).collect()
}
