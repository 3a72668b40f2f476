//! The loop: hears signals, keeps time, and lets the broker process speak.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, getpid, set_child_subreaper};
use shiftboss_link::signals::{self, SignalFd, UNMEANT};
use shiftboss_link::wire::{
    EXIT, Item, NOT_READY, ORDER, ORDER_HANG_UP, ORDER_STOP, ORDER_STOP_NOW, ORDER_UPGRADE, TOOK_OVER,
};
use shiftboss_link::{number_in, take};

use crate::broker::Broker;
use crate::children;
use crate::table::Table;

/// Keeps a broker process running until the app has ended; returns the exit code to end with. The broker process is this
/// very program; `command` says how an image of it is executed. In an image that a keeper has executed it goes on as that
/// keeper.
///
/// `settled` is called each time a broker process has taken over: nothing but waiting is left to do.
///
/// To be called by a process without other threads, which has no children of its own but those that it was started with.
///
/// # Errors
/// When the operating system refuses what a keeper needs, or what the keeper before has left cannot be read; then nothing
/// was started.
pub fn keep(command: Execute, settled: fn()) -> io::Result<u8> {
    signals::writes_fail();
    if let Some(state) = number_in(crate::STATE) {
        return Ok(Keeper::read(take(state)?, command)?.run(settled));
    }
    // Whoever loses its parent below us becomes our child, and is reaped here.
    set_child_subreaper(Some(getpid()))?;
    Ok(Keeper::new(File::open("/proc/self/exe")?.into(), command)?.run(settled))
}

pub(crate) struct Keeper {
    /// What is run as the broker process, held open: a file that is replaced on disk can still be started.
    pub(crate) image: OwnedFd,
    pub(crate) command: Execute,
    signals: SignalFd,
    /// Children that are older than our being a keeper.
    pub(crate) before: Vec<Pid>,
    pub(crate) table: Table,
    pub(crate) broker: Option<Broker>,
    /// Whether any has ever been ready.
    pub(crate) begun: bool,
    stops: u32,
    stopped_at: Option<Instant>,
    /// Broker processes in a row that ended before they had proved themselves.
    pub(crate) failures: u32,
    /// How long there is to be no broker process, if there is none.
    pub(crate) pause: Duration,
    /// For how long we have waited for what is [`Keeper::awaited`], in running time of our own.
    pub(crate) waited: Duration,
    /// The image to go back to, as long as another is on trial: it is to be ready, and then to stay alive.
    pub(crate) old: Option<OwnedFd>,
    /// The exit code, once it is known.
    pub(crate) code: Option<u8>,
}

impl Keeper {
    pub(crate) fn new(image: OwnedFd, command: Execute) -> io::Result<Keeper> {
        Ok(Keeper {
            image,
            command,
            signals: SignalFd::new(&HEARD)?,
            before: children::all(),
            table: Table::default(),
            broker: None,
            begun: false,
            stops: 0,
            stopped_at: None,
            failures: 0,
            pause: Duration::ZERO,
            waited: Duration::ZERO,
            old: None,
            code: None,
        })
    }

    fn run(&mut self, settled: fn()) -> u8 {
        let mut was_alone = true;
        loop {
            self.listen();
            self.take_signals();
            self.flush();
            self.renew_if_owed();
            if let Some(code) = self.code {
                self.end_all();
                return code;
            }
            if std::mem::replace(&mut was_alone, self.is_alone()) && !was_alone {
                settled();
            }
            self.wait();
        }
    }

    /// Waits until there is something to do, and does what is due.
    fn wait(&mut self) {
        let awaited = self.awaited();
        if let Some((_, act)) = awaited.filter(|(patience, _)| self.waited >= *patience) {
            self.waited = Duration::ZERO;
            return act(self);
        }
        let left = awaited.map(|(patience, _)| (patience - self.waited).min(TICK));
        let began = Instant::now();
        let speak = if self.table.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        // Nobody to listen to is as good as another look at the signals.
        let link = self.speaker().map_or(self.signals.as_fd(), |broker| broker.link.as_fd());
        let signals = PollFd::new(&self.signals, PollFlags::IN);
        let link = PollFd::from_borrowed_fd(link, PollFlags::IN | speak);
        // An interruption is a short wait.
        let _ = poll(&mut [signals, link], left.and_then(|left| Timespec::try_from(left).ok()).as_ref());
        // Beyond a tick it is we who were stopped.
        self.waited = left.map_or(Duration::ZERO, |_| self.waited + began.elapsed().min(TICK));
    }

    /// For how long we wait at most for what is to come next, and what is done then.
    fn awaited(&self) -> Option<(Duration, Act)> {
        let Some(broker) = &self.broker else { return Some((self.pause, Keeper::start)) };
        match (&self.old, broker.ready) {
            _ if broker.last_word.is_some() => Some((AT_MOST, Keeper::kill_broker)),
            (Some(_), None) => Some((AT_MOST, Keeper::hangs)),
            (Some(_), Some(_)) => Some((PROOF, Keeper::has_proved_itself)),
            (None, Some(_)) if !self.table.owes(|_| true) => None,
            // It has an app to begin, when it likes to.
            (None, None) if self.table.is_empty() => None,
            // Who has asked for the end is waiting.
            (None, _) => Some((if self.stops > 0 { AT_MOST } else { hung() }, Keeper::hangs)),
        }
    }

