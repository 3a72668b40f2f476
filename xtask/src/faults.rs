//! `cargo xtask faults`: each fault is done to the real binary, optimised and at its full weight, under load where that
//! makes sense; the onlooker judges what the app did. `says-and-exits` is `cargo xtask messages`.

mod rows;

use std::ffi::OsString;
use std::process::Stdio;
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use self::rows::{ROWS, Row};
use crate::workspace::{cargo, root, succeed};

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let mut json = false;
    let mut wanted: Vec<&Row> = Vec::new();
    for word in words {
        match word.to_str().unwrap_or_default() {
            "--json" => json = true,
            name => wanted.push(ROWS.iter().find(|row| row.name == name).with_context(|| unknown(name))?),
        }
    }
    if wanted.is_empty() {
        wanted = ROWS.iter().collect();
    }
    for release in [true, false] {
        if wanted.iter().any(|row| row.debug != release) {
            build(release)?;
        }
    }
    let mut unexpected = 0;
    for row in &wanted {
        let begun = Instant::now();
        let (expected, seen) = as_expected(row)?;
        unexpected += u32::from(!expected);
        let seconds = begun.elapsed().as_secs_f64();
        if json {
            let Row { name, fault, expected: wanted, .. } = row;
            println!(
                "{}",
                json!({ "row": name, "fault": fault, "expected": wanted, "as_expected": expected, "seen": seen, "seconds": seconds })
            );
        } else {
            show(row, expected, &seen, seconds);
        }
    }
    if !json {
        println!("\n{} of {} rows as expected", wanted.len() as u32 - unexpected, wanted.len());
    }
    Ok(unexpected == 0)
}

fn unknown(name: &str) -> String {
    let names: Vec<&str> = ROWS.iter().map(|row| row.name).collect();
    format!("there is no row `{name}`; those that are: {}", names.join(" "))
}

fn show(row: &Row, expected: bool, seen: &[String], seconds: f64) {
    let word = if expected { "as expected" } else { "NOT AS EXPECTED" };
    println!("{:<20} {word}, {seconds:.1} s", row.name);
    println!("    fault     {}", row.fault);
    println!("    expected  {}", row.expected);
    for line in seen {
        println!("    seen      {line}");
    }
}

/// The programs and the tests.
fn build(release: bool) -> Result<()> {
    let profile: &[&str] = if release { &["--release"] } else { &[] };
    succeed(cargo(["build", "--quiet", "--workspace", "--bins"]).args(profile))?;
    succeed(cargo(E2E).arg("--no-run").args(profile))
}

/// Whether all its tests passed, and what they have to say.
fn as_expected(row: &Row) -> Result<(bool, Vec<String>)> {
    let mut command = cargo(E2E);
    if !row.debug {
        command.arg("--release");
    }
    command.args(["--", "--exact", "--nocapture", "--test-threads=1"]).args(row.tests);
    command.env("SHIFTBOSS_FAULTS", "full").env("SHIFTBOSS_TEST_VENV", root().join("target/venv"));
    let output = command.stdin(Stdio::null()).output().context("cannot run cargo")?;
    let text = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    // The first may stand behind the name of its test.
    let mut seen: Vec<String> =
        text.lines().filter_map(|line| line.split_once("seen: ")).map(|(_, seen)| seen.to_owned()).collect();
    seen.extend(errors.lines().filter(|line| line.contains("not tried")).map(str::to_owned));
    let passed = text.contains(&format!("test result: ok. {} passed", row.tests.len()));
    if !passed {
        let file = root().join(format!("target/tmp/{}.txt", row.name));
        std::fs::create_dir_all(file.parent().context("no folder")?)?;
        std::fs::write(&file, format!("{text}\n{errors}"))?;
        seen.push(format!("what was printed is in {}", file.display()));
    }
    if text.contains("running 0 tests") {
        bail!("{}: no test is called {}", row.name, row.tests.join(" or "));
    }
    Ok((passed, seen))
}

const E2E: [&str; 5] = ["test", "-p", "shiftboss-cli", "--test", "e2e"];
