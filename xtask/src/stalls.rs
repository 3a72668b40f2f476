//! `cargo xtask stalls`: the whole test run while any of its processes stands still for a while, again and again. A test that
//! believes in an order or a time that nobody keeps fails here; so does a promise that only a quick machine keeps. (One that
//! stops a process itself may find it running again: what fails is to be tried again alone.)

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::hash::{BuildHasher as _, RandomState};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Result, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::number;
use crate::test::Places;
use crate::workspace::{cargo, root, succeed};

pub(crate) fn run(words: &[OsString]) -> Result<bool> {
    let mut longest: f64 = 3.0;
    let mut words = words.iter();
    while let Some(word) = words.next() {
        match word.to_str() {
            Some("--longest") => longest = number("--longest", words.next())?,
            Some(_) | None => bail!("unknown argument {word:?}; `cargo xtask help` lists them"),
        }
    }
    if !(longest > 0.0 && longest <= 60.0) {
        bail!("--longest is more than 0 and at most 60 seconds");
    }
    let places = Places::prepare()?;
    succeed(&mut cargo(["build", "--workspace", "--bins", "--examples"]))?;
    succeed(&mut cargo(["test", "--workspace", "--no-run"]))?;
    let ours = root().join("target").canonicalize()?;
    let mut tests = places.tests().spawn()?;
    let top = tests.id();
    let (over, stalls) = (AtomicBool::new(false), AtomicUsize::new(0));
    let status = std::thread::scope(|scope| {
        for _ in 0..AT_ONCE {
            scope.spawn(|| {
                while !over.load(Ordering::Relaxed) {
                    stalls.fetch_add(usize::from(stall(top, &ours, longest)), Ordering::Relaxed);
                }
            });
        }
        let status = tests.wait();
        over.store(true, Ordering::Relaxed);
        status
    })?;
    let stalls = stalls.into_inner();
    println!("{stalls} times a process stood still, for up to {longest} s");
    Ok(status.success() && stalls > 0)
}

/// Stops one of the processes for a while; whether one was there.
fn stall(top: u32, ours: &Path, longest: f64) -> bool {
    let below = below(top, ours);
    let any = by_chance();
    let one = (!below.is_empty()).then(|| below[any as usize % below.len()]);
    let one = one.and_then(|pid| Pid::from_raw(pid.cast_signed()));
    let stopped = one.is_some_and(|pid| kill_process(pid, Signal::STOP).is_ok());
    let a_while = Duration::from_secs_f64(longest * f64::from((any >> 32) as u32) / f64::from(u32::MAX));
    std::thread::sleep(a_while);
    // It may be gone by now.
    let _ = one.filter(|_| stopped).map(|pid| kill_process(pid, Signal::CONT));
    // Or a test of one process would hardly ever run.
    std::thread::sleep(a_while * 2);
    stopped
}

/// The processes below this one that are programs of ours or Node's, and not stopped just now.
fn below(top: u32, ours: &Path) -> Vec<u32> {
    let pids = fs::read_dir("/proc").into_iter().flatten().flatten();
    let all: BTreeMap<u32, (String, u32)> = pids
        .filter_map(|entry| {
            let pid = entry.file_name().to_str()?.parse().ok()?;
            let stat = fs::read_to_string(entry.path().join("stat")).ok()?;
            let mut words = stat.rsplit_once(") ")?.1.split(' ');
            Some((pid, (words.next()?.to_owned(), words.next()?.parse().ok()?)))
        })
        .collect();
    let is_below = |pid: &u32| {
        let parent = |pid: &u32| all.get(pid).map(|(_, parent)| *parent);
        std::iter::successors(Some(*pid), parent).take(all.len()).any(|pid| pid == top)
    };
    let runs = |(pid, (state, _)): (&u32, &(String, u32))| {
        let program = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        let is_ours = program.starts_with(ours) || program.file_name() == Some("node".as_ref());
        (!matches!(state.as_str(), "T" | "t" | "Z") && is_ours && is_below(pid)).then_some(*pid)
    };
    all.iter().filter_map(runs).collect()
}

/// Each seed is another one.
fn by_chance() -> u64 {
    RandomState::new().hash_one(0)
}

const AT_ONCE: usize = 2;
