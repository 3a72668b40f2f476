//! The loop: hears signals and the broker process, keeps time. What it starts is in `start`, what ends in `ends`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::fate::Fate;
use crate::link::{Heard, Link, Packet};
use crate::signals::SignalFd;
use crate::table::{Entry, Table};
use crate::wire::{
    DEPOSIT, DONE, END, FATE, FORGET, Item, LACKS, ORDER, ORDER_HANG_UP, ORDER_STOP, ORDER_STOP_NOW,
    ORDER_UPGRADE, READY, SIGNAL, UPGRADE,
};
use crate::{children, inherit};

/// What is run as the broker process.
#[derive(Debug)]
pub struct Program {
    /// Its file, held open: one that is replaced on disk can still be started.
    pub image: OwnedFd,
    /// Its arguments, the program's own name first.
    pub arguments: Vec<OsString>,
    /// Variables that it gets besides ours.
    pub environment: Vec<(OsString, OsString)>,
}

/// Keeps a broker process running until the app has ended; returns the exit code to end with.
///
/// To be called by a process without other threads, which has no children of its own.
///
/// # Errors
/// When the operating system refuses what a keeper needs; then nothing was started.
pub fn keep(program: Program) -> io::Result<u8> {
    // Whoever loses its parent below us becomes our child, and is reaped here.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut keeper = Keeper::new(program)?;
    keeper.before = children::all();
    keeper.start();
    Ok(keeper.run())
}

/// Goes on as the keeper that has executed this image: its state is in the descriptor of the number in [`crate::STATE`].
///
/// # Errors
/// If that cannot be read.
pub fn keep_on(state: u64, program: Program) -> io::Result<u8> {
    let mut keeper = Keeper::read(inherit::take(state)?, program)?;
    // Somebody may have ended meanwhile, and the one before us was told.
    keeper.take_signals();
    Ok(keeper.run())
}

pub(crate) struct Keeper {
    pub(crate) program: Program,
    signals: SignalFd,
    /// Children that are older than our being a keeper.
    pub(crate) before: Vec<Pid>,
    pub(crate) table: Table,
    pub(crate) broker: Option<Broker>,
    /// Whether any has ever been ready.
    pub(crate) begun: bool,
    /// What is still to be said to it.
    pub(crate) outbox: VecDeque<Item>,
    /// Those not yet taken in.
    pub(crate) orders: Vec<Item>,
    pub(crate) last_order: u64,
    pub(crate) stops: u32,
    /// Broker processes in a row that ended before they had proved themselves.
    pub(crate) failures: u32,
    /// When to start the next one.
    pub(crate) start_at: Option<Instant>,
    /// For how long something has been owed to us, in running time of our own.
    pub(crate) owed: Duration,
    pub(crate) trial: Option<Trial>,
    /// How the last upgrade went, with its key, until that is forgotten.
    pub(crate) fate: Option<(u64, Fate)>,
    /// The exit code, once it is known.
    pub(crate) code: Option<u8>,
}

pub(crate) struct Broker {
    pub(crate) pid: Pid,
    pub(crate) link: Link,
    pub(crate) ready: Option<Instant>,
    /// It has no more to say: killed if it is still there then.
    pub(crate) gone_by: Option<Instant>,
    pub(crate) last_word: Option<LastWord>,
    /// What its image has as a keeper: [`crate::CODE`] of it.
    pub(crate) code: u64,
}

/// What shall be once a broker process is gone; without one it goes on with another.
pub(crate) enum LastWord {
    /// The end, with this exit code.
    End(u8),
    /// A trial of this image, under this key.
    Upgrade(u64, OwnedFd),
}

/// A new image that has not proved itself: it is to be ready, and then to stay alive.
pub(crate) struct Trial {
    pub(crate) key: u64,
    /// The image to go back to.
    pub(crate) old: OwnedFd,
    /// When what it does now is to be over.
    pub(crate) until: Instant,
}

impl Program {
    pub(crate) fn command(&self) -> Command {
        let mut arguments = self.arguments.iter();
        let mut command = Command::new(format!("/proc/self/fd/{}", self.image.as_raw_fd()));
        if let Some(name) = arguments.next() {
            command.arg0(name);
        }
        command.args(arguments).envs(self.environment.iter().map(|(key, value)| (key, value)));
        command
    }
}

impl Broker {
    pub(crate) fn new(pid: Pid, link: Link) -> Broker {
        Broker { pid, link, ready: None, gone_by: None, last_word: None, code: crate::CODE }
    }
}

