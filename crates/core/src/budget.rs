//! How many workers may be started, over all brokers: a token bucket, and the queue of those that wait for it.
//!
//! A whole shift can be started, recycled and lost at once; a storm of failures cannot: slots that keep failing may
//! use only the upper half of the bucket, so they never delay the first replacement of a healthy one. Standbys come last.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::id::{BrokerId, Slot};
use crate::time::Time;

#[derive(Clone)]
pub(crate) struct Budget {
    pub(crate) capacity: u64,
    pub(crate) tokens: u64,
    pub(crate) counted_at: Time,
    /// In order of ticket: first come, first served.
    urgent: BTreeMap<u64, Asked>,
    failing: BTreeMap<u64, Asked>,
    standby: BTreeMap<u64, Asked>,
    pub(crate) next_ticket: u64,
}

/// Who waits: a slot of a broker, or without a slot its next standby.
pub(crate) type Asked = (BrokerId, Option<Slot>);

/// A turn in one of the queues.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Ticket {
    pub(crate) number: u64,
    pub(crate) queue: Queue,
}

/// Whose turn comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Queue {
    Urgent,
    Failing,
    Standby,
}

impl Budget {
    pub(crate) fn new(now: Time) -> Self {
        Budget {
            capacity: 0,
            tokens: 0,
            counted_at: now,
            urgent: BTreeMap::new(),
            failing: BTreeMap::new(),
            standby: BTreeMap::new(),
            next_ticket: 0,
        }
    }

    /// Sizes the bucket for so many workers; what it grows by is full at once.
    pub(crate) fn size_for(&mut self, workers: u64) {
        let capacity = (SPARE + 4 * workers) * UNIT;
        self.tokens = (self.tokens + capacity.saturating_sub(self.capacity)).min(capacity);
        self.capacity = capacity;
    }

    /// Puts one at the end of its queue. It waits at most once, with its ticket in its place.
    pub(crate) fn ask(&mut self, asked: Asked, queue: Queue) -> Ticket {
        let ticket = Ticket { number: self.next_ticket, queue };
        self.next_ticket += 1;
        self.queue(queue).insert(ticket.number, asked);
        ticket
    }

    /// Puts one back where it waited.
    pub(crate) fn take_back(&mut self, ticket: Ticket, asked: Asked) {
        self.queue(ticket.queue).insert(ticket.number, asked);
    }

    /// Whoever holds this ticket waits no longer.
    pub(crate) fn cancel(&mut self, ticket: Ticket) {
        self.queue(ticket.queue).remove(&ticket.number);
    }

    /// The first slot of this broker that waits, and does not keep failing.
    pub(crate) fn first_of(&self, broker: BrokerId) -> Option<Slot> {
        let of = |asked: &&Asked| asked.0 == broker;
        self.urgent.values().find(of).and_then(|(_, slot)| *slot)
    }

    /// Whether exactly these wait; for tests.
    pub(crate) fn has_exactly(&self, tickets: impl Iterator<Item = (Ticket, Asked)>) -> bool {
        let mut waiting = self.urgent.len() + self.failing.len() + self.standby.len();
        for (ticket, asked) in tickets {
            let queue = match ticket.queue {
                Queue::Urgent => &self.urgent,
                Queue::Failing => &self.failing,
                Queue::Standby => &self.standby,
            };
            if queue.get(&ticket.number) != Some(&asked) || waiting == 0 {
                return false;
            }
            waiting -= 1;
        }
        waiting == 0
    }

    /// How many tickets before this one are still out: its number once all are counted anew.
    pub(crate) fn rank_of(&self, ticket: Ticket) -> u64 {
        let before = |queue: &BTreeMap<u64, _>| queue.range(..ticket.number).count() as u64;
        before(&self.urgent) + before(&self.failing) + before(&self.standby)
    }

    /// Counts the tickets anew; those in the slots must follow.
    pub(crate) fn rank(&mut self) {
        self.next_ticket = (self.urgent.len() + self.failing.len() + self.standby.len()) as u64;
    }

    fn queue(&mut self, queue: Queue) -> &mut BTreeMap<u64, Asked> {
        match queue {
            Queue::Urgent => &mut self.urgent,
            Queue::Failing => &mut self.failing,
            Queue::Standby => &mut self.standby,
        }
    }

    /// The next that may be started now. Give the token back with [`Budget::refund`] if it no longer needs one.
    pub(crate) fn next(&mut self, now: Time) -> Option<Asked> {
        self.refill(now);
        let granted = if self.tokens >= UNIT {
            let others_too = self.tokens >= self.capacity / 2;
            let other = |queue: &mut BTreeMap<u64, _>| if others_too { queue.pop_first() } else { None };
            let first = self.urgent.pop_first().or_else(|| other(&mut self.failing));
            first.or_else(|| other(&mut self.standby)).map(|(_, asked)| asked)
        } else {
            None
        };
        if granted.is_some() {
            self.tokens -= UNIT;
        }
        granted
    }

    pub(crate) fn refund(&mut self) {
        self.tokens = (self.tokens + UNIT).min(self.capacity);
    }

    /// When [`Budget::next`] will have something, if anybody waits.
    pub(crate) fn deadline(&self) -> Option<Time> {
        let needed = if !self.urgent.is_empty() {
            UNIT
        } else if !self.failing.is_empty() || !self.standby.is_empty() {
            (self.capacity / 2).max(UNIT)
        } else {
            return None;
        };
        let missing = needed.saturating_sub(self.tokens);
        // Rounded up, so that the deadline never comes before the token.
        let wait = (u128::from(missing) * REFILL.as_nanos()).div_ceil(u128::from(self.capacity.max(1)));
        Some(self.counted_at + Duration::from_nanos(u64::try_from(wait).unwrap_or(u64::MAX)))
    }

    fn refill(&mut self, now: Time) {
        let passed = now.since(self.counted_at).min(REFILL).as_nanos();
        let earned = u128::from(self.capacity) * passed / REFILL.as_nanos();
        if earned > 0 {
            self.tokens = (self.tokens + u64::try_from(earned).unwrap_or(u64::MAX)).min(self.capacity);
            self.counted_at = now;
        }
    }
}

/// Spawns that any app may make at once, beyond four times its workers.
const SPARE: u64 = 64;
/// An empty bucket is full again after this long.
const REFILL: Duration = Duration::from_secs(10);
/// Fractions of a token.
const UNIT: u64 = 1_000_000;
