//! The broker process from its start to its end: what it is told, what it says, and what is left when it is gone.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::process::Pid;
use shiftboss_link::wire::{
    BY_SIGNAL, DEPOSIT, DONE, END, ENDED_EARLY, ENDED_SOON, FATE, FORGET, GO_ADOPT, GO_BEGIN, GO_SALVAGE,
    Item, LACKS, NOT_EXECUTED, ORDER, READY, SIGNAL, UNDECIDED, UPGRADE, how_it_ended,
};
use shiftboss_link::{Link, Packet, start_linked};

use crate::children;
use crate::keeper::{AT_MOST, BRIEFLY, FAILED, Keeper, say};

pub(crate) struct Broker {
    pub(crate) pid: Pid,
    pub(crate) link: Link,
    pub(crate) ready: Option<Instant>,
    /// It has no more to say, and is to be gone soon.
    pub(crate) last_word: Option<LastWord>,
    /// Whether its image has another keeper, which we are to become.
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

impl Keeper {
    pub(crate) fn start(&mut self) {
        // A worker that was being cloned when the broker process died has its pid in the records as soon as it runs.
        let until = Instant::now() + AT_MOST;
        while self.table.is_expecting() && Instant::now() < until {
            std::thread::sleep(BRIEFLY);
        }
        self.table.verify();
        if !self.begun && self.table.living().is_empty() {
            // What was left by one that was killed before it was ready is no app yet.
            self.table.forget_all();
        }
        let adopt = if self.failures < SALVAGE_AFTER { GO_ADOPT } else { GO_SALVAGE };
        let go = if self.table.is_empty() { GO_BEGIN } else { adopt };
        // Nobody else starts anything in this process.
        match start_linked((self.command)(&self.image).env_remove(crate::STATE)) {
            Ok((child, link)) => {
                let pid = Pid::from_child(&child);
                self.broker = Some(Broker { pid, link, ready: None, last_word: None, renews_us: false });
                self.table.tell_all(go);
            }
            Err(error) => {
                let reason = u64::from(error.raw_os_error().unwrap_or(0).unsigned_abs());
                if !self.gives_up(NOT_EXECUTED | reason << 8) {
                    say(&format!("the broker process cannot be started: {error}"));
                    self.pause = AGAIN;
                    self.code = (go == GO_BEGIN).then_some(FAILED);
                }
            }
        }
    }