impl Keeper {
    pub(crate) fn new(program: Program) -> io::Result<Keeper> {
        Ok(Keeper {
            program,
            signals: SignalFd::new(&HEARD)?,
            before: Vec::new(),
            table: Table::default(),
            broker: None,
            begun: false,
            outbox: VecDeque::new(),
            orders: Vec::new(),
            last_order: 0,
            stops: 0,
            failures: 0,
            start_at: None,
            owed: Duration::ZERO,
            trial: None,
            fate: None,
            code: None,
        })
    }

    fn run(&mut self) -> u8 {
        let mut last = Instant::now();
        loop {
            self.flush();
            if let Some(code) = self.code {
                self.end_all();
                return code;
            }
            self.wait();
            let now = Instant::now();
            self.owed = if self.is_owed() { self.owed + (now - last).min(TICK) } else { Duration::ZERO };
            last = now;
            self.listen();
            self.take_signals();
            self.look_at_clock(Instant::now());
        }
    }

    /// Waits until there is something to do.
    fn wait(&self) {
        let mut polled = vec![PollFd::new(&self.signals, PollFlags::IN)];
        // One that goes has nothing to say, and its link stays readable: what it said last is heard when it is gone.
        if let Some(broker) = self.broker.as_ref().filter(|broker| broker.gone_by.is_none()) {
            let speak = if self.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
            polled.push(PollFd::new(&broker.link, PollFlags::IN | speak));
        }
        let gone_by = self.broker.as_ref().and_then(|broker| broker.gone_by);
        let trial = self.trial.as_ref().map(|trial| trial.until);
        let deadline = [self.start_at, gone_by, trial].into_iter().flatten().min();
        let left = deadline.map(|at| at.saturating_duration_since(Instant::now()));
        let wait = left.into_iter().chain(self.is_owed().then_some(TICK)).min();
        // An interruption is a short wait.
        let _ = poll(&mut polled, wait.and_then(|wait| Timespec::try_from(wait).ok()).as_ref());
    }

    /// Whether the broker process has yet to take something in.
    fn is_owed(&self) -> bool {
        let Some(broker) = &self.broker else { return false };
        broker.ready.is_none() || !self.orders.is_empty() || self.table.has_exits()
    }

    /// Whether no broker process acts: there is none, or it has not taken over yet.
    pub(crate) fn is_alone(&self) -> bool {
        self.broker.as_ref().is_none_or(|broker| broker.ready.is_none())
    }

    // What has happened.

    fn take_signals(&mut self) {
        let signals: Vec<i32> = std::iter::from_fn(|| self.signals.read()).collect();
        // Who has left already is not asked to leave.
        self.look_at_broker();
        self.reap();
        for signal in signals {
            match signal {
                libc::SIGCHLD => {}
                libc::SIGHUP => self.order(ORDER_HANG_UP),
                libc::SIGUSR2 => self.order(ORDER_UPGRADE),
                _ => self.stop(),
            }
        }
    }

    /// The first one asks, the second does not; if nobody is there to take it in, it ends everything here.
    fn stop(&mut self) {
        self.stops += 1;
        self.order(if self.stops == 1 { ORDER_STOP } else { ORDER_STOP_NOW });
        let enough = if self.failures > 0 { 2 } else { 3 };
        if self.is_alone() && self.stops >= enough {
            say("no broker process is there to end the app: ending everything");
            self.code = Some(FAILED);
        }
    }

    fn order(&mut self, what: u64) {
        self.last_order += 1;
        let order = Item::new(ORDER, self.last_order, what);
        self.orders.push(order);
        if self.broker.is_some() {
            self.outbox.push_back(order);
        }
    }

    /// Takes what the broker process has said.
    pub(crate) fn listen(&mut self) {
        while let Some(broker) = &self.broker {
            match broker.link.hear(false) {
                Ok(Heard::Packet(packet)) => self.take(packet),
                Ok(Heard::Nothing) => break,
                // It is dead, which is heard of by signal, or about to end, or of no use any more.
                Ok(Heard::End) | Err(_) => {
                    self.goes(None);
                    break;
                }
            }
        }
    }

    fn take(&mut self, packet: Packet) {
        self.owed = Duration::ZERO;
        if packet.cut {
            say("cannot hold all descriptors: the limit of open files is reached");
        }
        for (item, mut descriptors) in packet.words() {
            match item.word {
                DEPOSIT => {
                    if descriptors.len() < item.descriptors as usize {
                        self.outbox.push_back(Item::new(LACKS, item.key, 0));
                    }
                    let entry = Entry { descriptors, word: item.value, ..Entry::default() };
                    self.table.deposit(item.key, entry);
                }
                FORGET => {
                    self.table.entries.remove(&item.key);
                    self.fate.take_if(|(key, _)| *key == item.key);
                }
                SIGNAL => {
                    let signal = i32::try_from(item.value & u64::from(u32::MAX)).unwrap_or(0);
                    self.table.signal(item.key, item.value >> 32, signal);
                }
                DONE => self.orders.retain(|order| order.key != item.key),
                READY => self.is_ready(item.key, item.value),
                END => self.goes(u8::try_from(item.value).ok().map(LastWord::End)),
                UPGRADE => {
                    let note = descriptors.split_off(descriptors.len().min(1));
                    if let Some(image) = descriptors.pop() {
                        self.table.deposit(item.key, Entry { descriptors: note, ..Entry::default() });
                        (self.trial, self.fate) = (None, None);
                        self.goes(Some(LastWord::Upgrade(item.key, image)));
                    }
                }
                // Said by a newer one than we are.
                _ => {}
            }
        }
    }

