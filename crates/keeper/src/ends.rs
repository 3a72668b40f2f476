//! Ends: of workers, of the broker process, and of everything.

use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::children;
use crate::keeper::{BRIEFLY, Broker, FAILED, Keeper, LastWord, say};
use crate::start::SALVAGE_AFTER;
use crate::wire::{BY_SIGNAL, ENDED_EARLY, ENDED_SOON, EXIT, Item, how_it_ended};

impl Keeper {
    fn broker_ended(&mut self, broker: Broker, status: u64) {
        (self.waited, self.pause) = (Duration::ZERO, Duration::ZERO);
        match broker.last_word {
            Some(LastWord::End(code)) => {
                // It may have had more to do than its app, and failed at that.
                let failed = (1..BY_SIGNAL).contains(&status);
                self.code = Some(code_of(if failed { status } else { code }));
            }
            Some(LastWord::Upgrade(image)) => self.old = Some(std::mem::replace(&mut self.image, image)),
            Some(LastWord::Nothing) | None if self.old.is_some() => {
                let how = if broker.ready.is_some() { ENDED_SOON } else { ENDED_EARLY };
                self.give_up(how | status << 8);
            }
            Some(LastWord::Nothing) | None => self.broker_died(broker.ready, status),
        }
    }

    fn broker_died(&mut self, ready: Option<Instant>, status: u64) {
        let never_began = ready.is_none() && self.table.is_empty();
        if !self.begun && status < BY_SIGNAL || never_began && self.failures + 1 >= SALVAGE_AFTER {
            // What it said of the reason is all there is to say.
            self.code = Some(code_of(status));
            return;
        }
        say(&format!("the broker process {}: another one goes on", how_it_ended(status)));
        let proved = ready.is_some_and(|ready| ready.elapsed() >= PROVED);
        self.failures = if proved { 0 } else { self.failures + 1 };
        if self.failures >= 2 {
            self.pause = (BACKOFF * (1 << (self.failures - 2).min(16))).min(LONGEST);
        }
    }

    /// The new image failed: the old one goes on.
    pub(crate) fn give_up(&mut self, fate: u64) {
        if let Some(old) = self.old.take() {
            say("the new image is given up: the old one goes on");
            self.image = old;
            self.decide(fate);
        }
    }

    /// Reaps all who have ended, workers with what is left of their group.
    pub(crate) fn reap(&mut self) {
        while let Some(pid) = self.ended() {
            // What it said last counts, and whose a worker is was said before it was started.
            self.listen();
            if let Some(broker) = self.broker.take_if(|broker| broker.pid == pid) {
                self.broker_ended(broker, children::reap(pid));
                continue;
            }
            let worker = self.table.living().iter().find(|(_, living)| **living == pid).map(|(key, _)| *key);
            if worker.is_some() {
                children::kill_group(pid);
            }
            let status = children::reap(pid);
            if let Some(key) = worker {
                self.tell(Item::new(EXIT, key, status));
            }
        }
    }

    /// Who has ended; as long as a broker process takes over only that one, so that no other pid that it was told of can
    /// become anybody else's.
    fn ended(&self) -> Option<Pid> {
        let broker = self.broker.as_ref()?;
        if broker.ready.is_some() {
            return children::ended();
        }
        (!matches!(children::has_ended(broker.pid), Ok(false))).then_some(broker.pid)
    }

    /// Nothing is left behind: workers, and whoever has lost its parent below us.
    pub(crate) fn end_all(&mut self) {
        if let Some(broker) = self.broker.take() {
            // Reaped below, if it can be.
            children::kill(broker.pid);
        }
        for pid in self.table.living().values() {
            children::kill_group(*pid);
            children::kill(*pid);
        }
        let until = Instant::now() + LAST_WAIT;
        loop {
            while let Some(pid) = children::ended() {
                children::reap(pid);
            }
            let mut left = children::all();
            left.retain(|pid| !self.before.contains(pid));
            if left.is_empty() || Instant::now() > until {
                return;
            }
            left.into_iter().for_each(children::kill);
            std::thread::sleep(BRIEFLY);
        }
    }
}

fn code_of(status: u64) -> u8 {
    let code = status.checked_sub(BY_SIGNAL).map_or(status, |signal| (128 + signal).min(255));
    u8::try_from(code).unwrap_or(FAILED)
}

/// A broker process that was ready for so long has not failed at its start.
const PROVED: Duration = Duration::from_secs(1);
const BACKOFF: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(30);
const LAST_WAIT: Duration = Duration::from_secs(2);

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write as _;
    use std::os::fd::AsFd as _;
    use std::process::{Command, Stdio};

    use rustix::event::{PollFd, PollFlags, poll};
    use rustix::process::{PidfdFlags, getpid, pidfd_open};

    use crate::link::Link;
    use crate::wire::{DEPOSIT, RECORDS};

    /// A look at the link finds nothing; then, before the look at the children, a worker is deposited, cloned, and ends.
    #[test]
    fn a_worker_that_was_deposited_after_the_link_was_heard_is_no_stranger() {
        const ITSELF: &str =
            "ends::tests::a_worker_that_was_deposited_after_the_link_was_heard_is_no_stranger";
        if !crate::signals::tests::is_inside(ITSELF) {
            return;
        }
        let mut keeper =
            Keeper::new(std::fs::File::open("/proc/self/exe").unwrap().into(), Vec::new()).unwrap();
        let (link, other) = Link::pair().unwrap();
        keeper.broker = Some(Broker::new(getpid(), link));
        keeper.broker.as_mut().unwrap().ready = Some(Instant::now());
        keeper.listen();
        let mut worker = Command::new("cat").stdin(Stdio::piped()).spawn().unwrap();
        let mut records = tempfile::tempfile().unwrap();
        records.write_all(&[0; 8]).unwrap();
        records.write_all(&worker.id().to_ne_bytes()).unwrap();
        let one = |key, value| Item { descriptors: 1, ..Item::new(DEPOSIT, key, value) };
        let held = [records.as_fd(), records.as_fd()];
        other.say(&[one(RECORDS, 0), one(9, 8)], &held, true).unwrap();
        drop(worker.stdin.take());
        let pidfd = pidfd_open(Pid::from_child(&worker), PidfdFlags::empty()).unwrap();
        poll(&mut [PollFd::new(&pidfd, PollFlags::IN)], None).unwrap();
        keeper.reap();
        assert_eq!(keeper.outbox.pop_front(), Some(Item::new(EXIT, 9, 0)));
        assert_eq!(worker.wait().unwrap_err().raw_os_error(), Some(libc::ECHILD), "it is not reaped");
    }
}
