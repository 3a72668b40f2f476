//! Row `idle`: what a supervisor of four workers holds and does when nothing happens; the keeper also after its broker
//! process was replaced.

use std::thread;
use std::time::Duration;

use anyhow::Result;
use rustix::process::{Signal, kill_process};

use super::Bench;
use super::figure::{Figure, Reach};
use super::proc::{pss_kb, wake_ups};
use super::supervisor::Supervisor;

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let mut bare = Supervisor::bare(bench, WORKERS)?;
    let mut ours = Supervisor::shiftboss(bench, WORKERS, "")?;
    bare.first_lines(WORKERS, Duration::from_secs(10))?;
    ours.first_lines(WORKERS, Duration::from_secs(10))?;
    thread::sleep(SETTLE);
    let (base, keeper) = (pss_kb(bare.pid())?, pss_kb(ours.pid())?);
    let broker = ours.broker()?;
    let both = keeper + pss_kb(broker)?;
    let all = [bare.pid(), ours.pid(), broker];
    let before = all.map(wake_ups);
    thread::sleep(if bench.quick { QUIET / 4 } else { QUIET });
    let after = all.map(wake_ups);
    let mut woken = Vec::new();
    for (before, after) in before.into_iter().zip(after) {
        woken.push(after? - before?);
    }
    kill_process(broker, Signal::KILL)?;
    ours.events("broker_adopted", 1, Duration::from_secs(10))?;
    thread::sleep(SETTLE);
    let later = pss_kb(ours.pid())?;
    bare.stop()?;
    ours.stop()?;
    Ok(vec![
        Figure::beside("memory of both (PSS)", "KB", base, both, Reach::AtMost(5120.0)),
        Figure::beside("of the keeper", "KB", base, keeper, Reach::More(600.0)),
        Figure::beside("of the keeper, later", "KB", base, later, Reach::More(600.0)),
        Figure::beside("wake-ups of the keeper", "", woken[0], woken[1], Reach::Exactly(0.0)),
        Figure::beside("of the broker process", "", woken[0], woken[2], Reach::Exactly(0.0)),
    ])
}

const WORKERS: usize = 4;
const SETTLE: Duration = Duration::from_secs(6);
const QUIET: Duration = Duration::from_secs(20);