    /// The broker process has no more to say, and is to be gone soon.
    fn goes(&mut self, last_word: Option<LastWord>) {
        if let Some(broker) = &mut self.broker {
            broker.gone_by.get_or_insert(Instant::now() + AT_MOST);
            broker.last_word = last_word.or(broker.last_word.take());
        }
    }

    fn is_ready(&mut self, format: u64, code: u64) {
        self.begun = true;
        if let Some(broker) = self.broker.as_mut().filter(|broker| broker.ready.is_none()) {
            let now = Instant::now();
            broker.ready = Some(now);
            // A keeper that would not know what we write down is none that we can become.
            broker.code = if format == crate::STATE_FORMAT { code } else { crate::CODE };
            if let Some(trial) = &mut self.trial {
                trial.until = now + PROOF;
            }
        }
        // While it was not there nobody was reaped, so that no pid it was told of could be anybody else's.
        self.reap();
    }

    fn look_at_clock(&mut self, now: Instant) {
        if self.start_at.take_if(|at| *at <= now).is_some() {
            self.start();
        }
        if self.owed >= hung() {
            say("the broker process hangs: replacing it");
            self.kill_broker();
        }
        if self.broker.as_ref().is_some_and(|broker| broker.gone_by.is_some_and(|at| at <= now)) {
            self.kill_broker();
        }
        match &mut self.trial {
            // All of us were stopped: the new image has had no time.
            Some(trial) if now.saturating_duration_since(trial.until) > TICK => trial.until = now + PROOF,
            Some(trial) if trial.until <= now => self.trial_is_over(now),
            Some(_) | None => {}
        }
    }

    fn trial_is_over(&mut self, now: Instant) {
        let Some(trial) = self.trial.take() else { return };
        let key = trial.key;
        if self.is_alone() {
            self.fate = Some((key, Fate::NotReady));
            self.trial = Some(Trial { until: now + AT_MOST, ..trial });
            return self.kill_broker();
        }
        self.fate = Some((key, Fate::TookOver));
        self.outbox.push_back(Item::new(FATE, key, Fate::TookOver.value()));
        self.flush();
        let other = |broker: &Broker| broker.code != crate::CODE && broker.gone_by.is_none();
        if self.outbox.is_empty() && self.broker.as_ref().is_some_and(other) {
            say(&format!("cannot renew itself and goes on as it is: {}", self.renew()));
        }
    }
}

/// [`HUNG`]; tests of a debug build may have less patience.
fn hung() -> Duration {
    #[cfg(debug_assertions)]
    if let Some(wait) = std::env::var("SHIFTBOSS_HUNG_MS").ok().and_then(|ms| ms.parse().ok()) {
        return Duration::from_millis(wait);
    }
    HUNG
}

/// Talk is on standard error; nobody is left who could be told that it cannot be.
pub(crate) fn say(text: &str) {
    let mut line = format!("keeper: {text}").into_bytes();
    line.truncate(LONGEST_LINE);
    line.push(b'\n');
    let errors = rustix::stdio::stderr();
    // Whoever does not read it, or has stopped the terminal, must not stop us.
    if matches!(poll(&mut [PollFd::new(&errors, PollFlags::OUT)], Some(&Timespec::default())), Ok(1)) {
        let _ = rustix::io::write(errors, &line);
    }
}

const HEARD: [i32; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP, libc::SIGUSR2, libc::SIGCHLD];
pub(crate) const FAILED: u8 = 1;
/// Something owed for so long means that it hangs.
const HUNG: Duration = Duration::from_secs(60);
/// For a broker process that has said its last word to go, and for a new image to become ready.
pub(crate) const AT_MOST: Duration = Duration::from_secs(10);
/// For a new image to stay alive once it is ready.
const PROOF: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);
pub(crate) const BRIEFLY: Duration = Duration::from_millis(1);
/// Fits into a pipe at once (PIPE_BUF, pipe(7)).
const LONGEST_LINE: usize = 500;
