//! The stop ladder is climbed rung by rung and ends in a kill; the app ends when the last worker is gone.

use crate::world::*;
use shiftboss_core::id::Pid;
use shiftboss_core::spec::{BrokerSpec, Rung, Signal, StopLadder};
use shiftboss_core::{Effect, Exit, Input, What};

fn two_rungs(workers: u32) -> BrokerSpec {
    let rung = |signal, wait| Rung::signal(signal, secs(wait));
    BrokerSpec { stop: StopLadder(vec![rung(Signal::INT, 30), rung(Signal::TERM, 5)]), ..spec(workers) }
}

#[test]
fn rungs_come_in_order_each_once_and_each_with_its_time() {
    let mut world = World::ready([two_rungs(1)]);
    let worker = world.newest(0);
    assert_eq!(signals(&world.feed(Input::Stop { now: false })), [(worker, Signal::INT)]);
    assert_eq!(signals(&world.pass(millis(29_999))), []);
    assert_eq!(signals(&world.pass(millis(1))), [(worker, Signal::TERM)]);
    assert_eq!(signals(&world.pass(millis(4_999))), []);
    assert_eq!(signals(&world.pass(millis(1))), [(worker, Signal::KILL)]);
    assert_eq!((signals(&world.pass(secs(1000))), world.app.deadline()), (vec![], None));
}

#[test]
fn a_kill_in_the_ladder_is_its_end() {
    let ladder = vec![Rung::signal(Signal::KILL, secs(1)), Rung::signal(Signal::TERM, secs(1))];
    let mut world = World::ready([BrokerSpec { stop: StopLadder(ladder), ..spec(1) }]);
    let worker = world.newest(0);
    assert_eq!(signals(&world.feed(Input::Stop { now: false })), [(worker, Signal::KILL)]);
    assert_eq!(signals(&world.pass(secs(10))), []);
}

#[test]
fn being_asked_again_does_not_restart_the_ladder() {
    let mut world = World::ready([two_rungs(1)]);
    world.feed(Input::Stop { now: false });
    world.pass(secs(20));
    assert_eq!(signals(&world.feed(Input::Stop { now: false })), []);
    assert_eq!(signals(&world.pass(secs(10))).len(), 1);
}

#[test]
fn a_worker_that_leaves_is_signalled_no_more() {
    let mut world = World::ready([two_rungs(2)]);
    let (one, other) = (world.newest(0), world.newest(1));
    world.feed(Input::Stop { now: false });
    world.exit(one, Exit::Code(0));
    assert!(signals(&world.pass(secs(100))).iter().all(|(worker, _)| *worker == other));
}

#[test]
fn a_forced_end_says_so() {
    let mut world = World::ready([spec(1)]);
    world.feed(Input::Stop { now: false });
    world.pass(secs(30));
    let effects = world.exit(world.newest(0), Exit::Signal(Signal::KILL));
    assert!(matches!(&events(&effects).next().unwrap().what, What::WorkerEnded { forced: true, .. }));
}

#[test]
fn the_app_exits_once_and_only_after_the_last_worker() {
    let mut world = World::ready([spec(1), listening(1)]);
    world.feed(Input::Stop { now: false });
    let leaving = world.leaving();
    assert!(!world.exit(leaving[0], Exit::Code(0)).contains(&Effect::Exit));
    assert!(world.exit(leaving[1], Exit::Code(0)).contains(&Effect::Exit));
    world.feed(Input::Stop { now: true });
    world.pass(secs(1000));
    assert_eq!(world.log.iter().filter(|effect| **effect == Effect::Exit).count(), 1);
    assert_eq!(world.app.deadline(), None);
}

#[test]
fn now_kills_everybody_wherever_they_are_on_the_ladder() {
    let mut world = World::ready([two_rungs(3)]);
    let all: Vec<_> = world.living.keys().map(|worker| (*worker, Signal::KILL)).collect();
    world.feed(Input::Stop { now: false });
    world.pass(secs(31));
    assert_eq!(signals(&world.feed(Input::Stop { now: true })), all);
    assert_eq!(signals(&world.feed(Input::Stop { now: true })), []);
}

#[test]
fn now_does_not_wait_for_the_queues() {
    let mut world = World::ready([listening(1)]);
    world.answers = false;
    world.feed(Input::Stop { now: false });
    assert_eq!(signals(&world.feed(Input::Stop { now: true })), [(world.newest(0), Signal::KILL)]);
    assert_eq!(doors(&world.crash(world.newest(0))), ["shut"]);
}

#[test]
fn a_worker_that_is_being_started_is_stopped_as_soon_as_it_runs() {
    let mut world = World::unanswered([spec(1)]);
    let worker = world.newest(0);
    assert_eq!(signals(&world.feed(Input::Stop { now: false })), []);
    assert!(!world.log.contains(&Effect::Exit), "it may still come to life");
    assert_eq!(signals(&world.spawned(worker)), [(worker, Signal::TERM)]);
    assert!(world.exit(worker, Exit::Code(0)).contains(&Effect::Exit));
}

#[test]
fn an_exit_that_overtakes_the_news_of_the_start_is_taken() {
    let mut world = World::unanswered([spec(1)]);
    let worker = world.newest(0);
    let effects = world.exit(worker, Exit::Code(1));
    assert!(matches!(&events(&effects).next().unwrap().what, What::WorkerDeath { pid: None, .. }));
    assert_eq!(world.feed(Input::Spawned { worker, pid: Pid(9) }), []);
}

#[test]
fn a_clock_that_goes_back_is_a_clock_that_stands() {
    let mut world = World::ready([spec(1)]);
    world.feed(Input::Stop { now: false });
    world.now = shiftboss_core::Time(0);
    assert_eq!(world.feed(Input::Tick), []);
}
