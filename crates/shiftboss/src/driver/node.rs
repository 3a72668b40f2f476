//! The driver as the primary of Node programs: each query is answered with a socket, each farewell is acknowledged.

use rustix::io::Errno;
use shiftboss_channel::node::{self, Query, Said};
use shiftboss_core::Input;
use shiftboss_core::id::{BrokerId, WorkerId};

use super::Driver;
use crate::node::{Grant, Owed, Peer, Place};
use crate::os::{clock, kill_points};
use crate::sockets::Wish;
use crate::workers::Started;

impl Driver {
    /// Answers what Node programs have said, before anything that came after it.
    pub(super) fn play_primary(&mut self) {
        while let Some((worker, said)) = self.workers.next_said() {
            self.take_said(worker, said);
            self.workers.judge(worker, clock::now(), &mut self.inputs);
        }
        self.pass_on_left();
        while let Some(started) = self.workers.next_started() {
            self.tell_of_start(&started);
            if let Started::Settled { broker, .. } = started {
                self.close_what_each_leaves(broker);
            }
        }
    }

    /// Says where nobody listens though somebody should.
    fn tell_of_start(&mut self, started: &Started) {
        let (Started::Otherwise { broker, .. } | Started::Settled { broker, .. }) = *started;
        let Some(shell) = self.shells.get(broker.0 as usize) else { return };
        let (name, declared) = (&shell.name, shell.sockets.declared_places());
        let note = match started {
            Started::Otherwise { worker, lacks, is_ready, .. } => {
                let so = if *is_ready { "does not listen" } else { "was not ready: it did not listen" };
                let lacks = self.addresses(lacks);
                format!("{name}: worker {worker} {so} on {lacks}, as the one before it in its slot did")
            }
            Started::Settled { worker, .. } => {
                let unserved = self.workers.unserved(broker, declared);
                if unserved.is_empty() {
                    return;
                }
                let unserved = self.addresses(&unserved);
                let listening = self.workers.peer(*worker).map(|peer| peer.listening()).unwrap_or_default();
                let instead = match &*self.addresses(&listening) {
                    "" => "nowhere".to_owned(),
                    places => format!("on {places}"),
                };
                format!(
                    "{name}: nobody listens on {unserved}, and whoever connects there waits: worker {worker} listens \
                     {instead}; correct `listen`, or the program"
                )
            }
        };
        self.log.note(&note);
    }

