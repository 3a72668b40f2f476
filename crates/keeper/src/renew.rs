//! The keeper executes another image of itself and goes on: same process, same children, same descriptors. What it knows
//! goes along as text in a file without a name.

use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, Read as _, Seek as _, Write as _};
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
use crate::signals::SignalFd;
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
        kept.extend(self.table.iter().flat_map(|(_, entry)| entry.descriptors.iter().map(AsFd::as_fd)));
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
        let mut text = String::new();
        let mut line = |words: &[u64]| {
            let words: Vec<String> = words.iter().map(u64::to_string).collect();
            let _ = writeln!(text, "{}", words.join(" "));
        };
        let pid = |pid: Pid| u64::from(pid.as_raw_nonzero().get().unsigned_abs());
        let number = |descriptor: BorrowedFd<'_>| u64::from(descriptor.as_raw_fd().unsigned_abs());
        line(&[crate::STATE_FORMAT, number(self.program.image.as_fd())]);
        if let Some(broker) = &self.broker {
            line(&[BROKER, pid(broker.pid), number(broker.link.as_fd())]);
        }
        line(&[STOPS, u64::from(self.stops), self.last_order]);
        self.before.iter().for_each(|before| line(&[BEFORE, pid(*before)]));
        self.orders.iter().for_each(|order| line(&[ASKED, order.key, order.value]));
        if let Some((key, fate)) = self.fate {
            line(&[ENDED, key, fate.value()]);
        }
        for (key, entry) in self.table.iter() {
            let exit = entry.exit.map_or([0, 0], |exit| [1, exit]);
            let mut words = vec![ENTRY, key, entry.word.unwrap_or(0), exit[0], exit[1], entry.signals];
            words.extend(entry.descriptors.iter().map(|descriptor| number(descriptor.as_fd())));
            line(&words);
        }
        let mut file = File::from(memfd_create("shiftboss-keeper", MemfdFlags::CLOEXEC)?);
        file.write_all(text.as_bytes())?;
        file.rewind()?;
        Ok(file)
    }

    /// Goes on with what was written by the image before.
    pub(crate) fn read(state: OwnedFd, program: Program, signals: SignalFd) -> io::Result<Keeper> {
        let mut text = String::new();
        File::from(state).read_to_string(&mut text)?;
        let mut lines =
            text.lines().map(|line| line.split(' ').filter_map(|word| word.parse().ok()).collect());
        let head: Vec<u64> = lines.next().unwrap_or_default();
        let [crate::STATE_FORMAT, image] = head[..] else { return Err(unknown()) };
        let image = take(image)?;
        let mut keeper = Keeper::new(Program { image, ..program }, signals);
        keeper.begun = true;
        for words in lines {
            keeper.take_line(&words)?;
        }
        Ok(keeper)
    }

    fn take_line(&mut self, words: &[u64]) -> io::Result<()> {
        let pid = |pid: u64| i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(unknown);
        match *words {
            [BROKER, number, link] => {
                let link = Link::from_descriptor(take(link)?);
                // It had been ready for long.
                let ready = Instant::now().checked_sub(LONG);
                self.broker = Some(Broker {
                    pid: pid(number)?,
                    link,
                    ready,
                    end: None,
                    gone_by: None,
                    code: crate::CODE,
                });
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
                self.table.deposit(key, descriptors, word);
                self.table.note_signals(key, signals);
                if ended == 1 {
                    self.table.note_exit(key, exit);
                }
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
