//! The keeper executes another image of itself and goes on: same process, same children, same descriptors. What it knows
//! goes along as text in a file without a name.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::time::{Duration, Instant};

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Pid;

use crate::fate::Fate;
use crate::inherit::take;
use crate::keeper::{Broker, Keeper, Program};
use crate::link::Link;
use crate::table::Entry;
use crate::wire::{Item, ORDER};

impl Keeper {
    /// Becomes what the image of the broker process has as a keeper. Returns only if that cannot be.
    pub(crate) fn renew(&self) -> io::Error {
        let state = match self.written() {
            Ok(state) => state,
            Err(error) => return error,
        };
        let number = state.as_raw_fd().to_string();
        let mut kept: Vec<BorrowedFd<'_>> = vec![state.as_fd(), self.program.image.as_fd()];
        kept.extend(self.broker.as_ref().map(|broker| broker.link.as_fd()));
        kept.extend(self.table.entries.values().flat_map(|entry| entry.descriptors.iter().map(AsFd::as_fd)));
        let inherited = kept.iter().try_for_each(|kept| fcntl_setfd(kept, FdFlags::empty()));
        let error = match inherited {
            Ok(()) => self.program.command().env(crate::STATE, number).exec(),
            Err(error) => error.into(),
        };
        for kept in kept {
            // It was set before, and can be again.
            let _ = fcntl_setfd(kept, FdFlags::CLOEXEC);
        }
        error
    }

    fn written(&self) -> io::Result<File> {
        let mut text = Vec::new();
        writeln!(text, "{} {}", crate::STATE_FORMAT, self.program.image.as_raw_fd())?;
        if let Some(broker) = &self.broker {
            writeln!(text, "{BROKER} {} {}", broker.pid, broker.link.as_fd().as_raw_fd())?;
        }
        writeln!(text, "{STOPS} {} {}", self.stops, self.last_order)?;
        for pid in &self.before {
            writeln!(text, "{BEFORE} {pid}")?;
        }
        for order in &self.orders {
            writeln!(text, "{ASKED} {} {}", order.key, order.value)?;
        }
        if let Some((key, fate)) = self.fate {
            writeln!(text, "{ENDED} {key} {}", fate.value())?;
        }
        for (key, Entry { word, exit, signals, descriptors, .. }) in &self.table.entries {
            let (ended, exit) = (u8::from(exit.is_some()), exit.unwrap_or(0));
            write!(text, "{ENTRY} {key} {word} {ended} {exit} {signals}")?;
            descriptors.iter().try_for_each(|descriptor| write!(text, " {}", descriptor.as_raw_fd()))?;
            writeln!(text)?;
        }
        let mut file = File::from(memfd_create("shiftboss-keeper", MemfdFlags::CLOEXEC)?);
        file.write_all(&text)?;
        file.rewind()?;
        Ok(file)
    }

    /// Goes on with what was written by the image before.
    pub(crate) fn read(state: OwnedFd, program: Program) -> io::Result<Keeper> {
        let text = io::read_to_string(File::from(state))?;
        let mut lines =
            text.lines().map(|line| line.split(' ').filter_map(|word| word.parse().ok()).collect());
        let head: Vec<u64> = lines.next().unwrap_or_default();
        let [crate::STATE_FORMAT, image] = head[..] else { return Err(unknown()) };
        let mut keeper = Keeper::new(Program { image: take(image)?, ..program })?;
        keeper.begun = true;
        lines.try_for_each(|words| keeper.take_line(&words))?;
        Ok(keeper)
    }

    fn take_line(&mut self, words: &[u64]) -> io::Result<()> {
        let pid = |pid: u64| i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(unknown);
        match *words {
            [BROKER, number, link] => {
                let broker = Broker::new(pid(number)?, Link::from_descriptor(take(link)?));
                // It had been ready for long.
                self.broker = Some(Broker { ready: Instant::now().checked_sub(LONG), ..broker });
            }
            [STOPS, stops, last] => {
                (self.stops, self.last_order) = (u32::try_from(stops).unwrap_or(u32::MAX), last);
            }
            [BEFORE, number] => self.before.push(pid(number)?),
            [ASKED, key, value] => self.orders.push(Item::new(ORDER, key, value)),
            [ENDED, key, value] => self.fate = Fate::of(value).map(|fate| (key, fate)),
            [ENTRY, key, word, ended, exit, signals, ref descriptors @ ..] => {
                let descriptors =
                    descriptors.iter().map(|number| take(*number)).collect::<io::Result<_>>()?;
                let exit = (ended == 1).then_some(exit);
                self.table.deposit(key, Entry { descriptors, word, exit, signals, ..Entry::default() });
            }
            _ => return Err(unknown()),
        }
        Ok(())
    }
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the keeper before has written cannot be read")
}

const BROKER: u64 = 1;
const STOPS: u64 = 2;
const BEFORE: u64 = 3;
const ASKED: u64 = 4;
const ENDED: u64 = 5;
const ENTRY: u64 = 6;
const LONG: Duration = Duration::from_secs(60);
