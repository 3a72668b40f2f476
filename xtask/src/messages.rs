//! `cargo xtask messages`: what workers say is heard, even if they exit at once, and whenever the broker process dies.

mod kept;

use std::ffi::OsString;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::number;
use crate::workspace::{figures, output};

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let (mut exits, mut kills): (u64, u32) = (100_000, 100);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--exits") => exits = number("--exits", words.next())?,
            Some("--kills") => kills = number("--kills", words.next())?,
            Some(_) | None => bail!("unknown argument {word:?}; `cargo xtask help` lists them"),
        }
    }
    let program = figures()?;
    let mut all_good = true;
    if exits > 0 {
        all_good &= all_is_heard_of_those_who_exit(&program, exits)?;
    }
    if kills > 0 {
        all_good &= kept::all_is_heard(&program, kills)?;
    }
    Ok(all_good)
}

fn all_is_heard_of_those_who_exit(program: &std::path::Path, exits: u64) -> Result<bool> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let mut command = Command::new(program);
    command.arg(folder.path()).arg("exits").arg(exits.to_string()).arg(SLOTS.to_string()).env_remove("env");
    let text = String::from_utf8(output(&mut command)?)?;
    let numbers: Vec<f64> = text.split_whitespace().filter_map(|word| word.parse().ok()).collect();
    let [seen, messages, lost, late, seconds] = numbers[..] else { bail!("it printed {text:?}") };
    println!(
        "exits: {seen} of {exits} workers sent 3 messages each and exited at once, in {seconds:.0} s: \
         {messages} heard, {lost} lost, {late} after the news of the exit"
    );
    Ok(lost == 0.0 && late == 0.0)
}

/// The more slots, the more spawns a second are granted: (64 + 4 x slots) / 10.
const SLOTS: u32 = 1000;
