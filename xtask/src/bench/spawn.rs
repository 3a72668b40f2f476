//! Row `spawn`: starting a worker from a program with a gigabyte in use and eight threads more, and from one with 15,000
//! open files, beside a small one.

use anyhow::Result;

use super::Bench;
use super::figure::{Figure, Reach};

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let times = bench.times(100, 20).to_string();
    let [small, large, crowded] = bench.figures.medians(
        [&["spawn", "small", &times], &["spawn", "large", &times], &["spawn", "crowded", &times]],
        bench.times(7, 1),
    )?;
    Ok(vec![
        Figure::beside("large program, median", "us", small, large, Reach::Times(1.2)),
        Figure::beside("many open files, median", "us", small, crowded, Reach::Times(1.2)),
    ])
}
