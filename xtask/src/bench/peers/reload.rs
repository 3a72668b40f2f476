//! Requests that fail while all workers are replaced again and again, each manager in its own way.

use std::process::Child;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

use super::super::Bench;
use super::super::load::Load;
use super::super::supervisor::exit_within;
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
                column("connection each: requests", 0, Better::Neither),
                column("failed", 0, Better::Neither),
                column("failed for each reload of 4", 2, Better::Less),
                column("p99, ms", 0, Better::Neither),
                column("kept connections: requests", 0, Better::Neither),
                column("failed, kept", 0, Better::Neither),
                column("failed for each reload of 4, kept", 2, Better::Less),
                column("crossed", 0, Better::Less),
                column("p99, ms", 0, Better::Neither),
            ],
            lines,
            why: "What a server that is told to leave does with connections that wait is its own affair."
                .to_owned(),
        });
    }
    Ok(tables)
}

fn together(peers: &Peers, who: &[Peer]) -> Vec<Line> {
    let begin = |peer: &Peer| Trial { peer: *peer, served: Served::begin(peers, *peer) };
    let mut all: Vec<Trial> = who.iter().map(begin).collect();
    // A first line may be said a moment before the port is there.
    thread::sleep(SETTLE);
    all.iter_mut().for_each(|trial| trial.attempt(|served| served.load(&peers.bench)));
    let length = if peers.bench.quick { LENGTH / 5 } else { LENGTH };
    let until = Instant::now() + length;
    while Instant::now() < until {
        thread::sleep(PAUSE);
        all.iter_mut().for_each(|trial| trial.attempt(Served::reload));
    }
    // What is replaced last is replaced under load, too.
    thread::sleep(LAST);
    all.iter_mut().for_each(|trial| trial.attempt(Served::end_load));
    all.into_iter().map(Trial::finish).collect()
}

/// A peer and how far it has come; whoever fails is out.
struct Trial {
    peer: Peer,
    served: Result<Served>,
}

impl Trial {
    fn attempt(&mut self, mut step: impl FnMut(&mut Served) -> Result<()>) {
        if let Ok(served) = &mut self.served
            && let Err(error) = step(served)
        {
            self.served = Err(error);
        }
    }

    fn finish(self) -> Line {
        let cells = self.served.and_then(Served::finish).map_err(|error| format!("{error:#}"));
        Line { peer: self.peer.name, cells }
    }
}

/// A manager under two loads.
struct Served {
    running: Running,
    /// With a connection for each request, and with kept ones.
    loads: Vec<Load>,
    /// A reload that has not returned.
    reloading: Option<Child>,
}

impl Served {
    fn begin(peers: &Peers, peer: Peer) -> Result<Served> {
        let mut running = Running::start(peers, peer, WORKERS, false)?;
        running.first_lines(WORKERS, PATIENCE)?;
        Ok(Served { running, loads: Vec::new(), reloading: None })
    }

    fn load(&mut self, bench: &Bench) -> Result<()> {
        for flags in [&["--no-keep-alive"][..], &[]] {
            self.loads.push(Load::start(bench, self.running.place.port, flags)?);
        }
        self.loads.iter().try_for_each(Load::wait_answered)
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

    fn end_load(&mut self) -> Result<()> {
        self.loads.iter_mut().for_each(Load::end);
        Ok(())
    }

    fn finish(mut self) -> Result<Vec<Cell>> {
        let mut counted = Vec::new();
        for load in self.loads.drain(..) {
            counted.push(load.finish()?);
        }
        if let Some(child) = &mut self.reloading
            && exit_within(child, PATIENCE)?.is_none()
        {
            child.kill()?;
            child.wait()?;
        }
        let replaced = self.running.lines_until(Instant::now())?;
        self.running.stop()?;
        let [new, kept] = counted.as_slice() else { bail!("it was never under load") };
        for failure in new.failures.iter().chain(&kept.failures).take(4) {
            eprintln!("  {}: {failure}", self.running.peer.name);
        }
        if replaced == 0 {
            bail!("no worker was replaced");
        }
        let of_a_reload = |failed: f64| failed * WORKERS as f64 / replaced as f64;
        let cells = [
            replaced as f64,
            new.sent,
            new.failed,
            of_a_reload(new.failed),
            new.p99_ms,
            kept.sent,
            kept.failed,
            of_a_reload(kept.failed),
            kept.crossed,
            kept.p99_ms,
        ];
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
