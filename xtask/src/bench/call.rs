//! Row `call`: a question to a worker and its answer, beside bytes that go to another process and back.

use anyhow::Result;

use super::Bench;
use super::figure::{Figure, Reach};

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let times = bench.times(20_000, 2_000).to_string();
    let [bare, ours] =
        bench.figures.medians([&["call-by-hand", &times], &["call", &times]], bench.times(7, 1))?;
    Ok(vec![Figure::beside("there and back, median", "us", bare, ours, Reach::Times(5.0))])
}
