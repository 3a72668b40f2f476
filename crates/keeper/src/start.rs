//! Starts a broker process, and says to it what there is to say.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::io::{Errno, FdFlags, fcntl_setfd};
use rustix::process::Pid;

use crate::keeper::{AT_MOST, BRIEFLY, Broker, FAILED, Keeper, say};
use crate::link::Link;
use crate::wire::{GO, GO_ADOPT, GO_BEGIN, GO_SALVAGE, Item, MOST_DESCRIPTORS, MOST_ITEMS, NOT_EXECUTED};

/// This image of the program, with our own name and arguments.
pub fn command(image: &impl AsRawFd) -> Command {
    let mut command = Command::new(format!("/proc/self/fd/{}", image.as_raw_fd()));
    let mut arguments = std::env::args_os();
    if let Some(name) = arguments.next() {
        command.arg0(name);
    }
    command.args(arguments);
    command
}

impl Keeper {
    pub(crate) fn start(&mut self) {
        self.await_words();
        self.table.verify();
        if !self.begun && self.table.living().is_empty() {
            // What was left by one that was killed before it was ready is no app yet.
            self.table.forget_all();
        }
        let go = match self.failures {
            _ if self.table.is_empty() => GO_BEGIN,
            SALVAGE_AFTER.. => GO_SALVAGE,
            _ => GO_ADOPT,
        };
        match self.spawn() {
            Ok(broker) => {
                self.broker = Some(broker);
                self.table.hold(Item::new(GO, 0, go), Vec::new());
                self.outbox = self.table.words().collect();
            }
            Err(error) if self.old.is_some() => {
                self.give_up(NOT_EXECUTED | u64::from(error.raw_os_error().unwrap_or(0).unsigned_abs()) << 8);
            }
            Err(error) => {
                say(&format!("the broker process cannot be started: {error}"));
                self.pause = AGAIN;
                self.code = (go == GO_BEGIN).then_some(FAILED);
            }
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
        let mut command = command(&self.image);
        command.envs(self.variables.iter().cloned());
        command.env(crate::LINK, other.0.as_raw_fd().to_string()).env_remove(crate::STATE);
        // Nobody else starts anything in this process meanwhile.
        fcntl_setfd(&other, FdFlags::empty())?;
        let child = command.spawn()?;
        let pid = i32::try_from(child.id()).ok().and_then(Pid::from_raw).ok_or(Errno::SRCH)?;
        Ok(Broker::new(pid, link))
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
            let held = self.table.descriptors(item);
            if descriptors.len() + held.len() > MOST_DESCRIPTORS {
                break;
            }
            descriptors.extend(held.iter().map(AsFd::as_fd));
            items.push(Item { descriptors: u32::try_from(held.len()).unwrap_or(0), ..*item });
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
