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
    pub(crate) entries: BTreeMap<u64, Entry>,
    /// Where the pids stand.
    records: Option<OwnedFd>,
}

/// One deposit.
#[derive(Default)]
pub(crate) struct Entry {
    pub(crate) descriptors: Vec<OwnedFd>,
    /// Where in the records the pid stands, if it is a worker's; 0 otherwise.
    pub(crate) word: u64,
    /// As far as it was looked up.
    pub(crate) pid: Option<Pid>,
    /// How the worker ended; kept until it is forgotten.
    pub(crate) exit: Option<u64>,
    /// The number of the last signal that it was sent.
    pub(crate) signals: u64,
}

impl Table {
    /// Holds this instead of what was there.
    pub(crate) fn deposit(&mut self, key: u64, entry: Entry) {
        if key == RECORDS {
            self.records = entry.descriptors.first().and_then(|records| records.try_clone().ok());
        }
        self.entries.insert(key, entry);
    }

    /// Whether an end was not taken in yet.
    pub(crate) fn has_exits(&self) -> bool {
        self.entries.values().any(|entry| entry.exit.is_some())
    }

    /// The living worker that has this pid.
    pub(crate) fn worker(&mut self, pid: Pid) -> Option<(u64, &mut Entry)> {
        self.read_pids();
        let found = self.entries.iter_mut().find(|(_, entry)| entry.exit.is_none() && entry.pid == Some(pid));
        found.map(|(key, entry)| (*key, entry))
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

    /// Whether a worker may still be about to appear: somebody has the other end of its first descriptor, and it has
    /// no pid yet. Asked once the broker process, which had it too, is reaped.
    pub(crate) fn is_expecting(&mut self) -> bool {
        self.read_pids();
        let mut unborn = self.entries.values().filter(|entry| entry.is_unborn());
        unborn.any(|entry| entry.descriptors.first().is_some_and(|descriptor| !is_hung_up(descriptor)))
    }

    /// The end of each worker that is no child of ours is lost; then all that have a pid and no end are ours.
    pub(crate) fn verify(&mut self) {
        for entry in self.entries.values_mut() {
            if let (Some(pid), None) = (entry.pid, entry.exit)
                && children::has_ended(pid).is_err()
            {
                entry.exit = Some(LOST);
            }
        }
    }

    /// Looks up the pids that are not known yet.
    fn read_pids(&mut self) {
        let Some(records) = &self.records else { return };
        for entry in self.entries.values_mut().filter(|entry| entry.is_unborn()) {
            entry.pid = read_pid(records.as_fd(), entry.word);
        }
    }
}

impl Entry {
    /// A worker's, and none is known to have been cloned.
    fn is_unborn(&self) -> bool {
        self.word > 0 && self.pid.is_none()
    }
}

fn read_pid(records: BorrowedFd<'_>, offset: u64) -> Option<Pid> {
    let mut bytes = [0; 4];
    let read = rustix::io::pread(records, &mut bytes, offset).ok()?;
    if read == bytes.len() { Pid::from_raw(i32::from_ne_bytes(bytes)) } else { None }
}

fn is_hung_up(descriptor: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(descriptor, PollFlags::empty())];
    let polling = poll(&mut polled, Some(&Timespec::default()));
    matches!(polling, Ok(1)) && polled[0].revents().contains(PollFlags::HUP)
}
