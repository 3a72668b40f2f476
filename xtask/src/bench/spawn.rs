//! Row `spawn`: starting a worker from a program with a gigabyte in use and eight threads more, beside a small one.

use anyhow::Result;

use super::Bench;
use super::figure::{Figure, Reach};

pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let times = bench.times(100, 20).to_string();
    let [small, large] = bench
        .figures
        .medians([&["spawn", "small", &times], &["spawn", "large", &times]], bench.times(7, 1))?;
    Ok(vec![Figure::beside("large program, median", "us", small, large, Reach::Times(1.2))])
}
