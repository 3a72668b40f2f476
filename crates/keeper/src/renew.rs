//! The keeper executes another image of itself and goes on: same process, same children, same descriptors. What it knows
//! goes along in a file without a name: a line of numbers of its own, then what it holds, a word a line, each with the
//! numbers of its descriptors.

use std::convert::Infallible;
use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::time::Instant;

use rustix::fs::{MemfdFlags, memfd_create};
use rustix::io::{FdFlags, fcntl_setfd};
use rustix::process::Pid;

use shiftboss_link::wire::Item;
use shiftboss_link::{Link, signals, take};

use crate::broker::Broker;
use crate::keeper::{Execute, Keeper};

impl Keeper {
    /// Becomes what the image of the broker process has as a keeper. Returns only if that cannot be, and then nothing
    /// has changed.
    pub(crate) fn renew(&self, broker: &Broker) -> io::Result<Infallible> {
        let state = self.written(broker)?;
        let own = [state.as_fd(), self.image.as_fd(), broker.link.as_fd()];
        let held = || self.table.held.values().flat_map(|(_, held)| held.iter().map(AsFd::as_fd));
        let set = |flags| {
            own.into_iter().chain(held()).map(|kept| fcntl_setfd(kept, flags)).fold(Ok(()), Result::and)
        };
        let execute = || (self.command)(&self.image).env(crate::STATE, state.as_raw_fd().to_string()).exec();
        let error = set(FdFlags::empty()).map_or_else(io::Error::from, |()| execute());
        // Trying has undone it.
        signals::writes_fail();
        set(FdFlags::CLOEXEC)?;
        Err(error)
    }

    fn written(&self, broker: &Broker) -> io::Result<File> {
        let (image, link) = (self.image.as_raw_fd(), broker.link.0.as_raw_fd());
        let mut text = Vec::new();
        write!(text, "{} {image} {link} {} {}", crate::STATE_FORMAT, self.table.last_order, broker.pid)?;
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
    pub(crate) fn read(state: OwnedFd, command: Execute) -> io::Result<Keeper> {
        let text = io::read_to_string(File::from(state))?;
        let numbers = |line: &str| line.split(' ').map_while(|word| word.parse().ok()).collect::<Vec<u64>>();
        let mut lines = text.lines().map(numbers);
        let own = lines.next().unwrap_or_default();
        let [crate::STATE_FORMAT, image, link, last_order, ref pids @ ..] = own[..] else {
            return Err(UNKNOWN.into());
        };
        let mut keeper = Keeper::new(take(image)?, command)?;
        let mut pids = pids.iter().filter_map(|pid| Pid::from_raw(i32::try_from(*pid).ok()?));
        let (pid, link, ready) = (pids.next().ok_or(UNKNOWN)?, Link(take(link)?), Some(Instant::now()));
        keeper.broker = Some(Broker { pid, link, ready, last_word: None, renews_us: false });
        keeper.begun = true;
        (keeper.before, keeper.table.last_order) = (pids.collect(), last_order);
        for numbers in lines {
            let [word, key, value, ref held @ ..] = numbers[..] else { return Err(UNKNOWN.into()) };
            let item = Item::new(u32::try_from(word).map_err(|_| UNKNOWN)?, key, value);
            let held = held.iter().map(|number| take(*number)).collect::<io::Result<_>>()?;
            keeper.table.hold(item, held);
        }
        Ok(keeper)
    }
}

/// It was written by another version.
const UNKNOWN: io::ErrorKind = io::ErrorKind::InvalidData;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::broker::LastWord;
    use shiftboss_link::command;

    #[test]
    fn it_waits_until_all_is_said_and_is_tried_once() {
        if !crate::inside::is_inside("renew::tests::it_waits_until_all_is_said_and_is_tried_once") {
            return;
        }
        let mut keeper = Keeper::new(File::open("/dev/null").unwrap().into(), Box::new(command)).unwrap();
        let (link, _other) = Link::pair().unwrap();
        keeper.broker = Some(Broker::new(rustix::process::getpid(), link));
        let owes = |keeper: &Keeper| keeper.broker.as_ref().is_some_and(|broker| broker.renews_us);
        keeper.broker.iter_mut().for_each(|broker| broker.renews_us = true);
        keeper.table.outbox.push_back(Item::new(shiftboss_link::wire::EXIT, 1, 0));
        keeper.renew_if_owed();
        assert!(owes(&keeper), "somebody is to be told of an end first");
        keeper.flush();
        keeper.old = Some(File::open("/dev/null").unwrap().into());
        keeper.renew_if_owed();
        assert!(owes(&keeper), "an image on trial may have to make way for the old one");
        keeper.old = None;
        keeper.broker.iter_mut().for_each(|broker| broker.last_word = Some(LastWord::Nothing));
        keeper.renew_if_owed();
        assert!(owes(&keeper), "its last word would be forgotten");
        keeper.broker.iter_mut().for_each(|broker| broker.last_word = None);
        keeper.renew_if_owed();
        assert!(!owes(&keeper));
    }

    #[test]
    fn a_renewal_that_fails_changes_nothing() {
        if !crate::inside::is_inside("renew::tests::a_renewal_that_fails_changes_nothing") {
            return;
        }
        signals::writes_fail();
        let keeper = Keeper::new(File::open("/dev/null").unwrap().into(), Box::new(command)).unwrap();
        let (link, _other) = Link::pair().unwrap();
        let broker = Broker::new(rustix::process::getpid(), link);
        let Err(error) = keeper.renew(&broker);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        assert_eq!(rustix::io::fcntl_getfd(&broker.link), Ok(FdFlags::CLOEXEC));
        assert!(signals::is_ignored(libc::SIGPIPE));
    }
}
