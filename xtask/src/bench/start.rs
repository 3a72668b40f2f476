//! Row `start`: from the start of the supervisor to the first lines of all its workers.

use std::time::Duration;

use anyhow::Result;

use super::Bench;
use super::figure::{Figure, Reach};
use super::first_line::ms_between;
use super::stats::{median, quantile};
use super::supervisor::Supervisor;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let (mut bare, mut ours) = (Vec::new(), Vec::new());
    for _ in 0..bench.times(30, 5) {
        bare.push(one(Supervisor::bare(bench, WORKERS)?)?);
        ours.push(one(Supervisor::shiftboss(bench, WORKERS, "")?)?);
    }
    let figure = |what, share, reach| {
        Figure::beside(what, "ms", quantile(&bare, share), quantile(&ours, share), reach)
    };
    Ok(vec![
        Figure::beside("4 workers there, median", "ms", median(&bare), median(&ours), Reach::More(10.0)),
        figure("4 workers there, slowest", 1.0, Reach::Shown),
    ])
}

/// In ms.
fn one(mut supervisor: Supervisor) -> Result<f64> {
    let lines = supervisor.first_lines(WORKERS, Duration::from_secs(10))?;
    let last = lines.iter().map(|line| line.at).max().unwrap_or(0);
    let took = ms_between(supervisor.started_at(), last);
    supervisor.stop()?;
    Ok(took)
}

const WORKERS: usize = 4;
