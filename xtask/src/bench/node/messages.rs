//! What a message of a Node program costs whoever hears it.

use std::fs;
use std::os::fd::AsRawFd as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::net::{AddressFamily, RecvFlags, SocketFlags, SocketType, recv, socketpair};
use rustix::process::getpid;
use tempfile::TempDir;

use super::{Bench, Ended, Figure, Reach, Supervisor, median, peers, shown, wait_for};
use crate::bench::proc::cpu_ms;
use crate::bench::supervisor::Broker;
use crate::workspace::root;

/// CPU time of the primary for a message; that of a reader which does nothing with them, as the least that the kernel asks
/// of anybody; and how many a second there are, also of longer ones.
pub(super) fn measure(bench: &Bench) -> Result<Vec<Figure>> {
    let (short, long) = (bench.times(300_000, 30_000), bench.times(100_000, 10_000));
    let mut samples = [const { Vec::new() }; 8];
    for _ in 0..bench.times(5, 1) {
        let (node, ours) = (of_node(short, SHORT)?, of_shiftboss(bench, short, SHORT)?);
        let (node_long, ours_long) = (of_node(long, LONG)?, of_shiftboss(bench, long, LONG)?);
        let (taken, looked_at) = (of_reader(short, false)?, of_reader(short, true)?);
        let round = [node.1, ours.1, taken, looked_at, node.0, ours.0, node_long.0, ours_long.0];
        samples.iter_mut().zip(round).for_each(|(samples, sample)| samples.push(sample));
    }
    let [node, ours, taken, looked_at, rate, our_rate, long, our_long] =
        samples.map(|samples| median(&samples));
    let cpu = |what, cpu, reach| Figure::beside(what, "us", node, cpu, reach);
    Ok(vec![
        cpu("CPU of the primary, message", ours, Reach::Times(0.5)),
        cpu("  only taken", taken, Reach::Shown),
        cpu("  and looked at before", looked_at, Reach::Shown),
        Figure::beside("messages", "/s", rate, our_rate, Reach::Shown),
        Figure::beside("messages of 2 KB", "/s", long, our_long, Reach::Shown),
    ])
}

/// Messages a second, and the CPU time for one.
fn of_node(count: usize, length: usize) -> Result<(f64, f64)> {
    let mut node = Command::new("node");
    node.arg(peers("messages.js")).env("BROKER", "none");
    node.env("COUNT", count.to_string()).env("LENGTH", length.to_string());
    let said = String::from_utf8(node.stderr(Stdio::inherit()).output()?.stdout)?;
    let mut numbers = said.split_whitespace().map_while(|word| word.parse().ok());
    numbers.next().zip(numbers.next()).context("no figures")
}

/// Messages a second, and the CPU time of keeper and broker process for one.
pub(crate) fn of_shiftboss(bench: &Bench, count: usize, length: usize) -> Result<(f64, f64)> {
    let folder = TempDir::new()?;
    let done = folder.path().join("done");
    let command = vec!["node".to_owned(), shown(&talker())];
    let settings = format!(
        "kind = \"node\"\nenvironment = {{ COUNT = \"{count}\", LENGTH = \"{length}\", DONE = \"{}\" }}",
        shown(&done)
    );
    let app = Supervisor::shiftboss_with(bench, &Broker { command, workers: 1, settings: &settings })?;
    app.events("worker_started", 1, Duration::from_secs(20))?;
    let all = [app.pid(), app.broker()?];
    let used = || -> Result<f64> { all.into_iter().map(cpu_ms).sum() };
    // It begins a second after its start.
    thread::sleep(Duration::from_millis(500));
    let before = used()?;
    let rate = wait_for(Duration::from_secs(60), || fs::read_to_string(&done).ok()?.parse().ok())?;
    thread::sleep(Duration::from_millis(200));
    let cpu = (used()? - before) * 1000.0 / count as f64;
    app.stop()?;
    Ok((rate, cpu))
}

/// Of this process, at its best: it takes much at once, after a pause as long as the broker process's.
fn of_reader(count: usize, looks: bool) -> Result<f64> {
    let folder = TempDir::new()?;
    let (ours, theirs) = socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::empty(), None)?;
    fcntl_setfd(&ours, FdFlags::CLOEXEC)?;
    let mut node = Command::new("node");
    node.arg(talker()).env("COUNT", count.to_string()).env("DONE", folder.path().join("done"));
    let _node =
        Ended(node.env("NODE_CHANNEL_FD", theirs.as_raw_fd().to_string()).stdin(Stdio::null()).spawn()?);
    drop(theirs);
    let before = cpu_ms(getpid())?;
    let mut buffer = vec![0; 256 * 1024];
    // All messages are as long as the first one.
    let (mut length, mut taken) = (None, 0);
    while length.is_none_or(|length| taken < length * count) {
        if looks {
            recv(&ours, &mut buffer, RecvFlags::PEEK)?;
        }
        let (got, _) = recv(&ours, &mut buffer, RecvFlags::empty())?;
        if got == 0 {
            bail!("it ended after {taken} bytes");
        }
        taken += got;
        length = length.or_else(|| Some(buffer[..got].iter().position(|byte| *byte == b'\n')? + 1));
        thread::sleep(Duration::from_micros(250));
    }
    Ok((cpu_ms(getpid())? - before) * 1000.0 / count as f64)
}

/// Bytes of text in messages of a hundred bytes, and of two thousand.
pub(crate) const SHORT: usize = 72;
const LONG: usize = 1972;

fn talker() -> PathBuf {
    root().join("xtask/bench/talker.js")
}
