//! Row `crash`: from the kill of a worker to the first line of its successor.

use std::collections::VecDeque;
use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustix::process::{Pid, Signal, kill_process};

use super::Bench;
use super::figure::{Figure, Reach};
use super::first_line::{ms_between, now};
use super::stats::{median, quantile};
use super::supervisor::Supervisor;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut bare = Killed::new(Supervisor::bare(bench, WORKERS)?)?;
    // Each worker is proven long before its turn, so every kill is the first failure of its slot.
    let settings = "backoff = { healthy_after = \"50ms\" }";
    let mut ours = Killed::new(Supervisor::shiftboss(bench, WORKERS, settings)?)?;
    for _ in 0..bench.times(200, 30) {
        for killed in [&mut bare, &mut ours] {
            thread::sleep(PAUSE);
            killed.kill_one()?;
        }
    }
    let kills = ours.samples.len();
    let deaths = ours.supervisor.events("worker_death", kills, PATIENCE)?.count("worker_death");
    let (bare, ours) = (bare.finish()?, ours.finish()?);
    let figure = |what, share, reach| {
        Figure::beside(what, "ms", quantile(&bare, share), quantile(&ours, share), reach)
    };
    Ok(vec![
        Figure::beside("to first line, median", "ms", median(&bare), median(&ours), Reach::Times(1.5)),
        figure("to first line, p99", 0.99, Reach::Shown),
        Figure::alone("deaths reported", "", deaths as f64, Reach::Exactly(kills as f64)),
    ])
}

struct Killed {
    supervisor: Supervisor,
    /// The next victim first.
    workers: VecDeque<Pid>,
    /// In ms.
    samples: Vec<f64>,
}

impl Killed {
    fn new(mut supervisor: Supervisor) -> Result<Killed> {
        let lines = supervisor.first_lines(WORKERS, PATIENCE)?;
        Ok(Killed { supervisor, workers: lines.iter().map(|line| line.pid).collect(), samples: Vec::new() })
    }

    fn kill_one(&mut self) -> Result<()> {
        let Some(victim) = self.workers.pop_front() else { return Ok(()) };
        let killed_at = now();
        kill_process(victim, Signal::KILL)?;
        for line in self.supervisor.first_lines(1, PATIENCE)? {
            self.samples.push(ms_between(killed_at, line.at));
            self.workers.push_back(line.pid);
        }
        Ok(())
    }

    fn finish(self) -> Result<Vec<f64>> {
        self.supervisor.stop()?;
        Ok(self.samples)
    }
}

const WORKERS: usize = 4;
/// Between two kills, of different supervisors. Below 125 ms between two of shiftboss its limit of starts would
/// become part of what is measured: 80 at once for four workers, then 8 a second.
const PAUSE: Duration = Duration::from_millis(70);
const PATIENCE: Duration = Duration::from_secs(10);
