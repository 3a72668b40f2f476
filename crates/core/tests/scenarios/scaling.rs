//! More workers, fewer workers, none.

use crate::world::*;
use shiftboss_core::{Exit, Verb};

#[test]
fn scaling_up_starts_only_the_new_slots_and_answers_when_they_are_ready() {
    let mut world = World::ready([spec(2)]);
    let begin = world.log.len();
    let request = world.ask(API, Verb::Scale(5));
    assert_eq!((spawns(&world.log[begin..]), world.outcome(request)), (3, None));
    world.all_ready();
    assert!(is_done(&world.outcome(request)));
}

#[test]
fn scaling_down_asks_the_highest_slots_to_leave_and_answers_when_they_have() {
    let mut world = World::ready([spec(4)]);
    let (one, three) = (world.newest(1), world.newest(3));
    let request = world.ask(API, Verb::Scale(2));
    assert!(world.leaving().contains(&three) && !world.leaving().contains(&one));
    assert_eq!(world.outcome(request), None);
    world.everybody_obeys();
    assert!(is_done(&world.outcome(request)));
    assert_eq!(world.living.len(), 2);
}

#[test]
fn a_worker_that_leaves_because_fewer_are_wanted_is_not_replaced() {
    let mut world = World::ready([spec(2)]);
    world.ask(API, Verb::Scale(1));
    let effects = world.exit(world.leaving()[0], Exit::Code(0));
    assert_eq!((spawns(&effects), world.status().deaths), (0, 0));
}

#[test]
fn no_workers_can_be_wanted() {
    let mut world = World::ready([spec(2)]);
    let request = world.ask(API, Verb::Scale(0));
    world.everybody_obeys();
    assert!(is_done(&world.outcome(request)));
    assert_eq!((world.living.len(), world.app.deadline()), (0, None));
}

#[test]
fn scaling_down_and_up_again_fills_the_slot_while_its_former_worker_leaves() {
    let mut world = World::ready([spec(2)]);
    world.ask(API, Verb::Scale(1));
    world.ask(API, Verb::Scale(2));
    assert_eq!(world.in_slot(1).len(), 2);
    world.everybody_obeys();
    assert_eq!((world.in_slot(1).len(), world.status().ready()), (1, 2));
}

#[test]
fn scaling_away_a_failing_slot_ends_its_back_off() {
    let mut world = World::ready([spec(2)]);
    world.crash(world.newest(1));
    world.crash(world.newest(1));
    assert!(world.status().degraded);
    world.ask(API, Verb::Scale(1));
    assert_eq!((world.status().degraded, world.app.deadline()), (false, None));
}

#[test]
fn a_slot_under_way_in_a_recycle_can_be_scaled_away_with_both_its_workers() {
    let mut world = World::ready([spec(1)]);
    let recycle = world.ask(API, Verb::Recycle(None));
    world.ask(API, Verb::Scale(0));
    assert_eq!(world.leaving().len(), 2);
    assert!(is_done(&world.outcome(recycle)));
    world.everybody_obeys();
    assert_eq!((world.living.len(), world.app.deadline()), (0, None));
}

#[test]
fn the_same_number_again_changes_nothing() {
    let mut world = World::ready([spec(2)]);
    let request = world.ask(API, Verb::Scale(2));
    assert!(is_done(&world.outcome(request)));
    assert_eq!((world.living.len(), world.leaving().len()), (2, 0));
}

/// However slowly the others leave.
#[test]
fn a_crash_after_a_scale_down_is_repaired_at_once() {
    let mut world = World::ready([spec(10)]);
    world.ask(API, Verb::Scale(1));
    let begin = world.log.len();
    world.crash(world.newest(0));
    assert_eq!(spawns(&world.log[begin..]), 1);
}

#[test]
fn workers_that_are_wanted_again_do_not_wait_for_those_that_leave() {
    let mut world = World::ready([spec(10)]);
    world.ask(API, Verb::Scale(0));
    let begin = world.log.len();
    world.ask(API, Verb::Scale(3));
    assert_eq!(spawns(&world.log[begin..]), 3);
    // To and fro as often as one likes, there are not more than twice as many.
    for wanted in [0, 10, 0, 10, 0, 10, 1, 9] {
        world.ask(API, Verb::Scale(wanted));
    }
    assert!(spawns(&world.log) <= 2 * 10 + 1, "{}", spawns(&world.log));
}
