//! `cargo xtask model`: explores all states of small apps, optimised, to the bounds of the model: for minutes.

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::workspace::{cargo, succeed};

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let mut only = None;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match (word.to_str(), words.next()) {
            (Some("--only"), Some(name)) => only = Some(name),
            (Some("--only"), None) => bail!("--only needs a part of a configuration's name"),
            (Some(_) | None, _) => bail!("unknown argument {word:?}; `cargo xtask help` lists them"),
        }
    }
    let words = ["test", "--release", "-p", "shiftboss-core", "--test", "model", "--", "--nocapture"];
    let mut command = cargo(words);
    command.env("MODEL_FULL", "1").env_remove("MODEL_ONLY");
    if let Some(only) = only {
        command.env("MODEL_ONLY", only);
    }
    succeed(&mut command)?;
    Ok(true)
}
