//! Promise 6: another process goes on with the app; what was asked for and not answered is asked for again.

use crate::world::*;
use shiftboss_core::id::{LaunchId, Pid, Slot};
use shiftboss_core::snapshot::{Layout, Records, Store, restore, written};
use shiftboss_core::spec::{BrokerSpec, Drained, RecycleSpec, Signal};
use shiftboss_core::status::BrokerState;
use shiftboss_core::{Adoption, Command, Effect, Exit, Input, Outcome, Verb, What};

#[test]
fn an_app_at_rest_is_taken_over_without_a_word_to_its_workers() {
    let mut world = World::ready([spec(2), listening(1)]);
    let effects = world.adopt(Adoption::Whole);
    let told: Vec<_> = events(&effects).map(|event| event.what.clone()).collect();
    let adopted = |workers| What::BrokerAdopted { workers, drained: false, salvaged: false };
    assert_eq!(told, [adopted(2), adopted(1)]);
    assert_eq!(effects.len(), 2, "{effects:?}");
    assert_eq!(world.app.listening(), [JOBS]);
}

#[test]
fn whoever_was_asked_for_and_is_not_said_to_run_is_asked_for_again() {
    let mut world = World::unanswered([spec(2)]);
    let before: Vec<Effect> = world.log.iter().filter(|effect| is_spawn(effect)).cloned().collect();
    let again: Vec<Effect> = world.adopt(Adoption::Whole).into_iter().filter(is_spawn).collect();
    assert_eq!(again, before);
    assert_eq!(before.len(), 2);
}

#[test]
fn a_worker_that_started_and_ended_while_nobody_kept_it_is_told_once() {
    for exit in [Exit::Code(0), CRASH] {
        let mut world = World::unanswered([spec(1)]);
        world.adopt(Adoption::Whole);
        let worker = world.newest(0);
        world.spawned(worker);
        world.exit(worker, exit);
        world.exit(worker, exit);
        let started =
            world.said(|what| matches!(what, What::WorkerStarted { worker: id, .. } if *id == worker));
        let ends = world.said(
            |what| matches!(what, What::WorkerDeath { worker: id, .. } | What::WorkerEnded { worker: id, .. } if *id == worker),
        );
        assert_eq!((started, ends), (1, 1));
        assert_ne!(world.newest(0), worker, "its slot is filled again");
    }
}

#[test]
fn the_signal_of_the_present_rung_is_asked_for_again_and_the_ladder_goes_on_in_its_time() {
    let mut world = World::ready([spec(1)]);
    let worker = world.newest(0);
    world.ask(API, Verb::Drain);
    world.pass(secs(10));
    assert_eq!(world.app.roll()[0].rung, Some(0));
    assert_eq!(signals(&world.adopt(Adoption::Whole)), [(worker, Signal::TERM)]);
    assert_eq!(signals(&world.pass(secs(19))), []);
    assert_eq!(signals(&world.pass(secs(1))), [(worker, Signal::KILL)]);
    assert_eq!(signals(&world.adopt(Adoption::Whole)), [(worker, Signal::KILL)]);
    assert_eq!(world.app.roll()[0].rung, None);
}

#[test]
fn a_request_to_the_listeners_that_is_not_answered_is_asked_again_in_its_round() {
    let mut world = World::unanswered([listening(1)]);
    let asked = doors_asked(&world.log);
    assert_eq!(doors_asked(&world.adopt(Adoption::Whole)), asked);
    world.answers = true;
    world.answer(&asked);
    world.all_ready();
    world.answers = false;
    for door in ["quiet", "shut"] {
        let begin = world.log.len();
        if door == "quiet" {
            world.ask(API, Verb::Drain);
        } else {
            world.feed(Input::Quiet { broker: API, round: world.app.round(API) });
            world.exit(world.newest(0), Exit::Code(0));
        }
        let asked = doors_asked(&world.log[begin..]);
        assert_eq!(doors(&asked), [door]);
        assert!(world.app.listening().is_empty());
        assert_eq!(doors_asked(&world.adopt(Adoption::Whole)), asked);
    }
}

#[test]
fn an_app_that_had_ended_ends_again() {
    let mut world = World::ready([spec(1)]);
    world.feed(Input::Stop { now: true });
    world.exit(world.newest(0), Exit::Signal(Signal::KILL));
    assert_eq!(world.adopt(Adoption::Whole).last(), Some(&Effect::Exit));
    assert_eq!(world.adopt(Adoption::Salvage).last(), Some(&Effect::Exit));
}

#[test]
fn a_broker_that_holds_connections_while_drained_keeps_its_listeners_open() {
    let mut world = World::ready([BrokerSpec { drained: Drained::Hold, ..listening(1) }]);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    assert_eq!(world.status().state, BrokerState::Drained);
    assert_eq!(world.app.listening(), [API]);
    assert!(world.app.shut().is_empty());
}

#[test]
fn that_a_broker_is_drained_and_refuses_is_known_to_whoever_goes_on() {
    let mut world = World::ready([listening(1)]);
    assert_eq!((world.app.refusing(), world.app.shut()), (vec![], vec![]));
    world.ask(API, Verb::Drain);
    assert_eq!((world.app.refusing(), world.app.shut()), (vec![API], vec![]));
    world.everybody_obeys();
    world.adopt(Adoption::Whole);
    assert_eq!((world.app.refusing(), world.app.shut()), (vec![API], vec![API]));
    assert_eq!(world.app.listening(), []);
}

