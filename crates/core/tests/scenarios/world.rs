//! A small stage for one promise: an app, a clock that only moves when told to, and the processes that live.
//!
//! After every step it checks what always holds: events have no gap, their fold is the status, the counts agree.

use std::collections::BTreeMap;
use std::time::Duration;

use shiftboss_core::id::{BrokerId, Generation, LaunchId, Pid, RequestId, Slot, WorkerId};
use shiftboss_core::spec::{BackoffSpec, BrokerSpec, Drained, Ready, RecycleSpec, Rung, Signal, StopLadder};
use shiftboss_core::{
    Adoption, App, Command, Effect, Event, Exit, Input, ListenFailure, Outcome, Status, Time, Verb, What,
};

pub(crate) const API: BrokerId = BrokerId(0);
pub(crate) const JOBS: BrokerId = BrokerId(1);
pub(crate) const CRASH: Exit = Exit::Signal(Signal(11));

pub(crate) struct World {
    pub(crate) app: App,
    pub(crate) now: Time,
    /// Who runs or is about to, and where.
    pub(crate) living: BTreeMap<WorkerId, Place>,
    /// All effects so far.
    pub(crate) log: Vec<Effect>,
    /// Whether spawns and listeners are answered at once, with success.
    pub(crate) answers: bool,
    folded: Status,
    seq: u64,
    requests: u128,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) broker: BrokerId,
    /// None of a standby.
    pub(crate) slot: Option<Slot>,
    pub(crate) generation: Generation,
    pub(crate) launch: LaunchId,
}

impl World {
    /// An app that has begun; spawns and listeners are answered at once.
    pub(crate) fn of(specs: impl IntoIterator<Item = BrokerSpec>) -> World {
        let mut world = World::unanswered(specs);
        world.answers = true;
        let begun = world.log.clone();
        world.answer(&begun);
        world
    }

    /// An app that has begun, whose effects nobody answers.
    pub(crate) fn unanswered(specs: impl IntoIterator<Item = BrokerSpec>) -> World {
        let now = Time(1_000_000_000);
        let mut world = World {
            app: App::new(now, 7, specs.into_iter().collect()),
            now,
            living: BTreeMap::new(),
            log: Vec::new(),
            answers: false,
            folded: Status::default(),
            seq: 0,
            requests: 0,
        };
        let effects = world.app.start(now);
        world.took(effects);
        world
    }

    /// An app whose workers are all ready.
    pub(crate) fn ready(specs: impl IntoIterator<Item = BrokerSpec>) -> World {
        let mut world = World::of(specs);
        world.all_ready();
        world
    }

    /// Feeds one input, and the answers to what it led to; returns all effects.
    pub(crate) fn feed(&mut self, input: Input) -> Vec<Effect> {
        if let Input::Exited { worker, .. } | Input::SpawnFailed { worker, .. } = &input {
            self.living.remove(worker);
        }
        let begin = self.log.len();
        let effects = self.app.handle(self.now, input);
        self.took(effects.clone());
        self.answer(&effects);
        self.log[begin..].to_vec()
    }

    /// Another process goes on; it performs what it is asked for like any other.
    pub(crate) fn adopt(&mut self, how: Adoption) -> Vec<Effect> {
        let effects = self.app.adopt(self.now, how);
        self.took(effects.clone());
        self.answer(&effects);
        effects
    }

    pub(crate) fn answer(&mut self, effects: &[Effect]) {
        for effect in effects.iter().filter(|_| self.answers).cloned().collect::<Vec<_>>() {
            match effect {
                Effect::Spawn { worker, .. } => {
                    self.spawned(worker);
                }
                Effect::OpenListeners { broker, round } => {
                    self.feed(Input::Opened { broker, round, result: Ok(vec!["tcp://:3000".to_owned()]) });
                }
                Effect::QuietListeners { broker, round } => {
                    self.feed(Input::Quiet { broker, round });
                }
                Effect::ShutListeners { broker, round } => {
                    self.feed(Input::Shut { broker, round, refused: 3 });
                }
                Effect::Notice { .. }
                | Effect::Signal { .. }
                | Effect::KillTree { .. }
                | Effect::Promote { .. }
                | Effect::WatchClock { .. }
                | Effect::Emit(_)
                | Effect::Reply { .. }
                | Effect::Exit => {}
            }
        }
    }

