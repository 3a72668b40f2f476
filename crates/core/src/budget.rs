//! How many workers may be started, over all brokers: a token bucket, and the queue of those that wait for it.
//!
//! A whole shift can be started, recycled and lost at once; a storm of failures cannot: slots that keep failing may
//! use only the upper half of the bucket, so they never delay the first replacement of a healthy one.

use std::collections::VecDeque;
use std::time::Duration;

use crate::id::{BrokerId, Slot};
use crate::time::Time;

#[derive(Clone)]
pub(crate) struct Budget {
    capacity: u64,
    tokens: u64,
    counted_at: Time,
    urgent: VecDeque<(BrokerId, Slot)>,
    failing: VecDeque<(BrokerId, Slot)>,
}

impl Budget {
    pub(crate) fn new(now: Time) -> Self {
        Budget { capacity: 0, tokens: 0, counted_at: now, urgent: VecDeque::new(), failing: VecDeque::new() }
    }

    /// Sizes the bucket for so many workers; what it grows by is full at once.
    pub(crate) fn size_for(&mut self, workers: u64) {
        let capacity = (SPARE + 4 * workers) * UNIT;
        self.tokens = (self.tokens + capacity.saturating_sub(self.capacity)).min(capacity);
        self.capacity = capacity;
    }

    pub(crate) fn ask(&mut self, broker: BrokerId, slot: Slot, failing: bool) {
        let queue = if failing { &mut self.failing } else { &mut self.urgent };
        queue.push_back((broker, slot));
    }

    /// Nobody of this broker waits any longer.
    pub(crate) fn forget(&mut self, broker: BrokerId) {
        self.urgent.retain(|(asked, _)| *asked != broker);
        self.failing.retain(|(asked, _)| *asked != broker);
    }

    /// The next slot that may be filled now. Give the token back with [`Budget::refund`] if it no longer needs one.
    pub(crate) fn next(&mut self, now: Time) -> Option<(BrokerId, Slot)> {
        self.refill(now);
        let granted = if self.tokens >= UNIT {
            self.urgent
                .pop_front()
                .or_else(|| if self.tokens >= self.capacity / 2 { self.failing.pop_front() } else { None })
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
        } else if !self.failing.is_empty() {
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