    fn addresses<'a>(&self, places: impl IntoIterator<Item = &'a Place>) -> String {
        let address = |place: &Place| {
            let sockets = &self.shells.get(place.broker as usize)?.sockets;
            Some(sockets.at(place.place)?.address().to_string())
        };
        places.into_iter().filter_map(address).collect::<Vec<_>>().join(" and ")
    }

    fn take_said(&mut self, worker: WorkerId, said: Said) {
        match brief(said) {
            Said::Online => {
                let is_asked = |peer: &mut Peer| peer.owes_answer() || peer.has_turned();
                // Said again it is no news.
                if self.workers.peer(worker).is_some_and(|peer| !is_asked(peer)) {
                    self.workers.ask_event_loop(worker);
                }
            }
            Said::Query(query) if self.workers.is_standby(worker) => self.hold_query(worker, &query),
            Said::Query(query) => {
                if let Some(peer) = self.workers.peer(worker) {
                    peer.changes(clock::now());
                }
                self.answer_query(worker, &query);
            }
            Said::Listening(query) => {
                let shells = &self.shells;
                let is_there = |place: Place| {
                    let sockets = shells.get(place.broker as usize).map(|shell| &shell.sockets);
                    sockets.is_some_and(|sockets| sockets.is_meant(place.place, &query))
                };
                if let Some(peer) = self.workers.peer(worker) {
                    peer.changes(clock::now());
                    peer.listens(is_there);
                }
            }
            Said::Close(key) => {
                let peer = self.workers.peer(worker);
                let place = peer.and_then(|peer| {
                    let place = peer.place_of(&key);
                    peer.closes(&key);
                    place
                });
                if let Some(place) = place {
                    self.workers.has_used(worker, place);
                    self.workers.leaves_turns(worker, place);
                    self.pass_on_all(BrokerId(place.broker));
                }
            }
            Said::Leaves { seq } => {
                self.workers.reply(worker, None, |number| node::acknowledge(seq, number));
                self.workers.owe(worker, Owed::Leave(seq));
            }
            Said::Answer { ack, accepted } => {
                self.workers.event_loop_turns(worker, ack);
                self.connection_is_answered(worker, ack, accepted);
            }
            // A descriptor did not arrive, however often: it has no room for one.
            Said::Nack => {
                self.workers.event_loop_turns_without_room(worker);
                for number in self.workers.handed(worker) {
                    self.connection_is_answered(worker, number, false);
                }
            }
            // Answered where they are heard.
            Said::Handle { .. } | Said::Ack | Said::AllClosed(_) | Said::Count(_) => {}
        }
    }

    fn answer_query(&mut self, worker: WorkerId, query: &Query) {
        if self.workers.peer(worker).is_none_or(|peer| peer.is_leaving()) {
            return;
        }
        kill_points::point("a query is answered");
        if let Err(errno) = self.grant(worker, query) {
            self.workers.reply(worker, None, |number| node::refused(query, errno.raw_os_error(), number));
        }
        self.workers.owe(worker, Owed::Query(query.clone()));
        kill_points::point("a query was answered");
    }

    /// Says again what another process could not send. A worker passes over an answer that it has already.
    pub(super) fn say_what_is_owed(&mut self) {
        for (worker, owed) in self.workers.owed() {
            match owed {
                Owed::Query(query) => self.answer_query(worker, &query),
                Owed::Leave(seq) => self.take_said(worker, Said::Leaves { seq }),
                Owed::Disconnect => _ = self.workers.reply(worker, None, node::disconnect),
            }
        }
    }

    /// A standby waits for its answer until it is promoted. What it asks for is bound now: that it cannot be is known while it
    /// harms nobody.
    fn hold_query(&mut self, worker: WorkerId, query: &Query) {
        let Some((broker, _)) = self.workers.place(worker) else { return };
        match Wish::of(query).and_then(|wish| self.find_listener(broker, wish)) {
            Ok(_) if self.workers.peer(worker).is_some_and(|peer| peer.hold(query)) => {}
            refused => {
                let errno = refused.err().unwrap_or(Errno::MFILE).raw_os_error();
                self.workers.reply(worker, None, |number| node::refused(query, errno, number));
            }
        }
    }

    /// A standby has its slot: it is let in.
    pub(super) fn open_door(&mut self, worker: WorkerId) {
        let held = self.workers.peer(worker).map_or_else(Vec::new, |peer| peer.held().to_vec());
        for query in &held {
            self.answer_query(worker, query);
        }
        if let Some(peer) = self.workers.peer(worker).filter(|_| !held.is_empty()) {
            peer.was_let_in();
        }
        self.workers.judge(worker, clock::now(), &mut self.inputs);
    }

    fn grant(&mut self, worker: WorkerId, query: &Query) -> Result<(), Errno> {
        let (broker, slot) = self.workers.place(worker).ok_or(Errno::INVAL)?;
        let place = self.find_listener(broker, Wish::of(query)?)?;
        let shell = self.shells.get(place.broker as usize).ok_or(Errno::INVAL)?;
        let address = shell.sockets.at(place.place).ok_or(Errno::INVAL)?.address();
        let socket = shell.sockets.given(place.place, slot).ok_or(Errno::INVAL)?;
        let socket = socket.try_clone_to_owned().map_err(|_| Errno::MFILE)?;
        let peer = self.workers.peer(worker).ok_or(Errno::INVAL)?;
        let key = match peer.grant(query, place, address) {
            Grant::Key(key) => key,
            Grant::Twice => return Err(Errno::ADDRINUSE),
        };
        let keeper = self.chief.keeper();
        let owner = BrokerId(place.broker);
        let shell = self.shells.get_mut(place.broker as usize).ok_or(Errno::INVAL)?;
        let by_turns = shell.sockets.is_by_turns(place.place);
        let listener = shell.sockets.at(place.place).ok_or(Errno::INVAL)?;
        let name = listener.name();
        let data = query.data.as_ref().map(|data| data.0.get());
        let data = shell.sockets.share(place.place, data, keeper, owner);
        let data = data.and_then(|data| serde_json::from_str::<&serde_json::value::RawValue>(data).ok());
        if by_turns {
            self.workers.reply(worker, None, |number| node::by_turns(query, &key, data, name, number));
            self.takes_turns(worker, place);
        } else {
            self.workers.reply(worker, Some(socket), |number| node::shared(query, &key, data, number));
        }
        Ok(())
    }

    /// What is there already for a worker of this broker that wishes for it.
    fn known_listener(&self, broker: BrokerId, wish: &Wish) -> Option<Place> {
        let own = self.shells.get(broker.0 as usize)?;
        if let Some(place) = own.sockets.declared(wish) {
            return Some(Place { broker: broker.0, place });
        }
        let mut all = (0..).zip(&self.shells);
        all.find_map(|(broker, shell)| shell.sockets.asked_before(wish).map(|place| Place { broker, place }))
    }

    /// A declared listener, one that somebody has asked for before, or a new one.
    fn find_listener(&mut self, broker: BrokerId, wish: Wish) -> Result<Place, Errno> {
        if let Some(place) = self.known_listener(broker, &wish) {
            if let Some(shell) =
                self.shells.get_mut(place.broker as usize).filter(|_| place.broker != broker.0)
            {
                shell.sockets.lend(place.place);
                self.workers.watch_listeners(BrokerId(place.broker), &shell.sockets);
            }
            return Ok(place);
        }
        let keeper = self.chief.keeper();
        let shell = self.shells.get_mut(broker.0 as usize).ok_or(Errno::INVAL)?;
        let (place, address) = shell.sockets.ask(wish, keeper, broker)?;
        self.workers.watch_listeners(broker, &shell.sockets);
        self.inputs.push_back(Input::Bound { broker, address });
        Ok(Place { broker: broker.0, place })
    }

    /// What nobody asks for any more is closed, once a recycle of the last broker whose workers did has ended.
    pub(super) fn close_unused_listeners(&mut self, broker: BrokerId) {
        let mut unused = Vec::new();
        for (owner, shell) in (0..).map(BrokerId).zip(&self.shells) {
            let is_unused = |place| {
                let place = Place { broker: owner.0, place };
                self.workers.was_last_used_by(broker, place) && !self.is_waited_for(place)
            };
            let of_shell = shell.sockets.asked().filter(|(place, _)| is_unused(*place));
            unused.extend(of_shell.map(|(_, address)| Input::Unbound { broker: owner, address }));
        }
        // Closed once that is recorded: a successor must have all that is.
        self.inputs.extend(unused);
    }

    /// Whether somebody at the door is to be given this listener.
    fn is_waited_for(&self, place: Place) -> bool {
        self.workers.held().any(|(broker, query)| {
            Wish::of(query).is_ok_and(|wish| self.known_listener(broker, &wish) == Some(place))
        })
    }

    /// Whether this is a listener that was to be closed, and somebody has been given it meanwhile or waits for it.
    pub(super) fn is_wanted_again(&self, input: &Input) -> bool {
        let Input::Unbound { broker, address } = input else { return false };
        let shell = self.shells.get(broker.0 as usize);
        let found = shell.and_then(|shell| shell.sockets.asked().find(|(_, other)| other == address));
        found.is_some_and(|(place, _)| {
            let place = Place { broker: broker.0, place };
            self.workers.is_used(place) || self.is_waited_for(place)
        })
    }

    /// A listener outlives its worker, for the next one; but some ask for another one each.
    fn close_what_each_leaves(&mut self, broker: BrokerId) {
        let asked = self.shells.get(broker.0 as usize).map_or(0, |shell| shell.sockets.asked().count());
        if asked > MANY_ASKED {
            self.close_unused_listeners(broker);
        }
    }

    pub(super) fn close_listener(&mut self, broker: BrokerId, address: &str) {
        let Some(shell) = self.shells.get_mut(broker.0 as usize) else { return };
        let found = shell.sockets.asked().find(|(_, other)| other == address);
        let Some((place, _)) = found else { return };
        self.workers.leave_listeners(&shell.sockets);
        shell.sockets.close(place, self.chief.keeper(), broker);
        self.workers.watch_listeners(broker, &shell.sockets);
        self.workers.is_closed(broker, place);
    }

    /// Whoever has a server whose connections are handed over is there for its turn.
    pub(super) fn take_turns_again(&mut self) {
        for (worker, place) in self.workers.servers() {
            let shell = self.shells.get(place.broker as usize);
            if shell.is_some_and(|shell| shell.sockets.is_by_turns(place.place)) {
                self.takes_turns(worker, place);
            }
        }
    }

    /// What workers have asked for and another process has not told.
    pub(super) fn tell_of_asked(&mut self) {
        for (broker, shell) in (0..).map(BrokerId).zip(&self.shells) {
            let asked = shell.sockets.asked().map(|(_, address)| Input::Bound { broker, address });
            self.inputs.extend(asked);
        }
    }
}

/// Without what no worker at a listener needs: it may be kept for long.
fn brief(said: Said) -> Said {
    match said {
        Said::Query(query) => {
            let data = query.data.filter(|data| data.0.get().len() <= MOST_SHARED);
            Said::Query(Query { data, ..query })
        }
        said => said,
    }
}

/// Bytes of JSON that the workers at a listener may have in common: keys of tickets are a hundred.
const MOST_SHARED: usize = 4096;
/// More listeners of a broker than a program has by itself.
const MANY_ASKED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_long_to_be_in_common_is_not_kept() {
        let query = |data: &str| {
            let text = format!(r#"{{"seq":1,"port":1,"addressType":4,"data":"{data}"}}"#);
            Said::Query(serde_json::from_str(&text).unwrap())
        };
        let kept = |data: &str| matches!(brief(query(data)), Said::Query(Query { data: Some(_), .. }));
        assert!(kept("a hundred") && !kept(&"a".repeat(MOST_SHARED)));
    }
}
