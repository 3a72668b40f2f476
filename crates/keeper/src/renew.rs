//! The keeper executes another image of itself and goes on: same process, same children, same descriptors. What it knows
//! goes along in a file without a name: a line of numbers of its own, then what it holds, a word a line, each with the
//! numbers of its descriptors.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::time::Instant;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Pid;

use crate::inherit::take;
use crate::keeper::{Broker, Keeper};
use crate::link::Link;
use crate::signals;
use crate::wire::Item;

impl Keeper {
    /// Becomes what the image of the broker process has as a keeper. Returns only if that cannot be.
    pub(crate) fn renew(&self, broker: &Broker) -> io::Error {
        let state = match self.written(broker) {
            Ok(state) => state,
            Err(error) => return error,
        };
        let mut kept: Vec<BorrowedFd<'_>> = vec![state.as_fd(), self.image.as_fd(), broker.link.as_fd()];
        kept.extend(self.table.held.values().flat_map(|(_, held)| held.iter().map(AsFd::as_fd)));
        let error = match kept.iter().try_for_each(|kept| fcntl_setfd(kept, FdFlags::empty())) {
            Ok(()) => {
                let mut command = crate::command(&self.image);
                command.envs(self.variables.iter().cloned());
                command.env(crate::STATE, state.as_raw_fd().to_string()).exec()
            }
            Err(error) => error.into(),
        };
        // Trying has undone it.
        signals::writes_fail();
        for kept in kept {
            // It was set before, and can be again.
            let _ = fcntl_setfd(kept, FdFlags::CLOEXEC);
        }
        error
    }

    fn written(&self, broker: &Broker) -> io::Result<File> {
        let (image, link) = (self.image.as_raw_fd(), broker.link.0.as_raw_fd());
        let mut text = Vec::new();
        write!(text, "{} {image} {link} {} {}", crate::STATE_FORMAT, self.last_order, broker.pid)?;
        self.before.iter().try_for_each(|pid| write!(text, " {pid}"))?;
        for (item, held) in self.table.held.values() {
            write!(text, "\n{} {} {}", item.word, item.key, item.value)?;
            held.iter().try_for_each(|held| write!(text, " {}", held.as_raw_fd()))?;
        }
        let mut file = File::from(memfd_create("shiftboss-keeper", MemfdFlags::CLOEXEC)?);
        file.write_all(&text)?;
        file.rewind()?;
        Ok(file)
    }

    /// Goes on with what was written by the image before.
    pub(crate) fn read(state: OwnedFd, variables: Vec<(OsString, OsString)>) -> io::Result<Keeper> {
        let text = io::read_to_string(File::from(state))?;
        let numbers = |line: &str| line.split(' ').map_while(|word| word.parse().ok()).collect::<Vec<u64>>();
        let mut lines = text.lines().map(numbers);
        let own = lines.next().unwrap_or_default();
        let [crate::STATE_FORMAT, image, link, last_order, ref pids @ ..] = own[..] else {
            return Err(unknown());
        };
        let mut keeper = Keeper::new(take(image)?, variables)?;
        let mut pids = pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
        let mut broker = Broker::new(pids.next().ok_or_else(unknown)?, Link(take(link)?));
        broker.ready = Some(Instant::now());
        (keeper.broker, keeper.begun) = (Some(broker), true);
        (keeper.before, keeper.last_order) = (pids.collect(), last_order);
        for numbers in lines {
            let [word, key, value, ref held @ ..] = numbers[..] else { return Err(unknown()) };
            let item = Item::new(u32::try_from(word).map_err(|_| unknown())?, key, value);
            let held = held.iter().map(|number| take(*number)).collect::<io::Result<_>>()?;
            keeper.table.hold(item, held);
        }
        Ok(keeper)
    }
}

fn unknown() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "what the keeper before has written cannot be read")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_waits_until_all_is_said_and_is_tried_once() {
        if !signals::tests::is_inside("renew::tests::it_waits_until_all_is_said_and_is_tried_once") {
            return;
        }
        let mut keeper = Keeper::new(File::open("/dev/null").unwrap().into(), Vec::new()).unwrap();
        let (link, _other) = Link::pair().unwrap();
        keeper.broker = Some(Broker::new(rustix::process::getpid(), link));
        let owes = |keeper: &Keeper| keeper.broker.as_ref().is_some_and(|broker| broker.renews_us);
        keeper.broker.iter_mut().for_each(|broker| broker.renews_us = true);
        keeper.outbox.push_back(Item::new(crate::wire::EXIT, 1, 0));
        keeper.renew_if_owed();
        assert!(owes(&keeper), "somebody is to be told of an end first");
        keeper.flush();
        keeper.renew_if_owed();
        assert!(!owes(&keeper));
    }

    #[test]
    fn a_renewal_that_fails_changes_nothing() {
        if !signals::tests::is_inside("renew::tests::a_renewal_that_fails_changes_nothing") {
            return;
        }
        signals::writes_fail();
        let keeper = Keeper::new(File::open("/dev/null").unwrap().into(), Vec::new()).unwrap();
        let (link, _other) = Link::pair().unwrap();
        let error = keeper.renew(&Broker::new(rustix::process::getpid(), link));
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert!(signals::is_ignored(libc::SIGPIPE));
    }
}
