//! A manager that runs. All of its processes carry a mark in their environment, by which they are found, counted and
//! ended, also those that it has put into the background.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::net::TcpListener;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use tempfile::TempDir;

use super::super::first_line::{FirstLine, FirstLines, now};
use super::super::proc::{cpu_ms, has_in_environment, parents, pss_kb, wake_ups};
use super::super::supervisor::exit_within;
use super::Peers;
use super::plan::{Act, Peer, Place, Plan};

pub(super) struct Running {
    pub(super) peer: Peer,
    pub(super) place: Place,
    folder: TempDir,
    lines: FirstLines,
    plan: Plan,
    child: Child,
    pub(super) started_at: u64,
    /// Every worker that was ever heard of.
    workers: HashSet<Pid>,
    is_ended: bool,
}

impl Running {
    pub(super) fn start(peers: &Peers, peer: Peer, workers: usize, crash: bool) -> Result<Running> {
        let folder = tempfile::Builder::new().prefix("bench-").tempdir().context("cannot make a folder")?;
        let lines = FirstLines::new(folder.path())?;
        let place = Place {
            folder: folder.path().to_owned(),
            first_lines: lines.path().to_owned(),
            workers,
            port: TcpListener::bind("127.0.0.1:0")?.local_addr()?.port(),
            crash,
        };
        let mut plan = (peer.plan)(peers, &place)?;
        let log = File::create(folder.path().join("log")).context("cannot make a log")?;
        let command = prepare(&mut plan.command, &place);
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        let started_at = now();
        let child = command.spawn().context("cannot start it")?;
        let workers = HashSet::new();
        Ok(Running { peer, place, folder, lines, plan, child, started_at, workers, is_ended: false })
    }

    pub(super) fn first_lines(&mut self, count: usize, wait: Duration) -> Result<Vec<FirstLine>> {
        let lines = self.lines.take(count, wait).with_context(|| self.last_words())?;
        self.workers.extend(lines.iter().map(|line| line.pid));
        Ok(lines)
    }

    /// All first lines up to then.
    pub(super) fn lines_until(&mut self, until: Instant) -> Result<usize> {
        let lines = self.lines.take_until(until)?;
        self.workers.extend(lines.iter().map(|line| line.pid));
        Ok(lines.len())
    }

    /// The manager's processes: all that carry the mark but workers and what is below them.
    pub(super) fn own(&self) -> Result<Vec<Pid>> {
        let parents = parents()?;
        let is_of_worker = |pid: &Pid| {
            let mut above = Some(*pid);
            while let Some(pid) = above {
                if self.workers.contains(&pid) {
                    return true;
                }
                above = parents.get(&pid).copied();
            }
            false
        };
        let mut own = self.marked(&parents);
        own.retain(|pid| !is_of_worker(pid));
        Ok(own)
    }

    fn marked(&self, parents: &HashMap<Pid, Pid>) -> Vec<Pid> {
        let mark = mark(&self.place);
        parents.keys().copied().filter(|pid| has_in_environment(*pid, &mark)).collect()
    }

    /// Of its own processes together, in KB.
    pub(super) fn pss_kb(&self) -> Result<f64> {
        self.own()?.into_iter().map(pss_kb).sum()
    }

    pub(super) fn wake_ups(&self) -> Result<f64> {
        self.own()?.into_iter().map(wake_ups).sum()
    }

    /// CPU time of its own processes so far.
    pub(super) fn cpu_ms(&self) -> Result<f64> {
        // One that has ended meanwhile is none of those that stay.
        Ok(self.own()?.into_iter().filter_map(|pid| cpu_ms(pid).ok()).sum())
    }

    pub(super) fn is_there(&mut self) -> bool {
        match &self.plan.pid_file {
            Some(_) => self.manager().is_ok(),
            None => matches!(self.child.try_wait(), Ok(None)),
        }
    }

    fn manager(&self) -> Result<Pid> {
        let Some(file) = &self.plan.pid_file else { return Ok(Pid::from_child(&self.child)) };
        let text = std::fs::read_to_string(file).with_context(|| format!("no {}", file.display()))?;
        let pid = text.trim().parse().ok().and_then(Pid::from_raw).context("no pid in its file")?;
        if !has_in_environment(pid, &mark(&self.place)) {
            bail!("it has ended");
        }
        Ok(pid)
    }

    /// Begins to replace all workers in its own way. What is returned ends with it, if it is a command.
    pub(super) fn reload(&mut self) -> Result<Option<Child>> {
        let manager = self.manager()?;
        act(self.plan.reload.as_mut().context("it has no reload")?, manager, &self.place)
    }

    /// Ends it in its own way, then whatever is left of it; how long its own way took, if it did.
    pub(super) fn stop(&mut self) -> Result<Option<Duration>> {
        self.is_ended = true;
        let all = self.marked(&parents()?);
        let begun = Instant::now();
        // Who is killed says nothing to its workers.
        let is_killed = matches!(self.plan.stop, Act::Signal(Signal::KILL));
        let until = begun + if is_killed { Duration::ZERO } else { PATIENCE };
        if let Ok(manager) = self.manager() {
            // One that has just ended needs no word.
            if let Ok(Some(mut told)) = act(&mut self.plan.stop, manager, &self.place) {
                exit_within(&mut told, PATIENCE)?;
            }
        }
        let mut left = all.clone();
        while !left.is_empty() && Instant::now() < until {
            thread::sleep(Duration::from_millis(2));
            let mark = mark(&self.place);
            // A child of ours that has ended is waited for below, and has no environment any more.
            left.retain(|pid| has_in_environment(*pid, &mark));
        }
        let took = left.is_empty().then(|| begun.elapsed());
        for _ in 0..SWEEPS {
            let left = self.marked(&parents()?);
            if left.is_empty() {
                break;
            }
            for pid in left {
                // It has ended by itself, then.
                let _ = kill_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(10));
        }
        self.child.wait()?;
        for pid in all {
            // Only those that became children of this process, as `Bench::prepare` has seen to.
            let _ = waitpid(Some(pid), WaitOptions::NOHANG);
        }
        Ok(took)
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(self.folder.path().join("log")).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        format!(
            "its last words: {}",
            text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("none")
        )
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.is_ended {
            // What went wrong was told by whoever drops it.
            let _ = self.stop();
        }
    }
}

fn act(act: &mut Act, manager: Pid, place: &Place) -> Result<Option<Child>> {
    match act {
        Act::Signal(signal) => {
            kill_process(manager, *signal)?;
            Ok(None)
        }
        Act::Run(command) => {
            let log = File::options().append(true).open(place.file("log")).context("no log")?;
            prepare(command, place).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
            Ok(Some(command.spawn().context("cannot tell it")?))
        }
    }
}

/// Its home is the folder, whatever it keeps there.
fn prepare<'a>(command: &'a mut Command, place: &Place) -> &'a mut Command {
    let (name, value) = (MARK, place.folder.as_os_str());
    command.env(name, value).env("HOME", value).env_remove("env").current_dir(&place.folder);
    command.env("FIRST_LINES", &place.first_lines).env("WORKERS", place.workers.to_string());
    if place.crash {
        command.env("CRASH", "1");
    }
    command
}

fn mark(place: &Place) -> String {
    format!("{MARK}={}", place.folder.display())
}

const MARK: &str = "BENCH_PLACE";
const PATIENCE: Duration = Duration::from_secs(15);
/// Times that what is left is killed: a manager may start somebody meanwhile.
const SWEEPS: u32 = 100;
