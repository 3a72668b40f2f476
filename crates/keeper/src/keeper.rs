//! The loop: hears signals and the broker process, keeps time. What it starts is in `start`, what ends in `ends`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::children;
use crate::fate::Fate;
use crate::inherit;
use crate::link::{Heard, Link, Packet};
use crate::signals::SignalFd;
use crate::table::Table;
use crate::trial::{AT_MOST, PROOF, Trial};
use crate::wire::{
    DEPOSIT, DONE, END, FATE, FORGET, GO_ADOPT, GO_BEGIN, GO_SALVAGE, Item, LACKS, ORDER, ORDER_HANG_UP,
    ORDER_STOP, ORDER_STOP_NOW, ORDER_UPGRADE, READY, SIGNAL, UPGRADE,
};

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
    let signals = SignalFd::new(&HEARD)?;
    // Whoever loses its parent below us becomes our child, and is reaped here.
    rustix::process::set_child_subreaper(Some(rustix::process::getpid()))?;
    let mut keeper = Keeper::new(program, signals);
    keeper.before = children::all();
    keeper.start(GO_BEGIN);
    Ok(keeper.run())
}

/// Goes on as the keeper that has executed this image: its state is in the descriptor of the number in [`crate::STATE`].
///
/// # Errors
/// If that cannot be read.
pub fn keep_on(state: u64, program: Program) -> io::Result<u8> {
    let signals = SignalFd::new(&HEARD)?;
    let mut keeper = Keeper::read(inherit::take(state)?, program, signals)?;
    keeper.reap();
    keeper.look_at_broker();
    Ok(keeper.run())
}

pub(crate) struct Keeper {
    pub(crate) program: Program,
    pub(crate) signals: SignalFd,
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
    /// When to go on speaking: too many descriptors were on their way.
    pub(crate) retry_at: Option<Instant>,
    /// For how long something has been owed to us, in running time of our own.
    pub(crate) owed: Duration,
    pub(crate) trial: Trial,
    /// How the last upgrade went, with its key, until that is forgotten.
    pub(crate) fate: Option<(u64, Fate)>,
    /// The exit code, once it is known.
    pub(crate) code: Option<u8>,
}

pub(crate) struct Broker {
    pub(crate) pid: Pid,
    pub(crate) link: Link,
    pub(crate) ready: Option<Instant>,
    pub(crate) end: Option<u8>,
    /// It has said its last word: killed if it is still there then.
    pub(crate) gone_by: Option<Instant>,
    /// What its image has as a keeper: [`crate::CODE`] of it.
    pub(crate) code: u64,
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

impl Keeper {
    pub(crate) fn new(program: Program, signals: SignalFd) -> Keeper {
        Keeper {
            program,
            signals,
            before: Vec::new(),
            table: Table::default(),
            broker: None,
            outbox: VecDeque::new(),
            begun: false,
            orders: Vec::new(),
            last_order: 0,
            stops: 0,
            failures: 0,
            start_at: None,
            retry_at: None,
            owed: Duration::ZERO,
            trial: Trial::None,
            fate: None,
            code: None,
        }
    }

    fn run(&mut self) -> u8 {
        let mut last = Instant::now();
        loop {
            self.flush();
            if let Some(code) = self.code {
                self.end_all();
                return code;
            }
            let (signalled, spoken) = self.wait();
            let now = Instant::now();
            self.owed = if self.is_owed() { self.owed + (now - last).min(TICK) } else { Duration::ZERO };
            last = now;
            if spoken {
                self.listen();
            }
            if signalled {
                self.take_signals();
            }
            self.look_at_clock(Instant::now());
        }
    }

    /// Waits until there is something to do: whether a signal came, and whether the broker process spoke.
    fn wait(&self) -> (bool, bool) {
        // One that goes has nothing to say, and what it says last is heard when it is gone.
        let broker = self.broker.as_ref().filter(|broker| broker.gone_by.is_none());
        let link = broker.map(|broker| broker.link.as_fd());
        let both = PollFlags::IN | PollFlags::OUT;
        let quiet = self.outbox.is_empty() || self.retry_at.is_some();
        let speak = if quiet { PollFlags::IN } else { both };
        let signals = PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN);
        // Without a broker process the second one is the first again.
        let link = link.map_or_else(|| signals.clone(), |link| PollFd::from_borrowed_fd(link, speak));
        let mut polled = [signals, link];
        let wait = self.deadline().map(|at| at.saturating_duration_since(Instant::now()));
        let wait = if self.is_owed() { Some(wait.map_or(TICK, |wait| wait.min(TICK))) } else { wait };
        let wait = wait.map(|wait| Timespec {
            tv_sec: i64::try_from(wait.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: i64::from(wait.subsec_nanos()),
        });
        // An interruption is a short wait.
        let _ = poll(&mut polled, wait.as_ref());
        let [signals, link] = polled.map(|fd| fd.revents().intersects(LOUD));
        (signals, link)
    }

    fn deadline(&self) -> Option<Instant> {
        let gone_by = self.broker.as_ref().and_then(|broker| broker.gone_by);
        [self.start_at, self.retry_at, self.trial.deadline(), gone_by].into_iter().flatten().min()
    }

