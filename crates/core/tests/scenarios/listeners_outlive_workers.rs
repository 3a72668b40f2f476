//! Listeners are open before the first worker, quiet before the workers leave, shut after the last has left.

use crate::world::*;
use shiftboss_core::spec::{BrokerSpec, Drained};
use shiftboss_core::status::BrokerState;
use shiftboss_core::{Effect, Exit, Input, Outcome, Verb, What};

#[test]
fn no_worker_is_started_before_the_listeners_are_open() {
    let mut world = World::unanswered([listening(2)]);
    assert_eq!((spawns(&world.log), doors(&world.log)), (0, vec!["open"]));
    assert_eq!(world.status().state, BrokerState::Waiting);
    let result = Ok(vec!["tcp://:3000".to_owned()]);
    let effects = world.feed(Input::Opened { broker: API, round: 1, result });
    assert_eq!((spawns(&effects), world.status().state), (2, BrokerState::Open));
    assert_eq!(world.status().listen, ["tcp://:3000"]);
}

#[test]
fn listeners_that_cannot_be_opened_are_tried_again_with_growing_waits() {
    let mut world = World::unanswered([listening(1)]);
    let mut waits = Vec::new();
    for round in 1..=5 {
        world.feed(Input::Opened { broker: API, round, result: refused() });
        let wait = world.app.deadline().expect("a retry").since(world.now);
        waits.push(wait);
        assert_eq!(doors(&world.pass(wait)), ["open"]);
    }
    assert!(waits.windows(2).all(|pair| pair[1] > pair[0]), "{waits:?}");
    assert_eq!(spawns(&world.log), 0);
}

#[test]
fn a_recycle_and_a_crash_touch_no_listener() {
    let mut world = World::ready([listening(2)]);
    let begin = world.log.len();
    world.crash(world.newest(0));
    world.ask(API, Verb::Recycle(None));
    world.everybody_obeys();
    assert_eq!(doors(&world.log[begin..]), Vec::<&str>::new());
}

#[test]
fn a_drain_quiets_then_sends_home_then_shuts() {
    let mut world = World::ready([listening(2)]);
    world.answers = false;
    let request = world.ask(API, Verb::Drain);
    assert_eq!((doors(&world.log).last(), world.leaving().len()), (Some(&"quiet"), 0));

    world.feed(Input::Quiet { broker: API, round: 2 });
    let leaving = world.leaving();
    assert_eq!(leaving.len(), 2);
    assert_eq!(doors(&world.exit(leaving[0], Exit::Code(0))), Vec::<&str>::new());
    assert_eq!(doors(&world.exit(leaving[1], Exit::Code(0))), ["shut"]);
    assert_eq!(world.outcome(request), None);

    world.feed(Input::Shut { broker: API, round: 2, refused: 5 });
    assert!(matches!(world.outcome(request), Some(Outcome::Done(done)) if done.refused == 5));
    assert_eq!(world.status().state, BrokerState::Drained);
}

#[test]
fn a_drained_broker_starts_nothing_whatever_happens() {
    let mut world = World::ready([listening(2)]);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    let begin = world.log.len();
    world.ask(API, Verb::Recycle(None));
    world.ask(API, Verb::Scale(5));
    world.pass(secs(100_000));
    assert_eq!((spawns(&world.log[begin..]), world.app.deadline()), (0, None));
}

#[test]
fn held_connections_are_neither_quieted_nor_shut() {
    let mut world = World::ready([BrokerSpec { drained: Drained::Hold, ..listening(1) }]);
    let begin = world.log.len();
    let request = world.ask(API, Verb::Drain);
    world.everybody_obeys();
    assert!(is_done(&world.outcome(request)));
    assert_eq!(doors(&world.log[begin..]), Vec::<&str>::new());
}

