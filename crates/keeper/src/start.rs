//! Starts a broker process, and says to it what there is to say.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::Pid;

use crate::fate::Fate;
use crate::keeper::{AT_MOST, BRIEFLY, Broker, FAILED, Keeper, say};
use crate::link::Link;
use crate::table::Table;
use crate::wire::{
    DEPOSIT, EXIT, FATE, GO, GO_ADOPT, GO_BEGIN, GO_SALVAGE, Item, MOST_DESCRIPTORS, MOST_ITEMS,
};

impl Keeper {
    pub(crate) fn start(&mut self) {
        self.await_words();
        self.table.verify();
        if !self.begun && self.table.living().is_empty() {
            // What was left by one that was killed before it was ready is no app yet.
            self.table = Table::default();
        }
        let go = match self.failures {
            _ if self.table.entries.is_empty() => GO_BEGIN,
            SALVAGE_AFTER.. => GO_SALVAGE,
            _ => GO_ADOPT,
        };
        match self.spawn() {
            Ok(broker) => {
                self.broker = Some(broker);
                self.owed = Duration::ZERO;
                if let Some(trial) = &mut self.trial {
                    trial.until = Instant::now() + AT_MOST;
                }
                self.hand_over(go);
            }
            Err(error) => self.not_started(go, &error),
        }
    }

    fn not_started(&mut self, go: u64, error: &io::Error) {
        if let Some(trial) = self.trial.take() {
            return self.give_up(trial, Fate::NotExecuted(error.raw_os_error().unwrap_or(0)));
        }
        say(&format!("the broker process cannot be started: {error}"));
        if go == GO_BEGIN {
            self.code = Some(FAILED);
        } else {
            self.start_at = Some(Instant::now() + AGAIN);
        }
    }

    /// A worker that was being cloned when the broker process died has its pid in the records as soon as it runs.
    pub(crate) fn await_words(&mut self) {
        let until = Instant::now() + AT_MOST;
        while self.table.is_expecting() && Instant::now() < until {
            std::thread::sleep(BRIEFLY);
        }
    }

    fn spawn(&self) -> io::Result<Broker> {
        let (link, other) = Link::pair()?;
        let mut command = self.program.command();
        command.env(crate::LINK, other.as_fd().as_raw_fd().to_string()).env_remove(crate::STATE);
        // Nobody else starts anything in this process meanwhile.
        fcntl_setfd(&other, FdFlags::empty())?;
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(Broker::new(pid, link))
    }

    /// All that is held, all that has not been taken in, then "go".
    fn hand_over(&mut self, go: u64) {
        self.outbox.clear();
        for (&key, entry) in &self.table.entries {
            self.outbox.push_back(Item::new(DEPOSIT, key, entry.word));
            self.outbox.extend(entry.exit.map(|status| Item::new(EXIT, key, status)));
        }
        self.outbox.extend(self.fate.map(|(key, fate)| Item::new(FATE, key, fate.value())));
        self.outbox.push_back(Item::new(GO, 0, go));
        self.outbox.extend(self.orders.iter().copied());
    }

    /// Says what there is to say, as far as there is room.
    pub(crate) fn flush(&mut self) {
        while let (Some(broker), false) = (&self.broker, self.outbox.is_empty()) {
            let (items, descriptors) = self.batch();
            match broker.link.say(&items, &descriptors, false) {
                Ok(()) => {
                    let said = items.len();
                    self.outbox.drain(..said);
                }
                // As many descriptors are on their way as may be: the other side takes them out.
                Err(error) if error.raw_os_error() == Some(libc::ETOOMANYREFS) => {
                    return std::thread::sleep(BRIEFLY);
                }
                // It has no room, or is gone, which is heard of by signal.
                Err(_) => return,
            }
        }
    }

    fn batch(&self) -> (Vec<Item>, Vec<BorrowedFd<'_>>) {
        let (mut items, mut descriptors) = (Vec::new(), Vec::new());
        for item in self.outbox.iter().take(MOST_ITEMS) {
            let mut item = *item;
            if item.word == DEPOSIT {
                let held = self.table.entries.get(&item.key).map_or(&[][..], |entry| &entry.descriptors);
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

/// Deaths in a row after which whatever is under way is dropped.
pub(crate) const SALVAGE_AFTER: u32 = 3;
/// After which it is tried again if none can be started.
const AGAIN: Duration = Duration::from_secs(1);