    /// Says what there is to say, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let (Some(broker), false) = (&self.broker, self.table.outbox.is_empty()) {
            let (items, descriptors) = self.table.packet();
            match broker.link.say(&items, &descriptors, false) {
                Ok(()) => drop(self.table.outbox.drain(..items.len())),
                // It has no room, or as many descriptors are on their way as may be, or it is gone, which is heard of
                // by signal.
                Err(_) => return std::thread::sleep(BRIEFLY),
            }
        }
    }

    /// The broker process, as long as it may have something to say.
    pub(crate) fn speaker(&self) -> Option<&Broker> {
        self.broker.as_ref().filter(|broker| broker.last_word.is_none())
    }

    /// Takes what the broker process has said.
    pub(crate) fn listen(&mut self) {
        while let Some(broker) = self.speaker() {
            match broker.link.hear(false) {
                Ok(Some(packet)) => self.take(packet),
                Ok(None) => return,
                // It is dead, which is heard of by signal, or about to end, or of no use any more.
                Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                    self.waited = Duration::ZERO;
                    self.broker.iter_mut().for_each(|broker| broker.last_word = Some(LastWord::Nothing));
                }
                // For want of memory; what it said waits.
                Err(_) => return std::thread::sleep(BRIEFLY),
            }
        }
    }

    fn take(&mut self, packet: Packet) {
        let Some(broker) = &mut self.broker else { return };
        for (item, mut descriptors) in packet.words {
            // It does not hang, but an image on trial has to come to something.
            if self.old.is_none() || matches!(item.word, READY | END | UPGRADE) {
                self.waited = Duration::ZERO;
            }
            if descriptors.len() < item.descriptors as usize {
                say("cannot hold all descriptors: the limit of open files is reached");
                self.table.outbox.push_back(Item::new(LACKS, item.key, 0));
            }
            match item.word {
                DEPOSIT => self.table.hold(item, descriptors),
                FORGET => self.table.forget(item.key),
                SIGNAL => self.table.signal(item),
                DONE => drop(self.table.held.remove(&(ORDER, item.key))),
                READY => {
                    self.begun = true;
                    broker.ready = Some(Instant::now());
                    // One that would not know what we write down is none that we can become.
                    broker.renews_us = item.key == crate::STATE_FORMAT && item.value != crate::CODE;
                }
                END => broker.last_word = Some(LastWord::End(item.value)),
                UPGRADE if !descriptors.is_empty() => {
                    broker.last_word = Some(LastWord::Upgrade(descriptors.remove(0)));
                    self.table.hold(Item { word: DEPOSIT, ..item }, descriptors);
                    self.table.hold(Item::new(FATE, item.key, UNDECIDED), Vec::new());
                }
                // Said by a newer one than we are.
                _ => {}
            }
        }
    }

    pub(crate) fn broker_ended(&mut self, broker: Broker) {
        let status = children::reap(broker.pid);
        (self.waited, self.pause) = (Duration::ZERO, Duration::ZERO);
        match broker.last_word {
            Some(LastWord::End(code)) => {
                // It may have had more to do than its app, and failed at that.
                let failed = (1..BY_SIGNAL).contains(&status);
                self.code = Some(code_of(if failed { status } else { code }));
            }
            Some(LastWord::Upgrade(image)) => self.old = Some(std::mem::replace(&mut self.image, image)),
            Some(LastWord::Nothing) | None => {
                let how = if broker.ready.is_some() { ENDED_SOON } else { ENDED_EARLY };
                if !self.gives_up(how | status << 8) {
                    self.broker_died(broker.ready, status);
                }
            }
        }
    }

    fn broker_died(&mut self, ready: Option<Instant>, status: u64) {
        let never_began = ready.is_none() && self.table.is_empty();
        if !self.begun && status < BY_SIGNAL || never_began && self.failures + 1 >= SALVAGE_AFTER {
            // What it said of the reason is all there is to say.
            self.code = Some(code_of(status));
            return;
        }
        let has_proved_itself = ready.is_some_and(|ready| ready.elapsed() >= PROVED);
        self.failures = if has_proved_itself { 0 } else { self.failures + 1 };
        // None after the first, then doubled.
        self.pause = (BACKOFF * ((1 << self.failures.min(16)) / 4)).min(LONGEST);
        let (how, pause) = (how_it_ended(status), self.pause.as_secs_f32());
        say(&format!("the broker process {how}: another one goes on in {pause} s"));
    }

    /// An image on trial failed: the old one goes on. False if none was.
    fn gives_up(&mut self, fate: u64) -> bool {
        let Some(old) = self.old.take() else { return false };
        say("the new image is given up: the old one goes on");
        self.image = old;
        self.table.decide(fate);
        true
    }
}

fn code_of(status: u64) -> u8 {
    u8::try_from(status.checked_sub(BY_SIGNAL).map_or(status, |signal| 128 + signal)).unwrap_or(FAILED)
}

/// Deaths in a row after which whatever is under way is dropped.
const SALVAGE_AFTER: u32 = 3;
/// A broker process that was ready for so long has not failed at its start.
const PROVED: Duration = Duration::from_secs(1);
const BACKOFF: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
/// After which it is tried again if none can be started.
const AGAIN: Duration = Duration::from_secs(1);

#[cfg(test)]
impl Broker {
    pub(crate) fn new(pid: Pid, link: Link) -> Broker {
        Broker { pid, link, ready: None, last_word: None, renews_us: false }
    }
}
