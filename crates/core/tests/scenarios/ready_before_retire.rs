//! A planned replacement starts the successor, waits until it is ready, then retires the predecessor.

use crate::world::*;
use shiftboss_core::id::Slot;
use shiftboss_core::{Effect, Exit, Verb, What};

#[test]
fn nobody_is_asked_to_leave_before_the_successor_is_ready() {
    let mut world = World::ready([spec(2)]);
    let old = world.newest(0);
    let begin = world.log.len();
    world.ask(API, Verb::Recycle(None));
    assert_eq!((spawns(&world.log[begin..]), signals(&world.log[begin..])), (1, vec![]));
    assert_eq!(world.status().ready(), 2);

    let successor = world.newest(0);
    let effects = world.say_ready(successor);
    assert_eq!(signals(&effects).first().map(|(worker, _)| *worker), Some(old));
}

#[test]
fn a_recycle_replaces_every_worker_and_never_serves_with_fewer() {
    let mut world = World::ready([spec(4)]);
    let before: Vec<_> = world.living.keys().copied().collect();
    let request = world.ask(API, Verb::Recycle(None));
    while world.outcome(request).is_none() {
        assert!(world.status().ready() >= 4);
        match world.leaving().first() {
            Some(worker) => drop(world.exit(*worker, Exit::Code(0))),
            None => world.all_ready(),
        }
    }
    assert!(is_done(&world.outcome(request)));
    assert!(before.iter().all(|worker| !world.living.contains_key(worker)));
    assert_eq!((world.living.len(), world.status().ready()), (4, 4));
}

#[test]
fn the_next_slot_waits_until_the_predecessor_is_gone() {
    let mut world = World::ready([spec(2)]);
    world.ask(API, Verb::Recycle(None));
    let successor = world.newest(0);
    let old = world.in_slot(0)[0];
    assert_eq!(spawns(&world.say_ready(successor)), 0, "surge counts the predecessor until it is gone");
    assert_eq!(spawns(&world.exit(old, Exit::Code(0))), 1);
}

#[test]
fn a_recycle_of_one_slot_leaves_the_others_alone() {
    let mut world = World::ready([spec(3)]);
    let (first, last) = (world.newest(0), world.newest(2));
    let request = world.ask(API, Verb::Recycle(Some(Slot(1))));
    world.everybody_obeys();
    assert!(is_done(&world.outcome(request)));
    assert!(world.living.contains_key(&first) && world.living.contains_key(&last));
}

#[test]
fn an_empty_slot_is_filled_by_the_recycle_without_its_back_off() {
    let mut world = World::ready([spec(1)]);
    for _ in 0..4 {
        if let Some(worker) = world.in_slot(0).first().copied() {
            world.crash(worker);
        }
        if world.in_slot(0).is_empty() {
            break;
        }
    }
    assert!(world.in_slot(0).is_empty());
    let request = world.ask(API, Verb::Recycle(None));
    assert_eq!(world.in_slot(0).len(), 1);
    world.all_ready();
    assert!(is_done(&world.outcome(request)));
}

#[test]
fn a_successor_that_is_still_proving_itself_takes_the_place_of_a_predecessor_that_dies() {
    let recycle = shiftboss_core::spec::RecycleSpec { min_ready: secs(5), ..Default::default() };
    let mut world = World::ready([recycling(1, recycle)]);
    let old = world.newest(0);
    world.ask(API, Verb::Recycle(None));
    world.all_ready();
    let effects = world.crash(old);
    assert_eq!((spawns(&effects), world.status().ready()), (0, 1));
    world.pass(secs(5));
    assert_eq!(world.said(|what| matches!(what, What::RecycleFinished { replaced: 1, .. })), 1);
    assert!(!world.log.iter().any(|effect| matches!(effect, Effect::Signal { .. })));
}
