//! `cargo xtask sim`: the simulation test of core, optimised, so that it gets through many more seeds than in `test`.

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::number;
use crate::workspace::{cargo, succeed};

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let (mut limit, mut seed) = (("SIM_SECONDS", 60_u64), None::<u64>);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--seconds") => limit = ("SIM_SECONDS", number("--seconds", words.next())?),
            Some("--steps") => limit = ("SIM_STEPS", number("--steps", words.next())?),
            Some("--seed") => seed = Some(number("--seed", words.next())?),
            Some(_) | None => bail!("unknown argument {word:?}; `cargo xtask help` lists them"),
        }
    }
    let words = ["test", "--release", "-p", "shiftboss-core", "--test", "simulation", "--", "--nocapture"];
    let mut command = cargo(words);
    for name in ["SIM_SECONDS", "SIM_STEPS", "SIM_SEED"] {
        command.env_remove(name);
    }
    command.env(limit.0, limit.1.to_string());
    if let Some(seed) = seed {
        command.env("SIM_SEED", seed.to_string());
    }
    succeed(&mut command)?;
    Ok(true)
}
