//! The loop: hears signals and the broker process, keeps time. What it starts is in `start`, what ends in `ends`.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, getpid, set_child_subreaper};

use crate::link::{Link, Packet};
use crate::signals::SignalFd;
use crate::table::Table;
use crate::wire::{
    DEPOSIT, DONE, END, FATE, FORGET, Item, LACKS, NOT_READY, ORDER, ORDER_HANG_UP, ORDER_STOP,
    ORDER_STOP_NOW, ORDER_UPGRADE, READY, SIGNAL, TOOK_OVER, UNDECIDED, UPGRADE,
};
use crate::{children, inherit, signals};

/// Keeps a broker process running until the app has ended; returns the exit code to end with. The broker process is this
/// very program with the same arguments, and gets these variables besides ours. In an image that a keeper has executed it
/// goes on as that keeper.
///
/// `settled` is called each time a broker process has taken over: nothing but waiting is left to do.
///
/// To be called by a process without other threads, which has no children of its own.
///
/// # Errors
/// When the operating system refuses what a keeper needs, or what the keeper before has left cannot be read; then nothing
/// was started.
pub fn keep(variables: Vec<(OsString, OsString)>, settled: fn()) -> io::Result<u8> {
    signals::writes_fail();
    if let Some(state) = inherit::number_in(crate::STATE) {
        return Ok(Keeper::read(inherit::take(state)?, variables)?.run(settled));
    }
    // Whoever loses its parent below us becomes our child, and is reaped here.
    set_child_subreaper(Some(getpid()))?;
    let mut keeper = Keeper::new(File::open("/proc/self/exe")?.into(), variables)?;
    keeper.before = children::all();
    Ok(keeper.run(settled))
}

