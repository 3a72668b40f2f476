//! The control of the recycle rows: the same workers, started and replaced by hand as well as the program allows it:
//! successors first, then, when they have said that they are ready, TERM to their predecessors.

use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use super::supervisor::exit_within;

/// A shift of workers on one listener. Killed when dropped.
pub(super) struct Hand {
    command: Vec<String>,
    count: usize,
    listener: TcpListener,
    notices: UnixDatagram,
    folder: TempDir,
    workers: Vec<Child>,
}

impl Hand {
    /// Starts the workers and waits until all are ready.
    pub(super) fn start(command: &[String], count: usize) -> Result<Hand> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir().context("cannot make a folder")?;
        let listener = TcpListener::bind("127.0.0.1:0").context("cannot listen")?;
        let notices =
            UnixDatagram::bind(folder.path().join("notify")).context("cannot make a notify socket")?;
        let command = command.to_vec();
        let mut hand = Hand { command, count, listener, notices, folder, workers: Vec::new() };
        hand.start_all()?;
        Ok(hand)
    }

    pub(super) fn port(&self) -> Result<u16> {
        Ok(self.listener.local_addr()?.port())
    }

    /// Replaces every worker; returns when the last predecessor has ended.
    pub(super) fn recycle(&mut self) -> Result<()> {
        let mut predecessors = std::mem::take(&mut self.workers);
        let started = self.start_all();
        for predecessor in &predecessors {
            kill_process(Pid::from_child(predecessor), Signal::TERM)?;
        }
        let until = Instant::now() + PATIENCE;
        let mut stayed = 0;
        for predecessor in &mut predecessors {
            if exit_within(predecessor, until.saturating_duration_since(Instant::now()))?.is_none() {
                end(predecessor);
                stayed += 1;
            }
        }
        if stayed > 0 {
            bail!("{stayed} workers of the control did not leave in {PATIENCE:?}");
        }
        started
    }

    fn start_all(&mut self) -> Result<()> {
        for _ in 0..self.count {
            let worker = self.spawn()?;
            self.workers.push(worker);
        }
        let until = Instant::now() + PATIENCE;
        let mut message = [0; 1024];
        let mut ready = 0;
        while ready < self.count {
            let left = until.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
            self.notices.set_read_timeout(Some(left))?;
            let size = self.notices.recv(&mut message);
            let size = size.with_context(|| format!("{ready} of {} of the control are ready", self.count))?;
            ready += usize::from(message[..size].split(|byte| *byte == b'\n').any(|line| line == b"READY=1"));
        }
        Ok(())
    }

    /// A shell puts the listener where sd_listen_fds(3) expects it, then becomes the worker.
    fn spawn(&self) -> Result<Child> {
        let listener = OwnedFd::from(self.listener.try_clone()?);
        let mut command = Command::new("/bin/sh");
        command.args(["-c", ACTIVATE, "sh"]).args(&self.command);
        command.env("LISTEN_FDS", "1").env("NOTIFY_SOCKET", self.folder.path().join("notify"));
        command.stdin(Stdio::from(listener)).stdout(Stdio::null());
        command.spawn().context("cannot start a worker of the control")
    }
}

impl Drop for Hand {
    fn drop(&mut self) {
        self.workers.iter_mut().for_each(end);
    }
}

/// TERM first, so that a worker with processes of its own can end them.
fn end(child: &mut Child) {
    // All of this fails when it has ended already, as it may have.
    let _ = kill_process(Pid::from_child(child), Signal::TERM);
    if !matches!(exit_within(child, Duration::from_secs(6)), Ok(Some(_))) {
        let _ = child.kill();
        let _ = child.wait();
    }
}

const ACTIVATE: &str = "exec 3<&0 </dev/null; LISTEN_PID=$$ exec \"$@\"";
const PATIENCE: Duration = Duration::from_secs(30);
