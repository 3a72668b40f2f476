//! `cargo xtask soak`: a fault or a command every second, under load, for as long as it takes to believe that nothing is
//! lost and nothing grows.

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::number;
use crate::workspace::{cargo, succeed};

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let (mut minutes, mut seed): (f64, u64) = (60.0, 1);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--minutes") => minutes = number("--minutes", words.next())?,
            Some("--seed") => seed = number("--seed", words.next())?,
            Some(_) | None => bail!("unknown argument {word:?}; `cargo xtask help` lists them"),
        }
    }
    if !(minutes > 0.0 && minutes <= 10_080.0) {
        bail!("--minutes is more than 0 and at most a week, 10080");
    }
    if seed == 0 {
        bail!("--seed is more than 0");
    }
    succeed(cargo(["build", "--release", "--workspace", "--bins"]).arg("--quiet"))?;
    let mut command = cargo(["test", "--release", "-p", "shiftboss-cli", "--test", "e2e", "soak::"]);
    command.env("SHIFTBOSS_SOAK_MINUTES", minutes.to_string()).env("SHIFTBOSS_SOAK_SEED", seed.to_string());
    succeed(command.args(["--", "--nocapture"]))?;
    Ok(true)
}
