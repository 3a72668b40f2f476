//! The one place that reaps: it holds every child from its start to its end.
//!
//! A process number, and the group of that number, stay the child's own only until it is reaped (`wait(2)`), so what
//! is left of its group is killed while its zombie still pins the number. That a child has ended is seen by whoever
//! waits for its pidfd to become readable; what its end means is for core to say.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, Signal, WaitId, WaitIdOptions, WaitIdStatus, kill_process_group, waitid};

use super::pidfd;
use super::spawn::Child;

/// All children that were started and not yet reaped, each under the caller's token.
#[derive(Debug, Default)]
pub struct Reaper {
    children: BTreeMap<u64, Watched>,
}

#[derive(Debug)]
struct Watched {
    pid: u32,
    pidfd: OwnedFd,
}

/// A child that was reaped; its pid may be anybody's from now on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// The caller's name for it.
    pub token: u64,
    /// The number it had.
    pub pid: u32,
    /// How it ended.
    pub exit: Exit,
}

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exit {
    /// By itself: 0 to 255, or [`LOST`].
    Code(i32),
    /// By this signal, with or without a core dump.
    Signal(i32),
}

/// The code of a child whose status somebody else took: a host program that waits for any child, or one in which
/// SIGCHLD is ignored (`wait(2)`). No process can end with it by itself.
pub const LOST: i32 = -1;

/// Whether somebody traces this process, and keeps it from being reaped by its parent (`ptrace(2)`; proc(5), `TracerPid`). One
/// outside of our PID namespace is not seen.
#[must_use]
pub fn is_traced(pid: u32) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    status.lines().filter_map(|line| line.strip_prefix("TracerPid:")).any(|tracer| tracer.trim() != "0")
}

impl Reaper {
    /// Takes a child over. A token is used for one child at a time.
    pub fn watch(&mut self, token: u64, child: Child) {
        self.children.insert(token, Watched { pid: child.pid, pidfd: child.pidfd });
    }

    /// What becomes readable when the child has ended; none once it is reaped.
    #[must_use]
    pub fn pidfd(&self, token: u64) -> Option<BorrowedFd<'_>> {
        self.children.get(&token).map(|child| child.pidfd.as_fd())
    }

    /// If the child has ended: kills what is left of its group, reaps and forgets it. None if it lives or is unknown.
    pub fn reap(&mut self, token: u64) -> Option<Death> {
        self.end(token, WaitIdOptions::NOHANG)
    }

    /// The same, but waits until it has ended; for a child that was killed and cannot be watched.
    pub fn await_end(&mut self, token: u64) -> Option<Death> {
        self.end(token, WaitIdOptions::empty())
    }

    /// Kills the child and its process group; does nothing once it is reaped. What has left the group lives on.
    pub fn kill_tree(&self, token: u64) {
        if let Some(child) = self.children.get(&token) {
            child.kill_group();
            // It may have left its own group. Whatever is refused here is seen as a child that does not end.
            let _ = pidfd::signal(child.pidfd.as_fd(), Signal::KILL.as_raw());
        }
    }

    fn end(&mut self, token: u64, how: WaitIdOptions) -> Option<Death> {
        let child = self.children.get(&token)?;
        let exit = match child.wait(WaitIdOptions::NOWAIT | how) {
            Ok(None) => return None,
            Ok(Some(_)) => {
                child.kill_group();
                child
                    .wait(WaitIdOptions::empty())
                    .ok()
                    .flatten()
                    .map_or(Exit::Code(LOST), |status| exit(&status))
            }
            Err(_) => Exit::Code(LOST),
        };
        let child = self.children.remove(&token)?;
        Some(Death { token, pid: child.pid, exit })
    }
}

impl Watched {
    fn wait(&self, how: WaitIdOptions) -> Result<Option<WaitIdStatus>, Errno> {
        loop {
            let result = waitid(WaitId::PidFd(self.pidfd.as_fd()), WaitIdOptions::EXITED | how);
            if !matches!(result, Err(Errno::INTR)) {
                return result;
            }
        }
    }