    /// Whether no broker process acts: there is none, or it has not taken over yet.
    pub(crate) fn is_alone(&self) -> bool {
        self.broker.as_ref().is_none_or(|broker| broker.ready.is_none())
    }

    // What has happened.

    fn take_signals(&mut self) {
        loop {
            let signal = self.signals.read();
            // Who has left already is not asked to leave.
            self.reap();
            match signal {
                None => return,
                Some(libc::SIGCHLD) => {}
                Some(n) if UNMEANT.contains(&n) => say(&format!("signal {n} does nothing")),
                Some(libc::SIGHUP) => self.table.order(ORDER_HANG_UP),
                Some(libc::SIGUSR2) => self.table.order(ORDER_UPGRADE),
                // At the heels of another it is the same: `timeout(1)` signals us and then our group.
                Some(_) if self.stopped_at.is_some_and(|at| at.elapsed() < SAME_SIGNAL) => {}
                Some(_) => self.stop(),
            }
        }
    }

    /// The first one asks, the second does not. A broker process that has not even heard the one before makes way for
    /// another; if there is none, all ends here.
    fn stop(&mut self) {
        let is_unheard = self.table.owes(|order| order.word == ORDER && order.value <= ORDER_STOP_NOW);
        (self.stops, self.stopped_at, self.pause) = (self.stops + 1, Some(Instant::now()), Duration::ZERO);
        self.table.order(if self.stops == 1 { ORDER_STOP } else { ORDER_STOP_NOW });
        if is_unheard && self.is_alone() {
            say("no broker process is there to end the app: ending everything");
            self.code = Some(FAILED);
        } else if is_unheard {
            self.hangs();
        }
    }

    /// Reaps all who have ended, workers with what is left of their group.
    pub(crate) fn reap(&mut self) {
        while let Some(pid) = self.ended() {
            // What it said last counts, and whose a worker is was said before it was started.
            self.listen();
            if let Some(broker) = self.broker.take_if(|broker| broker.pid == pid) {
                self.broker_ended(broker);
            } else if let Some((&key, _)) = self.table.living().iter().find(|(_, living)| **living == pid) {
                children::kill_group(pid);
                self.table.tell(Item::new(EXIT, key, children::reap(pid)));
            } else {
                children::reap(pid);
            }
        }
    }

    /// Who has ended; as long as a broker process takes over only that one, so that no other pid that it was told of can
    /// become anybody else's.
    fn ended(&self) -> Option<Pid> {
        let broker = self.broker.as_ref()?;
        let only = broker.ready.is_none().then_some(broker.pid);
        // What is no child of ours has ended.
        children::ended(only).unwrap_or(only)
    }

    /// Nothing is left behind: workers, and whoever has lost its parent below us.
    pub(crate) fn end_all(&mut self) {
        self.kill_broker();
        self.table.living().values().for_each(|pid| children::kill_group(*pid));
        for _ in 0..LAST_LOOKS {
            while let Ok(Some(pid)) = children::ended(None) {
                children::reap(pid);
            }
            let mut left = children::all();
            left.retain(|pid| !self.before.contains(pid));
            if left.is_empty() {
                return;
            }
            left.into_iter().for_each(|pid| children::signal(pid, libc::SIGKILL));
            std::thread::sleep(BRIEFLY);
        }
    }

    // What follows when time has passed.

    fn kill_broker(&mut self) {
        self.broker.iter().for_each(|broker| children::signal(broker.pid, libc::SIGKILL));
    }

    fn hangs(&mut self) {
        say("the broker process hangs: replacing it");
        // For an image on trial that is the reason, not that it then dies.
        self.table.decide(NOT_READY);
        self.kill_broker();
    }

    /// It has not died.
    fn has_proved_itself(&mut self) {
        self.old = None;
        self.table.decide(TOOK_OVER);
    }

    /// Once all is said, and if the image whose keeper we are to become is not on trial, nor its broker process about to go.
    pub(crate) fn renew_if_owed(&mut self) {
        // An app that is about to stop needs no other keeper.
        let may = self.old.is_none() && self.table.outbox.is_empty() && self.stops == 0;
        if let Some(broker) = self.speaker().filter(|broker| may && broker.renews_us) {
            let Err(error) = self.renew(broker);
            say(&format!("cannot renew itself and goes on as it is: {error}"));
            self.broker.iter_mut().for_each(|broker| broker.renews_us = false);
        }
    }
}

/// What is done if what is awaited does not come.
type Act = fn(&mut Keeper);
/// How an image of the program is to be executed.
pub type Execute = Box<dyn Fn(&OwnedFd) -> Command>;

