//! Row `handle`: one call of core when a worker speaks, with few workers and with many. The baseline is the same with 4.

use anyhow::{Context as _, Result};

use super::Bench;
use super::figure::{Figure, Reach};
use crate::workspace::{cargo, output};

pub(super) fn measure(_: &Bench) -> Result<Vec<Figure>> {
    let text = output(&mut cargo(["bench", "--quiet", "-p", "shiftboss-core", "--bench", "handle"]))?;
    let text = String::from_utf8(text)?;
    // In ns: of all calls, and of those for an exit.
    let of = |workers: &str, whose: &str| -> Result<(f64, f64)> {
        let start = format!("handle {workers} {whose} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        let (all, exits) = line.and_then(|line| line.split_once(' ')).context("no figures came")?;
        Ok((all.parse()?, exits.parse()?))
    };
    let record = |workers: &str| -> Result<f64> {
        let start = format!("record {workers} ");
        let line = text.lines().find_map(|line| line.strip_prefix(&start));
        Ok(line.context("no figures came")?.parse()?)
    };
    let (few, few_exits) = of("4", "any")?;
    let (same, same_exits) = of("10000", "same")?;
    let (any, any_exits) = of("10000", "any")?;
    Ok(vec![
        Figure::alone("4 workers, median", "ns", few, Reach::AtMost(1000.0)),
        Figure::beside("10,000, any of them", "ns", few, any, Reach::AtMost(3000.0)),
        Figure::beside("10,000, always the same", "ns", few, same, Reach::Times(1.5)),
        Figure::beside("exits only, any of 10,000", "ns", few_exits, any_exits, Reach::AtMost(3000.0)),
        Figure::beside("exits only, the same slot", "ns", few_exits, same_exits, Reach::Shown),
        Figure::alone("recording a step, of 4", "ns", record("4")?, Reach::AtMost(5000.0)),
        Figure::alone("recording a step, of 1,000", "ns", record("1000")?, Reach::AtMost(5000.0)),
    ])
}
