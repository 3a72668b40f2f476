//! What the driver does for core: each effect, in order; what comes of it is an input again.

use std::collections::VecDeque;

use shiftboss_api as api;
use shiftboss_core::id::RequestId;
use shiftboss_core::spec::Ready;
use shiftboss_core::{Effect, Input};

use super::Driver;
use super::post;
use super::starts::Start;
use crate::convert;
use crate::os::{code, kill_points};

impl Driver {
    pub(super) fn perform(&mut self, effects: Vec<Effect>, mut events: VecDeque<api::Event>) {
        self.attend_to_lanes(&effects);
        for effect in effects {
            let Some(effect) = self.hold_back(effect) else { continue };
            if let Effect::Notice { worker, .. }
            | Effect::Signal { worker, .. }
            | Effect::KillTree { worker } = effect
            {
                self.workers.is_to_leave(worker);
            }
            match effect {
                Effect::Spawn { worker, broker, slot, generation, launch } => {
                    self.starts.add(broker, Start { worker, slot, generation, launch });
                }
                Effect::Promote { worker, slot } => {
                    let broker = self.workers.owner_of(worker);
                    // Without one it is refused what it waits for, and ends.
                    if let Some(Err(error)) = broker.map(|broker| self.make_lanes(broker, slot)) {
                        self.log.note(&format!("worker {worker}, promoted to slot {slot}: {error}"));
                    }
                    let shell = broker.and_then(|broker| self.shells.get(broker.0 as usize));
                    // If that is how it is seen to be ready.
                    let sockets = shell.filter(|shell| shell.ready == Ready::Accepting);
                    let sockets = sockets.map(|shell| &shell.sockets);
                    kill_points::point("a standby is promoted");
                    self.workers.promote(worker, slot, sockets);
                    self.open_door(worker);
                    kill_points::point("a standby was promoted");
                }
                Effect::Notice { worker, rung } => {
                    kill_points::point("a worker is told to leave");
                    self.workers.tell_to_leave(worker);
                    if let Some(recorder) = &mut self.recorder {
                        recorder.asks(worker, rung);
                    }
                    kill_points::point("a worker was told to leave");
                }
                Effect::Signal { worker, signal, rung } => {
                    kill_points::point("a signal is noted");
                    match (self.chief.keeper(), &mut self.recorder) {
                        (Some(keeper), Some(recorder)) => {
                            let number = recorder.asks(worker, rung);
                            kill_points::point("a signal is sent");
                            // Without a keeper there is soon nobody left to be told.
                            let _ = keeper.signal(worker, number, signal);
                        }
                        _ => self.workers.signal(worker, signal),
                    }
                    kill_points::point("a signal was sent");
                }
                Effect::KillTree { worker } => {
                    kill_points::point("a tree is killed");
                    self.workers.kill_tree(worker);
                    kill_points::point("a tree was killed");
                }
                Effect::OpenListeners { broker, round } => {
                    kill_points::point("listeners are opened");
                    self.open_lent_listeners(broker);
                    let mended = self.mend_listeners(broker, true);
                    let Some(shell) = self.shells.get_mut(broker.0 as usize) else { continue };
                    let mut result = mended.and_then(|()| shell.sockets.open());
                    kill_points::point("listeners were opened");
                    if let (Ok(_), Some(keeper)) = (&result, self.chief.keeper())
                        && let Err(error) = shell.sockets.deposit(keeper, broker)
                    {
                        result = Err(shell.sockets.not_held(&error));
                    }
                    self.workers.watch_listeners(broker, &shell.sockets);
                    self.quieting.remove(&broker);
                    self.inputs.push_back(Input::Opened { broker, round, result });
                }
                Effect::QuietListeners { broker, round } => {
                    kill_points::point("listeners are quieted");
                    self.quiet_listeners(broker, round);
                    kill_points::point("listeners were quieted");
                }
                Effect::ShutListeners { broker, round } => {
                    self.quieting.remove(&broker);
                    kill_points::point("listeners are shut");
                    let refused = self.shut_listeners(broker);
                    kill_points::point("listeners were shut");
                    self.inputs.push_back(Input::Shut { broker, round, refused });
                }
                Effect::WatchClock { broker } => self.outside.ask_clock(broker, &mut self.inputs),
                Effect::Emit(event) => {
                    if let (shiftboss_core::What::WorkerReady { .. }, Some(broker)) =
                        (&event.what, event.broker)
                    {
                        self.mend_open_listeners(broker);
                        if let Some(shell) = self.shells.get_mut(broker.0 as usize) {
                            shell.sockets.assert_backlog();
                            self.workers.watch_listeners(broker, &shell.sockets);
                        }
                    }
                    match (&event.what, event.broker) {
                        (shiftboss_core::What::RecycleFinished { .. }, Some(broker)) => {
                            self.close_unused_listeners(broker);
                        }
                        (shiftboss_core::What::ListenerClosed { address }, Some(broker)) => {
                            self.close_listener(broker, address);
                        }
                        (shiftboss_core::What::AppReady | shiftboss_core::What::BrokerAdopted { .. }, _)
                            if self.chief.keeper().is_some() =>
                        {
                            tokio::spawn(code::let_go_later());
                        }
                        _ => {}
                    }
                    let Some(wire) = events.pop_front() else { continue };
                    #[cfg(debug_assertions)]
                    panic_if_asked(&wire);
                    let seq = event.seq;
                    let (gone, of) = (post::gone(&event), event.broker);
                    let event = self.feed.publish(&event, wire);
                    self.post.tell_of(of, &event, gone);
                    self.log.event(&event);
                    if let Some(told) = &mut self.told {
                        told.up_to(seq);
                    }
                }
                Effect::Reply { request, outcome } => self.reply(request, outcome),
                Effect::Exit => self.ended = true,
            }
        }
    }

    pub(super) fn reply(&mut self, request: RequestId, outcome: shiftboss_core::Outcome) {
        let outcome = convert::outcome(outcome, |worker| self.workers.last_lines(worker));
        for reply in self.waiting.remove(&request).unwrap_or_default() {
            // Whoever has stopped listening needs no answer.
            kill_points::point("a reply is sent");
            let _ = reply.send(outcome.clone());
            kill_points::point("a reply was sent");
        }
    }
}

/// For tests of what follows a panic: one comes with the event that `SHIFTBOSS_PANIC_ON` names, and again in whoever
/// finds it among the last ones, until whatever was under way is dropped.
#[cfg(debug_assertions)]
pub(super) fn panic_if_asked(event: &api::Event) {
    let asked = std::env::var("SHIFTBOSS_PANIC_ON").unwrap_or_default();
    let is_meant = !asked.is_empty() && serde_json::to_value(event.event).is_ok_and(|name| name == asked);
    assert!(!is_meant, "asked to panic on {asked}");
}
