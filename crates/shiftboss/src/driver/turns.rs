//! Round-robin for Node programs: connections are accepted here and handed over one by one. Whose turn it is, is in `turns`.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};

use shiftboss_channel::node;
use shiftboss_core::id::{BrokerId, WorkerId};
use shiftboss_core::time::Time;

use super::Driver;
use crate::node::Place;
use crate::os::listener::Listener;
use crate::os::{clock, kill_points};

impl Driver {
    /// A worker has a server whose connections are handed over.
    pub(super) fn takes_turns(&mut self, worker: WorkerId, place: Place) {
        self.workers.turns(place).join(worker);
        self.pass_on(place);
    }

    /// Something has come to a listener of this broker.
    pub(super) fn pass_on_all(&mut self, broker: BrokerId) {
        for place in self.workers.places_with_turns() {
            if place.broker == broker.0 {
                self.pass_on(place);
            }
        }
    }

    /// What a worker that is gone has left behind is the next one's.
    pub(super) fn pass_on_left(&mut self) {
        for place in self.workers.places_with_turns() {
            if self.workers.turns(place).has_left() {
                self.pass_on(place);
            }
        }
    }

    /// Those who have refused are asked again.
    pub(super) fn look_at_turns(&mut self, now: Time) {
        for place in self.workers.places_with_turns() {
            if self.workers.turns(place).deadline().is_some_and(|at| at <= now) {
                self.pass_on(place);
            }
        }
    }

    /// A worker has answered for a connection.
    pub(super) fn connection_is_answered(&mut self, worker: WorkerId, number: u64, accepted: bool) {
        if let Some(place) = self.workers.take_handed(worker, number) {
            self.workers.turns(place).answers(worker, accepted);
            self.pass_on(place);
        }
    }

    /// Hands over what there is to whoever is free, and listens for more as long as anybody is.
    fn pass_on(&mut self, place: Place) {
        for _ in 0..MOST_AT_ONCE {
            let more = self.pass_on_one(place);
            self.workers.holds_connections(0);
            if !more {
                break;
            }
        }
        let Some(shell) = self.shells.get(place.broker as usize) else { return };
        let Some(listener) = shell.sockets.at(place.place) else { return };
        self.workers.wait_for_connections(BrokerId(place.broker), place, listener.as_fd());
    }

    fn pass_on_one(&mut self, place: Place) -> bool {
        let now = clock::now();
        let turns = self.workers.turns(place);
        let again = turns.offer_again(now).map(|(worker, connection)| (worker, connection.try_clone()));
        let offered = if again.is_none() && turns.wants_connection() {
            let listener =
                self.shells.get(place.broker as usize).and_then(|shell| shell.sockets.at(place.place));
            self.workers.holds_connections(1);
            let connection = match listener.map(Listener::accept) {
                Some(Ok(connection)) => connection,
                Some(Err(error)) if error.kind() != io::ErrorKind::WouldBlock => {
                    // It would be told of without end; what waits stays in the queue.
                    self.workers.turns(place).rest(now);
                    return false;
                }
                Some(Err(_)) | None => return false,
            };
            kill_points::point("a connection was accepted");
            let offered = self.workers.turns(place).offer(connection);
            offered.map(|(worker, connection)| (worker, connection.try_clone()))
        } else {
            again
        };
        let Some((worker, connection)) = offered else { return false };
        if !connection.is_ok_and(|connection| self.hand_over_connection(worker, place, connection)) {
            self.workers.turns(place).answers(worker, false);
        }
        true
    }

    fn hand_over_connection(&mut self, worker: WorkerId, place: Place, connection: OwnedFd) -> bool {
        let Some(key) = self.workers.peer(worker).and_then(|peer| peer.key_of(place)) else { return false };
        let line = |number| node::new_connection(&key, number);
        let number = self.workers.reply(worker, Some(connection), line);
        if let Some(number) = number {
            self.workers.has_handed(worker, number, place);
        }
        number.is_some()
    }
}

/// Connections of one listener before anything else has its turn.
const MOST_AT_ONCE: u32 = 64;
