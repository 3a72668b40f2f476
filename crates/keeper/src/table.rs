//! What is held for the broker process, each until it is forgotten: deposits, and all that has come of them; which of
//! the workers among them live; and what it is still to be told.

use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::Pid;
use shiftboss_link::wire::{
    DEPOSIT, EXIT, FATE, GO, Item, LOST, MOST_DESCRIPTORS, MOST_ITEMS, ORDER, RECORDS, SIGNAL, UNDECIDED,
};

use crate::children;

#[derive(Default)]
pub(crate) struct Table {
    /// Words by what they are and their keys, with descriptors.
    pub(crate) held: BTreeMap<(u32, u64), (Item, Vec<OwnedFd>)>,
    /// Workers that are not known to have been cloned: where in the records their pids will stand.
    unborn: BTreeMap<u64, u64>,
    /// Workers that have not ended, as far as known.
    living: BTreeMap<u64, Pid>,
    /// What this broker process is still to be told.
    pub(crate) outbox: VecDeque<Item>,
    pub(crate) last_order: u64,
}

impl Table {
    /// Holds this instead of what was there.
    pub(crate) fn hold(&mut self, item: Item, descriptors: Vec<OwnedFd>) {
        if item.word == DEPOSIT {
            self.forget(item.key);
            if item.value > 0 {
                self.unborn.insert(item.key, item.value);
            }
        } else if item.word == EXIT {
            self.is_gone(item.key);
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

    fn is_gone(&mut self, key: u64) {
        self.unborn.remove(&key);
        self.living.remove(&key);
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

    /// Whether such an end or order was not taken in yet.
    pub(crate) fn owes(&self, such: impl Fn(&Item) -> bool) -> bool {
        self.held.range((EXIT, 0)..(FATE, 0)).any(|(_, (item, _))| item.word != GO && such(item))
    }

    /// Says it to this broker process, and to every other one until it is forgotten.
    pub(crate) fn tell(&mut self, item: Item) {
        self.hold(item, Vec::new());
        self.outbox.push_back(item);
    }

    pub(crate) fn order(&mut self, what: u64) {
        self.last_order += 1;
        self.tell(Item::new(ORDER, self.last_order, what));
    }

    /// How the upgrade went, if that was not said before.
    pub(crate) fn decide(&mut self, fate: u64) {
        let fates = self.held.range_mut((FATE, 0)..).map(|(_, (item, _))| item);
        for item in fates.filter(|item| item.value == UNDECIDED) {
            item.value = fate;
            self.outbox.push_back(*item);
        }
    }

    /// Tells a new broker process all of it, in this order: what it finds, "go", and what it shall do.
    pub(crate) fn tell_all(&mut self, go: u64) {
        self.hold(Item::new(GO, 0, go), Vec::new());
        let fate = self.held.range((FATE, 0)..);
        self.outbox = fate.chain(self.held.range(..(FATE, 0))).map(|(_, (item, _))| *item).collect();
    }

    /// As much of what is to be told as goes into a packet, with the descriptors that belong to it; it stays to be told.
    pub(crate) fn packet(&self) -> (Vec<Item>, Vec<BorrowedFd<'_>>) {
        let (mut items, mut descriptors) = (Vec::new(), Vec::new());
        for item in self.outbox.iter().take(MOST_ITEMS) {
            let held = self.held.get(&(item.word, item.key)).map_or(&[][..], |(_, held)| held);
            if descriptors.len() + held.len() > MOST_DESCRIPTORS {
                break;
            }
            descriptors.extend(held.iter().map(OwnedFd::as_fd));
            items.push(Item { descriptors: u32::try_from(held.len()).unwrap_or(0), ..*item });
            // What follows is said to one that has taken over.
            if item.word == GO {
                break;
            }
        }
        (items, descriptors)
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
        let records = self.held.get(&(DEPOSIT, RECORDS)).and_then(|(_, held)| held.first());
        let mut pid = [0; 4];
        self.unborn.retain(|key, place| {
            let is_read = records.is_some_and(|file| rustix::io::pread(file, &mut pid, *place) == Ok(4));
            let born = Pid::from_raw(i32::from_ne_bytes(pid)).filter(|_| is_read);
            born.map(|pid| self.living.insert(*key, pid)).is_none()
        });
        &self.living
    }

    /// Whether a worker may still be about to appear: somebody has the other end of its first descriptor, and it has
    /// no pid yet. Asked once the broker process, which had it too, is reaped.
    pub(crate) fn is_expecting(&mut self) -> bool {
        self.living();
        let mut firsts = self.unborn.keys().filter_map(|key| self.held.get(&(DEPOSIT, *key))?.1.first());
        firsts.any(|descriptor| {
            let mut polled = [PollFd::new(descriptor, PollFlags::empty())];
            let polling = poll(&mut polled, Some(&Timespec::default()));
            polling != Ok(1) || !polled[0].revents().contains(PollFlags::HUP)
        })
    }

    /// The end of each worker that is no child of ours is lost.
    pub(crate) fn verify(&mut self) {
        let all = self.living().clone();
        for (key, _) in all.into_iter().filter(|(_, pid)| children::ended(Some(*pid)).is_err()) {
            self.hold(Item::new(EXIT, key, LOST), Vec::new());
        }
    }
}
