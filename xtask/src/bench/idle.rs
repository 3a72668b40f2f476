//! Row `idle`: what a supervisor of four workers holds and does when nothing happens.

use std::thread;
use std::time::Duration;

use anyhow::Result;

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
    let pss = (pss_kb(bare.pid())?, pss_kb(ours.pid())?);
    let before = (wake_ups(bare.pid())?, wake_ups(ours.pid())?);
    thread::sleep(if bench.quick { QUIET / 4 } else { QUIET });
    let woken = (wake_ups(bare.pid())? - before.0, wake_ups(ours.pid())? - before.1);
    bare.stop()?;
    ours.stop()?;
    Ok(vec![
        Figure::beside("memory (PSS)", "KB", pss.0, pss.1, Reach::AtMost(4096.0)),
        Figure::beside("wake-ups at rest", "", woken.0, woken.1, Reach::Exactly(0.0)),
    ])
}

const WORKERS: usize = 4;
const SETTLE: Duration = Duration::from_secs(2);
const QUIET: Duration = Duration::from_secs(20);
