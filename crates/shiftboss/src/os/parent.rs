//! Whose child a process is: `/proc/PID/stat`, field 4 (proc_pid_stat(5)), in the numbers of the namespace of processes
//! that `/proc` shows.

use std::fs;

/// The parent of this process; none if that cannot be told: there is no such process, it is hidden from us, or `/proc` is
/// that of another namespace, where the number is somebody else's.
#[must_use]
pub fn of(pid: u32) -> Option<u32> {
    if !proc_is_ours() {
        return None;
    }
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    // The name before it is in parentheses and may hold anything.
    let stat = String::from_utf8_lossy(&stat);
    stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok().filter(|parent| *parent > 0)
}

/// Whether the numbers in `/proc` are those that our calls take.
#[must_use]
pub fn proc_is_ours() -> bool {
    let ours = || fs::read_link("/proc/self").ok()?.to_str()?.parse().ok();
    ours() == Some(std::process::id())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::spawn::trial;

    #[test]
    fn a_child_is_ours_and_stays_it_until_it_is_reaped() {
        let child = trial::shell("exit 0");
        let ended = rustix::event::PollFd::new(&child.pidfd, rustix::event::PollFlags::IN);
        assert_eq!(rustix::event::poll(&mut [ended], None), Ok(1));
        assert_eq!(of(child.pid), Some(std::process::id()));
        let pid = child.pid;
        let mut reaper = crate::os::reaper::Reaper::default();
        reaper.watch(1, child);
        reaper.await_end(1).unwrap();
        assert_ne!(of(pid), Some(std::process::id()));
    }

    #[test]
    fn of_the_first_process_nobody_can_tell() {
        assert_eq!((of(1), of(u32::MAX)), (None, None));
    }
}