    fn took(&mut self, effects: Vec<Effect>) {
        for effect in &effects {
            match effect {
                Effect::Spawn { worker, broker, slot, generation, launch } => {
                    let place =
                        Place { broker: *broker, slot: *slot, generation: *generation, launch: *launch };
                    self.living.insert(*worker, place);
                }
                Effect::Promote { worker, slot } => {
                    if let Some(place) = self.living.get_mut(worker) {
                        place.slot = Some(*slot);
                    }
                }
                Effect::Emit(event) => {
                    self.seq += 1;
                    assert_eq!(event.seq, self.seq, "a gap in the events");
                    self.folded.apply(event);
                }
                _ => {}
            }
        }
        self.log.extend(effects);
        assert_eq!(self.folded, self.app.status(), "the fold of the events is not the status");
        assert!(self.app.is_consistent());
    }

    // What happens.

    pub(crate) fn spawned(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.feed(Input::Spawned { worker, pid: Pid(worker.0 as u32 + 100) })
    }

    pub(crate) fn say_ready(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.feed(Input::Ready { worker })
    }

    /// All that start say that they are ready, or at the door, and so do those that come because of it.
    pub(crate) fn all_ready(&mut self) {
        let starting = |(id, worker): (&WorkerId, &shiftboss_core::status::WorkerStatus)| {
            (worker.state == shiftboss_core::status::WorkerState::Starting).then_some((*id, worker.slot))
        };
        while let Some((worker, slot)) =
            self.app.status().brokers.iter().flat_map(|broker| &broker.workers).find_map(starting)
        {
            match slot {
                Some(_) => self.say_ready(worker),
                None => self.feed(Input::Standby { worker }),
            };
        }
    }

    pub(crate) fn exit(&mut self, worker: WorkerId, exit: Exit) -> Vec<Effect> {
        self.feed(Input::Exited { worker, exit })
    }

    pub(crate) fn crash(&mut self, worker: WorkerId) -> Vec<Effect> {
        self.exit(worker, CRASH)
    }

    /// Everybody who was asked to leave does; those who come are ready at once; until nobody is asked any more.
    pub(crate) fn everybody_obeys(&mut self) {
        loop {
            self.all_ready();
            let Some(worker) = self.leaving().first().copied() else { return };
            self.exit(worker, Exit::Code(0));
        }
    }

    /// Lets time pass; deadlines on the way are kept to the moment.
    pub(crate) fn pass(&mut self, time: Duration) -> Vec<Effect> {
        let (begin, until) = (self.log.len(), self.now + time);
        while let Some(at) = self.app.deadline().filter(|at| *at <= until) {
            self.now = self.now.max(at);
            self.feed(Input::Tick);
        }
        self.now = until;
        self.log[begin..].to_vec()
    }

    pub(crate) fn ask(&mut self, broker: BrokerId, verb: Verb) -> RequestId {
        self.requests += 1;
        let request = RequestId(self.requests);
        self.feed(Input::Command { request, command: Command::Broker(broker, verb) });
        request
    }

    // What is seen.

    pub(crate) fn in_slot(&self, slot: u32) -> Vec<WorkerId> {
        self.of_broker(API).filter(|(_, place)| place.slot == Some(Slot(slot))).map(|(id, _)| id).collect()
    }

    /// Those of the first broker that have a slot.
    pub(crate) fn of_slots(&self) -> Vec<WorkerId> {
        self.of_broker(API).filter(|(_, place)| place.slot.is_some()).map(|(id, _)| id).collect()
    }

    pub(crate) fn of_broker(&self, broker: BrokerId) -> impl Iterator<Item = (WorkerId, Place)> {
        self.living.iter().filter(move |(_, place)| place.broker == broker).map(|(id, place)| (*id, *place))
    }

    pub(crate) fn first_of(&self, broker: BrokerId) -> Option<WorkerId> {
        self.of_broker(broker).map(|(worker, _)| worker).next()
    }