#[test]
fn the_roll_names_everybody_with_all_that_is_needed_to_take_them_over() {
    let mut world = World::ready([spec(2)]);
    world.answers = false;
    world.ask(API, Verb::Recycle(Some(Slot(1))));
    let roll = world.app.roll();
    let seen: Vec<_> = roll.iter().map(|one| (one.slot, one.pid, one.starting, one.rung)).collect();
    let (old, new) = (world.in_slot(1)[0], world.newest(1));
    let pid = |worker: shiftboss_core::id::WorkerId| Some(Pid(worker.0 as u32 + 100));
    assert_eq!(
        seen,
        [
            (Some(Slot(0)), pid(world.newest(0)), false, None),
            (Some(Slot(1)), pid(old), false, None),
            (Some(Slot(1)), None, false, None)
        ]
    );
    world.spawned(new);
    assert!(world.app.roll()[2].starting);
}

// Salvage.

#[test]
fn a_salvage_gives_up_what_is_under_way_and_says_so() {
    let mut world = World::ready([spec(2)]);
    let (running, queued) = (world.ask(API, Verb::Recycle(None)), world.ask(API, Verb::Recycle(None)));
    let old: Vec<_> = world.status().workers.keys().copied().collect();
    let effects = world.adopt(Adoption::Salvage);
    assert!(is_superseded(&world.outcome(running)) && is_superseded(&world.outcome(queued)));
    assert!(
        events(&effects)
            .any(|event| event.what == What::BrokerAdopted { workers: 3, drained: false, salvaged: true })
    );
    assert!(!world.status().recycling);
    world.everybody_obeys();
    let left: Vec<_> = world.status().workers.keys().copied().collect();
    assert_eq!(left, old[..2], "who served goes on serving");
}

#[test]
fn a_salvage_takes_back_a_version_that_was_on_trial() {
    let trial = RecycleSpec { min_ready: secs(5), ..RecycleSpec::default() };
    let mut world = World::ready([recycling(2, trial.clone())]);
    let version = BrokerSpec { launch: LaunchId(2), ..recycling(2, trial) };
    let asked = world.ask(API, Verb::Respecify(Box::new(version)));
    world.all_ready();
    world.pass(secs(5));
    world.everybody_obeys();
    assert!(world.status().recycling);
    world.adopt(Adoption::Salvage);
    assert!(matches!(world.outcome(asked), Some(Outcome::Superseded(_))));
    for _ in 0..4 {
        world.everybody_obeys();
        world.pass(secs(5));
    }
    let status = world.status();
    assert!(status.generation == status.target && !status.recycling && status.ready() == 2);
    let launches: Vec<_> = world.of_broker(API).map(|(_, place)| place.launch.0).collect();
    assert_eq!(launches, [1, 1]);
}

#[test]
fn a_salvage_begins_the_ladders_anew() {
    let mut world = World::ready([spec(1)]);
    let worker = world.newest(0);
    let drain = world.ask(API, Verb::Drain);
    world.pass(secs(29));
    assert_eq!(signals(&world.adopt(Adoption::Salvage)), [(worker, Signal::TERM)]);
    assert!(is_superseded(&world.outcome(drain)));
    assert_eq!(signals(&world.pass(secs(29))), []);
    assert_eq!(signals(&world.pass(secs(1))), [(worker, Signal::KILL)]);
    world.exit(worker, Exit::Signal(Signal::KILL));
    assert_eq!(world.status().state, BrokerState::Drained, "what was wanted is still wanted");
}

#[test]
fn a_salvage_leaves_alone_whoever_waits_for_the_end() {
    let mut world = World::ready([spec(1)]);
    let request = shiftboss_core::id::RequestId(77);
    world.feed(Input::Command { request, command: Command::Stop });
    world.adopt(Adoption::Salvage);
    assert_eq!(world.outcome(request), None);
    world.everybody_obeys();
    assert!(is_done(&world.outcome(request)));
}

#[test]
fn what_a_salvage_has_changed_is_recorded() {
    let mut world = World::ready([spec(3)]);
    world.ask(API, Verb::Recycle(None));
    world.ask(API, Verb::Recycle(None));
    world.ask(API, Verb::Scale(2));
    let mut records = Records::new(Memory(vec![0; ROOM.size()]), ROOM);
    records.record(&mut world.app).unwrap();
    let specs = |_, _| Some(spec(3));
    world.app = restore(&records.store().0, specs, |_| Vec::new()).unwrap();
    world.adopt(Adoption::Salvage);
    records.record(&mut world.app).unwrap();
    let again = restore(&records.store().0, specs, |_| Vec::new()).unwrap();
    assert!(written(&again) == written(&world.app));
}

fn is_spawn(effect: &Effect) -> bool {
    matches!(effect, Effect::Spawn { .. })
}

fn doors_asked(effects: &[Effect]) -> Vec<Effect> {
    effects.iter().filter(|effect| !doors(std::slice::from_ref(effect)).is_empty()).cloned().collect()
}

struct Memory(Vec<u8>);

impl Store for Memory {
    fn bytes(&self) -> &[u8] {
        &self.0
    }

    fn write(&mut self, at: usize, bytes: &[u8]) {
        self.0[at..at + bytes.len()].copy_from_slice(bytes);
    }
}

const ROOM: Layout = Layout { brokers: 1, slots: 8, workers: 16, commands: 16 };
