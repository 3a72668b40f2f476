//! Round-robin: whose turn it is at a listener whose connections the broker process accepts and hands over.
//!
//! Each worker has one connection at a time that it has not answered for; who has answered goes to the end of the queue.
//! One that a worker refuses, or leaves behind, is offered to the next; if all have refused it waits a little. Nothing is
//! accepted while nobody is free: it stays in the kernel's queue, where it outlives this process.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::Duration;

use shiftboss_core::id::WorkerId;
use shiftboss_core::time::Time;

/// The workers of one listener, and connections of the kind `C` that none has taken yet.
#[derive(Debug)]
pub(crate) struct Turns<C> {
    /// Who gets connections; others may still have to answer for one.
    here: BTreeSet<WorkerId>,
    free: VecDeque<WorkerId>,
    /// Offered, and not answered for.
    offered: BTreeMap<WorkerId, Offer<C>>,
    /// For whoever has not refused them.
    left: VecDeque<Offer<C>>,
    /// All have refused, or nothing can be accepted: until then nobody is asked again.
    again_at: Option<Time>,
}

#[derive(Debug)]
struct Offer<C> {
    connection: C,
    refused_by: BTreeSet<WorkerId>,
}

impl<C> Default for Turns<C> {
    fn default() -> Self {
        let (here, free, left) = (BTreeSet::new(), VecDeque::new(), VecDeque::new());
        Turns { here, free, offered: BTreeMap::new(), left, again_at: None }
    }
}

impl<C> Turns<C> {
    /// A worker has a server here.
    pub(crate) fn join(&mut self, worker: WorkerId) {
        if self.here.insert(worker) && !self.offered.contains_key(&worker) {
            self.free.push_back(worker);
        }
    }

    /// It gets no more. What it was offered is its own until it has answered: it may be serving that.
    pub(crate) fn retire(&mut self, worker: WorkerId) {
        self.here.remove(&worker);
        self.free.retain(|other| *other != worker);
    }

    /// It has no server here any more, or is gone: what it has not answered for is somebody else's.
    pub(crate) fn leave(&mut self, worker: WorkerId) {
        self.retire(worker);
        self.left.extend(self.offered.remove(&worker));
    }

    /// Whether a new connection could be handed over at once.
    pub(crate) fn wants_connection(&self) -> bool {
        !self.free.is_empty() && self.left.is_empty() && self.again_at.is_none()
    }

    /// A connection that is offered to somebody once more: whom to hand it to.
    pub(crate) fn offer_again(&mut self, now: Time) -> Option<(WorkerId, &C)> {
        if self.again_at.is_some_and(|at| at > now) {
            return None;
        }
        if self.again_at.take().is_some() {
            self.left.iter_mut().for_each(|offer| offer.refused_by.clear());
        }
        let first = self.left.front()?;
        let Some(at) = self.free.iter().position(|worker| !first.refused_by.contains(worker)) else {
            // Whoever is busy may take it, or be busy for long: those who have refused are asked again after a while.
            if !self.free.is_empty() {
                self.rest(now);
            }
            return None;
        };
        let (worker, offer) = (self.free.remove(at)?, self.left.pop_front()?);
        Some((worker, &self.offered.entry(worker).or_insert(offer).connection))
    }

    /// A new connection: whom to hand it to.
    pub(crate) fn offer(&mut self, connection: C) -> Option<(WorkerId, &C)> {
        let offer = Offer { connection, refused_by: BTreeSet::new() };
        let Some(worker) = self.free.pop_front() else {
            self.left.push_back(offer);
            return None;
        };
        Some((worker, &self.offered.entry(worker).or_insert(offer).connection))
    }

    /// A worker has taken or refused what it was offered. One that has left meanwhile has no turn.
    pub(crate) fn answers(&mut self, worker: WorkerId, accepted: bool) {
        let Some(mut offer) = self.offered.remove(&worker) else { return };
        if self.here.contains(&worker) {
            self.free.push_back(worker);
        }
        if !accepted {
            offer.refused_by.insert(worker);
            self.left.push_back(offer);
        }
    }

    /// Nothing can be had for a while.
    pub(crate) fn rest(&mut self, now: Time) {
        self.again_at = Some(now + REST);
    }

    /// Whether a connection that is with nobody could be offered.
    pub(crate) fn has_left(&self) -> bool {
        !self.left.is_empty() && !self.free.is_empty() && self.again_at.is_none()
    }

    /// How many connections are with no worker.
    pub(crate) fn left(&self) -> usize {
        self.left.len()
    }

