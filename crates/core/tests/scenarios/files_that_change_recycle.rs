//! Changed files recycle a broker that watches them: once for many changes, ready before retire.

use crate::world::*;
use shiftboss_core::event::RecycleReason;
use shiftboss_core::id::Generation;
use shiftboss_core::spec::BrokerSpec;
use shiftboss_core::{Adoption, Effect, Input, Verb, What};

const DEBOUNCE: u64 = 200;

fn watching(workers: u32) -> BrokerSpec {
    BrokerSpec { watch: Some(millis(DEBOUNCE)), ..spec(workers) }
}

fn change(world: &mut World) -> Vec<Effect> {
    world.feed(Input::Changed { broker: API })
}

fn begun(world: &World) -> usize {
    world.said(|what| matches!(what, What::RecycleStarted { reason: RecycleReason::FilesChanged, .. }))
}

#[test]
fn a_change_replaces_all_workers_ready_before_retire() {
    let mut world = World::ready([watching(2)]);
    assert!(change(&mut world).is_empty());
    assert!(world.pass(millis(DEBOUNCE - 1)).is_empty());
    let effects = world.pass(millis(1));
    assert_eq!((begun(&world), spawns(&effects), signals(&world.log).len()), (1, 1, 0));
    world.everybody_obeys();
    assert_eq!(world.said(|what| matches!(what, What::RecycleFinished { replaced: 2, .. })), 1);
    assert_eq!(world.status().generation, Generation(1));
    assert_eq!(world.app.deadline(), None);
}

#[test]
fn many_changes_within_the_debounce_are_one_recycle() {
    let mut world = World::ready([watching(1)]);
    for _ in 0..5 {
        change(&mut world);
        world.pass(millis(DEBOUNCE / 2));
    }
    assert_eq!(begun(&world), 0);
    world.pass(secs(5));
    world.everybody_obeys();
    world.pass(secs(5));
    assert_eq!(begun(&world), 1);
}

#[test]
fn files_that_never_rest_are_not_waited_for_without_end() {
    let mut world = World::ready([watching(1)]);
    for _ in 0..25 {
        change(&mut world);
        world.pass(millis(DEBOUNCE / 2));
    }
    assert_eq!(begun(&world), 1);
}

#[test]
fn changes_during_a_recycle_make_exactly_one_more_afterwards() {
    let mut world = World::ready([watching(1)]);
    let asked = world.ask(API, Verb::Recycle(None));
    for _ in 0..3 {
        change(&mut world);
        world.pass(secs(1));
    }
    assert_eq!(begun(&world), 0);
    world.everybody_obeys();
    assert!(is_done(&world.outcome(asked)));
    assert_eq!(begun(&world), 1);
    world.pass(secs(5));
    world.everybody_obeys();
    assert_eq!(begun(&world), 1);
}

#[test]
fn the_recycle_that_a_hand_has_asked_for_meanwhile_does_for_the_changes_too() {
    let mut world = World::ready([watching(1)]);
    world.ask(API, Verb::Recycle(None));
    let waits = world.ask(API, Verb::Recycle(None));
    change(&mut world);
    world.pass(secs(1));
    world.everybody_obeys();
    assert!(is_done(&world.outcome(waits)));
    assert_eq!(begun(&world), 0);
}

#[test]
fn what_changes_while_sent_home_is_nothing_since_the_next_worker_is_new() {
    let mut world = World::ready([watching(1)]);
    change(&mut world);
    world.ask(API, Verb::Drain);
    assert_eq!(world.app.deadline(), Some(world.now + secs(30)));
    world.everybody_obeys();
    assert!(change(&mut world).is_empty());
    assert_eq!(world.app.deadline(), None);
    world.ask(API, Verb::Resume);
    world.pass(secs(1));
    assert_eq!(begun(&world), 0);
}

#[test]
fn a_recycle_that_fails_is_tried_again_with_the_next_change_and_not_before() {
    let mut world = World::ready([watching(1)]);
    change(&mut world);
    world.pass(secs(1));
    let successor = world.newest(0);
    world.crash(successor);
    assert_eq!(world.said(|what| matches!(what, What::RecycleFailed { .. })), 1);
    world.pass(secs(600));
    assert_eq!((begun(&world), world.living.len()), (1, 1));
    change(&mut world);
    world.pass(secs(1));
    world.everybody_obeys();
    assert_eq!((begun(&world), world.said(|what| matches!(what, What::RecycleFinished { .. }))), (2, 1));
}

#[test]
fn a_change_that_its_broker_does_not_ask_for_is_nothing() {
    let mut world = World::ready([spec(1)]);
    assert!(change(&mut world).is_empty());
    assert_eq!(world.app.deadline(), None);
}

#[test]
fn whoever_takes_over_goes_on_with_what_has_changed_unless_all_is_given_up() {
    for (how, recycles) in [(Adoption::Whole, 1), (Adoption::Salvage, 0)] {
        let mut world = World::ready([watching(1)]);
        change(&mut world);
        world.adopt(how);
        world.pass(secs(1));
        assert_eq!(begun(&world), recycles);
    }
}

#[test]
fn who_is_called_back_before_being_asked_to_leave_has_not_seen_the_change_either() {
    let mut world = World::ready([BrokerSpec { listens: true, ..watching(1) }]);
    world.answers = false;
    world.ask(API, Verb::Drain);
    change(&mut world);
    world.pass(secs(1));
    assert_eq!(doors(&world.log).last(), Some(&"quiet"));
    world.answers = true;
    world.ask(API, Verb::Resume);
    assert_eq!(begun(&world), 1);
    world.everybody_obeys();
    assert_eq!(world.said(|what| matches!(what, What::RecycleFinished { replaced: 1, .. })), 1);
}
