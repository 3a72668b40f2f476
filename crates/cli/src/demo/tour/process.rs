//! A process of the demo that does not outlive it.

use std::io;
use std::os::unix::process::CommandExt as _;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitStatus};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

/// A child in a process group of its own, which a terminal's Ctrl-C does not reach. Dropping it ends it.
pub(super) struct Process {
    child: Child,
    patience: Duration,
}

impl Process {
    /// Starts it. When it is dropped it gets SIGTERM and, after so long, SIGKILL; at once if that is zero.
    ///
    /// # Errors
    /// When it cannot be started.
    pub(super) fn start(command: &mut Command, patience: Duration) -> io::Result<Process> {
        Ok(Process { child: command.process_group(0).spawn()?, patience })
    }

    /// Its piped standard input, once.
    pub(super) fn input(&mut self) -> Option<ChildStdin> {
        self.child.stdin.take()
    }

    /// Its piped standard output, once.
    pub(super) fn output(&mut self) -> Option<ChildStdout> {
        self.child.stdout.take()
    }

    /// How it ended, if it has.
    pub(super) fn ended(&mut self) -> Option<ExitStatus> {
        // An error would mean that it is no child of ours.
        self.child.try_wait().ok().flatten()
    }

    /// Waits for its end, at most so long.
    fn wait(&mut self, limit: Duration) -> bool {
        let began = Instant::now();
        while self.ended().is_none() {
            if began.elapsed() >= limit {
                return false;
            }
            std::thread::sleep(LOOK_AGAIN);
        }
        true
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.ended().is_some() {
            return;
        }
        // Not reaped yet, so the pid is still its own.
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid.filter(|_| !self.patience.is_zero())
            && kill_process(pid, Signal::TERM).is_ok()
            && self.wait(self.patience)
        {
            return;
        }
        // Either it has just ended, or it is killed now; both are its end.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const LOOK_AGAIN: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str, patience: Duration) -> (Process, Pid) {
        let mut command = Command::new("/bin/sh");
        command.args(["-c", script]).stdin(std::process::Stdio::null()).stdout(std::process::Stdio::piped());
        let mut process = Process::start(&mut command, patience).unwrap();
        let mut said = [0; 6];
        io::Read::read_exact(&mut process.output().unwrap(), &mut said).unwrap();
        assert_eq!(&said, b"ready\n");
        let pid = Pid::from_raw(i32::try_from(process.child.id()).unwrap()).unwrap();
        (process, pid)
    }

    #[test]
    fn a_process_that_leaves_when_asked_is_not_killed() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join("left");
        let script =
            format!("trap 'touch {}; exit' TERM; echo ready; while :; do sleep 0.01; done", left.display());
        let (process, _) = shell(&script, Duration::from_secs(60));
        drop(process);
        assert!(left.exists());
    }

    #[test]
    fn a_process_that_does_not_leave_is_killed() {
        let (process, pid) =
            shell("trap '' TERM; echo ready; while :; do sleep 0.01; done", Duration::from_millis(50));
        drop(process);
        assert_eq!(rustix::process::test_kill_process(pid), Err(rustix::io::Errno::SRCH));
    }
}
