//! `cargo xtask fuzz`: what reads the words of others, fed with bytes by chance by libFuzzer, which looks for those that
//! reach something new. Needs no more than a stable toolchain and a C++ compiler: the coverage is a pass of the compiler's
//! own (`-Cpasses=sancov-module`), and the crate `libfuzzer-sys` brings the rest.
//!
//! `fuzz/corpus/TARGET` is where a run begins; what it finds goes to `target/fuzz/corpus`, a crash to `target/fuzz/crashes`.

use std::ffi::OsString;
use std::fs;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::number;
use crate::workspace::{cargo, root, succeed};

/// A target, and the longest input that is tried: a longer one is slower and reaches no more.
const TARGETS: [(&str, u32); 6] = [
    ("channel", 512),
    ("records", 96),
    ("control", 512),
    ("configuration", 512),
    ("core", 160),
    ("keeper", 512),
];

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let (mut seconds, mut runs, mut wanted): (Option<u64>, Option<u64>, Vec<(&str, u32)>) =
        (None, None, Vec::new());
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str().unwrap_or_default() {
            "--seconds" => seconds = Some(number("--seconds", words.next())?),
            "--runs" => runs = Some(number("--runs", words.next())?),
            name => {
                wanted
                    .push(*TARGETS.iter().find(|(known, _)| *known == name).with_context(|| unknown(name))?);
            }
        }
    }
    if wanted.is_empty() {
        wanted = TARGETS.to_vec();
    }
    if seconds.is_none() && runs.is_none() {
        seconds = Some(60);
    }
    let triple = host()?;
    for (target, longest) in wanted {
        build(target, &triple)?;
        fuzz(target, longest, &triple, [("max_total_time", seconds), ("runs", runs)])?;
    }
    Ok(true)
}

fn unknown(name: &str) -> String {
    format!("there is no target `{name}`; those that are: {}", TARGETS.map(|(name, _)| name).join(" "))
}

/// With a target of its own, so that the flags are not those of build scripts and macros.
fn build(target: &str, triple: &str) -> Result<()> {
    let mut command = cargo(["build", "--release", "--quiet", "--manifest-path", "fuzz/Cargo.toml"]);
    command
        .args(["--target", triple, "--target-dir", "target/fuzz", "--bin", target])
        .env("RUSTFLAGS", COVERAGE.join(" "));
    succeed(&mut command)
        .context("libFuzzer needs a C++ compiler: on Debian `apt-get install -y g++` gets it")
}

fn fuzz(target: &str, longest: u32, triple: &str, limits: [(&str, Option<u64>); 2]) -> Result<()> {
    let (kept, found, crashes) = (
        root().join("fuzz/corpus").join(target),
        root().join("target/fuzz/corpus").join(target),
        root().join("target/fuzz/crashes"),
    );
    for folder in [&kept, &found, &crashes] {
        fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
    }
    let mut command = Command::new(root().join("target/fuzz").join(triple).join("release").join(target));
    command
        .arg(format!("-max_len={longest}"))
        .args(ALWAYS)
        .args(limits.iter().filter_map(|(name, limit)| limit.map(|limit| format!("-{name}={limit}"))));
    command.arg(format!("-artifact_prefix={}/{target}-", crashes.display()));
    let words = root().join("fuzz/dictionaries").join(target);
    if words.exists() {
        command.arg(format!("-dict={}", words.display()));
    }
    command.args([&found, &kept]).stdin(Stdio::null()).env("RUST_BACKTRACE", "1");
    println!("== {target}");
    succeed(&mut command)
}

/// The name of this machine's kind of target.
fn host() -> Result<String> {
    let output = Command::new("rustc").arg("-vV").output().context("cannot run rustc")?;
    let text = String::from_utf8_lossy(&output.stdout);
    match text.lines().find_map(|line| line.strip_prefix("host: ")) {
        Some(host) => Ok(host.to_owned()),
        None => bail!("rustc does not say what machine this is"),
    }
}

/// As `cargo fuzz` has them.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];
/// A run that takes 20 s hangs, and one that holds 1 GB leaks.
const ALWAYS: [&str; 3] = ["-print_final_stats=1", "-timeout=20", "-rss_limit_mb=1024"];