/// [`HUNG`]; tests of a debug build may have less patience.
fn hung() -> Duration {
    let less = if cfg!(debug_assertions) { number_in("SHIFTBOSS_HUNG_MS") } else { None };
    less.map_or(HUNG, Duration::from_millis)
}

/// Talk is on standard error, in lines that fit into a pipe at once; nobody is left who could be told that it cannot be.
pub(crate) fn say(text: &str) {
    let line = format!("keeper: {text}\n");
    let errors = rustix::stdio::stderr();
    // Whoever does not read it, or has stopped the terminal, must not stop us.
    if matches!(poll(&mut [PollFd::new(&errors, PollFlags::OUT)], Some(&Timespec::default())), Ok(1)) {
        let _ = rustix::io::write(errors, line.as_bytes());
    }
}

const HEARD: [i32; 8] = {
    use libc::{SIGCHLD, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR2};
    [SIGINT, SIGTERM, SIGQUIT, SIGHUP, SIGUSR2, SIGCHLD, UNMEANT[0], UNMEANT[1]]
};
pub(crate) const FAILED: u8 = 1;
/// Signals that ask to end, closer to each other than this, are one: nobody means that in so short a time.
pub const SAME_SIGNAL: Duration = Duration::from_millis(200);
/// Something owed for so long means that it hangs.
const HUNG: Duration = Duration::from_secs(60);
/// For a broker process that has said its last word to go, for a new image to become ready, and for whoever is to end all.
pub(crate) const AT_MOST: Duration = Duration::from_secs(10);
/// For a new image to stay alive once it is ready.
const PROOF: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);
pub(crate) const BRIEFLY: Duration = Duration::from_millis(1);
/// With a pause after each: not by a clock, which goes on while we are not run.
const LAST_LOOKS: u32 = 2000;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::Broker;
    use std::io::Write as _;
    use std::os::unix::process::ExitStatusExt as _;
    use std::process::Stdio;

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use shiftboss_link::wire::{DEPOSIT, RECORDS};
    use shiftboss_link::{Link, command};

    /// A look at the link finds nothing; then, before the look at the children, a worker is deposited, cloned, and ends.
    #[test]
    fn a_worker_that_was_deposited_after_the_link_was_heard_is_no_stranger() {
        const ITSELF: &str =
            "keeper::tests::a_worker_that_was_deposited_after_the_link_was_heard_is_no_stranger";
        if !crate::inside::is_inside(ITSELF) {
            return;
        }
        let mut keeper =
            Keeper::new(std::fs::File::open("/proc/self/exe").unwrap().into(), Box::new(command)).unwrap();
        let (link, other) = Link::pair().unwrap();
        keeper.broker = Some(Broker::new(getpid(), link));
        keeper.broker.as_mut().unwrap().ready = Some(Instant::now());
        keeper.listen();
        let mut worker = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut records = tempfile::tempfile().unwrap();
        records.write_all(&[0; 8]).unwrap();
        records.write_all(&worker.id().to_ne_bytes()).unwrap();
        let one = |key, value| Item { descriptors: 1, ..Item::new(DEPOSIT, key, value) };
        let held = [records.as_fd(), records.as_fd()];
        other.say(&[one(RECORDS, 0), one(9, 8)], &held, true).unwrap();
        drop(worker.stdin.take());
        let pidfd = pidfd_open(Pid::from_child(&worker), PidfdFlags::empty()).unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        keeper.reap();
        assert_eq!(keeper.table.outbox.pop_front(), Some(Item::new(EXIT, 9, 0)));
        assert_eq!(worker.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD), "it is not reaped");
    }

    #[test]
    fn a_stop_does_not_wait_for_a_pause() {
        if !crate::inside::is_inside("keeper::tests::a_stop_does_not_wait_for_a_pause") {
            return;
        }
        let mut keeper =
            Keeper::new(std::fs::File::open("/proc/self/exe").unwrap().into(), Box::new(command)).unwrap();
        (keeper.begun, keeper.failures, keeper.pause) = (true, 9, AT_MOST);
        keeper.stop();
        let due = keeper.awaited().map(|(patience, _)| patience);
        assert_eq!((due, keeper.code), (Some(Duration::ZERO), None));
    }

    #[test]
    fn a_second_stop_ends_a_broker_process_that_has_not_heard_the_first() {
        if !crate::inside::is_inside(
            "keeper::tests::a_second_stop_ends_a_broker_process_that_has_not_heard_the_first",
        ) {
            return;
        }
        let mut keeper =
            Keeper::new(std::fs::File::open("/proc/self/exe").unwrap().into(), Box::new(command)).unwrap();
        let mut process = Command::new("sleep").arg("1000").spawn().unwrap();
        let (link, _other) = Link::pair().unwrap();
        keeper.broker = Some(Broker::new(Pid::from_child(&process), link));
        keeper.broker.as_mut().unwrap().ready = Some(Instant::now());
        keeper.stop();
        assert_eq!(process.try_wait().unwrap(), None);
        keeper.stop();
        assert_eq!(process.wait().unwrap().signal(), Some(libc::SIGKILL));
    }
}