#[test]
fn at_the_end_held_connections_are_refused_after_all() {
    let mut world = World::ready([BrokerSpec { drained: Drained::Hold, ..listening(1) }]);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    let effects = world.feed(Input::Stop { now: false });
    assert_eq!(doors(&effects), ["shut"]);
    assert!(effects.contains(&shiftboss_core::Effect::Exit));
}

#[test]
fn a_resume_opens_the_listeners_before_it_fills() {
    let mut world = World::ready([listening(1)]);
    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    world.answers = false;
    let begin = world.log.len();
    world.ask(API, Verb::Resume);
    assert_eq!((doors(&world.log[begin..]), spawns(&world.log[begin..])), (vec!["open"], 0));
}

#[test]
fn a_resume_while_quieting_keeps_the_workers() {
    let mut world = World::ready([listening(2)]);
    world.answers = false;
    world.ask(API, Verb::Drain);
    world.answers = true;
    let request = world.ask(API, Verb::Resume);
    assert!(is_done(&world.outcome(request)));
    assert_eq!((world.living.len(), world.leaving().len()), (2, 0));
    assert_eq!(world.feed(Input::Quiet { broker: API, round: 2 }), [], "the old drain has no say any more");
}

#[test]
fn a_new_version_taken_while_quieting_reaches_workers_that_were_kept() {
    let mut world = World::ready([listening(1)]);
    world.answers = false;
    world.ask(API, Verb::Drain);
    let next = BrokerSpec { launch: shiftboss_core::id::LaunchId(2), ..listening(1) };
    world.ask(API, Verb::Respecify(Box::new(next)));
    world.answers = true;
    world.ask(API, Verb::Resume);
    world.everybody_obeys();
    assert_eq!(world.living[&world.newest(0)].launch.0, 2);
    assert_eq!(world.status().ready(), 1);
}

#[test]
fn a_broker_is_said_to_wait_when_its_listener_fails() {
    let mut world = World::unanswered([listening(1)]);
    world.feed(Input::Opened { broker: API, round: 1, result: refused() });
    assert_eq!(world.said(|what| matches!(what, What::ListenerFailed { .. })), 1);
    assert_eq!(world.said(|what| matches!(what, What::BrokerWaiting { retry_at: Some(_) })), 1);
}

#[test]
fn a_resume_of_a_waiting_broker_tries_its_listeners_at_once() {
    let mut world = World::unanswered([listening(1)]);
    world.feed(Input::Opened { broker: API, round: 1, result: refused() });
    let begin = world.log.len();
    world.ask(API, Verb::Resume);
    assert_eq!(doors(&world.log[begin..]), ["open"]);
    assert_eq!(world.app.deadline(), None);
}

#[test]
fn a_listener_that_a_worker_asks_for_is_one_of_the_broker() {
    let mut world = World::ready([spec(1)]);
    let address = || "tcp://:4000".to_owned();
    let effects = world.feed(Input::Bound { broker: API, address: address() });
    assert!(told(&effects, |what| *what == What::ListenerBound { address: address() }));
    assert_eq!(world.feed(Input::Bound { broker: API, address: address() }), [], "once");
    assert_eq!((world.status().listen, world.app.listening()), (vec![address()], vec![API]));

    world.ask(API, Verb::Drain);
    world.everybody_obeys();
    assert_eq!(doors(&world.log), ["quiet", "shut"], "it refuses while drained");
    world.ask(API, Verb::Resume);
    assert_eq!(doors(&world.log), ["quiet", "shut", "open"]);
    world.everybody_obeys();
    assert_eq!(world.status().state, BrokerState::Open);

    let effects = world.feed(Input::Unbound { broker: API, address: address() });
    assert!(told(&effects, |what| *what == What::ListenerClosed { address: address() }));
    assert_eq!(world.feed(Input::Unbound { broker: API, address: address() }), [], "once");
    assert!(!world.status().listen.contains(&address()));
}

fn told(effects: &[Effect], what: impl Fn(&What) -> bool) -> bool {
    events(effects).any(|event| what(&event.what))
}
