//! The broker process is killed at random moments. What each of them has heard is in its notes.
//!
//! A message that was handed to the subscriber of a process which is then killed before it writes it down was delivered to
//! that process, and no note tells. So one that nobody has noted is taken for such only if it is among the last of a
//! process that was killed: between what that one noted of the worker and what the next one did. All others are lost.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

pub(super) fn all_is_heard(program: &Path, kills: u32) -> Result<bool> {
    let folder = tempfile::tempdir().context("cannot make a folder")?;
    let folder = folder.path();
    let mut command = Command::new(program);
    command.arg(folder).args(["kept", WORKERS]).env_remove("env");
    let mut keeper = command.spawn().context("cannot start it")?;
    let killed = kill_and_finish(&mut keeper, folder, kills);
    if killed.is_err() {
        keeper.kill()?;
        keeper.wait()?;
    }
    let killed = killed?;
    let tally = Tally::of(folder, &killed)?;
    println!(
        "kills: {kills}; {} messages of {} workers: {} noted, {} of them more than once; in the hands of a killed \
         process: {} (at most {} of one); lost: {}",
        tally.sent,
        tally.workers,
        tally.noted,
        tally.twice,
        tally.in_hand.values().sum::<u64>(),
        tally.in_hand.values().max().unwrap_or(&0),
        tally.lost
    );
    Ok(tally.lost == 0)
}

/// Returns the processes that were killed.
fn kill_and_finish(keeper: &mut Child, folder: &Path, kills: u32) -> Result<Vec<u32>> {
    let mut killed = Vec::new();
    for at in 0..kills {
        let broker = next_broker(folder, killed.last().copied())?;
        // Whoever dies young is followed by one that is started later and later; so only every third one does.
        thread::sleep(if at % 3 == 2 { Duration::ZERO } else { PROVED });
        thread::sleep(Duration::from_micros(u64::from(random()?) % 30_000));
        let pid = i32::try_from(broker).ok().and_then(Pid::from_raw).context("no pid")?;
        kill_process(pid, Signal::KILL).context("cannot kill the broker process")?;
        killed.push(broker);
    }
    next_broker(folder, killed.last().copied())?;
    thread::sleep(SETTLE);
    fs::write(folder.join("enough"), "")?;
    thread::sleep(SETTLE);
    kill_process(Pid::from_child(keeper), Signal::TERM)?;
    let until = Instant::now() + PATIENCE;
    while keeper.try_wait()?.is_none() {
        if Instant::now() > until {
            bail!("the app does not end");
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(killed)
}

/// The process that runs the brokers once it is another one than the last.
fn next_broker(folder: &Path, last: Option<u32>) -> Result<u32> {
    let until = Instant::now() + PATIENCE;
    loop {
        let noted = fs::read_to_string(folder.join("broker")).ok().and_then(|pid| pid.parse().ok());
        match noted.filter(|pid| Some(*pid) != last) {
            Some(pid) => return Ok(pid),
            None if Instant::now() > until => bail!("no broker process follows {last:?}"),
            None => thread::sleep(Duration::from_millis(1)),
        }
    }
}

#[derive(Default)]
struct Tally {
    workers: usize,
    sent: u64,
    noted: u64,
    twice: u64,
    /// By the process that was killed.
    in_hand: BTreeMap<u32, u64>,
    lost: u64,
}

impl Tally {
    fn of(folder: &Path, killed: &[u32]) -> Result<Tally> {
        let mut tally = Tally::default();
        let heard = heard(folder)?;
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(worker) = name.to_str().and_then(|name| name.strip_prefix("sent-")) else { continue };
            // One that was ended before its first message has written nothing.
            let sent = fs::read(entry.path())?.try_into().map_or(0, u64::from_le_bytes);
            tally.workers += 1;
            tally.sent += sent;
            let worker = worker.parse().context("a strange name")?;
            tally.look_at(heard.get(&worker).map_or(&[], Vec::as_slice), sent, killed, worker);
        }
        Ok(tally)
    }

    fn look_at(&mut self, heard: &[(u32, u64)], sent: u64, killed: &[u32], worker: u64) {
        let mut by_number: BTreeMap<u64, Vec<u32>> = BTreeMap::new();
        for (process, number) in heard {
            by_number.entry(*number).or_default().push(*process);
        }
        // The one that has the worker in hand.
        let mut last = killed.first().copied();
        for number in 0..sent {
            if let Some(processes) = by_number.get(&number) {
                self.noted += 1;
                self.twice += u64::from(processes.len() > 1);
                last = processes.last().copied();
                continue;
            }
            let next = by_number.range(number..).next().and_then(|(_, processes)| processes.first().copied());
            match last.filter(|last| killed.contains(last) && next != Some(*last)) {
                Some(process) => *self.in_hand.entry(process).or_default() += 1,
                None => {
                    self.lost += 1;
                    eprintln!(
                        "worker {worker}: nobody has noted {number} of {sent}; {last:?}, then {next:?}"
                    );
                }
            }
        }
    }
}

/// Of each worker, in order: which process has noted which number.
fn heard(folder: &Path) -> Result<BTreeMap<u64, Vec<(u32, u64)>>> {
    let text = fs::read_to_string(folder.join("heard")).context("nobody has noted anything")?;
    let mut all: BTreeMap<u64, Vec<(u32, u64)>> = BTreeMap::new();
    for line in text.lines() {
        let mut numbers = line.split(' ').map(str::parse::<u64>);
        let mut next = || numbers.next().context("half a line").and_then(|number| Ok(number?));
        let (process, worker, number) = (u32::try_from(next()?)?, next()?, next()?);
        all.entry(worker).or_default().push((process, number));
    }
    Ok(all)
}

fn random() -> Result<u32> {
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())?;
    Ok(u32::from_le_bytes(bytes))
}

const WORKERS: &str = "8";
/// From then on it counts as one that can run.
const PROVED: Duration = Duration::from_millis(1050);
const SETTLE: Duration = Duration::from_secs(1);
const PATIENCE: Duration = Duration::from_secs(10);
