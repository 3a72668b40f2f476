//! Adoption: another process goes on with an app whose process has ended, after `snapshot::restore`.
//!
//! Every step was recorded before its effects were performed, so of the last one some may not have been: what is not
//! answered yet is asked for again. How the successor finds the workers and listeners is the shell's.

use crate::app::App;
use crate::broker::{Broker, Phase};
use crate::drain::Step as DrainStep;
use crate::effect::{Effect, Outcome};
use crate::event::What;
use crate::id::{BrokerId, Generation, LaunchId, Pid, RequestId, Slot, WorkerId};
use crate::requests::Waits;
use crate::shared::Shared;
use crate::stop::{Ear, Step};
use crate::time::Time;
use crate::worker::{Channel, State, Worker};

/// How much of the state a successor goes on with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Adoption {
    /// All of it.
    Whole,
    /// What its predecessors may have died of is given up: recycles, positions on stop ladders, pending commands.
    /// Workers, ids, phases, the number wanted and the specification stay; one that was on trial is taken back.
    Salvage,
}

/// One worker that the app knows, to be taken over by the shell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Present {
    /// Its id.
    pub worker: WorkerId,
    /// Its broker.
    pub broker: BrokerId,
    /// Its place; none for a standby.
    pub slot: Option<Slot>,
    /// Its specification's number.
    pub generation: Generation,
    /// What it runs.
    pub launch: LaunchId,
    /// Its process; none if it is not known yet whether there is one.
    pub pid: Option<Pid>,
    /// It runs, is not ready, and is still to be watched for that; a standby, until it is at the door.
    pub starting: bool,
    /// It is a standby, and waits at the door.
    pub at_door: bool,
    /// It has been ready.
    pub was_ready: bool,
    /// It is asked to leave, or about to be.
    pub leaves: bool,
    /// Whether it has said something on its channel.
    pub spoke: bool,
    /// The rung it stands on, from 0, if it is asked to leave and not killed yet.
    pub rung: Option<u32>,
}

impl App {
    /// Goes on with an app that was restored; called once, instead of [`App::start`]. First the events, then all that
    /// may not have been done:
    ///
    /// - `Spawn` for each worker whose spawn is not answered; if its process exists, the answer is `Spawned`, also
    ///   when it has ended since, and then `Exited`;
    /// - `Promote` for each worker that was told a slot and is not ready;
    /// - the listeners' request that is not answered, with its round;
    /// - `WatchClock` for each broker that has a schedule: nobody does it any longer;
    /// - `Signal` of the present rung, or `KillTree`, for each worker that is leaving. With [`Adoption::Whole`] it is
    ///   left out by a shell that knows it was sent: on rung r, r + 1 signals have been. With [`Adoption::Salvage`]
    ///   the ladder begins anew, and so does that count;
    /// - `Exit` if the app has ended.
    ///
    /// Events and answers of the last step are not repeated.
    pub fn adopt(&mut self, now: Time, how: Adoption) -> Vec<Effect> {
        self.shared.advance(now);
        let cx = &mut self.shared;
        for broker in &mut self.brokers {
            cx.changes.broker(broker.id);
            broker.tell_adopted(cx, how);
        }
        for broker in &mut self.brokers {
            broker.repeat(cx, how);
        }
        if self.exited {
            cx.effects.push(Effect::Exit);
        }
        match how {
            Adoption::Whole => std::mem::take(&mut cx.effects),
            Adoption::Salvage => self.salvage(),
        }
    }

    /// Every worker that the app knows, by broker and id.
    #[must_use]
    pub fn roll(&self) -> Vec<Present> {
        let workers = |broker: &Broker| {
            let id = broker.id;
            broker.workers.iter().map(move |(worker, of)| present(id, *worker, of)).collect::<Vec<_>>()
        };
        self.brokers.iter().flat_map(workers).collect()
    }

    /// The brokers whose listeners let connections in at present, as far as core knows.
    #[must_use]
    pub fn listening(&self) -> Vec<BrokerId> {
        self.brokers.iter().filter(|broker| broker.is_listening()).map(|broker| broker.id).collect()
    }

    /// The brokers that let nobody in any more: they are being drained, or are drained or closed, and are not to hold
    /// connections meanwhile.
    #[must_use]
    pub fn refusing(&self) -> Vec<BrokerId> {
        self.that_refuse(|phase| matches!(phase, Phase::Draining(_) | Phase::Drained | Phase::Closed))
    }

    /// Those of them with whom that is done.
    #[must_use]
    pub fn shut(&self) -> Vec<BrokerId> {
        self.that_refuse(|phase| matches!(phase, Phase::Drained | Phase::Closed))
    }

    fn that_refuse(&self, is_in: impl Fn(Phase) -> bool) -> Vec<BrokerId> {
        let refuse = self.brokers.iter().filter(|broker| broker.refuses() && is_in(broker.phase));
        refuse.map(|broker| broker.id).collect()
    }

    /// The number of the last event, 0 before the first.
    #[must_use]
    pub fn last_event(&self) -> u64 {
        self.shared.seq
    }

