//! What a run of the app has left behind: processes that its workers started and that outlived keeper, broker process
//! and workers, since they were killed together. Found by the variable that every worker has in its environment and
//! gives to whom it starts; ended through pidfds only.
//!
//! Only whoever holds the app's lock may ask: then no other run of it is alive, or its lock was removed and it stands
//! above its workers ([`living`]). One who starts a process that is no worker (a broker process, a helper) takes
//! [`VARIABLE`] out of its environment: the app itself may have been started by somebody's worker, and what it hands on
//! would be taken for proof. Whom the proof misses: one that changed its environment, or wrote over it, one that runs as
//! another user, one whose first thread has ended before the others.
//!
//! Sources: proc(5) on `/proc/PID/environ`, `status`, `stat`, `cmdline`; `pidfd_open(2)`; credentials(7).

#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::{self, File};
use std::io::Read as _;
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, getuid, pidfd_open};

use super::instance::listens_at;
use super::{holder, owner, parent, pidfd};

/// The variable that every worker has: see [`mark`].
pub const VARIABLE: &str = "SHIFTBOSS_RUN";

/// A process of an earlier run, held by its pidfd: whoever gets its number later is not meant.
#[derive(Debug)]
pub struct Leftover {
    /// Its number while it lives.
    pub pid: u32,
    /// The run that it is of, 16 hexadecimal digits.
    pub run: String,
    /// Program and arguments, or its name where it shows none: the first 200 bytes, what cannot be printed as `?`.
    pub command: String,
    /// When it was started, by the wall clock of now, to 10 ms.
    pub started: Option<SystemTime>,
    pidfd: OwnedFd,
}

/// How much time they have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Haste {
    /// TERM, and KILL for those that are still there 2 s later.
    Ask,
    /// KILL at once.
    Now,
}

/// A leftover, and what became of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The number it had, or has if it stays.
    pub pid: u32,
    /// As [`Leftover::command`].
    pub command: String,
    /// What became of it.
    pub end: End,
}

/// What became of a leftover.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// It had ended before anything was sent.
    Gone,
    /// It ended after TERM.
    Asked,
    /// It ended after KILL.
    Killed,
    /// It is still there: why.
    Stays(String),
}

/// The value of [`VARIABLE`] for the workers of a run: `SOCKET:RUN`. `run` is 16 hexadecimal digits, another for each
/// run of the app.
#[must_use]
pub fn mark(socket: &Path, run: &str) -> OsString {
    let mut mark = socket.as_os_str().to_owned();
    mark.push(":");
    mark.push(run);
    mark
}

/// All processes of our own real user whose environment names exactly this control socket, and another run than
/// `current` (none = any run), but never ourselves and those that we descend from, and none above which another process
/// is the app. What cannot be read is not proved and left out.
///
/// One look: a process that was being forked or was changing its program meanwhile can be missing. Ask again after
/// [`end`], until nothing is found.
#[must_use]
pub fn find(socket: &Path, current: Option<&str>) -> Vec<Leftover> {
    find_beside(socket, current, &with_ancestors(std::process::id()))
}

/// The process that is the app of this socket though its lock and its socket were removed: the one above a worker of
/// its that holds what it listens on.
#[must_use]
pub fn living(socket: &Path) -> Option<u32> {
    marked(socket, None, &BTreeSet::new()).find_map(|process| app_above(process.pid, socket))
}

fn find_beside(socket: &Path, current: Option<&str>, spared: &BTreeSet<u32>) -> Vec<Leftover> {
    // We may have run the app before, and be the parent of what it left.
    let is_of_another =
        |process: &Leftover| app_above(process.pid, socket).is_some_and(|app| app != std::process::id());
    marked(socket, current, spared).filter(|process| !is_of_another(process)).collect()
}

fn marked(socket: &Path, current: Option<&str>, spared: &BTreeSet<u32>) -> impl Iterator<Item = Leftover> {
    // Nothing is proved by the numbers of another namespace.
    let pids =
        parent::proc_is_ours().then(|| fs::read_dir("/proc")).into_iter().flatten().flatten().flatten();
    pids.filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .filter(|pid| !spared.contains(pid))
        .filter(move |pid| run_of(*pid, socket, current).is_some())
        .filter_map(move |pid| hold(pid, socket, current))
}

