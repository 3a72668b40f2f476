//! The moment a worker is there: the first line of `test-worker`, which comes through a FIFO past both supervisors, so
//! that it takes the same way under each.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::OwnedFd;
use rustix::fs::{CWD, FileType, Mode, OFlags, mknodat, open};
use rustix::process::Pid;
use rustix::time::{ClockId, clock_gettime};

/// A worker that has come up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct FirstLine {
    pub(super) pid: Pid,
    /// CLOCK_MONOTONIC in ns, read by the worker itself.
    pub(super) at: u64,
}

/// Where first lines come in.
pub(super) struct FirstLines {
    path: PathBuf,
    fifo: OwnedFd,
    rest: Vec<u8>,
}

impl FirstLines {
    pub(super) fn new(folder: &Path) -> Result<FirstLines> {
        let path = folder.join("first-lines");
        mknodat(CWD, &path, FileType::Fifo, Mode::RUSR | Mode::WUSR, 0).context("cannot make a FIFO")?;
        // Open for writing too, so that it never ends and no worker waits for a reader (fifo(7)).
        let fifo = open(&path, OFlags::RDWR | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())?;
        Ok(FirstLines { path, fifo, rest: Vec::new() })
    }

    /// The worker's flags.
    pub(super) fn flags(&self) -> Vec<String> {
        // It ends by itself, late, should nobody be left to stop it.
        let end = LONGEST_RUN.as_millis().to_string();
        vec!["--first-line-to".into(), self.path.display().to_string(), "--exit-after".into(), end]
    }

    /// The next `count` lines.
    pub(super) fn take(&mut self, count: usize, wait: Duration) -> Result<Vec<FirstLine>> {
        let until = Instant::now() + wait;
        let mut lines = Vec::with_capacity(count);
        while lines.len() < count {
            match self.buffered()? {
                Some(line) => lines.push(line),
                None if self.fill(until)? => {}
                None => bail!("{} of {count} workers came up in {wait:?}", lines.len()),
            }
        }
        Ok(lines)
    }

    /// All that come until then, and what lies there in the end.
    pub(super) fn take_until(&mut self, until: Instant) -> Result<Vec<FirstLine>> {
        let mut lines = Vec::new();
        // A full FIFO; whoever goes on writing does not make it longer.
        let mut late = 16;
        loop {
            while let Some(line) = self.buffered()? {
                lines.push(line);
            }
            if late == 0 || !self.fill(until)? {
                return Ok(lines);
            }
            late -= i32::from(Instant::now() >= until);
        }
    }

    /// Where workers write them.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    fn buffered(&mut self) -> Result<Option<FirstLine>> {
        let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line: Vec<u8> = self.rest.drain(..=end).collect();
        let line = String::from_utf8_lossy(&line);
        parse(&line).map(Some).with_context(|| format!("not a first line: {line:?}"))
    }

    /// Reads what has come; false when nothing does.
    fn fill(&mut self, until: Instant) -> Result<bool> {
        let left = Timespec::try_from(until.saturating_duration_since(Instant::now()))?;
        if poll(&mut [PollFd::new(&self.fifo, PollFlags::IN)], Some(&left))? == 0 {
            return Ok(false);
        }
        let mut part = [0; 4096];
        let size = rustix::io::read(&self.fifo, &mut part)?;
        self.rest.extend_from_slice(&part[..size]);
        Ok(true)
    }
}

/// CLOCK_MONOTONIC in ns, as in [`FirstLine::at`].
pub(super) fn now() -> u64 {
    let now = clock_gettime(ClockId::Monotonic);
    u64::try_from(now.tv_sec * 1_000_000_000 + now.tv_nsec).unwrap_or(0)
}

/// From a moment to a later one, in ms; negative if it was the other way round.
pub(super) fn ms_between(from: u64, to: u64) -> f64 {
    (to as f64 - from as f64) / 1e6
}

fn parse(line: &str) -> Option<FirstLine> {
    let mut words = line.split_whitespace();
    let (word, pid, at) = (words.next()?, words.next()?, words.next()?);
    let pid = Pid::from_raw(pid.parse().ok()?)?;
    (word == "ready").then_some(FirstLine { pid, at: at.parse().ok()? })
}

/// No row takes longer.
const LONGEST_RUN: Duration = Duration::from_secs(240);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_first_line_names_process_and_moment() {
        let line = parse("ready 12 3450\n");
        assert_eq!(line.map(|line| (line.pid.as_raw_nonzero().get(), line.at)), Some((12, 3450)));
        assert_eq!(parse("line 1\n"), None);
        assert_eq!(parse("ready 0 1\n"), None);
    }
}