    /// Only while it is not reaped. An empty group is ESRCH, one that runs as somebody else EPERM.
    fn kill_group(&self) {
        if let Some(group) = i32::try_from(self.pid).ok().and_then(Pid::from_raw) {
            let _ = kill_process_group(group, Signal::KILL);
        }
    }
}

fn exit(status: &WaitIdStatus) -> Exit {
    match (status.exit_status(), status.terminating_signal()) {
        (Some(code), _) => Exit::Code(code),
        (None, Some(signal)) => Exit::Signal(signal),
        (None, None) => Exit::Code(LOST),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::os::lines;
    use crate::os::spawn::{Start, spawn, trial};

    fn end_of(script: &str) -> Exit {
        let mut reaper = Reaper::default();
        reaper.watch(7, trial::shell(script));
        let death = reaper.await_end(7).unwrap();
        assert_eq!((death.token, reaper.reap(7)), (7, None));
        death.exit
    }

    #[test]
    fn codes_and_signals_are_told_apart() {
        assert_eq!(end_of("exit 0"), Exit::Code(0));
        assert_eq!(end_of("exit 143"), Exit::Code(143));
        assert_eq!(end_of("kill -TERM $$"), Exit::Signal(15));
        assert_eq!(end_of("kill -40 $$"), Exit::Signal(40));
    }

    #[test]
    fn a_core_dump_is_a_signal() {
        // In a directory where a core may not be written the flag is absent; either way it is the signal.
        assert_eq!(end_of("cd /tmp; ulimit -c 0; kill -ABRT $$"), Exit::Signal(6));
    }

    #[test]
    fn a_living_child_is_not_reaped() {
        let mut reaper = Reaper::default();
        reaper.watch(1, trial::shell("kill -STOP $$"));
        trial::wait_until_stopped(reaper.pidfd(1).unwrap());
        assert_eq!(reaper.reap(1), None);
        assert!(reaper.pidfd(1).is_some());
        reaper.kill_tree(1);
        assert!(trial::readable(reaper.pidfd(1).unwrap()));
        assert_eq!(reaper.reap(1).unwrap().exit, Exit::Signal(9));
    }

    #[test]
    fn what_a_dead_child_left_in_its_group_is_killed() {
        let (reader, writer) = lines::pipe().unwrap();
        let program = trial::sh("sleep 1000 & exit 3");
        let start = Start { descriptors: &[(writer.as_fd(), 5)], ..trial::start(&program) };
        let mut reaper = Reaper::default();
        reaper.watch(1, spawn(&start).unwrap());
        drop(writer);
        assert!(trial::readable(reaper.pidfd(1).unwrap()));
        assert_eq!(reaper.reap(1).unwrap().exit, Exit::Code(3));
        // The sleeper holds the only write end: it is gone when the pipe ends.
        assert!(trial::readable(reader.as_fd()));
    }

    #[test]
    fn killing_the_tree_ends_grandchildren() {
        let (reader, writer) = lines::pipe().unwrap();
        let program = trial::sh("sleep 1000 & sleep 1000 & kill -STOP $$");
        let start = Start { descriptors: &[(writer.as_fd(), 5)], ..trial::start(&program) };
        let mut reaper = Reaper::default();
        reaper.watch(1, spawn(&start).unwrap());
        drop(writer);
        trial::wait_until_stopped(reaper.pidfd(1).unwrap());
        reaper.kill_tree(1);
        assert!(trial::readable(reader.as_fd()));
        assert_eq!(reaper.await_end(1).unwrap().exit, Exit::Signal(9));
    }

    #[test]
    fn a_status_that_somebody_else_took_is_told_as_lost() {
        let child = trial::shell("exit 0");
        waitid(WaitId::PidFd(child.pidfd.as_fd()), WaitIdOptions::EXITED).unwrap();
        let mut reaper = Reaper::default();
        reaper.watch(1, child);
        assert_eq!(reaper.reap(1).unwrap().exit, Exit::Code(LOST));
    }
}