pub(crate) struct Keeper {
    /// What is run as the broker process, held open: a file that is replaced on disk can still be started.
    pub(crate) image: OwnedFd,
    pub(crate) variables: Vec<(OsString, OsString)>,
    signals: SignalFd,
    /// Children that are older than our being a keeper.
    pub(crate) before: Vec<Pid>,
    pub(crate) table: Table,
    pub(crate) broker: Option<Broker>,
    /// Whether any has ever been ready.
    pub(crate) begun: bool,
    /// What is still to be said to it.
    pub(crate) outbox: VecDeque<Item>,
    pub(crate) last_order: u64,
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

pub(crate) struct Broker {
    pub(crate) pid: Pid,
    pub(crate) link: Link,
    pub(crate) ready: Option<Instant>,
    /// It has no more to say, and is to be gone soon.
    pub(crate) last_word: Option<LastWord>,
    /// Whether its image is another keeper, which we can become; and whether we are to.
    is_other_keeper: bool,
    pub(crate) renews_us: bool,
}

/// What shall be once a broker process is gone.
pub(crate) enum LastWord {
    /// Another one goes on: it has left the link without a word.
    Nothing,
    /// The end, with this exit code.
    End(u64),
    /// A trial of this image.
    Upgrade(OwnedFd),
}

impl Broker {
    pub(crate) fn new(pid: Pid, link: Link) -> Broker {
        Broker { pid, link, ready: None, last_word: None, is_other_keeper: false, renews_us: false }
    }
}

impl Keeper {
    pub(crate) fn new(image: OwnedFd, variables: Vec<(OsString, OsString)>) -> io::Result<Keeper> {
        Ok(Keeper {
            image,
            variables,
            signals: SignalFd::new(&HEARD)?,
            before: Vec::new(),
            table: Table::default(),
            broker: None,
            begun: false,
            outbox: VecDeque::new(),
            last_order: 0,
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
            self.look_at_clock();
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

    /// Waits until there is something to do.
    fn wait(&mut self) {
        let left = self.awaited().map(|(patience, _)| patience.saturating_sub(self.waited).min(TICK));
        let began = Instant::now();
        let speak = if self.outbox.is_empty() { PollFlags::empty() } else { PollFlags::OUT };
        // Nobody to listen to is as good as another look at the signals.
        let link = self.speaker().map_or(self.signals.as_fd(), |broker| broker.link.as_fd());
        let mut polled = [
            PollFd::new(&self.signals, PollFlags::IN),
            PollFd::from_borrowed_fd(link, PollFlags::IN | speak),
        ];
        // An interruption is a short wait.
        let _ = poll(&mut polled, left.and_then(|left| Timespec::try_from(left).ok()).as_ref());
        // Beyond a tick it is we who were stopped.
        self.waited = left.map_or(Duration::ZERO, |_| self.waited + began.elapsed().min(TICK));
    }

    /// For how long we wait at most for what is to come next, and what is done then.
    fn awaited(&self) -> Option<(Duration, Act)> {
        let Some(broker) = &self.broker else { return Some((self.pause, Keeper::start)) };
        match (&self.old, broker.ready) {
            _ if broker.last_word.is_some() => Some((AT_MOST, Keeper::kill_broker)),
            (Some(_), None) => Some((AT_MOST, Keeper::is_not_ready)),
            (Some(_), Some(_)) => Some((PROOF, Keeper::has_proved_itself)),
            (None, Some(_)) if !self.table.is_owed() => None,
            // It has an app to begin, when it likes to.
            (None, None) if self.table.is_empty() => None,
            (None, _) => Some((hung(), Keeper::hangs)),
        }
    }

    fn look_at_clock(&mut self) {
        if let Some((patience, act)) = self.awaited()
            && self.waited >= patience
            && self.code.is_none()
        {
            self.waited = Duration::ZERO;
            act(self);
        }
    }

    /// The broker process, as long as it may have something to say.
    fn speaker(&self) -> Option<&Broker> {
        self.broker.as_ref().filter(|broker| broker.last_word.is_none())
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
                Some(libc::SIGHUP) => self.order(ORDER_HANG_UP),
                Some(libc::SIGUSR2) => self.order(ORDER_UPGRADE),
                Some(_) => self.stop(),
            }
        }
    }

    /// The first one asks, the second does not; if nobody is there to take it in, it ends everything here. One that comes at
    /// the heels of another is the same: `timeout(1)` signals us and then our group.
    fn stop(&mut self) {
        if self.stopped_at.is_some_and(|at| at.elapsed() < SAME_SIGNAL) {
            return;
        }
        self.stopped_at = Some(Instant::now());
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
        self.tell(Item::new(ORDER, self.last_order, what));
    }

    /// Says it to this broker process, and to every other one until it is forgotten.
    pub(crate) fn tell(&mut self, item: Item) {
        self.table.hold(item, Vec::new());
        self.outbox.push_back(item);
    }

    /// Takes what the broker process has said.
    pub(crate) fn listen(&mut self) {
        while let Some(broker) = self.speaker() {
            match broker.link.hear(false) {
                Ok(Some(packet)) => self.take(packet),
                Ok(None) => return,
                // It is dead, which is heard of by signal, or about to end, or of no use any more.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => self.leaves(LastWord::Nothing),
                // For want of memory; what it said waits.
                Err(_) => return std::thread::sleep(BRIEFLY),
            }
        }
    }

    fn take(&mut self, packet: Packet) {
        if self.old.is_none() {
            self.waited = Duration::ZERO;
        }
        if packet.cut {
            say("cannot hold all descriptors: the limit of open files is reached");
        }
        for (item, mut descriptors) in packet.words {
            match item.word {
                DEPOSIT => {
                    if descriptors.len() < item.descriptors as usize {
                        self.outbox.push_back(Item::new(LACKS, item.key, 0));
                    }
                    self.table.hold(item, descriptors);
                }
                FORGET => self.table.forget(item.key),
                SIGNAL => self.table.signal(item),
                DONE => drop(self.table.held.remove(&(ORDER, item.key))),
                READY => self.is_ready(item),
                END => self.leaves(LastWord::End(item.value)),
                UPGRADE if !descriptors.is_empty() => {
                    self.leaves(LastWord::Upgrade(descriptors.remove(0)));
                    self.table.hold(Item { word: DEPOSIT, ..item }, descriptors);
                    self.table.hold(Item::new(FATE, item.key, UNDECIDED), Vec::new());
                }
                // Said by a newer one than we are.
                _ => {}
            }
        }
    }

    fn leaves(&mut self, last_word: LastWord) {
        if let Some(broker) = &mut self.broker {
            broker.last_word.get_or_insert(last_word);
            self.waited = Duration::ZERO;
        }
    }

    fn is_ready(&mut self, said: Item) {
        self.begun = true;
        if let Some(broker) = self.broker.as_mut().filter(|broker| broker.ready.is_none()) {
            broker.ready = Some(Instant::now());
            // One that would not know what we write down is none that we can become.
            broker.is_other_keeper = said.key == crate::STATE_FORMAT && said.value != crate::CODE;
            self.waited = Duration::ZERO;
        }
    }

    // What has not happened in time.

    fn kill_broker(&mut self) {
        if let Some(broker) = &self.broker {
            children::kill(broker.pid);
        }
    }

    fn hangs(&mut self) {
        say("the broker process hangs: replacing it");
        self.kill_broker();
    }

    fn is_not_ready(&mut self) {
        self.decide(NOT_READY);
        self.kill_broker();
    }

    /// How the upgrade went is said once: what it was killed for is the reason, not that it then died.
    pub(crate) fn decide(&mut self, fate: u64) {
        for (_, (item, _)) in self.table.held.range_mut((FATE, 0)..) {
            if item.value == UNDECIDED {
                item.value = fate;
                self.outbox.push_back(*item);
            }
        }
    }

    /// It has not died.
    fn has_proved_itself(&mut self) {
        self.old = None;
        self.decide(TOOK_OVER);
        if let Some(broker) = &mut self.broker {
            broker.renews_us = broker.is_other_keeper;
        }
    }

    /// Once all is said that there was to say.
    pub(crate) fn renew_if_owed(&mut self) {
        if !self.outbox.is_empty() || self.broker.as_ref().is_none_or(|broker| !broker.renews_us) {
            return;
        }
        // An app that is about to stop needs no other keeper.
        if let Some(broker) = self.broker.as_ref().filter(|_| self.stops == 0) {
            say(&format!("cannot renew itself and goes on as it is: {}", self.renew(broker)));
        }
        self.broker.iter_mut().for_each(|broker| broker.renews_us = false);
    }
}

/// What is done if what is awaited does not come.
type Act = fn(&mut Keeper);

/// [`HUNG`]; tests of a debug build may have less patience.
fn hung() -> Duration {
    #[cfg(debug_assertions)]
    if let Some(wait) = inherit::number_in("SHIFTBOSS_HUNG_MS") {
        return Duration::from_millis(wait);
    }
    HUNG
}

/// Talk is on standard error, in lines that fit into a pipe at once; nobody is left who could be told that it cannot be.
pub(crate) fn say(text: &str) {
    let mut line = format!("keeper: {text}").into_bytes();
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
/// Signals that ask to end, closer to each other than this, are one: nobody means that in so short a time.
pub const SAME_SIGNAL: Duration = Duration::from_millis(200);
/// Something owed for so long means that it hangs.
const HUNG: Duration = Duration::from_secs(60);
/// For a broker process that has said its last word to go, and for a new image to become ready.
pub(crate) const AT_MOST: Duration = Duration::from_secs(10);
/// For a new image to stay alive once it is ready.
const PROOF: Duration = Duration::from_secs(2);
const TICK: Duration = Duration::from_secs(1);
pub(crate) const BRIEFLY: Duration = Duration::from_millis(1);
