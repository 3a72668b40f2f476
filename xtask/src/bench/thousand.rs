//! Row `thousand`: starting, recycling and stopping a thousand workers, and what each of them costs.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;

use super::Bench;
use super::figure::{Figure, Reach};
use super::first_line::ms_between;
use super::proc::{children, pss_kb};
use super::stats::median;
use super::supervisor::Supervisor;
use crate::workspace::succeed;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let small = memory_of_few(bench)?;
    let settings = format!("recycle = {{ surge = {} }}", MANY / 10);
    let (mut bare_start, mut start) = (Vec::new(), Vec::new());
    for _ in 0..bench.times(4, 1) {
        let mut bare = Supervisor::bare(bench, MANY)?;
        bare_start.push(time_to_start(&mut bare)?);
        bare.stop()?;
        let mut ours = Supervisor::shiftboss(bench, MANY, &settings)?;
        start.push(time_to_start(&mut ours)?);
        ours.stop()?;
    }

    let mut ours = Supervisor::shiftboss(bench, MANY, &settings)?;
    start.push(time_to_start(&mut ours)?);
    ours.wait_ready(PATIENCE)?;
    thread::sleep(SETTLE);
    let growth = (both_kb(&ours)? - small) / (MANY - FEW) as f64;

    let begun = Instant::now();
    succeed(ours.command(bench).args(["recycle", "web"]))?;
    let recycle = begun.elapsed();
    ours.first_lines(MANY, PATIENCE)?;
    let events = ours.events("worker_ended", MANY, PATIENCE)?;
    let [started, ended, died] =
        ["worker_started", "worker_ended", "worker_death"].map(|name| events.count(name));
    let alive = children(ours.pid())?.len() - 1;

    let begun = Instant::now();
    succeed(ours.command(bench).args(["stop", "--all"]))?;
    ours.wait(PATIENCE)?;
    let stop = begun.elapsed();

    let exactly = |what, count: usize, wanted: usize| {
        Figure::alone(what, "", count as f64, Reach::Exactly(wanted as f64))
    };
    Ok(vec![
        Figure::beside("1,000 there, median", "ms", median(&bare_start), median(&start), Reach::Times(1.5)),
        Figure::alone("memory for each worker", "KB", growth, Reach::AtMost(8.0)),
        Figure::alone("recycle, surge 10 %", "s", recycle.as_secs_f64(), Reach::Shown),
        exactly("workers alive afterwards", alive, MANY),
        exactly("workers started by then", started, 2 * MANY),
        exactly("workers ended by then", ended, MANY),
        exactly("workers died by then", died, 0),
        Figure::alone("stop", "s", stop.as_secs_f64(), Reach::AtMost(2.0)),
    ])
}

/// Until the last first line, in ms.
fn time_to_start(supervisor: &mut Supervisor) -> Result<f64> {
    let lines = supervisor.first_lines(MANY, PATIENCE)?;
    let last = lines.iter().map(|line| line.at).max().unwrap_or(0);
    Ok(ms_between(supervisor.started_at(), last))
}

/// PSS of keeper and broker process, in KB.
fn both_kb(app: &Supervisor) -> Result<f64> {
    Ok(pss_kb(app.pid())? + pss_kb(app.broker()?)?)
}

/// The same of an app with a few workers.
fn memory_of_few(bench: &Bench) -> Result<f64> {
    let mut few = Supervisor::shiftboss(bench, FEW, "")?;
    few.first_lines(FEW, PATIENCE)?;
    few.wait_ready(PATIENCE)?;
    thread::sleep(SETTLE);
    let memory = both_kb(&few)?;
    few.stop()?;
    Ok(memory)
}

const MANY: usize = 1000;
const FEW: usize = 4;
const SETTLE: Duration = Duration::from_secs(2);
const PATIENCE: Duration = Duration::from_secs(30);
