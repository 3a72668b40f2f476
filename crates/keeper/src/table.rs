//! What is held for the broker process, each until it is forgotten: deposits, and all that has come of them; and which
//! of the workers among them live.

use std::collections::BTreeMap;
use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;

use crate::children;
use crate::wire::{DEPOSIT, EXIT, FATE, GO, Item, LOST, ORDER, RECORDS, SIGNAL};

#[derive(Default)]
pub(crate) struct Table {
    /// Words by what they are and their keys, with descriptors.
    pub(crate) held: BTreeMap<(u32, u64), (Item, Vec<OwnedFd>)>,
    /// Workers that are not known to have been cloned: where in the records their pids will stand.
    unborn: BTreeMap<u64, u64>,
    /// Workers that have not ended, as far as known.
    living: BTreeMap<u64, Pid>,
}

impl Table {
    /// Holds this instead of what was there.
    pub(crate) fn hold(&mut self, item: Item, descriptors: Vec<OwnedFd>) {
        match item.word {
            DEPOSIT => {
                self.forget(item.key);
                if item.value > 0 {
                    self.unborn.insert(item.key, item.value);
                }
            }
            EXIT => self.is_gone(item.key),
            _ => {}
        }
        self.held.insert((item.word, item.key), (item, descriptors));
    }

    /// Drops a deposit, and what has come of it.
    pub(crate) fn forget(&mut self, key: u64) {
        for word in [DEPOSIT, SIGNAL, FATE, EXIT] {
            self.held.remove(&(word, key));
        }
        self.is_gone(key);
    }

    /// Drops all but orders.
    pub(crate) fn forget_all(&mut self) {
        self.held.retain(|(word, _), _| *word == ORDER);
        (self.unborn, self.living) = (BTreeMap::new(), BTreeMap::new());
    }

    /// Whether nothing was deposited.
    pub(crate) fn is_empty(&self) -> bool {
        self.held.range((DEPOSIT, 0)..(DEPOSIT + 1, 0)).next().is_none()
    }

    /// Whether an end or an order was not taken in yet.
    pub(crate) fn is_owed(&self) -> bool {
        self.held.range((EXIT, 0)..(FATE, 0)).any(|((word, _), _)| *word != GO)
    }

    /// All words, in the order in which a broker process is told: what it finds, "go", and what it shall do.
    pub(crate) fn words(&self) -> impl Iterator<Item = Item> {
        let fate = self.held.range((FATE, 0)..);
        fate.chain(self.held.range(..(FATE, 0))).map(|(_, (item, _))| *item)
    }

    /// The descriptors that belong to a word.
    pub(crate) fn descriptors(&self, item: &Item) -> &[OwnedFd] {
        self.held.get(&(item.word, item.key)).map_or(&[], |(_, descriptors)| descriptors)
    }

    /// Sends a worker a signal, unless this request or a later one was acted on.
    pub(crate) fn signal(&mut self, item: Item) {
        let last = self.held.get(&(SIGNAL, item.key)).map_or(0, |(last, _)| last.value >> 32);
        if let Some(pid) = self.living().get(&item.key)
            && item.value >> 32 > last
        {
            children::signal(*pid, i32::try_from(item.value & u64::from(u32::MAX)).unwrap_or(0));
            self.hold(item, Vec::new());
        }
    }

    /// The pids of workers that have not ended, by key.
    pub(crate) fn living(&mut self) -> &BTreeMap<u64, Pid> {
        if let Some((_, records)) = self.held.get(&(DEPOSIT, RECORDS))
            && let Some(records) = records.first()
        {
            let (mut bytes, living) = ([0; 4], &mut self.living);
            self.unborn.retain(|key, place| {
                let is_read = rustix::io::pread(records, &mut bytes, *place) == Ok(bytes.len());
                let pid = Pid::from_raw(i32::from_ne_bytes(bytes)).filter(|_| is_read);
                pid.map(|pid| living.insert(*key, pid)).is_none()
            });
        }
        &self.living
    }

    /// Whether a worker may still be about to appear: somebody has the other end of its first descriptor, and it has
    /// no pid yet. Asked once the broker process, which had it too, is reaped.
    pub(crate) fn is_expecting(&mut self) -> bool {
        self.living();
        let mut firsts = self.unborn.keys().filter_map(|key| self.held.get(&(DEPOSIT, *key))?.1.first());
        firsts.any(|descriptor| !is_hung_up(descriptor))
    }

    /// The end of each worker that is no child of ours is lost.
    pub(crate) fn verify(&mut self) {
        let all = self.living().clone();
        for (key, _) in all.into_iter().filter(|(_, pid)| children::has_ended(*pid).is_err()) {
            self.hold(Item::new(EXIT, key, LOST), Vec::new());
        }
    }

    fn is_gone(&mut self, key: u64) {
        self.unborn.remove(&key);
        self.living.remove(&key);
    }
}

fn is_hung_up(descriptor: &OwnedFd) -> bool {
    let mut polled = [PollFd::new(descriptor, PollFlags::empty())];
    let polling = poll(&mut polled, Some(&Timespec::default()));
    matches!(polling, Ok(1)) && polled[0].revents().contains(PollFlags::HUP)
}
