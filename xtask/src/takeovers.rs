//! `cargo xtask takeovers`: kills and upgrades the broker process under load, optimised, as often as it takes to believe
//! it; also to and fro between two builds whose records have different versions.

use std::ffi::OsString;

use anyhow::{Result, bail};

use crate::number;
use crate::workspace::{cargo, release_programs, root, succeed};

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let (mut kills, mut upgrades) = (1000, 200);
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--kills") => kills = number("--kills", words.next())?,
            Some("--upgrades") => upgrades = number("--upgrades", words.next())?,
            Some(_) | None => bail!("unknown argument {word:?}; `cargo xtask help` lists them"),
        }
    }
    release_programs(&["shiftboss-test-worker"])?;
    let target = root().join("target/next");
    let mut other = cargo(["build", "--release", "-p", "shiftboss-cli", "--features", "next-records"]);
    succeed(other.arg("--target-dir").arg(&target))?;
    let other = target.join("release/shiftboss");
    for (name, times, image) in
        [("killed", kills, None), ("upgraded", upgrades, None), ("upgraded", upgrades, Some(other))]
    {
        if times == 0 {
            continue;
        }
        let filter = format!("the_broker_process_can_die::{name}");
        let mut command = cargo(["test", "--release", "-p", "shiftboss-cli", "--test", "e2e", &filter]);
        command.args(["--", "--nocapture", "--test-threads=1"]);
        let times: u32 = times;
        command.env("SHIFTBOSS_KILLS", times.to_string()).env("SHIFTBOSS_UPGRADES", times.to_string());
        command.env_remove("SHIFTBOSS_OTHER");
        if let Some(image) = image {
            command.env("SHIFTBOSS_OTHER", image);
        }
        succeed(&mut command)?;
    }
    Ok(true)
}
