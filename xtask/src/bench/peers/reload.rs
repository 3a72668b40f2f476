//! Requests that fail while all workers are replaced again and again, each manager in its own way.

use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};

use super::super::load::{Counted, Load};
use super::plan::{Peer, Worker};
use super::running::Running;
use super::table::{Better, Cell, Line, Table, column};
use super::{Peers, all};

pub(super) fn measure(peers: &Peers) -> Result<Vec<Table>> {
    let mut tables = Vec::new();
    for worker in [Worker::Node, Worker::Python] {
        let compared: Vec<Peer> =
            all().into_iter().filter(|peer| peer.reloads && peer.worker == worker).collect();
        let mut lines = Vec::new();
        // A few at a time, so that all share the moments and the machine is not full.
        for group in compared.chunks(AT_ONCE) {
            lines.extend(together(peers, group));
        }
        tables.push(Table {
            title: format!("Requests that fail while workers are replaced: {}", worker.name()),
            columns: vec![
                column("workers replaced", 0, Better::Neither),
                column("connection each: sent", 0, Better::Neither),
                column("failed", 0, Better::Less),
                column("failed for each reload of 4", 2, Better::Less),
                column("p99, ms", 0, Better::Neither),
                column("kept connections: sent", 0, Better::Neither),
                column("failed", 0, Better::Less),
                column("crossed", 0, Better::Less),
                column("p99, ms", 0, Better::Neither),
            ],
            lines,
            why: "",
        });
    }
    Ok(tables)
}

fn together(peers: &Peers, who: &[Peer]) -> Vec<Line> {
    let begin = |peer: &Peer| (peer.name, Served::begin(peers, *peer));
    let mut all: Vec<_> = who.iter().map(begin).collect();
    let length = if peers.bench.quick { LENGTH / 5 } else { LENGTH };
    let until = Instant::now() + length;
    while Instant::now() < until {
        thread::sleep(PAUSE);
        for (_, served) in &mut all {
            if let Ok(subject) = served
                && let Err(error) = subject.reload()
            {
                *served = Err(error);
            }
        }
    }
    let end = |(name, served): (&'static str, Result<Served>)| {
        let cells = served.and_then(Served::finish).map_err(|error| format!("{error:#}"));
        Line { peer: name, cells }
    };
    all.into_iter().map(end).collect()
}

/// A manager under two loads.
struct Served {
    running: Running,
    new: Load,
    kept: Load,
    /// A reload that has not returned.
    reloading: Option<Child>,
}

impl Served {
    fn begin(peers: &Peers, peer: Peer) -> Result<Served> {
        let mut running = Running::start(peers, peer, WORKERS, false)?;
        running.first_lines(WORKERS, PATIENCE)?;
        let port = running.place.port;
        // A first line is said a moment before the port is.
        thread::sleep(SETTLE);
        let new = Load::start(&peers.bench, port, &["--no-keep-alive"])?;
        let kept = Load::start(&peers.bench, port, &[])?;
        new.wait_answered()?;
        kept.wait_answered()?;
        Ok(Served { running, new, kept, reloading: None })
    }

    /// Unless the last one is still under way.
    fn reload(&mut self) -> Result<()> {
        if let Some(child) = &mut self.reloading {
            match child.try_wait()? {
                None => return Ok(()),
                Some(status) if !status.success() => bail!("its reload: {status}"),
                Some(_) => self.reloading = None,
            }
        }
        self.reloading = self.running.reload()?;
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Cell>> {
        if let Some(child) = &mut self.reloading {
            super::super::supervisor::exit_within(child, PATIENCE)?;
        }
        // What is replaced last is replaced under load, too.
        let replaced = self.running.lines_until(Instant::now() + LAST)?;
        let (new, kept) = (self.new.finish()?, self.kept.finish()?);
        self.running.stop()?;
        let reloads = (replaced as f64 / WORKERS as f64).max(1.0);
        for failure in new.failures.iter().chain(&kept.failures).take(4) {
            eprintln!("  {}: {failure}", self.running.peer.name);
        }
        let numbers = |counted: &Counted| (counted.sent, counted.failed, counted.crossed, counted.p99_ms);
        let ((sent, failed, _, p99), kept) = (numbers(&new), numbers(&kept));
        let cells = [replaced as f64, sent, failed, failed / reloads, p99, kept.0, kept.1, kept.2, kept.3];
        if replaced == 0 {
            None.context("no worker was replaced")?;
        }
        Ok(cells.map(Cell::Number).to_vec())
    }
}

const WORKERS: usize = 4;
const AT_ONCE: usize = 3;
const LENGTH: Duration = Duration::from_secs(30);
/// Between two reloads.
const PAUSE: Duration = Duration::from_secs(3);
const SETTLE: Duration = Duration::from_millis(1500);
const LAST: Duration = Duration::from_secs(4);
const PATIENCE: Duration = Duration::from_secs(30);
