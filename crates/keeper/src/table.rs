//! What is held for the broker process: descriptors under keys, and of workers their pids and ends.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::children;
use crate::wire::{LOST, RECORDS};

/// All deposits, by key.
#[derive(Default)]
pub(crate) struct Table {
    entries: BTreeMap<u64, Entry>,
    /// Where the pids stand.
    records: Option<OwnedFd>,
    /// How many of them have an end.
    exits: usize,
}

/// One deposit.
pub(crate) struct Entry {
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Where in the records the pid stands, if it is a worker's.
    pub(crate) word: Option<u64>,
    /// As far as it was looked up.
    pid: Option<Pid>,
    /// How the worker ended; kept until it is forgotten.
    pub(crate) exit: Option<u64>,
    /// The number of the last signal that it was sent.
    pub(crate) signals: u64,
}

impl Table {
    pub(crate) fn deposit(&mut self, key: u64, descriptors: Vec<OwnedFd>, word: u64) {
        if key == RECORDS {
            self.records = descriptors.first().and_then(|records| records.try_clone().ok());
        }
        let word = (word > 0).then_some(word);
        self.forget(key);
        self.entries.insert(key, Entry { descriptors, word, pid: None, exit: None, signals: 0 });
    }

    /// Drops what is held.
    pub(crate) fn forget(&mut self, key: u64) {
        if self.entries.remove(&key).is_some_and(|entry| entry.exit.is_some()) {
            self.exits -= 1;
        }
    }

    pub(crate) fn get(&self, key: u64) -> Option<&Entry> {
        self.entries.get(&key)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &Entry)> {
        self.entries.iter().map(|(key, entry)| (*key, entry))
    }

    /// The living worker that has this pid.
    pub(crate) fn worker(&mut self, pid: Pid) -> Option<u64> {
        self.read_pids();
        let found = self.entries.iter().find(|(_, entry)| entry.exit.is_none() && entry.pid == Some(pid));
        found.map(|(key, _)| *key)
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Whether an end was not taken in yet.
    pub(crate) fn has_exits(&self) -> bool {
        self.exits > 0
    }

    pub(crate) fn note_exit(&mut self, key: u64, exit: u64) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.exit = Some(exit);
            self.exits += 1;
        }
    }

    pub(crate) fn note_signals(&mut self, key: u64, signals: u64) {
        if let Some(entry) = self.entries.get_mut(&key) {
            entry.signals = signals;
        }
    }

    /// Sends a worker a signal, unless this request or a later one was acted on.
    pub(crate) fn signal(&mut self, key: u64, number: u64, signal: i32) {
        self.read_pids();
        if let Some(Entry { pid: Some(pid), exit: None, signals, .. }) = self.entries.get_mut(&key)
            && number > *signals
        {
            *signals = number;
            children::signal(*pid, signal);
        }
    }

    /// Workers that run, as far as known.
    pub(crate) fn living(&mut self) -> Vec<Pid> {
        self.read_pids();
        self.entries.values().filter(|entry| entry.exit.is_none()).filter_map(|entry| entry.pid).collect()
    }

    /// Looks up the pids that are not known yet.
    fn read_pids(&mut self) {
        let Some(records) = &self.records else { return };
        for entry in self.entries.values_mut() {
            if let (Some(word), None) = (entry.word, entry.pid) {
                entry.pid = read_pid(records.as_fd(), word);
            }
        }
    }

    /// Whether a worker may still be about to appear: somebody has the other end of its first descriptor, and it has
    /// no pid yet. Asked once the broker process, which had it too, is reaped.
    pub(crate) fn is_expecting(&mut self) -> bool {
        self.read_pids();
        let unborn = |entry: &&Entry| entry.word.is_some() && entry.pid.is_none();
        self.entries
            .values()
            .filter(unborn)
            .any(|entry| entry.descriptors.first().is_some_and(|descriptor| !is_hung_up(descriptor.as_fd())))
    }

    /// The end of each worker that is no child of ours is lost; then all that have a pid and no end are ours.
    pub(crate) fn verify(&mut self) {
        for entry in self.entries.values_mut() {
            if let (Some(pid), None) = (entry.pid, entry.exit)
                && children::has_ended(pid).is_err()
            {
                entry.exit = Some(LOST);
                self.exits += 1;
            }
        }
    }
}

fn read_pid(records: BorrowedFd<'_>, offset: u64) -> Option<Pid> {
    let mut bytes = [0; 4];
    let read = rustix::io::pread(records, &mut bytes, offset).ok()?;
    if read == bytes.len() { Pid::from_raw(i32::from_ne_bytes(bytes)) } else { None }
}

fn is_hung_up(descriptor: BorrowedFd<'_>) -> bool {
    let mut polled = [PollFd::new(&descriptor, PollFlags::empty())];
    let no_wait = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut polled, Some(&no_wait)), Ok(1)) && polled[0].revents().contains(PollFlags::HUP)
}