    /// The worker in this slot that came last.
    pub(crate) fn newest(&self, slot: u32) -> WorkerId {
        *self.in_slot(slot).last().expect("somebody is in that slot")
    }

    pub(crate) fn leaving(&self) -> Vec<WorkerId> {
        let status = self.app.status();
        let workers = status.brokers.iter().flat_map(|broker| &broker.workers);
        workers
            .filter(|(_, worker)| worker.state == shiftboss_core::status::WorkerState::Stopping)
            .map(|(id, _)| *id)
            .collect()
    }

    pub(crate) fn status(&self) -> shiftboss_core::status::BrokerStatus {
        self.app.status().brokers[0].clone()
    }

    pub(crate) fn replies(&self, request: RequestId) -> Vec<Outcome> {
        let replies = self.log.iter().filter_map(|effect| match effect {
            Effect::Reply { request: to, outcome } if *to == request => Some(outcome.clone()),
            _ => None,
        });
        replies.collect()
    }

    /// The answer to a command; none yet is none.
    pub(crate) fn outcome(&self, request: RequestId) -> Option<Outcome> {
        let replies = self.replies(request);
        assert!(replies.len() <= 1, "{replies:?}");
        replies.into_iter().next()
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = &Event> {
        events(&self.log)
    }

    pub(crate) fn said(&self, what: impl Fn(&What) -> bool) -> usize {
        self.events().filter(|event| what(&event.what)).count()
    }
}

pub(crate) fn events(effects: &[Effect]) -> impl Iterator<Item = &Event> {
    effects.iter().filter_map(|effect| match effect {
        Effect::Emit(event) => Some(event),
        _ => None,
    })
}

pub(crate) fn spawns(effects: &[Effect]) -> usize {
    effects.iter().filter(|effect| matches!(effect, Effect::Spawn { .. })).count()
}

/// Signals and kills (as KILL), in order.
pub(crate) fn signals(effects: &[Effect]) -> Vec<(WorkerId, Signal)> {
    let signals = effects.iter().filter_map(|effect| match effect {
        Effect::Signal { worker, signal, .. } => Some((*worker, *signal)),
        Effect::KillTree { worker } => Some((*worker, Signal::KILL)),
        _ => None,
    });
    signals.collect()
}

/// The listener effects, by name.
pub(crate) fn doors(effects: &[Effect]) -> Vec<&'static str> {
    let doors = effects.iter().filter_map(|effect| match effect {
        Effect::OpenListeners { .. } => Some("open"),
        Effect::QuietListeners { .. } => Some("quiet"),
        Effect::ShutListeners { .. } => Some("shut"),
        _ => None,
    });
    doors.collect()
}

pub(crate) fn refused() -> Result<Vec<String>, ListenFailure> {
    Err(ListenFailure { address: "tcp://:3000".to_owned(), reason: "address in use".to_owned() })
}

pub(crate) fn is_done(outcome: &Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Done(_)))
}

pub(crate) fn is_superseded(outcome: &Option<Outcome>) -> bool {
    matches!(outcome, Some(Outcome::Superseded(_)))
}

pub(crate) fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Workers that say when they are ready, without listeners; TERM, 30 s, KILL.
pub(crate) fn spec(workers: u32) -> BrokerSpec {
    BrokerSpec {
        name: "api".to_owned(),
        workers,
        launch: LaunchId(1),
        listens: false,
        ready: Ready::Notify,
        recycle: RecycleSpec::default(),
        stop: StopLadder(vec![Rung::signal(Signal::TERM, secs(30))]),
        backoff: BackoffSpec::default(),
        drained: Drained::Refuse,
        scheduled: false,
        watch: None,
        standby: 0,
    }
}

pub(crate) fn listening(workers: u32) -> BrokerSpec {
    BrokerSpec { listens: true, ..spec(workers) }
}

pub(crate) fn recycling(workers: u32, recycle: RecycleSpec) -> BrokerSpec {
    BrokerSpec { recycle, ..spec(workers) }
}

pub(crate) fn version(workers: u32, launch: u32) -> Verb {
    Verb::Respecify(Box::new(BrokerSpec { launch: LaunchId(launch), ..spec(workers) }))
}