    /// Gives up what is with no worker.
    pub(crate) fn take_left(&mut self) -> impl Iterator<Item = C> + use<'_, C> {
        self.again_at = None;
        self.left.drain(..).map(|offer| offer.connection)
    }

    /// When those who have refused are asked again.
    pub(crate) fn deadline(&self) -> Option<Time> {
        self.again_at
    }

    /// Whether nobody and nothing is here.
    pub(crate) fn is_empty(&self) -> bool {
        self.here.is_empty() && self.offered.is_empty() && self.left.is_empty()
    }
}

/// Between two rounds of refusals: a worker at its `maxConnections` is not asked more than 50 times a second.
const REST: Duration = Duration::from_millis(20);

#[cfg(test)]
mod tests {
    use super::*;

    const A: WorkerId = WorkerId(1);
    const B: WorkerId = WorkerId(2);
    const START: Time = Time(0);

    fn of(workers: &[WorkerId]) -> Turns<u32> {
        let mut turns = Turns::default();
        workers.iter().for_each(|worker| turns.join(*worker));
        turns
    }

    fn whom<C: Copy>(offered: Option<(WorkerId, &C)>) -> Option<(WorkerId, C)> {
        offered.map(|(worker, connection)| (worker, *connection))
    }

    #[test]
    fn everybody_has_a_turn_and_one_connection_at_a_time() {
        let mut turns = of(&[A, B]);
        assert_eq!(whom(turns.offer(1)), Some((A, 1)));
        assert_eq!(whom(turns.offer(2)), Some((B, 2)));
        assert!(!turns.wants_connection());
        turns.answers(B, true);
        turns.answers(A, true);
        assert_eq!(whom(turns.offer(3)), Some((B, 3)));
        turns.join(B);
        assert_eq!(whom(turns.offer(4)), Some((A, 4)), "it has one already");
    }

    #[test]
    fn what_one_refuses_is_offered_to_the_next_and_not_to_the_same_at_once() {
        let mut turns = of(&[A, B]);
        assert_eq!(whom(turns.offer(1)), Some((A, 1)));
        turns.answers(A, false);
        assert!(!turns.wants_connection());
        assert_eq!(whom(turns.offer_again(START)), Some((B, 1)));
        turns.answers(B, false);
        assert_eq!(whom(turns.offer_again(START)), None);
        let at = turns.deadline().unwrap();
        assert!(at > START);
        assert_eq!(whom(turns.offer_again(at)), Some((A, 1)));
        turns.answers(A, true);
        assert!(turns.wants_connection() && turns.deadline().is_none());
    }

    #[test]
    fn whoever_is_told_to_leave_keeps_what_it_was_offered_and_nobody_else_has_it_too() {
        let mut turns = of(&[A, B]);
        assert_eq!(whom(turns.offer(1)), Some((A, 1)));
        turns.retire(A);
        assert_eq!(whom(turns.offer_again(START)), None);
        turns.answers(A, true);
        assert_eq!((whom(turns.offer(2)), turns.wants_connection()), (Some((B, 2)), false));
        turns.retire(B);
        turns.answers(B, false);
        turns.join(A);
        assert_eq!(whom(turns.offer_again(START)), Some((A, 2)), "it did not take it");
    }

    #[test]
    fn when_nothing_can_be_accepted_it_is_tried_again_after_a_while() {
        let mut turns = of(&[A]);
        turns.rest(START);
        let at = turns.deadline().unwrap();
        assert!(!turns.wants_connection());
        assert_eq!(whom(turns.offer_again(at)), None);
        assert!(turns.wants_connection() && turns.deadline().is_none());
    }

    #[test]
    fn what_a_dead_worker_had_not_answered_for_is_the_next_ones() {
        let mut turns = of(&[A, B]);
        assert_eq!(whom(turns.offer(1)), Some((A, 1)));
        turns.leave(A);
        turns.answers(A, true);
        assert_eq!(whom(turns.offer_again(START)), Some((B, 1)));
        turns.leave(B);
        assert_eq!(whom(turns.offer_again(START)), None);
        turns.join(A);
        assert_eq!(whom(turns.offer_again(START)), Some((A, 1)));
    }

    #[test]
    fn what_is_with_nobody_can_be_given_up() {
        let mut turns = of(&[A, B]);
        assert_eq!(whom(turns.offer(1)), Some((A, 1)));
        assert_eq!(whom(turns.offer(2)), Some((B, 2)));
        turns.answers(A, false);
        turns.leave(B);
        turns.leave(A);
        assert_eq!((turns.left(), turns.take_left().collect::<Vec<_>>()), (2, vec![1, 2]));
        assert!(turns.is_empty() && turns.deadline().is_none());
    }
}