    /// Whether the broker process has yet to take something in.
    fn is_owed(&self) -> bool {
        let Some(broker) = &self.broker else { return false };
        broker.ready.is_none() || !self.orders.is_empty() || self.table.has_exits()
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
        let absent = self.broker.as_ref().is_none_or(|broker| broker.ready.is_none());
        if self.stops > 1 && absent && self.failures > 0 || self.stops > 2 && absent {
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

    fn listen(&mut self) {
        while let Some(broker) = &self.broker {
            match broker.link.hear(false) {
                Ok(Heard::Packet(packet)) => self.take(packet),
                Ok(Heard::Nothing) => break,
                // It is dead, which is heard of by signal, or about to end, or of no use any more.
                Ok(Heard::End) | Err(_) => {
                    self.goes();
                    break;
                }
            }
        }
        self.look_at_broker();
    }

    pub(crate) fn take(&mut self, packet: Packet) {
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
                    self.table.deposit(item.key, descriptors, item.value);
                }
                FORGET => {
                    self.table.forget(item.key);
                    self.fate = self.fate.filter(|(key, _)| *key != item.key);
                }
                SIGNAL => {
                    let signal = i32::try_from(item.value & u64::from(u32::MAX)).unwrap_or(0);
                    self.table.signal(item.key, item.value >> 32, signal);
                }
                DONE => self.orders.retain(|order| order.key != item.key),
                READY => self.is_ready(item.key, item.value),
                END => {
                    if let Some(broker) = &mut self.broker {
                        broker.end = u8::try_from(item.value).ok();
                    }
                    self.goes();
                }
                UPGRADE => {
                    let note = descriptors.split_off(descriptors.len().min(1));
                    if let Some(image) = descriptors.pop() {
                        let until = Instant::now() + AT_MOST;
                        self.table.deposit(item.key, note, 0);
                        self.fate = None;
                        self.trial = Trial::Yielding { key: item.key, image, until };
                    }
                }
                // Said by a newer one than we are.
                _ => {}
            }
        }
    }

    /// The broker process has no more to say, and is to be gone soon.
    pub(crate) fn goes(&mut self) {
        if let Some(broker) = &mut self.broker {
            broker.gone_by.get_or_insert(Instant::now() + AT_MOST);
        }
    }

    pub(crate) fn is_ready(&mut self, format: u64, code: u64) {
        let now = Instant::now();
        self.begun = true;
        if let Some(broker) = &mut self.broker {
            broker.ready.get_or_insert(now);
            // A keeper that would not know what we write down is none that we can become.
            broker.code = if format == crate::STATE_FORMAT { code } else { crate::CODE };
        }
        self.trial = match std::mem::replace(&mut self.trial, Trial::None) {
            Trial::Starting { key, old, .. } => Trial::Proving { key, old, until: now + PROOF },
            other @ (Trial::None | Trial::Yielding { .. } | Trial::Proving { .. }) => other,
        };
        // While it was not there nobody was reaped, so that no pid it was told of could be anybody else's.
        self.reap();
    }

    fn look_at_clock(&mut self, now: Instant) {
        if self.start_at.is_some_and(|at| at <= now) {
            self.start_at = None;
            self.start(match self.failures {
                _ if self.table.is_empty() => GO_BEGIN,
                SALVAGE_AFTER.. => GO_SALVAGE,
                _ => GO_ADOPT,
            });
        }
        if self.owed >= hung() {
            say("the broker process hangs: replacing it");
            self.kill_broker();
        }
        if self.broker.as_ref().is_some_and(|broker| broker.gone_by.is_some_and(|at| at <= now)) {
            self.kill_broker();
        }
        match self.trial.deadline() {
            // All of us were stopped: the new image has had no time.
            Some(at) if now.saturating_duration_since(at) > TICK => self.trial.wait_until(now + PROOF),
            Some(at) if at <= now => self.trial_is_over(now),
            Some(_) | None => {}
        }
    }

    fn trial_is_over(&mut self, now: Instant) {
        match std::mem::replace(&mut self.trial, Trial::None) {
            Trial::None => {}
            Trial::Yielding { key, image, .. } => {
                self.trial = Trial::Yielding { key, image, until: now + AT_MOST };
                self.kill_broker();
            }
            Trial::Starting { key, old, .. } => {
                self.fate = Some((key, Fate::NotReady));
                self.trial = Trial::Starting { key, old, until: now + AT_MOST };
                self.kill_broker();
            }
            Trial::Proving { key, .. } => {
                self.fate = Some((key, Fate::TookOver));
                self.outbox.push_back(Item::new(FATE, key, Fate::TookOver.value()));
                self.flush();
                let other = |broker: &Broker| broker.code != crate::CODE && broker.gone_by.is_none();
                if self.outbox.is_empty() && self.broker.as_ref().is_some_and(other) {
                    say(&format!("cannot renew itself and goes on as it is: {}", self.renew()));
                }
            }
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
    let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
    // Whoever does not read it, or has stopped the terminal, must not stop us.
    if matches!(poll(&mut [PollFd::new(&errors, PollFlags::OUT)], Some(&no_wait)), Ok(1)) {
        let _ = rustix::io::write(errors, &line);
    }
}

const HEARD: [i32; 6] =
    [libc::SIGINT, libc::SIGTERM, libc::SIGQUIT, libc::SIGHUP, libc::SIGUSR2, libc::SIGCHLD];
const LOUD: PollFlags = PollFlags::IN.union(PollFlags::HUP).union(PollFlags::ERR);
pub(crate) const FAILED: u8 = 1;
/// Deaths in a row after which whatever is under way is dropped.
pub(crate) const SALVAGE_AFTER: u32 = 3;
pub(crate) const BACKOFF: Duration = Duration::from_millis(100);
/// Something owed for so long means that it hangs.
const HUNG: Duration = Duration::from_secs(60);
/// Fits into a pipe at once (PIPE_BUF, pipe(7)).
const LONGEST_LINE: usize = 500;
const TICK: Duration = Duration::from_secs(1);
pub(crate) const BRIEFLY: Duration = Duration::from_millis(1);
