//! `cargo xtask model`: all states of small apps, with the full bounds. The test run explores the smaller ones.

use anyhow::Result;

use crate::workspace::{cargo, succeed};

pub(crate) fn run() -> Result<bool> {
    let words = ["test", "--release", "-p", "shiftboss-core", "--test", "model", "--", "--nocapture"];
    succeed(cargo(words).env("MODEL_FULL", "1").env_remove("MODEL_ONLY"))?;
    Ok(true)
}