fn app_above(pid: u32, socket: &Path) -> Option<u32> {
    owner::above(pid, &listens_at(socket)?)
}

/// The process of that number, if it is one of those that are looked for. What was read is its own: it was alive
/// afterwards, so that nobody else can have had its number in between.
fn hold(pid: u32, socket: &Path, current: Option<&str>) -> Option<Leftover> {
    let pidfd = pidfd_open(i32::try_from(pid).ok().and_then(Pid::from_raw)?, PidfdFlags::empty()).ok()?;
    let run = run_of(pid, socket, current)?;
    if real_user(pid)? != getuid().as_raw() || !sees_what_we_see(pid) {
        return None;
    }
    let started = holder::age(pid).and_then(|age| SystemTime::now().checked_sub(age));
    let leftover = Leftover { pid, run, command: command(pid), started, pidfd };
    matches!(pidfd::signal(leftover.pidfd.as_fd(), 0), Ok(true)).then_some(leftover)
}

/// The run that the process is of, if it is of this socket and not the current one.
fn run_of(pid: u32, socket: &Path, current: Option<&str>) -> Option<String> {
    let mut environment = Vec::new();
    File::open(format!("/proc/{pid}/environ")).ok()?.take(LARGEST).read_to_end(&mut environment).ok()?;
    let run = proved(&environment, socket)?;
    let is_current = current.is_some_and(|current| current.eq_ignore_ascii_case(&run));
    (!is_current).then_some(run)
}

/// The run named by an environment, if it names this socket and nothing else: a variable that is there twice proves
/// nothing.
fn proved(environment: &[u8], socket: &Path) -> Option<String> {
    let value = |entry| <[u8]>::strip_prefix(entry, VARIABLE.as_bytes())?.strip_prefix(b"=");
    let mut values = environment.split(|byte| *byte == 0).filter_map(value);
    let (Some(value), None) = (values.next(), values.next()) else { return None };
    let (path, run) = value.split_at_checked(value.len().checked_sub(RUN)?)?;
    let is_ours = path.strip_suffix(b":").is_some_and(|path| OsStr::from_bytes(path) == socket.as_os_str());
    let is_run = run.iter().all(u8::is_ascii_hexdigit);
    (is_ours && is_run).then(|| String::from_utf8_lossy(run).into_owned())
}

/// In a container the same path is another socket: the process must have our root and our namespace of pids
/// (`/proc/PID/root`, `/proc/PID/ns/pid`).
fn sees_what_we_see(pid: u32) -> bool {
    let root = |path: String| fs::metadata(path).map(|root| (root.dev(), root.ino()));
    let pids = |path: String| fs::read_link(path);
    let same_root = matches!((root(format!("/proc/{pid}/root/.")), root("/".to_owned())),
        (Ok(its), Ok(ours)) if its == ours);
    let same_pids = matches!((pids(format!("/proc/{pid}/ns/pid")), pids("/proc/self/ns/pid".to_owned())),
        (Ok(its), Ok(ours)) if its == ours);
    same_root && same_pids
}

/// `Uid: real effective saved filesystem`.
pub(super) fn real_user(pid: u32) -> Option<u32> {
    let status = fs::read(format!("/proc/{pid}/status")).ok()?;
    let status = String::from_utf8_lossy(&status);
    let users = status.lines().find_map(|line| line.strip_prefix("Uid:"))?;
    users.split_whitespace().next()?.parse().ok()
}

fn command(pid: u32) -> String {
    let read = |file: &str| {
        let mut bytes = Vec::new();
        let file = File::open(format!("/proc/{pid}/{file}"));
        // What cannot be read stays nameless.
        let _ = file.and_then(|file| file.take(SHOWN).read_to_end(&mut bytes));
        bytes
    };
    let line = read("cmdline");
    let line = if line.iter().all(|byte| *byte == 0) { read("comm") } else { line };
    let words = line.split(|byte| matches!(*byte, 0 | b'\n')).filter(|word| !word.is_empty());
    let text = words.map(String::from_utf8_lossy).collect::<Vec<_>>().join(" ");
    text.replace(|c: char| !(c == ' ' || c.is_ascii_graphic() || c.is_alphanumeric()), "?")
}