    fn salvage(&mut self) -> Vec<Effect> {
        let cx = &mut self.shared;
        // The end goes on, and so does whoever waits for it.
        let pending = cx.requests.open.iter().filter(|(_, open)| open.waits != Waits::Exit);
        for request in pending.map(|(request, _)| *request).collect::<Vec<RequestId>>() {
            cx.reply(request, Outcome::Superseded(GIVEN_UP.to_owned()));
        }
        for broker in &mut self.brokers {
            broker.salvage(cx);
        }
        self.settle()
    }
}

impl Broker {
    fn tell_adopted(&self, cx: &mut Shared, how: Adoption) {
        let running = self.workers.values().filter(|worker| worker.pid.is_some()).count();
        let workers = u32::try_from(running).unwrap_or(u32::MAX);
        let drained = matches!(self.phase, Phase::Draining(_) | Phase::Drained | Phase::Closed);
        self.emit(cx, None, What::BrokerAdopted { workers, drained, salvaged: how == Adoption::Salvage });
    }

    /// Asks again for what is not answered.
    fn repeat(&self, cx: &mut Shared, how: Adoption) {
        let (broker, round) = (self.id, self.round);
        cx.effects.extend(match self.phase {
            Phase::Waiting { retry_at: None, .. } => Some(Effect::OpenListeners { broker, round }),
            Phase::Draining(DrainStep::Quieting) => Some(Effect::QuietListeners { broker, round }),
            Phase::Draining(DrainStep::Shutting) => Some(Effect::ShutListeners { broker, round }),
            Phase::Waiting { retry_at: Some(_), .. }
            | Phase::Open
            | Phase::Draining(DrainStep::Leaving)
            | Phase::Drained
            | Phase::Closed => None,
        });
        self.ask_clock(cx);
        for (id, worker) in self.workers.iter() {
            cx.effects.extend(unanswered(broker, *id, worker, how));
        }
    }

    /// Gives up what is under way. A recycle fails, and with it a specification on trial: there is a way back, and
    /// nobody knows whether it was what the predecessors died of.
    fn salvage(&mut self, cx: &mut Shared) {
        let leaving = self.workers.iter().filter_map(|(id, worker)| match worker.state {
            State::Stopping { why, forced: false, .. } => Some((*id, why)),
            State::Stopping { forced: true, .. }
            | State::Spawning { .. }
            | State::Starting { .. }
            | State::Standby { .. }
            | State::Ready { .. } => None,
        });
        for (id, why) in leaving.collect::<Vec<_>>() {
            self.climb(cx, id, why, 0);
        }
        if let Some(scope) = self.queued.take() {
            scope.mark(cx, self.id);
        }
        self.forget_changes(cx);
        self.fail_recycle(cx, None, None, GIVEN_UP);
    }

    fn is_listening(&self) -> bool {
        let bound = self.listens() && !self.listen.is_empty();
        bound
            && match self.phase {
                Phase::Waiting { .. } | Phase::Draining(DrainStep::Quieting | DrainStep::Shutting) => false,
                Phase::Open => true,
                Phase::Draining(DrainStep::Leaving) | Phase::Drained => !self.refuses(),
                // It may never have been open.
                Phase::Closed => !self.refuses(),
            }
    }
}

/// What was asked for this worker and may not have been done.
fn unanswered(broker: BrokerId, id: WorkerId, worker: &Worker, how: Adoption) -> Option<Effect> {
    match worker.state {
        State::Spawning { .. } => Some(Effect::Spawn {
            worker: id,
            broker,
            slot: worker.slot,
            generation: worker.generation,
            launch: worker.spec.launch,
        }),
        State::Stopping { forced: true, .. } => Some(Effect::KillTree { worker: id }),
        State::Stopping { rung, forced: false, .. } if how == Adoption::Whole => {
            let number = u32::try_from(rung).unwrap_or(u32::MAX);
            Some(match worker.spec.stop.step(rung, Ear::Hears) {
                (_, Step::Notice(_)) => Effect::Notice { worker: id, rung: number },
                (_, Step::Signal(signal, _)) => Effect::Signal { worker: id, signal, rung: number },
                (_, Step::Kill) => Effect::KillTree { worker: id },
            })
        }
        State::Starting { .. } if worker.promoted => {
            worker.slot.map(|slot| Effect::Promote { worker: id, slot })
        }
        // In a salvage its ladder begins anew.
        State::Stopping { .. } | State::Starting { .. } | State::Standby { .. } | State::Ready { .. } => None,
    }
}

fn present(broker: BrokerId, id: WorkerId, worker: &Worker) -> Present {
    let rung = match worker.state {
        State::Stopping { rung, forced: false, .. } => Some(u32::try_from(rung).unwrap_or(u32::MAX)),
        State::Stopping { forced: true, .. }
        | State::Spawning { .. }
        | State::Starting { .. }
        | State::Standby { .. }
        | State::Ready { .. } => None,
    };
    Present {
        worker: id,
        broker,
        slot: worker.slot,
        generation: worker.generation,
        launch: worker.spec.launch,
        pid: worker.pid,
        starting: matches!(worker.state, State::Starting { .. }),
        at_door: matches!(worker.state, State::Standby { .. }),
        was_ready: worker.ready_after.is_some(),
        leaves: worker.leaving().is_some(),
        spoke: worker.channel != Channel::Silent,
        rung,
    }
}

const GIVEN_UP: &str = "given up: the broker process died again and again";
