//! Starts a broker process, and says to it what there is to say.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::Pid;

use crate::fate::Fate;
use crate::keeper::{BACKOFF, BRIEFLY, Broker, FAILED, Keeper, say};
use crate::link::Link;
use crate::trial::{AT_MOST, Trial};
use crate::wire::{DEPOSIT, EXIT, FATE, GO, GO_BEGIN, Item, MOST_DESCRIPTORS, MOST_ITEMS};

impl Keeper {
    pub(crate) fn start(&mut self, go: u64) {
        self.await_words();
        self.table.verify();
        match self.spawn() {
            Ok(broker) => {
                self.broker = Some(broker);
                self.owed = Duration::ZERO;
                self.retry_at = None;
                if let Trial::Starting { until, .. } = &mut self.trial {
                    *until = Instant::now() + AT_MOST;
                }
                self.hand_over(go);
            }
            Err(error) => self.not_started(go, &error),
        }
    }

    pub(crate) fn not_started(&mut self, go: u64, error: &io::Error) {
        if let Trial::Starting { key, old, .. } = std::mem::replace(&mut self.trial, Trial::None) {
            return self.give_up(key, old, Fate::NotExecuted(error.raw_os_error().unwrap_or(0)));
        }
        say(&format!("the broker process cannot be started: {error}"));
        if go == GO_BEGIN {
            self.code = Some(FAILED);
        } else {
            self.start_at = Some(Instant::now() + BACKOFF * 10);
        }
    }

    /// A worker that was being cloned when the broker process died has its pid in the records as soon as it runs.
    pub(crate) fn await_words(&mut self) {
        let until = Instant::now() + AT_MOST;
        while self.table.is_expecting() && Instant::now() < until {
            std::thread::sleep(BRIEFLY);
        }
    }

    pub(crate) fn spawn(&self) -> io::Result<Broker> {
        let (link, other) = Link::pair()?;
        let mut command = self.program.command();
        command.env(crate::LINK, other.as_fd().as_raw_fd().to_string()).env_remove(crate::STATE);
        // Nobody else starts anything in this process meanwhile.
        fcntl_setfd(&other, FdFlags::empty())?;
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(Broker { pid, link, ready: None, end: None, gone_by: None, code: crate::CODE })
    }

    /// All that is held, all that has not been taken in, then "go".
    pub(crate) fn hand_over(&mut self, go: u64) {
        self.outbox.clear();
        for (key, entry) in self.table.iter() {
            self.outbox.push_back(Item::new(DEPOSIT, key, entry.word.unwrap_or(0)));
            self.outbox.extend(entry.exit.map(|status| Item::new(EXIT, key, status)));
        }
        self.outbox.extend(self.fate.map(|(key, fate)| Item::new(FATE, key, fate.value())));
        self.outbox.push_back(Item::new(GO, 0, go));
        self.outbox.extend(self.orders.iter().copied());
    }

    /// Says what there is to say, as far as there is room.
    pub(crate) fn flush(&mut self) {
        if self.retry_at.take_if(|at| *at <= Instant::now()).is_none() && self.retry_at.is_some() {
            return;
        }
        while let (Some(broker), false) = (&self.broker, self.outbox.is_empty()) {
            let (items, descriptors) = self.batch();
            match broker.link.say(&items, &descriptors, false) {
                Ok(()) => {
                    let said = items.len();
                    self.outbox.drain(..said);
                }
                Err(error) if error.raw_os_error() == Some(Errno::TOOMANYREFS.raw_os_error()) => {
                    // As many descriptors are on their way as may be: the other side takes them out.
                    self.retry_at = Some(Instant::now() + BRIEFLY);
                    return;
                }
                // It has no room, or is gone, which is heard of by signal.
                Err(_) => return,
            }
        }
    }

    pub(crate) fn batch(&self) -> (Vec<Item>, Vec<BorrowedFd<'_>>) {
        let (mut items, mut descriptors) = (Vec::new(), Vec::new());
        for item in self.outbox.iter().take(MOST_ITEMS) {
            let mut item = *item;
            if item.word == DEPOSIT {
                let held = self.table.get(item.key).map_or(&[][..], |entry| &entry.descriptors);
                if descriptors.len() + held.len() > MOST_DESCRIPTORS {
                    break;
                }
                item.descriptors = u32::try_from(held.len()).unwrap_or(0);
                descriptors.extend(held.iter().map(AsFd::as_fd));
            }
            items.push(item);
            // What follows is said to one that has taken over.
            if item.word == GO {
                break;
            }
        }
        (items, descriptors)
    }
}