/// The process, its parent, and so on up to the first.
fn with_ancestors(pid: u32) -> BTreeSet<u32> {
    std::iter::successors(Some(pid), |pid| parent::of(*pid)).collect()
}

/// Ends them, each by its pidfd, and says what became of each, in order. Takes as long as they need: at most 4 s.
#[must_use]
pub fn end(leftovers: Vec<Leftover>, haste: Haste) -> Vec<Ended> {
    end_within(leftovers, haste, PATIENCE)
}

fn end_within(leftovers: Vec<Leftover>, haste: Haste, patience: Duration) -> Vec<Ended> {
    let mut open: Vec<Open> = leftovers.into_iter().map(|leftover| Open { leftover, end: None }).collect();
    settle(&mut open, &End::Gone, Duration::ZERO);
    match haste {
        Haste::Ask => {
            send(&mut open, libc::SIGTERM);
            settle(&mut open, &End::Asked, patience);
        }
        Haste::Now => {}
    }
    send(&mut open, libc::SIGKILL);
    settle(&mut open, &End::Killed, PATIENCE);
    open.into_iter().map(Open::said).collect()
}

/// A leftover whose end is not known yet.
struct Open {
    leftover: Leftover,
    end: Option<End>,
}

impl Open {
    fn said(self) -> Ended {
        let Leftover { pid, command, .. } = self.leftover;
        let end = self.end.unwrap_or_else(|| End::Stays("it does not end on KILL".to_owned()));
        Ended { pid, command, end }
    }
}

fn send(open: &mut [Open], signal: i32) {
    for one in open.iter_mut().filter(|one| one.end.is_none()) {
        match pidfd::signal(one.leftover.pidfd.as_fd(), signal) {
            // One that is gone is seen as ended.
            Ok(_) => {}
            Err(error) => one.end = Some(End::Stays(format!("cannot signal it: {error}"))),
        }
    }
}

/// Waits until all have ended or the time is over; those that end in it have ended so.
fn settle(open: &mut [Open], so: &End, patience: Duration) {
    let until = Instant::now() + patience;
    loop {
        let mut waiting: Vec<&mut Open> = open.iter_mut().filter(|one| one.end.is_none()).collect();
        let left = until.saturating_duration_since(Instant::now());
        let Some(ended) = ended(&waiting, left) else { continue };
        if ended.is_empty() {
            return;
        }
        for at in ended {
            waiting[at].end = Some(so.clone());
        }
    }
}

/// Which of them have ended, waiting for the first; empty when there is nobody to wait for or the time is over; none
/// if the wait was interrupted.
fn ended(waiting: &[&mut Open], patience: Duration) -> Option<Vec<usize>> {
    if waiting.is_empty() {
        return Some(Vec::new());
    }
    let mut fds: Vec<PollFd<'_>> =
        waiting.iter().map(|one| PollFd::new(&one.leftover.pidfd, PollFlags::IN)).collect();
    let patience = Timespec::try_from(patience).ok();
    match poll(&mut fds, patience.as_ref()) {
        Ok(_) => {}
        Err(Errno::INTR) => return None,
        // As if the time were over: KILL follows, or the word that they stay.
        Err(_) => return Some(Vec::new()),
    }
    let has_ended = |(at, fd): (usize, &PollFd<'_>)| (!fd.revents().is_empty()).then_some(at);
    Some(fds.iter().enumerate().filter_map(has_ended).collect())
}

impl fmt::Display for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "pid {} (`{}`) ", self.pid, self.command)?;
        match &self.end {
            End::Gone => f.write_str("had ended by itself"),
            End::Asked => f.write_str("ended when asked"),
            End::Killed => f.write_str("was killed"),
            End::Stays(why) => write!(f, "stays: {why}"),
        }
    }
}

const PATIENCE: Duration = Duration::from_secs(2);
/// Digits of a run.
const RUN: usize = 16;
/// Bytes of a command that are shown.
const SHOWN: u64 = 200;
/// Bytes of an environment; the kernel allows a quarter of the stack's limit, usually 2 MiB.
const LARGEST: u64 = 16 << 20;
